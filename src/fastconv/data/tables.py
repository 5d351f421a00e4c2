"""Tables: rows of numbers and what is to be told of each, from CSV and NPZ files.

::

    a.csv    a line a row, its target last or where ``target`` says; the first line may hold names of the columns
    a.npz    x (N, columns) and y (N,), or x_train, y_train, x_test and y_test; perhaps feature_names, target_names

Targets that are text or whole numbers are classes, others are numbers to predict. A row is held as an image of one
pixel whose channels are its columns, (columns, 1, 1): a mean and a deviation for each channel then scale each column.

Nothing in a file is trusted: no array is made before the file is known to hold that much, and no pickle is read.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.choices import TASKS
from fastconv.data._shuffle import permutation
from fastconv.data.dataset import Dataset, Samples
from fastconv.data.formats import DEFLATE_RATIO, INFLATE_HOLDS
from fastconv.functional._check import nearest, unknown
from fastconv.paths import PathLike, expand, printable

if TYPE_CHECKING:
    import zipfile

SUFFIXES = (".csv", ".tsv", ".npz")
"""Endings by which a file is known for a table."""

_DELIMITERS = ",;\t"
_TEST = 5  # of so many rows one is for the test
_FEW = 20  # classes that nobody doubts
_EACH = 5  # rows that each of more should have
_SHOWN = 40  # characters of a cell in a message
_MOST = 2**16  # columns


@dataclass(frozen=True)
class Table:
    """Rows and their targets, as a file has them.

    Attributes
    ----------
    columns : tuple of str
        Their names; "x1", "x2", ... where the file has none.
    x : ndarray
        float32 (N, columns).
    target : str
        Name of what is to be told, "y" where the file has none; empty where there is no such column.
    y : ndarray or None
        (N,): classes as int64, or numbers as float64.
    classes : tuple of str
        Empty where targets are numbers.
    test : pair of ndarray, or None
        Rows (M, columns) and targets (M,) to test on, where the file sets them apart.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "houses.csv")
    ...     _ = path.write_text("area;rooms;price\\n80;3;250.5\\n120;5;400\\n")
    ...     table = data.read_table(path)
    >>> table.columns, table.target, table.y
    (('area', 'rooms'), 'price', array([250.5, 400. ]))
    """

    columns: tuple[str, ...]
    x: np.ndarray
    target: str
    y: np.ndarray | None
    classes: tuple[str, ...]
    test: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class TargetScale:
    """Numbers to predict, brought to mean 0 and deviation 1 for training, and back.

    Parameters
    ----------
    mean, deviation : float
        Finite; the deviation above 0.

    Raises
    ------
    ValueError
        If a number is not such.

    Examples
    --------
    >>> scale = TargetScale.fit(np.array([10.0, 30.0]))
    >>> scale(np.array([10.0, 20.0])).ravel().tolist(), scale.back(np.array([[1.0]])).tolist()
    ([-1.0, 0.0], [30.0])
    """

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.deviation) and self.deviation > 0):
            raise ValueError(
                f"TargetScale: mean must be finite and deviation above 0, got {self.mean} and {self.deviation}"
            )

    @classmethod
    def fit(cls, y: np.ndarray) -> TargetScale:
        """Take both from training targets, in float64; of targets that are all the same the deviation is 1.

        Parameters
        ----------
        y : ndarray
            (N,), N >= 1.
        """
        return cls(float(np.mean(y, dtype=np.float64)), float(np.std(y, dtype=np.float64)) or 1.0)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Return targets (N,) as a net learns them: float32 (N, 1)."""
        return ((y.astype(np.float64) - self.mean) / self.deviation).astype(np.float32)[:, np.newaxis]

    def back(self, outputs: np.ndarray) -> np.ndarray:
        """Return what a net puts out, (N, 1), in the targets' unit: float64 (N,).

        Parameters
        ----------
        outputs : ndarray
        """
        return outputs.reshape(len(outputs)).astype(np.float64) * self.deviation + self.mean


