"""``fastconv eval``, ``predict`` and ``export``: use a net that ``fastconv train --out DIR`` kept, or one of others."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastconv.cli import masks, tables
from fastconv.cli.common import (
    Place,
    json_option,
    print_json,
    set_threads,
    table,
    threads_option,
    usage_errors,
)  # fmt: skip
from fastconv.cli.names import NamesAndMore
from fastconv.paths import expand, printable
from fastconv.terminal import percent

if TYPE_CHECKING:
    import numpy as np

    from fastconv.data import Dataset
    from fastconv.train import Evaluation
    from fastconv.train.mistakes import Mistakes
    from fastconv.train.usable import Usable

_AT_A_TIME = 64  # images
_WORST = 5  # mistakes listed
_FOLDER = Place(exists=True, file_okay=False)


_NET = Place(exists=True)
_normalize = click.option(
    "--normalize", type=NamesAndMore("train.origins:NORMALIZATIONS", paths=False), metavar="WORD|MEAN,STD",
    help="Of an .onnx file that does not tell: imagenet, minus-one-to-one, zero-to-one, or numbers for values 0..255, "
    "as 127,128.",
)  # fmt: skip


@click.command("eval")
@click.argument("net", type=_NET, metavar="DIR|FILE")
@click.option(
    "--dataset", type=NamesAndMore("data:names"), metavar="NAME|FOLDER|TABLE",
    help="Test on this one; a run's own by default.",
)  # fmt: skip
@_normalize
@threads_option
@json_option
def evaluate(net: Path, dataset: str | None, normalize: str | None, threads: int | None, as_json: bool) -> None:
    """Test the net of a run, or in an .onnx file, on the test images of a data set, class by class.

    A net that takes the rows of a table is tested on those that its run set apart, or on all rows of another table; of
    one that predicts numbers it is told how far they are off.
    """
    set_threads(threads)
    with usage_errors():
        from fastconv import config
        from fastconv.train import evaluate as run_over
        from fastconv.train import read_record, state_sha256
        from fastconv.train.mistakes import Mistakes
        from fastconv.train.setup import evaluation_batches, loss_of
        from fastconv.train.usable import load_usable

        usable = load_usable(net, normalize)
        result: Any = (read_record(net).result or {}) if usable.options else {}
        samples = tables.tested_on(usable, dataset) if usable.columns else _tested_on(usable, dataset)
        batches = evaluation_batches(samples.test, usable.standardizer, usable.scale)
        mistakes = Mistakes()
        found = run_over(
            usable.model, loss_of(samples), batches, confusion=None if usable.scale else True, watch=mistakes,
            metrics="iou" if usable.per_pixel else None,
        )  # fmt: skip
        told, shown = _numbers(usable, samples, found) if usable.scale else _classes(samples, found, mistakes)
    sha256 = state_sha256(usable.model)
    if as_json:
        print_json({
            "dataset": samples.name, "model": usable.name, "samples": found.samples, "test_loss": found.loss, **told,
            "train_seconds": result.get("train_seconds"), "steps": result.get("steps"), "isa": config.isa(),
            "threads": config.threads(), "state_sha256": sha256,
        })  # fmt: skip
        return
    click.echo(
        f"{printable(usable.name)} on {found.samples:,} test {samples.noun}s of {printable(samples.name)}\n\n{shown}\n"
        f"state sha256   {sha256}"
    )


def _numbers(usable: Usable, samples: Dataset, found: Evaluation) -> tuple[dict[str, Any], str]:
    """Return how far predicted numbers are off, for JSON and for people."""
    from fastconv.train.mistakes import residuals

    true, predicted = samples.test.labels, usable.numbers(samples.test.images)
    off = residuals(true, predicted)
    figures = tables.figures(off, samples.target, f"{len(true):,} {samples.noun}s")
    shown = f"{figures}\n\n{tables.worst(true, predicted)}\n\n{'test loss':<14} {found.loss:.4f}"
    return {f"test_{name}": value for name, value in off.items()}, shown


def _classes(samples: Dataset, found: Evaluation, mistakes: Mistakes) -> tuple[dict[str, Any], str]:
    """Return which classes are taken for which, for JSON and for people."""
    from fastconv.train.mistakes import by_class, name

    assert found.confusion is not None
    assert found.accuracy is not None
    pixels, classes, figures = samples.per_pixel, samples.classes, by_class(found.confusion)
    told = {
        "test_accuracy": found.accuracy,
        **{f"test_{name}": value for name, value in found.metrics.items()},
        "by_class": dict(zip(classes, figures, strict=True)),
        "worst": [
            {samples.noun: name(samples.test.images, m.row), "class": classes[m.label], "taken_for": classes[m.taken],
             "own": m.own, "chance": m.chance}
            for m in mistakes.worst
        ],
    }  # fmt: skip
    table_of = masks.by_class if pixels else partial(_by_class, f"{samples.noun}s")
    shown = table_of(figures, found.confusion, classes) + "\n"
    if mistakes.worst:
        rows = [("worst mistakes", "class", "taken for", "wrong pixels" if pixels else "probability")]
        rows += [
            (name(samples.test.images, m.row), classes[m.label], classes[m.taken], percent(m.chance))
            for m in mistakes.worst[:_WORST]
        ]
        shown += "\n" + table(rows, numbers=frozenset({3})) + "\n"
    share = f"{int(found.confusion.trace()):,} of {int(found.confusion.sum()):,} {'pixel' if pixels else samples.noun}s"
    iou = f"{'mean IoU':<14} {percent(found.metrics['iou'])}\n" if pixels else ""
    return told, f"{shown}\n{iou}test accuracy  {percent(found.accuracy)} ({share}), loss {found.loss:.4f}"


def _tested_on(usable: Usable, dataset: str | None) -> Dataset:
    """Return the data set to test a net on, in the net's size; refuse one of other classes."""
    from fastconv import data
    from fastconv.train.setup import DEFAULTS, Options, dataset_of

    if dataset is None:
        if not usable.options:
            raise ValueError(f"{usable.name} does not say what it learned: name a data set or a folder by --dataset")
        return dataset_of(Options.of(usable.options))
    if data.is_table(dataset):
        raise ValueError(f"{usable.name} takes images, and {dataset} is a table")
    if data.resolve(dataset) in DEFAULTS:
        found = data.load(dataset)
    else:
        found = data.load(dataset, image_size=usable.shape[1:], resize=usable.resize)
    if found.per_pixel != usable.per_pixel:
        kinds = ("each image", "each pixel")
        raise ValueError(
            f"{usable.name} has scores for {kinds[usable.per_pixel]}, {found.name} has classes of "
            f"{kinds[found.per_pixel]}"
        )
    if found.shape != usable.shape:
        raise ValueError(f"{usable.name} takes images of {usable.shape}, those of {found.name} are {found.shape}")
    if len(found.classes) != len(usable.classes) or (usable.named and found.classes != usable.classes):
        shown = ", ".join(usable.classes[:5]) + (", ..." if len(usable.classes) > 5 else "")
        raise ValueError(
            f"{usable.name} tells apart {len(usable.classes)} classes ({shown}); {found.name} has {len(found.classes)} "
            f"({', '.join(found.classes[:5])}{', ...' if len(found.classes) > 5 else ''})"
        )
    return found


