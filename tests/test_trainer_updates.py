"""What a trainer does between backward and step, and to what it validates: clipping, averages, several batches an
update, weights of samples; alone, through checkpoints and through the command line."""

import copy
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal

import fastconv
from fastconv import data, nn, optim
from fastconv.cli import main
from fastconv.diagnose import check
from fastconv.train import Callback, ChillOut, Trainer, evaluate
from fastconv.train.checkpoint import load_checkpoint, save_checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 48)
W = RNG.uniform(0.1, 3, 48).astype(np.float32)


def net():
    fastconv.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def made(model=None, loss=None, lr=0.2, **options):
    model = net() if model is None else model
    loss = nn.CrossEntropyLoss() if loss is None else loss
    return Trainer(model, loss, optim.SGD(model, lr=lr, momentum=0.9), progress=False, **options)


def bits(model):
    return [array.tobytes() for array in model.state_dict().values()]


class Look(Callback):
    """Notes the norm of the gradients that each update takes, and may scale them."""

    def __init__(self, factor=1.0):
        self.norms, self.steps, self.factor = [], [], factor

    def on_gradients(self, trainer):
        self.norms.append(optim.clip_grad_norm_(trainer.model, math.inf))
        for p in trainer.model.parameters():
            p.grad *= np.float32(self.factor)

    def on_step_end(self, trainer):
        self.steps.append(trainer.step)


def test_gradients_are_held_within_bounds():
    look = Look()
    run = made(clip_norm=0.05, callbacks=[look])
    run.fit(X, Y, epochs=2, batch_size=16)
    assert max(look.norms) < 0.0501
    assert all(record["gradient_norm"] > 0.05 and record["clipped"] == 1.0 for record in run.history)
    loose, plain = made(clip_norm=1e6, clip_value=1e6), made()
    for each in (loose, plain):
        each.fit(X, Y, epochs=2)
    assert bits(loose.model) == bits(plain.model)
    assert loose.history[-1]["clipped"] == 0.0
    assert "gradient_norm" not in plain.history[-1]


def test_the_hook_between_backward_and_step_changes_what_the_step_takes():
    halved, slow = made(callbacks=[Look(0.5)]), made(lr=0.1)
    for each in (halved, slow):
        each.fit(X, Y, epochs=3)
    for p, q in zip(halved.model.parameters(), slow.model.parameters(), strict=True):
        assert_allclose(p.data, q.data, rtol=1e-4, atol=1e-6)


def plain_net():
    fastconv.manual_seed(2)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).astype(np.float64)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_several_small_batches_are_one_large_one(l2):
    look = Look()
    small, large = made(plain_net(), accumulate=4, l2=l2, callbacks=[look]), made(plain_net(), l2=l2)
    batches = [(X[i : i + 4].astype(np.float64), Y[i : i + 4]) for i in range(0, 48, 4)]
    together = [(X[i : i + 16].astype(np.float64), Y[i : i + 16]) for i in range(0, 48, 16)]
    small.fit(batches, epochs=3)
    large.fit(together, epochs=3)
    assert look.steps == list(range(1, 10))
    assert small.step == large.step == 9
    for p, q in zip(small.model.parameters(), large.model.parameters(), strict=True):
        assert_allclose(p.data, q.data, rtol=1e-12, atol=1e-13)
    assert_allclose(small.history["penalty"], large.history["penalty"], rtol=1e-12)
    rest = made(plain_net(), accumulate=5)  # 12 batches: 5, 5 and 2
    rest.fit(batches, epochs=1)
    assert rest.step == 3


