"""The methods: formulas, defaults and names of PyTorch, one kernel call a step."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from fastconv import functional as F
from fastconv.nn import Parameter
from fastconv.optim.optimizer import Array, Optimizer


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
    >>> import numpy as np
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
