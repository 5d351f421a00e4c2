"""Hyperparameter search: random, on a grid or by TPE, from coarse to fine, by one process or many (on Optuna).

::

    from fastconv.search import search
    from fastconv.train.setup import fill

    found = search(fill("digits", model="mlp"), {"lr": "1e-4:1", "l2": "1e-6:1"}, trials=60, stages=2, budgets=8)
    found.best["params"], found.warnings

    search(lambda attempt: (attempt["x"] - 3) ** 2, {"x": "-10:10:linear"}, direction="minimize")

Needs Optuna: ``pip install 'fastconv[search]'``.
"""

try:
    import optuna  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError("searching needs Optuna: pip install 'fastconv[search]'") from error

from fastconv.search.attempt import Attempt, Cut
from fastconv.search.result import SearchResult
from fastconv.search.run import search, stored
from fastconv.search.space import Choice, Range, make_space, parse
from fastconv.search.training import Training
from fastconv.search.worker import WorkerError

__all__ = [
    "Attempt", "Choice", "Cut", "Range", "SearchResult", "Training", "WorkerError", "make_space", "parse", "search",
    "stored",
]  # fmt: skip
