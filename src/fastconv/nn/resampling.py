"""Images in another size."""

from typing import Any

from fastconv import functional as F
from fastconv.functional._ops.resampling import resampling
from fastconv.nn.base import Module


class Upsample(Module):
    """Images in another size: see :func:`fastconv.functional.interpolate`.

    Parameters
    ----------
    size : int or pair of int, optional
    scale_factor : float or pair of float, optional
        One of the two must be given.
    mode : {"nearest"}

    Raises
    ------
    ValueError
        If neither or both sizes are given, or there is no such mode.
    """

    def __init__(self, size: Any = None, scale_factor: Any = None, mode: str = "nearest") -> None:
        resampling(size, scale_factor, mode)
        self.size, self.scale_factor, self.mode = (
            tuple(value) if isinstance(value, list) else value for value in (size, scale_factor, mode)
        )

    def forward(self, input: Any) -> Any:
        return F.interpolate(input, self.size, self.scale_factor, self.mode)
