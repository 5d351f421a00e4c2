"""Figures of a net at work: what its layers put out, how large its gradients are, how far weights move.

All of it reads only: parameters, buffers, counters and modes of the model stay as they are, to the bit.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from fastconv.functional._check import flag
from fastconv.nn import Flatten, Module, ReLU, Sigmoid, Softsign, Tanh
from fastconv.nn.base import in_mode

__all__ = [
    "ActivationStatistics", "activation_statistics", "gradient_norms", "observe", "statistics_of",
    "update_ratios", "weights",
]  # fmt: skip

Array = np.ndarray

# An output is saturated where the activation's slope is below this share of its steepest.
_FLAT = 0.05
_SLOPES: dict[type[Module], Callable[[Array], Array]] = {
    Tanh: lambda y: 1 - np.square(y),
    Sigmoid: lambda y: 4 * y * (1 - y),
    Softsign: lambda y: np.square(1 - np.abs(y)),
}


@dataclass(frozen=True)
class ActivationStatistics:
    """What one layer put out for one batch.

    Attributes
    ----------
    layer : str
        Type of the layer, "ReLU".
    mean, std : float
        Over all outputs; not finite where an output is not.
    zeros : float
        Share of outputs that are exactly 0.
    saturated : float
        Share of outputs of Tanh, Sigmoid or Softsign at which the slope is below 5 % of the steepest
        (\\|tanh\\| > 0.975); 0 for other layers.
    dead : float
        Share of units (features, channels) of a ReLU that are 0, or of the three others that are saturated,
        for every sample and at every place: nothing can be learned through them from this batch. 0 for other
        layers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import diagnose, nn
    >>> x = np.array([[-1.0, 2.0], [-3.0, 4.0]], np.float32)  # the first unit is 0 for both samples
    >>> found = diagnose.activation_statistics(nn.Sequential(nn.ReLU()), x)["0"]
    >>> found.zeros, found.dead, found.mean
    (0.5, 0.5, 1.5)
    >>> found.to_dict()
    {'mean': 1.5, 'std': 1.6583123951777, 'zeros': 0.5, 'saturated': 0.0, 'dead': 0.5}
    """

    layer: str
    mean: float
    std: float
    zeros: float
    saturated: float
    dead: float

    def to_dict(self) -> dict[str, float]:
        """Return the five figures, fit for a step record."""
        return {name: value for name, value in asdict(self).items() if name != "layer"}


def statistics_of(module: Module, output: Array) -> ActivationStatistics:
    """Return the figures of what `module` put out, (N, units) or (N, units, ...) with N >= 1."""
    zero = output == 0
    slope = next((slope for kind, slope in _SLOPES.items() if isinstance(module, kind)), None)
    with np.errstate(all="ignore"):
        blocked = zero if slope is None else slope(output) < _FLAT
        mean, std = float(output.mean(dtype=np.float64)), float(output.std(dtype=np.float64))
    dead = 0.0
    if slope is not None or isinstance(module, ReLU):
        dead = float(blocked.all(axis=tuple(axis for axis in range(output.ndim) if axis != 1)).mean())
    return ActivationStatistics(
        type(module).__name__, mean, std,
        zeros=float(zero.mean()), saturated=0.0 if slope is None else float(blocked.mean()), dead=dead,
    )  # fmt: skip


@contextmanager
def observe(model: Module, look: Callable[[str, Module, Array], None]) -> Iterator[None]:
    """Call ``look(name, module, output)`` for every layer that runs inside, in the order they run.

    Each output is shown once: a container's is that of its last layer, and layers that hand on their input
    (Flatten, Dropout in evaluation) are left out. The array is the layer's own and will be overwritten.
    """
    last: list[Array] = []

    def hook(name: str) -> Callable[[Module, Array, Array], None]:
        def call(module: Module, input: Array, output: Array) -> None:
            news = not (last and last[0] is output)
            last[:] = [output]
            if news and not isinstance(module, Flatten) and not np.may_share_memory(input, output):
                look(name, module, output)

        return call

    removers = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for remove in removers:
            remove()


def activation_statistics(model: Module, x: Array, *, training: bool = False) -> dict[str, ActivationStatistics]:
    """Run a batch through a model and return the figures of every layer's output.

    Parameters
    ----------
    model : Module
    x : ndarray, shape (N, ...), N >= 1
        Standardised as for training.
    training : bool
        True normalises by the statistics of the batch and drops units out, as a training step does; running
        statistics and counters are put back.

    Returns
    -------
    dict of str to ActivationStatistics
        By the module's dotted path ("0", "3.body.1", "" for a model of one layer), in the order of the layers.

    Raises
    ------
    ValueError
        If there is no sample.

    Examples
    --------
    >>> from fastconv import nn
    >>> x = np.array([[-1.0, 2.0], [-3.0, 4.0]], np.float32)
    >>> activation_statistics(nn.Sequential(nn.ReLU()), x)["0"]
    ActivationStatistics(layer='ReLU', mean=1.5, std=1.6583123951777, zeros=0.5, saturated=0.0, dead=0.5)
    """
    if len(x) == 0:
        raise ValueError(f"activation_statistics: the batch has no sample, shape {x.shape}")
    training = flag("activation_statistics: training", training)
    found: dict[str, ActivationStatistics] = {}

    def look(name: str, module: Module, output: Array) -> None:
        found[name] = statistics_of(module, output)

    state = {name: array.copy() for name, array in model.named_buffers()} if training else {}
    extra = model.extra_state()
    try:
        with in_mode(model, training), observe(model, look):
            model(x)
    finally:
        model.load_state_dict(state, strict=False)
        model.load_extra_state(extra)
    return found


def gradient_norms(model: Module) -> dict[str, float]:
    """Return the Euclidean norm of every trained parameter's gradient, as the latest backward left it.

    Parameters
    ----------
    model : Module

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import diagnose, nn
    >>> model, loss = nn.Sequential(nn.Linear(2, 1), nn.ReLU()), nn.MSELoss()
    >>> model[0].weight.data[...] = 0.0
    >>> model[0].bias.data[...] = 1.0
    >>> _ = loss(model(np.array([[3.0, 4.0]], np.float32)), np.zeros((1, 1), np.float32))
    >>> _ = model.backward(loss.backward())
    >>> diagnose.gradient_norms(model)
    {'0.weight': 10.0, '0.bias': 2.0}
    """
    return {name: _norm(param.grad) for name, param in model.named_parameters() if param.requires_grad}


def weights(model: Module) -> dict[str, Array]:
    """Return copies of all trained weights of two or more dimensions: what `update_ratios` compares with.

    Parameters
    ----------
    model : Module

    Examples
    --------
    >>> from fastconv import diagnose, nn
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    >>> {name: weight.shape for name, weight in diagnose.weights(model).items()}
    {'0.weight': (4, 1, 3, 3), '2.weight': (2, 16)}
    """
    return {
        name: param.data.copy()
        for name, param in model.named_parameters()
        if param.data.ndim >= 2 and param.requires_grad
    }


def update_ratios(before: Mapping[str, Array], model: Module) -> dict[str, float]:
    """Return \\|weight now - before\\| / \\|before\\| for every weight that `weights` returned.

    About 1e-3 is healthy; much more and the weights are thrown about, much less and they hardly move. Biases
    have no such figure: they start at 0. A weight that was all 0 has the ratio infinity (0 if it still is).

    Parameters
    ----------
    before : mapping of str to ndarray
        What `weights` returned before the update.
    model : Module

    References
    ----------
    CS231n, "Babysitting the learning process"; L. Bottou, "Stochastic gradient descent tricks", 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import diagnose, nn, optim
    >>> model = nn.Linear(2, 1)
    >>> model.weight.data[...] = [[3.0, 4.0]]
    >>> model.weight.grad[...] = [[0.3, 0.4]]
    >>> before = diagnose.weights(model)
    >>> optim.SGD(model, lr=0.01).step()
    >>> print({name: f"{ratio:.1e}" for name, ratio in diagnose.update_ratios(before, model).items()})
    {'weight': '1.0e-03'}
    """
    now = {name: param.data for name, param in model.named_parameters()}
    with np.errstate(all="ignore"):
        return {name: _ratio(_norm(now[name] - old), _norm(old)) for name, old in before.items()}


def _ratio(step: float, size: float) -> float:
    if size == 0:
        return 0.0 if step == 0 else math.inf
    return step / size


def _norm(a: Array) -> float:
    with np.errstate(all="ignore"):
        return math.sqrt(float(np.square(a, dtype=np.float64).sum()))
