"""Arguments that make no sense: nn, optim, serialize and init answer by TypeError or ValueError."""

import inspect
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import KINDS, REQUIRED, build, ranks

from fastconv import init, nn, optim, serialize

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

REFUSED = (TypeError, ValueError)
LOSSES = [
    nn.CrossEntropyLoss, nn.MSELoss, nn.MultiMarginLoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss,
    nn.DiceLoss,
]  # fmt: skip
OPTIMIZERS = [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad]
VALUES = [
    None, "x", b"x", True, 0, -1, 3, 2**70, 10**400, 2.5, float("nan"), float("inf"), 1j, np.int64(3), np.float32(0.5),
    (), (1,), [1, 2], ("a", "b"), ((1, 2), (3, 4)), {}, {"a": 1}, {1: 2}, object(), object, np.ones(3), np.array(2),
    np.ones((2, 2), np.float32), np.full((3, 3), "a"), nn.ReLU(), nn.Linear(1, 1), nn.Parameter(np.ones(2)),
]  # fmt: skip
ANY = st.sampled_from(VALUES)


def foreign(shape):
    """Return what is passed by mistake in the place of an array of this shape."""
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return [
        None, 3, "x", a.tolist(), (a, a), memoryview(a), a.astype(object), np.ma.masked_array(a, a > 0), a.astype(int),
        a > 0, a.astype(np.float16), a.astype(complex), a.astype(np.longdouble), np.full(shape, "a"), np.float32(3),
        np.array(3, np.float32), a.ravel(), a[..., None, None, None], a[:, :0], a[:0], a.astype(">f4"),
        np.asmatrix(a.reshape(shape[0], -1)), np.zeros(shape, [("a", "f4")]),
    ]  # fmt: skip


