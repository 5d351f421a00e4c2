"""What a deep net on disk is worth, and what its layers look like; neither changes it."""

import itertools
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.data import Samples
from fastconv.deep.files import Paths, Record, check_length
from fastconv.deep.net import DeepNet, Watch
from fastconv.deep.storage import Mapped, Memory
from fastconv.deep.training import live_files, load, pixels
from fastconv.functional._check import flag


def evaluate(
    paths: Paths, samples: Samples, levels: int, *, in_memory: bool = False, limit: int | None = None,
    watch: Watch | None = None, window: int = 16 << 20, batch: int = 10_000,
) -> dict[str, Any]:  # fmt: skip
    """Measure a net on samples, without changing it.

    Parameters
    ----------
    paths : Paths
    samples : Samples
    levels : int
        Value of white.
    in_memory : bool
        Read all weights first.
    limit : int, optional
        Use so many samples only.
    watch : callable, optional
        Told how many layers were walked; it may raise to abandon the walk.
    window : int
        Bytes of weights worked on at a time.
    batch : int
        Samples that go through the layers at a time.

    Returns
    -------
    dict of str to float
        ``test_loss``, the mean cross-entropy in nats; ``test_accuracy``, a share in [0, 1]; ``seconds``;
        ``layer_samples_per_second``, samples times layers in a second.

    Raises
    ------
    ValueError, OSError
        If the files do not fit together, are torn, or another process is training the net.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import data, deep
    >>> digits = data.load("digits")
    >>> record = deep.Record(width=16, layers=100, alpha=0.1, activation="tanh", inputs=64, classes=10, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     found = deep.evaluate(paths, digits.test, digits.levels)
    >>> round(found["test_loss"], 2), round(found["test_accuracy"], 2)  # untrained
    (2.35, 0.18)
    """
    in_memory = flag("deep.evaluate: in_memory", in_memory)
    with _reading(paths):
        return _evaluate(paths, samples, levels, in_memory, limit, watch, window, batch)


def _evaluate(
    paths: Paths, samples: Samples, levels: int, in_memory: bool, limit: int | None, watch: Watch | None, window: int,
    batch: int,
) -> dict[str, Any]:  # fmt: skip
    record, head = load(paths)
    weights, _ = live_files(paths, record)
    images, labels = samples.images[:limit], samples.labels[:limit]
    if images[0].size != record.inputs:
        raise ValueError(f"{paths.weights} takes {record.inputs} pixels, the images have {images[0].size}")
    loss, right = 0.0, 0
    with closing(
        Memory(record.core, weights) if in_memory else Mapped(record.core, weights, writable=False)
    ) as storage:
        net = DeepNet(record.core, head, storage, window=window)
        start = time.perf_counter()
        for part in _parts(len(labels), batch):
            logits = net.logits(pixels(images[part], levels), watch)
            loss += float(F.cross_entropy(logits, labels[part], "sum"))
            right += int((logits.argmax(axis=1) == labels[part]).sum())
        seconds = time.perf_counter() - start
    return {
        "test_loss": loss / len(labels),
        "test_accuracy": right / len(labels),
        "seconds": seconds,
        "layer_samples_per_second": len(labels) * record.layers / seconds,
    }


def _parts(n: int, size: int) -> Iterator[slice]:
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def inspect(paths: Paths, ranges: int = 10) -> dict[str, Any]:
    """Look at the weights of a net, from its first layers to its last.

    Parameters
    ----------
    paths : Paths
    ranges : int
        Into how many runs of equally many layers it is cut.

    Returns
    -------
    dict
        What the record says (``width``, ``layers``, ``step``, ...); ``bytes`` of the weights; ``ranges``, a list of
        dicts: layers ``first`` to before ``end``, ``norm`` (Euclidean), ``min`` and ``max`` of their weights and
        biases, and how many of these are ``nan``.

    Raises
    ------
    ValueError, OSError
        If the files do not fit together, or another process is training the net.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import deep
    >>> record = deep.Record(width=8, layers=1000, alpha=0.03, activation="tanh", inputs=64, classes=10, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     found = deep.inspect(paths, ranges=2)
    >>> found["step"], found["bytes"]
    (0, 288000)
    >>> for row in found["ranges"]:
    ...     print(row["first"], row["end"], round(row["norm"], 3), row["nan"])
    0 500 0.103 0
    500 1000 0.104 0
    """
    with _reading(paths):
        return _inspect(paths, ranges)


def _inspect(paths: Paths, ranges: int) -> dict[str, Any]:
    record = Record.read(paths.record)
    weights, _ = live_files(paths, record)
    check_length(weights, record.weight_bytes, f"{record.layers} layers of width {record.width}")
    cuts = [record.layers * i // ranges for i in range(ranges + 1)]
    with closing(Mapped(record.core, weights, writable=False)) as storage:
        rows = [
            {"first": first, "end": end, **_summary(storage, first, end)}
            for first, end in itertools.pairwise(cuts)
            if end > first
        ]
    return {**record.__dict__, "bytes": record.weight_bytes, "ranges": rows}


def _summary(storage: Mapped, first: int, end: int) -> dict[str, float]:
    """Return norm, min, max and NaN count of the weights of layers [first, end)."""
    square, low, high, bad = 0.0, np.inf, -np.inf, 0
    step = max(1, (4 << 20) // (storage.core.row * 4))
    for i in range(first, end, step):
        values = storage.window(i, min(i + step, end))
        square += float(np.einsum("ij,ij->", values, values, dtype=np.float64))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        bad += int(np.isnan(values).sum())
        storage.done(i, min(i + step, end))
    return {"norm": square**0.5, "min": low, "max": high, "nan": bad}


@contextmanager
def _reading(paths: Paths) -> Iterator[None]:
    """Keep the net as it is; where there is none, its record says so."""
    if not paths.record.is_file():
        Record.read(paths.record)
    with paths.lock(shared=True):
        yield
