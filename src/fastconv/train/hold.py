"""What a fit holds while it goes on: its model, batches and callbacks are its alone; layers' modes are given back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from fastconv.nn import Module

_used: dict[int, str] = {}  # id of what a fit uses that goes on: its thread
_lock = threading.Lock()


@contextlib.contextmanager
def held(model: Module, others: Mapping[str, Any]) -> Iterator[None]:
    """Let no other fit use a model, or a part of it, for a ``with`` block; then every module has its mode again.

    Parameters
    ----------
    model : Module
    others : mapping of str to object
        What else keeps state that is of one fit alone, by the names it has in the message.

    Raises
    ------
    RuntimeError
        If another fit is at one of them.
    """
    modes = [(module, module.training) for module in model.modules()]
    parts = {id(other): name for name, other in others.items()}
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
