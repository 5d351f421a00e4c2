"""Step 2, the loss before any training: ln(classes) for a net that knows nothing, or the targets' variance."""

from __future__ import annotations

import math

import numpy as np

from fastconv.diagnose.expected import frozen_at_work
from fastconv.diagnose.numbers import against_mean
from fastconv.diagnose.report import Finding
from fastconv.diagnose.subject import Subject
from fastconv.nn import CrossEntropyLoss, Dropout, Dropout2d, MultiMarginLoss, ReLU, Sigmoid, Softmax, Softsign, Tanh
from fastconv.optim import SGD

__all__ = ["check_loss"]

SPREAD = 1.0
"""Variance of the scores that is good: what initialisations that keep the variance of signals give.

Scores of variance v that know nothing about the label cost ln(classes) + v / 2, as the mean of exp(score) is
exp(v / 2). He's rule, made for layers with a ReLU behind them, gives the last layer twice that variance."""

LARGE_PENALTY = 1e3
"""The l2 of the lecture's second sanity check (CS231n, "Babysitting the learning process")."""

NOISE = (4.0, 19.0)
"""Power of dropout's noise over that of the signal, p / (1 - p), that is suspicious and wrong: p of 0.8 and 0.95.
N. Srivastava et al., JMLR 15, 2014, section 7.3, find that nets underfit when fewer than a fifth are kept."""

SIGMAS = 5.0
"""Standard errors that chance is not believed beyond."""

_SAMPLES = 256
_PASSES = 4  # times forward that the step costs
_CONFINING = (ReLU, Sigmoid, Softsign, Tanh)


def check_loss(subject: Subject) -> Finding:
    """Compare the loss of the untrained net with that of equal chances, without and with a penalty."""
    finding = subject.finding("loss", "Loss before training")
    x, y = subject.sample(subject.affordable(_SAMPLES, _PASSES), "loss")
    model, loss = subject.calm(), subject.fresh_loss()
    scores = np.array(model(x))
    value = float(loss(scores, y))
    finding.figures |= {"loss": value, "samples": len(y)}
    finding.summary = f"loss {value:.4f} on {len(y)} {finding.sample}s"
    if not math.isfinite(value):
        finding.wrong(f"The loss is {value} before the first step.",
                      "See the layers' signal below; look for a logarithm of 0 in a loss of your own.")  # fmt: skip
    elif subject.chance is not None and (scores.ndim == 2 or subject.pixels):
        _against_chance(finding, subject, *subject.flat(scores, y), value, len(y))
    elif subject.constant_loss(y) is not None:
        against_mean(finding, subject, scores, y, value)
    elif isinstance(subject.loss, MultiMarginLoss) and scores.ndim == 2:
        expected = subject.loss.margin * (1 - 1 / scores.shape[1])
        finding.summary += f"; equal scores give {expected:.4f}"
        if value > 2 * expected:
            finding.suspicious(f"{value / expected:.1f} times the hinge of equal scores: they are spread too wide.",
                               "Start from smaller weights; standardise the inputs.")  # fmt: skip
    _penalty(finding, subject, x, y, value)
    _dropout(finding, subject)
    frozen_at_work(finding, subject)
    if not finding.remarks:
        finding.good("As it should be: a net that knows nothing yet, and a large penalty makes it worse.")
    return finding


def _against_chance(
    finding: Finding, subject: Subject, scores: np.ndarray, y: np.ndarray, value: float, images: int
) -> None:
    assert subject.chance is not None
    expected, classes = float(_cross_entropies(np.zeros_like(scores), y, subject.loss).mean()), scores.shape[1]
    each = _cross_entropies(scores, y, subject.loss)
    error = SIGMAS * float(each.std()) / math.sqrt(images)  # pixels of one image are much alike
    accuracy = float((scores.argmax(axis=1) == y).mean())
    finding.figures |= {"expected": expected, "accuracy": accuracy, "standard_error": error / SIGMAS}
    plain = math.isclose(expected, subject.chance, rel_tol=1e-9)
    known = f"ln({classes}) =" if plain else "equal chances cost"
    finding.summary += f"; {known} {expected:.4f}; accuracy {accuracy:.1%}"
    if _are_probabilities(scores):
        floor = math.log(1 + (classes - 1) / math.e)
        finding.wrong(
            "The model returns probabilities and the loss takes scores: softmax is taken twice, and the loss cannot "
            f"fall below ln(1 + {classes - 1}/e) = {floor:.3f}.",
            "Leave out the last Softmax" + (" layer." if _ends_in_softmax(subject) else "; return plain scores."),
        )
        return
    mean = float(each.mean())
    if abs(value - mean) > 1e-3 * mean:
        what = f" (it is {value / mean:.4g} times that)" if mean else ""
        remark = finding.suspicious if not isinstance(subject.loss, CrossEntropyLoss) else finding.wrong
        factor = value / mean if mean else math.nan
        if not 1 / 3 < factor < 3:
            remark = finding.wrong
        remark(
            f"The loss is not the mean cross-entropy, which is {mean:.4f}{what}: the best learning rate and the "
            "weight of a penalty move by the same factor.",
            f"Average over the {finding.sample}s of a batch (reduction='mean'), neither sum nor divide twice.",
        )
        return
    last = list(subject.model.modules())[-1]
    if isinstance(last, _CONFINING):
        finding.suspicious(
            f"The scores pass through a {type(last).__name__} at the end, which confines them: "
            + ("a class whose scores start below 0 never learns." if isinstance(last, ReLU) else
               "no class can be far ahead of the others."),
            "Leave out the last activation: the loss takes plain scores.",
        )  # fmt: skip
        return
    unit = expected + SPREAD / 2 + error
    # Most pixels may be of one class: whoever says it is right more often than chance, and knows nothing.
    guess = 1 / classes if not subject.pixels else np.bincount(y).max() / len(y)
    if accuracy > guess + SIGMAS * math.sqrt((1 - guess) * guess / images) and value < expected - error:
        finding.suspicious(
            f"Better than chance before any training ({accuracy:.1%} right): this net has learned already.",
            "Fine if it is meant to be trained further; else start from fresh weights.",
        )
    elif value > 2 * expected + error:
        finding.wrong(
            f"More than twice ln({classes}): the net is sure of itself and mistaken. The first steps will only "
            "shrink the scores, and may blow up before.",
            "Start from smaller weights ('he' behind ReLU, 'xavier' behind tanh), and standardise the inputs.",
        )
    elif value > unit + SPREAD / 2:
        finding.suspicious(
            f"Scores are spread wider than fresh weights should make them: {value - expected:.2f} above ln({classes}), "
            f"up to {SPREAD:.1f} is usual.",
            "Start the last layer from smaller weights.",
        )
    elif value < expected - error and not subject.pixels:
        finding.suspicious("Below chance's loss, but no more often right than chance: the loss is not what it seems.",
                           "Look at the loss function and at the labels it is given.")  # fmt: skip
    elif scores.std(axis=0).max() == 0:
        finding.suspicious(
            f"All {finding.sample}s get the same scores" + (", all zero." if not scores.any() else "."),
            "Draw the weights at random: units with equal weights stay equal for ever.",
        )


