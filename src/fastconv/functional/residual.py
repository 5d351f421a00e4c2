"""Residual cores of any depth: h <- h + alpha * act(h W_i + b_i), exact gradients, plain SGD inside backward.

The state is held as blocks of 16 samples, (blocks, D, 16): `to_blocks` and `from_blocks` convert. A chunk is a run
of layers: forward keeps the state before each chunk alone, backward makes the states within a chunk again.
"""

import math
import os
from dataclasses import dataclass

import numpy as np

import fastconv._ext.deep as _ext
from fastconv.choices import RESIDUAL_ACTIVATIONS as ACTIVATIONS
from fastconv.functional._check import (
    Array,
    check_apart,
    check_array,
    check_count,
    check_grad,
    check_rank,
    number,
    one_of,
    same_dtype,
    short,
)

__all__ = [
    "ACTIVATIONS", "MAX_WIDTH", "ResidualCore", "from_blocks", "residual_backward", "residual_forward", "to_blocks",
]  # fmt: skip

MAX_WIDTH = 512
TEAM = 4  # threads of a walk back at most: the gradient's own way through the layers takes about a fourth of it
CHUNKS = 16, 256  # layers: in shorter ones threads wait for each other, longer ones spare nothing more
TAPE_BYTES = 512 << 10  # the longest tape: half of a core's second-level cache, where it stays
DECAY_BYTES = 1 << 20  # weights kept beside their new values at a time, where they decay
MARK_BYTES = 64 << 20  # all marks, or a twentieth of the weights if that is more: beyond it tapes get longer


