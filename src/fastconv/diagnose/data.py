"""Step 1, the data: what the net will see, image by image and label by label."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastconv import functional as F
from fastconv.diagnose.expected import against_statistics
from fastconv.diagnose.numbers import numbers_in_order
from fastconv.diagnose.report import ROWS, Finding
from fastconv.diagnose.subject import Inputs, Subject

__all__ = ["check_data"]

Array = np.ndarray

STRAYED = 10.0
"""A root mean square of the inputs that is wrong, and its inverse; its root is suspicious.

Initialisations assume inputs of root mean square 1. The scores grow in proportion to the inputs and the
gradient of the first weights with their square, so a factor of 10 moves the best learning rate by 100."""

IMBALANCE = 10.0
"""Largest class over smallest. The larger one starts with a head start of ln 10 = 2.30 nats, as much as the
whole loss of guessing among ten classes."""

MISLABELLED = 0.05
"""Share of images that contradict a neighbourhood of one mind. C. Northcutt, A. Athalye and J. Mueller,
"Pervasive label errors in test sets", NeurIPS 2021, found 3.3 % wrong labels on average in ten well-known sets."""

SIGMAS = 5.0
"""Standard errors that chance is not believed beyond: 1 in 3 million."""

_NEIGHBOURS, _OF_ONE_MIND = 10, 8
_LOOKED_AT = 1000  # images whose neighbours are searched, all against all
_COLUMNS = 4096  # pixels compared at most


def check_data(subject: Subject) -> Finding:
    """Look at every image and label: shapes, ranges, balance, copies, and whether labels follow images."""
    finding = subject.finding("data", "Data")
    parts = {"training": subject.train}
    if subject.validation is not None:
        parts["validation"] = subject.validation
    measured = {name: _measure(inputs) for name, inputs in parts.items()}
    _sizes(finding, subject, measured)
    for name, inputs in parts.items():
        _finite(finding, name, inputs)
        if inputs.labelled:
            _labels_in_range(finding, name, inputs, subject.classes)
        else:
            numbers_in_order(finding, name, inputs)
    _scale(finding, measured["training"])
    _constant(finding, measured["training"])
    if "validation" in measured:
        _same_scale(finding, measured["training"], measured["validation"])
    if subject.classes is not None:
        _balance(finding, subject, subject.classes)
    if subject.pixels:
        _pixels(finding, subject)
    _copies(finding, parts)
    if subject.classes is not None:
        _neighbours(finding, subject, subject.classes)
    against_statistics(finding, subject)
    if not finding.remarks:
        finding.good(
            f"Standardised, balanced, without copies or damaged values; labels follow the {finding.sample}s: "
            f"{finding.figures['neighbour_agreement']:.0%} share their nearest neighbour's."
            if "neighbour_agreement" in finding.figures
            else "Standardised, without copies or damaged values."
        )
    return finding


# ---- pixels


@dataclass(frozen=True)
class _Measured:
    """Figures of all the finite values of a set, as the net sees them."""

    count: int
    low: float
    high: float
    mean: float
    deviation: float
    of_means: float  # deviation of the images' own means: what a sampling error of the mean follows from
    constant: int  # pixels that are the same in every image
    pixels: int
    blank: int  # images of one value


def _measure(inputs: Inputs) -> _Measured:
    """Go over all images once."""
    means: list[Array] = []
    total = squares = values = 0.0
    low: Array | None = None
    high: Array | None = None
    first: float | None = None
    blank = 0
    for part in inputs.chunks():
        rows = part.reshape(len(part), -1)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            continue
        lowest, highest = rows.min(axis=0), rows.max(axis=0)
        low = lowest if low is None else np.minimum(low, lowest)
        high = highest if high is None else np.maximum(high, highest)
        first = float(rows.mean(dtype=np.float64)) if first is None else first
        around = rows - np.float32(first)  # sums of squares around about the mean lose nothing
        sums = around.sum(axis=1, dtype=np.float64)
        means.append(sums / rows.shape[1])
        total, values = total + float(sums.sum()), values + rows.size
        squares += float(np.einsum("ij,ij->i", around, around, dtype=np.float64).sum())
        blank += int((rows.min(axis=1) == rows.max(axis=1)).sum())
    if low is None or high is None or first is None:
        return _Measured(0, math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    mean = total / values
    all_means = np.concatenate(means)
    return _Measured(
        len(all_means), float(low.min()), float(high.max()), float(first) + mean,
        math.sqrt(max(squares / values - mean**2, 0.0)), float(all_means.std()),
        int((low == high).sum()), low.size, blank,
    )  # fmt: skip


def _sizes(finding: Finding, subject: Subject, measured: dict[str, _Measured]) -> None:
    train = measured["training"]
    shape = subject.train.images.shape[1:]
    size = f"of {shape[0]} {finding.words.value}s" if finding.words is ROWS else "×".join(map(str, shape))
    aside = "" if subject.validation is None else f", {len(subject.validation):,} for validation"
    classes = "" if subject.classes is None else f", {subject.classes} classes"
    finding.summary = (
        f"{len(subject.train):,} training {finding.sample}s {size}{aside}{classes}\n"
        f"values {train.low:.3g} to {train.high:.3g}, mean {train.mean:.3f}, deviation {train.deviation:.3f}; "
        f"{train.constant} of {train.pixels} {finding.words.value}s never change"
    )
    finding.figures |= {"shape": shape, "classes": subject.classes} | {
        name: {
            "samples": m.count, "low": m.low, "high": m.high, "mean": m.mean, "deviation": m.deviation,
            "constant_pixels": m.constant, "blank_images": m.blank,
        }
        for name, m in measured.items()
    }  # fmt: skip


def _finite(finding: Finding, name: str, inputs: Inputs) -> None:
    bad = np.flatnonzero(~inputs.finite)
    if len(bad):
        finding.wrong(
            f"{len(bad)} {name} {finding.sample}{' holds' if len(bad) == 1 else 's hold'} NaN or infinity, "
            f"the first is number {bad[0]}: one of them makes every weight NaN.",
            f"Leave these {finding.sample}s out, or mend what makes them.",
        )
    if inputs.targets.dtype.kind == "f" and not np.isfinite(inputs.targets).all():
        finding.wrong(f"Some {name} targets are NaN or infinite.", "Leave these samples out.")


def _scale(finding: Finding, train: _Measured) -> None:
    size = math.hypot(train.mean, train.deviation)
    images = f"{finding.sample}s"
    advice = f"Standardise: subtract the training {images}' mean, divide by their deviation (data.Standardizer)."
    if train.deviation == 0:
        finding.wrong(f"Every value of all training {images} is {train.low:.3g}: there is nothing to learn from.",
                      f"Look at how the {images} are read.")  # fmt: skip
        return
    strayed = max(size, 1 / size)
    if strayed > STRAYED:
        finding.wrong(
            f"Root mean square {size:.3g} instead of about 1: gradients are off by {size**2:.2g}, and so is the "
            "best learning rate.", advice,
        )  # fmt: skip
    elif strayed > math.sqrt(STRAYED):
        finding.suspicious(
            f"Root mean square {size:.3g} instead of about 1: the best learning rate moves by {size**-2:.2g}.", advice
        )
    if abs(train.mean) > train.deviation:
        finding.suspicious(
            f"Not centred: mean {train.mean:.3g}, deviation {train.deviation:.3g}. All weights of a unit are pushed "
            "the same way at once, which slows learning (LeCun et al. 1998, section 4.3).", advice,
        )  # fmt: skip


def _constant(finding: Finding, train: _Measured) -> None:
    if 2 * train.constant > train.pixels and train.deviation > 0:
        finding.suspicious(
            f"{train.constant} of {train.pixels} {finding.words.value}s are the same in all {finding.sample}s: more "
            "than half tell nothing.",
            f"Look at a few {finding.sample}s; leave out what never changes, or crop to the middle.",
        )
    if 0 < train.count < 100 * train.blank and train.deviation > 0:
        finding.suspicious(
            f"{train.blank} training {finding.sample}s are of one value all over.",
            f"Look at how the {finding.sample}s are read.",
        )


def _same_scale(finding: Finding, train: _Measured, other: _Measured) -> None:
    """Compare means and deviations: a difference must be larger than sampling explains, and a tenth."""
    if not (train.deviation > 0 and other.count):
        return
    shift = abs(other.mean - train.mean) / train.deviation
    error = SIGMAS * math.hypot(
        train.of_means / math.sqrt(train.count), other.of_means / math.sqrt(other.count)
    ) / train.deviation  # fmt: skip
    stretch = other.deviation / train.deviation
    if shift > max(error, 0.1) or not 1 / (1.1 + error) < stretch < 1.1 + error:
        remark = finding.wrong if shift > 1 or not 0.5 < stretch < 2 else finding.suspicious
        remark(
            f"Validation {finding.sample}s have mean {other.mean:.3g} and deviation {other.deviation:.3g}, training "
            f"{finding.sample}s {train.mean:.3g} and {train.deviation:.3g}: the net is judged on another kind of "
            "input.",
            f"Standardise both with the training {finding.sample}s' figures.",
        )


# ---- labels


def _labels_in_range(finding: Finding, name: str, inputs: Inputs, classes: int | None) -> None:
    if classes is None or not len(inputs):
        return
    low, high = int(inputs.targets.min()), int(inputs.targets.max())
    if low < 0 or high >= classes:
        shifted = low == 1 and high == classes
        finding.wrong(
            f"{name.capitalize()} labels run from {low} to {high}; the model has scores for 0 to {classes - 1}.",
            "Labels count from 0 here: subtract 1." if shifted else "Give the model a score for every class.",
        )


def _balance(finding: Finding, subject: Subject, classes: int) -> None:
    counts = subject.train.class_counts(classes)
    finding.figures["class_counts"] = counts
    if not counts.sum():
        return
    missing = np.flatnonzero(counts == 0)
    held = None if subject.validation is None else subject.validation.class_counts(classes)
    if len(missing):
        tested = held is not None and bool(held[missing].any())
        remark = finding.wrong if tested else finding.suspicious
        remark(
            f"No training {finding.sample} of class {_listed(missing)}"
            + (", but validation has some: the net is tested on what it never saw." if tested else "."),
            "Look at how the set was parted; shuffle before parting." if tested
            else "Labels count from 0; give the model no score for classes that never occur.",
        )  # fmt: skip
    present = counts[counts > 0]
    if present.max() > IMBALANCE * present.min():
        finding.suspicious(
            f"Class {counts.argmax()} has {counts.max():,} {finding.sample}s, class "
            f"{np.flatnonzero(counts == present.min())[0]} has {present.min():,}: answering with the former alone is "
            f"right for {counts.max() / counts.sum():.0%}.",
            "Judge by accuracy class by class; draw rare classes more often or gather more of them.",
        )
    if held is not None and held.sum() and not len(missing) and _unlike(counts, held):
        finding.suspicious(
            f"Validation has its classes in other shares: {_shares(held)} %, training {_shares(counts)} %.",
            "Part the set at random (data.split).",
        )


def _pixels(finding: Finding, subject: Subject) -> None:
    """Look at the classes of pixels. One that most have is the rule, and no fault."""
    counts = subject.train.class_counts(subject.scores[0])
    finding.figures["class_counts"] = counts
    if not counts.sum():
        finding.wrong("No pixel to train on is of any class.", "Look at the masks.")
        return
    finding.summary += f"\nclass {counts.argmax()} alone is right for {counts.max() / counts.sum():.0%} of the pixels"
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        finding.suspicious(
            f"No pixel to train on is of class {_listed(missing)}.", "Look at how the set was parted, and at the masks."
        )


def _unlike(one: Array, other: Array) -> bool:
    """Pearson's test of two samples of counts, beyond `SIGMAS` by the Wilson-Hilferty approximation."""
    both = np.stack([one, other]).astype(np.float64)
    both = both[:, both.sum(axis=0) > 0]
    expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0) / both.sum()
    freedom = both.shape[1] - 1
    if freedom < 1:
        return False
    statistic = float(((both - expected) ** 2 / expected).sum())
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread) > SIGMAS


