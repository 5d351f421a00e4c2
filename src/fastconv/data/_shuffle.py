"""Orders as pure functions of (seed, stream, step), the same under every NumPy version.

NumPy promises the raw output of a bit generator for ever, but not what ``Generator.shuffle`` makes of it.
So an order is made here: random bits above, the position below, sorted by value. Keys are distinct, hence
every sorting algorithm (NumPy's differs by processor) gives the same order.
"""

import numpy as np

from fastconv import random


def words(n: int, seed: int, stream: str, step: int) -> np.ndarray:
    """Return n random uint64 of one step of a stream; entry i does not depend on n."""
    return random.generator(seed, stream, step).bit_generator.random_raw(n)


def permutation(n: int, seed: int, stream: str, step: int = 0) -> np.ndarray:
    """Return 0..n-1 in the random order of one step of a stream, as int64 (n,)."""
    keys = words(n, seed, stream, step)
    mask = np.uint64((1 << n.bit_length()) - 1)
    keys &= ~mask
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= mask
    return keys.view(np.int64)
