"""``fastconv search``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastconv.cli.common import (
    BY_SIGNAL,
    DIVERGED,
    Number,
    Place,
    json_option,
    print_json,
    set_threads,
    threads_option,
    training_options,
    usage_errors,
)  # fmt: skip
from fastconv.cli.names import Names
from fastconv.paths import printable

if TYPE_CHECKING:
    from fastconv.search import SearchResult, Training

_SEARCHED = ("lr", "l2", "momentum", "weight_decay", "batch_size")
_OPTIONS = (
    "model", "optimizer", "schedule", "warmup", "init", "augment", "validation", "metric", "seed", "image_size",
    "resize", "cache", "target", "task",
)  # fmt: skip
_MOST = 1_000_000  # trials, or what one may spend, that a storage may ask for
_KINDS = "LOW:HIGH (log-uniform), LOW:HIGH:linear, VALUE,VALUE,... or VALUE"


class Counts(click.ParamType):
    """Whole numbers of at least 1, separated by commas: one, or one for each stage."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int | list | tuple):
            return value
        items = str(value).split(",")
        if not all(item.strip().isdecimal() and int(item) >= 1 for item in items):
            self.fail(f"{value!r} is no whole number of at least 1, nor several separated by commas.", param, ctx)
        return int(items[0]) if len(items) == 1 else tuple(map(int, items))


def _searched(name: str, text: str) -> Any:
    return click.option(f"--{name}", metavar="RANGE", help=text)


