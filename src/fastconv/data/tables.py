"""Tables: rows of numbers and what is to be told of each, from CSV and NPZ files.

::

    a.csv    a line a row, its target last or where ``target`` says; the first line may hold names of the columns
    a.npz    x (N, columns) and y (N,), or x_train, y_train, x_test and y_test; perhaps feature_names, target_names

Targets that are text or whole numbers are classes, others are numbers to predict. A row is held as an image of one
pixel whose channels are its columns, (columns, 1, 1): a mean and a deviation for each channel then scale each column.

`table_csv` and `table_npz` read the files and `cells` tells what targets are. Nothing in a file is trusted.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from fastconv.choices import TASKS
from fastconv.data._shuffle import permutation
from fastconv.data.dataset import Dataset, Samples
from fastconv.data.table_csv import read_csv
from fastconv.data.table_npz import read_npz
from fastconv.functional._check import check_name
from fastconv.paths import PathLike, expand

SUFFIXES = (".csv", ".tsv", ".npz")
"""Endings by which a file is known for a table."""

_TEST = 5  # of so many rows one is for the test


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
    check_name("task", task, (None, *TASKS))
    path = expand(path)
    if path.suffix.lower() == ".npz":
        if target is not None and bare is None:
            raise ValueError(f"target {target!r}: {path} is an .npz file, whose targets are its array y")
        return Table(*read_npz(path, task, classes, bare))
    return Table(*read_csv(path, target, task, classes, bare))


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
