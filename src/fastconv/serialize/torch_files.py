"""Weights that PyTorch wrote: safetensors, and its own files through torch itself, which runs no code of theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.graph.operation import Array
from fastconv.paths import PathLike, expand
from fastconv.serialize.arrays import DTYPES, ModelFileError, opened

_HALVES = ("F16", "BF16")
_NESTED = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the state of their model."""


def load_torch(path: PathLike) -> dict[str, Array]:
    """Return the weights of a file that PyTorch wrote, by their names.

    ``model.load_state_dict(serialize.load_torch(path))`` fills a model with layers of the same names.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file, read here; anything else is read by ``torch.load(..., weights_only=True)`` where
        torch is installed, and may be a state dict or a checkpoint that holds one as "state_dict",
        "model_state_dict" or "model". Names that all begin with "module." (DataParallel) lose that.

    Returns
    -------
    dict of str to ndarray
        float32, float64 or int64; half precision becomes float32 (bfloat16 through torch alone), other integers int64.

    Raises
    ------
    ModelFileError
        If the file is damaged, no such file, or holds no state dict.
    ImportError
        If the file needs torch and that is not installed.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, serialize
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/weights.safetensors"  # as safetensors.torch.save_file(net.state_dict(), path) writes it
    ...     serialize.save_arrays(path, {"module.weight": np.full((1, 2), 5.0), "module.bias": np.zeros(1)})
    ...     weights = serialize.load_torch(path)
    >>> weights
    {'bias': array([0.]), 'weight': array([[5., 5.]])}
    >>> model = nn.Linear(2, 1)
    >>> model.load_state_dict(weights)
    ([], [])
    """
    path = expand(path)
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): array for name, array in found.items()}
    return found


def _safetensors(path: Path) -> dict[str, Array]:
    with opened(path) as file:
        return {name: _read(path, file, name) for name in file.keys()}  # noqa: SIM118


def _read(path: Path, file: Any, name: str) -> Array:
    kind = file.get_slice(name).get_dtype()
    if kind == "BF16":  # which NumPy does not have
        raise ModelFileError(f"{path}: {name} is of bfloat16; write the file in float32 or float16")
    if kind not in DTYPES and kind not in _HALVES and not kind.startswith(("I", "U")):
        raise ModelFileError(f"{path}: {name} has dtype {kind}, which no layer has")
    return _plain(np.asarray(file.get_tensor(name)))


def _plain(array: Array) -> Array:
    """Return an array as layers have it, in memory of its own."""
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 4
    dtype = array.dtype if wide else np.float32 if array.dtype.kind == "f" else np.int64
    return np.array(array, dtype, order="C")


_MARKS = (b"PK", b"\x80")  # a zip archive, a pickle
"""How files that torch.save wrote begin."""


def _pickled(path: Path) -> dict[str, Array]:
    with path.open("rb") as file:  # what cannot be read is an OSError, whatever torch makes of it
        if not file.read(4).startswith(_MARKS):
            raise ModelFileError(f"{path}: it is no file of weights: no .safetensors, and not from torch.save")
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path}: files that torch.save wrote need torch to be read (weights only); a .safetensors file does not"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own and pickle's, which share no base
        raise ModelFileError(f"{path}: torch does not read it as weights: {str(error).strip()[:300]}") from error
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        held = type(found).__name__
        raise ModelFileError(f"{path}: it holds a {held} that is no state dict; save model.state_dict()")
    return {
        str(name): _plain((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy())
        for name, tensor in found.items()
    }
