"""``fastconv train``."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource

from fastconv.cli import tables
from fastconv.cli.common import (
    BY_SIGNAL,
    DIVERGED,
    Place,
    json_option,
    print_json,
    set_threads,
    threads_option,
    training_options,
    usage_errors,
)  # fmt: skip
from fastconv.paths import printable
from fastconv.terminal import percent

if TYPE_CHECKING:
    from fastconv.data import Dataset
    from fastconv.train import Callback, Evaluation, RunWriter
    from fastconv.train.setup import Options, Setup

_SHOWN = 10  # damaged files


class Every(click.ParamType):
    """An interval: a number of steps, or a time such as 30s, 5min, 1.5h."""

    name = "interval"
    _SECONDS: ClassVar = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            self.parts(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    @classmethod
    def parts(cls, text: str) -> dict[str, Any]:
        """Return the interval as an argument of `Checkpoint`; a ValueError if it is none."""
        number = text.strip().rstrip("secmihn ")
        unit = text.strip()[len(number) :].strip()
        try:
            interval = {"seconds": float(number) * cls._SECONDS[unit]} if unit else {"steps": int(number)}
            if not 0 < next(iter(interval.values())) < math.inf:
                raise ValueError
        except (ValueError, KeyError):
            raise ValueError(f"{text!r} is no interval; write 500 (steps), 30s, 5min or 1h") from None
        return interval


@click.command()
@training_options()
@threads_option
@click.option("--out", type=Place(), metavar="DIR", help="New folder of the run: figures, net.")
@click.option(
    "--checkpoint-every", type=Every(), metavar="STEPS|TIME",
    help="With DIR: save all it takes to go on, every 500 (steps), 30s, 5min, 1h ...; 5min by default.",
)  # fmt: skip
@click.option(
    "--watch-every", type=click.IntRange(min=1), metavar="K",
    help="Look at updates, gradients and activations every K steps: advice, and figures in DIR.",
)  # fmt: skip
@click.option("--tensorboard", is_flag=True, default=None, help="Write event files for TensorBoard into DIR.")
@click.option(
    "--resume", type=Place(), metavar="DIR",
    help="Go on with the run in DIR, killed or interrupted, to the bits of one never stopped; with more --epochs also "
    "one that finished, if its schedule is constant.",
)  # fmt: skip
@json_option
@click.pass_context
def train(
    ctx: click.Context, dataset: str, threads: int | None, out: Path | None, resume: Path | None,
    checkpoint_every: str | None, watch_every: int | None, tensorboard: bool | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a net, show how it goes, and test it.

    Without options a small convnet learns handwritten digits in a few seconds. What is not given is
    chosen for the data set. Two runs with the same options have the same weights to the last bit,
    whatever the threads and the instruction set.

    With --out, Ctrl-C and SIGTERM end a run after the running step, at a checkpoint from which --resume
    goes on; the exit code is then 130 or 143. It is 3 when a run diverges.
    """
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    asked = {"checkpoint_every": checkpoint_every, "watch_every": watch_every, "tensorboard": tensorboard}
    setup: Setup
    writer: RunWriter | None
    with usage_errors():
        if resume is not None:
            if ctx.get_parameter_source("dataset") is not ParameterSource.DEFAULT:
                given["dataset"] = dataset
            setup, writer = _resumed(resume, out, given, asked, people)
        else:
            setup, writer = _started(out, {"dataset": dataset, **given}, asked, people)
    click.echo(_opening(setup), file=people)
    if resume is not None:
        click.echo(f"{'resumed':<14} at step {setup.trainer.step:,}\n", file=people)
    result, code, test = _fit(setup, resume is not None, people)
    if writer is not None:
        with usage_errors("--out: "):
            keeps = result["status"] != "diverged" or setup.trainer.best_epoch is not None
            writer.finish(result, setup.model if keeps else None, test, setup.start.made_of)
        click.echo(_saved(writer.folder, result["status"], keeps), file=people)
    if as_json:
        print_json(result)
    ctx.exit(code)


def _started(
    out: Path | None, given: dict[str, Any], asked: dict[str, Any], people: Any
) -> tuple[Setup, RunWriter | None]:
    """Set up a new run, and its folder if it shall have one."""
    from fastconv.train import RunWriter
    from fastconv.train.setup import check_parts, fill, prepare
    from fastconv.train.writer import check_vacant

    if out is None:
        for name in ("checkpoint_every", "tensorboard"):
            if asked[name] is not None:
                raise ValueError(f"--{name.replace('_', '-')} needs a folder: --out DIR")
    else:
        check_vacant(out)
    observed = {"checkpoint_every": "5min", "tensorboard": False} | {k: v for k, v in asked.items() if v is not None}
    options = fill(**given)
    setup = prepare(options, _observers(out, observed, people, options.schedule), progress=False)
    check_parts(options.validation, setup.trained_on, setup.set_aside)
    if out is None:
        return setup, None
    writer = RunWriter.start(out, {**setup.describe(), "observed": observed}, setup.model)
    setup.trainer.callbacks.insert(0, writer)
    return setup, writer


