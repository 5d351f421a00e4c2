"""How a run does, judged from its figures alone: the symptoms of a loss curve, as the lecture names them."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from fastconv.train import History
from fastconv.train.base import SMALL, ceiling
from fastconv.train.run import RunRecord

__all__ = [
    "ACCURACY_GAP", "BARELY", "EXPLOSION", "FAINT", "NAMES", "RISE", "Health", "HealthName", "health", "judge",
]  # fmt: skip

EXPLOSION = 3.0
"""A loss above so many times the first one has exploded; of one that is small, zero or negative by nature, a loss above
`fastconv.train.base.ceiling`."""
BARELY = 0.05
"""A loss that fell by less than this share of the first one barely changes."""
RISE = 0.1
"""A validation loss this share above its lowest is rising ..."""
FAINT = 0.01
"""... unless the rise is less than this share of the first loss: then it is noise."""
ACCURACY_GAP = 0.1
"""Training accuracy this far above validation accuracy is a large gap; accuracy no more above 1/classes is chance."""

HealthName = Literal["learning", "too slow", "exploded", "overfitting", "running", "unknown"]
NAMES: tuple[HealthName, ...] = get_args(HealthName)


@dataclass(frozen=True)
class Health:
    """A judgement and what it rests on.

    Attributes
    ----------
    name : str
        One of ``NAMES``.
    reason : str
        A sentence with the figures.
    """

    name: HealthName
    reason: str


def health(
    history: History, status: str = "finished", *, first_loss: float | None = None, classes: int | None = None
) -> Health:
    """Judge a run by its loss curves.

    The first of these that fits is the answer:

    ``exploded``
        The run ended as diverged, or its last loss is not finite or above ``EXPLOSION`` (3) times the first.
    ``running`` or ``unknown``
        There are not two losses to compare; which of the two, the status says.
    ``overfitting``
        Validation loss is ``RISE`` (10 %) or more above its lowest, by ``FAINT`` (1 %) of the first loss or
        more, and training loss has fallen since then; or training accuracy is more than ``ACCURACY_GAP`` (0.1)
        above validation accuracy.
    ``too slow``
        The lowest loss is less than ``BARELY`` (5 %) below the first; or the ``classes`` are known, neither training
        nor validation loss was ever below ln(classes), and accuracy never above 1/classes by more than
        ``ACCURACY_GAP`` (0.1): a net that guesses does as well. The loss alone does not tell: a net that is sure of
        its mistakes may lose more and yet be right more often.
    ``learning``
        All else.

    Parameters
    ----------
    history : History
        Records of epochs with ``loss``, if known ``accuracy``, ``validation_loss`` and ``validation_accuracy``.
        A loss that is missing, None or NaN counts as not finite; a missing validation loss as not measured.
    status : str
        That of a run: "running", "killed", "interrupted", "stopped", "diverged" or "finished".
    first_loss : float, optional
        Loss before training where known: that of the first step, or ln(classes) for balanced classes. Without
        it the first epoch's mean stands in, which has some of the learning behind it.
    classes : int, optional
        How many there are, where the losses are cross-entropies of a classification.

    Returns
    -------
    Health

    Notes
    -----
    A run that exploded and came back is judged by where it is now. The trainer's training figures are means
    over an epoch in which the net still learned, so a gap is understated.

    References
    ----------
    CS231n, "Babysitting the learning process": loss barely changing, loss NaN or above three times the
    original, the gap between training and validation accuracy.

    Examples
    --------
    >>> health(History([{"loss": 2.30}, {"loss": 2.29}])).name
    'too slow'
    >>> health(History([{"loss": 2.30}, {"loss": 9.5}])).reason
    'loss 9.5 is more than 3 times the first, 2.3'
    """
    losses = [_number(loss) for loss in history["loss"]]
    if status == "diverged":
        return Health("exploded", "the run ended because it diverged")
    if losses and not math.isfinite(losses[-1]):
        return Health("exploded", f"the loss of epoch {len(losses)} is not finite")
    if first_loss is not None and math.isfinite(first_loss):
        losses.insert(0, first_loss)
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < 2:
        found = "one loss, and none to compare it with" if known else "no loss recorded"
        return Health("running", f"{found} yet") if status == "running" else Health("unknown", found)
    first, last = known[0], known[-1]
    if last > ceiling(first, EXPLOSION):
        many = f"more than {EXPLOSION:g} times" if first >= SMALL else "far above"
        return Health("exploded", f"loss {last:.4g} is {many} the first, {first:.4g}")
    if reason := _overfitting(history, FAINT * abs(first)):
        return Health("overfitting", reason)
    if first - min(known) < BARELY * abs(first):
        return Health("too slow", f"loss barely changes: {first:.4g} at first, {min(known):.4g} at best")
    if classes is not None and (reason := _guessing(history, classes)):
        return Health("too slow", reason)
    return Health("learning", f"loss from {first:.4g} to {last:.4g}")


def _guessing(history: History, classes: int) -> str | None:
    """Say that a classifier never did better than one that guesses, if so."""
    chance = math.log(classes)
    losses = [_number(record.get(name)) for record in history for name in ("loss", "validation_loss")]
    shares = [_number(record.get(name)) for record in history for name in ("accuracy", "validation_accuracy")]
    right = max((share for share in shares if math.isfinite(share)), default=1.0)
    if any(loss < chance for loss in losses) or right - 1 / classes > ACCURACY_GAP:
        return None
    lowest = min(loss for loss in losses if math.isfinite(loss))
    return (
        f"no better than guessing: loss {lowest:.4g} at best, where ln({classes}) is {chance:.4g}, "
        f"and accuracy {100 * right:.1f} %"
    )


def _overfitting(history: History, faint: float) -> str | None:
    measured = [
        (_number(record.get("validation_loss")), _number(record.get("loss")), record) for record in history
    ]
    measured = [entry for entry in measured if math.isfinite(entry[0]) and math.isfinite(entry[1])]
    if not measured:
        return None
    lowest, training_then, best = min(measured, key=lambda entry: entry[0])
    last, training_now, record = measured[-1]
    if last - lowest >= max(RISE * abs(lowest), faint) and training_now < training_then:
        where = f" in epoch {best['epoch']}" if "epoch" in best else ""
        return (
            f"validation loss rose from {lowest:.4g}{where} to {last:.4g} "
            f"while training loss fell from {training_then:.4g} to {training_now:.4g}"
        )
    seen, unseen = _number(record.get("accuracy")), _number(record.get("validation_accuracy"))
    if seen - unseen > ACCURACY_GAP:  # false for NaN
        return f"training accuracy {100 * seen:.1f} % is far above validation accuracy {100 * unseen:.1f} %"
    return None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def judge(record: RunRecord) -> Health:
    """Judge a recorded run, with the best known loss before training.

    That is the loss of step 1 where one was recorded. Otherwise, where the first epoch's mean is below
    ln(classes), which an untrained net starts from, that. Where the run names its classes, it has to beat that too
    to be learning. A run that diverged has its own reason.
    """
    epochs = record.history["loss"]
    named = record.config.get("classes")
    classes = len(named) if isinstance(named, list) and len(named) > 1 else None
    chance = -math.inf if classes is None else math.log(classes)
    start = next((_number(step.get("loss")) for step in record.steps if step.get("step") == 1), math.nan)
    if not math.isfinite(start) and epochs and _number(epochs[0]) < chance:
        start = chance
    found = health(record.history, record.status, first_loss=start, classes=classes)
    reason = (record.result or {}).get("reason")
    return Health(found.name, reason) if record.status == "diverged" and isinstance(reason, str) else found
