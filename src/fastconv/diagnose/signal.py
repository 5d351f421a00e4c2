"""Step 4, the signal: what each layer passes on at the start, forward and backward."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fastconv import init
from fastconv.diagnose.report import Finding, Verdict
from fastconv.diagnose.statistics import ActivationStatistics, observe, statistics_of
from fastconv.diagnose.subject import Subject
from fastconv.nn import LogSoftmax, Module, ReLU, Sigmoid, Softmax, Softsign, Tanh

__all__ = ["check_signal"]

Array = np.ndarray

GAINS = (1e2, 1e4)
"""How many times stronger or weaker than the images a layer's signal may be before it is suspicious, and wrong.

Gradients change by about the same factor, and the best learning rate by its square: 1e4 is more than the three
decades of the lecture's fine search, 1e8 more than the ten of its coarse one (10 ** uniform(-5, 5))."""

DIFFERENCES = (1e-2, 1e-6)
"""Deviation of a unit from image to image over the size of its values, below which it is suspicious, and wrong:
all images look the same to within a hundredth; to within float32's rounding (6e-8, some layers deep)."""

OPEN = (0.25, 0.01)
"""Share of paths that saturated units leave open through all layers, the product of their open shares, below
which it is suspicious, and wrong: a gradient four, and a hundred times too small."""

DEAD = 0.4
"""Share of units of a layer that are silent for every image: "as much as 40 % of your network can be dead" is
the example of CS231n's notes for something gone wrong. A layer with no living unit is wrong."""

RELATIVE = (1e-3, 1e-5)
"""Slowest over fastest layer, by size of gradient over size of weight. With the fastest moving by the 1e-2 that
is still stable, the slowest moves by 1e-5 a step; by 1e-7, which is float32's rounding: it does not move."""

_SAMPLES = 128
_PASSES = 16  # times forward that the step costs, where something has to be mended
_ODD = (Tanh, Sigmoid, Softsign)
_INITS = ("he", "xavier", "lsuv")


@dataclass(frozen=True)
class _Layer:
    """A layer's output: the figures of `ActivationStatistics`, and how images differ in it."""

    name: str
    statistics: ActivationStatistics
    difference: float  # deviation over images of a value, root mean square over values
    size: float  # root mean square of all values
    passes: bool  # whether zeros of it block the gradient


def check_signal(subject: Subject) -> Finding:
    """Send a batch forward and back through the fresh net, layer by layer."""
    finding = subject.finding("signal", "Signal through the layers")
    x, y = subject.sample(subject.affordable(_SAMPLES, _PASSES), "signal")
    model = subject.calm()
    layers = _look(model, x)
    relative = _backward(subject, x, y)
    given = _difference(x)
    finding.figures |= {
        "layers": {
            layer.name: {**layer.statistics.to_dict(), "layer": layer.statistics.layer, "difference": layer.difference}
            for layer in layers
        },
        "relative_gradients": relative,
    }
    finding.table = _table(layers, relative, finding.sample)
    if layers:
        last = layers[-1]
        finding.summary = (
            f"{len(x)} {finding.sample}s; their differences: {given:.3g} at the input, {last.difference:.3g} at the "
            "output"
        )
    _judge(finding, layers, relative, given)
    if finding.verdict > Verdict.GOOD:
        _mend(finding, subject, x, y)
    else:
        finding.good("The signal neither dies out nor grows, forward and backward.")
    return finding


def _look(model: Module, x: Array) -> list[_Layer]:
    """Run a batch through a model that may be spoiled; return its layers in the order they run."""
    layers: list[_Layer] = []

    def look(name: str, module: Module, output: Array) -> None:
        with np.errstate(all="ignore"):
            difference = _difference(output)
            size = math.sqrt(float(np.square(output, dtype=np.float64).mean()))
        kinds = (ReLU, *_ODD)
        layers.append(_Layer(name, statistics_of(module, output), difference, size, isinstance(module, kinds)))

    with observe(model, look), np.errstate(all="ignore"):
        model(x)
    return layers


