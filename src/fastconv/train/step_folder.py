"""The folder of a run that counts in steps: what ``--out`` of `fastconv deep train` and `fastconv mlp train` writes.

It is that of any run (`fastconv.train.run`): a record for each epoch, single steps now and then, how it ended. The net
is a file of its own, which may be larger than memory and lie elsewhere; config.json says where. An epoch that the run
ends in has a record of its batches so far, which the run takes up again when it goes on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastconv._version import __version__
from fastconv.data import Dataset, Standardizer, names, resolve
from fastconv.schedule import Schedule
from fastconv.serialize.files import write_json
from fastconv.steps import Report
from fastconv.train import shapes
from fastconv.train.run import CONFIG, RESULT, RunRecord, read_record
from fastconv.train.setup import schedule_of
from fastconv.train.tally import Tally
from fastconv.train.writer import RunWriter


@dataclass(frozen=True)
class Rates:
    """What a schedule makes of a learning rate over a run of steps.

    Attributes
    ----------
    schedule : str
        Of `fastconv.train.setup.SCHEDULES`.
    first, last : int
        Steps that the net had had when the run began, and shall have had when it ends.
    """

    schedule: str
    first: int
    last: int

    @cached_property
    def _shape(self) -> Schedule:
        return schedule_of(self.schedule, self.last - self.first)

    def __call__(self, step: int) -> float:
        """Return the factor on the rate of the update that a net gets which has had so many."""
        return self._shape(step - self.first)

    @classmethod
    def of(cls, schedule: str, run: RunRecord | None, done: int, steps: int) -> Rates:
        """Return those of a run of so many steps more of a net that has had some.

        Raises
        ------
        ValueError
            If rates depend on the run's length and ``run``, which goes on, has another.
        """
        if run is None:
            return cls(schedule, done, done + steps)
        if schedule != "constant" and done + steps != run.config["steps"]:
            raise ValueError(
                f"{run.path} has --schedule {schedule}, which ends with step {run.config['steps']}: another length "
                "would have had other rates from the first on; start a new run; one with --schedule constant can go on"
            )
        return cls(schedule, run.config.get("first", 0), done + steps)


def describe(
    command: str, name: str, dataset: Dataset, options: Mapping[str, Any], net: Mapping[str, Any], rates: Rates,
    each: int,
) -> dict[str, Any]:  # fmt: skip
    """Return the config.json of a run of steps.

    Parameters
    ----------
    command : {"deep", "mlp"}
        Whose ``train`` goes on with it.
    name, dataset
        A data set of `fastconv.data`, by name or as the path of its folder, and what that gave. Its pixels come to the
        net divided by its ``levels``.
    options : mapping
        ``batch_size``, ``lr``, ``seed`` and, if the head has one of its own, ``head_lr``.
    net : mapping
        ``weights`` (a path, or a name in the folder) and what else tells which net it is.
    rates : Rates
    each : int
        Steps of an epoch.
    """
    steps = rates.last
    name, (_, height, width) = resolve(name), dataset.shape
    sized = {} if name in names() else {"image_size": f"{height}x{width}", "resize": "crop"}
    return {
        "fastconv": __version__,
        "command": command,
        "options": {
            "dataset": name, "model": command, "epochs": max(1, -(-steps // each)), **options,
            "optimizer": "sgd", "schedule": rates.schedule, "validation": 0.0, **sized,
        },
        "steps": steps,
        "first": rates.first,
        "net": dict(net),
        "input_shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "levels": dataset.levels,
        "light_on_dark": dataset.light_on_dark,
        "standardizer": scaled(dataset).to_dict(),
    }  # fmt: skip


def scaled(dataset: Dataset) -> Standardizer:
    """Return what divides a data set's pixels by its ``levels``."""
    blank = np.zeros((dataset.shape[0], 1, 1))
    return Standardizer(blank, blank + dataset.levels)


def read_steps(folder: Path, command: str) -> RunRecord:
    """Read the folder of a run of steps.

    Raises
    ------
    OSError, ValueError
        If it is none, is damaged, or is of another command.
    """
    record = read_record(folder)
    own = record.config.get("command")
    if own != command:
        raise ValueError(f"{record.path} is not of 'fastconv {command} train'")
    try:
        shapes.STEPPED.check(record.config, "")
    except ValueError as error:
        raise ValueError(f"{record.path / CONFIG}: {error}") from None
    return record


def goes_on(record: RunRecord, given: Mapping[str, Any]) -> None:
    """Refuse what cannot go on, or not with these options.

    Raises
    ------
    ValueError
        If the run goes on as it is, has diverged, or one of the options that are not None is not what it has.
    """
    if record.status == "running":
        raise ValueError(f"{record.path} is running, in process {record.env.get('pid', 'unknown')}")
    if record.status == "diverged":
        raise ValueError(f"{record.path} has diverged and would again; start a new run")
    own = {**record.config["net"], **record.config["options"]}
    own["layer_lr"] = own["lr"]  # what deep calls it, which has two
    for name, value in given.items():
        if value is not None and value != own.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{record.path} has {flag} {own.get(name)}, not {value}: a resumed run keeps its options")


