"""An ONNX file as plain data: steps, constants, inputs and outputs. What a hostile file may try ends here."""

import contextlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastconv.graph.operation import Array
from fastconv.onnx.folding import fold, folds
from fastconv.onnx.patterns import assemble

OLDEST = 7
"""The first opset that broadcasts as NumPy does."""

_RENAMED = re.compile(r"onnx::|[a-z]+_\d+$")
_RESHAPING = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes
    ----------
    kind, name : str
        The operator, and the node's name, or that of its first output.
    inputs, outputs : tuple of str
        Names of values; "" where an optional one is left out.
    settings : dict
        Its attributes: numbers, words, lists of them, arrays.
    layer : str
        Path of the layer that holds its weights, or "".
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[str, Any]
    layer: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Let errors name the step; whatever comes of inputs and settings that nobody foresaw is a ValueError."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise type(error)(f"{self}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError) as error:
            raise ValueError(
                f"{self}: its inputs and settings do not fit together ({type(error).__name__}: {error})"
            ) from error


@dataclass(frozen=True)
class Net:
    """What a file says.

    Attributes
    ----------
    opset : int
    inputs : dict of str to (shape, dtype)
        Sizes are None where the file leaves them open; the shape is None where it has none.
    outputs : tuple of str
    steps : tuple of Step
        In an order in which they can run.
    constants : dict of str to ndarray
    learned : frozenset of str
        Those that stood in the file as weights ("initializers").
    ranks : dict of str to int
        How many axes the inputs of normalisations have, where the file tells.
    metadata : dict of str to str
        What the file says of itself.
    """

    opset: int
    inputs: dict[str, tuple[tuple[int | None, ...] | None, np.dtype[Any]]]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: dict[str, Array]
    learned: frozenset[str]
    ranks: dict[str, int]
    metadata: dict[str, str]


def package() -> ModuleType:
    """Return the onnx package, or raise ImportError with what to install."""
    try:
        import onnx
        import onnx.inliner
        import onnx.version_converter
    except ImportError as error:
        raise ImportError("ONNX files need the package onnx: pip install 'fastconv[onnx]'") from error
    return onnx


def read(path: str | os.PathLike[str]) -> Net:
    """Read a file; all that depends on no input is worked out.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no valid ONNX model, or asks for more than its own bytes can hold.
    """
    onnx, path = package(), Path(path).expanduser()
    data = path.read_bytes()
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's errors share no base of their own
        raise ValueError(f"{path}: not an ONNX file ({error})") from error
    if not proto.graph.node and not proto.graph.output:
        raise ValueError(f"{path}: not an ONNX file, or one without a graph")
    try:
        outside = any(onnx.external_data_helper.uses_external_data(tensor) for tensor in proto.graph.initializer)
        onnx.checker.check_model(str(path) if outside else proto)
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
        ranks = _ranks(onnx, proto)
        if outside:
            onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
        return _net(onnx, proto, ranks)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"{path}: not a valid ONNX model: {str(error).strip()[:500]}") from error
    except OSError as error:
        raise ValueError(f"{path}: its external data cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: not a valid ONNX model ({type(error).__name__}: {str(error)[:300]})") from error


def _net(onnx: ModuleType, proto: Any, ranks: dict[str, int]) -> Net:
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        try:
            proto, opset = onnx.version_converter.convert_version(proto, OLDEST), OLDEST
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"opset {opset} is older than {OLDEST}, and cannot be converted: {error}") from error
    graph = proto.graph
    halved: list[str] = []
    constants = {}
    for tensor in graph.initializer:
        constants[tensor.name] = _array(onnx, tensor, halved)
    if graph.sparse_initializer:
        raise ValueError(f"{len(graph.sparse_initializer)} sparse weights; only dense ones are supported")
    inputs = {}
    for entry in graph.input:
        if entry.name not in constants:  # old files list weights among the inputs
            inputs[entry.name] = _input(onnx, entry)
    steps = []
    reads = Counter(name for node in graph.node for name in node.input)
    reads.update(entry.name for entry in graph.output)
    renamed = _own_names(graph, constants, reads)
    constants = {renamed.get(name, name): array for name, array in constants.items()}
    learned = set(constants)
    for node in graph.node:
        step = _step(onnx, node, halved)
        step = replace(step, inputs=tuple(renamed.get(name, name) for name in step.inputs))
        if step.kind == "Constant":
            constants[step.outputs[0]] = _constant(step)
        elif folds(step.kind) and all(name in constants for name in step.inputs if name):
            arrays = [constants[name] if name else None for name in step.inputs]
            names = step.outputs
            if step.kind in _RESHAPING and step.inputs[0] in learned:
                if reads[node.input[0]] == 1:  # in another shape it is the same weight
                    renamed[names[0]], names = step.inputs[0], step.inputs[:1]
                elif step.kind == "Identity":  # exporters keep one array of weights that are equal
                    learned.add(names[0])
            constants.update(zip(names, fold(step, arrays, opset), strict=False))
        else:
            steps.append(step)
    if halved:
        warnings.warn(f"{len(halved)} arrays of half precision become float32: {_some(halved)}", stacklevel=4)
    outputs = tuple(renamed.get(entry.name, entry.name) for entry in graph.output)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    steps = list(_needed(assemble(steps, constants, learned), outputs))
    used = {name for step in steps for name in step.inputs} | set(outputs)
    constants = {name: array for name, array in constants.items() if name in used}
    return Net(opset, inputs, outputs, tuple(steps), constants, frozenset(learned & constants.keys()), ranks, metadata)


