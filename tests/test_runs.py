"""The folder of a run: written line by line, read while it grows, whole or nothing at its start."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

import fastconv
from fastconv import nn
from fastconv.cli import main
from fastconv.train import Diverged, History, Interrupted, RunWriter, find_runs, read_record, state_sha256
from fastconv.train.run import load_run


def net():
    fastconv.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 3))


def epoch(number, **figures):
    return {"kind": "epoch", "epoch": number, "steps": 10 * number, **figures}


@pytest.fixture
def folder(tmp_path):
    """A finished run of two epochs, two step records and an event."""
    with RunWriter.start(tmp_path / "runs" / "first", {"options": {"seed": 0}}) as run:
        run.write({"kind": "step", "step": 5, "loss": 1.5, "grad_norm": {"0.weight": 0.25}})
        run.write(epoch(1, loss=1.0))
        run.write({"kind": "event", "step": 12, "event": "chill out", "text": "ünïcode"})
        run.write({"kind": "step", "step": 15, "loss": float("nan")})
        run.write(epoch(2, loss=float("inf")))
        run.finish({"status": "finished", "test_accuracy": 0.5}, net())
    return tmp_path / "runs" / "first"


def test_what_is_written_is_read(folder):
    record = read_record(folder)
    assert (record.path, record.name, record.status, record.step) == (folder, "first", "finished", 20)
    assert record.config == {"options": {"seed": 0}}
    assert record.env["fastconv"] == fastconv.__version__
    assert record.env["started"].endswith("+00:00")
    assert isinstance(record.history, History)
    assert record.history.records == [{"epoch": 1, "steps": 10, "loss": 1.0}, {"epoch": 2, "steps": 20, "loss": None}]
    assert [step["loss"] for step in record.steps] == [1.5, None]
    assert record.steps[0]["grad_norm"] == {"0.weight": 0.25}
    assert [event["text"] for event in record.events] == ["ünïcode"]
    assert record.result == {"status": "finished", "test_accuracy": 0.5}
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "env.json", "metrics.jsonl", "model.safetensors", "result.json",
    ]  # fmt: skip
    run = load_run(folder)
    assert state_sha256(run.model) == state_sha256(net())
    assert run.history.records == record.history.records


def test_a_record_is_one_write(tmp_path, monkeypatch):
    with RunWriter.start(tmp_path / "run", {}) as run:
        writes = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: writes.append(data) or write(file, data))
        run.write(epoch(1, loss=0.5))
        run.write(epoch(2, loss=0.25))
    assert [json.loads(data)["epoch"] for data in writes] == [1, 2]
    assert all(data.endswith(b"\n") and data.count(b"\n") == 1 for data in writes)


def test_status_while_it_runs_and_after_it_was_killed(tmp_path):
    run = RunWriter.start(tmp_path / "run", {})
    run.write(epoch(1, loss=1.0))
    record = read_record(tmp_path / "run")
    assert (record.status, record.result, record.step) == ("running", None, 10)
    with pytest.raises(BlockingIOError, match="another process is at this run"):
        RunWriter.resume(tmp_path / "run", 10, [])
    run.close()
    assert read_record(tmp_path / "run").status == "killed"
    with pytest.raises(FileNotFoundError, match="holds no trained model: the run is killed, at step 10"):
        load_run(tmp_path / "run")
    with pytest.raises(ValueError, match="the run is closed"):
        run.write(epoch(2))


def test_how_a_block_ends_is_how_the_run_ended(tmp_path):
    for error, status in (
        (Diverged("the loss is nan", 7), "diverged"), (Interrupted(15, 9), "interrupted"), (OSError("disk"), "killed"),
    ):  # fmt: skip
        with pytest.raises(type(error)), RunWriter.start(tmp_path / status, {}):
            raise error
        assert read_record(tmp_path / status).status == status
    result = read_record(tmp_path / "interrupted").result
    assert result == {"status": "interrupted", "reason": "SIGTERM", "steps": 9}
    assert read_record(tmp_path / "diverged").result["reason"] == "the loss is nan"


def test_the_lock_ends_with_the_process(tmp_path):
    code = (
        "import os, sys; from fastconv.train import RunWriter, read_record\n"
        "run = RunWriter.start(sys.argv[1], {})\n"
        "assert read_record(sys.argv[1]).status == 'running'\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False).returncode == -9
    assert read_record(tmp_path / "run").status == "killed"


def test_a_torn_last_line_is_left_out(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "epoch": 3')
    assert read_record(folder).history["epoch"] == [1, 2]


def test_damage_names_file_and_line(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:10], *lines[3:], ""]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3, is damaged"):
        read_record(folder)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1, is damaged: not a JSON object"):
        read_record(folder)
    path.write_text('{"kind": "epoch", "epoch": 1}\n{"kind": "epoch", "epoch": 2, "validation_loss": "<b>"}\n')
    with pytest.raises(ValueError, match=r"line 2, is damaged: validation_loss is '<b>'"):
        read_record(folder)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1, is damaged"):
        read_record(folder)
    path.write_text("")
    (folder / "result.json").write_text("[1")
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        read_record(folder)
    (folder / "config.json").write_text("")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        read_record(folder)


def test_older_folders_are_read(folder):
    (folder / "env.json").unlink()
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n')
    record = read_record(folder)
    assert (record.env, record.history.records) == ({}, [{"epoch": 1, "loss": 0.5}])


def test_find_runs(folder, tmp_path):
    root = tmp_path / "runs"
    for name in ("b", "deeper/c", ".hidden"):
        RunWriter.start(root / name, {}).close()
    RunWriter.start(folder / "checkpoints" / "inner", {}).close()
    (root / "no run").mkdir()
    assert find_runs(root) == [root / "b", root / "deeper" / "c", root / "first"]
    assert find_runs(folder) == [folder]
    with pytest.raises(NotADirectoryError, match="is no folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"not the folder of a run: it has no config\.json"):
        read_record(root)


def test_a_start_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        RunWriter.start(tmp_path / "a" / "run", {"options": object()})
    assert list((tmp_path / "a").iterdir()) == []
    RunWriter.start(tmp_path / "run", {}).close()
    with pytest.raises(FileExistsError, match="is there already and not an empty folder"):
        RunWriter.start(tmp_path / "run", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="cannot make a folder"):
        RunWriter.start(tmp_path / "file" / "run", {})
    (tmp_path / "empty").mkdir()
    RunWriter.start(tmp_path / "empty", {}).close()
    assert read_record(tmp_path / "empty").status == "killed"


def test_going_on_forgets_what_came_later(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"torn')
    with RunWriter.resume(folder, 12, [{"epoch": 1}]) as run:
        record = read_record(folder)
        assert (record.status, record.history["epoch"], len(record.steps), len(record.events)) == ("running", [1], 1, 1)
        assert not (folder / "model.safetensors").exists()
        assert [start["step"] for start in record.env["resumed"]] == [12]
        run.write(epoch(2, loss=0.125))
    assert read_record(folder).history["loss"] == [1.0, 0.125]


def test_going_on_restores_lost_epochs(folder):
    history = read_record(folder).history
    (folder / "metrics.jsonl").write_text("")
    RunWriter.resume(folder, 20, history).close()
    assert read_record(folder).history.records == history.records


def test_going_on_with_what_is_damaged_changes_nothing(folder):
    (folder / "env.json").write_text("[")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"env\.json is damaged"):
        RunWriter.resume(folder, 12, [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        RunWriter.resume(folder.parent, 12, [])


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


def figures(number, accuracy, loss, **more):
    return epoch(number, loss=2.0 / number, accuracy=0.5, validation_loss=loss, validation_accuracy=accuracy,
                 lr=0.1, seconds=1.5, step_ms=2.0, **more)  # fmt: skip


@pytest.fixture
def three(tmp_path):
    """A good run, a worse one that was killed, and one without validation; and a damaged one."""
    root = tmp_path / "three"
    options = {"dataset": "digits", "model": "mlp", "epochs": 3, "lr": 0.1, "seed": 1}
    with RunWriter.start(root / "good", {"options": options, "classes": ["a", "b"]}) as writer:
        for number, accuracy, loss in ((1, 0.5, 0.9), (2, 0.9, 0.4), (3, 0.9, 0.41)):
            writer.write(figures(number, accuracy, loss))
        writer.write({"kind": "event", "step": 20, "event": "chill out", "text": "lower"})
        writer.finish({"status": "stopped", "reason": "enough", "test_accuracy": 0.875, "test_loss": 0.5})
    with RunWriter.start(root / "sub" / "killed", {"options": {**options, "lr": 0.001, "l2": 0.5}}) as writer:
        writer.write(figures(1, 0.25, 1.5))
    with RunWriter.start(root / "<b>\x1b[31m", {"note": "no options"}) as writer:
        writer.write(epoch(1, loss=float("nan")))
        writer.finish({"status": "finished"})
    RunWriter.start(root / "torn", {}).close()
    (root / "torn" / "config.json").write_text("{")
    return root


def test_list_sorts_by_validation_accuracy(run, three):
    done = run("runs", "list", three)
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:6] == ["run", "status", "health", "val", "acc", "val"]
    assert lines[1][:10] == ["good", "stopped", "learning", "90.00", "%", "0.4000", "2", "87.50", "%", "3/3"]
    assert lines[2][:7] == ["sub/killed", "killed", "unknown", "25.00", "%", "1.5000", "1"]
    assert lines[3][:2] == ["<b>�[31m", "finished"]
    assert len(lines) == 4
    assert "config.json is damaged" in done.stderr
    found = json.loads(run("runs", "list", three, "--json").stdout)
    assert [entry["name"] for entry in found["runs"]] == ["good", "sub/killed", "<b>\x1b[31m"]
    assert found["runs"][0]["accuracy"] == 0.9
    assert found["runs"][0]["options"]["lr"] == 0.1
    assert len(found["damaged"]) == 1
    (three / "empty").mkdir()
    assert run("runs", "list", three / "empty").stdout == f"no runs in {three / 'empty'}\n"


def test_show_one_run(run, three):
    done = run("runs", "show", three / "good")
    assert done.exit_code == 0
    for text in (
        "stopped: enough", "learning: loss from 2 to 0.6667", "dataset digits, model mlp, epochs 3, lr 0.1, seed 1",
        "30 steps, 3 epochs of 3, 4.5 s", "2: validation accuracy 90.00 %, loss 0.4000", "accuracy 87.50 %",
        "step     20  chill out: lower",
    ):  # fmt: skip
        assert text in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.endswith("best")]
    assert [row.split()[0] for row in rows] == ["2"]
    assert json.loads(run("runs", "show", three / "good", "--json").stdout)["history"][1]["epoch"] == 2
    assert run("runs", "show", three / "sub" / "killed").exit_code == 0


def test_show_chooses_among_many_epochs(run, tmp_path):
    with RunWriter.start(tmp_path / "long", {"options": {"epochs": 95}}) as writer:
        for number in range(1, 96):
            writer.write(figures(number, 0.9 if number == 42 else 0.5, 0.5))
        writer.finish({"status": "finished"})
    shown = run("runs", "show", tmp_path / "long").stdout
    numbers = [int(line.split()[0]) for line in shown.split("ms/step")[1].splitlines()[1:]]
    assert len(numbers) <= 21
    assert numbers[-1] == 95
    assert 42 in numbers
    assert len(run("runs", "show", "--all", tmp_path / "long").stdout.splitlines()) > 95


def test_diff_shows_what_differs(run, three):
    done = run("runs", "diff", three / "good", three / "sub" / "killed")
    assert done.exit_code == 0
    rows = {line.split("  ")[1].strip(): line.split()[-2:] for line in done.stdout.splitlines() if line[:2] == "  "}
    assert rows["lr"] == ["0.1", "0.001"]
    assert rows["l2"] == ["–", "0.5"]
    assert rows["status"] == ["stopped", "killed"]
    assert "seed" not in rows
    assert "environment: no difference" in done.stdout
    assert "seed" in run("runs", "diff", "--all", three / "good", three / "sub" / "killed").stdout
    found = json.loads(run("runs", "diff", three / "good", three / "sub" / "killed", "--json").stdout)
    assert found["options"] == {"lr": [0.1, 0.001], "l2": [None, 0.5]}
    assert found["results"]["best epoch"] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "nowhere"], "nowhere is no folder"),
        (["show", "."], "is not the folder of a run: it has no config.json"),
        (["diff", "."], "give at least two runs to compare, got 1"),
        (["diff"], "Missing argument 'DIR DIR...'"),
    ],
)
def test_wrong_usage(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run("runs", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
