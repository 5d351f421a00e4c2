"""``fastconv deep``: residual nets of any depth."""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    table,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.paths import printable
from fastconv.signals import EndRequest

if TYPE_CHECKING:
    from fastconv.data import Dataset
    from fastconv.deep import Paths, Record
    from fastconv.deep.training import Training

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
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Updates.")
@click.option("--batch", type=click.IntRange(min=1), help="Images an update; 16 by default.")
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
    ctx: click.Context, weights: Path, head: Path | None, dataset: str, data_dir: Path | None, steps: int,
    train_limit: int | None, report_every: int, save_every: int | None, memory_limit: int | None,
    threads: int | None, as_json: bool, resume: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a net by exact SGD; it is made first where there is none."""
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    with usage_errors():
        data, paths = load_data(dataset, data_dir), _paths(weights, head)
        training = _training(paths, data, given, resume, train_limit, memory_limit)
    record = training.record
    click.echo(
        f"{printable(paths.weights)}: {record.layers:,} layers of width {record.width}, {record.activation}, "
        f"alpha {record.alpha:g}, at step {record.step}",
        file=people,
    )
    run = _Run(training, steps, report_every, save_every, people)
    try:
        with usage_errors(), training, run.ending:
            run.go()
    except FloatingPointError as error:
        click.echo(f"diverged: {error}; try lower learning rates", err=True)
        ctx.exit(DIVERGED)
    with usage_errors():
        result = run.result(paths)
    click.echo(f"step {record.step}: saved {printable(paths.weights)}", file=people)
    if as_json:
        print_json(result)
    if run.ending.number is not None:
        ctx.exit(BY_SIGNAL + run.ending.number)


class _Run:
    """The loop over steps, its reports, and how a signal ends it.

    It does at a whole step: before one changes weights, or after it. The answer comes between two windows of layers,
    a fraction of a second apart: what will happen, and when.
    """

    def __init__(self, training: Training, steps: int, every: int, save_every: int | None, people: Any) -> None:
        self.training, self.steps, self.every, self.save_every = training, steps, every, save_every
        self.people, self.seconds, self.changing = people, [0.0] * 0, False
        self.ending = EndRequest(lambda name: f"{name}: stopping {self._when()}")
        self.began, self.walked = 0.0, 0  # of the step: when it began, the layers it has walked, of twice the depth
        self.last: Any = None

    def go(self) -> None:
        """Take the steps, then save."""
        from fastconv.deep.training import Stop

        for done in range(1, self.steps + 1):
            try:
                self.last = self._step()
            except Stop:
                break
            self.seconds.append(self.last.seconds)
            if done % self.every == 0 or done == self.steps:
                self._line(done)
            if self.save_every and done % self.save_every == 0:
                self.training.save()
            if self.ending.number is not None:
                break
        self.training.save()

    def _step(self) -> Any:
        from tqdm import tqdm

        long = bool(self.seconds) and self.seconds[-1] > 2.0
        bar = tqdm(
            total=2 * self.training.record.layers, unit="layer", unit_scale=True, leave=False, mininterval=0.5,
            disable=None if long or not self.seconds else True, delay=1.0, file=sys.stderr,
        )  # fmt: skip
        self.changing, self.began, self.walked = False, time.monotonic(), 0
        with bar:
            return self.training.step(lambda layers: self._watch(bar, layers), self._begin_change)

    def _begin_change(self) -> None:
        self._stop_here()
        self.changing = True

    def _watch(self, bar: Any, layers: int) -> None:
        bar.update(layers)
        self.walked += layers
        if not self.changing:
            self._stop_here()

    def _stop_here(self) -> None:
        from fastconv.deep.training import Stop

        if self.ending.number is not None:
            raise Stop

    def _line(self, done: int) -> None:
        record, median = self.training.record, statistics.median(self.seconds[-self.every :])
        rate = record.layers * self.training.batches.batch_size / median
        left = median * (self.steps - done)
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        click.echo(
            f"step {self.last.step:>7}  loss {self.last.loss:.4f}  accuracy {self.last.accuracy:.3f}  "
            f"{median:.4g} s a step  {rate:.3g} layer-samples/s  ends {end}",
            file=self.people,
        )

    def _when(self) -> str:
        if not self.changing:
            return "now"
        whole = 2 * self.training.record.layers
        left = (time.monotonic() - self.began) * (whole - self.walked) / max(1, self.walked)
        lost = f"back to step {self.training.saved_step}" if self.training.in_memory else "which leaves the file torn"
        return f"after this step, in about {left:.1f} s (again: at once, {lost})"

    def result(self, paths: Paths) -> dict[str, Any]:
        """What --json prints."""
        from fastconv.deep.storage import sha256

        record, median = self.training.record, statistics.median(self.seconds or [float("nan")])
        return {
            "loss": self.last.loss if self.last else None,
            "batch_accuracy": self.last.accuracy if self.last else None,
            "step_seconds": median,
            "layer_samples_per_second": record.layers * self.training.batches.batch_size / median,
            "steps": len(self.seconds),
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
        f"test loss {found['test_loss']:.4f}  accuracy {found['test_accuracy']:.4f}  {found['seconds']:.3g} s  "
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
