"""VGG-16 with batch normalisation (Simonyan and Zisserman, ICLR 2015), with torchvision's names."""

from typing import Any

from fastconv import nn

# Channels of the convolutions of each stage, behind which a pooling halves height and width.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """3×3 convolutions in five stages, and a classifier of three linear layers on 7×7 means."""

    def __init__(self, stages: tuple[tuple[int, ...], ...], num_classes: int) -> None:
        layers: list[nn.Module] = []
        inputs = 3
        for stage in stages:
            for outputs in stage:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, 2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(49 * inputs, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg16_bn(num_classes: int = 1000) -> VGG:
    """Return VGG-16 with batch normalisation for images of 3 channels: 138 million parameters, most in one layer.

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
    >>> from fastconv import models
    >>> recipe = models.ZOO["vgg16_bn"]  # what the zoo knows of it; the net itself takes half a gigabyte
    >>> recipe.smallest, recipe.channels
    (32, 3)
    >>> recipe.expects  # mean and deviation of images of which published weights give the right scores
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    """
    return VGG(STAGES, num_classes)
