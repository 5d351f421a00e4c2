"""Results of a hyperparameter search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fastconv.functional._check import one_of
from fastconv.viz._style import COLOURS, QUIET, Array, Axes, Figure, dress, floats, legend, place, scale

_SIGN = {"maximize": 1, "minimize": -1}


def search(
    trials: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
    x: str = "lr",
    y: str = "l2",
    value: str = "accuracy",
    label: str | None = None,
    ax: Axes | None = None,
    direction: Literal["maximize", "minimize"] | None = None,
) -> Figure:
    """Draw the trials of a search as points on two logarithmic axes, coloured by what they reached.

    The best has a ring: of equal ones that of the lowest ``validation_loss``, if trials have it, then the first, as
    `fastconv.search` chooses.

    Parameters
    ----------
    trials : sequence of mappings, or mapping of sequences
        With the keys `x`, `y` and `value`.
    x, y : str
        What the axes show. A zero, which has no logarithm, lies on the edge, labelled 0.
    value : str
        A trial without it, or with NaN (it exploded), is a cross.
    label : str, optional
        What `value` is called in the picture, the key by default. What is called an accuracy is shown in percent.
    ax : Axes, optional
    direction : {"maximize", "minimize"}, optional
        Which values are better. By default what the trials themselves say under that key, as those of
        `fastconv.search.SearchResult.table` do; the higher ones where they say nothing.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If there is no trial, none has one of the keys, or the direction is unknown.

    Examples
    --------
    >>> from fastconv import viz
    >>> rows = [{"lr": 0.1, "l2": 1e-4, "accuracy": 0.9}, {"lr": 0.01, "l2": 1e-3, "accuracy": 0.7}, {"lr": 3, "l2": 0}]
    >>> figure = viz.search(rows)  # the last exploded
    >>> figure.axes[0].get_title(loc="left"), figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('3 trials', 'lr', 'l2')
    >>> from fastconv.search import search  # needs Optuna
    >>> found = search(lambda attempt: attempt["x"] * attempt["y"], {"x": "1:9", "y": "1:9"}, trials=5, progress=False)
    >>> viz.search(found.table(), "x", "y", value="value").axes[0].get_title(loc="left")
    '5 trials'
    """
    if not isinstance(trials, Mapping):
        trials = {key: [trial.get(key) for trial in trials] for key in dict.fromkeys(k for t in trials for k in t)}
    columns = {key: floats(trials[key]) for key in (x, y, value) if key in trials}
    lacking = [key for key in (x, y, value) if key not in columns]
    if lacking or not len(columns[x]):
        raise ValueError(f"viz.search: no trial with {', '.join(lacking or (x, y, value))}")
    told = next((way for way in trials.get("direction", ()) if way in _SIGN), "maximize")
    better = told if direction is None else direction
    one_of("viz.search: direction", better, _SIGN)
    reached = columns[value]
    figure, ax = place(ax, 5.4, 4.0)
    dress(ax, f"{len(reached)} trials", x, y, grid=None)
    across, up = _logarithmic(ax, "x", columns[x]), _logarithmic(ax, "y", columns[y])
    done = np.isfinite(reached)
    if not done.all():
        ax.scatter(
            across[~done], up[~done], marker="x", s=18, color=QUIET, linewidths=0.9,
            label=f"no result ({np.sum(~done)})",
        )  # fmt: skip
    if done.any():
        named = "accuracy" in (label or value).lower()
        share = named and float(reached[done].max()) <= 1 and float(reached[done].min()) >= 0
        loss = np.nan_to_num(floats(trials.get("validation_loss", np.zeros(len(reached)))))
        worse = np.lexsort((np.arange(len(reached)), loss, -_SIGN[better] * reached))[::-1]
        order = worse[done[worse]]  # the best on top
        points = ax.scatter(
            across[order], up[order], c=reached[order] * (100 if share else 1), s=30, linewidths=0.4, edgecolors=QUIET,
            cmap="viridis_r" if better == "maximize" else "viridis",
        )  # fmt: skip
        scale(figure, points, ax, f"{label or value} (%)" if share else label or value)
        best = order[-1]
        text = f"{100 * reached[best]:.1f} %" if share else f"{reached[best]:.4g}"
        ax.scatter(
            across[best], up[best], s=110, facecolors="none", edgecolors=COLOURS[1], linewidths=1.5,
            label=f"best: {text} at {x} {columns[x][best]:.2g}, {y} {columns[y][best]:.2g}",
        )  # fmt: skip
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handlelength=1.0)
    return figure


def _logarithmic(ax: Axes, which: Literal["x", "y"], values: Array) -> Array:
    """Give an axis a log scale; return where the values lie, zeros a decade below the least."""
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    if not (values == 0).any():
        return values
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (math.floor(math.log10(end)) for end in (positive.min(), positive.max())) if positive.size else (0, 0)
    decades = range(low, high + 2, 1 + (high - low) // 8)
    ticks, labels = [10.0 ** (low - 1), *(10.0**k for k in decades)], ["0", *(f"$10^{{{k}}}$" for k in decades)]
    (ax.set_xticks if which == "x" else ax.set_yticks)(ticks, labels)
    (ax.axvline if which == "x" else ax.axhline)(10 ** (low - 0.5), color=QUIET, linewidth=0.6, linestyle=(0, (2, 2)))
    (ax.xaxis if which == "x" else ax.yaxis).minorticks_off()
    return np.where(values == 0, ticks[0], values)
