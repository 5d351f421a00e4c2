"""Where the first NaN or infinity of a run came from: step, layer and tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.functional._check import whole
from fastconv.nn import Module
from fastconv.train.base import Callback, diverged

if TYPE_CHECKING:
    from fastconv.train.evaluation import Batch
    from fastconv.train.trainer import Trainer


class StopOnNonFinite(Callback):
    """End a run by `Diverged` at the first NaN or infinity, naming step, layer and tensor.

    When the loss of a batch is not finite, parameters and input are looked through, and the batch is run once more
    (with the same dropout masks) to find the first layer whose output is not finite. An update by a gradient that
    is not finite shows in the next loss; the parameter nearest to the loss is then the first that it reached.
    What a loss does not show is found in the looks every so many updates, at gradients and parameters.

    Parameters
    ----------
    every : int
        Updates between two looks, at least 1. A look takes about as long as reading gradients and parameters
        twice; in between there is next to no cost.

    Raises
    ------
    ValueError
        If ``every`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Diverged, StopOnNonFinite, Trainer
    >>> model, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), np.ones((4, 2), np.float32)
    >>> for parameter, value in zip(model.parameters(), (1.0, 0.0, 3e38, 0.0)):
    ...     parameter.data[...] = value
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=[StopOnNonFinite()], progress=False)
    >>> try:
    ...     trainer.fit(x, x[:, :1], epochs=1)
    ... except Diverged as error:
    ...     print(f"layer {error.layer}, {error.tensor}; {error}")  # doctest: +ELLIPSIS
    layer 2, output; the output of layer 2 (Linear) holds 4 infinite of 4, its input 2 to 2, after 0 updates, ...
    """

    def __init__(self, every: int = 100) -> None:
        self.every = whole("StopOnNonFinite: every", every)
        self._counting = False
        self._counters: dict[str, int] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        self._counters = trainer.model.extra_state()
        self._counting = bool(self._counters)

    def on_step_start(self, trainer: Trainer) -> None:
        if self._counting:
            self._counters = trainer.model.extra_state()

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step % self.every:
            return
        params = list(trainer.model.named_parameters())
        with np.errstate(all="ignore"):
            total = sum(float(np.add.reduce(a, axis=None)) for _, param in params for a in (param.grad, param.data))
        if math.isfinite(total):  # almost always; finite numbers whose sum is not are looked at one by one
            return
        for name, param in reversed(params):
            self._check(trainer, name, "gradient", param.grad)
        for name, param in reversed(params):
            self._check(trainer, name, "", param.data)

    def on_non_finite(self, trainer: Trainer, batch: Batch | None) -> None:
        model = trainer.model
        for name, param in reversed(list(model.named_parameters())):
            self._check(trainer, name, "", param.data)
        if batch is None:
            for name, array in model.named_buffers():
                self._check(trainer, name, "", array)
            return
        for what, array in zip(("input", "target"), batch, strict=True):
            if found := _describe(array):
                raise diverged(trainer, f"the {what} of the batch holds {found}", None, what)
        state, counters = model.state_dict(), model.extra_state()
        model.load_extra_state(self._counters)
        names = {id(module): name for name, module in model.named_modules()}

        def look(module: Module, input: np.ndarray, output: np.ndarray) -> None:
            if found := _describe(output):
                layer = names[id(module)]
                what = f"the output of {_layer(model, layer)} holds {found}, its input {_range(input)},"
                raise diverged(trainer, what, layer, "output")

        removers = [module.register_forward_hook(look) for module in model.modules()]
        try:
            output = model(batch[0])
        finally:
            for remove in removers:
                remove()
            model.load_state_dict(state)
            model.load_extra_state(counters)
        kind = type(trainer.loss).__name__
        raise diverged(trainer, f"{kind} is {trainer.batch_loss}, of outputs {_range(output)},", kind, "loss")

    @staticmethod
    def _check(trainer: Trainer, name: str, what: str, array: np.ndarray) -> None:
        if found := _describe(array):
            layer, _, tensor = name.rpartition(".")
            of = f"the {what} of {tensor}" if what else tensor
            raise diverged(
                trainer, f"{of} of {_layer(trainer.model, layer)} holds {found}", layer, f"{tensor} {what}".strip()
            )


def _describe(array: np.ndarray) -> str:
    """Return how many elements are NaN or infinite, in words; an empty string where none is."""
    finite = np.isfinite(array)
    if finite.all():
        return ""
    nan = int(np.isnan(array).sum())
    infinite = array.size - int(finite.sum()) - nan
    parts = [f"{count:,} {word}" for count, word in ((nan, "NaN"), (infinite, "infinite")) if count]
    return f"{' and '.join(parts)} of {array.size:,}"


def _range(array: np.ndarray) -> str:
    return f"{array.min():.3g} to {array.max():.3g}" if array.size else "nothing"


def _layer(model: Module, path: str) -> str:
    kinds: dict[str, Any] = dict(model.named_modules())
    kind = type(kinds[path]).__name__
    return f"layer {path} ({kind})" if path else kind
