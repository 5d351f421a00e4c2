"""Tables of arrays in an NPZ file: no array is made before the file is known to hold that much, no pickle is read."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.data.cells import MOST_COLUMNS, Fields, array_targets
from fastconv.data.formats import DEFLATE_RATIO, INFLATE_HOLDS
from fastconv.paths import printable

if TYPE_CHECKING:
    import zipfile


def read_npz(path: Path, task: str | None, classes: tuple[str, ...] | None, bare: int | None) -> Fields:
    """Return what the arrays of a file tell; its arguments are those of `read_table`."""
    arrays = _arrays(path)
    parted = "x_train" in arrays or "x_test" in arrays
    first, second = ("x_train", "y_train") if parted else ("x", "y")
    needed = (first,) if bare is not None else (first, second, *(("x_test", "y_test") if parted else ()))
    missing = [name for name in needed if name not in arrays]
    if missing:
        has = ", ".join(arrays) or "none of them"
        raise ValueError(
            f"{path}: no array {' and '.join(missing)}; rows x (N, columns) and targets y (N,) are read, or x_train, "
            f"y_train, x_test, y_test; there is {has}"
        )
    x = _rows_of(arrays[first], f"{path}: {first}")
    columns = _names(arrays, "feature_names", x.shape[1], path) or tuple(f"x{i}" for i in range(1, x.shape[1] + 1))
    if second not in arrays:
        return columns, x, "", None, (), None
    labels = _names(arrays, "target_names", None, path)
    parts = [arrays[second], *([arrays["y_test"]] if "y_test" in arrays and bare is None else [])]
    y, found = array_targets(np.concatenate(_alike(parts, path)), f"{path}: {second}", task, classes, labels)
    tests = len(y) - len(arrays[second])
    if len(x) != len(arrays[second]):
        raise ValueError(f"{path}: {len(x):,} rows in {first}, {len(arrays[second]):,} targets in {second}")
    if not tests:
        return columns, x, "y", y, found, None
    x_test = _rows_of(arrays["x_test"], f"{path}: x_test")
    if x_test.shape != (tests, x.shape[1]):
        raise ValueError(f"{path}: x_test is {x_test.shape}, {(tests, x.shape[1])} fits y_test and {first}")
    return columns, x, "y", y[: len(x)], found, (x_test, y[len(x) :])


def _rows_of(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "buif":
        raise ValueError(
            f"{where} must hold rows of numbers (N, columns), got {x.dtype} {x.shape}; images are read from folders"
        )
    if x.shape[1] > MOST_COLUMNS:
        raise ValueError(f"{where} has {x.shape[1]:,} columns, {MOST_COLUMNS:,} are the most")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(x, np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{where}: {len(bad):,} rows hold NaN, infinity or numbers beyond float32, the first is row {bad[0] + 1}: "
            "leave them out, or fill in what is missing"
        )
    return rows


def _names(arrays: dict[str, np.ndarray], name: str, count: int | None, path: Path) -> tuple[str, ...]:
    if name not in arrays:
        return ()
    names = arrays[name]
    if names.ndim != 1 or names.dtype.kind != "U" or (count is not None and len(names) != count):
        want = "names" if count is None else f"{count} names"
        raise ValueError(f"{path}: {name} must hold {want} as text, got {names.dtype} {names.shape}")
    return tuple(printable(text) for text in names.tolist())


def _alike(parts: list[np.ndarray], path: Path) -> list[np.ndarray]:
    """Return targets as (N,) each; refuse what is none, or of different kinds."""
    flat = [y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in parts]
    for y in flat:
        if y.ndim != 1 or y.dtype.kind not in "buifU":
            raise ValueError(f"{path}: y must hold a number or a text for each row, (N,), got {y.dtype} {y.shape}")
    if len({y.dtype.kind == "U" for y in flat}) > 1:
        raise ValueError(f"{path}: targets to train and to test on are of different kinds")
    return flat


_READ = ("x", "y", "x_train", "y_train", "x_test", "y_test", "feature_names", "target_names")
_DAMAGED = (
    ValueError, OSError, EOFError, KeyError, SyntaxError, OverflowError, NotImplementedError, RuntimeError, zlib.error,
    struct.error,
)  # fmt: skip


def _arrays(path: Path) -> dict[str, np.ndarray]:
    import zipfile

    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            there = set(archive.namelist())
            return {name: _member(archive, f"{name}.npy") for name in _READ if f"{name}.npy" in there}
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not an .npz file that can be read: {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array that the archive is known to hold."""
    info = archive.getinfo(name)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has version {version} of the format, 1.0 and 2.0 are read")
        read: Any = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, fortran, dtype = read(file)
        if dtype.hasobject or dtype.kind not in "buifcU" or not dtype.itemsize:
            raise ValueError(f"{name} holds {dtype}, which is neither numbers nor text")
        size = math.prod(shape) * dtype.itemsize
        if any(side < 0 for side in shape) or size > (info.compress_size + INFLATE_HOLDS) * DEFLATE_RATIO:
            raise ValueError(f"{name} promises {shape}, and the file is too small for that")
        data = file.read(size)
        if len(data) != size or file.read(1):
            raise ValueError(f"{name} does not hold the {size} bytes that {shape} takes")
    found = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return found.astype(dtype.newbyteorder("="), copy=False)
