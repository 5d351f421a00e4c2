"""Checkpoints: the whole state of a run in one safetensors file, and the callback that writes them.

The arrays of a state lie in the file under the path that leads to them (``model/0.weight``,
``callbacks/KeepBest/weights/0.weight``); all else is JSON in its header. A SHA-256 over both tells a damaged file.
Nothing in it is ever executed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.functional._check import flag, whole
from fastconv.paths import expand
from fastconv.schema import DEEPEST, Integer, Names, Record, Shape, parse
from fastconv.serialize import ModelFileError, check, load_arrays, save_arrays
from fastconv.serialize.arrays import check_dtypes
from fastconv.serialize.files import sync_folder
from fastconv.signals import EndRequest
from fastconv.train.base import Callback, Interrupted
from fastconv.train.callbacks import merit
from fastconv.train.digest import arrays_sha256
from fastconv.train.shapes import MERIT

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

FORMAT = 1
_STATE, _DIGEST = "fastconv.checkpoint", "sha256"
_FRAME = Record({"format": Integer(), "state": Record()}, rest=None)
_NAME = re.compile(r"step-(\d+)\.safetensors")


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a state to one file, whole or not at all.

    Parameters
    ----------
    path : path-like
    state : dict
        Of strings to arrays (float32, float64, int64), values with a JSON form, and dicts and lists of these, as
        `Trainer.state_dict` returns it.

    Raises
    ------
    TypeError
        If something in it is neither; the message names its place.
    OSError
        If the file cannot be written; what was there before is untouched.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from fastconv.train import load_checkpoint, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "state.safetensors")
    ...     save_checkpoint(path, {"step": 7, "weights": [np.arange(3.0)], "best": None})
    ...     load_checkpoint(path)
    {'step': 7, 'weights': [array([0., 1., 2.])], 'best': None}
    """
    arrays, text = _parts(state)
    save_arrays(path, arrays, {_STATE: text, _DIGEST: arrays_sha256(sorted(arrays.items()), text)})


def _parts(state: dict[str, Any]) -> tuple[dict[str, np.ndarray], str]:
    """Return the arrays of a state and the JSON of the rest."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps({"format": FORMAT, "state": _strip(state, "", arrays)})
    check_dtypes(arrays)
    return arrays, text


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a state that `save_checkpoint` wrote; tuples have become lists.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict

    Raises
    ------
    ModelFileError
        If the file is no checkpoint, or cut short, or damaged, if only by a bit.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.train import load_checkpoint, save_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/state.safetensors", {"step": 7, "rates": (0.1, 0.01)})
    ...     load_checkpoint(f"{folder}/state.safetensors")  # the tuple is a list now
    {'step': 7, 'rates': [0.1, 0.01]}
    """
    arrays, strings = load_arrays(path)
    text = strings.get(_STATE)
    if text is None:
        raise ModelFileError(f"{path}: a safetensors file, but no checkpoint")
    if strings.get(_DIGEST) != arrays_sha256(sorted(arrays.items()), text):
        raise ModelFileError(f"{path}: damaged: its contents do not have the SHA-256 it names")
    try:
        whole = parse(text, _FRAME, f"{path}: its state", nan=True, deepest=2 * DEEPEST)
        if whole["format"] != FORMAT:
            raise ValueError(f"{path}: a checkpoint of format {whole['format']}, this version reads format {FORMAT}")
        state = _fill(whole["state"], arrays)
        if not isinstance(state, dict):
            raise ValueError(f"{path}: its state is damaged: not a dictionary")
    except ValueError as error:
        raise ModelFileError(str(error)) from error
    return state


