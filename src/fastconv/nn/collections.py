"""ModuleList and ModuleDict: modules of a module of one's own, found by whatever walks over the tree.

They do not run; the module that holds them says how::

    class Pyramid(nn.Module):
        def __init__(self, widths):
            self.widths = widths
            self.stages = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

        def forward(self, input):
            found = []
            for stage in self.stages:
                input = F.relu(stage(input))
                found.append(input)
            return F.cat(found, 1)
"""

import operator
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self, SupportsIndex, overload

from fastconv.nn.base import Module


class _Collection(Module):
    """Named children in a container of their own, which every change replaces: so it is seen as any attribute's."""

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from list(self._modules().items())

    def _modules(self) -> dict[str, Module]:
        raise NotImplementedError

    def _check(self, where: str, module: Any) -> Module:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: {where} must be a Module, got {type(module).__name__}")
        return module

    def extra_repr(self) -> str:
        return ""

    def __len__(self) -> int:
        return len(self._modules())


class ModuleList(_Collection):
    """Modules in a list, named "0", "1", ...; it does not run.

    Parameters
    ----------
    modules : iterable of Module, optional

    Raises
    ------
    TypeError
        If an item is not a Module.

    Examples
    --------
    >>> from fastconv import nn
    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
    >>> layers.append(nn.Linear(4, 1))[-1]
    Linear(in_features=4, out_features=1, bias=True)
    >>> list(layers.state_dict())[-1]
    '2.bias'
    """

    _replaced = ("_list",)

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        self._list: list[Module] = []
        if modules is not None:
            self.extend(modules)

    def _modules(self) -> dict[str, Module]:
        return {str(index): module for index, module in enumerate(self._list)}

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns self.

        Parameters
        ----------
        module : Module
        """
        self._list = [*self._list, self._check(f"item {len(self)}", module)]
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end, all or none; returns self.

        Parameters
        ----------
        modules : iterable of Module

        Raises
        ------
        TypeError, ValueError
            If one is no module, or in it twice.
        """
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleList: expected an iterable of modules, got {type(modules).__name__}")
        more = [self._check(f"item {index}", module) for index, module in enumerate(modules, len(self))]
        self._list = [*self._list, *more]
        return self

    def insert(self, index: SupportsIndex, module: Module) -> None:
        """Put a module before the one at `index`.

        Parameters
        ----------
        index : int
        module : Module
        """
        changed = list(self._list)
        changed.insert(index, self._check(f"item {operator.index(index)}", module))
        self._list = changed

    def pop(self, index: SupportsIndex = -1) -> Module:
        """Remove a module and return it.

        Parameters
        ----------
        index : int
            The last by default.
        """
        changed = list(self._list)
        module = changed.pop(index)
        self._list = changed
        return module

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "ModuleList": ...
    def __getitem__(self, index: SupportsIndex | slice) -> Module:
        """Return a module, or a list that shares those of a slice."""
        return ModuleList(self._list[index]) if isinstance(index, slice) else self._list[index]

    def __setitem__(self, index: SupportsIndex, module: Module) -> None:
        changed = list(self._list)
        changed[index] = self._check(f"item {operator.index(index)}", module)
        self._list = changed

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        changed = list(self._list)
        del changed[index]
        self._list = changed

    def __iter__(self) -> Iterator[Module]:
        return iter(self._list)

    def __reversed__(self) -> Iterator[Module]:
        return reversed(self._list)

    def __contains__(self, module: object) -> bool:
        return any(module is other for other in self._list)

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self, modules: Iterable[Module]) -> "ModuleList":
        return ModuleList(self._list).extend(modules)

    def config(self) -> dict[str, Any]:
        return {"modules": tuple(self._list)}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_list": list(self._list)}


class ModuleDict(_Collection):
    """Modules by name, in the order they were added; it does not run.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of (str, Module) pairs, optional

    Raises
    ------
    TypeError
        If a name is not a string or a value not a Module.
    KeyError
        If a name is empty or has a dot, which parts the names of a state.

    Examples
    --------
    >>> from fastconv import nn
    >>> heads = nn.ModuleDict({"digit": nn.Linear(8, 10), "sign": nn.Linear(8, 2)})
    >>> sorted(heads.keys()), heads["sign"]
    (['digit', 'sign'], Linear(in_features=8, out_features=2, bias=True))
    """

    _replaced = ("_dict",)

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        self._dict: dict[str, Module] = {}
        if modules is not None:
            self.update(modules)

    def _modules(self) -> dict[str, Module]:
        return self._dict

    def _entry(self, name: Any, module: Any) -> tuple[str, Module]:
        if not isinstance(name, str):
            raise TypeError(f"ModuleDict: a name must be a string, got {name!r}")
        if not name or "." in name:
            raise KeyError(f"ModuleDict: a name must not be empty or have a dot, got {name!r}")
        return name, self._check(repr(name), module)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules, all or none.

        Parameters
        ----------
        modules : mapping of str to Module, or iterable of pairs

        Raises
        ------
        TypeError, ValueError
            If one is no module, a name is none, or a module is in it twice.
        """
        pairs: Any = modules.items() if isinstance(modules, Mapping | ModuleDict) else modules
        try:
            entries = [(name, module) for name, module in pairs]
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"ModuleDict: expected a mapping or pairs of a name and a module, got {type(modules).__name__}"
            ) from error
        self._dict = self._dict | dict([self._entry(name, module) for name, module in entries])

    def clear(self) -> None:
        """Remove all modules."""
        self._dict = {}

    def pop(self, name: str) -> Module:
        """Remove a module and return it.

        Parameters
        ----------
        name : str
        """
        changed = dict(self._dict)
        module = changed.pop(name)
        self._dict = changed
        return module

    def keys(self) -> KeysView[str]:
        """Return the names, as of a dict."""
        return self._dict.keys()

    def values(self) -> ValuesView[Module]:
        """Return the modules, as of a dict."""
        return self._dict.values()

    def items(self) -> ItemsView[str, Module]:
        """Return names and modules, as of a dict."""
        return self._dict.items()

    def __getitem__(self, name: str) -> Module:
        return self._dict[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.update([(name, module)])

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def __contains__(self, name: object) -> bool:
        return name in self._dict

    def config(self) -> dict[str, Any]:
        return {"modules": dict(self._dict)}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_dict": dict(self._dict)}
