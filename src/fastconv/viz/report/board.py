"""The live page of a folder of runs: a WSGI application that reads, answers one reader, and writes nothing.

::

    GET /TOKEN/              the page, whose scripts ask for the rest
        /TOKEN/runs?since=V  summaries of runs that are newer than version V, and numbers of those that are gone
        /TOKEN/detail/ID     all of a run
        /TOKEN/importance    which options matter
        /TOKEN/plotly.js     the library of charts

A request must name the server's own host: a page of another site that has its name lead here (DNS rebinding) cannot.
Who does not know the token gets 404 for everything.
"""

import gzip
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import parse_qs

from fastconv.viz.report import title_of
from fastconv.viz.report.content import describe, summarize
from fastconv.viz.report.document import compact, document, plotly_js, policy
from fastconv.viz.report.folder import Entry, RunsFolder, files_of
from fastconv.viz.report.importance import importance, judged_by

__all__ = ["Board"]

Headers = list[tuple[str, str]]

_PAUSE = 4  # times as long as a look takes no other one is taken
_REST = 20  # likewise for importances, which take seconds
_SMALL = 1000  # bytes that are not worth compressing


class Board:
    """The application (PEP 3333).

    Parameters
    ----------
    root : path-like
        A folder with run folders at any depth, perhaps none yet.
    token : str, optional
        First part of all addresses; drawn by chance if not given.
    title : str, optional
        The folder's name if not given.
    every : float
        Seconds between two looks.

    Attributes
    ----------
    token : str
    hosts : collection of str
        What a request's Host header may be, as "127.0.0.1:8000"; none at first, so that nobody is answered.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        token: str | None = None,
        title: str | None = None,
        every: float = 2.0,
    ) -> None:
        self._runs = RunsFolder(root, summarize)
        if not self._runs.root.is_dir():
            raise NotADirectoryError(f"{self._runs.root}: no such folder")
        self.token = token or secrets.token_urlsafe(24)
        self.hosts: Collection[str] = ()
        self._every = every
        self._looking, self._weighing = threading.Lock(), threading.Lock()
        self._next_look = self._next_weighing = 0.0
        self._problem: str | None = None
        self._weighed: Any = None
        title = title_of(self._runs.root, title)
        head = {"title": title, "live": every, "reload": None}
        self._page = document(title, head).encode("utf-8")
        self._policy = policy(live=True) + "; frame-ancestors 'none'"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, status, kind, body = environ["REQUEST_METHOD"], "200 OK", "text/plain", b""
        tag: str | None = None
        if environ.get("HTTP_HOST") not in self.hosts:
            status, body = "421 Misdirected Request", b"this is not the host that you look for\n"
        elif (path := self._behind_token(environ["PATH_INFO"])) is None:
            status, body = "404 Not Found", b"nothing here; the address that 'fastconv board' has printed leads on\n"
        elif method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"this page can only be read\n"
        else:
            found = self._answer(path, environ.get("QUERY_STRING", ""), environ.get("HTTP_IF_NONE_MATCH"))
            status, kind, body, tag = found or ("404 Not Found", "text/plain", b"no such run\n", None)
        headers: Headers = [
            ("Content-Security-Policy", self._policy),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"), ("Cache-Control", "no-cache" if tag else "no-store"),
            ("Vary", "Accept-Encoding"),
        ]  # fmt: skip
        if tag:
            headers.append(("ETag", tag))
        if status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        if len(body) > _SMALL and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
            body = gzip.compress(body, 5, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        if not status.startswith("304"):
            headers += [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [] if method == "HEAD" else [body]

    def _behind_token(self, path: str) -> str | None:
        """Return what follows "/TOKEN/"; the time this takes does not tell how much of a wrong token is right."""
        token, slash, rest = path.removeprefix("/").partition("/")
        right = secrets.compare_digest(token.encode("utf-8", "surrogateescape"), self.token.encode())
        return rest if right and slash else None

    def _answer(self, path: str, query: str, seen: str | None) -> tuple[str, str, bytes, str | None] | None:
        """Return status, content type, body and tag."""
        if path == "":
            return _tagged("text/html", self._page, seen)
        if path == "plotly.js":
            return _tagged("text/javascript", plotly_js().encode("utf-8"), seen)
        if path == "runs":
            return _json(self._news(_whole(parse_qs(query).get("since", ["0"])[0])))
        if path == "importance":
            return _json(self._importance())
        kind, _, number = path.partition("/")
        return self._detail(_whole(number), seen) if kind == "detail" else None

    def _look(self) -> tuple[list[Entry], int, dict[int, int], str | None]:
        """Read what is new, unless somebody has just done so; return runs, version, who is gone, and what fails."""
        with self._looking:
            started = time.monotonic()
            if started >= self._next_look:
                try:
                    self._runs.look()
                    self._problem = None
                except OSError as error:  # no run yet, or a folder that may come back
                    self._problem = str(error)
                ended = time.monotonic()
                self._next_look = ended + max(self._every / 2, _PAUSE * (ended - started))
            return list(self._runs.entries.values()), self._runs.version, dict(self._runs.gone), self._problem

    def _news(self, since: int) -> dict[str, Any]:
        entries, version, gone, problem = self._look()
        told = [{"id": entry.id, **entry.told} for entry in entries if entry.version > since]
        return {
            "version": version, "runs": told, "gone": [number for number, at in gone.items() if at > since],
            "judged": judged_by([entry.told for entry in entries]), "problem": problem,
        }  # fmt: skip

    def _detail(self, number: int, seen: str | None) -> tuple[str, str, bytes, str | None] | None:
        with self._looking:
            found = next(((f, e) for f, e in self._runs.entries.items() if e.id == number), None)
        if found is None:
            return None
        folder, entry = found
        tag = _tag(repr(files_of(folder)).encode("utf-8", "surrogateescape"))
        if tag == seen:
            return "304 Not Modified", "application/json", b"", tag
        return "200 OK", "application/json", compact(describe(folder, entry.name)[1]).encode("ascii"), tag

    def _importance(self) -> Any:
        entries = self._look()[0]
        with self._weighing:
            started = time.monotonic()
            if started >= self._next_weighing:
                self._weighed = importance([entry.told for entry in entries])
                ended = time.monotonic()
                self._next_weighing = ended + _REST * (ended - started)
            return self._weighed


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _tagged(kind: str, body: bytes, seen: str | None) -> tuple[str, str, bytes, str | None]:
    tag = _tag(body)
    return ("304 Not Modified", kind, b"", tag) if tag == seen else ("200 OK", kind, body, tag)


def _json(value: Any) -> tuple[str, str, bytes, str | None]:
    return "200 OK", "application/json", compact(value).encode("ascii"), None
