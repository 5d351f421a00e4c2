"""Optimisers: the formulas, defaults and names of PyTorch, one kernel call a step, in place.

An optimiser moves its parameters into one block of memory a dtype (see ``nn/_flat.py``) and keeps its state in
arrays of the same layout, so that a step is one pass. Parameters are views of the block; one that is given
another array later is updated there, on its own, and frozen ones are left out: the pass falls into runs, with
the same bits. ``state_dict`` is a flat dictionary of arrays: ``step``, ``lr``, ``<state>.<index>`` and ``updates``.

As in PyTorch each parameter has a first step of its own: one that is thawed later gets the updates of a new one, one
that is frozen for a while goes on from where it was.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any, ClassVar

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import number
from fastconv.nn import Module, Parameter
from fastconv.nn._flat import Block

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]

Array = np.ndarray

_PLACES = ("_blocks", "_flat", "_known", "_runs", "_loose")  # where things lie in memory, which a copy has to find anew


@dataclass
class _Run:
    """What one kernel call updates: a stretch of a block, or a parameter that lies elsewhere.

    Its state also holds "step", the number of this update of its first parameter, the first being 1; `_phase` is the
    same for the others.
    """

    param: Array
    grad: Array
    state: dict[str, Any]
    members: list[int]  # which of the optimiser's parameters
    done: int = 0  # updates not counted yet


class Optimizer:
    """Base of all optimisers: the parameters, the learning rate, the step count and the state arrays.

    Parameters
    ----------
    params : iterable of Parameter
        What to train, as ``model.parameters()`` gives it: their ``data`` and ``grad`` become views of one
        block of memory. Parameters with ``requires_grad=False`` are left alone. An optimizer is copied or pickled
        together with its model, as ``copy.deepcopy((model, optimizer))``: one alone takes copies of the parameters
        along.
    lr : float
        Learning rate, finite and at least 0. The attribute ``lr`` may be set at any time.

    Raises
    ------
    TypeError
        If ``params`` is or holds something else.
    ValueError
        If there are no parameters, if one occurs twice, or if a hyperparameter is out of its range.
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        name = type(self).__name__
        self.params = self._collect(params)
        self.lr = number(name, "lr", lr)
        self.steps = 0
        self._updates = [0] * len(self.params)  # of each parameter, when they were last counted
        if not self.params:
            raise ValueError(f"{name}: no parameters to train")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{name}: a parameter occurs more than once among the {len(self.params)} given")
        self._check("lr", self.lr, 0.0, math.inf)
        self._move_in()

    def _collect(self, params: Any) -> list[Parameter]:
        found = list(params) if isinstance(params, Iterable) and not isinstance(params, Module) else [params]
        for param in found:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"{type(self).__name__}: params must be an iterable of Parameter, as model.parameters() gives it, "
                    f"got {'' if param is params else 'one that holds '}{type(param).__name__}"
                )
        return found

    def _move_in(self) -> None:
        """Put the parameters side by side, with no state yet."""
        kinds: dict[Any, list[Parameter]] = {param.data.dtype: [] for param in self.params}
        for param in self.params:
            kinds[param.data.dtype].append(param)
        self._blocks = [Block.of(params) for params in kinds.values()]
        self._states: dict[str, list[Array]] = {}  # name to an array for each parameter
        self._flat: dict[str, list[Array]] = {}  # name to the memory of these, one for each block
        self._known: list[Any] = []
        self._runs: list[_Run] = []
        self._loose: list[Parameter] = []

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, which must be copied along with their model, and the state."""
        self._count()
        return {name: value for name, value in vars(self).items() if name not in _PLACES}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept)
        self.params, self._updates = list(self.params), list(self._updates)
        self._move_in()
        for name, arrays in kept["_states"].items():
            self._add_state(name)
            for array, value in zip(self._states[name], arrays, strict=True):
                array[...] = value

    def _check(self, name: str, value: Any, low: float, high: float) -> None:
        """Refuse a hyperparameter that is no number, or outside ``low <= value < high`` (NaN among them)."""
        if not low <= number(type(self).__name__, name, value) < high:
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
            run.state["step"] += 1
            run.done += 1
            self._update(run.param, run.grad, run.state)

    def _update(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
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
        self._count()
        self._known, self._runs, self._loose = known, [], []
        places = {id(param): index for index, param in enumerate(self.params)}
        for place, block in enumerate(self._blocks):
            members = [places[id(param)] for param in block.params]
            at_home = [block.holds(param) for param in block.params]
            trained = [home and param.requires_grad for home, param in zip(at_home, block.params, strict=True)]
            labels = [self._phase(self._updates[k]) if take else None for k, take in zip(members, trained, strict=True)]
            for span, inside in block.runs(labels):
                state = {name: flat[place][span] for name, flat in self._flat.items()}
                self._add_run(block.data[span], block.grad[span], state, [members[k] for k in inside])
            self._loose += [param for param, home in zip(block.params, at_home, strict=True) if not home]
        for param in self._loose:
            if param.requires_grad:
                index = places[id(param)]
                state = {name: arrays[index] for name, arrays in self._states.items()}
                self._add_run(param.data, param.grad, state, [index])

    def _add_run(self, param: Array, grad: Array, state: dict[str, Any], members: list[int]) -> None:
        self._runs.append(_Run(param, grad, {**state, "step": self._updates[members[0]]}, members))

    def _count(self) -> None:
        """Note how many updates each parameter has had."""
        for run in self._runs:
            for index in run.members:
                self._updates[index] += run.done
            run.done = 0

    def _phase(self, updates: int) -> int:
        """Return what the next update of a parameter depends on, of how many it has had: equal ones run as one."""
        return updates

    def state_dict(self) -> dict[str, Array]:
        """Return copies of everything a resumed run needs, as a flat dictionary of arrays."""
        state = {"step": np.array(self.steps, np.int64), "lr": np.array(self.lr, np.float64)}
        for name, arrays in self._states.items():
            state |= {f"{name}.{index}": array.copy() for index, array in enumerate(arrays)}
        self._count()
        return {**state, "updates": np.array(self._updates, np.int64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that `state_dict` returned.

        Without ``updates``, as older versions wrote it, every parameter counts as updated in every step.

        Raises
        ------
        ValueError
            If names, shapes or kinds of dtype are not those of this optimiser's own state, or counts or the learning
            rate are out of range; nothing is changed then.
        """
        where, own = type(self).__name__, self.state_dict()
        if not isinstance(state, Mapping):
            raise TypeError(f"{where}: state must be a mapping, got {type(state).__name__}")
        found = {name: np.asarray(array) for name, array in state.items()}
        if "step" in found:
            found.setdefault("updates", np.full(len(self.params), found["step"]))
        if missing := sorted(own.keys() - found.keys()):
            raise ValueError(f"{where}: state lacks {', '.join(missing)}")
        if foreign := sorted(found.keys() - own.keys()):
            raise ValueError(f"{where}: state has unknown entries {', '.join(foreign)}")
        for name, array in own.items():
            if found[name].shape != array.shape:
                raise ValueError(f"{where}: {name} has shape {found[name].shape}, needs {array.shape}")
            if not np.can_cast(found[name].dtype, array.dtype, "same_kind"):
                raise ValueError(f"{where}: {name} is {found[name].dtype}, needs {array.dtype}")
        steps, lr, updates = int(found["step"]), float(found["lr"]), found["updates"].tolist()
        if steps < 0 or min(updates) < 0 or max(updates) > steps:
            raise ValueError(f"{where}: step and updates must be between 0 and step, got {steps} and {updates}")
        self._check("lr", lr, 0.0, math.inf)
        self.steps, self.lr, self._updates = steps, lr, updates
        self._known, self._runs = [], []  # to be planned anew, with these counts
        for name, arrays in self._states.items():
            for index, array in enumerate(arrays):
                array[...] = found[f"{name}.{index}"]

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
    >>> from fastconv.nn import Module, Parameter
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
        self._check("dampening", dampening, 0.0, math.inf)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening == 0, got momentum={momentum}, dampening={dampening}"
            )
        self.momentum, self.dampening = momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, nesterov
        if momentum:
            self._add_state("momentum_buffer")

    def _phase(self, updates: int) -> int:
        return int(updates > 0) if self.momentum else 0

    def _update(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        F.sgd_step(
            param, grad, state.get("momentum_buffer"),
            self.lr, self.momentum, self.dampening, self.weight_decay, self.nesterov,
            first_step=state["step"] == 1,
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
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"{type(self).__name__}: betas must be two numbers, got {betas!r}")
        self._check("betas[0]", betas[0], 0.0, 1.0)
        self._check("betas[1]", betas[1], 0.0, 1.0)
        self._check("eps", eps, 0.0, math.inf)
        self._check("weight_decay", weight_decay, 0.0, math.inf)
        self.betas, self.eps, self.weight_decay = (betas[0], betas[1]), eps, weight_decay
        self._add_state("exp_avg")
        self._add_state("exp_avg_sq")

    def _update(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        F.adam_step(
            param, grad, state["exp_avg"], state["exp_avg_sq"],
            self.lr, *self.betas, self.eps, self.weight_decay, state["step"], self._decoupled,
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

    def _phase(self, updates: int) -> int:
        return 0

    def _update(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
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

    def _phase(self, updates: int) -> int:
        return updates if self.lr_decay else 0

    def _update(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        F.adagrad_step(
            param, grad, state["sum"], self.lr, self.lr_decay, self.eps, self.weight_decay, state["step"]
        )
