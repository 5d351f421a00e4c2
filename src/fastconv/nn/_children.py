"""The walk over a tree of layers: an attribute that is a layer is a child."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastconv.nn._parameter import Parameter
from fastconv.nn._settings import LOOK, OWN

if TYPE_CHECKING:
    from fastconv.nn.base import Module

_LEAVES = frozenset((bool, int, float, str, type(None), np.ndarray, Parameter))  # passed by without a look
_PLAIN = (list, tuple, dict, set, frozenset)


def _items(container: Any) -> Iterator[Any]:
    """Yield what plain containers within each other hold, of each the first thousand."""
    for item in itertools.islice(container.values() if isinstance(container, dict) else container, LOOK):
        if isinstance(item, _PLAIN):
            yield from _items(item)
        else:
            yield item


class Children:
    """Finds the layers of a layer."""

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (attribute, module) of the direct children.

        Raises
        ------
        TypeError
            If an attribute is a list, tuple, set or dict with a module or a parameter in it that is no attribute
            itself: nothing would save, train or convert it.
        """
        attributes = list(vars(self).items())
        for name, value in attributes:
            if type(value) in _LEAVES:
                continue
            if isinstance(value, Children):
                yield name, value  # type: ignore[misc]  # Module alone is one
            elif isinstance(value, _PLAIN) and name not in OWN:
                self._refuse_hidden(name, value, [v for _, v in attributes])

    def _refuse_hidden(self, name: str, value: Any, known: list[Any]) -> None:
        for item in _items(value):
            if isinstance(item, Children | Parameter) and not any(item is other for other in known):
                kind, held = type(value).__name__, type(item).__name__
                way = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
                way = f"use {way}" if isinstance(item, Children) else "make each an attribute of its own, by setattr"
                raise TypeError(
                    f"{type(self).__name__}.{name} is a {kind} that holds a {held}, which would be neither trained nor "
                    f"saved: {way}"
                )

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted path, module) of this module (path "") and all below it.

        Parameters
        ----------
        prefix : str
            Put before every path.
        """
        yield prefix, self  # type: ignore[misc]
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it."""
        yield from (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """Yield the direct children."""
        yield from (child for _, child in self.named_children())

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call a function with every module below this one, then with this one; returns self.

        Parameters
        ----------
        function : callable
            ``function(module)``.
        """
        for child in self.children():
            child.apply(function)
        function(self)  # type: ignore[arg-type]
        return self
