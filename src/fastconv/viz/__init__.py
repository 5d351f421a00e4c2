"""Pictures of data, nets and runs. Each function returns a figure; those that fill one axes take it as ``ax``.

::

    from fastconv import viz
    from fastconv.train.run import read_record

    viz.curves(read_record("runs/a")).savefig("curves.png")
    viz.filters(model).savefig("filters.pdf")

The figures are made without pyplot: no window, no global state, so threads may draw at once, and a notebook shows
what a cell returns. They need matplotlib (``pip install 'fastconv[plot]'``), which is loaded at the first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.viz._curves import accuracy, curves, learning_rate_range, loss, update_ratios
    from fastconv.viz._style import COLOURS, Picture

_PLACES = {
    "_curves": ("accuracy", "curves", "learning_rate_range", "loss", "update_ratios"),
    "_style": ("COLOURS", "Picture"),
}
_PLACE = {name: place for place, names in _PLACES.items() for name in names}

__all__ = ["COLOURS", "Picture", "accuracy", "curves", "learning_rate_range", "loss", "update_ratios"]


def __getattr__(name: str) -> Any:
    if name in _PLACE:
        try:
            return getattr(importlib.import_module(f"fastconv.viz.{_PLACE[name]}"), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            raise ImportError("fastconv.viz draws with matplotlib: pip install 'fastconv[plot]'") from error
    raise AttributeError(f"module 'fastconv.viz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
