"""Models as ONNX files: writers.py says how each operation is written."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv._version import __version__
from fastconv.graph.operation import Spec, flag, integers
from fastconv.graph.value import Graph, Value
from fastconv.nn import _tracing
from fastconv.nn.base import Module, in_mode
from fastconv.onnx import writers  # noqa: F401  (which register)
from fastconv.onnx.drafting import WRITERS, Draft
from fastconv.onnx.reading import package
from fastconv.serialize.files import replacing

OPSET = 21
"""The oldest opset that has all that is written: GroupNormalization by channels came last."""
_IR = 10


def save(
    model: Module, path: str | os.PathLike[str], input_shape: Sequence[Any], dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write what a model does in evaluation mode to an ONNX file.

    Names of weights are those of ``model.state_dict()``.

    Parameters
    ----------
    model : Module
        It stays as it is. Layers that define `backward` themselves cannot be written.
    path : path-like
        Replaced if it exists.
    input_shape : sequence of int, or a sequence of such for several inputs
        (N, ...), the batch included.
    dynamic_batch : bool
        The first size of every input is left open.
    metadata : mapping of str to str, optional
        What else the file shall say: names of classes, say.

    Raises
    ------
    TypeError
        If the model runs something that has no ONNX operator, or an argument is of another kind; nothing is written.
    ValueError
        If a size is below 1 or the model cannot take it, or the batch is burned in where it is to be left open.
    OSError
        If the file cannot be written; what was there before is untouched.
    ImportError
        If the package onnx is missing.

    Notes
    -----
    Opset 21; a model whose weights have more than 2 GB does not fit ONNX's format without external data.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, onnx
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> x = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(model, f"{folder}/net.onnx", (1, 1, 8, 8))
    ...     again = onnx.load(f"{folder}/net.onnx")
    >>> bool((again.predict(x) == model.predict(x)).all())
    True
    """
    if not isinstance(model, Module):
        raise TypeError(f"onnx.save: expected a Module, got {type(model).__name__}")
    onnx = package()
    shapes, dynamic_batch = _shapes(input_shape), flag("onnx.save: dynamic_batch", dynamic_batch)
    draft = _drafted(onnx, model, shapes)
    if dynamic_batch:  # what differs for a batch of another size would be a wrong number in the file
        try:
            other = _drafted(onnx, model, [(n + 1, *rest) for n, *rest in shapes])
            same = (other.nodes, other.constants) == (draft.nodes, draft.constants)
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"{type(model).__name__}: what forward does depends on the size of the batch; save it with "
                "dynamic_batch=False for one size"
            )
    proto = _written(onnx, model, draft, dynamic_batch)
    if metadata:
        onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    with replacing(path) as file:
        file.write_bytes(proto.SerializeToString())


def _shapes(given: Any) -> list[tuple[int, ...]]:
    several = isinstance(given, tuple | list) and given and all(isinstance(shape, tuple | list) for shape in given)
    shapes = [integers("onnx.save: input_shape", shape) for shape in (given if several else (given,))]
    for shape in shapes:
        if not shape or min(shape) < 1:
            raise ValueError(f"onnx.save: input_shape must be (N, ...), all at least 1, got {given}")
    return shapes


def _drafted(onnx: Any, model: Module, shapes: list[tuple[int, ...]]) -> Draft:
    """Return all nodes that inputs of these shapes go through, written down."""
    if model.is_opaque():
        raise TypeError(f"{type(model).__name__} defines backward itself, so that nothing is known of what it does")
    dtype = next((p.data.dtype for p in model.parameters()), np.dtype(np.float32))
    with in_mode(model, False):
        graph = _tracing.trace(
            model, type(model).forward.raw, [Spec(shape, dtype) for shape in shapes]  # type: ignore[attr-defined]
        )
    draft = Draft(onnx, model, graph)
    for node in graph.nodes:
        kind = type(node.op).__name__
        if kind not in WRITERS:
            layer = getattr(node.op, "layer", node.module)
            raise TypeError(f"{type(layer).__name__}: its {node.op.name} has no ONNX operator")
        WRITERS[kind](draft, node)
    for name, value in zip(_outputs(graph), graph.outputs, strict=True):
        draft.node("Identity", [draft.name(value)], name)
    return draft


def _outputs(graph: Graph) -> list[str]:
    return ["output"] if len(graph.outputs) == 1 else [f"output{i}" for i in range(len(graph.outputs))]


def _written(onnx: Any, model: Module, draft: Draft, dynamic: bool) -> Any:
    """Return the file's content."""
    helper, graph = onnx.helper, draft.graph
    batch = graph.inputs[0].shape[0]

    def info(name: str, value: Value) -> Any:
        shape: Any = value.shape
        if dynamic and shape and shape[0] == batch:
            shape = ("N", *shape[1:])
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)

    inputs = [info(draft.name(value), value) for value in graph.inputs]
    outputs = [info(name, value) for name, value in zip(_outputs(graph), graph.outputs, strict=True)]
    proto = helper.make_model(
        helper.make_graph(draft.nodes, type(model).__name__, inputs, outputs, draft.tensors()),
        opset_imports=[helper.make_opsetid("", OPSET)], producer_name="fastconv", producer_version=__version__,
    )  # fmt: skip
    proto.ir_version = _IR
    return proto
