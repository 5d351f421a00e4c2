"""Counter-based random numbers: every draw is a pure function of (seed, stream, step).

NumPy's Philox is keyed by a seed and a stream and started at a step, so shuffles, dropout masks and
initial weights can be recomputed for any step without replaying the ones before it; a resumed run needs
three integers, not a generator's state (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
"""

import zlib

import numpy as np

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
    ValueError
        If ``seed``, ``stream`` or ``step`` is negative or needs more than 64 bits.

    Examples
    --------
    >>> import fastconv.random as fr
    >>> bool(fr.generator(7, "shuffle", 3).random() == fr.generator(7, "shuffle", 3).random())
    True
    """
    number = zlib.crc32(stream.encode()) | (1 << 32) if isinstance(stream, str) else stream
    for name, value in (("seed", seed), ("stream", number), ("step", step)):
        if not 0 <= value <= _MASK64:
            raise ValueError(f"random.generator: {name} must be in [0, 2**64), got {value}")
    # Philox counts 256 bits: a step owns the upper half, the draws of one step the lower.
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, number], np.uint64), counter=np.array([0, 0, step, 0], np.uint64))
    )


_seed = 0
_next = 0


def manual_seed(seed: int) -> None:
    """Restart the process-wide source from which layers built after this call draw their numbers.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64. The same seed and the same order of construction give the same weights.
    """
    global _seed, _next
    generator(seed)  # validates
    _seed, _next = int(seed), 0


def next_key() -> tuple[int, int]:
    """Return the (seed, stream) that the next layer owns; every call gives another stream."""
    global _next
    key = (_seed, _next)
    _next += 1
    return key


def next_generator() -> np.random.Generator:
    """Return a fresh generator for the next layer's initial weights."""
    return generator(*next_key())
