"""The fully connected layer, and the bias as a layer of its own."""

import math
from typing import Any

from fastconv import functional as F
from fastconv.functional._check import flag
from fastconv.nn._parameter import check_channels
from fastconv.nn.base import Module, Parameter, initial, next_generator, size


class Linear(Module):
    """``input @ weight.T + bias`` on (N, in_features): see :func:`fastconv.functional.linear`.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
        Drawn from U(-b, b), b = 1 / sqrt(in_features), as PyTorch's; so is the bias.
    bias : Parameter, shape (out_features,), or None

    Raises
    ------
    ValueError
        If a size is below 1.
    TypeError
        If it is no whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Linear(2, 1)
    >>> layer.weight.data[:], layer.bias.data[:] = [[3.0, 4.0]], 0.5
    >>> layer(np.array([[1.0, 2.0]], np.float32))
    array([[11.5]], dtype=float32)
    >>> layer.backward(np.array([[10.0]], np.float32)), layer.weight.grad
    (array([[30., 40.]], dtype=float32), array([[10., 20.]], dtype=float32))
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features = size("Linear", "in_features", in_features)
        self.out_features = size("Linear", "out_features", out_features)
        bias = flag("Linear: bias", bias)
        bound, generator = 1 / math.sqrt(self.in_features), next_generator()
        self.weight = Parameter(initial((self.out_features, self.in_features), -bound, bound, generator))
        self.bias = Parameter(initial((self.out_features,), -bound, bound, generator)) if bias else None

    def forward(self, input: Any) -> Any:
        return F.linear(input, self.weight, self.bias)


class Bias(Module):
    """Add one number per channel, along axis 1: see :func:`fastconv.functional.bias_add`.

    Behind a convolution or linear layer without bias, Sequential runs it in the same pass.

    Parameters
    ----------
    num_features : int
        Channels of the input (N, C), (N, C, L) or (N, C, H, W).

    Attributes
    ----------
    bias : Parameter, shape (num_features,)
        Zeros at first.

    Raises
    ------
    ValueError
        If `num_features` is below 1; in forward, if the input has other channels.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Bias(2)
    >>> layer.bias.data[:] = [10.0, -10.0]
    >>> layer(np.array([[1.0, 2.0]], np.float32))
    array([[11., -8.]], dtype=float32)
    """

    bias: Parameter

    def __init__(self, num_features: int) -> None:
        self.num_features = size("Bias", "num_features", num_features)
        self.bias = Parameter(initial((num_features,), 0.0))

    def forward(self, input: Any) -> Any:
        check_channels(self, input, self.num_features)
        return F.bias_add(input, self.bias)
