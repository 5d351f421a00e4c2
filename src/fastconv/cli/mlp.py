"""``fastconv mlp``: a net of one hidden layer on any image data set, the plain companion of the deep nets."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fastconv import schema
from fastconv.cli.common import (
    BY_SIGNAL,
    DIVERGED,
    Commands,
    Number,
    Place,
    data_options,
    json_option,
    load_data,
    print_json,
    set_threads,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.signals import EndRequest

if TYPE_CHECKING:
    from fastconv import nn
    from fastconv.data import Dataset

_RECORD = schema.Record(
    {"step": schema.Integer(0, 2**53)}, {"before": schema.Integer(0, 2**53), "state_sha256": schema.Null(schema.Text())}
)


def _files(command: Any) -> Any:
    weights = click.option(
        "--weights", type=Place(), default="mlp.safetensors", show_default=True,
        help="File of the net; its step stands beside it in a .json.",
    )  # fmt: skip
    return weights(data_options(command))


_SMALL = 64 << 10  # bytes on the disk of what is no weights


@click.group(cls=Commands)
def mlp() -> None:
    """Train a net of one hidden layer: pixels, linear + ReLU, linear, softmax."""


@mlp.command()
@_files
@click.option("--hidden", type=click.IntRange(min=1), default=128, show_default=True, help="Hidden units.")
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Updates.")
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Images an update.")
@click.option("--lr", type=Number(min=0, min_open=True), default=0.05, show_default=True, help="Learning rate.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of all draws.")
@click.option("--report-every", type=click.IntRange(min=1), default=500, show_default=True, help="Steps a line.")
@threads_option
@json_option
@click.pass_context
def train(
    ctx: click.Context, weights: Path, dataset: str, data_dir: Path | None, hidden: int, steps: int, batch: int,
    lr: float, seed: int, report_every: int, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Train by plain SGD; a net that is there is trained on, from the step and sample where it stopped.

    Ctrl-C and SIGTERM end it after the running step; the net is saved and the exit code 130 or 143.
    """
    set_threads(threads)
    with usage_errors():
        from fastconv import data, init, nn, optim, serialize
        from fastconv.locks import Lock
        from fastconv.serialize.files import Room, write_json
        from fastconv.train import state_sha256

        record = weights.with_name(weights.name + ".json")
        if not weights.absolute().parent.is_dir():
            raise FileNotFoundError(f"--weights {weights}: there is no folder {weights.parent}")
        ctx.with_resource(Lock(weights, "another process is training this net; try again when it has ended"))
        images = load_data(dataset, data_dir)
        new = not weights.exists()
        if not new:
            model = _net(weights, images)
            done = _steps_done(record, model)
        else:
            pixels = int(np.prod(images.shape))
            model = nn.Sequential(
                nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, len(images.classes))
            )
            init.apply(model, "xavier", seed)
            done = 0
        batches = data.Batches(*images.train, batch, seed=seed, drop_last=True)
        if not len(batches):
            raise ValueError(f"--batch {batch}: there are {len(images.train.labels)} training images")
        nbytes = sum(array.nbytes for _, array in model.named_state()) + _SMALL
        room = ctx.with_resource(Room(weights.absolute().parent, nbytes))
    loss, step_of = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr)
    seconds, value, right, step = [], float("nan"), 0.0, done
    with EndRequest(lambda name: f"{name}: stopping after this step (again: at once, and nothing is saved)") as ending:
        while step < done + steps:
            start = time.perf_counter()
            x, labels = batches.batch(*divmod(step, len(batches)))
            output = model(x / np.float32(images.levels))
            value, right = loss(output, labels), float((output.argmax(axis=1) == labels).mean())
            step += 1
            if not np.isfinite(value):
                click.echo(f"diverged: the loss is {value} in step {step}; nothing was saved", err=True)
                ctx.exit(DIVERGED)
            model.zero_grad()
            model.backward(loss.backward())
            step_of.step()
            seconds.append(time.perf_counter() - start)
            if (step - done) % report_every == 0 or step == done + steps:
                click.echo(
                    f"step {step:>7}  loss {value:.4f}  accuracy {right:.3f}  "
                    f"{statistics.median(seconds):.3g} s a step",
                    file=sys.stderr if as_json else sys.stdout,
                )
            if ending.number is not None:
                break
    with usage_errors("--weights: "):
        room.close()
        try:
            # whoever is killed between the two leaves a net that the record does not name: then the step before counts
            write_json(record, {"step": step, "before": done, "state_sha256": state_sha256(model),
                                "seed": seed, "batch": batch})  # fmt: skip
            serialize.save(model, weights)
        except OSError:
            if new:
                record.unlink(missing_ok=True)
            raise
    if as_json:
        print_json({"loss": value, "batch_accuracy": right, "step_seconds": statistics.median(seconds),
                    "steps": step - done, "step": step})  # fmt: skip
    if ending.number is not None:
        ctx.exit(BY_SIGNAL + ending.number)


def _net(weights: Path, images: Dataset) -> Any:
    """Read a net that must fit a data set."""
    from fastconv import serialize

    model, one = serialize.load(weights), np.zeros((1, *images.shape), np.float32)
    try:
        shape = model.predict(one).shape
    except ValueError as error:
        raise ValueError(f"{weights} does not take the images of {images.name}: {error}") from None
    if shape != (1, len(images.classes)):
        raise ValueError(f"{weights} gives scores of shape {shape}, {images.name} has {len(images.classes)} classes")
    return model


def _steps_done(record: Path, model: nn.Module) -> int:
    """Return at which step a net was saved, as the record beside it says."""
    from fastconv.train import state_sha256

    if not record.is_file():  # a pipe's text would never end
        raise FileNotFoundError(
            f"{record} is missing, which says at which step the net was saved; give another --weights to start anew"
        )
    try:
        told = schema.read(record, _RECORD)
        named = told.get("state_sha256") in (None, state_sha256(model))  # none: written by an earlier version
        if not named and "before" not in told:
            raise ValueError("it names another net, and no step before")
    except ValueError as error:
        raise ValueError(f"{record}: not the record of a net: {error}") from None
    step: int = told["step" if named else "before"]
    return step


@mlp.command("eval")
@_files
@threads_option
@json_option
def evaluate(weights: Path, dataset: str, data_dir: Path | None, threads: int | None, as_json: bool) -> None:
    """Test a net on the test images."""
    set_threads(threads)
    with usage_errors():
        from fastconv import functional

        images = load_data(dataset, data_dir)
        if not weights.exists():
            raise FileNotFoundError(f"there is no net {weights}; 'fastconv mlp train --weights {weights}' makes one")
        model = _net(weights, images)
    start = time.perf_counter()
    x = images.test.images.astype(np.float32) / np.float32(images.levels)
    output = model.predict(x, batch_size=1000)
    found = {
        "test_loss": functional.cross_entropy(output, images.test.labels),
        "test_accuracy": float((output.argmax(axis=1) == images.test.labels).mean()),
        "seconds": time.perf_counter() - start,
    }
    click.echo(f"test loss {found['test_loss']:.4f}  accuracy {found['test_accuracy']:.4f}", err=as_json)
    if as_json:
        print_json(found)
