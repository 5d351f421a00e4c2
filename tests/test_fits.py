"""What belongs to one fit and what goes on to the next: weights, callbacks, orders, modes, handlers, threads."""

import copy
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import data, nn, optim, schedule
from fastconv.diagnose.subject import Inputs, Subject
from fastconv.train import (
    Callback,
    Checkpoint,
    ChillOut,
    KeepBest,
    Patience,
    StopOnExplosion,
    Trainer,
    state_sha256,
)  # fmt: skip

TIMES = ("seconds", "step_ms", "images_per_second")
few = settings(deadline=None, max_examples=15)


def points(n=40, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def net(seed=0):
    fastconv.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


class Worst(Callback):
    """A user's own: it remembers the highest loss, and says at which step it is passed."""

    def __init__(self):
        self.highest, self.passed = None, []

    def on_step_end(self, trainer):
        if self.highest is None or trainer.batch_loss > self.highest:
            self.highest = trainer.batch_loss
            self.passed.append(trainer.step)

    def state_dict(self):
        return {"highest": self.highest, "passed": self.passed}

    def load_state_dict(self, state):
        self.highest, self.passed = state["highest"], state["passed"]


def trainer(model, *callbacks, lr=0.3, **options):
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, progress=False, **options)


def untimed(history):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in history]


@few
@given(seed=st.integers(0, 99), first=st.integers(1, 5), validated=st.booleans(), loaded=st.booleans())
def test_a_second_fit_is_as_the_first_of_another_trainer(seed, first, validated, loaded):
    """From the same weights and the same state of the optimiser, whatever the callbacks saw in the fit before."""

    def made():
        return trainer(net(seed), ChillOut(1), Patience(2), StopOnExplosion(), Worst())

    one, two = made(), made()
    one.fit(points(seed=seed), points(20, seed + 1), epochs=first, batch_size=16)
    if loaded:
        one.model.load_state_dict(net(seed + 1).state_dict())
    two.model.load_state_dict(one.model.state_dict())
    two.optimizer.load_state_dict(one.optimizer.state_dict())
    two.epoch, two.step, two.base_lr = one.epoch, one.step, one.base_lr
    done = len(one.history)
    images, labels = points(seed=seed + 2)
    for run in (one, two):
        run.fit((images, 1 - labels), points(20, seed + 3) if validated else None, epochs=4, batch_size=16)
    assert state_sha256(one.model) == state_sha256(two.model)
    assert untimed(one.history[done:]) == untimed(two.history)
    assert (one.stop_reason, one.best_epoch, one.base_lr) == (two.stop_reason, two.best_epoch, two.base_lr)
    assert one.callbacks[-1].state_dict() == two.callbacks[-1].state_dict()


def test_a_fit_without_validation_keeps_its_last_weights():
    last = []

    class See(Callback):
        def on_safe_point(self, trainer):
            last.append(state_sha256(trainer.model))

    run = trainer(net(), See())
    run.fit(points(), points(20, 1), epochs=3)
    assert run.best_epoch is not None
    run.fit(points(), epochs=3)
    assert run.best_epoch is None
    assert state_sha256(run.model) == last[-1]


def test_a_callback_that_another_trainer_used_begins_anew():
    best, worst = KeepBest(), Worst()
    trainer(net(), best, worst, keep_best=False).fit(points(), points(20, 1), epochs=2)
    other = trainer(net(1), best, worst, keep_best=False)
    passed = list(worst.passed)
    before = state_sha256(other.model)
    other.fit(points(seed=3), epochs=1)
    assert best.epoch is None
    assert state_sha256(other.model) != before
    assert worst.passed[0] == 1
    assert passed == passed[:1] + sorted(passed[1:])


def test_patience_counts_in_its_own_fit():
    run = trainer(net(), Patience(2), lr=0.0)  # nothing ever improves
    for _ in range(3):
        before = len(run.history)
        run.fit(points(), points(20, 1), epochs=9)
        assert len(run.history) - before == 3
        assert run.stop_reason == f"validation figures have not improved for 2 epochs, since epoch {before + 1}"


