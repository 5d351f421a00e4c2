"""Which algorithm computes a convolution: the one asked for, or as `config.algorithm` says."""

from fastconv import config
from fastconv._ext.conv.algorithms import ALGORITHMS, choose
from fastconv._ext.conv.geometry import Geometry
from fastconv.functional._check import short

NAMES = ("auto", *(algorithm.name for algorithm in ALGORITHMS))


def asked(where: str, geometry: Geometry, itemsize: int, algorithm: str | None) -> str:
    """Return the name of the algorithm asked for, or the setting's where that is None.

    Raises
    ------
    ValueError
        If there is none of this name, or it cannot compute a convolution of these sizes.
    """
    if algorithm is None:
        return config.algorithm()
    if not isinstance(algorithm, str):
        raise ValueError(f"{where}: algorithm must be None or one of {', '.join(NAMES)}, got {short(algorithm)}")
    try:
        choose("forward", geometry, itemsize, algorithm)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return algorithm
