"""Loss and accuracy over the epochs of runs, and over learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fastconv.train import History
from fastconv.train.run import RunRecord
from fastconv.viz._style import (
    COLOURS,
    GRID,
    INK,
    NORMAL,
    QUIET,
    SMALL,
    Array,
    Axes,
    Figure,
    Picture,
    dress,
    floats,
    legend,
    place,
    short,
)  # fmt: skip

Runs = History | RunRecord | Iterable[RunRecord] | Mapping[str, History | RunRecord]

_NAMED = 10  # of more runs than this only the best are named
_TRAINING, _VALIDATION = COLOURS[0], COLOURS[1]


def curves(runs: Runs) -> Figure:
    """Draw loss and, where there is one, accuracy of one run or several side by side.

    Parameters
    ----------
    runs : History, RunRecord, several RunRecords, or mapping of name to either
        One run shows training, validation and the gap between them. Several have a colour each, validation (or
        training, without it) as a full line, training dashed; of more than ten, the best ten by validation
        accuracy, then loss, are coloured and named.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there is no run.

    Examples
    --------
    >>> from fastconv import viz
    >>> from fastconv.train import History
    >>> first = {"epoch": 1, "loss": 0.9, "accuracy": 0.7, "validation_loss": 1.0, "validation_accuracy": 0.6}
    >>> second = {"epoch": 2, "loss": 0.5, "accuracy": 0.8, "validation_loss": 0.7, "validation_accuracy": 0.7}
    >>> figure = viz.curves(History([first, second]))  # or what trainer.fit returns; figure.savefig("curves.png")
    >>> [ax.get_title(loc="left") for ax in figure.axes]
    ['Loss', 'Accuracy']
    """
    named = _named(runs)
    both = any(value is not None for history in named.values() for value in history["accuracy"])
    figure = Picture(8.6 if both else 4.6, 3.5)
    panels = figure.subplots(1, 1 + both, squeeze=False)[0]
    loss(named, panels[0])
    if both:
        accuracy(named, panels[1])
    if len(named) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        for panel in panels:
            panel.get_legend().remove()
        figure.legend(
            handles, labels, loc="outside right upper", frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=1.6
        )
        figure.set_figwidth(figure.get_figwidth() + 1.6)
    return figure


def loss(runs: Runs, ax: Axes | None = None) -> Figure:
    """Draw the loss of one run or several over the epochs; see `curves`. A wide range gets a log scale.

    Parameters
    ----------
    runs : History, RunRecord, several RunRecords, or mapping of name to either
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    Figure
        Of matplotlib.

    Examples
    --------
    >>> from fastconv import viz
    >>> from fastconv.train import History
    >>> fast = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.2}])
    >>> slow = History([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.7}])
    >>> figure = viz.loss({"lr 0.1": fast, "lr 0.01": slow})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['lr 0.1', 'lr 0.01']
    """
    return _over_epochs(_named(runs), ax, "loss")


def accuracy(runs: Runs, ax: Axes | None = None) -> Figure:
    """Draw the accuracy of one run or several over the epochs; see `curves`.

    Parameters
    ----------
    runs : History, RunRecord, several RunRecords, or mapping of name to either
    ax : matplotlib Axes, optional
        To draw into; a new figure by default.

    Returns
    -------
    Figure
        Of matplotlib.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastconv import viz
    >>> from fastconv.train import History
    >>> history = History([{"epoch": 1, "accuracy": 0.6}, {"epoch": 2, "accuracy": 0.8}])
    >>> figure = Figure()
    >>> left, right = figure.subplots(1, 2)
    >>> _ = viz.accuracy(history, ax=right)  # beside something of your own
    >>> right.lines[0].get_ydata().tolist()
    [0.6, 0.8]
    """
    return _over_epochs(_named(runs), ax, "accuracy")


def learning_rate_range(
    rates: Sequence[float] | Array,
    losses: Sequence[float] | Array,
    accuracies: Sequence[float] | Array | None = None,
    suggestion: float | tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw loss, and accuracy if given, against the learning rate of a range test.

    Parameters
    ----------
    rates, losses : sequence of float, same length
        Losses that are not finite, or far above the first one, lie beyond the upper edge.
    accuracies : sequence of float, optional
        Shares, on an axis of their own at the right.
    suggestion : float or pair of float, optional
        A rate, or the ends of the good range, to be marked.
    ax : Axes, optional

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If lengths differ.

    References
    ----------
    L. Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3.

    Examples
    --------
    >>> from fastconv import viz
    >>> rates, losses = [1e-3, 1e-2, 1e-1, 1.0], [2.2, 1.5, 0.9, float("inf")]
    >>> figure = viz.learning_rate_range(rates, losses, suggestion=(1e-2, 1e-1))  # of diagnose.range_test
    >>> ax = figure.axes[0]
    >>> ax.get_xlabel(), ax.get_xscale(), ax.get_ylabel()
    ('learning rate', 'log', 'loss')
    """
    x, y = floats(rates), floats(losses)
    if x.shape != y.shape or (accuracies is not None and len(accuracies) != len(x)):
        raise ValueError(f"viz.learning_rate_range: {len(x)} rates but {len(y)} losses or another number of accuracies")
    figure, ax = place(ax, 5.2, 3.5)
    dress(ax, "Learning-rate range", "learning rate", "loss")
    ax.set_xscale("log")
    if suggestion is not None:
        low, high = (suggestion, suggestion) if isinstance(suggestion, int | float) else suggestion
        text = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        if low == high:
            ax.axvline(low, color=COLOURS[2], linewidth=1.2, zorder=1)
        else:
            ax.axvspan(low, high, color=COLOURS[2], alpha=0.14, linewidth=0, zorder=0)
        ax.annotate(
            f"suggested {text}", (math.sqrt(low * high), 1), xycoords=("data", "axes fraction"), xytext=(0, -3),
            textcoords="offset points", ha="center", va="top", fontsize=SMALL, color=COLOURS[2],
        )  # fmt: skip
    mark = "." if len(x) <= 40 else None
    ax.plot(x, y, color=COLOURS[0], linewidth=1.6, marker=mark)
    _limit(ax, y)
    if accuracies is not None:
        ax.yaxis.label.set_color(COLOURS[0])
        right = ax.twinx()
        right.plot(x, floats(accuracies), color=COLOURS[1], linewidth=1.2, marker=mark)
        dress(right, "", "", "accuracy", grid=None)
        right.spines["left"].set_visible(False)
        right.yaxis.label.set_color(COLOURS[1])
        right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        right.set_ylim(0, max(1e-3, 1.05 * float(np.nanmax(floats(accuracies), initial=0))))
    return figure


