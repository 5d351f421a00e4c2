"""Memory that a layer keeps between calls: buffers of the largest size seen, and what backward needs."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from fastconv.functional._check import is_nhwc
from fastconv.nn._parameter import Array

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register
_NOTHING = (None, None, None)
_MEMORY = ("_arrays", "_storage", "_results")


def as_image(a: Array) -> Array:
    """Return (N, C, L) as the view (N, C, 1, L), anything else as it is."""
    return a[:, :, None] if a.ndim == 3 else a


class Workspace:
    """Named buffers, and the check that a backward fits the forward before it."""

    _results: Mapping[str, tuple[Any, Any, Any]] = MappingProxyType({})
    _saved: tuple[tuple[int, ...], tuple[Any, ...]] | None = None

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: Any, channels_last: bool | None = None) -> Array:
        """Return the array `name`, the same one while shape and dtype stay; contents are left over.

        Storage only grows, so a last, smaller batch costs no allocation. By default 4-d arrays are
        channels-last and others in C order.
        """
        arrays: dict[str, Array] = vars(self).setdefault("_arrays", {})
        held = arrays.get(name)
        if held is not None and held.shape == shape and held.dtype == dtype:
            return held
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        storage: dict[str, Array] = vars(self).setdefault("_storage", {})
        if name not in storage or storage[name].nbytes < nbytes:
            raw = np.empty(nbytes + ALIGNMENT, np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            storage[name] = raw[start : start + nbytes]
        flat = storage[name][:nbytes].view(dtype)
        if channels_last is None:
            channels_last = len(shape) == 4
        arrays[name] = np.moveaxis(flat.reshape(shape[0], *shape[2:], shape[1]), -1, 1) if channels_last \
            else flat.reshape(shape)  # fmt: skip
        return arrays[name]

    def _held(self, name: str, input: Array) -> Array | None:
        """Return the array that `_hold` got for inputs like this one, cut to its batch, or None."""
        tail, dtype, array = self._results.get(name, _NOTHING)
        if tail != input.shape[1:] or dtype != input.dtype or len(array) < len(input):
            return None
        return array if len(array) == len(input) else array[: len(input)]

    def _hold(self, name: str, input: Array, array: Array) -> Array:
        """Keep an array that an operation made for `input`, to be its ``out=`` from now on."""
        if self._results.get(name, _NOTHING)[2] is not array and self._held(name, input) is None:
            vars(self).setdefault("_results", {})[name] = (input.shape[1:], input.dtype, array)
        return array

    def _accept(self, input: Array, name: str = "input") -> Array:
        """Return a 3-d or 4-d array channels-last, native and aligned: itself, or a copy in a buffer."""
        image = as_image(input)
        if image.ndim != 4 or is_nhwc(image):
            return input
        buffer = self._buffer(name, image.shape, image.dtype.newbyteorder("="))
        np.copyto(buffer, image)
        return buffer if input.ndim == 4 else buffer[:, :, 0]

    def _save(self, output: Array, *saved: Any) -> Array:
        """Keep what `backward` needs; returns the output."""
        self._saved = (output.shape, saved)
        return output

    def _recall(self, grad_output: Array) -> tuple[Any, ...]:
        """Return (grad_output, *what forward saved), or say what is wrong with the call."""
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: called before forward")
        shape, saved = self._saved
        if grad_output.shape != shape:
            raise ValueError(
                f"{type(self).__name__}.backward: grad_output has shape {grad_output.shape}, the latest output {shape}"
            )
        return (self._accept(grad_output, "grad_output"), *saved)

    def _forget(self) -> None:
        """Drop buffers and what forward saved."""
        self._saved = None
        for name in _MEMORY:
            vars(self).pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry parameters and settings, no buffers."""
        return {k: v for k, v in vars(self).items() if k not in (*_MEMORY, "_saved", "_hooks")}
