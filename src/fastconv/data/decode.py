"""A picture in a file as 8-bit pixels of one size; Pillow does the decoding and the scaling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.choices import Resize
from fastconv.paths import PathLike, expand, printable

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 1 << 26  # 67 megapixels: more than a camera's picture, less than would hurt
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # of EXIF
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

IGNORED = 255
"""In a mask: of no class. Neither loss nor any figure counts such a pixel."""


def pillow() -> Any:
    """Return the package, or say what to install; its warnings are silenced, of damaged EXIF for one."""
    try:
        import PIL
        from PIL import Image, ImageOps  # noqa: F401
    except ImportError:
        raise ImportError("reading pictures needs Pillow: pip install 'fastconv[image]'") from None
    # not catch_warnings, which changes what other threads see while it lasts
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return PIL


def decode(path: Path, shape: tuple[int, int, int], resize: Resize = "pad") -> np.ndarray:
    """Read a picture as uint8 (H, W, C) of a shape (C, H, W).

    It is turned upright (EXIF), put on white where it is transparent, made grey or RGB (C 1 or 3); 16-bit grey
    is scaled to 8 bits. "crop" scales it to cover (H, W) and cuts what sticks out, "pad" scales it to fit in and
    centres it on the median colour of its border, "stretch" scales each axis by itself. Of a JPEG more than twice as
    large as needed a half, a quarter or an eighth is decoded.

    Raises
    ------
    ValueError
        If the file is damaged, no picture of ``FORMATS``, or larger than `MAX_PIXELS`.
    OSError
        If it cannot be opened.
    """
    channels, height, width = shape
    picture = _opened(path, "L" if channels == 1 else "RGB", (2 * max(height, width),) * 2)
    return _fitted(picture, shape, resize)


def decode_pair(
    image: Path, mask: Path, shape: tuple[int, int, int], resize: Resize, classes: int | None = None
) -> np.ndarray:
    """Read a picture and the mask of its pixels' classes as one array, uint8 (H, W, C + 1); the mask is the last.

    What happens to the picture happens to the mask, but that it takes the nearest pixel's class rather than a mean, and
    that borders which are added are of no class, `IGNORED`.

    Raises
    ------
    ValueError
        If either is damaged, the mask has another size than the picture, or something else than numbers of classes.
    OSError
        If one cannot be opened.
    """
    from PIL import Image

    picture = _opened(image, "L" if shape[0] == 1 else "RGB")
    labels = _numbers(mask)
    if labels.shape != picture.size[::-1]:
        sizes = f"{labels.shape[1]} x {labels.shape[0]} pixels, its image {picture.width} x {picture.height}"
        raise ValueError(f"{printable(mask)}: the mask has {sizes}")
    if classes is not None and (strange := (labels >= classes) & (labels != IGNORED)).any():
        row, column = np.argwhere(strange)[0]
        raise ValueError(
            f"{printable(mask)}: the pixel in row {row}, column {column} is {labels[row, column]}, but there are "
            f"{classes} classes (0 to {classes - 1}; {IGNORED} is none)"
        )
    both = [_fitted(picture, shape, resize), _fitted(Image.fromarray(labels), (1, *shape[1:]), resize, exact=True)]
    return np.concatenate(both, axis=2)


def _opened(path: Path, mode: str, least: tuple[int, int] | None = None) -> Picture:
    """Open a picture, upright, in a mode; of a JPEG a smaller version that is still larger than ``least``."""
    return _read(path, lambda picture: flatten(picture, mode), least)


def _numbers(path: Path) -> np.ndarray:
    """Return the mask in a file, uint8 (H, W)."""
    found = _read(path, _as_numbers)
    levels = np.asarray(found)
    if levels.dtype != np.uint8:
        if levels.dtype == bool:
            return levels.astype(np.uint8)
        if levels.min() < 0 or levels.max() > IGNORED:
            strange = levels.max() if levels.max() > IGNORED else levels.min()
            raise ValueError(f"{printable(path)}: a mask holds numbers of classes, 0 to {IGNORED}, found {strange}")
    return levels.astype(np.uint8)


def _as_numbers(picture: Picture) -> Picture:
    if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise ValueError(f"a mask has one number per pixel, grey or with a palette; this is {picture.mode}")
    return picture


def _read(path: Path, convert: Callable[[Picture], Picture], least: tuple[int, int] | None = None) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    with open(path, "rb") as file:
        try:
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS}")
                if least is not None:
                    opened.draft(None, least)
                found = convert(ImageOps.exif_transpose(opened))
                found.load()
                return found
        except UnidentifiedImageError:
            raise ValueError(f"{printable(path)}: not a readable image: none of {', '.join(FORMATS)}") from None
        except Exception as error:  # Pillow has a dozen ways to say that bytes are damaged
            raise ValueError(f"{printable(path)}: not a readable image: {error}") from error


def _fitted(picture: Picture, shape: tuple[int, int, int], resize: Resize, exact: bool = False) -> np.ndarray:
    """Bring a picture to a size, uint8 (H, W, C); ``exact``: by the nearest pixel's value, on `IGNORED`."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    size, method = (width, height), Image.Resampling.NEAREST if exact else Image.Resampling.BILINEAR
    if picture.size == size:
        fitted = picture
    elif resize == "crop":
        fitted = ImageOps.fit(picture, size, method)
    elif resize == "stretch":
        fitted = picture.resize(size, method)
    else:
        ground = [IGNORED]
        if not exact:
            ground = np.median(border(np.atleast_3d(np.asarray(picture))), axis=0).astype(int).tolist()
        fitted = ImageOps.pad(picture, size, method, color=tuple(ground) if channels == 3 else ground[0])
    return np.asarray(fitted, np.uint8).reshape(height, width, channels)


