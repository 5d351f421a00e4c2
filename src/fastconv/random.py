"""Counter-based random numbers: every draw is a pure function of (seed, stream, step).

NumPy's Philox is keyed by a seed and a stream and started at a step, so shuffles, dropout masks and
initial weights can be recomputed for any step without replaying the ones before it; a resumed run needs
three integers, not a generator's state (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
"""

from __future__ import annotations  # the types of generators alone would import numpy.random

import contextlib
import operator
import threading
import zlib
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np

__all__ = ["generator", "manual_seed"]

_MASK64 = (1 << 64) - 1


def generator(seed: int, stream: int | str = 0, step: int = 0) -> np.random.Generator:
    """Return the generator of one step of one stream.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.
    stream : int or str
        What the numbers are for; a string is hashed (CRC-32), stably across processes and machines.
    step : int
        0 <= step < 2**64; generators of different steps never overlap.

    Raises
    ------
    TypeError
        If ``seed``, ``stream`` or ``step`` is no integer.
    ValueError
        If one of them is negative or needs more than 64 bits.

    Examples
    --------
    >>> import fastconv.random as fr
    >>> bool(fr.generator(7, "shuffle", 3).random() == fr.generator(7, "shuffle", 3).random())
    True
    """
    number = zlib.crc32(stream.encode()) | (1 << 32) if isinstance(stream, str) else stream
    for name, value in (("seed", seed), ("stream", number), ("step", step)):
        try:
            operator.index(value)
        except TypeError:
            raise TypeError(f"random.generator: {name} must be an integer, got {value!r}") from None
        if not 0 <= value <= _MASK64:
            raise ValueError(f"random.generator: {name} must be in [0, 2**64), got {value}")
    # Philox counts 256 bits: a step owns the upper half, the draws of one step the lower.
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, number], np.uint64), counter=np.array([0, 0, step, 0], np.uint64))
    )


# Where the numbers of the next layers come from, (seed, next stream): a value, never changed in place, so that contexts
# copied from one another part company. A context without one goes on with the latest of its thread; notebooks may
# give every cell a context of its own.
_source: ContextVar[tuple[int, int] | None] = ContextVar("source", default=None)


class _Latest(threading.local):
    source = (0, 0)


_latest = _Latest()


def manual_seed(seed: int) -> None:
    """Restart the source from which layers built after this call draw their numbers.

    It belongs to the context (`contextvars`): threads and asyncio tasks do not touch each other's, so nets built and
    trained in the threads of a pool have the numbers of nets built in processes of their own. A new thread starts as
    a new process does, with seed 0; a new task goes on from where the context it was made in is.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64. The same seed and the same order of construction give the same weights.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> import fastconv
    >>> from fastconv import nn
    >>> fastconv.manual_seed(7)
    >>> first = nn.Linear(3, 2).weight.data
    >>> second = nn.Linear(3, 2).weight.data  # other numbers
    >>> fastconv.manual_seed(7)
    >>> again = nn.Linear(3, 2).weight.data
    >>> bool((first == again).all()), bool((first == second).any())
    (True, False)
    """
    generator(seed)  # validates
    _set((int(seed), 0))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the numbers of layers built in a ``with`` block as after `manual_seed`; then go on as if it had not been."""
    before, latest = _source.get(), _latest.source
    manual_seed(seed)
    try:
        yield
    finally:
        _source.set(before)
        _latest.source = latest


def next_key() -> tuple[int, int]:
    """Return the (seed, stream) that the next layer owns; every call gives another stream."""
    seed, stream = _source.get() or _latest.source
    _set((seed, stream + 1))
    return seed, stream


def _set(source: tuple[int, int]) -> None:
    _source.set(source)
    _latest.source = source


def next_generator() -> np.random.Generator:
    """Return a fresh generator for the next layer's initial weights."""
    return generator(*next_key())
