"""Dropout with masks that can be drawn again from three integers."""

from typing import Any

from fastconv.functional._check import number, one_of
from fastconv.functional._ops import Dropout as Drop
from fastconv.functional._ops import DropWhole
from fastconv.graph.value import write
from fastconv.nn.base import Module, next_key


class _Dropping(Module):
    """What all have: a probability, and three integers that the mask of a forward is a function of."""

    extra_names = ("seed", "stream", "step")

    def _set(self, p: float) -> None:
        self.p = number(type(self).__name__, "p", p)
        if not 0 <= self.p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be in [0, 1], got {self.p}")
        self.seed, self.stream = next_key()
        self.step = 0


class Dropout(_Dropping):
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
    TypeError
        If it is no number.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Dropout(0.5)
    >>> sorted(set(layer(np.ones(100)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(np.ones(4))
    array([1., 1., 1., 1.])
    """

    def __init__(self, p: float = 0.5) -> None:
        self._set(p)

    def forward(self, input: Any) -> Any:
        return write(Drop(self.p, self), input) if self.training else input


class Dropout2d(_Dropping):
    """Zero each channel of each sample with probability `p` in training and scale the rest by 1 / (1 - p).

    Inputs are (N, C, L) or (N, C, H, W). Which channels are dropped is a function of (seed, stream, step), as of
    :class:`Dropout`: those that a `Dropout` of these would drop from an array (N, C).

    Parameters
    ----------
    p : float
        In [0, 1].

    Raises
    ------
    ValueError
        If `p` is outside [0, 1]; in forward, if the input has another rank.
    TypeError
        If `p` is no number.

    References
    ----------
    J. Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Dropout2d(0.5)
    >>> y = layer(np.ones((1, 64, 2, 2)))
    >>> sorted(set(y.sum((2, 3)).ravel().tolist()))
    [0.0, 8.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        self._set(p)

    def forward(self, input: Any) -> Any:
        if input.ndim not in (3, 4):
            raise ValueError(f"Dropout2d: input needs 3 or 4 dimensions, got {input.shape}")
        return write(DropWhole(self.p, "channel", self), input) if self.training else input


class StochasticDepth(_Dropping):
    """Zero whole samples, or the whole batch, with probability `p` in training and scale the rest by 1 / (1 - p).

    It stands at the end of a residual branch. What is dropped is a function of (seed, stream, step), as of
    :class:`Dropout`. Arguments are those of ``torchvision.ops.StochasticDepth``.

    Parameters
    ----------
    p : float
        In [0, 1].
    mode : {"row", "batch"}
        Whether each sample is dropped by itself.

    Raises
    ------
    ValueError
        If `p` is outside [0, 1], or there is no such mode.
    TypeError
        If `p` is no number.

    References
    ----------
    G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.StochasticDepth(0.2)
    >>> y = layer(np.ones((100, 3)))
    >>> sorted(set(y.sum(1).tolist()))
    [0.0, 3.75]
    """

    def __init__(self, p: float, mode: str = "row") -> None:
        one_of("StochasticDepth: mode", mode, ("row", "batch"))
        self.mode = mode
        self._set(p)

    def forward(self, input: Any) -> Any:
        return write(DropWhole(self.p, self.mode, self), input) if self.training else input
