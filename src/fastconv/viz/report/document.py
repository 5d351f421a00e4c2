"""One HTML file that needs nothing else: styles, scripts, plotly.js and the data, all inline.

Nothing in run folders is trusted. Data stand in ``<script type="application/json">`` blocks with every ``<``,
``>``, ``&`` and all that is not ASCII escaped, the scripts put them on the page as text only, and the
page's own policy lets the browser run the two scripts whose digests it names and load nothing from anywhere.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

SCRIPTS = ("base.js", "cards.js", "charts.js", "run.js", "compare.js", "search.js", "main.js")
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)


def document(title: str, head: dict[str, Any], summaries: Sequence[Any], details: Sequence[Any]) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Of the page, plain text.
    head : dict
        About the page as a whole: ``title``, ``written`` and, if it is to reload itself, ``reload`` in seconds.
    summaries, details : sequence of dict
        Of `fastconv.viz.report.content`, in the same order.

    Raises
    ------
    ImportError
        If plotly is not installed.
    """
    plotly, script = plotly_js(), "(() => {\n\"use strict\";\n" + "".join(part(name) for name in SCRIPTS) + "})();\n"
    values = {
        "title": html.escape(title),
        "policy": _POLICY.format(scripts=" ".join(f"'{digest(code)}'" for code in (script, plotly))),
        "style": part("style.css"),
        "data": block("runs", {**head, "runs": summaries}),
        "details": "".join(block(f"run-{i}", detail) for i, detail in enumerate(details)),
        "plotly": block("plotly", plotly),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], part("page.html"))


def block(name: str, value: Any) -> str:
    """Return a data block that no text in it can end."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: lone surrogates, U+2028 and all
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def digest(code: str) -> str:
    """Return the hash source of an inline script for the page's policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii")


def part(name: str) -> str:
    """Return a file of the page's template."""
    return (files("fastconv.viz.report") / "page" / name).read_text("utf-8")


def plotly_js() -> str:
    """Return the source of plotly.js from the plotly package.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError("the report page needs plotly: pip install 'fastconv[report]'") from error
    return str(get_plotlyjs()).replace("\r\n", "\n")
