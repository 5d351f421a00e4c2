"""What commands say of nets that take the rows of a table: tests of predicted numbers, and predictions row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastconv.cli.common import table
from fastconv.terminal import percent

if TYPE_CHECKING:
    import numpy as np

    from fastconv.data import Dataset, Samples
    from fastconv.train.usable import Usable

_WORST = 5
_AT_A_TIME = 1 << 16  # rows
FIGURES = {
    "r2": "R²: share of the spread that is told", "mae": "mean absolute error", "rmse": "root mean square error",
    "bias": "mean error", "mae_of_mean": "mean absolute error of always saying the mean",
}  # fmt: skip


def tested_on(usable: Usable, dataset: str | None) -> Dataset:
    """Return the table to test a net on: that of its run, of whose rows a part is for the test, or another, wholly.

    Raises
    ------
    OSError, ValueError
        As `fastconv.data.read_table`; or if the table is not of the columns that the net takes.
    """
    from fastconv import data
    from fastconv.train.setup import Options, dataset_of

    if dataset is None:
        return dataset_of(Options.of(usable.options))
    path = data.resolve(dataset)
    if not data.is_table(path):
        raise ValueError(f"{usable.name} takes rows of {len(usable.columns)} columns; {dataset} is no table")
    found = data.read_table(path, usable.options.get("target"), usable.options.get("task"), usable.classes)
    assert found.y is not None
    x, y = found.test or (found.x, found.y)
    samples = _as_trained(usable, path, found.columns, x, y)
    return data.Dataset(path, usable.classes, samples, samples, levels=1, columns=usable.columns, target=usable.target)


def _as_trained(usable: Usable, path: str, columns: tuple[str, ...], x: np.ndarray, y: np.ndarray) -> Samples:
    from fastconv.data import Samples

    return Samples(x[:, _places(usable, path, columns)][:, :, None, None], y)


def _places(usable: Usable, path: str, columns: tuple[str, ...]) -> list[int]:
    """Return where a table has the columns that a net takes: by name where both have names, else by order."""
    unnamed = tuple(f"x{i}" for i in range(1, len(columns) + 1))
    if columns == unnamed or usable.columns == tuple(f"x{i}" for i in range(1, len(usable.columns) + 1)):
        if len(columns) != len(usable.columns):
            raise ValueError(f"{path} has {len(columns)} columns, {usable.name} takes {len(usable.columns)}")
        return list(range(len(columns)))
    missing = [name for name in usable.columns if name not in columns]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}, which {usable.name} "
            f"takes; it has {', '.join(columns[:8])}{', ...' if len(columns) > 8 else ''}"
        )
    return [columns.index(name) for name in usable.columns]


def predictions(usable: Usable, paths: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    """Return what a net makes of each row of some tables.

    Raises
    ------
    OSError, ValueError
        As `fastconv.data.read_table`; or if a file is no table, or not of the columns that the net takes.
    """
    from fastconv import data

    found: list[dict[str, Any]] = []
    for text in paths:
        path = data.resolve(text)
        if not data.is_table(path):
            raise ValueError(f"{usable.name} takes rows of {len(usable.columns)} columns; {text} is no table")
        named = usable.options.get("target") or (usable.target if usable.target != "y" else None)
        given = data.read_table(path, named, bare=len(usable.columns))
        x = given.x[:, _places(usable, path, given.columns)][:, :, None, None]
        for start in range(0, len(x), _AT_A_TIME):
            part = x[start : start + _AT_A_TIME]
            told = _numbers(usable, part) if usable.scale else _classes(usable, part, top)
            found += [{"file": text, "row": start + i, **one} for i, one in enumerate(told, start=1)]
    return found


def _numbers(usable: Usable, x: np.ndarray) -> list[dict[str, Any]]:
    return [{"predicted": value} for value in usable.numbers(x).tolist()]


def _classes(usable: Usable, x: np.ndarray, top: int) -> list[dict[str, Any]]:
    import numpy as np

    from fastconv import functional as F

    found = []
    for row in F.softmax(usable.scores(x)):
        best = np.argsort(-row, kind="stable")[: max(top, 1)]
        entries = [{"class": usable.classes[k], "probability": float(row[k])} for k in best]
        found.append({**entries[0], **({"top": entries} if top else {})})
    return found


def shown(usable: Usable, found: list[dict[str, Any]]) -> str:
    """Return predictions as a table for people."""
    several = len({one["file"] for one in found}) > 1
    head = (*(("file",) if several else ()), "row")
    rows: list[tuple[str, ...]] = []
    if usable.scale is not None:
        rows = [(*head, usable.target)]
        rows += [(*_name(one, several), f"{one['predicted']:.6g}") for one in found]
        return table(rows, numbers=frozenset(range(several, several + 2)))
    rows = [(*head, "class", "probability")]
    for one in found:
        for i, entry in enumerate(one.get("top", [one])):
            name = ("",) * len(head) if i else _name(one, several)
            rows.append((*name, entry["class"], percent(entry["probability"])))
    return table(rows, numbers=frozenset({int(several), several + 2}))


def _name(one: dict[str, Any], several: bool) -> tuple[str, ...]:
    return (*((one["file"],) if several else ()), str(one["row"]))


def figures(found: dict[str, float], target: str, tested: str) -> str:
    """Return for people how far predicted numbers are off, on how many samples."""
    lines = [(f"test of {target}", tested)]
    lines += [(text, f"{found[name]:.5g}") for name, text in FIGURES.items()]
    return table(lines, numbers=frozenset({1}))


def worst(true: np.ndarray, predicted: np.ndarray) -> str:
    """Return for people the rows whose numbers are foreseen worst."""
    import numpy as np

    order = np.argsort(-np.abs(predicted - true), kind="stable")[:_WORST]
    rows: list[tuple[str, ...]] = [("worst test rows", "true", "predicted", "off by")]
    rows += [(f"number {i}", *(f"{v:.5g}" for v in (true[i], predicted[i], predicted[i] - true[i]))) for i in order]
    return table(rows, numbers=frozenset({1, 2, 3}))


def one_line(found: dict[str, float]) -> str:
    """Return the figures that a run ends with."""
    return f"r2 {found['r2']:.4f}, mean absolute error {found['mae']:.5g} (always the mean: {found['mae_of_mean']:.5g})"
