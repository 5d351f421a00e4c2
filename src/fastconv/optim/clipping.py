"""Gradients held within bounds between backward and step, with PyTorch's names.

A norm over several gradients is that of their norms, in the order given, which is PyTorch's definition; of each the
order of the sum is `fastconv.functional.vector_norm`'s. It depends on neither threads nor where an optimiser put them.
"""

import math
from collections.abc import Iterable

import numpy as np

from fastconv import functional as F
from fastconv.functional._check import flag, number, short
from fastconv.nn import Module, Parameter

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _trained(where: str, parameters: Parameter | Module | Iterable[Parameter]) -> list[Parameter]:
    """Return the parameters that are trained: what frozen ones hold is no gradient of this step."""
    given = parameters.parameters() if isinstance(parameters, Module) else parameters
    found = [given] if isinstance(given, Parameter) else list(given)
    for param in found:
        if not isinstance(param, Parameter):
            raise TypeError(f"{where}: parameters must be Parameters, as a model's are, got {short(param)}")
    return [param for param in found if param.requires_grad]


def clip_grad_norm_(
    parameters: Parameter | Module | Iterable[Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale all gradients down by one factor where their norm is above ``max_norm``; return the norm before.

    Parameters
    ----------
    parameters : Parameter, Module or iterable of Parameter
        Frozen ones are left out.
    max_norm : float
        At least 0. Gradients of a larger norm are multiplied by ``max_norm / (norm + 1e-6)``.
    norm_type : 1, 2 or inf
    error_if_nonfinite : bool
        Whether a norm that is NaN or infinite is an error; else gradients become NaN, or 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If ``max_norm`` is negative or NaN, or ``norm_type`` another number.
    RuntimeError
        If the norm is not finite and ``error_if_nonfinite``.

    References
    ----------
    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> p = Parameter(np.zeros(2))
    >>> p.grad[...] = [3.0, 4.0]
    >>> clip_grad_norm_([p], max_norm=1.0), p.grad.round(5)
    (5.0, array([0.6, 0.8]))
    """
    where = "clip_grad_norm_"
    params, limit = _trained(where, parameters), number(where, "max_norm", max_norm)
    if not limit >= 0:
        raise ValueError(f"{where}: max_norm must be at least 0, got {limit}")
    error_if_nonfinite = flag(f"{where}: error_if_nonfinite", error_if_nonfinite)
    norms = np.array([F.vector_norm(param.grad, norm_type) for param in params])
    total = F.vector_norm(norms, norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"{where}: the norm of the gradients is {total}")
    factor = limit / (total + 1e-6)
    if not factor >= 1:
        for param in params:
            param.grad *= param.grad.dtype.type(factor)
    return total


def clip_grad_value_(parameters: Parameter | Module | Iterable[Parameter], clip_value: float) -> None:
    """Clip every number of all gradients to ``[-clip_value, clip_value]``; NaN stays.

    Parameters
    ----------
    parameters : Parameter, Module or iterable of Parameter
        Frozen ones are left out.
    clip_value : float
        At least 0.

    Raises
    ------
    ValueError
        If ``clip_value`` is negative or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> p = Parameter(np.zeros(2))
    >>> p.grad[...] = [3.0, -0.5]
    >>> clip_grad_value_([p], 1.0)
    >>> p.grad
    array([ 1. , -0.5])
    """
    where = "clip_grad_value_"
    params, limit = _trained(where, parameters), number(where, "clip_value", clip_value)
    if not limit >= 0:
        raise ValueError(f"{where}: clip_value must be at least 0, got {limit}")
    for param in params:
        np.clip(param.grad, -limit, limit, out=param.grad)
