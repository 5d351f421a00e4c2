"""A deep net as training and evaluation see it: a head around a core, whose weights a storage holds."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastconv import config
from fastconv.deep.head import Head
from fastconv.deep.storage import Mapped, Memory, pieces
from fastconv.functional.residual import (
    ResidualCore,
    backward_workspace,
    blocks_of,
    from_blocks,
    residual_backward,
    residual_forward,
    to_blocks,
)

Watch = Callable[[int], None]  # is told how many layers were walked
WINDOWS = 1 << 20, 64 << 20  # bytes: shorter ones do not pay, longer ones keep a watch waiting


class Fit(NamedTuple):
    """How a streamed net is walked, and what that takes."""

    chunk: int
    window: int
    nbytes: int


def fit(core: ResidualCore, samples: int, nbytes: int, *, chunk: int | None = None, files: int = 1) -> Fit:
    """Return chunk and window with which a streamed step takes at most ``nbytes``, or else as few as can be.

    Longer chunks leave fewer marks, but take longer tapes and windows: the shortest that fits is the fastest.

    Parameters
    ----------
    core : ResidualCore
    samples : int
        Of a batch.
    nbytes : int
        What windows, marks, tapes and gradients may take.
    chunk : int, optional
        The longest chunk to consider; it is halved until it fits.
    files : int
        Weights files that have a window at a time: 2 where steps go to another one.
    """

    def plan(length: int) -> Fit:
        kept = core.step_bytes(samples, length, config.threads())
        shortest, longest = max(WINDOWS[0], length * core.row * 4), (nbytes - kept) // (2 * files)
        window = max(shortest, min(WINDOWS[1], longest))
        return Fit(length, window, kept + files * window)

    length = min(chunk or core.chunk(samples), core.layers)
    best = plan(length)
    while best.nbytes > nbytes and (length < core.layers if chunk is None else length > 1):
        length = min(2 * length, core.layers) if chunk is None else length // 2
        best = min(best, plan(length), key=lambda plan: plan.nbytes)
    return best


class DeepNet:
    """Forward, and one exact step of SGD, over windows of layers.

    Parameters
    ----------
    core : ResidualCore
    head : Head
    weights : Memory or Mapped
    chunk : int, optional
        Layers between two kept states; chosen from the cache by default, changes no bit.
    window : int
        Bytes of weights worked on between two looks at ``watch``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import deep, nn
    >>> from fastconv.deep.storage import Memory
    >>> record = deep.Record(width=16, layers=1000, alpha=0.03, activation="tanh", inputs=2, classes=2, seed=0)
    >>> x, y, loss = np.array([[0, 1], [1, 0]], np.float32), np.array([0, 1]), nn.CrossEntropyLoss()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     head = deep.Head.load(paths.head, record.inputs, record.width, record.classes)
    ...     net = deep.DeepNet(record.core, head, Memory(record.core, paths.weights))
    >>> for _ in range(3):
    ...     print(round(float(loss(net.forward(x), y)), 3))
    ...     net.backward(loss.backward(), layer_rate=0.1, head_rate=1.0)
    1.444
    0.319
    0.172
    """

    def __init__(
        self, core: ResidualCore, head: Head, weights: Memory | Mapped, chunk: int | None = None, window: int = 16 << 20
    ) -> None:
        self.core, self.head, self.weights = core, head, weights
        self._chunk, self._window = chunk, window
        self._plan: tuple[int, int] = (-1, 0)

    def logits(self, x: np.ndarray, watch: Watch | None = None) -> np.ndarray:
        """Return the class scores (N, classes) of pixels (N, inputs).

        Parameters
        ----------
        x : ndarray of shape (N, inputs), float32
            Pixels in [0, 1].
        watch : callable, optional
            Told how many layers were walked; it may raise to abandon the walk.
        """
        h = to_blocks(self.head.embed(x))
        for _, window in self._walk(pieces(self.core, self._window), watch):
            residual_forward(self.core, window, h)
        return self.head.logits(from_blocks(h, len(x)))

    def forward(self, x: np.ndarray, watch: Watch | None = None) -> np.ndarray:
        """As `logits`, keeping what `backward` needs; ``watch`` may raise to abandon the step, nothing is changed.

        Parameters
        ----------
        x : ndarray of shape (N, inputs), float32
            Pixels in [0, 1].
        watch : callable, optional
            Told how many layers were walked; it may raise to abandon the walk.

        Returns
        -------
        ndarray of shape (N, classes)
        """
        self._prepare(len(x))
        self._x, self._embedded = x, self.head.embed(x)
        h = to_blocks(self._embedded)
        for i, window in self._walk(self._ranges, watch):
            residual_forward(self.core, window, h, chunk=self.chunk, marks=self._marks_of(i))
        self._h = from_blocks(h, len(x))
        return self.head.logits(self._h)

    def backward(
        self,
        grad: np.ndarray,
        layer_rate: float,
        head_rate: float,
        watch: Watch | None = None,
        updated: Memory | Mapped | None = None,
    ) -> None:
        """Update all weights: head in place, layers in place or into ``updated``.

        Parameters
        ----------
        grad : ndarray
            Gradient of the scores (N, classes).
        layer_rate, head_rate : float
            Learning rates.
        watch : callable, optional
            Told how many layers were walked; it may raise to abandon the walk.
        updated : Memory or Mapped, optional
            Where the new layers go.
        """
        g = to_blocks(self.head.descend_output(self._h, grad, head_rate), "zero")
        for i, window in self._walk(self._ranges, watch, backward=True, beside=updated):
            target = updated.window(*self._ranges[i], change=True) if updated else None
            residual_backward(
                self.core, window, g, self._marks_of(i), layer_rate,
                chunk=self.chunk, updated=target, workspace=self._workspace,
            )  # fmt: skip
        self.head.descend_input(self._x, self._embedded, from_blocks(g, len(grad)), head_rate)

    def _prepare(self, samples: int) -> None:
        """Make the buffers for a batch, unless they are there."""
        blocks = blocks_of(samples)
        if self._plan[0] == blocks:
            return
        self.chunk = min(self._chunk or self.core.chunk(samples), self.core.layers)
        # A watch is looked at between two windows, so that windows are shorter if there are many samples.
        self._ranges = pieces(self.core, max(1, self._window // max(1, blocks // 16)), self.chunk)
        marks = -(-self.core.layers // self.chunk)
        self._marks = np.empty((marks, blocks, self.core.width, 16), np.float32)
        self._workspace = backward_workspace(self.core, samples, self.chunk)
        self._plan = (blocks, marks)

    def _marks_of(self, i: int) -> np.ndarray:
        first, end = self._ranges[i]
        return self._marks[first // self.chunk : -(-end // self.chunk)]

    def _walk(
        self,
        ranges: list[tuple[int, int]],
        watch: Watch | None,
        backward: bool = False,
        beside: Memory | Mapped | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        order = range(len(ranges))[:: -1 if backward else 1]
        for n, i in enumerate(order):
            if n + 1 < len(order):
                coming = ranges[order[n + 1]]
                self.weights.ahead(*coming)
                if beside is not None:
                    beside.ahead(*coming)
            yield i, self.weights.window(*ranges[i], change=backward and beside is None)
            for storage in (self.weights, beside):
                if storage is not None:
                    storage.done(*ranges[i])
            if watch is not None:
                watch(ranges[i][1] - ranges[i][0])
