"""``fastconv train``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastconv.cli.common import (
    DIVERGED,
    json_option,
    percent,
    print_json,
    set_threads,
    threads_option,
    training_options,
    usage_errors,
)  # fmt: skip

if TYPE_CHECKING:
    from fastconv.train import Evaluation
    from fastconv.train.setup import Options, Setup


@click.command()
@training_options()
@threads_option
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="New folder to keep the net in.")
@click.option(
    "--watch-every", type=click.IntRange(min=1), metavar="K",
    help="Look at updates, gradients and activations every K steps: advice, and figures in DIR.",
)  # fmt: skip
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    dataset: str,
    threads: int | None,
    out: Path | None,
    watch_every: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a net, show how it goes, and test it.

    Without options a small convnet learns handwritten digits in a few seconds. What is not given is
    chosen for the data set. Two runs with the same options have the same weights to the last bit,
    whatever the threads and the instruction set.
    """
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    with usage_errors():
        from fastconv.train import Diverged, Progress, RunWriter, evaluate, state_sha256
        from fastconv.train.setup import fill, prepare
        from fastconv.train.writer import check_vacant

        if out is not None:
            check_vacant(out)
        setup = prepare(fill(dataset, **given), callbacks=[Progress(people)], progress=False)
        writer = None if out is None else RunWriter.start(out, setup.describe())
    trainer = setup.trainer
    if writer is not None:
        trainer.callbacks.insert(0, writer)
    if watch_every:
        from fastconv.diagnose import Watch

        trainer.callbacks.append(Watch(watch_every, say=lambda line: click.echo(line, file=people)))
    click.echo(_opening(setup), file=people)
    facts = _facts(setup)
    try:
        trainer.fit(setup.train, setup.validation, epochs=setup.options.epochs)
    except Diverged as error:
        click.echo(f"diverged: {error}; try a lower learning rate than {setup.options.lr:g}", err=True)
        result = {**facts, "status": "diverged", "diverged": True, "reason": str(error), "steps": error.step}
        if writer is not None:
            writer.finish(result)
        if as_json:
            print_json(result)
        ctx.exit(DIVERGED)
    found = evaluate(setup.model, setup.loss, setup.test)
    result = {
        **facts,
        "status": "stopped" if trainer.stop_reason else "finished",
        "reason": trainer.stop_reason,
        "test_accuracy": found.accuracy,
        "test_loss": found.loss,
        "train_seconds": sum(trainer.history["seconds"]),
        "steps": trainer.step,
        "best_epoch": trainer.best_epoch,
        "state_sha256": state_sha256(setup.model),
    }
    click.echo(_closing(result, found), file=people)
    if writer is not None:
        with usage_errors("--out: "):
            writer.finish(result, setup.model)
        click.echo(f"saved          {out}: see 'fastconv eval {out}'", file=people)
    if as_json:
        print_json(result)


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
    channels, height, width = dataset.shape
    aside = f", {setup.set_aside:,} for validation" if setup.set_aside else ""
    weights = sum(param.data.size for param in setup.model.parameters())
    rows = {
        "data": f"{dataset.name}: {len(dataset.classes)} classes, images {height}×{width}×{channels}: "
        f"{setup.trained_on:,} to train on{aside}, {len(dataset.test.labels):,} to test on",
        "model": f"{options.model}: {weights:,} parameters, init {options.init}, seed {options.seed}",
        "optimiser": ", ".join(_method(options)),
        "machine": f"{config.isa()} kernels, {config.threads()} thread{'s' * (config.threads() > 1)}",
    }
    return "".join(f"{name:<14} {text}\n" for name, text in rows.items())


def _method(options: Options) -> Iterator[str]:
    yield f"{options.optimizer} lr {options.lr:g}"
    for name in ("momentum", "weight_decay", "l2"):
        if getattr(options, name):
            yield f"{name.replace('_', ' ')} {getattr(options, name):g}"
    yield f"{options.schedule} schedule"
    if options.warmup:
        yield f"{options.warmup} steps of warm-up"
    yield f"batches of {options.batch_size}"
    if options.augment:
        yield "augmented"


def _closing(result: dict[str, Any], found: Evaluation) -> str:
    assert found.accuracy is not None
    share = f"{round(found.accuracy * found.samples):,} of {found.samples:,} images"
    best = f", best epoch {result['best_epoch']}" if result["best_epoch"] else ""
    return (
        f"\ntrained        {result['steps']:,} steps in {result['train_seconds']:.2f} s{best}"
        f"\ntest accuracy  {percent(found.accuracy)} ({share}), loss {found.loss:.4f}"
        f"\nstate sha256   {result['state_sha256']}"
    )
