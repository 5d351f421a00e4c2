"""Histograms of activations, and the study of initial weights that they are known from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv import init, random
from fastconv.nn import Linear, Module, Sequential, Tanh
from fastconv.viz._layers import layer_outputs
from fastconv.viz._style import COLOURS, INK, SMALL, Array, Axes, Figure, Picture, dress, short


def initialisations(
    rules: Sequence[str | float] = (0.01, 1.0, "lecun", "xavier", "he"),
    activation: type[Module] = Tanh,
    layers: int = 10,
    units: int = 500,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Array]]:
    """Run normal noise through an untrained net of equal layers, once for each way of drawing its weights.

    Parameters
    ----------
    rules : sequence of str or float
        Names of `fastconv.init`, or standard deviations.
    activation : type of Module
    layers, units, samples, seed : int

    Returns
    -------
    dict of str to dict of str to ndarray (samples, units)
        Outputs of each activation, "layer 1" first, by rule: what `activation_histograms` draws.

    References
    ----------
    The figure of CS231n's lecture on training neural networks: 10 layers of 500 tanh units, 1000 samples.

    Examples
    --------
    >>> from fastconv import viz
    >>> outputs = viz.initialisations(rules=(0.01, "xavier"), layers=5, units=100, samples=50)
    >>> for rule, layers in outputs.items():
    ...     print(rule, [f"{layer.std():.0e}" for layer in layers.values()])
    normal(0.01) ['1e-01', '1e-02', '1e-03', '1e-04', '1e-05']
    xavier ['6e-01', '5e-01', '4e-01', '4e-01', '3e-01']
    """
    x = random.generator(seed, "viz.initialisations").standard_normal((samples, units), np.float32)
    outputs = {}
    for rule in rules:
        stack = [(Linear(units, units, bias=False), activation()) for _ in range(layers)]
        model = Sequential(*(layer for pair in stack for layer in pair))
        if isinstance(rule, str):
            init.apply(model, rule, seed, batch=x)
        else:
            for name, param in model.named_parameters():
                param.data[...] = rule * random.generator(seed, f"viz.{name}").standard_normal(param.shape, np.float32)
        found = layer_outputs(model, x, (activation,))
        label = rule if isinstance(rule, str) else f"normal({rule:g})"
        outputs[label] = {f"layer {i}": output for i, output in enumerate(found.values(), start=1)}
    return outputs


def activation_histograms(outputs: Mapping[str, Mapping[str, Array]] | Mapping[str, Array], bins: int = 40) -> Figure:
    """Draw histograms of layers' outputs: a column for each layer, a row for each net.

    Parameters
    ----------
    outputs : mapping of layer to ndarray, or of net to such mappings
        As `layer_outputs` and `initialisations` return them. All panels share the horizontal axis, which covers
        the bounded activations' range or 99.8 % of the values; in each panel stands the deviation, behind the mean
        where that is not about 0.
    bins : int

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If there is nothing to draw.

    Examples
    --------
    >>> from fastconv import viz
    >>> outputs = viz.initialisations(rules=(0.01, "xavier"), layers=3, units=50, samples=50)
    >>> figure = viz.activation_histograms(outputs)
    >>> [ax.texts[0].get_text() for ax in figure.axes]  # deviations: a row for each rule, a column for each layer
    ['± 0.069', '± 0.0049', '± 0.00035', '± 0.63', '± 0.5', '± 0.41']
    """
    nested: dict[str, Any] = {name: item for name, item in outputs.items() if isinstance(item, Mapping)}
    nested = nested or {"": outputs}
    columns = max((len(layers) for layers in nested.values()), default=0)
    if columns == 0:
        raise ValueError("viz.activation_histograms: no outputs to draw")
    figure = Picture(1.0 + 1.05 * columns, 0.5 + 1.15 * len(nested))
    panels = figure.subplots(len(nested), columns, squeeze=False)
    edges = np.linspace(*_range([values for layers in nested.values() for values in layers.values()]), bins + 1)
    for i, (name, layers) in enumerate(nested.items()):
        row = panels[i]
        for ax, (layer, values) in zip(row, layers.items(), strict=False):
            _histogram(ax, values, edges)
            if i == 0:
                ax.set_title("\n".join(short(part, 14) for part in layer.split("\n")), fontsize=SMALL, color=INK)
            ax.tick_params(labelbottom=i == len(nested) - 1)
        for ax in row[len(layers) :]:
            ax.set_axis_off()
        row[0].set_ylabel(short(name, 18), fontsize=SMALL, color=INK, rotation=0, ha="right", va="center")
    figure.supxlabel("output", fontsize=SMALL, color=INK)
    return figure


def _range(arrays: Sequence[Array]) -> tuple[float, float]:
    low, high = 0.0, 0.0
    for values in arrays:
        finite = values[np.isfinite(values)]
        if finite.size:
            a, b = finite.min(), finite.max()
            if a < -1 or b > 1:
                a, b = np.quantile(finite, (0.001, 0.999))
            low, high = min(low, float(a)), max(high, float(b))
    return (low, high) if high > low else (-1.0, 1.0)


def _histogram(ax: Axes, values: Array, edges: Array) -> None:
    finite = values[np.isfinite(values)].astype(np.float64)
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    shares = counts / max(values.size, 1)
    ax.stairs(shares, edges, fill=True, color=COLOURS[0], linewidth=0)
    dress(ax, grid=None)
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    ax.set_ylim(0, 1.3 * float(shares.max(initial=1e-9)))
    ax.annotate(
        _summary(finite), (0.5, 1), xycoords="axes fraction", xytext=(0, -1), textcoords="offset points",
        ha="center", va="top", fontsize=6.5, color=INK,
    )  # fmt: skip


def _summary(values: Array) -> str:
    """Deviation, and the mean where it is not about 0."""
    if not values.size:
        return "not finite"
    mean, deviation = values.mean(), values.std()
    text = f"± {deviation:.2g}" if abs(mean) <= 0.1 * deviation else f"{mean:.2g} ± {deviation:.2g}"
    return text.replace("-", "−")
