"""Activations by name, and what an operation does to its result in its own pass: bias, scale and shift, a sum, an
activation.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv._ext import epilogue
from fastconv._ext.epilogue import Epilogue as Epilogue
from fastconv.functional._check import (
    Array,
    as_contiguous,
    as_nhwc,
    by_dtype,
    check_array,
    check_out,
    check_shape,
    is_nhwc,
    memory,
    number,
    one_of,
    same_dtype,
    short,
)
from fastconv.functional._views import check_batch, flat, gradient_like, output_like

Activation = str | tuple[Any, ...] | None

NOTHING = Epilogue()

finish = by_dtype(epilogue.finish)
activate_backward = by_dtype(epilogue.activate_backward)


class Row(NamedTuple):
    """A row of `activations.inc`.

    Attributes
    ----------
    name : str
    known : str
        What the gradient is made from: "output", "input", or "either": the output unless the parameter is negative.
    channels : bool
        Whether the parameter is an array, one number per channel.
    defaults : pair of float
    parameters : tuple of str
        Names of those that may be given.
    """

    name: str
    known: str
    channels: bool
    defaults: tuple[float, float]
    parameters: tuple[str, ...]


ACTIVATIONS = {row[0]: Row(*row) for row in epilogue.activations()}

# Activations by name alone, as `parse` returns them.
_BY_NAME = {
    row.name: (row, row.defaults[: len(row.parameters)]) for row in ACTIVATIONS.values() if not row.channels
}

# What else has to hold of an activation's parameters, and how to say so.
_RULES: dict[str, tuple[Callable[..., bool], str]] = {
    "hardtanh": (lambda low, high: low < high, "min_val must be less than max_val"),
    "elu": (lambda alpha: alpha >= 0, "alpha must be at least 0"),
    "softplus": (lambda beta, threshold: beta > 0, "beta must be greater than 0"),
}


def parse(where: str, activation: Activation) -> tuple[Row | None, tuple[Any, ...]]:
    """Return the row of an activation and all its parameters: given as a name, or with parameters as a tuple.

    Raises
    ------
    ValueError
        If there is no such activation, or it has not such parameters.
    """
    if activation is None:
        return None, ()
    if type(activation) is str and (parsed := _BY_NAME.get(activation)):
        return parsed
    name, *given = activation if isinstance(activation, tuple) and activation else (activation,)
    row = ACTIVATIONS.get(name) if isinstance(name, str) else None
    if row is None:
        raise ValueError(
            f"{where}: activation must be None, one of {', '.join(ACTIVATIONS)}, or a tuple of one and its "
            f"parameters, got {short(activation)}"
        )
    if row.channels:
        if len(given) != 1 or not isinstance(given[0], np.ndarray):
            raise ValueError(f"{where}: activation {name!r} needs its {row.parameters[0]}, as ({name!r}, array)")
        return row, (given[0],)
    if len(given) > len(row.parameters):
        takes = ", ".join(row.parameters) or "none"
        raise ValueError(f"{where}: activation {name!r} got {len(given)} parameters, {tuple(given)}; it takes {takes}")
    values = tuple(
        _number(where, name, parameter, given[i] if i < len(given) else row.defaults[i])
        for i, parameter in enumerate(row.parameters)
    )
    holds, rule = _RULES.get(name, (None, ""))
    if holds is not None and not holds(*values):
        raise ValueError(f"{where}: {rule}, got {', '.join(map(str, values))}")
    return row, values


def _number(where: str, name: str, parameter: str, value: Any) -> float:
    own = where.removesuffix("_backward") in (name, name.removesuffix("_tanh"))
    what = parameter if own else f"{parameter} of {name}"
    result = number(where, what, value)
    if math.isnan(result):
        raise ValueError(f"{where}: {what} must be a number, got nan")
    return result


@lru_cache(maxsize=256)
def alone(name: str | None, params: tuple[float, ...]) -> Epilogue:
    """Return the epilogue that is an activation and nothing else."""
    return Epilogue(name, params)


def _column(a: Array) -> Array:
    """Return the elements in the order of their memory, as pixels of one channel."""
    return flat(a).reshape(-1, 1)


def _alone(where: str, name: str, params: tuple[float, ...]) -> Epilogue:
    """Return the epilogue that is an activation with these parameters, checked, and nothing else."""
    return alone(name, parse(where, (name, *params) if params else name)[1])


def gelu_name(where: str, approximate: str) -> str:
    """Return the name of the activation for a way to approximate it, "none" or "tanh"; another is refused."""
    one_of(f"{where}: approximate", approximate, ("none", "tanh"))
    return "gelu" if approximate == "none" else "gelu_tanh"


def run_activation(name: str, input: Array, out: Array | None, *params: float) -> Array:
    """Return the activation of every element, after all checks."""
    where = name.removesuffix("_tanh")
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    out = output_like(where, input, out, dtype)
    finish[dtype](_column(input), _column(out), _alone(where, name, params))
    return out


def run_activation_backward(
    name: str, what: str, grad_output: Array, known: Array, grad_input: Array | None, *params: float
) -> Array:
    """Return the gradient of an activation, made from its ``what``: its output or its input."""
    where = name.removesuffix("_tanh") + "_backward"
    grad_input = gradient_like(where, what, grad_output, known, grad_input)
    dtype = grad_input.dtype
    activate_backward[dtype](_column(grad_output), _column(known), _column(grad_input), _alone(where, name, params))
    return grad_input


def epilogue_of(
    where: str,
    activation: Activation,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    bias: Array | None = None,
    coefficients: Array | None = None,
    add: Array | None = None,
    pre: Array | None = None,
) -> Epilogue:
    """Return the epilogue of a result of this shape, (N, K) or (N, K, P, Q), its arrays checked.

    Raises
    ------
    ValueError
        If the activation or a shape does not fit.
    TypeError
        If an array has another dtype.
    """
    row, params = parse(where, activation)
    name = None if row is None else row.name
    channels = shape[1]
    if row is not None and row.channels:
        _check_dtype(where, f"{row.parameters[0]} of {name}", params[0], dtype)
        check_shape(where, f"{row.parameters[0]} of {name}", params[0], (channels,))
        params = (as_contiguous(params[0]),)
    elif bias is None and coefficients is None and add is None and pre is None:
        return alone(name, params)
    if bias is not None:
        check_shape(where, "bias", bias, (channels,))
        bias = as_contiguous(bias)
    if coefficients is not None:
        check_shape(where, "coefficients", coefficients, (2, channels))
        coefficients = as_contiguous(coefficients)
    if add is not None:
        _check_dtype(where, "add", add, dtype)
        check_shape(where, "add", add, shape)
        add = _spaced(add)
    if pre is not None:
        _check_dtype(where, "pre", pre, dtype)
        pre = check_out(where, "pre", pre, shape, dtype)
        pre = memory(pre) if pre.ndim == 4 else pre
    return Epilogue(name, params, bias, coefficients, add, pre)


def _check_dtype(where: str, name: str, a: Array, dtype: np.dtype[Any], like: str = "input") -> None:
    check_array(where, name, a)
    if a.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{where}: {name} must be {dtype} as the {like} is, got {a.dtype}")


def _spaced(a: Array) -> Array:
    """Return ``a`` with channels last as kernels read what they add: pixels at one distance, copied if they must be."""
    if a.ndim == 2:
        regular = a.strides[1] == a.itemsize and a.strides[0] % a.itemsize == 0 and a.strides[0] > 0
        return a if regular and a.dtype.isnative and a.flags.aligned else as_contiguous(a)
    if is_nhwc(a):
        return memory(a)
    _, _, h, w = a.shape
    image, channel, row, pixel = a.strides
    regular = channel == a.itemsize and pixel % channel == 0 < pixel and row == w * pixel and image == h * row
    return memory(a if regular and a.dtype.isnative and a.flags.aligned else as_nhwc(a))


def known_of(row: Row, params: tuple[Any, ...]) -> str:
    """Return what an activation's gradient is made from, "output" or "input"."""
    return row.known if row.known != "either" else "input" if params[0] < 0 else "output"


