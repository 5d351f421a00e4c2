"""Other sizes of images: the usual ways by kernels of their own, every other one as a matrix along each axis."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import functional as F
from fastconv.graph.operation import Array
from fastconv.onnx.operators._registry import integers, operator, refuse, reshaped

if TYPE_CHECKING:
    from fastconv.onnx.model import Pass
    from fastconv.onnx.reading import Step


@operator("Resize", "Upsample")
def _resize(
    run: "Pass", step: "Step", x: Any, roi: Any = None, scales: Any = None, sizes: Any = None
) -> Any:  # fmt: skip
    older = step.kind == "Upsample" or run.net.opset < 11
    if older:
        roi, scales = None, roi
    if scales is None and "scales" in step.settings:
        scales = np.asarray(step.settings["scales"])
    axes = [a % x.ndim for a in step.settings.get("axes") or range(x.ndim)]
    by_size = sizes is not None and sizes.size > 0
    factors = _factors(step, x.shape, axes, None if by_size else scales, sizes)
    size = _sizes(step, x.shape, axes, factors, sizes if by_size else None)
    mode = step.settings.get("mode", "nearest")
    coordinates = step.settings.get("coordinate_transformation_mode", "asymmetric" if older else "half_pixel")
    rounding = step.settings.get("nearest_mode", "floor" if older else "round_prefer_floor")
    if size == x.shape and coordinates != "tf_crop_and_resize":
        return x
    antialias = bool(step.settings.get("antialias", 0))
    if x.ndim == 4 and size[:2] == x.shape[:2] and not antialias:
        whole = all(b % a == 0 for a, b in zip(x.shape[2:], size[2:], strict=True))
        if mode == "nearest":
            same = coordinates == "asymmetric" and rounding == "floor"
            # with whole factors, the middle of a pixel rounds to the same neighbour
            middle = coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
            same = same or (whole and middle and rounding.startswith("round_prefer"))
            if same and (by_size or whole):
                return F.interpolate(x, size[2:])
            if same:
                return F.interpolate(x, None, tuple(factors[2:]))
        single = coordinates == "pytorch_half_pixel" and 1 in size[2:]
        uneven = coordinates == "align_corners" and any(
            n * f != m for n, f, m in zip(x.shape[2:], factors[2:], size[2:], strict=True)
        )  # whose corners are not the last pixels
        between = ("half_pixel", "align_corners", "pytorch_half_pixel")
        if mode == "linear" and coordinates in between and not (single or (uneven and not by_size)):
            aligned = coordinates == "align_corners"
            if aligned or by_size:
                return F.interpolate(x, size[2:], None, "bilinear", aligned)
            return F.interpolate(x, None, tuple(factors[2:]), "bilinear", False)
    beyond = float(step.settings.get("extrapolation_value", 0.0))
    outside = np.zeros(1, bool)
    for axis in range(x.ndim):
        part = (0.0, 1.0)
        if coordinates == "tf_crop_and_resize" and axis in axes:
            where = np.asarray(roi).reshape(-1)
            part = (float(where[axes.index(axis)]), float(where[axes.index(axis) + len(axes)]))
        places, gone = _places(coordinates, x.shape[axis], size[axis], factors[axis], part)
        matrix = _matrix(step, mode, rounding, x.shape[axis], places, min(factors[axis], 1.0) if antialias else 1.0)
        matrix[gone] = 0
        outside = outside[..., np.newaxis] | gone
        if matrix.shape != (x.shape[axis],) * 2 or (matrix != np.eye(len(matrix))).any():
            x = _along(x, matrix, axis)
    if outside.any() and beyond:
        x = F.add(x, np.where(outside.reshape(x.shape), beyond, 0).astype(x.dtype))
    return x


def _factors(step: "Step", shape: Sequence[int], axes: Sequence[int], scales: Any, sizes: Any) -> list[float]:
    """Return the factor of each axis, as asked for or as sizes give it."""
    factors = [1.0] * len(shape)
    if scales is not None:
        found = [float(f) for f in np.asarray(scales).reshape(-1)]
    else:
        wanted = integers(sizes)
        found = [b / shape[a] for a, b in zip(axes, wanted, strict=True)]
        policy = step.settings.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            found = [min(found) if policy == "not_larger" else max(found)] * len(found)
    for axis, factor in zip(axes, found, strict=True):
        factors[axis] = factor
    return factors


def _sizes(
    step: "Step", shape: Sequence[int], axes: Sequence[int], factors: Sequence[float], sizes: Any
) -> tuple[int, ...]:
    if sizes is None:
        return tuple(math.floor(n * f) for n, f in zip(shape, factors, strict=True))
    size = list(shape)
    for axis, wanted in zip(axes, integers(sizes), strict=True):
        kept = step.settings.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        size[axis] = math.floor(shape[axis] * factors[axis] + 0.5) if kept else wanted
    return tuple(size)


def _places(
    coordinates: str, inputs: int, outputs: int, factor: float, part: tuple[float, float]
) -> tuple[Array, Array]:
    """Return where in an axis each output lies, and whether that is outside of the part that has pixels."""
    i, length = np.arange(outputs, dtype=np.float64), inputs * factor
    match coordinates:
        case "half_pixel":
            places = (i + 0.5) / factor - 0.5
        case "pytorch_half_pixel":
            places = (i + 0.5) / factor - 0.5 if length != 1 else i - 0.5
        case "half_pixel_symmetric":
            places = inputs / 2 * (1 - outputs / length) + (i + 0.5) / factor - 0.5
        case "align_corners":
            places = i * ((inputs - 1) / (length - 1)) if length != 1 else i * 0
        case "asymmetric":
            places = i / factor
        case "tf_crop_and_resize":
            first, last = (edge * (inputs - 1) for edge in part)
            places = first + i * ((last - first) / (length - 1)) if length != 1 else i + (first + last) / 2
            return places, (places < 0) | (places > inputs - 1)
        case _:
            refuse(f"Resize with coordinates {coordinates!r}")
    return places, np.zeros(outputs, bool)


def _matrix(step: "Step", mode: str, rounding: str, inputs: int, places: Array, stretch: float) -> Array:
    """Return the weights (outputs, inputs) of an axis; pixels beyond an end count as that at the end.

    R. Keys, "Cubic convolution interpolation for digital image processing", 1981, has the cubic; ``stretch`` below 1
    widens the window, so that no pixel is passed over.
    """
    matrix = np.zeros((len(places), inputs))
    rows = np.arange(len(places))
    if mode == "nearest":
        if rounding not in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
            refuse(f"Resize with nearest_mode {rounding!r}")
        half = 0.5 if rounding.startswith("round") else 0.0
        down = rounding in ("floor", "round_prefer_ceil")
        pixels = np.floor(places + half) if down else np.ceil(places - half)
        matrix[rows, np.clip(pixels.astype(int), 0, inputs - 1)] = 1
        return matrix
    if mode not in ("linear", "cubic"):
        refuse(f"Resize with mode {mode!r}")
    cubic, reach = float(step.settings.get("cubic_coeff_a", -0.75)), (1 if mode == "linear" else 2) / stretch
    for row, place in zip(rows, places, strict=True):
        pixels = np.arange(math.ceil(place - reach), math.floor(place + reach) + 1)
        t = np.abs(pixels - place) * stretch
        if mode == "linear":
            weights = np.maximum(0, 1 - t)
        else:
            near = ((cubic + 2) * t - (cubic + 3)) * t**2 + 1
            weights = np.where(t <= 1, near, ((cubic * t - 5 * cubic) * t + 8 * cubic) * t - 4 * cubic)
        if step.settings.get("exclude_outside", 0):
            weights[(pixels < 0) | (pixels >= inputs)] = 0
        np.add.at(matrix[row], np.clip(pixels, 0, inputs - 1), weights / weights.sum())
    return matrix


def _along(x: Any, matrix: Array, axis: int) -> Any:
    """Multiply an axis by a matrix (outputs, inputs)."""
    order = [a for a in range(x.ndim) if a != axis] + [axis]
    moved = F.permute(x, *order) if axis != x.ndim - 1 else x
    y = F.linear(F.reshape(moved, -1, x.shape[axis]), matrix.astype(x.dtype))
    y = reshaped(y, (*moved.shape[:-1], len(matrix)))
    return F.permute(y, *np.argsort(order).tolist()) if axis != x.ndim - 1 else y
