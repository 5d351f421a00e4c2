"""Modules: parameters and state under PyTorch's names, modes, buffers, errors that hold the numbers."""

import copy
import gc
import pickle
import tracemalloc

import numpy as np
import pytest
from layers import KINDS, build
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn

# Names and shapes of torch.nn's state_dict for layers built with the same arguments.
PYTORCH = [
    (nn.Linear(4, 3), {"weight": (3, 4), "bias": (3,)}),
    (nn.Linear(4, 3, bias=False), {"weight": (3, 4)}),
    (nn.Conv1d(4, 6, 5, groups=2), {"weight": (6, 2, 5), "bias": (6,)}),
    (nn.Conv2d(3, 8, (5, 3)), {"weight": (8, 3, 5, 3), "bias": (8,)}),
    (nn.Conv2d(8, 8, 3, groups=8, bias=False), {"weight": (8, 1, 3, 3)}),
    (nn.BatchNorm1d(5), {"weight": (5,), "bias": (5,), "running_mean": (5,), "running_var": (5,),
                         "num_batches_tracked": ()}),
    (nn.BatchNorm2d(5, affine=False), {"running_mean": (5,), "running_var": (5,), "num_batches_tracked": ()}),
    (nn.ReLU(), {}), (nn.MaxPool2d(2), {}), (nn.Dropout(0.3), {}), (nn.Flatten(), {}),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(),
                   nn.Sequential(nn.Linear(2, 2, bias=False))),
     {"0.weight": (2, 1, 3, 3), "0.bias": (2,), "1.weight": (2,), "1.bias": (2,), "1.running_mean": (2,),
      "1.running_var": (2,), "1.num_batches_tracked": (), "3.0.weight": (2, 2)}),
    (nn.Sequential({"conv1": nn.Conv2d(1, 2, 3, bias=False), "fc": nn.Linear(2, 2, bias=False)}),
     {"conv1.weight": (2, 1, 3, 3), "fc.weight": (2, 2)}),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "expected"), PYTORCH, ids=lambda v: type(v).__name__)
def test_state_dict_has_pytorchs_names_order_shapes_and_dtypes(layer, expected):
    state = layer.state_dict()
    assert list(state) == list(expected)
    assert {name: array.shape for name, array in state.items()} == expected
    for name, array in state.items():
        assert array.dtype == (np.int64 if name.endswith("num_batches_tracked") else np.float32)


REPRS = [
    (nn.Conv2d(1, 6, 5, padding=2), "Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))"),
    (nn.Conv2d(4, 6, 3, 2, "valid", 2, 2, False),
     "Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), dilation=(2, 2), groups=2, bias=False)"),
    (nn.Conv1d(1, 6, 5, padding="same"), "Conv1d(1, 6, kernel_size=(5,), stride=(1,), padding=same)"),
    (nn.Linear(4, 3), "Linear(in_features=4, out_features=3, bias=True)"),
    (nn.AvgPool1d(2), "AvgPool1d(kernel_size=2, stride=2, padding=0, ceil_mode=False, count_include_pad=True)"),
    (nn.GlobalMaxPool2d(), "GlobalMaxPool2d()"),
    (
        nn.MaxPool2d(2),
        "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, return_indices=False)",
    ),
    (nn.BatchNorm2d(4), "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True)"),
    (nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
    (nn.ReLU(), "ReLU()"),
    (nn.CrossEntropyLoss(), "CrossEntropyLoss(reduction='mean')"),
    (nn.MultiMarginLoss(2.0), "MultiMarginLoss(margin=2.0, reduction='mean')"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "text"), REPRS, ids=lambda v: type(v).__name__)
def test_repr_shows_hyperparameters(layer, text):
    assert repr(layer) == text


def test_repr_of_containers_nests():
    net = nn.Sequential(nn.Residual(nn.Sequential(nn.ReLU()), activation=nn.Tanh()), nn.Flatten())
    assert repr(net) == (
        "Sequential(\n  (0): Residual(\n    (body): Sequential(\n      (0): ReLU()\n    )\n"
        "    (activation): Tanh()\n  )\n  (1): Flatten()\n)"
    )


def test_initial_weights_follow_the_seed_and_the_bound():
    def build():
        fastconv.manual_seed(5)
        return [nn.Linear(16, 50), nn.Conv2d(4, 8, 2, groups=2)]

    first, second = build(), build()
    for a, b in zip(first, second, strict=True):
        assert_array_equal(a.weight.data, b.weight.data)
        assert_array_equal(a.bias.data, b.bias.data)
    for layer, bound in ((first[0], 1 / 4), (first[1], 1 / np.sqrt(8))):
        assert 0.8 * bound < np.abs(layer.weight.data).max() <= np.float32(bound)
        assert np.abs(layer.bias.data).max() <= np.float32(bound)


def net():
    fastconv.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )


def batch(n=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2, 6, 6)).astype(np.float32)


def test_gradients_accumulate_until_zeroed():
    model, x, g = net().eval(), batch(), np.ones((8, 3), np.float32)
    for _ in range(2):
        model(x)
        model.backward(g)
    twice = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    assert all((p.grad == 0).all() for p in model.parameters())
    model(x)
    model.backward(g)
    for parameter, expected in zip(model.parameters(), twice, strict=True):
        np.testing.assert_allclose(2 * parameter.grad, expected, rtol=1e-5, atol=1e-5)


def test_frozen_parameters_get_no_gradient():
    model = net()
    model[0].weight.requires_grad = model[0].bias.requires_grad = False
    model[1].weight.requires_grad = model[1].bias.requires_grad = False
    model(batch())
    model.backward(np.ones((8, 3), np.float32))
    for name, parameter in model.named_parameters():
        assert parameter.grad.any() == name.startswith("5."), name


def test_state_moves_between_models_and_is_a_copy():
    a, b = net(), net()
    a(batch())
    for parameter in b.parameters():
        parameter.data.fill(0)
    state = a.state_dict()
    assert b.load_state_dict(state) == ([], [])
    assert_array_equal(a.predict(batch()), b.predict(batch()))
    state["0.weight"].fill(7)
    assert not (a[0].weight.data == 7).any()
    assert not (b[0].weight.data == 7).any()
    assert b.state_dict()["1.num_batches_tracked"] == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_layers_that_were_built_blank_take_a_state(kind):
    """It gives them memory of their own; what it leaves out stays blank."""
    layer = build(kind, np.random.default_rng(5), 4)
    with nn.blank():
        empty, partly = build(kind, np.random.default_rng(5), 4), build(kind, np.random.default_rng(5), 4)
    state = layer.state_dict()
    empty.load_state_dict(state)
    for (name, array), given in zip(empty.named_state(), state.values(), strict=True):
        assert array.flags.writeable, name
        assert not np.may_share_memory(array, given)
        assert_array_equal(array, given)
    for p in empty.parameters():
        p.grad += 1
    left, *given = state or [None]
    partly.load_state_dict({name: state[name] for name in given}, strict=False)
    assert_array_equal(partly.state_dict().get(left, 0), 0)


def test_load_state_dict_errors_hold_the_numbers_and_change_nothing():
    model = net()
    before = model.state_dict()
    good = {name: array + 1 for name, array in before.items()}
    with pytest.raises(ValueError, match=r"5\.weight has shape \(3, 64\) here, \(64, 3\) in the state"):
        model.load_state_dict({**good, "5.weight": good["5.weight"].T})
    with pytest.raises(ValueError, match=r"1 of 9 names missing \['5\.bias'\], 1 unexpected \['extra'\]"):
        model.load_state_dict({**{n: a for n, a in good.items() if n != "5.bias"}, "extra": good["0.bias"]})
    with pytest.raises(ValueError, match=r"5\.bias is float32 here, complex128 in the state"):
        model.load_state_dict({**good, "5.bias": np.zeros(3, complex)})
    with pytest.raises(ValueError, match="num_batches_tracked is int64 here, float64"):
        model.load_state_dict({**good, "1.num_batches_tracked": np.array(1.0)})
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])
    partial = {"0.bias": good["0.bias"], "extra": good["0.bias"]}
    missing, unexpected = model.load_state_dict(partial, strict=False)
    assert len(missing) == 8
    assert unexpected == ["extra"]
    assert_array_equal(model[0].bias.data, good["0.bias"])