def _backward(subject: Subject, x: Array, y: Array) -> dict[str, float]:
    """Return |gradient| / |weight| of every weight of two or more dimensions."""
    model, loss = subject.calm(), subject.fresh_loss()
    model.zero_grad()
    with np.errstate(all="ignore"):
        loss(model(x), y)
        model.backward(loss.backward())
        return {
            name: _norm(param.grad) / size
            for name, param in model.named_parameters()
            if param.data.ndim >= 2 and param.requires_grad and (size := _norm(param.data)) > 0
        }


def _difference(values: Array) -> float:
    """Return the deviation of a value from image to image, root mean square over values."""
    return math.sqrt(float(values.reshape(len(values), -1).var(axis=0, dtype=np.float64).mean()))


def _norm(a: Array) -> float:
    return math.sqrt(float(np.square(a, dtype=np.float64).sum()))


def _table(layers: list[_Layer], relative: dict[str, float], sample: str) -> list[tuple[str, ...]]:
    """One row for each layer with weights, up to the nonlinearity behind it."""
    groups: list[list[_Layer]] = []
    for layer in layers:
        weight = f"{layer.name}.weight" if layer.name else "weight"
        if weight in relative or not groups:
            groups.append([])
        groups[-1].append(layer)
    rows: list[tuple[str, ...]] = [
        ("layer", "", "mean", "deviation", f"from {sample}", "zeros", "saturated", "dead", "gradient"),
        ("", "", "", "", f"to {sample}", "", "", "", "/ weight"),
    ]
    for group in groups:
        head = group[0]
        last = next((layer for layer in group if layer.passes), group[-1])
        kinds = dict.fromkeys(x.statistics.layer for x in (head, last))
        s = last.statistics
        own = relative.get(f"{head.name}.weight" if head.name else "weight")
        rows.append((
            head.name or "model", " → ".join(kinds), _figure(s.mean), _figure(s.std), _figure(last.difference),
            _share(s.zeros), _share(s.saturated), _share(s.dead), "" if own is None else _figure(own),
        ))  # fmt: skip
    return rows


def _figure(value: float) -> str:
    return f"{value:.2g}" if not 0.001 <= abs(value) < 100 else f"{value:.3f}"


def _share(share: float) -> str:
    return f"{share:.0%}" if share else ""


# ---- verdicts


def _judge(finding: Finding, layers: list[_Layer], relative: dict[str, float], given: float) -> None:
    broken = next((layer for layer in layers if not math.isfinite(layer.size)), None)
    if broken is not None:
        finding.wrong(f"{_named(broken)} puts out NaN or infinity, the first layer to do so.",
                      "Look at its weights and at what it is given.")  # fmt: skip
        return
    hidden = [layer for layer in layers if layer.statistics.layer not in (Softmax.__name__, LogSoftmax.__name__)]
    _blocked(finding, layers)
    same = finding.verdict == Verdict.WRONG or _sameness(finding, hidden)
    if not same:
        _gain(finding, hidden, given)
    if not same and not any(remark.verdict == Verdict.WRONG for remark in finding.remarks):
        _relative(finding, relative)


def _sameness(finding: Finding, layers: list[_Layer]) -> bool:
    """Find the first layer in which images hardly differ."""
    for limit, remark in ((DIFFERENCES[1], finding.wrong), (DIFFERENCES[0], finding.suspicious)):
        for layer in layers:
            if layer.difference <= limit * layer.size:
                share = layer.difference / layer.size if layer.size else 0.0
                remark(
                    f"From {_named(layer)} on all {finding.sample}s look the same: they differ by {share:.1g} of the "
                    "values."
                    if share
                    else f"{_named(layer)} puts out the same for every {finding.sample}"
                    + (": zeros." if not layer.size else ", whatever it shows."),
                    "The signal has died out before it; weights are too small, or biases outweigh them.",
                )
                return True
    return False


