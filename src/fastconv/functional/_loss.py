"""What losses share: how they are reduced, labels, what samples weigh. Sums over a batch are in double.

The losses of rows, in the order of memory (NHWC where 4-d), are added in 16 lanes, number i to lane i % 16, and the
lanes in a fixed tree. A weighted mean divides by the sum of the weights, added in the same way.
"""

from math import nan, prod

import numpy as np
import numpy.typing as npt

import fastconv._ext.loss as loss
from fastconv.functional._check import (
    Array,
    as_contiguous,
    as_labels,
    by_dtype,
    check_array,
    check_out,
    check_rank,
    check_shape,
    element,
    number,
    one_of,
    same_dtype,
    scratch,
)

_total = by_dtype(loss.total)

Labels = npt.NDArray[np.integer | np.bool_]

IGNORE = -100
"""The label that counts for nothing unless another is named, as in PyTorch."""


REDUCTIONS = ("mean", "sum", "none")


def check_reduction(where: str, reduction: str) -> None:
    one_of(f"{where}: reduction", reduction, REDUCTIONS)


def labels_of(where: str, target: Labels, input: Array, classes: int | None = None, ignore: int | None = None) -> Array:
    """Return the labels as a flat int64 array, one per row of ``input`` along axis 1; -1 where one is ``ignore``."""
    return labels_and_gaps(where, target, input, classes, ignore)[0]


def labels_and_gaps(
    where: str, target: Labels, input: Array, classes: int | None = None, ignore: int | None = None
) -> tuple[Array, bool]:
    """Return `labels_of`, and whether one is ``ignore``."""
    classes = input.shape[1] if classes is None else classes
    if isinstance(target, np.ndarray):  # before its numbers are read: a view may have any number of them
        check_array(where, "target", target)
        check_shape(where, "target", target, (input.shape[0], *input.shape[2:]))
    numbers = as_labels(where, "target", target, booleans=classes == 2)
    labels = as_contiguous(numbers).reshape(-1)
    spared = ignore is not None and -(2**63) < ignore < 2**63  # else no label is
    first, gaps = loss.look(labels, classes, ignore if spared else 0, spared)
    if first >= 0:
        place = np.unravel_index(first, target.shape)
        raise ValueError(
            f"{where}: {element('target', place)} is {target[place]}, but labels must lie in [0, {classes})"
        )
    return (np.where(labels == ignore, -1, labels) if gaps else labels), gaps


def holds(labels: Array, label: int) -> bool:
    """Return whether one of the labels is this one."""
    if labels.dtype == np.int64 and labels.flags.c_contiguous and labels.flags.aligned and abs(label) < 2**63:
        found: int = loss.first_of(labels.reshape(-1), label)
        return found >= 0
    return bool((labels == label).any())


def is_dense(target: Labels | Array, input: Array) -> bool:
    """Return whether a target has numbers for every class, in the place of a label."""
    return isinstance(target, np.ndarray) and target.dtype.kind == "f" and target.ndim == input.ndim


def check_single(where: str, out: Array | None, reduction: str) -> None:
    """Raise ValueError if there is an array for single losses, and a sum or mean of them is asked for."""
    if out is not None and reduction != "none":
        raise ValueError(f"{where}: out is for reduction='none'; {reduction!r} returns a float")


def loss_buffer(where: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype, reduction: str) -> Array:
    """Return where the losses of the rows go: the result itself for "none", else scratch memory."""
    check_single(where, out, reduction)
    if reduction == "none":
        return check_out(where, "out", out, shape, dtype)
    count = prod(shape)
    return scratch(count * dtype.itemsize, "losses")[: count * dtype.itemsize].view(dtype)


def total(numbers: Array) -> float:
    """Return the sum of numbers in the order of their memory."""
    result: float = _total[numbers.dtype](numbers)
    return result


def reduce(losses: Array, weight: float, reduction: str) -> float | Array:
    """Return single losses themselves, their sum, or that over what they weigh; nan where that is nothing."""
    if reduction == "none":
        return losses
    value = total(losses)
    if reduction == "sum":
        return value
    return value / weight if weight else nan


def row_scale(where: str, grad_output: float | Array, shape: tuple[int, ...], dtype: np.dtype, reduction: str,
              weight: float) -> Array:  # fmt: skip
    """Return what the gradients of the rows are multiplied by: one number, or one per row for "none"."""
    if reduction == "none":
        if not isinstance(grad_output, np.ndarray):
            raise TypeError(f"{where}: with reduction='none' grad_output must be an array of shape {shape}")
        same_dtype(where, grad_output=grad_output, input=np.empty(0, dtype))
        check_shape(where, "grad_output", grad_output, shape)
        return as_contiguous(grad_output).reshape(-1)
    scale = number(where, "grad_output", grad_output)
    if reduction == "mean":
        scale = scale / weight if weight else nan
    return np.array([scale], dtype)


def check_rows(where: str, input: Array, reduction: str) -> tuple[np.dtype, tuple[int, ...]]:
    """Return the dtype and the shape of the losses of ``input``, which has classes along axis 1."""
    check_reduction(where, reduction)
    dtype = same_dtype(where, input=input)
    check_rank(where, "input", input, (2, 3, 4))
    return dtype, (input.shape[0], *input.shape[2:])


def amounts(where: str, name: str, weight: Array, dtype: np.dtype) -> Array:
    """Return what classes or samples weigh, in C order.

    Raises
    ------
    ValueError
        If one is negative, NaN or infinite: it and its place are named.
    """
    if same_dtype(where, {name: weight}, input=np.empty(0, dtype)) and weight.size:
        good = (weight >= 0) & (weight < np.inf)
        if not good.all():
            place = np.unravel_index(int(np.argmin(good)), weight.shape)
            spot, value = element(name, place), weight[place]
            raise ValueError(f"{where}: {spot} is {value}, but weights are finite and at least 0")
    return as_contiguous(weight)


def sample_amounts(where: str, weight: Array | None, shape: tuple[int, ...], dtype: np.dtype) -> Array | None:
    """Return what single losses of a shape weigh, one each, given one each or one per sample; None as it is."""
    if weight is None:
        return None
    check_array(where, "sample_weight", weight)
    if weight.shape not in (shape, shape[:1]):
        raise ValueError(f"{where}: sample_weight must have shape {shape[:1]} or {shape}, got {weight.shape}")
    found = amounts(where, "sample_weight", weight, dtype)
    return np.broadcast_to(found.reshape(*found.shape, *(1,) * (len(shape) - found.ndim)), shape)
