"""Augmentation as a pure function of (seed, epoch, sample): batch size, order and threads do not matter."""

from dataclasses import dataclass

import numpy as np

from fastconv.data._shuffle import words

_BITS = np.uint64(24)  # of each shift's draw; it favours no shift by more than (2 * shift + 1) / 2**24
_MASK = np.uint64((1 << 24) - 1)


@dataclass(frozen=True)
class Augment:
    """Shift an image at random and mirror it half of the time.

    A shift by up to ``shift`` pixels each way is the same as padding by ``shift`` and cropping the old size
    at random (He et al., "Deep residual learning for image recognition", 2015, section 4.2).

    Parameters
    ----------
    shift : int
        Largest shift in pixels, each way, along each axis; all 2 * shift + 1 steps are equally likely.
    flip : bool
        Mirror left and right with probability 1/2. Not for digits or letters.
    fill : float or tuple of float
        Value of the pixels that come in from outside, in the units of the images: one, or one a channel.

    Raises
    ------
    ValueError
        If ``shift`` is negative or ``fill`` is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> Augment(shift=1)(image, samples=[5], seed=0, epoch=2).shape
    (1, 1, 3, 3)
    """

    shift: int = 0
    flip: bool = False
    fill: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
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
        """Raise ValueError unless images (N, C, H, W) can be shifted and filled as asked."""
        _, channels, height, width = images.shape
        if self.shift >= min(height, width):
            raise ValueError(f"Augment: shift {self.shift} moves images of {height} x {width} out of sight")
        if np.size(self.fill) not in (1, channels):
            raise ValueError(f"Augment: {np.size(self.fill)} fill values for {channels} channels")
        if images.dtype.kind != "f" and (np.asarray(self.fill).astype(images.dtype) != self.fill).any():
            raise ValueError(f"Augment: fill {self.fill} is not a value of {images.dtype} images")

    def draws(self, n: int, seed: int, epoch: int) -> np.ndarray:
        """Return what is drawn for samples 0..n-1: int64 (3, n), rows down, right, mirrored (0 or 1)."""
        bits = words(n, seed, "augment", epoch)
        steps = np.uint64(2 * self.shift + 1)
        down = ((bits & _MASK) * steps) >> _BITS
        right = (((bits >> _BITS) & _MASK) * steps) >> _BITS
        mirrored = (bits >> np.uint64(48)) & np.uint64(self.flip)
        drawn = np.stack([down, right, mirrored]).astype(np.int64)
        drawn[:2] -= self.shift
        return drawn

    def place(self, source: np.ndarray, rows: np.ndarray, drawn: np.ndarray, out: np.ndarray) -> None:
        """Write source[rows] to ``out``, moved as ``drawn`` (3, n) says; source and out are (N, H, W, C)."""
        _, height, width, _ = source.shape
        if self.shift:
            out[...] = self.fill
        for target, row, (down, right, mirrored) in zip(out, rows.tolist(), drawn.T.tolist(), strict=True):
            image = source[row, :, ::-1] if mirrored else source[row]
            target[max(down, 0) : height + down, max(right, 0) : width + right] = image[
                max(-down, 0) : height - down, max(-right, 0) : width - right
            ]