def masking(
    where: str, activation: Activation, grad_output: Array, output: Array | None, pre_activation: Array | None
) -> tuple[Array, Epilogue] | None:
    """Return what the gradient of a fused activation is made from and the activation, None without one.

    Raises
    ------
    ValueError
        If the array it needs is missing or has another shape, or the activation has parameters that learn.
    TypeError
        If the array has another dtype.
    """
    row, params = parse(where, activation)
    if row is None:
        return None
    if row.channels:
        raise ValueError(
            f"{where}: activation={row.name!r} learns; call {row.name}_backward first, then this without activation"
        )
    if known_of(row, params) == "output":
        name, known, what = "output", output, "what the forward call returned"
    else:
        name, known, what = "pre_activation", pre_activation, "what the forward call wrote to pre="
    if known is None:
        raise ValueError(f"{where}: activation={row.name!r} needs {name}=, {what}")
    _check_dtype(where, name, known, grad_output.dtype.newbyteorder("="), "grad_output")
    check_shape(where, name, known, grad_output.shape)
    return lying(known), alone(row.name, params)


def known_arrays(mask: Any, output: Array | None, pre_activation: Array | None) -> dict[str, Array | None]:
    """Return by name what a gradient reads for its activation, nothing without one."""
    return {} if mask is None else {"output": output, "pre_activation": pre_activation}


def lying(a: Array) -> Array:
    """Return ``a`` as it lies in memory, channels last."""
    return memory(as_nhwc(a)) if a.ndim == 4 else as_contiguous(a)


def before_activation(where: str, grad_output: Array, grad_add: Array | None) -> Array | None:
    """Return ``grad_add`` as it lies in memory, checked."""
    if grad_add is None:
        return None
    _check_dtype(where, "grad_add", grad_add, grad_output.dtype.newbyteorder("="), "grad_output")
    grad_add = check_out(where, "grad_add", grad_add, grad_output.shape, grad_output.dtype.newbyteorder("="))
    return lying(grad_add)


def mask_into(grad_output: Array, mask: tuple[Array, Epilogue] | None, target: Array) -> None:
    """Write the gradient before an activation, or a copy where there is none; arrays as they lie in memory."""
    if mask is None:
        np.copyto(target, grad_output)
        return
    known, activation = mask
    flat = (a.reshape(-1, 1) for a in (grad_output, known, target))
    activate_backward[target.dtype](*flat, activation)
