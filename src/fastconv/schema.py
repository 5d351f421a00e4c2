"""JSON from anyone, read in one place: at most so long and so deep, and of the shape declared for it.

A shape is a small object that says what may stand in one place::

    NET = Record({"layers": Integer(1), "alpha": Number()}, {"note": Text()})
    told = read("net.json", NET)  # or a ValueError that names the file, the entry, what is there and what should be

Entries that a `Record` does not name may hold any JSON, unless it says ``rest=None``: files may grow.
"""

import json
import math
import os
import reprlib
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

LONGEST = 256 << 20
"""Bytes of a file at most."""
DEEPEST = 64
"""Lists and objects within each other at most."""


class Shape:
    """Anything that JSON can say."""

    words = "anything"

    def fits(self, value: Any) -> bool:
        """Whether a value has this shape, with all that is in it."""
        return True

    def check(self, value: Any, at: str = "it") -> None:
        """Raise ValueError, which says where, unless a value has this shape."""
        if not self.fits(value):
            if not at and self.words == "an object":
                raise ValueError("not a JSON object")
            raise ValueError(f"{at or 'it'} is {reprlib.repr(value)}, expected {self.words}")


class Leaf(Shape):
    """What is tested by itself."""

    def __init__(self, words: str, test: Callable[[Any], bool]) -> None:
        self.words, self._test = words, test

    def fits(self, value: Any) -> bool:
        return self._test(value)


def Flag() -> Shape:
    """Return the shape of true and false."""
    return Leaf("true or false", lambda value: isinstance(value, bool))


def Integer(low: int = 0, high: int = 2**63 - 1) -> Shape:
    """Return the shape of whole numbers, both ends included."""

    def test(value: Any) -> bool:
        if type(value) is not int and (not isinstance(value, Integral) or isinstance(value, bool)):
            return False
        return low <= int(value) <= high

    return Leaf(f"a whole number from {low} to {high}", test)


def Number(low: float = -math.inf, high: float = math.inf, *, nan: bool = False) -> Shape:
    """Return the shape of finite numbers, both ends included; ``nan``: and of NaN and the infinities."""

    def test(value: Any) -> bool:
        if type(value) is not float and (not isinstance(value, Real) or isinstance(value, bool)):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return low <= number <= high if math.isfinite(number) else nan

    return Leaf("a finite number" + ("" if low == -math.inf else f" from {low:g} to {high:g}"), test)


def Text(choices: tuple[str, ...] = ()) -> Shape:
    """Return the shape of strings, or of some."""
    if choices:
        return Leaf(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)
    return Leaf("a text", lambda value: isinstance(value, str))


@dataclass(frozen=True)
class Null(Shape):
    """Null, or what has a shape."""

    of: Shape

    def fits(self, value: Any) -> bool:
        return value is None or self.of.fits(value)

    def check(self, value: Any, at: str = "it") -> None:
        if value is not None:
            self.of.check(value, at)


@dataclass(frozen=True)
class Either(Shape):
    """What has one of two shapes."""

    first: Shape
    second: Shape

    def fits(self, value: Any) -> bool:
        return self.first.fits(value) or self.second.fits(value)

    def check(self, value: Any, at: str = "it") -> None:
        if not self.second.fits(value):
            self.first.check(value, at)


@dataclass(frozen=True)
class Choose(Shape):
    """What has the shape that a function finds for it."""

    by: Callable[[Any], Shape]

    def fits(self, value: Any) -> bool:
        return self.by(value).fits(value)

    def check(self, value: Any, at: str = "it") -> None:
        self.by(value).check(value, at)


class _Whole(Shape):
    """What has parts, each with its name or number and the shape it must have."""

    def _parts(self, value: Any) -> Iterator[tuple[Any, Any, Shape]]:
        raise NotImplementedError

    def _itself(self, value: Any) -> bool:
        """Whether a value is right, apart from its parts."""
        return isinstance(value, dict)

    def fits(self, value: Any) -> bool:
        return self._itself(value) and all(shape.fits(item) for _, item, shape in self._parts(value))

    def check(self, value: Any, at: str = "it") -> None:
        if not self._itself(value):
            super().check(value, at)
        for name, item, shape in self._parts(value):
            if not shape.fits(item):  # the place is worked out for what is wrong alone
                where = f"{at}[{name}]" if isinstance(name, int) else f"{at}.{name}" if at else f"{name}"
                if item is _MISSING:
                    raise ValueError(f"{where[:200]!r} is missing")
                if isinstance(shape, _Unknown):
                    raise ValueError(f"{where[:200]} is unknown")
                shape.check(item, where[:200])


