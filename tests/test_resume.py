"""A run that is stopped anywhere and resumed has the bits of one never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

import fastconv
from fastconv import config, data, nn, optim, schedule
from fastconv.cli import main
from fastconv.cli.train import Every
from fastconv.diagnose import Watch
from fastconv.serialize import ModelFileError
from fastconv.train import (
    Callback,
    Checkpoint,
    ChillOut,
    Interrupted,
    Patience,
    RunWriter,
    StopOnExplosion,
    StopOnNonFinite,
    Trainer,
    load_checkpoint,
    load_latest,
    read_record,
    save_checkpoint,
    state_sha256,
)  # fmt: skip
from fastconv.train.checkpoint import checkpoints
from fastconv.train.run import load_run
from fastconv.train.setup import fill, prepare

TIMES = ("seconds", "step_ms", "images_per_second")
OPTIMIZERS = {
    "momentum": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda params: optim.Adam(params, lr=0.01),
    "adamw": lambda params: optim.AdamW(params, lr=0.01),
    "rmsprop": lambda params: optim.RMSprop(params, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda params: optim.Adagrad(params, lr=0.05),
}


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_epochs(tmp_path):
    """Where its rates do not depend on their number, to the bits of one that was asked for all of them."""
    pytest.importorskip("sklearn")

    def call(*words, code=0):
        found = CliRunner().invoke(main, ["train", "--json", *map(str, words)])
        assert found.exit_code == code, found.output
        return json.loads(found.stdout.splitlines()[-1]) if code == 0 else found.output

    about = ("--model", "mlp", "--schedule", "constant")
    whole = call(*about, "--epochs", 4, "--out", tmp_path / "whole")
    run = tmp_path / "run"
    call(*about, "--epochs", 2, "--out", run)
    assert "there is nothing to go on with" in call("--resume", run, code=2)
    for few in (1, 2):
        assert "has 2 epochs and is finished; --epochs must be more" in call("--resume", run, "--epochs", few, code=2)
    found = call("--resume", run, "--epochs", 3)
    assert found["epochs"] == 3
    found = call("--resume", run, "--epochs", 4)
    assert {**found, "train_seconds": 0} == {**whole, "train_seconds": 0}
    records = [read_record(folder) for folder in (run, tmp_path / "whole")]
    assert untimed(records[0].history) == untimed(records[1].history)
    assert records[0].config == records[1].config
    bent = tmp_path / "bent"
    call("--model", "linear", "--epochs", 1, "--out", bent)
    said = call("--resume", bent, "--epochs", 2, code=2)
    assert "--schedule cosine, which ends with epoch 1: more epochs would have had other rates" in said


def untimed(history):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in history]


def images(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (n, 1, 6, 6), np.uint8), rng.integers(0, 4, n)


def batches():
    return data.Batches(
        *images(30, 1), 8, seed=5, augment=data.Augment(shift=1, flip=True),
        standardize=data.Standardizer([[[127.0]]], [[[64.0]]]),
    )  # fmt: skip


class Stop(Exception):
    pass


class StopAt(Callback):
    """Save and raise at a step, as a kill right after a checkpoint would end it."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_safe_point(self, trainer):
        if trainer.step == self.step:
            save_checkpoint(self.path, trainer.state_dict())
            raise Stop


def trainer(optimizer="momentum", *callbacks):
    """Convolution, batch normalisation, dropout, warm-up and cosine; every callback that has a state."""
    fastconv.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(27, 4),
    )  # fmt: skip
    return Trainer(
        model, nn.CrossEntropyLoss(), OPTIMIZERS[optimizer](model.parameters()), l2=1e-3,
        schedule=schedule.Warmup(5, schedule.Cosine(15)), progress=False,
        callbacks=[StopOnExplosion(20), StopOnNonFinite(), ChillOut(1), Patience(4), *callbacks],
    )  # fmt: skip


def whole(optimizer):
    run = trainer(optimizer)
    history = run.fit(batches(), images_as_batches(), epochs=5)
    return state_sha256(run.model), untimed(history), run.step


