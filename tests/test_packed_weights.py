"""Evaluation packs weights once where it pays, and notices whatever changes them."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_memory import numpy_bytes, traced  # noqa: F401

import fastconv
from fastconv import nn, optim
from fastconv.functional._ops.transposed import MOST_PIXELS, PackedWeight

NETS = {
    "linear": (lambda: nn.Sequential(nn.Linear(13, 17), nn.ReLU(), nn.Linear(17, 5)), (13,)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9), nn.Conv2d(9, 4, 1)), (3, 5, 4)),
    "groups": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 3, padding=1, groups=8)), (4, 5, 5)),
    "winograd": (
        lambda: nn.Sequential(nn.Conv2d(5, 7, 3, padding=1, algorithm="winograd"), nn.Conv2d(7, 2, 1)), (5, 6, 6)
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ReLU(),
            nn.ConvTranspose2d(6, 6, 2, groups=6), nn.ConvTranspose2d(6, 3, 2, stride=(3, 1)),
        ), (4, 3, 4),
    ),
    "signal": (lambda: nn.Sequential(nn.Conv1d(2, 20, 3, stride=2), nn.Tanh(), nn.Conv1d(20, 3, 2)), (2, 11)),
}


def by_step(model, parameter, rng, held):
    for p in model.parameters():
        p.grad[...] = rng.standard_normal(p.data.shape)
    optim.SGD(model.parameters(), lr=0.1).step()


def by_state(model, parameter, rng, held):
    state = {name: a.copy() for name, a in model.state_dict().items()}
    for name, p in model.named_parameters():
        state[name] = rng.standard_normal(p.data.shape).astype(p.data.dtype)
    model.load_state_dict(state)


def by_new_array(model, parameter, rng, held):
    parameter.data = rng.standard_normal(parameter.data.shape).astype(np.float32)


def by_writing(model, parameter, rng, held):
    parameter.data[...] = rng.standard_normal(parameter.data.shape)


def by_one_number(model, parameter, rng, held):
    parameter.data.reshape(-1)[rng.integers(parameter.data.size)] += 1


def by_an_array_taken_before(model, parameter, rng, held):
    held[id(parameter)][...] = rng.standard_normal(held[id(parameter)].shape)


def by_its_memory(model, parameter, rng, held):
    memoryview(held[id(parameter)]).cast("B")[3] ^= 0x80  # the sign of the first number


def by_the_sign_of_zero(model, parameter, rng, held):
    parameter.data[...] = np.where(parameter.data == 0, -parameter.data, 0)


WAYS = (by_step, by_state, by_new_array, by_writing, by_one_number, by_an_array_taken_before, by_its_memory,
        by_the_sign_of_zero)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(NETS)), st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 3), st.integers(1, 9))),
       st.integers(0, 99))  # fmt: skip
def test_every_way_of_changing_a_weight_is_noticed(name, changes, seed):
    make, shape = NETS[name]
    fastconv.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = make().eval()
    held = {id(p): p.data for p in model.parameters()}
    for change, which, batch in ((lambda *_: None, 0, 2), *changes):
        parameters = [p for p in model.parameters() if p.data.ndim > 1]
        change(model, parameters[which % len(parameters)], rng, held)
        x = rng.standard_normal((batch, *shape)).astype(np.float32)
        fresh = copy.deepcopy(model)
        assert model(x).tobytes() == fresh(x).tobytes()
        assert model.predict(x).tobytes() == fresh.predict(x).tobytes()
        held = {id(p): p.data for p in model.parameters()}


@pytest.mark.parametrize("name", NETS)
def test_another_instruction_set_is_noticed(name, every_setting):
    make, shape = NETS[name]
    fastconv.manual_seed(0)
    model = make().eval()
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    found = set(every_setting(lambda: model(x).tobytes()).values())  # one model for all of them
    assert found == {copy.deepcopy(model)(x).tobytes()}


@pytest.mark.parametrize("name", NETS)
def test_a_weight_is_packed_once_for_all_batches(monkeypatch, name):
    make, shape = NETS[name]
    model = make().eval()
    packs = []
    before = PackedWeight.__init__

    def counted(self, *arguments):
        before(self, *arguments)
        pack = self.pack
        self.pack = lambda *given: (packs.append(2), pack(*given))
        packs.append(1)

    monkeypatch.setattr(PackedWeight, "__init__", counted)
    weights = [p for p in model.parameters() if p.data.ndim > 1]
    kept = 3 if name == "transposed" else 0  # all others pack in every run
    for batch in (5, 6, 5, 7, 6):
        model(np.ones((batch, *shape), np.float32))
    assert packs == [1] * kept
    weights[0].data += 1
    for _ in range(3):
        model(np.ones((5, *shape), np.float32))
    assert packs == [1] * kept + [2] * (kept > 0)


def test_neither_training_nor_many_pixels_keep_anything():
    model = nn.Sequential(nn.ConvTranspose2d(5, 7, 3))
    assert model.plan((2, 5, 6, 6)).packed == 0
    few, many = (model.eval().plan((n, 5, 6, 6), training=False) for n in (MOST_PIXELS // 36, MOST_PIXELS // 36 + 1))
    assert few.packed > 0
    assert many.packed == 0
    assert "weights, packed, and copies" in str(few)


WIDE = {
    "direct": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3240, 400), nn.ReLU(), nn.Linear(400, 300)), (40, 9, 9)),
    "winograd": (
        lambda: nn.Sequential(*(nn.Conv2d(40, 40, 3, padding=1, algorithm="winograd") for _ in range(2))), (40, 9, 9)
    ),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(60, 40, 3, stride=2)), (60, 4, 5)),
}


@pytest.mark.parametrize("name", WIDE)
def test_planned_bytes_are_those_measured(traced, name):  # noqa: F811
    make, (channels, *image) = WIDE[name]
    model = make().eval()
    plan = model.plan((8, channels, *image), training=False)
    x = np.moveaxis(np.random.default_rng(0).standard_normal((8, *image, channels), np.float32), -1, 1)
    for _ in range(2):
        y = model.predict(x)
    assert plan.packed > 0 if name == "transposed" else plan.packed == 0
    assert plan.total == pytest.approx(numpy_bytes() - x.nbytes - y.nbytes, rel=0.01)
