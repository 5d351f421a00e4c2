"""A net on disk: which files it has, what its record says, and how a new state takes the place of the old one.

    NAME            layer after layer, little-endian float32: W row-major (in, out), then b
    NAME.head       input W (pixels, D), input b, output W (D, classes), output b
    NAME.json       the record: what the net is, its step, and which generation of the two files counts
    NAME.1, NAME.head.1   the second generation, while there is one

A save writes the generation that does not count and then the record, in one rename: whoever is killed at any
moment leaves the old state or the new one. Updates in place instead mark the record torn before the first layer
changes and clean after the last. The room that a save or a step takes on the disk is there before it begins: files of
the next generation are made long enough first and not made shorter, a step in place changes files without moving an
end. Who trains a net or makes a new one holds its lock, who only reads it shares one.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fastconv import schema
from fastconv.functional._check import flag
from fastconv.functional.residual import ResidualCore
from fastconv.locks import Lock
from fastconv.paths import expand
from fastconv.schema import Integer, Number, Text
from fastconv.serialize.files import allocate, sync_folder

RECORD_BYTES = 1024  # blanks fill it up: a record that is changed in place keeps its length

_RATE = Number(5e-324)
SHAPE = schema.Record({
    "width": Integer(1), "layers": Integer(1, 2**48), "alpha": Number(), "activation": Text(),
    "inputs": Integer(1, 2**31), "classes": Integer(1, 2**31), "seed": Integer(0, 2**64 - 1),
    "step": Integer(), "generation": Integer(0, 1), "state": Text(),
    "sampler": schema.Record({}, {
        "seed": Integer(0, 2**64 - 1), "batch": Integer(1), "epoch": Integer(), "index": Integer(),
        "samples": Integer(1), "layer_rate": _RATE, "head_rate": _RATE,
    }),
})  # fmt: skip
"""Of NAME.json."""


class TornError(ValueError):
    """A run was ended while it changed the weights in place: they belong to no step.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import deep
    >>> record = deep.Record(width=8, layers=10, alpha=0.3, activation="tanh", inputs=64, classes=10, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = deep.Paths.of(f"{folder}/net")
    ...     deep.create(paths, record)
    ...     record.state = "torn in step 1"  # as its file says while a step changes the weights
    ...     record.write(paths)
    ...     try:
    ...         deep.Record.read(paths.record).refuse_torn(paths)
    ...     except deep.TornError as error:
    ...         print(str(error).removeprefix(str(paths.weights)).partition(".")[0])
     is torn in step 1: a run was ended while it updated the file in place
    """


@dataclass(frozen=True)
class Paths:
    """The files of a net: weights of the layers, the head beside them or elsewhere, and the record.

    Parameters
    ----------
    weights, head : Path
        As `of` makes them from a name.

    Examples
    --------
    >>> from fastconv import deep
    >>> paths = deep.Paths.of("nets/first")
    >>> [path.as_posix() for path in (paths.weights, paths.head, paths.record)]
    ['nets/first', 'nets/first.head', 'nets/first.json']
    """

    weights: Path
    head: Path

    @classmethod
    def of(cls, weights: str | Path, head: str | Path | None = None) -> "Paths":
        """Return the files of the net NAME.

        Parameters
        ----------
        weights : path-like
        head : path-like, optional
            Beside the weights by default.

        Raises
        ------
        ValueError
            If the head is to lie in another file of the net.
        """
        weights = expand(weights)
        paths = cls(weights, expand(head) if head else weights.with_name(weights.name + ".head"))
        if os.path.abspath(paths.head) in map(os.path.abspath, (weights, paths.record, paths.draft)):
            raise ValueError(f"the head's file {paths.head} is another one of the net {weights}: name one apart")
        return paths

    @property
    def record(self) -> Path:
        """NAME.json."""
        return self.weights.with_name(self.weights.name + ".json")

    @property
    def draft(self) -> Path:
        """The record that is about to count."""
        return self.record.with_name(self.record.name + ".new")

    def lock(self, *, shared: bool = False) -> Lock:
        """Take the net's lock: for oneself to change it, shared to read it.

        Parameters
        ----------
        shared : bool

        Returns
        -------
        Lock
            Closed, it is given up.

        Raises
        ------
        BlockingIOError
            If another process changes the net or, where it is to be changed, reads it.
        """
        shared = flag("Paths.lock: shared", shared)
        busy = "is training this net" if shared else "is training this net, or reading it"
        return Lock(self.weights, f"another process {busy}; try again when it has ended", shared=shared)

    def generation(self, number: int) -> tuple[Path, Path]:
        """Return the weights and head files of generation 0 or 1.

        Parameters
        ----------
        number : int
            0 or 1.
        """
        if number == 0:
            return self.weights, self.head
        return self.weights.with_name(self.weights.name + ".1"), self.head.with_name(self.head.name + ".1")

    def sync_names(self, number: int) -> None:
        """Wait until the names of a generation's files are on the disk; a record may count on them then.

        Parameters
        ----------
        number : int
            0 or 1.
        """
        for folder in {path.parent for path in self.generation(number)}:
            sync_folder(folder)

    def settle(self, record: "Record") -> "Record":
        """Give generation 1 the plain names, if it counts; also where that was interrupted.

        Parameters
        ----------
        record : Record
        """
        if record.generation == 1:
            for old, new in zip(self.generation(1), self.generation(0), strict=True):
                if old.exists():  # else it has its plain name already
                    os.replace(old, new)
            self.sync_names(0)
            record.generation = 0
            record.write(self)
        for left in (*self.generation(1), self.draft):
            left.unlink(missing_ok=True)
        return record


@dataclass
class Record:
    """What NAME.json says.

    Parameters
    ----------
    width, layers, inputs, classes, seed, step, generation : int
        ``inputs`` are the pixels of an image, ``step`` the updates that the net has had, ``generation`` which of two
        sets of files counts, 0 or 1.
    alpha : float
        Factor of what each layer adds; 1 / sqrt(layers) suits any depth.
    activation : {"softsign", "tanh", "relu"}
    state : str
        "clean", or in which step it was torn.
    sampler : dict
        Where the last run was among the samples, and its settings.

    Examples
    --------
    >>> from fastconv import deep
    >>> record = deep.Record(width=64, layers=10_000, alpha=0.01, activation="tanh", inputs=784, classes=10, seed=0)
    >>> f"{record.weight_bytes:,} bytes", record.core
    ('166,400,000 bytes', ResidualCore(width=64, layers=10000, alpha=0.01, activation='tanh'))
    """

    width: int
    layers: int
    alpha: float
    activation: str
    inputs: int
    classes: int
    seed: int
    step: int = 0
    generation: int = 0
    state: str = "clean"
    sampler: dict[str, Any] = field(default_factory=dict)

    @property
    def core(self) -> ResidualCore:
        """The residual core of the net."""
        return ResidualCore(self.width, self.layers, self.alpha, self.activation)

    @property
    def weight_bytes(self) -> int:
        """Length that the weights file must have."""
        return self.layers * self.core.row * 4

    def write(self, paths: Paths) -> None:
        """Replace the record in one step, and wait for the disk.

        Parameters
        ----------
        paths : Paths
        """
        overwrite(paths.draft, [self._text()])
        os.replace(paths.draft, paths.record)
        sync_folder(paths.record.parent)

    def mark(self, paths: Paths) -> None:
        """Change the record in place, which takes no room; a kill leaves the old one or the new one, within a page.

        Parameters
        ----------
        paths : Paths
        """
        overwrite(paths.record, [self._text()], sync=False)

    def _text(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode().ljust(RECORD_BYTES - 1) + b"\n"

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read and check a record.

        Parameters
        ----------
        path : Path

        Returns
        -------
        Record

        Raises
        ------
        FileNotFoundError, ValueError
            If there is none, or it is damaged.
        """
        if not path.is_file():
            name = path.with_name(path.name.removesuffix(".json"))
            raise FileNotFoundError(
                f"there is no deep net {name}: its record {path} is missing; 'fastconv deep init --weights {name}' "
                "makes a new one"
            )
        try:
            values = schema.read(path, SHAPE)
            record = cls(**{f.name: values[f.name] for f in fields(cls)})
            if record.state not in ("clean", f"torn in step {record.step + 1}"):
                raise ValueError(f"state {record.state!r} after step {record.step}")
            _ = record.core
        except ValueError as error:
            raise ValueError(f"{path}: not a record of a deep net: {error}") from None
        return record

    def refuse_torn(self, paths: Paths) -> None:
        """Raise TornError if the weights belong to no step.

        Parameters
        ----------
        paths : Paths
        """
        if self.state != "clean":
            raise TornError(
                f"{paths.weights} is {self.state}: a run was ended while it updated the file in place. Take a copy "
                f"from before, or start anew with 'fastconv deep init --force'; '--durability step' or '--in-memory' "
                "keep a whole state at any moment"
            )


def check_length(path: Path, expected: int, what: str) -> None:
    """Raise ValueError unless the file has exactly the expected length."""
    length = path.stat().st_size
    if length != expected:
        raise ValueError(f"{path}: {what} take {expected} bytes, the file has {length}")


def preallocate(path: Path, nbytes: int) -> None:
    """Make the file ``nbytes`` long with its disk space reserved.

    Raises
    ------
    OSError
        If the disk is full; a new file is removed, one that was there keeps its length.
    """
    former = path.stat().st_size if path.exists() else None
    try:
        with open(path, "ab") as file:
            allocate(file.fileno(), nbytes)
            file.truncate(nbytes)
    except OSError as error:
        if former is None:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, former)
        raise OSError(error.errno, error.strerror, str(path)) from None


def sync_file(path: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def overwrite(path: Path, parts: list[Any], sync: bool = True) -> None:
    """Write a file from its beginning on, in the room that it has; ``sync``: and wait for the disk."""
    with open(path, "wb", opener=_keeping) as file:
        for part in parts:
            file.write(part)
        file.truncate()
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _keeping(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC, 0o666)