def test_modes_reach_every_module_and_predict_puts_them_back():
    model = net()
    model[1].eval()  # a frozen batch norm stays frozen
    out = model.predict(batch())
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True, True]
    assert_array_equal(out, model.predict(batch()))
    assert_array_equal(out, model.predict(batch(), batch_size=3))
    again = model(batch())
    model.predict(batch(seed=1))
    assert not np.shares_memory(out, again)
    assert not any(m.training for m in model.eval().modules())
    assert model.predict(batch(0)).shape == (0, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        model.predict(batch(), batch_size=0)
    with pytest.raises(ValueError, match=r"Sequential|Linear|linear"):
        model.predict(np.zeros((1, 2, 9, 9), np.float32))


def test_backward_needs_a_forward_of_its_own_shape():
    for layer, shape in ((nn.Linear(64, 3), (2, 64)), (nn.ReLU(), (2, 3)), (net(), (2, 2, 6, 6))):
        name = type(layer).__name__
        x = np.ones(shape, np.float32)
        with pytest.raises(RuntimeError, match=f"{name}.backward: called before forward"):
            layer.backward(x)
        y = layer(x)
        with pytest.raises(ValueError, match=rf"{name}.*grad_output has shape \(9, 9\), .*\({len(y)}, 3\)"):
            layer.backward(np.ones((9, 9), np.float32))
        grad = layer.backward(np.ones_like(y)).copy()
        with pytest.raises(RuntimeError, match=f"{name}.backward: it has run already for the latest forward"):
            layer.backward(np.ones_like(y))
        layer.load_extra_state({key: 0 if key.endswith("step") else n for key, n in layer.extra_state().items()})
        y = layer(x)
        layer.predict(np.zeros_like(x))  # is no forward that backward follows, and takes none away
        assert_array_equal(layer.backward(np.ones_like(y)), grad)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(0, 3), "Linear: in_features must be at least 1, got 0"),
        (lambda: nn.Bias(0), "at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 must divide in_channels=3 and out_channels=4"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), "'same' or 'valid', got 'full'"),
        (lambda: nn.Conv2d(3, 4, 3, 2, "same"), "needs stride 1, got 2"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding"),
        (lambda: nn.Conv1d(3, 4, (3, 3)), r"kernel_size must be .* got \(\(3, 3\)"),
        (lambda: nn.MaxPool2d(0), "kernel_size"),
        (lambda: nn.AvgPool2d(2, padding=-1), "padding"),
        (lambda: nn.BatchNorm1d(0), "at least 1, got 0"),
        (lambda: nn.BatchNorm2d(3, eps=-1), "eps must be >= 0"),
        (lambda: nn.Dropout(1.5), r"in \[0, 1\], got 1.5"),
        (lambda: nn.CrossEntropyLoss("median"), "'mean', 'sum' or 'none', got 'median'"),
        (lambda: nn.BatchNorm2d(3)(np.ones((4, 3), np.float32)), r"got \(4, 3\)"),
        (lambda: nn.CrossEntropyLoss()(np.ones((2, 3), np.float32), np.array([0, 3])), "3"),
        (lambda: net().load_extra_state({"3.step": 1}), r"expected \['3.seed', '3.step', '3.stream'\]"),
    ],
)
def test_wrong_values_are_refused_with_their_numbers(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_loss_backward_needs_a_forward():
    with pytest.raises(RuntimeError, match=r"MSELoss\.backward: called before forward"):
        nn.MSELoss().backward()
    with pytest.raises(TypeError, match="float32"):
        nn.Linear(3, 2)(np.ones((1, 3)))


def test_dropout_masks_can_be_drawn_again():
    layer = nn.Dropout(0.5)
    x = np.ones((4, 50), np.float32)
    start = layer.extra_state()
    first, second = layer(x).copy(), layer(x).copy()
    assert (first != second).any()
    layer.load_extra_state(start)
    assert_array_equal(layer(x), first)
    assert layer.eval()(x) is x
    assert layer.extra_state()["step"] == 1


def test_batch_norm_without_momentum_averages_over_all_batches():
    layer = nn.BatchNorm1d(3, momentum=None)
    batches = np.random.default_rng(0).standard_normal((5, 7, 3)).astype(np.float32)
    for x in batches:
        layer(x)
    np.testing.assert_allclose(layer.running_mean, batches.mean(axis=(0, 1)), atol=1e-6)
    assert layer.num_batches_tracked == 5


def test_flatten_reads_in_c_order_whatever_the_memory():
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    layer = nn.Flatten()
    for a in (x, last, np.asfortranarray(x)):
        assert_array_equal(layer(a), x.reshape(2, 60))
        assert_array_equal(layer.backward(x.reshape(2, 60)), x)


def test_any_memory_layout_gives_the_same_bits():
    model, x = net().eval(), batch()
    g = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)
    wide = np.zeros((8, 2, 6, 12), np.float32)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    model(x)
    expected = model.predict(x)
    for a in (np.asfortranarray(x), wide[..., ::2], x.astype(">f4"), frozen, x[::-1].copy()[::-1]):
        assert_array_equal(model(a), expected)
        model.backward(g)
        gradient = model[0].weight.grad.copy()
        model.zero_grad()
        model(x)
        assert model.backward(np.asfortranarray(g)).dtype == np.float32
        assert_array_equal(model[0].weight.grad, gradient)
        model.zero_grad()


