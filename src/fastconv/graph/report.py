"""What a step of a model does and holds, read off its schedule before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from fastconv import _html
from fastconv.graph.memory import live_bytes
from fastconv.graph.rewrite import Group
from fastconv.graph.steps import Schedule


@dataclass(frozen=True)
class Row:
    """One line of a plan: operations that run as one.

    Attributes
    ----------
    name : str
        Path of the layers in the model, as in ``named_modules``.
    layers : tuple of str
        Types of the layers; names of operations that forward calls itself.
    output : tuple of int
        Shape.
    parameters : int
        How many numbers are learned; those of a shared layer where it runs first.
    flops : float
        Operations of the products (convolutions, linear layers), 2 a multiply-add; in training both ways.
    activations, gradients : int
        Bytes for its outputs and what backward needs of it, and for gradients. Rows share memory where they do not
        need theirs at the same time: see `Plan.arena`.
    hooked : bool
        Whether a hook looks at it, so that it runs on its own.
    again : bool
        Whether backward computes it once more instead of keeping it; `flops` counts that.
    in_place : (int, int) or None
        Of a concatenation: how many parts are written where it lies, without a copy, and how many there are.
    way : str
        How it is computed, where that is not the usual way: the algorithm of a convolution that is not "direct"; "in
        strips" of rows, together with its neighbours, so that what goes between them never lies in memory as a whole.
    """

    name: str
    layers: tuple[str, ...]
    output: tuple[int, ...]
    parameters: int
    flops: float
    activations: int
    gradients: int
    hooked: bool = False
    again: bool = False
    in_place: tuple[int, int] | None = None
    way: str = ""


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
    arena : int
        Bytes of all activations and gradients together, as they share memory.
    peak : str
        Name of the row that runs when most of the arena is in use.
    scratch : int
        Bytes of scratch memory, shared by all layers.
    packed : int
        Bytes of weights that evaluation keeps as kernels read them, and of the copies that tell when they change.
    """

    model: str
    dtype: str
    input_shape: tuple[int, ...]
    training: bool
    rows: tuple[Row, ...]
    parameter_nbytes: int
    arena: int
    peak: str
    scratch: int
    packed: int = 0

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> float:
        return sum(row.flops for row in self.rows)

    @property
    def twice(self) -> tuple[str, ...]:
        """Names of the rows that backward computes once more."""
        return tuple(row.name for row in self.rows if row.again)

    @property
    def activations(self) -> int:
        return sum(row.activations for row in self.rows)

    @property
    def gradients(self) -> int:
        return sum(row.gradients for row in self.rows)

    @property
    def total(self) -> int:
        """All bytes: parameters, arena, scratch memory and packed weights."""
        return self.parameter_nbytes + self.arena + self.scratch + self.packed

    def _title(self) -> str:
        kind = "training step" if self.training else "evaluation"
        return f"{self.model}, {kind} on {self.input_shape} of {self.dtype}"

    def _table(self) -> list[tuple[str, ...]]:
        table: list[tuple[str, ...]] = [("layers", "", "output", "parameters", "MFLOP", "activations", "gradients")]
        for row in self.rows:
            what = " + ".join(row.layers) + f" ({row.way})" * bool(row.way)
            what += " (hook)" * row.hooked + " (twice)" * row.again + _in_place(row)
            table.append((
                row.name, what, "×".join(map(str, row.output)), _count(row.parameters),
                _count(row.flops / 1e6), _bytes(row.activations), _bytes(row.gradients),
            ))  # fmt: skip
        table.append((
            "total", "", "", _count(self.parameters), _count(self.flops / 1e6), _bytes(self.activations),
            _bytes(self.gradients),
        ))  # fmt: skip
        return table

    def _parts(self) -> dict[str, int]:
        return {
            "parameters and their gradients": self.parameter_nbytes,
            "activations and gradients" if self.training else "activations": self.arena,
            "scratch": self.scratch,
            **({"weights, packed, and copies": self.packed} if self.packed else {}),
            "together": self.total,
        }

    def _repr_html_(self) -> str:
        sizes = ", ".join(f"{name} {_bytes(value)}" for name, value in self._parts().items())
        most = f"; most is in use at {self.peak}" if self.peak else ""
        return _html.table(self._title(), self._table(), 3) + f"<p>{escape(sizes + most)}</p>"

    def __str__(self) -> str:
        lines, table = [self._title(), ""], self._table()
        widths = [max(len(line[i]) for line in table) for i in range(7)]
        rule = "─" * (sum(widths) + 2 * 6)
        for number, line in enumerate(table):
            if number in (1, len(table) - 1):
                lines.append(rule)
            words = (cell.ljust(width) for cell, width in zip(line[:3], widths[:3], strict=True))
            numbers = (cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True))
            lines.append("  ".join((*words, *numbers)).rstrip())
        lines.append("")
        first = len(lines)
        lines += [f"{name:31} {_bytes(value):>10}" for name, value in self._parts().items()]
        if self.peak:
            lines[first + 1] += f"   they share memory; most is in use at {self.peak}"
        return "\n".join(lines)


