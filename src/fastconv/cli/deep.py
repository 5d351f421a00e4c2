"""``fastconv deep``: residual nets of any depth."""

from __future__ import annotations

import signal
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
    json_option,
    print_json,
    set_threads,
    table,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.cli.memory import Size, check_place, peak_rss, within
from fastconv.cli.names import Names
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
from fastconv.terminal import percent

if TYPE_CHECKING:
    from fastconv.data import Dataset
    from fastconv.deep import DeepRun, Paths, Record
    from fastconv.deep.training import Training
    from fastconv.steps import Report, StepRun
    from fastconv.train import RunRecord
    from fastconv.train.step_folder import Rates, StepFolder

_RATE = Number(min=0, min_open=True)
_FILE = "deep.bin"


def _files(command: Any) -> Any:
    head = click.option("--head", type=Place(), help="Head file; WEIGHTS.head by default.")
    weights = click.option(
        "--weights", type=Place(), show_default="deep.bin, in --out where that is given", help="Layer file."
    )  # fmt: skip
    return weights(head(data_options(command)))


def _shape(command: Any) -> Any:
    options = [
        click.option("--layers", type=click.IntRange(min=1), help="Counted layers; 1000 by default."),
        click.option("--width", type=click.IntRange(1, 512), help="Width D of a layer; 4 by default."),
        click.option("--alpha", type=_RATE, help="Factor of a layer; 1/sqrt(layers) by default."),
        click.option("--activation", type=Names("activation", "choices:RESIDUAL_ACTIVATIONS"),
                     help="softsign by default."),
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
    weights: Path | None,
    head: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a new net: layer weights uniform in ±0.001, a Glorot head."""
    set_threads(None)
    with usage_errors():
        from fastconv.deep import create

        weights = weights_of(None, weights, None, _FILE)
        paths = _paths(weights, head)
        if paths.weights.parent.is_dir():
            paths.lock().close()  # a net that is being trained is refused before images are read
        record = _new(load_data(dataset or "mnist", data_dir), given)
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
@click.option(
    "--batch-size", "--batch", "batch_size", type=click.IntRange(min=1), help="Images per update; 16 by default."
)
@click.option("--chunk-layers", type=click.IntRange(min=1), help="Layers between kept states at most; changes no bit.")
@click.option("--layer-lr", type=_RATE, help="Learning rate of the layers; 0.01 by default.")
@click.option("--head-lr", type=_RATE, help="Learning rate of the head; 0.01 by default.")
@schedule_option
@click.option("--train-limit", type=click.IntRange(min=1), help="Use the first N training images only.")
@click.option("--report-every", type=click.IntRange(min=1), default=100, show_default=True, help="Steps per line.")
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
@out_option
@threads_option
@json_option
@click.pass_context
def train(
    ctx: click.Context, weights: Path | None, head: Path | None, dataset: str | None, data_dir: Path | None,
    steps: int | None, epochs: int | None, report_every: int, save_every: int | None, memory_limit: int | None,
    out: Path | None, threads: int | None, as_json: bool, resume: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a net by exact SGD; it is made first where there is none.

    With --out the run stands in 'fastconv runs', 'plot' and 'report'; 'fastconv deep eval --out DIR' tests its net.
    """
    check_length(steps, epochs)
    check_schedule(given["schedule"], out)
    check_place(given["in_memory"], given["durability"], memory_limit, save_every)
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    with usage_errors():
        from fastconv.deep import DeepRun

        run = run_of(out, weights, resume, "deep")
        files = _RunFiles(out, weights, head, run)
        name, given = files.taken_up(dataset, given)
        images = load_data(name, data_dir)
        training, folder, length = _opened(
            files, name, images, given, resume, memory_limit, (steps, epochs), report_every
        )
    record, paths = training.record, training.paths
    click.echo(
        f"{printable(paths.weights)}: {record.layers:,} layers of width {record.width}, {record.activation}, "
        f"alpha {record.alpha:g}, at step {record.step}",
        file=people,
    )
    going = DeepRun(
        training, length, report_every=report_every, record=folder.step if folder else None,
        report=lambda *of: click.echo(_line(record, *of), file=people),
        save_every=save_every, progress=lambda long: _bar(record, long),
    )  # fmt: skip
    try:
        with usage_errors(), training, going.ending:
            going.go()
    except FloatingPointError as error:
        click.echo(f"diverged: {error}; try lower learning rates", err=True)
        if folder is not None:
            with usage_errors("--out: "):
                folder.finish("diverged", reason=str(error), steps=record.step)
        ctx.exit(DIVERGED)
    number = going.ending.number
    with usage_errors():
        result = _result(going, paths) if as_json or folder else {}
        if folder is not None:
            ended = {} if number is None else {"reason": signal.Signals(number).name}
            folder.finish(
                "interrupted" if ended else "finished", **ended, steps=record.step, train_seconds=sum(going.seconds),
                weights_sha256=result["weights_sha256"],
            )  # fmt: skip
    click.echo(f"step {record.step}: saved {printable(paths.weights)}", file=people)
    if as_json:
        print_json(result)
    if number is not None:
        ctx.exit(BY_SIGNAL + number)


class _RunFiles:
    """The files of a net and the folder of its run, if it has one; ``run`` where that goes on."""

    def __init__(self, out: Path | None, weights: Path | None, head: Path | None, run: RunRecord | None) -> None:
        self.out, self.run = out, run
        weights = weights_of(out, weights, run, _FILE)
        own = weights.with_name(weights.name + ".head")
        if run is not None and head is None and run.config["net"].get("head") != named_in(run.path, own):
            raise ValueError(f"the head of the net is {run.config['net'].get('head')}: give it as --head")
        self.paths = _paths(weights, head)

    def taken_up(self, dataset: str | None, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return data set and options: those of the run that goes on, which others must not contradict."""
        if self.run is None:
            return dataset or "mnist", given
        from fastconv.data import resolve
        from fastconv.train.step_folder import goes_on

        free = ("chunk_layers", "durability", "in_memory")  # change no bit
        own = {**self.run.config["net"], **self.run.config["options"]}
        own["layer_lr"] = own["lr"]
        asked = {name: value for name, value in given.items() if name not in free}
        goes_on(self.run, {"dataset": dataset and resolve(dataset), **asked})
        return own["dataset"], {name: own.get(name) if name in asked else value for name, value in given.items()}

    def config(
        self, name: str, images: Dataset, record: Record, chosen: dict[str, Any], rates: Rates
    ) -> dict[str, Any]:
        """Return what config.json says of the run."""
        from fastconv.train.step_folder import describe

        assert self.out is not None
        each = len(images.train.labels[: chosen["train_limit"]]) // chosen["batch"]
        options = {
            "batch_size": chosen["batch"], "lr": chosen["layer_rate"], "head_lr": chosen["head_rate"],
            "seed": chosen["seed"],
        }  # fmt: skip
        net = {
            "weights": named_in(self.out, self.paths.weights), "head": named_in(self.out, self.paths.head),
            **{name: getattr(record, name) for name in ("layers", "width", "alpha", "activation")},
            "train_limit": self.run.config["net"].get("train_limit") if self.run else chosen["train_limit"],
        }  # fmt: skip
        return describe("deep", name, images, options, net, rates, each)


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
    left = median * (run.steps - run.done)
    day = left < 86_400
    end = time.strftime("%H:%M:%S", time.localtime(time.time() + left)) if day else f"in {left / 86_400:.4g} days"
    return (
        f"step {last.step:>7}  loss {last.loss:.4f}  accuracy {percent(last.accuracy)}  "
        f"{median:.4g} s per step  {rate:.3g} layer-samples/s  ends {end}"
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
        "peak_rss_bytes": peak_rss(),
        "weights_sha256": sha256(paths.weights),
    }


@deep.command("eval")
@_files
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N test images only.")
@click.option("--in-memory", is_flag=True, help="Read all weights first.")
@click.option("--out", type=Place(), metavar="DIR", help="Test the net of the run in DIR, which keeps the figures.")
@threads_option
@json_option
def evaluate(
    weights: Path | None, head: Path | None, dataset: str | None, data_dir: Path | None, limit: int | None,
    in_memory: bool, out: Path | None, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Test a net on the test images."""
    set_threads(threads)
    with usage_errors():
        from fastconv.deep import Record
        from fastconv.deep import evaluate as test
        from fastconv.train.step_folder import has_ended, read_steps, tested

        run = None if out is None else read_steps(out, "deep")
        files = _RunFiles(out, weights, head, run)
        name = dataset or (run.config["options"]["dataset"] if run else "mnist")
        if run is not None:
            has_ended(run)  # before it is tested for hours
            if Record.read(files.paths.record).step != run.step:
                raise ValueError(f"{files.paths.weights} has changed since step {run.step}, the end of {run.path}")
        data = load_data(name, data_dir)
        found = test(files.paths, data.test, data.levels, in_memory=in_memory, limit=limit)
        if run is not None:
            tested(run, {name: found[name] for name in ("test_loss", "test_accuracy")})
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
        from fastconv.deep.evaluation import inspect as look

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

    core = ResidualCore(given["width"] or 4, given["layers"] or 1000, given["alpha"], given["activation"] or "softsign")
    channels, height, width = data.shape
    return Record(
        core.width, core.layers, core.factor, core.activation, channels * height * width, len(data.classes),
        given["seed"] or 0,
    )  # fmt: skip


def _opened(
    files: _RunFiles, name: str, images: Dataset, given: dict[str, Any], resume: bool, memory_limit: int | None,
    length: tuple[int | None, int | None], every: int,
) -> tuple[Training, StepFolder | None, int]:  # fmt: skip
    """Return a net in training, the folder of the run if it has one, and the steps that it gets."""
    from fastconv.deep import Record, create
    from fastconv.deep.net import WINDOWS
    from fastconv.deep.training import Training, training_part
    from fastconv.train import RunWriter
    from fastconv.train.step_folder import Rates, StepFolder, take_up, withdrawn
    from fastconv.train.tally import Tally

    paths, out, run = files.paths, files.out, files.run
    new = not paths.record.exists() and (not resume or run is not None)
    for path in (paths.weights, paths.head) if new else ():
        if path.exists():
            raise ValueError(f"{path} is there and of no deep net (no {paths.record.name}): name another file")
    record = _new(images, given) if new else Record.read(paths.record)
    for option in ("width", "layers", "alpha", "activation"):
        if given[option] is not None and given[option] != getattr(record, option):
            raise ValueError(
                f"--{option} {given[option]}, but the record {paths.record} says {option} {getattr(record, option)}"
            )
    last = record.sampler if resume else {}
    if resume and not last and run is None:
        raise ValueError(f"--resume: {paths.record} tells of no run to resume")

    def choose(option: str, name: str, default: Any) -> Any:
        value = given[option] if given[option] is not None else last.get(name, default)
        return value

    chosen = {
        "batch": choose("batch_size", "batch", 16), "layer_rate": choose("layer_lr", "layer_rate", 0.01),
        "head_rate": choose("head_lr", "head_rate", 0.01), "seed": choose("seed", "seed", record.seed),
        "train_limit": choose("train_limit", "samples", None),
    }  # fmt: skip
    chunk, window = given["chunk_layers"], WINDOWS[1]
    part = training_part(images, chosen["train_limit"], chosen["batch"])  # refused before a net is made
    if not given["in_memory"]:
        files_at_once = 1 + (given["durability"] == "step")
        chunk, window = within(memory_limit, record, chosen["batch"], chunk, files_at_once)
    steps = steps_of(*length, len(part.labels) // chosen["batch"], run, record.step)
    rates = Rates.of(given["schedule"] or "constant", run, record.step, steps)
    config = {} if out is None else files.config(name, images, record, chosen, rates)
    writer = None if out is None or run is not None else RunWriter.start(out, config)
    with withdrawn(writer):
        if new:
            create(paths, record)
    with withdrawn(writer, keep=new):
        training = Training(
            paths, images, **chosen, schedule=rates, in_memory=given["in_memory"], durability=given["durability"],
            position=(last.get("epoch", 0), last.get("index", 0)), chunk=chunk, window=window, seen=record,
        )  # fmt: skip
    tally = Tally()
    if run is not None:
        try:
            writer, tally = take_up(run, record.step, config)
        except BaseException:
            training.close()
            raise
    if writer is None:
        return training, None, steps
    click.get_current_context().with_resource(writer)
    folder = StepFolder(
        writer, lambda: training.batches.position, batch=chosen["batch"],
        rate=lambda step: chosen["layer_rate"] * rates(step), every=every, step=record.step, tally=tally,
    )  # fmt: skip
    return training, folder, steps
