"""GraphModule: a model whose forward is data, so that a file can hold it without the class that wrote it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from fastconv.functional import _ops
from fastconv.graph.operation import Operation, Spec
from fastconv.graph.value import Value, write
from fastconv.nn import _running
from fastconv.nn.base import Module, Parameter, in_mode, initial

_FAMILIES = (
    _ops.activation, _ops.arithmetic, _ops.convolution, _ops.normalization, _ops.pooling, _ops.resampling, _ops.shape,
    _ops.transposed,
)  # fmt: skip
_OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for family in _FAMILIES
    for kind in vars(family).values()
    if isinstance(kind, type) and issubclass(kind, Operation) and dataclasses.is_dataclass(kind)
}


class _Part(Module):
    """A place in the tree that holds parameters, buffers and layers, and does not run."""


class GraphModule(Module):
    """A forward as a list of entries, over a tree of layers and parameters with the names they had.

    `of` makes one of a model whose forward is traced; it computes the same, has the same state names, and can be saved
    and loaded (`fastconv.serialize`) where the model's own class is not known.

    Parameters
    ----------
    tree : dict
        Names to what stands there: a Module, a dict (a part with a tree of its own), or a tuple: ("parameter", shape,
        requires_grad), ("buffer", shape, dtype) or ("extra", integer).
    entries : sequence of dict
        In order: ``{"layer": path, "inputs": [...], "outputs": count}`` for a layer of the tree, or ``{"op": name,
        "settings": {...}, "inputs": [...]}`` for an operation. An input is the number of a value (the model's inputs,
        then each entry's outputs), None, ``{"state": name}`` or ``{"number": value}``.
    outputs : sequence of int
    inputs : int
        How many the model takes.
    single : bool
        Whether it returns one array, no tuple.

    Raises
    ------
    ValueError
        If an entry names what is not there.
    """

    def __init__(
        self, tree: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], outputs: Sequence[int], inputs: int = 1,
        single: bool = True,
    ) -> None:  # fmt: skip
        _plant(self, tree)
        self._entries_written = [dict(entry) for entry in entries]
        self._shape_written = (tuple(outputs), int(inputs), bool(single))
        self._read()

    def forward(self, *inputs: Any) -> Any:
        outputs, count, single = self._shape_written
        if len(inputs) != count:
            raise ValueError(f"GraphModule: {len(inputs)} inputs for a model that takes {count}")
        values = list(inputs)
        for run, operands in self._read():
            found = run(*[operand(values) for operand in operands])
            values += found if isinstance(found, tuple) else [found]
        results = tuple(values[i] for i in outputs)
        return results[0] if single else results

    def _read(self) -> list[tuple[Callable[..., Any], list[Callable[[list[Any]], Any]]]]:
        """Return what each entry runs and where its operands come from, after a check that all of it is there."""
        outputs, values, _ = self._shape_written
        layers = dict(self.named_modules())
        state = {name: (owner, attribute) for name, owner, attribute, _ in self._entries()}
        steps = []
        for entry in self._entries_written:
            run, count = _runner(entry, layers)
            operands = []
            for ref in entry["inputs"]:
                if type(ref) is int and not 0 <= ref < values:
                    raise ValueError(f"GraphModule: an entry reads value {ref} of {values} that are there")
                operands.append(_operand(ref, state))
            steps.append((run, operands))
            values += count
        if not all(type(i) is int and 0 <= i < values for i in outputs):
            raise ValueError(f"GraphModule: outputs {outputs} of {values} values")
        return steps

    def config(self) -> dict[str, Any]:
        outputs, inputs, single = self._shape_written
        entries = [dict(entry) for entry in self._entries_written]
        return {
            "tree": _tree(self, None), "entries": entries, "outputs": outputs, "inputs": inputs, "single": single,
        }  # fmt: skip

    def extra_repr(self) -> str:
        return f"{len(self._entries_written)} entries"

    @classmethod
    def of(cls, model: Module, known: Callable[[Module], bool], specs: Sequence[Spec] | None = None) -> "GraphModule":
        """Return the graph of a model that runs on inputs like the latest ones.

        It shares the model's layers and parameters.

        Parameters
        ----------
        model : Module
        known : callable
            Whether a layer stays a layer; what is inside others is written as operations.
        specs : sequence of Spec, optional
            Of the inputs, if not those of the latest forward.

        Raises
        ------
        TypeError
            If a layer defines `backward` itself and is not known, forward reads an array that is neither a parameter
            nor a buffer, or the model has not run yet.
        """
        specs = specs or model._running().specs
        if specs is None:
            raise TypeError(f"{type(model).__name__} has not run yet, so that what its forward does is not known")
        written = cls._written(model, known, specs)
        for mode in (True, False):  # a layer that is known decides by its mode when it runs, other code cannot
            with in_mode(model, mode), suppress(ValueError):
                other = cls._written(model, known, specs)
                if other[1] != written[1]:
                    raise TypeError(
                        f"{type(model).__name__}: what forward does depends on the mode, so no file can hold it "
                        "without its class; see serialize.register"
                    )
        return cls(*written)

    @staticmethod
    def _written(model: Module, known: Callable[[Module], bool], specs: Sequence[Spec]) -> tuple[Any, ...]:
        """Return the constructor's arguments."""
        names = {id(module): name for name, module in model.named_modules()}
        graph = _running.trace(model, type(model).forward.raw, specs, known)  # type: ignore[attr-defined]
        numbers = {value: i for i, value in enumerate(graph.inputs)}
        state = {id(getattr(owner, at)): name for name, owner, at, _ in model._entries()}
        entries: list[dict[str, Any]] = []
        index = 0
        calls = {call.first: call for call in graph.calls if known(call.module)}  # the outermost of one place ends last
        while index < len(graph.nodes):
            call, node = calls.get(index), graph.nodes[index]
            if call is not None:
                entry = {"layer": names[id(call.module)], "outputs": len(call.outputs)}
                given, made, index = call.inputs, call.outputs, call.last
            elif node.op.name == "Observe":
                index += 1
                continue
            else:
                if type(node.op).__name__ not in _OPERATIONS:
                    raise TypeError(
                        f"layer class {type(node.module).__name__} is not registered, and its {node.op.name} cannot be "
                        "written as an operation; see serialize.register"
                    )
                entry = {"op": type(node.op).__name__, "settings": dict(vars(node.op))}
                given, made, index = node.inputs, node.outputs, index + 1  # type: ignore[assignment]
            entry["inputs"] = [_reference(value, numbers, state) for value in given]
            for value in made:
                numbers[value] = len(numbers)
            entries.append(entry)
        return _tree(model, known), entries, [numbers[v] for v in graph.outputs], len(specs), graph.single


def _runner(entry: Mapping[str, Any], layers: Mapping[str, Module]) -> tuple[Callable[..., Any], int]:
    """Return what an entry runs, and how many values come out."""
    if entry.keys() == {"layer", "inputs", "outputs"}:
        if entry["layer"] not in layers or not entry["layer"] or type(entry["outputs"]) is not int:
            raise ValueError(f"GraphModule: no layer {str(entry['layer'])[:80]!r}")
        return layers[entry["layer"]], entry["outputs"]
    if entry.keys() != {"op", "settings", "inputs"} or entry["op"] not in _OPERATIONS:
        raise ValueError(f"GraphModule: unknown operation {str(entry.get('op'))[:80]!r}")
    kind: Any = _OPERATIONS[entry["op"]]
    wanted = {field.name for field in dataclasses.fields(kind)}
    if entry["settings"].keys() != wanted:
        raise ValueError(f"GraphModule: {entry['op']} needs settings {sorted(wanted)}, got {sorted(entry['settings'])}")
    op = kind(**entry["settings"])
    return lambda *operands: write(op, *operands), 1


def _operand(ref: Any, state: Mapping[str, tuple[Any, str]]) -> Callable[[list[Any]], Any]:
    """Return where an operand comes from when the values so far are given."""
    if ref is None:
        return lambda values: None
    if type(ref) is int:
        return lambda values: values[ref]
    if isinstance(ref, Mapping) and ref.keys() == {"number"} and type(ref["number"]) in (int, float):
        return lambda values: float(ref["number"])
    if isinstance(ref, Mapping) and ref.keys() == {"state"} and ref["state"] in state:
        owner, attribute = state[ref["state"]]
        return lambda values: getattr(owner, attribute)
    raise ValueError(f"GraphModule: an operand is {str(ref)[:80]}, which is no value, state or number")


def _reference(value: Value | None, numbers: Mapping[Value, int], state: Mapping[int, str]) -> Any:
    if value is None or value in numbers:
        return None if value is None else numbers[value]
    if id(value.source) in state:
        return {"state": state[id(value.source)]}
    if isinstance(value.source, np.ndarray) and value.source.ndim == 0:
        return {"number": float(value.source)}
    raise TypeError(
        f"forward reads an array of shape {value.shape} that is neither a parameter nor a buffer: make it an "
        "nn.Parameter with requires_grad=False, or name it in buffer_names"
    )


def _tree(module: Module, known: Callable[[Module], bool] | None) -> dict[str, Any]:
    """Return what stands in a module that is not known: layers, parts, parameters, buffers, counters."""
    tree: dict[str, Any] = {}
    children = dict(module.named_children())
    for name, value in vars(module).items():
        if isinstance(value, Parameter):
            tree[name] = ("parameter", value.shape, value.requires_grad)
        elif name in module.buffer_names:
            tree[name] = ("buffer", value.shape, str(value.dtype.newbyteorder("=")))
        elif name in module.extra_names:
            tree[name] = ("extra", int(value))
    for name, child in children.items():
        part = type(child) is _Part if known is None else not known(child)
        tree[name] = _tree(child, known) if part else child
    return tree


def _plant(module: Module, tree: Mapping[str, Any]) -> None:
    """Build what `_tree` returned inside a module."""
    buffers, extras = [], []
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "." in name or hasattr(Module, name):
            raise ValueError(f"GraphModule: {str(name)[:80]!r} cannot be the name of a part")
        if isinstance(value, Mapping):
            part = _Part()
            _plant(part, value)
            vars(module)[name] = part
        elif isinstance(value, Module):
            vars(module)[name] = value
        elif isinstance(value, tuple) and len(value) == 3 and value[0] == "parameter":
            vars(module)[name] = Parameter(initial(_sizes(value[1]), 0.0), bool(value[2]))
        elif isinstance(value, tuple) and len(value) == 3 and value[0] == "buffer":
            dtype = np.dtype(str(value[2]))
            if dtype.kind not in "fiub":
                raise ValueError(f"GraphModule: a buffer of dtype {dtype}")
            vars(module)[name] = np.broadcast_to(dtype.type(0), _sizes(value[1]))
            buffers.append(name)
        elif isinstance(value, tuple) and len(value) == 2 and value[0] == "extra":
            vars(module)[name] = int(value[1])
            extras.append(name)
        else:
            raise ValueError(f"GraphModule: {name} is {str(value)[:80]}, which is no part of a model")
    vars(module)["buffer_names"], vars(module)["extra_names"] = tuple(buffers), tuple(extras)


def _sizes(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"GraphModule: {str(shape)[:80]} is no shape")
    return shape
