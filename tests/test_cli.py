"""The command line as a person meets it: what it prints, what it refuses, what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import fastconv
from fastconv import config, models, nn, serialize
from fastconv.cli import main
from fastconv.data import load

KEYS = {"test_accuracy", "test_loss", "train_seconds", "steps", "isa", "threads", "state_sha256"}


@pytest.fixture
def run():
    def invoke(*args):
        with config.threads(config.threads()):  # puts back what --threads sets
            return CliRunner().invoke(main, [str(arg) for arg in args])

    return invoke


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a net trained for two epochs, and its result."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    done = CliRunner().invoke(main, ["train", "--epochs", "2", "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout.splitlines()[-1])


def python(*args, **environment):
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


def test_the_main_job_reaches_97_percent():
    """In a process of its own: ``fastconv train --dataset digits`` with no other option but --json."""
    done = python("-m", "fastconv", "train", "--dataset", "digits", "--json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    result = json.loads(lines[0])
    assert result.keys() >= KEYS
    assert result["test_accuracy"] >= 0.97
    assert result["train_seconds"] < 60


def test_train_shows_what_it_does(run):
    done = run("train", "--epochs", 2, "--seed", 1)
    assert done.exit_code == 0, done.output
    for text in (
        "digits: 10 classes, images 8×8×1: 1,293 to train on, 144 for validation, 360 to test on",
        "mnist-small: 13,034 parameters, init he, seed 1",
        "sgd lr 0.05, momentum 0.9, weight decay 0.0005, cosine schedule, batches of 32, augmented",
        f"{config.isa()} kernels",
        "1/2", "2/2", "test accuracy", "of 360 images", "state sha256",
    ):  # fmt: skip
        assert text in done.stdout


def test_json_of_train_is_the_last_line_alone(run, trained):
    folder, result = trained
    assert result.keys() >= KEYS
    assert result["steps"] == 2 * 41
    assert len(result["state_sha256"]) == 64
    assert json.loads((folder / "result.json").read_text()) == result
    config_file = json.loads((folder / "config.json").read_text())
    assert config_file["options"]["model"] == "mnist-small"
    assert config_file["fastconv"] == fastconv.__version__
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]


def test_one_seed_one_digest(run, trained):
    _, result = trained
    for isa in config.available_isas():
        for threads in (1, 3):
            with config.isa(isa):
                done = run("train", "--epochs", 2, "--json", "--threads", threads)
            again = json.loads(done.stdout.splitlines()[-1])
            assert (again["isa"], again["threads"]) == (isa, threads)
            assert again["state_sha256"] == result["state_sha256"]
    other = json.loads(run("train", "--epochs", 2, "--json", "--seed", 5).stdout.splitlines()[-1])
    assert other["state_sha256"] != result["state_sha256"]


def test_eval_repeats_the_figures(run, trained):
    folder, result = trained
    found = json.loads(run("eval", folder, "--json").stdout)
    assert found.keys() >= KEYS
    for key in ("test_accuracy", "test_loss", "state_sha256", "steps", "train_seconds"):
        assert found[key] == result[key]
    shown = run("eval", folder).stdout
    assert "most often taken for" in shown
    assert f"test accuracy  {100 * result['test_accuracy']:.2f} %" in shown


def test_predict_reads_arrays_and_pictures(run, trained, tmp_path):
    folder, _ = trained
    image, label = (part[3] for part in load("digits").test)
    np.save(tmp_path / "digit.npy", image)
    arguments = ["predict", folder, tmp_path / "digit.npy"]
    if pillow := pytest.importorskip("PIL.Image"):
        pillow.fromarray((255 - image[0] * 15).astype(np.uint8)).resize((64, 64)).save(tmp_path / "ink.png")
        arguments.append(tmp_path / "ink.png")
    found = json.loads(run(*arguments, "--json").stdout)["predictions"]
    assert [guess["class"] for guess in found] == [str(label)] * 2
    assert all(0.1 < guess["probability"] <= 1 for guess in found)
    shown = run(*arguments).stdout.splitlines()
    assert shown[0].split()[:3] == ["image", "class", "probability"]
    assert len(shown) == 3


def test_models_lists_the_zoo(run):
    shown = run("models").stdout
    for name, recipe in models.ZOO.items():
        assert name in shown
        assert recipe.description in shown
    entries = json.loads(run("models", "--json").stdout)["models"]
    sizes = {entry["name"]: entry["parameters"] for entry in entries}
    assert sizes["lenet5"] == {"digits": None, "mnist": 61_706, "cifar10": 62_006}


def test_models_shows_layers_and_plan_of_one(run):
    assert "(0): Conv2d(1, 6, kernel_size=(5, 5)" in run("models", "lenet5").stdout
    shown = run("models", "lenet5", "--plan", "--batch", "8").stdout
    assert shown.startswith("lenet5: Sequential, training step on (8, 1, 28, 28) of float32")
    plan = json.loads(run("models", "resnet20", "--plan", "--dataset", "cifar10", "--json").stdout)
    assert plan["parameters"] == 272_474
    assert plan["rows"][1]["layers"] == ["BatchNorm2d", "ReLU"]
    for wrong in (["models", "--plan"], ["models", "nine"], ["models", "lenet5", "--dataset", "digits"]):
        assert run(*wrong).exit_code == 2


def test_info(run):
    shown = run("info").stdout
    assert "isa" in shown
    assert "threads because" in shown
    assert json.loads(run("info", "--json").stdout) == json.loads(json.dumps(config.info()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "nope"], "unknown model 'nope'; known are linear, mlp"),
        (["train", "--dataset", "nope"], "unknown data set 'nope'; known are cifar10, digits"),
        (["deep", "train", "--dataset", "nope", "--schedule", "cosine"], "--schedule cosine goes over a whole run"),
        (["mlp", "train", "--dataset", "nope", "--schedule", "step"], "--schedule step goes over a whole run"),
        (["train", "--optimizer", "nope"], "unknown optimiser 'nope'; known are sgd"),
        (["train", "--init", "nope"], "unknown initialisation 'nope'"),
        (["train", "--schedule", "nope"], "unknown schedule 'nope'"),
        (["train", "--model", "lenet5"], "lenet5 needs images of at least 28×28 pixels, got 8×8"),
        (["train", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["train", "--batch-size", "-3"], "Invalid value for '--batch-size'"),
        (["train", "--lr", "nan"], "'nan' is not a finite number"),
        (["train", "--lr", "inf"], "'inf' is not a finite number"),
        (["train", "--lr", "0"], "Invalid value for '--lr'"),
        (["train", "--lr", "fast"], "'fast' is not a valid float"),
        (["train", "--seed", "-1"], "Invalid value for '--seed'"),
        (["train", "--threads", "0"], "Invalid value for '--threads'"),
        (["train", "--validation", "1"], "Invalid value for '--validation'"),
        (["train", "--optimizer", "adam", "--momentum", "0.9"], "adam has no momentum option"),
        (["train", "--nonsense"], "No such option"),
        (["train", "extra"], "unexpected extra argument"),
        (["trian"], "No such command 'trian'"),
        (["eval", "nowhere"], "'nowhere' does not exist"),
        (["eval", "."], "not the folder of a run: it has no config.json"),
        (["predict", "."], "Missing argument 'IMAGE|TABLE...'"),
    ],
)
def test_wrong_usage_is_one_line_and_2(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, *(["--out", "run"] if arguments[0] == "train" else []))
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_out_never_overwrites(run, trained, tmp_path):
    folder, _ = trained
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    done = run("train", "--epochs", 1, "--out", folder)
    assert done.exit_code == 2
    assert "is there already and not an empty folder" in done.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before
    (tmp_path / "file").write_text("")
    assert run("train", "--epochs", 1, "--out", tmp_path / "file" / "run").exit_code == 2


def test_divergence_is_3_and_says_so_in_the_run(run, tmp_path):
    done = run("train", "--lr", "1e6", "--out", tmp_path / "run", "--json")
    assert done.exit_code == 3
    assert "diverged" in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["diverged"] is True
    assert result["status"] == "diverged"
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    done = run("eval", tmp_path / "run")
    assert done.exit_code == 2
    assert "holds no trained model: the run is diverged" in done.stderr


def test_a_damaged_model_file_is_one_line_and_2(run, trained, tmp_path):
    folder, _ = trained
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    done = run("eval", tmp_path)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "model.safetensors" in done.stderr


def test_a_wrong_environment_is_one_line_and_2():
    done = python("-m", "fastconv", "train", FASTCONV_ISA="quantum")
    assert done.returncode == 2
    assert done.stderr.startswith("fastconv train: FASTCONV_ISA: instruction set 'quantum' is unknown")
    assert len(done.stderr.splitlines()) == 1


def test_missing_data_say_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    monkeypatch.setattr("fastconv.data.folders.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("fastconv.data.download.download", refuse_to_download)
    done = run("train", "--dataset", "mnist")
    assert done.exit_code == 2
    assert str(tmp_path) in done.stderr
    assert "use the data set 'digits'" in done.stderr


def refuse_to_download(source, folder):
    raise OSError("no network")


def test_help_is_quick_and_whole(run):
    assert run("--help").exit_code == run().exit_code == 0
    for command in main.commands:
        assert command in run("--help").stdout
        assert run(command, "--help").exit_code == 0
    assert run("--version").stdout == f"fastconv, version {fastconv.__version__}\n"
    code = (
        "import sys; from fastconv.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    loaded = python("-c", code).stdout.splitlines()[-1].split()
    assert not {"fastconv.functional", "fastconv.nn", "fastconv.data", "tqdm", "safetensors"} & set(loaded)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: nn.Conv2d(1, 2, 3, stride=2**61, padding=2**62), "larger than any memory"),
        (lambda: nn.Conv2d(1, 2, 1, stride=2**61, dilation=2**62, padding=2**50), "larger than any memory"),
        (lambda: nn.MaxPool2d(2**62, stride=2**61, padding=2**61), "larger than any memory"),
        (lambda: nn.AdaptiveAvgPool2d(2**40), "larger than any memory"),
        (lambda: nn.AdaptiveAvgPool2d(2**17), "out of memory"),
    ],
)
def test_a_model_file_that_asks_for_too_much_is_refused_in_one_line(run, trained, tmp_path, layer, words):
    shutil.copytree(trained[0], tmp_path / "run")
    net = nn.Sequential(layer(), nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(1, 10))
    serialize.save(net, tmp_path / "run" / "model.safetensors")
    done = run("eval", tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_that_runs_out_of_memory_says_so_in_one_line(run, trained, monkeypatch):
    def none_left(*_, **__):
        raise MemoryError

    monkeypatch.setattr("fastconv.train.evaluate", none_left)
    done = run("eval", trained[0])
    assert (done.exit_code, done.stderr) == (2, "fastconv: out of memory: the system gave no more\n")
