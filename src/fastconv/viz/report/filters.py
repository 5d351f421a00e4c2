"""First-layer filters as one small PNG, a pixel per weight: the page enlarges it. No imaging package is needed."""

import base64
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.serialize.arrays import layout, opened, read

MOST = 64
"""Filters shown at most."""


def filter_sheet(model: Path, image_shape: tuple[int, ...] | None = None) -> dict[str, Any] | None:
    """Return the first layer's filters of a model file as a sheet of pictures.

    Parameters
    ----------
    model : Path
        What `fastconv.serialize.save` wrote. Only the tensor shown is read.
    image_shape : tuple of int, optional
        (C, H, W) of the images, so that a first layer that is linear shows its weights as templates.

    Returns
    -------
    dict or None
        ``uri`` (a PNG, "data:image/png;base64,..."), ``width`` and ``height`` in pixels, ``layer`` (name of the
        tensor), ``shape``, ``shown``; None where the model has no layer to show.

    Raises
    ------
    ValueError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    with opened(model) as file:
        names = sorted(file.keys(), key=_natural)
        shapes = {name: layout(model, file, name)[0] for name in names}
        name = next((name for name in names if len(shapes[name]) in (2, 4)), None)
        if name is None:
            return None
        shape = shapes[name]
        if len(shape) == 2:
            if image_shape is None or len(image_shape) != 3 or math.prod(image_shape) != shape[1]:
                return None
            shape = (shape[0], *image_shape)
        weight = read(model, file, name).reshape(shape)
    if not np.isfinite(weight).all() or weight.size == 0 or max(shape[2:]) > 64:
        return None
    if shape[1] != 3:  # only three channels make colours; others are grey pictures of their own
        weight = weight.reshape(-1, 1, *shape[2:])
    sheet = _sheet(weight[:MOST])
    uri = png_uri(sheet)
    return {
        "uri": uri, "width": sheet.shape[1], "height": sheet.shape[0], "layer": name,
        "shape": list(shapes[name]), "shown": f"{min(MOST, len(weight))} of {len(weight)}",
    }  # fmt: skip


def png_uri(image: np.ndarray) -> str:
    """Return (H, W, 4) bytes, red green blue alpha, as a PNG file in an address that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(_png(image)).decode("ascii")


def _png(image: np.ndarray) -> bytes:
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)  # 0: no row filter

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows.tobytes())), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _sheet(weight: np.ndarray) -> np.ndarray:
    """(K, C, R, S) filters side by side, a transparent pixel between; each has its own contrast around grey."""
    count, channels, height, width = weight.shape
    across = math.ceil(math.sqrt(count * (height + 1) / (width + 1)))
    down = math.ceil(count / across)
    sheet = np.zeros((down * (height + 1) - 1, across * (width + 1) - 1, 4), np.uint8)
    for i, picture in enumerate(weight):
        top, left = i // across * (height + 1), i % across * (width + 1)
        scale = float(np.abs(picture).max()) or 1.0
        levels = np.rint(127.5 + 127.5 * picture / scale).astype(np.uint8).transpose(1, 2, 0)
        sheet[top : top + height, left : left + width, :3] = levels if channels == 3 else levels[:, :, :1]
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet


def _natural(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
