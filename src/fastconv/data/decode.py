"""A picture in a file as 8-bit pixels of one size; Pillow does the decoding and the scaling."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fastconv.paths import printable

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 1 << 26  # 67 megapixels: more than a camera's picture, less than would hurt
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

Resize = Literal["crop", "pad", "stretch"]
RESIZES: tuple[Resize, ...] = get_args(Resize)


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
    from PIL import Image, ImageOps, UnidentifiedImageError

    channels, height, width = shape
    with open(path, "rb") as file:
        try:
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS}")
                opened.draft(None, (2 * max(height, width),) * 2)
                picture = flatten(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB")
        except UnidentifiedImageError:
            raise ValueError(f"{printable(path)}: not a readable image: none of {', '.join(FORMATS)}") from None
        except Exception as error:  # Pillow has a dozen ways to say that bytes are damaged
            raise ValueError(f"{printable(path)}: not a readable image: {error}") from error
    size, method = (width, height), Image.Resampling.BILINEAR
    if picture.size == size:
        fitted = picture
    elif resize == "crop":
        fitted = ImageOps.fit(picture, size, method)
    elif resize == "stretch":
        fitted = picture.resize(size, method)
    else:
        ground = np.median(border(np.atleast_3d(np.asarray(picture))), axis=0).astype(int).tolist()
        fitted = ImageOps.pad(picture, size, method, color=tuple(ground) if channels == 3 else ground[0])
    return np.asarray(fitted, np.uint8).reshape(height, width, channels)


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
