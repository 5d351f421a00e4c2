"""Hidden units against samples."""

from __future__ import annotations

import numpy as np

from fastconv.viz._style import INK, NORMAL, QUIET, Array, Axes, Figure, dress, place, scale, values


def hidden_units(outputs: Array, labels: Array | None = None, ax: Axes | None = None) -> Figure:
    """Draw hidden units (rows) over samples (columns): sparse and uncorrelated is good.

    Parameters
    ----------
    outputs : ndarray, shape (samples, units) or (samples, channels, H, W)
        What one layer put out; maps are averaged over their pixels.
    labels : ndarray of int, shape (samples,), optional
        Sorts the samples by class.
    ax : Axes, optional
        The title says the mean absolute correlation of pairs of units and the share of dead ones, see
        `unit_figures`.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> outputs = np.maximum(np.random.default_rng(0).normal(size=(60, 20)), 0)
    >>> outputs[:, :5] = 0.0
    >>> figure = viz.hidden_units(outputs, labels=np.arange(60) % 3)
    >>> figure.axes[0].get_title(loc="left")
    '20 units: mean |correlation| 0.10, 25 % dead'
    """
    units = _units(outputs)
    correlation, dead = unit_figures(outputs)
    if labels is not None and len(labels) != len(units):
        raise ValueError(f"viz.hidden_units: {len(units)} samples but {len(labels)} labels")
    order = np.arange(len(units)) if labels is None else np.argsort(labels, kind="stable")
    figure, ax = place(ax, 7.2, 4.0)
    known = "–" if np.isnan(correlation) else f"{correlation:.2f}"
    title = f"{units.shape[1]} units: mean |correlation| {known}, {100 * dead:.0f} % dead"
    dress(ax, title, "sample", "unit", grid=None)
    image = values(ax, units[order].T, aspect="auto")
    if labels is not None:
        kinds, starts, counts = np.unique(np.asarray(labels)[order], return_index=True, return_counts=True)
        ax.set_xticks(starts + counts / 2 - 0.5, [str(kind) for kind in kinds])
        ax.tick_params(axis="x", length=0)
        ax.set_xlabel("samples by class", fontsize=NORMAL, color=INK)
        for start in starts[1:]:
            ax.axvline(start - 0.5, color=QUIET, linewidth=0.5)
    scale(figure, image, ax, "output")
    return figure


def unit_figures(outputs: Array) -> tuple[float, float]:
    """Return the mean absolute correlation of all pairs of units that vary, and the share of units that do not.

    The former is NaN for fewer than two varying units.

    Parameters
    ----------
    outputs : ndarray of shape (N, units)

    Returns
    -------
    correlation, dead : float
        Both in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> outputs = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0], [0.0, 3.0, 6.0]])  # the first is dead, the others alike
    >>> correlation, dead = viz.unit_figures(outputs)
    >>> round(correlation, 3), round(dead, 3)
    (1.0, 0.333)
    """
    units = _units(outputs).astype(np.float64)
    with np.errstate(all="ignore"):
        centred = units - units.mean(axis=0)
        size = np.sqrt(np.square(centred).sum(axis=0))
        alive = (np.ptp(units, axis=0) > 0) & (size > 0)
        dead = float(np.mean(np.ptp(units, axis=0) == 0))
        scaled = centred[:, alive] / size[alive]
        n = scaled.shape[1]
        if n < 2:
            return float("nan"), dead
        total = np.abs(scaled.T @ scaled)
        return float((total.sum() - np.trace(total)) / (n * (n - 1))), dead


def _units(outputs: Array) -> Array:
    if outputs.ndim not in (2, 3, 4) or not outputs.size:
        raise ValueError(f"viz.hidden_units: outputs must be (samples, units, ...) and not empty, got {outputs.shape}")
    return outputs if outputs.ndim == 2 else outputs.mean(axis=tuple(range(2, outputs.ndim)))