@dataclass(frozen=True)
class Items(_Whole):
    """A list whose items have a shape."""

    of: Shape
    least: int = 0
    most: float = math.inf

    @property
    def words(self) -> str:  # type: ignore[override]
        most = "any number" if self.most == math.inf else f"{self.most:g}"
        return f"a list of {self.least} to {most} items"

    def _itself(self, value: Any) -> bool:
        return isinstance(value, list | tuple) and self.least <= len(value) <= self.most

    def _parts(self, value: Any) -> Iterator[tuple[Any, Any, Shape]]:
        return ((i, item, self.of) for i, item in enumerate(value))


@dataclass(frozen=True)
class Names(_Whole):
    """An object whose entries, whatever their names, have a shape."""

    of: Shape
    words = "an object"

    def _parts(self, value: Any) -> Iterator[tuple[Any, Any, Shape]]:
        return ((name, item, self.of) for name, item in value.items())


class _Unknown(Shape):
    """What must not be there."""

    def fits(self, value: Any) -> bool:
        return False


_MISSING, _ANYTHING, _UNKNOWN = object(), Shape(), _Unknown()


@dataclass(frozen=True)
class Record(_Whole):
    """An object with entries that must be there, entries that may, and, of a shape, what else there is."""

    must: Mapping[str, Shape] = field(default_factory=dict)
    may: Mapping[str, Shape] = field(default_factory=dict)
    rest: Shape | None = _ANYTHING
    words = "an object"

    def _parts(self, value: Any) -> Iterator[tuple[Any, Any, Shape]]:
        yield from ((name, _MISSING, _UNKNOWN) for name in self.must if name not in value)
        for name, item in value.items():
            shape = self.must.get(name) or self.may.get(name) or self.rest or _UNKNOWN
            if shape is not _ANYTHING:
                yield name, item, shape


def read(path: str | os.PathLike[str], shape: Shape, *, longest: int = LONGEST) -> Any:
    """Return what stands in a JSON file, in UTF-8, once it has the shape.

    Raises
    ------
    ValueError
        If it has not, or is no JSON, too long or too deep, or holds numbers that are not finite.
    OSError
        If it is no regular file or cannot be read.
    """
    return parse(content(path, longest), shape, f"{os.fspath(path)}")


def content(path: str | os.PathLike[str], longest: int = LONGEST, start: int = 0) -> bytes:
    """Return the bytes of a regular file, from a place on; a ValueError if it has too many, or is no such file."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{os.fspath(path)} is not a regular file")
        file.seek(start)
        text = file.read(max(longest + 1 - start, 0))
    if start + len(text) > longest:
        raise ValueError(f"{os.fspath(path)} has {status.st_size} bytes, at most {longest} are read")
    return text


def parse(text: bytes | str, shape: Shape, what: str, *, nan: bool = False, deepest: int = DEEPEST) -> Any:
    """Return what a JSON text says, once it has the shape; ``nan``: NaN and infinities are numbers, too.

    Raises
    ------
    ValueError
        As of `read`; it begins with ``what``.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, parse_constant=None if nan else _refuse)
        _plain(value, nan, deepest)
        shape.check(value, "")
    except RecursionError:
        raise ValueError(f"{what} is damaged: nested more than {deepest} levels deep") from None
    except ValueError as error:
        raise ValueError(f"{what} is damaged: {error}") from error
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _plain(value: Any, nan: bool, deepest: int) -> None:
    """Refuse what is nested too deep, and numbers that no float can hold."""
    level, depth = [value], 0
    while level:
        if depth > deepest:
            raise ValueError(f"nested more than {deepest} levels deep")
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            elif (kind is float and not nan and not math.isfinite(item)) or (kind is int and item.bit_length() > 1000):
                raise ValueError("a number is too large")
        level, depth = below, depth + 1
