"""A model that a file describes: whenever a forward is written down, the file's steps are followed."""

import os
from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.graph.operation import FLOATS, Spec
from fastconv.graph.value import Value
from fastconv.nn import _tracing
from fastconv.nn.base import Module
from fastconv.onnx.folding import fold, folds
from fastconv.onnx.layers import plant
from fastconv.onnx.operators import NUMBERS, OPERATORS
from fastconv.onnx.reading import Net, Step, read


class Padded:
    """A value with zeros around its image that nobody has written: a convolution takes them along."""

    def __init__(self, value: Value, widths: tuple[tuple[int, int], ...]) -> None:
        self.value, self.widths = value, widths

    def written(self) -> Value:
        sides = [n for pair in reversed(self.widths) for n in pair]
        found: Value = F.pad(self.value, sides)
        return found


class Pass:
    """One walk over the steps, while a forward is written down.

    Attributes
    ----------
    net : Net
    known : dict of str to Value, Parameter, ndarray or Padded
        What has a name so far.
    gates : dict of int to Value
        By the identity of a sigmoid's result, what it is the sigmoid of.
    read : set of str
        Names that some step or the model's output needs.
    """

    def __init__(self, model: "OnnxModel") -> None:
        self.model, self.net = model, model._net
        self.known: dict[str, Any] = dict(model._net.constants)
        self.known.update((name, model.at(path)) for name, path in model._planted.items())
        self.gates: dict[int, Value] = {}
        self.read = {name for step in self.net.steps for name in step.inputs} | set(self.net.outputs)

    def layer(self, step: Step) -> Any:
        return self.model.at(step.layer)

    def run(self, step: Step) -> None:
        """Write a step down, or work it out where it is known what comes out."""
        numbers = NUMBERS.get(step.kind, ())
        operands = []
        for i, name in enumerate(step.inputs):
            if name and name not in self.known and not step.layer:
                raise ValueError(f"{step}: its input {name!r} is made by no node before it")
            operand = (self.net.constants.get(name) if i in numbers else None) if name else None
            if operand is None and name:
                operand = self.known.get(name)
            if isinstance(operand, Padded) and step.kind != "Conv":
                operand = self.known[name] = operand.written()
            operands.append(operand)
        if step.kind in ("Shape", "Size") and isinstance(operands[0], Value):
            operands = [np.broadcast_to(np.int8(0), operands[0].shape)]  # of which the shape alone is asked
        if folds(step.kind) and all(o is None or isinstance(o, np.ndarray) for o in operands):
            found: Any = tuple(fold(step, operands, self.net.opset))
        else:
            for i in numbers:
                if i < len(operands) and operands[i] is not None and not isinstance(operands[i], np.ndarray):
                    raise ValueError(f"{step}: its input {step.inputs[i]!r} must not depend on the model's input")
            with step.named():
                found = OPERATORS[step.kind](self, step, *operands)
        results = found if isinstance(found, tuple) else (found,)
        if len(results) < len([name for name in step.outputs if name]):
            raise ValueError(f"{step}: its outputs beyond the first are not supported")
        self.known.update(zip(step.outputs, results, strict=False))


