"""Sequential and Residual: what fuses, and that fusing changes no bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn

MAKERS = {
    "conv": lambda: nn.Conv2d(3, 3, 3, padding=1),
    "conv without bias": lambda: nn.Conv2d(3, 3, 3, padding=1, bias=False),
    "bias": lambda: nn.Bias(3),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "batch norm": lambda: nn.BatchNorm2d(3),
    "dropout": lambda: nn.Dropout(0.3),
    "pool": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "nested": lambda: nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Bias(3)),
    "residual": lambda: nn.Residual(nn.Sequential(nn.Bias(3), nn.ReLU())),
}


def chain(names, **options):
    fastconv.manual_seed(3)
    model = nn.Sequential(*(MAKERS[name]() for name in names), **options)
    for parameter in model.parameters():
        if parameter.data.ndim == 1:
            parameter.data += np.linspace(-0.5, 0.5, parameter.data.size, dtype=np.float32)
    return model


def run(model, steps=2):
    """Return all that a step computes, over steps that accumulate gradients."""
    results = []
    for step in range(steps):
        rng = np.random.default_rng(step)
        y = model(rng.standard_normal((4, 3, 5, 6)).astype(np.float32))
        g = model.backward(rng.standard_normal(y.shape).astype(np.float32))
        results += [y.copy(), None if g is None else g.copy()]
    return results + [p.grad.copy() for p in model.parameters()] + list(model.state_dict().values())


def sizes(model, shape, training=True):
    """Return how many layers run as one, row by row."""
    return [len(row.layers) for row in model.plan(shape, training).rows]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_array_equal(a, b)


NORMALISED = {
    "conv": ((4, 3, 6, 17), lambda: [nn.Conv2d(3, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40), nn.ReLU()]),
    "conv in planes": ((4, 16, 9, 33), lambda: [nn.Conv2d(16, 3, 5), nn.BatchNorm2d(3), nn.ReLU()]),
    "grouped, a bias of its own": (
        (2, 6, 7, 7), lambda: [nn.Conv2d(6, 12, 3, groups=3, bias=False), nn.Bias(12), nn.BatchNorm2d(12)]
    ),
    "depthwise": ((2, 19, 12, 12), lambda: [nn.Conv2d(19, 19, 3, groups=19), nn.BatchNorm2d(19), nn.ReLU()]),
    "conv1d": ((4, 5, 30), lambda: [nn.Conv1d(5, 7, 3), nn.BatchNorm1d(7, affine=False), nn.ReLU()]),
    "linear": ((9, 33), lambda: [nn.Linear(33, 70), nn.BatchNorm1d(70), nn.ReLU()]),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMALISED)
def test_normalisation_in_the_pass_of_the_layer_before_changes_no_bit(name, every_setting):
    shape, layers = NORMALISED[name]
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((3, *shape)).astype(np.float32)

    def evaluated(fuse):
        fastconv.manual_seed(1)
        model = nn.Sequential(*layers(), fuse=fuse)
        norm = next(layer for layer in model if hasattr(layer, "running_mean"))
        for p in norm.parameters():
            p.data[...] = np.linspace(-2, 2, p.data.size)
        model(batches[0])
        count = len(model)
        assert sizes(model, shape) != [count]  # in training the statistics come first
        assert sizes(model, shape, training=False) == ([count] if fuse else [1] * count)
        model.eval()
        results = []
        for x in (*batches[1:], batches[2]):
            results.append(model.predict(x))
            y = model(x)
            g = np.ones_like(y)
            g[..., ::2] = -3
            results += [y.copy(), model.backward(g).copy()]
            norm.running_mean += 0.25
        return [a.tobytes() for a in (*results, *(p.grad for p in model.parameters()), model.predict(batches[0]))]

    results = every_setting(lambda: evaluated(True))
    assert all(result == evaluated(False) for result in results.values())


POOLINGS = {
    "maxima": lambda: nn.MaxPool2d(2),
    "means": lambda: nn.AvgPool2d(2),
    "means that overlap": lambda: nn.AvgPool2d(3, 2, 1),
    "means with gaps": lambda: nn.AvgPool2d(2, 3),
    "means that leave a border": lambda: nn.AvgPool2d(5),
    "means of uneven parts": lambda: nn.AdaptiveAvgPool2d((5, 4)),
    "one mean": lambda: nn.GlobalAvgPool2d(),
}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("odd", [0.0, -0.0, np.nan, np.inf])
def test_pooling_that_masks_for_relu_changes_no_bit(odd, pooling, every_setting):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((4, 3, 12, 12)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = odd

    def step(fuse, images=x, channels=5):
        fastconv.manual_seed(5)
        model = nn.Sequential(nn.Conv2d(3, channels, 1), nn.ReLU(), POOLINGS[pooling](), fuse=fuse)
        with np.errstate(invalid="ignore"):
            y = model(images).copy()
            g = np.random.default_rng(6).standard_normal(y.shape).astype(np.float32)
            g[..., 0] = odd
            results = [y, model.backward(g).copy(), *(p.grad for p in model.parameters())]
        return [np.where(np.isnan(a), np.float32(np.nan), a).tobytes() for a in results]

    assert all(result == step(False) for result in every_setting(lambda: step(True)).values())
    # few images of many channels: tasks are parts of the channels, too
    assert all(result == step(False, x[:1], 130) for result in every_setting(lambda: step(True, x[:1], 130)).values())


def test_a_normalisation_that_goes_on_learning_keeps_its_own_pass():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    model = nn.Sequential(*layers).eval()
    layers[1].train()
    before = layers[1].running_mean.copy()
    x = np.random.default_rng(2).standard_normal((4, 3, 6, 6)).astype(np.float32)
    y = model(x).copy()
    assert (layers[1].running_mean != before).all()
    g = model.backward(np.ones_like(y)).copy()
    layers[1].running_mean[...], layers[1].running_var[...] = 0, 1
    again = nn.Sequential(*layers, fuse=False)
    assert_array_equal(again(x), y)
    assert_array_equal(again.backward(np.ones_like(y)), g)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=6))
def test_fusing_and_watching_change_no_bit(names):
    expected = run(chain(names))
    assert_same(run(chain(names, fuse=False)), expected)
    watched, seen = chain(names), []
    remove = watched[-1].register_forward_hook(lambda layer, x, y: seen.append((layer, x.shape, y.shape)))
    assert_same(run(watched), expected)
    assert seen == [(watched[-1], (4, 3, 5, 6), (4, 3, 5, 6))] * 2
    remove()
    watched(np.ones((1, 3, 5, 6), np.float32))
    assert len(seen) == 2


def test_a_fused_net_has_one_result_on_every_isa_and_thread_count(every_setting):
    def train():
        return run(chain(["conv without bias", "bias", "relu", "batch norm", "residual", "conv", "relu"]), 1)

    results = list(every_setting(train).values())
    for other in results[1:]:
        assert_same(other, results[0])


GROUPS = [
    (["conv", "relu"], [2]),
    (["conv without bias", "bias", "relu"], [3]),
    (["conv", "bias", "relu"], [1, 2]),
    (["conv without bias", "relu", "bias"], [2, 1]),
    (["bias", "bias", "relu", "relu"], [1, 2, 1]),
    (["conv", "tanh", "relu"], [2, 1]),
    (["nested", "relu", "nested"], [3, 2]),
    (["residual", "relu"], [2, 2]),
    (["conv without bias", "batch norm", "relu", "relu"], [1, 2, 1]),
    (["batch norm", "bias", "relu"], [1, 2]),
    (["conv", "pool", "relu", "pool"], [1, 1, 1, 1]),
    (["conv", "relu", "pool", "relu"], [2, 1, 1]),
    (["batch norm", "relu", "pool", "pool"], [2, 1, 1]),
]


@pytest.mark.parametrize(("names", "expected"), GROUPS, ids=lambda v: str(v))
def test_which_neighbours_fuse(names, expected):
    assert sizes(chain(names), (1, 3, 5, 6)) == expected
    if not {"nested", "residual"} & set(names):  # which have a word of their own
        assert sizes(chain(names, fuse=False), (1, 3, 5, 6)) == [1] * len(names)


def test_a_subclass_fuses_by_what_its_forward_says():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    class Soft(nn.ReLU):
        pass

    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    for layers, expected in (([Doubled(3, 3), nn.ReLU()], [1, 1, 1]), ([nn.Linear(3, 3), Soft()], [2])):
        model, apart = nn.Sequential(*layers), nn.Sequential(*layers, fuse=False)
        assert sizes(model, (4, 3)) == expected
        assert_array_equal(model(x).copy(), apart(x))
    linear = nn.Linear(3, 3)
    linear.weight.data[...], linear.bias.data[...] = layers[0].weight.data, layers[0].bias.data
    doubled = Doubled(3, 3)
    doubled.load_state_dict(linear.state_dict())
    assert_array_equal(doubled(x), 2 * linear(x))
    assert fastconv.testing.gradcheck(doubled, (4, 3)).ok


def test_linear_and_conv1d_fuse_too():
    for layers, shape in (
        ([nn.Linear(6, 5, bias=False), nn.Bias(5), nn.ReLU()], (4, 6)),
        ([nn.Conv1d(6, 5, 3, bias=False), nn.Bias(5), nn.ReLU()], (4, 6, 9)),
    ):
        fused, apart = nn.Sequential(*layers), nn.Sequential(*layers, fuse=False)
        rng = np.random.default_rng(0)
        x = rng.standard_normal(shape).astype(np.float32)
        results = []
        for model in (fused, apart):
            model.zero_grad()
            y = model(x).copy()
            g = model.backward(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)).copy()
            results.append([y, g, *(p.grad.copy() for p in model.parameters())])
        assert_same(*results)
        assert sizes(fused, shape) == [len(layers)]


def test_a_replaced_bias_is_the_one_that_counts():
    model = chain(["conv without bias", "bias", "relu"])
    x = np.zeros((1, 3, 5, 6), np.float32)
    model(x)
    model[1].bias = nn.Parameter(np.array([1, 2, 3], np.float32))
    assert_array_equal(model(x)[0, :, 0, 0], [1, 2, 3])
    model.backward(np.ones((1, 3, 5, 6), np.float32))
    assert_array_equal(model[1].bias.grad, [30, 30, 30])


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "names", [["conv", "relu", "conv"], ["dropout", "conv"], ["residual", "conv"], ["nested", "tanh"], ["relu"]]
)
def test_without_input_gradient_all_else_is_the_same(names, fuse):
    expected, got = run(chain(names, fuse=fuse)), run(chain(names, fuse=fuse, input_grad=False))
    assert got[1] is None
    assert got[3] is None
    assert_same(got[4:], expected[4:])


def test_the_first_layer_alone_is_spared():
    class Counted(nn.Tanh):
        calls = 0

        def backward(self, grad_output):
            Counted.calls += 1
            return super().backward(grad_output)

    model = nn.Sequential(Counted(), nn.Linear(3, 3), Counted(), nn.Linear(3, 2), input_grad=False)
    model(np.ones((2, 3), np.float32))
    assert model.backward(np.ones((2, 2), np.float32)) is None
    assert Counted.calls == 1
    assert model[1].need_input_grad
    assert model[0].backward is not None
    y = model[1](np.ones((2, 3), np.float32))
    assert model[1].backward(y).shape == (2, 3)


def test_indexing_and_slices_share_layers():
    model = chain(["conv", "relu", "bias"])
    assert len(model) == 3
    assert model[0] is model["0"] is next(iter(model))
    assert model[-1] is model[2]
    head = model[:2]
    assert isinstance(head, nn.Sequential)
    assert head[0] is model[0]
    named = nn.Sequential({"first": nn.ReLU(), "second": nn.Tanh()})
    assert named["second"] is named[1]
    with pytest.raises(IndexError):
        model[3]
    with pytest.raises(KeyError):
        model["nine"]


def test_an_empty_chain_is_the_identity():
    x = np.ones((2, 3), np.float32)
    model = nn.Sequential()
    assert model(x) is x
    assert model.backward(x) is x
    assert nn.Sequential({}, input_grad=False)(x) is x


def test_what_cannot_be_chained():
    layer = nn.ReLU()
    with pytest.raises(ValueError, match="layer 1 has a module that appears before"):
        nn.Sequential(layer, nn.Sequential(layer))
    with pytest.raises(ValueError, match="appears twice"):
        nn.Residual(layer, layer)
    with pytest.raises(TypeError, match="layer 0 must be a Module, got type"):
        nn.Sequential(nn.ReLU)
    with pytest.raises(ValueError, match=r"names are letters, digits and underscores, got 'a\.b'"):
        nn.Sequential({"a.b": layer})
    block = nn.Residual(nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match=r"body gives shape \(1, 4, 2, 2\), shortcut \(1, 3, 2, 2\)"):
        block(np.ones((1, 3, 2, 2), np.float32))


def test_a_chain_of_thousands_needs_no_recursion():
    model = nn.Sequential(*(nn.ReLU() for _ in range(3000)))
    x = np.ones((1, 2), np.float32)
    assert_array_equal(model(x), x)
    assert_array_equal(model.backward(x), x)


def test_empty_batches_go_through():
    model = chain(["conv", "relu", "residual", "tanh"])
    assert model(np.ones((0, 3, 5, 6), np.float32)).shape == (0, 3, 5, 6)
    assert model.backward(np.ones((0, 3, 5, 6), np.float32)).shape == (0, 3, 5, 6)
    assert not any(p.grad.any() for p in model.parameters())


# --- steps on the same arrays run what is bound to them


def steps(model, fresh, layout, between=lambda model, step: None):
    """Run steps whose arrays are new ones, or the same two ones written over."""
    place_x = layout(np.empty((4, 3, 5, 6), np.float32))
    place_g, results = None, []
    for step in range(5):
        between(model, step)
        rng = np.random.default_rng(step)
        x = rng.standard_normal((4, 3, 5, 6)).astype(np.float32)
        place_x[...] = x
        y = model(x if fresh else place_x)
        g = rng.standard_normal(y.shape).astype(np.float32)
        if place_g is None:
            place_g = layout(np.empty(g.shape, np.float32))
        place_g[...] = g
        grad = model.backward(g if fresh else place_g)
        results += [y.copy(), grad.copy(), *(p.grad.copy() for p in model.parameters())]
    return results + list(model.state_dict().values())


LAYOUTS = {
    "channels last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "channels first": lambda a: a,
    "strided": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
}
EVERY_LAYER = [
    "conv", "relu", "batch norm", "relu", "tanh", "residual", "nested", "dropout", "bias", "batch norm",
    "conv without bias", "bias",
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fuse", [True, False])
def test_steps_on_the_same_arrays_have_the_bits_of_steps_on_new_ones(layout, fuse):
    model, again = (chain(EVERY_LAYER, fuse=fuse) for _ in range(2))
    assert_same(steps(model, False, LAYOUTS[layout]), steps(again, True, LAYOUTS[layout]))


def test_pooling_on_the_same_arrays():
    def build():
        return nn.Sequential(nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1, 1), nn.AdaptiveAvgPool2d(3), nn.LeakyReLU())

    layout = LAYOUTS["channels last"]
    assert_same(steps(build(), False, layout), steps(build(), True, layout))


def freeze(model, step):
    model[0].weight.requires_grad = step not in (2, 3)


def replace(model, step):
    if step == 2:
        model[0].weight.data = model[0].weight.data * 2
        model[2].running_mean = model[2].running_mean + 1


def retune(model, step):
    model[2].eps = 1e-5 if step < 3 else 1e-2
    model[0].padding = (1, 1) if step < 2 else ((1, 1), (0, 2))


def evaluate(model, step):
    if step in (1, 3):
        model.predict(np.ones((9, 3, 5, 6), np.float32))
    model.train(step != 2)


def shrink(model, step):
    if step in (2, 3):
        model(np.ones((2, 3, 5, 6), np.float32))


@pytest.mark.parametrize("between", [freeze, replace, retune, evaluate, shrink])
def test_what_changes_between_steps_is_seen(between):
    names = ["conv", "relu", "batch norm", "relu", "conv"]
    layout = LAYOUTS["channels last"]
    assert_same(steps(chain(names), False, layout, between), steps(chain(names), True, layout, between))


def test_bound_calls_follow_the_settings_of_the_moment(every_setting):
    model = chain(["conv", "relu", "batch norm"])
    x = LAYOUTS["channels last"](np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32))
    expected = model(x).copy()
    for result in every_setting(lambda: model(x).copy()).values():
        assert_array_equal(result, expected)
