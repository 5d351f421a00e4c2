"""What a step of a model will do and hold, told before it runs.

A copy of the model goes through a whole step in which no kernel runs. It asks for its buffers as in earnest (their
pages are never touched), so the plan cannot differ from what happens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.functional._fused import flops
from fastconv.functional._tape import rehearsal
from fastconv.nn._parameter import Parameter

if TYPE_CHECKING:
    from fastconv.nn.base import Module


@dataclass(frozen=True)
class Row:
    """One line of a plan: layers that run as one.

    Attributes
    ----------
    name : str
        Path of the layers in the model, as in ``named_modules``.
    layers : tuple of str
        Types of the layers.
    output : tuple of int
        Shape.
    parameters : int
        How many numbers are learned.
    flops : float
        Operations of the products (convolutions, linear layers), 2 a multiply-add; in training both ways.
    activations, gradients : int
        Bytes that the layers keep for outputs and what goes with them, and for gradients of inputs.
    """

    name: str
    layers: tuple[str, ...]
    output: tuple[int, ...]
    parameters: int
    flops: float
    activations: int
    gradients: int


@dataclass(frozen=True)
class Plan:
    """What a step on inputs of one shape does and holds; ``print(plan)`` shows it as a table.

    Attributes
    ----------
    model, dtype : str
    input_shape : tuple of int
    training : bool
        Whether it is a training step, or evaluation.
    rows : tuple of Row
    parameter_nbytes : int
        Of the parameters, the gradients that belong to them and the buffers of the state.
    scratch : int
        Bytes of scratch memory, shared by all layers.
    """

    model: str
    dtype: str
    input_shape: tuple[int, ...]
    training: bool
    rows: tuple[Row, ...]
    parameter_nbytes: int
    scratch: int

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> float:
        return sum(row.flops for row in self.rows)

    @property
    def activations(self) -> int:
        return sum(row.activations for row in self.rows)

    @property
    def gradients(self) -> int:
        return sum(row.gradients for row in self.rows)

    @property
    def total(self) -> int:
        """All bytes: parameters, activations, gradients and scratch memory."""
        return self.parameter_nbytes + self.activations + self.gradients + self.scratch

    def __str__(self) -> str:
        what = "training step" if self.training else "evaluation"
        lines = [f"{self.model}, {what} on {self.input_shape} of {self.dtype}", ""]
        table = [("layers", "", "output", "parameters", "MFLOP", "activations", "gradients")]
        for row in self.rows:
            table.append((
                row.name, " + ".join(row.layers), "×".join(map(str, row.output)), _count(row.parameters),
                _count(row.flops / 1e6), _bytes(row.activations), _bytes(row.gradients),
            ))  # fmt: skip
        table.append((
            "total", "", "", _count(self.parameters), _count(self.flops / 1e6), _bytes(self.activations),
            _bytes(self.gradients),
        ))  # fmt: skip
        widths = [max(len(line[i]) for line in table) for i in range(7)]
        rule = "─" * (sum(widths) + 2 * 6)
        for number, line in enumerate(table):
            if number in (1, len(table) - 1):
                lines.append(rule)
            words = (cell.ljust(width) for cell, width in zip(line[:3], widths[:3], strict=True))
            numbers = (cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True))
            lines.append("  ".join((*words, *numbers)).rstrip())
        parts = {
            "parameters and their gradients": self.parameter_nbytes,
            "activations": self.activations,
            "gradients of inputs": self.gradients,
            "scratch": self.scratch,
            "together": self.total,
        }
        lines.append("")
        lines += [f"{name:31} {_bytes(value):>10}" for name, value in parts.items()]
        return "\n".join(lines)


def make_plan(model: Module, input_shape: tuple[int, ...], training: bool) -> Plan:
    """Rehearse a step of a copy of the model; see `Module.plan`."""
    shape = tuple(int(n) for n in input_shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"plan: input_shape must be (N, ...), all at least 1, got {input_shape}")
    twin = copy.deepcopy(model)
    twin.train(training)
    dtype = next((parameter.data.dtype for parameter in twin.parameters()), np.dtype(np.float32))
    x = np.empty((shape[0], *shape[2:], shape[1]), dtype)
    x = np.moveaxis(x, -1, 1) if len(shape) in (3, 4) else x.reshape(shape)
    with rehearsal() as scratch:
        output = twin.forward(x)
        if training:
            twin.backward(np.empty_like(output))
        needed = scratch()
    names = {id(module): name for name, module in twin.named_modules()}
    rows = tuple(_rows(twin, names))
    state = sum(array.nbytes for _, array in twin.named_state())
    state += sum(parameter.grad.nbytes for parameter in twin.parameters())
    return Plan(type(model).__name__, str(dtype), shape, training, rows, state, needed)


def _rows(module: Module, names: dict[int, str]) -> Iterator[Row]:
    parts = list(module._parts())
    for layers in parts:
        if len(layers) > 1:
            yield _row(layers, names)
        else:
            yield from _rows(layers[0], names)
    row = _row((module,), names)
    if not parts or row.activations or row.gradients:
        yield row


def _row(layers: tuple[Module, ...], names: dict[int, str]) -> Row:
    held: dict[bool, int] = {True: 0, False: 0}
    operations, learned = 0.0, 0
    for layer in layers:
        for name, array in _memory(layer):
            held[name.startswith("grad_")] += array.nbytes
        operations += sum(flops(repeat.calls) for repeat in layer._repeats.values())
        learned += sum(value.data.size for value in vars(layer).values() if isinstance(value, Parameter))
    first, last = names[id(layers[0])], names[id(layers[-1])]
    name = first if first == last else f"{first}-{last.rpartition('.')[2]}"
    shape = next((layer._saved[0] for layer in reversed(layers) if layer._saved), ())
    kinds = tuple(type(layer).__name__ for layer in layers)
    return Row(name, kinds, shape, learned, operations, held[False], held[True])


def _memory(layer: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) of all that a layer keeps between steps but its state."""
    yield from layer.__dict__.get("_storage", {}).items()
    yield from ((name, entry[2]) for name, entry in layer._results.items())
    private = ((name, value) for name, value in vars(layer).items() if name.startswith("_"))
    yield from ((name, value) for name, value in private if isinstance(value, np.ndarray))


def _count(value: float) -> str:
    if not value:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _bytes(value: int) -> str:
    """Return bytes in the unit that leaves three digits or so."""
    if not value:
        return "–"
    size, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
