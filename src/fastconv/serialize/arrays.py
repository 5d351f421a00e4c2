"""Arrays and strings in safetensors files, written whole or not at all."""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv.functional._check import check_array
from fastconv.paths import PathLike, expand
from fastconv.serialize.files import replacing

Array = npt.NDArray[Any]

MAX_HEADER = 100_000_000  # bytes, the safetensors library's own limit
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
}


class ModelFileError(ValueError):
    """A file is no model, or a damaged or hostile one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.safetensors")
    ...     _ = path.write_text("no model")
    ...     try:
    ...         serialize.load(path)
    ...     except serialize.ModelFileError as error:
    ...         print(str(error).removeprefix(str(path)))
    : not a safetensors file, or cut short: the header would have 7810759558478983022 bytes, the file has 8
    """


def save_arrays(path: PathLike, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays and strings to a safetensors file: a temporary file, fsync, then a rename.

    Parameters
    ----------
    path : path-like
        Replaced if it exists; a symbolic link is followed.
    arrays : mapping of str to ndarray of float32, float64 or int64
        Of any shape.
    metadata : mapping of str to str, optional

    Raises
    ------
    TypeError
        If an array has another dtype.
    OSError
        If the file cannot be written; what was there before is untouched.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/arrays.safetensors"
    ...     serialize.save_arrays(path, {"mean": np.array([0.5, 0.25])}, {"of": "digits"})
    ...     serialize.load_arrays(path)
    ({'mean': array([0.5 , 0.25])}, {'of': 'digits'})
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    check_dtypes(arrays)
    plain = {name: np.array(a, a.dtype.newbyteorder("<"), order="C") for name, a in arrays.items()}
    with replacing(path) as draft:
        try:
            save_file(plain, draft, dict(metadata) if metadata else None)
        except SafetensorError as error:  # so it tells of a full disk
            raise OSError(f"{path} cannot be written: {error}") from error


def check_dtypes(arrays: Mapping[str, Array]) -> None:
    """Raise TypeError if a file cannot hold one of the arrays."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"save_arrays: arrays must be a mapping of names to arrays, got {type(arrays).__name__}")
    for name, array in arrays.items():
        check_array("save_arrays", str(name), array)
        if array.dtype.newbyteorder("=") not in DTYPES.values():
            raise TypeError(f"save_arrays: {name} must be float32, float64 or int64, got {array.dtype}")


def load_arrays(path: PathLike) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays and strings of a safetensors file.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    ModelFileError
        If it is truncated, foreign or damaged, or has arrays of other types than float32, float64 and int64.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import nn, serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/model.safetensors"
    ...     serialize.save(nn.Linear(3, 2), path)
    ...     arrays, texts = serialize.load_arrays(path)  # a model's file holds its arrays under their names
    >>> {name: array.shape for name, array in arrays.items()}
    {'bias': (2,), 'weight': (2, 3)}
    """
    with opened(path) as file:
        return {name: read(path, file, name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[Any]:
    """Open a safetensors file after a look at its frame; what is wrong in it becomes a ModelFileError."""
    from safetensors import SafetensorError, safe_open

    path = expand(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would never answer
        raise ModelFileError(f"{path}: not a regular file")
    with open(path, "rb") as raw:
        header = int.from_bytes(raw.read(8), "little")
    if status.st_size < 10 or header > status.st_size - 8 or header > MAX_HEADER:
        raise ModelFileError(
            f"{path}: not a safetensors file, or cut short: the header would have {header} bytes, "
            f"the file has {status.st_size}"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: damaged, or not a safetensors file: {error}") from error


def layout(path: PathLike, file: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array in the file without reading it."""
    entry = file.get_slice(name)
    kind = entry.get_dtype()
    if kind not in DTYPES:
        raise ModelFileError(f"{path}: {name} has dtype {kind}, expected one of {', '.join(DTYPES)}")
    return tuple(entry.get_shape()), DTYPES[kind]


def read(path: PathLike, file: Any, name: str) -> Array:
    """Return an array of the file, in memory of its own."""
    _, dtype = layout(path, file, name)
    return np.array(file.get_tensor(name), dtype, order="C")
