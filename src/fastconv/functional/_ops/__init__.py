"""Operations as nodes of a graph, one file per family; what `functional` does with values in the place of arrays."""

from fastconv.functional._ops import (
    activation,
    arithmetic,
    convolution,
    groupnorm,
    normalization,
    pooling,
    rearrange,
    resampling,
    shape,
    transposed,
)
from fastconv.functional._ops.special import Detach, Dropout, DropWhole, Observe, Opaque, Same

__all__ = [
    "Detach", "DropWhole", "Dropout", "Observe", "Opaque", "Same", "activation", "arithmetic", "convolution",
    "groupnorm", "normalization", "pooling", "rearrange", "resampling", "shape", "transposed",
]  # fmt: skip
