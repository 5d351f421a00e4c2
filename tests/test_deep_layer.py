"""nn.DeepResidual: the core as a layer, behind a convolutional stem, in memory or on a file."""

import copy
import gc
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastconv import manual_seed, nn
from fastconv.deep import Paths
from fastconv.optim import SGD
from fastconv.testing import gradcheck


def test_it_trains_behind_a_stem():
    manual_seed(1)
    core = nn.DeepResidual(8, 200, lr=0.2)
    stem = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 8), nn.Tanh()]
    model = nn.Sequential(*stem, core, nn.Linear(8, 3))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 24)
    x = (rng.standard_normal((24, 1, 8, 8)) * 0.1 + labels[:, None, None, None]).astype(np.float32)
    loss, optimizer = nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.05)
    before, losses = core.weight.copy(), []
    for _ in range(60):
        losses.append(loss(model(x), labels))
        model.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert (core.weight != before).any()
    assert "weight" in dict(core.named_buffers())


@pytest.mark.gradients
@pytest.mark.parametrize("activation", ["softsign", "tanh"])
def test_the_gradient_of_its_input(activation):
    manual_seed(2)
    layer = nn.DeepResidual(5, 12, 0.4, activation)
    layer.weight[...] = np.random.default_rng(0).normal(0, 0.4, layer.weight.shape)
    layer.eval()  # no update between two evaluations
    gradcheck(layer, (7, 5))


def test_a_file_holds_the_same_weights_and_changes(tmp_path):
    manual_seed(3)
    inside = nn.DeepResidual(4, 30, lr=0.5)
    path = tmp_path / "layers.bin"
    inside.weight.tofile(path)
    mapped = nn.DeepResidual(4, 30, lr=0.5, file=path)
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    for layer in (inside, mapped):
        layer.train()
        layer(x)
        layer.backward(x)
    np.testing.assert_array_equal(inside.weight, mapped.weight)
    np.testing.assert_array_equal(np.fromfile(path, "<f4"), inside.weight.ravel())
    with pytest.raises(ValueError, match=r"31 layers take 2480 bytes, .* has 2400"):
        nn.DeepResidual(4, 31, file=path)


LAYERS = 3000  # sixty pages


@pytest.fixture
def on_file(tmp_path):
    """Return a path of weights, and how to make a layer on them."""
    path = tmp_path / "layers.bin"
    np.random.default_rng(2).uniform(-1e-3, 1e-3, (LAYERS, 20)).astype("<f4").tofile(path)
    return path, lambda: nn.DeepResidual(4, LAYERS, lr=0.5, file=path)


X = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)


def step(layer):
    layer.train()
    return layer.backward(layer(X))


def elsewhere(path, code):
    code = f"""
import numpy as np
from fastconv import nn
layer = nn.DeepResidual(4, {LAYERS}, lr=0.5, file={str(path)!r})
x = np.ones((5, 4), np.float32)
{code}"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


WRITES = {"a step": "layer(x)", "a state": "layer.load_state_dict({'weight': np.zeros((%d, 20))})" % LAYERS}  # noqa: UP031


@pytest.mark.parametrize("code", [*WRITES.values(), "layer.eval()(x)"], ids=[*WRITES, "a look"])
def test_a_second_process_is_refused_while_one_trains_the_file(on_file, code):
    pytest.importorskip("fcntl")
    path, make = on_file
    layer = make()
    layer.eval()
    layer(X)  # who only looks leaves nothing behind
    assert elsewhere(path, code).returncode == 0
    step(layer)
    before = path.read_bytes()
    refused = elsewhere(path, code)
    assert "BlockingIOError" in refused.stderr
    assert "layers.bin: another process is training these weights" in refused.stderr
    assert path.read_bytes() == before
    layer.eval()
    layer(X)  # it has the file already
    layer.release()
    assert elsewhere(path, code).returncode == 0
    if code in WRITES.values():
        step(layer)


@pytest.mark.parametrize("leave", ["release", "collected"])
def test_of_layers_on_one_file_one_trains(on_file, leave):
    pytest.importorskip("fcntl")
    path, make = on_file
    first, second = make(), make()
    step(first)
    with pytest.raises(BlockingIOError, match="another process is training these weights, or reading them"):
        step(second)
    if leave == "release":
        first.release()
    else:
        del first
        gc.collect()
    assert step(second).shape == X.shape
    assert sorted(p.name for p in path.parent.iterdir()) == [".layers.bin.lock", "layers.bin"]
    second.release()
    assert [p.name for p in path.parent.iterdir()] == ["layers.bin"]


def test_deep_training_and_a_layer_share_the_lock(on_file):
    pytest.importorskip("fcntl")
    path, make = on_file
    layer = make()
    with Paths.of(path).lock(), pytest.raises(BlockingIOError, match="training these weights"):
        step(layer)
    step(layer)
    with pytest.raises(BlockingIOError, match="another process is training this net"):
        Paths.of(path).lock(shared=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_to_ask_for_itself(on_file):
    pytest.importorskip("fcntl")
    path, make = on_file
    layer = make()
    step(layer)
    child = os.fork()
    if child == 0:
        try:
            step(layer)
        except BlockingIOError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (path.parent / ".layers.bin.lock").exists()
    step(layer)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_leave_the_file_alone(on_file, again):
    path, make = on_file
    layer = make()
    step(layer)
    before, other = path.read_bytes(), again(layer)
    step(other)
    assert path.read_bytes() == before
    assert (other.weight != layer.weight).any()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, LAYERS * 80 - 1), when=st.sampled_from(["before", "between", "state", "load"]))
def test_a_file_that_becomes_shorter_is_said(tmp_path, length, when):
    path = tmp_path / "layers.bin"
    path.unlink(missing_ok=True)
    np.zeros((LAYERS, 20), "<f4").tofile(path)
    layer = nn.DeepResidual(4, LAYERS, file=path)
    step(layer)
    state = layer.state_dict()
    if when == "between":
        y = layer(X)
    os.truncate(path, length)
    uses = {"before": lambda: layer(X), "between": lambda: layer.backward(y), "state": layer.state_dict,
            "load": lambda: layer.load_state_dict(state)}  # fmt: skip
    with pytest.raises(ValueError, match=r"layers\.bin: the file was truncated while in use"):
        uses[when]()


@pytest.mark.skipif(os.name == "nt", reason="mapped files cannot be cut there")
def test_a_file_may_be_cut_at_any_moment(tmp_path):
    """In the middle of a walk, too: no bus error, and what was made of lost pages is given to nobody."""
    code = f"""
