"""A residual core of any depth as a layer, which trains itself."""

import math
from pathlib import Path

import numpy as np

from fastconv.functional._check import check_array, number
from fastconv.functional.residual import (
    ResidualCore,
    backward_workspace,
    from_blocks,
    residual_backward,
    residual_forward,
    to_blocks,
)
from fastconv.graph.operation import Spec
from fastconv.nn.base import Array, Module, initial, next_generator, size


class DeepResidual(Module):
    """L layers ``h = h + alpha * act(h W_i + b_i)`` on (N, width), updated by their own SGD inside `backward`.

    There is no gradient array as large as the weights: `backward` walks the layers from last to first and
    takes each a step along, ``W -= lr * dW``, while it passes the gradient on; so the optimiser of the net does
    not see these weights. In evaluation mode `backward` changes nothing.

    Parameters
    ----------
    width : int
        D, 1 to 512.
    layers : int
        L.
    alpha : float, optional
        1 / sqrt(L) by default.
    activation : {"softsign", "tanh", "relu"}
    lr : float
        Learning rate; may be set at any time.
    file : path, optional
        A file of float32 layers (see `fastconv.deep.files`) to map: weights live there and change there.

    Attributes
    ----------
    weight : ndarray, shape (layers, width * width + width)
        Each row W (in, out) and then b; a buffer of the state. At first uniform in +-0.001, biases 0, unless
        from a file.

    Raises
    ------
    ValueError
        If a parameter is out of range or the file has another length.
    """

    buffer_names = ("weight",)
    trains_itself = True

    def __init__(
        self,
        width: int,
        layers: int,
        alpha: float | None = None,
        activation: str = "softsign",
        lr: float = 0.01,
        file: str | Path | None = None,
    ) -> None:
        width, layers = size("DeepResidual", "width", width), size("DeepResidual", "layers", layers)
        alpha = None if alpha is None else number("DeepResidual", "alpha", alpha)
        self._core = ResidualCore(width, layers, alpha, activation)
        lr = number("DeepResidual", "lr", lr)
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"DeepResidual: lr must be finite and not negative, got {lr}")
        self.width, self.layers, self.alpha, self.activation = width, layers, self._core.factor, activation
        self.lr, self.file = lr, None if file is None else str(file)
        shape = (layers, self._core.row)
        self.weight: Array
        if file is None:
            self.weight = initial(shape, -1e-3, 1e-3, next_generator())
            if self.weight.flags.writeable:
                self.weight[:, width * width :] = 0
        else:
            nbytes, length = 4 * layers * self._core.row, Path(file).stat().st_size
            if length != nbytes:
                raise ValueError(f"DeepResidual: {layers} layers take {nbytes} bytes, {file} has {length}")
            self.weight = np.memmap(file, "<f4", "r+").reshape(shape)
        self._marks = self._room = np.empty(0, np.float32)

    def output_specs(self, *inputs: Spec) -> tuple[Spec, ...]:
        self._check(inputs[0])
        return (Spec(inputs[0].shape, self.weight.dtype.newbyteorder("=")),)

    def _check(self, input: Array | Spec) -> None:
        if input.ndim != 2 or input.shape[1] != self.width:
            raise ValueError(f"DeepResidual: input must be (N, {self.width}), got {input.shape}")

    def forward(self, input: Array) -> Array:
        check_array("DeepResidual", "input", input)
        self._check(input)
        h = to_blocks(np.asarray(input, self.weight.dtype.newbyteorder("=")))
        chunk = self._core.chunk(max(len(input), 1), h.itemsize)
        shape = (-(-self.layers // chunk), *h.shape)
        if self._marks.shape != shape or self._marks.dtype != h.dtype:
            self._marks = np.empty(shape, h.dtype)
            self._room = backward_workspace(self._core, max(len(input), 1), chunk, h.dtype)
        weight = np.asarray(self.weight)
        residual_forward(self._core, weight, h, chunk=chunk, marks=self._marks)
        return self._save(from_blocks(h, len(input)), chunk)

    def backward(self, grad_output: Array) -> Array:
        grad_output, chunk = self._recall(grad_output)
        n = len(grad_output)
        g = to_blocks(np.asarray(grad_output, grad_output.dtype.newbyteorder("=")), "zero")
        rate = self.lr if self.training else 0.0
        residual_backward(
            self._core, np.asarray(self.weight), g, self._marks, rate, chunk=chunk, workspace=self._room
        )
        return from_blocks(g, n)
