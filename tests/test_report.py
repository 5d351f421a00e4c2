"""The report page: what is in the file, and what a browser makes of it."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_folders import KINDS, add_model, write_many, write_run

from fastconv.cli import main

pytest.importorskip("plotly", reason="pip install 'fastconv[report]'")

from fastconv.viz.report import Report
from fastconv.viz.report.content import describe, flat, plain, thin
from fastconv.viz.report.document import block
from fastconv.viz.report.filters import filter_sheet

HOSTILE = "<script>alert(1)<\\script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs of every health, one of a hostile name, one damaged."""
    root = tmp_path_factory.mktemp("runs")
    for i, kind in enumerate(KINDS * 2):
        rate, penalty = 10.0 ** (i - 5), (0.0, 1e-4, 1e-2)[i % 3]
        folder = write_run(root / f"{kind}-{i}", kind, seed=i, steps=20, lr=rate, l2=penalty)
        if kind != "exploded":
            add_model(folder, i)
    write_run(root / HOSTILE, seed=50, model="</script><script>alert(3)</script>", lr=7.0)
    write_run(root / "deeper" / "__proto__", seed=51)
    write_run(root / "going-on", seed=52, epochs=1)
    (root / "going-on" / "result.json").unlink()
    (root / "going-on" / "metrics.jsonl").write_text("")
    (write_run(root / "broken") / "config.json").write_text("{nope")
    return root


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    Report(runs).write(path)
    return path


def data(path, name="runs"):
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text("utf-8"), re.S)
    return json.loads(found[1])


class TestFile:
    def test_it_holds_every_run(self, page):
        found = {run["name"]: run["health"] for run in data(page)["runs"]}
        assert len(found) == 12
        for i, kind in enumerate(KINDS * 2):
            assert found[f"{kind}-{i}"] == kind
        assert found[HOSTILE] == found["deeper/__proto__"] == "learning"
        assert (found["going-on"], found["broken"]) == ("unknown", "damaged")

    def test_it_asks_nobody_for_anything(self, page):
        text = re.sub(r'<script type="application/json".*?</script>', "", page.read_text("utf-8"), flags=re.S)
        spoken = re.sub(r"^\s*//.*$", "", text, flags=re.M)  # without comments
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/)[a-z]+\.[a-z]", spoken)
        assert not re.search(r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*\shref=\"(?!data:)|@import|url\(", text)
        assert "default-src 'none'" in text

    def test_plotly_is_in_it_once(self, page):
        assert page.read_text("utf-8").count("* plotly.js v") == 1

    @pytest.mark.parametrize("text", ["</script>", "<!--<script>", "&amp;", "\u2028\u2029", "\udcff", "\x00"])
    def test_nothing_ends_a_data_block(self, text):
        made = block("x", {text: [text]})
        body = made.removeprefix('<script type="application/json" id="x">').removesuffix("</script>\n")
        assert not set(body) & set("<>&\u2028\u2029")
        assert json.loads(body) == {text: [text]}
        made.encode("utf-8")

    def test_figures_that_are_not_finite_become_null(self):
        assert [plain(v) for v in (float("nan"), float("inf"), 10**400, 1, True, 0.123456789)] == [
            None, None, None, 1, True, 0.12346,
        ]  # fmt: skip

    def test_curves_are_thinned_to_what_fits(self):
        assert thin(list(range(1000)), 5) == [0, 249, 499, 749, 999]
        assert thin([1, 2], 5) == [1, 2]

    def test_long_values_are_cut(self):
        assert len(flat({"a": {"b": list(range(1000))}})["a.b"]) < 250

    def test_a_title_is_text(self, runs, tmp_path):
        Report(runs, title="</title><script>x</script>").write(tmp_path / "r.html")
        assert "</title><script>" not in (tmp_path / "r.html").read_text("utf-8")

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("config.json", "[]"),
            ("config.json", '{"options": 3, "classes": 5, "input_shape": "x"}'),
            ("config.json", '{"options": {"lr": {"a": null}}}'),
            ("metrics.jsonl", "x\n"),
            ("metrics.jsonl", '{"loss": "high"}\n'),
            ("metrics.jsonl", '{"kind": "step", "update_ratio": [1], "activations": {"a": 3}}\n'),
            ("metrics.jsonl", '{"epoch": {}, "loss": [1]}\n{"epoch": 2, "loss": 1e999}\n'),
            ("metrics.jsonl", '{"kind": "event", "step": {}, "text": 5}\n'),
            ("result.json", '{"status": 7}'),
            ("env.json", "{"),
            ("model.safetensors", "x" * 50),
        ],
    )
    def test_whatever_a_file_holds_the_page_is_made(self, tmp_path, file, text):
        folder = write_run(tmp_path / "runs" / "a", steps=3)
        (folder / file).write_text(text)
        summary, detail = describe(folder, "a")
        assert summary["name"] == "a"
        json.dumps([summary, detail], allow_nan=False)
        assert Report(tmp_path / "runs").write(tmp_path / "r.html") == 1

    def test_a_second_page_is_written_only_when_something_changed(self, tmp_path):
        root = tmp_path / "runs"
        write_run(root / "a")
        report = Report(root)
        assert report.write(tmp_path / "r.html", reload=5) == 1
        assert report.write(tmp_path / "r.html", reload=5) is None
        with (root / "a" / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "epoch", "epoch": 13, "loss": 0.01, "validation_accuracy": 1.0}\n')
        assert report.write(tmp_path / "r.html", reload=5) == 1
        assert data(tmp_path / "r.html")["runs"][0]["epochs"] == 13
        write_run(root / "b")
        assert report.write(tmp_path / "r.html", reload=5) == 2
        assert data(tmp_path / "r.html")["reload"] == 5
        shutil.rmtree(root / "a")
        assert report.write(tmp_path / "r.html") == 1
        assert data(tmp_path / "r.html")["reload"] is None

    def test_a_failed_write_leaves_the_old_page(self, runs, tmp_path, monkeypatch):
        target = tmp_path / "r.html"
        target.write_text("old")

        def fail(*names):
            raise OSError("no space left")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space"):
            Report(runs).write(target)
        assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
        assert target.read_text() == "old"


