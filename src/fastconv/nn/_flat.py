"""Parameters side by side in memory, so that an optimiser updates and zeroes them in one pass.

    Block.data   | weight 0 ..| bias 0 .| weight 1 ........|    Parameter.data are views of it
    Block.grad   | ...........| ........| .................|    Parameter.grad are views of it

Each parameter begins on a cache line. The order is that of the parameters given; nobody reads the gaps.
"""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.functional._check import empty_aligned
from fastconv.nn._parameter import Array, Parameter

LINE = 64  # bytes


@dataclass(eq=False, repr=False)
class Block:
    """The memory of parameters of one dtype.

    Attributes
    ----------
    params : list of Parameter
    spans : list of slice
        Where each lies.
    data, grad : ndarray, one-dimensional
    """

    params: list[Parameter]
    spans: list[slice]
    data: Array
    grad: Array

    @classmethod
    def of(cls, params: Sequence[Parameter]) -> "Block":
        """Move parameters of one dtype into one block, or return the block that holds exactly these."""
        home = params[0].home
        if home is not None and home.params == list(params) and all(map(home.holds, params)):
            return home
        spans, end = [], 0
        for param in params:
            step = LINE // param.data.itemsize
            spans.append(slice(end, end + param.data.size))
            end = -(-spans[-1].stop // step) * step
        dtype = params[0].data.dtype.newbyteorder("=")
        block = cls(list(params), spans, empty_aligned(end, dtype), empty_aligned(end, dtype))
        block.data.fill(0)
        block.grad.fill(0)
        for param, span in zip(params, spans, strict=True):
            for attribute, flat in (("data", block.data), ("grad", block.grad)):
                view = flat[span].reshape(param.shape)
                np.copyto(view, getattr(param, attribute))
                setattr(param, attribute, view)
            param.home, param.views = block, (param.data, param.grad)
        return block

    def holds(self, param: Parameter) -> bool:
        """Return whether the parameter still lies here: nobody gave it other arrays since."""
        return param.home is self and param.views[0] is param.data and param.views[1] is param.grad

    def like(self, value: float) -> tuple[Array, list[Array]]:
        """Return an array like `data`, filled, and its views in the shapes of the parameters."""
        flat = empty_aligned(self.data.size, self.data.dtype)
        flat.fill(value)
        return flat, [flat[span].reshape(p.shape) for p, span in zip(self.params, self.spans, strict=True)]

    def runs(self, labels: Sequence[Hashable | None]) -> Iterator[tuple[slice, list[int]]]:
        """Yield the longest spans whose parameters have one label, not None, and which of `params` lie there."""
        start = 0
        for label, group in itertools.groupby(labels):
            end = start + len(list(group))
            if label is not None:
                stop = self.data.size if end == len(labels) else self.spans[end].start
                yield slice(self.spans[start].start, stop), list(range(start, end))
            start = end
