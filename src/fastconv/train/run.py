"""A run is a folder: what was asked, what came of it epoch by epoch, and the trained model.

::

    config.json          data set, model, options, standardisation: all it takes to use or repeat it
    metrics.jsonl        one complete line an epoch, the records of `History`
    result.json          test figures, time, digest
    model.safetensors    layers and weights (fastconv.serialize)
"""

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv import serialize
from fastconv.nn import Module
from fastconv.train.history import History

_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Run:
    """What `save_run` wrote and `load_run` read."""

    config: dict[str, Any]
    history: History
    result: dict[str, Any]
    model: Module


def check_vacant(folder: Path) -> None:
    """Raise FileExistsError or NotADirectoryError unless `save_run` could write there."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and not an empty folder")
    parent = next(above for above in folder.absolute().parents if above.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise NotADirectoryError(f"{folder}: cannot make a folder in {parent}")


def save_run(folder: Path, run: Run) -> None:
    """Write a run into a new folder, which appears whole or not at all.

    Raises
    ------
    OSError
        If the folder is there already with something in it, or cannot be written.
    """
    check_vacant(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    draft.mkdir()
    try:
        serialize.save(run.model, draft / _MODEL)
        _write(draft / "config.json", json.dumps(run.config, indent=2) + "\n")
        _write(draft / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in run.history))
        _write(draft / "result.json", json.dumps(run.result, indent=2) + "\n")
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def load_run(folder: Path) -> Run:
    """Read a run.

    Raises
    ------
    OSError
        If a file is missing.
    ValueError
        If one is damaged.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.json")
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return Run(
        config=_read(folder / "config.json", (folder / "config.json").read_text("utf-8")),
        history=History(_read(folder / "metrics.jsonl", line) for line in lines),
        result=_read(folder / "result.json", (folder / "result.json").read_text("utf-8")),
        model=serialize.load(folder / _MODEL),
    )


def _read(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: not a JSON object")
    return value


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
