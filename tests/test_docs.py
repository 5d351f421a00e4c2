"""The snippets of the documentation run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [page for page in FILES if "```python" in page.read_text("utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_snippets_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    for package in ("sklearn", "matplotlib", "optuna"):
        pytest.importorskip(package)
    text = page.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        line = text.count("\n", 0, found.start()) + 1
        exec(compile("\n" * line + found[1], str(page), "exec"), names)
    assert names
