"""Activations, element by element, and softmax along an axis."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv._ext import loss
from fastconv.functional._channels import check_slopes
from fastconv.functional._check import by_dtype
from fastconv.functional._epilogue import (
    ACTIVATIONS,
    Epilogue,
    activate_backward,
    alone,
    finish,
    gelu_name,
    known_of,
    parse,
)
from fastconv.functional._ops._run import describes
from fastconv.functional._views import check_batch
from fastconv.functional.prelu import _add_slope_sums
from fastconv.graph.operation import (
    Array,
    Call,
    Frame,
    Operation,
    Spec,
    axis_of,
    flat,
    integer,
    layout,
    matrices,
    one_dtype,
    operation,
    rows_of,
)
from fastconv.graph.value import write

_softmax = by_dtype(loss.softmax)
_softmax_backward = by_dtype(loss.softmax_backward)


class Elementwise(Operation):
    """An activation; a subclass says by `reads_inputs` or `reads_outputs` what its gradient needs."""

    inplace = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        dtype = one_dtype(self.name, *inputs)
        check_batch(self.name, "input", inputs[0])
        return (Spec(inputs[0].shape, dtype),)


@operation
class Activate(Elementwise):
    """An activation of the kernels' table (`activations.inc`) by name, with all its parameters."""

    kind: str
    params: tuple[float, ...] = ()
    takes_part_as = "activation"
    spaced_inputs = (0,)
    spaced_output = True
    spaced_gradient = True

    def __post_init__(self) -> None:
        row, params = parse(str(self.kind), (self.kind, *self.params))
        if row is None or row.channels:
            raise ValueError(f"{self.kind!r} is no activation without weights")
        object.__setattr__(self, "params", params)

    @property
    def name(self) -> str:
        return self.kind

    @property
    def reads_inputs(self) -> tuple[int, ...]:  # type: ignore[override]
        return (0,) if known_of(ACTIVATIONS[self.kind], self.params) == "input" else ()

    @property
    def reads_outputs(self) -> bool:  # type: ignore[override]
        return not self.reads_inputs

    def forward(self, f: Frame) -> Iterator[Call]:
        yield finish[f.y[0].dtype], (*matrices(f.x[0], f.y[0]), alone(self.kind, self.params))

    def backward(self, f: Frame) -> Iterator[Call]:
        known = f.y[0] if self.reads_outputs else f.x[0]
        [gy], [gx] = f.gy, f.gx
        yield activate_backward[gx.dtype], (*matrices(gy, known, gx), alone(self.kind, self.params))


@operation
class PReLU(Elementwise):
    """x where x > 0, else weight * x; inputs are x and the weight, one number or one per channel."""

    kind = "prelu"
    params = ()
    takes_part_as = "slopes"
    accumulates = (1,)
    reads_inputs = (0, 1)
    inplace = False

    def spread(self, f: Frame) -> Iterator[Call]:
        """Write the weight as one number per channel, for the operation before to apply."""
        yield np.copyto, (f.y[0], f.x[0])

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        specs = super().infer(*inputs)
        check_slopes("prelu", *inputs)
        return specs

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        [y] = outputs
        slopes = Spec((y.shape[1] if y.ndim > 1 else 1,), y.dtype)
        return slopes, *(_copies(y, 1, 3 if backward else 2) if y.ndim > 1 else ())

    def _slopes(self, f: Frame) -> tuple[Epilogue, list[Call]]:
        slopes = f.work[0]
        return Epilogue("prelu", (slopes,)), [(np.copyto, (slopes, f.x[1]))]

    def forward(self, f: Frame) -> Iterator[Call]:
        (x, y), calls, back = _rows_along(1, f.work[1:], [f.x[0]], f.y[0])
        yield from calls
        epilogue, calls = self._slopes(f)
        yield from calls
        yield finish[x.dtype], (x, y, epilogue)
        yield from back

    def backward(self, f: Frame) -> Iterator[Call]:
        gx, grad_weight = f.gx
        target = f.gy[0] if gx is None else gx  # rows to nowhere where no gradient is wanted
        (gy, x, to), calls, back = _rows_along(1, f.work[1:], [f.gy[0], f.x[0]], target)
        yield from calls
        if grad_weight is not None and x.size:
            yield _add_slope_sums, (gy, x, grad_weight)
        if gx is not None:
            epilogue, calls = self._slopes(f)
            yield from calls
            yield activate_backward[x.dtype], (gy, x, to, epilogue)
            yield from back


