"""What augmentation does to one uint8 image (H, W, C), in whole numbers: the same bits on any machine.

Cosines, roots and powers may differ in their last place from one machine to another, so they are rounded to multiples
of 1 / 65536 before they count.
"""

import math

import numpy as np

ONE = 1 << 16
_GREY = np.array([299, 587, 114])  # thousandths of red, green and blue (ITU-R BT.601)


def window(height: int, width: int, area: float, ratio: float, down: float, right: float, degrees: float) -> list[int]:
    """Return the map from the pixels of an image to those of a part of it, for `resample`.

    Parameters
    ----------
    height, width : int
    area : float
        Share of the image that the part has, in (0, 1].
    ratio : float
        Of its width to its height, as multiple of the image's. Neither side gets longer than the image's.
    down, right : float
        In [0, 1]: where the part lies, from the one border to the other.
    degrees : float
        By which what is seen turns, counterclockwise, about the middle of the part.

    Returns
    -------
    list of int
        x and y of the middle, then what x and y of the source change by along a row, and down a column; 65536ths.
    """
    across, along = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    x = (width - 1) / 2 + (right - 0.5) * (1 - across) * width
    y = (height - 1) / 2 + (down - 0.5) * (1 - along) * height
    turn = math.radians(degrees)
    cosine, sine = math.cos(turn), math.sin(turn)
    steps = (x, y, across * cosine, across * sine, -along * sine, along * cosine)
    return [round(step * ONE) for step in steps]


def resample(image: np.ndarray, steps: list[int], fill: np.ndarray) -> np.ndarray:
    """Return an image looked at through a `window`, bilinearly; beyond the border is ``fill`` (C,)."""
    height, width, channels = image.shape
    padded = np.empty((height + 4, width + 4, channels), np.int32)
    padded[...] = fill
    padded[2:-2, 2:-2] = image
    seen = _seen(height, width, steps)
    places = [np.clip((at >> 16) + 2, 0, size + 2) for at, size in seen]
    down, right = (((at >> 8) & 255).astype(np.int32)[..., np.newaxis] for at, _ in seen)
    corner, stride = places[0] * (width + 4) + places[1], width + 4
    flat = padded.reshape(-1, channels)
    above = flat[corner] * (256 - right) + flat[corner + 1] * right
    below = flat[corner + stride] * (256 - right) + flat[corner + stride + 1] * right
    return ((above * (256 - down) + below * down + (1 << 15)) >> 16).astype(np.uint8)


def nearest(mask: np.ndarray, steps: list[int], fill: int) -> np.ndarray:
    """Return a mask (H, W) looked at through a `window`: each pixel as the nearest one is; beyond it is ``fill``."""
    height, width = mask.shape
    padded = np.full((height + 2, width + 2), fill, mask.dtype)
    padded[1:-1, 1:-1] = mask
    y, x = (np.clip(((at + (1 << 15)) >> 16) + 1, 0, size + 1) for at, size in _seen(height, width, steps))
    return padded[y, x]


def _seen(height: int, width: int, steps: list[int]) -> list[tuple[np.ndarray, int]]:
    """Return y of the source at each pixel (H, W), in 65536ths, and the height; then x and the width."""
    x, y, xx, yx, xy, yy = steps
    columns = 2 * np.arange(width, dtype=np.int64) - (width - 1)  # twice the distance from the middle
    rows = 2 * np.arange(height, dtype=np.int64)[:, np.newaxis] - (height - 1)
    return [
        (middle + ((across * columns + along * rows) >> 1), size)
        for middle, across, along, size in ((y, yx, yy, height), (x, xx, xy, width))
    ]


def recolour(image: np.ndarray, brightness: int, contrast: int, saturation: int) -> np.ndarray:
    """Return an image with its values, distances from its mean grey, and from each pixel's grey, scaled by 256ths."""
    pixels = image.astype(np.int32)
    if brightness != 256:
        pixels = _between(pixels * brightness)
    if contrast != 256:
        grey = _grey(pixels)
        mean = (2 * int(grey.sum()) + grey.size) // (2 * grey.size)
        pixels = _between(pixels * contrast + mean * (256 - contrast))
    if saturation != 256:
        pixels = _between(pixels * saturation + _grey(pixels)[..., np.newaxis] * (256 - saturation))
    return pixels.astype(np.uint8)


def _grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[-1] == 3:
        return (pixels @ _GREY + 500) // 1000
    return pixels.sum(axis=-1) // pixels.shape[-1]


def _between(scaled: np.ndarray) -> np.ndarray:
    return np.clip((scaled + 128) >> 8, 0, 255)
