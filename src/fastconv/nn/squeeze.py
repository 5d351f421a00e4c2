"""Squeeze and excitation (Hu, Shen and Sun, "Squeeze-and-excitation networks", CVPR 2018)."""

from typing import Any

from fastconv.nn.activation import ReLU, Sigmoid
from fastconv.nn.base import Module
from fastconv.nn.conv import Conv2d
from fastconv.nn.pooling import AdaptiveAvgPool2d


class SqueezeExcitation(Module):
    """Scale each channel of images (N, C, H, W) by a number that a small net makes of all channels' means.

    J. Hu, L. Shen and G. Sun, "Squeeze-and-excitation networks", CVPR 2018.

    Names of parameters and arguments are those of ``torchvision.ops.SqueezeExcitation``.

    Parameters
    ----------
    input_channels, squeeze_channels : int
        Of the image, and between the two layers of that net.
    activation, scale_activation : Module, or a class of one, optional
        After its first and its second layer; ReLU and sigmoid by default.

    Raises
    ------
    TypeError
        If an activation is no Module.
    ValueError
        If a number of channels is below 1; in forward, if the input has others.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.SqueezeExcitation(2, 1)
    >>> layer.fc2.weight.data[:], layer.fc2.bias.data[:] = 0, [0.0, 100.0]
    >>> layer(np.array([[[[8.0]], [[8.0]]]], np.float32)).ravel()
    array([4., 8.], dtype=float32)
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Module | type[Module] = ReLU,
        scale_activation: Module | type[Module] = Sigmoid,
    ) -> None:
        self.input_channels, self.squeeze_channels = input_channels, squeeze_channels
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc1 = Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = Conv2d(squeeze_channels, input_channels, 1)
        self.activation = _made("activation", activation)
        self.scale_activation = _made("scale_activation", scale_activation)

    def forward(self, input: Any) -> Any:
        scale = self.activation(self.fc1(self.avgpool(input)))
        return self.scale_activation(self.fc2(scale)) * input


def _made(name: str, activation: Any) -> Module:
    made = activation() if isinstance(activation, type) else activation
    if not isinstance(made, Module):
        raise TypeError(f"SqueezeExcitation: {name} must be a Module or a class of one, got {type(made).__name__}")
    return made
