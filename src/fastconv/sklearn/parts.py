"""The model, the loss, the optimiser and the trainer of an estimator, made of what its parameters name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv import init, models, nn, optim, random
from fastconv.functional._check import nearest, short
from fastconv.train.setup import OPTIMIZERS

CLASS_LOSSES: dict[str, type[nn.Loss]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "multi_margin": nn.MultiMarginLoss,
}
ELEMENT_LOSSES: dict[str, type[nn.Loss]] = {
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "smooth_l1": nn.SmoothL1Loss,
    "huber": nn.HuberLoss,
}

Shape = tuple[int, ...]


def settings(where: str, part: str, given: Any) -> dict[str, Any]:
    """Return the parameters of a part.

    Raises
    ------
    TypeError
        If they are no mapping.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{where}: {part}_params must be a dict or None, got {short(given)}")
    return dict(given or {})


def choose(where: str, what: str, name: Any, known: Mapping[str, Any]) -> Any:
    """Return what a name stands for.

    Raises
    ------
    ValueError
        If it stands for nothing.
    """
    if not isinstance(name, str) or name not in known:
        there = f"there are {', '.join(known)}{nearest(name, known)}"
        raise ValueError(f"{where}: {what} {short(name)} is unknown; {there}")
    return known[name]


def shape_of(where: str, given: Shape, image_shape: Any) -> Shape | None:
    """Return (channels, height, width) of images; None where samples are rows of numbers.

    Parameters
    ----------
    where : str
    given : tuple of int
        (N, F), (N, H, W) or (N, C, H, W).
    image_shape : tuple of int or None
        (H, W) or (C, H, W), what rows are laid out as.
    """
    asked: Shape | None = None
    if image_shape is not None:
        whole = isinstance(image_shape, tuple | list | np.ndarray) and len(image_shape) in (2, 3)
        if not whole or not all(isinstance(side, int | np.integer) and side >= 1 for side in image_shape):
            raise ValueError(
                f"{where}: image_shape must be (height, width) or (channels, height, width), got {short(image_shape)}"
            )
        asked = (1,) * (3 - len(image_shape)) + tuple(int(side) for side in image_shape)
    if len(given) == 2:
        if asked is not None and int(np.prod(asked)) != given[1]:
            raise ValueError(f"{where}: X has {given[1]} features, image_shape={asked} would be {int(np.prod(asked))}")
        return asked
    if len(given) not in (3, 4):
        raise ValueError(f"{where}: X must be (N, features), (N, H, W) or (N, C, H, W), got shape {given}")
    own = (1,) * (4 - len(given)) + tuple(given[1:])
    if asked is not None and asked != own:
        raise ValueError(f"{where}: X has images of shape {own}, image_shape is {asked}")
    return own


def build(where: str, model: Any, params: Any, shape: Shape, outputs: int, seed: int, dtype: np.dtype) -> nn.Module:
    """Return a new model: of the zoo, a copy of a module, or what a function makes.

    Parameters
    ----------
    where : str
        The estimator, for messages.
    model : str, Module or callable
    params : mapping or None
        What a function is given beside shape and outputs.
    shape : tuple of int
        Of one sample: (features,) or (channels, height, width).
    outputs : int
    seed : int
        Of initial weights and dropout.
    dtype : numpy dtype
        Of the parameters; a module keeps its own.
    """
    given = settings(where, "model", params)
    if isinstance(model, nn.Module):
        if given:
            names = ", ".join(f"model__{name}" for name in given)
            raise ValueError(f"{where}: model is a module, and takes no {names}")
        return copy.deepcopy(model)
    with random.seeded(seed):
        if isinstance(model, str):
            made = _of_the_zoo(where, model, given, shape, outputs, seed)
        elif callable(model):
            made = model(shape, outputs, **given)
        else:
            what = "a name, a module or a function of (shape, classes)"
            raise TypeError(f"{where}: model must be {what}, got {short(model)}")
    if not isinstance(made, nn.Module):
        raise TypeError(f"{where}: the function given as model returned a {type(made).__name__}, not a Module")
    return made.astype(dtype)


def _of_the_zoo(where: str, name: str, given: Mapping[str, Any], shape: Shape, outputs: int, seed: int) -> nn.Module:
    if given:
        raise ValueError(f"{where}: nets of the zoo take no {', '.join(f'model__{n}' for n in given)}; give a function")
    rows = len(shape) == 1
    if name == "auto":
        name = "mlp" if rows or min(shape[1:]) < models.ZOO["cifar-small"].smallest else "cifar-small"
    recipe = choose(where, "model", name, {"auto": None, **models.ZOO})
    made: nn.Module | None = None
    if not rows or recipe.smallest == 1:
        made = models.build(name, (shape[0], 1, 1) if rows else shape, outputs)  # type: ignore[arg-type]
    takes_rows = isinstance(made, nn.Sequential) and isinstance(made[0], nn.Flatten)
    if made is None or (rows and not takes_rows):
        raise ValueError(
            f"{where}: {name} takes images, and X holds rows of {shape[0]} numbers; give "
            "image_shape=(channels, height, width), or X of shape (N, C, H, W)"
        )
    if recipe.init != "default":
        init.apply(made, recipe.init, seed)
    return made


def loss_of(where: str, loss: Any, params: Any, known: Mapping[str, Any]) -> Any:
    """Return a new loss: by its name, made by a class or function, or a copy of the one given."""
    given = settings(where, "loss", params)
    if isinstance(loss, str):
        return choose(where, "loss", loss, known)(**given)
    if isinstance(loss, type):
        return loss(**given)
    if given or not callable(loss):
        raise TypeError(f"{where}: loss must be a name, a class of losses or a loss alone, got {short(loss)}")
    return copy.deepcopy(loss)


def optimizer_of(where: str, optimizer: Any, params: Any, model: nn.Module) -> optim.Optimizer:
    """Return a new optimiser of a model: by its name with its own rate, or made by a class or function."""
    given = settings(where, "optimizer", params)
    make: Callable[..., optim.Optimizer] = optimizer
    if not callable(optimizer):
        make, rate = choose(where, "optimizer", optimizer, OPTIMIZERS)
        given.setdefault("lr", rate)
    made = make(model, **given)
    if not isinstance(made, optim.Optimizer):
        raise TypeError(f"{where}: what was given as optimizer made a {type(made).__name__}, not an Optimizer")
    return made
