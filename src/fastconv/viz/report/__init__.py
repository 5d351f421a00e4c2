"""All runs of a folder on one page, a file that needs no network and no server.

::

    run folders --content--> summaries, details --document--> report.html
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from fastconv.paths import expand, printable
from fastconv.serialize.files import replacing
from fastconv.train.run import METRICS, Metrics
from fastconv.viz.report.content import describe, points
from fastconv.viz.report.document import document
from fastconv.viz.report.folder import RunsFolder
from fastconv.viz.report.importance import Importance, judged_by

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
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv.train import RunWriter
    >>> from fastconv.viz.report import Report
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name, loss in (("first", 0.5), ("second", 0.4)):
    ...         with RunWriter.start(f"{root}/{name}", {"lr": 0.1}) as run:
    ...             run.write({"kind": "epoch", "epoch": 1, "loss": loss})
    ...             run.finish({"status": "finished"})
    ...     Report(root).write(f"{root}/report.html")  # how many runs it shows
    ...     Path(root, "report.html").read_text("utf-8")[:15]
    2
    '<!doctype html>'
    """

    def __init__(self, root: str | os.PathLike[str], title: str | None = None) -> None:
        self._runs = RunsFolder(root, self._describe, points)
        self._metrics: dict[Path, Metrics] = {}
        self._importance = Importance()
        self.root = self._runs.root
        self.title = title_of(self.root, title)
        self._written: Any = None

    def _describe(self, folder: Path, name: str, most: int) -> Any:
        """Tell a run; of one that goes on what has been read is kept, so that each look reads what is new."""
        metrics = self._metrics.pop(folder, None) or Metrics(folder / METRICS)
        told = describe(folder, name, most, metrics)
        if told[0]["status"] == "running":
            self._metrics[folder] = metrics
        return told

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

        Examples
        --------
        >>> import tempfile
        >>> from fastconv.train import RunWriter
        >>> from fastconv.viz.report import Report
        >>> with tempfile.TemporaryDirectory() as root:
        ...     RunWriter.start(f"{root}/first", {}).close()
        ...     report = Report(root)
        ...     report.write(f"{root}/report.html"), report.write(f"{root}/report.html")  # nothing has changed
        (1, None)
        """
        self._runs.look()
        state = (expand(path), reload, self._runs.version)
        if state == self._written:
            return None
        entries = list(self._runs.entries.values())
        summaries = [{"id": entry.id, **entry.told[0]} for entry in entries]
        head = {
            "title": self.title, "written": now(), "reload": reload, "judged": judged_by(summaries),
            "importance": self._importance(summaries),
        }  # fmt: skip
        text = document(self.title, head, summaries, {entry.id: entry.told[1] for entry in entries})
        with replacing(path) as draft:
            draft.write_text(text, "utf-8", newline="")
        self._written = state
        return len(entries)


def title_of(root: os.PathLike[str], title: str | None = None) -> str:
    """Return the title of a page."""
    return printable(title or f"Runs in {os.path.basename(os.path.realpath(root)) or root}")


def now() -> str:
    """Return the time, as a page says it."""
    return datetime.now().astimezone().isoformat(" ", "seconds")
