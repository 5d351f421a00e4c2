"""The choice of a convolution's algorithm: by argument, layer, setting, and for a run; what refuses and what pays."""

import json
import threading
from contextvars import copy_context

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv.functional as F
from fastconv import config, nn, serialize
from fastconv._ext.conv.algorithms import WINOGRAD, choose
from fastconv.cli import main
from fastconv.functional._check import as_nhwc, memory, scratch
from fastconv.functional._epilogue import NOTHING
from fastconv.functional._geometry import convolution
from fastconv.random import manual_seed


def drawn(seed=0, n=2, c=9, k=13, side=9, dtype=np.float32):
    """Return x, w and a gradient of the output of a 3x3 convolution with padding 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, side, side, c)).astype(dtype).transpose(0, 3, 1, 2)
    g = rng.standard_normal((n, side, side, k)).astype(dtype).transpose(0, 3, 1, 2)
    return x, rng.standard_normal((k, c, 3, 3)).astype(dtype), g


def by_kernel(x, w, g):
    """Return the output and the gradients of x and w as the kernels compute them."""
    geometry = convolution("test", x.shape, w.shape, 1, 1, 1, 1)
    x, g = as_nhwc(x), as_nhwc(g)
    y, gx, gw = np.empty_like(memory(g)), np.empty_like(memory(x)), np.zeros_like(w)
    WINOGRAD.forward[x.itemsize](memory(x), w, y, geometry, NOTHING, scratch)
    WINOGRAD.input_gradient[x.itemsize](memory(g), w, gx, geometry, NOTHING, scratch)
    WINOGRAD.weight_gradient[x.itemsize](memory(x), memory(g), gw, geometry, scratch)
    return y.transpose(0, 3, 1, 2), gx.transpose(0, 3, 1, 2), gw


def by_function(x, w, g, **algorithm):
    return F.conv2d(x, w, None, 1, 1, **algorithm), *F.conv2d_backward(g, x, w, 1, 1, **algorithm)[:2]


def assert_all_equal(got, want):
    for a, b in zip(got, want, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_take_the_algorithm_that_is_asked_for(dtype):
    x, w, g = drawn(dtype=dtype)
    want = by_kernel(x, w, g)
    direct = by_function(x, w, g)
    assert_all_equal(by_function(x, w, g, algorithm="winograd"), want)
    assert_all_equal(by_function(x, w, g, algorithm="direct"), direct)
    assert_array_equal(F.conv2d_input_grad(g, x.shape, w, 1, 1, algorithm="winograd"), want[1])
    auto = want if dtype == np.float32 else direct
    assert_all_equal(by_function(x, w, g, algorithm="auto"), auto)
    with config.algorithm("auto"):
        assert_all_equal(by_function(x, w, g), auto)
        assert_all_equal(by_function(x, w, g, algorithm="direct"), direct)
    assert_all_equal(by_function(x, w, g), direct)
    assert (want[0] != direct[0]).any()


@pytest.mark.parametrize(
    ("weight", "settings", "reason"),
    [
        ((4, 4, 5, 5), {}, r"winograd needs kernel \(3, 3\), got \(5, 5\)"),
        ((4, 4, 3, 1), {}, r"winograd needs kernel \(3, 3\), got \(3, 1\)"),
        ((4, 4, 3, 3), {"stride": (1, 2)}, r"winograd needs stride \(1, 1\), got \(1, 2\)"),
        ((4, 4, 3, 3), {"dilation": 2}, r"winograd needs dilation \(1, 1\), got \(2, 2\)"),
        ((4, 2, 3, 3), {"groups": 2}, r"winograd needs groups 1, got 2"),
    ],
)
def test_winograd_is_refused_with_the_reason_where_it_cannot_be(weight, settings, reason):
    x, w = np.zeros((1, 4, 9, 9), np.float32), np.zeros(weight, np.float32)
    y = F.conv2d(x, w, None, **settings, algorithm="auto")  # takes another
    for call in (
        lambda: F.conv2d(x, w, None, **settings, algorithm="winograd"),
        lambda: F.conv2d_backward(y, x, w, **settings, algorithm="winograd"),
        lambda: F.conv2d_input_grad(y, x.shape, w, **settings, algorithm="winograd"),
        lambda: nn.Conv2d(4, 4, weight[2:], **settings, algorithm="winograd")(x),
    ):
        with pytest.raises(ValueError, match=f"algorithm 'winograd' cannot compute this forward: {reason}"):
            call()


def test_names_of_none_are_refused():
    x, w, _ = drawn()
    for name in ("fft", "", "Winograd"):
        with pytest.raises(ValueError, match=f"algorithm must be .*got {name!r}"):
            F.conv2d(x, w, algorithm=name)
        with pytest.raises(ValueError, match=f"algorithm must be None or one of auto, winograd, direct, got {name!r}"):
            nn.Conv2d(1, 1, 3, algorithm=name)
    for wrong in (3, ["direct"], b"direct"):
        with pytest.raises(ValueError, match="conv2d: algorithm must be None or one of"):
            F.conv2d(x, w, algorithm=wrong)
        with pytest.raises(ValueError, match=r"config.algorithm: the setting must be 'direct' or 'auto'"):
            config.algorithm(wrong)
    with pytest.raises(ValueError, match=r"'direct' or 'auto', got 'winograd'; a shape may refuse it"):
        config.algorithm("winograd")


@given(
    st.sampled_from(["forward", "input_gradient", "weight_gradient"]), st.sampled_from([4, 8]), st.integers(1, 24),
    st.integers(1, 24), st.integers(1, 30), st.integers(1, 30), st.integers(1, 3), st.integers(1, 9),
)  # fmt: skip
def test_auto_reads_the_shape_without_the_batch(operation, itemsize, c, k, p, q, stride, n):
    def choice(batch):
        h, w = (p - 1) * stride + 3, (q - 1) * stride + 3
        return choose(operation, convolution("test", (batch, c, h, w), (k, c, 3, 3), stride, 0, 1, 1), itemsize).name

    tiles = -(-p // 4) * -(-q // 4)
    pays = stride == 1 and itemsize == 4 and c >= 8 and k >= 8 and p * q >= 8 * tiles
    assert choice(n) == choice(1) == ("winograd" if pays else "direct")


def test_the_setting_belongs_to_a_context():
    seen = []

    def look():
        seen.append(config.algorithm())

    assert config.algorithm() == "direct"
    with config.algorithm("auto") as name:
        assert name == config.algorithm() == config.info()["algorithm"] == "auto"
        with config.algorithm("direct"):
            look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        copy_context().run(look)
    assert seen == ["direct", "direct", "auto"]
    assert config.algorithm() == "direct"


class Net(nn.Module):
    def __init__(self, algorithm=None):
        self.conv = nn.Conv2d(9, 13, 3, padding=1, bias=False, algorithm=algorithm)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x))


def net_results(model, x, g):
    model.zero_grad()
    y = model(x).copy()
    gx = model.backward(g).copy()
    return y, gx, model.conv.weight.grad.copy()


def test_layers_and_graphs_follow_argument_and_setting():
    x, _, g = drawn()
    manual_seed(3)
    model = Net()
    direct = net_results(model, x, g)
    with config.algorithm("auto"):
        auto = net_results(model, x, g)
        assert "Conv2d + ReLU (winograd)" in str(model.plan(x.shape))
        assert [row.way for row in model.plan(x.shape).rows] == ["winograd"]
    assert_all_equal(net_results(model, x, g), direct)
    assert "winograd" not in str(model.plan(x.shape))
    y, gx, gw = by_kernel(x, model.conv.weight.data, g * (auto[0] > 0))
    assert_all_equal(auto, (np.maximum(y, 0), gx, gw))
    model.conv.algorithm = "winograd"  # what was written down for the former one is thrown away
    assert_all_equal(net_results(model, x, g), auto)
    assert "algorithm='winograd'" in repr(model)
    assert "algorithm" not in repr(Net())


def test_models_keep_their_algorithm_in_files(tmp_path):
    x, _, _ = drawn()
    layers = nn.Sequential(nn.Conv2d(9, 8, 3, algorithm="winograd"), nn.Conv2d(8, 8, 3))
    assert "algorithm" not in layers[1].config()
    serialize.save(layers, tmp_path / "layers.safetensors")
    again = serialize.load(tmp_path / "layers.safetensors")
    assert [layer.algorithm for layer in again] == ["winograd", None]
    assert_array_equal(again(x).copy(), layers(x))


def test_a_graph_keeps_the_algorithm_it_was_traced_with(tmp_path):
    x, _, _ = drawn()

    class Own(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(drawn()[1])

        def forward(self, x):
            return F.conv2d(x, self.weight, None, 1, 1)

    model = Own()
    with config.algorithm("auto"):
        want = model(x).copy()
        serialize.save(model, tmp_path / "own.safetensors")
    assert_array_equal(serialize.load(tmp_path / "own.safetensors")(x), want)


def test_a_run_keeps_its_algorithm(tmp_path):
    run = tmp_path / "run"
    done = CliRunner().invoke(main, ["train", "--epochs", "1", "--algorithm", "auto", "--out", str(run)])
    assert done.exit_code == 0, done.output
    assert json.loads((run / "config.json").read_text())["options"]["algorithm"] == "auto"
    model = serialize.load(run / "model.safetensors")
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions
    assert {module.algorithm for module in convolutions} == {"auto"}
    (run / "result.json").unlink()  # as if it had been killed at the end
    done = CliRunner().invoke(main, ["train", "--resume", str(run), "--algorithm", "direct"])
    assert done.exit_code == 2
    assert "has --algorithm auto, not direct: a resumed run keeps its options" in done.output
