"""Values that stand for arrays while a model is described, and the graph that they are written into.

A call with a `Value` writes a node and computes nothing. Code that needs to see numbers (``if x.max() > 0``,
``np.asarray(x)``) gets a `TraceError` that names its line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastconv.graph.operation import Operation, Spec, axis_of, check_count

_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

functions: dict[str, Callable[..., Any]] = {}
"""What `functional` does with values, by the function's name: the operations register themselves here."""


class TraceError(RuntimeError):
    """A model's forward looked at a value that is only known when it runs; the message names its line.

    A forward is written down once for each shape, with values that have a shape and no numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> class Gate(nn.Module):
    ...     def forward(self, x):
    ...         return x if x.sum() > 0 else -x
    >>> Gate()(np.ones((1, 2)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    fastconv.graph.value.TraceError: ...line 3, in forward: comparing it needs the numbers of a value, but forward ...
    """


def _place() -> str:
    """Return file and line of the innermost frame outside the package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_PACKAGE, np.__path__[0])) and not name.startswith("<frozen"):
            return f"{name}, line {frame.f_lineno}, in {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "the model's forward"


def refuse(what: str) -> NoReturn:
    """Raise a `TraceError` for the line of the user's code that is running."""
    raise TraceError(
        f"{_place()}: {what} needs the numbers of a value, but forward is written down once for each shape, before "
        "there are numbers. Use layers, fastconv.functional and + - * / on values; for NumPy code write a module of "
        "its own that defines backward too."
    )


def no_constant() -> NoReturn:
    """Raise a `TraceError` for the line of the user's code that takes the numbers of a parameter."""
    raise TraceError(
        f"{_place()}: the data of a parameter would be a constant here, without a gradient and left behind by the next "
        "update; use the parameter itself, which has shape and dtype, too"
    )


def _is_parameter(operand: Any) -> bool:
    return hasattr(operand, "requires_grad") and hasattr(operand, "grad")  # its class belongs to `nn`, above


class Value:
    """An array to come: `shape` and `dtype` are known, its numbers are not.

    It takes ``+ - * /``, unary minus, slicing by constants, and the methods below, which are those of
    `torch.Tensor`; functions of `fastconv.functional` take it where they take arrays.
    """

    __slots__ = ("graph", "index", "node", "source", "spec")

    def __init__(self, graph: Graph, spec: Spec, source: Any = None, node: Node | None = None, index: int = 0) -> None:
        self.graph, self.spec, self.source, self.node, self.index = graph, spec, source, node, index

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    @property
    def learned(self) -> bool:
        """Whether it is a parameter."""
        return _is_parameter(self.source)

    def size(self, axis: int | None = None) -> Any:
        """Return the shape, or the size of one axis."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        return self.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Value(shape={self.shape}, dtype={self.dtype})"

    # ---- arithmetic

    def __add__(self, other: Any) -> Any:
        return functions["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return functions["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return functions["sub"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return functions["sub"](other, self)

    def __mul__(self, other: Any) -> Any:
        return functions["mul"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return functions["mul"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return functions["div"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return functions["div"](other, self)

    def __neg__(self) -> Any:
        return functions["mul"](self, -1.0)

    def __pos__(self) -> Any:
        return self

    def __getitem__(self, index: Any) -> Any:
        return functions["getitem"](self, index)

    # ---- methods as torch's

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any:
        return functions["flatten"](self, start_dim, end_dim)

    def reshape(self, *shape: Any) -> Any:
        return functions["reshape"](self, *shape)

    view = reshape

    def permute(self, *axes: Any) -> Any:
        return functions["permute"](self, *axes)

    def transpose(self, first: int, second: int) -> Any:
        axes = list(range(self.ndim))
        first, second = (axis_of("transpose", axis, self.shape) for axis in (first, second))
        axes[first], axes[second] = axes[second], axes[first]
        return functions["permute"](self, axes)

    def unsqueeze(self, axis: int) -> Any:
        at = axis_of("unsqueeze", axis, self.shape, 1)
        return functions["reshape"](self, (*self.shape[:at], 1, *self.shape[at:]))

    def squeeze(self, axis: int) -> Any:
        at = axis_of("squeeze", axis, self.shape)
        if self.shape[at] != 1:
            return self
        return functions["reshape"](self, (*self.shape[:at], *self.shape[at + 1 :]))

    def mean(self, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False) -> Any:
        return functions["mean"](self, axis if dim is None else dim, keepdims or keepdim)

    def sum(self, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False) -> Any:
        return functions["sum"](self, axis if dim is None else dim, keepdims or keepdim)

    def relu(self) -> Any:
        return functions["relu"](self)

    def sigmoid(self) -> Any:
        return functions["sigmoid"](self)

    def tanh(self) -> Any:
        return functions["tanh"](self)

    # ---- what would need numbers

    __hash__ = object.__hash__

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("turning it into an array")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = {"subtract": "sub", "multiply": "mul", "divide": "div", "add": "add"}.get(ufunc.__name__)
        if name is None or method != "__call__" or kwargs:
            refuse(f"numpy.{ufunc.__name__}")
        return functions[name](*inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        refuse(f"numpy.{function.__name__}")

    def __bool__(self) -> NoReturn:
        refuse("a condition")

    def __float__(self) -> NoReturn:
        refuse("float()")

    def __int__(self) -> NoReturn:
        refuse("int()")

    def __index__(self) -> NoReturn:
        refuse("using it as an index")

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, item: Any) -> NoReturn:
        refuse("'in'")

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        refuse("assigning to a part of it")

    def _compared(self, other: Any) -> NoReturn:
        refuse("comparing it")

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def __eq__(self, other: object) -> bool:
        if other is self or other is None:
            return other is self
        refuse("comparing it")


for _name in (
    "max", "min", "item", "numpy", "tolist", "any", "all", "argmax", "argmin", "std", "var", "astype", "copy",
):  # fmt: skip
    setattr(Value, _name, lambda self, *args, _name=_name, **kwargs: refuse(f"{_name}()"))


class Node:
    """One operation on values.

    Attributes
    ----------
    op : Operation
    inputs : list of Value or None
    outputs : list of Value
    module : Any
        The layer that wrote it.
    fuse : bool
        Whether it may run as one with its neighbours.
    """

    __slots__ = ("fuse", "inputs", "module", "op", "outputs")

    def __init__(self, op: Operation, inputs: Sequence[Value | None], module: Any, fuse: bool) -> None:
        self.op, self.inputs, self.module, self.fuse = op, list(inputs), module, fuse
        self.outputs: list[Value] = []

    def specs(self) -> tuple[tuple[Any, ...], tuple[Spec, ...]]:
        """Return the specs of inputs and outputs."""
        inputs = tuple(None if value is None else value.spec for value in self.inputs)
        return inputs, tuple(value.spec for value in self.outputs)

    def __repr__(self) -> str:
        return f"Node({self.op!r})"


class Call(NamedTuple):
    """A layer that another one's forward called: the nodes from one index to another are its own."""

    module: Any
    inputs: list[Value]
    outputs: list[Value]
    first: int
    last: int


