"""What ``fastconv deep train`` and ``fastconv mlp train`` share: data, length and the folder of the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastconv.cli.common import Place
from fastconv.cli.names import Names, NamesAndMore

if TYPE_CHECKING:
    from fastconv.data import Dataset
    from fastconv.train import RunRecord


def data_options(command: Any) -> Any:
    """Add ``--dataset`` and ``--data-dir``, for `load_data`."""
    folder = click.option("--data-dir", type=Place(), help="Folder of the data sets, as FASTCONV_DATA.")
    dataset = click.option(
        "--dataset", type=NamesAndMore("data:names"), show_default="mnist", metavar="NAME|FOLDER",
        help="Any set of fastconv.data.",
    )  # fmt: skip
    return dataset(folder(command))


def length_options(command: Any) -> Any:
    """Add ``--steps`` and ``--epochs``, for `steps_of`."""
    epochs = click.option("--epochs", type=click.IntRange(min=1), help="Instead: passes over the training images.")
    text = "Updates; 1000 by default, with --resume --out those that its run still lacks."
    steps = click.option("--steps", type=click.IntRange(min=1), help=text)
    return steps(epochs(command))


def check_length(steps: int | None, epochs: int | None) -> None:
    """Refuse both of `length_options` at once."""
    if steps is not None and epochs is not None:
        raise click.UsageError(f"--steps {steps} and --epochs {epochs} are two lengths of one run; give one of them")


def steps_of(steps: int | None, epochs: int | None, batches: int, run: RunRecord | None = None, done: int = 0) -> int:
    """Return how many updates `length_options` ask for, where a pass takes ``batches``.

    Without any, a run that goes on has those that it was to have and that its net, at step ``done``, has not had.
    """
    if steps is not None or epochs is not None or run is None:
        return (epochs or 0) * batches if epochs is not None else 1000 if steps is None else steps
    if done >= run.config["steps"]:
        raise ValueError(f"{run.path} has had all its {done:,} steps; --steps N or --epochs N is how many more it gets")
    missing: int = run.config["steps"] - done
    return missing


def schedule_option(command: Any) -> Any:
    """Add ``--schedule``, for `fastconv.train.step_folder.Rates`."""
    return click.option(
        "--schedule", type=Names("schedule", "choices:SCHEDULES"),
        help="Of the rates over the run, as 'fastconv train' has it; constant by default, others need --out.",
    )(command)  # fmt: skip


def check_schedule(schedule: str | None, out: Path | None) -> None:
    """Refuse a schedule over a run that has no folder to keep it, before anything is loaded."""
    if schedule not in (None, "constant") and out is None:
        raise click.UsageError(f"--schedule {schedule} goes over a whole run, which its folder keeps: give --out DIR")


def load_data(dataset: str, data_dir: Path | None) -> Dataset:
    """Load what the options of `data_options` name."""
    from fastconv import data

    if data_dir is not None:
        if not data_dir.is_dir():
            raise FileNotFoundError(f"--data-dir: there is no folder {data_dir}")
        os.environ["FASTCONV_DATA"] = str(data_dir)
    found = data.load(dataset)
    if found.columns:
        raise ValueError(f"{dataset} is a table, and this command takes images; 'fastconv train' learns tables")
    return found


def out_option(command: Any) -> Any:
    """Add ``--out``, the folder of a run."""
    return click.option(
        "--out", type=Place(), metavar="DIR",
        help="New folder of the run: figures, config, result, and the net where --weights names no other place. With "
        "--resume one that is there.",
    )(command)  # fmt: skip


def weights_of(out: Path | None, given: Path | None, run: RunRecord | None, name: str) -> Path:
    """Return the file of the net: the one given, else of the run, else ``name`` in its folder or the running one."""
    if run is not None:
        from fastconv.train.step_folder import net_of

        return net_of(run, given)
    return given or (Path(name) if out is None else out / name)


def named_in(out: Path, path: Path) -> str:
    """Return how the config of a run names a file: by its name alone where it lies in the folder."""
    inside = os.path.realpath(path.absolute().parent) == os.path.realpath(out)
    return path.name if inside else str(path.absolute())


def run_of(out: Path | None, weights: Path | None, resume: bool, command: str) -> RunRecord | None:
    """Return the run that goes on in ``--out``; None where there is none, or a new one begins.

    With ``--resume`` a new one can only be of a net that is elsewhere: in ``--weights``.
    """
    from fastconv.train.run import is_run
    from fastconv.train.step_folder import read_steps
    from fastconv.train.writer import check_vacant

    if out is None:
        return None
    if resume and (weights is None or is_run(out)):
        return read_steps(out, command)
    check_vacant(out)
    return None
