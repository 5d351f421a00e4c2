"""How a run begins and ends: what is refused before the first step, why it stopped, and streams of any kind."""

import io
import json
import signal
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import nn, optim, serialize
from fastconv.cli import main
from fastconv.diagnose import Watch
from fastconv.signals import EndRequest
from fastconv.train import (
    Callback,
    Checkpoint,
    ChillOut,
    Interrupted,
    Patience,
    Progress,
    RunWriter,
    StopOnNonFinite,
    Trainer,
    load_checkpoint,
    load_latest,
    read_record,
    save_checkpoint,
    state_sha256,
)  # fmt: skip
from fastconv.train.checkpoint import checkpoints

few = settings(deadline=None, max_examples=20)
WHOLE = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, int, np.array]


def points(n=32, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def net(seed=0):
    fastconv.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))


def trainer(model, *callbacks, lr=0.1, loss=None, **options):
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    options = {"progress": False, **options}
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, **options)


# ---- checkpoints of another run


@few
@given(old=st.integers(1, 12), new=st.integers(1, 12), at=st.integers(0, 12))
def test_a_run_loses_no_checkpoint_to_those_of_another(old, new, at, tmp_path_factory):
    """It begins where nothing lies ahead of it, and then the newest is its own."""
    folder = tmp_path_factory.mktemp("c")
    data = [points(8, seed) for seed in range(4)]
    first = trainer(net(), Checkpoint(folder, steps=1, keep=99, signals=False))
    first.fit(data[:1], epochs=old)
    run = trainer(net(1), Checkpoint(folder, steps=1, signals=False))
    if 0 < at <= old:
        run.load_state_dict(load_checkpoint(checkpoints(folder)[at - 1]))
    before = run.step, state_sha256(run.model)
    names = sorted(folder.iterdir())
    if run.step < old:
        with pytest.raises(FileExistsError, match=rf"beyond step {run.step}, .* up to step-{old:08}.safetensors: take"):
            run.fit(data[:1], epochs=new)
        assert (run.step, state_sha256(run.model)) == before
        assert sorted(folder.iterdir()) == names
        return
    run.fit(data[:1], epochs=new)
    state, _ = load_latest(folder)
    assert state["step"] == run.step == old + new
    np.testing.assert_array_equal(state["model"]["0.weight"], run.model[0].weight.data)
    run.fit(data[:1], epochs=1)  # once more, among its own
    assert load_latest(folder)[0]["step"] == old + new + 1


# ---- numbers of any kind


@few
@given(
    kind=st.sampled_from([np.float16, np.float32, np.float64, np.longdouble]), seed=st.integers(0, 99),
    whole=st.sampled_from(WHOLE), stop=st.integers(1, 7),
)  # fmt: skip
def test_settings_may_be_numpys(kind, seed, whole, stop, tmp_path_factory):
    """A run with them has the bits of one with Python's of the same value, also from its checkpoints."""
    rng = np.random.default_rng(seed)
    lr, l2, floor = (kind(value) for value in rng.random(3))
    folder = tmp_path_factory.mktemp("c")

    class Stop(Callback):
        def on_safe_point(self, trainer):
            if trainer.step == stop:
                raise KeyboardInterrupt

        def state_dict(self):  # as a user's may be
            return {"mean": kind(0.5), "count": np.int32(3), "flag": np.bool_(True)}

    def made(number, count, *callbacks):
        run = trainer(
            net(), ChillOut(count(2), factor=number(kind(0.5))), Patience(count(9)), StopOnNonFinite(count(2)),
            *callbacks,
            schedule=lambda step: number(floor + kind(1) / kind(step + 1)), l2=number(l2),
        )  # fmt: skip
        run.base_lr = number(lr)
        return run

    one = made(float, int)
    one.fit(points(), points(8, 1), epochs=2, batch_size=8, seed=seed)
    two = made(lambda value: value, whole)
    two.fit(points(), points(8, 1), epochs=whole(2), batch_size=whole(8), seed=np.int64(seed))
    assert state_sha256(one.model) == state_sha256(two.model)
    assert one.history["lr"] == two.history["lr"]
    assert isinstance(two.base_lr, float)
    checkpoint = Checkpoint(folder, steps=whole(1), keep=whole(2), seconds=kind(1e4), signals=False)
    with pytest.raises(KeyboardInterrupt):
        made(lambda value: value, whole, checkpoint, Stop()).fit(points(), points(8, 1), epochs=whole(2), batch_size=8,
                                                                 seed=seed)  # fmt: skip
    state = load_latest(folder)[0]
    assert state["step"] == stop
    assert state["callbacks"]["Stop"] == {"mean": 0.5, "count": 3, "flag": True}
    again = made(lambda value: value, whole, Checkpoint(folder, signals=False), Stop())
    again.load_state_dict(state)
    again.step = stop
    again.callbacks.pop()
    again.resume(points(), points(8, 1), batch_size=8, seed=seed)
    assert state_sha256(again.model) == state_sha256(one.model)