def _own_names(graph: Any, constants: dict[str, Array], reads: Counter[str]) -> dict[str, str]:
    """Return better names of weights that an exporter has changed and then called "onnx::Conv_123" or "val_12".

    What it says of the node that reads one tells where that stood.
    """
    found: dict[str, str] = {}
    for node in graph.node:
        path = "" if node.op_type == "InstanceNormalization" else _path(node)  # whose weights are never changed
        for i, name in enumerate(node.input):
            array = constants.get(name) if path and _RENAMED.match(name) and reads[name] == 1 else None
            if array is not None and array.dtype.kind == "f" and array.size > 1:
                own = f"{path}.bias" if i == 2 or node.op_type == "Add" else f"{path}.weight"
                if own not in constants and own not in found.values():
                    found[name] = own
    return found


def _path(node: Any) -> str:
    """Return of which part of a PyTorch model a node is: of "/layer1/layer1.0/conv1/Conv" that is "layer1.0.conv1"."""
    told = getattr(node, "metadata_props", ())  # not in the oldest versions of onnx
    scopes = next((entry.value for entry in told if entry.key == "pkg.torch.onnx.name_scopes"), "")
    if scopes:  # "['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']"
        return ["", "", *re.findall("'([^']*)'", scopes)][-2]
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):  # one of a sequence is told with the sequence's name
            path.pop()
        path.append(part)
    return ".".join(path)


def _ranks(onnx: ModuleType, proto: Any) -> dict[str, int]:
    """Return the axes of what goes into normalisations, whole or in parts, whose layers depend on them."""
    wanted = {node.input[0] for node in proto.graph.node if node.op_type in ("BatchNormalization", "ReduceMean")}
    if not wanted:
        return {}
    graph = onnx.shape_inference.infer_shapes(proto).graph
    known = (entry for entry in (*graph.input, *graph.value_info) if entry.name in wanted)
    return {entry.name: len(entry.type.tensor_type.shape.dim) for entry in known}


def _needed(steps: list[Step], outputs: tuple[str, ...]) -> Iterator[Step]:
    """Yield the steps that an output depends on."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if not wanted.isdisjoint(step.outputs):
            kept.append(step)
            wanted.update(step.inputs)
    yield from reversed(kept)


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _array(onnx: ModuleType, tensor: Any, halved: list[str]) -> Array:
    """Return a tensor as an array; its declared shape is held against the bytes that are there."""
    try:
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:
        raise ValueError(f"array {tensor.name!r} of shape {tuple(tensor.dims)} cannot be read: {error}") from error
    if (array.dtype.kind == "f" and array.dtype.itemsize == 2) or array.dtype.name == "bfloat16":
        halved.append(tensor.name)
        array = array.astype(np.float32)
    return array


def _constant(step: Step) -> Array:
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    [(name, value)] = step.settings.items()
    if name == "value":
        return np.asarray(value)
    if name not in kinds:
        raise ValueError(f"{step}: a constant given by {name} is not supported")
    return np.asarray(value, kinds[name])


def _input(onnx: ModuleType, entry: Any) -> tuple[tuple[int | None, ...] | None, np.dtype[Any]]:
    tensor = entry.type.tensor_type
    if not entry.type.HasField("tensor_type"):
        raise ValueError(f"input {entry.name!r} is no array")
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError:
        raise ValueError(f"input {entry.name!r} is of no type that there is (number {tensor.elem_type})") from None
    if not tensor.HasField("shape"):
        return None, dtype
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
                 for dim in tensor.shape.dim), dtype  # fmt: skip


def _step(onnx: ModuleType, node: Any, halved: list[str]) -> Step:
    settings = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.TENSOR:
            value = _array(onnx, value, halved)
        elif isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, list | tuple):
            value = tuple(map(_decimal, value))
        elif isinstance(value, float):
            value = _decimal(value)
        elif not isinstance(value, int | float):
            value = None  # a graph or a type: of operators that are not supported
        settings[attribute.name] = value
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    name = node.name or (node.output[0] if node.output else "")
    return Step(domain + node.op_type, name, tuple(node.input), tuple(node.output), settings)


def _decimal(value: Any) -> Any:
    """Return a float of single precision as the shortest decimal that it stands for: 1e-5, not 9.99999975e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
