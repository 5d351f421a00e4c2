"""Activations that an operation applies in its own pass, and the gradients of such an operation."""

from fastconv._ext import conv
from fastconv._ext.conv import Geometry
from fastconv.functional._check import Array, as_contiguous, as_nhwc, by_dtype, check_shape, memory, same_dtype, scratch

_relu_mask = by_dtype(conv.relu_mask)
_weight_gradient = by_dtype(conv.weight_gradient)
_bias_gradient = by_dtype(conv.bias_gradient)
_input_gradient = by_dtype(conv.input_gradient)


def relu_flag(where: str, activation: str | None) -> bool:
    """Return whether ``activation`` is "relu".

    Raises
    ------
    ValueError
        If it is neither that nor None.
    """
    if activation not in (None, "relu"):
        raise ValueError(f"{where}: activation must be None or 'relu', got {activation!r}")
    return activation == "relu"


def check_epilogue(
    where: str, bias: Array | None, coefficients: Array | None, channels: int
) -> tuple[Array | None, Array | None]:
    """Return bias and coefficients as the kernels take them, or raise ValueError if a shape does not fit."""
    if bias is not None:
        check_shape(where, "bias", bias, (channels,))
        bias = as_contiguous(bias)
    if coefficients is not None:
        check_shape(where, "coefficients", coefficients, (2, channels))
        coefficients = as_contiguous(coefficients)
    return bias, coefficients


def check_output(where: str, grad_output: Array, output: Array | None, activation: str | None) -> Array | None:
    """Return what masks the gradient behind an activation, the checked ``output``, or None without one."""
    if not relu_flag(where, activation):
        return None
    if output is None:
        raise ValueError(f"{where}: activation='relu' needs output=, what the forward call returned")
    same_dtype(where, grad_output=grad_output, output=output)
    check_shape(where, "output", output, grad_output.shape)
    return as_nhwc(output) if output.ndim == 4 else as_contiguous(output)


def masked_gradient(
    where: str, grad_output: Array, output: Array | None, activation: str | None, out: Array
) -> Array:
    """Write to ``out`` where ReLU gave more than zero, else zero: bit-equal to ``relu_backward``.

    Without an activation nothing is written, and ``grad_output`` itself is returned.
    """
    known = check_output(where, grad_output, output, activation)
    if known is None:
        return grad_output
    g = as_nhwc(grad_output) if grad_output.ndim == 4 else as_contiguous(grad_output)
    _relu_mask[g.dtype](*(memory(a).reshape(-1) if a.ndim == 4 else a.reshape(-1) for a in (g, known, out)))
    return out


def gradients(
    gy: Array, y: Array | None, x: Array, weight: Array, geometry: Geometry,
    grad_weight: Array, grad_bias: Array | None, grad_input: Array | None,
) -> None:  # fmt: skip
    """Add to the parameters' gradients of a convolution and write its input's, each unless it is None.

    All arrays are as the kernels take them: checked, images (N, H, W, C). ``y`` is the output, if ReLU was
    applied to it in the same pass: the masked gradient then lies in scratch memory.
    """
    if y is not None:
        masked = scratch(gy.nbytes, "mask")[: gy.nbytes].view(gy.dtype)
        _relu_mask[gy.dtype](gy.reshape(-1), y.reshape(-1), masked)
        gy = masked.reshape(gy.shape)
    _weight_gradient[gy.dtype](x, gy, grad_weight, geometry, scratch)
    if grad_bias is not None:
        _bias_gradient[gy.dtype](gy.reshape(-1, gy.shape[3]), grad_bias, scratch)
    if grad_input is not None:
        _input_gradient[gy.dtype](gy, weight, grad_input, geometry, scratch)
