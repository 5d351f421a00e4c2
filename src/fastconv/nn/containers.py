"""Sequential: a chain of layers that fuses itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, overload

from fastconv.nn.base import Affine, Array, Fusing, Module, Parameter


@dataclass(frozen=True)
class Group:
    """Neighbouring layers that run as one functional call each way, or a single layer.

    Attributes
    ----------
    layers : tuple of Module
        In order; the first one keeps the buffers and what backward needs.
    activation : str or None
    """

    layers: tuple[Module, ...]
    activation: str | None = None

    @property
    def bias(self) -> Parameter | None:
        """The one bias that the head may take from among the layers."""
        for layer in self.layers:
            if isinstance(layer, Affine) and layer.bias is not None:
                return layer.bias
        return None

    @property
    def learns(self) -> bool:
        """Whether backward has something to do here beside the input's gradient."""
        return any(
            next(layer.parameters(), None) is not None or any(module.trains_itself for module in layer.modules())
            for layer in self.layers
        )

    @cached_property
    def norm(self) -> Any:
        """The normalisation that the head takes along in evaluation, or None."""
        return next((layer for layer in self.layers[1:] if layer.fuses_as == "norm"), None)

    @cached_property
    def pool(self) -> Any:
        """The pooling that takes the activation's gradient upon itself, or None."""
        return next((layer for layer in self.layers[1:] if layer.fuses_as == "pool"), None)

    def forward(self, input: Array) -> Array:
        head = self.layers[0]
        if len(self.layers) == 1:
            return head(input)
        again = [layer for layer in self.layers if layer._enter()]
        output = self._fused(input)
        for layer in again:
            layer._saved = ()
        return output

    def _fused(self, input: Array) -> Array:
        head, norm = self.layers[0], self.norm
        if norm is not None and not norm.training:
            assert isinstance(head, Affine)
            return head.normalised(input, self.bias, norm, self.activation)
        return self._in_turn(input)

    def backward(self, grad_output: Array) -> Array | None:
        head, norm, pool = self.layers[0], self.norm, self.pool
        if pool is not None:
            return head.backward(pool.backward(grad_output))
        if norm is None:
            return head.backward(grad_output)
        if head._saved and len(head._saved[1]) == 1:  # sums before the norm were not kept: once more
            before, norm.training = norm.training, False
            self._in_turn(head._recall(grad_output)[1])
            norm.training = before
        return head.backward(norm.backward(grad_output))

    def _in_turn(self, input: Array) -> Array:
        head, norm, pool = self.layers[0], self.norm, self.pool
        assert isinstance(head, Fusing)
        output: Array
        if pool is not None:
            output = pool.behind(head.fused(input, self.bias, self.activation, masked=True), self.activation)
        elif norm is not None:
            output = norm.fused(head.fused(input, self.bias, None), None, self.activation)
        else:
            output = head.fused(input, self.bias, self.activation)
        return output


def group_layers(layers: list[Module], training: bool) -> list[Group]:
    """Merge each layer that can take others along with the Bias and the ReLU behind it, in training with a MaxPool2d
    behind that, in evaluation with a BatchNorm before it.

    Subclasses that change how a layer runs are left alone.
    """
    groups: list[Group] = []
    for layer in layers:
        last = groups[-1] if groups else None
        known = vars(type(layer)).get("fuses_as")
        if last and known in _takes(last, training):
            groups[-1] = Group((*last.layers, layer), "relu" if known == "relu" else last.activation)
        else:
            groups.append(Group((layer,)))
    return groups


def _takes(group: Group, training: bool) -> tuple[str, ...]:
    """Return what the group can take along yet; a layer whose running was redefined takes nothing."""
    kind: Any = type(group.layers[0])
    plain: Any = next((base for base in kind.__mro__ if "fused" in vars(base)), None)
    if plain is None or kind.forward is not plain.forward or kind.backward is not plain.backward:
        return ()
    if group.activation:
        return ("pool",) if training and group.pool is None else ()
    full = {"bias": group.bias is not None or group.norm is not None, "norm": training or group.norm is not None}
    return tuple(what for what in kind.takes if not full.get(what, False))


