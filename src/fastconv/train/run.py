"""A run is a folder: what was asked, where it ran, what came of it step by step, and the trained model.

::

    config.json          data set, model, options, standardisation: all it takes to use or repeat it
    env.json             versions, processor, threads, command line, time of the start
    metrics.jsonl        one complete line a record: {"kind": "epoch", ...}, or of kind "step" or "event"
    result.json          at the end: status, reason, test figures, time, digest
    test.json            at the end: which class was taken for which, precision and recall, the worst mistakes
    model.safetensors    at the end: layers and weights (fastconv.serialize)
    checkpoints/         what ``fastconv train --resume`` goes on from
    plots/, tensorboard/ where asked for

While a run goes on its process holds a lock on metrics.jsonl, which ends with the process whatever ends it. So a
folder without result.json is of a run that goes on, or of one that was killed, and one can tell. `RunWriter`
(fastconv.train.writer) writes such a folder; this file reads it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastconv import locks, serialize
from fastconv.nn import Module
from fastconv.paths import expand
from fastconv.schema import content, parse, read
from fastconv.train import shapes
from fastconv.train.history import History

CONFIG, ENV, METRICS, RESULT = "config.json", "env.json", "metrics.jsonl", "result.json"
TEST = "test.json"
MODEL, CHECKPOINTS, PLOTS, TENSORBOARD = "model.safetensors", "checkpoints", "plots", "tensorboard"

@dataclass(frozen=True)
class RunRecord:
    """All of a run but its model, as `read_record` found it.

    Attributes
    ----------
    path : Path
    name : str
        Of the folder.
    config, env : dict
        What config.json and env.json hold; ``env`` is empty where there is no such file.
    history : History
        One record per epoch.
    steps : list of dict
        Records of single steps, where something wrote any: ``step``, ``loss``, ``lr``, and perhaps
        ``update_ratio``, ``grad_norm`` (by parameter) and ``activations`` (by module).
    events : list of dict
        What happened on the way: ``step``, ``event`` (a short name), ``text``.
    result : dict or None
        None while the run goes on and after it was killed.
    status : str
        "running", "killed", "interrupted" (by a signal it obeyed), "stopped" (by a callback), "diverged" or
        "finished".

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.train import RunWriter, read_record
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with RunWriter.start(f"{root}/first", {"lr": 0.1}) as run:
    ...         run.write({"kind": "epoch", "epoch": 1, "steps": 20, "loss": 0.5})
    ...     record = read_record(f"{root}/first")
    >>> record.name, record.config, record.step, record.history["loss"]
    ('first', {'lr': 0.1}, 20, [0.5])
    >>> record.status  # nobody said how it ended: run.finish(...)
    'killed'
    """

    path: Path
    name: str
    config: dict[str, Any]
    env: dict[str, Any]
    history: History
    steps: list[dict[str, Any]] = field(repr=False)
    events: list[dict[str, Any]] = field(repr=False)
    result: dict[str, Any] | None
    status: str

    @property
    def step(self) -> int:
        """Updates done, as far as the records say."""
        last = [record.get("steps") for record in self.history[-1:]] + [record["step"] for record in self.steps[-1:]]
        return max(step or 0 for step in (*last, (self.result or {}).get("steps")))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / CONFIG).is_file() and (folder / METRICS).is_file()


def find_runs(root: str | os.PathLike[str]) -> list[Path]:
    """Return the folders of all runs at and below a folder, sorted; hidden folders and those inside a run apart.

    Links to folders are followed, after all that is there without them, but for those that lead back up. A run that
    several paths lead to is found once.

    Parameters
    ----------
    root : path-like

    Raises
    ------
    NotADirectoryError
        If ``root`` is no folder.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.train import RunWriter, find_runs
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("b", "a/1", "a/2"):
    ...         RunWriter.start(f"{root}/{name}", {}).close()
    ...     [path.relative_to(root).as_posix() for path in find_runs(root)]
    ['a/1', 'a/2', 'b']
    """
    root = expand(root)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder")
    found: list[Path] = []
    links: list[Path] = []
    waiting = [root]
    seen = {_identity(above) for above in root.resolve().parents}
    while waiting or links:
        path = waiting.pop() if waiting else links.pop(0)
        if (identity := _identity(path)) in seen:
            continue
        seen.add(identity)
        if is_run(path):
            found.append(path)
            continue
        with suppress(OSError), os.scandir(path) as entries:  # a folder that may not be read shows no runs
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith(".") and entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(path / entry.name)
    return sorted(found)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what two paths to one folder have in common; None of one that is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Metrics:
    """The records of a metrics.jsonl that grows: each look reads what has come since the one before.

    A run that was resumed may have taken lines back: where the last one read is no longer there, all are read again.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    kinds : dict of str to list of dict
        Records by kind, those of epochs without it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin()

    def _begin(self) -> None:
        self.kinds: dict[str, list[dict[str, Any]]] = {"epoch": [], "step": [], "event": []}
        self._lines, self._end, self._last = 0, 0, b""

    def look(self) -> dict[str, list[dict[str, Any]]]:
        """Read on, and return `kinds`; a line without an end is of a writer that is at it, and left for later.

        Raises
        ------
        OSError, ValueError
            If the file is missing, or a line is damaged.
        """
        text = content(self.path, start=self._end - len(self._last))
        if not text.startswith(self._last):
            self._begin()
            text = content(self.path)
        *lines, _torn = text[len(self._last) :].split(b"\n")
        for line in lines:
            record = parse(line, shapes.METRIC, f"{self.path}, line {self._lines + 1},")
            kind = record.pop("kind", "epoch")
            self.kinds.setdefault(kind, []).append({"kind": kind, **record} if kind != "epoch" else record)
            self._last = line + b"\n"
            self._lines, self._end = self._lines + 1, self._end + len(self._last)
        return self.kinds


