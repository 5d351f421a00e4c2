"""A program at work: arrays bound to the steps of a schedule, and the loop that walks them.

Steps are bound to memory once. What comes from outside the arena (the model's inputs, gradients of its outputs,
parameters) is looked at in every run, and the steps that use it are bound again when it is another array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import attrgetter, is_
from typing import Any

import numpy as np

from fastconv.graph.operation import Array, Call, Frame, Spec, lies_well, place
from fastconv.graph.steps import Ref, Schedule, Step, array_at

_data, _grad = attrgetter("data"), attrgetter("grad")
_FORWARD, _BACKWARD = 0, 1
Source = tuple[str, int]


class Program:
    """One schedule on one arena.

    Parameters
    ----------
    schedule : Schedule
    arena : ndarray of uint8
        At least ``schedule.nbytes`` bytes, on a cache line.
    kept : dict, optional
        What operations keep of parameters; programs that never run at the same time may share one.

    Attributes
    ----------
    inputs : list of ndarray
        Of the latest forward.
    pending : bool
        Whether a backward may follow.
    """

    def __init__(self, schedule: Schedule, arena: Array, kept: dict[int, Any] | None = None) -> None:
        self.schedule, self.arena = schedule, arena
        self.kept = {} if kept is None else kept
        self.inputs: list[Array] = []
        self.pending = False
        self._parameters = [value.source for value in schedule.graph.parameters.values()]
        self._bound: tuple[list[Array], list[Array]] | None = None  # the parameters' arrays and gradients
        self._change: object = None
        self._steps = (schedule.forward, schedule.backward)
        self._calls: tuple[list[list[Call]], list[list[Call]]] = ([], [])
        self._stale: tuple[set[int], set[int]] = (set(), set())  # steps to bind again before they run
        self._arrays: dict[Ref, Any] = {}
        self._outside: dict[Source, Array] = {}
        self._staged: dict[Source, Array] = {}
        self._users: dict[Source, list[tuple[Ref, int, int]]] = {}
        for phase, steps in enumerate(self._steps):
            for at, step in enumerate(steps):
                for ref in step.references():
                    if _is_outside(ref.root.source):
                        self._users.setdefault(ref.root.source, []).append((ref, phase, at))
        for result in (*schedule.outputs, *schedule.grads):
            if result is not None and _is_outside(result.root.source):
                self._users.setdefault(result.root.source, []).append((result, -1, 0))

    def forward(self, inputs: Sequence[Array]) -> list[Array]:
        """Run forward on inputs of the schedule's shapes; returns the outputs, which the arena holds."""
        self.pending = False
        self.inputs = list(inputs)
        for i, value in enumerate(self.schedule.graph.inputs):
            self._enter(("input", i), value.spec, inputs[i])
        self._run(_FORWARD)
        self.pending = self.schedule.gradients
        return [self._array(ref) for ref in self.schedule.outputs]

    def backward(self, grads: Sequence[Array], change: object = None) -> list[Array | None]:
        """Run backward on gradients of the outputs; returns those of the inputs, None where they are not wanted.

        ``change`` as `fits` takes it.
        """
        self.pending = False
        if not self.fits(change):
            raise RuntimeError("backward: a parameter has another shape or dtype than in forward")
        for i, value in enumerate(self.schedule.graph.outputs):
            self._enter(("grad", i), value.spec, grads[i])
        self._run(_BACKWARD)
        return [None if ref is None else self._array(ref) for ref in self.schedule.grads]

    def _run(self, phase: int) -> None:
        calls, stale = self._calls[phase], self._stale[phase]
        if not calls:
            calls.extend(self._bind(step) for step in self._steps[phase])
            stale.clear()
        for at in stale:
            calls[at] = self._bind(self._steps[phase][at])
        stale.clear()
        for step in calls:
            for function, arguments in step:
                function(*arguments)

    def rehearse(self) -> Iterator[Call]:
        """Yield all calls, bound to inputs and gradients that nobody reads."""
        for kind, values in (("input", self.schedule.graph.inputs), ("grad", self.schedule.graph.outputs)):
            for i, value in enumerate(values):
                self._enter((kind, i), value.spec, place(np.empty(math.prod(value.shape), value.dtype), value.spec))
        for steps in self._steps:
            for step in steps:
                yield from self._bind(step)

    # ---- binding

    def _enter(self, source: Source, spec: Spec, a: Array) -> None:
        """Take an array from outside, or a copy that lies well; steps on another one before are to be bound again."""
        if not lies_well(a):
            staged = self._staged.get(source)
            if staged is None:
                staged = self._staged[source] = place(np.empty(a.size, spec.dtype), spec)
            np.copyto(staged, a)
            a = staged
        if self._outside.get(source) is not a:
            self._outside[source] = a
            for ref, phase, at in self._users.get(source, ()):
                self._drop(ref)
                if phase >= 0:
                    self._stale[phase].add(at)

    def _drop(self, ref: Ref | None) -> None:
        """Forget the array of a reference, and those that it is a view of."""
        while ref is not None:
            self._arrays.pop(ref, None)
            ref = ref.base

    def fits(self, change: object = None) -> bool:
        """Bind to the parameters' arrays of now; returns False if one has another shape or dtype than at first.

        Parameters
        ----------
        change : object, optional
            One that is the same for as long as no parameter is given another array: then nothing has to be looked at.
        """
        if change is not None and change is self._change:
            return True
        fits = self._fits()
        self._change = change if fits else None
        return fits

    def _fits(self) -> bool:
        if (
            self._bound is not None
            and all(map(is_, map(_data, self._parameters), self._bound[0]))
            and all(map(is_, map(_grad, self._parameters), self._bound[1]))
        ):
            return True
        for value in self.schedule.graph.parameters.values():
            if value.source.data.shape != value.shape or value.source.data.dtype.newbyteorder("=") != value.dtype:
                return False
        self._bound = list(map(_data, self._parameters)), list(map(_grad, self._parameters))
        self._arrays.clear()
        for calls in self._calls:
            calls.clear()
        return True

    def _bind(self, step: Step) -> list[Call]:
        return list(step.bound([self._frame(f) for f in step.frames()]))

    def _frame(self, f: Frame) -> Frame:
        """Return the arrays of a frame of references."""

        def arrays(refs: list[Any]) -> list[Any]:
            return [None if ref is None else self._array(ref) for ref in refs]

        add, pre, coefficients, slopes = arrays([f.add, f.pre, f.coefficients, f.slopes])
        activation = f.activation if slopes is None else (f.activation[0], (slopes,))
        kept = None if f.kept is None else self.kept.setdefault(id(f.kept), {})
        return Frame(
            arrays(f.x), arrays(f.y), arrays(f.saved), arrays(f.gy), arrays(f.gx), arrays(f.work), activation, slopes,
            add, pre, coefficients, kept, f.memo,
        )  # fmt: skip

    def _array(self, ref: Ref) -> Any:
        array = self._arrays.get(ref)
        if array is None:
            array = self._arrays[ref] = self._find(ref)
        return array

    def _find(self, ref: Ref) -> Any:
        if ref.base is not None:
            assert ref.view is not None
            return ref.view(self._array(ref.base))
        if ref.slot is not None:
            return array_at(ref, self.arena)
        kind, what = ref.source
        if kind in ("input", "grad"):
            return self._outside[ref.source]
        return {"data": lambda: what.data, "sink": lambda: what.grad}.get(kind, lambda: what)()


def _is_outside(source: Any) -> bool:
    return source is not None and source[0] in ("input", "grad")
