"""Layers, containers and losses.

Each layer has ``forward`` and ``backward`` and keeps its buffers; shapes are NCHW, names and shapes of
parameters PyTorch's. All arithmetic happens in `fastconv.functional`.
"""

from fastconv.graph.value import TraceError
from fastconv.nn.activation import (
    ELU,
    GELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from fastconv.nn.base import Module, Parameter, blank
from fastconv.nn.collections import ModuleDict, ModuleList
from fastconv.nn.containers import Sequential
from fastconv.nn.conv import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from fastconv.nn.deep import DeepResidual
from fastconv.nn.dropout import Dropout, Dropout2d, StochasticDepth
from fastconv.nn.element_losses import BCEWithLogitsLoss, HuberLoss, L1Loss, MSELoss, SmoothL1Loss
from fastconv.nn.graph import GraphModule
from fastconv.nn.groupnorm import GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm, LayerNorm2d, LocalResponseNorm
from fastconv.nn.linear import Bias, Linear
from fastconv.nn.losses import CrossEntropyLoss, DiceLoss, Loss, MultiMarginLoss
from fastconv.nn.norm import BatchNorm1d, BatchNorm2d
from fastconv.nn.pooling import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool1d,
    MaxPool2d,
    MaxUnpool2d,
)
from fastconv.nn.rearrange import ChannelShuffle, PixelShuffle, ReflectionPad2d, ZeroPad2d
from fastconv.nn.resampling import Upsample
from fastconv.nn.residual import Residual
from fastconv.nn.squeeze import SqueezeExcitation

__all__ = [
    "ELU",
    "GELU",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Bias",
    "ChannelShuffle",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "DeepResidual",
    "DiceLoss",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GraphModule",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HuberLoss",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "L1Loss",
    "LayerNorm",
    "LayerNorm2d",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxUnpool2d",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiMarginLoss",
    "PReLU",
    "Parameter",
    "PixelShuffle",
    "ReLU",
    "ReLU6",
    "ReflectionPad2d",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Softsign",
    "SqueezeExcitation",
    "StochasticDepth",
    "Tanh",
    "TraceError",
    "Upsample",
    "ZeroPad2d",
    "blank",
]
