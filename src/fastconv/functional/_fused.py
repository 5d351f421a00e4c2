"""Activations that an operation applies in its own pass."""

from typing import Any

import numpy as np

from fastconv._ext import conv
from fastconv.functional._check import Array, as_contiguous, as_nhwc, by_dtype, check_shape, memory, scratch

_relu_mask = by_dtype(conv.relu_mask)


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


def masked_gradient(
    where: str, grad_output: Array, output: Array | None, activation: str | None, out: Array | None = None
) -> Array:
    """Return ``grad_output`` behind the activation: zero where ReLU gave zero, bit-equal to ``relu_backward``.

    Without an activation that is ``grad_output`` itself. The result lies in ``out``, else in scratch memory.
    """
    if not relu_flag(where, activation):
        return grad_output
    if output is None:
        raise ValueError(f"{where}: activation='relu' needs output=, what the forward call returned")
    check_shape(where, "output", output, grad_output.shape)
    if output.dtype != grad_output.dtype:
        raise TypeError(f"{where}: output is {output.dtype}, grad_output is {grad_output.dtype}")
    flat, whole = (memory, as_nhwc) if grad_output.ndim == 4 else (_same, as_contiguous)
    g, y = flat(whole(grad_output)), flat(whole(output))
    target = flat(out) if out is not None else _scratch_like(g)
    _relu_mask[g.dtype](g.reshape(-1), y.reshape(-1), target.reshape(-1))
    return out if out is not None else (target.transpose(0, 3, 1, 2) if g.ndim == 4 else target)


def _same(a: Array) -> Array:
    return a


def _scratch_like(a: Array) -> Array:
    view: np.ndarray[Any, Any] = scratch(a.nbytes, "mask")[: a.nbytes].view(a.dtype)
    return view.reshape(a.shape)
