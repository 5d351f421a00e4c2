"""Many small images as one array, and weights as such images. Plain NumPy."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


def mosaic(tiles: Array, columns: int | None = None, gap: int = 1, zoom: int | None = None) -> Array:
    """Lay tiles out in rows, ``gap`` pixels of NaN between them.

    Parameters
    ----------
    tiles : ndarray, shape (N, H, W) or (N, H, W, 3), N >= 1
    columns : int, optional
        About square by default, without an open last row where possible.
    gap : int
    zoom : int, optional
        Times that each pixel is repeated both ways; by default so often that a tile has about 24 of them, for
        joints that are thin beside it.

    Returns
    -------
    ndarray of the floating type of `tiles` (float32 for others), 2-d or with a last axis of 3

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> tiles = np.arange(4.0)[:, np.newaxis, np.newaxis] * np.ones((4, 1, 2))  # four of one row and two columns
    >>> viz.mosaic(tiles, columns=2, zoom=1)
    array([[ 0.,  0., nan,  1.,  1.],
           [nan, nan, nan, nan, nan],
           [ 2.,  2., nan,  3.,  3.]])
    """
    if zoom is None:
        zoom = max(1, round(24 / max(tiles.shape[1:3])))
    tiles = tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)
    n, height, width = tiles.shape[:3]
    if columns is None:
        square = max(1, math.ceil(math.sqrt(n * height / width)))
        columns = next((count for count in range(square, 2 * square) if n % count == 0), square)
    columns = min(columns, n)
    rows = -(-n // columns)
    kind = tiles.dtype if tiles.dtype.kind == "f" else np.dtype(np.float32)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles.shape[3:])
    sheet = np.full(shape, np.nan, kind)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def bound(values: Array) -> float:
    """Return the largest finite magnitude, 1 where there is none: the ends of a symmetric scale."""
    magnitudes = np.abs(values[np.isfinite(values)])
    return float(magnitudes.max()) if magnitudes.size and magnitudes.max() > 0 else 1.0


def colours(values: Array) -> Array:
    """Return signed values in [-b, b], b their `bound`, as shares in [0, 1]: 0 is mid-grey, NaN white."""
    return np.where(np.isfinite(values), 0.5 + values / (2 * bound(values)), 1.0)


def as_tiles(weight: Array) -> Array:
    """Return filters (K, C, R, S) as tiles: in colour if C is 3, else one for each of the K * C planes."""
    if weight.shape[1] == 3:
        return weight.transpose(0, 2, 3, 1)
    return weight.reshape(-1, *weight.shape[2:])


def as_picture(image: Array) -> Array:
    """Return an image (C, H, W) as (H, W), or (H, W, 3) scaled to 0..1; other channel counts are averaged."""
    if len(image) != 3:
        return image[0] if len(image) == 1 else image.mean(axis=0)
    if image.dtype == np.uint8:
        return image.transpose(1, 2, 0) / 255
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    scaled = (image - low) / max(high - low, np.finfo(np.float32).tiny)
    return np.where(np.isfinite(scaled), scaled, 1.0).transpose(1, 2, 0)
