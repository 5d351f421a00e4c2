"""Where a core's weights live: `Memory` holds all of them, `Mapped` walks a file through a window.

Both give windows of layers as arrays. A mapped window is read from the disk ahead, while the one before it is worked
on, mapped when its turn comes and given back when done: resident memory stays within a window whatever the depth. All
threads map and unmap, between their computations: a thread that did so beside them would take the processor from one of
them, and the others would wait for that one. Changes are in the system's file cache when a window is given back, and it
writes them behind; to press it for each window would write the whole file in every step, also where it fits the cache.
`Mapped.flush` waits for the disk, at clean points.
"""

import hashlib
import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from fastconv import random
from fastconv._ext.stream import advise, cached
from fastconv.deep.files import check_length, preallocate
from fastconv.functional.residual import ResidualCore
from fastconv.mapped import Mapping

PIECE = 16 << 20  # bytes of a read, a write or a window
READ = 1 << 20  # bytes that Linux reads ahead at most, on common disks, when advised to
SPREAD = 1e-3  # initial layer weights are uniform in +-SPREAD
# Since Linux 5.14 madvise maps all pages at once, for reading or for writing; one fault a page costs more.
POPULATE_READ, POPULATE_WRITE = 22, 23


def pieces(core: ResidualCore, nbytes: int = PIECE, multiple: int = 1) -> list[tuple[int, int]]:
    """Cut the layers into ranges of about ``nbytes``, each but the last a multiple of so many layers."""
    step = max(1, nbytes // (core.row * 4) // multiple) * multiple
    return [(i, min(i + step, core.layers)) for i in range(0, core.layers, step)]


def initialize_weights(path: Path, core: ResidualCore, seed: int) -> None:
    """Write a weights file: weights uniform in +-0.001, biases 0; each million numbers a step of one stream.

    Raises
    ------
    OSError
        If the disk has no room; nothing is left behind then.
    """
    preallocate(path, core.layers * core.row * 4)
    square = core.width * core.width
    step = max(1, (1 << 20) // core.row)
    with open(path, "r+b") as file:
        for i in range(0, core.layers, step):
            rows = np.zeros((min(step, core.layers - i), core.row), np.float32)
            draws = random.generator(seed, "deep weights", i // step).random((len(rows), square), np.float32)
            draws -= np.float32(0.5)  # in place: --memory-limit spares 8 MB for what is not counted
            np.multiply(draws, np.float32(2 * SPREAD), out=rows[:, :square])
            _check_whole(path, file.fileno(), core.layers * core.row * 4)
            file.write(rows.astype("<f4", copy=False).data)


def _check_whole(path: Path, file: int, nbytes: int) -> None:
    """Raise ValueError if a file is shorter than it was made: what is written next would hide the hole."""
    if os.fstat(file).st_size != nbytes:
        raise ValueError(f"{path}: the file was truncated while it was written")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Memory:
    """All weights in an array (layers, D * D + D)."""

    def __init__(self, core: ResidualCore, path: Path) -> None:
        self.core = core
        check_length(path, core.layers * core.row * 4, f"{core.layers} layers of width {core.width}")
        self.array = np.empty((core.layers, core.row), np.float32)
        with open(path, "rb") as file:
            for first, end in pieces(core):
                if file.readinto(self.array[first:end]) != (end - first) * core.row * 4:  # type: ignore[arg-type]
                    raise ValueError(f"{path}: the file became shorter while it was read")
        if np.little_endian is False:  # pragma: no cover
            self.array.byteswap(inplace=True)

    def window(self, first: int, end: int, change: bool = False) -> np.ndarray:
        """Return layers [first, end) for reading and writing."""
        return self.array[first:end]

    def ahead(self, first: int, end: int) -> None:
        """Nothing: all layers are here."""

    def done(self, first: int, end: int) -> None:
        """Nothing."""

    def write(self, path: Path) -> None:
        """Write all layers to a file and wait for the disk."""
        preallocate(path, self.array.nbytes)
        with open(path, "r+b") as file:
            for first, end in pieces(self.core):
                _check_whole(path, file.fileno(), self.array.nbytes)
                file.write(self.array[first:end].astype("<f4", copy=False).data)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing to close."""


class Mapped:
    """The weights file itself, mapped; changes go to the file.

    Raises
    ------
    ValueError
        If the file has another length than the layers take.
    """

    def __init__(self, core: ResidualCore, path: Path, writable: bool = True) -> None:
        self.core, self.path = core, path
        nbytes = core.layers * core.row * 4
        check_length(path, nbytes, f"{core.layers} layers of width {core.width}")
        if writable:
            preallocate(path, nbytes)  # a hole in the file would be filled, or fail, in the middle of a step
        self._file = open(path, "r+b" if writable else "rb")  # noqa: SIM115
        try:
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(self._file.fileno(), nbytes, access=access)
        except BaseException:
            self._file.close()
            raise
        self.array = np.frombuffer(self._map, np.float32).reshape(core.layers, core.row)
        self._bytes = memoryview(self._map)
        self._mapping = Mapping(path, self._file.fileno(), self._map)

    def window(self, first: int, end: int, change: bool = False) -> np.ndarray:
        """Return layers [first, end), for writing where they will ``change``.

        Raises
        ------
        ValueError
            If the file has become shorter.
        """
        self._mapping.check_length()
        if sys.platform.startswith("linux"):  # an older kernel refuses, and maps page by page
            self._advise(first, end, POPULATE_WRITE if change else POPULATE_READ)
        return self.array[first:end]

    def ahead(self, first: int, end: int) -> None:
        """Have the system begin to read layers [first, end) from the disk, unless they are in its cache."""
        start, stop = self._range(first, end)
        if hasattr(os, "posix_fadvise") and not self._cached(start, stop):
            with suppress(OSError):  # a file system without advice
                for at in range(start, stop, READ):
                    os.posix_fadvise(self._file.fileno(), at, min(READ, stop - at), os.POSIX_FADV_WILLNEED)

    def _cached(self, start: int, stop: int) -> bool:
        """Whether the system's cache holds the beginning of each read; no where the system would not tell."""
        return os.access(self.path, os.W_OK) and cached(self._bytes, start, stop - start, READ)

    def done(self, first: int, end: int) -> None:
        """Give back the memory of layers [first, end); what was changed goes to the system's file cache.

        Raises
        ------
        ValueError
            If they were not all there: the file became shorter, or the disk failed, after `window` had looked.
        """
        self._mapping.check_lost()
        if hasattr(mmap, "MADV_DONTNEED"):
            self._advise(first, end, mmap.MADV_DONTNEED)

    def check_name(self) -> None:
        """Raise FileNotFoundError if the name is no longer that of the mapped file."""
        self._mapping.check_name()

    def _advise(self, first: int, end: int, advice: int) -> None:
        start, stop = self._range(first, end)
        advise(self._bytes, start, stop - start, advice)

    def _range(self, first: int, end: int) -> tuple[int, int]:
        """Return the bytes of layers [first, end), from the beginning of a page on."""
        row = self.core.row * 4
        return first * row // mmap.PAGESIZE * mmap.PAGESIZE, end * row

    def flush(self) -> None:
        """Wait until all changes are on the disk."""
        if os.name == "nt":  # which knows a file's pages and those of its mapping apart
            self._map.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Unmap the file, or let the last window still in use do so."""
        self._mapping.close()
        del self.array, self._bytes
        with suppress(BufferError):
            self._map.close()
        self._file.close()
