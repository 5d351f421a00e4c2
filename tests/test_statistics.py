"""Figures of activations, gradients and updates: by hand on small arrays, and without a trace in the model."""

import math

import numpy as np
import pytest

import fastconv
from fastconv import models, nn, optim
from fastconv.diagnose import activation_statistics, gradient_norms, statistics, update_ratios, weights


class Given(nn.Module):
    """A layer that puts out what it was told to."""

    def __init__(self, output):
        self.output = output

    def forward(self, input):
        return self.output


def state(model):
    arrays = {name: array.tobytes() for name, array in model.state_dict().items()}
    return arrays, model.extra_state(), [module.training for module in model.modules()]


def test_figures_by_hand():
    y = np.array([[0, 1, -1], [0, 3, 0]], np.float32)
    found = statistics.statistics_of(nn.ReLU(), y)
    assert (found.layer, found.mean, found.std) == ("ReLU", 0.5, y.astype(np.float64).std())
    assert (found.zeros, found.saturated, found.dead) == (0.5, 0.0, 1 / 3)
    assert statistics.statistics_of(Given(None), y).dead == 0.0  # a zero of a linear layer is no dead unit
    assert found.to_dict() == {k: v for k, v in vars(found).items() if k != "layer"}


@pytest.mark.parametrize(("layer", "edge"), [(nn.Tanh(), 0.9747), (nn.Sigmoid(), 0.98734), (nn.Softsign(), 0.7764)])
def test_saturation_begins_where_the_slope_is_a_twentieth(layer, edge):
    y = np.array([[edge - 1e-3, edge + 1e-3], [0.5, edge + 1e-3]])
    found = statistics.statistics_of(layer, y)
    assert (found.saturated, found.dead) == (0.5, 0.5)
    low = -y if not isinstance(layer, nn.Sigmoid) else 1 - y
    assert statistics.statistics_of(layer, low).saturated == 0.5


def test_a_channel_is_one_unit():
    y = np.zeros((2, 4, 3, 3), np.float32)
    y[1, 2, 0, 1] = 1
    assert statistics.statistics_of(nn.ReLU(), y).dead == 0.75


def test_values_that_are_not_finite_show():
    y = np.array([[np.nan, 0], [np.inf, 0]], np.float32)
    for layer in (nn.ReLU(), nn.Tanh()):
        found = statistics.statistics_of(layer, y)
        assert math.isnan(found.mean)
        assert math.isnan(found.std)
    assert statistics.statistics_of(nn.ReLU(), y).dead == 0.5


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["lenet5", "resnet20", "vgg-small", "all-conv"])
def test_every_layer_once_and_no_trace(name, training):
    fastconv.manual_seed(0)
    model = models.build(name, (3, 28, 28), 10)
    x = np.random.default_rng(0).normal(size=(4, 3, 28, 28)).astype(np.float32)
    model[0].eval()  # modes need not be alike
    before = state(model)
    found = activation_statistics(model, x, training=training)
    assert state(model) == before
    assert not any(module._hooks for module in model.modules())
    seen = [getattr(module, "layer", type(module).__name__) for module in found.values()]
    assert "Sequential" not in seen
    assert "Flatten" not in seen
    assert ("Dropout" in seen) == (training and name in ("vgg-small", "all-conv"))
    kinds = [type(m).__name__ for m in model.modules() if not list(m.named_children())]
    assert [k for k in kinds if k == "ReLU"] == [k for k in seen if k == "ReLU"]
    assert all(math.isfinite(f.mean) and f.std >= 0 for f in found.values())
    fresh = activation_statistics(model, x, training=training)
    assert list(fresh) == list(found)
    assert fresh == found


def test_the_figures_are_those_of_the_outputs():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Sequential(nn.Linear(7, 3), nn.Tanh()))
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    hidden = model[0](x).copy()
    found = activation_statistics(model, x)
    assert list(found) == ["0", "1", "2.0", "2.1"]
    assert found["0"] == statistics.statistics_of(model[0], hidden)
    assert found["1"] == statistics.statistics_of(model[1], np.maximum(hidden, 0))
    assert found["2.1"] == statistics.statistics_of(model[2][1], model.predict(x))


def test_one_layer_alone_and_an_empty_batch():
    assert list(activation_statistics(nn.ReLU(), np.ones((1, 2), np.float32))) == [""]
    with pytest.raises(ValueError, match=r"no sample, shape \(0, 2\)"):
        activation_statistics(nn.ReLU(), np.ones((0, 2), np.float32))


def test_a_failing_forward_leaves_no_hooks_and_modes():
    model = nn.Sequential(nn.Linear(5, 7))
    before = state(model)
    with pytest.raises(ValueError, match="linear"):
        activation_statistics(model, np.ones((2, 4), np.float32))
    assert state(model) == before
    assert not model[0]._hooks


def test_gradient_norms_and_update_ratios():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight.requires_grad = False
    model[0].weight.grad[...] = [[3, 0], [0, 4]]
    assert gradient_norms(model) == {"0.weight": 5.0, "0.bias": 0.0, "1.bias": 0.0}
    model[0].weight.data[...] = [[6, 0], [0, 8]]
    before = weights(model)
    assert list(before) == ["0.weight"]
    optim.SGD(model.parameters(), lr=0.5).step()
    assert update_ratios(before, model) == {"0.weight": 0.25}


def test_ratios_of_zero_and_infinite_weights():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight.data[...] = 0
    before = weights(model)
    assert update_ratios(before, model) == {"0.weight": 0.0}
    model[0].weight.data[...] = 1
    assert update_ratios(before, model) == {"0.weight": math.inf}
    model[0].weight.data[...] = np.inf
    assert update_ratios(before, model)["0.weight"] == math.inf
    assert math.isnan(update_ratios(weights(model), model)["0.weight"])