def load_latest(
    folder: str | os.PathLike[str], accept: Callable[[dict[str, Any]], object] | None = None
) -> tuple[dict[str, Any], Path]:
    """Return the state and the path of the newest checkpoint in a folder that is whole.

    A damaged one is named in a `RuntimeWarning` and gets the suffix ``.damaged``.

    Parameters
    ----------
    folder : path-like
    accept : callable, optional
        Takes up a state, or raises ValueError if it does not fit; then the checkpoint before counts. Where no state
        fits, no file's name is changed for that.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If none fits: what ``accept`` said of the newest.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Checkpoint, Trainer, load_latest
    >>> model, x = nn.Linear(1, 1), np.ones((8, 1), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keep = Checkpoint(folder, steps=1)
    ...     trainer = Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=[keep], progress=False)
    ...     _ = trainer.fit(x, x, epochs=5)
    ...     state, path = load_latest(folder)
    >>> path.name, state["step"]
    ('step-00000005.safetensors', 5)
    """
    damaged, refused = 0, dict[Path, ValueError]()
    for path in reversed(checkpoints(folder)):
        try:
            state = load_checkpoint(path)
        except ModelFileError as error:
            _set_aside(path, error)
            damaged += 1
            continue
        try:
            if accept is not None:
                accept(state)
        except ValueError as error:
            refused[path] = error
            continue
        for other, why in refused.items():
            _set_aside(other, why)
        return state, path
    for path, why in refused.items():
        raise ValueError(f"{path} is not a checkpoint of this run: {why}") from why
    found = f": {damaged} damaged" if damaged else ""
    raise FileNotFoundError(f"{folder} holds no checkpoint to go on from{found}")