def _named(runs: Runs) -> dict[str, History]:
    if isinstance(runs, History):
        runs = {"": runs}
    elif isinstance(runs, RunRecord):
        runs = {runs.name: runs}
    elif not isinstance(runs, Mapping):
        records = list(runs)
        runs = dict(zip(run_names(records), records, strict=True))
    if not runs:
        raise ValueError("viz.curves: no run to draw")
    return {name: run.history if isinstance(run, RunRecord) else run for name, run in runs.items()}


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """Name runs by their folders; with the folder above where two have one name, and a number where that is one.

    Parameters
    ----------
    runs : sequence of RunRecord

    Returns
    -------
    list of str

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import viz
    >>> from fastconv.train import RunWriter, find_runs, read_record
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("monday/mlp", "tuesday/mlp", "tuesday/lenet"):
    ...         RunWriter.start(f"{root}/{name}", {}).close()
    ...     records = [read_record(folder) for folder in find_runs(root)]
    >>> viz.run_names(records)
    ['monday/mlp', 'lenet', 'tuesday/mlp']
    """
    names = [run.name for run in runs]
    longer = [
        run.name if names.count(run.name) == 1 else f"{run.path.resolve().parent.name}/{run.name}" for run in runs
    ]
    return [name if longer.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(longer)]


def _merit(history: History) -> tuple[float, float]:
    """Best validation (or training) accuracy, then lowest loss."""

    def best(key: str, pick: Any, worst: float) -> float:
        for column in (f"validation_{key}", key):
            values = floats(history[column])
            if np.isfinite(values).any():
                return float(pick(values[np.isfinite(values)]))
        return worst

    return best("accuracy", np.max, -1.0), -best("loss", np.min, math.inf)


