"""EfficientNet-Lite0 (Tan and Le, "EfficientNet", ICML 2019, without squeeze-and-excite and with ReLU6), timm's names.

The names are those of timm's ``tf_efficientnet_lite0``. `renamed` gives them for the names of the first PyTorch
exports, which most ONNX files have: "_conv_stem", "_blocks.7._depthwise_conv", "_fc".
"""

import re
from typing import Any

from fastconv import functional as F
from fastconv import nn

# Of each stage: expansion, channels, blocks, kernel, stride of the first.
STAGES = (
    (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1), (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)  # fmt: skip


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels: of odd padding the larger part is below and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Any) -> Any:
        [kernel, _], [stride, _] = self.kernel_size, self.stride
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in input.shape[2:]]
        padding = tuple((n // 2, n - n // 2) for n in missing)
        return F.conv2d(input, self.weight, None, stride, padding, 1, self.groups, algorithm=self.algorithm)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class DepthwiseSeparable(nn.Module):
    """Each channel is convolved by itself, then they are projected."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        self.conv_dw, self.bn1 = SameConv2d(inputs, inputs, kernel, stride, inputs), _norm(inputs)
        self.conv_pw, self.bn2 = SameConv2d(inputs, outputs, 1), _norm(outputs)

    def forward(self, x: Any) -> Any:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nn.Module):
    """Channels are expanded, each is convolved by itself, and they are projected; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        wide = inputs * expansion
        self.conv_pw, self.bn1 = SameConv2d(inputs, wide, 1), _norm(wide)
        self.conv_dw, self.bn2 = SameConv2d(wide, wide, kernel, stride, wide), _norm(wide)
        self.conv_pwl, self.bn3 = SameConv2d(wide, outputs, 1), _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        y = F.relu6(self.bn2(self.conv_dw(F.relu6(self.bn1(self.conv_pw(x))))))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.residual else y


class EfficientNetLite(nn.Module):
    """A stem, seven stages of blocks, a last 1×1 convolution and a linear classifier."""

    def __init__(self, num_classes: int) -> None:
        self.conv_stem, self.bn1 = SameConv2d(3, 32, 3, 2), _norm(32)
        stages, inputs = [], 32
        for expansion, outputs, depth, kernel, stride in STAGES:
            blocks: list[nn.Module] = []
            for step in (stride, *[1] * (depth - 1)):
                if expansion == 1:
                    blocks.append(DepthwiseSeparable(inputs, outputs, kernel, step))
                else:
                    blocks.append(InvertedResidual(inputs, outputs, kernel, step, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = SameConv2d(inputs, 1280, 1), _norm(1280)
        self.global_pool, self.drop = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Any) -> Any:
        x = self.blocks(F.relu6(self.bn1(self.conv_stem(x))))
        x = F.relu6(self.bn2(self.conv_head(x)))
        return self.classifier(self.drop(self.global_pool(x).flatten(1)))


def efficientnet_lite0(num_classes: int = 1000) -> EfficientNetLite:
    """Return EfficientNet-Lite0 for images of 3 channels; pretrained weights expect (x - 127) / 128.

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
    >>> model = models.efficientnet_lite0(num_classes=5)
    >>> model.predict(np.zeros((2, 3, 64, 64), np.float32)).shape
    (2, 5)
    >>> f"{sum(p.numel() for p in model.parameters()):,} parameters"
    '3,377,413 parameters'
    """
    return EfficientNetLite(num_classes)


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_INSIDE = {
    True: {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    False: {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
            "_project_conv": "conv_pwl", "_bn2": "bn3"},
}  # fmt: skip
_PLACES = [f"{stage}.{block}" for stage, (_, _, depth, _, _) in enumerate(STAGES) for block in range(depth)]


def renamed(name: str) -> str:
    """Return timm's name of an array, given the one of the first PyTorch exports; any other as it is.

    Examples
    --------
    >>> renamed("_blocks.1._expand_conv.weight"), renamed("_fc.bias"), renamed("conv_stem.weight")
    ('blocks.1.0.conv_pw.weight', 'classifier.bias', 'conv_stem.weight')
    """
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        number, layer, array = int(found[1]), found[2], found[3]
        names = _INSIDE[number == 0]
        if number < len(_PLACES) and layer in names:
            return f"blocks.{_PLACES[number]}.{names[layer]}.{array}"
    layer, _, array = name.partition(".")
    return f"{_OUTSIDE[layer]}.{array}" if layer in _OUTSIDE else name
