"""Arrays as the kernels of activations and losses read them: flat, or in rows along one axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.functional._check import (
    Array,
    as_contiguous,
    as_nhwc,
    check_apart,
    check_out,
    check_shape,
    memory,
    same_dtype,
)


def check_batch(where: str, name: str, a: Array) -> None:
    """Raise ValueError if a dimension other than the first is empty."""
    if 0 in a.shape[1:]:
        raise ValueError(
            f"{where}: {name} has an empty dimension, shape {a.shape}; only the batch may be empty"
        )


def flat(a: Array) -> Array:
    """Return the elements of ``a`` in the order of its memory (NHWC where 4-d), copied where they must be.

    Of an array that :func:`check_out` returned it is a view.
    """
    return (memory(as_nhwc(a)) if a.ndim == 4 else as_contiguous(a)).reshape(-1)


def _last(a: Array, axis: int) -> Array:
    """Return ``a`` with ``axis`` last, as a view."""
    return a if axis == a.ndim - 1 else a.transpose(*range(axis), *range(axis + 1, a.ndim), axis)


def rows(a: Array, axis: int) -> Array:
    """Return ``a`` as contiguous rows along ``axis``: a view for (N, C) and NHWC memory with axis 1."""
    if a.ndim == 2 and axis == 1:
        return as_contiguous(a)
    return as_contiguous(_last(a, axis)).reshape(-1, a.shape[axis])


def write_rows(out: Array, axis: int, write: Callable[[Array], None]) -> None:
    """Call ``write`` with rows of ``out`` along ``axis``, in place where its memory allows."""
    if out.ndim == 2 and axis == 1 and out.flags.c_contiguous:
        write(out)
        return
    moved = _last(out, axis)
    direct = moved.flags.c_contiguous
    target = moved if direct else np.empty(moved.shape, out.dtype)
    write(target.reshape(-1, out.shape[axis]))
    if not direct:
        moved[...] = target


def output_like(where: str, input: Array, out: Array | None, dtype: np.dtype[Any]) -> Array:
    """Return where a result of the input's shape goes: ``out``, which may be the input itself, or a new array."""
    out = check_out(where, "out", out, input.shape, dtype)
    check_apart(where, {"out": out}, {"input": input}, in_place=("input",))
    return out


def gradient_like(where: str, name: str, grad_output: Array, known: Array, grad_input: Array | None) -> Array:
    """Check the arrays of a gradient, and return the one it is written to."""
    dtype = same_dtype(where, grad_output=grad_output, **{name: known})
    check_batch(where, name, known)
    check_shape(where, "grad_output", grad_output, known.shape)
    grad_input = check_out(where, "grad_input", grad_input, known.shape, dtype)
    arrays = {"grad_output": grad_output, name: known}
    check_apart(where, {"grad_input": grad_input}, arrays, in_place=arrays)
    return grad_input
