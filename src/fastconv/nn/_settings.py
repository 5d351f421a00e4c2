"""What a forward may read of layers beside values, and whether it has changed since.

Assigning an attribute is noticed where it happens: `latest.change` is another object afterwards, whichever model it was
assigned in, so that a model that looks at this one object knows whether it has to look at itself again. A list, dict or
set, or a dataclass, is changed in its own place; so what each holds is kept beside it and compared before each run, by
identity: that costs nothing where there is none, and misses nothing where there is.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import is_
from types import SimpleNamespace
from typing import Any

LOOK = 1000
"""Items of a container that are looked at; a longer one holds data."""

# Attributes that belong to running: to assign one changes nothing that a forward has written down.
OWN = frozenset((
    "training", "_training", "need_input_grad", "_hooks", "_saved", "_tree", "_arrays", "_storage", "_version",
    "_entries_written", "_specs_written", "_shape_written",
))  # fmt: skip

# What no other run depends on. Modes are noticed where they are set, since a layer may be told the mode it is in.
_STATE = frozenset(("training", "_saved", "_tree", "_arrays", "_storage", "_version"))

_DEEP = 8  # levels of containers within each other
_CHANGING = (list, dict, set, deque)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), tuple)


class _Latest:
    """The latest change of a layer or parameter of any model."""

    change: object = object()


latest = _Latest()


def assigned(name: str) -> None:
    """Note that an attribute of a layer or parameter has another value."""
    if name not in _STATE:
        latest.change = object()


class Held:
    """A container, and what it held."""

    __slots__ = ("container", "items", "length")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.length, self.items = len(container), _items(container)

    def moved(self) -> bool:
        """Return whether it holds anything else by now."""
        now = self.container
        return len(now) != self.length or not all(map(is_, _items(now), self.items))


def _items(container: Any) -> tuple[Any, ...]:
    first = tuple(islice(container, LOOK))
    return (*first, *islice(container.values(), LOOK)) if isinstance(container, dict) else first


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object that is there to hold settings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return getattr(value, "__dict__", None)
    return vars(value) if isinstance(value, SimpleNamespace) else None


def _containers(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what can be changed in its own place, of a value and all that it holds."""
    fields = _fields(value) if hasattr(value, "__dict__") else None
    found = value if fields is None else fields
    if not isinstance(found, (*_CHANGING, tuple)) or depth > _DEEP:
        return
    if isinstance(found, _CHANGING):
        yield found
    for item in islice(found.values() if isinstance(found, dict) else found, LOOK):
        if not isinstance(item, _PLAIN) or isinstance(item, tuple):
            yield from _containers(item, depth + 1)


def held(module: Any) -> list[Held]:
    """Return the containers among a module's attributes."""
    apart = OWN.union(module._replaced)
    values = [value for name, value in list(vars(module).items()) if name not in apart]
    return [Held(container) for value in values for container in _containers(value)]


class Settings:
    """Plain attributes and containers of a layer with a backward of its own, and of the layers inside it.

    Its forward reads them when it runs, so they can only be stale in the shape that it is known to return; and it may
    change some in each run, counters say: `settle` looks away from those that moved without a change of shape.
    """

    __slots__ = ("_held", "_plain", "layer")

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._held: list[Held] = []
        self._plain: list[tuple[dict[str, Any], tuple[str, ...], tuple[Any, ...]]] = []
        for module in layer.modules():
            known = vars(module)
            self._held += held(module)
            names = tuple(name for name, value in list(known.items()) if name not in OWN and isinstance(value, _PLAIN))
            self._plain.append((known, names, tuple(map(known.get, names))))

    def moved(self) -> bool:
        """Return whether any of them is another one by now."""
        return not all(all(map(is_, map(known.get, names), values)) for known, names, values in self._plain) or any(
            entry.moved() for entry in self._held
        )

    def settle(self) -> None:
        """Watch those alone that have not moved."""
        self._held = [entry for entry in self._held if not entry.moved()]
        kept = []
        for known, names, values in self._plain:
            same = [(name, value) for name, value in zip(names, values, strict=True) if known.get(name) is value]
            kept.append((known, tuple(name for name, _ in same), tuple(value for _, value in same)))
        self._plain = kept
