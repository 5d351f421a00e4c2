"""From run folders to what the page holds: a summary and a detail for each run, plain JSON values.

The summaries are read when the page opens, so they are small: figures and a thinned loss curve. A detail is
read when somebody clicks. How many points a detail keeps depends on the number of runs.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastconv.diagnose.health import judge
from fastconv.train.history import History
from fastconv.train.run import TEST, RunRecord, read_record
from fastconv.viz.report.filters import filter_sheet
from fastconv.viz.report.mistakes import sheet_of

SMALL = 48
"""Points of a small curve."""
MANY = 40_000
"""Points that the details of all runs share, each 60 to 600 of them."""
_TEXT = 200  # characters of a value
_EVENTS = 50  # the last ones

Json = dict[str, Any]


def describe(folder: Path, name: str, runs: int = 1) -> tuple[Json, Json]:
    """Return summary and detail of a run.

    Parameters
    ----------
    folder : Path
        Of a run. One that cannot be read is described as damaged, with the reason.
    name : str
        What the page calls it.
    runs : int
        How many runs share the page.
    """
    try:
        record = read_record(folder)
    except (ValueError, OSError) as error:
        return _damaged(name, str(error))
    try:
        return _summary(record, name), _detail(record, points(runs))
    except (TypeError, AttributeError, KeyError, ArithmeticError) as error:  # JSON, but not of a run's form
        return _damaged(name, f"{folder} does not have the form of a run: {type(error).__name__}: {error}")


def points(runs: int) -> int:
    """Return how many points each of a detail's curves keeps."""
    return max(60, min(600, MANY // max(runs, 1)))


def thin(values: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of the values, evenly spread, the first and the last among them.

    Examples
    --------
    >>> thin([0, 1, 2, 3, 4, 5], 3)
    [0, 2, 5]
    """
    if len(values) <= most:
        return list(values)
    return [values[i * (len(values) - 1) // (most - 1)] for i in range(most)]


def plain(value: Any, digits: int = 5) -> Any:
    """Return a value as JSON can hold it: numbers to so many digits, what is not finite as None."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, int | float):
        return float(f"{value:.{digits}g}") if abs(value) <= 1e308 else None  # false for NaN too
    return str(value)


def flat(value: Any, prefix: str = "") -> Json:
    """Return nested dictionaries as one, keys joined by dots; lists as text, cut where they are long.

    Examples
    --------
    >>> flat({"options": {"lr": 0.1}, "input_shape": [1, 8, 8]})
    {'options.lr': 0.1, 'input_shape': '1, 8, 8'}
    """
    if isinstance(value, dict) and value:
        pairs: Json = {}
        for key, item in value.items():
            pairs |= flat(item, f"{prefix}.{key}" if prefix else str(key))
        return pairs
    if isinstance(value, list | dict):
        value = ", ".join(str(plain(item)) for item in value)
    value = plain(value, 8)
    return {prefix: value[:_TEXT] + "…" if isinstance(value, str) and len(value) > _TEXT else value}


def _damaged(name: str, reason: str) -> tuple[Json, Json]:
    summary = {"name": name, "status": "damaged", "health": "damaged", "reason": reason, "options": {}, "curve": {}}
    return summary, {}


def _summary(record: RunRecord, name: str) -> Json:
    history, result, judged = record.history, record.result or {}, judge(record)
    options = record.config.get("options")
    options = options if isinstance(options, dict) else {k: v for k, v in record.config.items() if k != "standardizer"}
    rows = thin(list(history), SMALL)
    return {
        "name": name, "status": record.status, "health": judged.name, "reason": judged.reason,
        "ended": result.get("reason"), "options": flat(options), "epochs": len(history),
        "accuracy": _best(history, "validation_accuracy", max), "loss": _best(history, "validation_loss", min),
        "training_loss": _best(history, "loss", min), "training_accuracy": _best(history, "accuracy", max),
        "test_accuracy": plain(result.get("test_accuracy")), "seconds": plain(sum(_numbers(history["seconds"]))),
        "started": plain(record.env.get("started")),
        "curve": {
            "epoch": _column(rows, "epoch"), "loss": _column(rows, "loss"),
            "validation": _column(rows, "validation_loss"),
        },
    }  # fmt: skip


def _detail(record: RunRecord, most: int) -> Json:
    config = {key: value for key, value in record.config.items() if key not in ("options", "standardizer")}
    epochs, steps = thin(list(record.history), most), thin(record.steps, most)
    keys = sorted({key for row in epochs for key in row} - {"kind"})
    return {
        "config": flat(config), "env": flat(record.env), "result": flat(record.result or {}),
        "epochs": {key: _column(epochs, key) for key in keys},
        "steps": {key: _column(steps, key) for key in ("step", "loss", "lr")},
        "update_ratio": _by_name(steps, "update_ratio"), "grad_norm": _by_name(steps, "grad_norm"),
        "activations": _activations(steps), "filters": _filters(record),
        "test": _test(record),
        "events": [[plain(event.get(key)) for key in ("step", "event", "text")] for event in record.events[-_EVENTS:]],
    }  # fmt: skip


def _activations(steps: list[Json]) -> Json:
    """{figure: {module: column}}, the way they are drawn."""
    found = [step.get("activations") or {} for step in steps]
    figures: Json = {}
    for figure in ("mean", "std", "zeros", "saturated", "dead"):
        modules = dict.fromkeys(module for step in found for module, values in step.items() if figure in values)
        if modules:
            figures[figure] = {m: [plain(step.get(m, {}).get(figure)) for step in found] for m in modules}
    return figures


def _filters(record: RunRecord) -> Json | None:
    model, shape = record.path / "model.safetensors", record.config.get("input_shape")
    if not model.is_file():
        return None
    try:
        return filter_sheet(model, tuple(shape) if isinstance(shape, list) else None)
    except (ValueError, OSError) as error:
        return {"error": str(error)}


def _test(record: RunRecord) -> Json | None:
    if record.result is None or not (record.path / TEST).is_file():
        return None
    try:
        return sheet_of(record.path / TEST)
    except (ValueError, OSError) as error:
        return {"error": str(error)}


def _by_name(steps: list[Json], key: str) -> Json:
    names = dict.fromkeys(name for step in steps for name in step.get(key) or {})
    return {name: [plain((step.get(key) or {}).get(name)) for step in steps] for name in names}


def _column(rows: Iterable[Json], key: str) -> list[Any]:
    return [plain(row.get(key)) for row in rows]


def _numbers(values: Iterable[Any]) -> list[float]:
    return [v for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _best(history: History, key: str, choose: Any) -> Any:
    return plain(choose(_numbers(history[key]), default=None))
