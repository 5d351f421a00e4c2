"""An update: gradients of some batches, their mean, the penalty, clipping, and the optimiser's step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastconv.nn import Module, Parameter
from fastconv.optim import clip_grad_norm_, clip_grad_value_
from fastconv.train.base import lost
from fastconv.train.evaluation import hits

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer


def add_gradients(
    trainer: Trainer, x: np.ndarray, y: np.ndarray, weights: tuple[np.ndarray, ...], begins: bool
) -> tuple[int, int] | None:
    """Add the gradients of one batch; return how many labels were predicted right, and of how many.

    None where targets are not labels.
    """
    if begins:
        trainer.optimizer.lr = trainer.base_lr * float(trainer.schedule(trainer.step))
        trainer.optimizer.zero_grad()
    output = trainer.model(x)
    trainer.batch_loss = float(trainer.loss(output, y, *weights))
    if not math.isfinite(trainer.batch_loss):
        raise lost(trainer, f"the loss is {trainer.batch_loss}", (x, y))
    right = hits(output, y, trainer.loss)
    trainer._squares = trainer.optimizer.penalise_layers(trainer.l2)  # those weights take their steps in backward
    trainer.model.backward(trainer.loss.backward())
    return right


def update(trainer: Trainer, batches: int, samples: int) -> None:
    """Take a step by the gradients of some batches."""
    _average(trainer.optimizer.params, batches)
    trainer.batch_penalty = _penalise(trainer.model, trainer.l2, trainer._squares)
    norm = _clip(trainer.optimizer.params, trainer.clip_norm, trainer.clip_value)
    if trainer._tally is not None:
        trainer._tally.penalty += trainer.batch_penalty * samples
        if norm is not None and trainer.clip_norm is not None:
            trainer._tally.clip(norm, norm > trainer.clip_norm)
    trainer._notify("on_gradients")
    trainer.optimizer.step()
    if trainer.ema is not None:
        trainer.ema.update()
    trainer.step += 1


def _average(params: Sequence[Parameter], batches: int) -> None:
    """Divide the gradients, sums over some batches, by their number."""
    if batches > 1:
        for param in params:
            if param.requires_grad:
                param.grad *= param.grad.dtype.type(1 / batches)


def _penalise(model: Module, l2: float, squares: float) -> float:
    """Add the gradient of the L2 penalty; return the penalty, to which ``squares`` of weights belong already."""
    if l2 == 0:
        return 0.0
    for param in model.parameters():
        if param.data.ndim >= 2 and param.requires_grad:
            param.grad += l2 * param.data
            squares += float(np.square(param.data, dtype=np.float64).sum())
    return 0.5 * l2 * squares


def _clip(params: Sequence[Parameter], norm: float | None, value: float | None) -> float | None:
    """Hold the gradients within bounds; return their norm before, None where it was not asked for."""
    found = None if norm is None else clip_grad_norm_(params, norm)
    if value is not None:
        clip_grad_value_(params, value)
    return found