import os, random, threading, time
import numpy as np
from fastconv import nn
rng = random.Random(0)
path = {str(tmp_path / "layers.bin")!r}
x = np.ones((16, 4), np.float32)
for _ in range(25):
    np.full(({10 * LAYERS}, 20), 1e-3, "<f4").tofile(path)
    layer = nn.DeepResidual(4, {10 * LAYERS}, file=path)
    first = layer(x).copy()
    cut = threading.Timer(rng.uniform(0, 0.01), os.truncate, (path, rng.randrange({800 * LAYERS})))
    cut.start()
    try:
        for _ in range(10**4):
            y = layer(x)
            assert (y == first).all()
            layer.backward(np.zeros_like(y))
        print("never noticed")
    except ValueError as error:
        assert "truncated while in use" in str(error)
    cut.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_goes_away_is_said(on_file, how):
    path, make = on_file
    layer = make()
    step(layer)
    content = path.read_bytes()
    path.unlink()
    if how == "replaced":
        path.write_bytes(content)
    for use in (lambda: step(layer), lambda: layer.load_state_dict(layer.state_dict())):
        with pytest.raises(FileNotFoundError, match=r"layers\.bin: the file was removed or replaced while in use"):
            use()


def test_bad_arguments():
    with pytest.raises(ValueError, match="got 0"):
        nn.DeepResidual(0, 5)
    with pytest.raises(ValueError, match=r"input must be \(N, 4\), got \(2, 3\)"):
        nn.DeepResidual(4, 5)(np.zeros((2, 3), np.float32))


@st.composite
def nests(draw, depth=3):
    """Draw a net on (N, 4) as a function that builds it: layers that train themselves at any place in it."""
    if depth == 0 or draw(st.booleans()):
        return draw(
            st.sampled_from([
                lambda: nn.DeepResidual(4, 3, lr=0.5), lambda: nn.Linear(4, 4), nn.Tanh, nn.Identity, nn.ReLU,
                lambda: nn.BatchNorm1d(4),
            ])
        )  # fmt: skip
    parts = draw(st.lists(nests(depth - 1), min_size=1, max_size=3))
    kind = draw(st.sampled_from(["chain", "one by one", "residual", "shortcut"]))
    if kind == "residual":
        return lambda: nn.Residual(nn.Sequential(*(part() for part in parts)), activation=nn.Tanh())
    if kind == "shortcut":
        return lambda: nn.Residual(parts[0](), nn.Sequential(*(part() for part in parts[1:])))
    return lambda: nn.Sequential(*(part() for part in parts), fuse=kind == "chain")


@settings(deadline=None)
@given(nests(), nests(), st.booleans())
def test_it_is_trained_wherever_it_stands(below, above, fuse):
    """Also where nobody wants the gradient of the input: first, and below whatever learns."""
    after = []
    for input_grad in (True, False):
        manual_seed(4)
        core = nn.DeepResidual(4, 2, lr=0.5)
        model = nn.Sequential(below(), core, above(), input_grad=input_grad, fuse=fuse)
        came, plain = [], core.backward
        core.backward = lambda grad, came=came, plain=plain: (came.append(grad.any()), plain(grad))[1]
        before = model.state_dict()
        x = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
        for _ in range(2):
            y = model(x)
            grad = model.backward(np.random.default_rng(2).standard_normal(y.shape).astype(y.dtype))
        assert (grad is None) is not input_grad
        assert len(came) == 2
        assert (core.weight != before["1.weight"]).any() == any(came)
        after.append({**model.state_dict(), **{name: p.grad.copy() for name, p in model.named_parameters()}})
    for name, array in after[0].items():
        np.testing.assert_array_equal(array, after[1][name], err_msg=name)
