"""``fastconv info`` and ``fastconv models``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from fastconv.cli.common import json_option, print_json, set_threads, table, usage_errors
from fastconv.cli.names import NamesAndMore

_SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@click.command()
@json_option
def info(as_json: bool) -> None:
    """Show processor, kernel tables, threads and why that many, build and versions."""
    set_threads(None)
    from fastconv import config

    if as_json:
        print_json(config.info())
    else:
        config.show_config()


@click.command()
@click.argument("name", required=False, type=NamesAndMore("models:ZOO", paths=False))
@click.option("--plan", is_flag=True, help="What a training step of NAME does and holds: fused layers, FLOPs, bytes.")
@click.option(
    "--dataset", type=click.Choice(list(_SHAPES)), default="mnist", show_default=True, help="For NAME: whose images."
)
@click.option("--batch", type=click.IntRange(1), show_default="64", help="For --plan: images per step.")
@json_option
def models(name: str | None, plan: bool, dataset: str, batch: int | None, as_json: bool) -> None:
    """List the nets of the zoo with their sizes, or show the layers or the plan of one."""
    from fastconv.models import ZOO

    if batch is not None and not plan:
        raise click.UsageError("--batch is for --plan")
    if name is not None:
        _show(name, dataset, (batch or 64) if plan else None, as_json)
        return
    if plan:
        raise click.UsageError("--plan needs the NAME of a net")
    entries: list[dict[str, Any]] = [
        {
            "name": recipe.name,
            "description": recipe.description,
            "parameters": {data: _count(recipe.name, shape) for data, shape in _SHAPES.items()},
        }
        for recipe in ZOO.values()
    ]
    if as_json:
        print_json({"models": entries})
        return
    head = ("model", *(f"{h}×{w}×{c}" for c, h, w in _SHAPES.values()), "")
    rows: list[tuple[Any, ...]] = [head]
    for entry in entries:
        counts = ("–" if n is None else f"{n:,}" for n in entry["parameters"].values())
        rows.append((entry["name"], *counts, entry["description"]))
    click.echo(table(rows, numbers=frozenset({1, 2, 3})))
    click.echo("\nFigures: parameters for 10 classes; – where it takes no such images.")


def _show(name: str, dataset: str, batch: int | None, as_json: bool) -> None:
    from fastconv import models as zoo

    try:
        model = zoo.build(name, _SHAPES[dataset], 10)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if batch is None:
        print_json({"model": repr(model)}) if as_json else click.echo(repr(model))
        return
    with usage_errors():
        plan = model.plan((batch, *_SHAPES[dataset]))
    if as_json:
        print_json({**asdict(plan), "flops": plan.flops, "parameters": plan.parameters, "total": plan.total})
    else:
        click.echo(f"{name}: {plan}")


def _count(name: str, shape: tuple[int, int, int]) -> int | None:
    from fastconv import models as zoo
    from fastconv import nn

    recipe = zoo.ZOO[name]
    if min(shape[1:]) < recipe.smallest or recipe.channels not in (None, shape[0]):
        return None
    with nn.blank():
        return sum(param.data.size for param in zoo.build(name, shape, 10).parameters())
