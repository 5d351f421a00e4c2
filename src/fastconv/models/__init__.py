"""The model zoo: convnets of the literature, built by name for an input shape and a number of classes.

``build("lenet5", (1, 28, 28), 10)`` gives a fresh model that takes (N, C, H, W) and returns scores (N, classes); of
`unet` they are (N, classes, H, W). Initial weights are the layers' own (``fastconv.manual_seed`` sets them) until
`fastconv.init` is applied.

`resnet18`, `resnet50`, `densenet121`, `mobilenet_v2`, `squeezenet1_1` and `vgg16_bn` are the nets of those names with
torchvision's names of parameters, so that its weights fit: ``resnet18().load_state_dict(weights)``;
`efficientnet_lite0` has timm's.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastconv import nn
from fastconv.functional._check import flag, nearest, short
from fastconv.models import efficientnet
from fastconv.models.densenet import densenet121
from fastconv.models.efficientnet import efficientnet_lite0
from fastconv.models.mobilenet import mobilenet_v2
from fastconv.models.resnet import resnet18, resnet50
from fastconv.models.squeezenet import squeezenet1_1
from fastconv.models.unet import unet
from fastconv.models.vgg import vgg16_bn

__all__ = [
    "ZOO", "Recipe", "build", "densenet121", "efficientnet_lite0", "mobilenet_v2", "resnet18", "resnet50",
    "squeezenet1_1", "unet", "vgg16_bn",
]  # fmt: skip

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Recipe:
    """One entry of the zoo.

    Attributes
    ----------
    name, description : str
        As ``fastconv models`` lists them.
    builder : callable
        From (channels, height, width) and the number of classes to a model.
    smallest : int
        Least height and width the model can take.
    init : str
        The rule of `fastconv.init` that it is best started from; "default" is that of the layers.
    channels : int or None
        How many channels images must have; None for any.
    pixels : bool
        Whether each pixel has scores of its own.
    expects : tuple of float, or None
        Of a net that others have trained: mean and deviation of the red, green and blue of the images that published
        weights expect, with values 0..255.
    rows : bool
        Whether it is for the rows of a table, too, which are images of one pixel.
    renamed : callable
        From a name that files have for an array to the one that it has in the model.

    Examples
    --------
    >>> from fastconv import models
    >>> recipe = models.ZOO["lenet5"]
    >>> recipe.smallest, recipe.init
    (28, 'default')
    >>> sum(p.numel() for p in recipe.builder((1, 28, 28), 10).parameters())
    61706
    """

    name: str
    description: str
    builder: Callable[[Shape, int], nn.Module]
    smallest: int
    init: str
    channels: int | None = None
    pixels: bool = False
    expects: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    renamed: Callable[[str], str] = str
    rows: bool = False

    def __post_init__(self) -> None:
        for name in ("pixels", "rows"):
            object.__setattr__(self, name, flag(f"Recipe: {name}", getattr(self, name)))


ZOO: dict[str, Recipe] = {}


def build(name: str, input_shape: Shape, classes: int) -> nn.Module:
    """Build a model of the zoo.

    Parameters
    ----------
    name : str
        A key of ``ZOO``.
    input_shape : tuple of int
        (channels, height, width) of one image.
    classes : int
        Length of the output; a regression may have 1.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        If there is no such model, or images of this shape are too small for it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import models
    >>> models.build("mlp", (1, 8, 8), 10).predict(np.zeros((3, 1, 8, 8), np.float32)).shape
    (3, 10)
    """
    if not isinstance(name, str) or name not in ZOO:
        raise ValueError(f"models.build: no model {short(name)}; there are {', '.join(ZOO)}{nearest(name, ZOO)}")
    recipe = ZOO[name]
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"models.build: input_shape must be (channels, height, width), got {input_shape}")
    if classes < 1:
        raise ValueError(f"models.build: classes must be at least 1, got {classes}")
    if recipe.channels not in (None, input_shape[0]):
        raise ValueError(f"models.build: {name} takes images of {recipe.channels} channels, got {input_shape[0]}")
    if min(input_shape[1:]) < recipe.smallest:
        raise ValueError(
            f"models.build: {name} needs images of at least {recipe.smallest}×{recipe.smallest} pixels, "
            f"got {input_shape[1]}×{input_shape[2]}"
        )
    return recipe.builder(input_shape, classes)


Builder = Callable[[Shape, int], nn.Module]


def _recipe(
    name: str, description: str, smallest: int = 1, init: str = "default", rows: bool = False
) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        ZOO[name] = Recipe(name, description, builder, smallest, init, rows=rows)
        return builder

    return register


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.Bias(outputs)]


def _conv(inputs: int, outputs: int, size: int, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, padding=padding, bias=False), nn.Bias(outputs)]


@_recipe("linear", "one linear layer: softmax regression, the least of all classifiers", rows=True)
def _linear(shape: Shape, classes: int) -> nn.Sequential:
    channels, height, width = shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes), input_grad=False)


@_recipe("mlp", "two hidden layers of 256 and 128 units, ReLU: the baseline without convolution", rows=True)
def _mlp(shape: Shape, classes: int) -> nn.Sequential:
    channels, height, width = shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 256), nn.ReLU(),
        nn.Linear(256, 128), nn.ReLU(),
        nn.Linear(128, classes),
        input_grad=False,
    )  # fmt: skip


@_recipe("lenet5", "LeNet-5 (LeCun et al. 1998) with ReLU and max pooling; 28×28 is padded to 32×32", 28)
def _lenet5(shape: Shape, classes: int) -> nn.Sequential:
    """Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998."""
    channels, height, width = shape
    padding = 2 if min(height, width) < 32 else 0
    rows, columns = ((side + 2 * padding - 4) // 2 - 4 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (rows // 2) * (columns // 2), 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, classes),
        input_grad=False,
    )  # fmt: skip


def _two_stage(shape: Shape, classes: int, first: int, second: int, hidden: int) -> nn.Sequential:
    """Twice 5×5 convolution and 2×2 mean pooling, then two dense layers; bias and ReLU as layers."""
    channels, height, width = shape
    # Images under 16 pixels a side would shrink to nothing: there the convolutions keep the size.
    padding = 2 if min(height, width) < 16 else 0
    for _ in range(2):
        height, width = ((side + 2 * padding - 4) // 2 for side in (height, width))
    return nn.Sequential(
        *_conv(channels, first, 5, padding), nn.ReLU(), nn.AvgPool2d(2),
        *_conv(first, second, 5, padding), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(),
        *_dense(second * height * width, hidden), nn.ReLU(),
        *_dense(hidden, classes),
        input_grad=False,
    )  # fmt: skip


@_recipe("mnist-small", "conv 8@5×5, mean pool, conv 16@5×5, mean pool, dense 128; small layers", 4, "he")
def _mnist_small(shape: Shape, classes: int) -> nn.Sequential:
    return _two_stage(shape, classes, 8, 16, 128)


@_recipe("cifar-small", "conv 32@5×5, mean pool, conv 32@5×5, mean pool, dense 64; small layers", 4, "he")
def _cifar_small(shape: Shape, classes: int) -> nn.Sequential:
    return _two_stage(shape, classes, 32, 32, 64)


@_recipe("all-conv", "All-CNN-C (Springenberg et al. 2015): strides instead of pooling, dropout", 4, "he")
def _all_conv(shape: Shape, classes: int) -> nn.Sequential:
    """J. Springenberg et al., "Striving for simplicity: the all convolutional net", ICLR 2015 workshop."""
    layers: list[nn.Module] = [nn.Dropout(0.2)]
    inputs = shape[0]
    for width in (96, 192):
        for stride in (1, 1, 2):
            layers += [nn.Conv2d(inputs, width, 3, stride=stride, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.Dropout(0.5))
    # The paper rectifies the scores too; not here: a class whose scores start below zero would never learn.
    layers += [
        nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(),
        nn.Conv2d(192, 192, 1), nn.ReLU(),
        nn.Conv2d(192, classes, 1),
        nn.GlobalAvgPool2d(), nn.Flatten(),
    ]  # fmt: skip
    return nn.Sequential(*layers, input_grad=False)


def _residual_block(inputs: int, outputs: int, stride: int) -> nn.Residual:
    """conv-BN-ReLU-conv-BN plus a shortcut, then ReLU; a 1×1 convolution where the shape changes."""
    body = nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
    )  # fmt: skip
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )  # fmt: skip
    return nn.Residual(body, shortcut, nn.ReLU())


@_recipe("resnet20", "residual net of 20 layers (He et al. 2016), 16-32-64 channels, batch normalisation")
def _resnet20(shape: Shape, classes: int) -> nn.Sequential:
    """K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2."""
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    ]  # fmt: skip
    inputs = 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            layers.append(_residual_block(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    layers += [nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(*layers, input_grad=False)


@_recipe("vgg-small", "pairs of 3×3 convolutions, 64-128-256 channels, batch normalisation, dropout", 8)
def _vgg_small(shape: Shape, classes: int) -> nn.Sequential:
    """After K. Simonyan and A. Zisserman, "Very deep convolutional networks", ICLR 2015."""
    layers: list[nn.Module] = []
    inputs = shape[0]
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            ]  # fmt: skip
            inputs = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.GlobalAvgPool2d(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, classes)]
    return nn.Sequential(*layers, input_grad=False)


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Mean and deviation of ImageNet's colours, as torchvision has them: (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)."""

