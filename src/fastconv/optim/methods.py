"""The methods: formulas, defaults and names of PyTorch, one kernel call a step."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from fastconv.functional import _optim as kernels
from fastconv.functional._check import flag, short
from fastconv.nn import Module, Parameter
from fastconv.optim.optimizer import Optimizer, _Run

Params = Iterable[Parameter] | Module | Iterable[Mapping[str, Any]]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, dampening, Nesterov's variant and weight decay.

    ``g = grad + weight_decay * p``; with momentum ``b = momentum * b + (1 - dampening) * g`` (``b = g`` in
    the first step) and ``g = b``, or ``g + momentum * b`` with ``nesterov``; ``p -= lr * g``.

    Parameters
    ----------
    params : iterable of Parameter, Module, or iterable of dict
        As `Optimizer` has them, with ``decay_bias_norm``.
    lr : float
    momentum, dampening, weight_decay : float
        At least 0.
    nesterov : bool
        Needs ``momentum > 0`` and ``dampening == 0``.
    decay_bias_norm : bool
        Whether weight decay is for biases and normalisations, too.

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
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        decay_bias_norm: bool = True,
    ) -> None:
        super().__init__(
            params, lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            decay_bias_norm=decay_bias_norm,
        )  # fmt: skip

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        for name in ("momentum", "weight_decay", "dampening"):
            self._check(name, settings[name], 0.0, math.inf)
        momentum, dampening = settings["momentum"], settings["dampening"]
        if flag("SGD: nesterov", settings["nesterov"]) and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening == 0, got momentum={momentum}, dampening={dampening}"
            )

    def _state_values(self) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if self._any("momentum") else {}

    def _phase(self, updates: int, own: Mapping[str, Any]) -> int:
        return int(updates > 0) if self._settings(own)["momentum"] else 0

    def _update(self, run: _Run) -> None:
        s = self._settings(run.group)
        buffered = bool(s["momentum"]) and "momentum_buffer" in run.state
        kernels.sgd(
            run.arrays, buffered, s["lr"], s["momentum"], s["dampening"], s["weight_decay"], s["nesterov"],
            run.step == 1,
        )  # fmt: skip


class Adam(Optimizer):
    """Adam: running means of gradient and squared gradient, bias-corrected.

    ``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``,
    ``p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``; weight decay is added to ``g``.

    Parameters
    ----------
    params : iterable of Parameter, Module, or iterable of dict
        As `Optimizer` has them, with ``decay_bias_norm``.
    lr : float
    betas : tuple of float
        Both in [0, 1).
    eps, weight_decay : float
        At least 0.
    decay_bias_norm : bool
        Whether weight decay is for biases and normalisations, too.

    References
    ----------
    D. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> p = nn.Parameter(np.array([1.0, 2.0, 3.0]))
    >>> p.grad[...] = [0.5, -5.0, 0.0]
    >>> optim.Adam([p], lr=0.1).step()
    >>> p.data.round(6)  # the first step is lr long, whatever the size of a gradient
    array([0.9, 2.1, 3. ])
    """

    _hyper = ("lr", "betas", "eps", "weight_decay")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decay_bias_norm: bool = True,
    ) -> None:
        betas = tuple(betas) if isinstance(betas, list) else betas
        super().__init__(
            params, lr, betas=betas, eps=eps, weight_decay=weight_decay, decay_bias_norm=decay_bias_norm
        )

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        betas = settings["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"{type(self).__name__}: betas must be two numbers, got {short(betas)}")
        self._check("betas[0]", betas[0], 0.0, 1.0)
        self._check("betas[1]", betas[1], 0.0, 1.0)
        for name in ("eps", "weight_decay"):
            self._check(name, settings[name], 0.0, math.inf)

    def _state_values(self) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _update(self, run: _Run) -> None:
        s = self._settings(run.group)
        beta1, beta2 = s["betas"]
        arrays = run.arrays
        kernels.adam(arrays, s["lr"], beta1, beta2, s["eps"], s["weight_decay"], run.step, self._decoupled)


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p -= lr * weight_decay * p`` before Adam's own step.

    Parameters
    ----------
    params : iterable of Parameter, Module, or iterable of dict
        As `Optimizer` has them, with ``decay_bias_norm``.
    lr : float
    betas : tuple of float
    eps, weight_decay : float
        As in `Adam`; ``weight_decay`` is 0.01 by default.
    decay_bias_norm : bool
        Whether weight decay is for biases and normalisations, too.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> p, q = nn.Parameter(np.array([10.0])), nn.Parameter(np.array([10.0]))  # both without a gradient
    >>> optim.AdamW([p], lr=0.1, weight_decay=0.5).step()
    >>> optim.Adam([q], lr=0.1, weight_decay=0.5).step()
    >>> p.data, q.data.round(6)  # AdamW: 5 % less; Adam takes decay for a gradient, and a step of lr
    (array([9.5]), array([9.9]))
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        decay_bias_norm: bool = True,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, decay_bias_norm=decay_bias_norm)


class RMSprop(Optimizer):
    """Divide the gradient by a running root mean square of itself.

    ``v = alpha v + (1 - alpha) g^2``, ``p -= lr * g / (sqrt(v) + eps)``; ``centered`` subtracts the squared
    running mean of ``g`` from ``v``; with momentum ``b = momentum b + g / (...)`` and ``p -= lr * b``.

    Parameters
    ----------
    params : iterable of Parameter, Module, or iterable of dict
        As `Optimizer` has them, with ``decay_bias_norm``.
    lr : float
    alpha : float
        In [0, 1).
    eps, weight_decay, momentum : float
        At least 0.
    centered : bool
    decay_bias_norm : bool
        Whether weight decay is for biases and normalisations, too.

    References
    ----------
    T. Tieleman and G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012; the centred form is
    A. Graves, arXiv 1308.0850, equations 38 to 41.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> p = nn.Parameter(np.zeros(2))
    >>> optimizer = optim.RMSprop([p], lr=0.01)
    >>> for _ in range(100):
    ...     p.grad[...] = [1.0, -100.0]
    ...     optimizer.step()
    >>> p.data.round(3)  # a gradient a hundred times as large gets no further
    array([-2.026,  2.026])
    """

    _hyper = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        decay_bias_norm: bool = True,
    ) -> None:
        super().__init__(
            params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
            decay_bias_norm=decay_bias_norm,
        )  # fmt: skip

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        self._check("alpha", settings["alpha"], 0.0, 1.0)
        flag("RMSprop: centered", settings["centered"])
        for name in ("eps", "weight_decay", "momentum"):
            self._check(name, settings[name], 0.0, math.inf)

    def _state_values(self) -> dict[str, float]:
        optional = {"grad_avg": self._any("centered"), "momentum_buffer": self._any("momentum")}
        return {"square_avg": 0.0, **{name: 0.0 for name, needed in optional.items() if needed}}

    def _phase(self, updates: int, own: Mapping[str, Any]) -> int:
        return 0

    def _update(self, run: _Run) -> None:
        s = self._settings(run.group)
        buffered = bool(s["momentum"]) and "momentum_buffer" in run.state
        centered = bool(s["centered"]) and "grad_avg" in run.state
        kernels.rmsprop(
            run.arrays, buffered, centered, s["lr"], s["alpha"], s["eps"], s["weight_decay"], s["momentum"]
        )


class Adagrad(Optimizer):
    """Divide the gradient by the root of the sum of all its squares so far.

    ``s += g^2``, ``p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)``.

    Parameters
    ----------
    params : iterable of Parameter, Module, or iterable of dict
        As `Optimizer` has them, with ``decay_bias_norm``.
    lr : float
    lr_decay, weight_decay, initial_accumulator_value, eps : float
        At least 0.
    decay_bias_norm : bool
        Whether weight decay is for biases and normalisations, too.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> p = nn.Parameter(np.zeros(1))
    >>> optimizer = optim.Adagrad([p], lr=1.0)
    >>> for _ in range(3):
    ...     p.grad[...] = 1.0
    ...     optimizer.step()
    ...     print(p.data.round(3))  # steps of 1, 1/sqrt(2), 1/sqrt(3)
    [-1.]
    [-1.707]
    [-2.284]
    """

    _hyper = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
    _of_all = ("initial_accumulator_value",)
    initial_accumulator_value: float

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        decay_bias_norm: bool = True,
    ) -> None:
        super().__init__(
            params, lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, decay_bias_norm=decay_bias_norm,
        )  # fmt: skip

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        super()._check_settings(settings)
        for name in ("lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            self._check(name, settings[name], 0.0, math.inf)

    def _state_values(self) -> dict[str, float]:
        return {"sum": self.initial_accumulator_value}

    def _phase(self, updates: int, own: Mapping[str, Any]) -> int:
        return updates if self._settings(own)["lr_decay"] else 0

    def _update(self, run: _Run) -> None:
        s = self._settings(run.group)
        kernels.adagrad(run.arrays, s["lr"], s["lr_decay"], s["eps"], s["weight_decay"], run.step)
