"""nn.DeepResidual: the core as a layer, behind a convolutional stem, in memory or on a file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import manual_seed, nn
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