class TestFilters:
    def test_they_are_a_png_with_the_weights_contrast(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        import base64
        import io

        import numpy as np

        from fastconv import nn, serialize

        model = nn.Sequential(nn.Conv2d(1, 4, 3))
        model[0].weight.data[...] = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
        serialize.save(model, tmp_path / "m.safetensors")
        sheet = filter_sheet(tmp_path / "m.safetensors")
        picture = np.asarray(image.open(io.BytesIO(base64.b64decode(sheet["uri"].partition(",")[2]))))
        assert picture.shape == (sheet["height"], sheet["width"], 4) == (7, 7, 4)
        expected = np.rint(127.5 + 127.5 * np.linspace(-1, 1, 9)).reshape(3, 3)
        for top in (0, 4):
            for left in (0, 4):
                np.testing.assert_array_equal(picture[top : top + 3, left : left + 3, 0], expected)
        assert picture[3].max() == 0  # transparent between
        assert (sheet["layer"], sheet["shape"], sheet["shown"]) == ("0.weight", [4, 1, 3, 3], "4 of 4")

    def test_a_linear_first_layer_shows_templates_where_the_images_shape_fits(self, tmp_path):
        from fastconv import nn, serialize

        serialize.save(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 10)), tmp_path / "m.safetensors")
        sheet = filter_sheet(tmp_path / "m.safetensors", (3, 4, 4))
        assert sheet["shown"] == "10 of 10"
        assert filter_sheet(tmp_path / "m.safetensors", (1, 4, 4)) is None


