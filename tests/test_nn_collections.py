"""Modules in modules of one's own: lists, dicts, what plain containers would hide, and layers in two places."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import functional as F
from fastconv import nn, optim, serialize
from fastconv.graph.value import TraceError


class Chain(nn.Module):
    """Linear layers of a ModuleList, tanh between them, and a head chosen from a ModuleDict."""

    def __init__(self, widths, head="b"):
        self.widths, self.head = widths, head
        self.body = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.between = nn.ModuleList([nn.Tanh() for _ in self.body])
        self.heads = nn.ModuleDict({"a": nn.Linear(widths[-1], 2), "b": nn.Linear(widths[-1], 3)})

    def forward(self, input):
        for layer, activation in zip(self.body, self.between, strict=True):
            input = activation(layer(input))
        return self._save(self.heads[self.head](input))

    def backward(self, grad_output):
        (grad,) = self._recall(grad_output)
        grad = self.heads[self.head].backward(grad)
        for layer, activation in zip(reversed(self.body), reversed(self.between), strict=True):
            grad = layer.backward(activation.backward(grad))
        return grad


@pytest.fixture
def registered():
    serialize.register(Chain)
    yield
    serialize.LAYERS.pop("Chain")


def test_names_are_pytorchs_and_what_is_in_them_trains_and_is_saved(tmp_path, registered):
    fastconv.manual_seed(2)
    model = Chain((4, 5, 6))
    assert list(model.state_dict()) == [
        "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias",
        "heads.a.weight", "heads.a.bias", "heads.b.weight", "heads.b.bias",
    ]  # fmt: skip
    assert fastconv.testing.gradcheck(model, (3, 4)).ok
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    optimizer, before = optim.SGD(model.parameters(), lr=0.1), model.state_dict()
    y = model(x)
    model.backward(np.ones_like(y))
    optimizer.step()
    moved = [name for name, array in model.state_dict().items() if not np.array_equal(array, before[name])]
    assert moved == [name for name in before if not name.startswith("heads.a")]
    serialize.save(model, tmp_path / "model")
    again = serialize.load(tmp_path / "model")
    assert repr(again) == repr(model)
    for twin in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_array_equal(twin.predict(x), model.predict(x))
        assert twin.body[0].weight is not model.body[0].weight
    assert [type(m).__name__ for m in model.eval().modules() if m.training] == []


CALLS = {
    "append": lambda a, index, item: a.append(item),
    "extend": lambda a, index, item: a.extend([item, item]),
    "insert": lambda a, index, item: a.insert(index, item),
    "pop": lambda a, index, item: a.pop(index),
    "set": lambda a, index, item: a.__setitem__(index, item),
    "del": lambda a, index, item: a.__delitem__(index),
    "iadd": lambda a, index, item: a.__iadd__([item]),
}


@settings(deadline=None)
@given(st.data())
def test_a_list_is_a_list(data):
    """Whatever is done to it, it holds what a plain list would."""
    stock = [nn.ReLU(), nn.Tanh(), nn.Linear(1, 1), nn.Identity()]
    some = st.sampled_from(stock)
    plain = data.draw(st.lists(some, max_size=4))
    modules = nn.ModuleList(iter(plain))
    for _ in range(data.draw(st.integers(0, 6))):
        what = data.draw(st.sampled_from(sorted(CALLS)))
        index, item = data.draw(st.integers(-5, 5)), data.draw(some)
        try:
            CALLS[what](plain, index, item)
        except IndexError:
            with pytest.raises(IndexError):
                CALLS[what](modules, index, item)
        else:
            CALLS[what](modules, index, item)
        assert list(modules) == plain
    assert len(modules) == len(plain)
    assert list(reversed(modules)) == plain[::-1]
    assert [name for name, _ in modules.named_children()] == [str(k) for k in range(len(plain))]
    cut = data.draw(st.slices(len(plain))) if plain else slice(None)
    assert isinstance(modules[cut], nn.ModuleList)
    assert list(modules[cut]) == plain[cut]
    assert list(modules + modules) == plain + plain
    assert all(item in modules for item in plain)
    assert nn.ReLU() not in modules
    copied = copy.copy(modules)
    copied.append(stock[0])
    assert list(modules) == plain


def test_a_dict_is_a_dict():
    relu, tanh = nn.ReLU(), nn.Tanh()
    modules = nn.ModuleDict([("x", relu)])
    modules["y"] = tanh
    modules.update({"x": tanh, "z": relu})
    assert list(modules) == list(modules.keys()) == ["x", "y", "z"]
    assert list(modules.values()) == [tanh, tanh, relu]
    assert dict(modules.items()) == {"x": tanh, "y": tanh, "z": relu}
    assert nn.ModuleDict(modules)["z"] is relu
    assert modules.pop("y") is tanh
    assert "y" not in modules
    del modules["x"]
    assert len(modules) == 1
    assert repr(modules) == "ModuleDict(\n  (z): ReLU()\n)"
    copy.copy(modules).clear()
    assert len(modules) == 1
    modules.clear()
    assert (len(modules), repr(modules), repr(nn.ModuleList())) == (0, "ModuleDict()", "ModuleList()")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.ModuleList([nn.ReLU(), 3]), TypeError, "ModuleList: item 1 must be a Module, got int"),
        (lambda: nn.ModuleList(nn.ReLU()), TypeError, "expected an iterable of modules, got ReLU"),
        (lambda: nn.ModuleList().append(None), TypeError, "item 0 must be a Module, got NoneType"),
        (lambda: nn.ModuleDict({"a.b": nn.ReLU()}), KeyError, "not be empty or have a dot, got 'a.b'"),
        (lambda: nn.ModuleDict({1: nn.ReLU()}), TypeError, "a name must be a string, got 1"),
        (lambda: nn.ModuleDict({"a": "b"}), TypeError, "ModuleDict: 'a' must be a Module, got str"),
        (lambda: nn.ModuleDict(5), TypeError, "expected a mapping or pairs of a name and a module, got int"),
        (lambda: nn.ModuleList()(np.ones(1)), NotImplementedError, "ModuleList defines no forward"),
    ],
)
def test_what_they_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_identity_gives_back_what_it_gets():
    layer, x = nn.Identity(54, unused=True), np.ones((2, 3), np.float32)
    assert layer(x) is x
    assert_array_equal(layer.backward(x), x)
    block = nn.Residual(nn.Identity(), activation=nn.ReLU())
    assert_array_equal(block(x), 2 * x)
    assert_array_equal(block.backward(x), 2 * x)
    assert repr(layer) == "Identity()"


# --- what plain containers would hide

HIDING = st.recursive(
    st.sampled_from([list, tuple]).map(lambda kind: lambda item: kind([1, item, "a"])),
    lambda inner: st.tuples(inner, st.sampled_from([list, lambda a: {"key": a[0]}, tuple])).map(
        lambda pair: lambda item: pair[1]([pair[0](item)])
    ),
    max_leaves=4,
)
WALKS = {
    "parameters": lambda model: list(model.parameters()),
    "state_dict": lambda model: model.state_dict(),
    "train": lambda model: model.train(),
    "predict": lambda model: model.predict(np.ones((1, 1), np.float32)),
    "astype": lambda model: model.astype(np.float64),
    "repr": repr,
}


@settings(deadline=None)
@given(
    HIDING,
    st.sampled_from([nn.Linear(1, 1), nn.Parameter(np.zeros(1))]),
    st.sampled_from(sorted(WALKS)),
    st.sampled_from([lambda m: m, lambda m: nn.Sequential(m)]),
)
def test_layers_in_plain_containers_are_refused_at_the_first_walk(hide, item, walk, host):
    class Mine(nn.Module):
        def __init__(self):
            self.things = []

        def forward(self, input):
            return self._save(input)

    model = Mine()
    model.things.append(hide(item))
    way = "use nn.ModuleList" if isinstance(item, nn.Module) else "an attribute of its own"
    with pytest.raises(TypeError, match=rf"Mine\.things is a list that holds a {type(item).__name__}, .*{way}"):
        WALKS[walk](host(model))
    model.things = {"a": item}
    with pytest.raises(TypeError, match=r"Mine\.things is a dict"):
        WALKS[walk](host(model))
    model.found = item  # a list of what is found anyway hides nothing
    model.things = [item]
    WALKS[walk](host(model))


# --- one layer in two places


class Twice(nn.Module):
    """Written down: two nodes of one layer."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, input):
        return self.layer(F.tanh(self.layer(input)))


