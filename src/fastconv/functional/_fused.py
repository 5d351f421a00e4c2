"""The gradients of a convolution or linear layer, as one call."""

from typing import Any

from fastconv._ext.bias import bias_gradient
from fastconv._ext.conv.algorithms import choose, kernel
from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._check import Array, by_dtype, reserve, scratch
from fastconv.functional._epilogue import NOTHING, Epilogue, mask_into

_bias_gradient = by_dtype(bias_gradient)


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
    chosen = choose("weight_gradient", geometry, gy.itemsize, algorithm)
    along = () if grad_bias is None or not chosen.takes_bias else (grad_bias,)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (chosen.weight_gradient[gy.itemsize], (x, gy, grad_weight, geometry, scratch, *along))
    ]
    if grad_bias is not None and not along:
        calls.append((_bias_gradient[gy.dtype], (gy.reshape(-1, gy.shape[3]), grad_bias, scratch)))
    if grad_input is not None:
        run = kernel("input_gradient", geometry, gy.itemsize, algorithm)
        calls.append((run, (gy, weight, grad_input, geometry, NOTHING, scratch)))
    reserve(geometry.extent * gy.itemsize, *calls)
    if masked is not None:
        mask_into(source, mask, masked)
    for function, arguments in calls:
        function(*arguments)