class TestCommand:
    def run(self, *args):
        return CliRunner().invoke(main, ["report", *map(str, args)])

    def test_it_says_what_it_wrote(self, runs, tmp_path):
        found = self.run(runs, "-o", tmp_path / "r.html", "--json")
        assert found.exit_code == 0, found.output
        result = json.loads(found.stdout.splitlines()[-1])
        assert result == {"out": str(tmp_path / "r.html"), "runs": 12, "bytes": (tmp_path / "r.html").stat().st_size}

    @pytest.mark.parametrize(
        ("prepare", "words"),
        [
            (lambda root: None, ["no such folder"]),
            (lambda root: root.write_text(""), ["not a folder"]),
            (lambda root: root.mkdir(), ["no run in it", "config.json", "metrics.jsonl", "fastconv train --out"]),
        ],
    )
    def test_a_folder_without_runs_is_one_line(self, tmp_path, prepare, words):
        prepare(tmp_path / "runs")
        found = self.run(tmp_path / "runs", "-o", tmp_path / "r.html")
        assert found.exit_code == 2
        assert len(found.stderr.splitlines()) == 1
        assert all(word in found.stderr for word in [*words, str(tmp_path / "runs")])

    def test_a_page_that_cannot_be_written_is_one_line(self, runs, tmp_path):
        found = self.run(runs, "-o", tmp_path / "missing" / "r.html")
        assert found.exit_code == 2
        assert str(tmp_path / "missing") in found.stderr
        assert len(found.stderr.splitlines()) == 1

    def test_without_plotly_it_names_the_command(self, runs, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
        found = self.run(runs, "-o", tmp_path / "r.html")
        assert found.exit_code == 2
        assert "pip install 'fastconv[report]'" in found.stderr

    def test_watching_writes_again_until_it_is_interrupted(self, tmp_path, monkeypatch):
        write_run(tmp_path / "runs" / "a")
        seen = []

        def sleep(seconds):
            seen.append((seconds, data(tmp_path / "r.html")["reload"], len(data(tmp_path / "r.html")["runs"])))
            if len(seen) == 3:
                raise KeyboardInterrupt
            write_run(tmp_path / "runs" / f"b{len(seen)}")

        monkeypatch.setattr("time.sleep", sleep)
        found = self.run(tmp_path / "runs", "-o", tmp_path / "r.html", "--watch", "1.5")
        assert found.exit_code == 0, found.output
        assert seen == [(1.5, 1.5, 1), (1.5, 1.5, 2), (1.5, 1.5, 3)]
        assert data(tmp_path / "r.html")["reload"] is None


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
    """Open a page; at the end nothing may have been asked of the network, nor complained of."""
    context = browser.new_context()
    context.set_default_timeout(120_000)
    complaints, requests = [], []

    def open_page(path: Path, state: str = "", width: int = 1280):
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append("alert " + dialog.message) or dialog.dismiss())
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri() + state)
        tab.wait_for_selector("body[data-ready]", state="attached")
        return tab

    yield open_page
    context.close()
    assert complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) and ".html" in url for url in requests), requests


def wait_for_charts(tab):
    tab.wait_for_selector("body[data-drawn]", state="attached")


def names(tab):
    return tab.locator("#cards .name").all_text_contents()  # inner text is empty until a card is laid out


