"""An ONNX file that is being written, and where its writers register."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.graph.operation import Array
from fastconv.graph.value import Graph, Node, Value
from fastconv.nn.base import Module

WRITERS: dict[str, Callable[["Draft", Node], None]] = {}
"""What writes an operation, by its class's name."""


class Draft:
    """The nodes, constants and weights so far, and the names of values.

    Weights are kept as they are: `tensors` copies them.
    """

    def __init__(self, onnx: Any, model: Module, graph: Graph) -> None:
        self.onnx, self.graph = onnx, graph
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.weights: dict[str, tuple[Array, Callable[[Array], Array] | None]] = {}
        self.names: dict[int, str] = {}
        self.written: set[str] = set()
        self.made = 0
        self.state = {id(getattr(owner, at)): name for name, owner, at, _ in model._entries()}
        for i, value in enumerate(graph.inputs):
            self.names[id(value)] = "input" if len(graph.inputs) == 1 else f"input{i}"

    def name(
        self, value: Value, change: Callable[[Array], Array] | None = None, mark: str = "", statistic: bool = False
    ) -> str:  # fmt: skip
        """Return the name of a value; a weight is written down, changed if it must be."""
        if id(value) in self.names and change is None:
            return self.names[id(value)]
        source = value.source
        array = source if isinstance(source, np.ndarray) else source.data
        name = self.state.get(id(source)) or self._fresh()
        if change is not None and (id(value) in self.names or name in self.written):
            name += mark  # the weight as it is has the name
        if name not in self.written:
            if value.learned or statistic:
                self.weights[name] = array, change
            else:
                self._fix(name, array, change)
            self.written.add(name)
        if change is None:
            self.names[id(value)] = name
        return name

    def _fix(self, name: str, array: Array, change: Callable[[Array], Array] | None) -> None:
        """Write down what nobody trains, so that it comes back as such."""
        tensor = self._tensor(name, array, change)
        self.nodes.append(self.onnx.helper.make_node("Constant", [], [name], name, value=tensor))

    def filled(self, count: Sequence[int] | int, number: float, dtype: Any) -> str:
        """Return the name of so many times one number, in the place of weights that a layer has not."""
        name = self._fresh()
        self._fix(name, np.full(count, number, dtype), None)
        return name

    def _tensor(self, name: str, array: Array, change: Callable[[Array], Array] | None) -> Any:
        array = np.ascontiguousarray(array if change is None else change(array))
        return self.onnx.numpy_helper.from_array(array.astype(array.dtype.newbyteorder("="), copy=False), name)

    def tensors(self) -> list[Any]:
        """Return weights and constants as the file holds them."""
        return [*(self._tensor(name, *held) for name, held in self.weights.items()), *self.constants]

    def _fresh(self) -> str:
        self.made += 1
        return f"constant_{self.made}"

    def constant(self, array: Any) -> str:
        """Return the name of a constant that is no weight."""
        name = self._fresh()
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **settings: Any) -> str:
        name = output or f"value_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name, **settings))
        return name

    def put(self, node: Node, kind: str, inputs: Sequence[str], **settings: Any) -> None:
        """Write the node that gives an operation's one output."""
        self.names[id(node.outputs[0])] = self.node(kind, inputs, **settings)

    def operands(self, node: Node) -> list[str]:
        return [self.name(value) for value in node.inputs if value is not None]


def writes(*kinds: str) -> Callable[[Callable[[Draft, Node], None]], Callable[[Draft, Node], None]]:
    def register(function: Callable[[Draft, Node], None]) -> Callable[[Draft, Node], None]:
        WRITERS.update(dict.fromkeys(kinds, function))
        return function

    return register
