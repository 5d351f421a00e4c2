"""Nonlinearities without parameters, element by element or along an axis."""

from typing import Any

from fastconv import functional as F
from fastconv.nn.base import Module, integer, real


class Identity(Module):
    """The input itself, whatever arguments it is built with: a place that holds no layer."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def forward(self, input: Any) -> Any:
        return input


class ReLU(Module):
    """max(x, 0); NaN stays NaN. It runs in the pass of the Conv, Linear, Bias or BatchNorm before it."""

    def forward(self, input: Any) -> Any:
        return F.relu(input)


class LeakyReLU(Module):
    """x where x > 0, else `negative_slope` · x (Maas et al., "Rectifier nonlinearities...", ICML 2013)."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, input: Any) -> Any:
        return F.leaky_relu(input, self.negative_slope)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Any) -> Any:
        return F.tanh(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Any) -> Any:
        return F.sigmoid(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Any) -> Any:
        return F.softsign(input)


class _AlongAxis(Module):
    def __init__(self, axis: int = 1) -> None:
        self.axis = integer(type(self).__name__, "axis", axis)


class Softmax(_AlongAxis):
    """exp(x) / sum of exp(x) along `axis`, computed without overflow."""

    def forward(self, input: Any) -> Any:
        return F.softmax(input, self.axis)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `axis`, computed in one stable step."""

    def forward(self, input: Any) -> Any:
        return F.log_softmax(input, self.axis)