def test_copies_and_pickles_carry_no_buffers():
    model = net()
    model(batch(64))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_array_equal(twin.predict(batch()), model.predict(batch()))
        assert twin[0].weight is not model[0].weight
        with pytest.raises(RuntimeError, match="before forward"):
            copy.deepcopy(model).backward(batch())
    assert len(pickle.dumps(model)) < 10_000


def test_astype_converts_all_but_counters():
    model = net().astype(np.float64)
    out = model(batch().astype(np.float64))
    assert out.dtype == np.float64
    model.backward(np.ones_like(out))
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert model.state_dict()["1.num_batches_tracked"].dtype == np.int64


def test_a_layer_of_ones_own_needs_no_ceremony():
    class Scale(nn.Module):
        def __init__(self, features):
            self.features = features
            self.weight = nn.Parameter(np.full(features, 2, np.float32))

        def forward(self, input):
            return self._save(input * self.weight.data, input)

        def backward(self, grad_output):
            grad_output, input = self._recall(grad_output)
            self.weight.grad += (grad_output * input).sum(axis=0)
            return grad_output * self.weight.data

    model = nn.Sequential(nn.Linear(3, 4), Scale(4), nn.ReLU())
    assert fastconv.testing.gradcheck(model, (2, 3)).ok
    assert repr(model[1]) == "Scale(features=4)"
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        nn.Module()(np.ones(1))


def test_storage_is_reused_by_smaller_batches():
    model = net()
    y = model(batch(16))
    [run] = model._running().runs
    arena = run.session.arena
    model.backward(np.ones_like(y))
    for size in (5, 16, 1):
        y = model(batch(size))
        assert np.shares_memory(y, arena)
        model.backward(np.ones_like(y))
        model.predict(batch(size))  # nobody needs the memory of a step that is over
    tree = model._running()
    assert len(tree.sessions) + len(tree.runs) == 1
    model(batch(16))
    model.predict(batch(16))  # a backward may follow still, so this takes memory of its own
    assert len(tree.sessions) + len(tree.runs) == 2


def test_a_warm_step_allocates_no_arrays():
    """Every array of this net is larger than the allowance."""
    fastconv.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Bias(8), nn.ReLU(), nn.BatchNorm2d(8),
        nn.Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()), nn.Conv2d(8, 8, 1), nn.ReLU()),
        nn.LeakyReLU(), nn.Sigmoid(), nn.Softsign(), nn.Softmax(), nn.MaxPool2d(2), nn.AvgPool2d(2, 1),
        nn.Dropout(0.2), nn.AdaptiveAvgPool2d(10), nn.Flatten(), nn.Linear(800, 200), nn.LogSoftmax(),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3, 24, 24)).astype(np.float32)
    labels = rng.integers(0, 200, 64)
    loss = nn.CrossEntropyLoss()

    def step():
        loss(model(x), labels)
        model.zero_grad()
        model.backward(loss.backward())

    for _ in range(3):
        step()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            step()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 30_000, f"{peak} bytes at the peak of warm steps"
