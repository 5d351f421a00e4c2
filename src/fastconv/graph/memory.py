"""Memory of values: how long each is needed, and where it lies in one arena.

Two slots share memory if no step needs both. Slots are placed from the largest to the smallest, each at the lowest
offset where all those that live at the same time leave room ("greedy by size": Pisarchyk and Lee, "Efficient memory
management for deep neural net inference", arXiv 2001.03288, section 5.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LINE = 64
"""Slots begin on cache lines."""


class Slot:
    """Bytes that are needed from one step to another.

    Attributes
    ----------
    nbytes : int
    kind : str
        "activation", "gradient" or "work".
    owner : int
        Index of the group it belongs to.
    first, last : int
        Steps between which it is needed.
    offset : int
    """

    __slots__ = ("first", "kind", "last", "nbytes", "offset", "owner")

    def __init__(self, nbytes: int, kind: str, owner: int) -> None:
        self.nbytes, self.kind, self.owner = nbytes, kind, owner
        self.first, self.last, self.offset = 1 << 60, -1, 0

    def touch(self, step: int) -> None:
        self.first, self.last = min(self.first, step), max(self.last, step)


def arrange(slots: Sequence[Slot]) -> int:
    """Give every slot its offset; returns the bytes of the arena."""
    order = sorted(range(len(slots)), key=lambda i: (-slots[i].nbytes, slots[i].first, i))
    first = np.array([slots[i].first for i in order], np.int64)
    last = np.array([slots[i].last for i in order], np.int64)
    start, end = np.zeros(len(slots), np.int64), np.zeros(len(slots), np.int64)
    total = 0
    for place, index in enumerate(order):
        slot = slots[index]
        size = -(-slot.nbytes // LINE) * LINE
        beside = np.flatnonzero((first[:place] <= slot.last) & (last[:place] >= slot.first))
        offset = 0
        if len(beside):
            beside = beside[np.argsort(start[beside], kind="stable")]
            reach = np.maximum.accumulate(np.concatenate(([0], end[beside])))
            room = start[beside] - reach[:-1] >= size
            offset = int(reach[:-1][np.argmax(room)]) if room.any() else int(reach[-1])
        slot.offset, start[place], end[place] = offset, offset, offset + size
        total = max(total, offset + size)
    return total


def live_bytes(slots: Sequence[Slot], steps: int) -> list[int]:
    """Return the bytes that are needed in each step."""
    change = np.zeros(steps + 2, np.int64)
    for slot in slots:
        change[slot.first] += slot.nbytes
        change[slot.last + 1] -= slot.nbytes
    return [int(n) for n in np.cumsum(change)[:steps]]