def _over_epochs(named: dict[str, History], ax: Axes | None, key: str) -> Figure:
    figure, ax = place(ax, 5.0, 3.5)
    dress(ax, key.capitalize(), "epoch", "")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if key == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    if len(named) == 1:
        _one(ax, next(iter(named.values())), key)
    else:
        _several(ax, named, key)
    epochs = np.concatenate([floats(history["epoch"]) for history in named.values()])
    if epochs.size and np.ptp(epochs) < 3:
        ax.set_xticks(np.unique(epochs))
        ax.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    shown = np.concatenate([floats(line.get_ydata()) for line in ax.lines] or [np.empty(0)])  # type: ignore[arg-type]
    shown = shown[np.isfinite(shown)]
    if not shown.size:
        ax.annotate("no epoch yet", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=NORMAL, color=QUIET)
    elif key == "loss" and shown.min() > 0 and shown.max() > 100 * shown.min():
        ax.set_yscale("log")
    return figure


def _one(ax: Axes, history: History, key: str) -> None:
    epochs, training, validation = (floats(history[name]) for name in ("epoch", key, f"validation_{key}"))
    ax.plot(epochs, training, color=_TRAINING, linewidth=1.4, marker=_marker(training), label="training")
    if np.isfinite(validation).any():
        ax.plot(epochs, validation, color=_VALIDATION, linewidth=1.8, marker=_marker(validation), label="validation")
        ax.fill_between(epochs, training, validation, color=QUIET, alpha=0.16, linewidth=0)
        _mark_gap(ax, epochs, training, validation, key)
    if ax.get_legend_handles_labels()[0]:
        legend(ax, loc="best")


def _mark_gap(ax: Axes, epochs: Array, training: Array, validation: Array, key: str) -> None:
    """Write at the right how far the two are apart at the last epoch that has both."""
    both = np.flatnonzero(np.isfinite(training) & np.isfinite(validation))
    if not both.size:
        return
    last = both[-1]
    gap = validation[last] - training[last]
    ax.vlines(epochs[last], *sorted((training[last], validation[last])), color=QUIET, linewidth=1.0, zorder=1)
    text = f"gap\n{100 * gap:+.1f} points" if key == "accuracy" else f"gap\n{gap:+.2g}"
    ax.annotate(
        text.replace("-", "−"), (epochs[last], (training[last] + validation[last]) / 2), xytext=(7, 0),
        textcoords="offset points", va="center", fontsize=SMALL, color=INK, linespacing=1.15, annotation_clip=False,
    )  # fmt: skip


def _several(ax: Axes, named: dict[str, History], key: str) -> None:
    best = sorted(named, key=lambda name: _merit(named[name]), reverse=True)[:_NAMED]
    if len(named) <= _NAMED:
        best = list(named)
    for name in [*(name for name in named if name not in best), *best]:
        history, known = named[name], name in best
        colour = COLOURS[best.index(name) % len(COLOURS)] if known else GRID
        epochs, training, validation = (floats(history[column]) for column in ("epoch", key, f"validation_{key}"))
        alone = not np.isfinite(validation).any()
        main = training if alone else validation
        style = "-" if not known or best.index(name) < len(COLOURS) else "-."
        label = short(name) if known else None
        ax.plot(
            epochs, main, color=colour, linewidth=1.6 if known else 0.8, linestyle=style, marker=_marker(main),
            label=label, zorder=3 if known else 1,
        )  # fmt: skip
        if known and not alone:
            ax.plot(epochs, training, color=colour, linewidth=0.9, linestyle=(0, (3, 2)), marker=_marker(training))
    if any(np.isfinite(floats(history[f"validation_{key}"])).any() for history in named.values()):
        ax.plot([], [], color=INK, linewidth=1.6, label="validation")
        ax.plot([], [], color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label="training")
    if len(named) > len(best):
        ax.plot([], [], color=GRID, linewidth=1.6, label=f"{len(named) - len(best)} more runs")
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _marker(values: Array) -> str | None:
    """A dot where there would be no line: a figure without finite neighbours."""
    return "." if np.isfinite(values).sum() <= 2 else None


def _limit(ax: Axes, losses: Array) -> None:
    """Cut the upper end at three times the first loss, where a run counts as exploded."""
    finite = losses[np.isfinite(losses)]
    if finite.size and finite.max() > 3 * finite[0] > 0:
        low = min(0.0, float(finite.min()))
        ax.set_ylim(low, 3 * finite[0])
