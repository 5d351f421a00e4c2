"""Pictures of what layers put out: the outputs themselves, and feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.diagnose.statistics import observe
from fastconv.nn import Conv2d, Module, ReLU
from fastconv.viz._mosaic import mosaic
from fastconv.viz._style import Array, Figure, Picture, bare, photo, values

_MAPS = 64  # of one layer


def layer_outputs(model: Module, x: Array, kinds: tuple[type[Module], ...] = (Module,)) -> dict[str, Array]:
    """Return copies of what the layers of some kinds put out in evaluation mode, by their dotted paths.

    Parameters
    ----------
    model : Module
    x : ndarray of shape (N, ...)
        What the model takes.
    kinds : tuple of type
        Classes of the layers to look at; all by default.

    Returns
    -------
    dict of str to ndarray

    Examples
    --------
    >>> from fastconv import data, models, nn, viz
    >>> digits = data.load("digits")
    >>> model = models.build("mnist-small", digits.shape, 10)
    >>> outputs = viz.layer_outputs(model, digits.test.images[:5] / np.float32(16), kinds=(nn.ReLU,))
    >>> {name: output.shape for name, output in outputs.items()}
    {'2': (5, 8, 8, 8), '6': (5, 16, 4, 4), '11': (5, 128)}
    """
    found: dict[str, Array] = {}

    def look(name: str, module: Module, output: Array) -> None:
        if isinstance(module, kinds):
            found[name] = output.copy()

    with observe(model, look):
        model.predict(x)
    return found


def feature_maps(model: Module, x: Array, image: Array | None = None, layers: Sequence[str] | None = None) -> Figure:
    """Draw what a net sees in one image, layer by layer.

    Parameters
    ----------
    model : Module
    x : ndarray, shape (C, H, W) or (1, C, H, W)
        As the net takes it.
    image : ndarray, shape (C, H, W), optional
        As a person sees it; `x` by default.
    layers : sequence of str, optional
        Dotted paths; by default the rectified (or else the convolved) maps, at most five layers spread over the
        depth. Of more than 64 maps the first 64 are drawn. Each layer has its own scale, white being 0.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If a layer is unknown or puts out no maps.

    Examples
    --------
    >>> from fastconv import data, models, viz
    >>> digits = data.load("digits")
    >>> model = models.build("mnist-small", digits.shape, 10)
    >>> figure = viz.feature_maps(model, digits.test.images[0] / np.float32(16))
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['input', '2 ReLU: 8 maps of 8×8', '6 ReLU: 16 maps of 4×4']
    """
    x = x[None] if x.ndim == 3 else x
    outputs = layer_outputs(model, x[:1])
    found = {name: y[0] for name, y in outputs.items() if y.ndim == 4 and y.shape[2] * y.shape[3] > 1}
    types = {name: type(module) for name, module in model.named_modules()}
    if layers is None:
        names = [name for name in found if issubclass(types[name], ReLU)]
        names = names or [name for name in found if issubclass(types[name], Conv2d)] or list(found)
        names = [names[i] for i in sorted(set(np.linspace(0, len(names) - 1, min(5, len(names))).round().astype(int)))]
    else:
        names = list(layers)
    if not names or any(name not in found for name in names):
        asked = "any layer" if layers is None else ", ".join(layers)
        raise ValueError(f"viz.feature_maps: no maps of {asked}; there are {', '.join(found) or 'none'}")
    sheets = {name: mosaic(found[name][:_MAPS], min(16, max(8, len(found[name]) // 2))) for name in names}
    heights = [6.6 * sheet.shape[0] / sheet.shape[1] for sheet in sheets.values()]
    figure = Picture(8.6, sum(heights) + 0.35 * len(heights) + 0.1)
    grid = figure.add_gridspec(len(sheets), 2, width_ratios=(1.3, 7), height_ratios=heights)
    photo(figure.add_subplot(grid[0, 0]), x[0] if image is None else image, "input")
    for row, (name, sheet) in enumerate(sheets.items()):
        ax = figure.add_subplot(grid[row, 1])
        count, height, width = found[name].shape
        some = f", {_MAPS} of" if count > _MAPS else ":"
        bare(ax, f"{name} {types[name].__name__}{some} {count} maps of {height}×{width}")
        values(ax, sheet)
    return figure
