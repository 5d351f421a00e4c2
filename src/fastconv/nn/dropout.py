"""Dropout with masks that can be drawn again from three integers."""

from typing import Any

from fastconv.functional._ops import Dropout as Drop
from fastconv.graph.value import write
from fastconv.nn.base import Module, next_key


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

    def forward(self, input: Any) -> Any:
        return write(Drop(self.p, self), input) if self.training else input
