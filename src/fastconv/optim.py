"""Optimisers: the formulas, defaults and names of PyTorch, one kernel call a step, in place.

An optimiser moves its parameters into one block of memory a dtype (see ``nn/_flat.py``) and keeps its state in
arrays of the same layout, so that a step is one pass. Parameters are views of the block; one that is given
another array later is updated there, on its own, and frozen ones are left out: the pass falls into runs, with
the same bits. ``state_dict`` is a flat dictionary of arrays: ``step``, ``lr`` and ``<state>.<index>``.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any, ClassVar

import numpy as np

from fastconv import functional as F
from fastconv.nn import Parameter
from fastconv.nn._flat import Block

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]

Array = np.ndarray


@dataclass
class _Run:
    """What one kernel call updates: a stretch of a block, or a parameter that lies elsewhere."""

    param: Array
    grad: Array
    state: dict[str, Array] = field(default_factory=dict)


class Optimizer:
    """Base of all optimisers: the parameters, the learning rate, the step count and the state arrays.

    Parameters
    ----------
    params : iterable of Parameter
        What to train, as ``model.parameters()`` gives it: their ``data`` and ``grad`` become views of one
        block of memory. Parameters with ``requires_grad=False`` are left alone.
    lr : float
        Learning rate, finite and at least 0. The attribute ``lr`` may be set at any time.

    Raises
    ------
    ValueError
        If there are no parameters, if one occurs twice, or if a hyperparameter is out of its range.
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        self.params = list(params)
        self.lr = float(lr)
        self.steps = 0
        self._states: dict[str, list[Array]] = {}  # name to an array for each parameter
        self._flat: dict[str, list[Array]] = {}  # name to the memory of these, one for each block
        name = type(self).__name__
        if not self.params:
            raise ValueError(f"{name}: no parameters to train")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{name}: a parameter occurs more than once among the {len(self.params)} given")
        self._check("lr", self.lr, 0.0, math.inf)
        kinds = {param.data.dtype: [] for param in self.params}  # type: dict[Any, list[Parameter]]
        for param in self.params:
            kinds[param.data.dtype].append(param)
        self._blocks = [Block.of(params) for params in kinds.values()]
        self._known: list[Any] = []
        self._runs: list[_Run] = []
        self._loose: list[Parameter] = []

    def _check(self, name: str, value: float, low: float, high: float) -> None:
        """Refuse a hyperparameter outside ``low <= value < high`` (NaN among them)."""
        if not low <= value < high:
            raise ValueError(f"{type(self).__name__}: {name} must be in [{low:g}, {high:g}), got {value!r}")

    def _add_state(self, name: str, value: float = 0.0) -> None:
        made = [block.like(value) for block in self._blocks]
        views = {
            id(param): view
            for block, (_, arrays) in zip(self._blocks, made, strict=True)
            for param, view in zip(block.params, arrays, strict=True)
        }
        self._flat[name] = [flat for flat, _ in made]
        self._states[name] = [views[id(param)] for param in self.params]

    def step(self) -> None:
        """Update every trained parameter in place from its gradient."""
        self.steps += 1
        self._look()
        for run in self._runs:
            self._update(run.param, run.grad, run.state)

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to zero."""
        self._look()
        for block in self._blocks:
            block.grad.fill(0)
        for param in self._loose:
            param.grad.fill(0)

    def _look(self) -> None:
        """Plan the runs anew if a parameter was given another array, or was frozen or thawed."""
        known = [x for p in self.params for x in (p.data, p.grad, p.requires_grad)]
        if len(known) == len(self._known) and all(map(is_, known, self._known)):
            return
        self._known, self._runs, self._loose = known, [], []
        for index, block in enumerate(self._blocks):
            trained = [block.holds(param) and param.requires_grad for param in block.params]
            for span in block.runs(trained):
                state = {name: flat[index][span] for name, flat in self._flat.items()}
                self._runs.append(_Run(block.data[span], block.grad[span], state))
            self._loose += [param for param in block.params if not block.holds(param)]
        self._runs += self._alone()

    def _alone(self) -> Iterator[_Run]:
        for index, param in enumerate(self.params):
            if param.requires_grad and any(param is loose for loose in self._loose):
                state = {name: arrays[index] for name, arrays in self._states.items()}
                yield _Run(param.data, param.grad, state)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of everything a resumed run needs, as a flat dictionary of arrays."""
        state = {"step": np.array(self.steps, np.int64), "lr": np.array(self.lr, np.float64)}
        for name, arrays in self._states.items():
            state |= {f"{name}.{index}": array.copy() for index, array in enumerate(arrays)}
        return state

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Take up the state that `state_dict` returned.

        Raises
        ------
        ValueError
            If names or shapes are not those of this optimiser's own state; nothing is changed then.
        """
        own = self.state_dict()
        if missing := sorted(own.keys() - state.keys()):
            raise ValueError(f"{type(self).__name__}: state lacks {', '.join(missing)}")
        if foreign := sorted(state.keys() - own.keys()):
            raise ValueError(f"{type(self).__name__}: state has unknown entries {', '.join(foreign)}")
        for name, array in own.items():
            if np.shape(state[name]) != array.shape:
                raise ValueError(
                    f"{type(self).__name__}: {name} has shape {np.shape(state[name])}, needs {array.shape}"
                )
        self.steps, self.lr = int(state["step"]), float(state["lr"])
        for name, arrays in self._states.items():
            for index, array in enumerate(arrays):
                array[...] = state[f"{name}.{index}"]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._hyper)
        return f"{type(self).__name__}({shown})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, dampening, Nesterov's variant and weight decay.

    ``g = grad + weight_decay * p``; with momentum ``b = momentum * b + (1 - dampening) * g`` (``b = g`` in
    the first step) and ``g = b``, or ``g + momentum * b`` with ``nesterov``; ``p -= lr * g``.

    Parameters
    ----------
    params : iterable of Parameter
    lr : float
    momentum, dampening, weight_decay : float
        At least 0.
    nesterov : bool
        Needs ``momentum > 0`` and ``dampening == 0``.

    References
    ----------
    I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> from fastconv.nn import Parameter
    >>> p = Parameter(np.array([1.0, 2.0]))
    >>> p.grad[...] = [0.5, -0.5]
    >>> SGD([p], lr=0.1).step()
    >>> p.data
    array([0.95, 2.05])
    """

    _hyper = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self._check("momentum", momentum, 0.0, math.inf)
        self._check("weight_decay", weight_decay, 0.0, math.inf)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening == 0, got momentum={momentum}, dampening={dampening}"
            )
        self.momentum, self.dampening = momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, nesterov
        if momentum:
            self._add_state("momentum_buffer")

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        F.sgd_step(
            param, grad, state.get("momentum_buffer"),
            self.lr, self.momentum, self.dampening, self.weight_decay, self.nesterov,
            first_step=self.steps == 1,
        )  # fmt: skip


