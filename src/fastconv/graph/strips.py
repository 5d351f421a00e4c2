"""Which convolutions run together, a strip of rows at a time: evaluation of blocks that are wide inside.

A block that expands its channels, lets a filter a channel pass over them and projects them again ("inverted residual":
Sandler et al., CVPR 2018) spends much of its time on writing and reading what is several times as large as what goes in
and comes out. Together the three need a few rows of it, which stay in a cache; the bits are those of one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastconv.graph.rewrite import Group
from fastconv.graph.value import Value

WIDE = 800_000
"""Bytes of an image from which on a value is better not written to memory."""


@dataclass(eq=False, repr=False)
class Strips:
    """Groups that run together.

    Attributes
    ----------
    groups : list of int
        Their places, one after the other.
    middle : int
        Which of them reads rows around those that it makes.
    """

    groups: list[int]
    middle: int

    @property
    def last(self) -> int:
        return self.groups[-1]


def strips(groups: Sequence[Group], outputs: Sequence[Value], placed: Collection[Value]) -> list[Strips]:
    """Return the groups that run together in evaluation.

    Parameters
    ----------
    groups : list of Group
    outputs : list of Value
        Of the graph.
    placed : collection of Value
        Values that lie in others' memory, or others in theirs.
    """
    readers = Counter(value for g in groups for value in g.reads())
    readers.update(outputs)

    def passes(first: int) -> bool:
        """Return whether what a group makes is wide, and read by the next one alone."""
        value, behind = groups[first].outputs[0], groups[first + 1].inputs
        wide = math.prod(value.shape[1:]) * value.dtype.itemsize >= WIDE
        return wide and bool(behind) and behind[0] is value and readers[value] == 1 and value not in placed

    found: list[Strips] = []
    taken = -1  # the last group that belongs to some
    for index, g in enumerate(groups):
        if _way(g) != "rows":
            continue
        first = last = index
        if index - 1 > taken and _way(groups[index - 1]) == "pixels" and _ends(groups[index - 1]) and passes(index - 1):
            first -= 1
        if index + 1 < len(groups) and _way(groups[index + 1]) == "pixels" and _ends(g) and passes(index):
            last += 1
        if first < last:
            found.append(Strips(list(range(first, last + 1)), index - first))
            taken = last
    return found


def _way(g: Group) -> str:
    return g.op.in_strips(*g.nodes[0].specs())


def _ends(g: Group) -> bool:
    """Return whether a group ends with what a step in the middle may do: nothing is added, no slopes are learned."""
    return g.add is None and not g.slopes