def _set_aside(path: Path, error: ValueError) -> None:
    text = str(error) if isinstance(error, ModelFileError) else f"{path}: {error}"
    warnings.warn(f"{text}; going on from the one before it", RuntimeWarning, stacklevel=3)
    os.replace(path, path.with_name(path.name + ".damaged"))


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files of all checkpoints in a folder, oldest first; none where there is no folder."""
    return [path for _, path in _numbered(expand(folder))]


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a folder with their steps, sorted."""
    if not folder.is_dir():
        return []
    return sorted((int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def _answer(name: str) -> str:
    return f"\n{name}: saving after this step (again: ending at once)"


class Checkpoint(Callback):
    """Save the whole state of a run now and then, and when a signal asks the process to end.

    SIGTERM and SIGINT (Ctrl-C) let the running step come to its end, write a checkpoint and end the run by
    `Interrupted`; a second signal ends it at once. A checkpoint that cannot be written is warned of, and training
    goes on; a state or a model that no file can hold is refused before the first step, and so is a folder with
    checkpoints beyond the step at hand: they are another run's, or of this one after the state that was loaded. The
    newest checkpoints and the best one (by the validation figures at its time, as `KeepBest` compares them) are kept,
    others removed.

    Parameters
    ----------
    folder : path-like
        Made with the first checkpoint.
    steps : int, optional
        Save whenever the number of updates done is a multiple of this.
    seconds : float, optional
        Save at the first safe point after so long.
    keep : int
        How many of the newest stay, at least 1.
    signals : bool
        Whether SIGTERM and SIGINT are taken care of; they are in the main thread only.
    final : bool
        Save behind the last epoch, too, before the best weights come back: what a fit of more epochs goes on from.

    Raises
    ------
    ValueError
        If an interval or ``keep`` is not positive.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from fastconv import nn, optim
    >>> from fastconv.train import Checkpoint, Trainer, load_latest
    >>> def make(folder):
    ...     model = nn.Linear(1, 1)
    ...     optimizer = optim.SGD(model, lr=0.1)
    ...     return Trainer(model, nn.MSELoss(), optimizer, callbacks=[Checkpoint(folder, steps=3)], progress=False)
    >>> x = np.ones((8, 1), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     full = make(folder).fit(x, x, epochs=5, batch_size=4)  # ten updates, and so checkpoints after 3, 6 and 9
    ...     trainer = make(folder)  # in another process, say
    ...     trainer.load_state_dict(load_latest(folder)[0])
    ...     resumed = trainer.resume(x, x, batch_size=4)
    >>> resumed["loss"] == full["loss"]
    True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        steps: int | None = None,
        seconds: float | None = None,
        keep: int = 2,
        signals: bool = True,
        final: bool = False,
    ) -> None:
        for name, value in (("steps", steps), ("seconds", seconds), ("keep", keep)):
            if value is not None and not value > 0:
                raise ValueError(f"Checkpoint: {name} must be positive, got {value}")
        self.folder = expand(folder)
        self.steps = None if steps is None else whole("Checkpoint: steps", steps)
        self.seconds = None if seconds is None else float(seconds)
        self.keep = whole("Checkpoint: keep", keep)
        self.signals, self.final = flag("Checkpoint: signals", signals), flag("Checkpoint: final", final)
        self._merits: dict[str, tuple[float, float] | None] = {}
        self._request = EndRequest(_answer)
        self._last = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        if beyond := [path.name for step, path in _numbered(self.folder) if step > trainer.step]:
            raise FileExistsError(
                f"Checkpoint: {self.folder} holds checkpoints beyond step {trainer.step}, at which this run begins, up "
                f"to {beyond[-1]}: take another folder, remove them, or go on from them (load_latest, "
                "load_state_dict, resume)"
            )
        _parts(trainer.state_dict())
        check(trainer.model)
        for draft in self.folder.glob(".step-*"):  # a process was killed while it wrote this one
            draft.unlink()
        self._last = time.monotonic()
        self._request.number = None
        if self.signals and threading.current_thread() is threading.main_thread():
            self._request.listen()

    def on_safe_point(self, trainer: Trainer) -> None:
        if (
            self._request.number is not None
            or (self.final and trainer.epoch == trainer.epochs)
            or (self.steps is not None and trainer.step % self.steps == 0)
            or (self.seconds is not None and time.monotonic() - self._last >= self.seconds)
        ):
            try:
                self.save(trainer)
            except (OSError, TypeError, ValueError) as error:
                if self._request.number is not None:
                    raise
                text = f"the checkpoint at step {trainer.step} failed: {error}; training goes on"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
        if (number := self._request.number) is not None:
            self._request.number = None
            raise Interrupted(number, trainer.step)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._request.close()
        if (number := self._request.number) is not None:  # after the last safe point: the process is asked again
            signal.raise_signal(number)

    def save(self, trainer: Trainer) -> Path:
        """Write a checkpoint of this moment, which must be a safe point; returns its path.

        Parameters
        ----------
        trainer : Trainer

        Examples
        --------
        >>> import tempfile
        >>> from fastconv import nn, optim
        >>> from fastconv.train import Checkpoint, Trainer
        >>> model = nn.Linear(1, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keep = Checkpoint(folder)
        ...     keep.save(Trainer(model, nn.MSELoss(), optim.SGD(model), callbacks=[keep], progress=False)).name
        'step-00000000.safetensors'
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{trainer.step:08}.safetensors"
        judged = [found for record in trainer.history[-1:] if (found := merit(record, trainer.monitor)) is not None]
        self._merits[path.name] = judged[0] if judged else None
        self._last = time.monotonic()
        save_checkpoint(path, trainer.state_dict())
        for other in self._superfluous():
            other.unlink(missing_ok=True)
            self._merits.pop(other.name, None)
        sync_folder(self.folder)
        return path

    def _superfluous(self) -> list[Path]:
        """Return the files that neither are among the newest nor the best."""
        files = checkpoints(self.folder)
        judged = [(found, path) for path in files if (found := self._merits.get(path.name)) is not None]
        best = max(judged, key=lambda pair: pair[0], default=(None, None))[1]  # the first wins among equals
        return [path for path in files[: -self.keep] if path != best]

    def state_dict(self) -> dict[str, Any]:
        return {"merits": self._merits}

    def state_shape(self, trainer: Trainer) -> Shape:
        return Record({"merits": Names(MERIT)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._merits = {name: None if found is None else tuple(found) for name, found in state["merits"].items()}


def _strip(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a state without its arrays, which go to ``arrays``: in their place stands the name they have there."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, np.generic):
        value = float(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, dict):
        if strange := [name for name in value if not isinstance(name, str)]:
            raise TypeError(f"save_checkpoint: {path or 'the state'} has the key {strange[0]!r}, which is no string")
        # A dict of the state is one level deeper than the place of an array, which tells them apart.
        dot = f"{path}/" if path else ""
        return {"dict": {name: _strip(item, dot + name, arrays) for name, item in value.items()}}
    if isinstance(value, list | tuple):
        return [_strip(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"save_checkpoint: {path} is a {type(value).__name__}, neither an array nor a value of JSON")


def _fill(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return a state with its arrays, undoing `_strip`; a ValueError if there is no such array, or of another form."""
    if isinstance(value, list):
        return [_fill(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(found := value.get("dict"), dict):
        return {name: _fill(item, arrays) for name, item in found.items()}
    name = value.get("array")
    if not isinstance(name, str) or name not in arrays:
        raise ValueError(f"its state is damaged: neither a dictionary nor one of its arrays: {str(value)[:80]}")
    return arrays[name]
