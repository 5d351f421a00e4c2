"""Callbacks: each alone, what it says and does at the moment it is there for."""

import struct
import time

import numpy as np
import pytest

import fastconv
from fastconv import nn, optim
from fastconv.train import (
    Callback,
    ChillOut,
    Diverged,
    KeepBest,
    Patience,
    Progress,
    StopOnNonFinite,
    TensorBoard,
    Trainer,
    state_sha256,
)  # fmt: skip


def points(n=32, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def net(*between):
    fastconv.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), *between, nn.Linear(8, 2))


def trainer(model, *callbacks, loss=None, lr=0.1, **options):
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    options = {"progress": False, **options}
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, **options)


class Spoil(nn.Module):
    """Passes on what it gets; from backward number `at` on, gradients are NaN."""

    def __init__(self, at):
        self.at, self.count = at, 0

    def forward(self, input):
        return self._save(input)

    def backward(self, grad_output):
        self.count += 1
        return grad_output * np.nan if self.count >= self.at else grad_output


class Figures(Callback):
    """Puts figures of our own in the place of the validation's."""

    def __init__(self, losses, accuracies=None):
        self.losses, self.accuracies = losses, accuracies or [0.5] * len(losses)
        self.weights, self.optimizer = [], []

    def on_epoch_end(self, trainer):
        i = trainer.epoch
        trainer.history[-1].update(validation_loss=self.losses[i], validation_accuracy=self.accuracies[i])
        self.weights.append(trainer.model.state_dict())
        self.optimizer.append(trainer.optimizer.state_dict())


# ---- not finite


def test_a_gradient_that_is_not_finite_is_named_at_its_step():
    run = trainer(net(nn.Tanh(), Spoil(6)), StopOnNonFinite(every=1))
    message = (
        r"the gradient of bias of layer 0 \(Linear\) holds 8 NaN of 8 after 6 updates, in epoch 2 \(learning rate 0.1"
    )
    with pytest.raises(Diverged, match=message) as caught:
        run.fit(points(), epochs=3, batch_size=8)
    assert (caught.value.step, caught.value.layer, caught.value.tensor) == (6, "0", "bias gradient")


def test_between_two_looks_the_next_loss_tells():
    """The update by the bad gradient is the sixth, and it reached the bias of layer 0 first."""
    run = trainer(net(nn.Tanh(), Spoil(6)), StopOnNonFinite())
    with pytest.raises(Diverged, match=r"^bias of layer 0 \(Linear\) holds 8 NaN of 8 after 6 updates") as caught:
        run.fit(points(), epochs=3, batch_size=8)
    assert (caught.value.step, caught.value.layer, caught.value.tensor) == (6, "0", "bias")


def test_an_output_that_overflows_is_named():
    model = net(nn.Tanh(), nn.Linear(8, 8), nn.ReLU())
    model[2].weight.data.fill(3e38)
    with pytest.raises(
        Diverged, match=r"the output of layer 2 \(Linear\) holds .* infinite of 64, its input .* after 0"
    ) as caught:
        trainer(model, StopOnNonFinite()).fit(points(), epochs=1, batch_size=8)
    assert (caught.value.layer, caught.value.tensor) == ("2", "output")


def test_the_batch_itself_is_looked_at():
    x, y = points()
    x[5, 1] = np.inf
    with pytest.raises(Diverged, match="the input of the batch holds 1 infinite of 64 after 0 updates") as caught:
        trainer(net(), StopOnNonFinite()).fit([(x, y)], epochs=1)
    assert (caught.value.layer, caught.value.tensor) == (None, "input")
    x, _ = points()
    target = np.where(np.arange(64).reshape(32, 2) == 3, np.nan, 0).astype(np.float32)
    with pytest.raises(Diverged, match="the target of the batch holds 1 NaN of 64"):
        trainer(net(), StopOnNonFinite(), loss=nn.MSELoss()).fit([(x, target)], epochs=1)


def test_parameters_from_the_start():
    model = net()
    model[1].weight.data[0, :3] = [np.nan, np.inf, -np.inf]
    with pytest.raises(Diverged, match=r"weight of layer 1 \(Linear\) holds 1 NaN and 2 infinite of 16 after 0"):
        trainer(model, StopOnNonFinite()).fit(points(), epochs=1)


def test_the_loss_alone():
    class Log(nn.MSELoss):
        def __call__(self, output, target):
            return float("nan")

    x, _ = points()
    with pytest.raises(Diverged, match=r"Log is nan, of outputs .* to .*, after 0 updates") as caught:
        trainer(net(), StopOnNonFinite(), loss=Log()).fit([(x, x)], epochs=1)
    assert caught.value.layer == "Log"


