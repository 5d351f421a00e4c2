"""What all poolings share: checks, buffers and kernel calls over windows that are already worked out."""

from typing import Any

import numpy as np

from fastconv._ext import pool
from fastconv._ext.pool import Geometry
from fastconv.functional._check import (
    Array,
    as_nhwc,
    by_dtype,
    check_apart,
    check_out,
    check_rank,
    check_shape,
    empty_nhwc,
    memory,
    same_dtype,
)
from fastconv.functional._geometry import Windows
from fastconv.graph.operation import flag

run_max = by_dtype(pool.max_pool)
run_max_backward = by_dtype(pool.max_pool_backward)
run_mean = by_dtype(pool.avg_pool)
run_mean_backward = by_dtype(pool.avg_pool_backward)

# Positions up to here are exact in float32, in which the kernels carry them.
_MOST_TAPS = 1 << 24


def check_images(where: str, input: Array) -> np.dtype[Any]:
    """Return the dtype of images (N, C, H, W), or raise TypeError or ValueError."""
    dtype = same_dtype(where, input=input)
    check_rank(where, "input", input, 4)
    return dtype


def argmax_dtype(where: str, g: Windows) -> np.dtype[Any]:
    """Return the dtype of positions within windows."""
    if g.taps > _MOST_TAPS:
        raise ValueError(f"{where}: a window of {g.taps} taps is too large to index, at most {_MOST_TAPS}")
    return np.dtype(np.uint8 if g.taps <= 255 else np.int32)


def as_bytes(argmax: Array | None) -> tuple[Array | None, int]:
    """Return the memory of positions as bytes, and how many one has."""
    if argmax is None:
        return None, 0
    return memory(argmax).view(np.uint8), argmax.itemsize


def flat_indices(argmax: Array, g: Geometry, width: int, out: Array | None = None) -> Array:
    """Return positions within windows as indices h * width + w of the input plane, int64."""
    r, s = np.divmod(np.arange(g.taps), g.w.kernel)
    taps = r * g.h.step * width + s * g.w.step
    spans = [(np.asarray(axis.spans), axis.step) for axis in (g.h, g.w)]
    rows, cols = (span[:, 0] - span[:, 2] * step for span, step in spans)  # where windows begin
    out = empty_nhwc(argmax.shape, np.int64) if out is None else out
    np.add(taps[memory(argmax)], (rows[:, None] * width + cols)[:, :, None], out=memory(out))
    return out


def largest(where: str, input: Array, g: Windows, return_indices: Any, out: Array | None,
            argmax: Array | None = None) -> Any:  # fmt: skip
    """Return the largest elements, and their indices if they are asked for."""
    return_indices = flag(f"{where}: return_indices", return_indices)
    out = check_out(where, "out", out, g.shape, input.dtype.newbyteorder("="))
    if return_indices or argmax is not None:
        argmax = check_out(where, "argmax", argmax, g.shape, argmax_dtype(where, g))
    check_apart(where, {"out": out, "argmax": argmax}, {"input": input})
    positions, nbytes = as_bytes(argmax)
    run_max[out.dtype](memory(as_nhwc(input)), memory(out), positions, nbytes, g.geometry)
    if return_indices:
        assert argmax is not None
        return out, flat_indices(argmax, g.geometry, input.shape[3])
    return out


def largest_backward(where: str, grad_output: Array, argmax: Array, shape: tuple[int, ...], g: Windows,
                     grad_input: Array | None) -> Array:  # fmt: skip
    """Return the gradient from the positions of the maxima, which are checked."""
    dtype = grad_output.dtype.newbyteorder("=")
    grad_input = check_out(where, "grad_input", grad_input, shape, dtype)
    check_apart(where, {"grad_input": grad_input}, {"grad_output": grad_output, "argmax": argmax})
    positions, nbytes = as_bytes(as_nhwc(argmax))
    run_max_backward[dtype](memory(as_nhwc(grad_output)), positions, nbytes, memory(grad_input), g.geometry)
    return grad_input


def largest_found_again(where: str, grad_output: Array, input: Array, g: Windows, grad_input: Array | None) -> Array:
    """Return the gradient of a max pooling that kept nothing but its input."""
    same_dtype(where, input=input, grad_output=grad_output)
    check_shape(where, "grad_output", grad_output, g.shape)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, grad_output.dtype.newbyteorder("="))
    check_apart(where, {"grad_input": grad_input}, {"grad_output": grad_output, "input": input})
    argmax = empty_nhwc(g.shape, argmax_dtype(where, g))
    largest(where, input, g, False, None, argmax)
    return largest_backward(where, grad_output, argmax, input.shape, g, grad_input)


def mean(where: str, input: Array, g: Windows, out: Array | None) -> Array:
    """Return the means of windows."""
    dtype = input.dtype.newbyteorder("=")
    out = check_out(where, "out", out, g.shape, dtype)
    check_apart(where, {"out": out}, {"input": input})
    run_mean[dtype](memory(as_nhwc(input)), memory(out), g.geometry)
    return out


def mean_backward(where: str, grad_output: Array, shape: tuple[int, int, int, int], g: Windows,
                  grad_input: Array | None) -> Array:  # fmt: skip
    """Return the gradient of means of windows."""
    dtype = same_dtype(where, grad_output=grad_output)
    check_shape(where, "grad_output", grad_output, g.shape)
    grad_input = check_out(where, "grad_input", grad_input, shape, dtype)
    check_apart(where, {"grad_input": grad_input}, {"grad_output": grad_output})
    run_mean_backward[dtype](memory(as_nhwc(grad_output)), memory(grad_input), g.geometry)
    return grad_input
