"""Locks between processes: taken on an open file, and gone with the process that holds them, whatever ends it.

On POSIX these are the kernel's advisory locks (flock). A run's own file or folder carries its lock where it stays the
same one while the run goes on; where files are replaced, `Lock` takes a small file beside them. The library `filelock`
does neither shared locks of such a file nor a look that writes nothing, which both are needed here.

Windows has no advisory locks: who holds a file's lock keeps others from reading it. There `filelock` locks a small file
beside what is locked, which stays; where readers share a lock, that file is one of SQLite's. Where a file system has no
locks, nothing is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOOKS = 10  # whoever only looks holds the lock for an instant
_PAUSE = 0.01


def take(file: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Take the lock of an open file or folder until it is closed; return False if another holds it.

    On Windows nobody else can read the file meanwhile, and nobody shares it.

    Parameters
    ----------
    file : int
        Descriptor.
    shared : bool
        Whether others may hold it, too, who share it.
    wait : bool
        Whether to wait for it.
    """
    for look in range(1 if wait else _LOOKS):
        if look:
            time.sleep(_PAUSE)
        if _take(file, shared, wait):
            return True
    return False


def _take(file: int, shared: bool, wait: bool) -> bool:
    try:
        if fcntl is None:
            from filelock import lock_descriptor

            return lock_descriptor(file, blocking=wait, poll_interval=_PAUSE)
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _carrier(path: Path) -> Path:
    """Return what carries the lock of a file or folder that stays the same one: itself, where others can read on."""
    if fcntl is not None:
        return path
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


def taken(path: Path) -> bool:
    """Whether a process has a file that is there as `Held`; nothing is written."""
    path.stat()
    try:
        file = os.open(_carrier(path), os.O_RDONLY)
    except FileNotFoundError:  # a file beside it, which nobody needed yet
        return False
    try:
        return not _take(file, shared=True, wait=False)
    finally:
        os.close(file)


class Held:
    """A file that is open, with its lock; or the lock of a folder that is there.

    Parameters
    ----------
    path : Path
    busy : str
        What the error says.
    flags : int
        How to open a file, see `os.open`.

    Raises
    ------
    BlockingIOError
        If another holds it.
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path, busy: str, flags: int = os.O_RDONLY) -> None:
        self._files: list[int] = []
        try:
            carrier = _carrier(path)
            if carrier == path or not path.is_dir():
                self._open(path, flags)
            if carrier != path:
                self._open(carrier, os.O_RDWR | os.O_CREAT)
            if not take(self._files[-1]):
                raise BlockingIOError(busy)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path, flags: int) -> None:
        self._files.append(os.open(path, flags, 0o666))

    @property
    def file(self) -> int:
        """The descriptor of the file."""
        return self._files[0]

    def close(self) -> None:
        """Close the file, and give its lock up."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Lock:
    """The lock of a file that is replaced now and then, or not there yet: a hidden file beside it.

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
        beside = real.with_name(f".{real.name}.lock")
        self.shared = shared
        self._held = (_Flock if fcntl is not None else _Database)(path, beside, f"{path}: {busy}", shared)

    def close(self) -> None:
        """Give the lock up."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Flock:
    """A hidden file that is there while its lock is held."""

    def __init__(self, of: Path, path: Path, busy: str, shared: bool) -> None:
        self._of, self._path, self._shared = of, path, shared
        self._file = self._open()
        while self._file is not None:
            if not take(self._file, shared=shared):
                self._let_go()
                raise BlockingIOError(busy)
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
        if self._file is None:
            return
        # of several readers the last one removes the file
        if (not self._shared or self._alone()) and self._current():
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._let_go()

    def _alone(self) -> bool:
        """Whether no other reader is there: the lock can be had for oneself."""
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


class _Database:
    """A hidden file of SQLite, whose transactions can be shared, too; it stays."""

    def __init__(self, of: Path, path: Path, busy: str, shared: bool) -> None:
        import sqlite3

        from filelock import ReadWriteLock, Timeout

        self._lock: ReadWriteLock | None = None
        try:
            self._lock = ReadWriteLock(path, is_singleton=False)
            (self._lock.acquire_read if shared else self._lock.acquire_write)(blocking=False)
        except Timeout:
            raise BlockingIOError(busy) from None
        except (OSError, ValueError, sqlite3.Error) as error:  # the folder is not there, or takes no file
            if not shared:
                raise OSError(getattr(error, "errno", None) or errno.EACCES, str(error), str(of)) from None

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