def attempt(call, *more):
    """Call; it may work, or refuse as it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except (*REFUSED, *more):
            return None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_arrays_of_other_kinds(kind):
    for rank in ranks(kind):
        shape = (2, 3, 5, 6)[:rank]
        for host in (lambda layer: layer, lambda layer: nn.Sequential(layer, nn.ReLU())):
            layer, x = host(build(kind, np.random.default_rng(1), 3)), np.ones(shape, np.float32)
            for wrong in foreign(shape):
                attempt(lambda wrong=wrong, layer=layer: layer(wrong))
                attempt(lambda wrong=wrong, layer=layer: layer.predict(wrong))
            for wrong in foreign(layer(x).shape):
                layer(x)
                attempt(lambda wrong=wrong, layer=layer: layer.backward(wrong))


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_losses(kind):
    good = np.ones((2, 3), np.float32)
    targets = [good, np.array([0, 2])]
    for wrong in [*foreign((2, 3)), *foreign((2, 1))]:
        for target in targets:
            attempt(lambda wrong=wrong, target=target: kind()(wrong, target))
        attempt(lambda wrong=wrong: kind()(good, wrong))
    loss = kind()
    loss(good, targets[kind in (nn.CrossEntropyLoss, nn.MultiMarginLoss, nn.DiceLoss)])
    for value in VALUES:
        attempt(lambda value=value: loss.backward(value))


@settings(deadline=None, max_examples=400)
@given(st.sampled_from([*KINDS, nn.ModuleList, nn.ModuleDict, nn.Parameter, *LOSSES]), st.data())
def test_constructors(kind, data):
    parameters = [p for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    values = {p.name: REQUIRED.get(p.name, lambda rng, c: np.ones(2))(np.random.default_rng(0), 3)
              for p in parameters if p.default is p.empty}  # fmt: skip
    for name in data.draw(st.lists(st.sampled_from([p.name for p in parameters] or [None]), min_size=1, max_size=2)):
        if name is not None:
            values[name] = data.draw(ANY)
    attempt(lambda: repr(kind(**values)), OSError, MemoryError)  # no such file; larger than this machine


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(OPTIMIZERS), st.data())
def test_optimizers(kind, data):
    names = list(inspect.signature(kind).parameters)[1:]
    values = {name: data.draw(ANY) for name in data.draw(st.lists(st.sampled_from(names), max_size=2))}
    attempt(lambda: kind([nn.Parameter(np.ones(3, np.float32))], **values).step())
    optimizer = kind([nn.Parameter(np.ones(3, np.float32))])
    state = optimizer.state_dict()
    for name in data.draw(st.lists(st.sampled_from(list(state)), max_size=2)):
        state[name] = data.draw(ANY)
    attempt(lambda: optimizer.load_state_dict(state))
    attempt(lambda: optimizer.step())


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value!r:.20}")
def test_whatever_stands_in_the_place_of_something_else(value, tmp_path):
    model, path = nn.Sequential(nn.Linear(3, 3), nn.Dropout()), tmp_path / "model"
    for kind in OPTIMIZERS:
        attempt(lambda kind=kind: kind(value))
    for call in (
        lambda: model.load_state_dict(value),
        lambda: model.load_state_dict({**model.state_dict(), "0.weight": value}),
        lambda: model.load_extra_state(value),
        lambda: model.load_extra_state({**model.extra_state(), "1.step": value}),
        lambda: model(np.ones((2, 3), np.float32)),
        lambda: model.plan(value),
        lambda: model.predict(np.ones((4, 3), np.float32), value),
        lambda: nn.Linear(2, 2).astype(value),
        lambda: serialize.save(value, path),
        lambda: serialize.save_arrays(path, value),
        lambda: serialize.save_arrays(path, {"a": value}),
        lambda: serialize.save_arrays(path, {"a": np.ones(1)}, value),
        lambda: serialize.save_arrays(path, {"a": np.ones(1)}, {"a": value}),
        lambda: init.apply(value, "he"),
        lambda: init.apply(model, value),
        lambda: init.apply(model, "he", value),
        lambda: init.apply(model, "lsuv", batch=value),
        lambda: init.fans(value),
        lambda: init.orthogonal((2, 3), value),
    ):
        attempt(call)
    for call in (lambda: serialize.load(value), lambda: serialize.load_arrays(value)):
        attempt(call, OSError)
    if value is not object:
        with pytest.raises(TypeError, match=r"expected a subclass of nn\.Module"):
            serialize.register(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value!r:.20}")
@pytest.mark.parametrize(("kind", "place"), [
    (nn.Linear, 0), (nn.Linear, 1), (nn.Dropout, 0), (nn.Dropout2d, 0), (nn.StochasticDepth, 0),
])  # fmt: skip
def test_a_size_or_probability_that_is_none_is_named(kind, place, value):
    name = list(inspect.signature(kind).parameters)[place]
    try:
        kind(*[3] * place, value, *[3] * (kind is nn.Linear and not place))
    except REFUSED as error:
        found = str(error)
    else:
        return
    assert found.startswith(f"{kind.__name__}: {name} ")


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([nn.Bias, nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d, nn.InstanceNorm2d]),
       st.integers(1, 5), st.integers(1, 5))
def test_other_channels_than_the_layer_has_are_an_error_of_the_input(kind, has, given):
    """The layer's own arrays are right; it is not they that must have another shape."""
    shape = (2, given, 3, 3)[: 4 - ("1d" in kind.__name__)]
    layer = kind(has)
    if has == given:
        assert layer(np.ones(shape, np.float32)).shape == shape
        return
    with pytest.raises(ValueError, match=rf"{kind.__name__}: input needs {has} channels, got {re.escape(str(shape))}"):
        layer(np.ones(shape, np.float32))


def test_another_dtype_than_the_parameters_is_told_with_shapes_and_a_way_out():
    words = r"got float32 and float64 \(float64 \(2, 3\), float32 \(4, 3\), float32 \(4,\)\); a.astype"
    with pytest.raises(TypeError, match=words):
        nn.Linear(3, 4)(np.ones((2, 3)))
