"""Losses: ``loss(output, target)`` is a float, ``loss.backward()`` the gradient of the output.

The float knows its way back, too: ``loss(model(x), y).backward()`` is ``model.backward(loss.backward())``.
"""

import inspect
import threading
from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import as_labels, check_apart, number, one_of, short, whole
from fastconv.functional._class_loss import check_still, costs, plain_target, slopes, target_of
from fastconv.functional._loss import (
    IGNORE,
    check_reduction,
    check_rows,
    is_dense,
    loss_buffer,
    reduce,
    row_scale,
    total,
)
from fastconv.functional.dice import NORMALIZE
from fastconv.nn._origin import Origin, go_back, origin_of
from fastconv.nn._parameter import Array
from fastconv.nn._workspace import Workspace


class _Thread(threading.local):
    """What a loss keeps for the thread that asks."""

    saved: Any = None
    amount: float | None = None
    calls: int = 0


class LossValue(float):
    """What a loss cost: a float, and the way back to the model whose output it was given."""

    _way: tuple["Loss", int, Origin | None]  # no array, so that a list of losses holds none

    def backward(self, scale: float = 1.0) -> None:
        """Add `scale` times the gradients of this loss to those of the model whose output it was given.

        Where the model's input is the output of another model, they go on there.

        Raises
        ------
        RuntimeError
            If the array came from no model, as it is, or model or loss have been called again since.
        """
        loss, call, origin = self._way
        where = type(loss).__name__
        if loss._thread.calls != call:
            raise RuntimeError(f"{where}: the loss has been called again since; only its latest value goes backward")
        if origin is None:
            raise RuntimeError(
                f"{where}: its input is not, as it is, what a model returned; call model.backward(loss.backward()), "
                "loss being the one that was called"
            )
        go_back(origin, loss.backward(scale), where)

    def __reduce__(self) -> Any:
        """Copies and pickles are plain floats."""
        return float, (float(self),)


