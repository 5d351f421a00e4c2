"""exp and log that stay finite."""

import warnings
from typing import Any

import numpy as np

from fastconv._ext import elementwise
from fastconv.functional._check import Array, by_dtype, same_dtype
from fastconv.functional._views import check_batch, flat, output_like

_unary = by_dtype(elementwise.unary)

# The arguments whose exponential is a finite normal number, as in math.inc.h.
_EXP_RANGE: dict[np.dtype[Any], tuple[Any, Any]] = {
    np.dtype(np.float32): (np.float32(-87.33654), np.float32(88.72283)),
    np.dtype(np.float64): (np.float64(-708.3964185322641), np.float64(709.782712893384)),
}
_LOG_RANGE: dict[np.dtype[Any], tuple[Any, Any]] = {
    np.dtype(np.float32): (np.float32(2.0**-126), np.finfo(np.float32).max),
    np.dtype(np.float64): (np.float64(2.0**-1022), np.finfo(np.float64).max),
}
_warned: set[str] = set()


def _clipped(where: str, input: Array, low: Any, high: Any, out: Array | None) -> Array:
    """Write the function named ``where`` of the input clipped to [low, high], with one warning a process."""
    dtype = same_dtype(where, input=input)
    check_batch(where, "input", input)
    out = output_like(where, input, out, dtype)
    outside = np.count_nonzero((input < low) | (input > high))
    if outside and where not in _warned:
        _warned.add(where)
        warnings.warn(
            f"{where}: {outside} of {input.size} arguments outside [{low}, {high}] were clipped to it "
            "(warned once)",
            RuntimeWarning,
            stacklevel=3,
        )
    np.clip(input, low, high, out=out)
    _unary[dtype](flat(out), flat(out), where.removeprefix("safe_"))
    return out


def safe_exp(input: Array, *, out: Array | None = None) -> Array:
    """Return exp of the input clipped to where exp is a finite normal number.

    The result lies in [2**-126, largest float32], or in [2**-1022, largest float64]; NaN stays NaN. The first
    clipping in a process is told as a RuntimeWarning. Softmax and cross-entropy subtract the maximum and
    need none of this.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> bool(np.isfinite(safe_exp(np.array([0.0, 700.0]))).all())
    True
    """
    low, high = _EXP_RANGE[same_dtype("safe_exp", input=input)]
    return _clipped("safe_exp", input, low, high, out)


def safe_log(input: Array, *, out: Array | None = None) -> Array:
    """Return the logarithm of the input clipped to the positive normal numbers.

    Zero and negative numbers give log(2**-126) in float32 and log(2**-1022) in float64, +inf the logarithm
    of the largest number; NaN stays NaN. The first clipping in a process is told as a RuntimeWarning.

    Parameters, result and errors are those of :func:`relu`.

    Examples
    --------
    >>> import numpy as np
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     safe_log(np.array([1.0, 0.0, -5.0], np.float32))
    array([  0.     , -87.33655, -87.33655], dtype=float32)
    """
    low, high = _LOG_RANGE[same_dtype("safe_log", input=input)]
    return _clipped("safe_log", input, low, high, out)