def is_table(name: PathLike) -> bool:
    """Return whether a path is that of a table, by its ending: .csv, .tsv or .npz.

    Parameters
    ----------
    name : path-like

    Examples
    --------
    >>> is_table("houses.csv"), is_table("digits")
    (True, False)
    """
    return os.fspath(name).lower().endswith(SUFFIXES)


def read_table(
    path: PathLike, target: str | None = None, task: str | None = None, classes: tuple[str, ...] | None = None,
    bare: int | None = None,
) -> Table:  # fmt: skip
    """Read a table.

    Parameters
    ----------
    path : path-like
        A CSV file, its cells parted by commas, semicolons or tabs, or an NPZ file.
    target : str, optional
        Which column of a CSV file is to be told: its name, or where there are no names its number from 1; the last by
        default.
    task : "classification" or "regression", optional
        What targets are; by default text and whole numbers are classes.
    classes : tuple of str, optional
        Those that there are, in order; others are refused. By default those that occur, sorted.
    bare : int, optional
        How many columns a net takes that is to tell the targets: then there need be none in the file. Its column
        ``target`` is left out where there is one; where there are no names, if it has one column more.

    Returns
    -------
    Table

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, a cell is empty, not finite or no number, there are no rows, or less than two classes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "flowers.csv")
    ...     _ = path.write_text("length,width,kind\\n5.5,3.5,setosa\\n6.5,3,virginica\\n")
    ...     table = data.read_table(path)
    >>> table.columns, table.x.tolist()
    (('length', 'width'), [[5.5, 3.5], [6.5, 3.0]])
    >>> table.target, table.y, table.classes
    ('kind', array([0, 1]), ('setosa', 'virginica'))
    """
    if task is not None and not (isinstance(task, str) and task in TASKS):
        raise ValueError(unknown("task", task, TASKS))
    path = expand(path)
    if path.suffix.lower() == ".npz":
        if target is not None and bare is None:
            raise ValueError(f"target {target!r}: {path} is an .npz file, whose targets are its array y")
        return _of_npz(path, task, classes, bare)
    columns, x, name, cells = _read_csv(path, target, bare)
    if cells is None:
        return Table(columns, x, "", None, ())
    y, found = _targets(cells, f"{path}: {name}", task, classes)
    return Table(columns, x, name, y, found)


def load_table(path: PathLike, target: str | None = None, task: str | None = None) -> Dataset:
    """Load a table as a data set: see `read_table`.

    Where the file does not set rows apart to test on, a fifth of them is drawn, of each class, always the same.

    Parameters
    ----------
    path : path-like
    target, task : str, optional

    Raises
    ------
    OSError, ValueError
        As `read_table`.
    """
    table = read_table(path, target, task)
    assert table.y is not None
    train, test = (table.x, table.y), table.test
    if test is None:
        held = _drawn(table.y)
        if not held.any() or held.all():
            raise ValueError(f"{path}: {len(held)} rows are too few to set some of them apart for the test")
        train, test = (table.x[~held], table.y[~held]), (table.x[held], table.y[held])
    kept, aside = (Samples(x[:, :, np.newaxis, np.newaxis], y) for x, y in (train, test))
    return Dataset(
        os.fspath(path), table.classes, kept, aside, levels=1, columns=table.columns, target=table.target
    )


def _drawn(y: np.ndarray) -> np.ndarray:
    """Return which rows are for the test: a fifth, of each class where there are some; the order is seed 0's."""
    order = permutation(len(y), 0, "table")
    held = np.zeros(len(y), bool)
    groups = [order] if y.dtype.kind == "f" else [order[y[order] == label] for label in range(int(y.max()) + 1)]
    for rows in groups:
        held[rows[: round(len(rows) / _TEST)]] = True
    return held


# ---- targets