class TwiceByHand(Twice):
    """With a backward of its own: two forwards of one layer, taken back in turn."""

    def forward(self, input):
        first = F.tanh(self.layer(input))
        return self._save(self.layer(first).copy(), first)

    def backward(self, grad_output):
        grad, first = self._recall(grad_output)
        return self.layer.backward(F.tanh_backward(self.layer.backward(grad), first))


def twin(layer):
    """Return two layers of one state, sharing parameters and buffers, that look like two to the net."""
    first, second = copy.deepcopy(layer), copy.deepcopy(layer)
    for (_, a), (_, b) in zip(first.named_modules(), second.named_modules(), strict=True):
        for name, value in vars(a).items():
            if isinstance(value, nn.Parameter | np.ndarray):
                setattr(b, name, value)
    return nn.Sequential(first, nn.Tanh(), second)


SHARED = [
    nn.Linear(3, 3), nn.Tanh(), nn.BatchNorm1d(3), nn.Residual(nn.Linear(3, 3)),
    nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Identity(), nn.Bias(3), nn.Softmax(1),
]  # fmt: skip


@pytest.mark.parametrize("kind", [Twice, TwiceByHand])
@pytest.mark.parametrize("layer", SHARED, ids=lambda layer: type(layer).__name__)
def test_a_layer_used_twice_has_the_gradients_of_both_uses(layer, kind):
    rng = np.random.default_rng(0)
    model, pair = nn.Sequential(nn.Tanh(), kind(copy.deepcopy(layer))), nn.Sequential(nn.Tanh(), twin(layer))
    for _ in range(3):
        x, grad = rng.standard_normal((2, 4, 3)).astype(np.float32)
        assert_array_equal(model(x).copy(), pair(x))
        assert_array_equal(model.backward(grad).copy(), pair.backward(grad))
        for (name, a), (_, b) in zip(model.named_parameters(), pair.named_parameters(), strict=False):
            assert_array_equal(a.grad, b.grad, err_msg=name)
        assert_array_equal(model.predict(x), pair.predict(x))
    assert fastconv.testing.gradcheck(model, (4, 3)).ok


