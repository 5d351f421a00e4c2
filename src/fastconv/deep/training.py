"""Training of a deep net on disk, and what of it survives a kill (see `files`)."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.data import Batches, Dataset, Samples
from fastconv.deep.files import RECORD_BYTES, Paths, Record, check_length, preallocate, sync_file
from fastconv.deep.head import Head
from fastconv.deep.net import DeepNet, Watch
from fastconv.deep.storage import Mapped, Memory, initialize_weights
from fastconv.functional._check import flag, one_of
from fastconv.schedule import Constant, Schedule
from fastconv.serialize.files import check_replaceable
from fastconv.steps import Report


def pixels(images: np.ndarray, levels: int) -> np.ndarray:
    """Return images as rows of pixels in [0, 1], float32, in the order (C, H, W)."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(levels)


def training_part(dataset: Dataset, limit: int | None, batch: int) -> Samples:
    """Return the first ``limit`` training samples, which must make at least one batch."""
    images, labels = dataset.train.images[:limit], dataset.train.labels[:limit]
    if not 1 <= batch <= len(images):
        raise ValueError(f"batch must be in [1, {len(images)}], the number of training samples, got {batch}")
    return Samples(images, labels)


class Training:
    """A net on disk in training; one process at a time.

    Parameters
    ----------
    paths : Paths
        Files of the net; they must exist.
    dataset : Dataset
        Its training part gives the batches.
    batch : int
    layer_rate, head_rate : float
        Learning rates of plain SGD on the mean loss of a batch.
    seed : int
        Of the order of the samples.
    in_memory : bool
        Hold all weights in memory; `save` writes them. Otherwise the file is mapped and every step changes it.
    durability : {"run", "step"}
        Of a mapped file: update in place, or write every step to the other generation of the files.
    train_limit : int, optional
        Use so many training samples only.
    schedule : callable, optional
        From the steps that the net has had to a factor on both rates.
    position : tuple of int
        (epoch, index) of the first batch; after an epoch's last batch comes the next epoch.
    chunk, window
        See `DeepNet`.
    seen : Record, optional
        What the other arguments were chosen by: a net that another process has changed since is refused.

    Raises
    ------
    ValueError, OSError
        If an argument is out of range, the files do not fit together or are torn, another process works on them, or
        the disk has no room for what a step or a save writes.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import data, deep
    >>> digits = data.load("digits")
    >>> record = deep.Record(width=16, layers=100, alpha=0.1, activation="tanh", inputs=64, classes=10, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     with deep.Training(paths, digits, batch=100, layer_rate=0.1, head_rate=0.5) as training:
    ...         losses = [training.step().loss for _ in range(60)]  # each step changes the files
    ...     found = deep.evaluate(paths, digits.test, digits.levels)
    >>> round(losses[0], 2), round(losses[-1], 2), round(found["test_accuracy"], 2)
    (2.45, 0.23, 0.91)
    """

    def __init__(
        self,
        paths: Paths,
        dataset: Dataset,
        *,
        batch: int = 16,
        layer_rate: float = 0.01,
        head_rate: float = 0.01,
        seed: int = 0,
        in_memory: bool = False,
        durability: str = "run",
        train_limit: int | None = None,
        schedule: Schedule | None = None,
        position: tuple[int, int] = (0, 0),
        chunk: int | None = None,
        window: int = 16 << 20,
        seen: Record | None = None,
    ) -> None:
        one_of("durability", durability, ("run", "step"))
        in_memory = flag("deep.Training: in_memory", in_memory)
        for name, rate in (("layer_rate", layer_rate), ("head_rate", head_rate)):
            if not (math.isfinite(rate) and rate > 0.0):
                raise ValueError(f"{name} must be positive and finite, got {rate}")
        for name, size in (("chunk", chunk), ("window", window)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if min(position) < 0:
            raise ValueError(f"position must be an epoch and an index of at least 0, got {position}")
        images, labels = training_part(dataset, train_limit, batch)
        self.levels, self.paths = dataset.levels, paths
        self.layer_rate, self.head_rate, self.schedule = layer_rate, head_rate, schedule or Constant()
        self.in_memory, self._two = in_memory, durability == "step" and not in_memory
        flat = np.ascontiguousarray(images.reshape(len(images), -1))
        self.batches = Batches(flat, labels, batch, seed=seed, drop_last=True)
        epoch, index = position
        self.batches.position = (epoch, index) if index < len(self.batches) else (epoch + 1, 0)
        self._lock = paths.lock()
        self._stores: list[Memory | Mapped] = []
        try:
            self._open(chunk, window, seen)
        except BaseException:
            self._close_files()
            raise

    def _open(self, chunk: int | None, window: int, seen: Record | None) -> None:
        self.record, head = load(self.paths, settle=True)
        if seen is not None and replace(seen, generation=0) != self.record:
            raise BlockingIOError(f"{self.paths.weights}: another process has changed this net just now; try again")
        if self.record.inputs != self.batches.batch(0, 0)[0].shape[1]:
            raise ValueError(
                f"{self.paths.weights} takes {self.record.inputs} pixels, the images have "
                f"{self.batches.batch(0, 0)[0].shape[1]}"
            )
        core = self.record.core
        self.weights = Memory(core, self.paths.weights) if self.in_memory else Mapped(core, self.paths.weights)
        self._stores.append(self.weights)
        self._other: Mapped | None = None
        if self._two:
            other = self.paths.generation(1)[0]
            preallocate(other, self.record.weight_bytes)
            self._other = Mapped(core, other)
            self._stores.append(self._other)
        self.saved_step = self.record.step
        self.net = DeepNet(core, head, self.weights, chunk, window)
        if self._in_place:  # a first write changes nothing, and shows that a step can write
            head.write(self.paths.head)
            self.record.write(self.paths)
        else:
            self._reserve()

    def _reserve(self) -> None:
        """See that there is room for the generation that comes next."""
        weights, head = self.paths.generation(1 - self.record.generation)
        if self.in_memory:
            preallocate(weights, self.record.weight_bytes)
        preallocate(head, self.net.head.nbytes)
        preallocate(self.paths.draft, RECORD_BYTES)

    def step(self, watch: Watch | None = None, changing: Callable[[], None] | None = None) -> Report:
        """Train on the next batch.

        Parameters
        ----------
        watch : callable, optional
            Told of the layers walked; it may raise to abandon the step until ``changing`` is called. The files are
            clean then; with durability "step", which changes the other generation, training is over.
        changing : callable, optional
            Called when the weights that count begin to change, after which the step should be let finish; never
            with durability "step".

        Returns
        -------
        Report

        Raises
        ------
        FloatingPointError
            If the loss is not finite; no weight has changed.
        OSError
            If the files cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from fastconv import data, deep
        >>> record = deep.Record(width=8, layers=50, alpha=0.1, activation="tanh", inputs=64, classes=10, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = deep.Paths.of(f"{folder}/net")
        ...     deep.create(paths, record)
        ...     with deep.Training(paths, data.load("digits"), batch=100, layer_rate=0.1, head_rate=0.5) as training:
        ...         for _ in range(3):
        ...             report = training.step()
        ...             print(report.step, round(report.loss, 2))
        1 2.54
        2 2.37
        3 2.35
        """
        start = time.perf_counter()
        for store in self._mapped:
            store.check_name()
        if not self._in_place and self.saved_step == self.record.step:
            self._reserve()
        x, labels = self.batches.batch(*self.batches.position)
        x = x / np.float32(self.levels)
        logits = self.net.forward(x, watch)
        loss = float(F.cross_entropy(logits, labels))
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in step {self.record.step + 1}; the weights are unchanged")
        grad = F.cross_entropy_backward(1.0, logits, labels)
        if changing is not None and not self._two:
            changing()
        after, position = self._after()
        if self._in_place:
            torn = replace(self.record, state=f"torn in step {after.step}")
            torn.mark(self.paths)
            self.record.state = torn.state
        factor = self.schedule(self.record.step)
        self.net.backward(grad, self.layer_rate * factor, self.head_rate * factor, watch, self._other)
        if self._in_place:  # room for it is there
            self.net.head.write(self.paths.head, sync=False)
            after.mark(self.paths)
        elif self._two:
            self._turn(after)
        vars(self.record).update(vars(after))
        self.batches.position = position
        if not self.in_memory:
            self.saved_step = after.step
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        return Report(self.record.step, loss, accuracy, time.perf_counter() - start)

    @property
    def _mapped(self) -> list[Mapped]:
        return [store for store in self._stores if isinstance(store, Mapped)]

    @property
    def _in_place(self) -> bool:
        return not self.in_memory and not self._two

    def _after(self) -> tuple[Record, tuple[int, int]]:
        """Return record and position as they are after the next step."""
        epoch, index = self.batches.position
        position = (epoch, index + 1) if index + 1 < len(self.batches) else (epoch + 1, 0)
        return replace(self.record, step=self.record.step + 1, state="clean", sampler=self._sampler(position)), position

    def _sampler(self, position: tuple[int, int]) -> dict[str, Any]:
        return {
            "seed": self.batches.seed, "batch": self.batches.batch_size, "epoch": position[0], "index": position[1],
            "samples": len(self.batches._labels), "layer_rate": self.layer_rate, "head_rate": self.head_rate,
        }  # fmt: skip

    def _turn(self, after: Record) -> None:
        # The other generation holds the new layers, and counts from here on.
        assert isinstance(self.weights, Mapped)
        assert self._other is not None
        self._other.flush()
        self._other.check_name()
        after.generation = 1 - self.record.generation
        self.net.head.write(self.paths.generation(after.generation)[1])
        self._commit(after)
        self.weights, self._other = self._other, self.weights
        self.net.weights = self.weights

    def _commit(self, after: Record) -> None:
        self.paths.sync_names(after.generation)
        after.write(self.paths)

    def save(self) -> None:
        """Bring the files to the present step, and wait for the disk; a kill meanwhile leaves the former state.

        Examples
        --------
        >>> import tempfile
        >>> from fastconv import data, deep
        >>> record = deep.Record(width=8, layers=50, alpha=0.1, activation="tanh", inputs=64, classes=10, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = deep.Paths.of(f"{folder}/net")
        ...     deep.create(paths, record)
        ...     options = {"batch": 100, "layer_rate": 0.1, "head_rate": 0.5, "in_memory": True}
        ...     with deep.Training(paths, data.load("digits"), **options) as training:
        ...         _ = training.step()
        ...         before = deep.Record.read(paths.record).step
        ...         training.save()
        ...     print(before, deep.Record.read(paths.record).step)
        0 1
        """
        after = replace(self.record, sampler=self._sampler(self.batches.position))
        if self.in_memory and self.saved_step != self.record.step:
            assert isinstance(self.weights, Memory)
            after.generation = 1 - self.record.generation
            weights, head = self.paths.generation(after.generation)
            self.weights.write(weights)
            self.net.head.write(head)
            self._commit(after)
        elif self._in_place:
            assert isinstance(self.weights, Mapped)
            self.weights.check_name()
            self.weights.flush()
            sync_file(self.paths.head)
            if after == self.record:  # as it stands in its file
                sync_file(self.paths.record)
                self.paths.sync_names(0)
            else:
                self._commit(after)
        else:
            return
        vars(self.record).update(vars(after))
        self.saved_step = self.record.step

    def close(self) -> None:
        """Close the files; steps in memory that were not saved are lost."""
        try:
            record = Record.read(self.paths.record)
            if record.state == "clean":
                self.paths.settle(record)
        finally:
            self._close_files()

    def _close_files(self) -> None:
        for store in self._stores:
            store.close()
        self._lock.close()

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def create(paths: Paths, record: Record, *, force: bool = False) -> None:
    """Make the files of a new net: small random layers, a Glorot head, a record at step 0.

    Parameters
    ----------
    paths : Paths
    record : Record
        Of step 0.
    force : bool
        Replace a net that is there.

    Raises
    ------
    FileExistsError
        If one of them exists, unless ``force``.
    OSError
        If another process works on a net that is there, one of them is a folder, a pipe or a device, or the disk has
        no room; there are no files then.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastconv import deep
    >>> record = deep.Record(width=8, layers=1000, alpha=0.03, activation="tanh", inputs=64, classes=10, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     deep.create(deep.Paths.of(f"{folder}/net"), record)
    ...     sorted((entry.name, entry.stat().st_size) for entry in os.scandir(folder))
    [('net', 288000), ('net.head', 2440), ('net.json', 1024)]
    """
    force = flag("deep.create: force", force)
    core, files = record.core, (paths.weights, paths.head, paths.record)
    head = Head(record.inputs, record.width, record.classes).initialize(record.seed)
    for path in files:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent}")
    for path in files:
        check_replaceable(path, path)
    with paths.lock():
        for path in files:
            if path.exists() and not force:
                raise FileExistsError(f"{path} exists; --force replaces the net")
        if shutil.disk_usage(paths.weights.parent).free + _taken(paths.weights) < record.weight_bytes:
            raise OSError(f"{paths.weights}: {record.weight_bytes} bytes do not fit on the disk")
        _remove(paths)
        try:
            initialize_weights(paths.weights, core, record.seed)
            head.write(paths.head)
            paths.sync_names(0)
            record.write(paths)
        except BaseException:
            _remove(paths)
            raise


def _remove(paths: Paths) -> None:
    """Remove all files of a net; first the record, without which there is none."""
    for path in (paths.record, paths.weights, paths.head, *paths.generation(1), paths.draft):
        path.unlink(missing_ok=True)


def _taken(path: Path) -> int:
    """Return the bytes of the disk that a file takes, and gives back when it is removed."""
    return path.stat().st_size if path.exists() else 0


def load(paths: Paths, *, settle: bool = False) -> tuple[Record, Head]:
    """Read the record and the head of a net, and check that its files fit together.

    ``settle``: give the generation that counts the plain names (writers only).
    """
    record = Record.read(paths.record)
    record.refuse_torn(paths)
    if settle:
        record = paths.settle(record)
    weights, head = live_files(paths, record)
    check_length(weights, record.weight_bytes, f"{record.layers} layers of width {record.width}")
    return record, Head.load(head, record.inputs, record.width, record.classes)


def live_files(paths: Paths, record: Record) -> tuple[Path, Path]:
    """Return the files that count; a generation 1 that is gone already has its plain names."""
    pair = tuple(
        new if new.exists() else old
        for new, old in zip(paths.generation(record.generation), paths.generation(0), strict=True)
    )
    return pair[0], pair[1]
