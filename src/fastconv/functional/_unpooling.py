"""Elements put where their indices say, and their gradients taken from there."""

from typing import Any

import numpy as np

from fastconv.functional._check import Array, check_count, check_rank, check_shape, memory, pair

_WHOLE = np.dtype(np.int64)


def check_indices(where: str, indices: Any, shape: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError unless indices are int64 and of this shape."""
    if indices.dtype.newbyteorder("=") != _WHOLE:
        raise TypeError(f"{where}: indices must be int64, got {indices.dtype}")
    check_rank(where, "indices", indices, 4)
    check_shape(where, "indices", indices, shape)


def unpooled_shape(where: str, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any,
                   output_size: Any) -> tuple[int, int, int, int]:  # fmt: skip
    """Return the (N, C, H, W) of an image whose pooling gave an input of this shape, all checked."""
    check_indices(where, indices, input.shape)
    n, c, *sizes = input.shape
    kernel = pair(where, "kernel_size", kernel_size)
    steps = kernel if stride is None else pair(where, "stride", stride)
    borders = pair(where, "padding", padding, 0)
    if output_size is None:
        found = [(p - 1) * s - 2 * b + k for p, s, b, k in zip(sizes, steps, borders, kernel, strict=True)]
        if min(found) < 1:
            raise ValueError(f"{where}: an image of {found[0]}x{found[1]} pixels would come out, from {sizes[0]}x"
                             f"{sizes[1]} by kernel_size={kernel}, stride={steps}, padding={borders}")  # fmt: skip
    else:
        given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,)
        if len(given) == 4 and given[:2] == (n, c):
            given = given[2:]
        found = list(pair(where, "output_size", given))
    check_count(where, "an output", max(n, 1), c, *found)
    return n, c, found[0], found[1]


def flat_places(where: str, indices: Array, shape: tuple[int, ...], places: Array) -> None:
    """Write where in the memory of an image of this shape indices (N, C, P, Q), over NHWC memory, lie."""
    n, c, h, w = shape
    wrong = (indices < 0) | (indices >= h * w)
    if wrong.any():
        raise ValueError(f"{where}: index {indices[wrong][0]} lies outside of an image of {h}x{w} pixels")
    found = places.reshape(n, indices.shape[2] * indices.shape[3], c)
    np.multiply(memory(indices).reshape(found.shape), c, out=found)
    found += np.arange(c)
    found += (np.arange(n) * (h * w * c))[:, None, None]


def put(values: Array, places: Array, out: Array) -> None:
    """Write zeros, and the values in their places: the last where several have the same."""
    out.fill(0)
    out[places] = values


def take(grad: Array, places: Array, last: Array, out: Array) -> None:
    """Write the gradients of values that were put: 0 for those that others were put over; ``last`` is scratch."""
    order = np.arange(places.size)
    last[places] = order
    out[...] = grad[places]
    out[last[places] != order] = 0
