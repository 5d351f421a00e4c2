"""The training loop: figures, order of events, best weights, divergence, the same bits on every setting."""

import hashlib
import json
import math
import tracemalloc

import numpy as np
import pytest

import fastconv
from fastconv import config, data, nn, optim, schedule
from fastconv.train import (
    Callback,
    Diverged,
    History,
    Progress,
    StopOnExplosion,
    Trainer,
    evaluate,
    state_sha256,
)  # fmt: skip
from fastconv.train.setup import DEFAULTS, fill, prepare


def points(n=64, seed=0):
    """Two classes in the plane, parted by a line."""
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def net(seed=0):
    fastconv.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))


def trainer(model, lr=0.5, **options):
    options = {"progress": False, **options}
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), **options)


def test_fit_learns_and_keeps_the_books():
    x, y = points()
    model = net()
    run = trainer(model)
    history = run.fit((x, y), points(32, seed=1), epochs=20, batch_size=16)
    assert len(history) == 20
    assert history["steps"] == [4 * k for k in range(1, 21)]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["accuracy"] > 0.95
    for record in history:
        assert record["seconds"] > 0
        assert 0 < record["step_ms"] < 1e3 * record["seconds"]
        assert record["images_per_second"] == pytest.approx(64 / record["seconds"])
        json.dumps(record, allow_nan=False)


def test_one_batch_is_one_plain_step():
    x, y = points()
    model, twin, loss = net(), net(), nn.CrossEntropyLoss()
    history = trainer(model, lr=0.25, keep_best=False).fit([(x, y)], epochs=1)
    expected = loss(twin(x), y)
    accuracy = (twin(x).argmax(axis=1) == y).mean()
    loss(twin(x), y)
    twin.backward(loss.backward())
    optim.SGD(twin.parameters(), lr=0.25).step()
    assert state_sha256(model) == state_sha256(twin)
    assert history[0]["loss"] == expected
    assert history[0]["accuracy"] == accuracy
    assert history[0]["lr"] == 0.25
    assert history[0]["penalty"] == 0


def test_uneven_batches_weigh_by_their_size():
    x, y = points(10)
    model = net()
    run = trainer(model, lr=0.0)
    history = run.fit([(x[:8], y[:8]), (x[8:], y[8:])], [(x[:3], y[:3]), (x[3:], y[3:])], epochs=1)
    whole = evaluate(model, nn.CrossEntropyLoss(), [(x, y)])
    # Each batch's mean is rounded in float32.
    assert history[0]["loss"] == pytest.approx(whole.loss, rel=4 * float(np.finfo(np.float32).eps))
    assert history[0]["validation_loss"] == pytest.approx(whole.loss, rel=4 * float(np.finfo(np.float32).eps))
    assert history[0]["accuracy"] == history[0]["validation_accuracy"] == whole.accuracy


def test_l2_is_weight_decay_on_weights_alone():
    x, y = points()
    model, twin, loss = net(), net(), nn.CrossEntropyLoss()
    before = [p.data.astype(np.float64) for p in model.parameters()]
    history = trainer(model, lr=0.5, l2=0.1, keep_best=False).fit([(x, y)], epochs=1)
    loss(twin(x), y)
    twin.backward(loss.backward())
    for p in twin.parameters():
        if p.data.ndim == 2:
            p.grad += 0.1 * p.data
    optim.SGD(twin.parameters(), lr=0.5).step()
    assert state_sha256(model) == state_sha256(twin)
    penalty = 0.05 * sum((w**2).sum() for w in before if w.ndim == 2)
    assert history[0]["penalty"] == pytest.approx(penalty, rel=1e-12)


