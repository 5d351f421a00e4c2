"""A file that is mapped into memory: whether it is still there, and all of it.

A page that the file has no more, because somebody cut it short or the disk failed, would end the process (SIGBUS). Here
a page of zeros takes its place (`_ext.stream`), and `Mapping.check_lost` tells of it after the work: no result made of
such zeros is given to anyone.
"""

from __future__ import annotations

import errno
import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastconv._ext.stream import guard, lost, unguard

if TYPE_CHECKING:
    from pathlib import Path


class Mapping:
    """An open file and its mapping, for as long as the mapping is in use.

    Parameters
    ----------
    path : Path
    file : int
        Its descriptor, which stays open.
    pages : mmap.mmap
        The mapping of the whole file, guarded until it goes.

    Raises
    ------
    OSError
        If a process has too many of them.
    """

    def __init__(self, path: Path, file: int, pages: Any) -> None:
        self.path, self._file, self._nbytes = path, file, len(pages)
        self._guard = guard(memoryview(pages))
        if self._guard < 0:
            raise OSError(errno.EMFILE, "this process maps too many files", str(path))
        self._unguard = weakref.finalize(pages, unguard, self._guard)

    def check_length(self) -> None:
        """Raise ValueError if the file has become shorter."""
        if os.fstat(self._file).st_size < self._nbytes:
            raise self._truncated()

    def check_lost(self) -> None:
        """Raise ValueError if a page was not there when it was used: what was made of it is worth nothing."""
        if lost(self._guard):
            raise self._truncated()

    def check_name(self) -> None:
        """Raise FileNotFoundError if the name is no longer that of the mapped file."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), self.path.stat()):
                return
        raise FileNotFoundError(f"{self.path}: the file was removed or replaced while in use")

    def _truncated(self) -> ValueError:
        return ValueError(f"{self.path}: the file was truncated while in use, or cannot be read any more")

    def close(self) -> None:
        """Give the guard back; the mapping is about to go."""
        self._unguard()
