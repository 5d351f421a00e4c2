"""Arrays as the kernels of activations and losses read them: flat, or in rows along one axis."""

from collections.abc import Callable

import numpy as np

from fastconv.functional._check import Array, as_contiguous, as_nhwc, memory


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
    return as_contiguous(_last(a, axis)).reshape(-1, a.shape[axis])


def write_rows(out: Array, axis: int, write: Callable[[Array], None]) -> None:
    """Call ``write`` with rows of ``out`` along ``axis``, in place where its memory allows."""
    moved = _last(out, axis)
    direct = moved.flags.c_contiguous
    target = moved if direct else np.empty(moved.shape, out.dtype)
    write(target.reshape(-1, out.shape[axis]))
    if not direct:
        moved[...] = target
