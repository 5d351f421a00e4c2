"""What a test told, from test.json to the page: classes, confusions, the worst mistakes; or predicted numbers."""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.schema import read
from fastconv.train.shapes import TEST
from fastconv.viz.report.filters import png_uri

MOST = 30
"""Classes up to which the page shows all confusions."""
_LONGEST = 16 << 20  # bytes of the file


def sheet_of(path: Path) -> dict[str, Any]:
    """Return what the page shows of a test.json.

    Raises
    ------
    ValueError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    told = read(path, TEST, longest=_LONGEST)
    if "target" in told:
        return _numbers(path, told)
    classes, confusion = told["classes"], told["confusion"]
    count = len(classes)
    square = confusion is None or (len(confusion) == count and all(len(row) == count for row in confusion))
    if len(told["by_class"]) != count or not square:
        raise ValueError(f"{path}: {count} classes, but figures of another number")
    samples = [found.get("samples", found.get("images")) for found in told["by_class"]]
    if None in samples:
        raise ValueError(f"{path}: by_class does not say how many samples each class has")
    rows = [
        [name, count, found["right"], found["precision"], found["recall"], found.get("iou")]
        for name, count, found in zip(classes, samples, told["by_class"], strict=True)
    ]
    return {
        "rows": rows,
        "samples": "pixels" if told.get("per_pixel", False) else "rows" if told.get("noun") == "row" else "images",
        "confusion": confusion if count <= MOST else None,
        "worst": [_picture(path, mistake, classes) for mistake in told["worst"]],
    }


def _numbers(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    true, predicted = told["true"], told["predicted"]
    if len(true) != len(predicted):
        raise ValueError(f"{path}: {len(true)} true numbers, but {len(predicted)} predicted")
    digits = [[float(f"{value:.5g}") for value in column] for column in (true, predicted)]
    return {
        "target": told["target"], "count": told["rows"], "figures": told["figures"],
        "true": digits[0], "predicted": digits[1],
        "worst": [[one["image"], one["true"], one["predicted"]] for one in told["worst"]],
    }  # fmt: skip


def _picture(path: Path, mistake: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    height, width, channels = mistake["shape"]
    try:
        pixels = base64.b64decode(mistake["pixels"].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"{path}: the pixels of an image are not base64: {error}") from error
    if max(mistake["label"], mistake["taken"]) >= len(classes):
        pair = f"{mistake['label']} and {mistake['taken']}"
        raise ValueError(f"{path}: a mistake between classes {pair} of {len(classes)}")
    if channels not in (1, 3) or len(pixels) != math.prod(mistake["shape"]):
        raise ValueError(f"{path}: {len(pixels)} bytes for an image of {height}×{width}×{channels}")
    image = np.full((height, width, 4), 255, np.uint8)
    image[..., :3] = np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
    return {
        "uri": png_uri(image),
        "width": width, "height": height,
        "image": mistake["image"], "label": classes[mistake["label"]], "taken": classes[mistake["taken"]],
        "chance": mistake["chance"],
    }  # fmt: skip
