"""Runs of `fastconv deep` and `fastconv mlp` as folders: what stands in them, how they go on, what they refuse."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.choices import SCHEDULES
from fastconv.cli import main
from fastconv.deep import Paths, Record
from fastconv.train import read_record, state_sha256
from fastconv.train.run import load_run
from fastconv.train.setup import schedule_of
from fastconv.train.step_folder import StepFolder, take_up
from fastconv.train.tally import Tally
from fastconv.train.writer import RunWriter

pytest.importorskip("sklearn")  # holds the digits

DEEP = ("deep", "train", "--dataset", "digits", "--layers", "60", "--report-every", "20", "--threads", "1")
MLP = ("mlp", "train", "--dataset", "digits", "--hidden", "6", "--batch-size", "32",
       "--report-every", "20", "--threads", "1")  # fmt: skip
EACH = {"deep": 89, "mlp": 44}  # steps of an epoch


def ran(*words, code=0):
    found = CliRunner().invoke(main, [str(word) for word in words], prog_name="fastconv")
    assert found.exit_code == code, (words, found.output, found.exception)
    return found.output


def refused(*words):
    said = ran(*words, code=2)
    assert said.count("\n") == 1, said
    return said


def bits(folder, command):
    if command == "mlp":
        return state_sha256(load_run(folder).model)
    return [path.read_bytes() for path in (folder / "deep.bin", folder / "deep.bin.head")]


@pytest.mark.parametrize(("command", "words"), [("deep", DEEP), ("mlp", MLP)])
def test_a_run_in_parts_is_that_at_once(command, words, tmp_path):
    ran(*words, "--steps", 200, "--out", tmp_path / "whole")
    ran(*words, "--steps", 70, "--out", tmp_path / "parts")
    half = read_record(tmp_path / "parts")
    assert half.history[-1]["steps"] == 70
    assert half.history[-1]["batches"] == 70 % EACH[command]
    ran(command, "train", "--resume", "--out", tmp_path / "parts", "--steps", 130, "--report-every", 20)
    assert bits(tmp_path / "whole", command) == bits(tmp_path / "parts", command)
    whole, parts = read_record(tmp_path / "whole"), read_record(tmp_path / "parts")
    assert (whole.status, whole.step) == (parts.status, parts.step) == ("finished", 200)
    assert whole.steps == parts.steps
    assert [step["step"] for step in whole.steps] == [1, *range(20, 201, 20)]
    for name in ("epoch", "steps", "lr", "accuracy", "batches"):
        assert whole.history[name] == parts.history[name], name
    np.testing.assert_allclose(whole.history["loss"], parts.history["loss"], rtol=1e-14)
    assert whole.history["steps"] == [*range(EACH[command], 200, EACH[command]), 200]
    assert whole.config == parts.config


SCHEDULED = {"deep": ("lr", 0.01), "mlp": ("lr", 0.05)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("command", "words"), [("deep", DEEP), ("mlp", MLP)])
def test_an_interrupted_run_goes_on_with_the_rates_of_its_schedule(command, words, schedule, tmp_path, monkeypatch):
    asked = ("--steps", 60, "--schedule", schedule)
    ran(*words, *asked, "--out", tmp_path / "whole")
    own = StepFolder.step

    def ends(folder, report):
        own(folder, report)
        if report.step == 25:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StepFolder, "step", ends)
    ran(*words, *asked, "--out", tmp_path / "parts", code=130)
    monkeypatch.undo()
    half = read_record(tmp_path / "parts")
    assert half.step in (25, 26)
    ran(command, "train", "--resume", "--out", tmp_path / "parts", "--report-every", 20)
    whole, parts = read_record(tmp_path / "whole"), read_record(tmp_path / "parts")
    assert bits(tmp_path / "whole", command) == bits(tmp_path / "parts", command)
    assert whole.steps == parts.steps
    assert whole.config == parts.config
    assert whole.config["options"]["schedule"] == schedule
    name, rate = SCHEDULED[command]
    rates = schedule_of(schedule, 60)
    assert [step[name] for step in whole.steps] == [rate * rates(step["step"] - 1) for step in whole.steps]
    if schedule != "constant":
        assert len({step[name] for step in whole.steps}) > 1


@pytest.mark.parametrize(("command", "words"), [("deep", DEEP), ("mlp", MLP)])
def test_what_a_schedule_cannot_be_is_refused(command, words, tmp_path):
    net = tmp_path / "net"
    assert "--schedule cosine goes over a whole run" in refused(*words, "--schedule", "cosine", "--weights", net)
    assert not list(tmp_path.iterdir())
    said = refused(*words, "--schedule", "polynomial", "--weights", net)
    assert "unknown schedule 'polynomial'; known are constant" in said
    run = tmp_path / "run"
    ran(*words, "--steps", 20, "--schedule", "step", "--out", run)
    again = (command, "train", "--resume", "--out", run)
    assert "has --schedule step, which ends with step 20: another length" in refused(*again, "--steps", 5)
    assert "has --schedule step, not cosine" in refused(*again, "--schedule", "cosine", "--steps", 5)
    assert read_record(run).step == 20


def test_a_schedule_begins_where_its_run_does(tmp_path):
    """A net that has had steps before gets a schedule's first rate in the first step of a run of its own."""
    net, run = tmp_path / "net", tmp_path / "run"
    for words in (DEEP, MLP):
        ran(*words, "--steps", 7, "--weights", net)
        ran(*words, "--steps", 10, "--weights", net, "--out", run, "--schedule", "inverse", "--report-every", 1)
        record = read_record(run)
        rate = SCHEDULED[words[0]][1]
        assert [step["lr"] for step in record.steps] == [rate * schedule_of("inverse", 10)(k) for k in range(10)]
        assert (record.config["first"], record.config["steps"]) == (7, 17)
        for path in (*tmp_path.glob("net*"), *run.iterdir()):
            path.unlink()
        run.rmdir()