def _targets(
    cells: list[str], where: str, task: str | None, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return targets written as text, and the names of their classes."""
    numbers = [_number(cell) for cell in cells]
    plain = None not in numbers
    whole = plain and all(re.fullmatch(r"\s*[+-]?\d+\s*", cell) for cell in cells)
    if task is None:
        task = "regression" if classes == () or (classes is None and plain and not whole) else "classification"
    if task == "regression":
        for row, (cell, number) in enumerate(zip(cells, numbers, strict=True), start=1):
            if number is None:
                raise ValueError(f"{where} holds {_shown(cell)} in row {row}, which is no number to predict")
        return _finite(np.array(numbers, np.float64), where), ()
    names = [str(int(cell)) for cell in cells] if whole else [printable(cell.strip()) for cell in cells]
    return _classes(names, where, classes, float if plain else str)


def _classes(
    names: list[str], where: str, classes: tuple[str, ...] | None, order: Callable[[str], Any] = str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the numbers of classes that are told by name."""
    found = tuple(sorted(set(names), key=lambda name: (order(name), name))) if classes is None else classes
    if classes is None and len(found) < 2:
        raise ValueError(f"{where}: {f'all rows are of class {found[0]!r}' if found else 'no rows'}; two are the least")
    if classes is None and len(found) > _FEW and len(names) < _EACH * len(found):
        raise ValueError(
            f"{where} has {len(found):,} different values in {len(names):,} rows, too many for classes: numbers to "
            "predict are written as 3.0, or asked for by --task regression; --target names another column"
        )
    places = {name: place for place, name in enumerate(found)}
    for row, name in enumerate(names, start=1):
        if name not in places:
            known = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise ValueError(f"{where} holds {_shown(name)} in row {row}, which is none of the classes {known}")
    return np.array([places[name] for name in names], np.int64), found


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _shown(cell: str) -> str:
    cell = printable(cell)
    return repr(cell if len(cell) <= _SHOWN else cell[: _SHOWN - 1] + "…")


def _finite(y: np.ndarray, where: str) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        held = f"{where} holds {y[bad[0]]} in row {bad[0] + 1}"
        raise ValueError(f"{held}; leave such rows out, or fill in what they lack")
    return y


# ---- csv


def _read_csv(
    path: Path, target: str | None, bare: int | None
) -> tuple[tuple[str, ...], np.ndarray, str, list[str] | None]:  # fmt: skip
    """Return names of the columns, rows, and the target's name and cells."""
    import csv  # here, and zipfile below: most processes read no table

    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _rows(path, _lines(file), target, bare)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from error


def _lines(file: io.TextIOBase) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that has some, with its number."""
    import csv

    first = file.readline()
    bare = re.sub(r'"(?:[^"]|"")*"', "", first)  # what is in quotes parts nothing
    reader = csv.reader(_again(first, file), delimiter=max(_DELIMITERS, key=bare.count), strict=True)
    yield from ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))


def _again(first: str, file: io.TextIOBase) -> Iterator[str]:
    yield first
    yield from file


def _rows(
    path: Path, lines: Iterator[tuple[int, list[str]]], target: str | None, bare: int | None
) -> tuple[tuple[str, ...], np.ndarray, str, list[str] | None]:  # fmt: skip
    first, head = next(lines, (0, []))
    if not head:
        raise ValueError(f"{path}: no rows in it")
    named = all(_number(cell) is None for cell in head)
    names = [printable(cell.strip()) for cell in head] if named else [f"x{i}" for i in range(1, len(head) + 1)]
    if len(head) > _MOST:
        raise ValueError(f"{path}: {len(head):,} columns, {_MOST:,} are the most")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: two columns are called {twice!r}")
    at = _place(path, target, names, named, bare)
    columns = tuple(name for i, name in enumerate(names) if i != at)
    if not columns:
        raise ValueError(f"{path}: one column alone: there is nothing to tell {names[0]!r} from")
    values = array("f")
    cells: list[str] | None = None if at is None else []
    for number, line in lines if named else _again_row(first, head, lines):
        if len(line) != len(names):
            raise ValueError(f"{path}: line {number} has {len(line)} cells, the first {len(names)}")
        if cells is not None and at is not None:
            cells.append(line.pop(at))
        try:
            row = array("f", map(float, line))
        except (ValueError, OverflowError):
            row = array("f")
        if len(row) != len(columns) or not all(map(math.isfinite, row)):
            raise ValueError(_odd(path, number, columns, line))
        values.extend(row)
    x = np.frombuffer(values, np.float32).reshape(-1, len(columns))
    if not len(x):
        raise ValueError(f"{path}: names of columns, but no rows")
    return columns, x, "" if at is None else names[at] if named else "y", cells


def _again_row(
    number: int, head: list[str], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:  # fmt: skip
    yield number, list(head)
    yield from lines


def _place(path: Path, target: str | None, names: list[str], named: bool, bare: int | None) -> int | None:
    """Return which column holds the targets."""
    if bare is not None and (len(names) != bare + 1 if not named else target not in names):
        return None
    if target is None:
        return len(names) - 1
    if named and target in names:
        return names.index(target)
    if not named and target.isascii() and target.isdigit() and 1 <= int(target[:9]) <= len(names):
        return int(target) - 1
    has = f"columns {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}{nearest(target, names)}"
    raise ValueError(f"{path}: no column {target!r}; it has " + (has if named else f"{len(names)}, without names"))


def _odd(path: Path, number: int, columns: tuple[str, ...], line: list[str]) -> str:
    """Say which cell of a line cannot be taken."""
    for name, cell in zip(columns, line, strict=True):
        value = _number(cell)
        where = f"{path}: line {number}, column {name!r}"
        if not cell.strip():
            return f"{where} is empty: fill in what is missing, or leave the row out"
        if value is None:
            return f"{where} holds {_shown(cell)}, which is no number: write such columns as numbers, or leave them out"
        if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
            return f"{where} holds {_shown(cell)}: fill in what is missing, or leave the row out"
    return f"{path}: line {number} cannot be read"


# ---- npz


def _of_npz(path: Path, task: str | None, classes: tuple[str, ...] | None, bare: int | None) -> Table:
    arrays = _read_npz(path)
    parted = "x_train" in arrays or "x_test" in arrays
    first, second = ("x_train", "y_train") if parted else ("x", "y")
    needed = (first,) if bare is not None else (first, second, *(("x_test", "y_test") if parted else ()))
    missing = [name for name in needed if name not in arrays]
    if missing:
        has = ", ".join(arrays) or "none of them"
        raise ValueError(
            f"{path}: no array {' and '.join(missing)}; rows x (N, columns) and targets y (N,) are read, or x_train, "
            f"y_train, x_test, y_test; there is {has}"
        )
    x = _rows_of(arrays[first], f"{path}: {first}")
    columns = _names(arrays, "feature_names", x.shape[1], path) or tuple(f"x{i}" for i in range(1, x.shape[1] + 1))
    if second not in arrays:
        return Table(columns, x, "", None, ())
    labels = _names(arrays, "target_names", None, path)
    parts = [arrays[second], *([arrays["y_test"]] if "y_test" in arrays and bare is None else [])]
    y, found = _array_targets(np.concatenate(_alike(parts, path)), f"{path}: {second}", task, classes, labels)
    tests = len(y) - len(arrays[second])
    if len(x) != len(arrays[second]):
        raise ValueError(f"{path}: {len(x):,} rows in {first}, {len(arrays[second]):,} targets in {second}")
    if not tests:
        return Table(columns, x, "y", y, found)
    x_test = _rows_of(arrays["x_test"], f"{path}: x_test")
    if x_test.shape != (tests, x.shape[1]):
        raise ValueError(f"{path}: x_test is {x_test.shape}, {(tests, x.shape[1])} fits y_test and {first}")
    return Table(columns, x, "y", y[: len(x)], found, (x_test, y[len(x) :]))


def _rows_of(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "buif":
        raise ValueError(
            f"{where} must hold rows of numbers (N, columns), got {x.dtype} {x.shape}; images are read from folders"
        )
    if x.shape[1] > _MOST:
        raise ValueError(f"{where} has {x.shape[1]:,} columns, {_MOST:,} are the most")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(x, np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{where}: {len(bad):,} rows hold NaN, infinity or numbers beyond float32, the first is row {bad[0] + 1}: "
            "leave them out, or fill in what is missing"
        )
    return rows


def _names(arrays: dict[str, np.ndarray], name: str, count: int | None, path: Path) -> tuple[str, ...]:
    if name not in arrays:
        return ()
    names = arrays[name]
    if names.ndim != 1 or names.dtype.kind != "U" or (count is not None and len(names) != count):
        want = "names" if count is None else f"{count} names"
        raise ValueError(f"{path}: {name} must hold {want} as text, got {names.dtype} {names.shape}")
    return tuple(printable(text) for text in names.tolist())


def _alike(parts: list[np.ndarray], path: Path) -> list[np.ndarray]:
    """Return targets as (N,) each; refuse what is none, or of different kinds."""
    flat = [y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in parts]
    for y in flat:
        if y.ndim != 1 or y.dtype.kind not in "buifU":
            raise ValueError(f"{path}: y must hold a number or a text for each row, (N,), got {y.dtype} {y.shape}")
    if len({y.dtype.kind == "U" for y in flat}) > 1:
        raise ValueError(f"{path}: targets to train and to test on are of different kinds")
    return flat


def _array_targets(
    y: np.ndarray, where: str, task: str | None, classes: tuple[str, ...] | None, labels: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:  # fmt: skip
    """Return targets of an array, and the names of their classes."""
    numbers = y.dtype.kind == "f" if task is None else task == "regression"
    if classes is not None:
        numbers = not classes
    if numbers and y.dtype.kind == "U":
        raise ValueError(f"{where} holds text, which is no number to predict")
    if numbers:
        return _finite(y.astype(np.float64), where), ()
    if labels and y.dtype.kind in "biu" and len(y) and int(y.min()) >= 0 and int(y.max()) < len(labels):
        names = [labels[int(label)] for label in y.tolist()]
        return _classes(names, where, labels if classes is None else classes)
    kept = _finite(y, where) if y.dtype.kind == "f" else y
    names = [printable(str(value)) for value in kept.tolist()]
    return _classes(names, where, classes, str if y.dtype.kind in "Ub" else float)


_READ = ("x", "y", "x_train", "y_train", "x_test", "y_test", "feature_names", "target_names")
_DAMAGED = (
    ValueError, OSError, EOFError, KeyError, SyntaxError, OverflowError, NotImplementedError, RuntimeError, zlib.error,
    struct.error,
)  # fmt: skip


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    import zipfile

    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            there = set(archive.namelist())
            return {name: _member(archive, f"{name}.npy") for name in _READ if f"{name}.npy" in there}
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an .npz file that can be read: {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array that the archive is known to hold."""
    info = archive.getinfo(name)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has version {version} of the format, 1.0 and 2.0 are read")
        read: Any = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, fortran, dtype = read(file)
        if dtype.hasobject or dtype.kind not in "buifcU" or not dtype.itemsize:
            raise ValueError(f"{name} holds {dtype}, which is neither numbers nor text")
        size = math.prod(shape) * dtype.itemsize
        if any(side < 0 for side in shape) or size > (info.compress_size + INFLATE_HOLDS) * DEFLATE_RATIO:
            raise ValueError(f"{name} promises {shape}, and the file is too small for that")
        data = file.read(size)
        if len(data) != size or file.read(1):
            raise ValueError(f"{name} does not hold the {size} bytes that {shape} takes")
    found = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return found.astype(dtype.newbyteorder("="), copy=False)
