"""The report page: what is in the file."""

import base64
import hashlib
import io
import json
import math
import os
import re
import shutil
import sys

import numpy as np
import pytest
from browsing import page, runs
from click.testing import CliRunner
from run_folders import HOSTILE, KINDS, block_of, told, write_many, write_run

from fastconv import nn, serialize
from fastconv.cli import main
from fastconv.viz.report import Report
from fastconv.viz.report.content import describe, flat, plain, thin
from fastconv.viz.report.document import block
from fastconv.viz.report.filters import filter_sheet
from fastconv.viz.report.importance import Importance, importance, judged_by

__all__ = ["page", "runs"]  # fixtures

PLOTLY = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"


class TestFile:
    def test_it_holds_every_run(self, page):
        found = {run["name"]: run["health"] for run in told(page, "runs")}
        assert len(found) == 12
        for i, kind in enumerate(KINDS * 2):
            assert found[f"{kind}-{i}"] == kind
        assert found[HOSTILE] == found["deeper/__proto__"] == "learning"
        assert (found["going-on"], found["broken"]) == ("unknown", "damaged")

    def test_it_asks_nobody_for_anything(self, page):
        text = re.sub(r'<script type="[a-z/]+".*?</script>', "", page.read_text("utf-8"), flags=re.S)
        spoken = re.sub(r"^\s*//.*$", "", text, flags=re.M)  # without comments
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/)[a-z]+\.[a-z]", spoken)
        assert not re.search(r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*\shref=\"(?!data:)|@import|url\(", text)
        assert "default-src 'none'" in text
        assert "connect-src 'none'" in text

    def test_plotly_is_in_it_as_it_was_published(self, page):
        """The file of the npm package plotly.js-basic-dist-min 4.1.1."""
        text = block_of(page, "plotly")
        assert hashlib.sha256(text.encode()).hexdigest() == PLOTLY
        assert "* plotly.js (basic - minified) v4.1.1" in text

    def test_five_hundred_runs_are_a_page_of_less_than_two_megabytes(self, tmp_path):
        write_many(tmp_path / "runs", 500, epochs=30, steps=30)
        Report(tmp_path / "runs").write(tmp_path / "r.html")
        assert (tmp_path / "r.html").stat().st_size < 2_000_000
        assert len(told(tmp_path / "r.html", "details")) == 500

    def test_layers_that_are_numbers_say_their_type(self, tmp_path):
        folder = write_run(tmp_path / "a", steps=3)
        _, detail = describe(folder, "a")
        assert list(detail["activations"]["mean"]) == ["1 ReLU", "4 ReLU", "6 ReLU"]
        assert list(detail["grad_norm"]) == ["0.weight", "0.bias", "3.weight", "3.bias", "7.weight", "7.bias"]
        watch = {"8": {"layer": "Conv2d", "mean": 0.0}, "body.conv1": {"layer": "Conv2d", "mean": 0.0}}
        norms = {"8.weight": 1.0, "body.conv1.weight": 2.0, "8.part.weight": 3.0}
        with (folder / "metrics.jsonl").open("a") as file:
            print(json.dumps({"kind": "step", "step": 4, "activations": watch, "grad_norm": norms}), file=file)
        _, detail = describe(folder, "a")
        assert list(detail["grad_norm"])[6:] == ["8 Conv2d weight", "body.conv1.weight", "8.part.weight"]
        assert list(detail["activations"]["mean"])[3:] == ["8 Conv2d", "body.conv1"]

    def test_a_run_of_train_watch_names_its_layers(self, tmp_path):
        words = ["train", "--dataset", "digits", "--epochs", "1", "--watch-every", "40", "--out", tmp_path / "a"]
        assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
        _, detail = describe(tmp_path / "a", "a")
        assert list(detail["activations"]["mean"])[:3] == ["0 Conv2d", "1 Bias", "2 ReLU"]
        assert next(iter(detail["update_ratio"])) == detail["filters"]["layer"] == "0 Conv2d weight"

    def test_figures_of_any_name_are_kept_with_their_kind(self, tmp_path):
        folder = write_run(tmp_path / "a", metric="iou")
        seen = {"validation_mae": 2.0, "validation_iou": 0.5, "validation_r2": None}
        rows = [{"epoch": n, "loss": 1 / n, "validation_loss": 2 / n, **seen} for n in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary, detail = describe(folder, "a")
        assert summary["kinds"] == {"loss": "lower", "mae": "lower", "iou": "share", "r2": ""}
        assert summary["best"] == {"loss": 1.0, "mae": 2.0, "iou": 0.5, "r2": None}
        assert detail["epochs"]["validation_mae"] == [2.0, 2.0]
        assert judged_by([summary]) == "iou"

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
        assert told(tmp_path / "r.html", "runs")[0]["epochs"] == 13
        write_run(root / "b")
        assert report.write(tmp_path / "r.html", reload=5) == 2
        assert told(tmp_path / "r.html")["reload"] == 5
        shutil.rmtree(root / "a")
        assert report.write(tmp_path / "r.html") == 1
        assert told(tmp_path / "r.html")["reload"] is None

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


class TestImportance:
    def runs(self, count, figure):
        rng = np.random.default_rng(3)
        drawn = [{"lr": 10.0 ** rng.uniform(-5, 0), "l2": rng.uniform(), "optimizer": "sgd"} for _ in range(count)]
        return [{"options": options, "best": {"accuracy": figure(options)}} for options in drawn]

    def test_the_option_that_decides_has_nearly_all_of_it(self):
        found = importance(self.runs(60, lambda options: 0.9 - 0.1 * abs(math.log10(options["lr"]) + 2)))
        assert found["figure"] == "accuracy"
        assert found["runs"] == 60
        assert found["explained"] > 0.8
        assert [key for key, _ in found["options"]] == ["lr", "l2"]
        assert found["options"][0][1] > 0.95
        assert sum(share for _, share in found["options"]) == pytest.approx(1)

    def test_noise_is_foreseen_by_nothing(self):
        found = importance(self.runs(60, lambda options: hash(options["lr"]) % 97 / 97))
        assert found["explained"] < 0.2

    @pytest.mark.parametrize(
        "runs",
        [
            [],
            [{"options": {"lr": i}, "best": {"loss": i}} for i in range(11)],  # too few
            [{"options": {"lr": i}, "best": {"loss": 2.0}} for i in range(30)],  # all the same
            [{"options": {"lr": 1}, "best": {"loss": i}} for i in range(30)],  # nothing differs
            [{"options": {"name": f"run {i}"}, "best": {"loss": i}} for i in range(30)],  # words that all differ
            [{"options": {"lr": i}, "best": {"loss": None}} for i in range(30)],
        ],
    )
    def test_where_nothing_can_be_told_nothing_is(self, runs):
        assert importance(runs) is None

    def test_without_scikit_learn_it_names_the_command(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
        assert importance(self.runs(20, lambda options: options["l2"])) == {"missing": "pip install 'fastconv[demo]'"}


class TestFilters:
    def test_they_are_a_png_with_the_weights_contrast(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
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

    def test_watching_writes_again_until_it_is_interrupted(self, tmp_path, monkeypatch):
        write_run(tmp_path / "runs" / "a")
        seen = []

        def sleep(seconds):
            seen.append((seconds, told(tmp_path / "r.html")["reload"], len(told(tmp_path / "r.html", "runs"))))
            if len(seen) == 3:
                raise KeyboardInterrupt
            write_run(tmp_path / "runs" / f"b{len(seen)}")

        monkeypatch.setattr("time.sleep", sleep)
        found = self.run(tmp_path / "runs", "-o", tmp_path / "r.html", "--watch", "1.5")
        assert found.exit_code == 0, found.output
        assert seen == [(1.5, 1.5, 1), (1.5, 1.5, 2), (1.5, 1.5, 3)]
        assert told(tmp_path / "r.html")["reload"] is None


def test_importances_are_worked_out_again_only_where_they_may_be_others(monkeypatch):
    calls = []
    monkeypatch.setattr("fastconv.viz.report.importance.importance", lambda summaries: calls.append(1) or len(calls))
    weigh, runs = Importance(), [{"options": {"lr": 0.1}, "best": {"loss": 0.5}, "judged_by": None, "curve": [1]}]
    assert [weigh(runs), weigh([{**runs[0], "curve": [1, 2]}]), weigh([*runs, runs[0]])] == [1, 1, 2]
    assert weigh([{**runs[0], "best": {"loss": 0.4}}]) == 3


def test_a_page_that_is_watched_reads_what_is_new_of_a_run(tmp_path, monkeypatch):
    from fastconv.train import RunWriter, run

    parsed = []
    real = run.parse
    monkeypatch.setattr(run, "parse", lambda line, *rest: parsed.append(line) or real(line, *rest))
    report = Report(tmp_path / "runs")
    with RunWriter.start(tmp_path / "runs" / "a", {"options": {"lr": 0.1}}) as writer:
        for epoch in range(1, 6):
            writer.write({"kind": "epoch", "epoch": epoch, "steps": epoch, "loss": 1 / epoch, "seconds": 1.0})
            assert report.write(tmp_path / "page.html") == 1
            assert len(parsed) == epoch
            [detail] = told(tmp_path / "page.html", "details").values()
            assert detail["epochs"]["epoch"] == list(range(1, epoch + 1))
        metrics = tmp_path / "runs" / "a" / "metrics.jsonl"
        first, *_ = metrics.read_bytes().splitlines(keepends=True)
        metrics.write_bytes(first + first.replace(b'"epoch": 1', b'"epoch": 2'))  # as a run that is resumed takes back
        assert report.write(tmp_path / "page.html") == 1
        [detail] = told(tmp_path / "page.html", "details").values()
        assert detail["epochs"]["epoch"] == [1, 2]