def _cross_entropies(scores: np.ndarray, y: np.ndarray, loss: object) -> np.ndarray:
    """The plain formula in float64, not the loss that is being checked; with its weights and its label smoothing.

    Each is as many times its own as makes their mean that of the loss.
    """
    s = scores.astype(np.float64)
    s -= s.max(axis=1, keepdims=True)
    nll = np.log(np.exp(s).sum(axis=1, keepdims=True)) - s
    own, weight, smoothing = nll[np.arange(len(y)), y], getattr(loss, "weight", None), 0.0
    if isinstance(loss, CrossEntropyLoss):
        smoothing = loss.label_smoothing
    if not isinstance(loss, CrossEntropyLoss) or (weight is None and not smoothing):
        return own
    w = np.ones(scores.shape[1]) if weight is None else np.asarray(weight, np.float64)
    losses = (1 - smoothing) * w[y] * own + smoothing * (w * nll).mean(axis=1)
    return losses / w[y].mean()


def _are_probabilities(scores: np.ndarray) -> bool:
    rounding = 8 * scores.shape[1] * float(np.finfo(scores.dtype).eps)
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1, dtype=np.float64) - 1) <= rounding).all())


def _ends_in_softmax(subject: Subject) -> bool:
    return isinstance(list(subject.model.modules())[-1], Softmax)


def _penalty(finding: Finding, subject: Subject, x: np.ndarray, y: np.ndarray, value: float) -> None:
    """Take one training step of rate 0 with a large l2, and see the loss go up."""
    if not any(param.data.ndim >= 2 and param.requires_grad for param in subject.model.parameters()):
        return
    model = subject.calm()
    history, lost = subject.run(model, SGD(model.parameters(), lr=0.0), [(x[:8], y[:8])], l2=LARGE_PENALTY)
    if lost is not None:
        return  # the loss itself is not finite, which is said already
    penalty = history[-1]["penalty"]
    finding.figures |= {"large_l2": LARGE_PENALTY, "penalty": penalty, "configured_penalty": None}
    finding.summary += f"\nwith l2 = {LARGE_PENALTY:g} it goes up by {penalty:.4g}"
    if not penalty > 0:
        finding.wrong("A large penalty on the weights adds nothing: all weights are 0.",
                      "Draw them at random (fastconv.init).")  # fmt: skip
        return
    decay = 0.0 if subject.optimizer is None else float(getattr(subject.optimizer, "weight_decay", 0.0))
    coupled = subject.optimizer is not None and type(subject.optimizer).__name__ != "AdamW"
    own = penalty / LARGE_PENALTY * (subject.l2 + (decay if coupled else 0.0))
    finding.figures["configured_penalty"] = own
    if own:
        finding.summary += f"; with the strength chosen it costs {own:.3g}"
    if own > value > 0:  # one that is zero or negative by nature is no measure
        finding.suspicious(
            f"The penalty chosen costs {own:.3g}, more than the loss itself: training will shrink weights before "
            "anything else.",
            f"Try an l2 (or weight decay) of about {0.1 * value / own * (subject.l2 + decay):.1g}.",
        )


def _dropout(finding: Finding, subject: Subject) -> None:
    for name, module in subject.model.named_modules():
        if isinstance(module, Dropout | Dropout2d):
            noise = module.p / (1 - module.p) if module.p < 1 else math.inf
            if noise > NOISE[0]:
                remark = finding.wrong if noise > NOISE[1] else finding.suspicious
                remark(
                    f"Dropout {name} drops {module.p:.0%}: the noise it adds has {noise:.3g} times the power of the "
                    "signal.",
                    "0.2 for inputs and 0.5 for hidden layers is usual; p is the share dropped, not the share kept.",
                )