def read_record(folder: str | os.PathLike[str], metrics: Metrics | None = None) -> RunRecord:
    """Read a run, also while it goes on; no model is loaded.

    Parameters
    ----------
    folder : path-like
    metrics : Metrics, optional
        What has been read before of a run that is looked at again.

    Returns
    -------
    RunRecord

    Raises
    ------
    FileNotFoundError
        If it is not the folder of a run.
    ValueError
        If a file is damaged; the message names it and the line. A last line of metrics.jsonl without an end is
        of a writer that was killed, and left out.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.train import RunWriter, read_record
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with RunWriter.start(f"{root}/first", {"lr": 0.1}) as run:
    ...         run.write({"kind": "epoch", "epoch": 1, "loss": 0.5})
    ...         read_record(f"{root}/first").status
    ...         run.finish({"status": "finished"})
    ...     read_record(f"{root}/first").status
    'running'
    'finished'
    """
    folder = expand(folder)
    for name in (CONFIG, METRICS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not the folder of a run: it has no {name}")
    config = read(folder / CONFIG, shapes.CONFIG)
    env = read_env(folder)
    kinds = (metrics or Metrics(folder / METRICS)).look()
    # The lock comes first, so that a run that ends between the two looks shows its result.
    running = is_running(folder)
    result = read(folder / RESULT, shapes.RESULT) if (folder / RESULT).is_file() else None
    status = ("running" if running else "killed") if result is None else str(result.get("status", "finished"))
    return RunRecord(
        folder, folder.resolve().name, config, env, History(kinds["epoch"]), list(kinds["step"]),
        list(kinds["event"]), result, status,
    )  # fmt: skip


def trained(folder: str | os.PathLike[str], config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a run that `fastconv.train.setup` has set up: its entries have the shape ``TRAINED``.

    Raises
    ------
    ValueError
        If it is of another run, of which only its author knows what was chosen.
    """
    try:
        shapes.TRAINED.check(config, "")
        numbers = "mean" in config.get("table", {}) and "deviation" in config["table"]
        if numbers == bool(config["classes"]) or len(config["classes"]) == 1:
            raise ValueError(f"{len(config['classes'])} classes{' and numbers to predict' * numbers}")
        if "table" in config and config["input_shape"] != [len(config["table"]["columns"]), 1, 1]:
            raise ValueError(f"{len(config['table']['columns'])} columns for an input of {config['input_shape']}")
    except ValueError as error:
        text = f"{folder}: {CONFIG} does not hold the options of a run of 'fastconv train': {error}"
        raise ValueError(text) from None
    return config


def read_env(folder: Path) -> dict[str, Any]:
    """Return what env.json says; nothing where there is none."""
    env: dict[str, Any] = read(folder / ENV, shapes.ENV) if (folder / ENV).is_file() else {}
    return env


def read_metrics(path: Path) -> list[tuple[dict[str, Any], int]]:
    """Return the records of metrics.jsonl, each with the offset at which its line ends.

    Raises
    ------
    OSError, ValueError
        If the file is missing, or a line is damaged.
    """
    *lines, _torn = content(path).split(b"\n")
    records, end = [], 0
    for number, line in enumerate(lines, start=1):
        end += len(line) + 1
        records.append((parse(line, shapes.METRIC, f"{path}, line {number},"), end))
    return records


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of a run: whether it goes on.

    Where there are no locks (some network file systems) a run without a result counts as killed.
    """
    return locks.taken(folder / METRICS)


@dataclass(frozen=True)
class Run:
    """A run with its model, as `load_run` found it."""

    config: dict[str, Any]
    history: History
    result: dict[str, Any]
    model: Module


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run that has come to an end, with its model.

    Raises
    ------
    OSError
        If a file is missing: this is no run, or it has left no model.
    ValueError
        If one is damaged.
    """
    record = read_record(folder)
    if record.result is None or not (record.path / MODEL).is_file():
        deep = record.config.get("command") == "deep"
        way = f"; its net is a file of layers: 'fastconv deep eval --out {folder}' tests it" if deep else ""
        raise FileNotFoundError(
            f"{folder} holds no trained model: the run is {record.status}, at step {record.step}{way}"
        )
    return Run(record.config, record.history, record.result, serialize.load(record.path / MODEL))
