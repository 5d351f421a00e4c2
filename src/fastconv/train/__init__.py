"""Training: the loop, its callbacks, its history, and evaluation.

::

    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    history = trainer.fit(train_batches, validation_batches, epochs=10)
    found = evaluate(model, nn.CrossEntropyLoss(), test_batches)
"""

from fastconv.train.base import Callback, Diverged, Interrupted
from fastconv.train.callbacks import (
    ChillOut,
    EarlyStopping,
    KeepBest,
    Patience,
    ReduceLROnPlateau,
    StopOnExplosion,
)
from fastconv.train.checkpoint import Checkpoint, load_checkpoint, load_latest, save_checkpoint
from fastconv.train.digest import state_sha256
from fastconv.train.evaluation import Evaluation, evaluate
from fastconv.train.history import History
from fastconv.train.non_finite import StopOnNonFinite
from fastconv.train.progress import Progress
from fastconv.train.run import RunRecord, find_runs, read_record
from fastconv.train.tensorboard import TensorBoard
from fastconv.train.trainer import Trainer
from fastconv.train.writer import RunWriter

__all__ = [
    "Callback", "Checkpoint", "ChillOut", "Diverged", "EarlyStopping", "Evaluation", "History", "Interrupted",
    "KeepBest", "Patience", "Progress", "ReduceLROnPlateau", "RunRecord", "RunWriter", "StopOnExplosion",
    "StopOnNonFinite", "TensorBoard", "Trainer",
    "evaluate", "find_runs", "load_checkpoint", "load_latest", "read_record", "save_checkpoint", "state_sha256",
]  # fmt: skip
