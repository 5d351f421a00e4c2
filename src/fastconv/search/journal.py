"""A search's journal file: Optuna's format, with lines that are whole, or are not there.

Whoever is killed in the middle of a line leaves a part of it, and so does a full disk: Optuna would take the next line
for its end, and the journal for damaged. Here the part is cut off under the lock before the next line is written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from fastconv import locks
from fastconv.serialize.files import Room

_ROOM = 64 << 10  # bytes kept for the last lines, by which a search on a full disk comes to an orderly end
_TAIL = 1 << 16  # bytes to look at for the end of a line


class _Lock(JournalFileOpenLock):
    """A lock that the kernel gives back when its holder dies, whatever kills it.

    Optuna's own locks are files; one left by a killed worker would stop all others for half a minute.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path + ".lock"
        self._file: int | None = None

    def acquire(self) -> bool:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locks.take(file, wait=True)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)


class Journal(JournalFileBackend):
    """A journal file that is there.

    Raises
    ------
    OSError
        From its methods, where the file was removed, replaced or cut short meanwhile, or the disk is full.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, _Lock(path))
        self._path = path
        self._first = os.stat(path)
        self._size = 0
        self._room: Room | None = None

    def read_logs(self, log_number_from: int) -> Any:
        """Return an iterator over the records from a number on."""
        self._look()
        yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records, all or none."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        if self._room is None:
            self._room = Room(os.path.dirname(os.path.abspath(self._path)), _ROOM)
        self._lock.acquire()
        try:
            self._look()
            try:
                self._append(text)
            except OSError:
                self._room.close()
                self._append(text)
        finally:
            self._lock.release()

    def _append(self, text: bytes) -> None:
        file = os.open(self._path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            end = _end_of_lines(file)
            os.ftruncate(file, end)
            os.lseek(file, end, os.SEEK_SET)
            try:
                while text:
                    text = text[os.write(file, text) :]
                os.fsync(file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, end)
                raise OSError(error.errno, error.strerror, self._path) from None
            self._size = os.fstat(file).st_size
        finally:
            os.close(file)

    def _look(self) -> None:
        """Raise OSError unless the file is the one that was opened, and as long as it was."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            raise OSError(errno.ENOENT, "removed while the search goes on", self._path) from None
        if not os.path.samestat(now, self._first):
            raise OSError(errno.ENOENT, "replaced by another while the search goes on", self._path)
        if now.st_size < self._size:
            raise OSError(errno.EIO, "cut short while the search goes on", self._path)


def _end_of_lines(file: int) -> int:
    """Return the offset behind the last whole line."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - _TAIL)
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
