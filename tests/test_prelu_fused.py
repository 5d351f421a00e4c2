"""PReLU in the pass of what comes before it: the same bits as on its own, forward and backward, in every setting."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastconv
from fastconv import functional as F
from fastconv import nn

# name: the layer before, what it takes, the channels it gives
HOSTS = {
    "conv": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 4, 6), 5),
    "conv without bias": (lambda: nn.Conv2d(3, 5, 1, bias=False), (3, 4, 6), 5),
    "many channels": (lambda: nn.Conv2d(16, 40, 3, padding=1), (16, 8, 8), 40),
    "winograd": (lambda: nn.Conv2d(16, 24, 3, padding=1, algorithm="winograd"), (16, 9, 9), 24),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), (6, 5, 5), 6),
    "conv1d": (lambda: nn.Conv1d(3, 5, 3), (3, 9), 5),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 3, 4), 6),
    "linear": (lambda: nn.Linear(7, 9), (7,), 9),
    "bias": (lambda: nn.Bias(5), (5, 3, 3), 5),
    "norm": (lambda: nn.BatchNorm2d(5), (5, 3, 4), 5),
    "norm of rows": (lambda: nn.BatchNorm1d(5), (5,), 5),
}
hosts = pytest.mark.parametrize("name", HOSTS)
shared = pytest.mark.parametrize("shared", [True, False], ids=["one slope", "one per channel"])


class Net(nn.Module):
    """A layer and a PReLU, whose slopes fall below 0; with a sum between them, or as a part of a concatenation."""

    def __init__(self, name, shared, way, fuse):
        layer, _, channels = HOSTS[name]
        fastconv.manual_seed(3)
        self.way = way
        slopes = np.linspace(-0.7, 0.9, 1 if shared else channels, dtype=np.float32)
        self.chain = nn.Sequential(layer(), nn.PReLU(len(slopes)), fuse=fuse)
        self.chain[1].weight.data[...] = slopes
        self.layer, self.act = self.chain[0], self.chain[1]

    def forward(self, x):
        if self.way == "sum":
            y = self.layer(x)
            return self.act(self.layer(x) + y)
        y = self.chain(x)
        return F.cat([y, y * 2, self.chain(x)], 1) if self.way == "part" else y


def batch(name):
    return np.random.default_rng(1).standard_normal((4, *HOSTS[name][1])).astype(np.float32)


def outcome(net, x):
    y = net(x).copy()
    grad = np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)
    grad = net.backward(grad)
    return [y, grad.copy(), *(p.grad.copy() for p in net.parameters()), net.predict(x)]


@hosts
@shared
@pytest.mark.parametrize("way", ["alone", "part"])
def test_fused_is_unfused(name, shared, way):
    x = batch(name)
    for a, b in zip(*(outcome(Net(name, shared, way, fuse), x) for fuse in (True, False)), strict=True):
        assert_array_equal(a, b)


@hosts
@shared
def test_it_runs_in_the_pass_before_it(name, shared):
    for training in (True, False):
        [row] = Net(name, shared, "alone", True).plan((4, *HOSTS[name][1]), training).rows
        assert row.layers[-1] == "PReLU"
        assert len(row.layers) == 2
        assert row.parameters == sum(p.numel() for p in Net(name, shared, "alone", True).parameters())


@pytest.mark.parametrize("name", ["conv", "linear", "transposed"])
def test_behind_a_sum(name):
    """The sum joins the second of the two layers, and PReLU behind it."""
    net, x = Net(name, False, "sum", True), batch(name)
    assert net.plan(x.shape).rows[-1].layers[-2:] == ("add", "PReLU")
    twin = Net(name, False, "sum", True)
    twin.register_forward_hook(lambda *_: None)
    twin.layer.register_forward_hook(lambda *_: None)
    for a, b in zip(outcome(net, x), outcome(twin, x), strict=True):
        assert_array_equal(a, b)


@hosts
@shared
def test_threads_and_instruction_sets_change_no_bit(every_setting, name, shared):
    x = batch(name)
    found = every_setting(lambda: b"".join(a.tobytes() for a in outcome(Net(name, shared, "alone", True), x)))
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("name", ["conv", "norm"])
@pytest.mark.parametrize("frozen", ["layer", "act", "both"])
def test_what_is_frozen_has_no_gradient_and_changes_no_other(name, frozen):
    x, net, whole = batch(name), Net(name, False, "alone", True), Net(name, False, "alone", True)
    net.need_input_grad = frozen != "layer"
    for part in ("layer", "act"):
        if frozen in (part, "both"):
            getattr(net, part).requires_grad_(False)
    wanted = outcome(whole, x)
    y = net(x)
    grad = np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)
    found = net.backward(grad)
    assert_array_equal(y, wanted[0])
    assert (found is None) == (frozen == "layer")
    if found is not None:
        assert_array_equal(found, wanted[1])
    for p, q in zip(net.parameters(), whole.parameters(), strict=True):
        assert_array_equal(p.grad, q.grad if p.requires_grad else np.zeros_like(q.grad))


@shared
def test_computed_once_more_it_has_the_same_bits(shared):
    x = batch("conv")
    plain, again = Net("conv", shared, "part", True), Net("conv", shared, "part", True)
    again.chain.checkpoint = True
    assert again.plan(x.shape).rows[0].again
    for a, b in zip(outcome(plain, x), outcome(again, x), strict=True):
        assert_array_equal(a, b)


def test_slopes_that_change_are_the_new_ones_in_the_next_run():
    net, x = Net("conv", False, "alone", True), batch("conv")
    net.eval()
    for slope in (0.5, -0.25, 0.0):
        net.act.weight.data[...] = slope
        y = net.layer(x)
        assert_array_equal(net(x), np.where(y > 0, y, np.float32(slope) * y))
    net.act.weight.data = np.full(5, 2, np.float32)
    assert_array_equal(net(x), np.where(y > 0, y, 2 * y))


@pytest.mark.parametrize("computed", [False, True], ids=["given", "computed"])
def test_slopes_from_elsewhere(computed):
    """As an input of the model they fuse, too, and have a gradient; those that an operation computes do not."""

    class Given(nn.Module):
        def __init__(self):
            fastconv.manual_seed(0)
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x, slopes):
            return F.prelu(self.conv(x), slopes * 2 if computed else slopes)

    net, x = Given(), np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    slopes = np.array([-0.5, 0.25, 1.5], np.float32)
    used = slopes * 2 if computed else slopes
    for _ in range(2):
        y = net(x, slopes).copy()
        grad_x, grad_slopes = net.backward(np.ones_like(y))
        before = F.conv2d(x, net.conv.weight.data, net.conv.bias.data)
        assert_array_equal(y, F.prelu(before, used))
        grad, wanted = F.prelu_backward(np.ones_like(y), before, used)
        assert_array_equal(grad_slopes, wanted * 2 if computed else wanted)
        assert_array_equal(grad_x, F.conv2d_backward(grad, x, net.conv.weight.data)[0])
