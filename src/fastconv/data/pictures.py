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
from fastconv.data.decode import Resize, decode, pillow
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
    """

    sums: np.ndarray
    squares: np.ndarray
    damaged: dict[int, str]


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
        found = Survey(sums, squares, {})
        waiting = deque(self.submit(number) for number in range(min(ahead, count)))
        try:
            for number in range(count):
                image = None
                try:
                    image = waiting.popleft().result()
                except (ValueError, OSError) as error:
                    found.damaged[number] = printable(str(error))
                if number + ahead < count:
                    waiting.append(self.submit(number + ahead))
                if image is not None:
                    for channel in range(self.shape[0]):  # counting levels is the fastest exact way
                        counts = np.bincount(image[..., channel].ravel(), minlength=256)
                        sums[number, channel], squares[number, channel] = counts @ _LEVELS, counts @ _LEVELS**2
                if keep is not None:
                    keep(number, image)
        finally:
            for left in waiting:
                left.cancel()
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Files:
        return self  # nothing of it changes

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (self.root, self.names, self.shape, self.resize)


class Pictures:
    """Images (N, C, H, W), uint8, in files; slices and lists of rows give arrays.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    sums, squares : ndarray
        As `Survey` has them.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Files, rows: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> None:
        self.files, self.rows, self.sums, self.squares = files, rows, sums, squares
        self.shape = (len(rows), *files.shape)
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
        """Return some of the images, not decoded."""
        return Pictures(self.files, self.rows[rows], self.sums[rows], self.squares[rows])

    def name(self, row: int) -> str:
        """Return the name of an image's file below the folder, as a terminal may show it."""
        return printable(self.files.names[int(self.rows[row])])

    def fetch(self, rows: np.ndarray, out: np.ndarray, ahead: Sequence[int] | np.ndarray = ()) -> None:
        """Write images to ``out`` (n, H, W, C) while those of the rows ``ahead`` are begun.

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
        rows = np.arange(len(self.rows))[key]
        if rows.ndim == 0:
            return self[[int(rows)]][0]
        if rows.ndim != 1:
            raise IndexError(f"images in files are looked at by rows: a number, a slice, a list; got {key!r}")
        _, channels, height, width = self.shape
        out = np.empty((len(rows), height, width, channels), np.uint8)
        self.fetch(rows, out)
        return out.transpose(0, 3, 1, 2)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in files have no array; they are decoded into a new one")
        return self[:] if dtype is None else self[:].astype(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pictures:
        return Pictures(self.files, self.rows, self.sums, self.squares)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pictures, (self.files, self.rows, self.sums, self.squares)