def _by_class(what: str, figures: list[dict[str, Any]], confusion: np.ndarray, classes: tuple[str, ...]) -> str:
    rows: list[tuple[str, ...]] = [("class", what, "right", "precision", "recall", "most often taken for")]
    for label, (name, found) in enumerate(zip(classes, figures, strict=True)):
        counts = confusion[label].copy()
        counts[label] = 0
        mistaken = int(counts.argmax())
        wrong = f"{classes[mistaken]} ({counts[mistaken]}×)" if counts[mistaken] else ""
        shares = (percent(found[share]) for share in ("precision", "recall"))
        rows.append((name, f"{found['samples']:,}", f"{found['right']:,}", *shares, wrong))
    return table(rows, numbers=frozenset({1, 2, 3, 4}))


@click.command()
@click.argument("net", type=_NET, metavar="DIR|FILE")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|TABLE...")
@click.option("--top", type=click.IntRange(1, 1000), metavar="K", help="Show the K likeliest classes of each image.")
@click.option(
    "--invert/--no-invert", default=None,
    help="Swap dark and light. By default done where it makes light strokes on a dark ground, for nets that "
    "learned those.",
)  # fmt: skip
@_normalize
@click.option("--image-size", metavar="N|HxW", help="Of an .onnx file that leaves it open; 224 by default.")
@click.option("--labels", type=Place(exists=True, dir_okay=False), help="Names of the classes, one per line.")
@click.option(
    "--out", type=Place(file_okay=False), metavar="FOLDER",
    help=f"Of a net that has scores for each pixel: where the masks go, '{masks.FOLDER}' by default.",
)  # fmt: skip
@threads_option
@json_option
def predict(
    net: Path, images: tuple[str, ...], top: int | None, invert: bool | None, normalize: str | None,
    image_size: str | None, labels: Path | None, out: Path | None, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what the net of a run, or in an .onnx file, sees in images.

    A net with scores for each pixel writes masks: a PNG for each image, of its size, with the number of each pixel's
    class, in colours that tell classes apart.

    An IMAGE is a picture or a .npy file, a folder of pictures with all below it, or a pattern such as 'a/*.jpg'.
    Pictures are made grey or RGB and brought to the size that the net takes. Damaged ones in folders and patterns are
    named at the end.

    A net that has learned a table takes a TABLE, a .csv or an .npz file with the columns that it was trained on, by
    name where they have names; the column that is to be told may be missing.
    """
    set_threads(threads)
    damaged: list[str] = []
    with usage_errors():
        from fastconv.train.looks import size
        from fastconv.train.usable import load_usable

        usable = load_usable(net, normalize, None if image_size is None else size(image_size))
        classes = usable.classes if labels is None else _labels(labels, len(usable.classes))
        if usable.columns:
            _only_images(image_size=image_size, invert=invert, labels=labels, normalize=normalize, out=out)
            told_rows = tables.predictions(usable, images, top or 0)
            if as_json:
                told = {} if usable.scale is None else {"target": usable.target}
                print_json({"model": usable.name, **told, "predictions": told_rows})
            else:
                click.echo(tables.shown(usable, told_rows))
            return
        if usable.per_pixel:
            where = masks.places(_files(images), out or Path(masks.FOLDER))
            guesses = list(masks.written(usable, where, classes, _loader(usable, invert, damaged)))
        elif out is not None:
            raise ValueError(f"--out is for masks; {usable.name} has scores for each image")
        else:
            guesses = list(_guesses(usable, _files(images), classes, top or 2, _loader(usable, invert, damaged)))
        if not guesses:
            raise ValueError("none of the images can be read: " + "; ".join(damaged[:3]))
    for reason in damaged:
        click.echo(printable(f"left out: {reason}"), err=True)
    if as_json:
        print_json({"model": usable.name, "predictions": guesses, "damaged": damaged})
    elif usable.per_pixel:
        click.echo(masks.shown(guesses, top))
    elif top is None:
        click.echo(table(_pairs(guesses), numbers=frozenset({2, 4})))
    else:
        rows = [("image", "class", "probability")]
        for guess in guesses:
            for i, entry in enumerate(guess["top"]):
                rows.append(("" if i else guess["image"], entry["class"], percent(entry["probability"])))
        click.echo(table(rows, numbers=frozenset({2})))


def _only_images(**given: Any) -> None:
    """Refuse options that mean nothing for rows of a table."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for images, and this net takes the rows of a table")