def test_schedule_is_followed_from_the_base_rate():
    seen = []

    class Watch(Callback):
        def on_step_end(self, trainer):
            seen.append(trainer.optimizer.lr)

    run = trainer(net(), lr=0.5, schedule=schedule.StepLR(3, gamma=0.5), callbacks=[Watch()])
    run.fit(points(), epochs=2, batch_size=16)
    assert seen == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    run.fit(points(), epochs=1, batch_size=16)
    assert seen[8:] == [0.125, 0.0625, 0.0625, 0.0625]
    assert run.history["epoch"] == [1, 2, 3]


def test_callbacks_are_told_everything_in_order():
    events = []

    class Log(Callback):
        def on_fit_start(self, trainer):
            events.append("fit")

        def on_epoch_start(self, trainer):
            events.append(f"epoch {trainer.epoch}")

        def on_step_start(self, trainer):
            events.append(f"after {trainer.step}")

        def on_step_end(self, trainer):
            assert math.isfinite(trainer.batch_loss)
            events.append(trainer.step)

        def on_epoch_end(self, trainer):
            events.append(f"end {trainer.history[-1]['epoch']}")

        def on_fit_end(self, trainer):
            events.append("done")

    trainer(net(), callbacks=[Log()]).fit(points(), epochs=2, batch_size=32)
    first = ["epoch 0", "after 0", 1, "after 1", 2, "end 1"]
    second = ["epoch 1", "after 2", 3, "after 3", 4, "end 2"]
    assert events == ["fit", *first, *second, "done"]


def test_a_callback_ends_the_run():
    class Enough(Callback):
        def on_step_end(self, trainer):
            if trainer.step == 3:
                trainer.stop("three are enough")

    run = trainer(net(), callbacks=[Enough()])
    run.fit(points(), epochs=5, batch_size=16)
    assert (run.step, len(run.history), run.stop_reason) == (3, 1, "three are enough")


def test_the_best_weights_come_back():
    """With an absurd rate after the second epoch, the weights of the second epoch are the best."""
    model = net()
    digests = []

    class Watch(Callback):
        def on_epoch_end(self, trainer):
            digests.append(state_sha256(trainer.model))

    run = trainer(model, callbacks=[Watch()], schedule=lambda step: 1.0 if step < 8 else -2.0)
    run.fit(points(), points(200, seed=2), epochs=4, batch_size=16)
    best = run.best_epoch
    assert best == 1 + max(
        range(4), key=lambda k: (run.history["validation_accuracy"][k], -run.history["validation_loss"][k])
    )
    assert best <= 2
    assert state_sha256(model) == digests[best - 1]


def test_without_validation_the_last_weights_stay():
    model = net()
    run = trainer(model)
    run.fit(points(), epochs=2)
    assert run.best_epoch is None
    assert run.history[-1]["validation_loss"] is None
    assert model.training


def test_divergence_names_the_step():
    run = trainer(net(), lr=1e38)
    with pytest.raises(Diverged, match=r"after \d+ updates, in epoch 1 \(learning rate 1e\+38\)") as caught:
        run.fit((1e3 * points()[0], points()[1]), epochs=3, batch_size=16)
    assert caught.value.step <= 4
    assert isinstance(caught.value, ArithmeticError)


def test_an_exploding_loss_is_noticed():
    run = trainer(net(), lr=100.0, callbacks=[StopOnExplosion(3)])
    with pytest.raises(Diverged, match="is more than 3 times the first loss"):
        run.fit(points(), epochs=3, batch_size=8)
    with pytest.raises(ValueError, match="factor must be above 1, got 1"):
        StopOnExplosion(1)


def test_evaluation_changes_nothing_and_counts_confusions():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    model[2].eval()
    before = state_sha256(model)
    x, y = points(50)
    found = evaluate(model, nn.CrossEntropyLoss(), [(x[:20], y[:20]), (x[20:], y[20:])])
    assert state_sha256(model) == before
    assert [m.training for m in model.modules()] == [True, True, True, False, True]
    with pytest.raises(RuntimeError, match="called before forward"):  # none of the training's
        model.backward(np.ones((30, 3), np.float32))
    expected = np.zeros((3, 3), np.int64)
    np.add.at(expected, (y, model.predict(x).argmax(axis=1)), 1)
    np.testing.assert_array_equal(found.confusion, expected)
    assert found.accuracy == np.trace(expected) / 50
    assert found.samples == 50
    with pytest.raises(ValueError, match="no samples"):
        evaluate(model, nn.CrossEntropyLoss(), [])


