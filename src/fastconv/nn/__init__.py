"""Layers, containers and losses.

Each layer has ``forward`` and ``backward`` and keeps its buffers; shapes are NCHW, names and shapes of
parameters PyTorch's. All arithmetic happens in `fastconv.functional`.
"""

from fastconv.nn.activation import Identity, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Softsign, Tanh
from fastconv.nn.base import Module, Parameter, blank
from fastconv.nn.collections import ModuleDict, ModuleList
from fastconv.nn.containers import Sequential
from fastconv.nn.conv import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from fastconv.nn.deep import DeepResidual
from fastconv.nn.dropout import Dropout
from fastconv.nn.graph import GraphModule
from fastconv.nn.linear import Bias, Linear
from fastconv.nn.losses import CrossEntropyLoss, Loss, MSELoss, MultiMarginLoss
from fastconv.nn.norm import BatchNorm1d, BatchNorm2d
from fastconv.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, Flatten, GlobalAvgPool2d, MaxPool2d
from fastconv.nn.resampling import Upsample
from fastconv.nn.residual import Residual

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Bias",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "DeepResidual",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GraphModule",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiMarginLoss",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softsign",
    "Tanh",
    "Upsample",
    "blank",
]
