"""Images in files as something that stands where an array (N, C, H, W) does, and is decoded where it is looked at.

However many there are, in memory are those of one batch and, decoded by threads while a step runs, of the next.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import config
from fastconv.choices import Resize
from fastconv.data.decode import decode, decode_pair, pillow
from fastconv.paths import printable

_LEVELS = np.arange(256)


class ImageLost(OSError):
    """A file that could be read when its data set was loaded cannot be any more."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What one look at all images told.

    Attributes
    ----------
    sums, squares : ndarray
        int64 (N, C): of each image's pixels; the statistics of any part follow, exactly.
    damaged : dict of int to str
        Why an image could not be read.
    counts : ndarray
        int64 (M, 3): number of the image, class, and how many of its pixels have it, of masks; (0, 3) without.
    """

    sums: np.ndarray
    squares: np.ndarray
    damaged: dict[int, str]
    counts: np.ndarray


class Files:
    """Decodes files of one folder to one shape, several at a time.

    Parameters
    ----------
    root : Path
    names : sequence of str
        Below ``root``.
    shape : tuple of int
        (C, H, W) of the images.
    resize : "crop", "pad" or "stretch"
    """

    def __init__(self, root: Path, names: Sequence[str], shape: tuple[int, int, int], resize: Resize) -> None:
        pillow()
        self.root, self.names, self.shape, self.resize = root, names, shape, resize
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    masked = False
    """Whether the last of the channels is a mask."""

    @property
    def way(self) -> str:
        """How files become images."""
        return f"{self.shape} {self.resize}"

    @property
    def sources(self) -> Sequence[str]:
        """Names of all files that are read."""
        return self.names

    def decode(self, number: int) -> np.ndarray:
        """Return one image, uint8 (H, W, C)."""
        return decode(self.root / self.names[number], self.shape, self.resize)

    def submit(self, number: int) -> Future[np.ndarray]:
        """Have one image decoded by a thread."""
        with self._lock:
            if self._pool is None or self._process != os.getpid():  # threads do not live on in a fork
                self._pool = ThreadPoolExecutor(config.threads(), thread_name_prefix="fastconv-decode")
                self._process = os.getpid()
            return self._pool.submit(self.decode, number)

    def survey(self, keep: Callable[[int, np.ndarray | None], None] | None = None) -> Survey:
        """Decode all files once, a few ahead, and give each in its order to ``keep`` (None: it is damaged)."""
        count, ahead = len(self.names), 4 * config.threads()
        sums, squares = np.zeros((2, count, self.shape[0]), np.int64)
        damaged: dict[int, str] = {}
        classes: list[np.ndarray] = [np.zeros((0, 3), np.int64)]
        waiting = deque(self.submit(number) for number in range(min(ahead, count)))
        try:
            for number in range(count):
                image = None
                try:
                    image = waiting.popleft().result()
                except (ValueError, OSError) as error:
                    damaged[number] = printable(str(error))
                if number + ahead < count:
                    waiting.append(self.submit(number + ahead))
                if image is not None:
                    for channel in range(self.shape[0]):  # counting levels is the fastest exact way
                        counts = np.bincount(image[..., channel].ravel(), minlength=256)
                        sums[number, channel], squares[number, channel] = counts @ _LEVELS, counts @ _LEVELS**2
                    if self.masked:
                        there = np.flatnonzero(counts)
                        classes.append(np.stack([np.full_like(there, number), there, counts[there]], axis=1))
                if keep is not None:
                    keep(number, image)
        finally:
            for left in waiting:
                left.cancel()
        return Survey(sums, squares, damaged, np.concatenate(classes))

    def __deepcopy__(self, memo: dict[int, Any]) -> Files:
        return self  # nothing of it changes

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (self.root, self.names, self.shape, self.resize)


class PairFiles(Files):
    """Files of images and of masks, decoded together: the mask is the last channel.

    Parameters
    ----------
    masks : sequence of str
        Those of ``names``.
    classes : int, optional
        How many there are, where that is known: a mask with a larger number is damaged.
    """

    masked = True

    def __init__(
        self, root: Path, names: Sequence[str], masks: Sequence[str], shape: tuple[int, int, int], resize: Resize,
        classes: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(root, names, shape, resize)
        self.masks, self.classes = masks, classes

    @property
    def way(self) -> str:
        return f"{super().way} masks of {self.classes} classes"

    @property
    def sources(self) -> Sequence[str]:
        return [*self.names, *self.masks]

    def decode(self, number: int) -> np.ndarray:
        image, mask = self.root / self.names[number], self.root / self.masks[number]
        channels, height, width = self.shape
        return decode_pair(image, mask, (channels - 1, height, width), self.resize, self.classes)

    def __reduce__(self) -> tuple[Any, ...]:
        return PairFiles, (self.root, self.names, self.masks, self.shape, self.resize, self.classes)


class Pictures:
    """Images (N, C, H, W), uint8, in files; slices and lists of rows give arrays.

    Where the files hold masks, too, these are no part of the images: see `Masks`.

    Parameters
    ----------
    files : object
        Where the images are and how they come to one size.
    rows : ndarray of int, shape (N,)
        Which of them, in what order.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    sums, squares : ndarray of int64, shape (N, C)
        Of each image's pixels and of their squares: mean and deviation of any part follow without decoding.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(10):
    ...         path = Path(folder, "dark" if number < 5 else "light", f"{number}.pgm")
    ...         path.parent.mkdir(exist_ok=True)
    ...         _ = path.write_bytes(b"P5 4 4 255 " + bytes([25 * number] * 16))
    ...     images, labels = data.load(folder, image_size=2, channels=1).train
    ...     images.shape, images.name(0)
    ...     images[-1]  # decoded now
    ((8, 1, 2, 2), 'dark/0.pgm')
    array([[[225, 225],
            [225, 225]]], dtype=uint8)
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Files, rows: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> None:
        self.files, self.rows, self.sums, self.squares = files, rows, sums, squares
        channels, height, width = files.shape
        self.shape = (len(rows), channels - files.masked, height, width)
        self._ahead: dict[int, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def size(self) -> int:
        """Numbers in all images."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        """Bytes that all images would take."""
        return self.size

    def part(self, rows: np.ndarray) -> Pictures:
        """Return some of the images, not decoded.

        Parameters
        ----------
        rows : int, slice, or sequence of int
            Which images.
        """
        return Pictures(self.files, self.rows[rows], self.sums[rows], self.squares[rows])

    def name(self, row: int) -> str:
        """Return the name of an image's file below the folder, as a terminal may show it.

        Parameters
        ----------
        row : int
        """
        return printable(self.files.names[int(self.rows[row])])

    def fetch(self, rows: np.ndarray, out: np.ndarray, ahead: Sequence[int] | np.ndarray = ()) -> None:
        """Write images to ``out`` (n, H, W, C), masks behind them, while those of the rows ``ahead`` are begun.

        Parameters
        ----------
        rows : sequence of int
        out : ndarray of shape (n, H, W, C), uint8
            Written over.
        ahead : sequence of int, optional
            Rows that are decoded meanwhile.

        Raises
        ------
        ImageLost
            If a file cannot be read any more.
        """
        numbers, later = self.rows[rows].tolist(), self.rows[ahead].tolist() if len(ahead) else []
        with self._lock:
            begun = self._ahead
            wanted = {number: begun.get(number) or self.files.submit(number) for number in dict.fromkeys(numbers)}
            begun = begun | wanted
            self._ahead = {number: begun.get(number) or self.files.submit(number) for number in dict.fromkeys(later)}
            for number in begun.keys() - wanted.keys() - self._ahead.keys():
                begun[number].cancel()
        for target, number in zip(out, numbers, strict=True):
            try:
                target[...] = wanted[number].result()
            except (OSError, ValueError) as error:
                name = printable(self.files.root / self.files.names[number])
                text = f"{name} could be read when the data were loaded, but cannot any more: {error}"
                raise ImageLost(text) from error

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self.channels(key)[..., : self.shape[1]]
        return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found.transpose(2, 0, 1)

    def channels(self, key: Any) -> np.ndarray:
        """Return images (n, H, W, C) with masks behind them, of one row (H, W, C).

        Parameters
        ----------
        key : int, slice, or sequence of int

        Raises
        ------
        OSError, ValueError
            If a file is gone or damaged.
        """
        rows = np.arange(len(self.rows))[key]
        if rows.ndim == 0:
            return self.channels([int(rows)])[0]
        if rows.ndim != 1:
            raise IndexError(f"images in files are looked at by rows: a number, a slice, a list; got {key!r}")
        channels, height, width = self.files.shape
        out = np.empty((len(rows), height, width, channels), np.uint8)
        self.fetch(rows, out)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in files have no array; they are decoded into a new one")
        return self[:] if dtype is None else self[:].astype(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pictures:
        return Pictures(self.files, self.rows, self.sums, self.squares)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pictures, (self.files, self.rows, self.sums, self.squares)


class Masks:
    """The class of each pixel (N, H, W), uint8, of images in files; slices and lists of rows give arrays.

    Parameters
    ----------
    counts : ndarray of int64, shape (M, 3)
        Number of an image, a class, and how many of its pixels have that.

    Attributes
    ----------
    pictures : Pictures
        The images, with which masks are decoded.
    shape : tuple of int
    dtype : numpy.dtype

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("images", "masks"):
    ...         Path(folder, name).mkdir()
    ...         for letter in "abcde":
    ...             _ = Path(folder, name, f"{letter}.png").write_bytes(b"P5 2 2 255 " + bytes([0, 1, 1, 1]))
    ...     images, masks = data.load(folder, image_size=2).train
    ...     masks.shape, masks[0].tolist(), masks.counts()[:2]
    ((4, 2, 2), [[0, 1], [1, 1]], array([ 4, 12]))
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pictures: Pictures, counts: np.ndarray) -> None:
        self.pictures, self._counts = pictures, counts
        self.shape = (len(pictures), *pictures.shape[2:])

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def size(self) -> int:
        """Pixels of all masks."""
        return int(np.prod(self.shape, dtype=object))

    def counts(self) -> np.ndarray:
        """Return how many pixels have which number: int64 (256,)."""
        known = self._counts[np.isin(self._counts[:, 0], self.pictures.rows)]
        found = np.zeros(256, np.int64)
        np.add.at(found, known[:, 1], known[:, 2])
        return found

    def part(self, rows: np.ndarray) -> Masks:
        """Return some of the masks, not decoded.

        Parameters
        ----------
        rows : int, slice, or sequence of int
            Which images.
        """
        return Masks(self.pictures.part(rows), self._counts)

    def of(self, images: Any) -> bool:
        """Return whether these are the masks of some images, so that both are decoded at once.

        Parameters
        ----------
        images : object
            Pictures, perhaps those that the masks belong to.
        """
        own = self.pictures
        return isinstance(images, Pictures) and images.files is own.files and np.array_equal(images.rows, own.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.ascontiguousarray(self.pictures.channels(key)[..., -1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("masks in files have no array; they are decoded into a new one")
        return self[:] if dtype is None else self[:].astype(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Masks:
        return Masks(self.pictures, self._counts)