class TestBrowser:
    def test_curves_are_drawn_and_coloured_by_health(self, page, opened):
        tab = opened(page)
        assert len(names(tab)) == 12
        assert tab.locator("#cards .curve").count() == 10  # all but the damaged one and the one without an epoch
        for run in data(page)["runs"]:
            card = tab.locator("#cards .card").filter(has=tab.get_by_text(run["name"], exact=True))
            assert run["health"] in card.locator(".health").inner_text()
            if run["health"] in KINDS:
                assert len(card.locator(".validation").get_attribute("d")) > 20
        tint = "e => getComputedStyle(e.querySelector('.curve path')).stroke"
        colours = {kind: tab.locator(f".card[data-run='{kind}-{i}']").evaluate(tint) for i, kind in enumerate(KINDS)}
        assert len(set(colours.values())) == 4

    def test_it_is_sorted_by_accuracy_and_otherwise_when_asked(self, page, opened):
        tab = opened(page)
        accuracy = {run["name"]: run.get("accuracy") for run in data(page)["runs"]}
        figures = [accuracy[name] for name in names(tab)]
        known = [value for value in figures if value is not None]
        assert known == sorted(known, reverse=True)
        assert figures[len(known) :] == [None] * (12 - len(known))
        tab.select_option("#sort", "name")
        assert names(tab)[:4] == [HOSTILE, "broken", "deeper/__proto__", "exploded-2"]
        tab.select_option("#sort", "lr")
        assert names(tab)[0] == "learning-0"

    def test_the_filter_takes_names_health_and_options(self, page, opened):
        tab = opened(page)
        tab.fill("#filter", "slow")
        assert sorted(names(tab)) == ["too slow-1", "too slow-5"]
        tab.fill("#filter", "lr=0.001 l2=")
        assert names(tab) == ["exploded-2"]
        assert "1 of 12" in tab.inner_text("#count")
        tab.fill("#filter", "nothing like it")
        assert names(tab) == []
        tab.fill("#filter", "")
        tab.click("#legend [data-health=learning]")
        assert not any(name.startswith("learning") for name in names(tab))
        assert tab.get_attribute("#legend [data-health=learning]", "aria-pressed") == "false"

    def test_a_click_shows_the_run_in_full(self, page, opened):
        tab = opened(page)
        tab.click(".card[data-run=learning-4]")
        wait_for_charts(tab)
        assert tab.inner_text("#run h2") == "learning-4"
        titles = tab.locator("#run h3").all_inner_texts()
        for title in ("Loss", "Accuracy", "Update ratio: |update| / |weights|", "Gradient norm", "First-layer filters"):
            assert title in titles
        assert "Dead units: share" in titles
        assert tab.locator("#run .scatterlayer .trace").count() > 20
        assert tab.locator("#run img.filters").evaluate("e => e.naturalWidth") > 3
        assert "0.1" in tab.locator("#run table[aria-label=Hyperparameters] tr", has_text="lr").first.inner_text()
        tab.keyboard.press("Escape")
        assert tab.locator("#grid").is_visible()
        assert tab.evaluate("document.activeElement.textContent") == "learning-4"
        tab.go_back()
        assert tab.locator("#run").is_visible()

    def test_a_run_can_be_reached_by_keys_alone(self, page, opened):
        tab = opened(page)
        first = names(tab)[0]
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.className") == "name":
                break
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#run h2")
        assert tab.inner_text("#run h2") == first
        assert tab.evaluate("document.activeElement.tagName") == "H2"

    def test_choosing_a_run_keeps_the_focus_and_the_place(self, page, opened):
        tab = opened(page)
        box = tab.locator("#cards .pick").nth(5)
        box.focus()
        tab.keyboard.press("Space")
        assert box.is_checked()
        assert box.evaluate("e => e === document.activeElement")
        assert "1 run" in tab.inner_text("#tray")
        tab.keyboard.press("Space")
        assert not tab.locator("#tray").is_visible()

    def test_chosen_runs_are_laid_over_each_other(self, page, opened):
        tab = opened(page)
        for name in ("learning-0", "overfitting-3", "learning-4"):
            tab.check(f".card[data-run='{name}'] .pick")
        tab.click("#tray button.main")
        wait_for_charts(tab)
        assert tab.locator("#compare .js-plotly-plot").first.locator(".scatterlayer .trace").count() == 6
        rows = tab.locator("#compare tbody tr:visible th").all_inner_texts()
        assert "lr" in rows
        assert "dataset" not in rows
        tab.check("#compare label.check input")
        assert "dataset" in tab.locator("#compare tbody tr:visible th").all_inner_texts()
        tab.reload()
        assert tab.locator("#compare thead a").count() == 3

    def test_the_search_is_a_scatter_of_rates_and_penalties(self, page, opened):
        tab = opened(page, "#view=search")
        wait_for_charts(tab)
        assert tab.locator("#search .point").count() == 11
        assert tab.evaluate("document.querySelector('#search .chart').layout.xaxis.type") == "log"
        tab.locator("#search .point").first.dispatch_event("mousemove")
        tab.select_option("#axis-y", "seed")
        assert tab.locator("#search thead th").all_inner_texts()[2:4] == ["lr", "seed"]
        tab.locator("#search tbody a").first.click()
        assert tab.locator("#run").is_visible()

    def test_hostile_names_stay_text(self, page, opened):
        tab = opened(page)
        assert HOSTILE in names(tab)
        tab.check("#cards li:has-text('alert(1)') .pick")
        tab.get_by_role("link", name=HOSTILE).click()
        wait_for_charts(tab)
        assert tab.inner_text("#run h2") == HOSTILE
        assert "</script><script>alert(3)</script>" in tab.inner_text("#run table[aria-label=Hyperparameters]")
        tab.click("nav [data-view=compare]")
        wait_for_charts(tab)
        assert tab.locator("#compare thead a").inner_text() == HOSTILE
        assert "<script>" in tab.locator("#compare .legendtext").first.text_content()
        tab.click("nav [data-view=search]")
        wait_for_charts(tab)
        assert tab.locator("img[src=x]").count() == 0

    def test_no_script_but_the_pages_own_runs(self, page, browser):
        with browser.new_page() as tab:
            tab.goto(page.as_uri())
            tab.evaluate(
                "{ const s = document.createElement('script'); s.text = 'window.bad = 1'; document.body.append(s) }"
            )
            assert tab.evaluate("window.bad") is None

    def test_a_damaged_run_says_why(self, page, opened):
        tab = opened(page)
        card = tab.locator(".card[data-run=broken]")
        assert "config.json is damaged" in card.inner_text()
        card.click()
        assert "config.json is damaged" in tab.inner_text("#run")

    @pytest.mark.parametrize("view", ["", "#view=run&run=learning-0", "#view=search", "#view=compare&pick=learning-0"])
    def test_a_narrow_screen_is_enough(self, page, opened, view):
        tab = opened(page, view, width=390)
        if view:
            wait_for_charts(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390

    def test_charts_follow_the_theme(self, page, opened):
        tab = opened(page, "#view=run&run=learning-0")
        fill = "getComputedStyle(document.querySelector('#run .xtick text')).fill"
        wait_for_charts(tab)
        light = tab.evaluate(fill)
        assert tab.locator("#run .js-plotly-plot").count() > 5
        tab.emulate_media(color_scheme="dark")
        tab.wait_for_selector("body:not([data-drawn])", state="attached")
        wait_for_charts(tab)
        assert tab.evaluate(fill) != light

    def test_a_watched_page_loads_itself_again_where_it_was(self, runs, tmp_path, opened):
        Report(runs).write(tmp_path / "r.html", reload=3)
        tab = opened(tmp_path / "r.html", "#filter=slow")
        with tab.expect_navigation():
            pass
        assert sorted(names(tab)) == ["too slow-1", "too slow-5"]
        tab.evaluate("document.getElementById('hold').click(); window.kept = 1")
        tab.wait_for_timeout(4000)
        assert tab.evaluate("window.kept") == 1

    def test_five_hundred_runs_open(self, tmp_path, opened):
        write_many(tmp_path / "runs", 500, epochs=30)
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        tab = opened(tmp_path / "r.html")
        assert tab.locator("#cards .curve .validation").count() == 500
        ready = tab.evaluate("performance.getEntriesByName('ready')[0].startTime")
        print(f"500 runs: ready after {ready:.0f} ms")
        tab.fill("#filter", "trial-499")
        assert names(tab) == ["trial-499"]
        tab.click(".card[data-run=trial-499]")
        wait_for_charts(tab)