def _gain(finding: Finding, layers: list[_Layer], given: float) -> None:
    if not given > 0:
        return
    for limit, remark in ((GAINS[1], finding.wrong), (GAINS[0], finding.suspicious)):
        for layer in layers:
            gain = layer.difference / given
            if gain > limit:
                remark(f"The signal grows: {gain:.2g} times that of the {finding.sample}s at {_named(layer)}.",
                       "Start from smaller weights.")  # fmt: skip
                return
            if gain * limit < 1:
                remark(f"The signal dies out: {gain:.1g} of that of the {finding.sample}s at {_named(layer)}.",
                       "Start from larger weights.")  # fmt: skip
                return


def _blocked(finding: Finding, layers: list[_Layer]) -> None:
    for layer in layers:
        dead = layer.statistics.dead
        if layer.passes and dead > DEAD:
            how = "silent" if layer.statistics.layer == ReLU.__name__ else "saturated"
            if dead == 1:
                finding.wrong(
                    f"All units of {_named(layer)} are {how} for every {finding.sample}: no gradient passes.",
                    "Raise the biases before it to 0 or above, start from weights of the right size, or use LeakyReLU."
                    if how == "silent"
                    else "Start from smaller weights; standardise the inputs.",
                )
                return
            finding.suspicious(f"{dead:.0%} of the units of {_named(layer)} are {how} for every {finding.sample}.",
                               "Look at the biases and the size of the weights before it.")  # fmt: skip
    saturating = [layer for layer in layers if layer.statistics.saturated > 0]
    left = math.prod(1 - layer.statistics.saturated for layer in saturating)
    if left < OPEN[0]:
        worst = max(saturating, key=lambda layer: layer.statistics.saturated)
        remark = finding.wrong if left < OPEN[1] else finding.suspicious
        remark(
            f"{worst.statistics.saturated:.0%} of {_named(worst)} is saturated, and {len(saturating)} such layers let "
            f"{left:.1g} of the gradient through.",
            "Start from smaller weights ('xavier'), and standardise the inputs.",
        )


def _relative(finding: Finding, relative: dict[str, float]) -> None:
    moving = {name: value for name, value in relative.items() if value > 0}
    if len(moving) < 2:
        return
    slow, fast = min(moving, key=moving.__getitem__), max(moving, key=moving.__getitem__)
    ratio = moving[slow] / moving[fast]
    if ratio < RELATIVE[0]:
        remark = finding.wrong if ratio < RELATIVE[1] else finding.suspicious
        remark(
            f"No learning rate suits all layers: {slow} moves {ratio:.1g} times as fast as {fast}, in relation to its "
            "size.",
            "Use an initialisation that keeps the variance, batch normalisation or shortcuts (nn.Residual).",
        )


def _named(layer: _Layer) -> str:
    return f"{layer.statistics.layer} {layer.name}".strip()


# ---- what would mend it


def _mend(finding: Finding, subject: Subject, x: Array, y: Array) -> None:
    """Try the initialisations on copies, and name the first with which the signal is good."""
    given = _difference(x)
    tanh = sum(isinstance(module, _ODD) for module in subject.model.modules())
    relu = sum(isinstance(module, ReLU) for module in subject.model.modules())
    names = _INITS if relu >= tanh else ("xavier", "lsuv", "he")
    late = subject.deadline()
    tried: list[str] = []
    for name in names:
        if tried and late():
            break
        tried.append(name)
        model = subject.calm()
        try:
            with np.errstate(all="ignore"):
                init.apply(model, name, subject.seed, batch=x)
        except ValueError:
            continue
        trial = Finding("signal", "")
        moved = Subject(model, subject.loss, subject.train, None, seed=subject.seed)
        _judge(trial, _look(moved.calm(), x), _backward(moved, x, y), given)
        if trial.verdict == Verdict.GOOD:
            finding.good(f"Tried on a copy: with init.apply(model, {name!r}) the signal is good (--init {name}).")
            finding.figures["mended_by"] = name
            return
    finding.figures["mended_by"] = None
    finding.remarks[-1] = replace(
        finding.remarks[-1],
        advice=f"{finding.remarks[-1].advice} None of the initialisations {', '.join(tried)} mends it: try fewer "
        "layers, ReLU, batch normalisation or shortcuts (nn.Residual).".strip(),
    )

