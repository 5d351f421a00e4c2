"""What a check says: remarks with a verdict, gathered to a finding for each step and a report of all."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from fastconv import _html

__all__ = ["Finding", "Remark", "Report", "Verdict"]


class Verdict(IntEnum):
    """How a check came out; worse ones are greater.

    Examples
    --------
    >>> from fastconv.diagnose import Verdict
    >>> list(map(str, Verdict))
    ['good', 'suspicious', 'wrong']
    >>> max(Verdict.GOOD, Verdict.SUSPICIOUS) is Verdict.SUSPICIOUS  # a report's verdict is its worst remark's
    True
    """

    GOOD = 0
    SUSPICIOUS = 1
    WRONG = 2

    def __str__(self) -> str:
        return self.name.lower()


Paint = Callable[[str, Verdict], str]
"""Colours a word or mark by a verdict; it is laid out as if it had no colour."""

_MARKS = {Verdict.GOOD: "·", Verdict.SUSPICIOUS: "?", Verdict.WRONG: "✗"}
_INDENT = "   "
_TINTS = {Verdict.GOOD: "#2a8a2a", Verdict.SUSPICIOUS: "#b07700", Verdict.WRONG: "#c62828"}
_OPEN = {verdict: chr(0xE000 + verdict) for verdict in Verdict}  # stand for tags until the text is escaped
_CLOSE = chr(0xE003)


@dataclass(frozen=True)
class Remark:
    """One thing seen.

    Attributes
    ----------
    verdict : Verdict
    text : str
        What it is, with its figures, and what it means.
    advice : str
        What to change; empty where nothing is to be changed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import diagnose, nn
    >>> x, y = np.eye(4, dtype=np.float32), np.zeros(4, int)
    >>> report = diagnose.check(nn.Linear(4, 2), (x, y), steps=["data"])
    >>> for remark in report["data"].remarks:
    ...     print(remark.verdict, "-", remark.text, remark.advice)
    suspicious - No training row of class 1. Labels count from 0; give the model no score for classes that never occur.
    """

    verdict: Verdict
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Words:
    """What a sample is called, and what it is made of; both take an "s" where there are more."""

    sample: str
    value: str


IMAGES, ROWS = Words("image", "pixel"), Words("row", "column")


@dataclass
class Finding:
    """What one step found.

    Attributes
    ----------
    step : str
        "data", "loss", "gradients", "signal", "overfit" or "rates".
    title : str
    summary : str
        The figures, in a line or two.
    remarks : list of Remark
    figures : dict
        All figures by name, fit for JSON.
    table : list of tuple of str
        Rows to be shown between summary and remarks, the first of them the heading.
    seconds : float
        What the step took.
    words : Words
        What samples are called: images of pixels, or the rows of a table and their columns.

    Examples
    --------
    >>> from fastconv.diagnose import Finding
    >>> finding = Finding("data", "Data", "100 images")
    >>> finding.good("No image is all of one colour.")
    >>> finding.suspicious("3 images occur twice.", "Look for copies between training and test data.")
    >>> str(finding.verdict)
    'suspicious'
    >>> print(finding.text(number=1))
    1  Data ───────────────────────────────────────────────────────────────────── suspicious
       100 images
       · No image is all of one colour.
       ? 3 images occur twice.
         → Look for copies between training and test data.
    """

    step: str
    title: str
    summary: str = ""
    remarks: list[Remark] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    table: list[tuple[str, ...]] = field(default_factory=list)
    seconds: float = 0.0
    words: Words = IMAGES

    @property
    def sample(self) -> str:
        """What a sample is called; with an "s" it is several."""
        return self.words.sample

    @property
    def verdict(self) -> Verdict:
        """The worst of the remarks'; good without any."""
        return max((remark.verdict for remark in self.remarks), default=Verdict.GOOD)

    def good(self, text: str) -> None:
        """Remark something that is as it should be.

        Parameters
        ----------
        text : str
        """
        self.remarks.append(Remark(Verdict.GOOD, text))

    def suspicious(self, text: str, advice: str = "") -> None:
        """Remark something that may be meant, or may be a mistake.

        Parameters
        ----------
        text : str
        advice : str
            What to change.
        """
        self.remarks.append(Remark(Verdict.SUSPICIOUS, text, advice))

    def wrong(self, text: str, advice: str = "") -> None:
        """Remark something that cannot be meant.

        Parameters
        ----------
        text : str
        advice : str
            What to change.
        """
        self.remarks.append(Remark(Verdict.WRONG, text, advice))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON; figures that are not finite become None."""
        return {
            "step": self.step,
            "title": self.title,
            "verdict": str(self.verdict),
            "summary": self.summary,
            "remarks": [
                {"verdict": str(remark.verdict), "text": remark.text, "advice": remark.advice}
                for remark in self.remarks
            ],
            "figures": _plain(self.figures),
            "seconds": round(self.seconds, 3),
        }

    def text(self, number: int, width: int = 88, paint: Paint | None = None) -> str:
        """Lay out for people: a heading with the verdict, figures, table, remarks and advice.

        Parameters
        ----------
        number : int
            Of the step.
        width : int
            Characters per line.
        paint : callable, optional
            ``paint(text, verdict)`` returns a text with its colour.

        Examples
        --------
        >>> from fastconv.diagnose import Finding
        >>> finding = Finding("data", "Data", "100 images")
        >>> finding.wrong("Labels are not whole numbers.", "Give classes as integers from 0.")
        >>> print(finding.text(number=1, width=60))
        1  Data ────────────────────────────────────────────── WRONG
           100 images
           ✗ Labels are not whole numbers.
             → Give classes as integers from 0.
        """
        paint = paint or _unpainted
        word = f"{self.verdict}".upper() if self.verdict == Verdict.WRONG else str(self.verdict)
        head = f"{number}  {self.title} "
        lines = [f"{head}{'─' * max(width - len(head) - len(word) - 1, 3)} {paint(word, self.verdict)}"]
        lines += _wrapped(self.summary, width, _INDENT)
        if self.table:
            lines += [_INDENT + row for row in _aligned(self.table)]
        for remark in self.remarks:
            mark = paint(_MARKS[remark.verdict], remark.verdict)
            first, *rest = _wrapped(remark.text, width, _INDENT + "  ")
            lines += [f"{_INDENT}{mark} {first.strip()}", *rest]
            if remark.advice:
                first, *rest = _wrapped(remark.advice, width, _INDENT + "    ")
                lines += [f"{_INDENT}  → {first.strip()}", *rest]
        return "\n".join(lines)


@dataclass
class Report:
    """The findings of a check, in the order of the steps; prints as a page for people.

    Parameters
    ----------
    findings : list of Finding

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import diagnose, init, nn
    >>> x = np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32)
    >>> model = nn.Sequential(nn.Linear(30, 20), nn.Sigmoid(), nn.Linear(20, 2))
    >>> init.apply(model, "small")
    >>> report = diagnose.check(model, (x, (x[:, 0] > 0).astype(int)), steps=["loss", "signal"])
    >>> print(report)  # doctest: +ELLIPSIS
    1  Loss before training ─────────────────────────────────────────────────────────── good
       loss 0.6928 on 200 rows; ln(2) = 0.6931; accuracy 52.0%
       with l2 = 1000 it goes up by 31.45
       · As it should be: a net that knows nothing yet, and a large penalty makes it worse.
    <BLANKLINE>
    2  Signal through the layers ──────────────────────────────────────────────── suspicious
       128 rows; their differences: 0.99 at the input, 0.000588 at the output
       layer                     mean  deviation  from row  zeros  saturated  dead  gradient
                                                  to row                            / weight
           0  Linear → Sigmoid  0.500      0.013  0.013                             0.032
           2  Linear            0.001      0.009  0.00059                           1.698
       ? The signal dies out: 0.0006 of that of the rows at Linear 2.
         → Start from larger weights.
       · Tried on a copy: with init.apply(model, 'xavier') the signal is good (--init
         xavier).
    <BLANKLINE>
    suspicious: signal through the layers (... s)
    >>> str(report.verdict), round(report["loss"].figures["loss"], 4)
    ('suspicious', 0.6928)
    """

    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings'."""
        return max((finding.verdict for finding in self.findings), default=Verdict.GOOD)

    def __getitem__(self, step: str) -> Finding:
        """Return the finding of a step by name; a KeyError names those there are."""
        for finding in self.findings:
            if finding.step == step:
                return finding
        raise KeyError(f"{step!r}; this report has {', '.join(f.step for f in self.findings)}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import diagnose, nn
        >>> x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
        >>> told = diagnose.check(nn.Linear(4, 2), (x, y), steps=["data"]).to_dict()
        >>> told["verdict"], [finding["step"] for finding in told["findings"]]
        ('good', ['data'])
        """
        return {
            "verdict": str(self.verdict),
            "findings": [finding.to_dict() for finding in self.findings],
            "seconds": round(sum(finding.seconds for finding in self.findings), 3),
        }

    def closing(self) -> str:
        """Say in one line how it all came out.

        Returns
        -------
        str
        """
        seconds = sum(finding.seconds for finding in self.findings)
        by = {v: [f.title.lower() for f in self.findings if f.verdict == v] for v in Verdict}
        parts = [f"{v}: {', '.join(by[v])}" for v in (Verdict.WRONG, Verdict.SUSPICIOUS) if by[v]]
        said = "; ".join(parts) or f"all {len(self.findings)} steps good"
        return f"{said} ({seconds:.1f} s)"

    def text(self, width: int = 88, paint: Paint | None = None) -> str:
        """Lay out for people.

        Parameters
        ----------
        width : int
            Characters per line.
        paint : callable, optional
            ``paint(text, verdict)`` returns a text with its colour.
        """
        pages = [finding.text(i, width, paint) for i, finding in enumerate(self.findings, 1)]
        return "\n\n".join([*pages, self.closing()])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """The page, verdicts in colour."""
        page = _html.text(self.text(paint=lambda word, verdict: f"{_OPEN[verdict]}{word}{_CLOSE}"))
        for verdict, sign in _OPEN.items():
            page = page.replace(sign, f'<b style="color:{_TINTS[verdict]}">')
        return page.replace(_CLOSE, "</b>")


def _unpainted(text: str, verdict: Verdict) -> str:
    return text


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, width, initial_indent=indent, subsequent_indent=indent)
    ]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of text: those of figures flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    figures = [all(cell[:1].isdigit() or cell[:1] in "-–" for cell in c[1:]) for c in zip(*rows, strict=True)]
    return [
        "  ".join(f"{c:>{w}}" if f else f"{c:<{w}}" for c, w, f in zip(row, widths, figures, strict=True)).rstrip()
        for row in rows
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
