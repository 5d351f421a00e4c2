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
    from fastconv.viz._curves import accuracy, curves, learning_rate_range, loss, run_names
    from fastconv.viz._errors import confusion, mean_and_deviation, mistakes, predictions
    from fastconv.viz._gradients import input_gradient, saliency, saliency_map
    from fastconv.viz._histograms import activation_histograms, initialisations
    from fastconv.viz._layers import feature_maps, layer_outputs
    from fastconv.viz._mosaic import mosaic
    from fastconv.viz._run import RUN_PICTURES, Missing, RunPictures, save
    from fastconv.viz._steps import dead_units, gradient_norms, update_ratios
    from fastconv.viz._style import COLOURS, Picture
    from fastconv.viz._trials import search
    from fastconv.viz._units import hidden_units, unit_figures
    from fastconv.viz._weights import filters, sparsity, templates

_PLACES = {
    "_curves": ("accuracy", "curves", "learning_rate_range", "loss", "run_names"),
    "_errors": ("confusion", "mean_and_deviation", "mistakes", "predictions"),
    "_gradients": ("input_gradient", "saliency", "saliency_map"),
    "_histograms": ("activation_histograms", "initialisations"),
    "_layers": ("feature_maps", "layer_outputs"),
    "_mosaic": ("mosaic",),
    "_run": ("Missing", "RUN_PICTURES", "RunPictures", "save"),
    "_steps": ("dead_units", "gradient_norms", "update_ratios"),
    "_style": ("COLOURS", "Picture"),
    "_trials": ("search",),
    "_units": ("hidden_units", "unit_figures"),
    "_weights": ("filters", "sparsity", "templates"),
}
_PLACE = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "COLOURS", "RUN_PICTURES", "Missing", "Picture", "RunPictures",
    "accuracy", "activation_histograms", "confusion", "curves", "dead_units", "feature_maps", "filters",
    "gradient_norms", "hidden_units", "initialisations", "input_gradient", "layer_outputs",
    "learning_rate_range", "loss", "mean_and_deviation", "mistakes", "mosaic", "predictions", "run_names",
    "saliency", "saliency_map", "save", "search", "sparsity", "templates", "unit_figures", "update_ratios",
]  # fmt: skip


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
