"""Readers of idx (MNIST) and CIFAR-10 binary files, plain or gzip, that trust nothing in the file.

No length found in a file leads to an allocation before the file is known to hold that much, and every
reader accounts for the last byte: a short file, a long one and a damaged one are each a ValueError.
"""

import math
import zlib
from pathlib import Path

import numpy as np

from fastconv.paths import expand

GZIP_MAGIC = b"\x1f\x8b"
IDX_UBYTE = 0x08  # element type of an idx file, third byte of its magic number
# Deflate spends at least 1 bit on 129 bytes (a match of 258 costs 2 bits): a file cannot hold more.
DEFLATE_RATIO = 1032
INFLATE_HOLDS = 64  # more than the compressed bytes zlib may have read ahead
PIECE = 1 << 18  # bytes of gzip data taken in or given out at a time
FIRST = 1 << 12  # ... and at the beginning of a member, since what is left over of a piece is copied
CIFAR_RECORD = 1 + 3 * 32 * 32


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, plain or gzip (told by content, not by name).

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ndarray
        uint8, of the shape in the file's header; read-only.

    Raises
    ------
    ValueError
        If the magic number or the sizes are wrong, bytes are missing or left over, or gzip data are damaged.
    OSError
        If the file cannot be read.

    Notes
    -----
    The format: http://yann.lecun.com/exdb/mnist/, "the IDX file format".

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))  # bytes; one dimension, of size 3; 7, 2, 1
    ...     data.read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = expand(path)
    reader = _Reader(path.read_bytes(), path)
    zero, kind, ndim = int.from_bytes(reader.take(2), "big"), reader.take(1)[0], reader.take(1)[0]
    if zero != 0 or kind != IDX_UBYTE or not 1 <= ndim <= 4:
        raise ValueError(
            f"{path}: not an idx file of unsigned bytes: it begins {zero:04x}{kind:02x}{ndim:02x}, "
            f"expected 0000{IDX_UBYTE:02x}01 to 0000{IDX_UBYTE:02x}04"
        )
    dims = np.frombuffer(reader.take(4 * ndim), ">u4").tolist()
    data = reader.take(math.prod(dims), f"a header that promises {' x '.join(map(str, dims))} bytes")
    reader.finish()
    return np.frombuffer(data, np.uint8).reshape(dims)


def read_cifar(
    path: str | Path, records: int = 10_000, *, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of the binary version of CIFAR-10, plain or gzip.

    A record is one label byte and 3072 pixel bytes: a red, a green and a blue plane of 32 rows.

    Parameters
    ----------
    path : str or Path
    records : int
        How many records the file must hold.
    out : ndarray, optional
        uint8 (records, 32, 32, 3): the buffer to write the pixels to.

    Returns
    -------
    images : ndarray
        uint8 (records, 3, 32, 32), a view of a channels-last buffer (of ``out`` when given).
    labels : ndarray
        uint8 (records,).

    Raises
    ------
    ValueError
        If the file's length is not ``records`` x 3073 bytes, a label is above 9, or gzip data are damaged.
    OSError
        If the file cannot be read.

    Notes
    -----
    The format: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "batch.bin")
    ...     _ = path.write_bytes(bytes([3]) + bytes([200] * 1024 + [100] * 1024 + [0] * 1024))  # a cat, all orange
    ...     images, labels = data.read_cifar(path, records=1)
    >>> images.shape, images[0, :, 0, 0], labels
    ((1, 3, 32, 32), array([200, 100,   0], dtype=uint8), array([3], dtype=uint8))
    """
    path = expand(path)
    reader = _Reader(path.read_bytes(), path)
    data = reader.take(records * CIFAR_RECORD, f"{records} records of {CIFAR_RECORD} bytes")
    reader.finish()
    table = np.frombuffer(data, np.uint8).reshape(records, CIFAR_RECORD)
    labels = table[:, 0].copy()
    if records and labels.max() > 9:
        raise ValueError(f"{path}: record {int(labels.argmax())} has label {labels.max()}, expected 0..9")
    images = np.empty((records, 32, 32, 3), np.uint8) if out is None else out
    if images.shape != (records, 32, 32, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"read_cifar: out must be uint8 {(records, 32, 32, 3)}, got {images.dtype} {images.shape}"
        )
    for channel in range(3):  # three strided copies: four times as fast as one transposed copy
        plane = table[:, 1 + 1024 * channel : 1025 + 1024 * channel]
        images[..., channel] = plane.reshape(records, 32, 32)
    return images.transpose(0, 3, 1, 2), labels


def unpack(raw: bytes, limit: int, where: str | Path) -> bytes:
    """Return ``raw``, decompressed when it is gzip; ValueError when that takes more than ``limit`` bytes."""
    reader = _Reader(raw, where)
    data = reader.take_up_to(limit)
    reader.finish()
    return bytes(data)


class _Reader:
    """Takes bytes off the front of a plain or gzip file, decompressing no more than was asked for."""

    def __init__(self, raw: bytes, where: str | Path) -> None:
        self._left, self._where = memoryview(raw), where
        self._inflate = zlib.decompressobj(31) if raw[:2] == GZIP_MAGIC else None
        self._piece = FIRST

    def take(self, n: int, what: str = "a header") -> bytes | memoryview:
        """Return the next n bytes; refuse before allocating when the file cannot hold them."""
        data = self.take_up_to(n) if n <= self._at_most() else b""
        if len(data) < n:
            raise ValueError(f"{self._where}: truncated: {what} needs {n} bytes, the file has too few")
        return data

    def take_up_to(self, n: int) -> bytes | memoryview:
        """Return the next n bytes, or as many as there are."""
        if self._inflate is None:
            data, self._left = self._left[:n], self._left[n:]
            return data
        # piece by piece into an array of the final size: in one go zlib would hold everything twice
        out, filled = np.empty(min(n, self._at_most()), np.uint8), 0
        while filled < len(out):
            if self._inflate.eof:
                if self._left[:2] != GZIP_MAGIC:
                    break
                self._inflate, self._piece = zlib.decompressobj(31), FIRST  # another member, whose content goes on
            coming, self._piece = self._left[: self._piece], PIECE
            try:
                plain = self._inflate.decompress(coming, min(len(out) - filled, PIECE))
            except zlib.error as error:
                raise ValueError(f"{self._where}: damaged gzip data ({error})") from error
            if not plain and not coming:
                break
            rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self._left = self._left[len(coming) - len(rest) :]
            out[filled : filled + len(plain)] = np.frombuffer(plain, np.uint8)
            filled += len(plain)
        return out[:filled].data.toreadonly()

    def finish(self) -> None:
        """Raise ValueError unless nothing is left and the checksum that ends gzip data was met."""
        if len(self.take_up_to(1)):
            raise ValueError(f"{self._where}: content goes on after its expected end")
        if self._inflate and not self._inflate.eof:
            raise ValueError(f"{self._where}: truncated: the gzip data end early")
        if self._inflate and self._left:
            raise ValueError(f"{self._where}: {len(self._left)} bytes too many after the gzip data")

    def _at_most(self) -> int:
        if self._inflate is None:
            return len(self._left)
        return (len(self._left) + INFLATE_HOLDS) * DEFLATE_RATIO