class Loss(Workspace):
    """Base class of the losses; any number of threads may use one at the same time, each goes backward on its own.

    Called as ``loss(output, target)`` or ``loss(output, target, sample_weight)``. Samples that weigh ``w`` cost ``w``
    times as much, and the mean is over the sum of the weights.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
        Over examples (over elements for MSELoss and its like); as in PyTorch. "none" gives an array of the single
        losses, and `backward` takes one of its shape.

    Raises
    ------
    ValueError
        If `reduction` is another word.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> model, loss = nn.Linear(1, 1, bias=False), nn.MSELoss()
    >>> model.weight.data[:] = 3.0
    >>> value = loss(model(np.ones((1, 1), np.float32)), np.full((1, 1), 5.0, np.float32))
    >>> value.backward()
    >>> value, model.weight.grad
    (4.0, array([[-4.]], dtype=float32))
    """

    _settings: tuple[str, ...] = ()  # what `repr` shows beside the reduction, where it is not the default

    def __init__(self, reduction: str = "mean") -> None:
        check_reduction(type(self).__name__, reduction)
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

    @property
    def amount(self) -> float | None:
        """How many samples the latest mean is over, where they have weights or are left out; None where all count."""
        return self._thread.amount

    def __call__(self, output: Array, target: Array, sample_weight: Array | None = None) -> Any:
        thread = self._thread
        thread.amount, thread.calls = None, thread.calls + 1
        found = self.forward(output, target) if sample_weight is None else self.forward(output, target, sample_weight)
        if isinstance(found, np.ndarray):
            return found
        value = LossValue(found)
        value._way = (self, thread.calls, origin_of(output))
        return value

    def forward(self, output: Array, target: Array, sample_weight: Array | None = None) -> Any:
        """Return the loss of the model's `output`.

        Parameters
        ----------
        output : ndarray of float32 or float64
            What the model returned.
        target : array_like
            What it should have: see the loss.
        sample_weight : array_like of shape (N,), optional
            What each sample's loss is multiplied by.

        Raises
        ------
        ValueError, TypeError
            If shapes or dtypes do not fit together.
        """
        raise NotImplementedError

    def backward(self, scale: float | Array = 1.0) -> Array:
        """Return `scale` times the gradient of the latest loss, in an array that belongs to the loss.

        Parameters
        ----------
        scale : float
            What the gradient is multiplied by.

        Raises
        ------
        RuntimeError
            If there was no forward.
        """
        saved = self._saved
        if not saved:
            raise RuntimeError(f"{type(self).__name__}.backward: called before forward")
        if self.reduction != "none":
            scale = number(f"{type(self).__name__}.backward", "scale", scale)
        output, *known = saved[1]
        grad_input = self._buffer("grad_input", output.shape, output.dtype.newbyteorder("="))
        return self._gradient(scale, output, *known, grad_input)

    def _gradient(self, scale: float | Array, *known: Any) -> Array:
        raise NotImplementedError

    def _weigh(self, sample_weight: Array | None, output: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the argument of a function for what samples weigh, and note how many samples that makes."""
        if sample_weight is None:
            return {}
        weight = np.asarray(sample_weight).astype(output.dtype.newbyteorder("="), copy=False)
        if shape and weight.shape in (shape, shape[:1]) and weight.size:
            self._thread.amount = total(np.ascontiguousarray(weight).reshape(-1)) * shape[0] / weight.size
        return {"sample_weight": weight}

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        shown = [f"{name}={getattr(self, name)!r}, " for name in self._settings
                 if name in self._always or not _same(getattr(self, name), defaults[name].default)]  # fmt: skip
        return f"{type(self).__name__}({''.join(shown)}reduction={self.reduction!r})"

    _always: tuple[str, ...] = ()  # settings shown whatever they are


def _same(value: Any, default: Any) -> bool:
    return value is default or (not isinstance(value, np.ndarray) and bool(value == default))


def _table(where: str, name: str, values: Any) -> Array | None:
    """Return weights as an array, whatever they were given as."""
    if values is None:
        return None
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{where}: {name} must be numbers, got {short(values)}")
    return found if found.dtype.kind == "f" else found.astype(np.float64)


class CrossEntropyLoss(Loss):
    """-log softmax(output)[label]: see :func:`fastconv.functional.cross_entropy`.

    ``forward(output, target)`` takes scores (N, C), (N, C, L) or (N, C, H, W) and integer labels (N,), (N, L) or
    (N, H, W), or probabilities of the scores' shape.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    weight : sequence of C numbers, optional
        Of the classes.
    ignore_index : int
        A label that counts for nothing.
    label_smoothing : float
        In [0, 1].

    Raises
    ------
    ValueError
        If a weight is negative, or `label_smoothing` is not in [0, 1].
    TypeError
        If the weights are no numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.CrossEntropyLoss()
    >>> round(loss(np.zeros((2, 4)), np.array([0, 3])), 4)
    1.3863
    >>> loss.backward()
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]])
    """

    _settings = ("weight", "ignore_index", "label_smoothing")

    def __init__(
        self,
        reduction: str = "mean",
        *,
        weight: Any = None,
        ignore_index: int = IGNORE,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        name = type(self).__name__
        self.weight = _table(name, "weight", weight)
        self.ignore_index = whole(f"{name}: ignore_index", ignore_index, -(2**63))
        self.label_smoothing = number(name, "label_smoothing", label_smoothing)
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"{name}: label_smoothing must be in [0, 1], got {label_smoothing}")

    def forward(self, output: Array, target: Array, sample_weight: Array | None = None) -> Any:
        """As :func:`fastconv.functional.cross_entropy`, whose checks `backward` need not make again.

        Parameters
        ----------
        output : ndarray of shape (N, classes) or (N, classes, H, W), float32 or float64
            Scores.
        target : array_like of int, shape (N,) or (N, H, W)
        sample_weight : array_like of shape (N,), optional
            What each sample's loss is multiplied by.

        Returns
        -------
        LossValue
            A float with ``backward``.
        """
        where, found, sample = "cross_entropy", None, None
        if self.reduction == "mean" and sample_weight is None and self.weight is None and self.label_smoothing == 0:
            found = plain_target(output, target, self.ignore_index)
        if found is not None:
            dtype, shape = output.dtype, output.shape[:1]
        else:
            output = self._accept(output)
            dtype, shape = check_rows(where, output, self.reduction)
            sample = self._weigh(sample_weight, output, shape).get("sample_weight")
            weight = None if self.weight is None else self.weight.astype(dtype, copy=False)
            found = target_of(where, output, dtype, target, weight, self.ignore_index, self.label_smoothing, sample)
        probabilities = self._buffer("probabilities", output.shape, dtype)
        losses = loss_buffer(where, None, shape, dtype, self.reduction)
        costs(output, found, losses, probabilities)
        if not found.plain:
            self._count(output, target, sample)
        self._save(output, output, found, probabilities)
        return reduce(losses, found.total, self.reduction)

    def _count(self, output: Array, target: Array, sample: Array | None) -> None:
        """Note how many samples the mean is over: the sum of what they weigh, of pixels a share of a sample each."""
        if is_dense(target, output) or not target.size:
            return
        counts = target != self.ignore_index
        if self.weight is None and counts.all():
            return  # all count alike, or as `_weigh` noted
        share = counts.astype(np.float64)
        if self.weight is not None:
            share *= self.weight[np.where(counts, as_labels("loss", "target", target), 0)]
        if sample is not None:
            share *= sample.reshape(*sample.shape, *(1,) * (share.ndim - sample.ndim))
        self._thread.amount = total(share.reshape(-1)) * len(output) / target.size

    def _gradient(self, scale: float | Array, *known: Any) -> Array:
        output, found, probabilities, grad_input = known
        where, shape = "cross_entropy_backward", (len(output), *output.shape[2:])
        check_still(where, found, output.shape[1])
        scales = row_scale(where, scale, shape, grad_input.dtype, self.reduction, found.total)
        if not found.plain or self.reduction == "none":
            read = {"grad_output": scales, "target": found.soft, "weight": found.weight, "sample_weight": found.sample}
            check_apart(where, {"grad_input": grad_input}, read)
        slopes(scales, probabilities, True, found, grad_input)
        return grad_input


class MultiMarginLoss(Loss):
    """The multi-class hinge: see :func:`fastconv.functional.multi_margin_loss`.

    It is called with scores (N, C), (N, C, L) or (N, C, H, W) and integer labels (N,), (N, L) or (N, H, W).

    K. Crammer and Y. Singer, JMLR 2001, whose hinge takes the worst class; the mean of all is PyTorch's.

    Parameters
    ----------
    margin : float
        How far the score of the label must be ahead.
    reduction : "mean", "sum" or "none"

    Raises
    ------
    ValueError
        If `reduction` is another word; when it is called, if shapes do not fit, or a label is out of range.
    TypeError
        If `margin` is no number; when it is called with a sample_weight.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.MultiMarginLoss()
    >>> loss(np.array([[0.0, 0.5, 0.25, 2.0]]), np.array([1]))
    0.9375
    >>> loss.backward()
    array([[ 0.25, -0.75,  0.25,  0.25]])
    """

    _settings = _always = ("margin",)

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = number("MultiMarginLoss", "margin", margin)

    def forward(self, output: Array, target: Array, sample_weight: Array | None = None) -> Any:
        if sample_weight is not None:
            raise TypeError("MultiMarginLoss: takes no sample_weight")
        output = self._accept(output)
        loss = F.multi_margin_loss(output, target, self.margin, self.reduction)
        self._save(output, output, target)
        return loss

    def _gradient(self, scale: float | Array, *known: Any) -> Array:
        output, target, grad_input = known
        return F.multi_margin_loss_backward(scale, output, target, self.margin, self.reduction, grad_input=grad_input)


class DiceLoss(Loss):
    """What output and target do not overlap, of each sample and class: see :func:`fastconv.functional.dice_loss`.

    It is called with scores (N, C), (N, C, L) or (N, C, H, W) and integer labels (N,), (N, L) or (N, H, W), or masks of
    the scores' shape.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    normalize : "softmax", "sigmoid" or "none"
        What makes shares from 0 to 1 of the scores.
    smooth : float
        At least 0.
    ignore_index : int
        Pixels of this label count for nothing.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> loss = nn.DiceLoss()
    >>> scores = np.array([[[100.0, 100.0, 0.0], [0.0, 0.0, 100.0]]])
    >>> loss(scores, np.array([[0, 0, 1]])), round(loss(scores, np.array([[0, 1, 1]])), 4)
    (0.0, 0.25)
    """

    _settings = ("normalize", "smooth", "ignore_index")

    def __init__(
        self,
        reduction: str = "mean",
        *,
        normalize: str = "softmax",
        smooth: float = 1.0,
        ignore_index: int = IGNORE,
    ) -> None:
        super().__init__(reduction)
        one_of("DiceLoss: normalize", normalize, NORMALIZE)
        self.normalize, self.smooth = normalize, number("DiceLoss", "smooth", smooth)
        self.ignore_index = whole("DiceLoss: ignore_index", ignore_index, -(2**63))

    def forward(self, output: Array, target: Array, sample_weight: Array | None = None) -> Any:
        output = self._accept(output)
        settings = self._weigh(sample_weight, output, output.shape[:1])
        settings |= {name: getattr(self, name) for name in self._settings}
        loss = F.dice_loss(output, target, self.reduction, **settings)
        self._save(output, output, target, settings)
        return loss

    def _gradient(self, scale: float | Array, *known: Any) -> Array:
        output, target, settings, grad_input = known
        return F.dice_loss_backward(scale, output, target, self.reduction, grad_input=grad_input, **settings)
