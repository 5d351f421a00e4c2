"""What holds where a net predicts numbers: one that knows nothing of its input can still say the targets' mean.

Under the mean squared error that costs their variance, under the mean absolute error (there it is the median) their
mean distance from it. It is to regression what ln(classes) is to classification.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.diagnose.report import Finding
from fastconv.diagnose.subject import Inputs, Subject
from fastconv.nn import ReLU, Sigmoid, Softsign, Tanh

__all__ = ["against_mean", "numbers_in_order"]

FAR = 3.0
"""A loss before training above so many times that of the mean: training first has to find out where the targets lie.
Targets that are standardised cost 1 + the variance of the outputs, which is about 1, divided by a variance of 1."""

KNOWS = 0.5
"""A loss before training below this share of that of the mean: the net has learned already."""

_RANGES = {Sigmoid: (0.0, 1.0), Tanh: (-1.0, 1.0), Softsign: (-1.0, 1.0), ReLU: (0.0, math.inf)}


def numbers_in_order(finding: Finding, name: str, inputs: Inputs) -> None:
    """Look at targets that are numbers: whether all are finite, and not all the same."""
    y = inputs.targets
    if y.dtype.kind != "f" or not len(y):
        return
    bad = np.flatnonzero(~np.isfinite(y).reshape(len(y), -1).all(axis=1))
    known = y[np.isfinite(y).reshape(len(y), -1).all(axis=1)].reshape(len(y) - len(bad), -1).astype(np.float64)
    if len(bad):
        finding.wrong(
            f"{len(bad):,} {name} targets hold NaN or infinity, the first that of sample {bad[0]}.",
            "Leave those samples out, or fill in what is missing.",
        )
    if not len(known):
        return
    mean, deviation = known.mean(), known.std(axis=0).mean()
    finding.figures.setdefault("targets", {})[name] = {
        "low": known.min(), "high": known.max(), "mean": mean, "deviation": deviation,
    }  # fmt: skip
    finding.summary += (
        f"\n{name} targets {known.min():.3g} to {known.max():.3g}, mean {mean:.3g}, deviation {deviation:.3g}"
    )
    still = np.flatnonzero(known.std(axis=0) == 0)
    if len(still) and len(known) > 1 and name == "training":
        which = "" if known.shape[1] == 1 else f" in {len(still)} of {known.shape[1]} columns"
        finding.wrong(f"All targets are the same{which}: {known[0, still[0]]:.3g}. There is nothing to learn.",
                      "Look at how targets are read.")  # fmt: skip


def against_mean(finding: Finding, subject: Subject, outputs: np.ndarray, y: np.ndarray, value: float) -> None:
    """Compare the loss of the untrained net with that of always saying the mean."""
    level = subject.constant_loss(y)
    if level is None or not level > 0:
        return
    target = y.astype(np.float64)
    mean, deviation = float(target.mean()), float(target.std(axis=0).mean())
    finding.figures |= {"expected": level, "r2": 1 - value / level}
    finding.summary += f"; always saying the mean costs {level:.4g}"
    last = list(subject.model.modules())[-1]
    low, high = _RANGES.get(type(last), (-math.inf, math.inf))
    if y.min() < low or y.max() > high:
        finding.wrong(
            f"The outputs pass through a {type(last).__name__} at the end and lie in [{low:g}, {high:g}]; the targets "
            f"go from {y.min():.3g} to {y.max():.3g}.",
            "Leave out the last activation, or scale the targets into its range.",
        )
    elif value > FAR * level:
        finding.suspicious(
            f"{value / level:.3g} times that: the targets have mean {mean:.3g} and deviation {deviation:.3g}, the "
            f"outputs {outputs.mean():.3g} and {outputs.std():.3g}. The first steps will only find out where the "
            "targets lie, and need a rate that fits their size.",
            "Standardise the targets with the training set's mean and deviation (and scale predictions back).",
        )
    elif value < KNOWS * level:
        finding.suspicious(
            f"Better than the mean before any training (r2 {1 - value / level:.2f}): this net has learned already.",
            "Fine if it is meant to be trained further; else start from fresh weights.",
        )
    elif outputs.std() == 0 and outputs.size > 1:
        finding.suspicious("All inputs get the same output.",
                           "Draw the weights at random: units with equal weights stay equal for ever.")  # fmt: skip