def images_as_batches():
    x, y = images(20, 3)
    return [(x.astype(np.float32) / 64 - 2, y)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_at_every_step_it_has_the_same_bits(optimizer, tmp_path):
    digest, history, steps = whole(optimizer)
    assert steps == 20
    for step in range(1, steps + 1):
        path = tmp_path / f"{step}.safetensors"
        with pytest.raises(Stop):
            trainer(optimizer, StopAt(path, step)).fit(batches(), images_as_batches(), epochs=5)
        again = trainer(optimizer)
        again.load_state_dict(load_checkpoint(path))
        assert again.step == step
        found = again.resume(batches(), images_as_batches())
        assert (state_sha256(again.model), untimed(found)) == (digest, history), step


def test_chained_stops_change_nothing(tmp_path):
    digest, history, steps = whole("adam")
    path = tmp_path / "state.safetensors"
    with pytest.raises(Stop):
        trainer("adam", StopAt(path, 1)).fit(batches(), images_as_batches(), epochs=5)
    for step in range(2, steps):
        run = trainer("adam", StopAt(path, step))
        run.load_state_dict(load_checkpoint(path))
        with pytest.raises(Stop):
            run.resume(batches(), images_as_batches())
    run = trainer("adam")
    run.load_state_dict(load_checkpoint(path))
    found = run.resume(batches(), images_as_batches())
    assert (state_sha256(run.model), untimed(found)) == (digest, history)


def test_batches_without_a_position_are_skipped(tmp_path):
    x, y = images(30, 1)
    plain = [(x[i : i + 8].astype(np.float32) / 64, y[i : i + 8]) for i in range(0, 30, 8)]
    run = trainer()
    history = untimed(run.fit(plain, epochs=3))
    path = tmp_path / "state"
    with pytest.raises(Stop):
        trainer("momentum", StopAt(path, 6)).fit(plain, epochs=3)
    again = trainer()
    again.load_state_dict(load_checkpoint(path))
    assert untimed(again.resume(plain)) == history
    assert state_sha256(again.model) == state_sha256(run.model)


def test_a_run_that_has_stopped_stays_stopped(tmp_path):
    class Enough(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop("enough")

    path = tmp_path / "state"
    with pytest.raises(Stop):
        trainer("momentum", Enough(), StopAt(path, 4)).fit(batches(), images_as_batches(), epochs=5)
    again = trainer("momentum", Enough())
    again.load_state_dict(load_checkpoint(path))
    assert len(again.resume(batches(), images_as_batches())) == 1
    assert again.stop_reason == "enough"


def test_advice_is_given_once(tmp_path):
    """A rate so low that the weights hardly move: named when two looks show it, in the whole run once."""

    class Lines(Callback):
        def __init__(self):
            self.lines = []

        def on_record(self, trainer, record):
            if record["kind"] == "event":
                self.lines.append((record["step"], record["text"]))

    def slow(*callbacks):
        run = trainer("momentum", Watch(1, say=lambda line: None), *callbacks)
        run.base_lr = 1e-9
        return run

    whole, before, after = Lines(), Lines(), Lines()
    slow(whole).fit(batches(), epochs=2)
    assert whole.lines
    for step in range(1, 8):
        before.lines, after.lines = [], []
        with pytest.raises(Stop):
            slow(before, StopAt(tmp_path / "state", step)).fit(batches(), epochs=2)
        again = slow(after)
        again.load_state_dict(load_checkpoint(tmp_path / "state"))
        again.resume(batches())
        assert before.lines + after.lines == whole.lines


def test_states_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(Stop):
        trainer("momentum", StopAt(path, 3)).fit(batches(), images_as_batches(), epochs=5)
    state = load_checkpoint(path)
    with pytest.raises(ValueError, match="Adam: state lacks"):
        trainer("adam").load_state_dict(state)
    with pytest.raises(ValueError, match=r"of a run with ChillOut, KeepBest, .*; this one has Checkpoint, Chill"):
        trainer("momentum", Checkpoint(tmp_path)).load_state_dict(state)
    other = trainer()
    other.load_state_dict(state)
    with pytest.raises(ValueError, match="3 batches per epoch, the run so far had 4"):
        other.resume(data.Batches(*images(24, 1), 8))


def test_checkpoint_files_hold_any_state(tmp_path):
    state = {
        "a": [1, None, True, "x", 0.1, {"w": np.arange(3.0)}], "seed": 2**64 - 1, "empty": {}, "array": {"dict": 1},
        "nan": float("nan"), "int": np.array(7), "inf": float("-inf"),
    }  # fmt: skip
    save_checkpoint(tmp_path / "state", state)
    again = load_checkpoint(tmp_path / "state")
    assert again["a"][:5] == state["a"][:5]
    np.testing.assert_array_equal(again["a"][5]["w"], [0, 1, 2])
    assert (again["seed"], again["empty"], again["array"], again["inf"]) == (2**64 - 1, {}, {"dict": 1}, -np.inf)
    assert np.isnan(again["nan"])
    assert again["int"].shape == ()
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "state", {"a": object()})
    with pytest.raises(TypeError, match="must be float32, float64 or int64"):
        save_checkpoint(tmp_path / "state", {"a": np.zeros(3, "u1")})
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_damage_of_any_kind_is_noticed(tmp_path):
    path = tmp_path / "state"
    save_checkpoint(path, {"w": np.arange(50.0), "step": 3})
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(good), 60), len(good) - 1]:
        path.write_bytes(good[:place])
        with pytest.raises(ModelFileError):
            load_checkpoint(path)
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << int(rng.integers(8))]) + good[place + 1 :])
        with pytest.raises(ModelFileError):
            load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError):
        load_checkpoint(path)


