"""What commands say of missing, foreign and damaged files: one line that names the file, and nothing of Python's."""

import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from fastconv import nn, serialize
from fastconv.cli import main
from fastconv.train import RunWriter

pytest.importorskip("sklearn")

KINDS = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "json": lambda path: path.write_text("{}\n"),
    "null": lambda path: path.write_text('{"options": null, "width": null}\n'),
}
BAD = pytest.mark.parametrize("kind", KINDS)
DIGITS = ("--dataset", "digits")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with one of each: a run, a deep net, an mlp, an image."""
    root = tmp_path_factory.mktemp("made")
    train = ("train", *DIGITS, "--steps", "2", "--weights")
    for words in (
        ("train", "--epochs", "1", "--out", root / "run"),
        ("deep", *train, root / "deep", "--layers", "20"),
        ("mlp", *train, root / "mlp"),
    ):
        done = CliRunner().invoke(main, list(map(str, words)))
        assert done.exit_code == 0, done.output
    np.save(root / "image.npy", np.zeros((8, 8), np.uint8))
    return root


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it, where the commands run."""
    shutil.copytree(made, tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


def said(*words):
    """Run a command; what it says in its one line, or nothing if all went well."""
    done = CliRunner().invoke(main, list(map(str, words)), prog_name="fastconv")
    assert done.exception is None or isinstance(done.exception, SystemExit), f"{words}: {done.exception!r}"
    if done.exit_code == 0:
        return ""
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    assert not re.search(r"Errno|/\.", done.stderr), done.stderr
    return done.stderr


@BAD
@pytest.mark.parametrize(
    "words",
    [
        ("eval", "P"), ("predict", "P", "image.npy"), ("predict", "run", "P"), ("plot", "P"), ("check", "--run", "P"),
        ("runs", "show", "P"), ("runs", "diff", "P", "run"), ("train", "--resume", "P"), ("report", "P"),
        ("search", "--resume", "--out", "P"), ("deep", "inspect", "P"), ("deep", "eval", *DIGITS, "--weights", "P"),
        ("deep", "eval", *DIGITS, "--weights", "deep", "--head", "P"), ("mlp", "eval", *DIGITS, "--weights", "P"),
        ("deep", "train", "--resume", *DIGITS, "--weights", "P"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_read_is_there_and_sound(folder, kind, words):
    KINDS[kind](folder / "P")
    assert re.search(r"\bP\b", said(*words))


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", "model.safetensors"])
@pytest.mark.parametrize("words", [("eval", "run"), ("predict", "run", "image.npy")], ids=" ".join)
@BAD
def test_a_run_with_a_bad_file(folder, kind, name, words):
    (folder / "run" / name).unlink()
    KINDS[kind](folder / "run" / name)
    text = said(*words)
    assert not text or "run" in text  # an empty record of figures, say, does not keep a net from being used


@BAD
@pytest.mark.parametrize("name", ["deep", "deep.head", "deep.json"])
def test_a_deep_net_with_a_bad_file(folder, kind, name):
    (folder / name).unlink()
    KINDS[kind](folder / name)
    assert "deep" in said("deep", "eval", *DIGITS, "--weights", "deep")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", ".", "-o", "no/x.html"), "fastconv report: no/x.html: No such file or directory"),
        (("train", "--epochs", "1", "--out", "run/result.json/x"), "cannot make a folder in "),
        (("mlp", "train", *DIGITS, "--weights", "no/x"), "--weights no/x: there is no folder no"),
        (("mlp", "eval", *DIGITS, "--weights", "no"), "no net no; 'fastconv mlp train --weights no' makes one"),
        (("deep", "init", *DIGITS, "--weights", "no/x"), "there is no folder no"),
        (("deep", "inspect", "no"), "there is no deep net no: its record no.json is missing; 'fastconv deep init "
                                    "--weights no' makes a new one"),
        (("plot", "run", "--only", "curves", "--out", "image.npy"), "fastconv plot: image.npy: File exists"),
    ],
)  # fmt: skip
def test_the_way_out(folder, words, message):
    assert message in said(*words)


def test_a_folder_that_cannot_be_made_is_named_itself(folder, monkeypatch):
    def full(path, *args, **extra):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("fastconv.train.writer.open_locked", full)
    assert said("train", "--epochs", "1", "--out", "new").endswith(" new/metrics.jsonl: No space left on device\n")
    assert not [path for path in folder.iterdir() if "new" in path.name]


def test_an_mlp_and_a_data_set_that_do_not_fit(folder):
    serialize.save(nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), folder / "nine")
    serialize.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), folder / "three")
    for command in ("train", "eval"):
        assert "nine does not take the images of digits: linear: weight expects 9 features" in said(
            "mlp", command, *DIGITS, "--weights", "nine"
        )
        assert "three gives scores of shape (1, 3), digits has 10 classes" in said(
            "mlp", command, *DIGITS, "--weights", "three"
        )


def test_a_run_of_a_trainer_of_ones_own(folder):
    """Its config is what its author chose, so that commands which set up a net from it have nothing to go by."""
    with RunWriter.start(folder / "own", {"lr": 0.1}) as run:
        run.write({"kind": "epoch", "epoch": 1, "loss": 0.5})
        run.finish({"status": "finished"}, serialize.load(folder / "run" / "model.safetensors"))
    for words in (("eval", "own"), ("predict", "own", "image.npy"), ("check", "--run", "own")):
        assert "own: config.json does not hold the options of a run of 'fastconv train': 'options'" in said(*words)
    done = CliRunner().invoke(main, ["plot", "own"])
    assert done.exit_code == 0, done.output
    assert "no mean of own: config.json names no data set" in done.stderr