def test_running_statistics_show_in_validation():
    model = net(nn.BatchNorm1d(8))
    model[1].running_var[3] = np.nan
    with pytest.raises(Diverged, match=r"running_var of layer 1 \(BatchNorm1d\) holds 1 NaN of 8 after 1 update,"):
        trainer(model, StopOnNonFinite()).fit([points()], [points()], epochs=1)


def test_the_search_uses_the_same_masks_and_leaves_the_model_as_it_was():
    """Dropout of nine in ten multiplies the rest by ten: whether that overflows is up to the mask."""
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.9), nn.Linear(2, 2))
    model[0].weight.data[:] = [1, 5e37]
    model[2].weight.data[:] = 0
    seen = []

    class Look(Callback):
        def on_non_finite(self, trainer, batch):
            seen.append((state_sha256(trainer.model), trainer.model.extra_state()))

    with pytest.raises(Diverged, match=r"the output of layer 1 \(Dropout\) holds") as caught:
        trainer(model, Look(), StopOnNonFinite(), lr=0.0).fit([points(4, seed) for seed in range(20)], epochs=5)
    assert caught.value.step > 0
    assert (state_sha256(model), model.extra_state()) == seen[0]
    assert not any(module._hooks for module in model.modules())


def test_sums_that_overflow_are_no_false_alarm():
    model = net()
    model[0].bias.data.fill(3e38)
    model[1].weight.data.fill(0)
    trainer(model, StopOnNonFinite(every=1), lr=0.0).fit(points(), epochs=1)


def test_a_parameter_no_loss_shows_is_found_at_the_end_of_the_epoch():
    """A ReLU hides a bias of minus infinity."""
    model = net(nn.ReLU())
    model[0].bias.data[2] = -np.inf
    for callbacks, message in (
        ((), r"^0\.bias is no longer finite after 4 updates"),
        ((StopOnNonFinite(),), r"^bias of layer 0 \(Linear\) holds 1 infinite of 8 after 4 updates"),
        ((StopOnNonFinite(every=3),), r"^bias of layer 0 \(Linear\) holds 1 infinite of 8 after 3 updates"),
    ):
        with pytest.raises(Diverged, match=message):
            trainer(model, *callbacks, lr=0.0).fit(points(), epochs=1, batch_size=8)


# ---- patience and chilling out


@pytest.mark.parametrize(
    ("accuracies", "losses", "epochs", "best"),
    [
        ([0.5, 0.7, 0.6, 0.7, 0.7, 0.7], [1, 1, 1, 1, 1, 1], 5, 2),  # the first of equals is the best
        ([0.5, 0.7, 0.6, 0.7, 0.7, 0.7], [1, 1, 1, 1, 0.9, 1], 6, None),  # equal accuracy, lower loss
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], [1, 1, 1, 1, 1, 1], 6, None),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0.9, 0.8, 0.7, 0.6, 0.5], 4, 1),
    ],
)
def test_patience(accuracies, losses, epochs, best):
    run = trainer(net(), Figures(losses, accuracies), Patience(3))
    run.fit(points(), points(), epochs=6)
    assert len(run.history) == epochs
    expected = None if best is None else f"validation figures have not improved for 3 epochs, since epoch {best}"
    assert run.stop_reason == expected


def test_patience_needs_validation():
    run = trainer(net(), Patience(1))
    assert len(run.fit(points(), epochs=4)) == 4


class Records(Callback):
    def __init__(self):
        self.events = []

    def on_record(self, trainer, record):
        if record["kind"] == "event":
            self.events.append((record["step"], record["event"], record["text"]))


def test_chill_out_goes_back_and_halves_the_rate():
    figures, records = Figures([1.0, 0.8, 0.9, 0.85, 0.7, 2.0, 0.6]), Records()
    after = []

    class Look(Callback):
        def on_safe_point(self, trainer):
            after.append((trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.base_lr))

    chill = ChillOut(checks=2, regress=1.5)
    run = trainer(net(), figures, chill, records, Look(), keep_best=False)
    run.fit([points()], [points()], epochs=7)
    assert chill.count == 2
    assert [event[:2] for event in records.events] == [(4, "chill out"), (6, "chill out")]
    assert records.events[0][2] == (
        "validation loss has not improved on 0.8 for 2 epochs: back to epoch 2, base learning rate 0.05"
    )
    assert records.events[1][2] == (
        "validation loss 2 is more than 1.5 times the best, 0.7: back to epoch 5, base learning rate 0.025"
    )
    assert [base for *_, base in after] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    for epoch, best in ((4, 2), (6, 5)):  # weights and momentum of the best epoch
        for found, expected in zip(after[epoch - 1][:2], (figures.weights[best - 1], figures.optimizer[best - 1])):  # noqa: B905
            for name in found:
                if name != "lr":
                    np.testing.assert_array_equal(found[name], expected[name])
    assert run.history["lr"] == [0.1] * 4 + [0.05] * 2 + [0.025]
    assert run.history["steps"] == [1, 2, 3, 4, 5, 6, 7]