def test_the_newest_and_the_best_are_kept(tmp_path):
    class Figures(Callback):
        """Put figures of our own in the place of the validation's."""

        def on_epoch_end(self, trainer):
            epoch = trainer.history[-1]["epoch"]
            trainer.history[-1].update(validation_accuracy=[0.1, 0.9, 0.9, 0.5, 0.2][epoch - 1], validation_loss=1.0)

    names = []

    class Watch(Callback):
        def on_safe_point(self, trainer):
            names.append([int(path.stem[5:]) for path in checkpoints(tmp_path / "c")])

    run = trainer("momentum", Figures(), Checkpoint(tmp_path / "c", steps=2, signals=False), Watch())
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".step-00000002.safetensors.0123").write_text("a draft of a killed process")
    run.fit(batches(), images_as_batches(), epochs=5)
    # Epochs end at 4, 8, 12, 16, 20; the one at 8 is the first of the two best.
    assert names[1] == [2]
    assert names[5] == [4, 6]
    assert names[11] == [8, 10, 12]
    assert names[-1] == [8, 18, 20]
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    trainer("momentum", Checkpoint(tmp_path, steps=4, signals=False)).fit(batches(), epochs=5)
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(RuntimeWarning, match=r"step-00000020.*; going on from the one before it"):
        state, path = load_latest(tmp_path)
    assert (state["step"], path.name) == (16, "step-00000016.safetensors")
    assert (tmp_path / "step-00000020.safetensors.damaged").exists()
    path.write_bytes(b"")
    with (
        pytest.warns(RuntimeWarning, match="going on from the one before it"),
        pytest.raises(FileNotFoundError, match="holds no checkpoint to go on from: 1 damaged"),
    ):
        load_latest(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint to go on from"):
        load_latest(tmp_path / "nowhere")


def test_time_decides_too(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr("fastconv.train.checkpoint.time.monotonic", lambda: next(clock))
    saved = []
    monkeypatch.setattr("fastconv.train.checkpoint.save_checkpoint", lambda path, state: saved.append(state["step"]))
    trainer("momentum", Checkpoint(tmp_path, seconds=100, signals=False)).fit(batches(), epochs=5)
    assert saved == [4, 8, 12, 16, 20]
    for wrong in ({"steps": 0}, {"seconds": -1.0}, {"keep": 0}):
        with pytest.raises(ValueError, match="must be positive, got"):
            Checkpoint(tmp_path, **wrong)


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch):
    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastconv.train.checkpoint.save_checkpoint", full)
    run = trainer("momentum", Checkpoint(tmp_path, steps=10, signals=False))
    with pytest.warns(RuntimeWarning, match=r"checkpoint at step 10 failed: .*No space left.*; training goes on"):
        run.fit(batches(), epochs=3)
    assert run.step == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_interrupts(number, tmp_path, capfd):
    class Ask(Callback):
        done = False

        def on_step_start(self, trainer):
            if trainer.step == 6 and not self.done:
                self.done = True
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    digest, history, _ = whole("momentum")
    run = trainer("momentum", Ask(), Checkpoint(tmp_path))
    with pytest.raises(Interrupted, match=rf"{number.name} at step 7") as caught:
        run.fit(batches(), images_as_batches(), epochs=5)
    assert (caught.value.signal, caught.value.step) == (number, 7)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before
    assert f"{number.name}: saving after this step" in capfd.readouterr().err
    again = run if number == signal.SIGINT else trainer("momentum", Checkpoint(tmp_path))  # the same trainer will do
    state, path = load_latest(tmp_path)
    assert path.name == "step-00000007.safetensors"
    again.load_state_dict(state)
    assert untimed(again.resume(batches(), images_as_batches())) == history
    assert state_sha256(again.model) == digest


def test_a_second_signal_ends_at_once(tmp_path, capfd):
    class Ask(Callback):
        def on_step_start(self, trainer):
            if trainer.step == 6:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        trainer("momentum", Ask(), Checkpoint(tmp_path)).fit(batches(), epochs=5)
    assert not isinstance(caught.value, Interrupted)
    assert checkpoints(tmp_path) == []


# A small net with all that a run can carry: running statistics, dropout counters.
NET = """
import sys
from fastconv import cli, models, nn

@models._recipe("tiny", "for this test", 8)
def tiny(shape, classes):
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(36, classes), input_grad=False,
    )

cli.main(["train", *sys.argv[1:]])
"""


def command(*args):
    """Start ``fastconv train`` in a process of its own, on one thread: others share the machine."""
    return subprocess.Popen(
        [sys.executable, "-c", NET, "--model", "tiny", "--threads", "1", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_until(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.002)


RUNS = {
    "momentum, augmentation, warm-up, cosine": (
        (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL),
        ("--batch-size", 8, "--epochs", 4, "--warmup", 10, "--augment", "--patience", 9),
    ),
    "adam, chill out, watched": (
        (signal.SIGKILL, signal.SIGINT),
        ("--batch-size", 8, "--epochs", 4, "--optimizer", "adam", "--lr", 0.03, "--schedule", "constant",
         "--chill-out", 1, "--watch-every", 100),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("signals", "options"), RUNS.values(), ids=RUNS.keys())
def test_killed_at_random_moments_the_command_goes_on_to_the_same_bits(signals, options, tmp_path):
    code, _, err = finish(command(*options, "--out", tmp_path / "whole"))
    assert code == 0, err
    expected = read_record(tmp_path / "whole")
    folder = tmp_path / "killed"
    rng = random.Random(4)
    arguments = (*options, "--out", folder, "--checkpoint-every", 7)
    for number in signals:
        process = command(*arguments)
        newest = checkpoints(folder / "checkpoints")[-1:]
        wait_until(lambda before=newest: checkpoints(folder / "checkpoints")[-1:] != before, process)
        time.sleep(rng.random() * 0.3)
        process.send_signal(number)
        code, _, err = finish(process)
        if code == 0:  # it was quicker
            break
        expected_code = -9 if number == signal.SIGKILL else 128 + number
        assert code == expected_code, err
        record = read_record(folder)
        assert record.status == ("killed" if number == signal.SIGKILL else "interrupted")
        assert record.step < expected.step
        arguments = ("--resume", folder)
    else:
        code, _, err = finish(command(*arguments))
    assert code == 0, err
    found = read_record(folder)
    assert len(found.env["resumed"]) >= 1
    assert found.result["state_sha256"] == expected.result["state_sha256"]
    assert untimed(found.history) == untimed(expected.history)
    assert (found.steps, found.events) == (expected.steps, expected.events)
    for name in ("test_accuracy", "test_loss", "steps", "best_epoch", "status"):
        assert found.result[name] == expected.result[name]


# ---- the command line


@pytest.fixture
def run():
    def invoke(*args):
        with config.threads(config.threads()):
            return CliRunner().invoke(main, ["train", *(str(arg) for arg in args)])

    return invoke


OPTIONS = {"epochs": 2, "batch_size": 128, "model": "mlp", "lr": 0.1}


@pytest.fixture
def interrupted(tmp_path):
    """A run of 22 steps with checkpoints at 8 and 15, interrupted at 15."""

    class Ask(Callback):
        def on_step_start(self, trainer):
            if trainer.step == 14:
                os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "run"
    setup = prepare(fill("digits", **OPTIONS), [Checkpoint(folder / "checkpoints", steps=8), Ask()], progress=False)
    with RunWriter.start(folder, {**setup.describe(), "observed": {"checkpoint_every": "8"}}) as writer:
        setup.trainer.callbacks.insert(0, writer)
        with pytest.raises(Interrupted):
            setup.trainer.fit(setup.train, setup.validation, epochs=2)
        writer.finish({"status": "interrupted", "reason": "SIGTERM", "steps": setup.trainer.step})
    return folder


def test_the_command_resumes(run, interrupted, tmp_path):
    whole = json.loads(run("--epochs", 2, "--batch-size", 128, "--model", "mlp", "--lr", 0.1, "--json").stdout)
    done = run("--resume", interrupted, "--lr", 0.1, "--dataset", "digits", "--json")
    assert done.exit_code == 0, done.output
    assert "resumed        at step 15" in done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["steps"]) == ("finished", 22)
    assert result["state_sha256"] == whole["state_sha256"]
    record = read_record(interrupted)
    assert (record.status, record.history["epoch"]) == ("finished", [1, 2])
    assert record.result["test_accuracy"] == whole["test_accuracy"]
    done = run("--resume", interrupted)
    assert done.exit_code == 2
    assert "run is finished after 2 epochs; there is nothing to go on with" in done.stderr


def test_the_command_falls_back_to_the_checkpoint_before(run, interrupted):
    newest = checkpoints(interrupted / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    done = run("--resume", interrupted, "--json")
    assert done.exit_code == 0
    assert "warning: " in done.stderr
    assert "step-00000015.safetensors" in done.stderr
    assert "resumed        at step 8" in done.stderr
    assert json.loads(done.stdout)["steps"] == 22


def test_without_a_whole_checkpoint_nothing_changes(run, interrupted):
    for path in checkpoints(interrupted / "checkpoints"):
        path.write_bytes(b"")
    before = (interrupted / "metrics.jsonl").read_bytes()
    done = run("--resume", interrupted)
    assert done.exit_code == 2
    assert "holds no checkpoint to go on from: 2 damaged" in done.stderr
    assert read_record(interrupted).status == "interrupted"
    assert (interrupted / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.2"], "has --lr 0.1, not 0.2: a resumed run keeps its options"),
        (["--epochs", "9"], "has --schedule cosine, which ends with epoch 2: more epochs would have had other rates"),
        (["--epochs", "1"], "has --epochs 2, not 1"),
        (["--dataset", "mnist"], "has --dataset digits, not mnist"),
        (["--chill-out", "2"], "has --chill-out None, not 2"),
        (["--no-augment"], "has --augment True, not False"),
        (["--tensorboard"], "was started without --tensorboard"),
        (["--watch-every", "5"], "was started without --watch-every"),
        (["--out", "elsewhere"], "--out elsewhere contradicts it"),
    ],
)
def test_options_that_contradict_are_refused(run, interrupted, arguments, message):
    done = run("--resume", interrupted, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert read_record(interrupted).status == "interrupted"


def test_what_cannot_be_resumed_says_why(run, interrupted, tmp_path):
    def refused(folder):
        done = run("--resume", folder)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1
        return done.stderr

    assert "is not the folder of a run" in refused(tmp_path)
    assert "is not the folder of a run" in refused(tmp_path / "nowhere")
    result = interrupted / "result.json"
    result.write_text('{"status": "diverged", "reason": "the loss is nan"}')
    assert "has diverged and would again: the loss is nan; start a new run" in refused(interrupted)
    result.write_text('{"status": "stopped", "reason": "enough"}')
    assert "is stopped after 1 epochs: enough; there is nothing" in refused(interrupted)
    result.unlink()
    with RunWriter.resume(interrupted, 15, read_record(interrupted).history):
        assert f"is running, in process {os.getpid()}" in refused(interrupted)
    about = json.loads((interrupted / "config.json").read_text())
    (interrupted / "config.json").write_text(json.dumps({**about, "standardizer": {"mean": 0, "deviation": 1}}))
    assert "the images of digits are not those the run was started with" in refused(interrupted)
    (interrupted / "config.json").write_text(json.dumps({**about, "options": {"dataset": "digits"}}))
    assert "config.json does not hold the options of a run" in refused(interrupted)
    with RunWriter.start(tmp_path / "early", about):
        pass
    assert "holds no checkpoint to go on from" in refused(tmp_path / "early")
    about["options"]["model"] = "mnist-small"
    with RunWriter.start(tmp_path / "other", about):
        (interrupted / "checkpoints").rename(tmp_path / "other" / "checkpoints")
    assert "is not a checkpoint of this run: load_state_dict" in refused(tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint-every", "0"], "'0' is no interval; write 500 (steps), 30s, 5min or 1h"),
        (["--checkpoint-every", "-5min"], "is no interval"),
        (["--checkpoint-every", "soon"], "is no interval"),
        (["--checkpoint-every", "1.5"], "is no interval"),
        (["--checkpoint-every", "5"], "--checkpoint-every needs a folder: --out DIR"),
        (["--tensorboard"], "--tensorboard needs a folder: --out DIR"),
        (["--patience", "3", "--validation", "0"], "patience needs validation images, but none are set aside"),
        (["--patience", "0"], "Invalid value for '--patience'"),
    ],
)
def test_wrong_usage(run, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_intervals():
    assert Every.parts("500") == {"steps": 500}
    assert Every.parts("30s") == {"seconds": 30}
    assert Every.parts("1.5h") == {"seconds": 5400}
    assert Every.parts(" 5 min ") == {"seconds": 300}


def test_a_run_that_stops_early_or_diverges_late_keeps_its_model(run, tmp_path, monkeypatch):
    done = run("--epochs", 30, "--model", "mlp", "--patience", 1, "--lr", 0.1, "--batch-size", 128,
               "--tensorboard", "--out", tmp_path / "early", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["status"] == "stopped"
    assert result["reason"].startswith("validation figures have not improved for 1 epochs, since epoch ")
    assert len(list((tmp_path / "early" / "tensorboard").iterdir())) == 1

    def explode(self, trainer):
        if trainer.epoch == 1:
            trainer.model[1].weight.data[0, 0] = np.nan

    monkeypatch.setattr(StopOnNonFinite, "on_epoch_start", explode)
    done = run("--epochs", 3, "--model", "mlp", "--out", tmp_path / "late", "--json")
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert (result["status"], result["layer"], result["tensor"]) == ("diverged", "1", "weight")
    assert "weight of layer 1 (Linear) holds 1 NaN" in result["reason"]
    assert result["best_epoch"] == 1
    assert load_run(tmp_path / "late").result == result
