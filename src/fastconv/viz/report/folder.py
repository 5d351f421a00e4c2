"""A folder of runs that is looked at again and again: only what has changed is read."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv.paths import expand
from fastconv.train.run import CONFIG, ENV, METRICS, MODEL, RESULT, TEST, find_runs, is_running


@dataclass
class Entry:
    """A run as it was last read.

    Attributes
    ----------
    id : int
        Its number, the same as long as it is there.
    name : str
        What the page calls it.
    version : int
        That of the look which read it.
    told : Any
        What was made of it.
    """

    id: int
    name: str
    version: int
    told: Any
    state: Any


class RunsFolder:
    """All runs below a folder, or the one that it is.

    Parameters
    ----------
    root : path-like
    tell : callable
        ``tell(folder, name, share)`` makes of a run what is wanted of it.
    share : callable
        ``share(runs)`` is what ``tell`` has to know of how many runs there are; another one tells all runs again.

    Attributes
    ----------
    version : int
        Counts the looks that found something new.
    entries : dict of Path to Entry
    gone : dict of int to int
        Of each run that has been there, its number, and the version that missed it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        tell: Callable[[Path, str, Any], Any],
        share: Callable[[int], Any] = lambda runs: None,
    ) -> None:
        self.root = expand(root)
        self.version = 0
        self.entries: dict[Path, Entry] = {}
        self.gone: dict[int, int] = {}
        self._tell, self._share = tell, share
        self._ids = 0

    def look(self) -> bool:
        """Read runs that are new or have changed; return whether there were any, or some are gone.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist, or there is no run in it (any more).
        """
        there = self.root.is_dir()
        folders = find_runs(self.root) if there else []
        share, version = self._share(len(folders)), self.version + 1
        found: dict[Path, Entry] = {}
        for folder in folders:
            state, entry = (files_of(folder), share), self.entries.get(folder)
            if entry is None or entry.state != state:
                name = folder.resolve().name if folder == self.root else folder.relative_to(self.root).as_posix()
                if entry is None:
                    self._ids += 1
                number = self._ids if entry is None else entry.id
                entry = Entry(number, name, version, self._tell(folder, name, share), state)
            found[folder] = entry
        missing = [entry.id for folder, entry in self.entries.items() if folder not in found]
        self.gone |= dict.fromkeys(missing, version)
        self.entries = found
        news = bool(missing) or any(entry.version == version for entry in found.values())
        self.version += news
        if not there:
            what = "not a folder" if self.root.exists() else "no such folder"
            raise FileNotFoundError(f"{self.root}: {what}")
        if not found:
            raise FileNotFoundError(
                f"{self.root}: no run in it; looked at all depths for folders with {CONFIG} and {METRICS}, "
                f"as 'fastconv train --out {self.root / 'NAME'}' makes"
            )
        return news


def files_of(folder: Path) -> list[Any]:
    """Names, times and sizes of what is shown of a run, and whether it goes on."""
    found: list[Any] = []
    for name in (CONFIG, ENV, METRICS, RESULT, TEST, MODEL):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((name, status.st_mtime_ns, status.st_size))
    if not any(entry[0] == RESULT for entry in found):
        with contextlib.suppress(OSError):
            found.append(is_running(folder))
    return found
