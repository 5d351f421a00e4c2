"""One right call of every public function of fastconv.functional, drawn, with the twin that says what it must return.

A draw is a function from `Draw` to `Call`, registered under the operation's name. A twin takes the arguments as they
were and returns (what the function returns, {written argument: what it holds afterwards, or ...}), in float64; it
raises `Unchecked` where arguments are so far out that float64 says nothing of float32. Shapes are small and numbers
whole, so that the sums of convolutions are exact.

One file a family; `drawing.py` is what they share.
"""

from . import activation, convolution, graph, loss, normalisation, optimiser, pooling, rearrange, residual  # noqa: F401
from .drawing import DRAWS, Draw, Unchecked

__all__ = ["DRAWS", "Draw", "Unchecked"]
