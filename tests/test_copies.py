"""Copies and pickles of what trains go on as the originals do, and leave the originals alone."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_optim import CASES, parameters, set_gradients

import fastconv
from fastconv import nn, optim, schedule
from fastconv.diagnose import Watch
from fastconv.train import Checkpoint, ChillOut, Patience, StopOnExplosion, StopOnNonFinite, Trainer

HOW = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle, arrays apart": lambda value: apart(value),
    "twice": lambda value: copy.deepcopy(pickle.loads(pickle.dumps(value))),
}


def apart(value):
    """Copy as programs for parallel work do: arrays travel on their own, and may not be written to on arrival."""
    buffers = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def model_of(rng):
    fastconv.manual_seed(int(rng.integers(1000)))
    model = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Residual(nn.Linear(8, 8)), nn.Linear(8, 2)
    )
    if rng.random() < 0.5:
        model[4].body.weight.requires_grad = False
    if rng.random() < 0.5:
        model[4].body.bias = model[0].bias  # tied
    return model


def step(model, optimizer, seed):
    rng, loss = np.random.default_rng(seed), nn.CrossEntropyLoss()
    optimizer.zero_grad()
    loss(model(rng.standard_normal((7, 5)).astype(np.float32)), rng.integers(0, 2, 7))
    model.backward(loss.backward())
    optimizer.step()


def go_on(model, optimizer):
    """Do two steps; before the second a parameter freezes or thaws."""
    step(model, optimizer, 10)
    model[4].body.weight.requires_grad ^= True
    step(model, optimizer, 11)


def state(model, optimizer):
    return {**model.state_dict(), **{f"optimizer {k}": v for k, v in optimizer.state_dict().items()}}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert_array_equal(array, second[name], err_msg=name)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from(sorted(HOW)), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_a_model_and_its_optimizer_go_on_alike(case, how, seed, model_first, loose):
    make, _, options = case
    rng = np.random.default_rng(seed)
    model = model_of(rng)
    optimizer = make(model.parameters(), **options)
    if loose:  # one that left the block
        model[0].weight.data = model[0].weight.data.copy()
    for k in range(int(rng.integers(0, 3))):
        step(model, optimizer, k)
    if model_first:
        twin, follower = HOW[how]((model, optimizer))
    else:
        follower, twin = HOW[how]((optimizer, model))
    start = state(model, optimizer)
    go_on(model, optimizer)
    after = state(model, optimizer)
    assert_same(state(twin, follower), start)
    go_on(twin, follower)
    assert_same(state(twin, follower), after)
    assert_same(state(model, optimizer), after)
    assert (twin[4].body.bias is twin[0].bias) == (model[4].body.bias is model[0].bias)
    assert {id(p) for p in follower.params} == {id(p) for p in twin.parameters()}


@pytest.mark.parametrize("case", CASES[:3])
def test_a_shallow_copy_of_an_optimizer_has_a_state_of_its_own(case):
    make, _, options = case
    params = parameters(np.float32)
    first = make(params, **options)
    set_gradients(params, 0)
    first.step()
    second = copy.copy(first)
    before = first.state_dict()
    second.step()
    assert second.params[0] is params[0]
    assert_same(first.state_dict(), before)
    assert second.steps == 2


CALLBACKS = {
    "Patience": lambda folder: Patience(9),
    "ChillOut": lambda folder: ChillOut(),
    "StopOnExplosion": lambda folder: StopOnExplosion(1e6),
    "StopOnNonFinite": lambda folder: StopOnNonFinite(),
    "Watch": lambda folder: Watch(3),
    "Checkpoint": lambda folder: Checkpoint(folder / "checkpoints", steps=5),
}
SCHEDULES = [
    schedule.Constant(), schedule.StepLR(5), schedule.InverseTime(0.1),
    schedule.Cosine(100), schedule.Warmup(4, schedule.Cosine(60)),
]  # fmt: skip


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("names", [[], ["Checkpoint"], sorted(CALLBACKS)], ids=len)
def test_a_trainer_goes_on_alike(how, names, progress, tmp_path, capsys):
    rng = np.random.default_rng(len(names))
    x, y = rng.standard_normal((40, 5)).astype(np.float32), rng.integers(0, 2, 40)
    for plan in SCHEDULES:
        model = model_of(rng)
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01), schedule=plan, l2=1e-3,
            callbacks=[CALLBACKS[name](tmp_path / str(len(list(tmp_path.iterdir())))) for name in names],
            progress=progress,
        )  # fmt: skip
        trainer.fit((x, y), (x, y), epochs=1, batch_size=8)
        twin = HOW[how](trainer)
        for callback in twin.callbacks:
            if isinstance(callback, Checkpoint):  # two runs do not share a folder
                callback.folder = callback.folder / "twin"
        before = trainer.model.state_dict()
        for one in (trainer, twin):
            one.fit((x, y), (x, y), epochs=2, batch_size=8)
        assert any((array != before[name]).any() for name, array in twin.model.state_dict().items())
        assert_same(state(twin.model, twin.optimizer), state(trainer.model, trainer.optimizer))
        figures = [[(r["loss"], r["validation_loss"]) for r in one.history] for one in (trainer, twin)]
        assert figures[0] == figures[1]
    shallow = copy.copy(trainer)
    before = model.state_dict()
    shallow.fit((x, y), epochs=1, batch_size=8)
    assert shallow.model is model
    assert any((array != before[name]).any() for name, array in model.state_dict().items())
