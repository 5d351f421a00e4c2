"""Memory by lifetimes: slots that never overlap, two buffers for a chain, an arena that is told before it is taken."""

import gc
import tracemalloc

import numpy as np
import pytest
from graphs import arrays_of, schedule_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import functional as F
from fastconv import nn
from fastconv.graph.memory import LINE, Slot, arrange, live_bytes

LIVES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8)), max_size=40)


def slots_of(lives):
    slots = []
    for nbytes, first, length in lives:
        slot = Slot(nbytes, "activation", 0)
        slot.touch(first)
        slot.touch(first + length)
        slots.append(slot)
    return slots


def padded(nbytes):
    return -(-nbytes // LINE) * LINE


@settings(max_examples=300, deadline=None)
@given(LIVES)
def test_slots_of_one_time_lie_apart_and_on_lines(lives):
    slots = slots_of(lives)
    total = arrange(slots)
    for i, a in enumerate(slots):
        assert a.offset % LINE == 0
        assert 0 <= a.offset <= a.offset + a.nbytes <= total
        for b in slots[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
    sizes = [padded(slot.nbytes) for slot in slots]
    peak = max(sum(n for n, s in zip(sizes, slots, strict=True) if s.first <= t <= s.last) for t in range(30))
    assert peak <= total <= sum(sizes)


@given(LIVES)
def test_the_same_slots_lie_at_the_same_places(lives):
    first, second = slots_of(lives), slots_of(lives)
    assert arrange(first) == arrange(second)
    assert [slot.offset for slot in first] == [slot.offset for slot in second]


@given(LIVES)
def test_bytes_in_use_at_each_step(lives):
    slots = slots_of(lives)
    assert live_bytes(slots, 30) == [sum(s.nbytes for s in slots if s.first <= t <= s.last) for t in range(30)]


def test_slots_that_follow_each_other_share_one_place():
    slots = slots_of([(640, t, 0) for t in range(50)])
    assert arrange(slots) == 640


CHAINS = {
    "conv": (lambda: nn.Conv2d(8, 8, 3, padding=1), (4, 8, 9, 9)),
    "conv1d": (lambda: nn.Conv1d(8, 8, 3, padding=1), (4, 8, 20)),
    "linear": (lambda: nn.Linear(32, 32), (16, 32)),
    "conv and tanh": (lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.Tanh()), (4, 8, 9, 9)),
    "conv, batch norm, relu": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()), (4, 8, 9, 9)
    ),
    "pooling": (lambda: nn.MaxPool2d(3, 1, 1), (4, 8, 9, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_evaluation_of_a_chain_of_equal_layers_needs_two_buffers(name):
    make, shape = CHAINS[name]
    nbytes = 4 * int(np.prod(shape))
    for length in (2, 3, 20):
        plan = nn.Sequential(*(make() for _ in range(length))).plan(shape, training=False)
        # Statistics of a normalisation, 4 x 8 numbers, have room of their own.
        assert 2 * padded(nbytes) <= plan.arena <= 2 * padded(nbytes) + (256 if "norm" in name else 0)


def test_evaluation_of_a_chain_of_residual_blocks_needs_three_buffers():
    def block():
        return nn.Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)))

    nbytes = 4 * 4 * 8 * 9 * 9
    for length in (2, 20):
        plan = nn.Sequential(*(block() for _ in range(length))).plan((4, 8, 9, 9), training=False)
        assert plan.arena <= 3 * nbytes + 64


def test_activations_that_no_backward_reads_share_memory_in_training():
    """Tanh keeps its outputs, additions keep nothing: only what is kept grows with the length."""
    shape, nbytes = (16, 32), 4 * 16 * 32
    for length in (3, 30):
        adds = nn.Sequential(*(nn.Bias(32) for _ in range(length))).plan(shape)
        assert adds.arena <= 2 * nbytes
        kept = nn.Sequential(*(nn.Tanh() for _ in range(length))).plan(shape)
        assert (length + 1) * nbytes <= kept.arena <= (length + 2) * nbytes


def test_gradients_are_let_go_when_their_last_reader_has_run():
    shape, nbytes = (16, 32), 4 * 16 * 32
    plan = nn.Sequential(*(nn.Linear(32, 32) for _ in range(20))).plan(shape)
    assert plan.gradients == 20 * nbytes
    assert plan.arena <= 20 * nbytes + 2 * nbytes  # outputs of all but two and no more gradients than two