def _resumed(
    folder: Path, out: Path | None, given: dict[str, Any], asked: dict[str, Any], people: Any
) -> tuple[Setup, RunWriter]:
    """Set up a run that stands in its folder, at its newest checkpoint."""
    from fastconv.train import read_record
    from fastconv.train.resume import options_of, take_up
    from fastconv.train.setup import prepare

    if out is not None and out.resolve() != folder.resolve():
        raise ValueError(f"--resume goes on in {folder}; --out {out} contradicts it")
    record = read_record(folder)
    options = options_of(record, given)
    observed = record.config.get("observed", {})
    for name in ("watch_every", "tensorboard"):
        if asked[name] is not None and asked[name] != observed.get(name):
            flag, own = f"--{name.replace('_', '-')}", observed.get(name)
            raise ValueError(f"{folder} was started {f'with {flag} {own}' if own else f'without {flag}'}")
    observed = {"checkpoint_every": "5min", **observed}
    observed["checkpoint_every"] = asked["checkpoint_every"] or observed["checkpoint_every"]
    setup = prepare(options, _observers(folder, observed, people, options.schedule), progress=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            writer = take_up(setup, record)
        finally:
            for warning in caught:
                click.echo(printable(f"warning: {warning.message}"), err=True)
    setup.trainer.callbacks.insert(0, writer)
    return setup, writer


def _observers(folder: Path | None, observed: dict[str, Any], people: Any, schedule: str) -> list[Callback]:
    """Return the callbacks that change nothing in a run."""
    from fastconv.diagnose import Watch
    from fastconv.train import Checkpoint, Progress, TensorBoard
    from fastconv.train.run import CHECKPOINTS, TENSORBOARD

    observers: list[Callback] = []
    if folder is not None:
        interval = Every.parts(observed["checkpoint_every"])  # a run of a constant rate may go on to more epochs
        observers.append(Checkpoint(folder / CHECKPOINTS, **interval, final=schedule == "constant"))
    if folder is not None and observed.get("tensorboard"):
        observers.append(TensorBoard(folder / TENSORBOARD))
    if observed.get("watch_every"):
        observers.append(Watch(observed["watch_every"], say=lambda line: click.echo(line, file=people)))
    return [*observers, Progress(people)]


def _fit(setup: Setup, resume: bool, people: Any) -> tuple[dict[str, Any], int, dict[str, Any] | None]:
    """Train and test; return the result, the exit code and what the test told."""
    from fastconv.train import Diverged, Interrupted, evaluate, state_sha256
    from fastconv.train.mistakes import Mistakes, told, told_numbers

    trainer, options = setup.trainer, setup.options
    result, test = _facts(setup), None
    try:
        if resume:
            trainer.resume(setup.train, setup.validation)
        else:
            trainer.fit(setup.train, setup.validation, epochs=options.epochs)
    except Diverged as error:
        click.echo(f"diverged: {error}; try a lower learning rate than {options.lr:g}", err=True)
        found, code = {"status": "diverged", "diverged": True, "reason": str(error)}, DIVERGED
        found |= {"layer": error.layer, "tensor": error.tensor}
    except Interrupted as error:
        click.echo(f"interrupted: {error}", err=True)
        found, code = {"status": "interrupted", "reason": error.signal.name}, BY_SIGNAL + error.signal
    else:
        found, code = {"status": "stopped" if trainer.stop_reason else "finished", "reason": trainer.stop_reason}, 0
    result |= found | {
        "steps": trainer.step,
        "epochs": len(trainer.history),
        "train_seconds": sum(trainer.history["seconds"]),
        "best_epoch": trainer.best_epoch,
    }
    if code == 0:
        mistakes = Mistakes()
        tested = evaluate(setup.model, setup.loss, setup.test, metrics=trainer.metrics, watch=mistakes)
        if setup.scale is not None:
            test = told_numbers(setup.dataset, setup.predicted())
        elif tested.confusion is not None:
            test = told(setup.dataset, tested.confusion, mistakes, lambda x: setup.model.predict(setup.standardizer(x)))
        result |= {
            "test_accuracy": tested.accuracy, "test_loss": tested.loss,
            **{f"test_{name}": value for name, value in tested.metrics.items()},
            "state_sha256": state_sha256(setup.model),
        }  # fmt: skip
        click.echo(_closing(result, tested, setup.dataset, test), file=people)
    if setup.dataset.damaged:
        click.echo(_damaged(setup.dataset.damaged), err=True)
    return result, code, test


def _damaged(reasons: tuple[str, ...]) -> str:
    """Say which files of a folder were left out; of many the first ones."""
    shown = [f"  {printable(reason)}" for reason in reasons[:_SHOWN]]
    if len(reasons) > _SHOWN:
        shown.append(f"  and {len(reasons) - _SHOWN:,} more")
    many = "s were" if len(reasons) > 1 else " was"
    return "\n".join([f"{len(reasons):,} damaged file{many} left out:", *shown])


def _saved(folder: Path, status: str, model: bool) -> str:
    name = printable(folder)
    then = f": see 'fastconv eval {name}'" if model else ": figures alone"
    if status == "interrupted":
        then = f": go on with 'fastconv train --resume {name}'"
    return f"{'saved':<14} {name}{then}"


def _facts(setup: Setup) -> dict[str, Any]:
    from fastconv import config

    return {
        "dataset": setup.options.dataset,
        "model": setup.options.model,
        "seed": setup.options.seed,
        "isa": config.isa(),
        "threads": config.threads(),
    }


def _opening(setup: Setup) -> str:
    from fastconv import config

    options, dataset = setup.options, setup.dataset
    aside = f", {setup.set_aside:,} for validation" if setup.set_aside else ""
    alone = dataset.validation is not None and dataset.test.images is dataset.validation.images
    weights = sum(param.data.size for param in setup.model.parameters())
    rows = {
        "data": f"{printable(dataset.name)}: {_kind(dataset)}: "
        f"{setup.trained_on:,} to train on{aside}, "
        + ("the same to test on" if alone else f"{len(dataset.test.labels):,} to test on"),
        "model": f"{options.model}: {weights:,} parameters, init {options.init}, seed {options.seed}",
        **setup.start.notes,
        "optimiser": ", ".join(_method(options)),
        "machine": f"{config.isa()} kernels, {config.threads()} thread{'s' * (config.threads() > 1)}",
    }
    return "".join(f"{name:<14} {text}\n" for name, text in rows.items())


def _kind(dataset: Dataset) -> str:
    told = f"numbers ({dataset.target})" if dataset.numbers else f"{len(dataset.classes)} classes"
    if dataset.columns:
        return f"{told}, rows of {len(dataset.columns)} columns"
    channels, height, width = dataset.shape
    return f"{told}, images {height}×{width}×{channels}{' with masks' * dataset.per_pixel}"


def _method(options: Options) -> Iterator[str]:
    from fastconv.train.looks import AUGMENTATION

    yield f"{options.optimizer} lr {options.lr:g}"
    for name in ("head_lr", "backbone_lr"):
        if getattr(options, name) is not None:
            yield f"{name.removesuffix('_lr')} lr {getattr(options, name):g}"
    for name in ("momentum", "weight_decay", "l2"):
        if getattr(options, name):
            yield f"{name.replace('_', ' ')} {getattr(options, name):g}"
    yield f"{options.schedule} schedule"
    if options.warmup:
        yield f"{options.warmup} steps of warm-up"
    yield f"batches of {options.batch_size}" + (f", {options.accumulate} per update" if options.accumulate > 1 else "")
    if options.label_smoothing:
        yield f"labels smoothed by {options.label_smoothing:g}"
    if options.mixup:
        yield f"images mixed by {options.mixup:g} (mixup; accuracy is that of the larger part)"
    if options.clip_norm is not None:
        yield f"gradients clipped at norm {options.clip_norm:g}"
    if options.ema is not None:
        yield f"weights averaged with decay {options.ema:g}"
    if not options.decay_bias_norm:
        yield "biases and normalisations not decayed"
    if options.augment or any(getattr(options, name) for name in AUGMENTATION):
        yield "augmented"


def _closing(result: dict[str, Any], found: Evaluation, dataset: Dataset, test: dict[str, Any] | None) -> str:
    best = f", best epoch {result['best_epoch']}" if result["best_epoch"] else ""
    trained = f"\ntrained        {result['steps']:,} steps in {result['train_seconds']:.2f} s{best}"
    digest = f"\nstate sha256   {result['state_sha256']}"
    if found.accuracy is None:
        figures = "" if test is None else tables.one_line(test["figures"])
        return f"{trained}\n{'test':<14} {figures}, loss {found.loss:.4f} on {found.samples:,} {dataset.noun}s{digest}"
    share = f"{round(found.accuracy * found.samples):,} of {found.samples:,} {dataset.noun}s"
    if dataset.per_pixel and found.confusion is not None:
        share = f"{int(found.confusion.trace()):,} of {int(found.confusion.sum()):,} pixels"
    return (
        f"{trained}\ntest accuracy  {percent(found.accuracy)} ({share}), loss {found.loss:.4f}"
        + "".join(f", {name} {value:.4f}" for name, value in found.metrics.items() if value is not None)
        + digest
    )
