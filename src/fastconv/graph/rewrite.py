"""Which neighbours run as one: the table of rewrites, all of them bit-equal to the operations one by one.

| head | takes in the same pass, in this order | when |
|---|---|---|
| convolution, linear | bias, normalisation in evaluation, addition, activation | by the head's `takes` |
| batch normalisation, bias, transposed convolution | addition, activation | by the head's `takes` |
| convolution, linear, bias, batch normalisation, transposed convolution | PReLU | by the head's `takes` |
| normalisation of groups or rows | activation | by the head's `takes` |
| addition | activation | always |
| pooling | the gradient of the ReLU before it | in training |

An activation whose gradient is made from its input has that kept in the same pass, where gradients are wanted.

A value is not merged away where somebody looks at it: a hook, a second reader, the model's caller; with gradients,
neither where backward reads it. Operations whose outputs nobody reads are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fastconv.graph.operation import Operation
from fastconv.graph.value import Graph, Node, Value

_STAGES = {"bias": 0, "scale": 1, "add": 2, "activation": 3, "slopes": 3}


@dataclass(eq=False, repr=False)
class Group:
    """Operations that run as one.

    Attributes
    ----------
    op : Operation
        Of the first, whose kernel takes the others along.
    inputs : list of Value or None
        Of the first.
    outputs : list of Value
        Of the last.
    nodes : list of Node
        All of them, in order.
    place : int
        Among the groups: they run in this order.
    scale, activation : Node or None
        A normalisation in evaluation, and the activation, if they are among them.
    add : Value or None
        What is added.
    pooled : bool
        The gradient that comes back has been through the activation's already: the pooling behind did it.
    behind : str or None
        For a pooling: the activation before it, whose gradient it takes along.
    """

    op: Operation
    inputs: list[Value | None]
    outputs: list[Value]
    nodes: list[Node]
    place: int
    scale: Node | None = None
    add: Value | None = None
    activation: Node | None = None
    pooled: bool = False
    behind: str | None = None
    stage: int = -1

    @property
    def masks(self) -> bool:
        """Whether the first one's backward takes the activation's gradient along."""
        return self.activation is not None and self.add is None and self.activation.op.name in self.op.masks

    @property
    def keeps_input(self) -> bool:
        """Whether the activation's gradient is made from its input, which nobody else has."""
        return self.activation is not None and bool(self.activation.op.reads_inputs)

    @property
    def slopes(self) -> list[Value]:
        """What the activation learns, if it does: one number, or one per channel."""
        return [] if self.activation is None else [v for v in self.activation.inputs[1:] if v is not None]

    def reads(self) -> Iterable[Value]:
        """Yield the values that forward reads."""
        yield from (value for value in self.inputs if value is not None)
        yield from self.slopes
        if self.add is not None:
            yield self.add
        if self.scale is not None:
            yield from (value for value in self.scale.inputs[1:] if value is not None)


def group(graph: Graph, gradients: bool) -> list[Group]:
    """Return the graph's living nodes as groups, in an order in which they can run.

    Parameters
    ----------
    graph : Graph
    gradients : bool
        Whether backward will run.
    """
    nodes = _living(graph)
    readers = Counter(value for node in nodes for value in node.inputs if value is not None)
    readers.update(graph.outputs)
    groups: list[Group] = []
    made: dict[Value, Group] = {}
    for node in nodes:
        host = _host(node, made, readers, gradients) if node.fuse else None
        if host is None:
            host = Group(node.op, list(node.inputs), list(node.outputs), [node], len(groups))
            groups.append(host)
        made.update(dict.fromkeys(host.outputs, host))
        if node.fuse and gradients and len(node.inputs) == 1 and node.inputs[0] is not None:
            _mask_behind(host, made.get(node.inputs[0]), readers)
    return groups


def _living(graph: Graph) -> list[Node]:
    """Return the nodes whose outputs are read by somebody, or that do something else."""
    needed = set(graph.outputs)
    living = []
    for node in reversed(graph.nodes):
        if node.op.stateful or not needed.isdisjoint(node.outputs):
            needed.update(value for value in node.inputs if value is not None)
            living.append(node)
    return living[::-1]


def _host(node: Node, made: dict[Value, Group], readers: Counter[Value], gradients: bool) -> Group | None:
    """Return the group before a node that takes it along, having done so, or None."""
    part = node.op.takes_part_as
    if not part:
        return None
    for position, value in enumerate(node.inputs):
        host = None if value is None else made.get(value)
        if host is None or value is not host.outputs[0] or readers[value] != 1 or not host.nodes[0].fuse:
            continue
        if part not in host.op.takes or _STAGES[part] <= host.stage or value.spec != node.outputs[0].spec:
            continue
        if position and part != "add":
            continue
        if gradients and part == "scale":
            continue
        if part == "slopes" and any(v is None or v.node is not None for v in node.inputs[1:]):
            continue  # what another operation computes may not be there yet
        if part == "bias":
            if host.inputs[2] is not None:
                continue
            host.inputs[2] = node.inputs[1]
        elif part == "scale":
            host.scale = node
        elif part == "add":
            other = node.inputs[1 - position]
            if other is None or other.spec != value.spec or not _earlier(other, host, made):
                continue
            host.add = other
        else:
            host.activation = node
        host.stage = _STAGES[part]
        host.nodes.append(node)
        host.outputs = list(node.outputs)
        return host
    return None


def _earlier(value: Value, host: Group, made: dict[Value, Group]) -> bool:
    """Return whether a value is there before a group runs."""
    maker = made.get(value)
    if maker is None:
        return value.node is None
    return maker.place < host.place


def _mask_behind(pool: Group, before: Group | None, readers: Counter[Value]) -> None:
    """Let a pooling take the gradient of the activation before it along."""
    if before is None or before is pool or "pool" not in pool.op.takes or before.activation is None:
        return
    if before.masks and pool.op.takes_along:  # its own backward has the numbers at hand
        return
    activation = before.activation.op.name
    if activation == "relu" and readers[before.outputs[0]] == 1:
        before.pooled, pool.behind = True, activation
