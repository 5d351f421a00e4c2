"""Goes on with a run in its folder: which runs can, with which options, and from where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from fastconv import data
from fastconv.train import origins
from fastconv.train.checkpoint import checkpoints, load_latest
from fastconv.train.run import CHECKPOINTS, RunRecord, trained
from fastconv.train.setup import Options, Setup
from fastconv.train.writer import RunWriter

_PLACES: dict[str, Callable[[Any], Any]] = {
    "dataset": data.resolve, "model": origins.resolve, "pretrained": origins.place,
}  # fmt: skip
"""How options are held that may be paths."""


def options_of(record: RunRecord, given: Mapping[str, Any]) -> Options:
    """Return the options of a run that can go on.

    Parameters
    ----------
    record : RunRecord
    given : mapping of str to value
        Options asked for beside; those that are not None must be what the run has.

    Raises
    ------
    ValueError
        If the run goes on as it is, has come to its end, or has other options than those given. More epochs than it has
        are taken where its schedule does not depend on their number.
    """
    if (command := record.config.get("command")) in ("deep", "mlp"):
        raise ValueError(
            f"{record.path}: 'fastconv {command} train --resume --out {record.path}' goes on with this run"
        )
    reason = f": {record.result['reason']}" if record.result and record.result.get("reason") else ""
    if record.status == "running":
        raise ValueError(f"{record.path} is running, in process {record.env.get('pid', 'unknown')}")
    if record.status == "diverged":
        raise ValueError(f"{record.path} has diverged and would again{reason}; start a new run")
    epochs = given.get("epochs")
    if record.status == "stopped" or (record.status == "finished" and epochs is None):
        raise ValueError(
            f"{record.path} is {record.status} after {len(record.history)} epochs{reason}; there is nothing to go on "
            "with; a run that finished with --schedule constant goes on to more by --epochs N, else start a new one"
        )
    options = Options.of(trained(record.path, record.config)["options"])
    if epochs is not None and epochs > options.epochs:
        options = _extended(record, options, epochs)
    elif record.status == "finished":
        raise ValueError(f"{record.path} has {options.epochs} epochs and is finished; --epochs must be more to go on")
    own = asdict(options)
    for name, value in given.items():
        if value is not None and own[name] != _PLACES.get(name, lambda text: text)(value):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{record.path} has {flag} {own[name]}, not {value}: a resumed run keeps its options")
    return options


def _extended(record: RunRecord, options: Options, epochs: int) -> Options:
    """Return options with more epochs.

    Raises
    ------
    ValueError
        If the run's rates depend on their number, or it left nothing to go on from.
    """
    if options.schedule != "constant":
        raise ValueError(
            f"{record.path} has --schedule {options.schedule}, which ends with epoch {options.epochs}: more epochs "
            "would have had other rates from the first on; start a new run; one with --schedule constant can go on"
        )
    if record.status == "finished" and not checkpoints(record.path / CHECKPOINTS):
        raise ValueError(f"{record.path} has no checkpoint of its end to go on from; start a new run")
    return replace(options, epochs=epochs)


def take_up(setup: Setup, record: RunRecord) -> RunWriter:
    """Load the newest whole checkpoint into a trainer, and open the folder to go on writing.

    Next comes ``setup.trainer.resume(setup.train, setup.validation)``, with the writer among the callbacks. A
    checkpoint that is damaged, or whose state does not fit, is warned of, and the one before it is taken.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    OSError, ValueError
        If the data are not those of the run, the checkpoint is of another trainer, or another process is at it.
    """
    before, now = record.config.get("made_of", {}), setup.start.made_of
    for what in ("layers", "weights"):
        if before.get(what, {}).get("sha256") != now.get(what, {}).get("sha256"):
            raise ValueError(f"{record.path}: {now[what]['file']} is not the file that the run was started with")
    if setup.standardizer.to_dict() != record.config.get("standardizer"):
        raise ValueError(f"{record.path}: the images of {setup.options.dataset} are not those the run was started with")
    load_latest(record.path / CHECKPOINTS, lambda state: _load(setup, state))
    setup.trainer.epochs = setup.options.epochs
    writer = RunWriter.resume(record.path, setup.trainer.step, setup.trainer.history, setup.model)
    if record.config["options"]["epochs"] != setup.options.epochs:
        writer.reconfigure({**record.config, "options": asdict(setup.options)})
    return writer


def _load(setup: Setup, state: dict[str, Any]) -> None:
    trainer, batches = setup.trainer, len(setup.train)
    trainer.load_state_dict(state)
    at = (trainer.epoch, trainer.batch)
    if trainer.steps_per_epoch != batches or at[1] >= batches or tuple(state["position"] or ()) != at:
        raise ValueError(
            f"a state at batch {at[1]} of {trainer.steps_per_epoch} in epoch {at[0] + 1}, at position "
            f"{state['position']}; the data make {batches} batches"
        )
