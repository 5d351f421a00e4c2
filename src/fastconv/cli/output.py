"""Standard output and error as commands see them, so that no command need care what they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from fastconv.terminal import encodable, is_terminal


class OutputLost(click.ClickException):
    """Standard output cannot take what a command prints."""


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


class Output:
    """A standard stream that takes any text.

    What its encoding lacks is written in ASCII. A stream that is not there, or closed, swallows everything, and so does
    standard error once it cannot be written: a command is not ended by what it says beside its result. It shows no
    ``buffer``: click would write UTF-8 into one whose encoding is ASCII.
    """

    def __init__(self, stream: Any, result: bool) -> None:
        self._stream, self._result = None if getattr(stream, "closed", False) else stream, result
        self._lost: Exception | None = None

    def write(self, text: str | bytes) -> int:
        """Write a text; as bytes, in UTF-8, click gives what a shell asks to complete words with.

        No bytes at all are refused: click tells by them a stream of bytes, which it would encode for by itself.
        """
        if isinstance(text, bytes):
            if not text:
                raise TypeError("write() argument must be str, not bytes")
            text = text.decode()
        self._try(lambda stream: stream.write(encodable(text, self.encoding)))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return is_terminal(self._stream)

    @property
    def encoding(self) -> str:
        """Of the stream; UTF-8 where it tells of none."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        if name in ("_stream", "buffer"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _try(self, what: Callable[[Any], object]) -> None:
        try:
            if self._stream is not None:
                what(self._stream)
        except (OSError, ValueError) as error:  # a ValueError: closed in the meantime
            stream, self._stream = self._stream, None
            _drain(stream)
            if isinstance(error, BrokenPipeError):
                self._lost = OutputClosed()
            else:
                self._lost = OutputLost(f"standard output: {getattr(error, 'strerror', None) or error}")
        if self._lost is not None and self._result:
            raise self._lost


@contextmanager
def standard_streams() -> Iterator[None]:
    """Put an `Output` in the place of standard output and of standard error."""
    _fill_places()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Output(sys.stdout, result=True), Output(sys.stderr, result=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_places() -> None:
    """Open what is closed of the three standard descriptors, or the next file would become one of them."""
    for place in range(3):
        try:
            os.fstat(place)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _drain(stream: Any) -> None:
    """Let what is left in a stream's buffer go nowhere, or the interpreter complains of it at its end."""
    try:
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (AttributeError, OSError, ValueError):
        return
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
