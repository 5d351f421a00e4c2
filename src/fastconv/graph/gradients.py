"""Gradients on their way back: what each value is given, the sums of it, and whose memory may be written over.

Gradients of a value that several operations read are added in the order in which backward comes to them: the last
reader's and the one before it first, then the earlier ones, one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from fastconv.graph.memory import Slot
from fastconv.graph.operation import Call, Frame, Spec
from fastconv.graph.steps import Bind, Ref, Schedule, Step
from fastconv.graph.value import Value


class Gradients:
    """The gradients of a backward that is being planned.

    Parameters
    ----------
    plan : Schedule
        Gets the slots and the steps.
    owner : int
        The group that backward is at, to which both belong.
    """

    def __init__(self, plan: Schedule, owner: int) -> None:
        self._plan, self.owner = plan, owner
        self._sums: dict[Value, list[Ref]] = {}  # contributions, not yet added
        self._holders: Counter[Slot] = Counter()  # contributions that lie in a slot

    def slot(self, spec: Spec) -> Ref:
        """Return memory for a gradient."""
        return self._plan.slot(spec, "gradient", self.owner)

    def _step(self, bind: Bind, frame: Frame) -> None:
        self._plan.backward.append(Step(bind, frame, self.owner))

    def close(self, ref: Ref) -> Ref:
        """Copy a gradient that has gaps to where it has none."""
        target = self.slot(ref.spec)
        self._step(_copy, Frame([ref], [target]))
        self.release(ref)
        self._hold(target)
        return target

    def give(self, value: Value, ref: Ref) -> None:
        """Note a contribution to the gradient of a value."""
        if value.learned:
            sink = Ref(value.spec, source=("sink", value.source))
            self._step(_add, Frame([sink, ref], [sink]))
            return
        self._sums.setdefault(value, []).append(ref)
        self._hold(ref)

    def take(self, value: Value) -> Ref | None:
        """Return the gradient of a value: the sum of all contributions so far."""
        refs = self._sums.pop(value, [])
        if not refs:
            return None
        total = refs[0]
        for ref in refs[1:]:
            own = next((r for r in (total, ref) if self._own(r)), None)
            target = own or self.slot(value.spec)
            self._step(_add, Frame([total, ref], [target]))
            for before in (total, ref):
                self.release(before)
            self._hold(target)
            total = target
        return total

    def through(self, bind: Bind, grad: Ref, frame: Frame) -> Ref:
        """Take a gradient through an activation, in place where nobody else reads it."""
        target = grad if self._own(grad) else self.slot(grad.spec)
        frame.gy, frame.gx = [grad], [target, *frame.gx]
        self._step(bind, frame)
        if target is not grad:
            self.release(grad)
            self._hold(target)
        return target

    def zero(self, spec: Spec) -> Ref:
        """Return the memory of a gradient that is 0 everywhere."""
        ref = self.slot(spec)
        self._step(_fill, Frame([], [ref]))
        self._hold(ref)
        return ref

    def _hold(self, ref: Ref) -> None:
        if ref.root.slot is not None:
            self._holders[ref.root.slot] += 1

    def release(self, ref: Ref) -> None:
        """Note that a contribution is not read any more."""
        if ref.root.slot is not None:
            self._holders[ref.root.slot] -= 1

    def _own(self, ref: Ref) -> bool:
        """Return whether a contribution may be written over: it lies in a slot that no other one shares."""
        return ref.slot is not None and self._holders[ref.slot] == 1


def _add(f: Frame) -> Iterator[Call]:
    """Add two gradients: one operation an element, so that neither layout nor instruction set matters."""
    yield np.add, (*f.x, f.y[0])


def _copy(f: Frame) -> Iterator[Call]:
    yield np.copyto, (f.y[0], f.x[0])


def _fill(f: Frame) -> Iterator[Call]:
    yield f.y[0].fill, (0,)
