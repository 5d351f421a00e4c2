"""The fully connected layer, and the bias as a layer of its own."""

import math
from typing import ClassVar

from fastconv import functional as F
from fastconv.nn.base import Affine, Array, Parameter, as_image, initial, next_generator, size


class Linear(Affine):
    """``input @ weight.T + bias`` on (N, in_features): see :func:`fastconv.functional.linear`.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
        Drawn from U(-b, b), b = 1 / sqrt(in_features), as PyTorch's; so is the bias.
    bias : Parameter, shape (out_features,), or None

    Raises
    ------
    ValueError
        If a size is below 1.
    """

    takes: ClassVar[tuple[str, ...]] = ("bias", "norm", "relu")
    weight: Parameter

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        if min(in_features, out_features) < 1:
            raise ValueError(f"Linear: sizes must be at least 1, got {in_features} and {out_features}")
        self.in_features = size("Linear", "in_features", in_features)
        self.out_features = size("Linear", "out_features", out_features)
        bound, generator = 1 / math.sqrt(in_features), next_generator()
        self.weight = Parameter(initial((out_features, in_features), -bound, bound, generator))
        self.bias = Parameter(initial((out_features,), -bound, bound, generator)) if bias else None

    def _apply(
        self, input: Array, bias: Parameter | None, activation: str | None, out: Array | None,
        coefficients: Array | None = None,
    ) -> Array:  # fmt: skip
        values = None if bias is None else bias.data
        return F.linear(input, self.weight.data, values, coefficients=coefficients, activation=activation, out=out)

    def _apply_backward(
        self, grad_output: Array, input: Array, output: Array, bias: Parameter | None, activation: str | None,
        grad_input: Array | None,
    ) -> Array | None:  # fmt: skip
        return F.linear_backward(
            grad_output, input, self.weight.data, bias=bias is not None and bias.requires_grad, output=output,
            activation=activation, need_input_grad=self.need_input_grad, grad_input=grad_input,
            grad_weight=self.weight.sink, grad_bias=bias.sink if bias else None,
        )[0]  # fmt: skip


class Bias(Affine):
    """Add one number a channel, along axis 1: see :func:`fastconv.functional.bias_add`.

    Behind a convolution or linear layer without bias, Sequential runs it in the same pass.

    Parameters
    ----------
    num_features : int
        Channels of the input (N, C), (N, C, L) or (N, C, H, W).

    Attributes
    ----------
    bias : Parameter, shape (num_features,)
        Zeros at first.

    Raises
    ------
    ValueError
        If `num_features` is below 1.
    """

    fuses_as = "bias"
    bias: Parameter

    def __init__(self, num_features: int) -> None:
        self.num_features = size("Bias", "num_features", num_features)
        self.bias = Parameter(initial((num_features,), 0.0))

    def _apply(
        self, input: Array, bias: Parameter | None, activation: str | None, out: Array | None,
        coefficients: Array | None = None,
    ) -> Array:  # fmt: skip
        out = None if out is None else as_image(out)
        output = F.bias_add(as_image(input), self.bias.data, activation=activation, out=out)
        return output[:, :, 0] if input.ndim == 3 else output

    def _apply_backward(
        self, grad_output: Array, input: Array, output: Array, bias: Parameter | None, activation: str | None,
        grad_input: Array | None,
    ) -> Array | None:  # fmt: skip
        grad = F.bias_add_backward(
            as_image(grad_output), output=as_image(output), activation=activation,
            grad_input=None if grad_input is None else as_image(grad_input), grad_bias=self.bias.sink,
        )[0]  # fmt: skip
        return grad[:, :, 0] if input.ndim == 3 else grad
