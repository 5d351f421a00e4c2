"""One number for all a model has learned, or a checkpoint holds."""

import hashlib
from collections.abc import Iterable

import numpy as np

from fastconv.nn import Module


def state_sha256(model: Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and little-endian bytes of a model's state, in its order.

    Two runs with the same seed have the same digest on any number of threads and any instruction set.

    Parameters
    ----------
    model : Module

    Examples
    --------
    >>> import fastconv
    >>> from fastconv import nn
    >>> from fastconv.train import state_sha256
    >>> fastconv.manual_seed(0)
    >>> model = nn.Linear(3, 2)
    >>> state_sha256(model)[:16]
    '851e57698d11ff22'
    >>> model.weight.data[0, 0] += 1e-6
    >>> state_sha256(model)[:16]
    'e936257c9c2914fa'
    """
    return arrays_sha256(model.state_dict().items())


def arrays_sha256(named: Iterable[tuple[str, np.ndarray]], text: str = "") -> str:
    """Return the SHA-256 of a text, then of names, dtypes, shapes and little-endian bytes of arrays, in their order."""
    digest = hashlib.sha256(text.encode())
    for name, array in named:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name}\0{little.dtype.str}\0{array.shape}\0".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
