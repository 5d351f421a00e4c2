"""Batch normalisation."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fastconv._ext import norm
from fastconv.functional._channels import (
    check_channels,
    check_eps,
    check_momentum,
    check_statistics,
    check_values,
)
from fastconv.functional._check import by_dtype, check_grad, check_rank, scratch
from fastconv.functional._epilogue import Epilogue
from fastconv.functional._ops._run import describes
from fastconv.functional._ops.convolution import ready
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, flag, one_dtype, operation, rows_of
from fastconv.graph.value import write

_forward = by_dtype(norm.forward)
_evaluate = by_dtype(norm.evaluate)
_coefficients = by_dtype(norm.coefficients)
_backward = by_dtype(norm.backward)


@operation
class BatchNorm(Operation):
    """Normalisation by the batch's statistics in training, by the running ones in evaluation.

    Inputs are x, weight, bias, running mean, running variance and the count of batches; all but x may be missing.
    """

    training: bool
    momentum: float | None
    eps: float
    takes: ClassVar[tuple[str, ...]] = ("add", "activation", "slopes")
    masks: ClassVar[tuple[str, ...]] = ("relu",)
    optional: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5)
    accumulates: ClassVar[tuple[int, ...]] = (1, 2)
    reads_inputs = (0, 1)
    runs_again = True
    spaced_inputs: ClassVar[tuple[int, ...]] = (0,)
    spaced_output: ClassVar[bool] = True
    spaced_gradient: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "batch_norm"

    @property
    def takes_part_as(self) -> str:  # type: ignore[override]
        return "" if self.training else "scale"

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        return self.training

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, weight, bias, mean, var, count = inputs
        where = self.name
        dtype = one_dtype(where, x, weight, bias, mean, var)
        check_rank(where, "input", x, (2, 3, 4))
        if self.momentum is not None:
            check_momentum(where, self.momentum)
        if self.training and self.momentum is None and count is None:
            raise ValueError(f"{where}: momentum None averages over all batches, which takes the count of them")
        check_eps(where, self.eps)
        for name, a in (("weight", weight), ("bias", bias), ("running_mean", mean), ("running_var", var)):
            check_channels(where, name, a, x)
        if self.training:
            check_values(where, x.shape[0] * int(np.prod(x.shape[2:])), x)
        else:
            check_statistics(where, mean, var)
        return (Spec(x.shape, dtype),)

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return (Spec((2, outputs[0].shape[1]), outputs[0].dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return () if backward else self.saved(inputs, outputs)  # they go somewhere where nothing is saved, too

    def forward(self, f: Frame) -> Iterator[Call]:
        x, weight, bias, mean, var, count = f.x
        [y] = f.y
        saved = (f.saved or f.work)[0]
        (weight, bias), calls = _vectors(weight, bias)
        yield from calls
        add, pre = (None if a is None else rows_of(a) for a in (f.add, f.pre))
        epilogue = Epilogue(*f.activation, None, None, add, pre)
        if not self.training:
            (mean, var), calls = _vectors(mean, var)
            yield from calls
            given = (rows_of(x), weight, bias, mean, var, self.eps)
            yield _evaluate[y.dtype], (*given, rows_of(y), saved, epilogue, scratch)
            return
        for name, running in (("running_mean", mean), ("running_var", var)):
            if running is not None:
                check_grad(self.name, name, running, running.shape, running.dtype)
        before, after = (rows_of(x), weight, bias, mean, var), (self.eps, rows_of(y), saved, epilogue, scratch)
        if self.momentum is None:
            yield _averaging, (_forward[y.dtype], count, before, after)
        else:
            yield _forward[y.dtype], (*before, self.momentum, *after)
        if count is not None:
            yield np.add, (count, 1, count)

    def again(self, f: Frame) -> Iterator[Call]:
        """Normalise once more; the running statistics have moved already."""
        statistics = (None, None, None) if self.training else f.x[3:]
        return self.but(momentum=0.0).forward(replace(f, x=[*f.x[:3], *statistics]))

    def coefficients(self, f: Frame) -> Iterator[Call]:
        """Fill scale and shift of evaluation, for the operation before to apply."""
        (weight, bias, mean, var), calls = _vectors(*f.x[1:5])
        yield from calls
        [out], [saved] = f.y, f.saved
        yield _coefficients[out.dtype](weight, bias, mean, var, self.eps, out, saved), ()

    def backward(self, f: Frame) -> Iterator[Call]:
        x, weight, [saved], [gy] = f.x[0], f.x[1], f.saved, f.gy
        (weight,), calls = _vectors(weight)
        yield from calls
        gx, grad_weight, grad_bias = f.gx[:3]
        y = rows_of(f.y[0]) if f.activation[0] else None
        yield _backward[gy.dtype], (
            rows_of(gy), y, rows_of(x), weight, saved, self.training, None if gx is None else rows_of(gx), grad_weight,
            grad_bias, scratch,
        )  # fmt: skip


def _vectors(*vectors: Array | None) -> tuple[list[Array | None], list[Call]]:
    found: list[Array | None] = []
    calls: list[Call] = []
    for vector in vectors:
        array, more = (None, []) if vector is None else ready(vector)
        found.append(array)
        calls += more
    return found, calls


def _averaging(kernel: Callable[..., Any], count: Array, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    """Run a forward whose running statistics are means over all batches so far."""
    kernel(*before, 1 / (int(count) + 1), *after)


@describes("batch_norm")
def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float | None = 0.1, eps: float = 1e-5, *, count: Any = None,
) -> Any:  # fmt: skip
    op = BatchNorm(flag("batch_norm: training", training), momentum, float(eps))
    return write(op, input, weight, bias, running_mean, running_var, count)
