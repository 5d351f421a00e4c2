"""Lines for people on streams as they come: none at all, closed, no terminal, or in an encoding that lacks a sign."""

from __future__ import annotations

import sys
import unicodedata
import warnings
from typing import Any

_PLAIN = {"×": "x", "÷": "/", "·": "*", "–": "-", "—": "-", "−": "-", "─": "-", "±": "+-", "→": "->", "←": "<-"}
_PLAIN |= {"✗": "x", "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt"}


def encodable(text: str, encoding: str | None) -> str:
    """Return a text as an encoding can hold it: signs it lacks in ASCII, other characters as ``\\uXXXX``.

    Examples
    --------
    >>> print(encodable("12.5 % – 3×3, ½, 学", "ascii"), encodable("3×3 – 学", "latin-1"))
    12.5 % - 3x3, 1/2, \\u5b66 3×3 - \\u5b66
    """
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except LookupError:  # a stream that tells of no encoding Python knows takes text as it is
        return text
    except UnicodeEncodeError:
        return "".join(_sign(sign, encoding) for sign in text)
    return text


def _sign(sign: str, encoding: str) -> str:
    for form in (sign, _PLAIN.get(sign, sign), unicodedata.normalize("NFKC", sign).replace("\N{FRACTION SLASH}", "/")):
        try:
            form.encode(encoding)
        except UnicodeEncodeError:
            continue
        return form
    return sign.encode("ascii", "backslashreplace").decode("ascii")


def is_terminal(stream: Any) -> bool:
    """Whether a stream is there, open, and a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def bar(**options: Any) -> Any:
    """Return a bar of tqdm: on a terminal, or as a widget in a notebook that shows such; None elsewhere."""
    if is_terminal(sys.stderr):
        from tqdm import tqdm

        return tqdm(**options)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ipywidgets that are missing
        from tqdm import auto, notebook
    return auto.tqdm(**options) if getattr(notebook, "IProgress", None) is not None else None


def percent(share: float | None) -> str:
    """Return a share as '97.22 %', or a dash."""
    return "–" if share is None else f"{100 * share:.2f} %"


def put_line(text: str, stream: Any) -> None:
    """Print a line, and nothing where there is no stream or it is closed; `stream` needs ``write`` alone.

    Raises
    ------
    OSError
        If the stream cannot be written, as on a full disk.
    """
    if stream is None or getattr(stream, "closed", False):
        return
    stream.write(encodable(text, getattr(stream, "encoding", None)) + "\n")
    if (flush := getattr(stream, "flush", None)) is not None:
        flush()
