"""``fastconv mlp``: a net of one hidden layer on any image data set, the plain companion of the deep nets."""

from __future__ import annotations

import signal
import sys
import time
from functools import cache
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
    json_option,
    print_json,
    set_threads,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.cli.steps import (
    check_length,
    check_schedule,
    data_options,
    length_options,
    load_data,
    named_in,
    out_option,
    run_of,
    schedule_option,
    steps_of,
    weights_of,
)  # fmt: skip
from fastconv.paths import printable
from fastconv.signals import EndRequest
from fastconv.terminal import percent

if TYPE_CHECKING:
    from fastconv.steps import Report, StepRun
    from fastconv.train import RunRecord
    from fastconv.train.mlp import MlpTraining
    from fastconv.train.step_folder import StepFolder

_DEFAULTS: dict[str, Any] = {"hidden": 128, "batch_size": 128, "lr": 0.05, "schedule": "constant", "seed": 0}


def _files(command: Any) -> Any:
    weights = click.option(
        "--weights", type=Place(), show_default="mlp.safetensors, in --out where that is given",
        help="File of the net; its step stands beside it in a .json.",
    )  # fmt: skip
    return weights(data_options(command))


@click.group(cls=Commands)
def mlp() -> None:
    """Train a net of one hidden layer: pixels, linear + ReLU, linear, softmax."""


