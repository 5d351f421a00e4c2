"""Models as arrays and a JSON description, and back again from a file that nobody vouches for.

The metadata of the file has one string under "fastconv"::

    {"format": 1, "training": true, "modes": {"2": false}, "frozen": ["2.weight", "2.bias"],
     "extra_state": {"1.step": 117, ...}, "tied": {"3.weight": "0.weight"},
     "model": {"type": "Sequential", "config": {"layers": {"dict": {
        "0": {"type": "Linear", "config": {"in_features": 4, "out_features": 3, "bias": true}}, ...}}}}}

"modes" has the layers whose mode is not the model's, "frozen" the parameters that are not trained; older files have
neither. "made_of" may tell what files the weights came from. Classes come from a registry by name and their
constructors get hyperparameters only; layers are built without memory; an array is read once its name, shape and dtype
have been found right.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from fastconv import nn
from fastconv.nn.base import blank
from fastconv.nn.graph import Part
from fastconv.paths import PathLike
from fastconv.schema import Record, parse
from fastconv.serialize.arrays import ModelFileError, check_dtypes, layout, opened, read, save_arrays

Layer = TypeVar("Layer", bound=type[nn.Module])

FORMAT = 1
MAX_DEPTH = 64
MAX_DESCRIPTION = 16_000_000  # characters
_KEY = "fastconv"

LAYERS: dict[str, type[nn.Module]] = {
    name: kind
    for name, kind in vars(nn).items()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module
}


def register(layer: Layer) -> Layer:
    """Let files hold a layer class of your own; usable as a decorator, and needed before loading, too.

    Its constructor's arguments must be attributes of the same names (or `config` return them) and be numbers,
    strings, booleans, None, modules, or tuples and dicts of these.

    Parameters
    ----------
    layer : type
        Subclass of `nn.Module`.

    Raises
    ------
    TypeError
        If it is no subclass of `nn.Module`.
    ValueError
        If another class has the name.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn, serialize
    >>> class Times(nn.Module):
    ...     def __init__(self, factor):
    ...         self.factor = factor
    ...
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> Times = serialize.register(Times)  # or @serialize.register above the class
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     serialize.save(nn.Sequential(nn.Linear(2, 2), Times(3.0)), f"{folder}/model.safetensors")
    ...     serialize.load(f"{folder}/model.safetensors")
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): Times(factor=3.0)
    )
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(f"serialize.register: expected a subclass of nn.Module, got {layer!r}")
    if LAYERS.setdefault(layer.__name__, layer) is not layer:
        raise ValueError(f"serialize.register: {layer.__name__!r} is the name of another layer class")
    return layer


def save(model: nn.Module, path: PathLike, made_of: Mapping[str, Any] | None = None) -> None:
    """Write a model to one file, whole or not at all; a parameter that stands in two places is one again when read.

    Parameters
    ----------
    model : Module
        Of registered layer classes; where other classes define `forward` alone, what it does is written down, and
        `load` gives a `fastconv.nn.GraphModule`. Such a model must have run once.
    path : path-like
        Replaced if it exists.
    made_of : mapping, optional
        What it was made of, in JSON's terms, for `made_of` to tell.

    Raises
    ------
    TypeError
        If a layer class is not registered, or a hyperparameter has no JSON form.
    ValueError
        If layers are nested more than 64 levels deep, or described by more than 16 MB, or one layer is an argument
        of two.
    OSError
        If the file cannot be written; what was there before is untouched.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import nn, serialize
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.safetensors")
    ...     serialize.save(model, path)
    ...     path.stat().st_size > 650 * 4  # its weights, and what its layers are
    ...     print(serialize.load(path))
    True
    Sequential(
      (0): Flatten()
      (1): Linear(in_features=64, out_features=10, bias=True)
    )
    """
    _check_module(model)
    description = _describe(_written(model), made_of)
    save_arrays(path, dict(model.named_state()), {_KEY: description})


