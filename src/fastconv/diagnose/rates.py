"""Step 6, the learning-rate range test: short runs from one start, from too low to exploding."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastconv import random
from fastconv.diagnose.report import Finding
from fastconv.diagnose.subject import Subject
from fastconv.nn import Module

__all__ = ["RangeTest", "Trial", "check_rates", "find_range"]

Array = np.ndarray

BARELY = 0.01
"""Share of the first loss (of its size, where it is negative) by which it must fall to count as learning (lecture:
"loss barely changing")."""

EXPLODED = 3.0
"""Times the first loss: "if the cost is ever > 3 * original cost, break out early" (CS231n). Here it has to stay
there for some updates running: nets with batch normalisation leap at first and come back."""

GOOD = 0.5
"""Share of the best fall of the loss that makes a rate a good one."""

GRID = tuple(float(f"{10.0 ** (k / 2):.2g}") for k in range(-14, 5))
"""Rates tried: two a decade from 1e-7 to 100. Neighbours differ by 3.2, finer than rates matter (Bengio 2012,
section 3.3: a good rate is within a factor of 2 of the largest that does not diverge)."""

SIGMAS = 3.0
"""Standard errors by which accuracy must rise to count."""

_STEPS = (12, 40)  # fewest and most updates a rate
_LEAST_STEPS, _SMALLEST, _LEAST_RUNS = 6, 4, 8  # updates, images of one, and rates, where the time is short
_TELLING = 3  # rates below which nothing is suggested
_WIDEST = 4  # places of the grid from a rate to the next, likewise: two decades
_FEWEST = 8  # images
_PROBE = 512  # images that the loss is measured on before and after
_RUNS = 14  # about how many rates are tried, for the time
_START = 0.01  # where to begin without an optimiser


@dataclass(frozen=True)
class Trial:
    """One short run.

    Attributes
    ----------
    rate, loss, accuracy : float
        ``loss`` after the run, infinite when it exploded; ``accuracy`` NaN where targets are not labels.
    word : {"too low", "slow", "good", "too high", "rising", "exploding"}
    """

    rate: float
    loss: float
    accuracy: float
    word: str


@dataclass
class RangeTest:
    """How far a few updates get at each learning rate.

    Attributes
    ----------
    first_loss, first_accuracy : float
        Before any update, on the images that all runs are measured on.
    trials : list of Trial
        By rising rate.
    steps, images : int
        Updates of each run, and images of each.
    suggestion : (low, high) or None
        Rates between which the loss fell best; None if it fell nowhere.
    reason : str
        Why these, or why none.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> from fastconv import data, diagnose, nn
    >>> images, labels = data.load("digits").train
    >>> fastconv.manual_seed(0)
    >>> test = diagnose.range_test(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (images / np.float32(16), labels))
    >>> for trial in test.trials[::2]:
    ...     print(f"{trial.rate:<7.2g}{trial.loss:8.2f}  {trial.word}")
    0.0001     2.31  too low
    0.001      2.26  slow
    0.01       1.79  slow
    0.1        0.43  good
    1          0.20  good
    10          inf  exploding
    >>> test.suggestion, test.reason
    ((0.032, 3.2), 'the loss falls most at 0.32; at 10 it is exploding')
    """

    first_loss: float
    first_accuracy: float
    trials: list[Trial] = field(default_factory=list)
    steps: int = 0
    suggestion: tuple[float, float] | None = None
    reason: str = ""
    images: int = 0

    @property
    def rates(self) -> list[float]:
        return [trial.rate for trial in self.trials]

    @property
    def losses(self) -> list[float]:
        return [trial.loss for trial in self.trials]

    @property
    def accuracies(self) -> list[float]:
        return [trial.accuracy for trial in self.trials]


def find_range(subject: Subject) -> RangeTest:
    """Walk from the middle of the grid up until the loss explodes, and down until it barely changes.

    Every run starts from the same weights and counters and meets the same batches, with the subject's own
    optimiser and penalty. What is measured is the loss of images held apart, in training mode without dropout.

    References
    ----------
    CS231n, "Babysitting the learning process". L. Smith, "Cyclical learning rates for training neural
    networks", WACV 2017, section 3.3, has one run with a rising rate instead; there a rate is judged with the
    weights that lower ones left.
    """
    if len(subject.usable) < _FEWEST:
        few = f"only {len(subject.usable)} {subject.train.words.sample}s can be used"
        return RangeTest(math.nan, math.nan, reason=few)
    return _Walk(subject).result()


class _Walk:
    """The state of one range test."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        rows = random.generator(subject.seed, "check.rates").permutation(subject.usable)
        cut = min(subject.affordable(_PROBE, 3 * _RUNS), len(rows) // 3)
        self.x, self.y = subject.sample(cut, "rates", np.sort(rows[:cut]))
        self.first, self.right = self._measure(subject.calm())
        self.barely = BARELY * abs(self.first)
        self.found: dict[float, tuple[float, float]] = {}
        size = min(subject.batch_size, len(rows) - cut)
        self.late, self.stride, self.hurried = subject.deadline(), 1, False
        first = self._timed(rows[cut:], 1, size)
        if first * _STEPS[0] * _RUNS > 2 * subject.seconds:
            self._hurry(rows[cut:], size, first)
            return
        each = self._timed(rows[cut:], _STEPS[0], size) / _STEPS[0]
        steps = max(_STEPS[0], min(_STEPS[1], int(subject.seconds / (_RUNS * each))))
        self.batches = self._cut(rows[cut:], steps, size)

    def _timed(self, rows: Array, steps: int, size: int) -> float:
        """Return the seconds of a run."""
        self.batches = self._cut(rows, steps, size)
        started = time.perf_counter()
        self._run(GRID[0])
        return time.perf_counter() - started

    def _hurry(self, rows: Array, size: int, first: float) -> None:
        """Plan for a model so large that the time does not suffice: smaller batches, fewer updates, fewer rates."""
        each = first / size  # an image's share of an update
        size = min(size, max(_SMALLEST, int(self.subject.seconds / (_LEAST_RUNS * _LEAST_STEPS * each))))
        runs = max(1, min(_RUNS, int(self.subject.seconds / (_LEAST_STEPS * size * each))))
        self.stride, self.hurried = min(-(-_RUNS // runs), _WIDEST), True
        steps = max(_LEAST_STEPS, min(_STEPS[0], int(self.subject.seconds / (runs * size * each))))
        self.batches = self._cut(rows, steps, size)

    def _cut(self, rows: Array, steps: int, size: int) -> list[tuple[Array, Array]]:
        """Cut batches, starting over where the images end."""
        order = np.tile(rows, -(-steps * size // len(rows)))[: steps * size].reshape(steps, size)
        return [self.subject.sample(size, "rates", batch) for batch in order]

    def _measure(self, model: Module) -> tuple[float, float]:
        scores = model(self.x)
        loss = float(self.subject.fresh_loss()(scores, self.y))
        labelled = self.subject.classes is not None
        return loss, float((scores.argmax(axis=1) == self.y).mean()) if labelled else math.nan

    def _run(self, rate: float) -> tuple[float, float]:
        """Return loss and accuracy after a short run; an infinite loss when it exploded."""
        subject, model = self.subject, self.subject.copy()
        optimizer = subject.optimize(model, rate)
        _, lost = subject.run(model, optimizer, self.batches, l2=subject.l2, factor=EXPLODED)
        if lost is not None:
            return math.inf, math.nan
        loss, accuracy = self._measure(Subject(model, subject.loss, subject.train, None).calm())
        return (loss if math.isfinite(loss) else math.inf), accuracy

    def result(self) -> RangeTest:
        if math.isfinite(self.first):
            start = self.subject.optimizer.lr if self.subject.optimizer is not None else _START
            middle = int(np.searchsorted(GRID, start)) if start > 0 else 0
            if self.hurried and start > 0:  # the one that is judged comes first
                self.found[start] = self._run(start)
            self._go(GRID[middle :: self.stride], lambda loss: not math.isfinite(loss))
            self._go(GRID[:middle][:: -self.stride], self._idle)
            if start > 0 and start not in self.found:
                self.found[start] = self._run(start)
        test = RangeTest(self.first, self.right, steps=len(self.batches), images=len(self.batches[0][0]))
        most = max((self.first - loss for loss, _ in self.found.values()), default=0.0)
        best = min(self.found, key=lambda rate: self.found[rate][0], default=0.0)
        for rate in sorted(self.found):
            loss, accuracy = self.found[rate]
            word = self._word(loss, most)
            if word in ("too low", "slow") and rate > best and most >= self.barely:
                word = "too high"  # a lower rate learns better: this one jumps about
            test.trials.append(Trial(rate, loss, accuracy, word))
        _suggest(test)
        return test

    def _go(self, rates: Sequence[float], over: Callable[[float], bool]) -> None:
        """Try rates one after the other until two in a row are over the edge."""
        edge = 0
        for rate in rates:
            if self.hurried and self.found and self.late():
                return
            self.found[rate] = self._run(rate)
            edge = edge + 1 if over(self.found[rate][0]) else 0
            if edge == 2:
                return

    def _idle(self, loss: float) -> bool:
        """Whether a rate is too low, seen from higher ones that are not."""
        learned = any(self.first - loss >= self.barely for loss, _ in self.found.values())
        return learned and abs(self.first - loss) < self.barely

    def _word(self, loss: float, most: float) -> str:
        fall = self.first - loss
        if not math.isfinite(loss):
            return "exploding"
        if fall < -self.barely:
            return "rising"
        if fall < self.barely:
            return "too low"
        return "good" if fall >= GOOD * most else "slow"


def _suggest(test: RangeTest) -> None:
    """Take the run of good rates around the best one."""
    words = [trial.word for trial in test.trials]
    if not math.isfinite(test.first_loss):
        test.reason = f"the loss is {test.first_loss} before any update"
    elif max((test.first_loss - loss for loss in test.losses), default=0.0) < BARELY * abs(test.first_loss):
        test.reason = {
            frozenset({"exploding"}): "the loss explodes at every rate",
            frozenset({"rising"}): "the loss rises at every rate",
            frozenset({"too low"}): "the loss barely changes at any rate",
        }.get(frozenset(words), "no rate lowers the loss: it barely changes, rises or explodes")
    else:
        at = min(range(len(words)), key=lambda k: test.losses[k])
        low = high = at
        while low > 0 and words[low - 1] == "good":
            low -= 1
        while high + 1 < len(words) and words[high + 1] == "good":
            high += 1
        test.suggestion = test.rates[low], test.rates[high]
        above = words[high + 1] if high + 1 < len(words) else ""
        test.reason = f"the loss falls most at {test.rates[at]:g}" + (
            f"; at {test.rates[high + 1]:g} it is {above}" if above else ""
        )


# ---- the step


def check_rates(subject: Subject) -> Finding:
    """Run the range test, and judge the rate that training would start with."""
    finding = subject.finding("rates", "Learning rates")
    test = find_range(subject)
    finding.figures |= {
        "first_loss": test.first_loss, "first_accuracy": test.first_accuracy, "steps": test.steps,
        "trials": [vars(trial) for trial in test.trials], "suggestion": test.suggestion, "reason": test.reason,
    }  # fmt: skip
    finding.table = _table(test, subject)
    finding.summary = f"{test.steps} updates at each rate, from the same start; loss {test.first_loss:.3f} before"
    if 0 < test.images < subject.batch_size and test.steps < _STEPS[1]:
        each = f"{test.images} {finding.sample}s each"
        finding.summary += f"; of {each}, as {subject.seconds:g} s allow no more (--seconds)"
    _creeping(finding, test)
    if test.suggestion is None:
        remark = finding.suspicious if "barely" in test.reason else finding.wrong
        remark(f"No learning rate to suggest: {test.reason}.",
               "See the steps above: labels, gradients, signal.")  # fmt: skip
        return finding
    if len(test.trials) < _TELLING and subject.optimizer is not None:
        rates = ", ".join(f"{trial.rate:g}" for trial in test.trials)
        finding.suspicious(f"There was time for {rates} alone: no telling whether others are better.",
                           "Give the check more time (seconds).")  # fmt: skip
        return finding
    low, high = test.suggestion
    span = f"{low:g} to {high:g}" if low < high else f"about {low:g}"
    text = f"Suggested: {span}; {test.reason}."
    _at_chance(finding, subject, test)
    if subject.optimizer is None:
        finding.good(text)
        return finding
    own = subject.optimizer.lr
    if own == 0:
        finding.wrong("The rate chosen is 0: nothing moves.", text)
        return finding
    word = next(trial.word for trial in test.trials if trial.rate == own)
    if word == "exploding":
        finding.wrong(f"The rate chosen, {own:g}, explodes: NaN, or a loss staying over {EXPLODED:g} times the first.",
                      text)  # fmt: skip
    elif word in ("rising", "too high") or own > high:
        how = "rises" if word == "rising" else "falls less than at lower rates"
        finding.suspicious(f"The rate chosen, {own:g}, is too high: the loss {how}.", text)
    elif word == "too low":
        finding.suspicious(f"The rate chosen, {own:g}, is too low: the loss barely changes.", text)
    elif own < low / 10:
        finding.suspicious(f"The rate chosen, {own:g}, is slow.", text)
    else:
        finding.good(f"{text[:-1]}. The rate chosen, {own:g}, is {word}.")
    return finding


def _at_chance(finding: Finding, subject: Subject, test: RangeTest) -> None:
    """A loss that only comes down to that of knowing the classes' shares has learned nothing of the images."""
    if subject.chance is None or subject.classes is None or test.steps < _STEPS[1]:
        return
    labels = subject.train.targets[subject.usable]
    shares = np.bincount(labels, minlength=subject.classes) / len(labels)
    level = -sum(share * math.log(share) for share in shares.tolist() if share)
    if min(test.losses) > (1 - BARELY) * level:
        finding.suspicious(
            f"At the best rate the loss comes down to {min(test.losses):.3f}; the classes' shares alone give "
            f"{level:.3f}: nothing of the {finding.sample}s is learned.",
            "See the steps above: labels, gradients, signal.",
        )


def _creeping(finding: Finding, test: RangeTest) -> None:
    """The lecture's riddle: accuracy rises although the loss barely changes."""
    chance = test.first_accuracy
    if math.isnan(chance):
        return
    error = SIGMAS * math.sqrt(max(chance * (1 - chance), 0.01) / _PROBE)
    creeping = [t for t in test.trials if t.word == "too low" and t.accuracy > chance + error]
    if creeping:
        most = max(creeping, key=lambda trial: trial.accuracy)
        finding.good(
            f"At {most.rate:g} the loss barely changes, yet accuracy rises to {most.accuracy:.0%}: scores move a "
            "little, all in the right direction, and the order of the scores is all that accuracy sees."
        )


def _table(test: RangeTest, subject: Subject) -> list[tuple[str, ...]]:
    own = None if subject.optimizer is None else subject.optimizer.lr
    rows: list[tuple[str, ...]] = [("rate", "loss", "accuracy", "", "")]
    for t in test.trials:
        rows.append((
            f"{t.rate:g}", f"{t.loss:.3f}" if math.isfinite(t.loss) else "–",
            "–" if math.isnan(t.accuracy) else f"{t.accuracy:.0%}", t.word, "← chosen" if t.rate == own else "",
        ))  # fmt: skip
    return rows
