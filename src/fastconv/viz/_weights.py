"""Pictures of weights: filters, templates, the first fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastconv.nn import Conv2d, Linear, Module
from fastconv.viz._mosaic import as_tiles, bound, colours, mosaic
from fastconv.viz._style import (
    AMOUNT,
    INK,
    NORMAL,
    SIGNED,
    Array,
    Axes,
    Figure,
    Picture,
    bare,
    dress,
    place,
    scale,
    short,
    values,
)  # fmt: skip

_TILES = 1024  # more are not told apart
_NEAR = 0.1  # of the root mean square: near 0


def filters(model: Module | Array, ax: Axes | None = None) -> Figure:
    """Draw the filters of a model's first convolution as images.

    Parameters
    ----------
    model : Module or ndarray
        A net, or weights of shape (K, C, R, S). With three channels a filter is one image in colour, grey being 0;
        otherwise each of the K * C planes is one, and with several channels a row holds the C planes of a filter.
    ax : Axes, optional

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If the model has no two-dimensional convolution, or weights are not 4-d.

    Examples
    --------
    >>> from fastconv import models, viz
    >>> figure = viz.filters(models.build("mnist-small", (1, 8, 8), 10))
    >>> figure.axes[0].get_title(loc="left")
    '8 filters of 5×5'
    """
    weight = _first(model, 4, Conv2d, "filters")
    outputs, inputs, height, width = weight.shape
    tiles = as_tiles(weight)
    columns = inputs if inputs not in (1, 3) and inputs * outputs <= _TILES else None
    shown = f", the first {_TILES} planes" if len(tiles) > _TILES else ""
    channels = f" × {inputs} channels" if inputs > 1 else ""
    sheet = mosaic(tiles[:_TILES], columns)
    tall = math.sqrt(min(max(sheet.shape[0] / sheet.shape[1], 0.1), 10.0))
    figure, ax = place(ax, 4.2 / tall + 0.8, 4.2 * tall + 0.4)
    bare(ax, f"{outputs} filters of {height}×{width}{channels}{shown}")
    _show(figure, ax, sheet)
    return figure


def templates(
    model: Module | Array,
    image_shape: tuple[int, int, int],
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw what a net of one layer looks for: the weights of each class as an image.

    Parameters
    ----------
    model : Module or ndarray
        A net whose first fully connected layer sees the image, or its weights (classes, C * H * W).
    image_shape : tuple of int
        (C, H, W).
    classes : sequence of str, optional

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If there is no such layer, or its weights do not have the size of the image.

    Examples
    --------
    >>> from fastconv import data, models, viz
    >>> digits = data.load("digits")
    >>> model = models.build("linear", digits.shape, 10)
    >>> figure = viz.templates(model, digits.shape, digits.classes)
    >>> [ax.get_title(loc="left") for ax in figure.axes[:10]]
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
    """
    weight = _first(model, 2, Linear, "templates")
    channels, height, width = image_shape
    if weight.shape[1] != channels * height * width:
        raise ValueError(f"viz.templates: weights {weight.shape} do not fit images of shape {image_shape}")
    images = weight.reshape(-1, channels, height, width)
    columns = min(len(images), 5 if len(images) <= 20 else 10)
    rows = -(-len(images) // columns)
    figure = Picture(1.5 * columns + 0.6, 0.3 + 1.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    limit = bound(weight)
    for i, ax in enumerate(panels):
        bare(ax, "" if i >= len(images) else short(classes[i], 14) if classes else f"class {i}")
        if i >= len(images):
            continue
        if channels == 3:
            ax.imshow(colours(images[i].transpose(1, 2, 0)))
        else:
            drawn = ax.imshow(images[i].mean(axis=0), cmap=SIGNED, vmin=-limit, vmax=limit)
    if channels != 3:
        scale(figure, drawn, list(panels), "weight")
    return figure


def sparsity(model: Module | Array, maps: int | None = None, ax: Axes | None = None) -> Figure:
    """Draw the magnitudes of the first fully connected layer: a row for each unit, a column for each input.

    Inputs that are the same for all images (the rim of LeNet's maps, where digits have none of their strokes) show
    as bands that learning has left alone. The title says how many weights are near 0.

    Parameters
    ----------
    model : Module or ndarray
        A net, or weights (units, inputs).
    maps : int, optional
        How many feature maps the inputs are, to be told apart by ticks; by default the channels of the last
        convolution before the layer.
    ax : Axes, optional

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If the model has no fully connected layer, or weights are not 2-d.

    Examples
    --------
    >>> from fastconv import init, models, viz
    >>> model = models.build("mnist-small", (1, 8, 8), 10)
    >>> init.apply(model, "he")
    >>> figure = viz.sparsity(model)
    >>> figure.axes[0].get_title(loc="left")
    'First fully connected layer: 8 % of the weights are near 0'
    """
    weight = _first(model, 2, Linear, "sparsity")
    inputs = weight.shape[1]
    if maps is None and isinstance(model, Module):
        maps = _maps_before(model)
    size = np.abs(weight)
    root = float(np.sqrt(np.mean(np.square(weight, dtype=np.float64))))
    near = float(np.mean(size < _NEAR * root)) if root > 0 else 1.0
    figure, ax = place(ax, 8.6, 3.6)
    dress(ax, f"First fully connected layer: {100 * near:.0f} % of the weights are near 0", "input", "unit", grid=None)
    top = float(np.quantile(size[np.isfinite(size)], 0.995)) if np.isfinite(size).any() else 1.0
    image = ax.imshow(size, cmap=AMOUNT, vmin=0, vmax=top or 1.0, aspect="auto", interpolation="nearest")
    if maps and inputs % maps == 0 and 1 < maps <= 64:
        ax.set_xticks(np.arange(0, inputs, inputs // maps) - 0.5, [str(i) for i in range(maps)])
        ax.set_xlabel(f"input: {maps} maps of {inputs // maps} pixels", fontsize=NORMAL, color=INK)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("left")
    scale(figure, image, ax, "|weight|")
    return figure


def _first(model: Module | Array, rank: int, kind: type[Module], where: str) -> Array:
    if isinstance(model, Module):
        found = next((module for module in model.modules() if isinstance(module, kind)), None)
        if found is None:
            raise ValueError(f"viz.{where}: the model has no {kind.__name__}")
        return np.asarray(vars(found)["weight"].data)
    weight = np.asarray(model)
    if weight.ndim != rank or not weight.size:
        raise ValueError(f"viz.{where}: weights must have {rank} dimensions and not be empty, got {weight.shape}")
    return weight


def _maps_before(model: Module) -> int | None:
    channels = None
    for module in model.modules():
        if isinstance(module, Linear):
            return channels
        if isinstance(module, Conv2d):
            channels = module.out_channels
    return None


def _show(figure: Figure, ax: Axes, sheet: Array) -> None:
    """Draw signed values: in colour as they are, others with a scale."""
    if sheet.ndim == 3:
        ax.imshow(colours(sheet), interpolation="nearest")
        return
    scale(figure, values(ax, sheet), ax, "weight")
