"""What all commands share: one-line errors with exit code 2, checked numbers, JSON on the last line."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from fastconv.cli.names import Names, NamesAndMore
from fastconv.cli.output import OutputClosed, standard_streams
from fastconv.paths import printable

WRONG_USAGE, DIVERGED, SOMETHING_WRONG = 2, 3, 4
BY_SIGNAL = 128  # and its number, as shells have it: 130 for SIGINT, 143 for SIGTERM
_SIGPIPE = 13  # what ends other programs whose reader is gone


class Commands(click.Group):
    """A group that says what is wrong in one line, lists commands in their own order, and always exits."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # a group alone tells what it has
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> NoReturn:
        with standard_streams():
            try:
                _refuse_empty(sys.argv[1:] if args is None else args)
                code = super().main(args, *more, **{**extra, "standalone_mode": False})
            except click.ClickException as error:
                ctx = getattr(error, "ctx", None)
                _complain(f"{ctx.command_path if ctx else 'fastconv'}: {error.format_message()}")
                sys.exit(WRONG_USAGE)
            except MemoryError as error:
                _complain(f"fastconv: out of memory: {str(error) or 'the system gave no more'}")
                sys.exit(WRONG_USAGE)
            except click.Abort:
                click.echo("interrupted", err=True)
                sys.exit(BY_SIGNAL + signal.SIGINT)
            except OutputClosed:
                sys.exit(BY_SIGNAL + _SIGPIPE)
            except OSError as error:  # a disk that got full, a file that went away
                _complain(f"fastconv: {_said(error)}")
                sys.exit(WRONG_USAGE)
            except Exception as error:
                if not _of_interruption(error):
                    raise
                click.echo("interrupted", err=True)
                sys.exit(BY_SIGNAL + signal.SIGINT)
            sys.exit(code if isinstance(code, int) else 0)


def _complain(text: str) -> None:
    """Say what is wrong, in one line and those that are indented behind it; a name may hold a break of its own."""
    click.echo("\n".join(map(printable, re.split(r"\n(?=  )", text))), err=True)


def _refuse_empty(args: Sequence[str]) -> None:
    """Raise UsageError for an argument that is empty: it would be taken for one not given, or for this folder."""
    for before, arg in zip(("", *args), args, strict=False):
        if not arg or (arg.startswith("--") and arg.find("=") == len(arg) - 1):
            name = arg[:-1] or (before if before.startswith("-") and "=" not in before else "an argument")
            raise click.UsageError(f"{name} is empty: is a variable of the shell not set?")


