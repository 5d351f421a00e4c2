"""Tables of text: a line a row, its cells parted by commas, semicolons or tabs."""

from __future__ import annotations

import io
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastconv.data.cells import MOST_COLUMNS, Fields, as_number, shown, text_targets
from fastconv.functional._check import nearest
from fastconv.paths import printable

_DELIMITERS = ",;\t"


def read_csv(
    path: Path, target: str | None, task: str | None, classes: tuple[str, ...] | None, bare: int | None
) -> Fields:  # fmt: skip
    """Return what a table of text tells; its arguments are those of `read_table`."""
    import csv  # here, and below: most processes read no table

    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            columns, x, name, cells = _rows(path, _lines(file), target, bare)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from error
    if cells is None:
        return columns, x, "", None, (), None
    y, found = text_targets(cells, f"{path}: {name}", task, classes)
    return columns, x, name, y, found, None


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
    """Return names of the columns, rows, and the target's name and cells."""
    first, head = next(lines, (0, []))
    if not head:
        raise ValueError(f"{path}: no rows in it")
    named = all(as_number(cell) is None for cell in head)
    names = [printable(cell.strip()) for cell in head] if named else [f"x{i}" for i in range(1, len(head) + 1)]
    if len(head) > MOST_COLUMNS:
        raise ValueError(f"{path}: {len(head):,} columns, {MOST_COLUMNS:,} are the most")
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
        value = as_number(cell)
        where = f"{path}: line {number}, column {name!r}"
        if not cell.strip():
            return f"{where} is empty: fill in what is missing, or leave the row out"
        if value is None:
            return f"{where} holds {shown(cell)}, which is no number: write such columns as numbers, or leave them out"
        if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
            return f"{where} holds {shown(cell)}: fill in what is missing, or leave the row out"
    return f"{path}: line {number} cannot be read"