@dataclass(frozen=True)
class ResidualCore:
    """What a residual core is, its weights apart.

    Parameters
    ----------
    width : int
        D, 1 to 512.
    layers : int
        L, at least 1.
    alpha : float, optional
        Factor of every layer's contribution; 1 / sqrt(L) by default.
    activation : {"softsign", "tanh", "relu"}

    Raises
    ------
    ValueError
        If a parameter is out of range.
    TypeError
        If it is not of its type.
    """

    width: int
    layers: int
    alpha: float | None = None
    activation: str = "softsign"

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("layers", self.layers)):
            if not isinstance(value, int | np.integer):
                raise TypeError(f"a residual core's {name} must be an int, got {short(value)}")
        if not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f"a residual core's width must be in [1, {MAX_WIDTH}], got {self.width}")
        if self.layers < 1:
            raise ValueError(f"a residual core needs at least 1 layer, got {self.layers}")
        check_count("a residual core", "weights", self.layers, self.row)
        if self.alpha is None:
            object.__setattr__(self, "alpha", 1.0 / math.sqrt(self.layers))
        object.__setattr__(self, "alpha", number("a residual core", "alpha", self.alpha))
        if not (math.isfinite(self.factor) and self.factor > 0.0):
            raise ValueError(f"alpha must be positive and finite, got {self.alpha}")
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {short(self.activation)}; known are {', '.join(ACTIVATIONS)}")

    @property
    def factor(self) -> float:
        """Alpha as a float."""
        assert self.alpha is not None
        return self.alpha

    @property
    def row(self) -> int:
        """Numbers of a layer: D * D weights (in, out), then D biases."""
        return self.width * (self.width + 1)

    def state_bytes(self, samples: int, itemsize: int = 4) -> int:
        """Return the bytes of a batch's state, padded to blocks."""
        return blocks_of(samples) * 16 * self.width * itemsize

    def step_bytes(self, samples: int, chunk: int, threads: int) -> int:
        """Return the bytes of marks, tapes and gradients that a step in float32 uses beside the weights."""
        state, tapes = self.state_bytes(samples), max(2, min(threads, TEAM))  # one thread takes two in turn
        return (-(-self.layers // chunk) + 2) * state + _workspace_size(state, chunk, tapes)

    def chunk(self, samples: int, itemsize: int = 4) -> int:
        """Return a good chunk length for a batch: the tape stays in the cache, the marks stay small.

        Longer chunks leave fewer marks, but take longer tapes: where marks would be large beside the weights, the
        two share the memory.
        """
        state = self.state_bytes(samples, itemsize)
        chunk = max(CHUNKS[0], min(CHUNKS[1], _tape_bytes() // (2 * state)))
        room = max(self.layers * self.row * itemsize // 20, MARK_BYTES)
        while (marks := self.layers // chunk) * state > room and marks > 4 * chunk:  # two tapes of 2 * chunk states
            chunk *= 2
        return min(chunk, self.layers)


def _tape_bytes() -> int:
    try:
        second = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):  # the system does not tell
        second = 0
    return min(TAPE_BYTES, second // 2) if second > 0 else TAPE_BYTES // 2


def blocks_of(samples: int) -> int:
    """Return the blocks of 16 that hold ``samples``."""
    return -(-samples // 16)


def to_blocks(x: Array, pad: str = "repeat") -> Array:
    """Return x (N, D) as blocks (ceil(N / 16), D, 16), padded by the last sample or by zeros.

    States are padded by repetition, so that the padding is finite where the batch is; gradients by zeros, so that
    it contributes nothing.
    """
    same_dtype("to_blocks", x=x)
    check_rank("to_blocks", "x", x, 2)
    one_of("to_blocks: pad", pad, ("repeat", "zero"))
    n, width = x.shape
    blocks = blocks_of(n)
    rows = np.zeros((blocks * 16, width), x.dtype)
    rows[:n] = x
    if n and pad == "repeat":
        rows[n:] = x[-1]
    return np.ascontiguousarray(rows.reshape(blocks, 16, width).transpose(0, 2, 1))


def from_blocks(h: Array, samples: int) -> Array:
    """Return the first ``samples`` of blocks (B, D, 16) as (N, D), C-contiguous."""
    same_dtype("from_blocks", h=h)
    check_rank("from_blocks", "h", h, 3)
    blocks, width, lanes = h.shape
    if lanes != 16 or not isinstance(samples, int | np.integer) or not 0 <= samples <= blocks * 16:
        raise ValueError(f"from_blocks: h must be (blocks, D, 16) and hold {samples!r} samples, got shape {h.shape}")
    return np.ascontiguousarray(h.transpose(0, 2, 1).reshape(blocks * 16, width)[:samples])


def residual_forward(
    core: ResidualCore, weights: Array, h: Array, *, chunk: int | None = None, marks: Array | None = None
) -> Array:
    """Take the state through a run of layers, in place.

    Parameters
    ----------
    core : ResidualCore
    weights : ndarray
        (layers, D * D + D), C-contiguous: any run of the core's layers.
    h : ndarray
        State (blocks, D, 16); replaced.
    chunk : int, optional
        Layers between two marks; changes no bit of the result.
    marks : ndarray, optional
        (ceil(layers / chunk), blocks, D, 16): receives the state before each chunk, for `residual_backward`.

    Returns
    -------
    ndarray
        ``h``.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit.
    """
    where = "residual_forward"
    same_dtype(where, {"marks": marks}, weights=weights, h=h)
    _check_core(where, core)
    chunk = max(1, (32 << 10) // (core.row * h.itemsize)) if chunk is None else chunk
    chunk = _check_run(where, core, weights, h, chunk, marks)
    check_apart(where, {"h": h, "marks": marks}, {"weights": weights})
    _ext.forward(weights, h, marks, chunk, ACTIVATIONS.index(core.activation), core.factor)
    return h


def residual_backward(
    core: ResidualCore,
    weights: Array,
    g: Array,
    marks: Array,
    rate: float,
    *,
    chunk: int,
    updated: Array | None = None,
    workspace: Array | None = None,
    weight_decay: float = 0.0,
    bias_decay: float = 0.0,
) -> Array:
    """Take the gradient of the state back through a run of layers, and its weights a step of SGD along.

    Parameters
    ----------
    core, weights, marks, chunk
        As given to `residual_forward`; ``weights`` are unchanged unless ``updated`` is None.
    g : ndarray
        Gradient of the state after the run (blocks, D, 16), zero in the padding; replaced by that before it.
    rate : float
        Learning rate: new weights are ``weights - rate * gradient``, the gradient summed over the batch.
    updated : ndarray, optional
        Receives the new weights; by default ``weights`` itself.
    workspace : ndarray, optional
        From `backward_workspace`, to be used again.
    weight_decay, bias_decay : float
        Times the old weights W, or biases b, are added to their gradients, as SGD does; at least 0.

    Returns
    -------
    ndarray
        ``g``.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes do not fit, or a number is out of its range.
    """
    where = "residual_backward"
    updated = weights if updated is None else updated
    dtype = same_dtype(where, weights=weights, updated=updated, g=g, marks=marks)
    _check_core(where, core)
    chunk = _check_run(where, core, weights, g, chunk, marks)
    check_grad(where, "updated", updated, weights.shape, dtype)
    rate = number(where, "rate", rate)
    if not math.isfinite(rate):
        raise ValueError(f"{where}: the learning rate must be finite, got {rate}")
    decay = number(where, "weight_decay", weight_decay), number(where, "bias_decay", bias_decay)
    for name, value in zip(("weight_decay", "bias_decay"), decay, strict=True):
        if not 0 <= value < math.inf:
            raise ValueError(f"{where}: {name} must be finite and at least 0, got {value}")
    state = g.shape[0] * core.width * 16
    size = _workspace_size(state, chunk)
    if workspace is not None:
        check_array(where, "workspace", workspace)
        check_grad(where, "workspace", workspace, (workspace.size,), workspace.dtype)
    if workspace is None or workspace.size < size or workspace.dtype != dtype:
        workspace = backward_workspace(core, g.shape[0] * 16, chunk, dtype)
    written = {"g": g, "updated": updated, "workspace": workspace}
    check_apart(where, written, {"weights": weights, "marks": marks}, in_place=("weights",))
    tapes = workspace[: size - state].reshape(TEAM, -1)
    scratch = workspace[size - state : size]
    about = ACTIVATIONS.index(core.activation), core.factor, rate
    if not any(decay):
        _ext.backward(weights, updated, g, marks, tapes, scratch, chunk, *about)
        return g
    shrink = np.repeat(np.array(decay, dtype) * dtype.type(rate), (core.width**2, core.width))
    in_place = updated.ctypes.data == weights.ctypes.data
    step = max(1, DECAY_BYTES // (core.row * dtype.itemsize * chunk)) * chunk
    room = np.empty((min(step, len(weights)) if in_place else 0, core.row), dtype)
    for first in reversed(range(0, len(weights), step)):  # the old weights are needed until a run has its new ones
        old = weights[first : first + step]
        new = room[: len(old)] if in_place else updated[first : first + step]
        kept = marks[first // chunk : (first + step) // chunk]
        _ext.backward(old, new, g, kept, tapes, scratch, chunk, *about)
        new -= shrink * old
        if in_place:
            updated[first : first + step] = new
    return g


def _workspace_size(state: int, chunk: int, tapes: int = TEAM) -> int:
    return (tapes * 2 * chunk + 1) * state


def backward_workspace(core: ResidualCore, samples: int, chunk: int, dtype: np.dtype | type = np.float32) -> Array:
    """Return memory for `residual_backward`: a tape for each thread and a state, aligned to 64 bytes."""
    dtype = np.dtype(dtype)
    nbytes = _workspace_size(core.state_bytes(samples, dtype.itemsize), chunk)
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype)


def _check_core(where: str, core: ResidualCore) -> None:
    if not isinstance(core, ResidualCore):
        raise TypeError(f"{where}: core must be a ResidualCore, got {type(core).__name__}")


def _check_run(where: str, core: ResidualCore, weights: Array, h: Array, chunk: int, marks: Array | None) -> int:
    """Check the arrays of a run of layers; return the chunk, no longer than the run."""
    dtype = weights.dtype.newbyteorder("=")
    native = weights.flags.c_contiguous and weights.flags.aligned and weights.dtype.isnative
    if weights.ndim != 2 or weights.shape[1] != core.row or not native:
        raise ValueError(
            f"{where}: weights of width {core.width} must be (layers, {core.row}), C-contiguous, aligned and native, "
            f"got {weights.shape}, {weights.dtype} at strides {weights.strides}"
        )
    check_grad(where, "state", h, (h.shape[0] if h.ndim else 0, core.width, 16), dtype)
    if not isinstance(chunk, int | np.integer) or chunk < 1:
        raise ValueError(f"{where}: a chunk must have at least 1 layer, got {short(chunk)}")
    chunk = min(int(chunk), max(len(weights), 1))
    if marks is not None:
        check_grad(where, "marks", marks, (-(-len(weights) // chunk), *h.shape), dtype)
    return chunk