@click.command()
@training_options("dataset", "target", "task", "model")
@_searched("lr", f"Learning rate: {_KINDS}; by default two decades around the optimiser's own.")
@_searched("l2", "Penalty l2/2 · (sum of squared weights), likewise.")
@_searched("momentum", "Of sgd and rmsprop, likewise.")
@_searched("weight-decay", "As the optimiser defines it, likewise.")
@_searched("batch-size", "Images per update: VALUE or VALUE,VALUE,...")
@training_options(
    "image-size", "resize", "cache", "optimizer", "schedule", "warmup", "init", "augment", "validation", "metric",
    "seed",
)  # fmt: skip
@click.option("--trials", type=Counts(), help="In all, or by stage; 50 by default.")
@click.option("--stages", type=click.IntRange(1, 10), help="Coarse to fine; each narrows the space around its best.")
@click.option("--epochs", type=Counts(), help="Of a trial, in the last stage or by stage; earlier ones have a quarter.")
@click.option("--steps", type=Counts(), help="Updates of a trial, likewise, instead of epochs.")
@click.option("--checks", type=click.IntRange(min=1), help="Validations of a trial of so many steps; 1 by default.")
@click.option("--cut-off", type=Number(min=1, min_open=True), help="Loss over the original that ends a trial; 3.")
@click.option("--sampler", type=Names("sampler", "choices:SAMPLERS"), help="random by default.")
@click.option(
    "--pruner", type=Names("pruner", "choices:PRUNERS"),
    help="Gives up trials that are worse than others were; none by default.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, metavar="N", help="Processes; they share the threads."
)
@threads_option
@click.option("--storage", metavar="WHERE", help="journal:PATH or a database URL; others may take part from anywhere.")
@click.option("--name", default="search", metavar="TEXT", help="Of this search in the storage.")
@click.option("--out", type=Place(), metavar="DIR", help="New folder that keeps every trial's run.")
@click.option("--resume", is_flag=True, help="Go on with the search in --out or --storage; its options are known.")
@json_option
@click.pass_context
def search(
    ctx: click.Context, workers: int, threads: int | None, storage: str | None, name: str, out: Path | None,
    resume: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Search for good hyperparameters: try many, briefly, then more closely around the best.

    Every trial trains the net with other values drawn from the ranges and is judged by validation accuracy; one
    whose loss passes three times the original is cut off. Ctrl-C and SIGTERM keep what was done; the exit code is
    then 130 or 143. It is 3 when not one trial finished.

    Example: fastconv search --lr 1e-4:1 --l2 1e-6:1e-1 --trials 60 --stages 2 --epochs 8 --out tries
    """
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    if ctx.get_parameter_source("dataset") == click.core.ParameterSource.DEFAULT:
        given["dataset"] = None
    asked = {key: value for key, value in given.items() if value is not None}
    with usage_errors():
        from fastconv.search import WorkerError, stored
        from fastconv.search import search as run
        from fastconv.search.progress import figure_of

        if resume:
            asked = _known(stored(storage, out, name)) | asked
        objective, space = _objective(asked)
        if len(given_by_stage := _by_stage(asked)) > 1:
            raise ValueError(f"numbers by stage differ in length: {', '.join(map(str, sorted(given_by_stage)))}")
    return_code = 0
    try:
        with usage_errors():
            found = run(
                objective, space,
                trials=_counts(asked.get("trials", 50)), stages=asked.get("stages") or max(given_by_stage, default=1),
                budgets=_counts(asked.get(objective.unit) or _short(objective)),
                sampler=asked.get("sampler", "random"), pruner=asked.get("pruner", "none"), seed=asked.get("seed", 0),
                workers=workers, threads=threads, storage=storage, name=name, out=out, resume=resume,
                file=people, command=asked,
            )  # fmt: skip
    except WorkerError as error:
        raise click.UsageError(str(error), ctx) from error
    click.echo(_closing(found, out, storage, figure_of(objective.describe())), file=people)
    if as_json:
        print_json(found.to_dict())
    if found.interrupted:
        return_code = BY_SIGNAL + (found.signal or signal.SIGINT)
    elif found.best is None:
        return_code = DIVERGED
    ctx.exit(return_code)


def _known(command: dict[str, Any]) -> dict[str, Any]:
    """Return what the storage says a search was started with, once it is what this command's options give."""
    from fastconv.schema import Either, Integer, Items, Number, Record, Text
    from fastconv.train.shapes import OPTIONS

    counts = Either(Integer(1, _MOST), Items(Integer(1, _MOST), 1, 10))
    Record({}, {
        "dataset": Text(), "model": Text(),
        **{name: OPTIONS.may[name] for name in _OPTIONS if name in OPTIONS.may},
        **dict.fromkeys(_SEARCHED, Text()), **dict.fromkeys(("trials", "epochs", "steps"), counts),
        "stages": Integer(1, 10), "checks": Integer(1, _MOST), "cut_off": Number(1),
        **dict.fromkeys(("sampler", "pruner"), Text()),
    }, rest=None).check(command, "the command in the storage")  # fmt: skip
    return command


def _objective(asked: dict[str, Any]) -> tuple[Training, dict[str, str]]:
    """Return what a trial does, and the space."""
    from fastconv.search import Training
    from fastconv.train.setup import OPTIMIZERS, fill

    if "epochs" in asked and "steps" in asked:
        raise ValueError("--epochs and --steps: give one of the two")
    options = fill(asked.get("dataset", "digits"), **{name: asked[name] for name in _OPTIONS if name in asked})
    space = {name: asked[name] for name in _SEARCHED if name in asked}
    if "lr" not in space:
        own = OPTIMIZERS[options.optimizer][1]
        space = {"lr": f"{own / 100:g}:{own * 10:g}", **space}
    unit = "steps" if "steps" in asked else "epochs"
    if "checks" in asked and unit == "epochs":
        raise ValueError("--checks parts trials of so many --steps; of --epochs each is validated")
    return Training(options, unit, asked.get("checks", 1), asked.get("cut_off", 3.0)), space


def _by_stage(asked: dict[str, Any]) -> set[int]:
    """Return for how many stages numbers were given."""
    several = (asked.get(name) for name in ("trials", "epochs", "steps"))
    return {len(numbers) for numbers in several if isinstance(numbers, list | tuple)}


def _counts(numbers: Any) -> Any:
    return tuple(numbers) if isinstance(numbers, list) else numbers


def _short(objective: Training) -> int:
    """A quarter of the epochs that ``fastconv train`` would do."""
    return max(1, objective.options.epochs // 4)


def _closing(found: SearchResult, out: Path | None, storage: str | None, figure: str | None = None) -> str:
    from fastconv.search.progress import in_words

    done = f"{len(found.trials)} of {found.asked} trials"
    lines = [""]
    if found.best is None and found.trials:
        lines.append(f"best           none: of {done} not one finished; try lower learning rates")
    elif found.best is not None:
        params = "  ".join(f"--{key.replace('_', '-')} {value}" for key, value in found.best["params"].items())
        lines.append(f"best           {in_words(figure, found.best['value'])} in trial {found.best['number']}")
        lines.append(f"               {params}")
    lines += [f"warning        {text}" for text in found.warnings]
    if found.interrupted:
        where = f"--out {printable(out)} " if out else f"--storage {printable(storage)} " if storage else ""
        kept = f"go on with: fastconv search {where}--resume" if where else "not kept: there was no --out or --storage"
        lines.append(f"interrupted    after {done}; {kept}")
    elif out is not None:
        lines.append(f"saved          {printable(out)}: one run per trial")
    return "\n".join(lines)
