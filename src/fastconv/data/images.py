"""An image file as an array that a trained model takes.

Models see what their training images looked like. MNIST, Fashion-MNIST and digits are *light strokes on a
dark ground*: a photo or scan of ink on paper is the other way round and must be inverted. The digits set
counts grey levels 0..16, the others 0..255: ``levels`` says which. Standardisation is the caller's, with
the statistics of the training set.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from fastconv.choices import RESIZES, Resize
from fastconv.data.decode import border, decode, pillow
from fastconv.functional._check import one_of
from fastconv.paths import expand


def load_image(
    path: str | Path,
    shape: tuple[int, int, int],
    *,
    invert: bool | Literal["auto"] = False,
    levels: float = 255,
    resize: Resize = "pad",
) -> np.ndarray:
    """Read a picture (PNG, JPEG, BMP, GIF, WebP, TIFF, PPM) or a .npy file as an image of one shape.

    A picture is turned upright (EXIF), put on white where it is transparent, made grey or RGB, and brought to (H, W) as
    ``resize`` says. An array from a .npy file is taken as it is: it must have the shape, and values 0..levels.

    Parameters
    ----------
    path : str or Path
    shape : tuple of int
        (C, H, W) of the model's input; C is 1 (grey) or 3 (RGB), for .npy any number.
    invert : bool or "auto"
        Replace x by levels - x, as for ink on paper when the model learned light strokes on a dark ground
        (`Dataset.light_on_dark`). "auto" does so when the border of the image is lighter than half scale.
    levels : float
        Value of white: 255, or 16 for a model trained on ``digits`` (`Dataset.levels`).
    resize : "pad", "crop" or "stretch"
        Scale to fit in, proportions kept, centred on the median colour of the border; scale to cover, and cut what
        sticks out; or scale each axis by itself.

    Returns
    -------
    ndarray
        float32 (C, H, W), values 0..levels.

    Raises
    ------
    ValueError
        If the file is damaged or no such image, or a .npy has another shape or dtype or values out of range.
    ImportError
        If Pillow is missing and the file is not .npy.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "ink.pgm")
    ...     _ = path.write_bytes(b"P5 2 2 255 " + bytes([255, 255, 0, 255]))  # a dark point on paper
    ...     data.load_image(path, (1, 2, 2), invert=True, levels=16)  # for a net that has seen digits
    array([[[ 0.,  0.],
            [16.,  0.]]], dtype=float32)
    """
    path = expand(path)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"load_image: shape must be (C, H, W), got {shape}")
    one_of("load_image: invert", bool(invert) if isinstance(invert, np.bool_) else invert, (True, False, "auto"))
    one_of("load_image: resize", resize, RESIZES)
    if not levels > 0:
        raise ValueError(f"load_image: levels must be positive, got {levels}")
    if path.suffix.lower() == ".npy":
        image = _read_array(path, shape, levels)
    else:
        image = _read_picture(path, shape, resize) * np.float32(levels / 255)
    if invert == "auto":
        invert = bool(np.median(border(image.transpose(1, 2, 0))) > levels / 2)
    return np.float32(levels) - image if invert else image


def _read_array(path: Path, shape: tuple[int, int, int], levels: float) -> np.ndarray:
    try:
        # Mapped: a header that promises more than the file holds allocates nothing, and pickles are refused.
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # whatever NumPy's header parser makes of damaged bytes
        raise ValueError(f"{path}: not a readable .npy file: {error}") from error
    if array.dtype.kind not in "buif":
        raise ValueError(f"{path}: must hold real numbers, has {array.dtype}")
    if array.shape != shape and not (shape[0] == 1 and array.shape == shape[1:]):
        raise ValueError(f"{path}: holds an array of shape {array.shape}, the model takes {shape}")
    image = array.reshape(shape).astype(np.float32)
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= levels):  # so written, NaN is refused too
        raise ValueError(f"{path}: values must be 0..{levels:g}, found {low:g}..{high:g}")
    return image


def _read_picture(path: Path, shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    """Return a picture as float32 (C, H, W), 0..255."""
    pillow()
    if shape[0] not in (1, 3):
        raise ValueError(
            f"{path}: a picture has 1 or 3 channels, the model takes {shape[0]}; give a .npy file"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return decode(path, shape, resize).transpose(2, 0, 1).astype(np.float32)
