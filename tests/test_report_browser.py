"""What a browser makes of the report page."""

import json

import pytest
from browsing import browser, names, opened, page, runs, wait_for_charts
from run_folders import HOSTILE, KINDS, told, write, write_many, write_run

from fastconv.viz.report import Report

__all__ = ["browser", "opened", "page", "runs"]  # fixtures


class TestBrowser:
    def test_curves_are_drawn_and_coloured_by_health(self, page, opened):
        tab = opened(page)
        assert len(names(tab)) == 12
        assert tab.locator("#cards .curve").count() == 10  # all but the damaged one and the one without an epoch
        for run in told(page, "runs"):
            card = tab.locator("#cards .card").filter(has=tab.get_by_text(run["name"], exact=True))
            assert run["health"] in card.locator(".health").inner_text()
            if run["health"] in KINDS:
                assert len(card.locator(".validation").get_attribute("d")) > 20
        tint = "e => getComputedStyle(e.querySelector('.curve .validation')).stroke"
        colours = {kind: tab.locator(f".card[data-run='{kind}-{i}']").evaluate(tint) for i, kind in enumerate(KINDS)}
        assert len(set(colours.values())) == 4

    def test_it_is_sorted_by_accuracy_and_otherwise_when_asked(self, page, opened):
        tab = opened(page)
        accuracy = {run["name"]: run["best"].get("accuracy") for run in told(page, "runs")}
        figures = [accuracy[name] for name in names(tab)]
        known = [value for value in figures if value is not None]
        assert known == sorted(known, reverse=True)
        assert figures[len(known) :] == [None] * (12 - len(known))
        tab.select_option("#sort", "name")
        assert names(tab)[:4] == [HOSTILE, "broken", "deeper/__proto__", "exploded-2"]
        tab.select_option("#sort", "option.lr")
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
        assert "lr\n0.1\n" in tab.locator("#run dl[aria-label=Hyperparameters]").inner_text()
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
        assert tab.locator("#search .js-plotly-plot .scatterlayer .point").count() == 11
        assert tab.evaluate("document.querySelector('#search .chart').layout.xaxis.type") == "log"
        tab.locator("#search .point").first.dispatch_event("mousemove")
        tab.select_option("#axis-y", "seed")
        tab.wait_for_function("document.querySelector('#search .ytitle').textContent === 'seed'")
        tab.select_option("#axis-y", "=")
        tab.wait_for_function("document.querySelector('#search .ytitle').textContent === 'accuracy'")

    def test_parallel_coordinates_choose_and_lead_to_runs(self, page, opened):
        tab = opened(page, "#view=search")
        wait_for_charts(tab)
        paths = tab.locator("#search .parallel > svg > path")
        assert paths.count() == 11
        assert tab.locator("#search .parallel .title").last.text_content() == "accuracyaccuracy"
        axis = tab.locator("#search .parallel .hit").last.bounding_box()
        x, top = axis["x"] + axis["width"] / 2, axis["y"]
        tab.mouse.move(x, top + 2)
        tab.mouse.down()
        tab.mouse.move(x, top + 60)
        tab.mouse.up()
        left = tab.locator("#search .parallel > svg > path:not(.out)").count()
        assert 0 < left < 11
        assert f"{left} of 11 runs" in tab.locator("#search [role=status]").inner_text()
        tab.keyboard.press("Escape")
        assert tab.locator("#search .parallel .out").count() == 0
        tab.locator("#search .parallel .hit").last.focus()
        for _ in range(18):
            tab.keyboard.press("ArrowUp")
        best = tab.locator("#search .parallel > svg > path:not(.out)").count()
        assert 0 < best < 11
        tab.keyboard.press("Shift+ArrowDown")
        assert tab.locator("#search .parallel > svg > path:not(.out)").count() < best
        tab.keyboard.press("Escape")
        assert tab.locator("#search .parallel .out").count() == 0
        assert tab.evaluate("document.activeElement.classList.contains('hit')")
        line = tab.evaluate(
            "() => { const path = document.querySelector('.parallel > svg > path:last-of-type');"
            " const at = path.getPointAtLength(path.getTotalLength() * 0.06), area = path.ownerSVGElement"
            ".getBoundingClientRect(); return [area.left + at.x, area.top + at.y]; }"
        )
        tab.mouse.move(*line)
        assert "accuracy" in tab.locator("#search [role=status]").inner_text()
        tab.mouse.click(*line)
        tab.wait_for_selector("#run h2")

    def test_the_importance_of_options_is_told(self, opened, tmp_path):
        pytest.importorskip("sklearn")
        write_many(tmp_path / "runs", 40, epochs=6)
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        tab = opened(tmp_path / "r.html", "#view=search")
        rows = tab.locator("table[aria-label='Importance of hyperparameters'] tr")
        assert rows.first.locator("th").inner_text() == "lr"
        assert rows.count() == 3

    def test_the_table_sorts_by_any_column_both_ways(self, page, opened):
        tab = opened(page, "#view=table")
        runs = tab.locator("#table tbody th")
        assert runs.count() == 12
        head = tab.get_by_role("columnheader", name="lr")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert runs.first.inner_text() == "learning-0"
        assert head.locator("button").evaluate("e => e === document.activeElement")
        tab.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert runs.all_inner_texts()[:3] == ["overfitting-7", "exploded-6", HOSTILE]
        tab.reload()
        tab.wait_for_selector("body[data-ready]", state="attached")
        assert runs.first.inner_text() == "overfitting-7"
        tab.fill("#filter", "overfitting")
        assert runs.all_inner_texts() == ["overfitting-7", "overfitting-3"]
        tab.get_by_role("link", name="overfitting-3").click()
        tab.wait_for_selector("#run h2")
        assert tab.inner_text("#run h2") == "overfitting-3"

    def test_one_run_has_the_page_to_itself(self, opened, tmp_path):
        folder = write_run(tmp_path / "runs" / "alone", steps=10)
        classes = [{"samples": 4, "right": 3, "precision": 1.0, "recall": 0.75},
                   {"samples": 4, "right": 4, "precision": 0.8, "recall": 1.0}]  # fmt: skip
        worst = {"image": "<b>0</b>", "label": 0, "taken": 1, "own": 0.1, "chance": 0.9, "shape": [1, 2, 1]}
        test = {"classes": ["cat", "dog"], "confusion": [[3, 1], [0, 4]], "by_class": classes}
        write(folder / "test.json", {**test, "worst": [{**worst, "pixels": "AP8="}]})
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        tab = opened(tmp_path / "r.html")
        wait_for_charts(tab)
        assert tab.inner_text("#run h2") == "alone"
        assert not tab.locator("nav").is_visible()
        assert tab.locator("table[aria-label=Confusion] td:not(.hit)", has_text="1").count() == 1
        assert tab.locator("table[aria-label=Classes] tbody tr").count() == 2
        assert "cat taken for dog, 90.00 %" in tab.inner_text(".mistakes figcaption")
        assert tab.locator(".mistakes img").evaluate("e => [e.naturalWidth, e.naturalHeight]") == [2, 1]
        assert "Activations: share saturated" not in tab.locator("#run h3").all_inner_texts()
        assert "activations: share saturated" in tab.inner_text("#run")
        tab.keyboard.press("Escape")
        assert tab.locator("#run").is_visible()

    def test_metrics_have_charts_and_are_what_runs_are_judged_by(self, opened, tmp_path):
        for name, top in (("a", 0.5), ("b", 0.9)):
            folder = write_run(tmp_path / "runs" / name, metric="iou")
            rows = [{"epoch": n, "loss": 1 / n, "validation_loss": 2 / n, "validation_iou": top * n / 9,
                     "validation_mae": 3 - top} for n in range(1, 10)]  # fmt: skip
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        tab = opened(tmp_path / "r.html")
        assert names(tab) == ["b", "a"]
        assert tab.locator(".card .figure").all_inner_texts() == ["90.00 %", "50.00 %"]
        tab.select_option("#sort", "best.mae")
        assert names(tab) == ["b", "a"]
        tab.click(".card[data-run=a]")
        tab.wait_for_selector("#run h2")
        wait_for_charts(tab)
        titles = tab.locator("#run h3").all_inner_texts()
        assert titles[:3] == ["Loss", "Iou", "Mae"]
        assert "Accuracy" not in titles
        assert tab.evaluate("[...document.querySelectorAll('#run .chart')].every(e => e.querySelector('.trace'))")

    def test_few_runs_have_large_cards_with_axes(self, page, opened, tmp_path):
        tab = opened(page)
        assert tab.locator("#cards.large .axes").count() == 10
        ticks = tab.locator(".card[data-run=learning-0] .up span").all_inner_texts()
        assert len(ticks) >= 2
        assert all(float(tick) > 0 for tick in ticks)
        assert tab.locator(".card[data-run=learning-0] .along span").all_inner_texts() == ["1", "6", "12"]
        assert tab.locator(".card").first.bounding_box()["width"] > 380
        write_many(tmp_path / "runs", 13, epochs=3)
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        assert opened(tmp_path / "r.html").locator("#cards .axes").count() == 0

    def test_a_run_without_the_figure_of_the_others_shows_one_that_it_has(self, opened, tmp_path):
        for name, row in (("a", {"validation_accuracy": 0.5}), ("b", {}), ("c", {})):
            folder = write_run(tmp_path / "runs" / name, head_lr=None)
            rows = [{"epoch": n, "loss": 2.5 / n, "lr": 0.1, **row} for n in (1, 2)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write(tmp_path / "runs" / "c" / "result.json", {"status": "finished"})
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        tab = opened(tmp_path / "r.html")
        assert names(tab) == ["a", "b", "c"]
        figures = tab.locator(".card .figure").all_inner_texts()
        assert figures[0] == "50.00 %"
        assert figures[1].startswith("test accuracy 9")
        assert figures[2] == "training loss 1.25"
        tab.click(".card[data-run=a]")
        tab.wait_for_selector("#run h2")
        wait_for_charts(tab)
        assert "Learning rate" not in tab.locator("#run h3").all_inner_texts()  # it is constant

    def test_the_theme_can_be_chosen(self, page, opened):
        tab = opened(page, "#view=run&run=learning-0")
        wait_for_charts(tab)
        ground = "getComputedStyle(document.body).backgroundColor"
        fill = "getComputedStyle(document.querySelector('#run .xtick text')).fill"
        light, ink = tab.evaluate(ground), tab.evaluate(fill)
        for word in ("light", "dark"):
            tab.click("#theme")
            assert word in tab.inner_text("#theme")
        tab.wait_for_function(f"{fill} !== {json.dumps(ink)}")
        assert tab.evaluate(ground) != light
        tab.emulate_media(color_scheme="light")
        assert tab.evaluate(ground) != light
        tab.reload()
        tab.wait_for_selector("body[data-ready]", state="attached")
        assert tab.evaluate(ground) != light

    def test_the_focus_is_seen_and_goes_through_the_page_in_order(self, page, opened):
        tab = opened(page)
        what = "(e => e.id || e.dataset.view || e.dataset.health || e.className)(document.activeElement)"
        seen = []
        for _ in range(14):
            tab.keyboard.press("Tab")
            seen.append(tab.evaluate(what))
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert seen[:9] == ["grid", "table", "search", "compare", "theme", "filter", "sort", "own", "learning"]

    def test_hostile_names_stay_text(self, page, opened):
        tab = opened(page)
        assert HOSTILE in names(tab)
        tab.check("#cards li:has-text('alert(1)') .pick")
        tab.get_by_role("link", name=HOSTILE).click()
        wait_for_charts(tab)
        assert tab.inner_text("#run h2") == HOSTILE
        assert "</script><script>alert(3)</script>" in tab.inner_text("#run dl[aria-label=Hyperparameters]")
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

    @pytest.mark.parametrize(
        "view", ["", "#view=run&run=learning-0", "#view=table", "#view=search", "#view=compare&pick=learning-0"]
    )
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
