"""What people give to a fit: batches, arrays in any of their forms, generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, Protocol

import numpy as np

from fastconv.data import Batches


class Batched(Protocol):
    """What ``fit`` trains on: a length and, once an epoch, its batches."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class Loss(Protocol):
    """What is minimised."""

    def __call__(self, output: np.ndarray, target: np.ndarray) -> float: ...
    def backward(self) -> np.ndarray: ...


def is_array(value: Any) -> bool:
    """Return whether something holds the numbers of all samples: an array, a tensor, a list of numbers or lists."""
    if isinstance(value, list):
        return bool(value) and (is_array(value[0]) or isinstance(value[0], int | float | np.number))
    return hasattr(value, "__array__") and not isinstance(value, np.generic)


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return an array of what holds numbers.

    Raises
    ------
    TypeError
        If it holds none.
    """
    if isinstance(value, np.ndarray):
        return value
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"Trainer.fit: {name} must hold numbers, got {type(value).__name__} of {found.dtype}")
    return found


def samples_of(given: Any) -> tuple[np.ndarray, ...] | None:
    """Return (inputs, targets) or (inputs, targets, weights) where that is what was given; None of batches."""
    pair = isinstance(given, tuple) or (
        isinstance(given, list) and len(given) in (2, 3) and all(map(is_array, given)) and not _is_batch(given[0])
    )
    if not pair:
        return None
    if len(given) not in (2, 3):
        raise ValueError(f"Trainer.fit: a tuple must be (inputs, targets) or with their weights, got {len(given)}")
    names = ("the inputs", "the targets", "the weights")
    return tuple(_as_array(name, part) for name, part in zip(names, given, strict=False))


def _is_batch(part: Any) -> bool:
    """Return whether a member of a list is a batch of two arrays, as in a list of batches that are lists."""
    return isinstance(part, list) and len(part) == 2 and all(isinstance(a, np.ndarray) for a in part)


def parted(train: Any, more: Sequence[Any], validation: Any) -> tuple[Any, Any]:
    """Return training and validation data of the positional arguments of a fit.

    ``fit(train)``, ``fit(train, validation)``, and with arrays ``fit(X, Y)`` and ``fit(X, Y, validation)``.
    """
    rest = list(more)
    if rest and rest[0] is not None and is_array(train) and is_array(rest[0]) and samples_of(train) is None:
        train = (train, rest.pop(0))
    elif is_array(train) and isinstance(train, np.ndarray):
        raise TypeError(f"Trainer.fit: got inputs of shape {train.shape} without their targets: fit(X, Y, epochs=...)")
    if rest and validation is None:
        validation = rest.pop(0)
    if rest:
        raise TypeError(f"Trainer.fit: takes training data and validation data, got {len(rest)} more")
    return train, validation


class Stream:
    """Batches that a generator gives, or a function that makes one for every epoch; their number is not known."""

    def __init__(self, given: Iterator[Any] | Callable[[], Iterable[Any]], epochs: int) -> None:
        if not callable(given) and epochs > 1:
            raise ValueError(
                f"Trainer.fit: the training data are a {type(given).__name__}, which gives its batches once, and "
                f"{epochs} epochs need them; pass the function that makes it, or a list of the batches"
            )
        self.given = given

    def __iter__(self) -> Iterator[Any]:
        return iter(self.given()) if callable(self.given) else self.given


def _as_batches(given: Any, epochs: int, batch_size: int, seed: int, dtype: Any) -> Any:
    """Return training data as something that gives its batches once an epoch."""
    if (samples := samples_of(given)) is not None:
        x, y, *weight = samples
        return Batches(x, y, batch_size, seed, dtype=dtype, sample_weight=weight[0] if weight else None)
    if isinstance(given, Iterator) or (callable(given) and not isinstance(given, Sized)):
        return Stream(given, epochs)
    if not isinstance(given, Sized) or not isinstance(given, Iterable):
        raise TypeError(
            f"Trainer.fit: the training data are a {type(given).__name__}; give arrays, fastconv.data.Batches, a list "
            "of (input, target) batches, a generator of them, or a function that makes one"
        )
    return given


def _as_validation(given: Any, batch_size: int, dtype: Any) -> Any:
    """Return validation data as something that gives batches; None as it is."""
    if given is None or (samples := samples_of(given)) is None:
        return given
    x, y, *weight = samples
    return Batches(x, y, batch_size, shuffle=False, dtype=dtype, sample_weight=weight[0] if weight else None)


def as_given(
    train: Any, validation: Any, epochs: int, batch_size: int, seed: int, dtype: Any, epoch: int
) -> tuple[Batched, Iterable[Any] | None]:  # fmt: skip
    """Return the batches of a fit that begins in an epoch, made of arrays where such are given.

    Raises
    ------
    ValueError
        If there are none, or validation data are given once for several epochs.
    """
    batches = _as_batches(train, epochs, batch_size, seed, dtype)
    if batches is not train and isinstance(batches, Batches):
        batches.position = (epoch, 0)
    validation = _as_validation(validation, batch_size, dtype)
    if isinstance(batches, Sized) and len(batches) == 0:
        raise ValueError("Trainer.fit: the training data have no batch")
    if isinstance(validation, Sized) and len(validation) == 0:
        raise ValueError("Trainer.fit: the validation data have no batch; leave them out (None) or add some")
    if isinstance(validation, Iterator) and epochs > 1:
        raise ValueError(
            f"Trainer.fit: validation is a {type(validation).__name__}, which gives its batches once, and {epochs} "
            "epochs need them; make a list of it"
        )
    return batches, validation


def unpacked(batch: Any) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Return input, target and what a loss is given beside them: nothing, or what the samples weigh.

    Raises
    ------
    TypeError
        If a batch is neither (input, target) nor (input, target, weights).
    """
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        got = f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
        raise TypeError(f"a batch must be (input, target) or (input, target, weights), got {got}")
    x, y, *weight = batch
    return x, y, tuple(weight)
