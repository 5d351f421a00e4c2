"""Memory that a layer keeps between calls: buffers of the largest size seen, and what backward needs."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from operator import is_
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fastconv.functional._check import check_array, empty_aligned, is_nhwc
from fastconv.functional._tape import Call, record, spoil
from fastconv.nn._parameter import Array

_NOTHING = (None, None, None, None)
_MEMORY = ("_arrays", "_storage", "_results", "_repeats")
_OWN = (*_MEMORY, "_saved", "_entered", "_hooks", "_threads")  # what copies and pickles leave behind

# The run of a net that is under way in this context, begun by the outermost call of a module.
_run: ContextVar[object | None] = ContextVar("run", default=None)


class _Repeat(NamedTuple):
    """The kernel calls of an operation, what they depend on, and what they left behind."""

    key: tuple[Any, ...]
    calls: list[Call]
    result: Any
    saved: Any
    lasting: bool  # whether the calls have been looked at, and may be repeated


def _owner(array: Array) -> Array:
    """Return the array whose memory a view shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _gather(values: Iterable[Any], found: set[int]) -> None:
    """Add the identity of the memory behind every array among the values, in tuples and in layers too."""
    for value in values:
        if isinstance(value, np.ndarray):
            found.add(id(_owner(value)))
        elif isinstance(value, tuple):
            _gather(value, found)
        elif isinstance(value, Workspace):
            _gather(vars(value).get("_storage", {}).values(), found)
            _gather(value._results.values(), found)


def as_image(a: Array) -> Array:
    """Return (N, C, L) as the view (N, C, 1, L), anything else as it is."""
    return a[:, :, None] if a.ndim == 3 else a


class Workspace:
    """Named buffers, and the check that a backward fits the forward before it."""

    _results: Mapping[str, tuple[Any, Any, Any, Any]] = MappingProxyType({})
    _repeats: Mapping[str, _Repeat] = MappingProxyType({})
    _saved: tuple[tuple[int, ...], tuple[Any, ...]] | tuple[()] | None = None
    _entered: object | None = None  # the latest run of a net that came here

    def _memory(self) -> dict[str, Any]:
        """Return where buffers are kept."""
        return vars(self)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: Any, channels_last: bool | None = None) -> Array:
        """Return the array `name`, the same one while shape and dtype stay; contents are left over.

        Storage only grows, so a last, smaller batch costs no allocation. By default 4-d arrays are
        channels-last and others in C order.
        """
        arrays: dict[str, Array] = self._memory().setdefault("_arrays", {})
        held = arrays.get(name)
        if held is not None and held.shape == shape and held.dtype == dtype:
            return held
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        storage: dict[str, Array] = self._memory().setdefault("_storage", {})
        if name not in storage or storage[name].nbytes < nbytes:
            storage[name] = empty_aligned(nbytes, np.uint8)
        flat = storage[name][:nbytes].view(dtype)
        if channels_last is None:
            channels_last = len(shape) == 4
        arrays[name] = np.moveaxis(flat.reshape(shape[0], *shape[2:], shape[1]), -1, 1) if channels_last \
            else flat.reshape(shape)  # fmt: skip
        return arrays[name]

    def _held(self, name: str, input: Array) -> Array | None:
        """Return the array that `_hold` got for inputs like this one, cut to its batch, or None."""
        tail, dtype, array, views = self._results.get(name, _NOTHING)
        if tail != input.shape[1:] or dtype != input.dtype or len(array) < len(input):
            return None
        n = len(input)
        if n not in views:
            views.clear()  # the views of one batch size at a time: of epochs, or of an evaluation
            views[n] = array if len(array) == n else array[:n]
        view: Array = views[n]
        return view

    def _hold(self, name: str, input: Array, array: Array) -> Array:
        """Keep an array that an operation made for `input`, to be its ``out=`` from now on."""
        if self._results.get(name, _NOTHING)[2] is not array and self._held(name, input) is None:
            vars(self).setdefault("_results", {})[name] = (input.shape[1:], input.dtype, array, {})
        return array

    def _accept(self, input: Array, name: str = "input") -> Array:
        """Return an array native and aligned, of 3 or 4 dimensions channels-last: itself, or a copy in a buffer."""
        check_array(type(self).__name__, name, input)
        image = as_image(input)
        if is_nhwc(image) if image.ndim == 4 else image.dtype.isnative and image.flags.aligned:
            return input
        buffer = self._buffer(name, image.shape, image.dtype.newbyteorder("="))
        np.copyto(buffer, image)
        spoil()
        return buffer[:, :, 0] if input.ndim == 3 else buffer

    def _repeat(self, name: str, key: tuple[Any, ...], operation: Callable[..., Any], *args: Any) -> Any:
        """Return operation(*args); while each of `key` is the same object as last time, by its kernel calls alone.

        `key` names all that the result depends on: the arrays, the parameters' arrays, the hyperparameters. Calls
        that worked on an array of nobody's, one that the operation made for the moment, cannot be repeated: what it
        held was copied there, or was copied from there.
        """
        kept = self._repeats.get(name)
        if kept is not None and all(map(is_, key, kept.key)) and (kept.lasting or self._lasts(name, kept)):
            for kernel, arguments in kept.calls:
                kernel(*arguments)
            self._saved = kept.saved
            return kept.result
        result, calls = record(operation, *args)
        repeats = vars(self).setdefault("_repeats", {})
        if calls is None:
            repeats.pop(name, None)
        else:
            repeats[name] = _Repeat(key, calls, result, self._saved, False)
        return result

    def _lasts(self, name: str, kept: _Repeat) -> bool:
        """Return whether every array in the calls has an owner that outlives the operation, or is a constant."""
        known: set[int] = set()
        _gather((self, kept.key, kept.result, kept.saved), known)
        for _, arguments in kept.calls:
            for value in arguments:
                if isinstance(value, np.ndarray) and id(_owner(value)) not in known and value.flags.writeable:
                    return False
        vars(self)["_repeats"][name] = kept._replace(lasting=True)
        return True

    def _save(self, output: Array, *saved: Any) -> Array:
        """Keep what `backward` needs; returns the output."""
        self._saved = (output.shape, saved)
        return output

    def _recall(self, grad_output: Array) -> tuple[Any, ...]:
        """Return (grad_output, *what forward saved), or say what is wrong with the call."""
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: called before forward")
        if not self._saved:
            shown = " ".join(repr(self).split())[:120]
            raise RuntimeError(
                f"{type(self).__name__}.backward: {shown} ran more than once in one run of the net and keeps what "
                "backward needs of the latest only; use one layer for each place, their parameters may be shared "
                "(b.weight = a.weight)"
            )
        check_array(f"{type(self).__name__}.backward", "grad_output", grad_output)
        shape, saved = self._saved
        if grad_output.shape != shape:
            raise ValueError(
                f"{type(self).__name__}.backward: grad_output has shape {grad_output.shape}, the latest output {shape}"
            )
        return (self._accept(grad_output, "grad_output"), *saved)

    def _enter(self) -> bool:
        """Take note that forward begins; return whether it ran in this run of a net before: no backward then."""
        run = _run.get()
        again = run is not None and self._entered is run
        self._entered = run
        return again

    def _forget(self) -> None:
        """Drop buffers and what forward saved."""
        self._saved = None
        for name in _MEMORY:
            vars(self).pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry parameters and settings, no buffers."""
        return {k: v for k, v in vars(self).copy().items() if k not in _OWN}
