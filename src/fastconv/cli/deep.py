"""``fastconv deep``: residual nets of any depth."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    table,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.paths import printable
from fastconv.terminal import percent

if TYPE_CHECKING:
    from fastconv.data import Dataset
    from fastconv.deep import DeepRun, Paths, Record
    from fastconv.deep.training import Training
    from fastconv.steps import Report, StepRun

_RATE = Number(min=0, min_open=True)
_SPARE = 8 << 20  # bytes that Python may take in a run beside what is counted


class Size(click.ParamType):
    """Bytes, with a suffix K, M, G (powers of 1024) if wished."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = value.upper().removesuffix("B").removesuffix("I")
        scale = {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
        try:
            size = int(float(text.rstrip("KMG")) * 2**scale)
        except (ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"{value!r} is no size; write 256M or 2G", param, ctx)
        return size


def _files(command: Any) -> Any:
    head = click.option("--head", type=Place(), help="Head file; WEIGHTS.head by default.")
    weights = click.option(
        "--weights", type=Place(), default="deep.bin", show_default=True, help="Layer file."
    )
    return weights(head(data_options(command)))


def _shape(command: Any) -> Any:
    options = [
        click.option("--layers", type=click.IntRange(min=1), help="Counted layers; 1000 by default."),
        click.option("--width", type=click.IntRange(1, 512), help="Width D of a layer; 4 by default."),
        click.option("--alpha", type=_RATE, help="Factor of a layer; 1/sqrt(layers) by default."),
        click.option("--activation", type=click.Choice(["softsign", "tanh", "relu"]), help="softsign by default."),
        click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Of weights and order; 0 by default."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=Commands)
def deep() -> None:
    """Train residual nets of any depth, in memory or from a file larger than memory."""


@deep.command("init")
@_files
@_shape
@click.option("--force", is_flag=True, help="Replace a net that is there.")
@json_option
def init(
    weights: Path, head: Path | None, dataset: str, data_dir: Path | None, force: bool, as_json: bool, **given: Any
) -> None:
    """Make a new net: layer weights uniform in ±0.001, a Glorot head."""
    set_threads(None)
    with usage_errors():
        from fastconv.deep import create

        paths = _paths(weights, head)
        if paths.weights.parent.is_dir():
            paths.lock().close()  # a net that is being trained is refused before images are read
        record = _new(load_data(dataset, data_dir), given)
        create(paths, record, force=force)
    click.echo(f"{printable(weights)}: {record.layers:,} layers of width {record.width}, {record.weight_bytes:,} bytes",
               err=as_json)  # fmt: skip
    if as_json:
        print_json({"weights": str(weights), "layers": record.layers, "width": record.width,
                    "bytes": record.weight_bytes, "alpha": record.alpha})  # fmt: skip


@deep.command()
@_files
@_shape
@length_options
@click.option("--batch-size", "--batch", "batch", type=click.IntRange(min=1), help="Images an update; 16 by default.")
@click.option("--chunk-layers", type=click.IntRange(min=1), help="Layers between kept states; changes no bit.")
@click.option("--layer-lr", type=_RATE, help="Learning rate of the layers; 0.01 by default.")
@click.option("--head-lr", type=_RATE, help="Learning rate of the head; 0.01 by default.")
@click.option("--train-limit", type=click.IntRange(min=1), help="Use the first N training images only.")
@click.option("--report-every", type=click.IntRange(min=1), default=100, show_default=True, help="Steps a line.")
@click.option("--save-every", type=click.IntRange(min=1), help="With --in-memory: steps between two saves.")
@click.option("--in-memory", is_flag=True, help="Hold all weights in memory, write them at the end.")
@click.option(
    "--memory-limit", type=Size(), show_default="256M; more where images leave less than 64M of it",
    help="Resident, when streamed.",
)  # fmt: skip
@click.option(
    "--durability", type=click.Choice(["run", "step"]), default="run", show_default=True,
    help="Of a streamed run: update in place, or keep every whole step.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where the last run stopped: order, seed, batch and rates.")
@threads_option
@json_option
@click.pass_context
def train(
    ctx: click.Context, weights: Path, head: Path | None, dataset: str, data_dir: Path | None, steps: int | None,
    epochs: int | None, train_limit: int | None, report_every: int, save_every: int | None, memory_limit: int | None,
    threads: int | None, as_json: bool, resume: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a net by exact SGD; it is made first where there is none."""
    check_length(steps, epochs)
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    with usage_errors():
        from fastconv.deep import DeepRun

        data, paths = load_data(dataset, data_dir), _paths(weights, head)
        training = _training(paths, data, given, resume, train_limit, memory_limit)
    record = training.record
    click.echo(
        f"{printable(paths.weights)}: {record.layers:,} layers of width {record.width}, {record.activation}, "
        f"alpha {record.alpha:g}, at step {record.step}",
        file=people,
    )
    run = DeepRun(
        training, steps_of(steps, epochs, len(training.batches)), report_every=report_every,
        report=lambda *of: click.echo(_line(record, *of), file=people),
        save_every=save_every, progress=lambda long: _bar(record, long),
    )  # fmt: skip
    try:
        with usage_errors(), training, run.ending:
            run.go()
    except FloatingPointError as error:
        click.echo(f"diverged: {error}; try lower learning rates", err=True)
        ctx.exit(DIVERGED)
    with usage_errors():
        result = _result(run, paths)
    click.echo(f"step {record.step}: saved {printable(paths.weights)}", file=people)
    if as_json:
        print_json(result)
    if run.ending.number is not None:
        ctx.exit(BY_SIGNAL + run.ending.number)


@contextmanager
def _bar(record: Record, long: bool | None) -> Iterator[Callable[[int], object]]:
    """Show the layers that a long step has walked, on a terminal."""
    from tqdm import tqdm

    bar = tqdm(
        total=2 * record.layers, unit="layer", unit_scale=True, leave=False, mininterval=0.5,
        disable=True if long is False else None, delay=1.0, file=sys.stderr,
    )  # fmt: skip
    with bar:
        yield bar.update


def _line(record: Record, run: StepRun, last: Report) -> str:
    median = statistics.median(run.seconds[-run.report_every :])
    rate = record.layers * record.sampler["batch"] / median
    end = time.strftime("%H:%M:%S", time.localtime(time.time() + median * (run.steps - run.done)))
    return (
        f"step {last.step:>7}  loss {last.loss:.4f}  accuracy {percent(last.accuracy)}  "
        f"{median:.4g} s a step  {rate:.3g} layer-samples/s  ends {end}"
    )


def _result(run: DeepRun, paths: Paths) -> dict[str, Any]:
    """What --json prints."""
    from fastconv.deep.storage import sha256

    record = run.training.record
    return {
        "loss": run.last.loss if run.last else None,
        "batch_accuracy": run.last.accuracy if run.last else None,
        "step_seconds": run.median,
        "layer_samples_per_second": record.layers * run.training.batches.batch_size / run.median,
        "steps": run.done,
        "step": record.step,
        "peak_rss_bytes": _peak_rss(),
        "weights_sha256": sha256(paths.weights),
    }


@deep.command("eval")
@_files
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N test images only.")
@click.option("--in-memory", is_flag=True, help="Read all weights first.")
@threads_option
@json_option
def evaluate(
    weights: Path, head: Path | None, dataset: str, data_dir: Path | None, limit: int | None, in_memory: bool,
    threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Test a net on the test images."""
    set_threads(threads)
    with usage_errors():
        from fastconv.deep import evaluate as test

        data = load_data(dataset, data_dir)
        found = test(_paths(weights, head), data.test, data.levels, in_memory=in_memory, limit=limit)
    click.echo(
        f"test loss {found['test_loss']:.4f}  accuracy {percent(found['test_accuracy'])}  {found['seconds']:.3g} s  "
        f"{found['layer_samples_per_second']:.3g} layer-samples/s",
        err=as_json,
    )
    if as_json:
        print_json(found)


@deep.command("inspect")
@click.argument("file", type=Place())
@click.option("--ranges", type=click.IntRange(1, 1000), default=10, show_default=True, help="Runs of layers.")
@json_option
def inspect(file: Path, ranges: int, as_json: bool) -> None:
    """Tell what a net is, and norms and ranges of its layers."""
    set_threads(None)
    with usage_errors():
        from fastconv.deep.training import inspect as look

        found = look(_paths(file, None), ranges)
    if as_json:
        print_json(found)
        return
    for name in ("width", "layers", "alpha", "activation", "inputs", "classes", "seed", "step", "state", "bytes"):
        click.echo(f"{name:<12} {found[name]}")
    rows = [("layers", "norm", "min", "max", "NaN")]
    for r in found["ranges"]:
        span = f"{r['first']}..{r['end'] - 1}"
        rows.append((span, f"{r['norm']:.6g}", f"{r['min']:.4g}", f"{r['max']:.4g}", str(r["nan"])))
    click.echo(table(rows, frozenset({1, 2, 3, 4})))


def _paths(weights: Path, head: Path | None) -> Paths:
    from fastconv.deep import Paths

    return Paths.of(weights, head)


def _new(data: Dataset, given: dict[str, Any]) -> Record:
    from fastconv.deep import Record
    from fastconv.functional.residual import ResidualCore

    core = ResidualCore(
        given["width"] or 4, given["layers"] or 1000, given["alpha"], given["activation"] or "softsign"
    )
    channels, height, width = data.shape
    return Record(
        core.width, core.layers, core.factor, core.activation, channels * height * width, len(data.classes),
        given["seed"] or 0,
    )  # fmt: skip


def _training(
    paths: Paths, data: Dataset, given: dict[str, Any], resume: bool, limit: int | None, memory_limit: int | None
) -> Training:
    from fastconv.deep import Record, create
    from fastconv.deep.net import WINDOWS
    from fastconv.deep.training import Training, training_part

    new = not paths.record.exists() and not resume
    record = _new(data, given) if new else Record.read(paths.record)
    for name in ("width", "layers", "alpha", "activation"):
        if given[name] is not None and given[name] != getattr(record, name):
            raise ValueError(
                f"--{name} {given[name]}, but the record {paths.record} says {name} {getattr(record, name)}"
            )
    last = record.sampler if resume else {}
    if resume and not last:
        raise ValueError(f"--resume: {paths.record} tells of no run to resume")

    def choose(option: str, name: str, default: Any) -> Any:
        value = given[option] if given[option] is not None else last.get(name, default)
        return value

    batch, chunk, window = choose("batch", "batch", 16), given["chunk_layers"], WINDOWS[1]
    limit = limit if limit is not None else last.get("samples")
    training_part(data, limit, batch)  # what it refuses is refused before a net is made
    if not given["in_memory"]:
        chunk, window = _within(memory_limit, record, batch, chunk, 1 + (given["durability"] == "step"))
    if new:
        create(paths, record)
    return Training(
        paths, data,
        batch=batch,
        layer_rate=choose("layer_lr", "layer_rate", 0.01),
        head_rate=choose("head_lr", "head_rate", 0.01),
        seed=choose("seed", "seed", record.seed),
        in_memory=given["in_memory"],
        durability=given["durability"],
        train_limit=limit,
        position=(last.get("epoch", 0), last.get("index", 0)),
        chunk=chunk,
        window=window,
        seen=record,
    )  # fmt: skip


def _within(limit: int | None, record: Record, batch: int, chunk: int | None, files: int) -> tuple[int, int]:
    """Return chunk and window with which a streamed step stays within ``--memory-limit``."""
    from fastconv.deep.net import fit

    base = _base_memory() + _SPARE + 4 * batch * record.inputs * 4  # some copies of a batch in float32
    limit = max(256 << 20, base + (64 << 20)) if limit is None else limit
    plan = fit(record.core, batch, limit - base, chunk=chunk, files=files)
    if base + plan.nbytes > limit:
        least = -(-(base + plan.nbytes) // 2**20)
        asked = limit if limit < 2**20 else f"{limit / 2**20:g}M"
        raise ValueError(
            f"--memory-limit {asked}: the program and its images take {base / 2**20:.1f}M, a step on "
            f"batch {batch} {plan.nbytes / 2**20:.1f}M at least; allow {least}M, or take a smaller --batch"
            + (" or other --chunk-layers" if chunk else "")
        )
    return plan.chunk, plan.window


def _base_memory() -> int:
    """What is resident before the weights: interpreter, libraries, images."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 128 << 20
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_rss() -> int | None:
    """Return this process's highest resident memory in bytes, or None where the system does not tell."""
    try:
        # not ru_maxrss, which on Linux starts from that of the process that forked this one
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
