"""What a schedule is made of: references to arrays that will be, and the steps that are bound to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastconv.graph.joining import NONE
from fastconv.graph.memory import Slot
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, place
from fastconv.graph.rewrite import Group
from fastconv.graph.strips import Strips
from fastconv.graph.value import Graph

Bind = Callable[[Frame], Iterator[Call]]


@dataclass(eq=False, repr=False)
class Ref:
    """Where an array will be: in a slot, in something outside the arena, or a view of another.

    Attributes
    ----------
    spec : Spec
    slot : Slot or None
    source : Any
        ("input", i), ("grad", i), ("data", parameter), ("sink", parameter) or ("array", array) without a slot.
    base, view
        For a view: what it is a view of, and the function from array to array.
    gaps : str
        What lies between the elements, as of `joining.Place`.
    """

    spec: Spec
    slot: Slot | None = None
    source: Any = None
    base: Ref | None = None
    view: Callable[[Array], Any] | None = None
    gaps: str = NONE

    @property
    def root(self) -> Ref:
        return self if self.base is None else self.base.root


@dataclass(eq=False, repr=False)
class Step:
    """One entry of the list that a program walks: kernel calls, once its references are arrays."""

    bind: Bind
    refs: Frame  # of references
    owner: int

    def frames(self) -> Sequence[Frame]:
        return (self.refs,)

    def bound(self, frames: Sequence[Frame]) -> Iterator[Call]:
        """Yield the calls, given the frames of arrays."""
        return self.bind(frames[0])

    def references(self) -> Iterator[Ref]:
        for f in self.frames():
            for ref in (*f.x, *f.y, *f.saved, *f.gy, *f.gx, *f.work, f.add, f.pre, f.coefficients, f.slopes):
                if ref is not None:
                    yield ref


@dataclass(eq=False, repr=False)
class Together(Step):
    """Several operations that run as one step; `Step.refs` is the last one's frame."""

    before: tuple[Frame, ...] = ()
    ops: tuple[Operation, ...] = ()
    middle: int = 0

    def frames(self) -> Sequence[Frame]:
        return (*self.before, self.refs)

    def bound(self, frames: Sequence[Frame]) -> Iterator[Call]:
        return self.ops[self.middle].forward_in_strips(self.middle, self.ops, frames)


@dataclass(eq=False, repr=False)
class Schedule:
    """What a program does, without arrays: shared by all runs of a model on one shape.

    Attributes
    ----------
    graph : Graph
    groups : list of Group
    forward, backward : list of Step
    outputs, grads : list of Ref
        Of the model's outputs, and of its inputs' gradients (None where there is none).
    slots : list of Slot
    nbytes : int
        Of the arena.
    gradients : bool
    calls_out : bool
        Whether it runs code that is not the package's: hooks, layers with a backward of their own.
    again : list of int
        Groups that backward runs forward once more, since their results were not kept.
    kept : dict
        Bytes kept of parameters from run to run, by parameter and size.
    joined : dict of int to int
        For each concatenation, by the place of its group: how many of its parts are written where it lies.
    strips : dict of int to Strips
        For each group that runs together with others, a strip of rows at a time: which they are.
    """

    graph: Graph
    groups: list[Group]
    gradients: bool
    calls_out: bool = False
    forward: list[Step] = field(default_factory=list)
    backward: list[Step] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    grads: list[Ref | None] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    kept: dict[tuple[int, int], int] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)
    strips: dict[int, Strips] = field(default_factory=dict)
    nbytes: int = 0

    def slot(self, spec: Spec, kind: str, owner: int) -> Ref:
        """Return memory of its own for an array, which belongs to a group."""
        slot = Slot(spec.nbytes, kind, owner)
        self.slots.append(slot)
        return Ref(spec, slot)


def bare(ref: Ref | None) -> Ref | None:
    """Return a reference of which backward needs the shape alone."""
    return None if ref is None else replace(ref, slot=None, source=("shape", ref.spec), base=None, view=None)


def array_at(ref: Ref, arena: Array) -> Array:
    """Return the array of a reference into the arena."""
    assert ref.slot is not None
    flat = arena[ref.slot.offset : ref.slot.offset + ref.spec.nbytes].view(ref.spec.dtype)
    return place(flat, ref.spec)
