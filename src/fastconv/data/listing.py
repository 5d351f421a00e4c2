"""What a folder of images holds: classes, files and parts, in an order that no machine changes.

::

    FOLDER/<class>/...            the parts are drawn
    FOLDER/train/<class>/...      with val/ (or valid/, validation/) and test/ beside it, each where there is one
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastconv.paths import PathLike, expand, printable

SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
"""Of names that count as images, in lower case; what else lies in a folder is left alone."""

PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
FOR = {"train": "train on", "validation": "validate with", "test": "test on"}
TEST = 0.2
"""Share that is drawn for the test where there is no test/."""


@dataclass(frozen=True, eq=False)
class Part:
    """The files of one part: names below the listing's root, sorted, and the class of each."""

    files: tuple[str, ...]
    labels: np.ndarray  # int64


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of a folder of images.

    Attributes
    ----------
    root : Path
        Absolute.
    classes : tuple of str
        Names of the folders, sorted, as a terminal may show them.
    parts : dict of str to Part
        "train" and, where there are such folders, "validation" and "test"; "all" alone where there are none.
    """

    root: Path
    classes: tuple[str, ...]
    parts: dict[str, Part]


def read_listing(folder: PathLike) -> Listing:
    """List the images of a folder. Nothing is opened.

    Hidden files and folders are left out. Links are followed; what they lead to is read once per class.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    ValueError
        If it has less than two classes, a class without images, or a class of another part that train/ lacks.
    """
    root = Path(os.path.abspath(expand(folder)))
    where = parts_in(root)
    first = where.get("train", root)
    folders = folders_in(first)
    classes = tuple(map(printable, folders))
    if len(classes) < 2:
        raise ValueError(
            f"{printable(first)} has {len(classes) or 'no'} folder{'s' * (len(classes) != 1)} of images; a class is a "
            "folder, and there have to be at least two"
        )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise ValueError(f"{printable(first)}: two names of classes both show as {twice!r}; rename one of them")
    parts = {}
    for part, path in where.items():
        found = folders if path == first else folders_in(path)
        if strange := sorted(found.keys() - folders.keys()):
            raise ValueError(f"{printable(path / strange[0])}: train/ has no such class")
        parts[part] = _part(root, found, tuple(folders))
    trained = parts.get("train") or parts["all"]
    counts = np.bincount(trained.labels, minlength=len(classes))
    if not counts.all():
        empty = ", ".join(classes[k] for k in np.flatnonzero(counts == 0)[:5])
        raise ValueError(f"{printable(first)}: no image for {empty}; an image ends in {' '.join(sorted(SUFFIXES))}")
    for part in ("validation", "test"):
        if part in parts and not parts[part].files:
            raise ValueError(f"{printable(where[part])} has no images; fill it or take it away")
    return Listing(root, classes, parts)


def parts_in(root: Path) -> dict[str, Path]:
    """Return the folder of each part: "all" where there is no ``train/``, or others than parts beside it.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    ValueError
        If two folders mean the same part.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{printable(root)} is no folder")
    below = folders_in(root)
    if "train" not in below or not below.keys() <= PARTS.keys():
        return {"all": root}
    where: dict[str, Path] = {}
    for name, path in below.items():
        if PARTS[name] in where:
            raise ValueError(f"{printable(root)}: {where[PARTS[name]].name}/ and {name}/ mean the same part")
        where[PARTS[name]] = path
    return where


def _part(root: Path, folders: dict[str, Path], classes: tuple[str, ...]) -> Part:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if name in folders:
            found = [path.relative_to(root).as_posix() for path in images_below(folders[name])]
            files += found
            labels += [label] * len(found)
    return Part(tuple(files), np.array(labels, np.int64))


def images_below(folder: PathLike) -> list[Path]:
    """Return the image files at and below a folder, sorted by their names' bytes; none of them is opened.

    What counts is the suffix: PNG, JPEG, BMP, GIF, WebP, TIFF and PNM (.ppm, .pgm, ...). Hidden files and folders,
    whose names begin with a dot, are left out.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    list of Path
        Each begins with ``folder``.

    Raises
    ------
    OSError
        If there is no such folder, or it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "cats").mkdir()
    ...     for name in ("b.png", "notes.txt", "cats/a.JPG", ".hidden.png"):
    ...         Path(folder, name).touch()
    ...     [path.relative_to(folder).as_posix() for path in data.images_below(folder)]
    ['b.png', 'cats/a.JPG']
    """
    found: list[Path] = []
    waiting, seen = [expand(folder)], set()
    while waiting:
        here = waiting.pop()
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = _visible(here)
        found += [Path(e.path) for e in entries if os.path.splitext(e.name)[1].lower() in SUFFIXES and e.is_file()]
        folders = [e for e in entries if e.is_dir()]
        # what is there without a link comes first, so that a link never takes its place
        waiting[:0] = [Path(e.path) for e in reversed(folders) if e.is_symlink()]
        waiting += [Path(e.path) for e in reversed(folders) if not e.is_symlink()]
    return sorted(found, key=lambda path: os.fsencode(path.as_posix()))


def folders_in(path: Path) -> dict[str, Path]:
    """Return the folders directly in one, by name, without hidden ones."""
    return {entry.name: Path(entry.path) for entry in _visible(path) if entry.is_dir()}


def _visible(path: Path) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: os.fsencode(e.name))
