"""Pictures of a data set's statistics and of what a net gets wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from fastconv.data import Standardizer
from fastconv.functional._check import as_labels
from fastconv.train.metrics import r2
from fastconv.viz._style import (
    AMOUNT,
    COLOURS,
    INK,
    NORMAL,
    QUIET,
    SMALL,
    Array,
    Axes,
    Figure,
    Picture,
    bare,
    dress,
    photo,
    place,
    scale,
    short,
)  # fmt: skip


def mean_and_deviation(images: Array | Standardizer) -> Figure:
    """Draw the mean image and the deviation of each pixel, over a training set.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W), or Standardizer
        The latter as fitted per pixel; deviations of several channels are averaged.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If a standardizer has one figure per channel and so no image.

    Examples
    --------
    >>> from fastconv import data, viz
    >>> figure = viz.mean_and_deviation(data.load("digits").train.images)
    >>> [ax.get_title(loc="left") for ax in figure.axes[:2]]
    ['mean', 'deviation']
    """
    statistics = images if isinstance(images, Standardizer) else Standardizer.fit(images, "pixel")
    mean, deviation = statistics.mean, statistics.deviation
    if statistics.per == "channel" and isinstance(images, Standardizer):
        text = f"one figure per channel, {mean.shape}: fit the standardizer per pixel"
        raise ValueError(f"viz.mean_and_deviation: {text}")
    figure = Picture(6.2, 2.8)
    left, right = figure.subplots(1, 2)
    if len(mean) == 3:
        bare(left, "mean")
        left.imshow(np.clip(mean / max(255.0 if mean.max() > 1 else 1.0, mean.max()), 0, 1).transpose(1, 2, 0))
    else:
        bare(left, "mean")
        scale(figure, left.imshow(mean.mean(axis=0), cmap="gray", interpolation="nearest"), left)
    bare(right, "deviation" if len(mean) == 1 else "deviation, mean of the channels")
    image = right.imshow(deviation.mean(axis=0), cmap=AMOUNT, vmin=0, interpolation="nearest")
    scale(figure, image, right)
    return figure


def confusion(counts: Array, classes: Sequence[str] | None = None, worst: int = 3, ax: Axes | None = None) -> Figure:
    """Draw a confusion matrix; the hits are left pale, so that the colours are those of the mistakes.

    Parameters
    ----------
    counts : ndarray of int, shape (classes, classes)
        ``counts[label, prediction]``, as `fastconv.train.evaluate` returns.
    classes : sequence of str, optional
    worst : int
        So many of the most frequent mistakes are framed and listed below.
    ax : Axes, optional

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If the matrix is not square, or has another number of classes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> figure = viz.confusion(np.array([[9, 1], [3, 7]]), ["cat", "dog"])
    >>> print(figure.axes[0].get_xlabel())
    taken for
    most often: dog as cat (3×), cat as dog (1×)
    """
    counts = np.asarray(counts)
    n = len(counts)
    if counts.shape != (n, n) or n == 0 or (classes is not None and len(classes) != n):
        raise ValueError(f"viz.confusion: counts {counts.shape} and {n if classes is None else len(classes)} classes")
    names = [short(name, 14) for name in classes] if classes else [str(i) for i in range(n)]
    side = min(max(3.4, 0.36 * n), 12.0)
    figure, ax = place(ax, side + 0.5 + 0.09 * max(map(len, names)), side + 1.0)
    wrong = counts * (1 - np.eye(n, dtype=counts.dtype))
    total, right = int(counts.sum()), int(np.trace(counts))
    accuracy = f": {100 * right / total:.2f} % of {total:,} right" if total else ""
    dress(ax, f"Confusion{accuracy}", "taken for", "class", grid=None)
    image = ax.imshow(wrong, cmap=AMOUNT, vmin=0, vmax=max(1, int(wrong.max())), interpolation="nearest")
    step = max(1, n // 40)
    long = max(map(len, names)) > 3
    ax.set_xticks(range(0, n, step), names[::step], rotation=45 if long else 0, ha="right" if long else "center")
    if long:
        for label in ax.get_xticklabels():
            label.set_rotation_mode("anchor")
    ax.set_yticks(range(0, n, step), names[::step])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if n <= 20:
        _write_counts(ax, counts, int(wrong.max()))
    listed = _frame_worst(ax, wrong, names, worst)
    if listed:
        ax.set_xlabel(f"taken for\n{listed}", fontsize=NORMAL, color=INK, linespacing=1.4)
    if n > 20:
        scale(figure, image, ax, "mistakes")
    return figure


def _write_counts(ax: Axes, counts: Array, top: int) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            light = row != column and count > 0.55 * top
            colour = QUIET if row == column else "white" if light else INK
            ax.text(column, row, str(count), ha="center", va="center", fontsize=6.5, color=colour)


def _frame_worst(ax: Axes, wrong: Array, names: Sequence[str], worst: int) -> str:
    order = np.argsort(-wrong, axis=None, kind="stable")[:worst]
    listed = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.4))
            listed.append(f"{names[row]} as {names[column]} ({wrong[row, column]}×)")
    between = ", " if max(map(len, names)) <= 3 else "\n"
    return f"most often:{between[-1]}{between.join(listed)}" if listed else ""


def mistakes(
    images: Array, labels: Array, scores: Array, classes: Sequence[str] | None = None, count: int = 24
) -> Figure:
    """Draw the images that a net is most wrong about: those whose class it holds least likely.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W)
        As a person sees them.
    labels : ndarray of int, shape (N,)
    scores : ndarray, shape (N, classes)
        The net's outputs, before softmax.
    classes : sequence of str, optional
    count : int
        How many are drawn at most.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import data, viz
    >>> digits = data.load("digits")
    >>> images, labels = digits.test
    >>> scores = np.eye(10)[labels // 2 * 2] * 5  # a net that takes odd digits for those before them
    >>> figure = viz.mistakes(images, labels, scores, digits.classes, count=3)
    >>> [ax.get_title() for ax in figure.axes]
    ['9 as 8  94 %', '9 as 8  94 %', '9 as 8  94 %']
    """
    if not len(images) == len(labels) == len(scores):
        raise ValueError(f"viz.mistakes: {len(images)} images, {len(labels)} labels, {len(scores)} rows of scores")
    labels = as_labels("viz.mistakes", "labels", np.asanyarray(labels))
    with np.errstate(all="ignore"):
        shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
        chances = np.exp(shifted)
        chances /= chances.sum(axis=1, keepdims=True)
    guesses = scores.argmax(axis=1)
    own = chances[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(guesses != labels)
    shown = wrong[np.argsort(own[wrong], kind="stable")][:count]
    columns = min(8, max(len(shown), 1))
    rows = max(1, -(-len(shown) // columns))
    figure = Picture(0.3 + 1.1 * columns, 0.4 + 1.25 * rows)
    figure.suptitle(
        f"{len(wrong):,} of {len(labels):,} wrong" + (", the worst of them" if len(wrong) > len(shown) else ""),
        x=0.01, ha="left", fontsize=NORMAL, color=INK,
    )  # fmt: skip
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels[len(shown) :]:
        ax.set_axis_off()
    names = [short(name, 12) for name in classes or map(str, range(scores.shape[1]))]
    layout = "{}, taken for\n{} {:.0f} %" if max(map(len, names)) > 2 else "{} as {}  {:.0f} %"
    for ax, i in zip(panels, shown, strict=False):
        photo(ax, images[i])
        caption = layout.format(names[labels[i]], names[guesses[i]], 100 * chances[i, guesses[i]])
        ax.set_title(caption, loc="center", fontsize=SMALL - 1, color=INK)
    return figure


def predictions(true: Array, predicted: Array, name: str = "") -> Figure:
    """Draw predicted numbers against the true ones, and how their errors are spread.

    Points on the line are right. Errors that lean to one side, or grow with the number, show as such.

    Parameters
    ----------
    true, predicted : ndarray, shape (N,), N >= 1
    name : str
        Of what was predicted.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If the arrays differ in shape, are not (N,), or hold nothing finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> true = np.array([1.0, 2.0, 3.0, 4.0])
    >>> figure = viz.predictions(true, true + [0.1, -0.2, 0.0, 0.3], "price")
    >>> [ax.get_title(loc="left") for ax in figure.axes], [ax.get_xlabel() for ax in figure.axes]
    (['price: r2 0.972', 'Errors: mean 0.05, of size 0.15'], ['true', 'predicted - true'])
    """
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"viz.predictions: true {true.shape} and predicted {predicted.shape} must be (N,) both")
    known = np.isfinite(true) & np.isfinite(predicted)
    if not known.any():
        raise ValueError("viz.predictions: no pair of finite numbers")
    true, predicted = true[known], predicted[known]
    errors = predicted - true
    figure = Picture(7.6, 3.6)
    left, right = figure.subplots(1, 2)
    dress(left, f"{short(name, 30)}: r2 {r2(true, predicted):.3f}" if name else f"r2 {r2(true, predicted):.3f}",
          "true", "predicted")  # fmt: skip
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    left.plot(ends, ends, color=QUIET, linewidth=1, zorder=1)
    left.scatter(true, predicted, s=9, color=COLOURS[0], alpha=max(0.2, min(0.8, 200 / len(true))), linewidths=0)
    dress(right, f"Errors: mean {errors.mean():.3g}, of size {np.abs(errors).mean():.3g}", "predicted - true", "rows")
    right.hist(errors, bins=min(40, max(5, len(errors) // 8)), color=COLOURS[0], alpha=0.8)
    right.axvline(0, color=QUIET, linewidth=1)
    return figure
