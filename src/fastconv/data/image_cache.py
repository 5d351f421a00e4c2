"""Decoded, resized images of a folder in one file, so that they are decoded once and not in every epoch.

::

    8 bytes             magic
    8 bytes             length of the JSON at the end, little-endian
    uint8 (N, H, W, C)  images, zeros for what is damaged; the last channel may be a mask
    int64 (N, C) twice  sums of each image's pixels, and of their squares, little-endian
    int64 (M, 3)        of masks: image, class, and how many of its pixels have it
    uint32 (N,)         CRC-32 of each image, little-endian
    JSON                what it was made of, what was damaged, a digest of the tables

It lies in the user's cache folder, one file for a folder of images and a way of reading it, and is made anew when a
name, a size or a time of change there is another. It appears whole or not at all; every image is compared with its
checksum when it is read. It is read in pieces rather than mapped: a file that somebody cuts short is an error then, and
no signal.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import weakref
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastconv import schema
from fastconv.data.decode import pillow
from fastconv.data.folders import cache_folder
from fastconv.data.pictures import Files, Survey
from fastconv.locks import Lock
from fastconv.paths import printable
from fastconv.schema import Integer, Items, Record, Text

MAGIC = b"FCIMAGES"
_IMAGES = len(MAGIC) + 8  # where they begin
_HEADER = 1 << 26  # bytes of JSON at most

_COUNT = Integer(0, 2**31)
HEADER = Record({
    "version": Integer(1, 1),
    "listing": Text(),
    "count": _COUNT,
    "shape": Items(Integer(1, 4096), 3, 3),
    "damaged": Items(Record({"number": _COUNT, "reason": Text()}, rest=None)),
    "tables": Text(),
}, {"counts": Integer(0, 2**40)}, rest=None)  # fmt: skip


def surveyed(files: Files) -> tuple[Files, Survey]:
    """Return files as they stand in the cache, and what is known of them; the cache is written if it is not there.

    While another process writes it, the files themselves are decoded.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path, listing = place(files), listed(files)
    with suppress(FileNotFoundError, ValueError):  # of other files, or damaged: made anew
        return Cached.open(path, files, listing)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(path, "another process is writing this cache")
    except BlockingIOError:
        return files, files.survey()
    with lock:
        write(path, files, listing)
        return Cached.open(path, files, listing)


def place(files: Files) -> Path:
    """Return where the cache of some files lies."""
    way = files.way.encode()
    name = hashlib.sha256(os.fsencode(files.root.resolve()) + b"\0" + way).hexdigest()[:24]
    return cache_folder() / "images" / f"{name}.images"


