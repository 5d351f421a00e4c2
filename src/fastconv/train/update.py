"""What becomes of gradients between backward and step: their mean over batches, the penalty, clipping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.nn import Module, Parameter
from fastconv.optim import clip_grad_norm_, clip_grad_value_


def average(params: Sequence[Parameter], batches: int) -> None:
    """Divide the gradients, sums over some batches, by their number."""
    if batches > 1:
        for param in params:
            if param.requires_grad:
                param.grad *= param.grad.dtype.type(1 / batches)


def penalise(model: Module, l2: float, squares: float) -> float:
    """Add the gradient of the L2 penalty; return the penalty, to which ``squares`` of weights belong already."""
    if l2 == 0:
        return 0.0
    for param in model.parameters():
        if param.data.ndim >= 2 and param.requires_grad:
            param.grad += l2 * param.data
            squares += float(np.square(param.data, dtype=np.float64).sum())
    return 0.5 * l2 * squares


def clip(params: Sequence[Parameter], norm: float | None, value: float | None) -> float | None:
    """Hold the gradients within bounds; return their norm before, None where it was not asked for."""
    found = None if norm is None else clip_grad_norm_(params, norm)
    if value is not None:
        clip_grad_value_(params, value)
    return found
