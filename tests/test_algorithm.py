"""The choice of a convolution's algorithm: by argument, layer, setting, and for a run; what refuses and what pays."""

import itertools
import json
import os
import signal
import threading
from contextvars import copy_context
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv.functional as F
from fastconv import config, models, nn, optim, serialize
from fastconv._ext.conv.algorithms import WINOGRAD, choose
from fastconv.cli import main
from fastconv.functional._check import as_nhwc, memory, scratch
from fastconv.functional._epilogue import NOTHING
from fastconv.functional._geometry import convolution
from fastconv.random import manual_seed
from fastconv.train import Callback, Checkpoint, Interrupted, RunWriter, Trainer, state_sha256
from fastconv.train.setup import fill, prepare


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
    direct = by_function(x, w, g, algorithm="direct")
    assert_all_equal(by_function(x, w, g, algorithm="winograd"), want)
    assert_array_equal(F.conv2d_input_grad(g, x.shape, w, 1, 1, algorithm="winograd"), want[1])
    auto = want if dtype == np.float32 else direct
    assert_all_equal(by_function(x, w, g, algorithm="auto"), auto)
    assert_all_equal(by_function(x, w, g), auto)
    with config.algorithm("direct"):
        assert_all_equal(by_function(x, w, g), direct)
        assert_all_equal(by_function(x, w, g, algorithm="auto"), auto)
    assert_all_equal(by_function(x, w, g), auto)
    assert (want[0] != direct[0]).any()


