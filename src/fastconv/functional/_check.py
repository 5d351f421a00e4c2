"""Checks and allocation shared by the boundary: everything below trusts what passed here.

Activations have NCHW shape over NHWC memory. `as_nhwc` brings any array there, copying once where it must;
`memory` hands the kernels the NHWC buffer behind such a view.
"""

import functools
import inspect
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastconv.functional._scratch import asked_for as asked_for
from fastconv.functional._scratch import empty_aligned as empty_aligned
from fastconv.functional._scratch import release_scratch as release_scratch
from fastconv.functional._scratch import reserve as reserve
from fastconv.functional._scratch import scratch as scratch
from fastconv.graph.operation import MOST_NUMBERS as MOST_NUMBERS
from fastconv.graph.operation import check_count as check_count
from fastconv.graph.operation import flag as flag
from fastconv.graph.operation import integer as integer
from fastconv.graph.operation import one_of as one_of
from fastconv.graph.operation import short as short

Array = npt.NDArray[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def unmasked(where: str, name: str, a: Any) -> None:
    """Raise TypeError if ``a`` is a masked array, whose masked elements would be read like any other."""
    if isinstance(a, np.ma.MaskedArray):
        raise TypeError(
            f"{where}: {name} is a masked array ({np.ma.count_masked(a):,} of {a.size:,} elements masked), and masks "
            "are not heeded; fill it, a.filled(value), or leave the masked samples out"
        )


def check_array(where: str, name: str, a: Any) -> None:
    """Raise TypeError unless ``a`` is a NumPy array whose elements are what they seem.

    Masked arrays would be read through their masks, and a ``np.matrix`` stays two-dimensional whatever is asked of it.
    """
    if type(a) is np.ndarray:
        return
    unmasked(where, name, a)
    if isinstance(a, np.matrix):
        raise TypeError(f"{where}: {name} is a np.matrix; pass np.asarray({name})")
    if not isinstance(a, np.ndarray):
        raise TypeError(f"{where}: {name} must be a NumPy array, got {type(a).__name__}")


def check_apart(
    where: str,
    written: Mapping[str, Array | None],
    read: Mapping[str, Array | None],
    in_place: Container[str] = (),
) -> None:
    """Raise ValueError if an array that is written shares memory with another argument.

    With an argument named by ``in_place`` it may coincide, element upon element: such an operation reads an element
    before it writes it. Bounds are compared first, which settles nearly all pairs in a fraction of a microsecond;
    where they meet, NumPy looks for a shared byte, and what it cannot decide soon counts as shared.
    """
    others = dict(read)
    for name, a in written.items():
        if a is None:
            continue
        for other, b in others.items():
            if b is None or not np.may_share_memory(a, b) or (other in in_place and _coincide(a, b)):
                continue
            if _share(a, b):
                way_out = f", which it may be itself, but not a part of ({a.shape} at strides {a.strides} beside "\
                          f"{b.shape} at strides {b.strides})" if other in in_place else ""  # fmt: skip
                raise ValueError(f"{where}: {name} shares memory with {other}{way_out}; pass another array")
        others[name] = a


def _coincide(a: Array, b: Array) -> bool:
    """Return whether every element of ``a`` lies where the same element of ``b`` does."""
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape or a.ctypes.data != b.ctypes.data:
        return False
    return all(n == 1 or i == j for n, i, j in zip(a.shape, a.strides, b.strides, strict=True))


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def number(where: str, name: str, value: Any) -> float:
    """Return ``value`` as a float.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is larger than any float.
    """
    if type(value) is float:
        return value
    unmasked(where, name, value)
    if isinstance(value, str | bytes | np.complexfloating):  # whose float() is another number
        raise TypeError(f"{where}: {name} must be a number, got {short(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where}: {name} is larger than any float, got {short(value)}") from None
    except (TypeError, ValueError):
        raise TypeError(f"{where}: {name} must be a number, got {short(value)}") from None


def same_dtype(where: str, optional: Mapping[str, Array | None] | None = None, /, **arrays: Array) -> np.dtype[Any]:
    """Return the one float dtype of the arrays, and of the ``optional`` ones that are not None.

    Raises
    ------
    TypeError
        If an argument is no array (or a masked one), has another dtype than float32 or float64, or they differ.
    """
    found: np.dtype[Any] | None = None
    mixed = False
    if optional:
        arrays |= {name: a for name, a in optional.items() if a is not None}
    for name, a in arrays.items():
        check_array(where, name, a)
        dtype = a.dtype if a.dtype.isnative else a.dtype.newbyteorder("=")
        if dtype not in FLOATS:
            raise TypeError(f"{where}: {name} must be float32 or float64, got {a.dtype}")
        mixed = mixed or dtype != (found or dtype)
        found = dtype
    if mixed:
        listed = ", ".join(f"{name} is {a.dtype.newbyteorder('=')}" for name, a in arrays.items())
        raise TypeError(f"{where}: the arrays must have one dtype, but {listed}")
    return dtype


def element(name: str, place: tuple[Any, ...]) -> str:
    """Return the name of an element of an array, for an error message; that of a single number is the array's."""
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def as_labels(where: str, name: str, a: Any, booleans: bool = True) -> Array:
    """Return class numbers of any integer dtype as int64; booleans are the numbers of two classes.

    Raises
    ------
    TypeError
        If ``a`` is no array, or masked, or of another kind of dtype (boolean, too, unless ``booleans``).
    ValueError
        If a number is beyond int64.
    """
    if type(a) is not np.ndarray:
        unmasked(where, name, a)
    if not isinstance(a, np.ndarray) or a.dtype.kind not in ("biu" if booleans else "iu"):
        got = a.dtype if isinstance(a, np.ndarray) else type(a).__name__
        raise TypeError(f"{where}: {name} must be an array of integer labels, got {got}")
    check_array(where, name, a)
    if a.dtype.kind == "u" and a.dtype.itemsize == 8 and a.size and int(a.max()) >= 2**63:
        place = np.unravel_index(int(a.argmax()), a.shape)
        raise ValueError(f"{where}: {element(name, place)} is {a[place]}, but labels must be below 2**63")
    return a.astype(np.int64, copy=False)


def check_rank(where: str, name: str, a: Array, rank: int | tuple[int, ...]) -> None:
    """Raise ValueError unless ``a`` has (one of) ``rank`` dimensions and none but the first is empty."""
    ranks = (rank,) if isinstance(rank, int) else rank
    if a.ndim not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise ValueError(f"{where}: {name} must have {wanted} dimensions, got shape {a.shape}")
    if 0 in a.shape[1:]:
        raise ValueError(f"{where}: {name} has an empty dimension, shape {a.shape}; only the batch may be empty")


class OfSignals(str):
    """The name of a function of signals (N, C, L), which inside are images of one row: errors leave that out."""

    __slots__ = ()


def as_given(where: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape as the caller of a function knows it, for an error message: signals without the one row."""
    return (*shape[:2], shape[3]) if len(shape) == 4 and isinstance(where, OfSignals) else shape


def check_shape(where: str, name: str, a: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``a`` has exactly this shape."""
    if a.shape != shape:
        raise ValueError(f"{where}: {name} must have shape {as_given(where, shape)}, got {as_given(where, a.shape)}")


def is_nhwc(a: Array) -> bool:
    """Return whether the NCHW array ``a`` lies in NHWC memory, native and aligned."""
    return bool(
        a.transpose(0, 2, 3, 1).flags.c_contiguous and a.dtype.isnative and a.flags.aligned
    )


def as_nhwc(a: Array) -> Array:
    """Return ``a`` (N, C, H, W) itself or a copy whose memory is NHWC, native and aligned."""
    if is_nhwc(a):
        return a
    out = empty_nhwc(a.shape, a.dtype.newbyteorder("="))
    out[...] = a
    return out


def as_contiguous(a: Array) -> Array:
    """Return ``a`` itself or a C-contiguous, native, aligned copy."""
    if a.flags.c_contiguous and a.flags.aligned and a.dtype.isnative:
        return a
    return np.array(a, dtype=a.dtype.newbyteorder("="), order="C", copy=True)


def as_image(where: str, name: str, a: Array | None) -> Array | None:
    """Return (N, C, L) as the view (N, C, 1, L), and None as None."""
    if a is None:
        return None
    check_array(where, name, a)
    check_rank(where, name, a, 3)
    return a[:, :, None, :]


def empty_nhwc(shape: Iterable[int], dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised array of NCHW ``shape`` over NHWC memory."""
    n, c, h, w = shape
    return np.empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)


def zeros_nhwc(shape: Iterable[int], dtype: npt.DTypeLike) -> Array:
    """Return zeros of NCHW ``shape`` over NHWC memory."""
    n, c, h, w = shape
    return np.zeros((n, h, w, c), dtype).transpose(0, 3, 1, 2)


def memory(a: Array) -> Array:
    """Return the NHWC buffer behind an NCHW view, for the kernels."""
    return a.transpose(0, 2, 3, 1)


def _laid(a: Array, strides: tuple[int, ...]) -> str:
    """Return how an array lies in memory, for an error message."""
    flags = ("" if a.flags.aligned else ", misaligned") + ("" if a.flags.writeable else ", read-only")
    return f"strides {strides}{flags}"


def check_out(
    where: str, name: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return ``out`` if it can take the result, or a new array when it is None.

    Four-dimensional results lie in NHWC memory, others in C order.

    Raises
    ------
    ValueError
        If ``out`` has another shape, dtype or memory layout, is read-only, or no memory could hold the result.
    TypeError
        If ``out`` is no array.
    """
    if out is None:
        check_count(where, name, *shape)
        return empty_nhwc(shape, dtype) if len(shape) == 4 else np.empty(shape, dtype)
    check_array(where, name, out)
    if out.shape != shape or out.dtype != dtype:
        right, got = as_given(where, shape), as_given(where, out.shape)
        raise ValueError(f"{where}: {name} must have shape {right} and dtype {dtype}, got {got} and {out.dtype}")
    layout = is_nhwc(out) if out.ndim == 4 else out.flags.c_contiguous and out.flags.aligned
    if not layout or not out.flags.writeable:
        wanted = "writable and C-contiguous" if out.ndim != 4 else "a writable NCHW view over NHWC memory"
        if out.ndim == 4 and isinstance(where, OfSignals):
            wanted = "a writable view (N, C, L) over memory (N, L, C)"
        shape, strides = as_given(where, out.shape), as_given(where, out.strides)
        raise ValueError(f"{where}: {name} must be {wanted}, got {_laid(out, strides)} for shape {shape}")
    return out


def check_grad(
    where: str, name: str, grad: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return the array a parameter's gradient is added to: ``grad``, checked, or fresh zeros (C order)."""
    if grad is None:
        return np.zeros(shape, dtype)
    check_array(where, name, grad)
    if grad.shape != shape or grad.dtype != dtype:
        raise ValueError(
            f"{where}: {name} must have shape {shape} and dtype {dtype}, got {grad.shape} and {grad.dtype}"
        )
    if not grad.flags.c_contiguous or not grad.flags.writeable or not grad.flags.aligned:
        raise ValueError(f"{where}: {name} must be writable and C-contiguous, got {_laid(grad, grad.strides)}")
    return grad


def whole(what: str, value: Any, least: int = 1) -> int:
    """Return a setting as an int, whatever integer it is; ``what`` names it where it is none, or too low."""
    number = integer(what, value)
    if number < least:
        raise ValueError(f"{what} must be at least {least}, got {short(number)}")
    return number


def pair(where: str, name: str, value: Any, minimum: int = 1) -> tuple[int, int]:
    """Return ``value`` (an int or two) as (vertical, horizontal).

    Raises
    ------
    ValueError
        If it is neither, or smaller than ``minimum``.
    """
    if type(value) is int and value >= minimum:
        return value, value
    values = value if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2 or not all(isinstance(v, int | np.integer) and v >= minimum for v in values):
        raise ValueError(f"{where}: {name} must be an int >= {minimum} or a pair of them, got {short(value)}")
    return int(values[0]), int(values[1])


def image_shape(where: str, input_shape: Any) -> tuple[int, int, int, int]:
    """Return the (N, C, H, W) given to a backward call as ints, or raise ValueError."""
    n, c, h, w = _shape_given(where, input_shape, ("N", "C", "H", "W"))
    return n, c, h, w


def signal_shape(where: str, input_shape: Any) -> tuple[int, int, int, int]:
    """Return the (N, C, L) given to a backward call as the (N, C, 1, L) of images, or raise ValueError."""
    n, c, length = _shape_given(where, input_shape, ("N", "C", "L"))
    return n, c, 1, length


def _shape_given(where: str, input_shape: Any, axes: tuple[str, ...]) -> tuple[int, ...]:
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = (input_shape,)
    right = len(shape) == len(axes) and all(isinstance(n, int | np.integer) for n in shape)
    if not right or shape[0] < 0 or min(shape[1:]) < 1:
        raise ValueError(f"{where}: input_shape must be ({', '.join(axes)}), only N may be 0, got {short(input_shape)}")
    sizes = tuple(map(int, shape))
    check_count(where, "input_shape", *sizes)
    return sizes


@functools.cache
def _keywords(owner: Any) -> tuple[str, ...] | None:
    """Return what a class is called with by name, None where that may be anything."""
    parameters = owner.__signature__.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY))


def nearest(name: Any, known: Iterable[str | None]) -> str:
    """Return what to say behind an unknown name: the nearest of those known, or nothing."""
    import difflib  # for errors alone

    near = difflib.get_close_matches(name if isinstance(name, str) else short(name), [k for k in known if k], 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(what: str, name: Any, known: Iterable[str | None]) -> str:
    """Return what is wrong with a name that is none of those known."""
    names = [k for k in known if k]
    return f"unknown {what} {short(name)}; known are {', '.join(names)}{nearest(name, names)}"


def no_argument(where: str, name: str, known: Sequence[str], what: str = "argument") -> TypeError:
    """Return the error for a keyword that is none of those known: it brings up the nearest, else tells all."""
    import difflib  # for errors alone

    near = difflib.get_close_matches(name, known, 1, 0.5) or [k for k in known if k.startswith(name)]
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
    return TypeError(f"{where}: no {what} {name!r}; {hint}")


def check_name(what: str, name: Any, known: Collection[str | None]) -> None:
    """Raise ValueError unless a name, which may be any object, is one of those known."""
    if not isinstance(name, str | None) or name not in known:
        raise ValueError(unknown(what, name, known))


class _Signature:
    """What a class is called with, for help, editors and the reference: that of its constructor, not of ``__new__``."""

    def __get__(self, instance: object, owner: Any) -> inspect.Signature:
        if instance is not None:  # an instance that may be called has the signature of its call
            raise AttributeError("__signature__")
        if owner.__init__ is object.__init__:
            return inspect.Signature()
        _, *own = inspect.signature(owner.__init__).parameters.values()
        return inspect.Signature(own)


class Keywords:
    """Base of classes that people make: a keyword that one does not know is refused by its name, with the nearest."""

    __signature__ = _Signature()

    def __new__(cls, *values: Any, **given: Any) -> Self:
        if values and cls.__init__ is object.__init__:  # which takes anything from a class with a __new__
            raise TypeError(f"{cls.__name__}: takes no arguments, got {short(values[0])}")
        known: tuple[str, ...] | None = _keywords(cls) if given else None  # type: ignore[arg-type]
        for name in given:
            if known is not None and name not in known:
                if name == "inplace":  # as PyTorch's activations have it
                    raise TypeError(f"{cls.__name__}: no argument 'inplace'; leave it out: what can run in place does")
                raise no_argument(cls.__name__, name, known)
        return super().__new__(cls)


def by_dtype(function: Any) -> dict[np.dtype[Any], Any]:
    """Return the instances of a fused kernel function by dtype: a lookup, where a call would search."""
    return {
        np.dtype(np.float32): function["float"],
        np.dtype(np.float64): function["double"],
    }
