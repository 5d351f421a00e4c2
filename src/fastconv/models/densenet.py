"""DenseNet (Huang et al., "Densely connected convolutional networks", CVPR 2017), with torchvision's names."""

from typing import Any

from fastconv import functional as F
from fastconv import nn


class DenseLayer(nn.Module):
    """Few new channels out of all that there are."""

    def __init__(self, inputs: int, growth: int) -> None:
        wide = 4 * growth
        self.norm1, self.relu1, self.conv1 = nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, wide, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(wide), nn.ReLU()
        self.conv2 = nn.Conv2d(wide, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        return self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))


class DenseBlock(nn.Module):
    """Layers that each see the block's input and the channels of all layers before."""

    def __init__(self, inputs: int, depth: int, growth: int) -> None:
        self.depth = depth
        for i in range(depth):
            setattr(self, f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth))

    def forward(self, x: Any) -> Any:
        for i in range(self.depth):
            x = F.cat([x, getattr(self, f"denselayer{i + 1}")(x)], 1)
        return x


class Transition(nn.Module):
    """Half the channels, half the height and width."""

    def __init__(self, inputs: int) -> None:
        self.norm, self.relu = nn.BatchNorm2d(inputs), nn.ReLU()
        self.conv, self.pool = nn.Conv2d(inputs, inputs // 2, 1, bias=False), nn.AvgPool2d(2, 2)

    def forward(self, x: Any) -> Any:
        return self.pool(self.conv(self.relu(self.norm(x))))


class Features(nn.Module):
    """A stem, and four dense blocks with transitions between them."""

    def __init__(self, depths: tuple[int, ...], growth: int, channels: int) -> None:
        self.conv0, self.norm0 = nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels)
        self.relu0, self.pool0 = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.blocks = len(depths)
        for i, depth in enumerate(depths, 1):
            setattr(self, f"denseblock{i}", DenseBlock(channels, depth, growth))
            channels += depth * growth
            if i < self.blocks:
                setattr(self, f"transition{i}", Transition(channels))
                channels //= 2
        self.norm5, self.channels = nn.BatchNorm2d(channels), channels

    def forward(self, x: Any) -> Any:
        x = self.pool0(self.relu0(self.norm0(self.conv0(x))))
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"denseblock{i}")(x)
            x = getattr(self, f"transition{i}")(x) if i < self.blocks else x
        return self.norm5(x)


class DenseNet(nn.Module):
    """Features and a linear classifier on the means of their channels."""

    def __init__(self, depths: tuple[int, ...], growth: int, channels: int, num_classes: int) -> None:
        self.features = Features(depths, growth, channels)
        self.avgpool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(self.features.channels, num_classes)

    def forward(self, x: Any) -> Any:
        return self.classifier(self.avgpool(F.relu(self.features(x))).flatten(1))


def densenet121(num_classes: int = 1000) -> DenseNet:
    """Return a DenseNet of 121 layers for images of 3 channels.

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
    >>> model = models.densenet121(num_classes=5)
    >>> model.predict(np.zeros((2, 3, 64, 64), np.float32)).shape
    (2, 5)
    >>> f"{sum(p.numel() for p in model.parameters()):,} parameters"
    '6,958,981 parameters'
    """
    return DenseNet((6, 12, 24, 16), 32, 64, num_classes)
