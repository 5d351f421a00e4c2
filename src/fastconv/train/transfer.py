"""A net that somebody has trained, made ready to learn something else: another head, parts that stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv import models, nn, onnx
from fastconv.nn import Module
from fastconv.train.origins import Origin, given, is_name, probe, read

ALL_BUT_HEAD = "all-but-head"

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Origins:
    """The files a run's net comes from: that of its layers, that of its weights, each where there is one."""

    layers: Origin | None = None
    weights: Origin | None = None

    @classmethod
    def of(cls, model: str, pretrained: str | None) -> Origins:
        """Read what ``--model`` and ``--pretrained`` name.

        Raises
        ------
        OSError, ValueError, ImportError
            As `fastconv.train.origins.read`; of layers a file of weights alone is refused, too.
        """
        layers = None if is_name(model) else read(model)
        if layers is not None and layers.model is None:
            raise ValueError(
                f"{layers.path} holds weights and no layers: name the net, as --model resnet18 --pretrained "
                f"{layers.path.name}"
            )
        return cls(layers, None if pretrained is None else read(pretrained))

    @property
    def newest(self) -> Origin | None:
        """The file whose weights the net begins with."""
        return self.weights or self.layers


@dataclass(frozen=True)
class Start:
    """A net to begin with.

    Attributes
    ----------
    model : Module
    head : tuple of str
        Names of the layers that give the scores: one with weights, perhaps a bias behind it.
    frozen, layers : int
        How many layers with weights are frozen, and how many there are.
    notes : dict of str to str
        What to tell people: "weights", "head", "frozen".
    made_of : dict
        What to write down: paths and digests of the files, and what became of the head.
    """

    model: Module
    head: tuple[str, ...]
    frozen: int
    layers: int
    notes: dict[str, str] = field(default_factory=dict)
    made_of: dict[str, Any] = field(default_factory=dict)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the head."""
        names = dict(self.model.named_modules())
        return [parameter for name in self.head for parameter in names[name].parameters()]


def start(
    name: str, origins: Origins, shape: tuple[int, int, int], classes: int, freeze: str | None = None,
    pixels: bool = False,
) -> Start:  # fmt: skip
    """Return the net that a run begins with, whose new weights come from the layers' own rule.

    Parameters
    ----------
    name : str
        Of the zoo, or that of a file.
    origins : Origins
        They stay as they are.
    shape : tuple of int
        (C, H, W) of the images.
    classes : int
        Where the net has another number of outputs, its head is replaced.
    freeze : str, optional
        "all-but-head", or how many layers with weights stay as they are, counted from the input. What lies between
        them is frozen, too, and runs in evaluation mode: a `BatchNorm` keeps its statistics.
    pixels : bool
        Whether each pixel shall have scores.

    Raises
    ------
    ValueError
        If weights do not fit, there is no layer that could be the head, the net cannot take such images, or nothing
        would be left to train.
    """
    notes: dict[str, str] = {}
    made_of: dict[str, Any] = {}
    if origins.layers is None:
        model = models.build(name, shape, classes)
        head = head_of(model, name)
    else:
        model = _fresh(origins.layers)
        head = head_of(model, str(origins.layers.path))
        notes["weights"] = f"those of {origins.layers.name}"
        made_of["layers"] = _entry(origins.layers)
        outputs = _outputs(model, head)
        if outputs != classes:
            _replace(model, head, classes, str(origins.layers.path))
            notes["head"] = f"{head[0]} replaced: it had {outputs:,} outputs, the data have {classes:,} classes"
            made_of["head"] = {"replaced": list(head), "outputs": outputs}
    if origins.weights is not None:
        rename = models.ZOO[name].renamed if origins.layers is None else str
        state = {rename(key): a for key, a in origins.weights.state.items()}
        new = _fill(model, head, state, origins.weights, name if origins.layers is None else origins.layers.name)
        notes["weights"] = f"those of {origins.weights.name}"
        made_of["weights"] = _entry(origins.weights)
        if new:
            notes["head"] = f"{head[0]} is new: {new}"
            made_of["head"] = {"replaced": list(head)}
    if origins.newest is not None:
        _try(model, shape, (classes, *shape[1:]) if pixels else (classes,), str(origins.newest.path))
    frozen, layers = 0, sum(isinstance(m, _WEIGHTED) for _, m in _in_order(model))
    if freeze is not None:
        frozen = _freeze(model, head, freeze)
        notes["frozen"] = f"{frozen} of {layers} layers with weights" + (
            "; normalisations among them keep their statistics" if _still_norms(model) else ""
        )
        made_of["frozen"] = frozen
    return Start(model, head, frozen, layers, notes, made_of)


def head_of(model: Module, where: str) -> tuple[str, ...]:
    """Return the names of the last layer with weights and of the biases behind it.

    Raises
    ------
    ValueError
        If there is no such layer, or something else with parameters behind it.
    """
    layers = [(name, module) for name, module in _in_order(model) if _own(module)]
    last = max((i for i, (_, module) in enumerate(layers) if isinstance(module, _WEIGHTED)), default=None)
    if last is None:
        raise ValueError(f"{where}: no layer with weights could be the head")
    for name, module in layers[last + 1 :]:
        if not isinstance(module, nn.Bias):
            raise ValueError(
                f"{where}: the last layer with weights is {layers[last][0]}, and behind it {name}, a "
                f"{type(module).__name__}, has parameters too: it is not plain what the head is"
            )
    return tuple(name for name, _ in layers[last:])


def _in_order(model: Module) -> list[tuple[str, Module]]:
    """Return all modules by name, in the order in which they run as far as that is known."""
    modules = dict(model.named_modules())
    if not isinstance(model, onnx.OnnxModel):
        return list(modules.items())
    running = [name for name in model.layers_in_order() if name in modules]
    return [(name, module) for name, module in modules.items() if name not in running] + [
        (name, modules[name]) for name in running
    ]


def _own(module: Module) -> bool:
    return any(isinstance(value, nn.Parameter) for value in vars(module).values())


def _entry(origin: Origin) -> dict[str, str]:
    return {"file": str(origin.path), "sha256": origin.sha256}


def _fresh(origin: Origin) -> Module:
    """Return a copy of a file's net of which all is trained."""
    assert origin.model is not None
    model = copy.deepcopy(origin.model).train().requires_grad_(True)
    dtypes = {parameter.data.dtype for parameter in model.parameters()}
    return model if dtypes <= {np.dtype(np.float32)} else model.astype(np.float32)


