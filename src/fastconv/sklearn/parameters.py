"""Parameters of an estimator's parts, under names such as ``optimizer__lr``.

scikit-learn's own nested parameters are those of estimators within estimators. A net's parts are a name, a function or
a module, so that what they are made with stands beside them, in a dictionary: ``optimizer__lr=0.01`` is
``optimizer_params={"lr": 0.01}``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

from sklearn.base import BaseEstimator

from fastconv.functional._check import flag, no_argument

PARTS = ("model", "loss", "optimizer", "trainer")


def _parted(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Split parameters into those of the estimator and those of its parts."""
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        part, mark, rest = name.partition("__")
        if mark and rest and part in PARTS:
            nested.setdefault(f"{part}_params", {})[rest] = value
        else:
            own[name] = value
    return own, nested


def takes_nested(init: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor take ``part__name`` beside its own arguments; what is neither is refused by its name."""
    shown = inspect.signature(init)
    known = list(shown.parameters)[1:]

    def construct(self: Any, *args: Any, **given: Any) -> None:
        own, nested = _parted(given)
        for name in own:
            if name not in known:
                raise no_argument(type(self).__name__, name, known)
        init(self, *args, **own)
        self._merge(nested)

    construct.__signature__ = shown  # type: ignore[attr-defined]
    construct.__doc__, construct.__wrapped__ = init.__doc__, init  # type: ignore[attr-defined]
    return construct


class Nested(BaseEstimator):
    """An estimator whose parts have parameters."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, ``deep`` with those of the parts as ``part__name``."""
        deep = flag("get_params: deep", deep)
        found: dict[str, Any] = super().get_params(deep=deep)
        for part in PARTS if deep else ():
            given = found.get(f"{part}_params")
            if isinstance(given, dict):
                found |= {f"{part}__{name}": value for name, value in given.items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of parts as ``part__name``; returns the estimator."""
        own, nested = _parted(params)
        super().set_params(**own)
        self._merge(nested)
        return self

    def _merge(self, nested: dict[str, dict[str, Any]]) -> None:
        for name, values in nested.items():
            before = getattr(self, name)
            setattr(self, name, {**(before if isinstance(before, dict) else {}), **values})
