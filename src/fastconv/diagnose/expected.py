"""Whether a pretrained net is fed what it learned from, and whether what is frozen is at rest.

A batch normalisation that has seen a data set knows mean and variance of what came to it. If images that are
normalised in another way come to the net, what reaches its first normalisation has others, channel by channel.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from fastconv.diagnose.report import Finding
from fastconv.diagnose.subject import Subject
from fastconv.nn import BatchNorm1d, BatchNorm2d, Module
from fastconv.train.origins import NORMALIZATIONS, standardizer_of

__all__ = ["against_statistics", "frozen_at_work"]

MISFIT = (0.2, 0.5)
"""Divergence (nats, median over channels) of what comes from what is expected that is suspicious: where another
normalisation fits better by ``FACTOR``, and in any case. A deviation twice as large costs 0.81, one half as large 0.32,
a mean that is off by one deviation 0.5. EfficientNet-Lite0 has 0.08 on photographs normalised as it expects, 0.64 with
ImageNet's colours, and 0.03 and 0.75 on CIFAR-10."""

FACTOR = 3.0

_IMAGES = 128
_COMMON = (*NORMALIZATIONS[1:], "0,1")
"""What nets are fed usually, in the words of ``--normalize``."""


def against_statistics(finding: Finding, subject: Subject) -> None:
    """Compare what comes to the first batch normalisation with what it remembers, where it remembers anything."""
    twin = subject.copy().eval()
    found = next(((n, m) for n, m in twin.named_modules() if isinstance(m, BatchNorm1d | BatchNorm2d)), None)
    if found is None or not found[1].running_mean.any():
        return
    name, layer = found
    images = subject.train.images
    count = subject.affordable(_IMAGES, 2 + len(_COMMON))
    rows = subject.usable[:: max(1, len(subject.usable) // count)][:count]
    misfit = _misfit(twin, layer, subject.train.seen(rows, subject.dtype))
    finding.figures |= {"misfit": misfit, "normalisation": name}
    if not misfit > MISFIT[0]:
        return
    others: dict[str, float] = {}
    if images.dtype == np.uint8 and images.ndim == 4 and images[:1].max(initial=0) > 16:
        raw = np.asarray(images[rows])
        for word in _COMMON:
            with suppress(ValueError):  # of another number of channels
                others[word] = _misfit(twin, layer, standardizer_of(word, images.shape[1:])(raw, subject.dtype))
    best = min(others, key=lambda word: others[word], default=None)
    fits = best is not None and others[best] * FACTOR < misfit
    if not fits and not misfit > MISFIT[1]:
        return
    finding.suspicious(
        f"What comes to {name} is not what its running statistics say: the divergence is {misfit:.2f} nats per "
        f"channel, up to {MISFIT[0]:g} is usual. The weights expect {finding.sample}s that are normalised otherwise, "
        "or of another kind.",
        f"Try --normalize {best}, which fits {misfit / others[best]:.0f} times better ({others[best]:.2f} nats)."
        if fits and best is not None
        else f"Normalise {finding.sample}s as those were that the weights were trained on (--normalize).",
    )


def _misfit(model: Module, layer: Module, images: np.ndarray) -> float:
    """Return the median over channels of the divergence of normal distributions, the seen from the remembered."""
    seen: list[np.ndarray] = []
    remove = layer.register_forward_hook(lambda module, x, y: seen.append(np.array(x, np.float64)))
    try:
        model.predict(np.ascontiguousarray(images))
    finally:
        remove()
    axes = tuple(i for i in range(seen[0].ndim) if i != 1)
    mean, variance = seen[0].mean(axis=axes), seen[0].var(axis=axes)
    expected, spread = (np.asarray(getattr(layer, at), np.float64) for at in ("running_mean", "running_var"))
    spread = spread + layer.eps  # type: ignore[attr-defined]
    ratio = (variance + layer.eps) / spread  # type: ignore[attr-defined]
    return float(np.median((ratio + (mean - expected) ** 2 / spread - 1 - np.log(ratio)) / 2))


def frozen_at_work(finding: Finding, subject: Subject) -> None:
    """Say how much is frozen, and which normalisations change although their weights are frozen."""
    parameters = list(subject.model.parameters())
    frozen = sum(not p.requires_grad for p in parameters)
    if not frozen:
        return
    trained = sum(p.data.size for p in parameters if p.requires_grad)
    finding.figures |= {"frozen": frozen, "trained_numbers": trained}
    finding.summary += f"\n{frozen} of {len(parameters)} parameters are frozen; {trained:,} numbers are trained"
    at_work = [
        name for name, module in subject.model.named_modules()
        if isinstance(module, BatchNorm1d | BatchNorm2d) and module.training and subject.model.training
        and module.weight is not None and not module.weight.requires_grad
    ]  # fmt: skip
    if at_work:
        more = f" and {len(at_work) - 3} more" if len(at_work) > 3 else ""
        finding.suspicious(
            f"{', '.join(at_work[:3])}{more}: frozen weights, but the batch's statistics, which move the running ones.",
            "Put frozen normalisations into evaluation mode (module.eval()), as train --freeze does.",
        )