@few
@given(
    parts=st.lists(st.integers(1, 3), min_size=1, max_size=4), size=st.sampled_from([4, 7, 11, 16, 25, 50]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_epochs_in_several_fits_have_the_order_of_one(parts, size, seed):
    def run(*epochs):
        model = net(seed)
        made = trainer(model, keep_best=False, schedule=schedule.Cosine(100))
        for n in epochs:
            made.fit(points(), epochs=n, batch_size=size, seed=seed)
        return state_sha256(model), untimed(made.history)

    assert run(*parts) == run(sum(parts))


@few
@given(taken=st.integers(0, 3), size=st.sampled_from([5, 7, 11, 16]))
def test_a_look_at_some_batches_takes_none_from_the_fit(taken, size):
    def run(taken):
        model, batches = net(), data.Batches(*points(), size)
        for _ in zip(range(taken), batches, strict=False):
            pass
        trainer(model).fit(batches, epochs=2)
        return state_sha256(model)

    assert run(taken) == run(0)


def test_a_loaded_state_is_resumed_or_begun_anew():
    """In the middle of an epoch: `resume` does its rest, `fit` a whole one, also of other data."""
    states = []

    class Keep(Callback):
        def on_safe_point(self, trainer):
            states.append(trainer.state_dict())

    trainer(net(), Keep()).fit(points(), epochs=2, batch_size=8)
    state = next(state for state in states if state["step"] == 8)
    for n in (40, 16):
        run = trainer(net())
        run.load_state_dict(copy.deepcopy(state))
        run.fit(points(n), epochs=1, batch_size=8)
        assert (run.epoch, run.step) == (2, 8 + n // 8)
    run = trainer(net())
    run.load_state_dict(copy.deepcopy(state))
    run.resume(points(), batch_size=8)
    assert (run.epoch, run.step) == (2, 10)


# ---- modes


@few
@given(apart=st.lists(st.booleans(), min_size=4, max_size=4), fails=st.booleans())
def test_layers_in_evaluation_stay_there(apart, fails):
    class Fail(Callback):
        def on_epoch_end(self, trainer):
            if fails:
                raise OSError("enough")

    model = net()
    for module, out in zip(model, apart, strict=True):
        module.training = not out
    before = [module.training for module in model.modules()]
    statistics = model[1].running_mean.copy(), int(model[1].num_batches_tracked)
    run = trainer(model, Fail(), keep_best=False)
    try:
        run.fit(points(), points(20, 1), epochs=2)
    except OSError:
        assert fails
    assert [module.training for module in model.modules()] == before
    stayed = np.array_equal(model[1].running_mean, statistics[0])
    assert stayed == apart[1]
    assert (int(model[1].num_batches_tracked) == statistics[1]) == apart[1]


def test_a_frozen_normalisation_trains_as_a_scale_and_shift():
    """The same bits as of a net in whose place it is never in training."""
    model, twin = net(), net()
    model[1].eval()
    trainer(model, keep_best=False).fit(points(), epochs=2)
    loss, steps = nn.CrossEntropyLoss(), optim.SGD(twin.parameters(), lr=0.3, momentum=0.5)
    batches = data.Batches(*points(), 64)
    for epoch in range(2):
        twin[1].eval()
        x, y = batches.batch(epoch, 0)
        loss(twin(x), y)
        twin.zero_grad()
        twin.backward(loss.backward())
        steps.step()
    assert state_sha256(model) == state_sha256(twin)


def test_a_model_in_evaluation_is_trained_whole_and_comes_back_as_it_was():
    model = net().eval()
    mean = model[1].running_mean.copy()
    trainer(model).fit(points(), points(20, 1), epochs=2)
    assert not any(module.training for module in model.modules())
    assert not np.array_equal(mean, model[1].running_mean)


def test_checks_see_a_frozen_layer_as_a_fit_does():
    model = net()
    model[1].eval()
    subject = Subject(model, nn.CrossEntropyLoss(), Inputs.of(points()), None)
    assert [module.training for module in subject.copy().modules()] == [True, True, False, True, True]
    assert all(module.training for module in Subject(net().eval(), subject.loss, subject.train, None).copy().modules())


def test_a_callback_that_leaves_the_model_in_evaluation_freezes_nothing():
    class Look(Callback):
        def on_epoch_end(self, trainer):
            trainer.model.eval()

    model = net()
    model[2].eval()
    trainer(model, Look(), keep_best=False).fit(points(), epochs=3, batch_size=40)
    assert int(model[1].num_batches_tracked) == 3
    assert [module.training for module in model.modules()] == [True, True, True, False, True]


# ---- threads


@pytest.mark.parametrize("shared", ["model", "layer", "parameter", "train", "validation", "callback"])
def test_what_a_fit_uses_is_its_alone(shared):
    """Layers and batches keep buffers, callbacks what they remember: two fits at once would read each other's."""
    model, other, best = net(), net(1), KeepBest()
    if shared == "model":
        other = model
    elif shared == "layer":
        other = nn.Sequential(nn.Linear(2, 8), model[3])
    elif shared == "parameter":
        other[3].weight = model[3].weight
    train, validation = data.Batches(*points(), 40), data.Batches(*points(), 40)
    inside, go_on = threading.Event(), threading.Event()

    class Wait(Callback):
        def on_step_end(self, trainer):
            inside.set()
            assert go_on.wait(30)

    def made(model, *callbacks):
        params = model[0].parameters()  # an optimiser takes its parameters to itself
        return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(params, lr=0.1), callbacks=callbacks, progress=False)

    first = made(model, Wait(), best)
    thread = threading.Thread(target=lambda: first.fit(train, validation, epochs=1), name="the first")
    thread.start()
    try:
        assert inside.wait(30)
        run = made(other, *[best] * (shared == "callback"))
        batches = train if shared == "train" else [points()], validation if shared == "validation" else [points()]
        with pytest.raises(RuntimeError, match=r"is in use by a fit in the first, .* take a copy"):
            run.fit(*batches, epochs=1)
        assert run.step == 0
        made(net(2)).fit([points()], epochs=1)  # what shares nothing may go on beside
    finally:
        go_on.set()
        thread.join()
    assert first.step == 1
    run.fit(*batches, epochs=1)
    assert run.step == 1


def test_fits_that_share_a_loss_have_the_bits_of_fits_alone():
    """It keeps probabilities from forward to backward: they take turns."""
    def run(seed, loss):
        model = net(seed)
        made = Trainer(model, loss, optim.SGD(model.parameters(), lr=0.1), progress=False)
        made.fit(points(80, seed), points(20, seed), epochs=6, batch_size=8)
        return state_sha256(model), untimed(made.history)

    alone = [run(seed, nn.CrossEntropyLoss()) for seed in range(4)]
    loss, before = nn.CrossEntropyLoss(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda seed: run(seed, loss), range(4))) == alone
    finally:
        sys.setswitchinterval(before)


# ---- ends


HOOKS = (
    "on_fit_start", "on_epoch_start", "on_step_start", "on_step_end", "on_epoch_end", "on_safe_point", "on_fit_end",
)  # fmt: skip


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("hook", HOOKS)
def test_handlers_are_given_back_and_everyone_is_told(hook, before, tmp_path):
    ended = []

    class Told(Callback):
        def on_fit_end(self, trainer):
            ended.append(self)

    def fail(trainer):
        raise OSError("no")

    bad, told = Callback(), (Told(), Told())
    setattr(bad, hook, fail)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    checkpoint = Checkpoint(tmp_path / "c")
    order = [told[0], bad, checkpoint, told[1]] if before else [told[0], checkpoint, told[1], bad]
    with pytest.raises(OSError, match="no"):
        trainer(net(), *order).fit(points(), epochs=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert ended == (list(told[:1]) if hook == "on_fit_start" and before else list(told))


# ---- batches


@few
@given(places=st.lists(st.integers(0, 5), max_size=4), seed=st.integers(0, 99))
def test_batches_without_samples_change_nothing(places, seed):
    x, y = points(seed=seed)
    full = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    some = list(full)
    for place in places:
        some.insert(place, (x[:0], y[:0]))

    def run(train, validation):
        model = net()
        history = trainer(model).fit(train, validation, epochs=2)
        return state_sha256(model), untimed(history)

    assert run(some, some) == run(full, full)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([(np.zeros((0, 2), np.float32), np.zeros(0, int))] * 3, None, "none of the 3 batches of epoch 1 has a sample"),
        (points(), [], "the validation data have no batch"),
        (points(), points(0), "the validation data have no batch"),
        (points(), iter([points()]), "gives its batches once, and 2 epochs need them"),
    ],
)
def test_what_cannot_be_fitted_says_why(train, validation, message):
    run = trainer(net())
    with pytest.raises(ValueError, match=message):
        run.fit(train, validation, epochs=2)
    assert run.step == 0
