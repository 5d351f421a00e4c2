"""Step 3, gradients: this very model's backward against central differences of its loss, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import random
from fastconv.diagnose.report import Finding
from fastconv.diagnose.subject import Subject
from fastconv.nn import Module, Parameter
from fastconv.testing import numerical_gradient

__all__ = ["check_gradients"]

Array = np.ndarray

LIMITS = (1e-4, 1e-2)
"""Relative errors |a - n| / max(|a|, |n|) that are suspicious and wrong: CS231n, "Gradient checks", holds more
than 1e-2 for probably wrong and up to 1e-4 for good where there are kinks."""

STEPS = (1e-4, 1e-5, 1e-6)
"""Half distances of the differences, tried until no kink of a ReLU or maximum lies within (shrinking the step
is how the lecture tells a kink from a mistake). Rounding still leaves six digits at the last."""

_SAMPLES = 4  # images; batch normalisation needs more than one
_ENTRIES = 8  # compared in each array, half of them where the gradient is largest
_ROUNDINGS = 64  # that may add up in the loss, in units of eps * its size


@dataclass
class _Compared:
    """One comparison: an entry of an array, or a random direction through all of it."""

    name: str
    where: str
    analytic: float
    numeric: float
    doubt: float

    @property
    def error(self) -> float:
        """Relative error beyond what truncation, kinks and rounding explain."""
        size = max(abs(self.analytic), abs(self.numeric))
        beyond = abs(self.analytic - self.numeric) - self.doubt
        if math.isnan(beyond):
            return math.inf
        return max(beyond, 0.0) / size if size else 0.0

    @property
    def telling(self) -> bool:
        """Whether a wrong gradient would show: the slope is well above its doubt."""
        return max(abs(self.analytic), abs(self.numeric)) > 10 * self.doubt


class _Probe:
    """The loss of a few images as a function of the parameters, always from the same counters and state."""

    def __init__(self, subject: Subject) -> None:
        self.model: Module = subject.copy(np.float64)
        self.loss = subject.fresh_loss()
        x, self.y = subject.sample(_SAMPLES, "gradients")
        if self.y.dtype.kind == "f":
            self.y = self.y.astype(np.float64)
        self.x = x.astype(np.float64)
        self.extra = self.model.extra_state()
        self.state = {name: array.copy() for name, array in self.model.named_state()}

    def value(self) -> float:
        self.model.load_extra_state(self.extra)
        return float(self.loss(self.model(self.x), self.y))

    def backward(self) -> None:
        """Add the gradients of one pass, and put back what a layer that trains itself has changed."""
        self.value()
        self.model.backward(self.loss.backward())
        self.model.load_state_dict(self.state)


def check_gradients(subject: Subject) -> Finding:
    """Compare a direction through each parameter array, then single entries, while there is time."""
    finding = subject.finding("gradients", "Gradients")
    probe = _Probe(subject)
    named = dict(probe.model.named_parameters())
    frozen = [name for name, param in named.items() if not param.requires_grad]
    params = {name: param for name, param in named.items() if param.requires_grad}
    _trained(finding, subject, frozen, len(named))
    if not params:
        finding.wrong("The model has no parameter that is trained.", "Set requires_grad.")
        return finding
    first = probe.value()
    if not math.isfinite(first):
        finding.wrong(f"The loss of the {len(probe.y)} {finding.sample}s is {first}: no gradient to compare.")
        return finding
    probe.model.zero_grad()
    probe.backward()
    analytic = {name: param.grad.copy() for name, param in params.items()}
    probe.backward()
    _accumulated(finding, params, analytic)
    compared, left_out = _compare(subject, probe, params, analytic, first)
    _judge(finding, params, analytic, compared, left_out)
    return finding


def _trained(finding: Finding, subject: Subject, frozen: list[str], total: int) -> None:
    if frozen:
        finding.suspicious(
            f"{len(frozen)} of {total} parameter arrays are frozen (requires_grad=False): {_listed(frozen)}.",
            "Fine for layers learned elsewhere; a fresh net should train them all.",
        )
    if subject.optimizer is not None:
        known = {id(param) for param in subject.optimizer.params}
        missing = [n for n, p in subject.model.named_parameters() if p.requires_grad and id(p) not in known]
        if missing:
            finding.wrong(
                f"The optimiser does not have {len(missing)} of {total} parameter arrays: {_listed(missing)} stay "
                "as they are.",
                "Make the optimiser from model.parameters() once the model is complete.",
            )


def _accumulated(finding: Finding, params: dict[str, Parameter], once: dict[str, Array]) -> None:
    """A second backward must have doubled every gradient, to rounding."""
    bad = []
    for name, param in params.items():
        size = float(np.abs(once[name]).max())
        if size > 0 and not np.abs(param.grad - 2 * once[name]).max() <= 1e-9 * size:
            bad.append(name)
    if bad:
        finding.wrong(
            f"A second backward does not add to the gradient of {_listed(bad)}: it overwrites it, or keeps old sums.",
            "Write 'self.weight.grad += ...' in backward.",
        )


def _compare(
    subject: Subject, probe: _Probe, params: dict[str, Parameter], analytic: dict[str, Array], first: float
) -> tuple[list[_Compared], int]:
    """Return the comparisons made, and how many were left out for a kink at every step size."""
    rng = random.generator(subject.seed, "check.entries")
    rounding = _ROUNDINGS * float(np.finfo(np.float64).eps) * max(abs(first), 1.0)
    late = subject.deadline()
    places = {name: _places(rng, analytic[name]) for name in params}
    compared: list[_Compared] = []
    left_out = 0
    for turn in range(_ENTRIES + 1):  # turn 0: the direction
        for name in rng.permutation(list(params)):
            data, gradient = params[name].data, analytic[name]
            if turn > len(places[name]):
                continue
            if turn == 0:
                direction = rng.standard_normal(data.shape)
                direction /= np.linalg.norm(direction)
                where = "along a random direction"
                slope = float((gradient * direction).sum())
            else:
                at = places[name][turn - 1]
                index = tuple(int(i) for i in np.unravel_index(at, data.shape))
                where, slope = f"at {index}", float(gradient[index])
                direction = np.zeros(data.shape)
                direction[index] = 1.0
            found = _difference(probe.value, data, direction, slope, rounding)
            if found is None:
                left_out += 1
            else:
                compared.append(_Compared(str(name), where, slope, *found))
            if late():
                return compared, left_out
    return compared, left_out


def _places(rng: np.random.Generator, gradient: Array) -> Array:
    """Some entries drawn at random and those of the largest gradient."""
    drawn = rng.choice(gradient.size, min(_ENTRIES // 2, gradient.size), replace=False)
    few = min(_ENTRIES // 2, gradient.size)
    largest = np.argpartition(np.abs(gradient), gradient.size - few, axis=None)[gradient.size - few :]
    return np.unique(np.concatenate([drawn, largest]))


def _difference(
    value: Callable[[], float], data: Array, direction: Array, slope: float, rounding: float
) -> tuple[float, float] | None:
    """Return the slope along a direction and its doubt; None if kinks hide it at every step size."""
    before = data.copy()
    place = np.zeros(1)

    def along(t: Array) -> float:
        np.multiply(direction, t[0], out=data)
        np.add(data, before, out=data)
        return value()

    best: tuple[float, float] | None = None
    try:
        for step in STEPS:
            numeric, doubt = (float(a[0]) for a in numerical_gradient(along, place, step))
            doubt += rounding / step
            if best is None or doubt < best[1]:
                best = numeric, doubt
            apart, size = abs(numeric - slope), max(abs(numeric), abs(slope))
            if doubt <= LIMITS[0] * size or apart <= doubt + LIMITS[0] * size:
                return numeric, doubt
    finally:
        data[...] = before
    assert best is not None
    # Beyond doubt all the same: a difference much larger than kinks and rounding explain is a finding.
    return best if abs(best[0] - slope) > 10 * best[1] else None


def _judge(
    finding: Finding, params: dict[str, Parameter], analytic: dict[str, Array], compared: list[_Compared], left_out: int
) -> None:
    seen = {entry.name for entry in compared}
    worst = max(compared, key=lambda entry: entry.error, default=None)
    told = [entry for entry in compared if entry.telling]
    finding.figures |= {
        "compared": len(compared), "telling": len(told), "left_out_for_kinks": left_out,
        "arrays": len(params), "arrays_seen": len(seen), "worst_relative_error": worst.error if worst else None,
    }  # fmt: skip
    finding.summary = (
        f"{len(compared)} slopes through {len(seen)} of {len(params)} parameter arrays in float64"
        + (f"; {left_out} left out for a kink" if left_out else "")
        + (f"; worst relative error, beyond what rounding explains, {worst.error:.2g}" if worst else "")
    )
    silent = [name for name, gradient in analytic.items() if not gradient.any()]
    bad: dict[str, _Compared] = {}
    for entry in compared:
        if entry.error > LIMITS[0] and (entry.name not in bad or entry.error > bad[entry.name].error):
            bad[entry.name] = entry
    if bad:
        _mistaken(finding, [name for name in params if name in bad], bad)
    if silent and not any(name in bad for name in silent):
        _silent(finding, silent, len(params))
    if not finding.remarks:
        finding.good("Backward agrees with the differences, and a second backward adds up.")


def _mistaken(finding: Finding, names: list[str], bad: dict[str, _Compared]) -> None:
    """Name the mistaken array nearest the output in full: layers before it are handed its mistake."""
    worst = max(entry.error for entry in bad.values())
    remark = finding.wrong if worst > LIMITS[1] else finding.suspicious
    entry = bad[names[-1]]
    others = f" Wrong, too: {_listed(names[-2::-1])}." if len(names) > 1 else ""
    remark(
        f"{entry.name} {entry.where}: backward says {entry.analytic:.6g}, the loss changes by {entry.numeric:.6g}"
        f"{_guess(entry)}.{others}",
        f"Look at the backward of the layer of {names[-1]} first, and of those behind it (fastconv.testing.gradcheck)"
        + ("; layers before it are handed what it passes on." if others else "."),
    )


def _guess(entry: _Compared) -> str:
    if entry.analytic == 0:
        return "; this gradient is missing"
    ratio = entry.numeric / entry.analytic
    if abs(ratio + 1) < 1e-3:
        return "; the sign is wrong"
    return f"; {ratio:.4g} times as much" if 1e-3 < abs(ratio) < 1e3 else ""


def _silent(finding: Finding, silent: list[str], total: int) -> None:
    remark = finding.wrong if 2 * len(silent) > total else finding.suspicious
    remark(
        f"The gradient of {len(silent)} of {total} arrays is exactly 0 on these {finding.sample}s: {_listed(silent)}.",
        "Nothing is learned there: see the layers' signal.",
    )


def _listed(names: list[Any]) -> str:
    return ", ".join(str(name) for name in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
