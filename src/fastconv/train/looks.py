"""How images come to a net: their size, and what is done to them at random."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastconv import data

AUGMENTATION = ("flip", "shift", "scale", "rotation", "brightness", "contrast", "saturation", "cutout")
"""Options that are parameters of `fastconv.data.Augment`."""

_USUAL = {
    "digits": data.Augment(shift=1),
    "mnist": data.Augment(shift=2),
    "fashion_mnist": data.Augment(shift=2, flip=True),
    "cifar10": data.Augment(shift=4, flip=True),
}


def size(text: str | None) -> tuple[int, int]:
    """Return height and width of "128" or "96x128".

    Raises
    ------
    ValueError
        If the text is neither, or a side is not 1 to 4096.
    """
    sides = (text or "").lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and 1 <= int(side[:9]) <= 4096 for side in sides):
        raise ValueError(f"image-size must be 128 or 96x128 (height x width), sides of 1 to 4096, got {text!r}")
    return int(sides[0]), int(sides[-1])


def augment_of(options: Any, standardizer: data.Standardizer) -> data.Augment | None:
    """Return what the options of a run do to images; None for nothing.

    It fills what comes into a colour image with the mean, into a drawing with its ground, 0.
    """
    usual = data.Augment()
    if options.augment and options.dataset in _USUAL:
        usual = _USUAL[options.dataset]
    elif options.augment:
        usual = data.Augment(shift=max(1, min(size(options.image_size)) // 8), flip=True)
    given = {name: getattr(options, name) for name in AUGMENTATION if getattr(options, name) is not None}
    augment = replace(usual, **given)
    if augment == data.Augment():
        return None
    if len(standardizer.mean) == 1:
        return augment
    return replace(augment, fill=tuple(float(round(mean)) for mean in standardizer.mean.mean(axis=(1, 2))))
