"""Images in another size."""

from typing import Any

from fastconv import functional as F
from fastconv.functional._ops.resampling import resampling
from fastconv.nn.base import Module


class Upsample(Module):
    """Images (N, C, H, W) in another size: see :func:`fastconv.functional.interpolate`.

    Parameters
    ----------
    size : int or pair of int, optional
    scale_factor : float or pair of float, optional
        One of the two must be given.
    mode : {"nearest", "bilinear"}
    align_corners : bool, optional
        Of "bilinear" alone.

    Raises
    ------
    ValueError
        If neither or both sizes are given, or there is no such mode, or `align_corners` is given for "nearest".

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Upsample(scale_factor=2)(np.array([[[[1.0, 2.0]]]]))[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    >>> nn.Upsample(size=(1, 3), mode="bilinear", align_corners=True)(np.array([[[[1.0, 2.0]]]]))
    array([[[[1. , 1.5, 2. ]]]])
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ) -> None:  # fmt: skip
        resampling(size, scale_factor, mode, align_corners)
        self.size, self.scale_factor = (tuple(v) if isinstance(v, list) else v for v in (size, scale_factor))
        self.mode, self.align_corners = mode, align_corners

    def forward(self, input: Any) -> Any:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)
