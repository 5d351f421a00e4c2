"""GraphModule: a model whose forward is data, so that a file can hold it without the class that wrote it."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

import numpy as np

from fastconv.functional import _ops
from fastconv.graph.operation import Operation, Spec
from fastconv.graph.value import Value, write
from fastconv.nn import _running
from fastconv.nn.base import OWN, Module, Parameter, initial

_FAMILIES = (
    _ops.activation, _ops.arithmetic, _ops.convolution, _ops.groupnorm, _ops.normalization, _ops.pooling,
    _ops.rearrange, _ops.resampling, _ops.shape, _ops.transposed,
)  # fmt: skip
_OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for family in _FAMILIES
    for kind in vars(family).values()
    if isinstance(kind, type) and issubclass(kind, Operation) and "settings" in vars(kind) and kind.__name__[0] != "_"
}
_OPERATIONS |= {"Detach": _ops.Detach}


_DTYPES = (
    "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_MOST = 2**40  # bytes of one value in a file's model


class Part(Module):
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
    inputs : sequence of (shape, dtype)
        What the model was written down for; it takes as many, and other sizes where its operations do.
    single : bool
        Whether it returns one array, no tuple.

    Raises
    ------
    ValueError
        If an entry names what is not there.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> x = np.ones((2, 3), np.float32)
    >>> model = nn.Residual(nn.Linear(3, 3), activation=nn.ReLU())
    >>> y = model(x).copy()
    >>> graph = nn.GraphModule.of(model, lambda layer: isinstance(layer, nn.Linear))
    >>> [entry.get("op", entry.get("layer")) for entry in graph.config()["entries"]]
    ['body', 'Arithmetic', 'Activate']
    >>> bool((graph(x) == y).all())
    True
    """

    def __init__(
        self, tree: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], outputs: Sequence[int],
        inputs: Sequence[tuple[Sequence[int], str]], single: bool = True,
    ) -> None:  # fmt: skip
        _plant(self, tree)
        self._entries_written = [dict(entry) for entry in entries]
        self._specs_written = tuple(Spec(_sizes(tuple(shape)), _dtype(dtype)) for shape, dtype in inputs)
        self._shape_written = (tuple(outputs), len(self._specs_written), bool(single))
        if single and len(self._shape_written[0]) != 1:
            raise ValueError(f"GraphModule: outputs {outputs} for a model that returns one array")
        self._read()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build it, and follow it once through the shapes it was written for: what it says may come from a file.

        Parameters
        ----------
        config : dict
            What `config` returned, perhaps by way of a file.

        Returns
        -------
        GraphModule

        Raises
        ------
        ValueError, TypeError, IndexError
            If a setting is none that the operation can have, or operands do not fit each other.
        """
        graph = super().from_config(config)
        if not any(module.is_opaque() for module in graph.modules()):  # which would run to tell their shapes
            dtype = next((p.data.dtype for p in graph.parameters()), np.dtype(np.float32))
            specs = [Spec(s.shape, dtype) if s.dtype.kind == "f" else s for s in graph._specs_written]
            from fastconv.nn._tracing import trace

            traced = trace(graph, cls.forward.raw, specs)  # type: ignore[attr-defined]
            for value in (*traced.inputs, *(value for node in traced.nodes for value in node.outputs)):
                if value.spec.nbytes > _MOST:
                    raise ValueError(f"GraphModule: a value of shape {value.shape} takes more than {_MOST:,} bytes")
        return graph

    def forward(self, *inputs: Any) -> Any:
        outputs, count, single = self._shape_written
        if len(inputs) != count:
            raise ValueError(f"GraphModule: {len(inputs)} inputs for a model that takes {count}")
        values = list(inputs)
        for run, operands, made in self._read():
            found = run(*[operand(values) for operand in operands])
            results = found if isinstance(found, tuple) else (found,)
            if len(results) != made:
                raise ValueError(f"GraphModule: an entry has {len(results)} outputs, its description says {made}")
            values += results
        results = tuple(values[i] for i in outputs)
        return results[0] if single else results

    def _read(self) -> list[tuple[Callable[..., Any], list[Callable[[list[Any]], Any]], int]]:
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
            steps.append((run, operands, count))
            values += count
        if not all(type(i) is int and 0 <= i < values for i in outputs):
            raise ValueError(f"GraphModule: outputs {outputs} of {values} values")
        return steps

    def config(self) -> dict[str, Any]:
        outputs, _, single = self._shape_written
        inputs = [(spec.shape, str(spec.dtype)) for spec in self._specs_written]
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
            former = _running.modes.set({**_running.modes.get(), **{id(m): mode for m in model.modules()}})
            try:
                with suppress(ValueError):
                    other = cls._written(model, known, specs)
                    if other[1:] != written[1:]:
                        raise TypeError(
                            f"{type(model).__name__}: what forward does depends on the mode, so no file can hold it "
                            "without its class; see serialize.register"
                        )
            finally:
                _running.modes.reset(former)
        graph = cls(*written)
        places = {name: (owner, attribute) for name, owner, attribute, _ in graph._entries()}
        for name, owner, attribute, _ in model._entries():
            here, at = places[name]
            vars(here)[at] = getattr(owner, attribute)
        modes = {name: module.training for name, module in model.named_modules()}
        for name, module in graph.named_modules():  # the layers are the model's own and have theirs
            if module is graph or isinstance(module, Part):
                module.training = modes[name]
        return graph

    @staticmethod
    def _written(model: Module, known: Callable[[Module], bool], specs: Sequence[Spec]) -> tuple[Any, ...]:
        """Return the constructor's arguments."""
        names = {id(module): name for name, module in model.named_modules()}
        from fastconv.nn._tracing import trace

        graph = trace(model, type(model).forward.raw, specs, known)  # type: ignore[attr-defined]
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
                    layer = getattr(node.op, "layer", node.module)
                    raise TypeError(
                        f"layer class {type(layer).__name__} is not registered, and its {node.op.name} cannot be "
                        "written as an operation; see serialize.register"
                    )
                entry = {"op": type(node.op).__name__, "settings": dict(vars(node.op))}
                given, made, index = node.inputs, node.outputs, index + 1  # type: ignore[assignment]
            entry["inputs"] = [_reference(value, numbers, state) for value in given]
            for value in made:
                numbers[value] = len(numbers)
            entries.append(entry)
        inputs = [(spec.shape, str(spec.dtype)) for spec in specs]
        return _tree(model, known), entries, [numbers[v] for v in graph.outputs], inputs, graph.single