@pytest.mark.parametrize("value", [2.5, "3", None, np.float32(2), [1]])
def test_counts_are_whole_numbers(value):
    for call, name in (
        (lambda: trainer(net()).fit(points(), epochs=value), "Trainer.fit: epochs"),
        (lambda: trainer(net()).fit(points(), epochs=1, batch_size=value), "Batches: batch_size"),
        (lambda: Watch(value), "Watch: every"),
        (lambda: Patience(value), "Patience: epochs"),
        (lambda: ChillOut(value), "ChillOut: checks"),
        (lambda: StopOnNonFinite(value), "StopOnNonFinite: every"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a whole number, got "):
            call()


# ---- what cannot be saved


class Scale(nn.Module):
    """A layer that nobody registered."""

    def __init__(self, size):
        self.size = size
        self.weight = nn.Parameter(np.ones(size, np.float32))

    def forward(self, input):
        return self._save(input * self.weight.data, input)

    def backward(self, grad_output):
        grad_output, input = self._recall(grad_output)
        self.weight.grad += (grad_output * input).sum(axis=0)
        return grad_output * self.weight.data


class Forgetful(nn.Tanh):
    """A layer that does not keep what it was made of."""

    def __init__(self, size=3):
        pass


@pytest.mark.parametrize("deep", [False, True])
def test_a_model_that_no_file_can_hold_is_refused_before_training(deep, tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(Scale(2)) if deep else Scale(2))
    before = state_sha256(model)
    message = r"(?s)Scale is not registered.*import serialize\n\n    @serialize.register\n    class Scale\("
    with pytest.raises(TypeError, match=message):
        RunWriter.start(tmp_path / "run", {}, model)
    assert not (tmp_path / "run").exists()
    with RunWriter.start(tmp_path / "run", {}) as writer:
        run = trainer(model, writer)
        with pytest.raises(TypeError, match=message):
            run.fit(points(), epochs=1)
    with pytest.raises(TypeError, match=message):
        serialize.save(model, tmp_path / "model")
    assert (run.step, state_sha256(model)) == (0, before)
    run = trainer(model, Checkpoint(tmp_path / "c", steps=1))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TypeError, match=message):
        run.fit(points(), epochs=1)
    assert (run.step, (tmp_path / "c").exists(), signal.getsignal(signal.SIGINT)) == (0, False, handler)
    serialize.check(net())
    serialize.register(Forgetful)
    try:
        with pytest.raises(TypeError, match=r"Forgetful cannot be described: .*'size'; keep every argument"):
            serialize.check(nn.Sequential(Forgetful()))
    finally:
        del serialize.LAYERS["Forgetful"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, object()]}}, r"Odd/a/b/1 is a object, neither an array nor a value of JSON"),
        ({"a": {1: 2}}, r"Odd/a has the key 1, which is no string"),
        ({"a": np.zeros(2, np.float16)}, r"Odd/a must be float32, float64 or int64, got float16"),
    ],
)
def test_a_state_that_no_file_can_hold_is_refused_before_training(state, message, tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return state

    handler = signal.getsignal(signal.SIGINT)
    run = trainer(net(), Odd(), Checkpoint(tmp_path / "c"))
    with pytest.raises(TypeError, match=message):
        run.fit(points(), epochs=1)
    assert run.step == 0
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(TypeError, match=message.removeprefix("Odd/")):
        save_checkpoint(tmp_path / "state", state)


def test_a_state_that_becomes_so_costs_a_checkpoint_and_not_the_run(tmp_path):
    class Late(Callback):
        def state_dict(self):
            return {"what": object() if self.trainer.step == 2 else None}

        def on_fit_start(self, trainer):
            self.trainer = trainer

        trainer = type("", (), {"step": 0})

    run = trainer(net(), Late(), Checkpoint(tmp_path / "c", steps=1, signals=False))
    with pytest.warns(RuntimeWarning, match=r"the checkpoint at step 2 failed: .*Late/what is a object.*goes on"):
        run.fit(points(), epochs=1, batch_size=8)
    assert [path.name[:13] for path in checkpoints(tmp_path / "c")] == ["step-00000003", "step-00000004"]


# ---- why


class Enough(Callback):
    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self._stop)

    def _stop(self, trainer):
        if trainer.step >= self.step and trainer.stop_reason is None:
            trainer.stop("three × – are enough")


