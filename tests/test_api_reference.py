"""The reference names everything public, every docstring says what it is of, and its examples run."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import fastconv

ROOT = Path(__file__).parent.parent
INTERNAL = {"choices", "cli", "graph", "locks", "mapped", "paths", "schema", "signals", "steps", "terminal"}
"""What has no underscore and is for other parts of the package alone; of cli there is the page of commands."""


def listed():
    """Return the modules that the reference lists."""
    return re.findall(r"^   (fastconv[.\w]+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)


def imported(name):
    """Import a module, or skip where what it needs is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error).splitlines()[0])


def modules():
    names = (module.name for module in pkgutil.walk_packages(fastconv.__path__, "fastconv."))
    return sorted(name for name in names if name != "fastconv.__main__")


def test_the_reference_lists_every_public_module():
    names = {m.name for m in pkgutil.iter_modules(fastconv.__path__) if not m.name.startswith("_")}
    assert names - INTERNAL == {name.split(".")[1] for name in listed()}


@pytest.mark.parametrize("name", listed())
def test_every_public_name_says_what_it_is(name):
    module = imported(name)
    assert module.__all__
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), public


@pytest.mark.parametrize("name", listed())
def test_parameters_of_a_docstring_are_those_of_its_function(name):
    module = imported(name)
    for public in module.__all__:
        value = getattr(module, public)
        said = inspect.getdoc(value) or ""
        section = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n\w[\w ]*\n-+\n|\Z)", said, re.M | re.S)
        if not section or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        entries = re.findall(r"^([*\w][^:\n]*?)(?: : .*)?$", section[1], re.M)
        words = [word.strip() for entry in entries for word in entry.split(",")]
        told = [word.lstrip("*") for word in words if not word.startswith("**")]  # names of any keywords say nothing
        assert set(told) <= set(inspect.signature(value).parameters), (public, told)


@pytest.mark.parametrize("name", modules())
def test_examples_of_docstrings_give_what_they_show(name):
    file = Path(fastconv.__file__).parent.joinpath(*name.split(".")[1:])
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if not file.exists() or ">>>" not in file.read_text("utf-8"):  # compiled, or without examples
        return
    assert doctest.testmod(imported(name)).failed == 0
