"""Initial weights: formulas, sampling statistics, orthogonality, LSUV, the lecture's study of ten layers."""

import math

import numpy as np
import pytest

from fastconv import config, init, models, nn

RULES = {
    "small": lambda fan_in, fan_out: 0.01,
    "lecun": lambda fan_in, fan_out: math.sqrt(1 / (3 * fan_in)),
    "xavier": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
    "caffe": lambda fan_in, fan_out: math.sqrt(1 / fan_in),
    "kaiming-toolbox": lambda fan_in, fan_out: math.sqrt(4 / (fan_in + fan_out)),
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
}


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 40),
    )  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_weights_are_normal_with_the_rules_deviation(name):
    model = small_net()
    init.apply(model, name, seed=5)
    for weight, fan_in, fan_out in ((model[0].weight, 27, 144), (model[4].weight, 576, 40)):
        n, std = weight.data.size, RULES[name](fan_in, fan_out)
        # Five standard errors of a mean and of a deviation of n normal numbers.
        assert abs(weight.data.mean()) < 5 * std / math.sqrt(n)
        assert abs(weight.data.std() - std) < 5 * std / math.sqrt(2 * n)
        fourth = np.mean((weight.data / std) ** 4)
        assert abs(fourth - 3) < 5 * math.sqrt(96 / n)  # a uniform would have 1.8


@pytest.mark.parametrize("name", [n for n in init.NAMES if n != "lsuv"])
def test_biases_become_zero_and_scales_stay(name):
    model = small_net()
    model[1].weight.data[...] = 0.75
    model[1].running_mean[...] = 3
    init.apply(model, name)
    assert not model[0].bias.data.any()
    assert not model[4].bias.data.any()
    assert (model[1].weight.data == 0.75).all()
    assert (model[1].running_mean == 3).all()


def test_a_weight_depends_on_seed_and_name_alone():
    first, second, longer = small_net(), small_net(), small_net()
    longer = nn.Sequential(*longer, nn.ReLU(), nn.Linear(40, 7))
    init.apply(first, "he", seed=1)
    init.apply(second, "he", seed=1)
    init.apply(longer, "he", seed=1)
    np.testing.assert_array_equal(first[4].weight.data, second[4].weight.data)
    np.testing.assert_array_equal(first[4].weight.data, longer[4].weight.data)
    init.apply(second, "he", seed=2)
    assert (first[4].weight.data != second[4].weight.data).mean() > 0.99


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 40), (40, 3), (16, 3, 3, 3), (8, 4, 5)])
def test_orthogonal_rows_or_columns(shape):
    weight = init.orthogonal(shape, np.random.default_rng(0)).reshape(shape[0], -1)
    product = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    bound = 8 * np.finfo(np.float64).eps * max(weight.shape)
    np.testing.assert_allclose(product, np.eye(len(product)), rtol=0, atol=bound)


def test_orthogonal_has_the_same_bits_on_every_setting(every_setting):
    results = every_setting(lambda: init.orthogonal((24, 5, 3, 3), np.random.default_rng(1)).tobytes())
    assert len(set(results.values())) == 1