class Sequential(Module):
    """Layers one after the other.

    At the first batch it flattens nested Sequentials and merges neighbours: Conv, Linear (+ Bias) (+ ReLU) and
    BatchNorm (+ ReLU) become one pass forward and one backward, in evaluation Conv, Linear (+ Bias) + BatchNorm
    (+ ReLU) one pass forward. In training a MaxPool2d behind a ReLU applies the ReLU's gradient to its own, smaller
    one. All this is bit-equal to the layers one by one; `plan` shows it. While any layer has a forward hook, or with
    ``fuse=False``, every layer runs on its own.

    Parameters
    ----------
    *layers : Module, or one dict of name to Module
        Names are "0", "1", ... unless a dict gives them (letters, digits, underscore).
    input_grad : bool
        False spares the gradient of the very input: `backward` returns None, and layers before the first
        that learns are not run backward at all.
    fuse : bool
        False runs the layers of this container one by one; nested ones have a word of their own.

    Raises
    ------
    TypeError
        If a layer is not a Module.
    ValueError
        If a module appears twice (it keeps one set of buffers), or a name is no name.

    Examples
    --------
    >>> from fastconv import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *layers: Module | Mapping[str, Module], input_grad: bool = True, fuse: bool = True) -> None:
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            self._layers: dict[str, Any] = dict(layers[0])
        else:
            self._layers = {str(i): layer for i, layer in enumerate(layers)}
        self.need_input_grad = self.input_grad = input_grad
        self.fuse = fuse
        self._groups: dict[bool, list[Group]] = {}
        self._ran: list[Group] = []
        self._below: list[Module] = []
        seen: set[int] = set()
        for name, layer in self._layers.items():
            if not isinstance(name, str) or not name.replace("_", "a").isalnum():
                raise ValueError(f"Sequential: names are letters, digits and underscores, got {name!r}")
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: layer {name} must be a Module, got {type(layer).__name__}")
            for module in layer.modules():
                if id(module) in seen:
                    raise ValueError(f"Sequential: layer {name} has a module that appears before: {module!r}")
                seen.add(id(module))

    def forward(self, input: Array) -> Array:
        groups = self.groups()
        if not self.fuse or any(module._hooks for module in self._below):
            groups = [Group((layer,)) for layer in self]
        self._ran = groups
        output = input
        for group in groups:
            output = group.forward(output)
        return self._save(output)

    def backward(self, grad_output: Array) -> Array | None:
        grad: Any = self._recall(grad_output)[0]
        groups = self._ran
        first = 0 if self.need_input_grad else next((i for i, g in enumerate(groups) if g.learns), len(groups))
        for i in reversed(range(first, len(groups))):
            head = groups[i].layers[0]
            before, head.need_input_grad = head.need_input_grad, self.need_input_grad or i > first
            grad = groups[i].backward(grad)
            head.need_input_grad = before
        return grad if self.need_input_grad else None

    def groups(self) -> list[Group]:
        """Return what runs as one: the plan of this mode, made at the first call."""
        if self.training not in self._groups:
            self._groups[self.training] = group_layers(list(self._flattened()), self.training)
            self._below = list(self.modules())[1:]
        return self._groups[self.training]

    def _parts(self) -> Iterator[tuple[Module, ...]]:
        yield from (group.layers for group in self._ran)

    def _flattened(self) -> Iterator[Module]:
        for layer in self:
            if type(layer) is Sequential and layer.fuse:
                yield from layer._flattened()
            else:
                yield layer

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from self._layers.items()

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers.values())

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int | str) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | str | slice) -> Module:
        """Return a layer by place or name, or a Sequential that shares the layers of a slice."""
        if isinstance(index, str):
            return self._layers[index]
        if isinstance(index, slice):
            return Sequential(*list(self)[index], fuse=self.fuse)
        return list(self)[index]

    def config(self) -> dict[str, Any]:
        return {"layers": dict(self._layers), "input_grad": self.input_grad, "fuse": self.fuse}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(config.pop("layers"), **config)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_groups": {}, "_ran": [], "_below": []}
