"""From run folders to what the page holds: a summary and a detail for each run, plain JSON values.

The summaries are read when the page opens, so they are small: figures and a thinned loss curve. A detail is
read when somebody clicks. How many points a detail keeps depends on the number of runs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fastconv.diagnose.health import judge
from fastconv.train.history import History
from fastconv.train.metrics import OF_LABELS, lower_is_better
from fastconv.train.run import TEST, Metrics, RunRecord, read_record
from fastconv.viz.report.filters import filter_sheet
from fastconv.viz.report.mistakes import sheet_of

SMALL = 48
"""Points of a small curve."""
MANY = 40_000
"""Points that the details of all runs share, each 60 to 600 of them."""
_TEXT = 200  # characters of a value
_EVENTS = 50  # the last ones
_WATCHED = 3  # digits of what was watched in single steps: curves that nobody reads a fourth from
_SEEN = "validation_"  # before the name of a figure of the validation

Json = dict[str, Any]


def describe(folder: Path, name: str, most: int = 600, metrics: Metrics | None = None) -> tuple[Json, Json]:
    """Return summary and detail of a run.

    Parameters
    ----------
    folder : Path
        Of a run. One that cannot be read is described as damaged, with the reason.
    name : str
        What the page calls it.
    most : int
        How many points each of a detail's curves keeps, see `points`.
    metrics : Metrics, optional
        What has been read of the run before.
    """
    return _told(folder, name, lambda record: (_summary(record, name), _detail(record, most)), metrics)


def summarize(folder: Path, name: str, most: object = None) -> Json:
    """Return the summary of a run alone."""
    return _told(folder, name, lambda record: (_summary(record, name), {}))[0]


def points(runs: int) -> int:
    """Return how many points each of a detail's curves keeps, one of a few numbers, so that it seldom changes."""
    return next((most for most in (600, 300, 150) if most * runs <= MANY), 60)


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


def _told(
    folder: Path, name: str, tell: Callable[[RunRecord], tuple[Json, Json]], metrics: Metrics | None = None
) -> tuple[Json, Json]:
    try:
        return tell(read_record(folder, metrics))
    except (ValueError, OSError) as error:
        reason = str(error)
    except (TypeError, AttributeError, KeyError, ArithmeticError) as error:  # JSON, but not of a run's form
        reason = f"{folder} does not have the form of a run: {type(error).__name__}: {error}"
    damaged = {"name": name, "status": "damaged", "health": "damaged", "reason": reason, "options": {}, "curve": {}}
    return {**damaged, "best": {}, "kinds": {}}, {}


def _summary(record: RunRecord, name: str) -> Json:
    history, result, judged = record.history, record.result or {}, judge(record)
    options = record.config.get("options")
    options = options if isinstance(options, dict) else {k: v for k, v in record.config.items() if k != "standardizer"}
    rows = thin(list(history), SMALL)
    measured = dict.fromkeys(key for row in history for key in row if key.startswith(_SEEN))
    kinds = {key.removeprefix(_SEEN): _kind(key.removeprefix(_SEEN)) for key in measured}
    return {
        "name": name, "status": record.status, "health": judged.name, "reason": judged.reason,
        "ended": result.get("reason"), "options": flat(options), "epochs": len(history), "kinds": kinds,
        "best": {figure: _best(history, _SEEN + figure, kind) for figure, kind in kinds.items()},
        "training_loss": _best(history, "loss", "lower"), "test_accuracy": plain(result.get("test_accuracy")),
        "judged_by": plain(options.get("metric")), "usual": "r2" if _predicts_numbers(record) else None,
        "seconds": plain(sum(_numbers(history["seconds"]))), "started": plain(record.env.get("started")),
        "curve": {
            "epoch": _column(rows, "epoch"), "loss": _column(rows, "loss"),
            "validation": _column(rows, "validation_loss"),
        },
    }  # fmt: skip