def test_dropout_used_twice_drops_by_two_masks():
    model = Twice(nn.Dropout(0.5))
    x = np.ones((40, 30), np.float32)
    y = model(x).copy()
    grad = model.backward(np.ones_like(x))
    assert model.layer.step == 2
    assert 0.15 < (y != 0).mean() < 0.35
    assert_array_equal(grad != 0, y != 0)
    expected = 4 * F.tanh_backward(np.ones((1, 1), np.float32), F.tanh(np.full((1, 1), 2, np.float32)))
    assert_array_equal(grad[y != 0], expected.item())


class Doubling(nn.Module):
    """A layer with a backward of its own."""

    def forward(self, input):
        return self._save(2 * input)

    def backward(self, grad_output):
        return 2 * self._recall(grad_output)[0]


@pytest.mark.parametrize("layer", [Doubling(), nn.DeepResidual(3, 2)], ids=lambda layer: type(layer).__name__)
def test_a_layer_with_a_backward_of_its_own_can_be_used_once_in_a_forward(layer):
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    name = type(layer).__name__
    with pytest.raises(TraceError, match=rf"{name}: .*called once in a forward; use two layers"):
        nn.Sequential(nn.Tanh(), Twice(layer))(x)
    model = nn.Sequential(nn.Tanh(), TwiceByHand(layer))
    for _ in range(2):
        y = model(x)
        with pytest.raises(RuntimeError, match=rf"{name}\.backward: .*ran twice.*use one layer for each place"):
            model.backward(np.ones_like(y))
        layer(x)
        layer.backward(x)  # alone it ran once
    assert_array_equal(model.predict(x), model.predict(x))


def test_two_layers_with_one_parameter_may_stand_in_one_net():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert fastconv.testing.gradcheck(model, (4, 3)).ok
