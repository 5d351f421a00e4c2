"""Normalisation of each sample by its own statistics: group, instance, layer and local response normalisation."""

from typing import Any, ClassVar

from fastconv import functional as F
from fastconv.functional._check import flag, number
from fastconv.functional._ops.groupnorm import shape_of
from fastconv.nn._parameter import check_channels
from fastconv.nn.base import Module, Parameter, initial, size


class _Affine(Module):
    """What normalisations with parameters by channel share: a scale and a shift of each, or none."""

    def _set(self, channels: int, eps: float, affine: bool) -> None:
        self.eps, self.affine = _eps(self, eps), flag(f"{type(self).__name__}: affine", affine)
        self.weight = Parameter(initial((channels,), 1.0)) if self.affine else None
        self.bias = Parameter(initial((channels,), 0.0)) if self.affine else None


class GroupNorm(_Affine):
    """Normalise groups of channels of each sample: see :func:`fastconv.functional.group_norm`.

    Inputs are (N, C), (N, C, L) or (N, C, H, W).

    Parameters
    ----------
    num_groups : int
    num_channels : int
        A multiple of `num_groups`.
    eps : float
        Added to the variance.
    affine : bool
        Learn a scale and a shift of each channel.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_channels,), or None
        Ones and zeros at first.

    Raises
    ------
    ValueError
        If the groups do not divide the channels; in forward, if shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.GroupNorm(2, 4)
    >>> layer(np.array([[1.0, 3.0, 50.0, 90.0]], np.float32)).round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    >>> nn.GroupNorm(3, 4)
    Traceback (most recent call last):
        ...
    ValueError: GroupNorm: num_groups must divide num_channels, got 3 and 4
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        self.num_groups = size("GroupNorm", "num_groups", num_groups)
        self.num_channels = size("GroupNorm", "num_channels", num_channels)
        if self.num_channels % self.num_groups:
            raise ValueError(f"GroupNorm: num_groups must divide num_channels, got {num_groups} and {num_channels}")
        self._set(self.num_channels, eps, affine)

    def forward(self, input: Any) -> Any:
        check_channels(self, input, self.num_channels)
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class _InstanceNorm(_Affine):
    rank: ClassVar[int]

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = False) -> None:
        self.num_features = size(type(self).__name__, "num_features", num_features)
        self._set(self.num_features, eps, affine)

    def forward(self, input: Any) -> Any:
        if input.ndim != self.rank:
            raise ValueError(f"{type(self).__name__}: input needs {self.rank} dimensions, got {input.shape}")
        check_channels(self, input, self.num_features)
        return F.instance_norm(input, self.weight, self.bias, self.eps)


class InstanceNorm1d(_InstanceNorm):
    """Normalise each channel of each sample of (N, C, L): see :func:`fastconv.functional.instance_norm`.

    There are no running statistics (PyTorch's ``track_running_stats``): evaluation does the same as training.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    affine : bool
        Learn a scale and a shift of each channel.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,), or None
        Ones and zeros at first.

    Raises
    ------
    ValueError
        If `num_features` is below 1; in forward, if ranks or channels do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.InstanceNorm1d(2)
    >>> layer(np.array([[[1.0, 3.0], [50.0, 90.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """

    rank = 3


class InstanceNorm2d(_InstanceNorm):
    """Normalise each channel of each sample of (N, C, H, W); all else as of `InstanceNorm1d`.

    Parameters
    ----------
    num_features, eps, affine
        As of `InstanceNorm1d`.

    Raises
    ------
    ValueError
        As `InstanceNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.InstanceNorm2d(1)
    >>> layer(np.array([[[[1.0, 1.0], [3.0, 3.0]]], [[[50.0, 50.0], [90.0, 90.0]]]])).round(3)[1, 0]
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    rank = 4


class LayerNorm(Module):
    """Normalise over the last axes: see :func:`fastconv.functional.layer_norm`.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The sizes of the last axes.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Learn a scale, and a shift, of each element of a row.
    bias : bool
        False leaves out the shift.

    Attributes
    ----------
    weight, bias : Parameter, shape normalized_shape, or None
        Ones and zeros at first.

    Raises
    ------
    ValueError
        If a size is below 1; in forward, if shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.LayerNorm(2)
    >>> layer(np.array([[1.0, 3.0], [50.0, 90.0]], np.float32)).round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        self.normalized_shape = tuple(
            size("LayerNorm", "normalized_shape", n) for n in shape_of(normalized_shape)
        )  # fmt: skip
        self.eps = _eps(self, eps)
        self.elementwise_affine = flag("LayerNorm: elementwise_affine", elementwise_affine)
        bias = flag("LayerNorm: bias", bias) and self.elementwise_affine
        self.weight = Parameter(initial(self.normalized_shape, 1.0)) if self.elementwise_affine else None
        self.bias = Parameter(initial(self.normalized_shape, 0.0)) if bias else None

    def config(self) -> dict[str, Any]:
        shown = ("normalized_shape", "eps", "elementwise_affine")
        return {**{name: getattr(self, name) for name in shown}, "bias": self.bias is not None}

    def forward(self, input: Any) -> Any:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class LayerNorm2d(_Affine):
    """Normalise each pixel over its channels: see :func:`fastconv.functional.layer_norm2d`.

    Parameters
    ----------
    num_channels : int
    eps : float
        Added to the variance.
    affine : bool
        Learn a scale, and a shift, of each channel.
    bias : bool
        False leaves out the shift.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_channels,), or None
        Ones and zeros at first.

    Raises
    ------
    ValueError
        If `num_channels` is below 1; in forward, if shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.LayerNorm2d(2)
    >>> layer(np.array([[[1.0, 50.0], [3.0, 90.0]]], np.float32)).round(3)
    array([[[-1., -1.],
            [ 1.,  1.]]], dtype=float32)
    """

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, bias: bool = True) -> None:
        self.num_channels = size("LayerNorm2d", "num_channels", num_channels)
        self._set(self.num_channels, eps, affine)
        self.bias = self.bias if flag("LayerNorm2d: bias", bias) else None

    def config(self) -> dict[str, Any]:
        shown = ("num_channels", "eps", "affine")
        return {**{name: getattr(self, name) for name in shown}, "bias": self.bias is not None}

    def forward(self, input: Any) -> Any:
        check_channels(self, input, self.num_channels)
        return F.layer_norm2d(input, self.weight, self.bias, self.eps)


class LocalResponseNorm(Module):
    """Divide by a power of neighbouring channels' mean square: see :func:`fastconv.functional.local_response_norm`.

    Inputs are (N, C, L) or (N, C, H, W).

    Parameters
    ----------
    size : int
        Channels of a window.
    alpha, beta, k : float

    Raises
    ------
    ValueError
        If `size` is below 1; in forward, if the input has another rank.
    TypeError
        If an argument is no number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.LocalResponseNorm(3, alpha=3.0, beta=1.0)
    >>> layer(np.array([[[1.0], [2.0], [0.0]]])).round(4).ravel()
    array([0.1667, 0.3333, 0.    ])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = _size(type(self).__name__, "size", size)
        self.alpha, self.beta, self.k = (
            number("LocalResponseNorm", name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k))
        )

    def forward(self, input: Any) -> Any:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


_size = size


def _eps(layer: Module, eps: Any) -> float:
    value = number(type(layer).__name__, "eps", eps)
    if not value >= 0:
        raise ValueError(f"{type(layer).__name__}: eps must be >= 0, got {value}")
    return value
