"""Open every page of the built site as wide as a phone and as a desktop: python scripts/check_site.py FOLDER

A page is wrong where something sticks out on the right that cannot be scrolled to by itself (tables and code may),
where a picture is missing or has no words for those who cannot see it, and where the browser complains. Needs Debian's
``chromium`` and ``pip install playwright``; ends with 1 where a page is wrong.
"""

import shutil
import sys
from pathlib import Path

WIDTHS = (390, 1280)
FAULTS = """() => {
  const wide = document.documentElement.clientWidth + 1;
  const scrolls = (e) => {
    for (; e && e !== document.body; e = e.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX)) return true;
    return false;
  };
  const name = (e) => `<${e.tagName.toLowerCase()}> ${(e.textContent || e.alt || "").trim().slice(0, 40)}`;
  const found = [];
  for (const e of document.querySelectorAll("article *")) {
    const box = e.getBoundingClientRect(), out = Math.ceil(box.right - wide);
    if (box.width && out > 0 && !scrolls(e)) found.push(`sticks out by ${out}: ${name(e)}`);
  }
  for (const e of document.querySelectorAll("article img")) {
    if (!e.complete || !e.naturalWidth) found.push(`no picture: ${e.getAttribute("src")}`);
    if (!e.alt) found.push(`no words for the picture: ${e.getAttribute("src")}`);
  }
  return found.slice(0, 5);
}"""


def main(folder: Path) -> int:
    """Look at all pages of a folder; returns how many are wrong."""
    from playwright.sync_api import sync_playwright

    pages = sorted(p for p in folder.rglob("*.html") if "_modules" not in p.parts)
    wrong = 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in WIDTHS:
            tab = browser.new_page(viewport={"width": width, "height": 900})
            complaints: list[str] = []
            tab.on("console", lambda message, said=complaints: message.type == "error" and said.append(message.text))
            tab.on("pageerror", lambda error, said=complaints: said.append(str(error)))
            for page in pages:
                complaints.clear()
                tab.goto(page.as_uri())
                faults = [*complaints, *tab.evaluate(FAULTS)]
                wrong += bool(faults)
                for fault in faults:
                    print(f"{page.relative_to(folder)}, {width} wide: {fault}")
        browser.close()
    print(f"{len(pages)} pages, {' and '.join(map(str, WIDTHS))} wide: {wrong} wrong")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1], "index.html").is_file():
        sys.exit("usage: python scripts/check_site.py FOLDER, which sphinx-build has made")
    sys.exit(bool(main(Path(sys.argv[1]).resolve())))
