"""Memory of losses and of layers with a backward of their own: named buffers, and what backward needs."""

import math
from typing import Any

import numpy as np

from fastconv.functional._check import Keywords, check_array, empty_aligned
from fastconv.graph.operation import Spec, lies_well, place
from fastconv.nn._parameter import Array

_MEMORY = ("_arrays", "_storage", "_tree")


class Workspace(Keywords):
    """Named buffers, and the check that a backward fits the forward before it."""

    _saved: tuple[tuple[int, ...], tuple[Any, ...]] | tuple[()] | None = None

    def _memory(self) -> dict[str, Any]:
        """Return where buffers are kept."""
        return vars(self)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array `name`, the same one while shape and dtype stay; contents are left over.

        Storage only grows, so a last, smaller batch costs no allocation. Arrays of three and four dimensions are
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
        arrays[name] = place(storage[name][:nbytes].view(dtype), Spec(shape, np.dtype(dtype)))
        return arrays[name]

    def _accept(self, input: Array, name: str = "input") -> Array:
        """Return an array that lies as kernels take it: itself, or a copy in a buffer."""
        check_array(type(self).__name__, name, input)
        if lies_well(input):
            return input
        buffer = self._buffer(name, input.shape, input.dtype.newbyteorder("="))
        np.copyto(buffer, input)
        return buffer

    def _save(self, output: Array, *saved: Any) -> Array:
        """Keep what `backward` needs; returns the output."""
        self._saved = (output.shape, saved)
        return output

    def _recall(self, grad_output: Array) -> tuple[Any, ...]:
        """Return (grad_output, *what forward saved), or say what is wrong with the call."""
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: called before forward")
        if not self._saved:
            raise RuntimeError(
                f"{type(self).__name__}.backward: the layer ran twice in one forward and keeps the state of one; use "
                "one layer for each place"
            )
        check_array(f"{type(self).__name__}.backward", "grad_output", grad_output)
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
        known = list(vars(self).items())  # at once: another thread may run the layer meanwhile
        return {k: v for k, v in known if k not in (*_MEMORY, "_saved", "_hooks", "_threads")}
