"""U-Net (Ronneberger et al., MICCAI 2015) with batch normalisation: a score for each class at each pixel."""

from typing import Any

from fastconv import functional as F
from fastconv import nn
from fastconv.functional._check import whole


class Double(nn.Module):
    """Two 3×3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Any) -> Any:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class UNet(nn.Module):
    """Each level down halves height and width and doubles the channels; each level up sees what went down there."""

    def __init__(self, num_classes: int, channels: int, width: int, depth: int) -> None:
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(Double(a, b) for a, b in zip([channels, *widths], widths[:-1], strict=False))
        self.bottom = Double(widths[-2] if depth else channels, widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * a, a, 2, stride=2) for a in widths[:-1])
        self.merge = nn.ModuleList(Double(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Any) -> Any:
        skips = []
        for down in self.down:
            skips.append(down(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for skip, up, merge in reversed(list(zip(skips, self.up, self.merge, strict=True))):
            x = up(x)
            height, width = (a - b for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            x = F.pad(x, (0, width, 0, height)) if height or width else x  # the last row or column of an odd size
            x = merge(F.cat([x, skip], 1))
        return self.head(x)


def unet(num_classes: int = 2, channels: int = 3, width: int = 32, depth: int = 4) -> UNet:
    """Return a U-Net for images of at least 2**depth pixels a side.

    Parameters
    ----------
    num_classes : int
        Channels of the output, which has the height and width of the images.
    channels : int
        Of the images.
    width : int
        Channels of the first level.
    depth : int
        How often height and width are halved; 0 for not at all.

    Returns
    -------
    Module
        From images (N, channels, H, W) to scores (N, num_classes, H, W).

    Raises
    ------
    ValueError
        If a number is no integer or below 1 (``depth`` below 0).

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> model = models.unet(num_classes=4, channels=1, width=8, depth=2)
    >>> model.predict(np.zeros((2, 1, 20, 30), np.float32)).shape  # four scores for each pixel
    (2, 4, 20, 30)
    """
    least = {"num_classes": 1, "channels": 1, "width": 1, "depth": 0}
    sizes = {"num_classes": num_classes, "channels": channels, "width": width, "depth": depth}
    return UNet(*(whole(f"unet: {name}", value, least[name]) for name, value in sizes.items()))
