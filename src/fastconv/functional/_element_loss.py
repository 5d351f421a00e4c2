"""What losses of single elements share: checks, what elements weigh, sums over blocks.

Blocks of 4096 elements, in the order of memory (NHWC where 4-d), are each summed over 16 lanes; the sums of the blocks
are added in double.
"""

from typing import cast

import numpy as np

import fastconv._ext.loss as loss
from fastconv.functional._check import (
    Array,
    as_contiguous,
    by_dtype,
    check_apart,
    check_array,
    check_out,
    check_shape,
    same_dtype,
)
from fastconv.functional._loss import amounts, check_reduction, loss_buffer, reduce, row_scale, sample_amounts, total
from fastconv.functional._views import check_batch, flat

_loss = by_dtype(loss.element_loss)
_slope = by_dtype(loss.element_loss_backward)


def check_pair(where: str, input: Array, target: Array, reduction: str) -> np.dtype:
    check_reduction(where, reduction)
    dtype = same_dtype(where, input=input, target=target)
    check_batch(where, "input", input)
    check_shape(where, "target", target, input.shape)
    return dtype


def _spread(a: Array) -> Array:
    """Return an array that may repeat itself, as contiguous elements in the order of ``flat``."""
    return flat(np.ascontiguousarray(a))


def _weights(where: str, input: Array, weight: Array | None, sample_weight: Array | None) -> tuple[Array | None, float]:
    """Return what the elements weigh, flat, and what a mean is divided by: the sum of what the samples weigh."""
    dtype = same_dtype(where, input=input)
    share, count = None, float(input.size)
    if sample_weight is not None:
        share = sample_amounts(where, sample_weight, input.shape, dtype)
        each = as_contiguous(sample_weight).reshape(-1)
        count = total(each) * (input.size // each.size) if each.size else 0.0
    if weight is not None:
        own = _going_with(where, "weight", weight, input)
        share = own if share is None else own * share
    return None if share is None else _spread(share), count


def costs(
    where: str, kind: str, input: Array, target: Array, reduction: str, parameter: float, out: Array | None,
    sample_weight: Array | None, weight: Array | None = None, positive: Array | None = None,
) -> float | Array:  # fmt: skip
    """Return a loss of this kind; `loss.pyx` has the kinds, and what their parameter is."""
    dtype = check_pair(where, input, target, reduction)
    share, count = _weights(where, input, weight, sample_weight)
    pos = _positive(where, positive, input)
    shape = input.shape if reduction == "none" else (loss.blocks(input.size),)
    losses = loss_buffer(where, out, shape, dtype, reduction)
    read = {"input": input, "target": target, "sample_weight": sample_weight, "weight": weight, "pos_weight": positive}
    check_apart(where, {"out": losses}, read, in_place=("input", "target"))
    single, sums = (flat(losses), None) if reduction == "none" else (None, losses)
    _loss[dtype](flat(input), flat(target), share, pos, kind, parameter, single, sums)
    return reduce(losses, count, reduction)


def slopes(
    where: str, kind: str, grad_output: float | Array, input: Array, target: Array, reduction: str, parameter: float,
    grad_input: Array | None, sample_weight: Array | None, weight: Array | None = None, positive: Array | None = None,
) -> Array:  # fmt: skip
    """Return the gradient of `costs`."""
    dtype = check_pair(where, input, target, reduction)
    share, count = _weights(where, input, weight, sample_weight)
    pos = _positive(where, positive, input)
    grad_input = check_out(where, "grad_input", grad_input, input.shape, dtype)
    scale = row_scale(where, grad_output, input.shape, dtype, reduction, count)
    read = {
        "grad_output": grad_output if isinstance(grad_output, np.ndarray) else None, "sample_weight": sample_weight,
        "weight": weight, "pos_weight": positive,
    }  # fmt: skip
    check_apart(where, {"grad_input": grad_input}, read)
    check_apart(where, {"grad_input": grad_input}, {"input": input, "target": target}, in_place=("input", "target"))
    if reduction == "none":
        scale = flat(cast(Array, grad_output))
    _slope[dtype](scale, flat(input), flat(target), share, pos, kind, parameter, flat(grad_input))
    return grad_input


def _positive(where: str, positive: Array | None, input: Array) -> Array | None:
    return None if positive is None else _spread(_going_with(where, "pos_weight", positive, input))


def _going_with(where: str, name: str, weight: Array, input: Array) -> Array:
    """Return weights that go with the input's shape by NumPy's rules, in that shape; TypeError or ValueError else."""
    check_array(where, name, weight)
    checked = amounts(where, name, weight, same_dtype(where, input=input))
    try:
        return np.broadcast_to(checked, input.shape)
    except ValueError:
        raise ValueError(f"{where}: {name} must go with shape {input.shape}, got {weight.shape}") from None