def make_plan(
    model: Any, schedule: Schedule, shape: tuple[int, ...], dtype: np.dtype[Any], training: bool, scratch: int
) -> Plan:  # fmt: skip
    """Describe a schedule; see `Module.plan`."""
    names = {id(module): name for name, module in model.named_modules()}
    hooked = {id(v) for g in schedule.groups if g.op.name == "Observe" for v in g.inputs}
    seen: set[int] = set()
    rows, at = [], []
    for index, g in enumerate(schedule.groups):
        if g.op.name == "Observe":
            continue
        rows.append(_row(schedule, index, g, names, seen, hooked))
        at.append(index)
    state = sum(array.nbytes for _, array in model.named_state())
    state += sum(parameter.grad.nbytes for parameter in model.parameters())
    steps = (*schedule.forward, *schedule.backward)
    peak = ""
    if steps and schedule.slots:
        live = live_bytes(schedule.slots, len(steps))
        owner = steps[int(np.argmax(live))].owner
        peak = next((row.name for row, index in zip(rows, at, strict=True) if index == owner), "")
    return Plan(
        type(model).__name__, str(dtype), shape, training, tuple(rows), state, schedule.nbytes, peak, scratch,
        sum(schedule.kept.values()),
    )  # fmt: skip


def _row(
    schedule: Schedule, index: int, g: Group, names: dict[int, str], seen: set[int], hooked: set[int]
) -> Row:  # fmt: skip
    layers: list[str] = []
    paths: list[str] = []
    before = None
    for node in g.nodes:
        module = node.module
        leaf = node.op.name == "Opaque" or next(iter(module.named_children()), None) is None
        if not (leaf and module is before):  # a leaf layer is named once, whatever it wrote
            layers.append(type(module).__name__ if leaf else node.op.name)
        path = names.get(id(module), "")
        if not paths or paths[-1] != path:
            paths.append(path)
        before = module
    first, last = paths[0], paths[-1]
    tail = last.rpartition(".")[2]
    name = first if first == last or not tail else f"{first}-{tail}"
    learned = 0
    for node in g.nodes:
        for value in node.inputs:
            if value is not None and value.learned and id(value.source) not in seen:
                seen.add(id(value.source))
                learned += value.source.data.size
    forward = g.op.flops(*g.nodes[0].specs())
    back = 0
    for step in schedule.backward:
        if step.owner == index and step.bind == g.op.backward:
            back = sum(target is not None for target in (*step.refs.gx[:2], *([None] * 2))[:2])
    own = [slot for slot in schedule.slots if slot.owner == index]
    return Row(
        name, tuple(layers), g.outputs[0].shape if g.outputs else (), learned,
        forward * (1 + back + (index in schedule.again)),
        sum(slot.nbytes for slot in own if slot.kind == "activation"),
        sum(slot.nbytes for slot in own if slot.kind == "gradient"),
        any(id(value) in hooked for value in g.outputs), index in schedule.again,
        (schedule.joined[index], len(g.inputs)) if index in schedule.joined else None,
        g.op.way(*g.nodes[0].specs()) or "in strips" * (index in schedule.strips),
    )  # fmt: skip


def _in_place(row: Row) -> str:
    there, parts = row.in_place or (0, 0)
    return "" if not there else " (in place)" if there == parts else f" ({there} of {parts} in place)"


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
