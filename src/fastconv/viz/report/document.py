"""One HTML file that needs nothing else: styles, scripts, plotly.js and the data, all inline.

Nothing in run folders is trusted. The scripts put it on the page as text only, and the page's own policy lets the
browser run the two scripts whose digests it names and load nothing from anywhere. What is long stands compressed in
blocks of base64; the small rest is JSON with every ``<``, ``>``, ``&`` and all that is not ASCII escaped.
"""

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

SCRIPTS = (
    "base.js", "theme.js", "source.js", "state.js", "keep.js", "charts.js", "curves.js", "cards.js", "table.js",
    "layers.js", "test.js", "run.js", "compare.js", "parallel.js", "search.js", "live.js", "main.js",
)  # fmt: skip
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; connect-src {hosts}; "
    "form-action 'none'; base-uri 'none'"
)


def document(
    title: str, head: dict[str, Any], summaries: Sequence[Any] | None = None, details: dict[int, Any] | None = None
) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Of the page, plain text.
    head : dict
        About the page as a whole: ``title``, ``written``, ``importance`` and, if it is to reload itself, ``reload`` in
        seconds; or ``live``, seconds between two looks, of a page that asks its server for all the rest.
    summaries : sequence of dict, optional
        Of `fastconv.viz.report.content`, each with its ``id``; without, the page is a live one.
    details : dict, optional
        Likewise, by the ids.
    """
    blocks = [block("page", head)]
    if summaries is not None:
        texts = {"runs": compact(summaries), "details": compact(details), "plotly": plotly_js()}
        blocks += [packed(name, text) for name, text in texts.items()]
    values = {
        "title": html.escape(title), "policy": policy(live=summaries is None), "style": part("style.css"),
        "data": "".join(blocks), "script": script(),
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], part("page.html"))


def policy(live: bool) -> str:
    """Return what the page lets the browser do: only a live one may ask, and nobody but its own server."""
    scripts = " ".join(f"'{digest(code)}'" for code in (script(), plotly_js()))
    return _POLICY.format(scripts=scripts, hosts="'self'" if live else "'none'")


@cache
def script() -> str:
    """Return the page's own script."""
    return "(() => {\n\"use strict\";\n" + "".join(part(name) for name in SCRIPTS) + "})();\n"


def compact(value: Any) -> str:
    """Return JSON in ASCII, lone surrogates, U+2028 and all escaped."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def block(name: str, value: Any) -> str:
    """Return a data block that no text in it can end."""
    text = compact(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def packed(name: str, text: str) -> str:
    """Return a data block of a text that a browser has to inflate."""
    body = base64.b64encode(zlib.compress(text.encode("utf-8"), 9)).decode("ascii")
    return f'<script type="text/plain" id="{name}">{body}</script>\n'


def digest(code: str) -> str:
    """Return the hash source of an inline script for the page's policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")


def part(name: str) -> str:
    """Return a file of the page's template."""
    return (files("fastconv.viz.report") / "page" / name).read_text("utf-8")


@cache
def plotly_js() -> str:
    """Return the source of plotly.js, its basic bundle."""
    return (files("fastconv.viz.report") / "plotly" / "plotly-basic.min.js").read_text("utf-8")