@mlp.command()
@_files
@click.option("--hidden", type=click.IntRange(min=1), help="Hidden units of a new net; 128 by default.")
@length_options
@click.option(
    "--batch-size", "--batch", "batch_size", type=click.IntRange(min=1), help="Images per update; 128 by default."
)
@click.option("--lr", type=Number(min=0, min_open=True), help="Learning rate; 0.05 by default.")
@schedule_option
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Of all draws; 0 by default.")
@click.option("--report-every", type=click.IntRange(min=1), default=500, show_default=True, help="Steps per line.")
@out_option
@click.option("--resume", is_flag=True, help="Go on with the run in --out: order, seed, batch and rates.")
@threads_option
@json_option
@click.pass_context
def train(
    ctx: click.Context, weights: Path | None, dataset: str | None, data_dir: Path | None, steps: int | None,
    epochs: int | None, report_every: int, out: Path | None, resume: bool, threads: int | None, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Train by plain SGD; a net that is there is trained on, from the step and sample where it stopped.

    Ctrl-C and SIGTERM end it after the running step; the net is saved and the exit code 130 or 143.
    With --out the run stands in 'fastconv runs', 'plot' and 'report', and 'fastconv eval DIR' tests its net.
    """
    check_length(steps, epochs)
    check_schedule(given["schedule"], out)
    set_threads(threads)
    with usage_errors():
        from fastconv.steps import StepRun
        from fastconv.train import Diverged

        if resume and out is None:
            raise ValueError("--resume goes on with the run in a folder: --out DIR; a net in --weights does by itself")
        run = run_of(out, weights, resume, "mlp")
        training, folder, length = _opened(
            ctx, weights, dataset, data_dir, (steps, epochs), report_every, out, run, given
        )
    people = sys.stderr if as_json else sys.stdout
    ending = EndRequest(lambda name: f"{name}: stopping after this step (again: at once, and nothing is saved)")
    going = StepRun(
        training.take, length, ending=ending, record=folder.step if folder else None, save=training.save,
        report=lambda *about: click.echo(_line(*about), file=people), report_every=report_every,
    )  # fmt: skip
    try:
        with usage_errors(), ending:
            going.go()
    except Diverged as error:
        loss, step = training.loss, training.step + 1
        click.echo(f"diverged: the loss is {loss} in step {step}; nothing was saved", err=True)
        if folder is not None:
            with usage_errors("--out: "):
                folder.finish("diverged", reason=str(error), steps=training.step)
        ctx.exit(DIVERGED)
    if folder is not None:
        with usage_errors("--out: "):
            _finish(folder, training, going, ending.number, people)
    if as_json:
        assert going.last is not None
        print_json({"loss": going.last.loss, "batch_accuracy": going.last.accuracy, "step_seconds": going.median,
                    "steps": going.done, "step": training.step})  # fmt: skip
    if ending.number is not None:
        ctx.exit(BY_SIGNAL + ending.number)


def _opened(
    ctx: click.Context, weights: Path | None, dataset: str | None, data_dir: Path | None,
    length: tuple[int | None, int | None], every: int, out: Path | None, run: RunRecord | None, given: dict[str, Any],
) -> tuple[MlpTraining, StepFolder | None, int]:  # fmt: skip
    """Return a net in training, the folder of the run if it has one, and the steps that it gets."""
    from fastconv.data import resolve
    from fastconv.train import RunWriter
    from fastconv.train.mlp import MlpTraining
    from fastconv.train.step_folder import Rates, StepFolder, describe, goes_on, take_up, withdrawn
    from fastconv.train.tally import Tally

    if run is not None:
        goes_on(run, {**given, "dataset": dataset and resolve(dataset)})
        own = {**run.config["net"], **run.config["options"]}
        dataset, given = own["dataset"], {name: own.get(name) for name in given}
    chosen = {name: _DEFAULTS[name] if value is None else value for name, value in given.items()}
    path, name = weights_of(out, weights, run, "mlp.safetensors"), dataset or "mnist"
    images = cache(lambda: load_data(name, data_dir))
    batch = chosen["batch_size"]

    def rates(done: int, each: int) -> Rates:
        return Rates.of(chosen["schedule"], run, done, steps_of(*length, each, run, done))

    def config(done: int) -> dict[str, Any]:
        assert out is not None
        each = max(1, len(images().train.labels) // batch)
        net = {"weights": named_in(out, path), "hidden": chosen["hidden"]}
        options = {name: chosen[name] for name in ("batch_size", "lr", "seed")}
        return describe("mlp", name, images(), options, net, rates(done, each), each)

    if out is None:
        rates(0, 1)  # what needs a folder is refused before a net is opened
    writer = None if out is None or run is not None else RunWriter.start(out, config(0))
    with withdrawn(writer):
        training = ctx.with_resource(
            MlpTraining(path, images, hidden=chosen["hidden"], batch=batch, lr=chosen["lr"], seed=chosen["seed"])
        )
        if (hidden := given["hidden"]) is not None and [hidden] != (units := training.hidden):
            has = f"{units[0]} hidden units" if len(units) == 1 else f"{len(units)} hidden layers"
            raise ValueError(f"--hidden {hidden}, but the net {path} has {has}")
        done, tally = training.step, Tally()
        steps = steps_of(*length, len(training.batches), run, done)
        training.schedule = factors = rates(done, len(training.batches))
        if run is not None:
            writer, tally = take_up(run, done, config(done))
        elif writer is not None and done:
            writer.reconfigure(config(done))
    if writer is None:
        return training, None, steps
    folder = StepFolder(
        ctx.with_resource(writer), lambda: divmod(training.step, len(training.batches)), batch=batch,
        rate=lambda step: chosen["lr"] * factors(step), every=every, step=done, tally=tally,
    )  # fmt: skip
    return training, folder, steps


def _finish(folder: StepFolder, training: MlpTraining, run: StepRun, number: int | None, people: Any) -> None:
    """Write how a run ended: what a test finds, if it came to its end."""
    from fastconv.train import state_sha256

    facts = {"steps": training.step, "train_seconds": sum(run.seconds), "state_sha256": state_sha256(training.model)}
    if number is not None:
        folder.finish("interrupted", reason=signal.Signals(number).name, model=training.model, **facts)
    else:
        tested, told = training.test()
        folder.finish("finished", model=training.model, test=told, **facts, **tested)
    click.echo(f"saved {printable(folder.writer.folder)}", file=people)


def _line(run: StepRun, last: Report) -> str:
    return f"step {last.step:>7}  loss {last.loss:.4f}  accuracy {percent(last.accuracy)}  {run.median:.3g} s per step"


@mlp.command("eval")
@_files
@threads_option
@json_option
def evaluate(
    weights: Path | None, dataset: str | None, data_dir: Path | None, threads: int | None, as_json: bool
) -> None:
    """Test a net on the test images."""
    set_threads(threads)
    with usage_errors():
        from fastconv import functional
        from fastconv.train.mlp import load_net

        images, weights = load_data(dataset or "mnist", data_dir), weights_of(None, weights, None, "mlp.safetensors")
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
