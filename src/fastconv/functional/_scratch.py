"""Scratch memory of the kernels: one arena a Python thread and slot, kept and grown as needed."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv._ext import runtime

Array = npt.NDArray[Any]


def empty_aligned(size: int, dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised flat array that begins on a cache line (64 bytes, one AVX-512 register)."""
    nbytes = size * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


LITTLE = 1 << 24
"""Bytes that there is always room for."""


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


class _Asked(Exception):
    """Ends a kernel once it has asked for its scratch memory."""


def asked_for(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[int, str]:
    """Return the bytes and the slot of the scratch memory that a kernel asks for, before it touches an array.

    They are enough for as many threads as it may ever take, however busy the machine is now.

    Parameters
    ----------
    function, arguments
        The call; `scratch` stands among its arguments.
    """
    found = (0, "kernel")

    def ask(nbytes: int, slot: str = "kernel") -> None:
        nonlocal found
        found = nbytes, slot
        raise _Asked

    runtime.size_for_all_threads(True)
    try:
        with suppress(_Asked):
            function(*(ask if a is scratch else a for a in arguments))
    finally:
        runtime.size_for_all_threads(False)
    return found


def reserve(nbytes: float, *calls: tuple[Callable[..., Any], Sequence[Any]]) -> None:
    """Make room for the scratch memory of several calls, so that the first has not written when another has none.

    Calls on no more than ``nbytes`` of memory, borders included, are not asked where that is little.
    """
    if nbytes > LITTLE:
        for call in calls:
            scratch(*asked_for(*call))


def scratch_nbytes() -> int:
    """Return the size of this thread's arenas in bytes."""
    return sum(arena.nbytes for arena in _local.arenas.values())


def release_scratch() -> None:
    """Free this thread's scratch memory, which operations otherwise keep for the next call.

    Examples
    --------
    >>> release_scratch()
    >>> scratch_nbytes()
    0
    """
    _local.arenas.clear()


def set_aside() -> dict[str, Array]:
    """Take this thread's arenas away and return them; `put_back` undoes it."""
    arenas, _local.arenas = _local.arenas, {}
    return arenas


def put_back(arenas: dict[str, Array]) -> None:
    _local.arenas = arenas
