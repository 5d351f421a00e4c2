"""Whose turn it is: layers keep their buffers and what backward needs, so a net runs for one thread at a time.

A turn is for a set of modules, not for a model, since models may share some. It is taken for all of them at once or
waited for, first come, first served, and may be taken again by the thread that has it. It lies here, by identity,
rather than in the modules: copies and pickles know nothing of it.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_changed = threading.Condition()
_owners: dict[int, tuple[int, int]] = {}  # module to the thread whose turn it is, and how often it took it
_waiting: list[tuple[int, frozenset[int]]] = []  # thread and the modules it waits for, in order of coming


@contextmanager
def turn(modules: Sequence[Any]) -> Iterator[None]:
    """Keep other threads from running these modules inside the block; waits until none of them does."""
    me, keys = threading.get_ident(), [id(module) for module in modules]
    with _changed:
        if _owners or _waiting:
            _wait(me, keys)
        for key in keys:
            _owners[key] = (me, _owners.get(key, (me, 0))[1] + 1)
    try:
        yield
    finally:
        with _changed:
            for key in keys:
                times = _owners.pop(key)[1] - 1
                if times:
                    _owners[key] = (me, times)
            _changed.notify_all()


def _taken(me: int, keys: list[int]) -> bool:
    return any(key in _owners and _owners[key][0] != me for key in keys)


def _wait(me: int, keys: list[int]) -> None:
    """Wait until the modules are free and nobody who came before waits for one of them."""
    holds = any(owner == me for owner, _ in _owners.values())  # then those before may wait for this thread
    if not _taken(me, keys) and (holds or not _waiting):
        return
    ticket = (me, frozenset(keys))
    _waiting.append(ticket)
    try:
        while _taken(me, keys) or not (holds or _is_first(ticket)):
            _changed.wait()
    finally:
        _waiting.remove(ticket)
        _changed.notify_all()


def _is_first(ticket: tuple[int, frozenset[int]]) -> bool:
    before = _waiting[: _waiting.index(ticket)]
    return all(ticket[1].isdisjoint(keys) for _, keys in before)


def _forget() -> None:
    """Begin anew in a forked process, which has none of the threads that may have had a turn."""
    global _changed
    _changed = threading.Condition()
    _owners.clear()
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
