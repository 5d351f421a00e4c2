"""How a module's forward is written down, and planned as a schedule.

`_running` imports this, and the compiler beneath it, when a model runs for the first time: not every program that
imports layers runs one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.functional._check import asked_for, empty_aligned, scratch
from fastconv.functional._ops import Detach, Observe, Opaque, Same
from fastconv.graph.operation import Spec
from fastconv.graph.program import Program
from fastconv.graph.schedule import Schedule
from fastconv.graph.schedule import schedule as make_schedule
from fastconv.graph.value import Call, Graph, TraceError, Value
from fastconv.nn._parameter import hidden, shown
from fastconv.nn._running import Forward, modes

if TYPE_CHECKING:
    from fastconv.graph.report import Plan
    from fastconv.nn.base import Module


def trace(
    root: Module, forward: Forward, specs: Sequence[Spec], known: Callable[[Module], bool] | None = None
) -> Graph:  # fmt: skip
    """Write a module's forward down for inputs of these shapes; layers that are ``known`` always give new values."""
    graph = Graph()
    graph.known = known
    graph.weights = [parameter.data for parameter in root.parameters()]
    values = [graph.input(spec) for spec in specs]
    with graph.inside(root), hidden(root.parameters()):
        found = forward(root, *values)
    graph.single = not isinstance(found, tuple | list)
    graph.outputs = [found] if graph.single else list(found)
    for value in graph.outputs:
        if not isinstance(value, Value) or value.graph is not graph:
            raise TraceError(
                f"{type(root).__name__}.forward: it must return a value, or a tuple of values, that depends on its "
                f"input, got {type(value).__name__}"
            )
    observe(graph, root, values, graph.outputs)
    return graph


def write(graph: Graph, module: Module, forward: Forward, inputs: Sequence[Any]) -> Any:
    """Write a module that another one's forward calls."""
    values = [value for a in inputs if (value := graph.operand(a, graph.inputs[0].dtype)) is not None]
    if not module.need_input_grad:
        values = [graph.write(Detach(), value) for value in values]
    first = len(graph.nodes)
    if module.is_opaque():
        found = write_opaque(graph, module, values)
    else:
        with graph.inside(module):
            found = forward(module, *values)
    outputs = list(found) if isinstance(found, tuple | list) else [found]
    if graph.known is not None and graph.known(module):
        seen = {id(value) for value in values}
        for i, value in enumerate(outputs):
            if id(value) in seen:
                outputs[i] = graph.write(Same(), value)
            seen.add(id(outputs[i]))
        found = tuple(outputs) if isinstance(found, tuple | list) else outputs[0]
    graph.calls.append(Call(module, values, outputs, first, len(graph.nodes)))
    observe(graph, module, values, outputs)
    return found


def observe(graph: Graph, module: Module, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
    """Let a module's hooks see its inputs and outputs, if it has any."""
    if module._hooks:
        graph.write(Observe(module, len(inputs)), *inputs, *outputs)


def is_call_of(op: Any, layer: Module) -> bool:
    return isinstance(op, Opaque) and op.layer is layer


def write_opaque(graph: Graph, layer: Module, inputs: Sequence[Value]) -> Any:
    """Write a layer with a backward of its own as one node."""
    if any(is_call_of(node.op, layer) for node in graph.nodes):
        raise TraceError(
            f"{type(layer).__name__}: a layer that defines backward itself keeps one forward's state, so it can be "
            "called once in a forward; use two layers, or write its forward with layers and fastconv.functional alone"
        )
    with shown():
        outputs = layer.output_specs(*(value.spec for value in inputs))
    return graph.write(Opaque(layer, outputs), *inputs)


def scheduled(root: Module, graph: Graph, gradients: bool) -> Schedule:
    """Plan a program; what layers ask for, and a limit of memory, decide what is kept for backward."""
    wanted = [root.need_input_grad] * len(graph.inputs)
    spans = [(call.first, call.last) for call in graph.calls if call.module.checkpoint]
    spans = [a for a in spans if not any(b[0] <= a[0] and a[1] <= b[1] for b in spans if b != a)]
    found = make_schedule(graph, wanted, gradients, spans)
    if not gradients or root.memory_limit is None:
        return found
    state = sum(a.nbytes for _, a in root.named_state()) + sum(p.grad.nbytes for p in root.parameters())
    least = found.nbytes
    for count in range(2, max(len(found.groups), 2)):
        if state + found.nbytes <= root.memory_limit:
            return found
        found = make_schedule(graph, wanted, gradients, _even(graph, count))
        least = min(least, found.nbytes)
        if count * count > 4 * len(found.groups):  # more pieces would not take less
            break
    if state + found.nbytes <= root.memory_limit:
        return found
    raise ValueError(
        f"{type(root).__name__}: a memory limit of {root.memory_limit:,} bytes is below the {state + least:,} that a "
        f"step on inputs of shape {graph.inputs[0].shape} needs with all that can be computed twice; use smaller "
        "batches or a higher limit"
    )


def _even(graph: Graph, count: int) -> list[tuple[int, int]]:
    """Return spans that cut a graph into pieces of about equal bytes of outputs."""
    sizes = np.cumsum([sum(value.spec.nbytes for value in node.outputs) for node in graph.nodes])
    cuts = np.searchsorted(sizes, sizes[-1] * np.arange(1, count) / count) + 1
    ends = [0, *map(int, cuts), len(graph.nodes)]
    return [(a, b) for a, b in itertools.pairwise(ends) if a < b]


def plan(module: Module, input_shape: Sequence[int], training: bool) -> Plan:
    """Return what a step of a model does and holds; see `Module.plan`."""
    from fastconv.graph.report import make_plan

    shape = tuple(int(n) for n in input_shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"plan: input_shape must be (N, ...), all at least 1, got {input_shape}")
    dtype = next((parameter.data.dtype for parameter in module.parameters()), np.dtype(np.float32))
    former = modes.set({**modes.get(), **{id(m): training for m in module.modules()}})
    try:
        graph = trace(module, type(module).forward.raw, [Spec(shape, dtype)])  # type: ignore[attr-defined]
    finally:
        modes.reset(former)
    found = scheduled(module, graph, training)
    return make_plan(module, found, shape, dtype, training, _scratch(found))


def _scratch(plan: Schedule) -> int:
    """Return the bytes of scratch memory that a program needs."""
    program = Program(plan, empty_aligned(plan.nbytes, np.uint8))
    most: dict[str, int] = {}
    for function, arguments in program.rehearse():
        if any(a is scratch for a in arguments):
            nbytes, slot = asked_for(function, arguments)
            most[slot] = max(most.get(slot, 0), nbytes)
    return sum(most.values())