def check(model: nn.Module) -> None:
    """Raise what `save` would for this model, apart from OSError: before it is trained, say.

    Of a model that has not run yet, what its own forward does is not looked at.

    Parameters
    ----------
    model : Module

    Examples
    --------
    >>> from fastconv import nn, serialize
    >>> class Mine(nn.Module):
    ...     def forward(self, x):
    ...         return x
    ...
    ...     def backward(self, grad_output):
    ...         return grad_output
    >>> serialize.check(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))  # can be saved
    >>> try:
    ...     serialize.check(nn.Sequential(nn.Linear(2, 2), Mine()))
    ... except TypeError as error:
    ...     print(str(error).partition(";")[0])
    save: layer class Mine is not registered, so no file can hold it
    """
    _check_module(model)
    if _registered(model) or model._running().specs is not None:
        _describe(_written(model))
    else:
        for module in model.modules():
            if module.is_opaque():
                _encode(module, 0, set())
    check_dtypes(dict(model.named_state()))


def _describe(model: nn.Module, made_of: Mapping[str, Any] | None = None) -> str:
    if not isinstance(model, nn.Module):
        raise TypeError(f"save: model must be a Module, got {type(model).__name__}")
    description = json.dumps(
        {
            "format": FORMAT,
            "training": model.training,
            "modes": {name: m.training for name, m in model.named_modules() if m.training != model.training},
            "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
            "extra_state": model.extra_state(),
            "tied": {name: names[0] for names in _tied(model) for name in names[1:]},
            "model": _encode(model, 0, set()),
            **({"made_of": made_of} if made_of else {}),
        },
        allow_nan=False,
    )
    if len(description) > MAX_DESCRIPTION:
        raise ValueError(f"save: a description of {len(description)} characters, at most {MAX_DESCRIPTION}")
    return description


def load(path: PathLike) -> Any:
    """Read a model that `save` wrote: architecture, weights, running statistics, counters, each layer's mode.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Module

    Raises
    ------
    ModelFileError
        If the file is truncated, foreign or damaged, names an unknown layer class, or its arrays do not fit.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, serialize
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     serialize.save(model, f"{folder}/model.safetensors")
    ...     again = serialize.load(f"{folder}/model.safetensors")  # the file holds layers and weights
    >>> again
    Sequential(
      (0): Linear(in_features=3, out_features=4, bias=True)
      (1): Tanh()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    >>> x = np.ones((1, 3), np.float32)
    >>> bool((again.predict(x) == model.predict(x)).all())
    True
    """
    with opened(path) as file:
        description = _parse(path, (file.metadata() or {}).get(_KEY))
        model = _build(path, description)
        _fill(path, model, file)
    model.train(description["training"])
    for name, module in model.named_modules():
        module.training = description["modes"].get(name, module.training)
    return model


def made_of(path: PathLike) -> dict[str, Any]:
    """Return what a model's file says that it was made of; nothing where it says nothing.

    Files of ``fastconv train --out`` name the files that layers and weights came from, with digests of the weights, and
    tell what became of the head and how many layers were frozen.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ModelFileError, OSError
        As `load`.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn, serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/model.safetensors"
    ...     for origin in (None, {"weights": "resnet18.pth", "head": "new"}):
    ...         serialize.save(nn.Linear(3, 2), path, origin)
    ...         serialize.made_of(path)
    {}
    {'weights': 'resnet18.pth', 'head': 'new'}
    """
    with opened(path) as file:
        told = _parse(path, (file.metadata() or {}).get(_KEY)).get("made_of", {})
    if not isinstance(told, dict):
        raise ModelFileError(f"{path}: made_of must map names to what they are")
    return told


