"""Where operators register, and what several read of a step."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import functional as F
from fastconv.graph.operation import Array

if TYPE_CHECKING:
    from fastconv.onnx.reading import Step

Pairs = tuple[tuple[int, int], ...]

NUMBERS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2), "Dropout": (1, 2), "Expand": (1,), "Gather": (1,), "Pad": (1, 2, 3), "Pow": (1,),
    "ReduceL1": (1,), "ReduceL2": (1,), "ReduceLogSum": (1,), "ReduceMean": (1,), "ReduceSum": (1,),
    "ReduceSumSquare": (1,), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,),
    "Squeeze": (1,), "Tile": (1,), "Unsqueeze": (1,), "Upsample": (1,),
}  # fmt: skip
"""Inputs that are settings, by operator: their numbers have to be known."""

OPERATORS: dict[str, Callable[..., Any]] = {}


def operator(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what is done for operators of these names."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(kinds, function))
        return function

    return register


def refuse(what: str) -> Any:
    raise ValueError(f"{what} is not supported")


def sides(step: "Step", dims: int) -> Pairs:
    """Return the padding before and after each dimension."""
    pads = step.settings.get("pads") or (0,) * (2 * dims)
    if len(pads) != 2 * dims:
        raise ValueError(f"{step}: pads {pads} do not fit {dims} dimensions")
    return tuple((int(pads[i]), int(pads[i + dims])) for i in range(dims))


def sizes(step: "Step", name: str, dims: int) -> tuple[int, ...]:
    found = tuple(step.settings.get(name) or (1,) * dims)
    if len(found) != dims:
        raise ValueError(f"{name} {found} do not fit {dims} dimensions")
    return found


def padding_of(step: "Step", shape: Sequence[int], kernel: Sequence[int]) -> Pairs:
    """Return the padding of a convolution or pooling, worked out of the image's size where auto_pad says so."""
    dims, auto = len(kernel), step.settings.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return sides(step, dims)
    if auto == "VALID":
        return ((0, 0),) * dims
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        refuse(f"auto_pad {auto!r}")
    found = []
    for n, k, stride, dilation in zip(
        shape, kernel, sizes(step, "strides", dims), sizes(step, "dilations", dims), strict=True
    ):
        total = max(0, (math.ceil(n / stride) - 1) * stride + (k - 1) * dilation + 1 - n)
        small = total // 2
        found.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
    return tuple(found)


def scalar(operand: Any) -> Any:
    """Return a known array of one number as that number, anything else as it is."""
    if isinstance(operand, np.ndarray) and operand.size == 1 and operand.ndim <= 1:
        return float(operand.reshape(-1)[0])
    return operand


def integers(array: Array) -> tuple[int, ...]:
    return tuple(int(n) for n in np.asarray(array).reshape(-1))


def reshaped(x: Any, shape: Sequence[int]) -> Any:
    """Return a value of another shape, said so that it holds for batches of other sizes too."""
    shape = tuple(shape)
    if shape == x.shape:
        return x
    if not shape or not x.shape or shape[0] != x.shape[0] or not math.prod(shape[1:]):
        return F.reshape(x, *shape)
    if len(shape) == 2 and x.ndim > 2:
        return F.flatten(x, 1)
    return F.reshape(x, -1, *shape[1:])
