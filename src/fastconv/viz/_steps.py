"""What `fastconv.diagnose.Watch` saw, over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fastconv.viz._style import GROUND, QUIET, SMALL, Axes, Figure, dress, floats, legend, place, short

_NAMED = 12  # of more lines than this only the first and the last are named

Steps = Sequence[Mapping[str, Any]]


def update_ratios(steps: Steps, ax: Axes | None = None) -> Figure:
    """Draw how far each weight moves in an update, in relation to its size, over the steps of a run.

    Parameters
    ----------
    steps : sequence of dict
        Step records as `fastconv.diagnose.Watch` makes them (``run.steps``); those without ``update_ratio`` are
        left out.
    ax : Axes, optional
        The band from 1e-4 to 1e-2 is shaded, 1e-3 marked. Colours run from the first weight (light) to the last.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If no record has ratios.

    Examples
    --------
    >>> from fastconv import viz
    >>> steps = [{"step": step, "update_ratio": {"0.weight": 0.01 / step}} for step in range(1, 11)]  # record.steps
    >>> figure = viz.update_ratios(steps)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['|update| / |weight|']
    """
    figure, ax = place(ax, 5.8, 3.5)
    dress(ax, "Update in relation to the weight (wanted: about 0.001)", "step", "|update| / |weight|")
    _lines(ax, steps, "update_ratio", "weights", log=True)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, min(1e-6, high / 10)), high)  # a schedule that ends at 0 would take up half of it
    ax.axhspan(1e-4, 1e-2, color=GROUND, linewidth=0, zorder=0)
    ax.axhline(1e-3, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    return figure


def gradient_norms(steps: Steps, ax: Axes | None = None) -> Figure:
    """Draw the Euclidean norm of each parameter's gradient over the steps; arguments as of `update_ratios`.

    Of many parameters only the weights, those that have update ratios too, are drawn.

    Parameters
    ----------
    steps : sequence of dict
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    Figure
        Of matplotlib.

    Examples
    --------
    >>> from fastconv import viz
    >>> steps = [{"step": step, "grad_norm": {"0.weight": 1 / step, "0.bias": 0.1}} for step in range(1, 11)]
    >>> figure = viz.gradient_norms(steps)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['|gradient|']
    """
    figure, ax = place(ax, 5.8, 3.5)
    dress(ax, "Norm of the gradient", "step", "|gradient|")
    having = [record for record in steps if record.get("grad_norm")]
    weights = {name for record in steps for name in record.get("update_ratio") or ()}
    if weights and any(len(record["grad_norm"]) > _NAMED for record in having):
        having = [{**r, "grad_norm": {k: v for k, v in r["grad_norm"].items() if k in weights}} for r in having]
    _lines(ax, having, "grad_norm", "parameters", log=True)
    return figure


def dead_units(steps: Steps, ax: Axes | None = None) -> Figure:
    """Draw the share of dead units of each layer that has any over the steps; arguments as of `update_ratios`.

    A unit is dead in a step if its activation had no slope on any sample of the batch.

    Parameters
    ----------
    steps : sequence of dict
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    Figure
        Of matplotlib.

    Examples
    --------
    >>> from fastconv import viz
    >>> steps = [{"step": step, "activations": {"1": {"dead": 0.1 * step}}} for step in range(1, 6)]
    >>> figure = viz.dead_units(steps)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ["share of the layer's units"]
    """
    figure, ax = place(ax, 5.8, 3.5)
    dress(ax, "Dead units", "step", "share of the layer's units")
    shares = [{"step": r["step"], "dead": _dead(r["activations"])} for r in steps if r.get("activations")]
    mortal = {name for record in shares for name, share in record["dead"].items() if share}
    having = [{**r, "dead": {name: share for name, share in r["dead"].items() if name in mortal}} for r in shares]
    if shares and not mortal:
        ax.annotate("none", (0.5, 0.5), xycoords="axes fraction", ha="center", color=QUIET, fontsize=SMALL)
        ax.set_xlim(shares[0]["step"], max(shares[-1]["step"], shares[0]["step"] + 1))
    else:
        _lines(ax, having, "dead", "layers", log=False)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    ax.set_ylim(0, 1)
    return figure


def _dead(layers: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    return {f"layer {name}": figures["dead"] for name, figures in layers.items()}


def _lines(ax: Axes, steps: Steps, key: str, what: str, log: bool) -> None:
    """Draw a line for each name in ``record[key]``, light to dark in their order."""
    having = [record for record in steps if record.get(key)]
    if not having:
        raise ValueError(f"viz: none of {len(steps)} step records has {key}")
    names = list(dict.fromkeys(name for record in having for name in record[key]))
    if log:
        ax.set_yscale("log")
    shades = colormaps["viridis_r"](np.linspace(0.12, 1, len(names)))
    x = [record["step"] for record in having]
    for name, shade in zip(names, shades, strict=True):
        y = floats([record[key].get(name) for record in having])
        if log:
            y[y <= 0] = np.nan
        named = len(names) <= _NAMED or name in (names[0], names[-1])
        mark = "." if np.isfinite(y).sum() <= 2 else None
        ax.plot(x, y, color=shade, linewidth=1.2, marker=mark, label=short(name) if named else None)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    title = f"{len(names)} {what}" if len(names) > _NAMED else None
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5), title=title, title_fontsize=SMALL)