@pytest.mark.parametrize("seed", range(4))
def test_hits_are_counted_of_any_number_of_classes_and_confusions_where_they_are_asked_for(seed):
    rng = np.random.default_rng(seed)
    classes, model = int(rng.integers(2, 50)), nn.Identity()
    batches = [(rng.standard_normal((n, classes)).astype(np.float32), rng.integers(0, classes, n)) for n in (7, 0, 3)]
    scores, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    expected = np.zeros((classes, classes), np.int64)
    np.add.at(expected, (labels, scores.argmax(axis=1)), 1)
    for asked in (None, True, False):
        found = evaluate(model, nn.CrossEntropyLoss(), batches, asked)
        assert found.accuracy == np.trace(expected) / 10
        if asked is False:
            assert found.confusion is None
        else:
            np.testing.assert_array_equal(found.confusion, expected)


def test_many_classes_take_no_memory_of_their_square():
    many = 100_000
    x, y = np.eye(3, many, dtype=np.float32), np.array([0, 1, many - 1])
    tracemalloc.start()
    try:
        found = evaluate(nn.Identity(), nn.CrossEntropyLoss(), [(x, y)])
        assert tracemalloc.get_traced_memory()[1] < 100 * x.nbytes
    finally:
        tracemalloc.stop()
    assert found.accuracy == 2 / 3
    assert found.confusion is None
    with pytest.raises(ValueError, match="batches with 3 and 2 classes"):
        evaluate(nn.Identity(), nn.CrossEntropyLoss(), [(x[:2, :3], y[:2]), (x[:2, :2], y[:2])])


def test_targets_that_are_not_labels_have_no_accuracy():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 1))
    x, _ = points()
    run = Trainer(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.1), progress=False)
    history = run.fit((x, x[:, :1] - 2 * x[:, 1:]), (x, x[:, :1] - 2 * x[:, 1:]), epochs=60)
    assert history[-1]["accuracy"] is None
    assert history[-1]["validation_accuracy"] is None
    assert history[-1]["validation_loss"] < 1e-2 * history[0]["validation_loss"]
    assert run.best_epoch == 1 + int(np.argmin(history["validation_loss"]))


def test_float64_models_get_float64_batches():
    model = net().astype(np.float64)
    trainer(model).fit(points(), points(), epochs=1)
    assert all(p.data.dtype == np.float64 for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trainer(net(), l2=-1.0), "l2 must be finite and at least 0, got -1.0"),
        (lambda: trainer(net()).fit(points(), epochs=0), "epochs must be at least 1, got 0"),
        (lambda: trainer(net()).fit([], epochs=1), "the training data have no batch"),
    ],
)
def test_what_cannot_be_trained_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_progress_prints_a_line_an_epoch(capsys):
    trainer(net(), callbacks=[Progress()]).fit(points(), points(), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == [
        "epoch",
        "loss",
        "accuracy",
        "val",
        "loss",
        "val",
        "acc",
        "lr",
        "ms/step",
        "seconds",
    ]
    assert lines[1].split()[0] == "1/2"
    assert len({len(line) for line in lines}) == 1


def test_history_slices_by_row_and_column():
    history = History([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}, {"epoch": 3}])
    assert history["loss"] == [2.0, 1.0, None]
    assert history[1:]["epoch"] == [2, 3]
    assert history.best("loss") == {"epoch": 2, "loss": 1.0}
    assert history.best("loss", highest=True)["epoch"] == 1
    with pytest.raises(ValueError, match="no record of 'accuracy' in 3 epochs"):
        history.best("accuracy")


