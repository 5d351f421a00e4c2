"""What the cells of a table hold: numbers, and targets that are numbers to predict or classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.paths import printable

MOST_COLUMNS = 2**16

# What a file tells: names of its columns, rows, the target's name, targets, classes, and rows and targets to test on.
Fields = tuple[
    tuple[str, ...], np.ndarray, str, np.ndarray | None, tuple[str, ...], tuple[np.ndarray, np.ndarray] | None
]

_FEW = 20  # classes that nobody doubts
_EACH = 5  # rows that each of more should have
_SHOWN = 40  # characters of a cell in a message


def text_targets(
    cells: list[str], where: str, task: str | None, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return targets written as text, and the names of their classes."""
    numbers = [as_number(cell) for cell in cells]
    plain = None not in numbers
    whole = plain and all(re.fullmatch(r"\s*[+-]?\d+\s*", cell) for cell in cells)
    if task is None:
        task = "regression" if classes == () or (classes is None and plain and not whole) else "classification"
    if task == "regression":
        for row, (cell, number) in enumerate(zip(cells, numbers, strict=True), start=1):
            if number is None:
                raise ValueError(f"{where} holds {shown(cell)} in row {row}, which is no number to predict")
        return finite(np.array(numbers, np.float64), where), ()
    names = [str(int(cell)) for cell in cells] if whole else [printable(cell.strip()) for cell in cells]
    return _classes(names, where, classes, float if plain else str)


def array_targets(
    y: np.ndarray, where: str, task: str | None, classes: tuple[str, ...] | None, labels: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:  # fmt: skip
    """Return targets of an array, and the names of their classes."""
    numbers = y.dtype.kind == "f" if task is None else task == "regression"
    if classes is not None:
        numbers = not classes
    if numbers and y.dtype.kind == "U":
        raise ValueError(f"{where} holds text, which is no number to predict")
    if numbers:
        return finite(y.astype(np.float64), where), ()
    if labels and y.dtype.kind in "biu" and len(y) and int(y.min()) >= 0 and int(y.max()) < len(labels):
        names = [labels[int(label)] for label in y.tolist()]
        return _classes(names, where, labels if classes is None else classes)
    kept = finite(y, where) if y.dtype.kind == "f" else y
    names = [printable(str(value)) for value in kept.tolist()]
    return _classes(names, where, classes, str if y.dtype.kind in "Ub" else float)


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
            raise ValueError(f"{where} holds {shown(name)} in row {row}, which is none of the classes {known}")
    return np.array([places[name] for name in names], np.int64), found


def as_number(cell: str) -> float | None:
    """Return the number that a cell holds; None where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return None


def shown(cell: str) -> str:
    """Return a cell as a message shows it."""
    cell = printable(cell)
    return repr(cell if len(cell) <= _SHOWN else cell[: _SHOWN - 1] + "…")


def finite(y: np.ndarray, where: str) -> np.ndarray:
    """Return numbers to predict; raise ValueError where one is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        held = f"{where} holds {y[bad[0]]} in row {bad[0] + 1}"
        raise ValueError(f"{held}; leave such rows out, or fill in what they lack")
    return y
