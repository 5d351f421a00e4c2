"""Losses of single elements, averaged or summed over all of them."""

from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import number
from fastconv.nn._parameter import Array
from fastconv.nn.losses import Loss, _table


class _ElementLoss(Loss):
    """A loss of output and target element by element; `_functions` are the function and its gradient."""

    _functions: tuple[Any, Any]

    def _arguments(self, output: Array) -> dict[str, Any]:
        """Return the settings of the function."""
        return {name: getattr(self, name) for name in self._settings}

    def forward(self, output: Array, target: Array, sample_weight: Array | None = None) -> Any:
        output, target = self._accept(output), self._accept(target, "target")
        settings = {**self._arguments(output), **self._weigh(sample_weight, output, output.shape)}
        loss = self._functions[0](output, target, self.reduction, **settings)
        self._save(output, output, target, settings)
        return loss

    def _gradient(self, scale: float | Array, *known: Any) -> Array:
        output, target, settings, grad_input = known
        found: Array = self._functions[1](scale, output, target, self.reduction, grad_input=grad_input, **settings)
        return found


class MSELoss(_ElementLoss):
    """(output - target)², averaged or summed over all elements: see :func:`fastconv.functional.mse_loss`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"

    Raises
    ------
    ValueError
        If `reduction` is another word; when it is called, if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.MSELoss()
    >>> loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    2.0
    >>> loss.backward()
    array([[ 0., -2.]])
    """

    _functions = (F.mse_loss, F.mse_loss_backward)


class L1Loss(_ElementLoss):
    """``|output - target|``, averaged or summed over all elements: see :func:`fastconv.functional.l1_loss`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"

    Raises
    ------
    ValueError
        If `reduction` is another word; when it is called, if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.L1Loss()
    >>> loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    1.0
    >>> loss.backward()
    array([[ 0. , -0.5]])
    """

    _functions = (F.l1_loss, F.l1_loss_backward)


class SmoothL1Loss(_ElementLoss):
    """Squares below beta, absolute errors above: see :func:`fastconv.functional.smooth_l1_loss`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    beta : float
        At least 0.

    Raises
    ------
    ValueError
        If `beta` is negative, or `reduction` another word.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.SmoothL1Loss(reduction="none")
    >>> loss(np.array([[1.0, 2.0]]), np.array([[1.5, 6.0]]))
    array([[0.125, 3.5  ]])
    >>> loss.backward(np.ones((1, 2)))
    array([[-0.5, -1. ]])
    """

    _functions = (F.smooth_l1_loss, F.smooth_l1_loss_backward)
    _settings = _always = ("beta",)

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = number("SmoothL1Loss", "beta", beta)
        if not 0 <= self.beta < np.inf:
            raise ValueError(f"SmoothL1Loss: beta must be finite and at least 0, got {beta}")


class HuberLoss(_ElementLoss):
    """Squares up to delta, absolute errors above: see :func:`fastconv.functional.huber_loss`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    delta : float
        Above 0.

    Raises
    ------
    ValueError
        If `delta` is not positive, or `reduction` another word.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.HuberLoss(reduction="none", delta=2.0)
    >>> loss(np.array([[1.0, 2.0]]), np.array([[1.5, 6.0]]))
    array([[0.125, 6.   ]])
    >>> loss.backward(np.ones((1, 2)))
    array([[-0.5, -2. ]])
    """

    _functions = (F.huber_loss, F.huber_loss_backward)
    _settings = _always = ("delta",)

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = number("HuberLoss", "delta", delta)
        if not 0 < self.delta < np.inf:
            raise ValueError(f"HuberLoss: delta must be finite and above 0, got {delta}")


class BCEWithLogitsLoss(_ElementLoss):
    """The logistic loss of yes or no: see :func:`fastconv.functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    weight : array, optional
        Multiplies the losses; it goes with the output's shape by NumPy's rules.
    pos_weight : number or array, optional
        What a yes weighs beside a no.

    Raises
    ------
    ValueError
        If `reduction` is another word; when it is called, if shapes do not fit, or a weight is negative or not finite.
    TypeError
        If a weight is no number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.BCEWithLogitsLoss(reduction="sum", pos_weight=3.0)
    >>> round(loss(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]])), 4)
    2.7726
    >>> loss.backward()
    array([[-1.5,  0.5]])
    """

    _functions = (F.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits_backward)
    _settings = ("weight", "pos_weight")

    def __init__(self, reduction: str = "mean", *, weight: Any = None, pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = _table("BCEWithLogitsLoss", "weight", weight)
        self.pos_weight = _table("BCEWithLogitsLoss", "pos_weight", pos_weight)

    def _arguments(self, output: Array) -> dict[str, Any]:
        dtype = output.dtype.newbyteorder("=")
        tables = {"weight": self.weight, "pos_weight": self.pos_weight}
        return {name: a.astype(dtype, copy=False) for name, a in tables.items() if a is not None}