def listed(files: Files) -> str:
    """Return a digest of all that the images follow from: names, sizes, times of change, settings, the decoder."""
    digest = hashlib.sha256(f"{files.way} {pillow().__version__}\n".encode())
    for name in files.sources:
        try:
            status = (files.root / name).stat()
        except OSError:
            digest.update(os.fsencode(name) + b"\0gone\n")
        else:
            digest.update(os.fsencode(name) + f"\0{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def write(path: Path, files: Files, listing: str) -> None:
    """Decode all files into a draft, which then takes the cache's name."""
    draft = path.with_name(f".{path.name}.part")
    sums = np.zeros(len(files.names), "<u4")
    blank = bytes(math.prod(files.shape))
    try:
        with open(draft, "wb") as file:
            file.write(MAGIC + bytes(8))

            def keep(number: int, image: np.ndarray | None) -> None:
                pixels = blank if image is None else image.tobytes()
                file.write(pixels)
                sums[number] = zlib.crc32(pixels)

            survey = files.survey(keep)
            whole = (survey.sums, survey.squares, survey.counts)
            tables = b"".join([*(a.astype("<i8").tobytes() for a in whole), sums.tobytes()])
            header = json.dumps({
                "version": 1, "listing": listing, "count": len(files.names), "shape": list(files.shape),
                "damaged": [{"number": number, "reason": reason} for number, reason in survey.damaged.items()],
                "tables": hashlib.sha256(tables).hexdigest(),
                **({"counts": len(survey.counts)} if files.masked else {}),
            }).encode()  # fmt: skip
            file.write(tables + header)
            file.seek(len(MAGIC))
            file.write(len(header).to_bytes(8, "little"))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


class Cached(Files):
    """Files whose images stand in a cache: they are read, not decoded."""

    def __init__(self, files: Files, file: BinaryIO, path: Path, checksums: np.ndarray) -> None:
        super().__init__(files.root, files.names, files.shape, files.resize)
        self.masked, self._made_of = files.masked, files
        self._file, self._path, self._checksums, self._reading = file, path, checksums, threading.Lock()
        self._close = weakref.finalize(self, file.close)

    @classmethod
    def open(cls, path: Path, files: Files, listing: str) -> tuple[Cached, Survey]:
        """Open the cache of some files.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged, or not of these files as they are.
        """
        file = open(path, "rb", buffering=0)  # noqa: SIM115  (it stays open)
        try:
            survey, checksums = _read(file, path, files, listing)
        except BaseException:
            file.close()
            raise
        return cls(files, file, path, checksums), survey

    def decode(self, number: int) -> np.ndarray:
        channels, height, width = self.shape
        image = np.empty((height, width, channels), np.uint8)
        with self._reading:
            self._file.seek(_IMAGES + number * image.size)
            got = self._file.readinto(image.data.cast("B"))  # type: ignore[attr-defined]
        if got != image.size or zlib.crc32(image.data) != self._checksums[number]:
            raise ValueError(f"{printable(self._path)} is damaged, or was cut short; remove it")
        return image

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._made_of,)


def _again(made_of: Files) -> Files:
    """Open the cache in another process."""
    return surveyed(made_of)[0]


def _read(file: BinaryIO, path: Path, files: Files, listing: str) -> tuple[Survey, np.ndarray]:
    """Return what a cache says of its images, all of it checked."""
    count, (channels, height, width) = len(files.names), files.shape
    start = file.read(_IMAGES)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    size = os.fstat(file.fileno()).st_size
    at = _IMAGES + count * channels * height * width
    rows, known = 8 * count * channels, 2 * 8 * count * channels + 4 * count
    extra = size - at - known - length  # bytes of the table that masks have
    if start[: len(MAGIC)] != MAGIC or length > _HEADER or extra < 0 or (extra and not files.masked) or extra % 24:
        raise ValueError(f"{printable(path)} is no cache of these images")
    file.seek(at)
    table, text = _exactly(file, known + extra, path), _exactly(file, length, path)
    header = schema.parse(text, HEADER, printable(path))
    if header["listing"] != listing or header["count"] != count or header["shape"] != list(files.shape):
        raise ValueError(f"{printable(path)} is of other images")
    numbers = [entry["number"] for entry in header["damaged"]]
    whole = header["tables"] == hashlib.sha256(table).hexdigest() and header.get("counts", 0) * 24 == extra
    if not whole or max(numbers, default=-1) >= count:
        raise ValueError(f"{printable(path)} is damaged")
    sums, squares = (np.frombuffer(table, "<i8", count * channels, i * rows).reshape(-1, channels) for i in range(2))
    counts = np.frombuffer(table, "<i8", extra // 8, 2 * rows).reshape(-1, 3)
    if extra and not (counts.min() >= 0 and counts[:, 0].max() < count and counts[:, 1].max() < 256):
        raise ValueError(f"{printable(path)} is damaged")
    damaged = {entry["number"]: entry["reason"] for entry in header["damaged"]}
    checksums = np.frombuffer(table, "<u4", count, 2 * rows + extra)
    wide = [a.astype(np.int64) for a in (sums, squares, counts)]
    return Survey(wide[0], wide[1], damaged, wide[2]), checksums


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    if size:
        raise ValueError(f"{printable(path)} was cut short")
    return b"".join(parts)
