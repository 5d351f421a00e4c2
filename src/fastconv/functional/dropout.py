"""Dropout (Srivastava et al., 2014), with masks that are a pure function of (seed, stream, step)."""

import numpy as np

import fastconv._ext.norm as norm
from fastconv import random
from fastconv.functional._check import (
    Array,
    as_contiguous,
    as_nhwc,
    by_dtype,
    check_apart,
    check_array,
    check_out,
    flag,
    memory,
    number,
    same_dtype,
    scratch,
)

_DROP = by_dtype(norm.drop)
_MASK = np.dtype(np.uint8)


def dropout(
    input: Array,
    p: float,
    training: bool,
    *,
    seed: int,
    stream: int | str,
    step: int,
    mask: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Set each element to 0 with probability ``p`` and scale the others by 1 / (1 - p).

    Which elements are dropped depends on ``seed``, ``stream``, ``step`` and the element's index alone:
    element i, counted in the order in which a C-contiguous array of this shape (N, C, H, W) is read, owns the
    i-th 32 bits of ``fastconv.random.generator(seed, stream, step)`` and stays where they are at least
    p * 2**32. So neither threads nor memory layout matter, and ``dropout`` commutes with ``flatten``.

    Parameters
    ----------
    input : array of float32 or float64
    p : float in [0, 1]
        1 drops everything.
    training : bool
        False returns the input as it is, and needs and fills no mask.
    seed, stream, step
        See :func:`fastconv.random.generator`.
    mask : uint8 array of input's shape and layout, optional
        Receives 1 where an element stayed, else 0, for :func:`dropout_backward`; :func:`dropout_mask_like`
        makes one.
    out : array of input's shape, optional

    Returns
    -------
    array of input's shape
        Dropped elements are x * 0: NaN and infinity show.

    Raises
    ------
    TypeError
        If ``input`` is not float32 or float64.
    ValueError
        If ``p`` is outside [0, 1] or an array does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.functional import dropout
    >>> y = dropout(np.ones(1000), 0.5, True, seed=1, stream="dropout", step=0)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    where = "dropout"
    dtype = same_dtype(where, input=input)
    p, training = _check_p(where, p), flag(f"{where}: training", training)
    x = _laid_out(input)
    if not training:
        if out is None:
            return x
        out = check_out(where, "out", out, input.shape, dtype)
        check_apart(where, {"out": out}, {"input": input}, in_place=("input",))
        out[...] = x
        return out
    out = check_out(where, "out", out, input.shape, dtype)
    mask = dropout_mask_like(input) if mask is None else check_out(where, "mask", mask, input.shape, _MASK)
    check_apart(where, {"out": out, "mask": mask}, {"input": input}, in_place=("input",))
    _draw(mask, p, seed, stream, step)
    _DROP[dtype](_flat(x), _flat(mask), _scale(p), _flat(out))
    return out


def dropout_mask_like(input: Array) -> Array:
    """Return an uninitialised mask for :func:`dropout` on ``input``.

    Returns
    -------
    ndarray of uint8 and of the input's shape
        Over NHWC memory where it is 4-d.

    Raises
    ------
    TypeError
        If the input is no array.

    Examples
    --------
    >>> import numpy as np
    >>> mask = dropout_mask_like(np.ones((2, 3)))
    >>> mask.shape, mask.dtype
    ((2, 3), dtype('uint8'))
    """
    check_array("dropout_mask_like", "input", input)
    return check_out("dropout_mask_like", "mask", None, input.shape, _MASK)


def dropout_backward(grad_output: Array, mask: Array, p: float, *, grad_input: Array | None = None) -> Array:
    """Return the gradient of :func:`dropout` in training: grad_output * mask / (1 - p).

    Parameters
    ----------
    grad_output : array
    mask : uint8 array of grad_output's shape
        As the forward pass filled it.
    p : float in [0, 1]
    grad_input : array of grad_output's shape, optional

    Returns
    -------
    ndarray of grad_output's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`dropout`.

    Examples
    --------
    >>> import numpy as np
    >>> x, mask = np.ones(6), dropout_mask_like(np.ones(6))
    >>> y = dropout(x, 0.5, True, seed=1, stream="dropout", step=0, mask=mask)
    >>> y, dropout_backward(x, mask, 0.5)
    (array([2., 2., 0., 0., 0., 0.]), array([2., 2., 0., 0., 0., 0.]))
    """
    where = "dropout_backward"
    dtype = same_dtype(where, grad_output=grad_output)
    p = _check_p(where, p)
    check_array(where, "mask", mask)
    if mask.shape != grad_output.shape or mask.dtype != _MASK:
        raise ValueError(
            f"{where}: mask must have shape {grad_output.shape} and dtype uint8, "
            f"got {mask.shape} and {mask.dtype}"
        )
    grad_input = check_out(where, "grad_input", grad_input, grad_output.shape, dtype)
    known = {"grad_output": grad_output, "mask": mask}
    check_apart(where, {"grad_input": grad_input}, known, in_place=("grad_output",))
    _DROP[dtype](_flat(_laid_out(grad_output)), _flat(_laid_out(mask)), _scale(p), _flat(grad_input))
    return grad_input


def _check_p(where: str, p: float) -> float:
    p = number(where, "p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"{where}: p must be in [0, 1], got {p}")
    return p


def _scale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0


def _laid_out(a: Array) -> Array:
    return as_nhwc(a) if a.ndim == 4 else as_contiguous(a)


def _flat(a: Array) -> Array:
    """Return the memory of an array that `_laid_out` accepts, as one row."""
    return (memory(a) if a.ndim == 4 else a).reshape(-1)


def _draw(mask: Array, p: float, seed: int, stream: int | str, step: int) -> None:
    generator = random.generator(seed, stream, step)
    threshold = round(p * 2.0**32)
    if mask.size == 0 or threshold == 0:
        mask.fill(1)
        return
    state = generator.bit_generator.state["state"]
    if mask.ndim == 4:
        n, c, h, w = mask.shape
        elements = memory(mask).reshape(n, h * w, c)
    else:
        elements = mask.reshape(1, 1, -1)
    norm.draw_mask(state["key"], state["counter"], threshold, elements, scratch(mask.size + 7))
