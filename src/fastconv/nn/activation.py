"""Nonlinearities without parameters, element by element or along an axis."""

from collections.abc import Callable
from typing import ClassVar

from fastconv import functional as F
from fastconv.functional._check import check_array
from fastconv.nn.base import Array, Module, Plain, as_image, integer, real


class Identity(Module):
    """The input itself, whatever arguments it is built with: a place that holds no layer."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def forward(self, input: Array) -> Array:
        check_array("Identity", "input", input)
        return self._save(input)

    def backward(self, grad_output: Array) -> Array:
        grad: Array = self._recall(grad_output)[0]
        return grad


class _Activation(Plain):
    """One functional call each way; `keeps` says whether backward needs the input or the output."""

    operation: ClassVar[Callable[..., Array]]
    gradient: ClassVar[Callable[..., Array]]
    keeps: ClassVar[str] = "output"

    def _forward(self, input: Array) -> Array:
        x = self._view(self._accept(input))
        output = self._buffer("output", x.shape, x.dtype.newbyteorder("="))
        self.operation(x, *self._settings(), out=output)
        kept = x if self.keeps == "input" else output
        return self._save(output if x.ndim == input.ndim else output[:, :, 0], kept)

    def _backward(self, grad_output: Array) -> Array:
        grad_output, kept = self._recall(grad_output)
        grad_input = self._buffer("grad_input", kept.shape, kept.dtype.newbyteorder("="))
        self.gradient(self._view(grad_output), kept, *self._settings(), grad_input=grad_input)
        return grad_input if kept.ndim == grad_output.ndim else grad_input[:, :, 0]

    def _view(self, a: Array) -> Array:
        return as_image(a)


class ReLU(_Activation):
    """max(x, 0); NaN stays NaN. Behind Conv, Linear or Bias, Sequential runs it in the same pass."""

    fuses_as = "relu"
    operation = staticmethod(F.relu)
    gradient = staticmethod(F.relu_backward)


class LeakyReLU(_Activation):
    """x where x > 0, else `negative_slope` · x (Maas et al., "Rectifier nonlinearities...", ICML 2013)."""

    operation = staticmethod(F.leaky_relu)
    gradient = staticmethod(F.leaky_relu_backward)
    keeps = "input"

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    operation = staticmethod(F.tanh)
    gradient = staticmethod(F.tanh_backward)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    operation = staticmethod(F.sigmoid)
    gradient = staticmethod(F.sigmoid_backward)


class Softsign(_Activation):
    """x / (1 + |x|)."""

    operation = staticmethod(F.softsign)
    gradient = staticmethod(F.softsign_backward)
    keeps = "input"


class _AlongAxis(_Activation):
    """An activation whose rows lie along one axis, so that the axes must stay as they are."""

    def __init__(self, axis: int = 1) -> None:
        self.axis = integer(type(self).__name__, "axis", axis)

    def _view(self, a: Array) -> Array:
        return a


class Softmax(_AlongAxis):
    """exp(x) / sum of exp(x) along `axis`, computed without overflow."""

    operation = staticmethod(F.softmax)
    gradient = staticmethod(F.softmax_backward)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `axis`, computed in one stable step."""

    operation = staticmethod(F.log_softmax)
    gradient = staticmethod(F.log_softmax_backward)
