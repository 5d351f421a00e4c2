"""The one look of all pictures, set on each axes: matplotlib's global settings are neither read for it nor changed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from fastconv.paths import printable
from fastconv.viz._mosaic import as_picture, bound

Array = np.ndarray

# M. Okabe and K. Ito, "Color universal design" (2008), without the yellow that fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4B9A")
INK, QUIET, GRID, GROUND = "#262626", "#8C8C8C", "#E8E8E8", "#F4F4F4"
SMALL, NORMAL = 8.0, 9.5

# From nothing to much, and from negative through nothing to positive: both tell apart in grey and for the
# colour-blind, and let nothing look like the paper. NaN, and so the joints of a mosaic, is grey.
def _colours(name: str, *stops: str) -> Colormap:
    return LinearSegmentedColormap.from_list(name, stops).with_extremes(bad="#D4D4D4")


AMOUNT = _colours("amount", "#FFFFFF", "#9CC9E1", "#2F7FB5", "#08306B")
SIGNED = _colours("signed", "#8C3B00", "#E59A5A", "#FFFFFF", "#6BAED6", "#08457E")


class Picture(Figure):
    """A figure that draws itself by Agg and that a notebook shows.

    Parameters
    ----------
    width, height : float
        Inches.

    Examples
    --------
    >>> from fastconv import viz
    >>> figure = viz.Picture(4, 3)
    >>> ax = figure.add_subplot()
    >>> _ = ax.plot([1, 2, 3], color=viz.COLOURS[0])
    >>> figure._repr_png_()[1:4]  # what a notebook asks for
    b'PNG'
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def place(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """Return the figure and axes to draw on: those of ``ax``, or new ones."""
    if ax is None:
        picture = Picture(width, height)
        return picture, picture.add_subplot()
    figure: Any = ax.figure
    while not isinstance(figure, Figure):  # an axes of a subfigure
        figure = figure.figure
    return figure, ax


def dress(
    ax: Axes, title: str = "", x: str = "", y: str = "", grid: Literal["x", "y", "both"] | None = "y"
) -> None:
    """Give a chart its frame, labels and grid (``grid``: the axes that have lines)."""
    head(ax, title)
    ax.set_xlabel(x, fontsize=NORMAL, color=INK)
    ax.set_ylabel(y, fontsize=NORMAL, color=INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(QUIET)
        ax.spines[side].set_linewidth(0.8)
    ax.tick_params(which="both", labelsize=SMALL, labelcolor=INK, color=QUIET, width=0.8)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, which="major", axis=grid, color=GRID, linewidth=0.7)


def bare(ax: Axes, title: str = "") -> None:
    """Leave nothing round an image but its title."""
    head(ax, title)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def head(ax: Axes, title: str) -> None:
    """Set the title of an axes."""
    ax.set_title(title, loc="left", fontsize=NORMAL, color=INK)


def legend(ax: Axes, **options: Any) -> None:
    """Add a legend without a frame."""
    ax.legend(**{"frameon": False, "fontsize": SMALL, "labelcolor": INK, "handlelength": 1.6, **options})


def scale(figure: Figure, image: Any, ax: Any, label: str = "") -> None:
    """Add a slim colour bar."""
    bar = figure.colorbar(image, ax=ax, fraction=0.035, pad=0.015, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, labelcolor=INK, color=QUIET, width=0.8)
    bar.set_label(label, fontsize=SMALL, color=INK)


def photo(ax: Axes, image: Array, title: str = "") -> None:
    """Draw an image (C, H, W) as a person sees it."""
    bare(ax, title)
    ax.imshow(as_picture(image), cmap="gray", interpolation="nearest")


def values(ax: Axes, sheet: Array, aspect: Literal["equal", "auto"] = "equal", limit: float | None = None) -> AxesImage:
    """Draw a 2-d array by its values, white being 0: one hue where none is negative, else two."""
    limit = limit or bound(sheet)
    signed = bool((sheet < 0).any())
    return ax.imshow(
        sheet, cmap=SIGNED if signed else AMOUNT, vmin=-limit if signed else 0, vmax=limit, aspect=aspect,
        interpolation="nearest",
    )  # fmt: skip


def floats(values: Sequence[Any] | Array) -> Array:
    """Return figures as float64, None as NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def short(name: str, length: int = 28) -> str:
    """Cut a long name in its middle; a leading underscore would hide it from legends, ``$`` start a formula."""
    name = printable(name)
    if len(name) > length:
        half = (length - 1) // 2
        name = f"{name[:half]}…{name[-half:]}"
    return ("\u200b" + name if name.startswith("_") else name).replace("$", r"\$")
