"""Keeps the files that make a folder a run there while the run goes on: whole lines, under their names, with room."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from pathlib import Path

from fastconv import locks
from fastconv.serialize.files import Room, replacing
from fastconv.train.run import CONFIG, ENV, METRICS

_SMALL = 64 << 10  # bytes of everything but weights


def open_locked(path: Path) -> locks.Held:
    """Open metrics.jsonl to append to it, as the only one.

    Raises
    ------
    BlockingIOError
        If another process writes this run.
    """
    no_link, no_text = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | no_link | no_text
    return locks.Held(path, f"{path.parent}: another process is at this run", flags)


class Keeper:
    """The folder of a run that this process writes.

    Parameters
    ----------
    folder : Path
    held : Held
        metrics.jsonl as `open_locked` gave it.
    room : Room, optional
        Given up for lines that the disk would not take otherwise, so that the run can come to an orderly end.

    Attributes
    ----------
    full : OSError or None
        Why the room was given up.
    """

    def __init__(self, folder: Path, held: locks.Held, room: Room | None = None) -> None:
        self.folder, self.room = folder, room
        self.full: OSError | None = None
        self._held, self._file = held, held.file
        self._end = os.fstat(self._file).st_size
        self.remember()

    def remember(self) -> None:
        """Take note of what config.json and env.json hold."""
        files = (self.folder / name for name in (CONFIG, ENV))
        self._texts = {path.name: path.read_bytes() for path in files if path.is_file()}

    def append(self, line: bytes) -> None:
        """Add a line, whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self.look()
        try:
            self._append(line)
        except OSError as error:
            if self.room is None:
                raise
            self.full = error
            self.release()
            self._append(line)

    def _append(self, line: bytes) -> None:
        end, rest = self._end, line
        try:
            while rest:  # a full disk may take only a part
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, end)
            raise OSError(error.errno, error.strerror, str(self.folder / METRICS)) from None
        self._end = end + len(line)

    def cut(self, end: int) -> None:
        """Forget all lines from an offset on."""
        os.ftruncate(self._file, end)
        self._end = end

    def look(self) -> None:
        """Write again what somebody has removed, and say so.

        Raises
        ------
        OSError
            If it cannot be written, or another run has taken the place.
        """
        missing = [name for name in self._texts if not (self.folder / name).is_file()]
        if not self._has_name():
            missing.append(METRICS)
        if missing:
            self._restore(missing)
            text = f"{self.folder}: {' and '.join(missing)} removed while the run goes on, and written again"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        size = os.fstat(self._file).st_size
        if size < self._end:
            text = f"{self.folder / METRICS}: {self._end - size} bytes of records were cut off while the run goes on"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
            kept = self._read(size)
            self.cut(kept.rfind(b"\n") + 1)

    def _has_name(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._file), (self.folder / METRICS).stat())
        return False

    def _restore(self, missing: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            if name in self._texts:
                with replacing(self.folder / name, follow=False) as draft:
                    draft.write_bytes(self._texts[name])
        if METRICS in missing:
            held = open_locked(self.folder / METRICS)
            if os.fstat(held.file).st_size:
                held.close()
                text = "replaced by another while the run goes on"
                raise OSError(errno.EEXIST, text, str(self.folder / METRICS))
            lines = self._read(self._end)
            self._held.close()
            self._held, self._file, self._end = held, held.file, 0
            self._append(lines)

    def _read(self, size: int) -> bytes:
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            return file.read(size)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._file)

    def release(self) -> None:
        """Give the room up, for what it was kept for."""
        if self.room is not None:
            self.room.close()
            self.room = None

    def close(self) -> None:
        """Give up lock and room."""
        self.release()
        self._held.close()


def room_of(nbytes: int) -> int:
    """Return the bytes that a run writes whose model takes so many.

    It once at the end, and before in a checkpoint with the best weights and two arrays of an optimiser each.
    """
    return 5 * nbytes + _SMALL
