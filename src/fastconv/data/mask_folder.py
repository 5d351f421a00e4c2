"""A folder of images and masks as a `Dataset`."""

from __future__ import annotations

import numpy as np

from fastconv.data._shuffle import permutation
from fastconv.data.dataset import Dataset, Samples
from fastconv.data.decode import IGNORED, Resize
from fastconv.data.image_cache import surveyed
from fastconv.data.listing import FOR, TEST
from fastconv.data.mask_listing import CLASSES, MaskListing, read_mask_listing
from fastconv.data.pictures import Masks, PairFiles, Pictures
from fastconv.paths import PathLike, printable

_SHOWN = 8  # numbers in a message


def load_masks(folder: PathLike, size: tuple[int, int], resize: Resize, channels: int, cache: bool) -> Dataset:
    """Read a folder of images and masks; see `fastconv.data.load`."""
    listing = read_mask_listing(folder)
    pairs = [pair for part in listing.parts.values() for pair in part]
    images, masks = zip(*pairs, strict=True)
    files: PairFiles = PairFiles(
        listing.root, images, masks, (channels + 1, *size), resize, len(listing.classes) or None
    )
    read, survey = surveyed(files) if cache else (files, files.survey())
    where, damaged = printable(listing.root), list(survey.damaged.values())
    good = np.ones(len(pairs), bool)
    good[list(survey.damaged)] = False
    if not good.any():
        raise ValueError(f"{where}: not one of {len(pairs):,} images and masks can be read: {damaged[0]}")
    everything = Pictures(read, np.arange(len(pairs)), survey.sums[:, :-1], survey.squares[:, :-1])
    parts = {}
    for part, rows in _parts(listing).items():
        kept = everything.part(rows[good[rows]])
        if not len(kept):
            raise ValueError(f"{where}: no image to {FOR[part]} that can be read: {damaged[0]}")
        parts[part] = Samples(kept, Masks(kept, survey.counts))  # type: ignore[arg-type]
    classes = listing.classes or _numbered(where, survey.counts)
    if not parts["train"].labels.counts()[: len(classes)].any():  # type: ignore[attr-defined]
        raise ValueError(f"{where}: every pixel to train on is {IGNORED}, which is of no class")
    return Dataset(
        printable(listing.root.name), classes, parts["train"], parts.get("test") or parts["validation"],
        validation=parts.get("validation"), damaged=tuple(damaged),
    )  # fmt: skip


def _numbered(where: str, counts: np.ndarray) -> tuple[str, ...]:
    """Return the numbers of the classes that masks hold, where nothing tells names: there may be no gap."""
    there = np.unique(counts[:, 1])
    classes = there[there != IGNORED].tolist()
    if classes == [0] and IGNORED in there:
        raise ValueError(
            f"{where}: the masks hold 0 and {IGNORED} alone, and {IGNORED} is of no class: write 1 where they have it"
        )
    if len(classes) < 2 or classes != list(range(len(classes))):
        found = ", ".join(map(str, classes[:_SHOWN])) + (", ..." if len(classes) > _SHOWN else "")
        raise ValueError(
            f"{where}: the masks hold the numbers {found or 'none'}; classes count from 0, there have to be two at "
            f"least, and if some do not occur, a file {CLASSES} has to name them all, one per line"
        )
    return tuple(map(str, classes))


def _parts(listing: MaskListing) -> dict[str, np.ndarray]:
    """Return the rows of each part; where there is nothing apart, a fifth is drawn for the test, always the same."""
    found, begin = {}, 0
    for name, part in listing.parts.items():
        found[name] = np.arange(begin, begin + len(part))
        begin += len(part)
    if len(found) > 1:
        return found
    order = permutation(begin, 0, "test")
    count = round(TEST * begin)
    if not 0 < count < begin:
        raise ValueError(
            f"{printable(listing.root)}: of {begin} images none is left to test on; add images, or a folder test/ "
            "beside train/"
        )
    return {"train": np.sort(order[count:]), "test": np.sort(order[:count])}