def test_the_command_line_lists_every_schedule():
    for command in ("deep", "mlp"):
        shown = ran(command, "train", "--help")
        assert all(name in shown for name in SCHEDULES)


def test_an_epochs_record_is_the_mean_of_its_steps(tmp_path):
    ran(*MLP, "--report-every", 1, "--epochs", 2, "--out", tmp_path / "run")
    record = read_record(tmp_path / "run")
    losses = [step["loss"] for step in record.steps]
    assert len(losses) == 88
    for epoch in range(2):
        np.testing.assert_allclose(record.history[epoch]["loss"], np.mean(losses[44 * epoch : 44 * epoch + 44]))
        right = np.mean([step["accuracy"] for step in record.steps[44 * epoch : 44 * epoch + 44]])
        np.testing.assert_allclose(record.history[epoch]["accuracy"], right)
        assert "batches" not in record.history[epoch]


def test_such_runs_stand_in_runs_plot_and_report(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    ran(*DEEP, "--steps", 95, "--out", tmp_path / "d")
    ran(*MLP, "--epochs", 2, "--out", tmp_path / "m")
    listed = ran("runs", "list", tmp_path)
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["d", "m"]
    assert listed.count("digits") == 2
    told = json.loads(ran("runs", "list", tmp_path, "--json"))["runs"]
    assert [(run["options"]["model"], run["epochs"], run["asked"]) for run in told] == [("deep", 2, 2), ("mlp", 2, 2)]
    shown = ran("runs", "show", tmp_path / "d")
    assert "net.weights deep.bin" in shown
    assert "95 steps, 2 epochs of 2" in shown
    tested = ran("eval", tmp_path / "m")
    assert f"test accuracy  {100 * told[1]['test_accuracy']:.2f} %" in tested
    assert read_record(tmp_path / "m").result["state_sha256"] in tested
    assert "'fastconv deep eval --out" in refused("eval", tmp_path / "d")
    found = json.loads(ran("deep", "eval", "--out", tmp_path / "d", "--json").splitlines()[-1])
    assert read_record(tmp_path / "d").result["test_loss"] == found["test_loss"]
    ran("plot", tmp_path / "m", tmp_path / "d")
    assert {"curves.png", "confusion.png", "mistakes.png"} <= set(os.listdir(tmp_path / "m" / "plots"))
    assert "curves.png" in os.listdir(tmp_path / "d" / "plots")
    page = tmp_path / "page.html"
    ran("report", tmp_path, "--out", page)
    assert page.stat().st_size > 10_000


def test_weights_elsewhere_stay_there_and_have_to_be_named(tmp_path):
    """A folder from somewhere shall not make its reader train a file of their own."""
    net, run = tmp_path / "nets" / "big.bin", tmp_path / "run"
    net.parent.mkdir()
    ran(*DEEP, "--steps", 3, "--out", run, "--weights", net)
    assert not [path for path in run.iterdir() if path.name.startswith(("deep", "big"))]
    assert read_record(run).config["net"]["weights"] == str(net)
    assert f"give --weights {net}" in refused("deep", "train", "--resume", "--out", run, "--steps", 2)
    assert f"give --weights {net}" in refused("deep", "eval", "--out", run)
    assert "give --weights" in refused("deep", "eval", "--out", run, "--weights", tmp_path / "other")
    ran("deep", "train", "--resume", "--out", run, "--weights", net, "--steps", 2)
    assert read_record(run).step == Record.read(Paths.of(net).record).step == 5
    ran("deep", "train", "--dataset", "digits", "--weights", net, "--resume", "--steps", 1)  # beside the run
    assert "has changed since step 5" in refused("deep", "eval", "--out", run, "--weights", net)
    ran("deep", "train", "--dataset", "digits", "--weights", net, "--resume", "--steps", 1, "--out", tmp_path / "new")
    assert read_record(tmp_path / "new").history["steps"] == [7]


@pytest.mark.parametrize("name", ["../net.bin", "a/net.bin", "/etc/passwd", "link"])
def test_a_config_leads_to_no_other_file(name, tmp_path):
    run = tmp_path / "run"
    ran(*MLP, "--steps", 3, "--out", run)
    (tmp_path / "net.bin").write_bytes((run / "mlp.safetensors").read_bytes())
    (run / "link").symlink_to(tmp_path / "net.bin")
    config = json.loads((run / "config.json").read_text())
    config["net"]["weights"] = name
    (run / "config.json").write_text(json.dumps(config))
    before = (tmp_path / "net.bin").read_bytes()
    assert "give --weights" in refused("mlp", "train", "--resume", "--out", run, "--steps", 1)
    assert (tmp_path / "net.bin").read_bytes() == before


def test_what_is_refused_leaves_everything_as_it_was(tmp_path):
    run = tmp_path / "run"
    ran(*DEEP, "--steps", 9, "--out", run)
    ran(*MLP, "--steps", 9, "--out", tmp_path / "mlp")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = ("deep", "train", "--resume", "--out", run)
    for words, text in (
        (again, "has had all its 9 steps; --steps N or --epochs N"),
        ((*again, "--steps", 2, "--layer-lr", 0.5), "has --layer-lr 0.01, not 0.5: a resumed run keeps its options"),
        ((*again, "--steps", 2, "--batch", 5), "has --batch-size 16, not 5"),
        ((*again, "--steps", 2, "--dataset", "mnist"), "has --dataset digits, not mnist"),
        ((*DEEP, "--out", run), "is there already and not an empty folder"),
        ((*MLP, "--resume", "--out", run), "is not of 'fastconv mlp train'"),
        ((*DEEP, "--resume", "--out", tmp_path / "none"), "is not the folder of a run"),
        ((*MLP, "--resume"), "--resume goes on with the run in a folder: --out DIR"),
        (("train", "--resume", run), f"'fastconv deep train --resume --out {run}' goes on with this run"),
        (("train", "--resume", tmp_path / "mlp"), "'fastconv mlp train --resume"),
        ((*DEEP, "--out", tmp_path / "new", "--weights", tmp_path / "no" / "net"), "there is no folder"),
        ((*MLP, "--out", tmp_path / "new", "--weights", tmp_path / "no" / "net"), "there is no folder"),
        ((*MLP, "--out", tmp_path / "new", "--batch", 5000), "there are 1437 training images"),
        ((*DEEP, "--out", tmp_path / "new", "--batch", 5000), "the number of training samples"),
    ):
        assert text in refused(*words), words
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "rates"),
    [((*DEEP, "--activation", "relu"), ("--layer-lr", "1e30", "--head-lr", "1e30")), (MLP, ("--lr", "1e30"))],
)
def test_a_run_that_diverges_says_so(words, rates, tmp_path):
    ran(*words, *rates, "--steps", 30, "--out", tmp_path / "run", code=3)
    record = read_record(tmp_path / "run")
    assert record.status == "diverged"
    assert "loss is" in record.result["reason"]
    assert "has diverged and would again" in refused(*words[:2], "--resume", "--out", tmp_path / "run", "--steps", 1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(("command", "words"), [("deep", DEEP), ("mlp", MLP)])
def test_a_run_that_is_ended_goes_on_to_the_same_bits(command, words, how, tmp_path):
    mode = ("--in-memory", "--save-every", "30") if command == "deep" else ()
    long = (*words, *mode, "--steps", 1500)
    process = subprocess.Popen([sys.executable, "-m", "fastconv", *map(str, long), "--out", tmp_path / "run"])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (tmp_path / "run" / "metrics.jsonl").is_file() and read_record(tmp_path / "run").step >= 40:
            break
        time.sleep(0.01)
    process.send_signal(how)
    code = process.wait(60)
    if code == 0:
        pytest.skip("it was over before the signal")
    assert code == (128 + how if how == signal.SIGTERM else -how)
    record = read_record(tmp_path / "run")
    assert record.status == ("interrupted" if how == signal.SIGTERM else "killed")
    assert 40 <= record.step < 1500
    assert record.config["steps"] == 1500
    ran(command, "train", "--resume", "--out", tmp_path / "run", *mode)
    ran(*long, "--out", tmp_path / "whole")
    assert bits(tmp_path / "run", command) == bits(tmp_path / "whole", command)
    record = read_record(tmp_path / "run")
    assert (record.status, record.step) == ("finished", 1500)
    assert record.history["epoch"] == read_record(tmp_path / "whole").history["epoch"]


class Told:
    """A step with a loss and an accuracy."""

    def __init__(self, step, loss, right):
        self.step, self.loss, self.accuracy, self.seconds = step, loss, right / 4, 0.001


@settings(max_examples=40, deadline=None)
@given(losses=st.lists(st.floats(0, 9), min_size=1, max_size=25), each=st.integers(1, 9), cut=st.integers(0, 24))
def test_records_at_any_cut(tmp_path_factory, losses, each, cut):
    """Wherever a run is cut into two, its epochs are those of a run at once."""
    root, cut = tmp_path_factory.mktemp("runs"), min(cut, len(losses))
    config = {"options": {"batch_size": 4}}

    def go(writer, tally, first, end):
        at = [first]
        folder = StepFolder(
            writer, lambda: divmod(at[0], each), batch=4, rate=lambda _: 0.1, every=3, step=first, tally=tally
        )
        for step in range(first, end):
            at[0] = step + 1
            folder.step(Told(step + 1, losses[step], step % 5))
        folder.finish("finished", steps=end)

    go(RunWriter.start(root / "whole", config), Tally(), 0, len(losses))
    go(RunWriter.start(root / "parts", config), Tally(), 0, cut)
    go(*take_up(read_record(root / "parts"), cut, config), cut, len(losses))
    whole, parts = read_record(root / "whole"), read_record(root / "parts")
    assert whole.steps == parts.steps
    for name in ("epoch", "steps", "accuracy", "batches"):
        assert whole.history[name] == parts.history[name], name
    np.testing.assert_allclose(whole.history["loss"], parts.history["loss"], rtol=1e-13, atol=1e-300)
