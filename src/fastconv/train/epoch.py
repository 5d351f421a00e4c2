"""An epoch: the batches of a trainer become updates, then come the validation and the record."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fastconv.nn.base import turn
from fastconv.train.base import lost
from fastconv.train.evaluation import Batch, evaluate, total_loss
from fastconv.train.given import Batched, unpacked
from fastconv.train.hold import into_training
from fastconv.train.tally import Tally
from fastconv.train.update import add_gradients, update

if TYPE_CHECKING:
    from fastconv.train.trainer import Trainer


def run_epoch(trainer: Trainer, train: Batched, validation: Iterable[Batch] | None) -> None:
    """Run the epoch that a trainer is at, or what is left of it: a step in every update, validation, the record."""
    tally = trainer._tally = trainer._tally or Tally()
    trainer._notify("on_epoch_start")
    into_training(trainer.model, trainer._frozen)
    fetched = time.perf_counter()
    batches = samples = 0  # what the present update has seen
    for x, y, weights in map(unpacked, _remaining(train, tally.batches)):
        if not batches:
            trainer._notify("on_step_start")
        started = time.perf_counter()
        with turn([*trainer._modules, trainer.loss]):
            right = add_gradients(trainer, x, y, weights, begins=not batches)
            batches, samples = batches + 1, samples + len(x)
            complete = batches == trainer.accumulate
            if complete:
                update(trainer, batches, samples)
        ended = time.perf_counter()
        loss, weight = total_loss(trainer.loss, trainer.batch_loss, len(x))
        tally.add(len(x), loss, weight, right)
        tally.clock(ended - started, ended - fetched)
        trainer.mean_loss = tally.mean_loss
        if complete:
            batches = samples = 0
            trainer._notify("on_step_end")
            if trainer.stop_reason is not None:
                break
            if tally.batches < trainer.steps_per_epoch or not trainer.steps_per_epoch:
                trainer._notify("on_safe_point")
        fetched = time.perf_counter()
    if batches:
        with turn(trainer._modules):
            update(trainer, batches, samples)
        trainer._notify("on_step_end")
    trainer._tally = None
    if not tally.samples:
        many = f"{trainer.steps_per_epoch or ''} batches of epoch {trainer.epoch + 1}"
        raise ValueError(f"Trainer.fit: none of the {many} has a sample")
    for name, param in trainer.model.named_parameters():
        if not np.isfinite(param.data).all():
            raise lost(trainer, f"{name} is no longer finite", None, *name.rpartition(".")[::2])
    record = {"epoch": trainer.epoch + 1, "steps": trainer.step, "lr": trainer.optimizer.lr, **tally.figures()}
    with trainer._averaged():
        found = None
        if validation is not None:
            found = evaluate(trainer.model, trainer.loss, validation, metrics=trainer.metrics)
    if found is not None and not math.isfinite(found.loss):
        raise lost(trainer, f"the validation loss is {found.loss}", None)
    record["validation_loss"] = None if found is None else found.loss
    record["validation_accuracy"] = None if found is None else found.accuracy
    for name in trainer.metrics:
        record[f"validation_{name}"] = None if found is None else found.metrics[name]
    trainer.history.append(record)
    trainer.log({"kind": "epoch", **record})
    trainer._notify("on_epoch_end")


def _remaining(train: Batched, done: int) -> Iterator[Batch]:
    """Give the rest of an epoch; what has a position goes on from there by itself."""
    filled = (batch for batch in train if len(batch[0]))
    return filled if hasattr(train, "position") else itertools.islice(filled, done, None)
