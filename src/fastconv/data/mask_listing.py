"""What a folder of images and masks holds: which mask belongs to which image, parts, names of classes.

::

    FOLDER/images/...  FOLDER/masks/...        a mask has its image's name, but for the ending; the parts are drawn
    FOLDER/train/images/...  train/masks/...   with val/ (or valid/, validation/) and test/ beside it
    FOLDER/classes.txt                         a name per line, of classes 0, 1, ...; where there is one
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fastconv.data.listing import folders_in, images_below, parts_in
from fastconv.paths import PathLike, expand, printable

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
_SHOWN = 3  # names in a message
_MOST = 255  # classes; 255 itself is no class


@dataclass(frozen=True, eq=False)
class MaskListing:
    """Images and their masks.

    Attributes
    ----------
    root : Path
        Absolute.
    classes : tuple of str
        As a terminal may show them; empty where there is no classes.txt.
    parts : dict of str to list of (str, str)
        Names of images and masks below the root, sorted by the images'; "train" and, where there are such folders,
        "validation" and "test"; "all" alone where there are none.
    """

    root: Path
    classes: tuple[str, ...]
    parts: dict[str, list[tuple[str, str]]]


def has_masks(folder: PathLike) -> bool:
    """Return whether a folder holds ``images/`` and ``masks/``, perhaps in ``train/``.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    bool
        False, too, where there is no such folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("images", "masks"):
    ...         print(data.has_masks(folder))
    ...         Path(folder, name).mkdir()
    ...     print(data.has_masks(folder))
    False
    False
    True
    """
    root = expand(folder)
    return any((where / IMAGES).is_dir() and (where / MASKS).is_dir() for where in (root, root / "train"))


def read_mask_listing(folder: PathLike) -> MaskListing:
    """List the images and masks of a folder. Only classes.txt is opened.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    ValueError
        If an image has no mask, a mask no image, a part no images, or classes.txt names no classes.
    """
    root = Path(os.path.abspath(expand(folder)))
    where = parts_in(root)
    parts = {part: _pairs(root, path) for part, path in where.items()}
    return MaskListing(root, _names(root / CLASSES), parts)


def _pairs(root: Path, folder: Path) -> list[tuple[str, str]]:
    """Return the images of one part, each with its mask."""
    below = folders_in(folder)
    if missing := [name for name in (IMAGES, MASKS) if name not in below]:
        raise ValueError(f"{printable(folder)} has no folder {missing[0]}/; masks/ stands beside images/ in each part")
    images, masks = (_by_stem(below[name]) for name in (IMAGES, MASKS))
    if not images:
        raise ValueError(f"{printable(below[IMAGES])} has no images; fill it or take the part away")
    for path in masks.values():
        if path.suffix.lower() != ".png":
            raise ValueError(
                f"{printable(path)}: a mask is a PNG, grey or with a palette; other files may change the class numbers"
            )
    for what, other, lone in (
        ("image", "mask", images.keys() - masks.keys()), ("mask", "image", masks.keys() - images.keys()),
    ):  # fmt: skip
        if lone:
            found = images if what == "image" else masks
            names = sorted(found[stem].relative_to(root).as_posix() for stem in lone)
            shown = ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
            many = f"{len(names):,} {what}s have" if len(names) > 1 else f"1 {what} has"
            raise ValueError(
                f"{printable(folder)}: {many} no {other} of the same name: {shown}; masks/a/b.png is that of "
                "images/a/b.jpg"
            )
    pairs = [(images[stem].relative_to(root).as_posix(), masks[stem].relative_to(root).as_posix()) for stem in images]
    return sorted(pairs, key=lambda pair: os.fsencode(pair[0]))


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the images below a folder by their names in it without the ending."""
    found: dict[str, Path] = {}
    for path in images_below(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{printable(found[stem])} and {printable(path.name)} have one name but for the ending")
        found[stem] = path
    return found


def _names(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    try:
        lines = path.read_bytes()[: 1 << 20].decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{printable(path)} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    names = tuple(printable(line.strip()) for line in lines if line.strip())
    if not 2 <= len(names) <= _MOST or len(set(names)) < len(names):
        got = "one name twice" if len(set(names)) < len(names) else f"{len(names)} names"
        raise ValueError(f"{printable(path)} must have 2 to {_MOST} names of classes, one per line, got {got}")
    return names
