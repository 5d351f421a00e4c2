"""Training: the loop, its callbacks, its history, and evaluation.

::

    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    history = trainer.fit(train_batches, validation_batches, epochs=10)
    found = evaluate(model, nn.CrossEntropyLoss(), test_batches)
"""

from fastconv.train.base import Callback, Diverged
from fastconv.train.callbacks import KeepBest, StopOnExplosion
from fastconv.train.digest import state_sha256
from fastconv.train.evaluation import Evaluation, evaluate
from fastconv.train.history import History
from fastconv.train.progress import Progress
from fastconv.train.run import RunRecord, find_runs, read_record
from fastconv.train.trainer import Trainer
from fastconv.train.writer import RunWriter

__all__ = [
    "Callback", "Diverged", "Evaluation", "History", "KeepBest", "Progress", "RunRecord", "RunWriter",
    "StopOnExplosion", "Trainer", "evaluate", "find_runs", "read_record", "state_sha256",
]  # fmt: skip
