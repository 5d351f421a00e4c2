"""A residual core of any depth as a layer, which trains itself."""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.functional._check import check_array, number
from fastconv.functional.residual import (
    ResidualCore,
    backward_workspace,
    from_blocks,
    residual_backward,
    residual_forward,
    to_blocks,
)
from fastconv.graph.operation import Spec
from fastconv.mapped import Mapping
from fastconv.nn.base import Array, Module, initial, next_generator, size

if TYPE_CHECKING:  # imported where a file is: others do not wait for it
    from pathlib import Path

    from fastconv.locks import Lock


class _File:
    """The weights of a layer in a mapped file: whose they are, and whether they are still there."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(open(path, "r+b"))
            nbytes, length = 4 * shape[0] * shape[1], os.fstat(file.fileno()).st_size
            if length != nbytes:
                raise ValueError(f"DeepResidual: {shape[0]} layers take {nbytes} bytes, {path} has {length}")
            self.array: Array = np.memmap(file, "<f4", "r+", shape=shape)
            self.mapping = Mapping(path, file.fileno(), getattr(self.array, "_mmap"))  # noqa: B009
            weakref.finalize(self, opened.pop_all().close)
        self._lock: weakref.finalize | None = None
        self._process = 0

    def __reduce__(self) -> Any:
        return type(None), ()  # copies and pickles have their weights in memory

    @contextlib.contextmanager
    def used(self, *, change: bool) -> Iterator[None]:
        """See for a block that no other process changes the weights and that they are there, before and after it.

        Raises
        ------
        BlockingIOError
            If another process trains them or, where they are to ``change``, reads them.
        ValueError, FileNotFoundError
            If the file has become shorter, or its name is that of another.
        """
        from fastconv.locks import Lock

        with contextlib.ExitStack() as held:
            if self._lock is None or self._process != os.getpid():  # a forked process has to ask for itself
                busy = "is training these weights, or reading them" if change else "is training these weights"
                lock = Lock(self.path, f"another process {busy}; try again when it has ended", shared=not change)
                if change:
                    self._lock, self._process = weakref.finalize(self, _give_up, lock, os.getpid()), os.getpid()
                else:
                    held.enter_context(lock)
            self.mapping.check_name()
            self.mapping.check_length()
            yield
            self.mapping.check_lost()

    def release(self) -> None:
        """Give the weights up to other processes, until they are to change again."""
        if self._lock is not None:
            self._lock()
            self._lock = None


def _give_up(lock: Lock, process: int) -> None:
    if os.getpid() == process:  # in a forked process it is the parent's
        lock.close()


class Steps:
    """How the steps go that a layer takes inside `backward`: as the layer says, and an optimiser that leads it.

    It is no part of a model's state; an optimiser that is copied along with its model leads the copy.
    """

    def __init__(self) -> None:
        self._leader: Callable[[], Any] = lambda: None

    def __reduce__(self) -> Any:
        return Steps, ()

    def follow(self, leader: Any) -> None:
        """Go by ``leader.layer_settings()``, that is (factor of the rate, decay of weights, of biases), while it is."""
        self._leader = weakref.ref(leader)

    def settings(self) -> tuple[float, float, float]:
        """Return the factor of the rate, the decay of the weights and that of the biases."""
        leader = self._leader()
        return (1.0, 0.0, 0.0) if leader is None else leader.layer_settings()


class DeepResidual(Module):
    """L layers ``h = h + alpha * act(h W_i + b_i)`` on (N, width), updated by their own SGD inside `backward`.

    K. He et al., "Deep residual learning for image recognition", CVPR 2016.

    There is no gradient array as large as the weights: `backward` walks the layers from last to first and
    takes each a step along, ``W -= lr * dW``, while it passes the gradient on. The optimiser of the net has no part in
    that, unless it leads the layer: ``optimizer.add_layers(model)`` has its schedule and its weight decay, and a
    `Trainer`'s L2 penalty, hold here too. In evaluation mode `backward` changes nothing.

    Parameters
    ----------
    width : int
        D, 1 to 512.
    layers : int
        L.
    alpha : float, optional
        1 / sqrt(L) by default.
    activation : {"softsign", "tanh", "relu"}
    lr : float
        Learning rate; may be set at any time. Of a layer that an optimiser leads it is the rate beside that one's
        first: both rise and fall together.
    file : path, optional
        A file of float32 layers (see `fastconv.deep.files`) to map: weights live there and change there. From its
        first training step on the layer has the file for itself, until it is gone or `release` is called. Copies and
        pickles of the layer have their weights in memory.

    Attributes
    ----------
    weight : ndarray, shape (layers, width * width + width)
        Each row W (in, out) and then b; a buffer of the state. At first uniform in +-0.001, biases 0, unless
        from a file.

    Raises
    ------
    ValueError
        If a parameter is out of range or the file has another length; in any use, if the file has become shorter.
    BlockingIOError, FileNotFoundError
        In `forward` and `backward`, if another process, or layer, trains the weights of the file, or the file was
        removed or replaced.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.DeepResidual(width=4, layers=100, lr=0.1)
    >>> before = layer.weight.copy()
    >>> layer(np.ones((2, 4), np.float32)).shape
    (2, 4)
    >>> layer.backward(np.ones((2, 4), np.float32)).shape
    (2, 4)
    >>> bool((layer.weight != before).all())
    True
    """

    buffer_names = ("weight",)
    trains_itself = True

    def __init__(
        self,
        width: int,
        layers: int,
        alpha: float | None = None,
        activation: str = "softsign",
        lr: float = 0.01,
        file: str | Path | None = None,
    ) -> None:
        width, layers = size("DeepResidual", "width", width), size("DeepResidual", "layers", layers)
        alpha = None if alpha is None else number("DeepResidual", "alpha", alpha)
        self._core = ResidualCore(width, layers, alpha, activation)
        lr = number("DeepResidual", "lr", lr)
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"DeepResidual: lr must be finite and not negative, got {lr}")
        self.width, self.layers, self.alpha, self.activation = width, layers, self._core.factor, activation
        self.lr, self.file = lr, None if file is None else str(file)
        shape = (layers, self._core.row)
        self.steps = Steps()
        self._file: _File | None = None
        if file is None:
            weight = initial(shape, -1e-3, 1e-3, next_generator())
            if weight.flags.writeable:
                weight[:, width * width :] = 0
        else:
            from pathlib import Path

            self._file = _File(Path(file), shape)
            weight = self._file.array
        self.weight = weight
        self._marks = self._room = np.empty(0, np.float32)

    @property
    def weight(self) -> Array:
        """The layers; a file that has become shorter is an error."""
        if (file := self._mapped) is not None:
            file.mapping.check_length()
        return self._weight

    @weight.setter
    def weight(self, value: Array) -> None:
        self._weight = value

    @property
    def _mapped(self) -> _File | None:
        """The file, while the weights are those in it: other arrays may take their place."""
        file = self._file
        return file if file is not None and file.array is self._weight else None

    def _used(self, change: bool) -> contextlib.AbstractContextManager[None]:
        file = self._mapped
        return contextlib.nullcontext() if file is None else file.used(change=change)

    def _changing(self) -> contextlib.AbstractContextManager[None]:
        return self._used(change=True)

    def release(self) -> None:
        """Give the file up to other processes; the next training step asks for it again."""
        if self._file is not None:
            self._file.release()

    def output_specs(self, *inputs: Spec) -> tuple[Spec, ...]:
        self._check(inputs[0])
        return (Spec(inputs[0].shape, self.weight.dtype.newbyteorder("=")),)

    def _check(self, input: Array | Spec) -> None:
        if input.ndim != 2 or input.shape[1] != self.width:
            raise ValueError(f"DeepResidual: input must be (N, {self.width}), got {input.shape}")

    def forward(self, input: Array) -> Array:
        check_array("DeepResidual", "input", input)
        self._check(input)
        h = to_blocks(np.asarray(input, self.weight.dtype.newbyteorder("=")))
        chunk = self._core.chunk(max(len(input), 1), h.itemsize)
        shape = (-(-self.layers // chunk), *h.shape)
        if self._marks.shape != shape or self._marks.dtype != h.dtype:
            self._marks = np.empty(shape, h.dtype)
            self._room = backward_workspace(self._core, max(len(input), 1), chunk, h.dtype)
        with self._used(change=self.training):
            residual_forward(self._core, np.asarray(self.weight), h, chunk=chunk, marks=self._marks)
        return self._save(from_blocks(h, len(input)), chunk)

    def backward(self, grad_output: Array) -> Array:
        grad_output, chunk = self._recall(grad_output)
        n = len(grad_output)
        g = to_blocks(np.asarray(grad_output, grad_output.dtype.newbyteorder("=")), "zero")
        factor, *decay = self.steps.settings() if self.training else (0.0, 0.0, 0.0)
        with self._used(change=self.training):
            residual_backward(
                self._core, np.asarray(self.weight), g, self._marks, self.lr * factor, chunk=chunk,
                workspace=self._room, weight_decay=decay[0], bias_decay=decay[1],
            )  # fmt: skip
        return from_blocks(g, n)
