"""Losses: ``loss(output, target)`` is a float, ``loss.backward()`` the gradient of the output."""

import threading
from typing import Any

from fastconv import functional as F
from fastconv.functional._check import number
from fastconv.nn._parameter import Array
from fastconv.nn._workspace import Workspace


class _Thread(threading.local):
    """What a loss keeps for the thread that asks."""

    saved: Any = None


class Loss(Workspace):
    """Base class of the losses; any number of threads may use one at the same time, each goes backward on its own.

    Parameters
    ----------
    reduction : "mean" or "sum"
        Over examples (over elements for MSELoss); as in PyTorch.

    Raises
    ------
    ValueError
        If `reduction` is another word.
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'mean' or 'sum', got {reduction!r}")
        self.reduction = reduction

    @property
    def _thread(self) -> _Thread:
        thread: _Thread = vars(self).get("_threads") or vars(self).setdefault("_threads", _Thread())
        return thread

    @property
    def _saved(self) -> Any:
        return self._thread.saved

    @_saved.setter
    def _saved(self, saved: Any) -> None:
        self._thread.saved = saved

    def _memory(self) -> dict[str, Any]:
        return vars(self._thread)

    def __call__(self, output: Array, target: Array) -> float:
        return self.forward(output, target)

    def forward(self, output: Array, target: Array) -> float:
        """Return the loss of the model's `output`."""
        raise NotImplementedError

    def backward(self, scale: float = 1.0) -> Array:
        """Return `scale` times the gradient of the latest loss, in an array that belongs to the loss."""
        if not self._saved:
            raise RuntimeError(f"{type(self).__name__}.backward: called before forward")
        scale = number(f"{type(self).__name__}.backward", "scale", scale)
        output, *known = self._saved[1]
        grad_input = self._buffer("grad_input", output.shape, output.dtype.newbyteorder("="))
        return self._gradient(scale, output, *known, grad_input)

    def _gradient(self, scale: float, *known: Any) -> Array:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"


class CrossEntropyLoss(Loss):
    """-log softmax(output)[label]: see :func:`fastconv.functional.cross_entropy`.

    ``forward(output, target)`` takes scores (N, C) or (N, C, H, W) and integer labels (N,) or (N, H, W).
    """

    def forward(self, output: Array, target: Array) -> float:
        output = self._accept(output)
        probabilities = self._buffer("probabilities", output.shape, output.dtype.newbyteorder("="))
        loss = F.cross_entropy(output, target, self.reduction, probabilities=probabilities)
        self._save(output, output, target, probabilities)
        return float(loss)

    def _gradient(self, scale: float, *known: Any) -> Array:
        output, target, probabilities, grad_input = known
        return F.cross_entropy_backward(
            scale, output, target, self.reduction, probabilities=probabilities, grad_input=grad_input
        )


class MSELoss(Loss):
    """(output - target)², averaged or summed over all elements: see :func:`fastconv.functional.mse_loss`."""

    def forward(self, output: Array, target: Array) -> float:
        output, target = self._accept(output), self._accept(target, "target")
        loss = F.mse_loss(output, target, self.reduction)
        self._save(output, output, target)
        return float(loss)

    def _gradient(self, scale: float, *known: Any) -> Array:
        output, target, grad_input = known
        return F.mse_loss_backward(scale, output, target, self.reduction, grad_input=grad_input)


class MultiMarginLoss(Loss):
    """The multi-class hinge: see :func:`fastconv.functional.multi_margin_loss`.

    Parameters
    ----------
    margin : float
        How far the score of the label must be ahead.
    reduction : "mean" or "sum"
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("MultiMarginLoss", "margin", margin)

    def forward(self, output: Array, target: Array) -> float:
        output = self._accept(output)
        loss = F.multi_margin_loss(output, target, self.margin, self.reduction)
        self._save(output, output, target)
        return float(loss)

    def _gradient(self, scale: float, *known: Any) -> Array:
        output, target, grad_input = known
        return F.multi_margin_loss_backward(scale, output, target, self.margin, self.reduction, grad_input=grad_input)

    def __repr__(self) -> str:
        return f"MultiMarginLoss(margin={self.margin}, reduction={self.reduction!r})"