def unfitted(mask: np.ndarray, size: tuple[int, int], resize: Resize) -> np.ndarray:
    """Bring what is known of each pixel of a fitted picture, uint8 (H, W), to the picture's own size.

    Each pixel gets what its nearest one has; those that were cut off are `IGNORED`.

    Parameters
    ----------
    mask : ndarray of uint8, shape (H, W)
    size : pair of int
        Width and height of the picture.
    resize : "crop", "pad" or "stretch"
        How it was brought to the mask's size.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Those of the picture.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import data
    >>> mask = np.array([[0, 1], [2, 3]], np.uint8)  # of a picture 6 wide and 2 high, of which the middle was kept
    >>> data.unfitted(mask, (6, 2), "crop")
    array([[255, 255,   0,   1, 255, 255],
           [255, 255,   2,   3, 255, 255]], dtype=uint8)
    >>> data.unfitted(mask, (4, 2), "stretch")
    array([[0, 0, 1, 1],
           [2, 2, 3, 3]], dtype=uint8)
    """
    (height, width), (own_width, own_height) = mask.shape, size
    spans = [(0.0, height), (0.0, width)]  # in the mask: where the picture begins, and how long it is
    if resize == "crop":
        scale = max(height / own_height, width / own_width)
        spans = [((side - own * scale) / 2, own * scale) for side, own in ((height, own_height), (width, own_width))]
    elif resize == "pad":  # in whole pixels, as Pillow has it
        if own_width / own_height > width / height:
            inner = [round(own_height / own_width * width), width]
        else:
            inner = [height, round(own_width / own_height * height)]
        spans = [(round((side - n) / 2), n) for side, n in zip(mask.shape, inner, strict=True)]
    (y, down), (x, right) = (
        _places(side, own, *span) for side, own, span in zip(mask.shape, (own_height, own_width), spans, strict=True)
    )
    return np.where(down[:, np.newaxis] & right, mask[np.ix_(y, x)], np.uint8(IGNORED))


def _places(side: int, own: int, begin: float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which of ``side`` pixels each of ``own`` lies in that take ``length`` from ``begin``; and whether any."""
    at = np.floor(begin + (np.arange(own) + 0.5) * (length / own)).astype(int)
    return at.clip(0, side - 1), (at >= 0) & (at < side)


def upright_size(path: PathLike) -> tuple[int, int]:
    """Return width and height of a picture, turned as its EXIF says.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    width, height : int
        Pixels.

    Raises
    ------
    OSError
        If it cannot be opened, or is no picture.
    ImportError
        If Pillow is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "grey.pgm")
    ...     _ = path.write_bytes(b"P5 3 2 255 " + bytes([0, 50, 100, 150, 200, 250]))
    ...     data.upright_size(path)
    (3, 2)
    """
    with pillow().Image.open(expand(path), formats=FORMATS) as opened:
        width, height = opened.size
        turned = opened.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    return (height, width) if turned else (width, height)


def flatten(picture: Picture, mode: str) -> Picture:
    """Convert to 8 bits of ``mode``, transparent parts on white."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers, of which none is white")
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scaling
        levels = np.asarray(picture, np.float64).clip(0, 65535)
        picture = Image.fromarray((levels / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)


def border(image: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of (H, W, C) as (n, C)."""
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    return np.concatenate(edges)
