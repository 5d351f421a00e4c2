"""The reference names everything public, every docstring says what it is of, and its examples run."""

import ast
import doctest
import enum
import importlib
import inspect
import pkgutil
import re
import textwrap
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
    """Import a module with all its names, or skip where what it needs is not installed."""
    try:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):  # some are loaded when they are looked up
            getattr(module, public)
        return module
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
def test_signatures_are_those_of_constructors(name):
    """Editors, help and Sphinx ask for them in different ways: Sphinx would take that of ``__new__``."""
    for public, value in callables(name):
        if inspect.isclass(value) and inspect.isfunction(vars(value).get("__init__")):
            own = list(inspect.signature(value.__init__).parameters)[1:]
            assert list(inspect.signature(value).parameters) == own, public
            made = inspect.isfunction(value.__new__)
            assert not made or list(value.__signature__.parameters) == own, public


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


class Examples(doctest.DocTestRunner):
    """Runs docstrings; an ImportError that says which extra to install comes out, instead of being a failure."""

    def report_unexpected_exception(self, out, test, example, exc_info):
        if isinstance(exc_info[1], ImportError) and "pip install 'fastconv[" in str(exc_info[1]):
            raise exc_info[1]
        super().report_unexpected_exception(out, test, example, exc_info)


@pytest.mark.parametrize("name", modules())
def test_examples_of_docstrings_give_what_they_show(name):
    file = Path(fastconv.__file__).parent.joinpath(*name.split(".")[1:])
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if not file.exists() or ">>>" not in file.read_text("utf-8"):  # compiled, or without examples
        return
    runner, missing = Examples(), []
    for example in doctest.DocTestFinder().find(imported(name)):
        try:
            runner.run(example)
        except ImportError as error:
            missing.append(f"{example.name}: {error}")
    assert runner.failures == 0
    if missing:
        pytest.skip("; ".join(missing))


@pytest.mark.parametrize("name", listed())
def test_every_public_name_has_an_example(name):
    module = imported(name)
    values = {public: getattr(module, public) for public in module.__all__}
    callables = {public: v for public, v in values.items() if inspect.isclass(v) or inspect.isfunction(v)}
    assert not [public for public, value in callables.items() if ">>>" not in (value.__doc__ or "")]


HELD = {
    "fastconv.data": ["Batches", "Standardizer"],
    "fastconv.optim": ["EMA", "Optimizer"],
    "fastconv.sklearn": ["ConvClassifier", "ConvRegressor"],
    "fastconv.train": ["History", "Trainer"],
}
"""Classes that everybody calls: each of their public methods has an example, too."""


@pytest.mark.parametrize("name", HELD)
def test_every_method_of_the_main_classes_has_an_example(name):
    methods = [(public, value) for public, value in callables(name) if public.partition(".")[0] in HELD[name]]
    assert not [public for public, value in methods if ">>>" not in (value.__doc__ or "")]


def sections(said, *names):
    """Return the entries' names in some sections of a docstring; None where it has none of them."""
    found = None
    for name in names:
        section = re.search(rf"^{name}\n-+\n(.*?)(?:\n\n\w[\w ]*\n-+\n|\Z)", said, re.M | re.S)
        if section:
            entries = re.findall(r"^([*\w][^:\n]*?)(?: : .*)?$", section[1], re.M)
            found = (found or set()) | {word.strip(" *") for entry in entries for word in entry.split(",")}
    return found


def callables(name):
    """Yield every public class, function and method that a module makes public, with how it is called."""
    module = imported(name)
    for public in module.__all__:
        value = getattr(module, public)
        if not (inspect.isclass(value) or inspect.isfunction(value)) or not value.__module__.startswith("fastconv"):
            continue
        if inspect.isclass(value) and issubclass(value, enum.Enum):
            continue
        yield public, value
        for attribute, raw in vars(value).items() if inspect.isclass(value) else ():
            method = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
            if attribute.startswith("_") or not inspect.isfunction(method):
                continue
            if inspect.unwrap(method).__module__.startswith("fastconv"):
                of_bases = [getattr(base, attribute, None) for base in value.__mro__]
                yield f"{public}.{attribute}", next((m for m in of_bases if getattr(m, "__doc__", None)), method)


@pytest.mark.parametrize("name", listed())
def test_every_parameter_is_described(name):
    """Of every public callable; a method without words of its own has its base's, whose names may be others."""
    for public, value in callables(name):
        said = inspect.cleandoc(getattr(value, "__doc__", None) or "")
        assert said, f"{name}.{public} says nothing"
        if inspect.isclass(value) and not inspect.isfunction(value.__init__):  # it takes nothing, or a message
            continue
        taken = [p for p in inspect.signature(value).parameters if p not in ("self", "cls")]
        missing = [p for p in taken if p not in (sections(said, "Parameters", "Attributes") or ())]
        assert not missing, f"{name}.{public} does not describe {', '.join(missing)}"


