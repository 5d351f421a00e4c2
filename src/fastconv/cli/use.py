"""``fastconv eval``, ``predict`` and ``export``: use a net that ``fastconv train --out DIR`` kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastconv.cli.common import (
    Place,
    json_option,
    percent,
    print_json,
    set_threads,
    table,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.paths import printable

if TYPE_CHECKING:
    import numpy as np

_WORST = 5  # mistakes listed
_FOLDER = Place(exists=True, file_okay=False)
_IMAGE = Place(exists=True, dir_okay=False)


@click.command("eval")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@threads_option
@json_option
def evaluate(folder: Path, threads: int | None, as_json: bool) -> None:
    """Test the net in DIR on the test images of its data set, class by class."""
    set_threads(threads)
    with usage_errors():
        from fastconv import config, data, nn
        from fastconv.train import evaluate as run_over
        from fastconv.train import state_sha256
        from fastconv.train.mistakes import Mistakes, by_class, name
        from fastconv.train.run import load_run, trained
        from fastconv.train.setup import Options, dataset_of, evaluation_batches

        run = load_run(folder)
        about = trained(folder, run.config)
        model = about["options"]["model"]
        standardizer = data.Standardizer.from_dict(about["standardizer"])
        dataset = dataset_of(Options.of(about["options"]))
        batches = evaluation_batches(dataset.test, standardizer)
        mistakes = Mistakes()
        found = run_over(run.model, nn.CrossEntropyLoss(), batches, confusion=True, watch=mistakes)
    assert found.confusion is not None
    assert found.accuracy is not None
    if as_json:
        print_json({
            "dataset": dataset.name,
            "model": model,
            "test_accuracy": found.accuracy,
            "test_loss": found.loss,
            "train_seconds": run.result.get("train_seconds"),
            "steps": run.result.get("steps"),
            "isa": config.isa(),
            "threads": config.threads(),
            "state_sha256": state_sha256(run.model),
            "by_class": dict(zip(dataset.classes, by_class(found.confusion), strict=True)),
            "worst": [
                {"image": name(dataset.test.images, m.row), "class": dataset.classes[m.label],
                 "taken_for": dataset.classes[m.taken], "own": m.own, "chance": m.chance}
                for m in mistakes.worst
            ],
        })  # fmt: skip
        return
    click.echo(f"{printable(model)} on {found.samples:,} test images of {dataset.name}\n")
    click.echo(_by_class(found.confusion, dataset.classes))
    if mistakes.worst:
        rows = [("worst mistakes", "class", "taken for", "probability")]
        rows += [
            (name(dataset.test.images, m.row), dataset.classes[m.label], dataset.classes[m.taken], percent(m.chance))
            for m in mistakes.worst[:_WORST]
        ]
        click.echo("\n" + table(rows, numbers=frozenset({3})))
    share = f"{int(found.confusion.trace()):,} of {found.samples:,} images"
    click.echo(
        f"\ntest accuracy  {percent(found.accuracy)} ({share}), loss {found.loss:.4f}"
        f"\nstate sha256   {state_sha256(run.model)}"
    )


def _by_class(confusion: np.ndarray, classes: tuple[str, ...]) -> str:
    from fastconv.train.mistakes import by_class

    rows: list[tuple[str, ...]] = [("class", "images", "right", "precision", "recall", "most often taken for")]
    for label, (name, found) in enumerate(zip(classes, by_class(confusion), strict=True)):
        counts = confusion[label].copy()
        counts[label] = 0
        mistaken = int(counts.argmax())
        wrong = f"{classes[mistaken]} ({counts[mistaken]}×)" if counts[mistaken] else ""
        shares = (percent(found[share]) if found[share] is not None else "–" for share in ("precision", "recall"))
        rows.append((name, f"{found['images']:,}", f"{found['right']:,}", *shares, wrong))
    return table(rows, numbers=frozenset({1, 2, 3, 4}))


@click.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.argument("images", type=_IMAGE, nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--invert/--no-invert", default=None,
    help="Swap dark and light. By default done where it makes light strokes on a dark ground, for nets that "
    "learned those.",
)  # fmt: skip
@threads_option
@json_option
def predict(folder: Path, images: tuple[Path, ...], invert: bool | None, threads: int | None, as_json: bool) -> None:
    """Say what the net in DIR sees in PNG, JPEG or .npy images.

    Pictures are made grey or RGB and scaled to what the net takes.
    """
    set_threads(threads)
    with usage_errors():
        import numpy as np

        from fastconv import data
        from fastconv import functional as F
        from fastconv.train.run import load_run, trained

        run = load_run(folder)
        about = trained(folder, run.config)
        model, classes, levels = about["options"]["model"], about["classes"], about["levels"]
        channels, height, width = about["input_shape"]
        resize: Any = about["options"].get("resize") or "pad"
        how: Any = invert if invert is not None else "auto" if about["light_on_dark"] else False
        standardizer = data.Standardizer.from_dict(about["standardizer"])
        pictures = np.stack([
            data.load_image(path, (channels, height, width), invert=how, levels=levels, resize=resize)
            for path in images
        ])  # fmt: skip
        scores = run.model.predict(standardizer(pictures), batch_size=256)
        if scores.shape != (len(images), len(classes)):
            raise ValueError(f"{folder}: the net gives scores of shape {scores.shape} for {len(classes)} classes")
        chances = F.softmax(scores)
    guesses = []
    for path, row in zip(images, chances, strict=True):
        first, second = (int(k) for k in np.argsort(-row, kind="stable")[:2])
        guesses.append({
            "image": str(path),
            "class": classes[first], "probability": float(row[first]),
            "runner_up": classes[second], "runner_up_probability": float(row[second]),
        })  # fmt: skip
    if as_json:
        print_json({"model": model, "predictions": guesses})
        return
    rows = [("image", "class", "probability", "or else", "probability")]
    rows += [
        (
            g["image"],
            g["class"],
            percent(g["probability"]),
            g["runner_up"],
            percent(g["runner_up_probability"]),
        )
        for g in guesses
    ]
    click.echo(table(rows, numbers=frozenset({2, 4})))


@click.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("-o", "--out", type=Place(), required=True, metavar="FILE", help="The file, replaced if it exists.")
@click.option("--batch", type=click.IntRange(min=1), help="Fix the size of the batch; left open by default.")
@json_option
def export(folder: Path, out: Path, batch: int | None, as_json: bool) -> None:
    """Write the net in DIR to an ONNX file, which other programs run.

    The file takes images as 'fastconv predict' reads them, standardisation included, and gives a score for each
    class; its metadata has the names of the classes.
    """
    with usage_errors():
        import json

        from fastconv import data, onnx
        from fastconv.train.run import load_run, trained

        run = load_run(folder)
        about = trained(folder, run.config)
        shape = (batch or 1, *about["input_shape"])
        standardizer = data.Standardizer.from_dict(about["standardizer"])
        net = _standardized(run.model, standardizer, shape[1:])
        levels = f"0..{about['levels']:g}"
        facts = {"classes": json.dumps(about["classes"]), "input": f"images (N, C, H, W), values {levels}"}
        onnx.save(net, out, shape, dynamic_batch=batch is None, metadata=facts)
    shown = ("N" if batch is None else str(batch), *map(str, shape[1:]))
    if as_json:
        print_json({"file": str(out), "input_shape": [batch, *shape[1:]], "levels": about["levels"], **{
            "classes": about["classes"], "bytes": out.stat().st_size}})  # fmt: skip
        return
    size, count = out.stat().st_size, len(about["classes"])
    click.echo(
        f"{printable(out)}: images ({', '.join(shown)}), values {levels}, to scores of {count} classes, {size:,} bytes"
    )


def _standardized(model: Any, standardizer: Any, shape: Any) -> Any:
    """Return the model with its standardisation before it."""
    from fastconv import nn

    class Standardized(nn.Module):
        buffer_names = ("mean", "factor")

        def __init__(self) -> None:
            mean, factor = standardizer.expand(shape, "float32")
            self.mean, self.factor = (a.transpose(2, 0, 1).copy() for a in (mean, factor))
            self.net = model

        def forward(self, images: Any) -> Any:
            return self.net((images - self.mean) * self.factor)

    return Standardized()
