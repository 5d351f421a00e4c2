"""SqueezeNet (Iandola et al., arXiv 1602.07360), version 1.1, with torchvision's names."""

from typing import Any

from fastconv import functional as F
from fastconv import nn


class Fire(nn.Module):
    """A 1×1 convolution to few channels, and from them 1×1 and 3×3 convolutions side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        self.squeeze, self.squeeze_activation = nn.Conv2d(inputs, squeezed, 1), nn.ReLU()
        self.expand1x1, self.expand1x1_activation = nn.Conv2d(squeezed, expanded, 1), nn.ReLU()
        self.expand3x3, self.expand3x3_activation = nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU()

    def forward(self, x: Any) -> Any:
        x = self.squeeze_activation(self.squeeze(x))
        return F.cat(
            [self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1
        )


class SqueezeNet(nn.Module):
    """Convolution, fire modules between poolings, and a classifier that is a 1×1 convolution."""

    def __init__(self, num_classes: int) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(64, 16, 64), Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True), Fire(128, 32, 128), Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256),
            Fire(512, 64, 256),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(512, num_classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x)).flatten(1)


def squeezenet1_1(num_classes: int = 1000) -> SqueezeNet:
    """Return SqueezeNet 1.1 for images of 3 channels.

    Parameters
    ----------
    num_classes : int
        Scores of an image.

    Returns
    -------
    Module
        From images (N, 3, H, W) of at least 32×32 pixels to scores (N, num_classes).

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> model = models.squeezenet1_1(num_classes=5)
    >>> model.predict(np.zeros((2, 3, 64, 64), np.float32)).shape
    (2, 5)
    >>> f"{sum(p.numel() for p in model.parameters()):,} parameters"
    '725,061 parameters'
    """
    return SqueezeNet(num_classes)
