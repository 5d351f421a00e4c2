"""Layers that train themselves, led by an optimiser: schedules, weight decay and L2 hold for them, too."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import manual_seed, nn, optim
from fastconv.optim import SGD, Adam, AdamW
from fastconv.schedule import Cosine, StepLR
from fastconv.train import Trainer

rng = np.random.default_rng(0)
X = rng.standard_normal((24, 6)).astype(np.float32)
Y = rng.integers(0, 3, 24)
BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 24, 8)]


def net(layers=7, lr=0.3):
    manual_seed(5)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.DeepResidual(4, layers, lr=lr), nn.Linear(4, 3))


@settings(deadline=None, max_examples=25)
@given(
    schedule=st.sampled_from([None, Cosine(6), StepLR(2, 0.5)]),
    lr=st.sampled_from([0.5, 0.07, 1e-3]),
    core_lr=st.sampled_from([0.3, 0.01]),
    decay=st.sampled_from([0.0, 0.125]),
)
def test_a_schedule_and_weight_decay_hold_for_the_core(schedule, lr, core_lr, decay):
    led, plain = net(lr=core_lr), net(lr=core_lr)
    optimizer = SGD(led.parameters(), lr=lr, weight_decay=decay).add_layers(led)
    Trainer(led, nn.CrossEntropyLoss(), optimizer, schedule=schedule, progress=False).fit(BATCHES, epochs=2)
    rates = [lr * (1.0 if schedule is None else float(schedule(step))) for step in range(6)]
    core, loss, other = plain[2], nn.CrossEntropyLoss(), SGD(plain.parameters(), lr=lr, weight_decay=decay)
    for step, rate in enumerate(rates):
        other.lr, core.lr = rate, core_lr * (rate / lr)
        other.zero_grad()
        loss(plain(BATCHES[step % 3][0]), BATCHES[step % 3][1])
        old = core.weight.copy()
        plain.backward(loss.backward())
        if decay:
            core.weight[...] -= np.float32(decay) * np.float32(core.lr) * old
        other.step()
    for (name, a), (_, b) in zip(led.named_state(), plain.named_state(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert led[2].lr == core_lr  # what a model file says is the rate at first


@pytest.mark.parametrize("l2", [0.0, 0.03])
def test_the_penalty_of_a_trainer_is_of_the_core_too(l2):
    led, plain = net(), net()
    first = sum(float(np.square(a[:, :16] if name == "2.weight" else a, dtype=np.float64).sum())
                for name, a in led.named_state() if a.ndim == 2)  # fmt: skip
    trainer = Trainer(led, nn.CrossEntropyLoss(), SGD(led.parameters(), lr=0.1).add_layers(led), l2=l2, progress=False)
    history = trainer.fit(BATCHES[:1], epochs=1)
    assert history[0]["penalty"] == pytest.approx(0.5 * l2 * first, rel=1e-12)
    core, alone = plain[2], SGD(plain.parameters(), lr=0.1)
    Trainer(plain, nn.CrossEntropyLoss(), alone, l2=l2, progress=False).fit(BATCHES[:1], epochs=1)
    old = net()[2].weight
    shrunk = np.concatenate([old[:, :16], np.zeros_like(old[:, 16:])], 1)  # no biases
    np.testing.assert_array_equal(led[2].weight, core.weight - np.float32(l2) * np.float32(0.3) * shrunk)


@pytest.mark.parametrize("method", [SGD, Adam, AdamW, optim.RMSprop, optim.Adagrad])
def test_who_is_not_led_and_who_is_at_the_first_rate_has_the_same_bits(method):
    found = []
    for lead in (False, True):
        model = net()
        optimizer = method(model.parameters(), lr=0.05, weight_decay=0.0)
        if lead:
            assert optimizer.add_layers(model) is optimizer
        Trainer(model, nn.CrossEntropyLoss(), optimizer, progress=False).fit(BATCHES, epochs=2)
        found.append(model.state_dict())
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_leads_the_copy(again):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1).add_layers(model)
    optimizer.lr = 0.05
    other, second = again((model, optimizer))
    assert second.layers == (other[2],)
    second.lr = 0.0
    for net_, changes in ((model, True), (other, False)):
        before = net_[2].weight.copy()
        net_(X)
        net_.backward(np.ones((24, 3), np.float32))
        assert (net_[2].weight != before).any() == changes
    del optimizer, second  # nobody leads: the rate of its own
    before = other[2].weight.copy()
    other(X)
    other.backward(np.ones((24, 3), np.float32))
    assert (other[2].weight != before).any()


def test_a_run_goes_on_to_the_same_bits():
    def trainer():
        model = net()
        return Trainer(model, nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.2, momentum=0.9).add_layers(model),
                       schedule=Cosine(12), l2=0.01, progress=False)  # fmt: skip

    whole = trainer()
    whole.fit(BATCHES, epochs=4)
    first = trainer()
    first.fit(BATCHES, epochs=2)
    second = trainer()
    second.load_state_dict(first.state_dict())
    second.fit(BATCHES, epochs=2)
    for (name, a), (_, b) in zip(whole.model.named_state(), second.model.named_state(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_layer_in_evaluation_is_left_alone():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.5).add_layers(model)
    model[2].eval()
    before = model[2].weight.copy()
    Trainer(model, nn.CrossEntropyLoss(), optimizer, l2=0.5, progress=False).fit(BATCHES, epochs=1)
    np.testing.assert_array_equal(model[2].weight, before)


def test_what_cannot_be_led():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="module must be a Module, got list"):
        optimizer.add_layers([model])
    with pytest.raises(ValueError, match="no layer of this Linear trains itself"):
        optimizer.add_layers(model[0])
    optimizer.lr = 0.0
    with pytest.raises(ValueError, match=r"an lr above 0, got 0\.0"):
        optimizer.add_layers(model)
    optimizer.lr = 0.1
    optimizer.add_layers(model).add_layers(model[2])
    assert len(optimizer.layers) == 1
    optimizer.lr = 0.05
    with pytest.raises(ValueError, match=r"belong to the rate 0\.1, which is 0\.05 now"):
        optimizer.add_layers(net())
    assert math.isclose(optimizer.layer_settings()[0], 0.5)
