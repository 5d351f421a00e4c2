"""What is searched: a range or a list for every hyperparameter, as texts a person types or as objects.

``1e-7:1e-3`` is a range in which the logarithm is uniform, ``0.5:0.99:linear`` one in which the value is,
``16,32,64`` a list, and a single value is fixed. Learning rates and penalties act by their order of
magnitude, so the logarithm is the default (Bengio, "Practical recommendations for gradient-based training of
deep architectures", arXiv 1206.5533, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastconv.functional._check import flag

Value = int | float | str | bool | None


@dataclass(frozen=True)
class Range:
    """All numbers between two.

    Parameters
    ----------
    low, high : float
        Finite, low < high; both above 0 where ``log``.
    log : bool
        Whether the logarithm is uniform, or the value itself.

    Raises
    ------
    ValueError
        If the ends make no range.

    Examples
    --------
    >>> Range(1e-4, 1.0).value(0.25)
    0.001
    """

    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "log", flag("Range: log", self.log))
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"range {self}: both ends must be finite numbers, not too far apart")
        if not self.low < self.high:
            raise ValueError(f"range {self}: the lower end must come first and be below the upper one")
        if self.log and self.low <= 0:
            raise ValueError(
                f"range {self}: a logarithmic one needs ends above 0; "
                f"a plain one is written {self.low:g}:{self.high:g}:linear"
            )

    def holds(self, value: Any) -> bool:
        """Whether a value is of the range; rounding may have brought it out by a hair.

        Parameters
        ----------
        value : object
        """
        if not isinstance(value, int | float) or isinstance(value, bool) or (self.log and not value > 0):
            return False
        return min(value - self.low, self.high - value) >= -1e-9 * max(abs(self.low), abs(self.high))

    def value(self, share: float) -> float:
        """Return the value at a share 0..1 of the way from low to high.

        Parameters
        ----------
        share : float
            0 for the low end, 1 for the high one.
        """
        if share <= 0:
            return self.low
        if share >= 1:
            return self.high
        if self.log:
            found = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            found = float(f"{found:.12g}")  # the last digits of exp and log differ between machines
        else:
            found = float(f"{self.low + share * (self.high - self.low):.12g}")
        return min(max(found, self.low), self.high)

    def share(self, value: float) -> float:
        """Return how far a value is on the way from low to high.

        Parameters
        ----------
        value : float
        """
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.low:.3g}:{self.high:.3g}" + ("" if self.log else ":linear")


@dataclass(frozen=True)
class Choice:
    """A list of values; of a single one, a fixed value.

    Parameters
    ----------
    values : tuple of int, float, str or bool

    Raises
    ------
    ValueError
        If it is empty or holds a value twice.

    Examples
    --------
    >>> from fastconv.search import Choice
    >>> sizes = Choice((16, 32, 64))
    >>> sizes.holds(32), sizes.holds(48)
    (True, False)
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a list of values must not be empty")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"list {self}: a value occurs twice")

    def __str__(self) -> str:
        return ",".join(map(show, self.values))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the list.

        Parameters
        ----------
        value : object
        """
        return value in self.values


Dimension = Range | Choice
Space = dict[str, Dimension]


def show(value: Any) -> str:
    """Return a value as it stands in tables: numbers with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def parse(text: str) -> Dimension:
    """Read the text of a range, a list or a value.

    Parameters
    ----------
    text : str
        ``LOW:HIGH`` (log-uniform), ``LOW:HIGH:linear``, ``VALUE,VALUE,...`` or ``VALUE``.

    Returns
    -------
    Range or Choice

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> parse("1e-7:1e-3"), parse("16,32"), parse("0.9")
    (Range(low=1e-07, high=0.001, log=True), Choice(values=(16, 32)), Choice(values=(0.9,)))
    """
    if ":" not in text:
        return Choice(tuple(_value(item) for item in text.split(",")))
    low, high, *kind = text.split(":")
    if len(kind) > 1 or (kind and kind[0].strip() not in ("log", "linear")):
        raise ValueError(f"{text!r} is no range: write LOW:HIGH (logarithmic) or LOW:HIGH:linear")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ValueError(f"{text!r} is no range: LOW and HIGH must be numbers, as in 1e-7:1e-3") from None
    return Range(*ends, log=not kind or kind[0].strip() == "log")


def _value(text: str) -> Value:
    text = text.strip()
    if not text:
        raise ValueError("a value is missing: write LOW:HIGH, VALUE,VALUE,... or VALUE")
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if not math.isfinite(number):
            raise ValueError(f"{text!r} is not a finite number")
        return number
    return text


def make_space(given: Mapping[str, Any]) -> Space:
    """Make a space of what a person wrote: texts, numbers, lists, `Range` or `Choice`.

    Parameters
    ----------
    given : mapping of str to str, int, float, list, Range or Choice
        Texts as `parse` takes them; a number is held fixed.

    Returns
    -------
    dict of str to Range or Choice

    Raises
    ------
    ValueError, TypeError
        If it is empty, or a part of it cannot be read; the message begins with the part's name.

    Examples
    --------
    >>> from fastconv.search import make_space
    >>> space = make_space({"lr": "1e-4:1", "momentum": 0.9, "batch_size": [32, 64]})
    >>> space["lr"], space["momentum"], space["batch_size"]
    (Range(low=0.0001, high=1.0, log=True), Choice(values=(0.9,)), Choice(values=(32, 64)))
    >>> make_space({"lr": "1:"})
    Traceback (most recent call last):
        ...
    ValueError: lr: '1:' is no range: LOW and HIGH must be numbers, as in 1e-7:1e-3
    """
    if not given:
        raise ValueError("there is nothing to search: the space is empty")
    space: Space = {}
    for name, what in given.items():
        try:
            space[name] = _dimension(what)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None
    return space