class Graph:
    """Nodes in the order in which they were written, which is an order in which they can run.

    Attributes
    ----------
    inputs : list of Value
    outputs : list of Value
    nodes : list of Node
    parameters : dict of int to Value
        By the identity of the parameter.
    calls : list of Call
        Of layers inside layers, in the order in which they ended.
    """

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.nodes: list[Node] = []
        self.parameters: dict[int, Value] = {}
        self.arrays: dict[int, Value] = {}
        self.modules: list[Any] = []  # the layers that are being described, outermost first
        self.calls: list[Call] = []
        self.weights: list[np.ndarray] = []  # data of parameters, which are to come as parameters
        self.known: Any = None  # which layers somebody wants to tell apart by their outputs
        self.fuse = [True]  # the word of the innermost container that has one
        self.single = True  # whether forward returned one value, no tuple

    def input(self, spec: Spec) -> Value:
        self.inputs.append(Value(self, spec, source=("input", len(self.inputs))))
        return self.inputs[-1]

    def operand(self, operand: Any, like: np.dtype[Any]) -> Value | None:
        """Return the value of what a function was given: a value, a parameter, an array, a number or None."""
        if operand is None or isinstance(operand, Value):
            if operand is not None and operand.graph is not self:
                raise TraceError(f"{_place()}: a value of another forward is used; keep no values between calls")
            return operand
        if _is_parameter(operand):
            if id(operand) not in self.parameters:
                spec = Spec(operand.shape, operand.dtype.newbyteorder("="))
                self.parameters[id(operand)] = Value(self, spec, source=operand)
            return self.parameters[id(operand)]
        if isinstance(operand, bool | int | float | np.number):
            operand = np.asarray(operand, like)
        if not isinstance(operand, np.ndarray):
            raise TypeError(
                f"{_place()}: expected a value, a parameter, an array or a number, got {type(operand).__name__}"
            )
        if operand.ndim and any(np.may_share_memory(operand, weight) for weight in self.weights):
            no_constant()
        if id(operand) not in self.arrays:
            spec = Spec(operand.shape, operand.dtype.newbyteorder("="))
            self.arrays[id(operand)] = Value(self, spec, source=operand)
        return self.arrays[id(operand)]

    def write(self, op: Operation, *operands: Any) -> Any:
        """Add a node; returns its output, or a tuple of them."""
        like = next(operand.dtype for operand in operands if isinstance(operand, Value))
        inputs = [self.operand(operand, like) for operand in operands]
        for place, value in enumerate(inputs):
            if value is None and place not in op.optional:
                raise TypeError(f"{_place()}: {op.name}: array {place} is missing (None)")
        node = Node(op, inputs, self.modules[-1] if self.modules else None, self.fuse[-1])
        specs = op.infer(*(None if value is None else value.spec for value in inputs))
        for spec in specs:
            check_count(op.name, "an output", *spec.shape)
        node.outputs = [Value(self, spec, node=node, index=i) for i, spec in enumerate(specs)]
        self.nodes.append(node)
        return node.outputs[0] if len(node.outputs) == 1 else tuple(node.outputs)

    @contextlib.contextmanager
    def inside(self, module: Any) -> Iterator[None]:
        """Let nodes belong to a module for a ``with`` block."""
        self.modules.append(module)
        word = getattr(module, "fuse", None)
        self.fuse.append(word if isinstance(word, bool) else self.fuse[-1])
        try:
            yield
        finally:
            self.modules.pop()
            self.fuse.pop()


def graph_of(operands: Sequence[Any]) -> Graph | None:
    """Return the graph of the first value among operands, looking into lists and tuples, or None."""
    for operand in operands:
        if type(operand) is Value:
            return operand.graph
        if type(operand) in (list, tuple):
            found = graph_of(operand)
            if found is not None:
                return found
    return None


def write(op: Operation, *operands: Any) -> Any:
    """Add a node to the graph of the operands."""
    graph = graph_of(operands)
    assert graph is not None
    return graph.write(op, *operands)