def layer_variances(model, batch):
    found = []
    layers = [m for m in model.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
    removers = [
        m.register_forward_hook(lambda module, x, y: found.append(float(y.var(dtype=np.float64))))
        for m in layers
        if m.weight.data.ndim >= 2
    ]
    model.predict(batch)
    for remove in removers:
        remove()
    return found


@pytest.mark.parametrize("name", ["mlp", "mnist-small", "resnet20"])
def test_lsuv_gives_every_layer_unit_variance(name):
    batch = np.random.default_rng(3).normal(2.0, 3.0, (16, 1, 8, 8)).astype(np.float32)
    model = models.build(name, (1, 8, 8), 10)
    before = dict(model.named_buffers())
    before = {key: array.copy() for key, array in before.items()}
    init.apply(model, "lsuv", seed=0, batch=batch)
    variances = layer_variances(model, batch)
    assert len(variances) == {"mlp": 3, "mnist-small": 4, "resnet20": 22}[name]
    assert all(abs(v - 1) < 0.1 for v in variances)
    assert model.training
    for key, array in model.named_buffers():
        np.testing.assert_array_equal(array, before[key])


def test_lsuv_names_a_layer_without_variance():
    with pytest.raises(ValueError, match=r"init\.lsuv: outputs of 0 have variance 0"):
        init.lsuv(nn.Sequential(nn.Linear(4, 3)), np.zeros((8, 4), np.float32))


def test_wrong_names_and_missing_batches_are_refused():
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="no initialisation 'hee'; there are small, lecun"):
        init.apply(model, "hee")
    with pytest.raises(ValueError, match="'lsuv' looks at data"):
        init.apply(model, "lsuv")
    with pytest.raises(ValueError, match=r"at least two dimensions, got shape \(3,\)"):
        init.fans((3,))


# The study of the lecture (CS763 after CS231n): N(0, 1) in 500 dimensions through ten layers of 500 units.

RUNS = 6
STUDY = {  # rule, factor on it, activation: deviations of the layers' outputs as printed
    "tanh, 0.01": ("small", 1, nn.Tanh, {1: "0.213", 2: "0.0476", 3: "0.0106", 4: "0.0024", 9: "0.000001"}),
    "tanh, 1.0": ("small", 100, nn.Tanh, dict.fromkeys(range(1, 11), "0.982")),
    "tanh, Xavier": ("caffe", 1, nn.Tanh, dict(enumerate(
        ["0.628", "0.486", "0.408", "0.357", "0.321", "0.292", "0.273", "0.255", "0.239", "0.228"], 1))),
    "ReLU, Xavier": ("caffe", 1, nn.ReLU, {
        **dict(enumerate(["0.582", "0.404", "0.277", "0.199", "0.140", "0.103"], 1)), 10: "0.026"}),
}  # fmt: skip


def deviations(rule, factor, activation):
    """Deviation of each layer's output, (RUNS, 10)."""
    found = np.empty((RUNS, 10))
    with config.isa("auto"):  # 2.5 billion multiply-adds a run: not for the scalar table
        for run in range(RUNS):
            model = nn.Sequential(
                *(layer for _ in range(10) for layer in (nn.Linear(500, 500, bias=False), activation()))
            )
            init.apply(model, rule, seed=run)
            x = np.random.default_rng(run).standard_normal((1000, 500), np.float32)
            for k in range(10):
                model[2 * k].weight.data *= np.float32(factor)
                x = model[2 * k + 1](model[2 * k](x))
                found[run, k] = x.std(dtype=np.float64)
    return found


@pytest.mark.parametrize("case", STUDY)
def test_the_lectures_study_of_initial_weights(case):
    rule, factor, activation, printed = STUDY[case]
    found = deviations(rule, factor, activation)
    mean, spread = found.mean(axis=0), found.std(axis=0, ddof=1)
    for layer, text in printed.items():
        # The printed figure is one more run, rounded: 6 is the 99.8 % point of Student's t for RUNS - 1 = 5.
        sampling = 6 * spread[layer - 1] * math.sqrt(1 + 1 / RUNS)
        rounding = 0.5 * 10.0 ** -len(text.partition(".")[2])
        assert abs(mean[layer - 1] - float(text)) <= sampling + rounding, f"layer {layer}: {mean[layer - 1]}"


def test_the_lectures_study_with_he_weights_keeps_the_signal():
    found = deviations("he", 1, nn.ReLU)
    sampling = 6 * found.std(axis=0, ddof=1) / math.sqrt(RUNS)
    mean = found.mean(axis=0)
    assert (mean >= 0.81 - sampling).all()
    assert (mean <= 0.89 + sampling).all()
    assert (sampling < 0.25).all()