def _shares(counts: Array) -> str:
    return " ".join(f"{100 * share:.0f}" for share in counts / counts.sum())


def _listed(numbers: Iterable[int]) -> str:
    listed = [str(number) for number in numbers]
    return ", ".join(listed[:8]) + (" ..." if len(listed) > 8 else "")


# ---- copies


def _copies(finding: Finding, parts: dict[str, Inputs]) -> None:
    """Find equal images by hashing them as the net sees them where sets differ in kind, else as they are."""
    raw = len({(p.images.dtype, p.images.shape[1:], id(p.standardize)) for p in parts.values()}) == 1
    seen = {name: _hashes(inputs, raw) for name, inputs in parts.items()}
    train = seen["training"]
    labels: dict[bytes, set[int]] = {}
    if parts["training"].labelled:
        for key, label in zip(train, parts["training"].targets.tolist(), strict=True):
            labels.setdefault(key, set()).add(label)
    repeated = len(train) - len(set(train))
    conflicts = sum(len(found) > 1 for found in labels.values())
    finding.figures |= {"copies_in_training": repeated, "copies_with_two_labels": conflicts}
    if 100 * repeated > len(train):
        often = Counter(train).most_common(1)[0][1]
        finding.suspicious(
            f"{repeated:,} of {len(train):,} training {finding.sample}s are copies of others (one occurs {often} "
            "times): they weigh double, and a random part set aside holds copies of what was trained on.",
            "Leave the copies out before parting the set.",
        )
    if conflicts:
        finding.suspicious(f"{conflicts:,} {finding.sample}s occur under two labels: no net can tell them apart.",
                           "Look at these labels.")  # fmt: skip
    if "validation" not in seen or not seen["validation"]:
        return
    held = seen["validation"]
    known = set(train)
    leaked = sum(key in known for key in held)
    finding.figures["validation_copies_in_training"] = leaked
    if leaked:
        share, error = leaked / len(held), 0.5 / math.sqrt(len(held))
        remark = finding.wrong if share > error else finding.suspicious
        remark(
            f"{leaked:,} of {len(held):,} validation {finding.sample}s ({share:.1%}) are among the training "
            f"{finding.sample}s: validation rewards learning by heart"
            f"{f', by more than its own standard error ({error:.1%})' * (share > error)}.",
            "Part the set after leaving out copies, and before anything else is done with it.",
        )


