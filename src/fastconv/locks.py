"""Locks between processes: taken on an open file, and gone with the process that holds them, whatever ends it.

These are the kernel's advisory locks (flock). A run's own file or folder carries its lock where it stays the same
one while the run goes on; where files are replaced, `Lock` takes a small file beside them. The library `filelock`
does neither shared locks nor a look that writes nothing, which both are needed here. Where there are no such locks
(Windows; some network file systems) nothing is refused.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # no advisory locks there
    fcntl = None  # type: ignore[assignment]

_LOOKS = 10  # whoever only looks holds a shared lock for an instant
_PAUSE = 0.01


def take(file: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Take the lock of an open file or folder until it is closed; return False if another holds it.

    Parameters
    ----------
    file : int
        Descriptor.
    shared : bool
        Whether others may hold it, too, who share it.
    wait : bool
        Whether to wait for it.
    """
    if fcntl is None:
        return True
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    for last in (*[False] * (_LOOKS - 1), True):
        try:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if last:
                return False
            time.sleep(_PAUSE)
        except OSError:  # a file system without locks
            return True
        else:
            return True
    return False


def taken(path: Path) -> bool:
    """Whether a process holds the lock of a file that is there for itself; nothing is written."""
    if fcntl is None:
        return False
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


@contextlib.contextmanager
def folder(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock of a folder that is there, for a block.

    Raises
    ------
    BlockingIOError
        If another holds it; ``busy`` is what the error says of ``path``.
    """
    if os.name == "nt":  # folders cannot be opened there
        yield
        return
    file = os.open(path, os.O_RDONLY)
    try:
        if not take(file):
            raise BlockingIOError(f"{path}: {busy}")
        yield
    finally:
        os.close(file)


class Lock:
    """The lock of a file that is replaced now and then, or not there yet: a hidden file beside it, while it is held.

    Parameters
    ----------
    path : Path
        What is locked; its folder must be there. A symbolic link is followed.
    busy : str
        What the error says of ``path``.
    shared : bool
        For readers: any number of them, and no writer beside them. Where such a reader may not write, and nobody
        writes, there is no lock.

    Raises
    ------
    BlockingIOError
        If another holds it.
    OSError
        If the folder is not there, or does not take a file.
    """

    def __init__(self, path: Path, busy: str, *, shared: bool = False) -> None:
        real = Path(os.path.realpath(path))
        self._of, self._path = path, real.with_name(f".{real.name}.lock")
        self._shared = shared
        self._file = self._open()
        while self._file is not None:
            if not take(self._file, shared=shared):
                self._let_go()
                raise BlockingIOError(f"{path}: {busy}")
            if self._current():
                break
            self._let_go()  # who had it has removed it
            self._file = self._open()

    def _open(self) -> int | None:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if not self._shared:
                raise OSError(error.errno, error.strerror, str(self._of)) from None
        with contextlib.suppress(OSError):
            return os.open(self._path, os.O_RDONLY)
        return None

    def _current(self) -> bool:
        """Whether the name is still that of the open file."""
        assert self._file is not None
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Give the lock up."""
        if self._file is None:
            return
        # of several readers the last one removes the file; on Windows an open file has to stay
        if os.name != "nt" and (not self._shared or self._alone()) and self._current():
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._let_go()

    def _alone(self) -> bool:
        """Whether no other reader is there: the lock can be had for oneself."""
        assert self._file is not None
        if fcntl is None:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
