"""Which model an array came from, so that a loss can send its gradient back; arrays and models are not kept alive."""

import itertools
import weakref
from typing import Any, NamedTuple

import numpy as np

_serial = itertools.count()


class Origin(NamedTuple):
    """The call of a model: where its output came from."""

    output: "weakref.ref[np.ndarray]"
    model: "weakref.ref[Any]"
    inputs: "tuple[weakref.ref[np.ndarray] | None, ...]"
    serial: int  # of this call among all


_origins: dict[int, Origin] = {}


def note(model: Any, inputs: Any, output: Any) -> None:
    """Remember that a model returned an array; of several outputs none is."""
    if type(output) is not np.ndarray:
        return
    key = id(output)
    known = tuple(weakref.ref(x) if type(x) is np.ndarray else None for x in inputs)
    held = _origins.get(key)
    ref = held.output if held is not None and held.output() is output else weakref.ref(output, _Forget(key))
    _origins[key] = Origin(ref, weakref.ref(model), known, next(_serial))


class _Forget:
    """Drops what was noted of an array when it is gone."""

    def __init__(self, key: int) -> None:
        self.key = key

    def __call__(self, _: Any) -> None:
        _origins.pop(self.key, None)


def origin_of(array: Any) -> Origin | None:
    """Return which call an array came from, None if no model returned it."""
    found = _origins.get(id(array))
    return found if found is not None and found.output() is array else None


def go_back(origin: Origin, grad: Any, where: str) -> None:
    """Send a gradient back through the model an output came from, and on to the models its inputs came from.

    Raises
    ------
    RuntimeError
        If the model has run again since, or is gone.
    """
    output, model = origin.output(), origin.model()
    if output is None or model is None or origin_of(output) is not origin:
        raise RuntimeError(f"{where}: the model has run again, or is gone, since it returned the output of this loss")
    before = [None if ref is None else origin_of(ref()) for ref in origin.inputs]
    grads = model.backward(grad)
    if any(before):
        for found, part in zip(before, grads if isinstance(grads, tuple) else (grads,), strict=True):
            if found is not None and part is not None:
                go_back(found, part, where)
