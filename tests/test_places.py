"""Where files are read and written: links, mounts and '.', the home folder, and names of all kinds."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import write_run

import fastconv.onnx
from fastconv import deep, nn, serialize, viz
from fastconv.cli import main
from fastconv.data import catalogue, folders
from fastconv.paths import expand, printable
from fastconv.train import RunWriter, find_runs, read_record
from fastconv.viz.report import Report

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and names of POSIX")


def _a_report(path):
    write_run(path.parent / "runs" / "a", epochs=1)
    Report(path.parent / "runs").write(path)


def _a_figure(path):
    from fastconv.viz._run import save

    save(viz.filters(nn.Sequential(nn.Conv2d(3, 2, 3))), path)


WRITERS = {
    "serialize.save": lambda path: serialize.save(nn.Linear(2, 2), path),
    "onnx.save": lambda path: fastconv.onnx.save(nn.Linear(2, 2), path, (1, 2)),
    "report": _a_report,
    "deep.create": lambda path: deep.create(deep.Paths.of(path), deep.Record(4, 2, 0.1, "tanh", 9, 3, 0), force=True),
    "a deep head": lambda path: deep.create(
        deep.Paths.of(path.parent / "w", path), deep.Record(4, 2, 0.1, "tanh", 9, 3, 0), force=True),
    "viz": _a_figure,
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("through", [False, True], ids=["itself", "through a link"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_no_file_takes_the_place_of_what_is_none(tmp_path, kind, through, writer):
    """A result written to /dev/full by root was a file of that name from then on."""
    if through and writer in ("viz", "deep.create", "a deep head"):
        pytest.skip("it replaces the link, not what that leads to")
    there = path = tmp_path / "there.png"
    if kind == "pipe":
        os.mkfifo(there)
    elif kind == "folder":
        there.mkdir()
    else:
        try:
            os.mknod(there, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        except OSError:
            pytest.skip("devices are made by root alone")
    if through:
        path = tmp_path / "link.png"
        path.symlink_to(there)
    before = there.lstat()
    with pytest.raises(OSError, match="directory" if kind == "folder" else "Not a regular file") as caught:
        WRITERS[writer](path)
    assert caught.value.filename == str(path)
    after = there.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"there.png", "link.png", "runs"}


@pytest.mark.parametrize("where", ["link", ".", "kept", "link/", "./kept/../kept"])
def test_an_empty_folder_is_filled_and_stays_what_it_is(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    for name in ("kept", "real"):
        Path(name).mkdir()
        Path(name).chmod(0o2775)
    if where != ".":
        Path("link").symlink_to("real")
    else:
        monkeypatch.chdir("kept")
    before = os.stat(where)
    with RunWriter.start(where, {"a": 1}) as run:
        run.write({"kind": "epoch", "epoch": 1})
        run.finish({"status": "finished"}, nn.Linear(2, 2))
    after = os.stat(where)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert sorted(os.listdir(where)) == ["config.json", "env.json", "metrics.jsonl", "model.safetensors", "result.json"]
    assert where == "." or not Path("link").exists() or Path("link").is_symlink()
    assert read_record(where).history["epoch"] == [1]


def test_a_folder_that_cannot_be_filled_stays_empty(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("fastconv.train.writer.open_locked", full)
    with pytest.raises(OSError, match="No space left") as caught:
        RunWriter.start(tmp_path, {})
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "env.json", "checkpoints", "tensorboard"])
def test_going_on_writes_through_no_link(tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    RunWriter.start(run, {}).close()
    outside.mkdir()
    (outside / "kept").write_text("{}")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside if name in ("checkpoints", "tensorboard") else outside / "kept")
    with pytest.raises(OSError, match=f"{name} is a symbolic link"):
        RunWriter.resume(run, 0, [])
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("kept", "{}")]


def test_what_ends_a_run_writes_through_no_link(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    run = RunWriter.start(tmp_path / "run", {})
    (run.folder / "result.json").symlink_to(kept)
    run.finish({"status": "finished"})
    assert kept.read_text() == "kept"
    assert not (run.folder / "result.json").is_symlink()
    assert read_record(run.folder).status == "finished"


def test_pictures_of_a_run_go_through_no_link(tmp_path):
    RunWriter.start(tmp_path / "run", {}).close()
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / "plots").symlink_to(tmp_path / "outside")
    done = CliRunner().invoke(main, ["plot", str(tmp_path / "run"), "--only", "curves"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "plots is a symbolic link" in done.stderr
    assert list((tmp_path / "outside").iterdir()) == []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_runs_behind_links_are_found_once_each(tmp_path_factory, data):
    """A drawn tree of folders, runs and links among them, cycles included; every run within reach once."""
    root = tmp_path_factory.mktemp("links")
    folder, runs = [root / "top"], []
    folder[0].mkdir()
    for i in range(data.draw(st.integers(1, 6))):
        path = data.draw(st.sampled_from(folder)) / f"d{i}"
        if data.draw(st.booleans()):
            RunWriter.start(path, {}).close()
            runs.append(path)
        else:
            path.mkdir()
            folder.append(path)
    for i in range(data.draw(st.integers(0, 5))):
        target = data.draw(st.sampled_from([*folder, *runs, root]))
        (data.draw(st.sampled_from(folder)) / f"link{i}").symlink_to(target)
    start = data.draw(st.sampled_from(folder))
    (start / "gone").symlink_to(root / "nowhere")
    found = find_runs(start)
    inside = [run for run in runs if start in run.parents]
    assert set(inside) <= set(found)  # by their own names, not through a link
    real = [path.resolve() for path in found]
    assert len(set(real)) == len(real)
    assert set(real) <= set(runs)
    for entry in start.iterdir():
        if entry.is_symlink() and entry.resolve() in runs:
            assert entry.resolve() in real


def test_the_home_folder_is_known_wherever_a_path_enters(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert expand("~/a") == tmp_path / "a"
    assert expand("b/~") == Path("b/~")
    monkeypatch.setenv("FASTCONV_DATA", "~/data")
    assert folders.candidates(catalogue.MNIST)[0] == tmp_path / "data" / "mnist"
    serialize.save(nn.Linear(2, 2), "~/net")
    assert (tmp_path / "net").is_file()
    assert serialize.load("~/net").config() == nn.Linear(2, 2).config()
    with RunWriter.start("~/runs/a", {}) as run:
        run.finish({"status": "finished"})
    assert find_runs("~/runs") == [tmp_path / "runs" / "a"]
    assert read_record("~/runs/a").status == "finished"
    done = CliRunner().invoke(main, ["runs", "list", "--json", "~/runs"])
    assert [found["name"] for found in json.loads(done.stdout)["runs"]] == ["a"]


NAMES = [b"\xff\xfe", b"\x1b[31mred", "größe".encode(), b"a b", b"new\nline", b"$x^2$", b"_hidden", b"\xed\xa0\x80"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_runs_of_any_name(tmp_path, name):
    """Everything that shows or keeps a name works with it, and no control character comes out."""
    pytest.importorskip("matplotlib")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/runs/" + name))
    with RunWriter.start(folder, {"note": os.fsdecode(name)}) as run:
        run.write({"kind": "epoch", "epoch": 1, "loss": 1.0, "validation_loss": 1.0})
        run.write({"kind": "epoch", "epoch": 2, "loss": 0.5, "validation_loss": 0.7})
        run.finish({"status": "finished"})
    RunWriter.start(tmp_path / "runs" / "other", {}).close()
    assert read_record(folder).config == {"note": os.fsdecode(name)}
    runs = tmp_path / "runs"
    for words in (
        ["runs", "list", runs], ["runs", "show", folder], ["runs", "diff", folder, runs / "other"],
        ["runs", "list", runs, "--json"], ["runs", "show", folder, "--json"],
        ["plot", folder, runs / "other", "--only", "curves", "--out", tmp_path / "pictures"],
        ["plot", folder, "--only", "curves"], ["plot", folder, "--only", "mean"],
        ["report", runs, "-o", tmp_path / "all.html"], ["report", folder, "-o", tmp_path / "one.html"],
        ["report", runs, "-o", folder / "own.html"], ["eval", folder], ["train", "--resume", folder],
    ):  # fmt: skip
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)
        assert done.exit_code == (2 if words[0] in ("eval", "train") else 0), done.output
        assert "--json" in words or all(c.isprintable() or c == "\n" for c in done.output), done.output
        assert "\x1b" not in done.output


@given(st.text())
def test_printable_does_nothing_to_a_terminal(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(a == b or b == "�" for a, b in zip(text, shown, strict=True))