def test_what_is_not_trained_keeps_nothing():
    model = nn.Sequential(*(nn.Tanh() for _ in range(10)), nn.Linear(32, 2), input_grad=False)
    assert model.plan((16, 32)).gradients == 0
    assert model.plan((16, 32)).arena <= 2 * 4 * 16 * 32 + 4 * 16 * 2 + 64


NUMPY = np.lib.tracemalloc_domain


@pytest.fixture
def traced(all_threads):
    F.release_scratch()
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def numpy_bytes():
    """Return the bytes of all NumPy arrays' data that were allocated since tracing began."""
    gc.collect()
    filters = [tracemalloc.DomainFilter(True, NUMPY)]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(filters).traces)


WIDE = {
    "two ways": lambda: Forked(lambda x, y: x + y, 24),
    "concatenation": lambda: Forked(lambda x, y: F.cat([x, y], 1), 48),
    "a gate": lambda: Forked(lambda x, y: x * F.sigmoid(y.mean((2, 3), keepdims=True)), 24),
    "slices": lambda: Forked(lambda x, y: x[:, :, ::2] + y[:, :, 1::2], 24),
    "permuted": lambda: Forked(lambda x, y: (x.permute(0, 1, 3, 2) - y.permute(0, 1, 3, 2)).permute(0, 1, 3, 2), 24),
    "in place": lambda: Forked(lambda x, y: F.cat([F.max_pool2d(x, 3, 1, 1), y, x - y], 1), 72),
    "in place and copied": lambda: Forked(lambda x, y: F.cat([F.softmax(x, 1), y, F.cat([y, x], 1)], 1), 96),
    "flattened and back": lambda: Forked(lambda x, y: (x.flatten(1) * y.flatten(1)).reshape(x.shape), 24),
}


class Forked(nn.Module):
    def __init__(self, join, width):
        self.join = join
        self.first, self.second = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(3, 24, 1)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.last(self.join(F.relu(self.first(x)), F.tanh(self.second(x))))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", WIDE)
def test_planned_bytes_are_those_measured(traced, name, training):
    fastconv.manual_seed(0)
    model = WIDE[name]().train(training)
    shape = (8, 3, 24, 24)
    plan = model.plan(shape, training)
    x = np.random.default_rng(0).standard_normal((8, 24, 24, 3), np.float32).transpose(0, 3, 1, 2)
    for _ in range(2):
        if training:
            y = model(x)
            grad = np.ones_like(y)
            model.backward(grad)
            del y
        else:
            grad = model.predict(x)
    assert plan.total == pytest.approx(numpy_bytes() - x.nbytes - grad.nbytes, rel=0.01)


def test_two_models_that_share_a_layer_keep_their_own_memory():
    shared = nn.Linear(3, 3)
    first, second = nn.Sequential(shared, nn.Tanh()), nn.Sequential(nn.Tanh(), nn.Sequential(shared))
    x, z = arrays_of([(4, 3), (4, 3)])
    a = first(x)
    before = a.copy()
    b = second(z)
    assert_array_equal(a, before)
    grad = np.ones_like(a)
    found = first.backward(grad).copy(), second.backward(grad).copy()
    total = shared.weight.grad.copy()
    shared.zero_grad()
    for model, data, output, gradient in ((first, x, before, found[0]), (second, z, b.copy(), found[1])):
        assert_array_equal(model(data), output)
        assert_array_equal(model.backward(grad), gradient)
    assert_array_equal(shared.weight.grad, total)


def test_dead_layers_take_no_memory_and_are_not_run():
    class Wasteful(nn.Module):
        def __init__(self):
            self.used, self.unused = nn.Linear(8, 8), nn.Linear(8, 800)

        def forward(self, x):
            F.tanh(self.unused(x))
            return self.used(x)

    model = Wasteful()
    assert model.plan((4, 8)).arena == nn.Linear(8, 8).plan((4, 8)).arena
    assert len(schedule_of(model, (4, 8)).groups) == 1
    model.backward(np.ones_like(model(np.ones((4, 8), np.float32))))
    assert not model.unused.weight.grad.any()
