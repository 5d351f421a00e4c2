"""Colours of classes, for masks that people look at."""

import numpy as np

from fastconv.data.decode import IGNORED


def palette() -> np.ndarray:
    """Return a colour for each number of a mask, uint8 (256, 3): those of PASCAL VOC.

    The lowest bits of a number become the highest of red, green and blue, its next three the next ones: few classes
    have colours far apart. 0 is black; 255, of no class, a pale yellow.

    Examples
    --------
    >>> from fastconv import data
    >>> colours = data.palette()
    >>> colours.shape, colours[:4].tolist()
    ((256, 3), [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]])
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((numbers >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    colours[IGNORED] = (224, 224, 192)
    return colours


def painted(mask: np.ndarray) -> np.ndarray:
    """Return the colours of a mask (H, W): uint8 (H, W, 3).

    Parameters
    ----------
    mask : ndarray of int, shape (H, W)
        Classes from 0 to 254; 255 for none.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import data
    >>> data.painted(np.array([[0, 1, 2]])).tolist()  # black, dark red, dark green
    [[[0, 0, 0], [128, 0, 0], [0, 128, 0]]]
    """
    return palette()[mask]