@pytest.mark.parametrize("name", listed())
def test_what_raises_and_returns_says_so(name):
    """Where it stands in the very function that it raises, or returns something."""
    for public, value in callables(name):
        said = inspect.cleandoc(value.__doc__ or "")
        function = inspect.unwrap(vars(value).get("__init__", value) if inspect.isclass(value) else value)
        if not inspect.isfunction(function):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except OSError:  # of a dataclass
            continue
        if any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree)):
            assert re.search(r"^Raises\n|\braises?\b|\berrors\b", said, re.M | re.I), f"errors of {name}.{public}"
        returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
        if function.__annotations__.get("return") in (None, "None") or inspect.isclass(value):
            continue
        if any(not isinstance(node, ast.Constant) for node in returned):
            words = r"^(Returns|Yields)\n|\b(returns?|yields?|whether|gives?|results?|gradients?)\b"
            assert re.search(words, said, re.M | re.I), f"{name}.{public} does not tell what it returns"


def test_docstrings_are_completed_from_those_they_refer_to():
    from fastconv import functional

    assert "those of :func:`sub`" in functional.mul.__doc__
    for name, section in (("mul", "Parameters"), ("mul", "Returns"), ("tanh_backward", "Raises")):
        assert re.search(rf"^{section}\n-+$", functional.__dict__[name].__doc__, re.M)
    assert sections(functional.conv_transpose1d_backward.__doc__, "Parameters") == set(
        inspect.signature(functional.conv_transpose1d_backward).parameters
    )
    assert "if shapes or dtypes differ" in functional.sigmoid_backward.__doc__  # from the one after "those of"


def test_every_function_tells_what_it_takes_returns_and_refuses():
    """Each in a section of its own, where there is any."""
    for public, function in callables("fastconv.functional"):
        said, signature = inspect.cleandoc(function.__doc__), inspect.signature(function)
        wanted = ["Parameters", "Raises"] * bool(signature.parameters)
        wanted += ["Returns"] * (signature.return_annotation not in (None, "None"))
        missing = [section for section in wanted if not re.search(rf"^{section}\n-+$", said, re.M)]
        assert not missing, (public, missing)


def test_every_layer_that_takes_settings_tells_its_errors():
    """But `Identity`, which takes anything."""
    for public, kind in callables("fastconv.nn"):
        if inspect.isclass(kind) and sections(inspect.cleandoc(kind.__doc__), "Parameters") and public != "Identity":
            assert re.search(r"^Raises\n-+$", inspect.cleandoc(kind.__doc__), re.M), public


def test_functions_of_signals_do_not_speak_of_images():
    for public, function in callables("fastconv.functional"):
        if "1d" in public:
            assert not re.search(r", H, W\)|, P, Q\)|pair of int", function.__doc__), public


SOURCE = re.compile(r"\b(19|20)\d\d\b|arXiv|CS231n")
"""A paper or lecture by its year, or by its name."""

NO_SOURCE = {
    "what holds or moves other things, and computes nothing": (
        "Bias Flatten GraphModule Identity Loss Module ModuleDict ModuleList Parameter ReflectionPad2d Sequential "
        "TraceError Upsample ZeroPad2d blank Optimizer ParamGroup Recipe build apply fans"
    ),
    "a formula of the textbooks, which stands there": (
        "AdaptiveAvgPool2d AdaptiveMaxPool2d AvgPool1d AvgPool2d BCEWithLogitsLoss Constant EMA GlobalMaxPool2d "
        "Hardtanh L1Loss Linear LogSoftmax MSELoss MaxPool1d MaxPool2d Sigmoid Softmax StepLR Tanh clip_grad_value_"
    ),
    "that of two dimensions, in one": "Conv1d ConvTranspose1d",
}
"""Public names of layers, losses, optimisers, schedules, nets and initialisations that need none, and why."""


def sourced(value, module, hops=2):
    """Whether a docstring names a source, or one that it leads to: of a function, a class, or the file of a net."""
    said = inspect.getdoc(value) or ""
    if SOURCE.search(said):
        return True
    places = (module, imported("fastconv.functional"))
    led = [getattr(place, name, None) for name in re.findall(r"`~?(?:[\w.]+\.)?(\w+)`", said) for place in places]
    if module.__name__ == "fastconv.models":
        led.append(inspect.getmodule(value))
    return hops > 0 and any(other is not None and sourced(other, module, hops - 1) for other in led)


@pytest.mark.parametrize("name", [f"fastconv.{part}" for part in ("nn", "models", "optim", "schedule", "init")])
def test_what_comes_from_the_literature_names_its_source(name):
    module = imported(name)
    free = {public for names in NO_SOURCE.values() for public in names.split()}
    values = {public: getattr(module, public) for public in module.__all__}
    callables = {public: v for public, v in values.items() if inspect.isclass(v) or inspect.isfunction(v)}
    assert not [public for public, value in callables.items() if public not in free and not sourced(value, module)]
