"""From groups to steps: what runs forward and backward, in which order, on which memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from fastconv.graph.gradients import Gradients
from fastconv.graph.joining import ANY, NONE, PIXELS, gaps_of, location, places
from fastconv.graph.memory import arrange
from fastconv.graph.operation import Frame, Operation, Spec
from fastconv.graph.rewrite import Group, group
from fastconv.graph.steps import Ref, Schedule, Step, Together, bare
from fastconv.graph.strips import Strips, strips
from fastconv.graph.value import Graph, Value


def schedule(
    graph: Graph, wanted: Sequence[bool], gradients: bool, spans: Sequence[tuple[int, int]] = ()
) -> Schedule:  # fmt: skip
    """Plan a program.

    Parts of concatenations are written where the result lies, slices read where the whole does, unless that takes more
    memory than to copy them: all of it has to be there as long as any part.

    Parameters
    ----------
    graph : Graph
    wanted : list of bool
        Which inputs' gradients backward returns.
    gradients : bool
        False plans forward alone: nothing is kept for backward.
    spans : sequence of (first, last)
        Nodes, the last not included, whose results are not kept for backward but computed once more, each span on its
        own ("checkpointing": Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174).
    """
    scheduler = _Scheduler(graph, wanted, gradients, spans)
    found = scheduler.run()
    if scheduler.places:
        copied = _Scheduler(graph, wanted, gradients, spans, join=False).run()
        if copied.nbytes < found.nbytes:
            return copied
    return found


class _Scheduler:
    def __init__(
        self, graph: Graph, wanted: Sequence[bool], gradients: bool, spans: Sequence[tuple[int, int]], join: bool = True
    ) -> None:  # fmt: skip
        self.plan = Schedule(graph, group(graph, gradients), gradients)
        self.segments = list(_segments(graph, self.plan.groups, spans)) if gradients else []
        self.inside = {i: segment for segment in self.segments for i in segment}  # groups of segments
        self.made = {value: i for i, g in enumerate(self.plan.groups) for value in g.outputs}
        self.places = places(graph, self.plan.groups, self.inside) if join else {}
        if not gradients:
            placed = {*self.places, *(at.whole for at in self.places.values())}
            self.plan.strips = {i: s for s in strips(self.plan.groups, graph.outputs, placed) for i in s.groups}
        self.waiting: list[tuple[Operation, Frame]] = []  # of groups that run together, those before the last
        self.copies: dict[Value, Ref] = {}  # results of segments that were computed once more
        self.plan.calls_out = any(g.op.calls_out for g in self.plan.groups)
        self.wanted = wanted
        self.refs: dict[Value, Ref] = {}
        self.needs: dict[Value, bool] = {}
        self.saved: dict[int, list[Ref]] = {}
        self.pre: dict[int, Ref] = {}  # what activations were given
        self.owner = 0

    # ---- forward

    def run(self) -> Schedule:
        plan = self.plan
        for value in plan.graph.inputs:
            self.needs[value] = plan.gradients and self.wanted[value.source[1]] and _smooth(value)
        kept = self.kept = self._kept() if plan.gradients else set()
        left = Counter(self._home(value) for g in plan.groups for value in g.reads())
        left.update(self._home(value) for value in (*plan.graph.outputs, *kept))
        for index, g in enumerate(plan.groups):
            self.owner = index
            self._forward(index, g, left)
        plan.outputs = [self.refs_of(value) for value in plan.graph.outputs]
        if plan.gradients:
            self._backward()
        end = len(plan.forward) + len(plan.backward)
        for time, step in enumerate((*plan.forward, *plan.backward)):
            for ref in step.references():
                if ref.root.slot is not None:
                    ref.root.slot.touch(time)
        for last in (*plan.outputs, *plan.grads):
            if last is not None and last.root.slot is not None:
                last.root.slot.touch(end)
        plan.slots = [slot for slot in plan.slots if slot.last >= 0]
        plan.nbytes = arrange(plan.slots)
        return plan

    def refs_of(self, value: Value) -> Ref:
        if value not in self.refs:
            source = value.source
            if not isinstance(source, tuple):
                source = ("array", source) if isinstance(source, np.ndarray) else ("data", source)
            self.refs[value] = Ref(value.spec, source=source)
        return self.refs[value]

    def slot(self, spec: Spec, kind: str, owner: int | None = None) -> Ref:
        return self.plan.slot(spec, kind, self.owner if owner is None else owner)

    def _home(self, value: Value) -> Value:
        """Return the value in whose memory this one lies."""
        while True:
            if value in self.places:
                value = self.places[value].whole
            elif value.node is not None and value.node.op.is_view(*value.node.specs()):
                assert value.node.inputs[0] is not None
                value = value.node.inputs[0]
            else:
                return value

    def _kept(self) -> set[Value]:
        """Note which values need gradients; returns those that backward reads."""
        kept: set[Value] = set()
        for index, g in enumerate(self.plan.groups):
            inputs = [value for value in (*g.inputs, *g.slopes, g.add) if value is not None]
            needs = not g.op.blocks and (g.op.trains_itself or any(self._needs(value) for value in inputs))
            self.needs.update({value: needs and _smooth(value) for value in g.outputs})
            if not needs:
                continue
            kept.update(value for value in self._backward_reads(g) if not self._again(index, value))
            if index in self.inside:
                kept.update(value for value in g.reads() if not self._again(index, value))
        return kept

    def _backward_reads(self, g: Group) -> Iterator[Value]:
        """Yield the values that a group's backward reads."""
        yield from (v for v in (g.inputs[i] for i in self._reads(g)) if v is not None)
        activated = g.activation is not None and not g.pooled and not g.keeps_input
        if g.op.reads_outputs or g.masks or self._masks_before(g) or activated:
            yield from g.outputs

    def _reads(self, g: Group) -> tuple[int, ...]:
        """Return which of its inputs a group's first operation reads in backward."""
        return (0,) if g.behind is not None and g.op.takes_along else g.op.reads(self._wanted(g))

    def _masks_before(self, g: Group) -> bool:
        """Return whether a pooling takes the gradient of its output through the activation before it."""
        return g.behind is not None and not g.op.takes_along

    def _again(self, index: int, value: Value) -> bool:
        """Return whether a value that a group reads is one that its segment computes once more."""
        segment = self.inside.get(index)
        return segment is not None and self.made.get(value, -1) in segment

    def _wanted(self, g: Group) -> tuple[bool, ...]:
        return tuple(value is not None and self._needs(value) for value in g.inputs)

    def _needs(self, value: Value) -> bool:
        if value not in self.needs:
            self.needs[value] = self.plan.gradients and bool(getattr(value.source, "requires_grad", False))
        return self.needs[value]

    def _forward(self, index: int, g: Group, left: Counter[Value]) -> None:
        specs = g.nodes[0].specs()
        left.subtract(self._home(value) for value in g.reads())
        if g.op.is_view(*specs):
            self.refs[g.outputs[0]] = self._viewed(g, self.refs_of)
            return
        outputs = [self._output(g, i, value, left) for i, value in enumerate(g.outputs)]
        frame = self._frame(g, outputs, self.refs_of, self.plan.forward)
        if g.op.parts(*specs):
            frame.x = [bare(ref) if there else ref for ref, there in zip(frame.x, self._in_place(g), strict=True)]
            self.plan.joined[index] = sum(self._in_place(g))
            if self.plan.joined[index] == len(frame.x):
                return
        at = self.places.get(g.outputs[0]) if g.op.cut(*specs) else None
        if at is not None and at.whole is g.inputs[0]:  # a slice that is read where it lies
            return
        if self.plan.gradients and g.op.saved(*specs) and (index not in self.inside or g.op.keeps_saved):
            frame.saved = self.saved[index] = [self.slot(spec, "activation") for spec in g.op.saved(*specs)]
        if g.scale is not None:
            spec = Spec((2, outputs[0].spec.shape[1]), outputs[0].spec.dtype)
            scale = g.scale
            first = [None, *(None if v is None else self.refs_of(v) for v in scale.inputs[1:])]
            frame.coefficients = self.slot(spec, "work")
            work = Frame(first, [frame.coefficients], [self.slot(spec, "work")])
            self.plan.forward.append(Step(scale.op.coefficients, work, index))  # type: ignore[attr-defined]
        if self.plan.gradients and index not in self.inside:
            self._keep_input(index, g, frame)
        weight = g.inputs[1] if len(g.inputs) > 1 else None
        if not self.plan.gradients and weight is not None and weight.learned and (nbytes := g.op.keeps(*specs)):
            frame.kept = weight.source
            self.plan.kept[id(weight.source), nbytes] = nbytes
        if index in self.plan.strips:
            self._together(self.plan.strips[index], index, g.op, frame)
            return
        if frame.pre is None or not outputs[0].gaps:
            self.plan.forward.append(Step(g.op.forward, frame, index))
            return
        node, pre = g.activation, frame.pre
        assert node is not None
        frame.pre, frame.activation, frame.slopes = None, (None, ()), None  # kernels write both at one distance
        frame.y = [pre]
        own = Frame([pre, *map(self.refs_of, g.slopes)], outputs)
        own.work = [self.slot(spec, "work") for spec in node.op.work(False, *node.specs())]
        self.plan.forward += [Step(g.op.forward, frame, index), Step(node.op.forward, own, index)]

    def _together(self, strips: Strips, index: int, op: Operation, frame: Frame) -> None:
        """Note one of several operations that run together; the last one is their step."""
        self.waiting.append((op, frame))
        if index == strips.last:
            ops, frames = zip(*self.waiting, strict=True)
            self.plan.forward.append(Together(op.forward, frame, index, frames[:-1], ops, strips.middle))
            self.waiting.clear()

    def _keep_input(self, index: int, g: Group, frame: Frame) -> None:
        """Let a group's pass keep what its activation is given, if that one's gradient needs it."""
        if g.keeps_input and self._is_needed(g):
            frame.pre = self.pre[index] = self.slot(g.outputs[0].spec, "activation")

    def _frame(self, g: Group, outputs: list[Ref], find: Callable[[Value], Ref], steps: list[Step]) -> Frame:
        """Return what a group's forward is bound to, where `find` tells where values are; ``steps`` come before it."""
        frame = Frame([None if value is None else find(value) for value in g.inputs], outputs)
        frame.work = [self.slot(spec, "work") for spec in g.op.work(False, *g.nodes[0].specs())]
        frame.activation = _activation(g)
        for weight in g.slopes:
            frame.slopes = self.slot(Spec((outputs[0].spec.shape[1],), weight.dtype), "work")
            spread = g.activation.op.spread  # type: ignore[union-attr]
            steps.append(Step(spread, Frame([find(weight)], [frame.slopes]), self.owner))
        frame.add = None if g.add is None else find(g.add)
        return frame

    def _viewed(self, g: Group, find: Callable[[Value], Ref]) -> Ref:
        """Return the output of a group that is a view of its first input."""
        [output], first = g.outputs, g.inputs[0]
        assert first is not None
        return Ref(output.spec, base=find(first), view=lambda x: g.op.view(x, output.spec))

    def _output(self, g: Group, i: int, value: Value, left: Counter[Value]) -> Ref:
        """Return where an output goes: where it is put together with others, or where the first input lies, if that is
        not needed any more, or a new slot."""
        if value in self.places or value in self.refs:
            return self._part(value)
        together = self.plan.strips.get(self.owner)
        if together is not None and self.owner != together.last:  # never in memory as a whole
            self.refs[value] = Ref(value.spec, source=("shape", value.spec))
            return self.refs[value]
        first = g.inputs[0] if g.inputs else None
        if i == 0 and g.op.inplace and first is not None and first.spec == value.spec:
            before = self.refs_of(first)
            adds = g.add is not None and self._home(g.add) is self._home(first)
            if before.slot is not None and left[self._home(first)] == 0 and not adds:
                self.refs[value] = Ref(value.spec, before.slot)
                return self.refs[value]
        self.refs[value] = self.slot(value.spec, "activation")
        return self.refs[value]

    def _in_place(self, g: Group) -> list[bool]:
        """Return which inputs of an operation that puts them together lie where they should."""
        whole, start = location(g.outputs[0], self.places)
        found = []
        for value, key in zip(g.inputs, g.op.parts(*g.nodes[0].specs()), strict=True):
            assert value is not None
            wanted = tuple(first + part.start for first, part in zip(start, key, strict=True))
            root, at = location(value, self.places)
            found.append(root is whole and at == wanted)
        return found

    def _part(self, value: Value) -> Ref:
        """Return where a value lies that is put together with others, or that others are parts of."""
        if value not in self.refs:
            at = self.places.get(value)
            if at is None and value in self.made:
                self.refs[value] = self.slot(value.spec, "activation", self.made[value])
            elif at is None:
                return self.refs_of(value)
            else:
                self.refs[value] = Ref(value.spec, base=self._part(at.whole), view=itemgetter(at.key), gaps=at.gaps)
        return self.refs[value]

    # ---- backward

    def _backward(self) -> None:
        plan = self.plan
        self.gradients = Gradients(plan, self.owner)
        for i, value in enumerate(plan.graph.outputs):
            if self._needs(value):
                self.gradients.give(value, Ref(value.spec, source=("grad", i)))
        ends = {segment[-1]: segment for segment in self.segments}
        for index in reversed(range(len(plan.groups))):
            if index in ends:
                self._run_again(ends[index])
            self.owner = self.gradients.owner = index
            self._group_backward(index, plan.groups[index])
        for value in plan.graph.inputs:
            grad = self.gradients.take(value) if self.needs[value] else None
            if grad is None and self.needs[value]:
                grad = self.gradients.zero(value.spec)
            if grad is not None and grad.gaps:
                grad = self.gradients.close(grad)
            plan.grads.append(grad)

    def _run_again(self, segment: range) -> None:
        """Compute what backward will read of a segment once more."""
        groups = self.plan.groups
        wanted = {v for i in segment if self._is_needed(groups[i]) for v in self._backward_reads(groups[i])}
        chosen: list[int] = []
        for index in reversed(segment):
            g = groups[index]
            lost = [value for value in g.outputs if value in wanted and value not in self.kept]
            saves = self._is_needed(g) and (
                g.keeps_input or (bool(g.op.saved(*g.nodes[0].specs())) and not g.op.keeps_saved)
            )
            if lost or saves:
                chosen.append(index)
                wanted.update(value for value in g.reads() if self._again(index, value))
        for index in reversed(chosen):
            self.owner = index
            self._group_again(index, groups[index])
        self.plan.again += [i for i in chosen if not groups[i].op.is_view(*groups[i].nodes[0].specs())]

    def _is_needed(self, g: Group) -> bool:
        return any(self.needs.get(value, False) for value in g.outputs)

    def _group_again(self, index: int, g: Group) -> None:
        specs = g.nodes[0].specs()
        if g.op.is_view(*specs):
            self.copies[g.outputs[0]] = self._viewed(g, self._seen)
            return
        frame = self._frame(g, [self.slot(value.spec, "activation") for value in g.outputs], self._seen,
                            self.plan.backward)  # fmt: skip
        if g.op.keeps_saved:
            frame.saved = self.saved[index]
        elif g.op.saved(*specs):
            frame.saved = self.saved[index] = [self.slot(spec, "activation") for spec in g.op.saved(*specs)]
        self._keep_input(index, g, frame)
        self.plan.backward.append(Step(g.op.again, frame, index))
        for value, ref in zip(g.outputs, frame.y, strict=True):
            if value not in self.kept:
                self.copies[value] = ref

    def _seen(self, value: Value) -> Ref:
        """Return where backward finds a value."""
        return self.copies.get(value) or self.refs_of(value)

    def _group_backward(self, index: int, g: Group) -> None:
        if not any(self.needs.get(value) for value in g.outputs):
            return
        found = [self.gradients.take(value) for value in g.outputs]
        if all(grad is None for grad in found):
            return
        grads: list[Any] = [
            grad or (self.gradients.zero(value.spec) if self.needs[value] else None)
            for value, grad in zip(g.outputs, found, strict=True)
        ]
        outputs = [self._seen(value) for value in g.outputs]
        activation = None if g.masks or g.pooled else g.activation
        first = g.op if g.behind is not None or activation is None else activation.op
        takes = (PIXELS,) if self._masks_before(g) or first.spaced_gradient else ()
        grads = [self.gradients.close(ref) if ref and ref.gaps and ref.gaps not in takes else ref for ref in grads]
        if self._masks_before(g):
            grads[0] = self.gradients.through(g.op.mask, grads[0], Frame([None], [outputs[0]]))  # type: ignore[attr-defined]
        after: list[tuple[Value, Ref]] = []
        if activation is not None:
            given = self.pre.get(index)
            frame = Frame([given, *map(self._seen, g.slopes)], [outputs[0] if given is None else bare(outputs[0])])
            frame.work = [self.slot(spec, "work") for spec in activation.op.work(True, *activation.specs())]
            for slope in g.slopes:
                frame.gx.append(self._target(activation.op, 1, slope, after) if self._needs(slope) else None)
            grads[0] = self.gradients.through(activation.op.backward, grads[0], frame)
        if g.add is not None and self._needs(g.add):
            self.gradients.give(g.add, grads[0])
        specs = g.nodes[0].specs()
        passed = g.op.passes(*specs)
        targets: list[Ref | None] = [None] * len(g.inputs)
        for position, value in enumerate(g.inputs):
            if value is None or not self._needs(value):
                continue
            if position in passed:
                after.append((value, self._pass(g, grads[0], position)))
            else:
                targets[position] = self._target(g.op, position, value, after)
        if any(target is not None for target in targets) or g.op.trains_itself:
            inputs = [None if value is None else self._seen(value) for value in g.inputs]
            read = self._reads(g)
            reads = [ref if i in read else bare(ref) for i, ref in enumerate(inputs)]
            own = g.op.reads_outputs or g.masks
            frame = Frame(reads, outputs if own else [bare(ref) for ref in outputs], self.saved.get(index, []),
                          grads, targets)  # fmt: skip
            frame.work = [self.slot(spec, "work") for spec in g.op.work(True, *specs)]
            frame.activation = _activation(g) if g.masks else (g.behind if g.op.takes_along else None, ())
            self.plan.backward.append(Step(g.op.backward, frame, index))
        for value, ref in after:
            self.gradients.give(value, ref)
        for ref in grads:
            if ref is not None:
                self.gradients.release(ref)

    def _target(self, op: Operation, position: int, value: Value, after: list[tuple[Value, Ref]]) -> Ref:
        """Return where an operation puts the gradient of an input."""
        adds = position in op.accumulates
        if value.learned and adds:
            return Ref(value.spec, source=("sink", value.source))
        target = self.gradients.zero(value.spec) if adds else self.gradients.slot(value.spec)
        if adds:
            self.gradients.release(target)
        after.append((value, target))
        return target

    def _pass(self, g: Group, grad: Ref, position: int) -> Ref:
        inputs, outputs = g.nodes[0].specs()
        spec = inputs[position]
        if grad.spec == spec:
            return grad
        keys = g.op.parts(inputs, outputs)
        gaps = gaps_of(outputs[0], keys[position]) if keys else NONE
        if grad.gaps and gaps != ANY:
            gaps = grad.gaps
        return Ref(spec, base=grad, view=lambda gy: g.op.view_back(gy, inputs, position), gaps=gaps)


def _segments(graph: Graph, groups: Sequence[Group], spans: Sequence[tuple[int, int]]) -> Iterator[range]:
    """Yield the runs of groups that lie inside a span and can run twice."""
    places = {node: i for i, node in enumerate(graph.nodes)}
    for first, last in spans:
        start: int | None = None
        for index, g in enumerate(groups):
            inside = g.op.runs_again and all(first <= places[node] < last for node in g.nodes)
            if inside and start is None:
                start = index
            if not inside and start is not None:
                yield range(start, index)
                start = None
        if start is not None:
            yield range(start, len(groups))


def _smooth(value: Value) -> bool:
    """Return whether a value can have a gradient: whole numbers, such as the indices of maxima, have none."""
    return value.dtype.kind == "f"


def _activation(g: Group) -> tuple[Any, ...]:
    """Return name and parameters of the activation that a group applies last."""
    op: Any = None if g.activation is None else g.activation.op
    return (None, ()) if op is None else (op.kind, op.params)
