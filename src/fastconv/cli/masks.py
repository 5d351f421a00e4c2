"""What ``fastconv predict`` and ``eval`` do with nets that have scores for each pixel: masks, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastconv.cli.common import table
from fastconv.terminal import percent

if TYPE_CHECKING:
    import numpy as np

    from fastconv.train.usable import Usable

FOLDER = "predicted"
_SHOWN = 3  # classes of an image


def places(files: Iterable[tuple[Path, bool]], out: Path) -> list[tuple[Path, bool, Path]]:
    """Return files with the mask each shall get, in the folder ``out``.

    Raises
    ------
    ValueError
        If two would get the same, or one would be written over.
    """
    found: dict[Path, tuple[Path, bool, Path]] = {}
    for path, alone in files:
        mask = out / f"{path.stem}.png"
        if mask in found:
            raise ValueError(f"{found[mask][0]} and {path} would both get the mask {mask}: give --out for each folder")
        found[mask] = (path, alone, mask)
    images = {path.resolve() for path, _, _ in found.values()}
    for mask in found:
        if mask.resolve() in images:
            raise ValueError(f"{mask} is one of the images and would be written over: give another folder by --out")
    return list(found.values())


def written(
    usable: Usable, files: list[tuple[Path, bool, Path]], classes: tuple[str, ...],
    load: Callable[[Path, bool], np.ndarray | None],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Write the mask of each file and yield what it shows; of what is damaged ``load`` gives None."""
    import numpy as np

    from fastconv import data
    from fastconv.train.evaluation import together

    step = together(usable.shape, per_pixel=True)
    for start in range(0, len(files), step):
        images, here = [], []
        for path, alone, mask in files[start : start + step]:
            if (image := load(path, alone)) is not None:
                images.append(image)
                here.append((path, mask))
        if not images:
            continue
        found = usable.scores(np.stack(images)).argmax(axis=1).astype(np.uint8)
        for (path, where), seen in zip(here, found, strict=True):
            own = seen
            if path.suffix.lower() != ".npy":
                own = data.unfitted(seen, data.upright_size(path), usable.resize)
            _save(own, where)
            counts = np.bincount(own[own != data.IGNORED], minlength=len(classes))
            shares = {name: float(count / counts.sum()) for name, count in zip(classes, counts, strict=True)}
            yield {"image": str(path), "mask": str(where), "shares": shares}


def _save(mask: np.ndarray, path: Path) -> None:
    from PIL import Image

    from fastconv.data import palette
    from fastconv.serialize.files import replacing

    path.parent.mkdir(parents=True, exist_ok=True)  # where there is something to write
    picture = Image.fromarray(mask)
    picture.putpalette(palette().tobytes())  # which makes numbers of grey levels
    with replacing(path) as draft:
        picture.save(draft, format="PNG")


def shown(found: list[dict[str, Any]], top: int | None) -> str:
    """Return a table of what masks show."""
    rows = [("image", "mask", "classes")]
    for one in found:
        order = sorted(one["shares"].items(), key=lambda pair: -pair[1])[: top or _SHOWN]
        rows.append(
            (one["image"], one["mask"], ", ".join(f"{name} {percent(share)}" for name, share in order if share))
        )
    return table(rows)


def by_class(figures: list[dict[str, Any]], confusion: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return a table of the classes' figures."""
    rows: list[tuple[str, ...]] = [("class", "pixels", "IoU", "precision", "recall", "most often taken for")]
    for label, (name, found) in enumerate(zip(classes, figures, strict=True)):
        counts = confusion[label].copy()
        counts[label] = 0
        mistaken = int(counts.argmax())
        share = counts[mistaken] / found["samples"] if found["samples"] else 0.0
        wrong = f"{classes[mistaken]} ({percent(share)})" if share else ""
        shares = (percent(found[k]) for k in ("iou", "precision", "recall"))
        rows.append((name, f"{found['samples']:,}", *shares, wrong))
    return table(rows, numbers=frozenset({1, 2, 3, 4}))