def _outputs(model: Module, head: tuple[str, ...]) -> int:
    layer: Any = dict(model.named_modules())[head[0]]
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _replace(model: Module, head: tuple[str, ...], classes: int, where: str) -> None:
    """Put layers for so many classes in the place of a head."""
    modules: dict[str, Any] = dict(model.named_modules())
    for name in head:
        old = modules[name]
        new: Module
        if isinstance(old, nn.Bias):
            new = nn.Bias(classes)
        elif isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, classes, old.bias is not None)
        elif type(old) is nn.Conv2d and old.groups == 1:
            new = nn.Conv2d.from_config({**old.config(), "out_channels": classes})
        else:
            raise ValueError(f"{where}: its last layer, {name}, is a {type(old).__name__}, of which no head is made")
        parent, _, last = name.rpartition(".")
        owner = modules[parent]
        if isinstance(owner, nn.Sequential | nn.ModuleList):
            owner[int(last)] = new
        elif isinstance(owner, nn.ModuleDict):
            owner[last] = new
        else:
            setattr(owner, last, new)


def _fill(
    model: Module, head: tuple[str, ...], state: Mapping[str, np.ndarray], origin: Origin, name: str
) -> str:  # fmt: skip
    """Copy weights into a net, all but those of a head with other outputs; return why it keeps its own, or ""."""
    own = dict(model.named_state())
    top = {name for name in own if name.rpartition(".")[0] in head}
    fits = {name: state[name].shape == own[name].shape for name in own if name in state}
    missing = [n for n in own if n not in fits and n not in top and not n.endswith("num_batches_tracked")]
    other = [name for name, same in fits.items() if not same and name not in top]
    if missing:
        itself = " or that file itself," if origin.path.suffix == ".onnx" else ""
        raise ValueError(
            f"{origin.path}: not the weights of {name}: {len(missing)} of its {len(own)} arrays are missing, as "
            f"{', '.join(missing[:_SHOWN])}; the file has {', '.join(list(state)[:_SHOWN])}, ...; "
            f"model has to be the net that they are of,{itself} instead of {name}"
        )
    if other:
        one = other[0]
        raise ValueError(
            f"{origin.path}: not the weights of {name}: {one} has shape {state[one].shape} there, "
            f"{own[one].shape} here" + (f", and {len(other) - 1} more differ" if len(other) > 1 else "")
        )
    whole = all(fits.get(name, False) for name in top)
    try:
        model.load_state_dict({name: state[name] for name in fits if whole or name not in top}, strict=False)
    except ValueError as error:
        raise ValueError(f"{origin.path}: {error}") from error
    if whole:
        return ""
    first = next(name for name in own if name in top)
    return f"{origin.name} has {state[first].shape[0]:,} outputs" if first in state else "the file has none"


def _try(model: Module, shape: tuple[int, int, int], scores: tuple[int, ...], where: str) -> None:
    """Run a net once on an image, so that what does not fit is said before anything is written."""
    found = probe(model, None, shape, where)
    if not isinstance(found, np.ndarray) or found.shape != (1, *scores):
        what = f"one score for each of {scores[0]} classes" + (" at each pixel" if len(scores) > 1 else "")
        raise ValueError(f"{where}: the net gives {given(found)} for one image, not {what}")


def _freeze(model: Module, head: tuple[str, ...], freeze: str) -> int:
    """Freeze the first layers and what lies between them; return how many with weights."""
    order = [(name, module) for name, module in _in_order(model) if _own(module) or not list(module.children())]
    weighted = [i for i, (_, module) in enumerate(order) if isinstance(module, _WEIGHTED)]
    count = len(weighted) - 1 if freeze == ALL_BUT_HEAD else _count(freeze)
    if count >= len(weighted):
        raise ValueError(
            f"freeze {freeze}: the net has {len(weighted)} layers with weights, and one has to be left to train"
        )
    frozen = order[: weighted[count]] if count else []
    while frozen and not _own(frozen[-1][1]):  # dropout before the first layer that is trained is its own
        frozen.pop()
    kept = [(name, module) for name, module in frozen if name not in head]
    for _, module in kept:
        for value in vars(module).values():
            if isinstance(value, nn.Parameter):
                value.requires_grad = False
        if not list(module.children()):
            module.training = False
    return sum(isinstance(module, _WEIGHTED) for _, module in kept)


def _still_norms(model: Module) -> bool:
    return any("running_mean" in module.buffer_names and not module.training for module in model.modules())


def _count(freeze: str) -> int:
    if not (freeze.isascii() and freeze.isdigit() and len(freeze) < 7):
        raise ValueError(f"freeze must be {ALL_BUT_HEAD} or how many layers with weights, got {freeze!r}")
    return int(freeze)
