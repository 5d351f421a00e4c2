"""Which hyperparameters decide how good a run gets: a random forest of scikit-learn, where that is installed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Json = dict[str, Any]

FEWEST = 12
"""Runs from which on an answer is looked for."""
_FOLDS, _TREES, _SHUFFLES = 5, 100, 5
_MOST = 2000  # runs, the last ones: the forest's time grows with them


def importance(summaries: Sequence[Json]) -> Json | None:
    """Return how much knowing each option helps to foresee the figure that runs are judged by.

    A forest learns from four fifths of the runs to foresee the figure of the others, five times. It explains less of
    their variance if an option's values are shuffled among them [1]_: an option's importance is its share of all that
    is lost so. One that decides nothing has about 0.

    Parameters
    ----------
    summaries : sequence of dict
        Of `fastconv.viz.report.content`.

    Returns
    -------
    dict or None
        ``figure`` (its name), ``runs``, ``explained`` (share of the variance) and ``options``, pairs of name and
        importance, the highest first, 1 together; or ``missing``, what to install; or None where the runs are too few,
        or do not differ.

    References
    ----------
    .. [1] L. Breiman, "Random forests", Machine Learning 45, 2001.
    """
    figure = judged_by(summaries)
    known = [summary for summary in summaries if summary["best"].get(figure) is not None][-_MOST:]
    codes = {key: _codes([summary["options"].get(key) for summary in known]) for key in _options(known)}
    options = {key: column for key, column in codes.items() if column is not None}
    reached = np.array([summary["best"][figure] for summary in known], np.float64)
    if len(known) < FEWEST or not options or np.ptp(reached) == 0:
        return None
    try:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.inspection import permutation_importance
        from sklearn.model_selection import KFold
    except ImportError:
        return {"missing": "pip install 'fastconv[demo]'"}
    table = np.stack(list(options.values()), axis=1)
    explained, falls = [], []
    for rest, aside in KFold(_FOLDS, shuffle=True, random_state=0).split(table):
        if np.ptp(reached[aside]) == 0:
            continue
        forest = RandomForestRegressor(_TREES, random_state=0).fit(table[rest], reached[rest])
        explained.append(forest.score(table[aside], reached[aside]))
        found = permutation_importance(forest, table[aside], reached[aside], n_repeats=_SHUFFLES, random_state=0)
        falls.append(found.importances_mean)
    if not falls:
        return None
    lost = np.maximum(np.mean(falls, axis=0), 0)
    ranked = sorted(zip(options, (lost / (lost.sum() or 1)).tolist(), strict=True), key=lambda pair: -pair[1])
    return {
        "figure": figure, "runs": len(known), "explained": round(float(np.mean(explained)), 3),
        "options": [[key, round(value, 4)] for key, value in ranked],
    }  # fmt: skip


class Importance:
    """`importance`, worked out again only where what it looks at has changed: it takes seconds."""

    def __init__(self) -> None:
        self._seen: Any = None
        self._found: Json | None = None

    def __call__(self, summaries: Sequence[Json]) -> Json | None:
        """Return the importances of some runs."""
        figure = judged_by(summaries)
        seen = [figure, [(s["options"], s["best"].get(figure)) for s in summaries]]
        if seen != self._seen:
            self._found, self._seen = importance(summaries), seen
        return self._found


def judged_by(summaries: Sequence[Json]) -> str:
    """Return the figure that runs are compared by: a metric that one asks for, accuracy, what is usual, or loss.

    Examples
    --------
    >>> judged_by([{"judged_by": None, "best": {"loss": 0.2, "r2": 0.9}}])
    'loss'
    """
    chosen = [summary.get("judged_by") for summary in summaries]
    usual = [summary.get("usual") for summary in summaries]
    candidates = [*(name for name in chosen if isinstance(name, str)), "accuracy", *filter(None, usual), "loss"]
    return next((name for name in candidates if any(s["best"].get(name) is not None for s in summaries)), "loss")


def _options(summaries: Sequence[Json]) -> list[str]:
    names = dict.fromkeys(key for summary in summaries for key in summary["options"])
    values = {key: {repr(s["options"][key]) for s in summaries if key in s["options"]} for key in names}
    return [key for key in names if len(values[key]) > 1]


def _codes(values: Sequence[Any]) -> np.ndarray | None:
    """Return values as numbers; words, which have no order, as their places; None of words that all differ."""
    if all(isinstance(value, int | float) for value in values):
        return np.array([float(value) for value in values])
    words = sorted({str(value) for value in values})
    return None if len(words) == len(values) else np.array([float(words.index(str(value))) for value in values])