def test_averaged_weights_are_validated_kept_and_left():
    average = optim.EMA(model := net(), 0.8)
    run = made(model, ema=average, keep_best=False)
    run.fit(X, Y, (X, Y), epochs=3, batch_size=16)
    assert average.steps == 9
    assert run.history[-1]["validation_loss"] == evaluate(model, nn.CrossEntropyLoss(), data.Batches(
        X, Y, 16, shuffle=False)).loss  # fmt: skip
    by_hand = made(keep_best=False)
    ema = optim.EMA(by_hand.model, 0.8)

    class Update(Callback):
        def on_step_end(self, trainer):
            ema.update()

    by_hand.callbacks.append(Update())
    by_hand.fit(X, Y, epochs=3, batch_size=16)
    ema.copy_to(by_hand.model)
    assert bits(model) == bits(by_hand.model)
    best = made(ema=0.8)
    best.fit(X, Y, (X, Y), epochs=8, batch_size=16)
    found = evaluate(best.model, nn.CrossEntropyLoss(), data.Batches(X, Y, 16, shuffle=False))
    assert found.loss == best.history[best.best_epoch - 1]["validation_loss"]


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 5, 7, 8])
def test_a_resumed_run_has_the_same_bits_with_all_of_it(stop, tmp_path):
    def run(callbacks=()):
        loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=[1, 2, 3])
        model = net()
        optimizer = optim.AdamW(
            [{"params": model[0], "lr": 0.01}, {"params": [*model[1].parameters(), *model[3].parameters()]}],
            lr=0.1, decay_bias_norm=False,
        )  # fmt: skip
        made = Trainer(model, loss, optimizer, progress=False, clip_norm=0.5, ema=0.9, accumulate=2,
                       callbacks=[ChillOut(1), *callbacks])  # fmt: skip
        batches = data.Batches(X, Y, 7, seed=3, sample_weight=W)  # 7 batches, 4 updates per epoch
        return made, batches

    class Save(Callback):
        def on_safe_point(self, trainer):
            if trainer.step == stop:
                save_checkpoint(tmp_path / "state", trainer.state_dict())
                raise Stop

    whole, batches = run()
    whole.fit(batches, (X, Y, W), epochs=3)
    broken, batches = run([Save()])
    with pytest.raises(Stop):
        broken.fit(batches, (X, Y, W), epochs=3)
    again, batches = run()
    again.load_state_dict(load_checkpoint(tmp_path / "state"))
    again.resume(batches, (X, Y, W))
    assert bits(again.model) == bits(whole.model)
    kept = ("loss", "accuracy", "validation_loss", "validation_accuracy", "gradient_norm", "clipped", "lr", "steps")
    for name in kept:
        assert again.history[name] == whole.history[name], name
    plain = made()
    with pytest.raises(ValueError, match=r"with averaged weights, this one has none|other callbacks|this one has"):
        plain.load_state_dict(load_checkpoint(tmp_path / "state"))


def test_sample_weights_count_samples_several_times():
    """Whole weights are copies of the samples, in the gradient and in every figure."""
    rng = np.random.default_rng(3)
    times = rng.integers(0, 4, 48)
    x = X.astype(np.float64)
    weighted, copied = made(plain_net()), made(plain_net())
    rows = np.repeat(np.arange(48), times)
    weighted.fit([(x, Y, times.astype(np.float64))], [(x, Y, times.astype(np.float64))], epochs=4)
    copied.fit([(x[rows], Y[rows])], [(x[rows], Y[rows])], epochs=4)
    for p, q in zip(weighted.model.parameters(), copied.model.parameters(), strict=True):
        assert_allclose(p.data, q.data, rtol=1e-11, atol=1e-12)
    for name in ("loss", "validation_loss"):
        assert_allclose(weighted.history[name], copied.history[name], rtol=1e-12)


@pytest.mark.parametrize("loss", [
    nn.CrossEntropyLoss(weight=[1.0, 2.0, 5.0]), nn.CrossEntropyLoss(ignore_index=1),
    nn.CrossEntropyLoss(label_smoothing=0.2, weight=[3.0, 1.0, 1.0]),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("cut", [5, 16, 48])
def test_figures_are_those_of_the_whole_set_however_it_is_cut(loss, cut):
    model = plain_net()
    batches = [(X[i : i + cut].astype(np.float64), Y[i : i + cut]) for i in range(0, 48, cut)]
    found = evaluate(model, loss, batches)
    whole = float(loss(model(X.astype(np.float64)), Y))
    assert_allclose(found.loss, whole, rtol=1e-12)
    known = loss.ignore_index != Y
    right = model.predict(X).argmax(1) == Y
    assert found.accuracy == right[known].mean()
    assert found.confusion.sum() == known.sum()
    run = made(model, loss, lr=0.0)
    run.fit(batches, epochs=1)
    assert_allclose(run.history[-1]["loss"], whole, rtol=1e-12)
    assert run.history[-1]["accuracy"] == right[known].mean()


def test_pixels_and_dice_train():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(8, 1, 12, 12)).astype(np.float32)
    masks = (x[:, 0] > 0).astype(np.int64)
    masks[:, 0] = 255
    for loss in (nn.CrossEntropyLoss(ignore_index=255), nn.DiceLoss(ignore_index=255)):
        fastconv.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
        run = Trainer(model, loss, optim.Adam(model, lr=0.05), progress=False)
        run.fit([(x, masks)], epochs=40)
        assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]
        right = (model.predict(x).argmax(1) == masks)[:, 1:].mean()
        assert right > 0.9
        assert run.history[-1]["accuracy"] > 0.9
        assert evaluate(model, loss, [(x, masks)]).accuracy == right


