"""The six checks before training, in the lecture's order: data, loss, gradients, signal, overfitting, rates."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.data import Batches
from fastconv.diagnose.data import check_data
from fastconv.diagnose.gradients import check_gradients
from fastconv.diagnose.loss import check_loss
from fastconv.diagnose.overfit import check_overfit
from fastconv.diagnose.rates import RangeTest, check_rates, find_range
from fastconv.diagnose.report import Finding, Report
from fastconv.diagnose.signal import check_signal
from fastconv.diagnose.subject import Inputs, Subject
from fastconv.nn import CrossEntropyLoss, Module
from fastconv.optim import Optimizer

__all__ = ["STEPS", "check", "range_test"]

STEPS: dict[str, Callable[[Subject], Finding]] = {
    "data": check_data,
    "loss": check_loss,
    "gradients": check_gradients,
    "signal": check_signal,
    "overfit": check_overfit,
    "rates": check_rates,
}
"""In order; each looks at a subject and leaves it as it is."""

FEWEST = 8
"""Usable images (finite, with a label the model has a score for) without which nothing is trained or measured."""


def check(
    model: Module,
    train: Batches | tuple[Any, Any],
    validation: Batches | tuple[Any, Any] | None = None,
    *,
    loss: Any = None,
    optimizer: Optimizer | None = None,
    l2: float = 0.0,
    batch_size: int = 64,
    seed: int = 0,
    seconds: float = 10.0,
    steps: Sequence[str] = tuple(STEPS),
    watch: Callable[[Finding], None] | None = None,
) -> Report:
    """Look for mistakes before training: in the data, the loss, the gradients, the weights and the rate.

    Everything is tried on copies: parameters, buffers, counters, gradients and modes of the model, the state of
    the optimiser and the positions of the batches stay as they are, to the bit, also when a step fails.

    Parameters
    ----------
    model : Module
        Fresh, as training would start with it.
    train, validation : Batches, or tuple of two arrays
        As `Trainer.fit` takes them: what the net is given, and labels (N,). Augmentation is left out.
    loss : callable with ``backward``
        `CrossEntropyLoss` by default. A loss of your own is held for a cross-entropy where targets are labels.
    optimizer : Optimizer, optional
        Of this model; its learning rate is judged. SGD with momentum 0.9 by default, without a judgement.
    l2 : float
        The trainer's penalty.
    batch_size : int
        Of the range test; that of ``train`` where it has one.
    seed : int
        Of all samples that are drawn.
    seconds : float
        About what a step may take where it could go on. Large nets are looked at less closely then, and the
        figures depend on the machine; small ones need far less, and have the same figures everywhere.
    steps : sequence of str
        Which of ``STEPS`` to take.
    watch : callable, optional
        Called with each finding as it is made.

    Returns
    -------
    Report
        Prints as a page; ``report.verdict``, ``report["signal"].figures``, ``report.to_dict()``. A step that
        raises an exception is a finding, wrong, with its message. If the model cannot take the images at all,
        the report ends with the first step.

    Raises
    ------
    ValueError
        If there is no sample, lengths differ, or a step is unknown.

    References
    ----------
    F. Li, A. Karpathy and J. Johnson, CS231n, Stanford 2016, lecture 5, "Babysitting the learning process", and
    the notes "Neural networks 3"; Y. Bengio, "Practical recommendations for gradient-based training of deep
    architectures", arXiv 1206.5533, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Softmax())
    >>> report = check(model, (x, (x[:, 0] > 0).astype(np.int64)), steps=["loss"])
    >>> print(report.verdict, report["loss"].remarks[0].advice)
    wrong Leave out the last Softmax layer.
    """
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        raise ValueError(f"check: unknown steps {', '.join(unknown)}; there are {', '.join(STEPS)}")
    subject = _subject(model, train, validation, loss, optimizer, l2, batch_size, seed, seconds)
    report = Report()
    for name in steps:
        finding, ended = _take(name, subject)
        report.findings.append(finding)
        if watch is not None:
            watch(finding)
        if ended:
            break
    return report


def range_test(
    model: Module,
    train: Batches | tuple[Any, Any],
    *,
    loss: Any = None,
    optimizer: Optimizer | None = None,
    l2: float = 0.0,
    batch_size: int = 64,
    seed: int = 0,
    seconds: float = 10.0,
) -> RangeTest:
    """Find the learning rates that suit a model, on copies of it: the last step of `check` alone.

    Parameters
    ----------
    model, train, loss, optimizer, l2, batch_size, seed, seconds
        As of `check`.

    Returns
    -------
    RangeTest
        ``rates``, ``losses``, ``accuracies``; ``suggestion``, a pair (low, high) or None, with its ``reason``.

    Raises
    ------
    ValueError
        If there is no sample, or lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> test = range_test(nn.Sequential(nn.Linear(3, 2)), (x, (x[:, 0] > 0).astype(np.int64)))
    >>> low, high = test.suggestion
    >>> 1e-3 < low < high
    True
    """
    subject = _subject(model, train, None, loss, optimizer, l2, batch_size, seed, seconds)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return find_range(subject)


def _subject(
    model: Module, train: Any, validation: Any, loss: Any, optimizer: Optimizer | None, l2: float, batch_size: int,
    seed: int, seconds: float,
) -> Subject:  # fmt: skip
    subject = Subject(
        model, CrossEntropyLoss() if loss is None else loss, Inputs.of(train),
        None if validation is None else Inputs.of(validation), optimizer, l2,
        train.batch_size if isinstance(train, Batches) else batch_size, seed, seconds,
    )  # fmt: skip
    if not len(subject.train):
        raise ValueError("check: there are no training samples")
    return subject


def _take(name: str, subject: Subject) -> tuple[Finding, bool]:
    """Take one step; return what it found, and whether it makes no sense to go on."""
    started = time.perf_counter()
    ended = False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # overflow and the like are findings here
        try:
            _ = subject.scores
        except Exception as error:
            finding, ended = subject.finding(name, name.capitalize()), True
            finding.wrong(
                f"The model cannot take the {finding.sample}s, {subject.train.images.shape[1:]} each: {_said(error)}",
                "The steps that follow need a model that runs.",
            )
        else:
            try:
                enough = name == "data" or len(subject.usable) >= FEWEST
                finding = STEPS[name](subject) if enough else _too_few(subject, name)
            except Exception as error:
                finding = subject.finding(name, name.capitalize())
                finding.wrong(f"This step could not be taken: {_said(error)}")
    finding.seconds = time.perf_counter() - started
    return finding, ended


def _too_few(subject: Subject, name: str) -> Finding:
    finding = subject.finding(name, name.capitalize())
    finding.suspicious(f"Only {len(subject.usable)} of {len(subject.train)} training {finding.sample}s can be used: "
                       "too few for this step.")  # fmt: skip
    return finding


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