def _predicts_numbers(record: RunRecord) -> bool:
    table = record.config.get("table")
    return isinstance(table, dict) and "mean" in table


def _kind(figure: str) -> str:
    """Return what kind of figure it is: a share of 1, one of which less is better, or another."""
    return "share" if figure in OF_LABELS else "lower" if lower_is_better(figure) else ""


def _detail(record: RunRecord, most: int) -> Json:
    config = {key: value for key, value in record.config.items() if key not in ("options", "standardizer")}
    epochs, steps, types = thin(list(record.history), most), thin(record.steps, most), _layer_types(record.steps)
    keys = sorted({key for row in epochs for key in row} - {"kind"})
    return {
        "config": flat(config), "env": flat(record.env), "result": flat(record.result or {}),
        "epochs": {key: _column(epochs, key) for key in keys},
        "steps": {key: _column(steps, key) for key in ("step", "loss", "lr")},
        "update_ratio": _by_name(steps, "update_ratio", types), "grad_norm": _by_name(steps, "grad_norm", types),
        "activations": _activations(steps, types), "filters": _filters(record, types),
        "test": _test(record),
        "events": [[plain(event.get(key)) for key in ("step", "event", "text")] for event in record.events[-_EVENTS:]],
    }  # fmt: skip


def _layer_types(steps: list[Json]) -> dict[str, str]:
    """Return the type of each layer that says it in one of the records, where its place is a number."""
    found = {}
    for step in steps:
        for path, values in (step.get("activations") or {}).items():
            if "layer" in values and path not in found and path.rpartition(".")[2].isdecimal():
                found[path] = str(values["layer"])
    return found


def _named(path: str, types: dict[str, str]) -> str:
    """Return what a layer or parameter is called: "4 Conv2d" and "4 Conv2d weight" for "4" and "4.weight"."""
    if path in types:
        return f"{path} {types[path]}"
    owner, _, own = path.rpartition(".")
    return f"{owner} {types[owner]} {own}" if owner in types else path or "model"


def _activations(steps: list[Json], types: dict[str, str]) -> Json:
    """{figure: {module: column}}, the way they are drawn."""
    found = [step.get("activations") or {} for step in steps]
    figures: Json = {}
    for figure in ("mean", "std", "zeros", "saturated", "dead"):
        modules = dict.fromkeys(module for step in found for module, values in step.items() if figure in values)
        if modules:
            figures[figure] = {
                _named(m, types): [plain(step.get(m, {}).get(figure), _WATCHED) for step in found] for m in modules
            }
    return figures


def _filters(record: RunRecord, types: dict[str, str]) -> Json | None:
    model, shape = record.path / "model.safetensors", record.config.get("input_shape")
    if not model.is_file() or "table" in record.config:  # weights of columns are no picture
        return None
    try:
        sheet = filter_sheet(model, tuple(shape) if isinstance(shape, list) else None)
    except (ValueError, OSError) as error:
        return {"error": str(error)}
    return sheet and {**sheet, "layer": _named(sheet["layer"], types)}


def _test(record: RunRecord) -> Json | None:
    if record.result is None or not (record.path / TEST).is_file():
        return None
    try:
        return sheet_of(record.path / TEST)
    except (ValueError, OSError) as error:
        return {"error": str(error)}


def _by_name(steps: list[Json], key: str, types: dict[str, str]) -> Json:
    names = dict.fromkeys(name for step in steps for name in step.get(key) or {})
    return {_named(n, types): [plain((step.get(key) or {}).get(n), _WATCHED) for step in steps] for n in names}


def _column(rows: Iterable[Json], key: str) -> list[Any]:
    return [plain(row.get(key)) for row in rows]


def _numbers(values: Iterable[Any]) -> list[float]:
    return [v for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _best(history: History, key: str, kind: str) -> Any:
    return plain((min if kind == "lower" else max)(_numbers(history[key]), default=None))
