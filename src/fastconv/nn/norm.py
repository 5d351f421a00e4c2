"""Batch normalisation (Ioffe and Szegedy, "Batch normalization", ICML 2015)."""

from typing import Any, ClassVar

import numpy as np

from fastconv import functional as F
from fastconv.nn.base import Array, Fusing, Parameter, as_image, initial, real, size


class _BatchNorm(Fusing):
    """Normalise every channel by the batch's statistics in training, by the running ones in evaluation."""

    ranks: ClassVar[tuple[int, ...]]
    takes = ("relu",)
    buffer_names = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True) -> None:
        num_features = size(type(self).__name__, "num_features", num_features)
        eps = real(type(self).__name__, "eps", eps)
        momentum = None if momentum is None else real(type(self).__name__, "momentum", momentum)
        if not eps >= 0 or not (momentum is None or 0 <= momentum <= 1):
            raise ValueError(f"{type(self).__name__}: eps must be >= 0 and momentum in [0, 1] or None, "
                             f"got {eps} and {momentum}")  # fmt: skip
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.weight = Parameter(initial((num_features,), 1.0)) if affine else None
        self.bias = Parameter(initial((num_features,), 0.0)) if affine else None
        self.running_mean = initial((num_features,), 0.0)
        self.running_var = initial((num_features,), 1.0)
        self.num_batches_tracked = np.array(0, np.int64)

    def forward(self, input: Array) -> Array:
        return self.fused(input, None, None)

    def fused(
        self, input: Array, bias: Parameter | None, activation: str | None, masked: bool = False
    ) -> Array:  # fmt: skip
        momentum = 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum
        key = (input, *self.statistics(), self.training, momentum, activation, masked)
        output: Array = self._repeat("forward", key, self._forward, input, momentum, activation, masked)
        if self.training:
            self.num_batches_tracked += 1
        return output

    def statistics(self) -> tuple[Any, ...]:
        """Return what evaluation depends on beside the input."""
        arrays = (None if p is None else p.data for p in (self.weight, self.bias))
        return (*arrays, self.running_mean, self.running_var, self.eps)

    def coefficients(self) -> Array:
        """Return the (2, C) scale and shift of evaluation, for the layer before to apply."""
        size, dtype = (2, self.num_features), self.running_mean.dtype
        weight, bias = (None if p is None else p.data for p in (self.weight, self.bias))
        return F.batch_norm_coefficients(
            self.running_mean, self.running_var, weight, bias, self.eps,
            out=self._buffer("coefficients", size, dtype), saved=self._buffer("saved", size, dtype),
        )  # fmt: skip

    def _forward(self, input: Array, momentum: float, activation: str | None, masked: bool) -> Array:
        input = self._accept(input)
        if input.ndim not in self.ranks:
            raise ValueError(f"{type(self).__name__}: input needs {self.ranks} dimensions, got {input.shape}")
        x = as_image(input)
        dtype = x.dtype.newbyteorder("=")
        output = self._buffer("output", x.shape, dtype)
        saved = self._buffer("saved", (2, x.shape[1]), dtype)
        weight, bias = (None if p is None else p.data for p in (self.weight, self.bias))
        F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, momentum, self.eps,
            activation=activation, out=output, saved=saved,
        )  # fmt: skip
        left = None if masked else activation
        return self._save(output[:, :, 0] if input.ndim == 3 else output, x, output, left, saved, self.training)

    def backward(self, grad_output: Array) -> Array | None:
        weight = None if self.weight is None else self.weight.data
        sinks = (None if p is None else p.sink for p in (self.weight, self.bias))
        key = (grad_output, self._saved, weight, *sinks, self.need_input_grad)
        grad_input: Array | None = self._repeat("backward", key, self._backward, grad_output)
        return grad_input

    def _backward(self, grad_output: Array) -> Array | None:
        grad_output, x, output, activation, saved, training = self._recall(grad_output)
        grad_input = self._buffer("grad_input", x.shape, saved.dtype) if self.need_input_grad else None
        weight, bias = self.weight, self.bias
        F.batch_norm_backward(
            as_image(grad_output), x, weight.data if weight else None, saved, training,
            bias=bias is not None and bias.requires_grad, output=output, activation=activation,
            need_input_grad=self.need_input_grad,
            grad_input=grad_input, grad_weight=weight.sink if weight else None,
            grad_bias=bias.sink if bias else None,
        )  # fmt: skip
        return grad_input if grad_input is None or x.ndim == grad_output.ndim else grad_input[:, :, 0]

    def extra_repr(self) -> str:
        values = (f"{name}={value}" for name, value in list(self.config().items())[1:])
        return ", ".join((str(self.num_features), *values))


class BatchNorm1d(_BatchNorm):
    """Normalise every channel of (N, C) or (N, C, L).

    By the batch's statistics in training, by the running ones in evaluation.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        How far the running statistics move to the batch's; None averages over all batches seen.
    affine : bool
        Learn a scale and a shift of each channel.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,), or None
        Ones and zeros at first.
    running_mean, running_var : ndarray, shape (num_features,)
    num_batches_tracked : ndarray of int64, shape ()

    Raises
    ------
    ValueError
        If `num_features` is below 1; in forward, if ranks or channels do not fit.
    """

    fuses_as = "norm"
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalise every channel of (N, C, H, W); parameters, attributes and errors as of `BatchNorm1d`."""

    fuses_as = "norm"
    ranks = (4,)
