"""Draw the pictures of ``runs_page.md`` into ``docs/pictures``: ``python docs/draw_page.py``.

It trains some nets, searches, and looks at the report page of both (Debian: ``chromium``; ``pip install playwright
pillow``).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent / "pictures"
RATES = ("0.001", "0.01", "0.05", "0.2", "1", "10")


def main() -> None:
    """Draw the cards of six runs, and what a search found."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1180, "height": 760})
        root = Path(folder) / "runs"
        for rate in RATES:
            words = ("train", "--lr", rate, "--epochs", "8", "--out", str(root / f"lr-{rate}"))
            run(*words, code=3 if rate == "10" else 0)  # it explodes
        look(tab, root, "", FOLDER / "page.png")
        tries = Path(folder) / "tries"
        ranges = ("--lr", "1e-4:1", "--l2", "1e-6:1e-1", "--batch-size", "32,64,128")
        run("search", *ranges, "--trials", "40", "--epochs", "3", "--out", str(tries))
        look(tab, tries, "#view=search", FOLDER / "page_search.png")


def run(*words: str, code: int = 0) -> None:
    """Run a command of fastconv."""
    found = subprocess.run([sys.executable, "-m", "fastconv", *words], capture_output=True, text=True, check=False)
    if found.returncode != code:
        raise RuntimeError(f"{' '.join(words)} ended with {found.returncode}: {found.stderr[-500:]}")


def look(tab, root: Path, view: str, picture: Path) -> None:
    """Photograph the report page of a folder of runs."""
    page = root.parent / f"{root.name}.html"
    run("report", str(root), "-o", str(page))
    tab.goto(page.as_uri() + view)
    tab.wait_for_selector("body[data-drawn]", state="attached")
    tab.screenshot(path=picture)
    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    main()
