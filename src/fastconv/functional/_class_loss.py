"""Softmax cross-entropy beneath its checks: what the rows are to be, checked once, and the kernels' calls."""

from typing import NamedTuple

import numpy as np

import fastconv._ext.loss as loss
from fastconv.functional._check import (
    FLOATS,
    Array,
    as_contiguous,
    by_dtype,
    check_array,
    check_shape,
    element,
    number,
    same_dtype,
    whole,
)
from fastconv.functional._loss import Labels, amounts, is_dense, labels_and_gaps, sample_amounts, total
from fastconv.functional._views import rows, write_rows

_cross_entropy = by_dtype(loss.cross_entropy)
_cross_entropy_backward = by_dtype(loss.cross_entropy_backward)
_weighted = by_dtype(loss.weighted_cross_entropy)
_weighted_backward = by_dtype(loss.weighted_cross_entropy_backward)
_softmax = by_dtype(loss.softmax)


class Target(NamedTuple):
    """What rows are to be, and what they weigh."""

    labels: Array | None  # int64, one per row, -1 of those left out
    soft: Array | None  # (rows, classes)
    weight: Array | None  # of the classes
    sample: Array | None  # of the rows
    smoothing: float
    total: float  # what a mean is divided by

    @property
    def plain(self) -> bool:
        """Whether every row counts once, for its label alone."""
        return self.soft is None and self.weight is None and self.sample is None and not self.smoothing

    @property
    def settings(self) -> tuple[Array | None, Array | None, Array | None, Array | None, float]:
        return self.labels, self.soft, self.weight, self.sample, self.smoothing


def plain_target(scores: Array, labels: Labels | Array, ignore: int) -> Target | None:
    """Return what rows of scores are to be, where all lies as kernels read it and each has a label of its own.

    None where anything is otherwise: `target_of` says what is wrong, if it is.
    """
    if not (
        type(scores) is type(labels) is np.ndarray
        and scores.ndim == 2
        and scores.dtype in FLOATS
        and labels.dtype == np.int64
        and labels.shape == scores.shape[:1]
        and scores.flags.carray
        and labels.flags.c_contiguous
        and labels.flags.aligned
        and type(ignore) is int
        and -(2**63) <= ignore < 2**63
    ):
        return None
    outside, gaps = loss.look(labels, scores.shape[1], ignore, True)
    return None if outside >= 0 or gaps else Target(labels, None, None, None, 0.0, len(labels))


def target_of(
    where: str, input: Array, dtype: np.dtype, target: Labels | Array, weight: Array | None, ignore_index: int,
    smoothing: float, sample_weight: Array | None,
) -> Target:  # fmt: skip
    """Return what the rows of ``input``, checked by `check_rows`, are to be; see `functional.cross_entropy`."""
    classes, shape = input.shape[1], (input.shape[0], *input.shape[2:])
    smoothing = number(where, "label_smoothing", smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{where}: label_smoothing must be in [0, 1], got {smoothing}")
    ignore = whole(f"{where}: ignore_index", ignore_index, -(2**63))
    if weight is not None:
        check_array(where, "weight", weight)
        check_shape(where, "weight", weight, (classes,))
        weight = amounts(where, "weight", weight, dtype)
    sample = sample_amounts(where, sample_weight, shape, dtype)
    sample = None if sample is None else as_contiguous(sample).reshape(-1)
    if is_dense(target, input):
        same_dtype(where, target=target, input=input)
        check_shape(where, "target", target, input.shape)
        if not (target >= 0).all():
            place = np.unravel_index(int(np.argmin(target >= 0)), target.shape)
            raise ValueError(
                f"{where}: {element('target', place)} is {target[place]}, but probabilities are at least 0"
            )
        count = float(input.shape[0] * int(np.prod(shape[1:]))) if sample is None else total(sample)
        return Target(None, rows(target, 1), weight, sample, smoothing, count)
    labels, gaps = labels_and_gaps(where, target, input, ignore=ignore)
    if weight is None and sample is None and not gaps:
        return Target(labels, None, None, None, smoothing, labels.size)
    share = (labels >= 0).astype(dtype)
    if weight is not None:
        share *= weight[labels]
    if sample is not None:
        share *= sample
    if weight is None and sample is None and not smoothing:
        sample = share  # a row that is left out is one that weighs nothing
    return Target(labels, None, weight, sample, smoothing, total(share))


def check_still(where: str, found: Target, classes: int) -> None:
    """Raise ValueError if somebody has written labels that are out of range since they were checked."""
    if found.labels is not None:
        place, _ = loss.look(found.labels, classes, -1, not found.plain)
        if place >= 0:
            raise ValueError(
                f"{where}: a label is {found.labels[place]} by now, but labels must lie in [0, {classes}); do not "
                "write to the target between the loss and its gradient"
            )


def costs(x: Array, found: Target, losses: Array, probabilities: Array | None) -> None:
    """Write the loss of each row, and the softmax unless ``probabilities`` is None."""
    matrix, single = rows(x, 1), losses.reshape(-1)
    dtype = matrix.dtype

    def write(p: Array | None) -> None:
        if found.plain:
            _cross_entropy[dtype](matrix, found.labels, single, p)
        else:
            _weighted[dtype](matrix, *found.settings, single, p)

    if probabilities is None:
        write(None)
    else:
        write_rows(probabilities, 1, write)


def slopes(scale: Array, known: Array, softmax: bool, found: Target, grad_input: Array) -> None:
    """Write the gradient times ``scale``, given the scores or, with ``softmax``, what became of them."""
    matrix, dtype = rows(known, 1), grad_input.dtype

    def write(dx: Array) -> None:
        p = matrix
        if not softmax:
            _softmax[dtype](matrix, dx, False)
            p = dx
        if found.plain:
            _cross_entropy_backward[dtype](scale, p, found.labels, dx)
        else:
            _weighted_backward[dtype](scale, p, *found.settings, dx)

    if grad_input.shape[0]:
        write_rows(grad_input, 1, write)
