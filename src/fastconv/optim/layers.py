"""Layers that take their steps inside `backward`, led by the optimiser of the net around them.

Such a layer (`fastconv.nn.DeepResidual`) never has its gradients all at once, so no optimiser can take its steps. What
an optimiser says of the steps reaches it nevertheless: the layer asks for it in each.
"""

from typing import Any, Self

import numpy as np

from fastconv.nn import Module

PIECE = 1 << 20  # numbers of a layer whose squares are added at a time


class Leading:
    """What an optimiser has for layers that train themselves."""

    lr: float
    _decay_bias_norm: bool
    layers: tuple[Any, ...] = ()
    """Those that this optimiser leads."""
    _layer_lr = 0.0  # the rate beside which theirs stand
    _layer_l2 = 0.0

    def add_layers(self, module: Module) -> Self:
        """Lead the layers within ``module``, or itself, that train themselves: `fastconv.nn.DeepResidual`.

        Each has a rate of its own, ``layer.lr``, which belongs to this optimiser's rate at this moment: where a
        schedule changes one, it changes the other by the same factor. Weight decay is this optimiser's, as `SGD` and
        `AdamW` have it, ``W -= lr * weight_decay * W``. The steps themselves are plain gradient descent, without
        momentum, whatever this optimiser does with parameters. Another optimiser may take the lead later.

        Returns
        -------
        Optimizer
            This one.

        Raises
        ------
        TypeError
            If ``module`` is none.
        ValueError
            If no layer in it trains itself, or this optimiser's rate is 0.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> model = nn.Sequential(nn.Linear(4, 2), nn.DeepResidual(2, 100, lr=0.1))
        >>> optimizer = optim.SGD(model.parameters(), lr=0.5, weight_decay=1e-4).add_layers(model)
        >>> len(optimizer.layers)
        1
        """
        name = type(self).__name__
        if not isinstance(module, Module):
            raise TypeError(f"{name}.add_layers: module must be a Module, got {type(module).__name__}")
        found = [layer for layer in module.modules() if hasattr(layer, "steps") and layer.trains_itself]
        if not found:
            raise ValueError(f"{name}.add_layers: no layer of this {type(module).__name__} trains itself")
        if not self.lr > 0:
            raise ValueError(f"{name}.add_layers: the rates of layers belong to an lr above 0, got {self.lr}")
        if self.layers and self.lr != self._layer_lr:
            raise ValueError(
                f"{name}.add_layers: the layers there are belong to the rate {self._layer_lr}, which is {self.lr} now"
            )
        self._layer_lr = self.lr
        self.layers = (*self.layers, *(layer for layer in found if layer not in self.layers))
        self._lead()
        return self

    def _lead(self) -> None:
        for layer in self.layers:
            layer.steps.follow(self)

    def layer_settings(self) -> tuple[float, float, float]:
        """Return what `nn.deep.Steps` asks for."""
        decay = float(getattr(self, "weight_decay", 0.0))
        return self.lr / self._layer_lr, decay + self._layer_l2, decay if self._decay_bias_norm else 0.0

    def penalise_layers(self, l2: float) -> float:
        """Have the steps of the layers follow a penalty, too, and return the sum of the squares of their weights.

        It is ``l2 / 2`` times the squares of weights, biases apart, as a `Trainer` has it.
        """
        self._layer_l2 = float(l2)
        return sum(_squares(layer) for layer in self.layers if layer.training) if l2 else 0.0


def _squares(layer: Any) -> float:
    weight, square = layer.weight, layer.width**2
    step = max(1, PIECE // weight.shape[1])
    pieces = (weight[i : i + step, :square] for i in range(0, len(weight), step))
    return float(sum(np.einsum("ij,ij->", piece, piece, dtype=np.float64) for piece in pieces))