def _of_interruption(error: BaseException | None) -> bool:
    """Whether an error came while something cleaned up after Ctrl-C, as from a lock that tqdm did not get to hold."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class Number(click.FloatRange):
    """A finite number in a range; click's own lets NaN and infinity through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Place(click.Path):
    """A path, with ``~`` as the home folder also where no shell has seen to that: in ``--out=~/runs``, say."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)


_RATE = Number(min=0, min_open=True)
_AMOUNT = Number(min=0)
_SHARE = Number(min=0, max=1)
_TRAINING: dict[str, dict[str, Any]] = {
    "dataset": dict(default="digits", type=NamesAndMore("data:names"), metavar="NAME|FOLDER|TABLE",
        help="digits (default), mnist, fashion_mnist, cifar10; a folder with a folder of images for each class, or "
        "with images/ and masks/, perhaps below train/, val/ and test/; or a table of rows, a .csv or an .npz file."),
    "target": dict(metavar="COLUMN", help="Of a .csv file: what is to be told, the last column by default."),
    "task": dict(
        type=Names("task", "choices:TASKS"),
        help="Of a table: what its targets are; by default text and whole numbers are classes, others numbers.",
    ),
    "image-size": dict(metavar="N|HxW", help="Of a folder's images, 64 by default."),
    "resize": dict(
        type=Names("resize", "choices:RESIZES"),
        help="How a folder's images come to it: what sticks out is cut (default), borders are added, or neither.",
    ),
    "cache/--no-cache": dict(
        default=None, help="Keep a folder's images decoded, in one file of the user's cache folder."
    ),
    "model": dict(
        type=NamesAndMore("models:ZOO"), metavar="NAME|FILE",
        help="A net of the zoo, see 'fastconv models'; or an .onnx file, a run's folder, a model file of fastconv.",
    ),
    "pretrained": dict(
        type=Place(), metavar="FILE", help="Begin with its weights: .safetensors, .pth, .onnx, or the folder of a run.",
    ),
    "freeze": dict(
        metavar="all-but-head|N",
        help="Keep all layers but the last, or the first N with weights, as they are, with their statistics.",
    ),
    "normalize": dict(
        type=NamesAndMore("train.origins:NORMALIZATIONS", paths=False), metavar="WORD|MEAN,STD",
        help="imagenet, minus-one-to-one, zero-to-one, dataset, or numbers for values 0..255, as 127,128. By default "
        "what the weights expect where that is known, else dataset: the training images' own mean and deviation.",
    ),
    "epochs": dict(type=click.IntRange(min=1), help="Passes over the training images or rows."),
    "batch-size": dict(type=click.IntRange(min=1), help="Images or rows per update."),
    "lr": dict(type=_RATE, help="Learning rate at the start (after warm-up)."),
    "head-lr": dict(type=_RATE, help="Of the last layer alone."),
    "backbone-lr": dict(type=_RATE, help="Of all layers but the last."),
    "momentum": dict(type=_AMOUNT, help="Of sgd (0.9 by default) and rmsprop."),
    "weight-decay": dict(type=_AMOUNT, help="As the optimiser defines it."),
    "l2": dict(type=_AMOUNT, help="Penalty l2/2 · (sum of squared weights) beside the loss."),
    "optimizer": dict(type=Names("optimiser", "choices:OPTIMIZERS"), help="sgd by default."),
    "schedule": dict(
        type=Names("schedule", "choices:SCHEDULES"),
        help="Of the rate: cosine by default; step divides by 10 twice, inverse falls to a tenth.",
    ),
    "warmup": dict(type=click.IntRange(min=0), help="Updates with a rising rate at first."),
    "init": dict(
        type=Names("initialisation", "choices:INITIALISATIONS"), help="Of the weights; the net's own by default."
    ),
    "augment/--no-augment": dict(default=None, help="Shift images at random, mirror some."),
    "flip/--no-flip": dict(default=None, help="Mirror half of the images left and right."),
    "shift": dict(type=click.IntRange(0, 2**16), metavar="PIXELS", help="Shift images by up to so many each way."),
    "scale": dict(
        type=Number(min=0, max=1, min_open=True), metavar="SHARE",
        help="Look at parts of images, of this share of their area or more.",
    ),
    "rotation": dict(type=Number(min=0, max=180), metavar="DEGREES", help="Turn images by up to so many either way."),
    "brightness": dict(type=_SHARE, metavar="SHARE", help="Make images lighter or darker by up to so much."),
    "contrast": dict(type=_SHARE, metavar="SHARE", help="Likewise their distances from their mean grey."),
    "saturation": dict(type=_SHARE, metavar="SHARE", help="Likewise their colours' distances from grey."),
    "cutout": dict(type=click.IntRange(0, 2**16), metavar="PIXELS", help="Cover a square of such a side."),
    "validation": dict(
        type=Number(min=0, max=1, max_open=True), metavar="SHARE",
        help="Of the training images, set aside to choose the best epoch; 0.1 by default.",
    ),
    "metric": dict(
        type=Names("metric", "choices:METRICS"),
        help="Measured on the validation images, too, and what epochs (and trials) are judged by.",
    ),
    "patience": dict(
        type=click.IntRange(min=1), metavar="EPOCHS", help="Stop when validation has not improved for so long."
    ),
    "chill-out": dict(
        type=click.IntRange(min=1), metavar="EPOCHS",
        help="Go back to the best weights and halve the rate when validation loss has not improved for so long.",
    ),
    "label-smoothing": dict(
        type=Number(min=0, max=1, max_open=True), metavar="SHARE", help="Of each label, spread over all classes."
    ),
    "mixup": dict(
        type=Number(min=0, max=4), metavar="ALPHA",
        help="Mix images in pairs, and their labels, by shares of the beta distribution (ALPHA, ALPHA); 0.2 is usual. "
        "Training accuracy is then that of the larger part.",
    ),
    "clip-norm": dict(type=_RATE, metavar="NORM", help="Scale gradients down whose norm is above it."),
    "ema": dict(
        type=Number(min=0, max=1, max_open=True), metavar="DECAY",
        help="Validate and keep an exponential average of the weights, 0.999 say.",
    ),
    "decay-bias-norm/--no-decay-bias-norm": dict(
        default=None, help="Whether weight decay is for biases and normalisations, too; it is by default."
    ),
    "accumulate": dict(type=click.IntRange(min=1), metavar="BATCHES", help="Batches per update."),
    "algorithm": dict(
        type=Names("algorithm", "choices:ALGORITHMS"),
        help="Of convolutions: auto (default), Winograd's where it pays; or direct. Decides bits.",
    ),
    "seed": dict(
        type=click.IntRange(0, 2**64 - 1), help="Of weights, order, dropout and split; 0 by default."
    ),
}  # fmt: skip


def training_options(*names: str) -> Any:
    """Add the named options of a training run, or all of them; each is None where it is not given.

    ``dataset`` alone has a default. What is not given, `fastconv.train.setup.fill` chooses for the data set.
    """

    def add(command: Any) -> Any:
        for flag, settings in reversed(_TRAINING.items()):
            if not names or flag.split("/")[0] in names:
                command = click.option(f"--{flag}", **settings)(command)
        return command

    return add


@contextmanager
def usage_errors(about: str = "") -> Iterator[None]:
    """Turn what goes wrong with names, files and extras in a block into one line."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise click.UsageError(f"{about}{_said(error)}", click.get_current_context()) from error


def _said(error: Exception) -> str:
    """What the system says of which file, without the number that Python puts before it."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    return f"{printable(str(error.filename))}: {error.strerror}" if error.filename else str(error.strerror)


def json_option(command: Any) -> Any:
    """Add ``--json``."""
    text = "Print one JSON object as the last line."
    return click.option("as_json", "--json", is_flag=True, help=text)(command)


def threads_option(command: Any) -> Any:
    """Add ``--threads``."""
    return click.option(
        "--threads", type=click.IntRange(1, 1024), metavar="N",
        help="Threads to use; changes no bit of a result.",
    )(command)  # fmt: skip


def set_threads(threads: int | None) -> None:
    """Apply ``--threads``; also brings in the settings, so that a bad environment variable is said here."""
    with usage_errors():
        from fastconv import config

        if threads is not None:
            config.threads(threads)


def print_json(value: dict[str, Any]) -> None:
    """Print one object on one line of standard output, in ASCII; figures that are not finite become null."""
    from fastconv.serialize.files import finite

    click.echo(json.dumps(finite(value), allow_nan=False))


def table(rows: Sequence[tuple[str, ...]], numbers: frozenset[int] = frozenset()) -> str:
    """Rows of text as aligned columns; those whose index is in ``numbers`` are flush right."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join(f"{{:{'>' if i in numbers else '<'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(layout.format(*row).rstrip() for row in rows)
