"""Batch normalisation (Ioffe and Szegedy, "Batch normalization", ICML 2015)."""

from typing import Any, ClassVar

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import flag, number
from fastconv.nn._parameter import check_channels
from fastconv.nn.base import Module, Parameter, initial, size


class _BatchNorm(Module):
    """Normalise every channel by the batch's statistics in training, by the running ones in evaluation."""

    ranks: ClassVar[tuple[int, ...]]
    buffer_names = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        num_features = size(type(self).__name__, "num_features", num_features)
        eps, affine = number(type(self).__name__, "eps", eps), flag(f"{type(self).__name__}: affine", affine)
        momentum = None if momentum is None else number(type(self).__name__, "momentum", momentum)
        if not eps >= 0 or not (momentum is None or 0 <= momentum <= 1):
            raise ValueError(f"{type(self).__name__}: eps must be >= 0 and momentum in [0, 1] or None, "
                             f"got {eps} and {momentum}")  # fmt: skip
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.weight = Parameter(initial((num_features,), 1.0)) if affine else None
        self.bias = Parameter(initial((num_features,), 0.0)) if affine else None
        self.running_mean = initial((num_features,), 0.0)
        self.running_var = initial((num_features,), 1.0)
        self.num_batches_tracked = np.array(0, np.int64)

    def forward(self, input: Any) -> Any:
        if input.ndim not in self.ranks:
            raise ValueError(f"{type(self).__name__}: input needs {self.ranks} dimensions, got {input.shape}")
        check_channels(self, input, self.num_features)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps,
            count=self.num_batches_tracked,
        )  # fmt: skip

    def extra_repr(self) -> str:
        values = (f"{name}={value}" for name, value in list(self.config().items())[1:])
        return ", ".join((str(self.num_features), *values))


class BatchNorm1d(_BatchNorm):
    """Normalise every channel of (N, C) or (N, C, L).

    S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015.

    By the batch's statistics in training, by the running ones in evaluation.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        How far the running statistics move to the batch's; None averages over all batches seen.
    affine : bool
        Learn a scale and a shift of each channel.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,), or None
        Ones and zeros at first.
    running_mean, running_var : ndarray, shape (num_features,)
    num_batches_tracked : ndarray of int64, shape ()

    Raises
    ------
    ValueError
        If `num_features` is below 1; in forward, if ranks or channels do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.BatchNorm1d(2)
    >>> layer(np.array([[1.0, 50.0], [3.0, 90.0]], np.float32)).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    array([0.2, 7. ], dtype=float32)
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalise every channel of (N, C, H, W); parameters, attributes and errors as of `BatchNorm1d`.

    Parameters
    ----------
    num_features, eps, momentum, affine
        As of `BatchNorm1d`.

    Raises
    ------
    ValueError
        As `BatchNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.BatchNorm2d(3).eval()
    >>> layer(np.full((1, 3, 2, 2), 5.0, np.float32))[0, 0].round(3)
    array([[5., 5.],
           [5., 5.]], dtype=float32)
    >>> layer(np.ones((1, 4, 2, 2), np.float32))
    Traceback (most recent call last):
        ...
    ValueError: BatchNorm2d: input needs 3 channels, got (1, 4, 2, 2)
    """

    ranks = (4,)
