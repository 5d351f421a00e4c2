"""Weights averaged over the steps of a training, which often predict better than the last ones."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import number, whole
from fastconv.nn import Module
from fastconv.nn.base import turn

__all__ = ["EMA"]


class EMA:
    """An exponential moving average of a model's parameters.

    The first `update` copies them, each later one moves the average by ``(1 - decay) * (parameter - average)``; that is
    ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(decay)``. Running statistics of normalisations
    are averages already and stay the model's own.

    Parameters
    ----------
    model : Module
    decay : float
        In [0, 1); about ``1 / (1 - decay)`` steps count.

    Attributes
    ----------
    steps : int
        Updates so far.

    Raises
    ------
    ValueError
        If ``decay`` is out of its range.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> model = nn.Linear(1, 1, bias=False)
    >>> ema = optim.EMA(model, decay=0.9)
    >>> for value in (1.0, 2.0, 2.0):  # after each step of the optimiser
    ...     model.weight.data[...] = value
    ...     ema.update()
    >>> with ema.applied():
    ...     model.weight.data.round(3)
    array([[1.19]], dtype=float32)
    >>> model.weight.data
    array([[2.]], dtype=float32)
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        self.model, self.decay, self.steps = model, number("EMA", "decay", decay), 0
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA: decay must be in [0, 1), got {self.decay}")
        self._averages: dict[str, np.ndarray] = {}
        self._inside = False

    def update(self) -> None:
        """Take the parameters as they are now into the average; call it after a step of the optimiser.

        Raises
        ------
        RuntimeError
            Inside of `applied`, where the model holds the averages.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = optim.EMA(model, decay=0.5)
        >>> for value in (4.0, 0.0, 0.0):
        ...     model.weight.data[...] = value
        ...     ema.update()
        ...     print(ema.state_dict()["weight"].item())
        4.0
        2.0
        1.0
        """
        if self._inside:
            raise RuntimeError("EMA.update: the model holds its averages (inside of applied())")
        for name, param in self.model.named_parameters():
            average = self._averages.get(name)
            if average is None or average.shape != param.shape or average.dtype != param.data.dtype:
                self._averages[name] = np.array(param.data, order="C")
            else:
                F.ema_step(average, param.data, self.decay)
        self.steps += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averages for a ``with`` block, and its own parameters again after it.

        Before the first `update` there is no average, and the model stays as it is. Other threads that predict with the
        model wait until the block is over.

        Raises
        ------
        RuntimeError
            If they are applied already.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = optim.EMA(model, decay=0.5)
        >>> for value in (4.0, 0.0):
        ...     model.weight.data[...] = value
        ...     ema.update()
        >>> with ema.applied():  # validate here
        ...     print(model.weight.data.item())
        2.0
        >>> model.weight.data.item()
        0.0
        """
        if self._inside:
            raise RuntimeError("EMA.applied: the model holds its averages already")
        with turn(list(self.model.modules())):
            own = {name: param.data.copy() for name, param in self.model.named_parameters() if name in self._averages}
            self.copy_to(self.model)
            self._inside = True
            try:
                yield
            finally:
                self._inside = False
                _write(self.model, own)

    def copy_to(self, model: Module) -> None:
        """Write the averages over the parameters of a model with the same names, for good.

        Parameters
        ----------
        model : Module

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> model, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> ema = optim.EMA(model, decay=0.5)
        >>> for value in (4.0, 0.0):
        ...     model.weight.data[...] = value
        ...     ema.update()
        >>> ema.copy_to(other)
        >>> other.weight.data.item()
        2.0
        """
        _write(model, self._averages)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of the averages by the names of the parameters, and ``steps``.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> ema = optim.EMA(nn.Linear(2, 1))
        >>> ema.update()
        >>> sorted(ema.state_dict())
        ['bias', 'steps', 'weight']
        """
        return {**{name: a.copy() for name, a in self._averages.items()}, "steps": np.array(self.steps, np.int64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Parameters
        ----------
        state : dict of str to ndarray

        Raises
        ------
        ValueError
            If names, shapes or dtypes are not those of the model's parameters; nothing is changed then.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> first, second = optim.EMA(nn.Linear(2, 1)), optim.EMA(nn.Linear(2, 1))
        >>> first.update()
        >>> second.load_state_dict(first.state_dict())
        >>> second.steps
        1
        """
        arrays = {name: np.asarray(a) for name, a in state.items() if name != "steps"}
        params = dict(self.model.named_parameters())
        if "steps" not in state or (arrays and arrays.keys() != params.keys()):
            differ = sorted(arrays.keys() ^ params.keys()) or ["steps"]
            raise ValueError(f"EMA: not a state of this model's average: {', '.join(differ)}")
        for name, array in arrays.items():
            if array.shape != params[name].shape or array.dtype.kind != "f":
                raise ValueError(
                    f"EMA: {name} is {array.dtype} {array.shape}, needs {params[name].data.dtype} {params[name].shape}"
                )
        self.steps = whole("EMA: steps", int(state["steps"]), 0)
        self._averages = {name: np.array(a, params[name].data.dtype, order="C") for name, a in arrays.items()}

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay}, {self.steps} steps)"


def _write(model: Module, values: Mapping[str, np.ndarray]) -> None:
    with turn(list(model.modules())):
        for name, param in model.named_parameters():
            if name in values:
                np.copyto(param.data, values[name])
