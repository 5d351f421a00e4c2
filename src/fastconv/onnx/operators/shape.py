"""What moves elements: shapes, slices, padding, other sizes."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import functional as F
from fastconv.onnx.operators._registry import (
    integers,
    operator,
    refuse,
    reshaped,
)

if TYPE_CHECKING:
    from fastconv.onnx.model import Pass
    from fastconv.onnx.reading import Step


# ---- shapes


@operator("Reshape")
def _reshape(run: "Pass", step: "Step", x: Any, shape: Any) -> Any:
    zeros = bool(step.settings.get("allowzero", 0))
    target = [int(n) for n in shape.reshape(-1)]
    for i, n in enumerate(target):
        if n == 0 and not zeros:
            if i >= x.ndim:
                raise ValueError(f"an array of shape {x.shape} cannot have shape {tuple(target)}")
            target[i] = x.shape[i]
    known = math.prod(n for n in target if n != -1)
    if -1 in target:
        if target.count(-1) > 1 or not known or math.prod(x.shape) % known:
            raise ValueError(f"an array of shape {x.shape} cannot have shape {tuple(target)}")
        target[target.index(-1)] = math.prod(x.shape) // known
    return reshaped(x, target)


@operator("Tile")
def _tile(run: "Pass", step: "Step", x: Any, repeats: Any) -> Any:
    for axis, times in enumerate(integers(repeats)):
        if times < 1:
            refuse(f"Tile by {integers(repeats)}")
        x = F.cat([x] * times, axis) if times > 1 else x
    return x


@operator("Flatten")
def _flatten(run: "Pass", step: "Step", x: Any) -> Any:
    axis = step.settings.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Squeeze")
def _squeeze(run: "Pass", step: "Step", x: Any, axes: Any = None) -> Any:
    axes = step.settings.get("axes") if axes is None else integers(axes)
    gone = {a for a, n in enumerate(x.shape) if n == 1} if not axes else {a % x.ndim for a in axes}
    if any(x.shape[a] != 1 for a in gone):
        raise ValueError(f"axes {axes} of shape {x.shape} are not all of size 1")
    return reshaped(x, [n for a, n in enumerate(x.shape) if a not in gone])


@operator("Unsqueeze")
def _unsqueeze(run: "Pass", step: "Step", x: Any, axes: Any = None) -> Any:
    axes = step.settings["axes"] if axes is None else integers(axes)
    ndim = x.ndim + len(axes)
    new = {a % ndim for a in axes}
    rest = iter(x.shape)
    return reshaped(x, [1 if a in new else next(rest) for a in range(ndim)])


@operator("Transpose")
def _transpose(run: "Pass", step: "Step", x: Any) -> Any:
    axes = tuple(step.settings.get("perm") or range(x.ndim)[::-1])
    return x if axes == tuple(range(x.ndim)) else F.permute(x, *axes)


@operator("Concat")
def _concat(run: "Pass", step: "Step", *operands: Any) -> Any:
    return F.cat(operands, step.settings["axis"])


@operator("Split")
def _split(run: "Pass", step: "Step", x: Any, split: Any = None) -> Any:
    axis = step.settings.get("axis", 0) % x.ndim
    parts = step.settings.get("split") if split is None else integers(split)
    if parts is None:
        count = step.settings.get("num_outputs", len(step.outputs))
        each = math.ceil(x.shape[axis] / count)
        parts = [max(min(each, x.shape[axis] - i * each), 0) for i in range(count)]
    if sum(parts) != x.shape[axis] or len(parts) != len(step.outputs) or min(parts) < 0:
        raise ValueError(f"parts of {tuple(parts)} of an axis of {x.shape[axis]} for {len(step.outputs)} outputs")
    ends = np.cumsum(parts)
    return tuple(x[(slice(None),) * axis + (slice(int(e - n), int(e)),)] for n, e in zip(parts, ends, strict=True))


@operator("Slice")
def _slice(
    run: "Pass", step: "Step", x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:  # fmt: skip
    first, last, which = (
        tuple(step.settings.get(name) or ()) if value is None else integers(value)
        for name, value in (("starts", starts), ("ends", ends), ("axes", axes))
    )
    which = which or tuple(range(len(first)))
    strides = (1,) * len(first) if steps is None else integers(steps)
    index = [slice(None)] * x.ndim
    for a, begin, end, stride in zip(which, first, last, strides, strict=True):
        if stride == 0 or not -x.ndim <= a < x.ndim:
            raise ValueError(f"axis {a} in steps of {stride} of an array of shape {x.shape}")
        n = x.shape[a]
        begin, end = (k + n if k < 0 else k for k in (begin, end))
        if stride > 0:
            index[a] = slice(min(max(begin, 0), n), min(max(end, 0), n), stride)
        else:
            begin, end = min(max(begin, 0), n - 1), min(max(end, -1), n - 1)
            index[a] = slice(begin, None if end < 0 else end, stride)
    if all(part.indices(n) == (0, n, 1) for part, n in zip(index, x.shape, strict=True)):
        return x
    return x[tuple(index)]


@operator("Gather")
def _gather(run: "Pass", step: "Step", x: Any, indices: Any) -> Any:
    axis = step.settings.get("axis", 0) % x.ndim
    if indices.ndim > 1 or indices.size > 64:
        refuse(f"Gather of {indices.size} places of shape {indices.shape}")
    picked = [int(i) % x.shape[axis] if -x.shape[axis] <= i < x.shape[axis] else int(i) for i in indices.reshape(-1)]
    before = (slice(None),) * axis
    if indices.ndim == 0:
        return x[(*before, picked[0])]
    return F.cat([x[(*before, slice(i, i + 1))] for i in picked], axis)


@operator("Pad")
def _pad(run: "Pass", step: "Step", x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    from fastconv.onnx.model import Padded

    mode = step.settings.get("mode", "constant")
    if mode not in ("constant", "reflect"):
        refuse(f"Pad with mode {mode!r}")
    widths = step.settings["pads"] if pads is None else integers(pads)
    which = range(x.ndim) if axes is None else [a % x.ndim for a in integers(axes)]
    number = step.settings.get("value", 0.0) if value is None else np.asarray(value).reshape(-1)[0]
    if len(widths) != 2 * len(which):
        raise ValueError(f"pads {widths} do not fit {len(which)} axes")
    pairs = [(0, 0)] * x.ndim
    for i, a in enumerate(which):
        pairs[a] = (widths[i], widths[i + len(which)])
    if not any(n for pair in pairs for n in pair):
        return x
    if mode == "reflect":
        if x.ndim != 4 or any(n for pair in pairs[:2] for n in pair):
            refuse(f"Pad with mode 'reflect' by {pairs} of an input of shape {x.shape}")
        return F.reflection_pad2d(x, (*pairs[3], *pairs[2]))
    if number == 0 and x.ndim in (3, 4):
        return Padded(x, tuple(pairs))
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], float(number))


@operator("DepthToSpace")
def _depth_to_space(run: "Pass", step: "Step", x: Any) -> Any:
    block = step.settings["blocksize"]
    if step.settings.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    (_, c, h, w), depth = x.shape, x.shape[1] // block**2
    if depth * block**2 != c:
        raise ValueError(f"{c} channels are no multiple of {block}x{block}")
    moved = F.permute(F.reshape(x, -1, block, block, depth, h, w), 0, 3, 4, 1, 5, 2)
    return F.reshape(moved, -1, depth, h * block, w * block)


@operator("Expand")
def _expand(run: "Pass", step: "Step", x: Any, shape: Any) -> Any:
    target = np.broadcast_shapes(x.shape, integers(shape))
    if target == x.shape:
        return x
    return F.add(x, np.zeros(target, x.dtype))


# ---- other sizes