def _dimension(what: Any) -> Dimension:
    if isinstance(what, Range | Choice):
        return what
    if isinstance(what, str):
        return parse(what)
    if what is None or isinstance(what, int | float):
        return Choice((what,))
    if isinstance(what, Sequence) and all(v is None or isinstance(v, int | float | str) for v in what):
        return Choice(tuple(what))
    raise TypeError(f"takes a text such as '1e-7:1e-3', a list, a number, a Range or a Choice, got {what!r}")


def free(space: Space) -> Space:
    """Return the part of a space that is not fixed."""
    return {name: d for name, d in space.items() if isinstance(d, Range) or len(d.values) > 1}


def grid_shape(space: Space, trials: int) -> dict[str, int]:
    """Return how many values of each dimension a grid of at most ``trials`` points takes.

    Lists are taken whole; ranges get equal numbers of points as far as the trials go, earlier ones first.

    Raises
    ------
    ValueError
        If not even two points of each range fit.
    """
    shape = {name: len(d.values) if isinstance(d, Choice) else 1 for name, d in space.items()}
    ranges = [name for name, d in space.items() if isinstance(d, Range)]

    def grow(names: Iterable[str]) -> bool:
        grown = shape | {name: shape[name] + 1 for name in names}
        if math.prod(grown.values()) > trials:
            return False
        shape.update(grown)
        return True

    while ranges and grow(ranges):
        pass
    for name in ranges:
        grow([name])
    least = math.prod(max(n, 2) if name in ranges else n for name, n in shape.items())
    if least > trials:
        raise ValueError(f"a grid over this space has at least {least} points, more than the {trials} trials asked for")
    return shape


def grid_point(space: Space, shape: Mapping[str, int], number: int) -> dict[str, Value]:
    """Return point ``number`` of a grid; the last dimension changes fastest."""
    point: dict[str, Value] = {}
    for name in reversed(space):
        number, index = divmod(number, shape[name])
        d = space[name]
        point[name] = d.values[index] if isinstance(d, Choice) else d.value(index / (shape[name] - 1))
    return {name: point[name] for name in space}


def narrow(space: Space, best: Sequence[Mapping[str, Any]]) -> Space:
    """Return a smaller space around the best trials.

    A range shrinks to the span of their values and a tenth of its own length beyond on either side, but not
    beyond its ends; a list to the values they had. So a hyperparameter that matters gets a narrow range and one
    that does not stays wide.
    """

    def around(name: str, d: Dimension) -> Dimension:
        if isinstance(d, Choice):
            return Choice(tuple(v for v in d.values if any(row[name] == v for row in best)))
        shares = [d.share(row[name]) for row in best]
        return Range(d.value(min(shares) - 0.1), d.value(max(shares) + 0.1), d.log)

    return {name: around(name, d) for name, d in space.items()}


def at_edge(
    space: Space, best: Mapping[str, Any], asked: Space | None = None, alike: Sequence[Mapping[str, Any]] = (),
    tied: Sequence[Mapping[str, Any]] = (),
) -> list[str]:  # fmt: skip
    """Return a warning for every range in whose outer twentieth the best point lies, or one as good.

    Points as good that reach both ends of a range say that it does not matter: no reason to widen it.

    Parameters
    ----------
    space : dict
    best : dict
    asked : dict, optional
        The space before it was narrowed, if it was.
    alike, tied : sequence of dict
        Points that equal the best in value and loss; those that do in value alone, which are looked at where none of
        the former lies at an edge.
    """
    warnings = []
    for name, d in space.items():
        if not isinstance(d, Range):
            continue
        edges = _edges(name, d, [*alike, best]) or _edges(name, d, tied)
        if len(edges) != 1:
            continue
        ((side, value),) = edges.items()
        whole = (asked or space)[name]
        assert isinstance(whole, Range)
        if not _edges(name, whole, [{name: value}]):
            advice = "the stage before may have narrowed too far, and more trials would help it"
        else:
            limit = whole.low / 100 if side == "lower" else whole.high * 100
            advice = "a better one may lie beyond; widen the range" + (f", as far as {limit:.3g}" if d.log else "")
        which = f"the best {name}, {show(value)}"
        if value != best[name]:
            which = f"{name} {show(value)}, as good as the best"
        warnings.append(f"{which}, lies at the {side} edge of {d}: {advice}")
    return warnings


def _edges(name: str, d: Range, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return which ends of a range points lie at, each with the value of the last that does."""
    shares = [(d.share(point[name]), point[name]) for point in points]
    return {"lower" if share < 0.5 else "upper": value for share, value in shares if not 0.05 < share < 0.95}
