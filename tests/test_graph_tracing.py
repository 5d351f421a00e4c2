"""When a forward is written down anew, and what it must not look at."""

import inspect
import math

import numpy as np
import pytest
from graphs import schedule_of
from numpy.testing import assert_array_equal

import fastconv
from fastconv import functional as F
from fastconv import models, nn, optim
from fastconv.graph.value import TraceError
from fastconv.nn import _running, _settings, _tracing
from fastconv.testing import gradcheck

# --- looking at numbers


class Looks(nn.Module):
    def __init__(self, looks):
        self.looks = looks

    def forward(self, x):
        return self.looks(x)


def condition(x):
    if x.max() > 0:
        return x
    return -x


def mean_condition(x):
    return x if x.mean() > 0 else -x


def truth(x):
    return x if x[0, 0] else -x


def whole(x):
    return x * int(x[0, 0])


def real(x):
    return x * float(x.sum())


def array(x):
    return np.asarray(x)


def exponential(x):
    return np.exp(x)


def maximum(x):
    return np.maximum(x, 0)


def concatenation(x):
    return np.concatenate([x, x])


def index_by_value(x):
    return x[x]


def index_by_comparison(x):
    return x[x > 0]


def comparison(x):
    return x * (x == 1)


def two_values(x):
    return x if x == x + 0 else -x


def square_root(x):
    return x * math.sqrt(x[0, 0])


def repetition(x):
    for _ in range(x[0, 0]):
        x = x + 1
    return x


def membership(x):
    return x if 3 in x else -x


def assignment(x):
    x[0] = 0
    return x


def item(x):
    return x * x.sum().item()


def in_place(x):
    return np.add(x, 1, out=np.zeros((2, 3), np.float32))


LOOKS = [
    condition, mean_condition, truth, whole, real, array, exponential, maximum, concatenation, index_by_value,
    index_by_comparison, comparison, two_values, square_root, repetition, membership, assignment, item, in_place,
]  # fmt: skip


@pytest.mark.parametrize("looks", LOOKS, ids=lambda f: f.__name__)
def test_looking_at_numbers_names_the_line_and_the_way_out(looks):
    model = nn.Sequential(nn.Tanh(), Looks(looks))
    with pytest.raises(TraceError) as error:
        model(np.ones((2, 3), np.float32))
    lines, start = inspect.getsourcelines(looks)
    named = [f"{__file__}, line {start + i}, in {looks.__name__}" for i in range(1, len(lines))]
    assert any(str(error.value).startswith(place) for place in named), str(error.value)
    assert "write a module of its own that defines backward too" in str(error.value)


def test_the_line_is_that_of_the_users_function_below_forward():
    def helper(x):
        return bool(x)

    line = inspect.getsourcelines(helper)[1] + 1
    with pytest.raises(TraceError, match=rf"line {line}, in helper: a condition needs the numbers"):
        Looks(lambda x: F.relu(x) if helper(x) else x)(np.ones((2, 3), np.float32))


def test_shapes_and_dtypes_may_be_looked_at():
    def looks(x):
        assert (x.shape, x.dtype, x.ndim, len(x), x.size(1), x.dim()) == ((4, 6), np.float32, 2, 4, 6, 2)
        return x.reshape(len(x), 2, x.shape[1] // 2).flatten(1)

    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert_array_equal(Looks(looks)(x), x)


def test_a_loop_over_the_batch_is_written_down_for_every_example():
    model = Looks(lambda x: F.stack([row * float(i + 1) for i, row in enumerate(x)]))
    for size in (3, 5):
        x = np.random.default_rng(0).standard_normal((size, 3))
        assert_array_equal(model(x), x * np.arange(1, size + 1)[:, None])
        gradcheck(model, (size, 3))


def test_a_forward_must_return_values_of_its_own():
    kept = []

    def keep(x):
        kept.append(x)
        return kept[0] + x

    model = Looks(keep)
    model(np.ones((2, 3), np.float32))
    with pytest.raises(TraceError, match="a value of another forward is used; keep no values between calls"):
        model(np.ones((4, 3), np.float32))
    for found in (lambda x: None, lambda x: np.ones(3), lambda x: kept[0], lambda x: {"a": x}):
        with pytest.raises(TraceError, match="must return a value, or a tuple of values"):
            Looks(found)(np.ones((2, 3), np.float32))


def test_a_failed_trace_leaves_the_model_usable():
    model = nn.Sequential(nn.Linear(3, 2), Looks(lambda x: x if x.shape[0] < 3 else F.relu(bool(x))))
    x = np.ones((2, 3), np.float32)
    expected = model(x).copy()
    with pytest.raises(TraceError):
        model(np.ones((3, 3), np.float32))
    assert_array_equal(model(x), expected)


# --- what is noticed


class Mine(nn.Module):
    buffer_names = ("offset",)

    def __init__(self):
        self.features, self.slope, self.order = 4, 0.1, "before"
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(np.full((4, 1, 1), 2, np.float32))
        self.offset = np.full((4, 1, 1), 0.5, np.float32)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 1)])
        self.heads = nn.ModuleDict({"a": nn.Tanh()})
        self.chain = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Bias(4), nn.ReLU())

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.conv(x)), self.slope)
        x = x * self.scale + self.offset
        for block in self.blocks:
            x = block(x)
        for head in self.heads.values():
            x = head(x)
        return self.chain(x)