def net_of(record: RunRecord, given: Path | None) -> Path:
    """Return the file of a run's net.

    One outside the folder has to be named: a folder from somewhere shall not lead to files of its reader.

    Raises
    ------
    ValueError
        If it is not, or another one is.
    """
    told = record.config["net"]["weights"]
    own = record.path / told
    if os.path.basename(told) == told and not own.is_symlink():
        if given is None or _same(given, own):
            return own
    elif given is not None and _same(given, own):
        return given
    raise ValueError(f"the net of {record.path} is {own}: give --weights {own}")


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


@contextlib.contextmanager
def withdrawn(writer: RunWriter | None, keep: bool = False) -> Iterator[None]:
    """Take a run's new folder back where the block fails, unless there is something to ``keep``, to go on from."""
    try:
        yield
    except BaseException:
        if writer is not None:
            writer.close() if keep else writer.withdraw()
        raise


def take_up(record: RunRecord, step: int, config: Mapping[str, Any]) -> tuple[RunWriter, Tally]:
    """Go on with a run at a step of its net, and with the sums of the epoch that it is in."""
    known = [epoch for epoch in record.history if (epoch.get("steps") or 0) <= step]
    whole = [epoch for epoch in known if "batches" not in epoch]
    writer = RunWriter.resume(record.path, step, whole)
    if config != record.config:
        writer.reconfigure(config)
    tally = Tally()
    if known and "batches" in known[-1] and known[-1].get("steps") == step:
        _refill(tally, known[-1], config["options"]["batch_size"])
    return writer, tally


def _refill(tally: Tally, epoch: Mapping[str, Any], batch: int) -> None:
    count, samples = epoch["batches"], epoch["batches"] * batch
    right = (round((epoch.get("accuracy") or 0.0) * samples), samples)
    tally.add(samples, (epoch.get("loss") or 0.0) * samples, samples, right)
    tally.times = [(epoch.get("step_ms") or 0.0) / 1e3] * count
    tally.seconds = epoch.get("seconds") or 0.0


def has_ended(record: RunRecord) -> None:
    """Raise ValueError if a run goes on, or was killed: it has no result then that could hold figures of a test."""
    if record.result is None:
        raise ValueError(f"{record.path} is {record.status}: it has no result yet that could hold test figures")


def tested(record: RunRecord, figures: Mapping[str, float]) -> None:
    """Write what a test found into the result of a run that has ended.

    Raises
    ------
    ValueError
        If it goes on, or was killed.
    OSError
        If the file cannot be written.
    """
    has_ended(record)
    write_json(record.path / RESULT, {**(record.result or {}), **figures}, follow=False)


class StepFolder:
    """Writes the records of a run of steps: give it every step.

    Parameters
    ----------
    writer : RunWriter
    position : callable
        Returns (epoch, index) of the batch that comes next.
    batch : int
        Samples of a batch.
    rate : callable
        Gives the learning rate of the update that a net gets which has had so many.
    every : int
        Steps between two records of single ones; the first of a run has one too.
    step : int
        That the net is at.
    tally : Tally
        Of the epoch so far.
    """

    def __init__(
        self, writer: RunWriter, position: Callable[[], tuple[int, int]], *, batch: int, rate: Schedule, every: int,
        step: int, tally: Tally,
    ) -> None:  # fmt: skip
        self.writer = writer
        self._position, self._batch, self._rate, self._every = position, batch, rate, every
        self._tally, self._last = tally, step

    def step(self, report: Report) -> None:
        """Take note of a step.

        Raises
        ------
        OSError
            If what is to be written of it cannot be.
        """
        epoch, index = self._position()
        self._tally.add(
            self._batch, report.loss * self._batch, self._batch, (round(report.accuracy * self._batch), self._batch)
        )
        self._tally.clock(report.seconds, report.seconds)
        self._last = report.step
        if report.step == 1 or report.step % self._every == 0:
            self.writer.write({
                "kind": "step", "step": report.step, "loss": report.loss, "accuracy": report.accuracy,
                "lr": self._rate(report.step - 1),
            })  # fmt: skip
        if index == 0:
            self._write(epoch, {})
            self._tally = Tally()

    def finish(self, status: str, **result: Any) -> None:
        """Write the epoch so far, and how the run ended; further arguments go to `RunWriter.finish`."""
        if self._tally.batches:
            self._write(self._position()[0] + 1, {"batches": self._tally.batches})
        model, test = result.pop("model", None), result.pop("test", None)
        self.writer.finish({"status": status, **result}, model, test)

    def _write(self, epoch: int, more: Mapping[str, Any]) -> None:
        figures = {name: value for name, value in self._tally.figures().items() if name != "penalty"}
        rate = self._rate(self._last - 1)
        self.writer.write({"kind": "epoch", "epoch": epoch, "steps": self._last, "lr": rate, **figures, **more})
