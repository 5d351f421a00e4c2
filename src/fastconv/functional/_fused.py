"""The gradients of a convolution or linear layer, as one call."""

from typing import Any

from fastconv._ext.conv.algorithms import kernel
from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._check import Array, reserve, scratch
from fastconv.functional._epilogue import NOTHING, Epilogue, mask_into


def gradients(
    gy: Array, mask: tuple[Array, Epilogue] | None, masked: Array | None, x: Array, weight: Array, geometry: Geometry,
    grad_weight: Array, grad_bias: Array | None, grad_input: Array | None, algorithm: str = "direct",
) -> None:  # fmt: skip
    """Add to the parameters' gradients of a convolution and write its input's, each unless it is None.

    All arrays are as the kernels take them: checked, images (N, H, W, C). ``mask`` is what the gradient of an
    activation is made from that was applied in the same pass; the gradient before it goes to ``masked``, or to
    scratch memory where that is None.
    """
    source = gy
    if mask is not None and masked is None:
        masked = scratch(gy.nbytes, "mask")[: gy.nbytes].view(gy.dtype).reshape(gy.shape)
    if masked is not None:
        gy = masked
    run = kernel("weight_gradient", geometry, gy.itemsize, algorithm)
    calls: list[tuple[Any, tuple[Any, ...]]] = [(run, (x, gy, grad_weight, geometry, scratch, grad_bias))]
    if grad_input is not None:
        run = kernel("input_gradient", geometry, gy.itemsize, algorithm)
        calls.append((run, (gy, weight, grad_input, geometry, NOTHING, scratch)))
    reserve(geometry.extent * gy.itemsize, *calls)
    if masked is not None:
        mask_into(source, mask, masked)
    for function, arguments in calls:
        function(*arguments)