def _runner(entry: Mapping[str, Any], layers: Mapping[str, Module]) -> tuple[Callable[..., Any], int]:
    """Return what an entry runs, and how many values come out."""
    if entry.keys() == {"layer", "inputs", "outputs"}:
        count = entry["outputs"]
        if entry["layer"] not in layers or not entry["layer"] or type(count) is not int or count < 1:
            raise ValueError(f"GraphModule: no layer {str(entry['layer'])[:80]!r}")
        return layers[entry["layer"]], count
    if entry.keys() != {"op", "settings", "inputs"} or entry["op"] not in _OPERATIONS:
        raise ValueError(f"GraphModule: unknown operation {str(entry.get('op'))[:80]!r}")
    kind: Any = _OPERATIONS[entry["op"]]
    wanted = set(kind.settings)
    needed = {name for name in wanted if not hasattr(kind, name)}
    if not needed <= entry["settings"].keys() <= wanted:  # a setting with a default came after the file
        raise ValueError(f"GraphModule: {entry['op']} needs settings {sorted(wanted)}, got {sorted(entry['settings'])}")
    for name, hint in get_type_hints(kind, include_extras=False).items():
        if name in entry["settings"] and not _is_setting(entry["settings"][name], hint):
            raise ValueError(f"GraphModule: {entry['op']} cannot have {name} {str(entry['settings'][name])[:80]!r}")
    op = kind(**entry["settings"])
    return lambda *operands: write(op, *operands), op.results


def _is_setting(value: Any, hint: Any) -> bool:
    """Return whether a setting is of the kind that a field's type names; Any stands for numbers, words and tuples."""
    if hint is Any:
        plain = value is None or isinstance(value, bool | str) or _is_setting(value, float)
        return plain or (isinstance(value, tuple) and all(_is_setting(v, Any) for v in value))
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_setting(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_is_setting, value, kinds))
    if hint is float:
        return (type(value) is int and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value))
    if hint is int:
        return type(value) is int and abs(value) < 2**63
    return type(value) is (type(None) if hint is None else hint)


def _dtype(name: Any) -> np.dtype[Any]:
    if name not in _DTYPES:
        raise ValueError(f"GraphModule: an array of dtype {str(name)[:80]}")
    return np.dtype(name)


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
    for name, value in list(vars(module).items()):
        if isinstance(value, Parameter):
            tree[name] = ("parameter", value.shape, value.requires_grad)
    for name in module.buffer_names:
        value = getattr(module, name)
        tree[name] = ("buffer", value.shape, str(value.dtype.newbyteorder("=")))
    for name in module.extra_names:
        tree[name] = ("extra", int(getattr(module, name)))
    for name, child in children.items():
        part = type(child) is Part if known is None else not known(child)
        tree[name] = _tree(child, known) if part else child
    return tree


def _plant(module: Module, tree: Mapping[str, Any]) -> None:
    """Build what `_tree` returned inside a module."""
    buffers, extras = [], []
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "." in name or hasattr(Module, name) or name in OWN:
            raise ValueError(f"GraphModule: {str(name)[:80]!r} cannot be the name of a part")
        if isinstance(value, Mapping):
            part = Part()
            _plant(part, value)
            vars(module)[name] = part
        elif isinstance(value, Module):
            vars(module)[name] = value
        elif isinstance(value, tuple) and len(value) == 3 and value[0] == "parameter":
            if type(value[2]) is not bool:
                raise ValueError(f"GraphModule: requires_grad of {name} must be true or false")
            vars(module)[name] = Parameter(initial(_sizes(value[1]), 0.0), bool(value[2]))
        elif isinstance(value, tuple) and len(value) == 3 and value[0] == "buffer":
            dtype = _dtype(value[2])  # of floats, that of the parameters, as layers make theirs
            zero = np.float32(0) if dtype.kind == "f" else dtype.type(0)
            vars(module)[name] = np.broadcast_to(zero, _sizes(value[1]))
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