def assign(path, value):
    def change(model):
        *owners, name = path.split(".")
        for owner in owners:
            model = model[owner] if isinstance(model, nn.Sequential) else getattr(model, owner)
        setattr(model, name, value() if callable(value) else value)

    return change


def filled(shape, start):
    return np.linspace(start, 1.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def load(model):
    model.load_state_dict({
        name: a + 1 if a.dtype == np.int64 else np.abs(a) + np.float32(0.25) for name, a in model.state_dict().items()
    })  # fmt: skip


def step(model):
    for parameter in model.parameters():
        parameter.grad[...] = filled(parameter.grad.shape, -1)
    optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad()


def write_all(model):
    for _, array in model.named_state():
        array += 1


def view(model):
    block = np.zeros(1000, np.float32)
    block[3:7] = [3, 1, 2, 4]
    model.scale.data = block[3:7].reshape(4, 1, 1)


def fortran(model):
    model.conv.weight.data = np.asfortranarray(model.conv.weight.data * 2)


def reshape(model):
    model.scale.data, model.scale.grad = filled((1, 6, 5), -1), np.zeros((1, 6, 5), np.float32)


def pop(model):
    model.blocks.pop()


def rebuild(model):
    model.chain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    for parameter in model.chain.parameters():
        parameter.data[...] = filled(parameter.data.shape, -1)


def fixed(layer, start=-1.0):
    for parameter in layer.parameters():
        parameter.data[...] = filled(parameter.data.shape, start)
    return layer


CHANGES = {
    "padding": assign("conv.padding", ((0, 2), (1, 1))),
    "eps": assign("norm.eps", 0.5),
    "momentum": assign("norm.momentum", 0.5),
    "a number of one's own": assign("slope", 0.9),
    "training": lambda model: model.eval(),
    "training of one layer": lambda model: model.norm.eval(),
    "fuse": assign("fuse", False),
    "a new array": assign("offset", lambda: filled((4, 1, 1), -1)),
    "an array written to": lambda model: model.offset.__iadd__(np.float32(3)),
    "running statistics": assign("norm.running_var", lambda: filled(4, 0.5)),
    "p.data": assign("conv.weight.data", lambda: filled((4, 2, 3, 3), -1)),
    "p.data of one's own": assign("scale.data", lambda: filled((4, 1, 1), -1)),
    "p.data in Fortran order": fortran,
    "p.data as a view": view,
    "p.data of another shape": reshape,
    "writing into p.data": lambda model: model.conv.weight.data.__imul__(np.float32(2)),
    "all written to": write_all,
    "load_state_dict": load,
    "an optimiser's step": step,
    "a new parameter": assign("scale", lambda: nn.Parameter(filled((4, 1, 1), -1))),
    "a new parameter of a layer": assign("conv.bias", lambda: nn.Parameter(filled(4, -1))),
    "no bias": assign("conv.bias", None),
    "a new layer": assign("conv", lambda: fixed(nn.Conv2d(2, 4, 5, padding=2))),
    "another chain": rebuild,
    "one block more": lambda model: model.blocks.append(fixed(nn.Conv2d(4, 4, 3, padding=1))),
    "one block less": pop,
    "another block": lambda model: model.blocks.__setitem__(0, fixed(nn.Conv2d(4, 4, 1), 0.5)),
    "a block before": lambda model: model.blocks.insert(0, nn.ReLU()),
    "no blocks": lambda model: model.blocks.__delitem__(0),
    "more blocks": lambda model: model.blocks.extend([nn.Tanh(), nn.ReLU()]),
    "a head more": lambda model: model.heads.update({"b": nn.Sigmoid()}),
    "another head": lambda model: model.heads.__setitem__("a", nn.ReLU()),
    "no head": lambda model: model.heads.clear(),
    "a frozen parameter": assign("scale.requires_grad", False),
    "no input gradient": assign("need_input_grad", False),
    "no gradient below a layer": assign("chain.need_input_grad", False),
}


def made():
    fastconv.manual_seed(1)
    return Mine()


def outcome(model, x):
    y = model(x).copy()
    g = model.backward(filled(y.shape, -1).astype(y.dtype))
    grads = [p.grad.copy() for p in model.parameters()]
    return [y, None if g is None else g.copy(), *grads, *(a.copy() for _, a in model.named_state()), model.predict(x)]


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_after_a_run_is_noticed(name):
    """A model that has run before a change does what one does that was changed before it ever ran."""
    change, x = CHANGES[name], filled((3, 2, 6, 5), -1)
    ran, fresh = made(), made()
    for _ in range(2):
        outcome(ran, x)
    former = outcome(ran, x)
    ran.zero_grad()
    fresh.load_state_dict(ran.state_dict())
    for model in (ran, fresh):
        change(model)
    for _ in range(2):
        found, expected = outcome(ran, x), outcome(fresh, x)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_array_equal(a, b)
    if name != "fuse":  # changes that change nothing would test nothing
        assert [a is None or a.tobytes() for a in found] != [a is None or a.tobytes() for a in former]


@pytest.mark.parametrize("gradients", [True, False])
def test_astype_is_noticed_from_above_and_below(gradients):
    x = filled((3, 2, 6, 5), -1)
    for convert in (lambda model: model.astype(np.float64), lambda model: [m.astype(np.float64) for m in parts(model)]):
        model, fresh = made(), made()
        outcome(model, x)
        model.zero_grad()
        fresh.load_state_dict(model.state_dict())
        convert(model)
        fresh.astype(np.float64)
        for _ in range(2):
            for a, b in zip(outcome(model, x.astype(np.float64)), outcome(fresh, x.astype(np.float64)), strict=True):
                assert a.dtype == b.dtype
                assert_array_equal(a, b)


def parts(model):
    for parameter in (model.scale,):
        parameter.data, parameter.grad = parameter.data.astype(np.float64), parameter.grad.astype(np.float64)
    model.offset = model.offset.astype(np.float64)
    return [child for _, child in model.named_children()]


def test_a_change_deep_below_is_noticed_by_all_above():
    leaf = nn.LeakyReLU(0.5)
    inner = nn.Sequential(nn.Tanh(), nn.Residual(nn.Sequential(leaf)))
    outer = nn.Sequential(inner, nn.Identity())
    x = filled((2, 3), -1)
    for slope in (0.5, 0.25, 0.75):
        leaf.negative_slope = slope
        twin = nn.Sequential(nn.Tanh(), nn.Residual(nn.LeakyReLU(slope)))
        assert_array_equal(outer(x), twin(x))
        assert_array_equal(inner(x), twin(x))


def test_a_model_runs_without_writing_anything_down_again(monkeypatch):
    traces = []
    trace = _tracing.trace
    monkeypatch.setattr(_tracing, "trace", lambda *a: traces.append(a) or trace(*a))
    model, optimizer = made(), None
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(5):
        for size in (4, 2):  # a smaller last batch
            model.zero_grad()
            model.backward(np.ones_like(model(filled((size, 2, 6, 5), -1))))
            optimizer.step()
        model.predict(filled((7, 2, 6, 5), -1), batch_size=3)
        model.load_state_dict(model.state_dict())
    assert len(traces) == 4  # two sizes in training, two in evaluation


@pytest.mark.parametrize("name", ["resnet20", "vgg-small", "one's own"])
def test_steps_change_nothing_that_a_model_has_to_look_at(name):
    """Else each step would compare every mode and settings, which takes as long as a small net's arithmetic."""
    model = made() if name == "one's own" else models.build(name, (2, 16, 16), 3)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    seen = []
    for _ in range(3):
        optimizer.zero_grad()
        model.train()
        output = model(filled((2, 2, 16, 16), -1))
        model.backward(np.ones_like(output))
        optimizer.step()
        seen.append(_settings.latest.change)
    assert len({id(change) for change in seen}) == 1
    model.requires_grad_(False)
    assert _settings.latest.change is not seen[0]


def test_schedules_and_programs_that_are_kept_are_a_handful():
    model = made()
    for size in (*range(30, 1, -1), *range(2, 31)):
        x = np.ones((size, 2, 4, 4), np.float32)
        model.backward(np.ones_like(model(x)))
        model.predict(x)
        tree = model._running()
        assert len(tree.schedules) <= _running.KEPT
        for session in (*tree.sessions, *(run.session for run in tree.runs)):
            assert len(session.programs) <= _running.KEPT
    for slope in range(20):
        model.slope = float(slope)
        model.predict(x)
    for session in tree.sessions:
        assert len(session.programs) <= _running.KEPT


def test_the_latest_schedules_are_those_that_are_kept():
    model = nn.Sequential(nn.Linear(3, 2))
    first = schedule_of(model, (1, 3))
    for size in range(2, _running.KEPT + 1):
        schedule_of(model, (size, 3))
        assert schedule_of(model, (1, 3)) is first
    second = schedule_of(model, (2, 3))
    schedule_of(model, (99, 3))
    assert schedule_of(model, (2, 3)) is second
    assert schedule_of(model, (1, 3)) is first


def test_the_data_of_a_parameter_is_no_constant():
    class Scaled(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter(np.full(3, 2, np.float32))

        def forward(self, x):
            return x * self.scale.data[:]

    with pytest.raises(TraceError, match="use the parameter itself"):
        Scaled()(np.ones((2, 3), np.float32))
