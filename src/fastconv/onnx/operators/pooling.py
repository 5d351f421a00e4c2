"""Pooling of signals and images."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastconv import functional as F
from fastconv.onnx.operators._registry import operator, padding_of, refuse, sizes

if TYPE_CHECKING:
    from fastconv.onnx.model import Pass
    from fastconv.onnx.reading import Step


# ---- pooling


def _pooled(x: Any, run: Callable[[Any], Any]) -> Any:
    """Pool signals as images of one row."""
    if x.ndim == 4:
        return run(x)
    y = run(F.reshape(x, -1, x.shape[1], 1, x.shape[2]))
    return F.reshape(y, -1, y.shape[1], y.shape[3])


def _window(step: "Step", x: Any) -> tuple[Any, Any, Any, Any, bool]:
    """Return kernel size, stride, padding, dilation of two dimensions, and the ceil mode."""
    kernel = tuple(step.settings["kernel_shape"])
    dims = len(kernel)
    if dims not in (1, 2) or x.ndim != dims + 2:
        refuse(f"pooling over {dims} dimensions on an input of shape {x.shape}")
    padding = padding_of(step, x.shape[2:], kernel)
    strides, dilations = (sizes(step, name, dims) for name in ("strides", "dilations"))
    if dims == 1:
        kernel, strides, dilations, padding = (1, *kernel), (1, *strides), (1, *dilations), ((0, 0), *padding)
    around: Any = padding
    if all(a == b for a, b in padding):
        around = tuple(a for a, _ in padding)
    return kernel, strides, around, dilations, bool(step.settings.get("ceil_mode", 0))


@operator("MaxPool")
def _max_pool(run: "Pass", step: "Step", x: Any) -> Any:
    if len([name for name in step.outputs if name]) > 1:
        refuse("where each maximum was")
    window = _window(step, x)
    return _pooled(x, lambda a: F.max_pool2d(a, *window))


@operator("AveragePool")
def _average_pool(run: "Pass", step: "Step", x: Any) -> Any:
    kernel, stride, padding, dilation, ceil = _window(step, x)
    counted = bool(step.settings.get("count_include_pad", 0))
    return _pooled(x, lambda a: F.avg_pool2d(a, kernel, stride, padding, ceil, counted, dilation))


@operator("GlobalAveragePool")
def _global_average(run: "Pass", step: "Step", x: Any) -> Any:
    return F.global_avg_pool2d(x) if x.ndim == 4 else F.mean(x, tuple(range(2, x.ndim)), True)


@operator("GlobalMaxPool")
def _global_max(run: "Pass", step: "Step", x: Any) -> Any:
    if x.ndim not in (3, 4):
        refuse(f"GlobalMaxPool of an input of shape {x.shape}")
    size = x.shape[2:] if x.ndim == 4 else (1, x.shape[2])
    return _pooled(x, lambda a: F.max_pool2d(a, size, size))
