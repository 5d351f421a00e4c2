"""Step 5, controlled overfitting: a net that cannot learn twenty images by heart will learn nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import random
from fastconv.diagnose.report import Finding
from fastconv.diagnose.subject import Subject
from fastconv.nn import Module
from fastconv.optim import SGD, Adam
from fastconv.train import evaluate

__all__ = ["check_overfit"]

Array = np.ndarray

IMAGES = 20
"""Of the lecture (CS231n, "Babysitting the learning process")."""

NEAR_ZERO = 0.05
"""The loss that counts as near 0, as a share of ln(classes): 0.115 for ten, each right label at 89 %. Of numbers, as a
share of what saying their mean costs: an r2 of 0.95."""

RATES = (1e-3, 1e-2, 1e-4)
"""Learning rates of Adam, in the order tried. It scales steps by itself, so that a decade around its default
covers nets whose gradients differ by far more."""

STEPS = 300
"""Updates for each rate. A weight may move by about 300 × 1e-3 = 0.3, more than it starts from in a layer of
ten inputs or more."""

FLAT = 0.01
"""Share of the first loss within which it counts as not moving."""

PIXELS = 0.97
"""Share of pixels that have to be right, where each has a class: borders between classes are drawn by hand."""

CLOSE = 0.05
"""Share of a known level (ln(classes), the floor of a double softmax) within which a loss rests at it."""

_TOO_FEW = 50  # steps to judge by
_SETTLE = 100  # updates of running statistics: with momentum 0.1 they then are within 3e-5 of the batch's


@dataclass(frozen=True)
class _Trial:
    rate: float
    model: Module
    losses: list[float]
    accuracy: float | None
    lost: str | None
    reached: bool

    @property
    def last(self) -> float:
        return math.inf if self.lost or not self.losses else self.losses[-1]


def check_overfit(subject: Subject) -> Finding:
    """Train copies on twenty images without regularisation until one knows them by heart."""
    finding = subject.finding("overfit", f"Overfitting {IMAGES} {subject.train.words.sample}s")
    x, y = _few(subject)
    late = subject.deadline()
    trials: list[_Trial] = []
    for rate in RATES:
        trials.append(_learn(subject, x, y, rate, late))
        if trials[-1].reached or late():
            break
    best = min(trials, key=lambda trial: trial.last)
    finding.figures |= {
        "samples": len(y), "reached": best.reached, "steps": len(best.losses), "rate": best.rate,
        "accuracy": best.accuracy, "losses": best.losses,
    }  # fmt: skip
    course = f"loss {best.losses[0]:.3f} → {best.losses[-1]:.3g}" if best.losses else "no step was possible"
    right = "" if best.accuracy is None else f"accuracy {best.accuracy:.0%}, "
    finding.summary = (
        f"{len(y)} {finding.sample}s, no dropout, no penalty, Adam {best.rate:g}: {right}{course} in "
        f"{len(best.losses)} steps"
    )
    if best.reached:
        _evaluated(finding, subject, best, x, y)
        if not finding.remarks:
            finding.good("Learned by heart: layers, loss and gradients work together.")
    else:
        _stopped(finding, subject, x, y, trials, best, late())
    if best.losses and (level := subject.constant_loss(y)):
        finding.figures["r2"] = 1 - best.last / level
        finding.summary += f"; r2 {1 - best.last / level:.2f}"
    return finding


def _few(subject: Subject) -> tuple[Array, Array]:
    """Draw images of as many classes as there are, each in turn."""
    rows = subject.usable
    rng = random.generator(subject.seed, "check.overfit")
    rows = rng.permutation(rows)
    if subject.classes is not None:
        labels = subject.train.targets[rows]
        turn = np.zeros(len(rows), np.int64)  # how many of its class come before
        for label in range(subject.classes):
            of_class = labels == label
            turn[of_class] = np.arange(of_class.sum())
        rows = rows[np.argsort(turn, kind="stable")]
    return subject.sample(IMAGES, "overfit", np.sort(rows[:IMAGES]))


def _learn(subject: Subject, x: Array, y: Array, rate: float, late: Callable[[], bool]) -> _Trial:
    model = subject.calm()
    level = subject.level(y)

    def reached(record: dict[str, Any]) -> bool:
        nonlocal level
        level = record["loss"] if level is None else level
        right = record["accuracy"]
        return record["loss"] <= _near(level, NEAR_ZERO) and (
            right is None or right >= (PIXELS if subject.pixels else 1)
        )

    history, lost = subject.run(
        model, Adam([param for param in model.parameters() if param.requires_grad], rate), [(x, y)], epochs=STEPS,
        until=lambda record: reached(record) or late(), factor=math.inf, loss=subject.calm_loss(),
    )  # fmt: skip
    accuracy = history[-1]["accuracy"] if len(history) else None
    done = lost is None and len(history) > 0 and reached(history[-1])
    return _Trial(rate, model, history["loss"], accuracy, lost, done)


def _evaluated(finding: Finding, subject: Subject, trial: _Trial, x: Array, y: Array) -> None:
    """What is learned must show in evaluation mode, once running statistics had time to follow."""
    known = subject.level(y)
    level = _near(trial.losses[0] if known is None else known, 2 * NEAR_ZERO)
    found, late = evaluate(trial.model, subject.calm_loss(), [(x, y)]), subject.deadline()
    if not found.loss <= level:
        model = trial.model
        subject.run(
            model, SGD(model.parameters(), lr=0.0), [(x, y)], epochs=_SETTLE, until=lambda record: late(),
            loss=subject.calm_loss(),
        )  # fmt: skip
        found = evaluate(model, subject.calm_loss(), [(x, y)])
    finding.figures |= {"evaluation_loss": found.loss, "evaluation_accuracy": found.accuracy}
    if not found.loss <= level:
        lost = found.accuracy is not None and found.accuracy < 0.9
        right = "" if found.accuracy is None else f"accuracy {found.accuracy:.0%}, "
        remark = finding.wrong if lost and not late() else finding.suspicious
        short = " There was no time for running statistics to follow: give the check more (seconds)." * late()
        remark(
            f"In evaluation mode the same net and {finding.sample}s have {right}loss {found.loss:.3g}.{short}",
            "Running statistics of batch normalisation do not follow: momentum is the share of the new batch here, 0.1 "
            "by default. Or a layer of your own does something else in evaluation.",
        )


def _stopped(
    finding: Finding, subject: Subject, x: Array, y: Array, trials: list[_Trial], best: _Trial, late: bool
) -> None:
    """Say what kept the net from learning the images by heart."""
    first = trials[0].losses[0] if trials[0].losses else math.nan
    silent, total = _without_gradient(subject, x, y)
    finding.figures["without_gradient"] = silent
    level, what = _known_level(subject, y, best)
    if not math.isfinite(best.last):
        reason = trials[0].lost or "the loss is not a number"
        finding.wrong(f"Every rate from {min(RATES):g} to {max(RATES):g} lost the run: {reason}.",
                      "See the layers' signal and the gradients above.")  # fmt: skip
    elif total and len(silent) == total:
        finding.wrong("No gradient reaches any weight: nothing can be learned.",
                      "See the layers' signal above: dead or saturated units, or weights that are all 0.")  # fmt: skip
    elif abs(best.last - level) < CLOSE * level:
        blocked = f" No gradient reaches {', '.join(silent[:4])}." if silent else ""
        finding.wrong(f"The loss rests at {best.last:.3f}: {what}.{blocked}", _ADVICE[what])
    elif late and len(best.losses) < _TOO_FEW:
        finding.suspicious(f"Only {len(best.losses)} steps were possible in the time; they say nothing yet.",
                           "Give the check more time (seconds).")  # fmt: skip
    elif min(trial.last for trial in trials) > first:
        finding.wrong(f"The loss rises, from {first:.3f} to {best.last:.3f} at best: steps lead uphill.",
                      "A gradient has the wrong sign: see the gradients above.")  # fmt: skip
    elif all(max(t.losses) - min(t.losses) < FLAT * abs(first) for t in trials if t.losses):
        finding.wrong(f"The loss is flat from the start, at {first:.3f}.", "See the gradients and the signal above.")
    elif _falling(best.losses):
        more = "There was no time for more steps." if late else "Learning is very slow."
        finding.suspicious(f"The loss is still falling. {more}",
                           "Give the check more time, or look at the signal above.")  # fmt: skip
    else:
        some = f", and no gradient reaches {', '.join(silent[:4])}" if silent else ""
        finding.wrong(f"The loss rests at {best.last:.3f}{some}: the net cannot tell these {finding.sample}s apart.",
                      "Is the net too small, or a layer cut off? See gradients and signal above.")  # fmt: skip


_FREQUENCIES = "what knowing the classes' shares and nothing of the inputs gives"
_TWICE = "the floor of a softmax taken twice"
_ADVICE = {
    _FREQUENCIES: "Only the last biases learn. See the signal above: dead, saturated, or the same for all inputs?",
    _TWICE: "Leave out the last Softmax layer: the loss takes scores.",
}


def _known_level(subject: Subject, y: Array, best: _Trial) -> tuple[float, str]:
    """Return the level of loss among those with a name that is nearest, and the name."""
    if subject.chance is None or subject.classes is None:
        return math.inf, ""
    shares = np.bincount(y, minlength=subject.classes) / len(y)
    entropy = -sum(share * math.log(share) for share in shares.tolist() if share)
    levels = {_FREQUENCIES: entropy, _TWICE: math.log(1 + (subject.classes - 1) / math.e)}
    name = min(levels, key=lambda name: abs(levels[name] - best.last))
    return levels[name], name


def _without_gradient(subject: Subject, x: Array, y: Array) -> tuple[list[str], int]:
    """Return the weights whose gradient is exactly 0 at the start, and how many there are."""
    model, loss = subject.calm(), subject.calm_loss()
    model.zero_grad()
    loss(model(x), y)
    model.backward(loss.backward())
    learned = [(n, p) for n, p in model.named_parameters() if p.data.ndim >= 2 and p.requires_grad]
    return [name for name, param in learned if not param.grad.any()], len(learned)


def _falling(losses: list[float]) -> bool:
    """Whether the last fifth of the steps took more than `FLAT` of the loss away."""
    fifth = max(len(losses) // 5, 1)
    return len(losses) > 1 and losses[-1 - fifth] - losses[-1] > FLAT * abs(losses[-1 - fifth])


def _near(level: float, share: float) -> float:
    """Return what is as near to 0 as a share of a level; of a negative one, lower by its size less that share."""
    return share * level if level >= 0 else level + (1 - share) * level
