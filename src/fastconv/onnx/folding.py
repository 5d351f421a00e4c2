"""What exporters leave behind: arithmetic on shapes and constants, worked out by the onnx package's own evaluator."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.graph.operation import Array

if TYPE_CHECKING:
    from fastconv.onnx.reading import Step

MOST = 2**28
"""Elements of a constant that is worked out: a file cannot ask for more than a gigabyte of float32."""

_ELEMENTWISE = frozenset((
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Sum", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "And", "Or", "Where",
))  # fmt: skip
_SAME = frozenset((
    "Abs", "Cast", "Ceil", "Clip", "Concat", "Exp", "Floor", "Identity", "Log", "Neg", "Not", "Reciprocal",
    "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Shape", "Sign", "Size", "Slice", "Split",
    "Sqrt", "Squeeze", "Transpose", "Unsqueeze", "Flatten",
))  # fmt: skip
_GROWING = frozenset(("ConstantOfShape", "Expand", "Gather", "Range", "Tile"))


def folds(kind: str) -> bool:
    """Return whether an operator is one of those that are worked out where all of its inputs are known."""
    return kind in _ELEMENTWISE or kind in _SAME or kind in _GROWING


def _count(step: "Step", arrays: Sequence[Array | None]) -> int:
    """Return the elements that the result has, at most."""
    given = [a for a in arrays if a is not None]
    if step.kind in _ELEMENTWISE:
        return math.prod(np.broadcast_shapes(*(a.shape for a in given)))
    if step.kind == "ConstantOfShape":
        return math.prod(int(n) for n in given[0].reshape(-1))
    if step.kind == "Expand":
        return given[0].size * math.prod(max(int(n), 1) for n in given[1].reshape(-1))
    if step.kind == "Tile":
        return given[0].size * math.prod(int(n) for n in given[1].reshape(-1))
    if step.kind == "Gather":
        return given[1].size * given[0].size
    if step.kind == "Range":
        start, limit, delta = (float(a.reshape(-1)[0]) for a in given)
        if not delta:
            raise ValueError("a step of 0")
        return max(0, math.ceil((limit - start) / delta))
    return sum(a.size for a in given)


def fold(step: "Step", arrays: Sequence[Array | None], opset: int) -> list[Array]:
    """Return the outputs of a step whose inputs are known.

    Raises
    ------
    ValueError
        If it cannot be computed, or the result has more than `MOST` elements.
    """
    try:
        count = _count(step, arrays)
        if count > MOST:
            raise ValueError(f"a constant of {count:,} elements; at most {MOST:,} are worked out")
        known = [name for name in step.inputs if name]
        settings = tuple(sorted(step.settings.items())) if _hashable(step.settings) else None
        run = _evaluator(step.kind, step.inputs, step.outputs, settings, opset) if settings is not None else (
            _make(step.kind, step.inputs, step.outputs, step.settings, opset))  # fmt: skip
        with np.errstate(all="ignore"):
            found = run.run(None, dict(zip(known, (a for a in arrays if a is not None), strict=True)))
        return [np.asarray(a) for a in found]
    except Exception as error:  # whatever the evaluator meets in what a file says
        raise ValueError(f"{step}: {str(error)[:300]}") from error


def _hashable(settings: dict[str, Any]) -> bool:
    return all(isinstance(value, int | float | str | tuple) for value in settings.values())


@functools.lru_cache(4096)
def _evaluator(
    kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...], settings: tuple[tuple[str, Any], ...], opset: int
) -> Any:  # fmt: skip
    return _make(kind, inputs, outputs, dict(settings), opset)


def _make(kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...], settings: dict[str, Any], opset: int) -> Any:
    """Return an evaluator of one node."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    plain = {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in settings.items()}
    node = helper.make_node(kind, inputs, outputs, **plain)
    known = list(dict.fromkeys(name for name in inputs if name))
    given, found = ([helper.make_empty_tensor_value_info(n) for n in names if n] for names in (known, outputs))
    graph = helper.make_graph([node], "constant", given, found)
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
