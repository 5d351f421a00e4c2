"""Scratch memory of the kernels: one arena a Python thread and slot, kept and grown as needed."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def empty_aligned(size: int, dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised flat array that begins on a cache line (64 bytes, one AVX-512 register)."""
    nbytes = size * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


class _Local(threading.local):
    def __init__(self) -> None:
        self.arenas: dict[str, Array] = {}


_local = _Local()


def scratch(nbytes: int, slot: str = "kernel") -> Array:
    """Return at least ``nbytes`` bytes of scratch memory, aligned to 64.

    What it holds is dead once the operation that asked for it returns. :func:`release_scratch` gives it back.
    """
    arena = _local.arenas.get(slot)
    if arena is None or arena.nbytes < nbytes:
        arena = _local.arenas[slot] = empty_aligned(max(nbytes, 1), np.uint8)
    return arena


def scratch_nbytes() -> int:
    """Return the size of this thread's arenas in bytes."""
    return sum(arena.nbytes for arena in _local.arenas.values())


def release_scratch() -> None:
    """Free this thread's scratch memory, which operations otherwise keep for the next call."""
    _local.arenas.clear()


def set_aside() -> dict[str, Array]:
    """Take this thread's arenas away and return them; `put_back` undoes it."""
    arenas, _local.arenas = _local.arenas, {}
    return arenas


def put_back(arenas: dict[str, Array]) -> None:
    _local.arenas = arenas
