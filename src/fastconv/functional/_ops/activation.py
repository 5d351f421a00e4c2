"""Activations, element by element, and softmax along an axis."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv._ext import conv, elementwise, loss
from fastconv.functional import activation as F
from fastconv.functional._check import by_dtype
from fastconv.functional._ops._run import describes
from fastconv.functional._views import check_batch
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, flat, layout, one_dtype, one_of
from fastconv.graph.value import write

_unary = by_dtype(elementwise.unary)
_binary = by_dtype(elementwise.binary)
_scaled = by_dtype(elementwise.scaled)
_softmax = by_dtype(loss.softmax)
_softmax_backward = by_dtype(loss.softmax_backward)
relu_mask = by_dtype(conv.relu_mask)


class Elementwise(Operation):
    """An activation; a subclass says by `reads_inputs` or `reads_outputs` what its gradient needs."""

    inplace = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        dtype = one_dtype(self.name, *inputs)
        check_batch(self.name, "input", inputs[0])
        return (Spec(inputs[0].shape, dtype),)


@dataclass(frozen=True)
class Map(Elementwise):
    """An activation without parameters, by its name in the kernels' table."""

    kind: str

    def __post_init__(self) -> None:
        one_of(self.kind, ("relu", "tanh", "sigmoid", "softsign"))

    @property
    def name(self) -> str:
        return self.kind

    @property
    def takes_part_as(self) -> str:  # type: ignore[override]
        return "activation" if self.kind == "relu" else ""

    @property
    def reads_inputs(self) -> tuple[int, ...]:  # type: ignore[override]
        return (0,) if self.kind == "softsign" else ()

    @property
    def reads_outputs(self) -> bool:  # type: ignore[override]
        return self.kind != "softsign"

    def forward(self, f: Frame) -> Iterator[Call]:
        yield _unary[f.y[0].dtype], (flat(f.x[0]), flat(f.y[0]), self.kind)

    def backward(self, f: Frame) -> Iterator[Call]:
        known = f.y[0] if self.reads_outputs else f.x[0]
        kernel = "relu_mask" if self.kind == "relu" else f"{self.kind}_backward"
        yield _binary[f.gx[0].dtype], (flat(f.gy[0]), flat(known), flat(f.gx[0]), kernel)


@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    negative_slope: float
    reads_inputs = (0,)

    @property
    def name(self) -> str:
        return "leaky_relu"

    def forward(self, f: Frame) -> Iterator[Call]:
        x = flat(f.x[0])
        yield _scaled[x.dtype], (x, x, self.negative_slope, flat(f.y[0]), "leaky_relu")

    def backward(self, f: Frame) -> Iterator[Call]:
        g = flat(f.gy[0])
        yield _scaled[g.dtype], (g, flat(f.x[0]), self.negative_slope, flat(f.gx[0]), "leaky_relu")


@dataclass(frozen=True)
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
        F._check_axis(self.name, inputs[0], self.axis)
        return super().infer(*inputs)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        [y] = outputs
        if self.axis % y.ndim == layout(y.ndim)[-1]:
            return ()
        return (Spec((math.prod(y.shape),), y.dtype),) * (3 if backward else 2)

    def forward(self, f: Frame) -> Iterator[Call]:
        if f.y[0].size:
            rows, calls, back = self._rows(f.work, [f.x[0]], f.y[0])
            yield from calls
            yield _softmax[f.y[0].dtype], (*rows, self.logarithm)
            yield from back

    def backward(self, f: Frame) -> Iterator[Call]:
        if f.gx[0].size:
            rows, calls, back = self._rows(f.work, [f.gy[0], f.y[0]], f.gx[0])
            yield from calls
            yield _softmax_backward[f.gx[0].dtype], (*rows, self.logarithm)
            yield from back

    def _rows(self, work: list[Array], inputs: list[Array], out: Array) -> tuple[list[Array], list[Call], list[Call]]:
        """Return arrays as rows along the axis, and what copies them there and back where they lie otherwise."""
        size = out.shape[self.axis]
        arrays = [*inputs, out]
        if not work:
            return [flat(a).reshape(-1, size) for a in arrays], [], []
        moved = [np.moveaxis(a, self.axis, -1) for a in arrays]
        copies = [w.reshape(moved[0].shape) for w in work]
        there = [(np.copyto, pair) for pair in zip(copies[:-1], moved[:-1], strict=True)]
        return [copy.reshape(-1, size) for copy in copies], there, [(np.copyto, (moved[-1], copies[-1]))]


@describes("relu")
def relu(input: Any) -> Any:
    return write(Map("relu"), input)


@describes("tanh")
def tanh(input: Any) -> Any:
    return write(Map("tanh"), input)


@describes("sigmoid")
def sigmoid(input: Any) -> Any:
    return write(Map("sigmoid"), input)


@describes("softsign")
def softsign(input: Any) -> Any:
    return write(Map("softsign"), input)


@describes("leaky_relu")
def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    return write(LeakyReLU(float(negative_slope)), input)


@describes("softmax")
def softmax(input: Any, axis: int = 1) -> Any:
    return write(Softmax(int(axis), False), input)


@describes("log_softmax")
def log_softmax(input: Any, axis: int = 1) -> Any:
    return write(Softmax(int(axis), True), input)