def test_state_sha256_is_over_names_dtypes_shapes_and_bytes():
    model = nn.Sequential(nn.Linear(2, 1))
    model[0].weight.data[...] = [[1, 2]]
    model[0].bias.data[...] = 3
    text = b"0.weight\0<f4\0(1, 2)\0" + np.array([1, 2], "<f4").tobytes()
    text += b"0.bias\0<f4\0(1,)\0" + np.array([3], "<f4").tobytes()
    assert state_sha256(model) == hashlib.sha256(text).hexdigest()


def fifty_steps():
    """Convolution, batch normalisation, pooling, dropout, momentum and L2 for 50 updates."""
    fastconv.manual_seed(11)
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(60, 2, 6, 6)).astype(np.float32), rng.integers(0, 5, 60)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Residual(nn.Sequential(nn.Conv2d(5, 5, 3, padding=1), nn.Tanh())), nn.AvgPool2d(3), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(5, 5),
    )  # fmt: skip
    run = Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
        l2=1e-3, schedule=schedule.Cosine(50), progress=False,
    )  # fmt: skip
    run.fit((x, y), (x, y), epochs=10, batch_size=13)
    return run.step, state_sha256(model)


def test_fifty_steps_have_one_digest_on_every_setting(every_setting):
    results = every_setting(fifty_steps)
    assert {step for step, _ in results.values()} == {50}
    assert len({digest for _, digest in results.values()}) == 1, results


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "adagrad"])
def test_every_optimiser_learns_digits(name):
    setup = prepare(fill("digits", optimizer=name, epochs=4, augment=False), progress=False)
    setup.trainer.fit(setup.train, setup.validation, epochs=4)
    assert evaluate(setup.model, setup.loss, setup.test).accuracy > 0.8


def test_options_are_filled_for_the_data_set():
    options = fill("mnist", lr=0.3, model=None)
    assert (options.model, options.lr, options.momentum) == ("lenet5", 0.3, 0.9)
    assert fill("digits").weight_decay == 5e-4
    assert fill("digits", optimizer="adam").weight_decay is None
    assert fill("digits", optimizer="adam", weight_decay=0.1).weight_decay == 0.1
    assert fill("digits", model="all-conv").init == "he"
    assert set(DEFAULTS) == set(data.names())
    for given, message in (
        ({"model": "nope"}, "unknown model 'nope'; known are linear, mlp"),
        ({"optimizer": "nope"}, "unknown optimiser 'nope'"),
        ({"init": "nope"}, "unknown initialisation 'nope'; known are default, small"),
        ({"schedule": "nope"}, "unknown schedule 'nope'"),
        ({"optimizer": "adam", "momentum": 0.5}, "adam has no momentum option"),
    ):
        with pytest.raises(ValueError, match=message):
            fill("digits", **given)
    with pytest.raises(ValueError, match="unknown data set 'nope'"):
        fill("nope")


@pytest.mark.parametrize("schedule", ["constant", "step", "inverse", "cosine"])
def test_every_schedule_and_warm_up(schedule):
    setup = prepare(fill("digits", schedule=schedule, warmup=5, epochs=2, model="mlp"), progress=False)
    setup.trainer.fit(setup.train, setup.validation, epochs=2)
    rates = {"constant": 1.0, "step": 0.01, "inverse": 0.1, "cosine": 0.0}
    assert setup.trainer.history[-1]["lr"] == pytest.approx(0.05 * rates[schedule], abs=0.005)


@pytest.mark.slow
def test_mnist_lenet5_in_one_epoch(data_root):
    setup = prepare(
        fill("mnist", model="lenet5", epochs=1, batch_size=64, lr=0.05, momentum=0.9, seed=0), progress=False
    )
    with config.isa("auto"):
        setup.trainer.fit(setup.train, setup.validation, epochs=1)
        assert evaluate(setup.model, setup.loss, setup.test).accuracy >= 0.975
