"""Options that take one of some names: help, completion and errors come from the list that the package works with."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice  # which is generic since click 8.2


def _listed(where: str) -> tuple[str, ...]:
    """Return what ``module:NAME`` holds: names, a dictionary of them or a function that gives them.

    Where what the module needs is not installed there are none; the command itself will say so.
    """
    module, name = where.split(":")
    try:
        found: Any = getattr(importlib.import_module(f"fastconv.{module}"), name)
    except ImportError:
        return ()
    names: Iterable[str] = found() if callable(found) else found
    return tuple(names)


class Names(_Choice):
    """One of the names that a module lists, which is imported when one looks at them: commands start quickly.

    Parameters
    ----------
    what : str
        What an error calls such a name.
    where : str
        The list as ``module:NAME``, below `fastconv`.
    """

    def __init__(self, what: str, where: str) -> None:
        self.what, self.where = what, where
        self.case_sensitive = True

    @cached_property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        return _listed(self.where)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self.choices or not self.choices:
            return value
        from fastconv.functional._check import unknown

        self.fail(unknown(self.what, value, self.choices), param, ctx)

    def __repr__(self) -> str:
        return f"Names({self.where})"


class NamesAndMore(click.ParamType):
    """A text for which some names are known: those complete it, but it may be another, a path say."""

    name = "text"

    def __init__(self, where: str, paths: bool = True) -> None:
        self.where, self.paths = where, paths

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin like what is there; where it begins like none, paths do, if they may."""
        found = [CompletionItem(name) for name in _listed(self.where) if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")] * self.paths
