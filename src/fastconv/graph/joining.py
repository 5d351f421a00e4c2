"""Concatenations and slices without copying: which values lie in the memory of others.

A part that is made by a step lies in the result's memory from the start, if all who read and write it can do so there.
Along the first axis, and wherever nothing lies before the axis in memory, a part is memory without gaps, which
everybody takes. A part of the channels is not: its pixels lie as far apart as the result's, which an operation has to
say that it takes (`Operation.spaced_output` and so on). The last concatenation that reads a value has it; an earlier
one of the same values, as a dense block has one per layer, is a part of that, too.

What a slice takes of the channels lies where the sliced value does, if all who read it take the gaps. Convolutions and
linear layers do not: their windows and rows follow each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from fastconv.graph.operation import Spec, layout
from fastconv.graph.rewrite import Group
from fastconv.graph.value import Graph, Value

Key = tuple[slice, ...]
NONE, PIXELS, ANY = "", "pixels", "any"


class Place(NamedTuple):
    """A value's place in the memory of another one.

    Attributes
    ----------
    whole : Value
    key : tuple of slice
    gaps : str
        What lies between its elements there: nothing (""), something between its "pixels", or "any".
    """

    whole: Value
    key: Key
    gaps: str


def gaps_of(whole: Spec, key: Key) -> str:
    """Return where a part of an array that lies well has gaps."""
    cut = [axis for axis, part in enumerate(key) if part.stop - part.start != whole.shape[axis]]
    if not cut:
        return NONE
    if len(cut) > 1:
        return ANY
    order = layout(whole.ndim)
    [axis] = cut
    if math.prod(whole.shape[before] for before in order[: order.index(axis)]) == 1:
        return NONE
    return PIXELS if axis == 1 and whole.ndim in (2, 3, 4) else ANY


def places(graph: Graph, groups: Sequence[Group], apart: Collection[int]) -> dict[Value, Place]:
    """Return which values lie in the memory of another one, that they are parts of, directly.

    Parameters
    ----------
    graph : Graph
    groups : list of Group
    apart : collection of int
        Groups whose results are computed once more: they, and what they read, stay in memory of their own.
    """
    return _Joiner(graph, groups, apart).run()


def location(value: Value, places: Mapping[Value, Place]) -> tuple[Value, tuple[int, ...]]:
    """Return in which value's memory a value lies, and at which element along each axis."""
    start = (0,) * value.ndim
    while value in places:
        start = tuple(first + part.start for first, part in zip(start, places[value].key, strict=True))
        value = places[value].whole
    return value, start


class _Joiner:
    def __init__(self, graph: Graph, groups: Sequence[Group], apart: Collection[int]) -> None:
        self.groups, self.outputs = groups, set(graph.outputs)
        self.found: dict[Value, Place] = {}
        self.made = {g.outputs[0]: g for i, g in enumerate(groups) if len(g.outputs) == 1 and i not in apart}
        self.readers: dict[Value, list[tuple[Group, int | None]]] = {}
        self.alone = {value for i in apart for value in (*groups[i].reads(), *groups[i].outputs)}
        for g in groups:
            for value, position in _reads(g):
                self.readers.setdefault(value, []).append((g, position))

    def run(self) -> dict[Value, Place]:
        for g in reversed(self.groups):
            keys = _keys(g)
            if not keys or g.outputs[0] in self.alone:
                continue
            whole = g.outputs[0]
            self._nest(whole, g)
            for part, key in zip(g.inputs, keys, strict=True):
                assert part is not None
                if part not in self.found and part is not whole:
                    self._join(part, whole, key)
        for g in self.groups:
            self._slice(g)
        return self.found

    def _slice(self, g: Group) -> None:
        key = g.op.cut(*g.nodes[0].specs())
        if not key or len(g.nodes) > 1:
            return
        whole, [part] = g.inputs[0], g.outputs
        assert whole is not None
        gaps, around = gaps_of(whole.spec, key), self.found.get(whole)
        if around is not None and around.gaps and gaps == NONE:
            gaps = around.gaps
        apart = part in self.found or part in self.outputs or not self.alone.isdisjoint((part, whole))
        if gaps != ANY and not apart and (around is None or around.gaps != ANY) and self._read_with_gaps(part):
            self.found[part] = Place(whole, key, gaps)

    def _nest(self, whole: Value, g: Group) -> None:
        """Let a concatenation be a part of a later one in which its own parts stand in a row."""
        parts = [self.found.get(part) for part in g.inputs if part is not None]
        first, last = parts[0], parts[-1]
        if whole in self.found or first is None or last is None:
            return
        for before, after in pairwise(parts):
            if before is None or after is None or before.whole is not after.whole or not _touch(before, after):
                return
        key = tuple(slice(a.start, b.stop) for a, b in zip(first.key, last.key, strict=True))
        if len({id(part) for part in g.inputs}) == len(g.inputs):
            self._join(whole, first.whole, key)

    def _join(self, part: Value, whole: Value, key: Key) -> None:
        if part not in self.made or part in self.alone or part in self.outputs or self._is_view(self.made[part]):
            return
        gaps = gaps_of(whole.spec, key)
        around = self.found.get(whole)
        if around is not None and around.gaps:
            gaps = ANY if gaps == ANY else PIXELS
        if gaps == NONE or (gaps == PIXELS and self._takes_gaps(part)):
            self.found[part] = Place(whole, key, gaps)

    def _takes_gaps(self, part: Value) -> bool:
        """Return whether a value may have gaps between its pixels."""
        maker = self.made[part]
        return (maker.op.spaced_output or bool(_keys(maker))) and self._read_with_gaps(part)

    def _read_with_gaps(self, part: Value) -> bool:
        for g, position in self.readers.get(part, ()):
            gaps = _keys(g) or position is None or position in g.op.spaced_inputs
            if self._is_view(g) or not gaps:
                return False
        return True

    def _is_view(self, g: Group) -> bool:
        return g.op.is_view(*g.nodes[0].specs())


def _reads(g: Group) -> Iterator[tuple[Value, int | None]]:
    """Yield what a group's forward reads and at which place of its inputs: None is what it adds, -1 anything else."""
    yield from ((value, i) for i, value in enumerate(g.inputs) if value is not None)
    if g.add is not None:
        yield g.add, None
    yield from ((value, -1) for value in g.slopes)
    if g.scale is not None:
        yield from ((value, -1) for value in g.scale.inputs[1:] if value is not None)


def _keys(g: Group) -> tuple[Key, ...]:
    return g.op.parts(*g.nodes[0].specs())


def _touch(before: Place, after: Place) -> bool:
    """Return whether one part begins, along the one axis on which they differ, where the other ends."""
    differ = [(a, b) for a, b in zip(before.key, after.key, strict=True) if a != b]
    return len(differ) == 1 and differ[0][0].stop == differ[0][1].start
