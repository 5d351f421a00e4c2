"""Named shapes, shared by tests and benchmarks.

Each class of difficulty has its row: plain, channel tail (17, 29), strided, dilated, grouped, depthwise,
asymmetric padding, one-pixel output. ``BENCH`` holds the layers of real nets that the speed table names.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One convolution: N C H W input, K filters, R S kernel."""

    name: str
    N: int
    C: int
    K: int
    H: int
    W: int
    R: int
    S: int
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def options(self) -> tuple[Any, Any, Any, int]:
        """Stride, padding, dilation and groups, as the functions take them."""
        return self.stride, self.padding, self.dilation, self.groups

    def __str__(self) -> str:
        return self.name


def _square(name, N, C, K, H, kernel, stride=1, padding=0, dilation=1, groups=1):
    return Problem(name, N, C, K, H, H, kernel, kernel, stride, padding, dilation, groups)


# Small enough for the scalar table, which fuses through libm.
TEST = [
    Problem("plain 3x3", 2, 8, 16, 7, 9, 3, 3, 1, 1),
    Problem("channel tail", 2, 17, 29, 6, 5, 3, 3, 1, 1),
    Problem("strided tail", 2, 17, 5, 15, 9, 3, 3, 2, 1),
    Problem("stride 3 over kernel 2: untouched pixels", 2, 3, 4, 11, 10, 2, 2, 3, 0),
    Problem("mixed strides", 2, 4, 6, 12, 13, 3, 5, (2, 3), (1, 2)),
    Problem("dilated", 2, 5, 7, 11, 12, 3, 3, 1, 2, 2),
    Problem("dilated and strided", 2, 3, 8, 13, 14, 3, 2, (2, 3), (2, 1), (2, 3)),
    Problem("grouped", 2, 12, 18, 7, 6, 3, 3, 1, 1, 1, 3),
    Problem("one channel per group, two filters", 2, 6, 12, 7, 7, 3, 3, 1, 1, 1, 6),
    Problem("depthwise", 2, 19, 19, 8, 7, 3, 3, 1, 1, 1, 19),
    Problem("depthwise strided", 3, 8, 8, 9, 11, 5, 3, 2, (2, 1), 1, 8),
    Problem("depthwise dilated", 2, 33, 33, 9, 9, 3, 3, 1, 2, 2, 33),
    Problem("depthwise wide", 2, 5, 5, 7, 27, 3, 3, 1, 1, 1, 5),
    Problem("depthwise wide strided", 1, 18, 18, 9, 53, 5, 5, 2, 2, 1, 18),
    Problem("depthwise wide dilated", 2, 16, 16, 6, 31, 3, 3, 1, 3, 3, 16),
    Problem("depthwise 5x5", 2, 34, 34, 7, 7, 5, 5, 1, 2, 1, 34),
    Problem("depthwise 5x5, one side padded", 1, 16, 16, 9, 23, 5, 5, 1, ((0, 3), (4, 0)), 1, 16),
    Problem("depthwise larger than its image", 1, 17, 17, 2, 3, 5, 5, 1, 3, 1, 17),
    Problem("depthwise one row", 2, 20, 20, 1, 30, 1, 3, 1, (0, 1), 1, 20),
    Problem("asymmetric padding", 2, 3, 5, 6, 7, 3, 4, 1, ((0, 2), (3, 1))),
    Problem("padding beyond the kernel", 1, 2, 3, 4, 4, 2, 2, 1, 3),
    Problem("same", 2, 4, 6, 7, 8, 4, 3, 1, "same"),
    Problem("valid", 2, 4, 6, 7, 8, 4, 3, 1, "valid"),
    Problem("first layer, one channel", 3, 1, 6, 12, 12, 5, 5, 1, 2),
    Problem("images abreast", 19, 3, 5, 8, 9, 3, 3, 1, 1),
    Problem("images abreast, all sizes", 17, 2, 3, 13, 14, 3, 3, (2, 1), 2, (1, 2)),
    Problem("images abreast, grouped", 20, 4, 6, 7, 9, 3, 2, 1, 1, 1, 2),
    Problem("a shard a lane", 32, 2, 7, 13, 12, 3, 3, 1, (1, 2)),
    Problem("a shard a lane, all sizes", 16, 3, 2, 39, 20, 3, 2, (2, 1), (2, 1), (1, 3)),
    Problem("1x1", 2, 16, 24, 5, 7, 1, 1),
    Problem("1x1 strided", 2, 16, 24, 7, 7, 1, 1, 2),
    Problem("1x1 padded", 1, 3, 4, 3, 3, 1, 1, 1, 1),
    Problem("1x1 grouped", 2, 16, 24, 5, 7, 1, 1, 1, 0, 1, 4),
    Problem("one pixel", 4, 3, 17, 3, 3, 3, 3),
    Problem("one column", 2, 3, 5, 9, 1, 3, 1, 1, (1, 0)),
    Problem("long chain, cut twice", 1, 130, 20, 4, 4, 3, 3, 1, 1),
    Problem("wide row", 1, 2, 3, 3, 70, 3, 3, 1, 1),
]

BENCH = [
    _square("lenet conv1", 64, 1, 6, 28, 5, 1, 2),
    _square("lenet conv2", 64, 6, 16, 14, 5),
    _square("mnist-small conv1", 64, 1, 8, 28, 5),
    _square("mnist-small conv2", 64, 8, 16, 12, 5),
    _square("cifar conv1", 128, 3, 32, 32, 5, 1, 2),
    _square("cifar conv2", 128, 32, 32, 16, 5, 1, 2),
    _square("cifar conv3", 128, 32, 64, 8, 5, 1, 2),
    _square("cifar 8 channels", 32, 8, 32, 32, 5, 1, 2),
    _square("resnet20 16", 128, 16, 16, 32, 3, 1, 1),
    _square("resnet20 32", 128, 32, 32, 16, 3, 1, 1),
    _square("resnet20 64", 128, 64, 64, 8, 3, 1, 1),
    _square("resnet20 stride 2", 128, 16, 32, 32, 3, 2, 1),
    _square("resnet18 stem", 4, 3, 64, 224, 7, 2, 3),
    _square("resnet18 64", 8, 64, 64, 56, 3, 1, 1),
    _square("resnet18 128", 8, 128, 128, 28, 3, 1, 1),
    _square("resnet18 256", 8, 256, 256, 14, 3, 1, 1),
    _square("resnet18 512", 8, 512, 512, 7, 3, 1, 1),
    _square("resnet18 stride 2", 8, 64, 128, 56, 3, 2, 1),
    _square("resnet50 1x1 up", 8, 64, 256, 56, 1),
    _square("resnet50 1x1 down", 8, 256, 64, 56, 1),
    _square("dilated", 8, 64, 64, 56, 3, 1, 2, 2),
    _square("depthwise", 8, 64, 64, 56, 3, 1, 1, 1, 64),
    _square("odd channels", 16, 17, 29, 31, 3, 1, 1),
    _square("batch 1", 1, 64, 64, 56, 3, 1, 1),
]