def test_what_cannot_be_is_refused():
    model = net()
    for options, words in (
        ({"clip_norm": 0}, "clip_norm must be above 0, got 0"), ({"clip_value": -1}, "clip_value must be above 0"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"), ({"ema": 1.0}, r"EMA: decay must be in \[0, 1\)"),
        ({"loss": nn.CrossEntropyLoss("none")}, "a loss with reduction='none' gives an array"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            made(model, **options)
    with pytest.raises(ValueError, match="reduction='none' gives an array"):
        evaluate(model, nn.CrossEntropyLoss("none"), [(X, Y)])
    with pytest.raises(TypeError, match=r"or \(input, target, weights\), got 4 parts"):
        made(model).fit([(X, Y, W, W)], epochs=1)
    with pytest.raises(ValueError, match=r"sample_weight must hold 48 numbers, got float32 of shape \(3,\)"):
        made(model).fit((X, Y, W[:3]), epochs=1)


@pytest.mark.parametrize("loss", [
    nn.CrossEntropyLoss(label_smoothing=0.3), nn.CrossEntropyLoss(weight=[1.0, 4.0, 0.5]),
    nn.CrossEntropyLoss(weight=[1.0, 4.0, 0.5], label_smoothing=0.3),
], ids=repr)  # fmt: skip
def test_check_knows_what_an_untrained_net_costs_and_that_labels_are_smoothed(loss):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 3))).argmax(1)
    report = check(net(), (x, y), loss=loss, seconds=3)
    first = next(finding for finding in report.findings if finding.step == "loss")
    assert str(first.verdict) in ("good", "suspicious")
    assert not any("mean cross-entropy" in remark.text for remark in first.remarks)
    zeros = np.zeros((300, 3), np.float32)
    assert first.figures["expected"] == pytest.approx(float(copy.deepcopy(loss)(zeros, y)), rel=0.1)
    overfit = next(finding for finding in report.findings if finding.step == "overfit")
    assert str(overfit.verdict) == "good", overfit


def test_the_command_line_has_them(tmp_path):
    pytest.importorskip("sklearn")
    asked = ["train", "--epochs", "2", "--label-smoothing", "0.1", "--clip-norm", "1", "--ema", "0.9", "--json",
             "--accumulate", "2", "--no-decay-bias-norm", "--schedule", "one-cycle"]  # fmt: skip
    results = [CliRunner().invoke(main, [*asked, "--out", str(tmp_path / name)]) for name in ("a", "b")]
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    shas = [json.loads(result.output.strip().splitlines()[-1])["state_sha256"] for result in results]
    assert shas[0] == shas[1]
    options = json.loads((tmp_path / "a" / "config.json").read_text())["options"]
    assert (options["label_smoothing"], options["clip_norm"], options["ema"]) == (0.1, 1.0, 0.9)
    assert (options["accumulate"], options["decay_bias_norm"]) == (2, False)
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line.get("kind", "epoch") == "epoch"]
    assert all(record["gradient_norm"] > 0 and 0 <= record["clipped"] <= 1 for record in epochs)
    said = results[0].output
    for words in ("labels smoothed by 0.1", "clipped at norm 1", "decay 0.9", "2 per update", "not decayed"):
        assert words in said


def test_a_lossless_batch_of_labels_left_out_counts_nothing():
    """Batches of which no label counts weigh nothing in the figures."""
    model = plain_net()
    loss = nn.CrossEntropyLoss("sum", ignore_index=9)
    x = X.astype(np.float64)
    found = evaluate(model, loss, [(x[:8], Y[:8]), (x[8:16], np.full(8, 9))])
    assert_allclose(found.loss, float(nn.CrossEntropyLoss()(model(x[:8]), Y[:8])), rtol=1e-12)
    assert_array_equal(found.confusion.sum(), 8)
