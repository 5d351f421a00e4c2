"""A trained net with all it takes to use it: from the folder of a run, or from an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.data import Standardizer, TargetScale
from fastconv.nn import Module
from fastconv.onnx import OnnxModel
from fastconv.paths import PathLike
from fastconv.train.evaluation import together
from fastconv.train.origins import NORMALIZATIONS, Origin, given, probe, read, standardizer_of


@dataclass(frozen=True)
class Usable:
    """A net, the images or rows it takes and the classes it tells apart, or the number that it predicts.

    Attributes
    ----------
    name : str
        Of the net, for people.
    model : Module
    classes : tuple of str
        Numbers, where nothing tells names. None where it predicts a number.
    named : bool
        Whether the names of the classes are known.
    shape : tuple of int
        (C, H, W) of an image.
    levels : float
        Value of white.
    light_on_dark : bool
        Whether it learned bright strokes on a dark ground.
    standardizer : Standardizer
    resize : {"crop", "pad", "stretch"}
        How images come to the shape.
    options : dict
        Those of the run that trained it; empty of an ONNX file.
    per_pixel : bool
        Whether each pixel has scores.
    columns : tuple of str
        Of a net that takes the rows of a table, which are images of one pixel with so many channels.
    target : str
        What such a net tells of a row.
    scale : TargetScale or None
        Of a net that predicts a number.
    """

    name: str
    model: Module
    classes: tuple[str, ...]
    named: bool
    shape: tuple[int, int, int]
    levels: float
    light_on_dark: bool
    standardizer: Standardizer
    resize: Any
    options: dict[str, Any]
    per_pixel: bool = False
    columns: tuple[str, ...] = ()
    target: str = ""
    scale: TargetScale | None = None

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the scores (N, classes), or (N, classes, H, W), of images (N, C, H, W) with values 0..levels.

        Where it predicts a number they are what the net puts out, (N, 1); `numbers` has them in their unit.
        """
        found = self.model.predict(self.standardizer(images), batch_size=together(self.shape, self.per_pixel))
        outputs = len(self.classes) if self.scale is None else 1
        want = (len(images), outputs, *(self.shape[1:] if self.per_pixel else ()))
        if not isinstance(found, np.ndarray) or found.shape != want:
            raise ValueError(f"{self.name}: the net gives {given(found)}, scores of {want} were expected")
        return found

    def numbers(self, images: np.ndarray) -> np.ndarray:
        """Return the numbers (N,) predicted for images (N, C, H, W), in float64."""
        assert self.scale is not None
        return self.scale.back(self.scores(images))


def load_usable(path: PathLike, normalize: str | None = None, image_size: tuple[int, int] | None = None) -> Usable:
    """Read a net to use it.

    Parameters
    ----------
    path : path-like
        The folder of a run that has ended, or an ONNX file that takes one image (N, C, H, W) and gives scores.
    normalize : str, optional
        How images come to the net, see `fastconv.train.origins.standardizer_of`. A run knows, and an ONNX file that
        ``fastconv export`` wrote; for others it has to be said.
    image_size : pair of int, optional
        (height, width), where an ONNX file leaves them open; 224 each by default.

    Raises
    ------
    OSError, ValueError, ImportError
        As `fastconv.train.origins.read`; or if it does not become plain which images the net takes.
    """
    origin = read(path)
    if "options" in origin.about:
        if image_size is not None:
            raise ValueError(f"image-size is for an .onnx file that leaves it open; {origin.path} says what it takes")
        return _of_run(origin, normalize)
    if not isinstance(origin.model, OnnxModel):
        raise ValueError(
            f"{origin.path} does not say which images its net takes; give the folder of a run, or an .onnx file"
        )
    return _of_onnx(origin, origin.model, normalize, image_size)


def _of_run(origin: Origin, normalize: str | None) -> Usable:
    assert origin.model is not None
    about = origin.about
    channels, height, width = about["input_shape"]
    shape = (channels, height, width)
    own = Standardizer.from_dict(about["standardizer"])
    standardizer = own if normalize is None else _chosen(normalize, shape, about["levels"])
    options, table = about["options"], about.get("table", {})
    scale = TargetScale(table["mean"], table["deviation"]) if "mean" in table else None
    return Usable(
        options["model"], origin.model, tuple(about["classes"]), True, shape, about["levels"], about["light_on_dark"],
        standardizer, options.get("resize") or "pad", options, about.get("per_pixel", False),
        tuple(table.get("columns", ())), table.get("target", ""), scale,
    )  # fmt: skip


def _of_onnx(origin: Origin, model: OnnxModel, normalize: str | None, image_size: tuple[int, int] | None) -> Usable:
    shapes = list(model.input_shapes.values())
    known = shapes[0] if len(shapes) == 1 else None
    if known is None or len(known) != 4 or known[1] is None:
        raise ValueError(f"{origin.path}: a net of inputs {model.input_shapes}, which are not images (N, C, H, W)")
    sides = [n or m for n, m in zip(known[2:], image_size or (224, 224), strict=True)]
    if image_size is not None and tuple(sides) != tuple(image_size):
        raise ValueError(f"{origin.path} takes images of {sides[0]}×{sides[1]}, not {image_size[0]}×{image_size[1]}")
    shape = (known[1], sides[0], sides[1])
    standardizer = origin.standardizer(shape)
    levels = origin.about.get("levels", 255)
    if normalize is not None:
        standardizer = _chosen(normalize, shape, levels)
    if standardizer is None:
        raise ValueError(
            f"{origin.path} does not say how its images are normalised: give --normalize imagenet (what most nets from "
            "PyTorch expect), minus-one-to-one, zero-to-one, or MEAN,STD for values 0..255, as 127,128"
        )
    found = probe(model, standardizer, shape, str(origin.path))
    scores = isinstance(found, np.ndarray) and found.ndim > 1 and found.shape[1] > 1
    if not scores or found.shape[2:] not in ((), shape[1:]):
        raise ValueError(
            f"{origin.path}: the net gives {given(found)} for an image, no scores of classes (N, classes), nor of its "
            "pixels' (N, classes, H, W)"
        )
    classes = tuple(origin.about.get("classes", ()))
    named = len(classes) == found.shape[1]
    return Usable(
        origin.path.name, model, classes if named else tuple(map(str, range(found.shape[1]))), named, shape, levels,
        False, standardizer, "pad", {}, found.ndim == 4,
    )  # fmt: skip


def _chosen(normalize: str, shape: tuple[int, int, int], levels: float) -> Standardizer:
    if normalize == "dataset":
        raise ValueError(f"normalize dataset is for training; known are {', '.join(NORMALIZATIONS[1:])}, or MEAN,STD")
    return standardizer_of(normalize, shape, levels)
