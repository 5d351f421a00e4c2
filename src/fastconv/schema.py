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
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

LONGEST = 256 << 20
"""Bytes of a file at most."""
DEEPEST = 64
"""Lists and objects within each other at most."""


class Shape:
    """Anything that JSON can say."""

    def words(self) -> str:
        """Say what is expected."""
        return "anything"

    def fits(self, value: Any) -> bool:
        """Whether a value by itself, apart from what is inside it, is right."""
        return True

    def check(self, value: Any, at: str = "it") -> None:
        """Raise ValueError, with the place, unless a value has this shape."""
        if not self.fits(value):
            raise ValueError(f"{at} is {reprlib.repr(value)}, expected {self.words()}")


@dataclass(frozen=True)
class Flag(Shape):
    """True or false."""

    def words(self) -> str:
        return "true or false"

    def fits(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Integer(Shape):
    """A whole number, both ends included."""

    low: int = 0
    high: int = 2**63 - 1

    def words(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def fits(self, value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and self.low <= int(value) <= self.high


@dataclass(frozen=True)
class Number(Shape):
    """A finite number, both ends included; ``nan``: or NaN or an infinity."""

    low: float = -math.inf
    high: float = math.inf
    nan: bool = False

    def words(self) -> str:
        return "a finite number" if self.low == -math.inf else f"a finite number from {self.low:g} to {self.high:g}"

    def fits(self, value: Any) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return self.low <= number <= self.high if math.isfinite(number) else self.nan


@dataclass(frozen=True)
class Text(Shape):
    """A string; one of some, where there are ``choices``."""

    choices: tuple[str, ...] = ()

    def words(self) -> str:
        return f"one of {', '.join(self.choices)}" if self.choices else "a text"

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and (not self.choices or value in self.choices)


@dataclass(frozen=True)
class Null(Shape):
    """Null, or what has a shape."""

    of: Shape

    def check(self, value: Any, at: str = "it") -> None:
        if value is not None:
            self.of.check(value, at)


@dataclass(frozen=True)
class Either(Shape):
    """What has one of two shapes."""

    first: Shape
    second: Shape

    def check(self, value: Any, at: str = "it") -> None:
        try:
            self.first.check(value, at)
        except ValueError as error:
            try:
                self.second.check(value, at)
            except ValueError:
                raise error from None


@dataclass(frozen=True)
class Items(Shape):
    """A list whose items have a shape."""

    of: Shape
    least: int = 0
    most: float = math.inf

    def words(self) -> str:
        if self.least == self.most:
            return f"a list of {self.least} items"
        return f"a list of at least {self.least} items" if self.most == math.inf else f"a list of up to {self.most:g}"

    def fits(self, value: Any) -> bool:
        return isinstance(value, list | tuple) and self.least <= len(value) <= self.most

    def check(self, value: Any, at: str = "it") -> None:
        super().check(value, at)
        for i, item in enumerate(value):
            self.of.check(item, f"{at}[{i}]")


@dataclass(frozen=True)
class Names(Shape):
    """An object whose entries, whatever their names, have a shape."""

    of: Shape

    def words(self) -> str:
        return "an object"

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict)

    def check(self, value: Any, at: str = "it") -> None:
        super().check(value, at)
        for name, item in value.items():
            self.of.check(item, _below(at, name))


@dataclass(frozen=True)
class Record(Shape):
    """An object with entries that must be there, entries that may, and, of a shape, what else there is."""

    must: Mapping[str, Shape] = field(default_factory=dict)
    may: Mapping[str, Shape] = field(default_factory=dict)
    rest: Shape | None = Shape()  # noqa: RUF009

    def words(self) -> str:
        return "an object"

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict)

    def check(self, value: Any, at: str = "it") -> None:
        super().check(value, at)
        for name, shape in self.must.items():
            if name not in value:
                raise ValueError(f"'{_below(at, name)}' is missing")
            shape.check(value[name], _below(at, name))
        for name, item in value.items():
            if name in self.must:
                continue
            among = self.may.get(name, self.rest)
            if among is None:
                raise ValueError(f"{_below(at, name)} is unknown")
            among.check(item, _below(at, name))


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


def content(path: str | os.PathLike[str], longest: int = LONGEST) -> bytes:
    """Return the bytes of a regular file; a ValueError if there are too many, or it is a pipe or a device."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{os.fspath(path)} is not a regular file")
        text = file.read(longest + 1)
    if len(text) > longest:
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
        if isinstance(shape, Record) and not isinstance(value, dict):
            raise ValueError("not a JSON object")
        shape.check(value, "")
    except RecursionError:
        raise ValueError(f"{what} is damaged: nested more than {deepest} levels deep") from None
    except ValueError as error:
        raise ValueError(f"{what} is damaged: {error}") from error
    return value


def _below(at: str, name: Any) -> str:
    return f"{at}.{name}"[:200] if at else f"{name}"[:200]


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
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif (isinstance(item, float) and not nan and not math.isfinite(item)) or (
                isinstance(item, int) and item.bit_length() > 1000
            ):
                raise ValueError("a number is too large")
        level, depth = below, depth + 1
