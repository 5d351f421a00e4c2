"""A net of one hidden layer in a file, in training: what `fastconv mlp` does.

    NAME         the net, as `fastconv.serialize` has it
    NAME.json    the record: at which step it was saved, and which net that was

The record is written first. Whoever is killed between the two leaves a net that the record does not name: then the step
that it says was before counts.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from fastconv import init, nn, schema, serialize
from fastconv.data import Batches, Dataset
from fastconv.locks import Lock
from fastconv.optim import SGD
from fastconv.schedule import Constant, Schedule
from fastconv.serialize.files import Room, write_json
from fastconv.steps import Report
from fastconv.train.digest import state_sha256
from fastconv.train.evaluation import evaluate
from fastconv.train.mistakes import Mistakes, told
from fastconv.train.step_folder import scaled
from fastconv.train.trainer import Trainer

_RECORD = schema.Record(
    {"step": schema.Integer(0, 2**53)}, {"before": schema.Integer(0, 2**53), "state_sha256": schema.Null(schema.Text())}
)
_SMALL = 64 << 10  # bytes on the disk of everything but weights


class MlpTraining:
    """A net of one hidden layer in training by plain SGD; one process at a time.

    Parameters
    ----------
    path : Path
        File of the net. One that is there is trained on, from the step and sample where it stopped; else it is made.
    data : callable
        Gives the data set; it is asked when nobody else can have the net any more.
    hidden : int
        Units of a new net.
    batch : int
    lr : float
    seed : int
        Of weights and order.

    Attributes
    ----------
    batches : Batches
        Of the training images; their length is the updates of an epoch.
    step, before : int
        Updates that the net has had, and had when this began.
    schedule : callable
        From the updates that the net has had to a factor on the rate.

    Raises
    ------
    ValueError, OSError
        If net, record and images do not fit together, another process trains the net, or the disk has no room for it.
    """

    def __init__(
        self, path: Path, data: Callable[[], Dataset], *, hidden: int, batch: int, lr: float, seed: int
    ) -> None:
        self.path, self.record = path, path.with_name(path.name + ".json")
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"--weights {path}: there is no folder {path.parent}")
        with contextlib.ExitStack() as opened:
            busy = "another process is training this net; try again when it has ended"
            opened.enter_context(Lock(path, busy))
            images = data()
            self.new = not path.exists()
            if self.new:
                self.model, self.before = _made(images, hidden, seed), 0
            else:
                self.model = load_net(path, images)
                self.before = steps_done(self.record, self.model)
            self.step = self.before
            self._about = {"seed": seed, "batch": batch}
            self._images, self._levels = images, np.float32(images.levels)
            self.batches = Batches(*images.train, batch, seed=seed, drop_last=True)
            if not len(self.batches):
                raise ValueError(f"--batch {batch}: there are {len(images.train.labels)} training images")
            nbytes = sum(array.nbytes for _, array in self.model.named_state()) + _SMALL
            self._room = opened.enter_context(contextlib.closing(Room(path.absolute().parent, nbytes)))
            optimizer = SGD(self.model.parameters(), lr=lr)
            self.schedule: Schedule = Constant()
            self._trainer = Trainer(
                self.model, nn.CrossEntropyLoss(), optimizer, schedule=lambda _: self.schedule(self.step),
                keep_best=False, progress=False,
            )  # fmt: skip
            self._opened = opened.pop_all()

    @property
    def loss(self) -> float:
        """Loss of the last batch."""
        return self._trainer.batch_loss

    @property
    def hidden(self) -> list[int]:
        """Units of each hidden layer of the net."""
        return [layer.out_features for layer in self.model.modules() if isinstance(layer, nn.Linear)][:-1]

    def take(self) -> Report:
        """Train on the next batch.

        Raises
        ------
        Diverged
            If the loss is not finite; nothing has changed then.
        """
        start = time.perf_counter()
        x, labels = self.batches.batch(*divmod(self.step, len(self.batches)))
        right = self._trainer.take_step(x / self._levels, labels)
        self.step += 1
        assert right is not None
        return Report(self.step, self.loss, right / len(labels), time.perf_counter() - start)

    def test(self) -> tuple[dict[str, float | None], dict[str, Any] | None]:
        """Return loss and accuracy on the test images, and what test.json tells of them."""
        mistakes = Mistakes()
        batches = Batches(*self._images.test, 1000, shuffle=False, standardize=scaled(self._images))
        found = evaluate(self.model, nn.CrossEntropyLoss(), batches, confusion=True, watch=mistakes)
        about = None if found.confusion is None else told(self._images, found.confusion, mistakes)
        return {"test_loss": found.loss, "test_accuracy": found.accuracy}, about

    def save(self) -> None:
        """Write record and net.

        Raises
        ------
        OSError
            If they cannot be; of a new net nothing is left then.
        """
        self._room.close()
        told = {"step": self.step, "before": self.before, "state_sha256": state_sha256(self.model)}
        try:
            write_json(self.record, told | self._about)
            serialize.save(self.model, self.path)
        except OSError:
            if self.new:
                self.record.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Give up lock and room."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _made(images: Dataset, hidden: int, seed: int) -> nn.Module:
    pixels = int(np.prod(images.shape))
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, len(images.classes)))
    init.apply(model, "xavier", seed)
    return model


def load_net(path: Path, images: Dataset) -> Any:
    """Read a net that must fit a data set."""
    model, one = serialize.load(path), np.zeros((1, *images.shape), np.float32)
    try:
        shape = model.predict(one).shape
    except ValueError as error:
        raise ValueError(f"{path} does not take the images of {images.name}: {error}") from None
    if shape != (1, len(images.classes)):
        raise ValueError(f"{path} gives scores of shape {shape}, {images.name} has {len(images.classes)} classes")
    return model


def steps_done(record: Path, model: nn.Module) -> int:
    """Return at which step a net was saved, as the record beside it says."""
    if not record.is_file():  # a pipe's text would never end
        raise FileNotFoundError(
            f"{record} is missing, which says at which step the net was saved; give another --weights to start anew"
        )
    try:
        told = schema.read(record, _RECORD)
        named = told.get("state_sha256") in (None, state_sha256(model))  # earlier versions wrote none
        if not named and "before" not in told:
            raise ValueError("it names another net, and no step before")
    except ValueError as error:
        raise ValueError(f"{record}: not the record of a net: {error}") from None
    step: int = told["step" if named else "before"]
    return step
