"""Pages for tests, and a Chromium that looks at them; tests that need one are skipped where there is none."""

import shutil
from pathlib import Path

import pytest
from run_folders import write_odd

from fastconv.viz.report import Report


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return write_odd(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    Report(runs).write(path)
    return path


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser driver: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium here")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open a page, a file or an address; at the end nothing may have been asked of others, nor complained of."""
    context = browser.new_context()
    context.set_default_timeout(30_000)
    complaints, strangers = [], []

    def open_page(page: Path | str, state: str = "", width: int = 1280):
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        address = page.as_uri() if isinstance(page, Path) else page

        def asked(request):
            if not request.url.startswith((address, "data:", "blob:")):
                strangers.append(request.url)

        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append("alert " + dialog.message) or dialog.dismiss())
        tab.on("request", asked)
        tab.goto(address + state)
        tab.wait_for_selector("body[data-ready]", state="attached")
        return tab

    yield open_page
    context.close()
    assert complaints == []
    assert strangers == []


def wait_for_charts(tab):
    tab.wait_for_selector("body[data-drawn]", state="attached")


def names(tab):
    return tab.locator("#cards .name").all_text_contents()  # inner text is empty until a card is laid out
