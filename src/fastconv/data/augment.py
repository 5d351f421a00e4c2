"""Augmentation as a pure function of (seed, epoch, sample): batch size, order and threads do not matter."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.data._pixels import nearest, recolour, resample, window
from fastconv.data._shuffle import words
from fastconv.functional._check import flag

_BITS = np.uint64(24)  # of each shift's draw; it favours no shift by more than (2 * shift + 1) / 2**24
_ONE = 1 << 24
_MASK = np.uint64(_ONE - 1)
_COLOURS = ("brightness", "contrast", "saturation")
_RATIO = 4 / 3  # by which the sides' proportions of a part change at most


@dataclass(frozen=True)
class Augment:
    """Change images at random: shift, mirror, look at a part, turn, recolour, cover a square.

    In this order; each draws from a stream of its own, so that turning one on changes nothing of the others. A shift by
    up to ``shift`` pixels each way is the same as padding by ``shift`` and cropping the old size at random (He et al.,
    "Deep residual learning for image recognition", 2015, section 4.2).

    Parameters
    ----------
    shift : int
        Largest shift in pixels, each way, along each axis; all 2 * shift + 1 steps are equally likely.
    flip : bool
        Mirror left and right with probability 1/2. Not for digits or letters.
    fill : float or tuple of float
        Value of the pixels that come in from outside, in the units of the images: one, or one per channel.
    scale : float
        Least share of an image's area that is looked at, in (0, 1]: a part of such a share or more, its sides'
        proportions changed by up to 4/3, anywhere in the image, is scaled to the whole (C. Szegedy et al., "Going
        deeper with convolutions", 2015, section 6). 1: all of it.
    rotation : float
        Largest angle in degrees, either way.
    brightness, contrast, saturation : float
        In [0, 1]: values, their distances from the image's mean grey, and from each pixel's own, are scaled by a factor
        in [1 - b, 1 + b]. Saturation is of RGB images.
    cutout : int
        Side of a square, its middle anywhere in the image, that is covered with ``fill`` (T. DeVries and G. W. Taylor,
        "Improved regularization of convolutional neural networks with cutout", 2017).

    Raises
    ------
    ValueError
        If a parameter is out of its range or not finite.
    TypeError
        If ``flip`` is neither True nor False.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import data
    >>> image = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> augment = data.Augment(shift=1, flip=True, fill=0)
    >>> augment(image, samples=[5], seed=0, epoch=2)[0, 0]
    array([[0, 3, 2],
           [0, 6, 5],
           [0, 9, 8]], dtype=uint8)
    >>> augment(image, samples=[5], seed=0, epoch=3)[0, 0]  # in another epoch
    array([[2, 3, 0],
           [5, 6, 0],
           [8, 9, 0]], dtype=uint8)
    """

    shift: int = 0
    flip: bool = False
    fill: float | tuple[float, ...] = 0.0
    scale: float = 1.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "flip", flag("Augment: flip", self.flip))
        if not 0 < self.scale <= 1:
            raise ValueError(f"Augment: scale must be in (0, 1], got {self.scale}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"Augment: rotation must be 0 to 180 degrees, got {self.rotation}")
        for name in _COLOURS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Augment: {name} must be in [0, 1], got {getattr(self, name)}")
        if self.cutout < 0:
            raise ValueError(f"Augment: cutout must not be negative, got {self.cutout}")
        if self.shift < 0:
            raise ValueError(f"Augment: shift must not be negative, got {self.shift}")
        if not np.isfinite(self.fill).all():
            raise ValueError(f"Augment: fill must be finite, got {self.fill}")

    def __call__(
        self, images: np.ndarray, samples: np.ndarray | list[int], *, seed: int, epoch: int
    ) -> np.ndarray:
        """Return augmented copies of images (N, C, H, W); image i is number ``samples[i]`` of its set."""
        samples = np.asarray(samples, np.intp)
        if samples.shape != images.shape[:1] or (samples < 0).any():
            raise ValueError(f"Augment: samples must be {len(images)} positions, got {samples.shape}")
        self.check(images)
        source = images.transpose(0, 2, 3, 1)
        out = np.empty(source.shape, images.dtype)
        draws = self.draws(int(samples.max(initial=-1)) + 1, seed, epoch)
        self.place(source, np.arange(len(images)), draws[:, samples], out)
        return out.transpose(0, 3, 1, 2)

    def check(self, images: np.ndarray) -> None:
        """Raise ValueError unless images (N, C, H, W) can be shifted and filled as asked.

        Parameters
        ----------
        images : ndarray of shape (N, C, H, W)
        """
        _, channels, height, width = images.shape
        if self.shift >= min(height, width):
            raise ValueError(f"Augment: shift {self.shift} moves images of {height} x {width} out of sight")
        if np.size(self.fill) not in (1, channels):
            raise ValueError(f"Augment: {np.size(self.fill)} fill values for {channels} channels")
        if images.dtype.kind != "f" and (np.asarray(self.fill).astype(images.dtype) != self.fill).any():
            raise ValueError(f"Augment: fill {self.fill} is not a value of {images.dtype} images")
        if self._bends and images.dtype != np.uint8:
            raise ValueError(f"Augment: scale, rotation and colours are for uint8 images, got {images.dtype}")
        if self.saturation and channels != 3:
            raise ValueError(f"Augment: saturation is of RGB images, these have {channels} channels")

    @property
    def _bends(self) -> bool:
        return self.scale < 1 or bool(self.rotation) or any(getattr(self, name) for name in _COLOURS)

    def draws(self, n: int, seed: int, epoch: int) -> np.ndarray:
        """Return what is drawn for samples 0..n-1, int64.

        Rows down, right, mirrored (0 or 1); where more than that is asked for, ten of 24 bits each behind them: area,
        proportions, down and right of the part, angle, the three colours, down and right of the covered square.

        Parameters
        ----------
        n : int
            Samples.
        seed, epoch : int
            What the draws are a function of.
        """
        bits = words(n, seed, "augment", epoch)
        steps = np.uint64(2 * self.shift + 1)
        down = ((bits & _MASK) * steps) >> _BITS
        right = (((bits >> _BITS) & _MASK) * steps) >> _BITS
        mirrored = (bits >> np.uint64(48)) & np.uint64(self.flip)
        drawn = np.stack([down, right, mirrored]).astype(np.int64)
        drawn[:2] -= self.shift
        if not (self._bends or self.cutout):
            return drawn
        more = [drawn]
        for what in ("part", "place", "turn", "colour", "cover"):
            bits = words(n, seed, f"augment {what}", epoch)
            more.append(np.stack([bits & _MASK, (bits >> _BITS) & _MASK]).astype(np.int64))
        return np.concatenate(more)

    def place(self, source: np.ndarray, rows: np.ndarray, drawn: np.ndarray, out: np.ndarray) -> None:
        """Write source[rows] to ``out``, changed as ``drawn`` says; source and out are (N, H, W, C).

        Parameters
        ----------
        source : ndarray of shape (N, H, W, C)
        rows : ndarray of int, shape (n,)
        drawn : ndarray of int64, shape (draws, n)
            The columns of `draws` for these samples.
        out : ndarray of shape (n, H, W, C)
            Written over.
        """
        self._move(source, rows, drawn, out, self.fill)
        if len(drawn) > 3:
            fill = np.asarray(self.fill).astype(np.int32)
            for image, more in zip(out, drawn[3:].T.tolist(), strict=True):
                if (steps := self._window(image, more)) is not None:
                    image[...] = resample(image, steps, fill)
                self._recolour(image, more)
                self._cover(image, more, self.fill)

    def place_masks(
        self, source: np.ndarray, rows: np.ndarray, drawn: np.ndarray, out: np.ndarray, ignored: int
    ) -> None:
        """Write the masks source[rows] of images that `place` changes to ``out``; both are (N, H, W).

        Pixels of no image, from outside of it or covered, are ``ignored``.

        Parameters
        ----------
        source : ndarray of shape (N, H, W)
        rows : ndarray of int, shape (n,)
        drawn : ndarray of int64, shape (draws, n)
            The columns of `draws` for these samples.
        out : ndarray of shape (n, H, W)
            Written over.
        ignored : int
            The class of pixels that come in from outside.
        """
        self._move(source, rows, drawn, out, ignored)
        if len(drawn) > 3:
            for mask, more in zip(out, drawn[3:].T.tolist(), strict=True):
                if (steps := self._window(mask, more)) is not None:
                    mask[...] = nearest(mask, steps, ignored)
                self._cover(mask, more, ignored)

    def _move(self, source: np.ndarray, rows: np.ndarray, drawn: np.ndarray, out: np.ndarray, fill: Any) -> None:
        """Shift and mirror."""
        height, width = source.shape[1:3]
        if self.shift:
            out[...] = fill
        for target, row, (down, right, mirrored) in zip(out, rows.tolist(), drawn[:3].T.tolist(), strict=True):
            image = source[row, :, ::-1] if mirrored else source[row]
            target[max(down, 0) : height + down, max(right, 0) : width + right] = image[
                max(-down, 0) : height - down, max(-right, 0) : width - right
            ]

    def _window(self, image: np.ndarray, drawn: list[int]) -> list[int] | None:
        """Return the part of an image (H, W, ...) that is looked at; None where it is all of it, upright."""
        if self.scale == 1 and not self.rotation:
            return None
        area, ratio, down, right, turn = (d / _ONE for d in drawn[:5])
        if self.scale == 1:
            area, ratio, down, right = 0, 0.5, 0.5, 0.5
        share, stretch = 1 - (1 - self.scale) * area, _RATIO ** (2 * ratio - 1)
        height, width = image.shape[:2]
        return window(height, width, share, stretch, down, right, (2 * turn - 1) * self.rotation)

    def _recolour(self, image: np.ndarray, drawn: list[int]) -> None:
        if self.brightness or self.contrast or self.saturation:
            most = (self.brightness, self.contrast, self.saturation)
            by = (round(256 * (1 + (2 * d / _ONE - 1) * m)) for d, m in zip(drawn[5:8], most, strict=True))
            image[...] = recolour(image, *by)

    def _cover(self, image: np.ndarray, drawn: list[int], fill: Any) -> None:
        if self.cutout:
            height, width = image.shape[:2]
            top, left = (d / _ONE for d in drawn[8:10])
            y, x = int(top * height) - self.cutout // 2, int(left * width) - self.cutout // 2
            image[max(y, 0) : max(y + self.cutout, 0), max(x, 0) : max(x + self.cutout, 0)] = fill
