"""``fastconv check``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fastconv.cli.common import (
    SOMETHING_WRONG,
    Number,
    Place,
    json_option,
    print_json,
    set_threads,
    threads_option,
    training_options,
    usage_errors,
)  # fmt: skip

if TYPE_CHECKING:
    from fastconv.diagnose import Finding, Verdict
    from fastconv.train.setup import Setup

_COLOURS = {"good": "green", "suspicious": "yellow", "wrong": "red"}


@click.command()
@training_options()
@click.option(
    "--run", "folder", type=Place(exists=True, file_okay=False), metavar="DIR",
    help="Start from the options of this run; those given here come first.",
)  # fmt: skip
@click.option(
    "--seconds", type=Number(min=0, min_open=True), default=10.0, show_default=True,
    help="About what a step may take; large nets are looked at more closely with more.",
)  # fmt: skip
@threads_option
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    dataset: str,
    folder: Path | None,
    seconds: float,
    threads: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Look for mistakes before training, with the options of 'fastconv train'.

    Six steps, in the order in which a person would go about it: the data; the loss before training; gradients
    against differences; the signal through the layers; learning twenty images by heart; and which learning
    rates are too low, good, or explode. Each says good, suspicious or wrong, what it saw, and what to change.
    Exit code 4 when something is wrong.
    """
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    width = min(max(shutil.get_terminal_size((92, 24)).columns - 2, 60), 100)
    with usage_errors():
        from fastconv.diagnose import Verdict, check
        from fastconv.train.run import read_record, trained
        from fastconv.train.setup import Options, fill, prepare

        if folder is not None:
            record = read_record(folder)
            before = asdict(Options.of(trained(folder, record.config)["options"]))
            if ctx.get_parameter_source("dataset") == ParameterSource.DEFAULT:
                dataset = before["dataset"]
            given = {**before, **{name: value for name, value in given.items() if value is not None}}
            del given["dataset"]
        setup = prepare(fill(dataset, **given), progress=False)
    click.echo(_opening(setup), file=people)
    number = 0

    def show(finding: Finding) -> None:
        nonlocal number
        number += 1
        click.echo(finding.text(number, width, _paint) + "\n", file=people)

    options = setup.options
    report = check(
        setup.model, setup.train, setup.validation, loss=setup.loss, optimizer=setup.trainer.optimizer,
        l2=options.l2, seed=options.seed, seconds=seconds, watch=show,
    )  # fmt: skip
    click.echo(report.closing(), file=people)
    if as_json:
        print_json({"dataset": options.dataset, "model": options.model, "seed": options.seed, **report.to_dict()})
    if report.verdict == Verdict.WRONG:
        ctx.exit(SOMETHING_WRONG)


def _paint(text: str, verdict: Verdict) -> str:
    return click.style(text, fg=_COLOURS[str(verdict)])


def _opening(setup: Setup) -> str:
    options = setup.options
    weights = sum(param.data.size for param in setup.model.parameters())
    notes = "".join(f"{name}: {text}\n" for name, text in setup.start.notes.items())
    return (
        f"{options.model} ({weights:,} parameters, init {options.init}, seed {options.seed}) on {options.dataset}, "
        f"{options.optimizer} lr {options.lr:g}, batches of {options.batch_size}\n{notes}"
    )
