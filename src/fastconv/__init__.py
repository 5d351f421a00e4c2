"""Convolutional and very deep residual nets on ordinary CPUs, bit-reproducible everywhere.

``import fastconv`` imports NumPy and the kernels only when used: submodules load on first access,
so that a command or a script pays for what it touches and nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastconv._version import __version__

if TYPE_CHECKING:
    from fastconv.random import manual_seed

_SUBMODULES = (
    "cli", "config", "data", "deep", "diagnose", "functional", "init", "models", "nn", "optim",
    "random", "schedule", "search", "serialize", "sklearn", "testing", "train", "viz",
)  # fmt: skip

__all__ = ["__version__", "manual_seed", *_SUBMODULES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"fastconv.{name}")
    if name == "manual_seed":  # numpy.random alone takes as long to import as all the rest
        return importlib.import_module("fastconv.random").manual_seed
    raise AttributeError(f"module 'fastconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
