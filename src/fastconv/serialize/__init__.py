"""Models in files: arrays as safetensors, the architecture as JSON in their header. Never a pickle.

One file holds both, so that it is replaced as a whole; arrays have the names of `state_dict`, for all that
reads safetensors. A file is untrusted until checked: see `fastconv.serialize.model`.
"""

from fastconv.serialize.arrays import ModelFileError, load_arrays, save_arrays
from fastconv.serialize.model import LAYERS, check, holds_model, load, made_of, register, save
from fastconv.serialize.torch_files import load_torch

__all__ = [
    "LAYERS", "ModelFileError", "check", "holds_model", "load", "load_arrays", "load_torch", "made_of", "register",
    "save", "save_arrays",
]  # fmt: skip
