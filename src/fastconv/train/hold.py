"""What a fit holds while it goes on: its model, batches and callbacks are its alone; layers' modes are given back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastconv.data import Batches
from fastconv.nn import Module
from fastconv.train.base import remembering

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

_used: dict[int, str] = {}  # id of what a fit uses that goes on: its thread
_lock = threading.Lock()


@contextlib.contextmanager
def held(trainer: Trainer, train: Any, validation: Any) -> Iterator[None]:
    """Let no other fit use a trainer's model, or a part of it, in a ``with`` block; then layers have their modes again.

    Nor what else has a state that is of one fit: batches and callbacks. A loss is taken step by step, in turns.

    Raises
    ------
    RuntimeError
        If another fit is at one of them.
    """
    model = trainer.model
    modes = [(module, module.training) for module in model.modules()]
    batches = {"train": train, "validation": validation}
    parts = {id(given): name for name, given in batches.items() if isinstance(given, Batches)}
    parts |= {id(callback): f"the callback {name}" for name, callback in remembering(trainer.callbacks)}
    parts |= {id(part): "the model, or a part of it," for part in (*model.modules(), *model.parameters())}
    with _lock:
        for part, name in parts.items():
            if part in _used:
                raise RuntimeError(
                    f"Trainer.fit: {name} is in use by a fit in {_used[part]}, and keeps what only one can have; take "
                    "a copy (copy.deepcopy) for one of them, or fit one after the other"
                )
        _used.update(dict.fromkeys(parts, threading.current_thread().name))
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with _lock:
            for part in parts:
                del _used[part]


def frozen(model: Module) -> list[Module]:
    """Return the modules in evaluation of a model in training: whoever put them there means it (fine-tuning)."""
    return [module for module in model.modules() if not module.training] if model.training else []


def into_training(model: Module, apart: list[Module]) -> None:
    """Put a model into training mode unless it is, with the modules ``apart`` in evaluation."""
    if not model.training:
        model.train()
        for module in apart:
            module.training = False
