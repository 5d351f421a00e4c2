"""The switch between arrays and values."""

import functools
from collections.abc import Callable
from typing import Any

from fastconv.graph.value import functions, graph_of


def takes_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `functional` that writes a node where it is given values."""
    name = function.__name__

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if graph_of(args) is None and (not kwargs or graph_of(tuple(kwargs.values())) is None):
            return function(*args, **kwargs)
        return functions[name](*args, **kwargs)

    return call
