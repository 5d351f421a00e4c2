"""Parameters, and how layers under construction get their first values."""

from __future__ import annotations  # the types of generators alone would import numpy.random

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastconv import random
from fastconv.functional._check import check_array, flag, same_dtype, whole
from fastconv.graph.value import no_constant
from fastconv.nn._settings import assigned

if TYPE_CHECKING:
    from fastconv.nn._flat import Block

Array = npt.NDArray[Any]

_blank: ContextVar[bool] = ContextVar("blank", default=False)
_hiding: ContextVar[bool] = ContextVar("hiding", default=False)


@contextlib.contextmanager
def blank() -> Iterator[None]:
    """Build layers without memory or random numbers inside: a frame for weights that come from elsewhere.

    Until `load_state_dict` gives them arrays, parameters and buffers are zeros that cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> with nn.blank():
    ...     layer = nn.Linear(2, 1)
    >>> layer.weight.data, layer.weight.data.strides
    (array([[0., 0.]], dtype=float32), (0, 0))
    >>> _ = layer.load_state_dict({"weight": np.array([[3.0, 4.0]]), "bias": np.array([0.5])})
    >>> layer(np.array([[1.0, 2.0]], np.float32))
    array([[11.5]], dtype=float32)
    """
    token = _blank.set(True)
    try:
        yield
    finally:
        _blank.reset(token)


@contextlib.contextmanager
def hidden(parameters: Iterable[Parameter]) -> Iterator[None]:
    """Let reading the data of parameters be an error inside, in this context alone: forward is being written down."""
    token, taken = _hiding.set(True), []
    for parameter in parameters:
        known = vars(parameter)
        if "data" in known:
            known["_data"] = known["data"]
            del known["data"]  # so that `__getattr__` is asked, which costs nothing where it is there
            taken.append(known)
    try:
        yield
    finally:
        for known in taken:
            known.setdefault("data", known["_data"])
            del known["_data"]
        _hiding.reset(token)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Let data be read inside `hidden`, by a layer that runs on numbers."""
    token = _hiding.set(False)
    try:
        yield
    finally:
        _hiding.reset(token)


def initial(
    shape: tuple[int, ...],
    low: float,
    high: float | None = None,
    generator: np.random.Generator | None = None,
) -> Array:
    """Return a float32 array filled with `low`, or drawn from U(`low`, `high`) by `generator`."""
    if _blank.get():
        return np.broadcast_to(np.float32(0), shape)
    if high is None:
        return np.full(shape, low, np.float32)
    assert generator is not None
    return np.asarray(generator.uniform(low, high, shape), np.float32)


def next_key() -> tuple[int, int]:
    """Return the (seed, stream) of the layer under construction."""
    return (0, 0) if _blank.get() else random.next_key()


def next_generator() -> np.random.Generator | None:
    """Return the generator of the layer under construction; nothing is drawn where nothing will be kept."""
    return None if _blank.get() else random.next_generator()


def writable(array: Array) -> Array:
    """Return an array itself or a copy that can be written to: pickles may arrive in memory of someone else's."""
    return array if array.flags.writeable else array.copy()


def size(where: str, name: str, value: Any) -> int:
    """Return a count of channels, features or layers.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is below 1, or beyond any array.
    """
    number = whole(f"{where}: {name}", value)
    if number >= 2**63:
        raise ValueError(f"{where}: {name} must be below 2**63")
    return number


def check_channels(layer: Any, input: Any, channels: int) -> None:
    """Raise ValueError unless axis 1 of a layer's input, where there is one, has so many channels."""
    if input.ndim > 1 and input.shape[1] != channels:
        raise ValueError(f"{type(layer).__name__}: input needs {channels} channels, got {input.shape}")


class Parameter:
    """An array that is learned, and the sum of its gradients since they were last zeroed.

    Parameters
    ----------
    data : ndarray of float32 or float64
        The values, kept by reference. An optimiser moves those of all its parameters into one block of memory
        when it is made, and updates them there in place.
    requires_grad : bool
        False freezes it: layers leave `grad` alone, optimisers leave `data` alone.

    Attributes
    ----------
    grad : ndarray
        Same shape and dtype as `data`; zeros at first.
    shape, dtype
        Those of `data`.

    Raises
    ------
    TypeError
        If `data` is no array of float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> p = nn.Parameter(np.array([1.0, 2.0]))
    >>> p.grad += 0.5
    >>> p, p.data - 0.1 * p.grad
    (Parameter(shape=(2,), dtype=float64), array([0.95, 1.95]))
    """

    data: Array
    home: Block | None = None  # the block an optimiser put it into, and its views there
    views: tuple[Array, Array]

    def __init__(self, data: Array, requires_grad: bool = True) -> None:
        check_array("Parameter", "data", data)
        same_dtype("Parameter", data=data)
        self.data = data
        zero = data.dtype.type(0)
        self.grad = np.broadcast_to(zero, data.shape) if _blank.get() else np.zeros(data.shape, data.dtype)
        self.requires_grad = flag("Parameter: requires_grad", requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        known = vars(self)
        same = name in known and known[name] is value  # as after `grad += ...`
        super().__setattr__(name, value)
        if not same:
            assigned(name)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            known = vars(self)
            if name != "data" or not ("_data" in known or "data" in known):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            if _hiding.get():
                no_constant()
            return self._array()

    def _array(self) -> Array:
        """Return the data, hidden or not."""
        known = vars(self)
        for name in ("data", "_data"):
            if name in known:
                with contextlib.suppress(KeyError):  # another thread has just shown it again
                    return known[name]
        return known["data"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array().shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array().dtype

    def numel(self) -> int:
        """Return how many numbers it has."""
        return self.data.size

    @property
    def sink(self) -> Array | None:
        """Where a backward pass adds its gradient: `grad`, or None when frozen."""
        return self.grad if self.requires_grad else None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles stand on their own."""
        return {"data": self.data, "grad": self.grad, "requires_grad": self.requires_grad}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.data, self.grad = writable(self.data), writable(self.grad)

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter(shape={self.shape}, dtype={self.dtype}{frozen})"
