"""Sequential: a chain of layers."""

from collections.abc import Iterator, Mapping
from typing import Any, Self, overload

from fastconv.functional._check import flag
from fastconv.nn.base import Module


class Sequential(Module):
    """Layers one after the other.

    Neighbours run as one where that changes no bit (`plan` shows it): Conv, Linear (+ Bias) (+ ReLU) and BatchNorm
    (+ ReLU) are one pass forward, in evaluation Conv, Linear (+ Bias) + BatchNorm (+ ReLU). In training a pooling
    behind a ReLU takes the ReLU's gradient along. What a forward hook looks at runs on its own.

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

    _replaced = ("_layers",)

    def __init__(self, *layers: Module | Mapping[str, Module], input_grad: bool = True, fuse: bool = True) -> None:
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            self._layers: dict[str, Any] = dict(layers[0])
        else:
            self._layers = {str(i): layer for i, layer in enumerate(layers)}
        self.need_input_grad = self.input_grad = flag("Sequential: input_grad", input_grad)
        self.fuse = flag("Sequential: fuse", fuse)
        self._check(self._layers)

    @staticmethod
    def _check(layers: Mapping[str, Any]) -> None:
        seen: set[int] = set()
        for name, layer in layers.items():
            if not isinstance(name, str) or not name.replace("_", "a").isalnum():
                raise ValueError(f"Sequential: names are letters, digits and underscores, got {name!r}")
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: layer {name} must be a Module, got {type(layer).__name__}")
            for module in layer.modules():
                if id(module) in seen:
                    raise ValueError(f"Sequential: layer {name} has a module that appears before: {module!r}")
                seen.add(id(module))

    def append(self, layer: Module) -> Self:
        """Add a layer at the end, its place the name; returns self.

        Parameters
        ----------
        layer : Module

        Raises
        ------
        TypeError, ValueError
            If it is no module, or in it already.
        """
        if str(len(self)) in self._layers:
            raise ValueError(f"Sequential: there is a layer {len(self)} already")
        changed = {**self._layers, str(len(self)): layer}
        self._check(changed)
        self._layers = changed
        return self

    def __setitem__(self, index: int | str, layer: Module) -> None:
        """Put a layer in the place of another, by place or name."""
        if isinstance(index, str) and index not in self._layers:
            raise KeyError(index)
        changed = {**self._layers, index if isinstance(index, str) else list(self._layers)[index]: layer}
        self._check(changed)
        self._layers = changed

    def forward(self, input: Any) -> Any:
        for layer in self:
            input = layer(input)
        return input

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
