"""What a forward read when it was written down, and what becomes of it when that changes in its own place."""

import itertools
import threading
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastconv import functional as F
from fastconv import nn
from fastconv.graph.value import TraceError
from fastconv.nn import _tracing

X = np.arange(6, dtype=np.float32).reshape(2, 3) + 1


@dataclass
class Options:
    factor: float = 1.0
    steps: list = field(default_factory=lambda: [1.0, 2.0])


class Reads(nn.Module):
    """A forward that multiplies by all that a container holds."""

    def __init__(self, held):
        self.held = held

    def forward(self, x):
        for number in numbers(self.held):
            x = x * number
        return x


def numbers(held):
    """Return the numbers in containers within each other, in their order."""
    if isinstance(held, int | float):
        return [float(held)]
    if isinstance(held, Options | SimpleNamespace):
        held = vars(held)
    return [n for item in (held.values() if isinstance(held, dict) else held) for n in numbers(item)]


def expected(held):
    y = X
    for number in numbers(held):
        y = y * np.float32(number)
    return y


def gradient(held):
    g = np.ones_like(X)
    for number in reversed(numbers(held)):
        g = g * np.float32(number)
    return g


# name: what is held, and changes of it in its own place
CHANGES = {
    "an item of a list": (lambda: [2.0, 3.0], lambda h: h.__setitem__(0, 5.0)),
    "one more": (lambda: [2.0], lambda h: h.append(3.0)),
    "none": (lambda: [2.0], lambda h: h.clear()),
    "another order": (lambda: [0.1, 0.7, 3.3], lambda h: h.reverse()),
    "an equal number of another sign": (lambda: [0.0], lambda h: h.__setitem__(0, -0.0)),
    "a value of a dict": (lambda: {"a": 2.0}, lambda h: h.update(a=4.0)),
    "another key": (lambda: {"a": 2.0}, lambda h: h.update(b=4.0)),
    "a set": (lambda: {2.0}, lambda h: h.add(3.0)),
    "a queue": (lambda: deque([2.0, 3.0]), lambda h: h.append(5.0)),
    "a list in a dict in a tuple": (lambda: ({"a": [2.0]},), lambda h: h[0]["a"].append(3.0)),
    "a list of lists": (lambda: [[2.0], [3.0]], lambda h: h[1].__setitem__(0, 7.0)),
    "a list in a list that came later": (lambda: [2.0], lambda h: (h.append([3.0]), h[-1].append(2.0))),
    "a dataclass": (Options, lambda h: setattr(h, "factor", 3.0)),
    "a list of a dataclass": (Options, lambda h: h.steps.append(3.0)),
    "a namespace": (lambda: SimpleNamespace(a=2.0), lambda h: setattr(h, "b", 3.0)),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside another"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_container_that_is_changed_in_its_own_place_is_noticed(name, inside):
    make, change = CHANGES[name]
    held = make()
    model = nn.Sequential(nn.Identity(), Reads(held)) if inside else Reads(held)
    for _ in range(2):
        assert_array_equal(model(X), expected(held))
    before = model(X).tobytes()
    change(held)
    for _ in range(2):
        assert_array_equal(model.predict(X), expected(held))
        y = model(X)
        assert y.tobytes() == expected(held).tobytes()  # -0.0, too
        assert_array_equal(model.backward(np.ones_like(X)), gradient(held))
    assert y.tobytes() != before


@given(st.lists(st.lists(st.floats(0.5, 2, width=32), max_size=3), min_size=1, max_size=3), st.data())
@settings(max_examples=50, deadline=None)
def test_drawn_changes_of_drawn_lists(held, data):
    model = Reads(held)
    for _ in range(4):
        assert_array_equal(model(X), expected(held))
        row = data.draw(st.sampled_from(held))
        if row and data.draw(st.booleans()):
            row[data.draw(st.integers(0, len(row) - 1))] = data.draw(st.floats(0.5, 2, width=32))
        else:
            row.insert(data.draw(st.integers(0, len(row))), data.draw(st.floats(0.5, 2, width=32)))


def test_what_stays_is_written_down_once(monkeypatch):
    traced = []
    trace = _tracing.trace
    monkeypatch.setattr(_tracing, "trace", lambda *args: traced.append(1) or trace(*args))
    model = nn.Sequential(*(Reads(make()) for make, _ in CHANGES.values()), Counts(), nn.Linear(3, 3))
    for _ in range(5):
        model(X)
        model.backward(np.ones_like(X))
    assert len(traced) == 1


# ---- layers with a backward of their own


class Counts(nn.Module):
    """Counts its runs, in a number and in a list."""

    def __init__(self):
        self.runs, self.seen = 0, []

    def forward(self, x):
        self.runs += 1
        self.seen.append(x.shape)
        return x.copy()

    def backward(self, grad_output):
        self.runs += 1000
        return grad_output


class Columns(nn.Module):
    """Returns the first columns, as many as it is set to."""

    def __init__(self, count):
        self.options = {"count": [count]}
        self.count, self.calls = count, 0

    def forward(self, x):
        self.calls += 1
        return self._save(x[:, : min(self.count, self.options["count"][0])].copy(), x.shape)

    def backward(self, grad_output):
        grad_output, shape = self._recall(grad_output)
        grad = np.zeros(shape, grad_output.dtype)
        grad[:, : grad_output.shape[1]] = grad_output
        return grad


def in_a_list(layer, count):
    layer.options["count"][0] = count


def assigned(layer, count):
    layer.count = count


class Holds(nn.Module):
    """Has such a layer inside one with a backward of its own."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        return self.layer(x)

    def backward(self, grad_output):
        return self.layer.backward(grad_output)


@pytest.mark.parametrize("change", [in_a_list, assigned])
@pytest.mark.parametrize("wrap", [lambda layer: layer, Holds], ids=["itself", "inside another"])
def test_a_setting_that_changes_the_shape_of_an_opaque_layer_is_noticed(change, wrap):
    layer, before = Columns(3), nn.BatchNorm1d(3)
    model = nn.Sequential(before, wrap(layer), nn.ReLU())
    for steps, (rows, count) in enumerate(itertools.product((2, 4), (3, 1, 2, 2, 3)), 1):
        x = np.random.default_rng(steps).standard_normal((rows, 3)).astype(np.float32)
        change(layer, count)
        twin = nn.BatchNorm1d(3)
        wanted = twin(x)
        y = model(x)
        assert y.shape == (rows, count)
        assert_array_equal(y, np.maximum(wanted[:, :count], 0))
        model.backward(np.ones_like(y))
        assert before.num_batches_tracked == steps  # nothing ran twice
        assert layer.calls == steps


def test_a_layer_that_refuses_by_now_says_so():
    class Refuses(Columns):
        def forward(self, x):
            if self.count > 3:
                raise ValueError("no such columns")
            return super().forward(x)

    model = nn.Sequential(Refuses(2))
    model(X)
    model[0].count = 5
    with pytest.raises(ValueError, match="no such columns"):
        model(X)
    model[0].count = 1
    assert model(X).shape == (2, 1)


# ---- numbers of parameters


class Scales(nn.Module):
    def __init__(self, use):
        self.use = use
        self.scale = nn.Parameter(np.full(3, 2, np.float32))

    def forward(self, x):
        return self.use(self.scale, x)


TAKES = {
    "the data": lambda p, x: x * p.data,
    "a part of it": lambda p, x: x + p.data[:1],
    "what NumPy makes of it": lambda p, x: x * np.exp(p.data),
    "a number of it": lambda p, x: x * float(p.data[0]),
    "a condition on it": lambda p, x: x if p.data.max() > 0 else -x,
    "by getattr": lambda p, x: x * getattr(p, "data", 1.0),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside another"])
@pytest.mark.parametrize("name", TAKES)
def test_the_numbers_of_a_parameter_are_refused_by_line(name, inside):
    layer = Scales(TAKES[name])
    model = nn.Sequential(layer) if inside else layer
    for _ in range(2):
        with pytest.raises(nn.TraceError, match=rf"{__file__}, line \d+.*use the parameter itself"):
            model(X)
        assert_array_equal(layer.scale.data, np.full(3, 2, np.float32))
    layer.use = lambda p, x: x * p
    assert_array_equal(model(X), X * 2)


def test_shape_and_dtype_are_there_and_copies_are_whole():
    seen = []

    def use(p, x):
        seen.append((p.shape, p.dtype, p.requires_grad, hasattr(p, "nothing")))
        return x * p

    layer = Scales(use)
    assert_array_equal(layer(X), X * 2)
    assert seen == [((3,), np.float32, True, False)]
    with pytest.raises(AttributeError, match="nothing"):
        _ = layer.scale.nothing


def test_other_threads_see_the_data_meanwhile():
    found, began, ended = [], threading.Event(), threading.Event()

    def use(p, x):
        began.set()
        assert ended.wait(30)
        return x * p

    layer = Scales(use)

    def look():
        began.wait(30)
        found.append(layer.scale.data.copy())
        layer.scale.data = layer.scale.data * 2
        ended.set()

    thread = threading.Thread(target=look)
    thread.start()
    y = layer(X)
    thread.join()
    assert_array_equal(found[0], np.full(3, 2, np.float32))
    assert_array_equal(y, X * 4)


def test_an_opaque_layer_reads_its_numbers_wherever_it_stands():
    class Scale(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.full(3, 3, np.float32))

        def forward(self, x):
            return self._save(x * self.weight.data, x)

        def backward(self, grad_output):
            grad_output, x = self._recall(grad_output)
            self.weight.grad += (grad_output * x).sum(0)
            return grad_output * self.weight.data

    model = nn.Sequential(nn.Identity(), Scale(), Scales(lambda p, x: F.relu(x) * p))
    assert_array_equal(model(X), X * 6)
    assert_array_equal(model.backward(np.ones_like(X)), np.full_like(X, 6))


def test_the_error_is_public():
    assert nn.TraceError is TraceError
