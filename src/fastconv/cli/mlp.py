"""``fastconv mlp``: a net of one hidden layer on any image data set, the plain companion of the deep nets."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fastconv.cli.common import (
    BY_SIGNAL,
    DIVERGED,
    Commands,
    Number,
    Place,
    check_length,
    data_options,
    json_option,
    length_options,
    load_data,
    print_json,
    set_threads,
    steps_of,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.signals import EndRequest
from fastconv.terminal import percent

if TYPE_CHECKING:
    from fastconv.steps import Report, StepRun


def _files(command: Any) -> Any:
    weights = click.option(
        "--weights", type=Place(), default="mlp.safetensors", show_default=True,
        help="File of the net; its step stands beside it in a .json.",
    )  # fmt: skip
    return weights(data_options(command))


@click.group(cls=Commands)
def mlp() -> None:
    """Train a net of one hidden layer: pixels, linear + ReLU, linear, softmax."""


@mlp.command()
@_files
@click.option("--hidden", type=click.IntRange(min=1), default=128, show_default=True, help="Hidden units.")
@length_options
@click.option(
    "--batch-size", "--batch", "batch", type=click.IntRange(min=1), default=128, show_default=True,
    help="Images an update.",
)  # fmt: skip
@click.option("--lr", type=Number(min=0, min_open=True), default=0.05, show_default=True, help="Learning rate.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of all draws.")
@click.option("--report-every", type=click.IntRange(min=1), default=500, show_default=True, help="Steps a line.")
@threads_option
@json_option
@click.pass_context
def train(
    ctx: click.Context, weights: Path, dataset: str, data_dir: Path | None, hidden: int, steps: int | None,
    epochs: int | None, batch: int, lr: float, seed: int, report_every: int, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Train by plain SGD; a net that is there is trained on, from the step and sample where it stopped.

    Ctrl-C and SIGTERM end it after the running step; the net is saved and the exit code 130 or 143.
    """
    check_length(steps, epochs)
    set_threads(threads)
    with usage_errors():
        from fastconv.steps import StepRun
        from fastconv.train import Diverged
        from fastconv.train.mlp import MlpTraining

        training = ctx.with_resource(
            MlpTraining(
                weights, lambda: load_data(dataset, data_dir), hidden=hidden, batch=batch, lr=lr, seed=seed
            )
        )
    people = sys.stderr if as_json else sys.stdout
    ending = EndRequest(lambda name: f"{name}: stopping after this step (again: at once, and nothing is saved)")
    run = StepRun(
        training.take, steps_of(steps, epochs, len(training.batches)), ending=ending,
        report=lambda *about: click.echo(_line(*about), file=people), report_every=report_every,
    )  # fmt: skip
    try:
        with ending:
            run.go()
    except Diverged:
        loss, step = training.loss, training.step + 1
        click.echo(f"diverged: the loss is {loss} in step {step}; nothing was saved", err=True)
        ctx.exit(DIVERGED)
    with usage_errors("--weights: "):
        training.save()
    if as_json:
        assert run.last is not None
        print_json({"loss": run.last.loss, "batch_accuracy": run.last.accuracy, "step_seconds": run.median,
                    "steps": run.done, "step": training.step})  # fmt: skip
    if ending.number is not None:
        ctx.exit(BY_SIGNAL + ending.number)


def _line(run: StepRun, last: Report) -> str:
    return f"step {last.step:>7}  loss {last.loss:.4f}  accuracy {percent(last.accuracy)}  {run.median:.3g} s a step"


@mlp.command("eval")
@_files
@threads_option
@json_option
def evaluate(weights: Path, dataset: str, data_dir: Path | None, threads: int | None, as_json: bool) -> None:
    """Test a net on the test images."""
    set_threads(threads)
    with usage_errors():
        from fastconv import functional
        from fastconv.train.mlp import load_net

        images = load_data(dataset, data_dir)
        if not weights.exists():
            raise FileNotFoundError(f"there is no net {weights}; 'fastconv mlp train --weights {weights}' makes one")
        model = load_net(weights, images)
    start = time.perf_counter()
    x = images.test.images.astype(np.float32) / np.float32(images.levels)
    output = model.predict(x, batch_size=1000)
    found: dict[str, Any] = {
        "test_loss": functional.cross_entropy(output, images.test.labels),
        "test_accuracy": float((output.argmax(axis=1) == images.test.labels).mean()),
        "seconds": time.perf_counter() - start,
    }
    click.echo(f"test loss {found['test_loss']:.4f}  accuracy {percent(found['test_accuracy'])}", err=as_json)
    if as_json:
        print_json(found)
