"""All runs of a folder on one page, a file that needs no network and no server.

::

    run folders --content--> summaries, details --document--> report.html
"""

import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from fastconv.paths import expand, printable
from fastconv.serialize.files import replacing
from fastconv.train.run import CONFIG, ENV, METRICS, MODEL, RESULT, TEST, find_runs, is_running
from fastconv.viz.report.content import describe, points
from fastconv.viz.report.document import document

__all__ = ["Report"]


class Report:
    """The page of a folder of runs.

    Parameters
    ----------
    root : path-like
        A folder with run folders at any depth, or itself one.
    title : str, optional
        The folder's name if not given.

    Examples
    --------
    ::

        Report("runs").write("report.html")
    """

    def __init__(self, root: str | os.PathLike[str], title: str | None = None) -> None:
        self.root = expand(root)
        self.title = printable(title or f"Runs in {os.path.basename(os.path.realpath(self.root)) or root}")
        self._known: dict[Path, tuple[Any, Any]] = {}  # folder: (state of its files, what they held)
        self._state: Any = None

    def write(self, path: str | os.PathLike[str], reload: float | None = None) -> int | None:
        """Write the page, whole or not at all.

        A second call reads only the runs whose files have changed.

        Parameters
        ----------
        path : path-like
            Replaced if it exists.
        reload : float, optional
            Seconds after which the page loads itself again.

        Returns
        -------
        int or None
            The number of runs; None where neither a file nor the options have changed since the last call and
            nothing was written.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist, or there is no run in it.
        OSError
            If the page cannot be written.
        ImportError
            If plotly is not installed.
        """
        folders = self._folders()
        state = (expand(path), reload, {folder: _files(folder) for folder in folders})
        if state == self._state:
            return None
        entries = [self._entry(folder, files, len(folders)) for folder, files in state[2].items()]
        self._known = {folder: self._known[folder] for folder in folders}
        head = {"title": self.title, "written": datetime.now().astimezone().isoformat(" ", "seconds"), "reload": reload}
        summaries, details = zip(*entries, strict=True)
        text = document(self.title, head, summaries, details)
        with replacing(path) as draft:
            draft.write_text(text, "utf-8", newline="")
        self._state = state
        return len(folders)

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            what = "not a folder" if self.root.exists() else "no such folder"
            raise FileNotFoundError(f"{self.root}: {what}")
        folders = find_runs(self.root)
        if not folders:
            raise FileNotFoundError(
                f"{self.root}: no run in it; looked at all depths for folders with {CONFIG} and {METRICS}, "
                f"as 'fastconv train --out {self.root / 'NAME'}' makes"
            )
        return folders

    def _entry(self, folder: Path, files: Any, runs: int) -> Any:
        state = (files, points(runs))
        if folder not in self._known or self._known[folder][0] != state:
            name = folder.resolve().name if folder == self.root else folder.relative_to(self.root).as_posix()
            self._known[folder] = state, describe(folder, name, runs)
        return self._known[folder][1]


def _files(folder: Path) -> list[Any]:
    """Names, times and sizes of what the page shows of a run, and whether it goes on."""
    found: list[Any] = []
    for name in (CONFIG, ENV, METRICS, RESULT, TEST, MODEL):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((name, status.st_mtime_ns, status.st_size))
    with contextlib.suppress(OSError):
        found.append(is_running(folder))
    return found
