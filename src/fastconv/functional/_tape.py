"""Kernel calls that are written down as they happen, to be made again without the checks before them.

A layer meets the same arrays in every step: its own buffers, those of its neighbours, its parameters. What the
boundary checks and looks up for them comes out the same each time, so the layer has the calls of the first time
recorded, and repeats them as long as every argument is the very same object. An operation that does anything but
call kernels (a copy of an array in another layout) spoils the tape: it is checked and done anew each time.
Scratch memory is asked for while a call runs, never recorded.

In a rehearsal kernels are not run: they only say how much scratch memory they need. That is how a plan is made.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastconv.functional._scratch import put_back, scratch, scratch_nbytes, set_aside

Kernel = Callable[..., Any]
Call = tuple[Kernel, tuple[Any, ...]]


class _State(threading.local):
    tape: list[Call] | None = None
    rehearsing: bool = False


_state = _State()


def recordable(kernel: Kernel, composed: bool = False) -> Kernel:
    """Return the kernel, writing itself down while a tape runs.

    One that is `composed` of other recordable kernels is written down as a whole.
    """

    def call(*args: Any) -> Any:
        tape = _state.tape
        if tape is None and not _state.rehearsing:
            return kernel(*args)
        if tape is not None:
            tape.append((kernel, args))
        run = _rehearse(kernel) if _state.rehearsing and not composed else kernel
        _state.tape = None
        try:
            return run(*args)
        finally:
            _state.tape = tape

    return call


class _Asked(Exception):
    """Ends a rehearsed kernel once it has asked for its scratch memory."""


def _ask(nbytes: int, slot: str = "kernel") -> None:
    scratch(nbytes, slot)
    raise _Asked


def _rehearse(kernel: Kernel) -> Kernel:
    def run(*args: Any) -> None:
        if any(a is scratch for a in args):
            with suppress(_Asked):
                kernel(*(_ask if a is scratch else a for a in args))

    return run


def spoil() -> None:
    """Say that the running operation cannot be repeated by its kernel calls alone."""
    _state.tape = None


def record(operation: Callable[..., Any], *args: Any) -> tuple[Any, list[Call] | None]:
    """Return operation(*args) and its kernel calls, None if there was more to it."""
    _state.tape = []
    try:
        return operation(*args), _state.tape
    finally:
        _state.tape = None


@contextmanager
def rehearsal() -> Iterator[Callable[[], int]]:
    """Run no kernel inside; yields a function that returns the bytes of scratch memory asked for so far."""
    arenas, _state.rehearsing = set_aside(), True
    try:
        yield scratch_nbytes
    finally:
        _state.rehearsing = False
        put_back(arenas)