def _copies(spec: Spec, axis: int, count: int) -> tuple[Spec, ...]:
    """Return the memory for copies of arrays whose rows along an axis are no rows of their memory."""
    if axis % spec.ndim == layout(spec.ndim)[-1]:
        return ()
    return (Spec((math.prod(spec.shape),), spec.dtype),) * count


def _rows_along(
    axis: int, work: list[Array], inputs: list[Array], out: Array
) -> tuple[list[Array], list[Call], list[Call]]:  # fmt: skip
    """Return arrays as rows along an axis (of one number where there is none), and what copies them there and back."""
    size = out.shape[axis] if axis < out.ndim else 1
    arrays = [*inputs, out]
    if not work:
        return [rows_of(a) if 1 < a.ndim < 5 else flat(a).reshape(-1, size) for a in arrays], [], []
    moved = [np.moveaxis(a, axis, -1) for a in arrays]
    copies = [w.reshape(moved[0].shape) for w in work]
    there = [(np.copyto, pair) for pair in zip(copies[:-1], moved[:-1], strict=True)]
    return [copy.reshape(-1, size) for copy in copies], there, [(np.copyto, (moved[-1], copies[-1]))]


@operation
class Softmax(Elementwise):
    """Softmax or its logarithm along an axis."""

    axis: int
    logarithm: bool
    inplace = False
    reads_outputs = True

    @property
    def name(self) -> str:
        return "log_softmax" if self.logarithm else "softmax"

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        axis_of(self.name, self.axis, inputs[0].shape)
        return super().infer(*inputs)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return _copies(outputs[0], self.axis, 3 if backward else 2)

    def forward(self, f: Frame) -> Iterator[Call]:
        if f.y[0].size:
            rows, calls, back = _rows_along(self.axis, f.work, [f.x[0]], f.y[0])
            yield from calls
            yield _softmax[f.y[0].dtype], (*rows, self.logarithm)
            yield from back

    def backward(self, f: Frame) -> Iterator[Call]:
        if f.gx[0].size:
            rows, calls, back = _rows_along(self.axis, f.work, [f.gy[0], f.y[0]], f.gx[0])
            yield from calls
            yield _softmax_backward[f.gx[0].dtype], (*rows, self.logarithm)
            yield from back


def _described(kind: str) -> None:
    @describes(kind)
    def activate(input: Any, *params: Any) -> Any:
        return write(Activate(kind, params), input)


for _kind in (
    "relu", "tanh", "sigmoid", "softsign", "relu6", "silu", "mish", "hardswish", "hardsigmoid", "exp", "log", "sqrt",
    "erf",
):  # fmt: skip
    _described(_kind)


@describes("leaky_relu")
def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    return write(Activate("leaky_relu", (negative_slope,)), input)


@describes("prelu")
def prelu(input: Any, weight: Any) -> Any:
    return write(PReLU(), input, weight)


@describes("hardtanh")
def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    return write(Activate("hardtanh", (min_val, max_val)), input)


@describes("elu")
def elu(input: Any, alpha: float = 1.0) -> Any:
    return write(Activate("elu", (alpha,)), input)


@describes("gelu")
def gelu(input: Any, approximate: str = "none") -> Any:
    return write(Activate(gelu_name("gelu", approximate)), input)


@describes("softplus")
def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return write(Activate("softplus", (beta, threshold)), input)


@describes("softmax")
def softmax(input: Any, axis: int = 1) -> Any:
    return write(Softmax(integer("softmax: axis", axis), False), input)


@describes("log_softmax")
def log_softmax(input: Any, axis: int = 1) -> Any:
    return write(Softmax(integer("log_softmax: axis", axis), True), input)