def test_keep_best_sees_the_weights_before_chill_out_changes_them():
    """Epoch 2 has the best accuracy and, by its loss, makes the run go back to epoch 1."""
    figures = Figures([0.5, 5.0, 0.6], [0.5, 0.9, 0.6])

    class First(KeepBest):
        """A KeepBest that sees the figures put in above."""

    chill = ChillOut()
    run = trainer(net(), figures, First(), chill, keep_best=False)
    run.fit([points()], [points()], epochs=3)
    assert chill.count == 1
    for name, array in run.model.state_dict().items():
        np.testing.assert_array_equal(array, figures.weights[1][name])
    assert isinstance(trainer(net(), chill).callbacks[0], KeepBest)


def test_chill_out_mends_a_rate_that_is_too_high():
    def last(*callbacks):
        run = trainer(net(nn.Tanh()), *callbacks, lr=30.0, keep_best=False)
        run.fit(points(256), points(256, seed=1), epochs=30, batch_size=8)
        return run.history[-1]["validation_loss"]

    assert last(ChillOut(1)) < 0.5 * last()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patience(0), "epochs must be at least 1, got 0"),
        (lambda: ChillOut(0), "checks must be at least 1, got 0"),
        (lambda: ChillOut(factor=1.0), r"factor must be in \(0, 1\), got 1.0"),
        (lambda: ChillOut(regress=0.9), "regress must be at least 1, got 0.9"),
        (lambda: StopOnNonFinite(0), "every must be at least 1, got 0"),
    ],
)
def test_values_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_events_follow_the_line_of_their_epoch(capsys):
    trainer(net(), Figures([1.0, 2.0]), ChillOut(), Progress()).fit([points()], [points()], epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "1/2", "2/2", "chill"]
    assert lines[-1].startswith("chill out: validation loss 2 is more than 1.5 times the best, 1: back to epoch 1")


# ---- TensorBoard


def events(folder):
    """Read event files back: records of length, CRC, data, CRC (TFRecord), each an Event of protocol buffers."""
    from tensorboardX.proto import event_pb2

    for path in sorted(folder.iterdir()):
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            (length,) = struct.unpack_from("<Q", raw, at)
            yield event_pb2.Event.FromString(raw[at + 12 : at + 12 + length])
            at += 12 + length + 4


def test_tensorboard_files_hold_every_figure(tmp_path):
    pytest.importorskip("tensorboardX")

    class Step(Callback):
        def on_step_end(self, trainer):
            trainer.log({
                "kind": "step", "step": trainer.step, "loss": trainer.batch_loss, "lr": 0.1,
                "update_ratio": {"0.weight": 1e-3}, "grad_norm": {"0.weight": float("inf")},
                "activations": {"0": {"mean": 0.5, "dead": 0.25}},
            })  # fmt: skip
            trainer.log({"kind": "event", "step": trainer.step, "event": "advice", "text": "go on"})

    run = trainer(net(), TensorBoard(tmp_path / "tb"), Step())
    history = run.fit([points()] * 2, [points()], epochs=2)
    found = {}
    texts = 0
    for event in events(tmp_path / "tb"):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            else:
                texts += 1
    float32 = [float(np.float32(value)) for value in history["validation_loss"]]
    assert found["loss/validation"] == list(zip((2, 4), float32, strict=True))
    assert [step for step, _ in found["loss/training"]] == [2, 4]
    assert [step for step, _ in found["step/loss"]] == [1, 2, 3, 4]
    assert "grad_norm/0.weight" not in found  # no place on a curve
    assert found["activations_dead/0"] == [(step, 0.25) for step in (1, 2, 3, 4)]
    assert {"accuracy/training", "accuracy/validation", "learning_rate", "update_ratio/0.weight"} < found.keys()
    assert texts == 4


def test_tensorboard_of_a_resumed_run_takes_back_what_was_lost(tmp_path):
    pytest.importorskip("tensorboardX")
    run = trainer(net())
    run.fit([points()], epochs=2)
    state = run.state_dict()
    again = trainer(net(), TensorBoard(tmp_path / "tb"))
    again.load_state_dict(state)
    time.sleep(0.01)
    again.fit([points()], epochs=1)
    starts = [event.step for event in events(tmp_path / "tb") if event.HasField("session_log")]
    assert starts == [3]


def test_a_missing_tensorboardx_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[tensorboard\]'"):
        TensorBoard("somewhere")
