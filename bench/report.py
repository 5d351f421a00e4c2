"""How long the report page takes to open, in a headless Chromium: made-up runs, one page, several cold starts.

"ready" is counted from the start of the navigation to the second frame after all cards are drawn: the page is on the
screen and answers. "loaded" is when the browser has read the whole file. "a run" is from a click on a card to the last
of its charts, the first time, when plotly.js is inflated and started. "ready, cpu" is the processor time of the page's
main thread up to then, which other processes on the machine do not lengthen.

    python bench/report.py --runs 500

needs Debian's chromium and pip install 'fastconv[browser]'.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from playwright.sync_api import Browser, sync_playwright
from run_folders import write_many

from fastconv.viz.report import Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="of each run (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="watched steps of each run (default: %(default)s)")
    parser.add_argument("--times", type=int, default=5, help="browsers started (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        parser.error("no chromium here")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        root, page = Path(folder) / "runs", Path(folder) / "report.html"
        write_many(root, args.runs, epochs=args.epochs, steps=args.steps)
        started = time.perf_counter()
        Report(root).write(page)
        written = time.perf_counter() - started
        found: list[dict[str, float]] = []
        for _ in range(args.times):
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            found.append(opening(browser, page, args.runs))
            browser.close()
        version, size = os.popen(f"{chromium} --version 2>/dev/null").read().strip(), page.stat().st_size
    print(f"{args.runs} runs of {args.epochs} epochs and {args.steps} watched steps: {size / 1e6:.1f} MB")
    print(f"written in {written:.2f} s; {version}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    figures: dict[str, Any] = {}
    for key in found[0]:
        times = [one[key] for one in found]
        figures[key] = {"median": statistics.median(times), "lowest": min(times), "highest": max(times)}
        print(f"{key:<10} {statistics.median(times):6.2f} s   ({min(times):.2f} to {max(times):.2f})")
    if args.json:
        args.json.write_text(json.dumps({"runs": args.runs, "bytes": size, "written": written, **figures}, indent=2))


def opening(browser: Browser, page: Path, runs: int) -> dict[str, float]:
    """Open the page, check that all curves are there, click the first card; return seconds."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(120_000)
    meter = tab.context.new_cdp_session(tab)
    meter.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(page.as_uri(), wait_until="commit")
    tab.wait_for_selector("body[data-ready]", state="attached")
    metrics = {entry["name"]: entry["value"] for entry in meter.send("Performance.getMetrics")["metrics"]}
    tab.wait_for_load_state("load")
    assert tab.locator("#cards .curve .validation").count() == runs
    ready = tab.evaluate("performance.getEntriesByName('ready')[0].startTime")
    loaded = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    started = time.perf_counter()
    tab.locator("#cards .name").first.click()
    tab.wait_for_selector("#run:has(h2)", state="attached")
    tab.wait_for_selector("body:not([data-drawn='0'])[data-drawn]", state="attached")
    busy = metrics["TaskDuration"]
    return {"ready": ready / 1e3, "ready, cpu": busy, "loaded": loaded / 1e3, "a run": time.perf_counter() - started}


if __name__ == "__main__":
    main()
