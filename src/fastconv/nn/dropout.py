"""Dropout with masks that can be drawn again from three integers."""

from fastconv import functional as F
from fastconv.functional._check import check_array
from fastconv.nn.base import Array, Module, as_image, next_key


class Dropout(Module):
    """Zero each element with probability `p` in training and scale the rest by 1 / (1 - p).

    The mask of a forward is a function of (seed, stream, step): see :func:`fastconv.functional.dropout`. Seed
    and stream are drawn when the layer is built (``fastconv.manual_seed``), the step counts forwards in
    training; all three are in `extra_state`. In evaluation the layer returns its input itself.

    Parameters
    ----------
    p : float
        In [0, 1].

    Raises
    ------
    ValueError
        If `p` is outside [0, 1].

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
    """

    extra_names = ("seed", "stream", "step")

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        self.p = p
        self.seed, self.stream = next_key()
        self.step = 0

    def forward(self, input: Array) -> Array:
        check_array("Dropout", "input", input)
        if not self.training:
            return self._save(input, None)
        x = as_image(self._accept(input))
        output = self._buffer("output", x.shape, x.dtype.newbyteorder("="))
        mask = self._buffer("mask", x.shape, "u1")
        F.dropout(x, self.p, True, seed=self.seed, stream=self.stream, step=self.step, mask=mask, out=output)
        self.step += 1
        return self._save(output[:, :, 0] if input.ndim == 3 else output, mask)

    def backward(self, grad_output: Array) -> Array:
        grad_output, mask = self._recall(grad_output)
        if mask is None:
            return grad_output
        grad_input = self._buffer("grad_input", mask.shape, grad_output.dtype.newbyteorder("="))
        F.dropout_backward(as_image(grad_output), mask, self.p, grad_input=grad_input)
        return grad_input[:, :, 0] if grad_output.ndim == 3 else grad_input