def _labels(path: Path, count: int) -> tuple[str, ...]:
    names = tuple(path.read_text("utf-8", errors="replace").splitlines())
    if len(names) != count:
        raise ValueError(f"{path} has {len(names)} lines, the net tells apart {count} classes")
    return names


def _files(images: tuple[str, ...]) -> Iterator[tuple[Path, bool]]:
    """Yield the files that arguments name, and whether each was named by itself."""
    from fastconv.data import images_below

    for text in images:
        path = expand(text)
        if path.is_dir():
            below = images_below(path)
            if not below:
                raise ValueError(f"{path}: no pictures in this folder")
            yield from ((file, False) for file in below)
        elif path.exists() or not glob.has_magic(text):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such image")
            yield path, True
        else:
            found = sorted(glob.glob(str(path), recursive=True))
            if not found:
                raise FileNotFoundError(f"{text}: no file has such a name")
            yield from ((Path(name), False) for name in found if Path(name).is_file())


def _guesses(
    usable: Usable, files: Iterator[tuple[Path, bool]], classes: tuple[str, ...], top: int,
    load: Callable[[Path, bool], np.ndarray | None],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield what the net makes of each file, some dozen at a time; of what is damaged ``load`` gives None."""
    import numpy as np

    from fastconv import functional as F

    while batch := list(itertools.islice(files, _AT_A_TIME)):
        pictures, names = [], []
        for path, alone in batch:
            if (image := load(path, alone)) is not None:
                pictures.append(image)
                names.append(path)
        if not pictures:
            continue
        for path, row in zip(names, F.softmax(usable.scores(np.stack(pictures))), strict=True):
            best = np.argsort(-row, kind="stable")[: max(top, 2)]
            entries = [{"class": classes[k], "probability": float(row[k])} for k in best]
            yield {
                "image": str(path), **entries[0], "runner_up": entries[1]["class"],
                "runner_up_probability": entries[1]["probability"], "top": entries[:top],
            }  # fmt: skip


def _loader(usable: Usable, invert: bool | None, damaged: list[str]) -> Callable[[Path, bool], np.ndarray | None]:
    """Return a function that reads an image as a net takes it; of one not named ``alone`` damage is noted, and None."""
    from fastconv import data

    how: Any = invert if invert is not None else "auto" if usable.light_on_dark else False

    def load(path: Path, alone: bool) -> np.ndarray | None:
        try:
            return data.load_image(path, usable.shape, invert=how, levels=usable.levels, resize=usable.resize)
        except (ValueError, OSError) as error:
            if alone:
                raise
            damaged.append(str(error))
            return None

    return load


def _pairs(guesses: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("image", "class", "probability", "or else", "probability")]
    for g in guesses:
        chances = (percent(g["probability"]), percent(g["runner_up_probability"]))
        rows.append((g["image"], g["class"], chances[0], g["runner_up"], chances[1]))
    return rows


@click.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("-o", "--out", type=Place(), required=True, metavar="FILE", help="The file, replaced if it exists.")
@click.option("--batch", type=click.IntRange(min=1), help="Fix the size of the batch; left open by default.")
@json_option
def export(folder: Path, out: Path, batch: int | None, as_json: bool) -> None:
    """Write the net in DIR to an ONNX file, which other programs run.

    The file takes images as 'fastconv predict' reads them, standardisation included, and gives a score for each
    class; its metadata has the names of the classes. That of a net for tables takes rows (N, columns), unscaled; where
    it predicts a number it gives that, (N, 1), in its own unit.
    """
    with usage_errors():
        import json

        from fastconv import data, onnx
        from fastconv.train.run import load_run, trained

        run = load_run(folder)
        about = trained(folder, run.config)
        shape = (batch or 1, *about["input_shape"])
        standardizer, row = data.Standardizer.from_dict(about["standardizer"]), about.get("table")
        net = _standardized(run.model, standardizer, shape[1:], row)
        levels = f"0..{about['levels']:g}"
        facts = {"classes": json.dumps(about["classes"]), "input": f"images (N, C, H, W), values {levels}"}
        if row is not None:
            shape = shape[:2]
            facts |= {"input": "rows (N, columns)", "columns": json.dumps(row["columns"]), "target": row["target"]}
        onnx.save(net, out, shape, dynamic_batch=batch is None, metadata=facts)
    shown = ("N" if batch is None else str(batch), *map(str, shape[1:]))
    if as_json:
        print_json({"file": str(out), "input_shape": [batch, *shape[1:]], "levels": about["levels"], **{
            "classes": about["classes"], "bytes": out.stat().st_size}})  # fmt: skip
        return
    size, count = out.stat().st_size, len(about["classes"])
    takes = f"images ({', '.join(shown)}), values {levels}" if row is None else f"rows ({', '.join(shown)})"
    gives = f"scores of {count} classes" if count else f"numbers ({row['target']})" if row else ""
    click.echo(f"{printable(out)}: {takes}, to {gives}, {size:,} bytes")


def _standardized(model: Any, standardizer: Any, shape: Any, row: dict[str, Any] | None) -> Any:
    """Return the model with its standardisation before it, and behind it the scale of a number that it predicts."""
    from fastconv import nn

    class Standardized(nn.Module):
        buffer_names = ("mean", "factor")

        def __init__(self) -> None:
            mean, factor = standardizer.expand(shape, "float32")
            kept = (a.transpose(2, 0, 1) if row is None else a.reshape(-1) for a in (mean, factor))
            self.mean, self.factor = (a.copy() for a in kept)
            self.net = model

        def forward(self, images: Any) -> Any:
            found = self.net((images - self.mean) * self.factor)
            return found * row["deviation"] + row["mean"] if row and "mean" in row else found

    return Standardized()