class Adam(Optimizer):
    """Adam: running means of gradient and squared gradient, bias-corrected.

    ``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``,
    ``p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``; weight decay is added to ``g``.

    Parameters
    ----------
    params : iterable of Parameter
    lr : float
    betas : tuple of float
        Both in [0, 1).
    eps, weight_decay : float
        At least 0.

    References
    ----------
    D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    _hyper = ("lr", "betas", "eps", "weight_decay")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self._check("betas[0]", betas[0], 0.0, 1.0)
        self._check("betas[1]", betas[1], 0.0, 1.0)
        self._check("eps", eps, 0.0, math.inf)
        self._check("weight_decay", weight_decay, 0.0, math.inf)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._add_state("exp_avg")
        self._add_state("exp_avg_sq")

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        F.adam_step(
            param, grad, state["exp_avg"], state["exp_avg_sq"],
            self.lr, *self.betas, self.eps, self.weight_decay, self.steps, self._decoupled,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= lr * weight_decay * p`` before Adam's own step.

    Parameters
    ----------
    params : iterable of Parameter
    lr : float
    betas : tuple of float
    eps, weight_decay : float
        As in `Adam`; ``weight_decay`` is 0.01 by default.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class RMSprop(Optimizer):
    """Divide the gradient by a running root mean square of itself.

    ``v = alpha v + (1 - alpha) g^2``, ``p -= lr * g / (sqrt(v) + eps)``; ``centered`` subtracts the squared
    running mean of ``g`` from ``v``; with momentum ``b = momentum b + g / (...)`` and ``p -= lr * b``.

    Parameters
    ----------
    params : iterable of Parameter
    lr : float
    alpha : float
        In [0, 1).
    eps, weight_decay, momentum : float
        At least 0.
    centered : bool

    References
    ----------
    T. Tieleman and G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012; the centred form is
    A. Graves, arXiv 1308.0850, equations 38 to 41.
    """

    _hyper = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self._check("alpha", alpha, 0.0, 1.0)
        self._check("eps", eps, 0.0, math.inf)
        self._check("weight_decay", weight_decay, 0.0, math.inf)
        self._check("momentum", momentum, 0.0, math.inf)
        self.alpha, self.eps, self.weight_decay = alpha, eps, weight_decay
        self.momentum, self.centered = momentum, centered
        self._add_state("square_avg")
        if centered:
            self._add_state("grad_avg")
        if momentum:
            self._add_state("momentum_buffer")

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        F.rmsprop_step(
            param, grad, state["square_avg"], state.get("momentum_buffer"), state.get("grad_avg"),
            self.lr, self.alpha, self.eps, self.weight_decay, self.momentum,
        )  # fmt: skip


class Adagrad(Optimizer):
    """Divide the gradient by the root of the sum of all its squares so far.

    ``s += g^2``, ``p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)``.

    Parameters
    ----------
    params : iterable of Parameter
    lr : float
    lr_decay, weight_decay, initial_accumulator_value, eps : float
        At least 0.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011.
    """

    _hyper = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(params, lr)
        self._check("lr_decay", lr_decay, 0.0, math.inf)
        self._check("weight_decay", weight_decay, 0.0, math.inf)
        self._check("initial_accumulator_value", initial_accumulator_value, 0.0, math.inf)
        self._check("eps", eps, 0.0, math.inf)
        self.lr_decay, self.weight_decay = lr_decay, weight_decay
        self.initial_accumulator_value, self.eps = initial_accumulator_value, eps
        self._add_state("sum", initial_accumulator_value)

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        F.adagrad_step(param, grad, state["sum"], self.lr, self.lr_decay, self.eps, self.weight_decay, self.steps)
