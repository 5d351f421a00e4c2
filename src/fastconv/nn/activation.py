"""Nonlinearities, element by element or along an axis."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import check_array
from fastconv.nn.base import Array, Module, Parameter, Plain, as_image, initial, integer, real


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


class PReLU(Module):
    """x where x > 0, else `weight` · x, the weight learned (He et al., "Delving deep into rectifiers", ICCV 2015).

    Parameters
    ----------
    num_parameters : int
        1, or the channels of the input, axis 1.
    init : float
        The weight's first value.

    Attributes
    ----------
    weight : Parameter, shape (num_parameters,)

    Raises
    ------
    ValueError
        If `num_parameters` is below 1; in forward, if the channels do not fit.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.num_parameters, self.init = integer("PReLU", "num_parameters", num_parameters), real("PReLU", "init", init)
        if self.num_parameters < 1:
            raise ValueError(f"PReLU: num_parameters must be at least 1, got {num_parameters}")
        self.weight = Parameter(initial((self.num_parameters,), self.init))

    def forward(self, input: Array) -> Array:
        output: Array = self._repeat("forward", (input, self.weight.data), self._forward, input)
        return output

    def _forward(self, input: Array) -> Array:
        x = as_image(self._accept(input))
        output = self._buffer("output", x.shape, x.dtype.newbyteorder("="))
        F.prelu(x, self.weight.data, out=output)
        return self._save(output if x.ndim == input.ndim else output[:, :, 0], x)

    def backward(self, grad_output: Array) -> Array:
        key = (grad_output, self._saved, self.weight.data, self.weight.sink)
        grad_input: Array = self._repeat("backward", key, self._backward, grad_output)
        return grad_input

    def _backward(self, grad_output: Array) -> Array:
        grad_output, x = self._recall(grad_output)
        grad_input = self._buffer("grad_input", x.shape, x.dtype.newbyteorder("="))
        sink = self.weight.sink
        unused = np.zeros_like(self.weight.data) if sink is None else sink
        F.prelu_backward(as_image(grad_output), x, self.weight.data, grad_input=grad_input, grad_weight=unused)
        return grad_input if x.ndim == grad_output.ndim else grad_input[:, :, 0]


class ReLU6(_Activation):
    """min(max(x, 0), 6); NaN stays NaN."""

    operation = staticmethod(F.relu6)
    gradient = staticmethod(F.relu6_backward)


class Hardtanh(_Activation):
    """min(max(x, `min_val`), `max_val`); NaN stays NaN."""

    operation = staticmethod(F.hardtanh)
    gradient = staticmethod(F.hardtanh_backward)

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val, self.max_val = real("Hardtanh", "min_val", min_val), real("Hardtanh", "max_val", max_val)
        if not self.min_val < self.max_val:
            raise ValueError(f"Hardtanh: min_val must be less than max_val, got {min_val} and {max_val}")


class ELU(_Activation):
    """x where x > 0, else `alpha` · (exp(x) - 1), `alpha` at least 0 (Clevert et al., 2015)."""

    operation = staticmethod(F.elu)
    gradient = staticmethod(F.elu_backward)

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("ELU", "alpha", alpha)
        if not self.alpha >= 0:
            raise ValueError(f"ELU: alpha must be at least 0, got {alpha}")


class GELU(_Activation):
    """x · Φ(x), Φ the normal distribution, or with `approximate`="tanh" its approximation by tanh."""

    operation = staticmethod(F.gelu)
    gradient = staticmethod(F.gelu_backward)
    keeps = "input"

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate


class SiLU(_Activation):
    """x · sigmoid(x)."""

    operation = staticmethod(F.silu)
    gradient = staticmethod(F.silu_backward)
    keeps = "input"


class Mish(_Activation):
    """x · tanh(log(1 + exp(x)))."""

    operation = staticmethod(F.mish)
    gradient = staticmethod(F.mish_backward)
    keeps = "input"


class Hardswish(_Activation):
    """x · min(max(x + 3, 0), 6) / 6."""

    operation = staticmethod(F.hardswish)
    gradient = staticmethod(F.hardswish_backward)
    keeps = "input"


class Hardsigmoid(_Activation):
    """min(max(x + 3, 0), 6) / 6."""

    operation = staticmethod(F.hardsigmoid)
    gradient = staticmethod(F.hardsigmoid_backward)
    keeps = "input"


class Softplus(_Activation):
    """log(1 + exp(`beta` · x)) / `beta`, and x itself where `beta` · x > `threshold`."""

    operation = staticmethod(F.softplus)
    gradient = staticmethod(F.softplus_backward)
    keeps = "input"

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = real("Softplus", "beta", beta), real("Softplus", "threshold", threshold)
        if not self.beta > 0:
            raise ValueError(f"Softplus: beta must be greater than 0, got {beta}")


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
