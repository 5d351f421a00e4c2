"""MobileNetV2 (Sandler et al., CVPR 2018), with torchvision's names."""

from typing import Any

from fastconv import nn

# Of each stage: expansion, channels, blocks, stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Channels are expanded, each is convolved by itself, and they are projected; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        wide = inputs * expansion
        expand = [] if expansion == 1 else [_conv(inputs, wide, 1)]
        project = nn.Conv2d(wide, outputs, 1, bias=False)
        self.conv = nn.Sequential(*expand, _conv(wide, wide, 3, stride, wide), project, nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals, a last 1×1 convolution and a linear classifier."""

    def __init__(self, num_classes: int) -> None:
        blocks: list[nn.Module] = [_conv(3, 32, 3, 2)]
        inputs = 32
        for expansion, outputs, depth, stride in STAGES:
            for step in (stride, *[1] * (depth - 1)):
                blocks.append(InvertedResidual(inputs, outputs, step, expansion))
                inputs = outputs
        self.features = nn.Sequential(*blocks, _conv(inputs, 1280, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x: Any) -> Any:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def mobilenet_v2(num_classes: int = 1000) -> MobileNetV2:
    """Return MobileNetV2 of width 1 for images of 3 channels.

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
    >>> model = models.mobilenet_v2(num_classes=5)
    >>> model.predict(np.zeros((2, 3, 64, 64), np.float32)).shape
    (2, 5)
    >>> f"{sum(p.numel() for p in model.parameters()):,} parameters"
    '2,230,277 parameters'
    """
    return MobileNetV2(num_classes)