def holds_model(path: PathLike) -> bool:
    """Return whether a safetensors file describes a model, as those of `save`; else it holds arrays alone.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ModelFileError
        If it is no safetensors file, or a damaged one.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     serialize.save(nn.Linear(3, 2), f"{folder}/model.safetensors")
    ...     serialize.save_arrays(f"{folder}/weights.safetensors", {"weight": np.zeros((2, 3))})
    ...     [serialize.holds_model(f"{folder}/{name}.safetensors") for name in ("model", "weights")]
    [True, False]
    """
    with opened(path) as file:
        return _KEY in (file.metadata() or {})


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"save: expected a Module, got {type(model).__name__}")


def _registered(model: nn.Module) -> bool:
    """Return whether a layer and all below it are of registered classes."""
    return all(LAYERS.get(type(m).__name__) is type(m) or isinstance(m, Part) for m in model.modules())


def _written(model: nn.Module) -> nn.Module:
    """Return the model, or its graph where classes that are not registered define its forward."""
    if _registered(model) or model.is_opaque() or model._running().specs is None:
        return model
    return nn.GraphModule.of(model, _registered)


def _tied(model: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, owner, attribute in model._slots():
        names.setdefault(id(getattr(owner, attribute)), []).append(name)
    return [together for together in names.values() if len(together) > 1]


def _tie(model: nn.Module, tied: Any) -> None:
    """Put one parameter in the place of another for each pair of names."""
    if not isinstance(tied, dict):
        raise ValueError(f"tied must map names to names, got a {type(tied).__name__}")
    slots = {name: (owner, attribute) for name, owner, attribute in model._slots()}
    for name, first in tied.items():
        if name not in slots or not isinstance(first, str) or first not in slots:
            raise ValueError(f"tied names {str(name)[:80]!r} and {str(first)[:80]!r}, which are not both parameters")
        ours, other = getattr(*slots[name]), getattr(*slots[first])
        if ours.shape != other.shape:
            raise ValueError(f"tied names {name} of shape {ours.shape} and {first} of shape {other.shape}")
        setattr(*slots[name], other)


def _encode(value: Any, depth: int, seen: set[int]) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"save: layers are nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, nn.Module):
        kind = type(value)
        if LAYERS.get(kind.__name__) is not kind:
            raise TypeError(
                f"save: layer class {kind.__name__} is not registered, so no file can hold it; before training, and "
                f"before loading, write\n    from fastconv import serialize\n\n    @serialize.register\n"
                f"    class {kind.__name__}({kind.__bases__[0].__name__}): ...\n\n(or, where it defines forward alone, "
                "run the model once before it is saved)"
            )
        if id(value) in seen:
            shown = " ".join(repr(value).split())[:80]
            raise ValueError(
                f"save: {shown} is an argument of two layers and would come back as two; use one for each place, their "
                "parameters may be shared (b.weight = a.weight)"
            )
        seen.add(id(value))
        config = {name: _encode(v, depth + 1, seen) for name, v in _config(value).items()}
        return {"type": kind.__name__, "config": config}
    if isinstance(value, dict):
        return {"dict": {str(name): _encode(v, depth + 1, seen) for name, v in value.items()}}
    if isinstance(value, tuple | list):
        return [_encode(v, depth + 1, seen) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"save: a hyperparameter is a {type(value).__name__}, which has no JSON form")


def _config(layer: nn.Module) -> dict[str, Any]:
    try:
        return layer.config()
    except AttributeError as error:
        raise TypeError(
            f"save: layer class {type(layer).__name__} cannot be described: {error}; keep every argument of its "
            "constructor as an attribute of that name, or let config return them"
        ) from error


def _decode(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"layers are nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        return tuple(_decode(v, depth + 1) for v in value)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"dict"} and isinstance(value["dict"], dict):
        return {name: _decode(v, depth + 1) for name, v in value["dict"].items()}
    if value.keys() != {"type", "config"} or not isinstance(value["config"], dict):
        raise ValueError(f"a layer must have a type and a config, found {sorted(value)[:8]}")
    if not isinstance(value["type"], str) or value["type"] not in LAYERS:
        raise ValueError(f"unknown layer class {str(value['type'])[:80]!r}")
    config = {name: _decode(v, depth + 1) for name, v in value["config"].items()}
    return LAYERS[value["type"]].from_config(config)


def _parse(path: PathLike, text: str | None) -> dict[str, Any]:
    if text is None:
        raise ModelFileError(f"{path}: a safetensors file, but no fastconv model: it describes no layers")
    try:
        if len(text) > MAX_DESCRIPTION:
            raise ValueError(f"{path}: {len(text)} characters describe its layers, at most {MAX_DESCRIPTION} are read")
        what = f"{path}: the description of its layers"
        description: dict[str, Any] = parse(text, Record(), what, deepest=8 * MAX_DEPTH)
    except ValueError as error:
        raise ModelFileError(str(error)) from error
    if (found := description.get("format")) != FORMAT:
        raise ModelFileError(f"{path}: format {str(found)[:20]}, this version reads format {FORMAT}")
    extra = description.get("extra_state")
    if not isinstance(extra, dict) or not all(type(v) is int and 0 <= v < 2**64 for v in extra.values()):
        raise ModelFileError(f"{path}: extra_state must map names to integers in [0, 2**64)")
    if type(description.get("training")) is not bool:
        raise ModelFileError(f"{path}: training must be true or false")
    frozen = description.setdefault("frozen", [])
    if not isinstance(frozen, list) or not all(isinstance(name, str) for name in frozen):
        raise ModelFileError(f"{path}: frozen must be a list of parameters' names")
    modes = description.setdefault("modes", {})
    if not isinstance(modes, dict) or not all(type(mode) is bool for mode in modes.values()):
        raise ModelFileError(f"{path}: modes must map names of layers to true or false")
    return description


def _build(path: PathLike, description: dict[str, Any]) -> nn.Module:
    """Return the described model; its arrays have shapes and no memory."""
    try:
        with blank():
            model = _decode(description.get("model"), 0)
        if not isinstance(model, nn.Module):
            raise ValueError(f"the model is a {type(model).__name__}")
        _tie(model, description.get("tied", {}))
        model.load_extra_state(description["extra_state"])
        parameters = dict(model.named_parameters())
        for kind, known in (("modes", dict(model.named_modules())), ("frozen", parameters)):
            unknown = [name for name in description[kind] if name not in known]
            if unknown:
                raise ValueError(f"{kind} names {len(unknown)} that are not there: {str(unknown[:8])[:200]}")
        for name in description["frozen"]:
            parameters[name].requires_grad = False
    except Exception as error:  # whatever a constructor does with hostile arguments
        raise ModelFileError(f"{path}: its layers cannot be built: {error}") from error
    return model


def _fill(path: PathLike, model: nn.Module, file: Any) -> None:
    """Check all arrays of the file against the model's, then read them."""
    own, names = dict(model.named_state()), set(file.keys())
    if own.keys() != names:
        missing, unexpected = sorted(own.keys() - names), sorted(names - own.keys())
        raise ModelFileError(
            f"{path}: {len(missing)} arrays missing {missing[:8]}, {len(unexpected)} unexpected {unexpected[:8]}"
        )
    floats = set()
    for name, array in own.items():
        shape, dtype = layout(path, file, name)
        if shape != array.shape or dtype.kind != array.dtype.kind:
            raise ModelFileError(
                f"{path}: {name} has shape {shape} and dtype {dtype}, its layer needs {array.shape} and {array.dtype}"
            )
        floats |= {dtype} if dtype.kind == "f" else set()
    if len(floats) > 1:
        raise ModelFileError(f"{path}: arrays of {' and '.join(sorted(map(str, floats)))} in one model")
    arrays = {name: read(path, file, name) for name in own}
    for first, *others in _tied(model):
        for name in others:
            if arrays[name].tobytes() != arrays[first].tobytes():
                raise ModelFileError(f"{path}: {name} and {first} are one parameter and differ in the file")
            arrays[name] = arrays[first]
    model.replace_state(arrays)
