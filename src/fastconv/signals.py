"""What asks a process to end, SIGINT (Ctrl-C) and SIGTERM, taken note of until a good moment to do so."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

_ENDING = (signal.SIGINT, signal.SIGTERM)


class EndRequest:
    """Takes note of the first such signal and answers it; a second one raises KeyboardInterrupt.

    Parameters
    ----------
    answer : callable
        From the signal's name to the line to be said; called in the signal handler.

    Attributes
    ----------
    number : int or None
        The signal that has come.
    """

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.number: int | None = None
        self._answer = answer
        self._former: dict[int, Any] = {}
        self._holds, self._again = 0, False

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def listen(self) -> None:
        """Take the place of the handlers that are there; in another thread than the main one nothing is noted.

        A handler that was not set from Python could not be put back and keeps its place.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _ENDING:
            if number not in self._former and (handler := signal.getsignal(number)) is not None:
                self._former[number] = handler
                signal.signal(number, self._come)

    def close(self) -> None:
        """Put the former handlers back, where nobody has set another meanwhile."""
        while self._former:
            number, handler = self._former.popitem()
            if signal.getsignal(number) == self._come:
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put off the interruption by a second signal to the end of a block that would not survive it."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._again and not self._holds:
                self._again = False
                raise KeyboardInterrupt

    def _come(self, number: int, frame: Any) -> None:
        if number not in self._former:  # nobody looks at it any more
            raise KeyboardInterrupt
        if self.number is not None:
            self._again = bool(self._holds)
            if self._holds:
                return
            raise KeyboardInterrupt
        self.number = number
        say(self._answer(signal.Signals(number).name))


def say(text: str) -> None:
    """Print a line on standard error from a signal handler: its buffer may be in use at this very moment.

    Nothing is said where that is no file: what an object of any kind does with it is not for a signal handler.
    """
    with suppress(AttributeError, OSError, ValueError):  # none, closed, or no file
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        os.write(sys.stderr.fileno(), f"{text}\n".encode(encoding, "backslashreplace"))