def _hashes(inputs: Inputs, raw: bool) -> list[bytes]:
    """Return a digest of every image, whatever its memory order."""
    parts = inputs.raw_chunks() if raw else inputs.chunks()
    return [
        hashlib.blake2b(image.data, digest_size=16).digest()
        for part in parts
        for image in np.ascontiguousarray(part).reshape(len(part), -1)
    ]


# ---- labels against images


def _neighbours(finding: Finding, subject: Subject, classes: int) -> None:
    """Compare labels with those of the nearest images: a plain test of whether labels belong to images at all."""
    x, y = subject.sample(_LOOKED_AT, "neighbours")
    if len(y) < 4 * _NEIGHBOURS:
        return
    x = _flat(x)
    distances = _distances(x, x)
    np.fill_diagonal(distances, np.inf)
    near = np.argpartition(distances, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    nearest = distances.argmin(axis=1)
    agreement = float((y[nearest] == y).mean())
    shares = np.bincount(y, minlength=classes) / len(y)
    chance = float((shares**2).sum())
    error = math.sqrt(max(chance * (1 - chance), 1e-12) / len(y))
    votes = (y[near][:, :, None] == np.arange(classes)).sum(axis=1)
    contradicted = float(((votes.max(axis=1) >= _OF_ONE_MIND) & (votes.argmax(axis=1) != y)).mean())
    finding.figures |= {
        "neighbour_agreement": agreement, "chance_agreement": chance, "contradicted_labels": contradicted,
    }  # fmt: skip
    follows = agreement > chance + SIGMAS * error
    if not follows and chance < 1:
        finding.suspicious(
            f"Labels do not follow the {finding.sample}s: {agreement:.1%} of {len(y)} {finding.sample}s share the "
            f"label of their nearest neighbour, chance gives {chance:.1%} ± {error:.1%}.",
            f"Look at {finding.sample}s with their labels: were the two shuffled apart?",
        )
    elif contradicted > MISLABELLED:
        finding.suspicious(
            f"{contradicted:.1%} of the labels contradict at least {_OF_ONE_MIND} of their {_NEIGHBOURS} nearest "
            f"neighbours, who agree among themselves: wrong labels, by the look of it.",
            f"Look at these {finding.sample}s with their labels.",
        )
    if subject.validation is None or not subject.validation.labelled or not follows:
        return
    rows = np.flatnonzero(subject.validation.finite)
    rows = rows[:: max(len(rows) // (_LOOKED_AT // 2), 1)]
    if len(rows) < 2 * _NEIGHBOURS:
        return
    held = subject.validation.targets[rows]
    near_held = _distances(_flat(subject.validation.seen(rows, subject.dtype)), x).argmin(axis=1)
    across = float((y[near_held] == held).mean())
    finding.figures["validation_neighbour_agreement"] = across
    gap, pooled = agreement - across, (agreement * len(y) + across * len(rows)) / (len(y) + len(rows))
    error = math.sqrt(pooled * (1 - pooled) * (1 / len(y) + 1 / len(rows)))
    if gap <= max(SIGMAS * error, 0.1):
        return
    shifts = [(int(((y[near_held] + k) % classes == held).sum()), k) for k in range(1, classes)]
    best, shift = max(shifts)
    # Nearer to chance than to training: another meaning; otherwise perhaps only other images.
    remark = finding.wrong if across < 0.5 * (agreement + chance) else finding.suspicious
    remark(
        f"Validation is unlike training: {across:.1%} of its labels agree with the nearest training {finding.sample}, "
        f"within training {agreement:.1%} do."
        + (f" With {shift} taken from them, {best / len(rows):.1%} would." if best > 2 * across * len(rows) else ""),
        f"Prepare {finding.sample}s and number classes in the same way in both sets, and part them at random.",
    )


def _flat(x: Array) -> Array:
    rows = np.ascontiguousarray(x.reshape(len(x), -1), np.float32)
    return np.ascontiguousarray(rows[:, :: -(-rows.shape[1] // _COLUMNS)])


def _distances(a: Array, b: Array) -> Array:
    """Squared distances between rows, (len(a), len(b))."""
    lengths = [np.einsum("ij,ij->i", m, m) for m in (a, b)]
    return lengths[0][:, None] + lengths[1] - 2 * F.linear(a, b)
