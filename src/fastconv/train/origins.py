"""Files that a net may come from: what each holds, and what is known of the images that its weights expect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import models, onnx, serialize
from fastconv.data import Standardizer
from fastconv.functional._check import nearest
from fastconv.nn import Module
from fastconv.paths import PathLike, expand
from fastconv.schema import Items, Text, parse
from fastconv.train.digest import arrays_sha256
from fastconv.train.run import CONFIG, MODEL, load_run, trained

NORMALIZATIONS = ("dataset", "imagenet", "minus-one-to-one", "zero-to-one")
"""Names that `standardizer_of` knows, beside "MEAN,STD"."""

_KNOWN = {
    "imagenet": models.IMAGENET,
    "minus-one-to-one": ((127.5,), (127.5,)),
    "zero-to-one": ((0.0,), (255.0,)),
}
_CLASSES = Items(Text())


@dataclass(frozen=True)
class Origin:
    """What a file, or the folder of a run, holds of a net.

    Attributes
    ----------
    path : Path
    model : Module or None
        None of a file that holds weights alone.
    state : mapping of str to ndarray
        Weights and running statistics by name.
    about : dict
        What is known of its images and classes: the config of a run, or ``classes`` and ``levels`` of a file that
        ``fastconv export`` wrote; empty for others.
    """

    path: Path
    model: Module | None
    state: Mapping[str, np.ndarray] = field(repr=False)
    about: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """What people call it: the file's name, or that of the run's folder."""
        return self.path.parent.name if "options" in self.about else self.path.name

    @property
    def sha256(self) -> str:
        """Of the weights, whatever kind of file they stand in."""
        return arrays_sha256(self.state.items())

    def standardizer(self, shape: tuple[int, int, int]) -> Standardizer | None:
        """Return what brings images of a shape to what the weights expect; None where nothing is known."""
        if "standardizer" in self.about:
            own = Standardizer.from_dict(self.about["standardizer"])
            fits = own.mean.shape == shape if own.per == "pixel" else own.mean.shape[0] == shape[0]
            return own if fits else None
        if "levels" in self.about:  # the net standardises by itself
            return Standardizer(np.zeros((shape[0], 1, 1)), np.ones((shape[0], 1, 1)))
        return None


def place(path: PathLike) -> str:
    """Return the path of a file in full, as options hold it."""
    return str(expand(path).resolve())


def is_name(model: str) -> bool:
    """Return whether ``--model`` names a net of the zoo, no file."""
    return model in models.ZOO


def resolve(model: str) -> str:
    """Return a name of the zoo as it is, and the path of a file or folder that is there in full.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if is_name(model):
        return model
    if not expand(model).exists():
        known = ", ".join(models.ZOO)
        hint = nearest(model, models.ZOO)
        raise ValueError(f"unknown model {model!r}; known are {known}, and there is no such file{hint}")
    return place(model)


def read(path: PathLike) -> Origin:
    """Read a net or its weights.

    Parameters
    ----------
    path : path-like
        An ONNX file (``.onnx``); the folder of a run that has ended; a model that `fastconv.serialize.save` wrote, or
        weights that PyTorch wrote (see `fastconv.serialize.load_torch`).

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is damaged, holds no net, or numbers that are not finite.
    ImportError
        If it needs a package that is missing.
    """
    path = expand(path)
    origin = _read(path)
    for name, array in origin.state.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite")
    if not origin.state:
        raise ValueError(f"{path} holds no weights")
    return origin


def _read(path: Path) -> Origin:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{path} is not the folder of a run: it has no {CONFIG}")
        run = load_run(path)
        return Origin(path / MODEL, run.model, run.model.state_dict(), trained(path, run.config))
    if path.suffix == ".onnx":
        model = onnx.load(path)
        return Origin(path, model, model.state_dict(), _exported(model.metadata))
    if path.suffix == ".safetensors" and serialize.holds_model(path):
        ours = serialize.load(path)
        return Origin(path, ours, ours.state_dict(), {})
    return Origin(path, None, serialize.load_torch(path), {})


def given(found: Any) -> str:
    """Say what a net gave, for a message: the shape of an array, or how many arrays."""
    return str(found.shape) if isinstance(found, np.ndarray) else f"{len(found)} arrays"


def probe(model: Module, standardizer: Standardizer | None, shape: tuple[int, int, int], where: str) -> Any:
    """Return what a net gives for one blank image.

    Raises
    ------
    ValueError
        If it cannot take images of this shape, (C, H, W).
    """
    image = np.zeros((1, *shape), np.float32)
    try:
        return model.predict(image if standardizer is None else standardizer(image))
    except (ValueError, TypeError, IndexError) as error:
        size = "×".join(map(str, shape))
        raise ValueError(f"{where}: the net cannot take images of {size} (channels, height, width): {error}") from error


def _exported(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``fastconv export`` notes in a file, as far as it is there and in order."""
    about: dict[str, Any] = {}
    if "classes" in metadata:
        with suppress(ValueError):  # somebody else's entry of that name
            about["classes"] = parse(metadata["classes"], _CLASSES, "classes")
    if found := re.search(r"values 0\.\.(\d+(?:\.\d+)?)$", metadata.get("input", "")):
        about["levels"] = float(found[1])
    return about


def standardizer_of(text: str, shape: tuple[int, int, int], levels: float = 255) -> Standardizer:
    """Return the standardisation that a word or numbers name.

    Parameters
    ----------
    text : str
        "imagenet", "minus-one-to-one", "zero-to-one"; or "MEAN,STD" for values 0..255, or the means of all channels
        and then their deviations: "127,128", "123.7,116.3,103.5,58.4,57.1,57.4".
    shape : tuple of int
        (C, H, W) of the images.
    levels : float
        Value of white.

    Raises
    ------
    ValueError
        If it is neither, or for another number of channels.
    """
    if text in _KNOWN:
        mean, deviation = _KNOWN[text]
    else:
        mean, deviation = _numbers(text)
    return expected((mean, deviation), shape, levels, f"normalize {text}")


def _numbers(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    known = ", ".join(NORMALIZATIONS)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or len(numbers) % 2 or not np.isfinite(numbers).all():
        raise ValueError(f"normalize must be one of {known}, or MEAN,STD as 127,128, got {text!r}")
    mean, deviation = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    if min(deviation) <= 0:
        raise ValueError(f"normalize: a standard deviation must be above 0, got {min(deviation):g} in {text!r}")
    return tuple(mean), tuple(deviation)


def expected(
    numbers: tuple[tuple[float, ...], tuple[float, ...]], shape: tuple[int, int, int], levels: float, where: str
) -> Standardizer:
    """Return a standardisation by mean and deviation of values 0..255, one number each or one per channel."""
    channels = shape[0]
    if len(numbers[0]) not in (1, channels):
        raise ValueError(f"{where} is for {len(numbers[0])} channels, the images have {channels}")
    mean, deviation = (np.broadcast_to(np.array(part) * (levels / 255), channels) for part in numbers)
    return Standardizer(mean.reshape(-1, 1, 1), deviation.reshape(-1, 1, 1))
