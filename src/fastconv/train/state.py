"""What a trainer is at a moment, as dicts and lists; and a trainer that takes it up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastconv import config, nn
from fastconv.train.base import remembering
from fastconv.train.history import History
from fastconv.train.shapes import STATE
from fastconv.train.tally import Tally

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer

# Attributes that make up the state by themselves.
_PLAIN = (
    "step", "steps_per_epoch", "epoch", "epochs", "first_epoch", "base_lr", "batch_loss", "batch_penalty", "mean_loss",
    "stop_reason",
)  # fmt: skip


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return what `Trainer.state_dict` does."""
    train, tally = trainer._train, trainer._tally
    return {
        **{name: getattr(trainer, name) for name in _PLAIN},
        "position": trainer._position if train is None else getattr(train, "position", None),
        "tally": None if tally is None else tally.state_dict(),
        "history": [dict(record) for record in trainer.history],
        "model": trainer.model.state_dict(),
        "counters": trainer.model.extra_state(),
        "algorithm": config.algorithm(),
        "optimizer": trainer.optimizer.state_dict(),
        "callbacks": {name: callback.state_dict() for name, callback in remembering(trainer.callbacks)},
        **({} if trainer.ema is None else {"ema": trainer.ema.state_dict()}),
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Do what `Trainer.load_state_dict` does."""
    STATE.check(state, "")
    callbacks, saved = dict(remembering(trainer.callbacks)), state["callbacks"]
    if callbacks.keys() != saved.keys():
        raise ValueError(
            f"Trainer.load_state_dict: a state of a run with {_listed(saved)}; this one has {_listed(callbacks)}"
        )
    if (trainer.ema is None) != (state.get("ema") is None):
        how = "with averaged weights, this one has none" if trainer.ema is None else "without averaged weights"
        raise ValueError(f"Trainer.load_state_dict: a state of a run {how}")
    _same_algorithm(trainer.model, state.get("algorithm"))
    trainer.model.load_state_dict(state["model"])
    if trainer.ema is not None:
        trainer.ema.load_state_dict(state["ema"])
    trainer.model.load_extra_state(state["counters"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    for name, callback in callbacks.items():
        callback.state_shape(trainer).check(saved[name], name)
    for name, callback in callbacks.items():
        callback._keep_fresh()
        callback.load_state_dict(saved[name])
    for name in _PLAIN:
        setattr(trainer, name, state.get(name, 0) if name == "first_epoch" else state[name])
    trainer._position = None if state["position"] is None else tuple(state["position"])
    trainer._tally = None if state["tally"] is None else Tally.from_state(state["tally"])
    trainer.history = History(state["history"])


def _same_algorithm(model: nn.Module, former: str | None) -> None:
    """Raise ValueError where the run would go on with other sums; older states tell no setting, None."""
    now = config.algorithm()
    if former is None:
        open_ = any(isinstance(layer, nn.Conv2d) and layer.algorithm is None for layer in model.modules())
        former = "direct" if open_ else now
    if former != now:
        raise ValueError(
            f"Trainer.load_state_dict: a state of a run with the algorithm {former!r} of convolutions; now the setting "
            f"is {now!r}: go on under fastconv.config.algorithm({former!r})"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "no callback that has a state"
