"""A folder of images as a `Dataset`."""

from __future__ import annotations

import numpy as np

from fastconv.choices import RESIZES, Resize
from fastconv.data._shuffle import permutation
from fastconv.data.dataset import Dataset, Samples
from fastconv.data.image_cache import surveyed
from fastconv.data.listing import FOR, TEST, Listing, read_listing
from fastconv.data.mask_folder import load_masks
from fastconv.data.mask_listing import has_masks
from fastconv.data.pictures import Files, Pictures
from fastconv.functional._check import one_of
from fastconv.paths import PathLike, printable

SIZE = 64  # of images where none is asked for


def load_folder(
    folder: PathLike,
    *,
    image_size: int | tuple[int, int] = SIZE,
    resize: Resize = "crop",
    channels: int = 3,
    cache: bool = False,
) -> Dataset:
    """Read a folder of images, with a folder for each class or with masks; see `fastconv.data.load`."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1:
        raise ValueError(f"load: image_size must be at least 1, got {image_size}")
    one_of("load: resize", resize, RESIZES)
    if channels not in (1, 3):
        raise ValueError(f"load: channels must be 1 (grey) or 3 (RGB), got {channels}")
    if has_masks(folder):
        return load_masks(folder, (height, width), resize, channels, cache)
    listing = read_listing(folder)
    names = [name for part in listing.parts.values() for name in part.files]
    labels = np.concatenate([part.labels for part in listing.parts.values()])
    files = Files(listing.root, names, (channels, height, width), resize)
    if cache:
        files, survey = surveyed(files)
    else:
        survey = files.survey()
    damaged = list(survey.damaged.values())
    good = np.ones(len(names), bool)
    good[list(survey.damaged)] = False
    if not good.any():
        raise ValueError(f"{printable(listing.root)}: not one of {len(names):,} images can be read: {damaged[0]}")
    everything = Pictures(files, np.arange(len(names)), survey.sums, survey.squares)
    parts = {}
    for part, rows in _parts(listing).items():
        kept = rows[good[rows]]
        if not len(kept):
            raise ValueError(f"{printable(listing.root)}: no image to {FOR[part]} that can be read: {damaged[0]}")
        parts[part] = Samples(everything.part(kept), labels[kept])  # type: ignore[arg-type]
    left = np.bincount(parts["train"].labels, minlength=len(listing.classes))
    if not left.all():
        missing = listing.classes[int(left.argmin())]
        raise ValueError(f"{printable(listing.root)}: no image of {missing} to train on can be read: {damaged[0]}")
    return Dataset(
        printable(listing.root.name), listing.classes, parts["train"], parts.get("test") or parts["validation"],
        validation=parts.get("validation"), damaged=tuple(damaged),
    )  # fmt: skip


def _parts(listing: Listing) -> dict[str, np.ndarray]:
    """Return the rows of each part; where there is nothing apart, a fifth of each class is drawn for the test.

    Always the same fifth, whatever the seed of a run: runs are compared by it.
    """
    found, begin = {}, 0
    for name, part in listing.parts.items():
        found[name] = np.arange(begin, begin + len(part.files))
        begin += len(part.files)
    whole = "all" if "all" in found else "train"
    if len(found) == 1:
        labels = listing.parts[whole].labels
        held = np.zeros(len(labels), bool)
        for label in range(len(listing.classes)):
            rows = np.flatnonzero(labels == label)
            held[rows[permutation(len(rows), 0, "test", label)[: round(TEST * len(rows))]]] = True
        if not held.any():
            raise ValueError(
                f"{printable(listing.root)}: with {len(labels)} images in {len(listing.classes)} classes none is left "
                "to test on; add images, or a folder test/ beside train/"
            )
        return {"train": np.flatnonzero(~held), "test": np.flatnonzero(held)}
    return found
