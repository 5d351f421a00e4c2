"""What a fit holds of a model while it goes on: it alone trains it, and every layer's mode is given back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from fastconv.nn import Module

_trained: dict[int, str] = {}  # id of a module or parameter that is being trained: the thread
_lock = threading.Lock()


@contextlib.contextmanager
def held(model: Module) -> Iterator[None]:
    """Let no other fit train a model, or a part of it, for a ``with`` block; then every module has its mode again.

    Raises
    ------
    RuntimeError
        If another fit is at it.
    """
    modes = [(module, module.training) for module in model.modules()]
    parts = {id(part) for part in (*model.modules(), *model.parameters())}
    with _lock:
        if busy := parts & _trained.keys():
            raise RuntimeError(
                f"Trainer.fit: the model, or a part of it, is being trained in {_trained[busy.pop()]}; its layers keep "
                "one set of buffers: train a copy (copy.deepcopy) there, or one after the other"
            )
        _trained.update(dict.fromkeys(parts, threading.current_thread().name))
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with _lock:
            for part in parts:
                del _trained[part]


def frozen(model: Module) -> list[Module]:
    """Return the modules in evaluation of a model in training: whoever put them there means it (fine-tuning)."""
    return [module for module in model.modules() if not module.training] if model.training else []


def into_training(model: Module, apart: list[Module]) -> None:
    """Put a model into training mode unless it is, with the modules ``apart`` in evaluation."""
    if not model.training:
        model.train()
        for module in apart:
            module.training = False
