"""Convolution in one and two dimensions."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

from fastconv import config
from fastconv import functional as F
from fastconv.functional._algorithm import NAMES as ALGORITHMS
from fastconv.functional._check import flag, pair, short
from fastconv.nn.base import Module, Parameter, initial, next_generator, size


class _Filters(Module):
    """What convolutions and transposed ones share: channels, groups, sizes of each dimension, weight and bias."""

    dimensions: ClassVar[int]
    operation: ClassVar[Callable[..., Any]]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    weight: Parameter
    bias: Parameter | None

    def _set_channels(self, in_channels: int, out_channels: int, groups: int) -> None:
        where = type(self).__name__
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            size(where, name, value)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{where}: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups

    def _draw(self, outer: int, inner: int, bias: bool) -> None:
        """Draw weight (outer, inner / groups, ...) and bias as PyTorch does, by the size of one outer filter."""
        inner //= self.groups
        fan_in = size(type(self).__name__, "the fan-in", inner * math.prod(self.kernel_size))
        bias = flag(f"{type(self).__name__}: bias", bias)
        bound, generator = 1 / math.sqrt(fan_in), next_generator()
        self.weight = Parameter(initial((outer, inner, *self.kernel_size), -bound, bound, generator))
        self.bias = Parameter(initial((self.out_channels,), -bound, bound, generator)) if bias else None

    def _sizes(self, name: str, value: Any, least: int = 1) -> tuple[int, ...]:
        if self.dimensions == 1:
            value = value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
            return pair(type(self).__name__, name, (value, value), least)[:1]
        return pair(type(self).__name__, name, value, least)

    def _paddings(self) -> list[str]:
        """Return what the repr says of padding."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        parts += self._paddings()
        if set(self.dilation) != {1}:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class _Conv(_Filters):
    """What both convolutions share."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self._set_channels(in_channels, out_channels, groups)
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.stride = self._sizes("stride", stride)
        self.dilation = self._sizes("dilation", dilation)
        self.padding = self._borders(padding)
        if self.padding == "same" and set(self.stride) != {1}:
            raise ValueError(f"{type(self).__name__}: padding='same' needs stride 1, got {stride}")
        self._draw(out_channels, in_channels, bias)

    def _borders(self, padding: Any) -> Any:
        where = type(self).__name__
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{where}: padding must be numbers, 'same' or 'valid', got {short(padding)}")
            return padding
        nested = isinstance(padding, tuple | list) and any(isinstance(side, tuple | list) for side in padding)
        if self.dimensions == 2 and nested and len(padding) == 2:
            return tuple(pair(where, "padding", side, 0) for side in padding)
        return pair(where, "padding", padding, 0)

    def forward(self, input: Any) -> Any:
        stride, dilation = (sizes if self.dimensions == 2 else sizes[0] for sizes in (self.stride, self.dilation))
        return self.operation(input, self.weight, self.bias, stride, self.padding, dilation, self.groups)

    def _paddings(self) -> list[str]:
        return [] if self.padding in ((0, 0), "valid") else [f"padding={self.padding}"]


class Conv1d(_Conv):
    """Correlate signals (N, C, L) with filters: see :func:`fastconv.functional.conv1d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int
    stride, dilation : int
    padding : int, (left, right), "same" or "valid"
    groups : int
        Divides both channel counts.
    bias : bool

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, kernel_size)
        Drawn from U(-b, b), b = 1 / sqrt(fan_in), as PyTorch's; so is the bias.
    bias : Parameter, shape (out_channels,), or None

    Raises
    ------
    ValueError
        If a number is out of range, or groups does not divide the channels.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Conv1d(2, 8, 3, stride=2)
    >>> layer(np.ones((1, 2, 9), np.float32)).shape
    (1, 8, 4)
    >>> layer.weight
    Parameter(shape=(8, 2, 3), dtype=float32)
    """

    dimensions = 1
    operation = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Correlate images (N, C, H, W) with filters: see :func:`fastconv.functional.conv2d`.

    Y. LeCun et al., "Backpropagation applied to handwritten zip code recognition", Neural Computation 1, 1989.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or pair of int
        Vertical, horizontal.
    padding : int, pair of int, ((top, bottom), (left, right)), "same" or "valid"
    groups : int
        Divides both channel counts.
    bias : bool
    algorithm : {"auto", "winograd", "direct"}, optional
        As :func:`fastconv.functional.conv2d` takes it; None is what ``fastconv.config.algorithm`` says when it runs,
        and a file holds what that says when it is saved.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, kh, kw)
        Drawn from U(-b, b), b = 1 / sqrt(fan_in), as PyTorch's; so is the bias.
    bias : Parameter, shape (out_channels,), or None

    Raises
    ------
    ValueError
        If a number is out of range, groups does not divide the channels, or there is no such algorithm.

    Examples
    --------
    >>> from fastconv import nn
    >>> nn.Conv2d(1, 6, 5, padding=2)
    Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
    """

    dimensions = 2
    operation = staticmethod(F.conv2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        algorithm: str | None = None,
    ) -> None:
        if algorithm is not None and not (isinstance(algorithm, str) and algorithm in ALGORITHMS):
            known, got = ", ".join(ALGORITHMS), short(algorithm)
            raise ValueError(f"Conv2d: algorithm must be None or one of {known}, got {got}")
        self.algorithm = algorithm
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, input: Any) -> Any:
        sizes = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(input, self.weight, self.bias, *sizes, algorithm=self.algorithm)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments; one that follows the setting has what that is now."""
        return {**super().config(), "algorithm": self.algorithm or config.algorithm()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build a layer from what `config` returned; what tells no algorithm is older than the choice: "direct".

        Parameters
        ----------
        config : dict

        Returns
        -------
        Module
        """
        return super().from_config({"algorithm": "direct", **config})

    def extra_repr(self) -> str:
        usual = self.algorithm in (None, "auto")
        return super().extra_repr() + ("" if usual else f", algorithm={self.algorithm!r}")


class _ConvTranspose(_Filters):
    """What both transposed convolutions share."""

    padding: tuple[int, ...]
    output_padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        self._set_channels(in_channels, out_channels, groups)
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.stride = self._sizes("stride", stride)
        self.padding = self._sizes("padding", padding, 0)
        self.output_padding = self._sizes("output_padding", output_padding, 0)
        self.dilation = self._sizes("dilation", dilation)
        self._draw(in_channels, out_channels, bias)

    def forward(self, input: Any) -> Any:
        sizes = (self.stride, self.padding, self.output_padding, self.dilation)
        stride, padding, more, dilation = sizes if self.dimensions == 2 else [values[0] for values in sizes]
        return self.operation(input, self.weight, self.bias, stride, padding, more, self.groups, dilation)

    def _paddings(self) -> list[str]:
        names = ("padding", "output_padding")
        return [f"{name}={getattr(self, name)}" for name in names if set(getattr(self, name)) != {0}]


class ConvTranspose1d(_ConvTranspose):
    """The transposed convolution of signals (N, C, L): see :func:`fastconv.functional.conv_transpose1d`.

    Parameters, attributes and errors are those of `ConvTranspose2d`, in one dimension.

    Parameters
    ----------
    in_channels, out_channels, groups : int
    kernel_size, stride, padding, output_padding, dilation : int
    bias : bool

    Raises
    ------
    ValueError
        As `ConvTranspose2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.ConvTranspose1d(8, 2, 2, stride=2)
    >>> layer(np.ones((1, 8, 5), np.float32)).shape
    (1, 2, 10)
    """

    dimensions = 1
    operation = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The transposed convolution of images (N, C, H, W): see :func:`fastconv.functional.conv_transpose2d`.

    M. Zeiler et al., "Deconvolutional networks", CVPR 2010.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or pair of int
        Vertical, horizontal.
    padding, output_padding : int or pair of int
    groups : int
        Divides both channel counts.
    bias : bool

    Attributes
    ----------
    weight : Parameter, shape (in_channels, out_channels / groups, kh, kw)
        Drawn from U(-b, b), b = 1 / sqrt(out_channels / groups * kh * kw), as PyTorch's; so is the bias.
    bias : Parameter, shape (out_channels,), or None

    Raises
    ------
    ValueError
        If a number is out of range, or groups does not divide the channels.

    Examples
    --------
    >>> from fastconv import nn
    >>> nn.ConvTranspose2d(16, 8, 2, stride=2)
    ConvTranspose2d(16, 8, kernel_size=(2, 2), stride=(2, 2))
    """

    dimensions = 2
    operation = staticmethod(F.conv_transpose2d)
