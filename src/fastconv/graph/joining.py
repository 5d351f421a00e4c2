"""Concatenation without copying: which of its parts are written where the result will lie.

A part that is made by a step lies in the result's memory from the start, if all who read and write it can do so there.
Along the first axis, and wherever nothing lies before the axis in memory, a part is memory without gaps, which
everybody takes. A part of the channels is not: its pixels lie as far apart as the result's, which an operation has to
say that it takes (`Operation.spaced_output` and so on). The last concatenation that reads a value has it; an earlier
one of the same values, as a dense block has one a layer, is a part of that, too.
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
    order = layout(whole.ndim)
    [axis] = cut
    if math.prod(whole.shape[before] for before in order[: order.index(axis)]) == 1:
        return NONE
    return PIXELS if axis == 1 and whole.ndim in (2, 3, 4) else ANY


def places(graph: Graph, groups: Sequence[Group], apart: Collection[int]) -> dict[Value, Place]:
    """Return which values lie in the memory of a concatenation, directly.

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
        return self.found

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
        if not (maker.op.spaced_output or _keys(maker)):
            return False
        for g, position in self.readers[part]:
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
