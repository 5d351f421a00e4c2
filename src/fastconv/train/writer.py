"""Writes the folder of a run while it goes on; `fastconv.train.run` says what is in it, and reads it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastconv import config, serialize
from fastconv.locks import Held
from fastconv.nn import Module
from fastconv.paths import expand, inside
from fastconv.serialize.files import Room, json_line, speaking_of, sync_folder, write_json
from fastconv.train.base import Callback, Diverged, Interrupted
from fastconv.train.checkpoint import Checkpoint
from fastconv.train.history import Record
from fastconv.train.keeping import Keeper, open_locked, room_of
from fastconv.train.run import (
    CHECKPOINTS,
    CONFIG,
    ENV,
    METRICS,
    MODEL,
    RESULT,
    TENSORBOARD,
    TEST,
    is_run,
    read_env,
    read_metrics,
)  # fmt: skip

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

_MOVES_OPEN = os.name != "nt"  # whether what is open can be moved


def check_vacant(folder: Path) -> None:
    """Raise FileExistsError or NotADirectoryError unless a run could be started there."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and not an empty folder")
    parent = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise NotADirectoryError(f"{folder}: cannot make a folder in {parent}")


class RunWriter(Callback):
    """Write a run's folder: as a callback of the trainer it adds a line for every record.

    `start` makes a new folder, `resume` goes on with one, `finish` says how it ended. A ``with`` block that ends
    by `Diverged` or `Interrupted` says so itself; otherwise a run without `finish` counts as killed.

    Parameters
    ----------
    held : Held
        metrics.jsonl, open and locked.
    room : Room, optional
        Given up when the disk is full.

    Attributes
    ----------
    folder : Path

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.train.run import read_record
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with RunWriter.start(f"{root}/first", {"lr": 0.1}) as run:  # Trainer(..., callbacks=[run])
    ...         run.write({"kind": "epoch", "epoch": 1, "loss": 0.5})
    ...         run.finish({"status": "finished"})
    ...     record = read_record(f"{root}/first")
    >>> record.status, record.config, record.history["loss"]
    ('finished', {'lr': 0.1}, [0.5])
    """

    def __init__(self, folder: Path, held: Held, room: Room | None = None) -> None:
        self.folder = folder
        self._keeper: Keeper | None = Keeper(folder, held, room)

    @classmethod
    def start(cls, folder: str | os.PathLike[str], config: Mapping[str, Any], model: Module | None = None) -> Self:
        """Make the folder of a new run, which appears whole or not at all.

        An empty folder that is there, or a link to one, is filled: it stays what it is, also where it is a mount.

        Parameters
        ----------
        folder : path-like
        config : mapping
        model : Module, optional
            What `finish` will save: room for it, and for a checkpoint, is kept on the disk until then, and one that no
            file can hold is refused. As a callback, the writer refuses the trainer's before the first step.

        Returns
        -------
        RunWriter

        Raises
        ------
        OSError
            If it is there already with something in it, cannot be made, or the disk has not as much room.
        TypeError, ValueError
            If ``config`` has no JSON form, or ``model`` cannot be saved, see `fastconv.serialize.save`.

        Examples
        --------
        >>> import os, tempfile
        >>> from fastconv.train import RunWriter
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with RunWriter.start(f"{root}/first", {"lr": 0.1}) as run:
        ...         print(sorted(os.listdir(run.folder)))
        ...     try:
        ...         RunWriter.start(f"{root}/first", {"lr": 0.2})
        ...     except FileExistsError as error:
        ...         print(str(error).replace(root, ""))
        ['config.json', 'env.json', 'metrics.jsonl']
        /first is there already and not an empty folder
        """
        folder = expand(folder)
        if model is not None:
            serialize.check(model)
        check_vacant(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        there = folder.exists()
        name = f".{folder.name}.{uuid.uuid4().hex[:8]}"
        draft = folder / name if there else folder.with_name(name)
        with speaking_of(folder, draft):
            draft.mkdir()
            held = room = None
            try:
                write_json(draft / CONFIG, dict(config))
                write_json(draft / ENV, environment())
                if _MOVES_OPEN:
                    held = open_locked(draft / METRICS)
                    room = _room(draft, model)
                else:
                    (draft / METRICS).touch()
                if there:
                    _move_up(draft, (ENV, METRICS, CONFIG))  # with the last of them it is a run
                else:
                    check_vacant(folder)  # somebody else may have begun here meanwhile
                    draft.rename(folder)
            except BaseException:
                if held is not None:
                    held.close()
                shutil.rmtree(draft, ignore_errors=True)
                raise
        sync_folder(folder if there else folder.parent)
        if held is None:
            room = _room(folder, model)
            held = open_locked(folder / METRICS)
        return cls(folder, held, room)

    @classmethod
    def resume(
        cls, folder: str | os.PathLike[str], step: int, history: Iterable[Record], model: Module | None = None
    ) -> Self:
        """Go on with a run from a step of the past: what was recorded later is forgotten, so is the result.

        Parameters
        ----------
        folder : path-like
        step : int
            Updates done at the checkpoint.
        history : iterable of dict
            Records of the epochs done at the checkpoint; those that the folder has lost are written again.
        model : Module, optional
            As for `start`.

        Returns
        -------
        RunWriter

        Raises
        ------
        OSError, ValueError
            If it is no run, is damaged, leads elsewhere by a link, another process is at it, or the disk is full;
            nothing is changed then.

        Examples
        --------
        >>> import tempfile
        >>> from fastconv.train import RunWriter, read_record
        >>> first, second = ({"kind": "epoch", "epoch": i, "steps": 10 * i, "loss": 1 / i} for i in (1, 2))
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with RunWriter.start(f"{root}/run", {}) as run:
        ...         run.write(first)
        ...         run.write(second)
        ...     with RunWriter.resume(f"{root}/run", step=10, history=[first]) as run:  # epoch 2 anew
        ...         run.write({**second, "loss": 0.4})
        ...     read_record(f"{root}/run").history["loss"]
        [1.0, 0.4]
        """
        folder, history = expand(folder), list(history)
        if not is_run(folder):
            raise FileNotFoundError(f"{folder} is not the folder of a run")
        for name in (METRICS, ENV, CHECKPOINTS, TENSORBOARD):
            inside(folder, name)
        run = cls(folder, open_locked(folder / METRICS))
        assert run._keeper is not None
        try:
            run._keeper.room = _room(folder, model)
            keep = epochs = 0
            for record, end in read_metrics(folder / METRICS):
                is_epoch = record.get("kind", "epoch") == "epoch"
                if epochs == len(history) if is_epoch else (record.get("step") or 0) > step:
                    break
                epochs += is_epoch
                keep = end
            about = read_env(folder)
            about["resumed"] = [*about.get("resumed", ()), {"step": step, **environment()}]
            write_json(folder / ENV, about, follow=False)
            run._keeper.remember()
            run._keeper.cut(keep)
            for record in history[epochs:]:
                run.write({"kind": "epoch", **record})
            for name in (RESULT, TEST, MODEL):
                (folder / name).unlink(missing_ok=True)
        except BaseException:
            run.close()
            raise
        return run

    @property
    def checkpoints(self) -> Path:
        """The folder for checkpoints."""
        return self.folder / CHECKPOINTS

    def on_fit_start(self, trainer: Trainer) -> None:
        serialize.check(trainer.model)

    def on_safe_point(self, trainer: Trainer) -> None:
        """End the run where the disk is full: in the room that was kept for it, by a checkpoint to go on from.

        Parameters
        ----------
        trainer : Trainer

        Raises
        ------
        OSError
            That the disk is full.
        """
        if self._keeper is None or (full := self._keeper.full) is None:
            return
        saved = [callback.save(trainer) for callback in trainer.callbacks if isinstance(callback, Checkpoint)]
        then = f"; saved at step {trainer.step}, from which the run can be resumed" if saved else ""
        raise OSError(full.errno, f"{full.strerror}{then}", full.filename)

    def on_record(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.write(record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one line: a whole record. What somebody has removed of the run meanwhile is written again.

        Parameters
        ----------
        record : mapping
            With ``kind`` ("epoch", "step" or "event") and plain values.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        if self._keeper is None:
            raise ValueError(f"{self.folder}: the run is closed")
        self._keeper.append((json_line(dict(record)) + "\n").encode())

    def finish(
        self,
        result: Mapping[str, Any],
        model: Module | None = None,
        test: Mapping[str, Any] | None = None,
        made_of: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the model, test.json where there is something to tell, then result.json, and close.

        ``result`` holds at least ``status``: "finished", "stopped", "interrupted" or "diverged"; ``test`` is what
        `fastconv.train.mistakes.told` gives, ``made_of`` what the model's file says of where it comes from.

        Parameters
        ----------
        result : mapping
            For result.json.
        model : Module, optional
            For model.safetensors.
        test, made_of : mapping, optional
        """
        if self._keeper is not None:
            self._keeper.look()
            self._keeper.release()
        if model is not None:
            serialize.save(model, inside(self.folder, MODEL), made_of)
        if self._keeper is not None:
            self._keeper.sync()
        if test is not None:
            write_json(self.folder / TEST, dict(test), follow=False)
        write_json(self.folder / RESULT, dict(result), follow=False)
        self.close()

    def close(self) -> None:
        """Give up the lock; without a result the run counts as killed."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Let config.json say something else.

        Parameters
        ----------
        config : mapping

        Raises
        ------
        OSError, TypeError, ValueError
            If it cannot be written, or has no JSON form.
        """
        assert self._keeper is not None
        write_json(self.folder / CONFIG, dict(config), follow=False)
        self._keeper.remember()

    def withdraw(self) -> None:
        """Take back a folder in which nothing was done: its files go, and it does where nothing else is in it."""
        self.close()
        for name in (CONFIG, ENV, METRICS):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._keeper is not None and isinstance(error, Diverged):
            self.finish({"status": "diverged", "reason": str(error), "steps": error.step})
        elif self._keeper is not None and isinstance(error, Interrupted):
            self.finish({"status": "interrupted", "reason": error.signal.name, "steps": error.step})
        self.close()


def environment() -> dict[str, Any]:
    """Return where this process runs: versions, processor, kernels, threads, command line, time."""
    about = config.info()
    known = ("fastconv", "python", "numpy", "platform", "isa", "threads")
    return {
        **{name: about[name] for name in known},
        "cpu": config.processor(),
        "cores": os.cpu_count(),
        "host": platform.node(),
        "pid": os.getpid(),
        "command": list(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _move_up(draft: Path, names: Iterable[str]) -> None:
    """Move files of a draft into the folder around it; all, or none."""
    moved: list[Path] = []
    try:
        for name in names:
            os.replace(draft / name, draft.parent / name)
            moved.append(draft.parent / name)
        draft.rmdir()
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _room(folder: Path, model: Module | None) -> Room | None:
    """Keep room for what the run of a model writes."""
    return None if model is None else Room(folder, room_of(sum(array.nbytes for _, array in model.named_state())))