@pytest.mark.parametrize(
    ("weight", "settings", "reason"),
    [
        ((4, 4, 7, 7), {}, r"winograd needs kernel \(3, 3\) or \(5, 5\), got \(7, 7\)"),
        ((4, 4, 3, 5), {}, r"winograd needs kernel \(3, 3\) or \(5, 5\), got \(3, 5\)"),
        ((4, 4, 3, 3), {"stride": (1, 2)}, r"winograd needs stride \(1, 1\), got \(1, 2\)"),
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
        with pytest.raises(ValueError, match=r"config.algorithm: the setting must be 'auto' or 'direct'"):
            config.algorithm(wrong)
    with pytest.raises(ValueError, match=r"'auto' or 'direct', got 'winograd'; a shape may refuse it"):
        config.algorithm("winograd")


@given(
    st.sampled_from(["forward", "input_gradient", "weight_gradient"]), st.sampled_from([4, 8]), st.integers(1, 48),
    st.integers(1, 48), st.integers(1, 30), st.integers(1, 30), st.integers(1, 2), st.sampled_from([3, 5]),
    st.integers(1, 9),
)  # fmt: skip
def test_auto_reads_the_shape_without_the_batch(operation, itemsize, c, k, p, q, stride, taps, n):
    def choice(batch):
        h, w = (p - 1) * stride + taps, (q - 1) * stride + taps
        g = convolution("test", (batch, c, h, w), (k, c, taps, taps), stride, 0, 1, 1)
        return choose(operation, g, itemsize).name

    side, channels = (4, 8) if taps == 3 else (2, 32)
    tiles = -(-p // side) * -(-q // side)
    pays = stride == 1 and itemsize == 4 and min(c, k) >= channels and 2 * p * q >= side * side * tiles
    assert choice(n) == choice(1) == ("winograd" if pays else "direct")


def test_the_setting_belongs_to_a_context():
    seen = []

    def look():
        seen.append(config.algorithm())

    assert config.algorithm() == "auto"
    with config.algorithm("direct") as name:
        assert name == config.algorithm() == config.info()["algorithm"] == "direct"
        with config.algorithm("auto"):
            look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        copy_context().run(look)
    assert seen == ["auto", "auto", "direct"]
    assert config.algorithm() == "auto"


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
    auto = net_results(model, x, g)
    assert "Conv2d + ReLU (winograd)" in str(model.plan(x.shape))
    assert [row.way for row in model.plan(x.shape).rows] == ["winograd"]
    with config.algorithm("direct"):
        direct = net_results(model, x, g)
        assert "winograd" not in str(model.plan(x.shape))
    assert_all_equal(net_results(model, x, g), auto)
    model.conv.algorithm = "direct"
    assert_all_equal(net_results(model, x, g), direct)
    y, gx, gw = by_kernel(x, model.conv.weight.data, g * (auto[0] > 0))
    assert_all_equal(auto, (np.maximum(y, 0), gx, gw))
    model.conv.algorithm = "winograd"  # what was written down for the former one is thrown away
    assert_all_equal(net_results(model, x, g), auto)
    assert "algorithm='winograd'" in repr(model)
    assert "algorithm='direct'" in repr(Net("direct"))
    for usual in (None, "auto"):
        assert "algorithm" not in repr(Net(usual))


def test_models_keep_their_algorithm_in_files(tmp_path):
    x, _, _ = drawn()
    layers = nn.Sequential(nn.Conv2d(9, 8, 3, algorithm="winograd"), nn.Conv2d(8, 8, 3))
    for setting in ("auto", "direct"):
        with config.algorithm(setting):
            serialize.save(layers, tmp_path / "layers.safetensors")
            want = layers(x).copy()
        again = serialize.load(tmp_path / "layers.safetensors")
        assert [layer.algorithm for layer in again] == ["winograd", setting]
        assert_array_equal(again(x), want)


def test_a_layer_from_before_the_choice_is_direct():
    older = nn.Conv2d(9, 13, 3).config()
    del older["algorithm"]
    assert nn.Conv2d.from_config(older).algorithm == "direct"


@pytest.mark.parametrize("setting", ["auto", "direct"])
def test_a_graph_keeps_the_algorithm_it_was_traced_with(tmp_path, setting):
    x, _, _ = drawn()

    class Own(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(drawn()[1])

        def forward(self, x):
            return F.conv2d(x, self.weight, None, 1, 1)

    model = Own()
    with config.algorithm(setting):
        want = model(x).copy()
        serialize.save(model, tmp_path / "own.safetensors")
    assert_array_equal(serialize.load(tmp_path / "own.safetensors")(x), want)


@pytest.fixture
def tiny(monkeypatch):
    """A net of the zoo, for as long as a test takes, whose second convolution is Winograd's where "auto" chooses."""

    def build(image, classes):
        return nn.Sequential(
            nn.Conv2d(image[0], 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(8, classes),
        )  # fmt: skip

    monkeypatch.setitem(models.ZOO, "tiny", replace(models.ZOO["mnist-small"], builder=build))
    return {"model": "tiny", "epochs": 1, "batch_size": 128, "validation": 0.5}


class Ask(Callback):
    """Ask the run to end, as a signal would, after its fourth step."""

    def on_step_end(self, trainer):
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("algorithm", "older"), [("auto", False), ("direct", False), ("direct", True)])
def test_an_interrupted_run_goes_on_with_its_algorithm(algorithm, older, tiny, tmp_path):
    def whole(algorithm):
        setup = prepare(fill("digits", algorithm=algorithm, **tiny), progress=False)
        setup.trainer.fit(setup.train, setup.validation, epochs=1)
        return state_sha256(setup.model)

    folder, run = tmp_path / "run", CliRunner()
    setup = prepare(
        fill("digits", algorithm=algorithm, **tiny), [Checkpoint(folder / "checkpoints", steps=2), Ask()],
        progress=False,
    )  # fmt: skip
    with RunWriter.start(folder, {**setup.describe(), "observed": {"checkpoint_every": "2"}}) as writer:
        setup.trainer.callbacks.insert(0, writer)
        with pytest.raises(Interrupted):
            setup.trainer.fit(setup.train, setup.validation, epochs=1)
        writer.finish({"status": "interrupted", "reason": "SIGTERM", "steps": setup.trainer.step})
    written = json.loads((folder / "config.json").read_text())
    assert written["options"]["algorithm"] == algorithm
    if older:  # as runs were written before there was a choice
        del written["options"]["algorithm"]
        (folder / "config.json").write_text(json.dumps(written))
    done = run.invoke(main, ["train", "--resume", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["state_sha256"] == whole(algorithm)
    model = serialize.load(folder / "model.safetensors")
    assert {layer.algorithm for layer in model if isinstance(layer, nn.Conv2d)} == {algorithm}
    assert whole("auto") != whole("direct")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("own", [None, "auto", "direct"])
@pytest.mark.parametrize(("before", "now"), list(itertools.product(["auto", "direct"], repeat=2)))
def test_a_trainers_state_goes_on_under_its_algorithm_alone(before, now, own, older):
    """As a checkpoint does, which holds the state; states older than the choice are of plain chains."""

    def trainer():
        manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, algorithm=own), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
        return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))

    with config.algorithm(before):
        state = trainer().state_dict()
    assert state["algorithm"] == before
    if older:
        del state["algorithm"]
        before = "direct" if own is None else now
    with config.algorithm(now):
        other = trainer()
        if before == now:
            other.load_state_dict(state)
            return
        held = state_sha256(other.model)
        with pytest.raises(ValueError, match=f"with the algorithm '{before}'.*the setting is '{now}': go on under"):
            other.load_state_dict(state)
        assert state_sha256(other.model) == held


def after_three_steps(algorithm):
    manual_seed(5)
    x = ((np.arange(6 * 3 * 16 * 16) * 7919 % 199 - 99) / 64).astype(np.float32).reshape(6, 3, 16, 16)
    with config.algorithm(algorithm):
        model, loss = models.build("resnet20", (3, 16, 16), 10), nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            loss(model(x), np.arange(6))
            model.backward(loss.backward())
            optimizer.step()
    return state_sha256(model)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("auto", "8da1267d8767249ec3ce206fe54bfaf1d7a962988e6891b8814a786d71f63980"),
        ("direct", "6e3ea11128d61c7eda0bfca2bc351c6af071f507a6b69aecb0f931f77b24aa03"),
    ],
)
def test_three_steps_of_a_resnet_have_the_digest_of_their_algorithm(algorithm, digest):
    """It changes where an order of sums does, which is then told in the changelog."""
    assert after_three_steps(algorithm) == digest


def test_a_new_run_is_auto():
    assert fill("digits").algorithm == "auto"


def test_a_run_keeps_its_algorithm(tmp_path):
    run = tmp_path / "run"
    done = CliRunner().invoke(main, ["train", "--epochs", "1", "--out", str(run)])
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