@pytest.mark.parametrize("hook", ["on_step_start", "on_step_end", "on_epoch_start", "on_epoch_end", "on_safe_point"])
def test_a_run_that_stops_says_why_last(hook, tmp_path, capsys):
    with RunWriter.start(tmp_path / "run", {}) as writer:
        run = trainer(net(), writer, Enough(hook, 3), progress=True)
        run.fit(points(), points(8, 1), epochs=9, batch_size=16)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "stopped: three × – are enough"
    assert len(lines) == 1 + len(run.history) + 1
    [event] = read_record(tmp_path / "run").events
    assert (event["event"], event["text"], event["step"]) == ("stopped", run.stop_reason, run.step)
    state = run.state_dict()
    again = trainer(net(), Enough(hook, 3), progress=True)
    again.load_state_dict(state)
    again.resume(points(), points(8, 1), batch_size=16)
    assert (again.stop_reason, again.step) == (run.stop_reason, run.step)
    assert capsys.readouterr().out == ""
    trainer(net(), progress=True).fit(points(), epochs=1)
    assert "stopped" not in capsys.readouterr().out


def test_the_command_says_that_its_patience_is_at_an_end(tmp_path):
    arguments = ["train", "--model", "linear", "--epochs", "30", "--lr", "1e-9", "--patience", "2", "--json", "--out"]
    done = CliRunner().invoke(main, [*arguments, str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    reason = result["reason"]
    assert reason.startswith("validation figures have not improved for 2 epochs, since epoch")
    assert f"\nstopped: {reason}\n" in done.stderr
    assert done.stderr.index("stopped: ") > done.stderr.index(f"\n{result['epochs']:>2}/30")
    record = read_record(tmp_path / "run")
    assert (record.status, record.result["reason"], record.events[-1]["text"]) == ("stopped", reason, reason)


# ---- streams


class Tee:
    """All that a stream needs to have."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("make", [lambda: None, Tee, closed], ids=["none", "write and flush", "closed"])
def test_a_fit_runs_whatever_the_streams_are(name, make, monkeypatch, capsys):
    stream = make()
    monkeypatch.setattr(sys, name, stream)
    run = trainer(net(), Enough("on_step_end", 2), progress=True)
    run.fit(points(), points(8, 1), epochs=2, batch_size=16)
    assert run.step == 2
    shown = stream.text if isinstance(stream, Tee) and name == "stdout" else capsys.readouterr().out
    assert shown.endswith("stopped: three × – are enough\n") == (name == "stderr" or isinstance(stream, Tee))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp932", "cp437", "cp1251", "utf-16"])
def test_a_fit_runs_in_any_encoding(encoding):
    raw = io.BytesIO()
    x, _ = points()
    run = trainer(
        nn.Sequential(nn.Linear(2, 1)), Progress(io.TextIOWrapper(raw, encoding)), Enough("on_step_end", 2),
        loss=nn.MSELoss(),
    )  # fmt: skip
    run.fit((x, x[:, :1]), (x, x[:, :1]), epochs=2, batch_size=16)  # a regression has no accuracy: a dash
    lines = raw.getvalue().decode(encoding).splitlines()
    assert lines[1].split()[2] in ("–", "-")
    assert lines[-1].startswith("stopped: three ")


def test_a_stream_that_breaks_is_told_of_once_and_costs_no_step():
    class Full(Tee):
        def write(self, text):
            if len(self.text) > 60:
                raise OSError(28, "No space left on device")
            return super().write(text)

    run = trainer(net(), Progress(Full()))
    with pytest.warns(RuntimeWarning, match="progress is not shown any more: .*No space left") as caught:
        run.fit(points(), epochs=5)
    assert len(caught) == 1
    assert run.step == 5


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines, bar = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stderr", bar)
    trainer(net(), Progress(lines), Enough("on_epoch_end", 2)).fit(points(), epochs=4, batch_size=16)
    assert "epoch 1/4" in bar.getvalue()
    assert [line.split()[0] for line in lines.getvalue().splitlines()] == ["epoch", "1/4", "stopped:"]


# ---- signals


def test_a_handler_that_another_has_set_meanwhile_stays(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    other = lambda number, frame: None  # noqa: E731
    try:
        with EndRequest(str) as request:
            mine = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, other)
        assert signal.getsignal(signal.SIGINT) is other
        with pytest.raises(KeyboardInterrupt):  # and one that is put back by it is not deaf
            mine(signal.SIGINT, None)
        assert request.number is None
    finally:
        signal.signal(signal.SIGINT, before)
    real = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else real(number))
    term = real(signal.SIGTERM)
    with EndRequest(str):  # not set from Python: it could not be put back
        assert real(signal.SIGTERM) is term
        assert real(signal.SIGINT) is not before
    assert real(signal.SIGINT) is before


def test_a_request_is_noted_where_standard_error_is_little(monkeypatch, tmp_path):
    for stream in (None, Tee(), closed()):
        monkeypatch.setattr(sys, "stderr", stream)

        class Press(Callback):
            def on_step_end(self, trainer):
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(Interrupted, match="SIGINT at step 1"):
            trainer(net(), Checkpoint(tmp_path / type(stream).__name__), Press()).fit(points(), epochs=1)
