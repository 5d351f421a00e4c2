"""The residual block."""

from typing import Any

from fastconv import functional as F
from fastconv.nn.base import Module


class Residual(Module):
    """activation(body(x) + shortcut(x)), the block of residual nets.

    Parameters
    ----------
    body : Module
    shortcut : Module, optional
        The input itself by default; its output must have the body's shape.
    activation : Module, optional
        Applied to the sum.

    Raises
    ------
    TypeError
        If a part is not a Module.
    ValueError
        In forward, if the two shapes differ; here, if one module is used twice.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", CVPR 2016, equations 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> block = nn.Residual(nn.Linear(2, 2, bias=False))
    >>> block.body.weight.data[:] = [[0.0, 1.0], [0.0, 0.0]]
    >>> block(np.array([[10.0, 3.0]], np.float32))
    array([[13.,  3.]], dtype=float32)
    >>> nn.Residual(nn.Linear(2, 3))(np.ones((1, 2), np.float32))
    Traceback (most recent call last):
        ...
    ValueError: Residual: body gives shape (1, 3), shortcut (1, 2)
    """

    def __init__(self, body: Module, shortcut: Module | None = None, activation: Module | None = None) -> None:
        for name, part in (("body", body), ("shortcut", shortcut), ("activation", activation)):
            if not isinstance(part, Module) and (part is not None or name == "body"):
                raise TypeError(f"Residual: {name} must be a Module, got {type(part).__name__}")
        self.body, self.shortcut, self.activation = body, shortcut, activation
        parts = [module for _, part in self.named_children() for module in part.modules()]
        if len({id(module) for module in parts}) < len(parts):
            raise ValueError("Residual: a module appears twice in body, shortcut and activation")

    def forward(self, input: Any) -> Any:
        main = self.body(input)
        side = input if self.shortcut is None else self.shortcut(input)
        if main.shape != side.shape:
            raise ValueError(f"Residual: body gives shape {main.shape}, shortcut {side.shape}")
        total = F.add(main, side)
        return total if self.activation is None else self.activation(total)