_LARGE: tuple[tuple[Callable[[int], nn.Module], str], ...] = (
    (resnet18, "18 layers with shortcuts (He et al. 2016)"),
    (resnet50, "50 layers with shortcuts, 1×1 convolutions around each 3×3 (He et al. 2016)"),
    (densenet121, "121 layers, each sees all before it in its block (Huang et al. 2017)"),
    (mobilenet_v2, "depthwise convolutions between narrow layers (Sandler et al. 2018)"),
    (squeezenet1_1, "few parameters: 1×1 convolutions before 3×3 (Iandola et al. 2016)"),
    (vgg16_bn, "16 plain layers, batch normalisation (Simonyan and Zisserman 2015)"),
)
for _net, _description in _LARGE:
    ZOO[_net.__name__] = Recipe(
        _net.__name__, f"{_description}; torchvision's names",
        lambda _, classes, net=_net: net(classes),  # type: ignore[misc]
        32, "default", channels=3, expects=IMAGENET,
    )  # fmt: skip
ZOO["efficientnet_lite0"] = Recipe(
    "efficientnet_lite0", "mobile net with widths and depths found by search (Tan and Le 2019); timm's names",
    lambda _, classes: efficientnet_lite0(classes), 32, "default",
    channels=3, expects=((127.0,) * 3, (128.0,) * 3), renamed=efficientnet.renamed,
)  # fmt: skip
ZOO["unet"] = Recipe(
    "unet", "scores for each pixel: four levels down and up again (Ronneberger et al. 2015)",
    lambda shape, classes: unet(classes, shape[0]), 16, "default", pixels=True,
)  # fmt: skip
