"""Gradient checks for layers: the ones here and those people write.

A layer's ``backward`` is compared with central differences of ``sum(r * layer(x))``, r random, in float64::

    slope(h) = (f(x + h) - f(x - h)) / 2h        best = (4 slope(h/2) - slope(h)) / 3
    bend(h) = (f(x + h) - 2 f(x) + f(x - h)) / h

The tolerance is computed for each entry from what limits ``best``: truncation (what halving the step
changed), a kink within the step (where f is smooth, bend halves with h), and the rounding of f over the step.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastconv import random
from fastconv.functional._check import flag
from fastconv.nn import Module

__all__ = ["Entry", "GradientError", "GradientReport", "gradcheck", "numerical_gradient"]

Array = npt.NDArray[Any]

# Roundings that may add up between the input and f, in units of eps * sum |r| * max(|y|, 1).
_ROUNDINGS = 64


class GradientError(AssertionError):
    """The gradients of `backward` are not those of `forward`.

    Examples
    --------
    >>> from fastconv import nn
    >>> from fastconv.testing import gradcheck
    >>> class Doubled(nn.Module):
    ...     def forward(self, input):
    ...         return 2 * input
    ...
    ...     def backward(self, grad_output):
    ...         return 3 * grad_output  # wrong
    >>> gradcheck(Doubled(), (2, 3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    fastconv.testing.GradientError: gradients of Doubled()
      BAD input (2, 3): worst of 6 at (0, 1): backward 5.12..., difference 3.41..., error 1.7, tolerance ...
    """


@dataclass(frozen=True)
class Entry:
    """The worst element of one array.

    Attributes
    ----------
    name : str
        "input" or a parameter's name.
    shape : tuple of int
    checked : int
        How many of its elements were compared.
    index : tuple of int
        Where the error is largest in relation to its tolerance.
    analytic, numeric : float
        What `backward` gave, and the central difference.
    tolerance : float
        The difference that truncation and rounding explain.

    Examples
    --------
    >>> from fastconv import nn
    >>> from fastconv.testing import gradcheck
    >>> entry = gradcheck(nn.Linear(5, 3), (2, 5)).entries[1]
    >>> entry.name, entry.shape, entry.checked, entry.error <= entry.tolerance
    ('weight', (3, 5), 15, True)
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    tolerance: float

    @property
    def error(self) -> float:
        return abs(self.analytic - self.numeric)

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.tolerance)  # False for NaN

    def __str__(self) -> str:
        return (
            f"{'ok ' if self.ok else 'BAD'} {self.name} {self.shape}: worst of {self.checked} at "
            f"{self.index}: backward {self.analytic:.10g}, difference {self.numeric:.10g}, "
            f"error {self.error:.2g}, tolerance {self.tolerance:.2g}"
        )


@dataclass(frozen=True)
class GradientReport:
    """What `gradcheck` found: one `Entry` per array; prints as a table.

    Parameters
    ----------
    layer : str
    entries : list of Entry

    Examples
    --------
    >>> from fastconv import nn
    >>> from fastconv.testing import gradcheck
    >>> print(gradcheck(nn.Linear(5, 3), (2, 5)))  # doctest: +ELLIPSIS
    gradients of Linear(in_features=5, out_features=3, bias=True)
      ok  input (2, 5): worst of 10 at ...: backward ..., difference ..., error ..., tolerance ...
      ok  weight (3, 5): worst of 15 at ...: backward ..., difference ..., error ..., tolerance ...
      ok  bias (3,): worst of 3 at ...: backward ..., difference ..., error ..., tolerance ...
    """

    layer: str
    entries: list[Entry] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(entry.ok for entry in self.entries)

    def __str__(self) -> str:
        return "\n".join((f"gradients of {self.layer}", *(f"  {entry}" for entry in self.entries)))


def numerical_gradient(
    function: Callable[[Array], float], x: Array, step: float = 1e-4, indices: Any = None
) -> tuple[Array, Array]:
    """Return central differences of a scalar function, and how far they can be trusted.

    Parameters
    ----------
    function : callable
        From an array of x's shape to a float.
    x : ndarray of float64, any shape
        Changed in place while the function runs, then put back.
    step : float
    indices : sequence of int, optional
        Elements in C order; all by default.

    Returns
    -------
    gradient : ndarray, shape (len(indices),)
    doubt : ndarray, shape (len(indices),)
        How far halving the step moved the slope, and what a kink within the step may have done to it.

    Raises
    ------
    TypeError
        If x is not float64: in less, differences drown in rounding.

    Examples
    --------
    >>> import numpy as np
    >>> gradient, _ = numerical_gradient(lambda x: float((x**3).sum()), np.array([1.0, 2.0]))
    >>> gradient.round(6)
    array([ 3., 12.])
    """
    if x.dtype != np.float64:
        raise TypeError(f"numerical_gradient: x must be float64, got {x.dtype}")
    places = range(x.size) if indices is None else indices
    middle = function(x)
    found = [_differences(function, x, np.unravel_index(i, x.shape), step, middle) for i in places]
    whole, half, bend, half_bend = np.array(found, np.float64).reshape(-1, 4).T
    return (4 * half - whole) / 3, np.abs(half - whole) + np.abs(2 * half_bend - bend)


def _differences(
    function: Callable[[Array], float], x: Array, index: Any, step: float, middle: float
) -> tuple[float, ...]:
    """Return slope(step), slope(step / 2), bend(step) and bend(step / 2) along one element."""
    before = x[index]
    slopes, bends = [], []
    for h in (step, step / 2):
        x[index] = before + h
        above, up = function(x), float(x[index])
        x[index] = before - h
        below, down = function(x), float(x[index])
        slopes.append((above - below) / (up - down))
        bends.append((above - 2 * middle + below) / h)
    x[index] = before
    return *slopes, *bends


def gradcheck(
    layer: Module,
    input_shape: tuple[int, ...],
    *,
    input: Array | None = None,
    samples: int = 64,
    step: float = 1e-4,
    seed: int = 0,
    raise_error: bool = True,
) -> GradientReport:
    """Check `layer.backward` against central differences in float64, on a copy of the layer.

    Parameters
    ----------
    layer : Module
        Left as it is. Layers that count (dropout, running statistics) start every evaluation from one state.
    input_shape : tuple of int
        Shape of a standard normal input, batch included.
    input : ndarray, optional
        Another input, of this shape.
    samples : int
        Elements compared in each array, drawn at random where it has more.
    step : float
        Half the distance of the difference.
    seed : int
        Of the input, of r and of the samples.
    raise_error : bool
        False returns the report of a failed check instead.

    Returns
    -------
    GradientReport

    Raises
    ------
    GradientError
        If a gradient differs by more than its computed tolerance; the message is the report.

    Examples
    --------
    >>> from fastconv import nn
    >>> from fastconv.testing import gradcheck
    >>> gradcheck(nn.Linear(5, 3), (2, 5)).ok
    True
    """
    raise_error = flag("gradcheck: raise_error", raise_error)
    layer = copy.deepcopy(layer).astype(np.float64)
    for module in layer.modules():
        module.need_input_grad = True
    rng = random.generator(seed, "gradcheck")
    x = rng.standard_normal(input_shape) if input is None else np.array(input, np.float64, order="C")
    if x.shape != tuple(input_shape):
        raise ValueError(f"gradcheck: input has shape {x.shape}, input_shape is {tuple(input_shape)}")
    extra = layer.extra_state()
    r = rng.standard_normal(layer(x).shape)

    def run() -> Array:
        layer.load_extra_state(extra)
        return layer(x)

    magnitude = float((np.abs(r) * np.maximum(np.abs(run()), 1)).sum())
    layer.zero_grad()
    grad_input = layer.backward(r)
    analytic = {"input": None if grad_input is None else grad_input.copy()}
    arrays = {"input": x}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            analytic[name], arrays[name] = parameter.grad, parameter.data
    report = GradientReport(repr(layer))
    rounding = _ROUNDINGS * float(np.finfo(np.float64).eps) * magnitude / step
    for name, array in arrays.items():
        found = analytic[name]
        if found is None or found.shape != array.shape:
            got = None if found is None else found.shape
            raise GradientError(f"gradcheck: the gradient of {name} has shape {got}, {name} {array.shape}")
        places = np.arange(array.size)
        if array.size > samples:
            places = np.sort(rng.choice(array.size, samples, replace=False))
        numeric, doubt = numerical_gradient(lambda _: float((r * run()).sum()), array, step, places)
        if len(places):
            report.entries.append(_worst(name, array.shape, places, found, numeric, doubt + rounding))
    if raise_error and not report.ok:
        raise GradientError(str(report))
    return report


def _worst(name: str, shape: tuple[int, ...], places: Array, found: Array, numeric: Array, tolerance: Array) -> Entry:
    analytic = found.reshape(-1)[places]
    error = np.abs(analytic - numeric) / tolerance
    at = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    index = tuple(int(i) for i in np.unravel_index(places[at], shape))
    return Entry(name, shape, len(places), index, float(analytic[at]), float(numeric[at]), float(tolerance[at]))