class OnnxModel(Module):
    """What `fastconv.onnx.load` returns: layers and weights under the file's names, trainable and with `predict`.

    The file's own names may be any; what else the model keeps, its steps and where weights stand that no layer holds,
    has names that none of them gets.

    Parameters
    ----------
    net : object
        What the reader made of the file.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn, onnx
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(net, f"{folder}/net.onnx", (1, 1, 8, 8), metadata={"classes": "cat,dog"})
    ...     model = onnx.load(f"{folder}/net.onnx")
    >>> model.input_shapes, model.metadata
    ({'input': (None, 1, 8, 8)}, {'classes': 'cat,dog'})
    >>> model.layers_in_order()
    ['0', '3']
    """

    _replaced = ("_net", "_planted")  # what the reader made: nothing changes it

    def __init__(self, net: Net) -> None:
        self._net, self._planted = plant(self, net)

    def at(self, path: str) -> Any:
        """Return the layer or parameter of a path.

        Parameters
        ----------
        path : str
        """
        found: Any = self
        for part in path.split("."):
            found = vars(found)[part]
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself, by names of its writer's choice."""
        return dict(self._net.metadata)

    @property
    def input_shapes(self) -> dict[str, tuple[int | None, ...] | None]:
        """Shape of each input as far as the file tells: None for a size, or all, that it leaves open."""
        return {name: shape for name, (shape, _) in self._net.inputs.items()}

    def layers_in_order(self) -> list[str]:
        """Return the names of the layers in the order in which they run first."""
        return list(dict.fromkeys(step.layer for step in self._net.steps if step.layer))

    def forward(self, *inputs: Any) -> Any:
        if len(inputs) != len(self._net.inputs):
            raise ValueError(f"OnnxModel: takes {len(self._net.inputs)} inputs ({', '.join(self._net.inputs)}), "
                             f"got {len(inputs)}")  # fmt: skip
        found = Pass(self)
        for (name, (shape, _)), value in zip(self._net.inputs.items(), inputs, strict=True):
            fixed = shape is None or (
                len(shape) == value.ndim
                and all(a is None or a == b for a, b in zip(shape[1:], value.shape[1:], strict=True))
            )
            if not fixed:
                wanted = ", ".join("any" if n is None else str(n) for n in shape or ())
                raise ValueError(f"OnnxModel: input {name!r} has shape {value.shape}, the file says ({wanted})")
            found.known[name] = value
        for step in self._net.steps:
            found.run(step)
        outputs = []
        for name in self._net.outputs:
            if name not in found.known:
                raise ValueError(f"OnnxModel: output {name!r} is made by no node")
            value = found.known[name]
            if not isinstance(value, Value | Padded):
                raise ValueError(f"OnnxModel: output {name!r} depends on no input")
            outputs.append(value.written() if isinstance(value, Padded) else value)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def config(self) -> dict[str, Any]:
        return {"net": self._net}

    def extra_repr(self) -> str:
        return f"{len(self._net.steps)} steps of opset {self._net.opset}"


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """Read a model from an ONNX file.

    It is in evaluation mode. Weights stand in layers (`Conv2d`, `Linear`, `BatchNorm2d`, ...) and parameters whose
    names are those of the file: "features.0.weight" becomes ``model.features``'s ``0``'s ``weight``. It trains,
    predicts, freezes and saves (`fastconv.serialize.save`) as any other.

    Parameters
    ----------
    path : path-like
        Opset 7 or newer; weights of float32 or float64, those of half precision become float32 (a warning says so).
        External data is read from the file's own folder.

    Returns
    -------
    OnnxModel

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no valid ONNX model, or has operators or settings that are not supported: one error names them all.
    ImportError
        If the package onnx is missing.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, onnx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), f"{folder}/net.onnx", (1, 4))
    ...     model = onnx.load(f"{folder}/net.onnx")
    >>> model.predict(np.zeros((5, 4), np.float32)).shape
    (5, 3)
    >>> {name: p.shape for name, p in model.named_parameters()}
    {'0.weight': (3, 4), '0.bias': (3,)}
    """
    net = read(path)
    _refuse_unknown(net, path)
    try:
        model = OnnxModel(net).eval()
        _try(model)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return model


def _refuse_unknown(net: Net, path: str | os.PathLike[str]) -> None:
    """Raise one error for all steps that nothing is known of, before anything is computed."""
    moving = set(net.inputs)  # what depends on the numbers of an input
    unknown: dict[str, list[str]] = {}
    for step in net.steps:
        depends = step.kind not in ("Shape", "Size") and not moving.isdisjoint(step.inputs)
        if depends:
            moving.update(step.outputs)
        if step.kind not in OPERATORS and (depends or not folds(step.kind)):
            unknown.setdefault(step.kind, []).append(step.name)
    if unknown:
        parts = "; ".join(
            f"{kind} ({', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''})"
            for kind, names in sorted(unknown.items())
        )
        raise ValueError(f"{path}: operators that are not supported: {parts}")


def _try(model: OnnxModel) -> None:
    """Write the forward down once, where the file says enough of its inputs: nothing is computed."""
    specs = []
    wide = any(parameter.data.dtype == np.float64 for parameter in model.parameters())
    for name, (shape, dtype) in model._net.inputs.items():
        if dtype not in FLOATS and dtype != np.float16:
            raise ValueError(f"input {name!r} is of dtype {dtype}; only floats are supported")
        if shape is None or any(n is None for n in shape[1:]):
            return
        sizes = tuple(1 if n is None else n for n in shape)
        specs.append(Spec(sizes, np.dtype(np.float64 if wide or dtype == np.float64 else np.float32)))
    if specs:
        _tracing.trace(model, OnnxModel.forward.raw, specs)  # type: ignore[attr-defined]
        model._running().specs = tuple(specs)
