"""Blocks that are wide inside run a strip of rows at a time in evaluation: the bits of their layers one by one."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import functional as F
from fastconv import models, nn
from fastconv.graph import strips

ACTIVATIONS = (None, nn.ReLU, nn.ReLU6, nn.SiLU, lambda: nn.LeakyReLU(0.1))


class Block(nn.Module):
    """An expansion, a filter a channel, a projection; each of the outer two may be missing, a shortcut be there."""

    def __init__(self, widths, kernel, stride, padding, dilation, activation, norm, shortcut, seed):
        fastconv.manual_seed(seed)
        inputs, wide, outputs = widths
        self.layers = nn.ModuleList([])
        if inputs:
            self.layers.append(nn.Conv2d(inputs, wide, 1, bias=not norm))
        self.layers.append(nn.Conv2d(wide, wide, kernel, stride, padding, dilation, groups=wide, bias=not norm))
        if outputs:
            self.layers.append(nn.Conv2d(wide, outputs, 1))
        self.norms = nn.ModuleList([nn.BatchNorm2d(layer.out_channels) for layer in self.layers] if norm else [])
        self.act = None if activation is None else activation()
        self.shortcut = shortcut
        for parameter in self.parameters():
            parameter.data[...] = np.random.default_rng(seed).standard_normal(parameter.data.shape)

    def forward(self, x):
        y = x
        for i, layer in enumerate(self.layers):
            y = layer(y)
            if self.norms:
                y = self.norms[i](y)
            if self.act is not None and i < len(self.layers) - 1:
                y = self.act(y)
        return F.relu(y + x) if self.shortcut and y.shape == x.shape else y


@st.composite
def blocks(draw):
    wide = draw(st.sampled_from([2, 8, 17, 40, 96]))
    ends = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    inputs = draw(st.integers(1, 20)) if ends[0] else 0
    outputs = inputs if ends[1] and inputs and draw(st.booleans()) else draw(st.integers(1, 20)) if ends[1] else 0
    kernel = draw(st.sampled_from([1, 2, 3, 5, (1, 3), (5, 1)]))
    stride = draw(st.sampled_from([1, 1, 2, (3, 1), (1, 2)]))
    padding = draw(st.sampled_from([0, 1, 2, ((0, 1), (2, 1))]))
    dilation = draw(st.sampled_from([1, 1, 2]))
    shape = draw(st.integers(1, 2)), inputs or wide, draw(st.integers(9, 40)), draw(st.integers(9, 40))
    activation, norm, shortcut = draw(st.sampled_from(ACTIVATIONS)), draw(st.booleans()), draw(st.booleans())
    return shape, ((inputs, wide, outputs), kernel, stride, padding, dilation, activation, norm, shortcut)


def ways(plan):
    return [row.way for row in plan.rows if row.flops]


@given(blocks(), st.integers(0, 99), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strips_have_the_bits_of_the_layers_one_by_one(every_setting, monkeypatch, block, seed, dtype):
    shape, arguments = block
    model = Block(*arguments, seed).eval().astype(dtype)
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    monkeypatch.setattr(strips, "WIDE", 1 << 40)
    assert "in strips" not in ways(model.plan(shape, training=False))
    want = model.predict(x).copy()
    monkeypatch.setattr(strips, "WIDE", 1)
    model = Block(*arguments, seed).eval().astype(dtype)
    assert set(ways(model.plan(shape, training=False))) == {"in strips"}
    for setting, got in every_setting(lambda: model.predict(x).copy()).items():
        assert np.array_equal(got, want, equal_nan=True), setting


def test_images_of_many_strips(every_setting, monkeypatch):
    """Rows are kept for the strips behind, and moved where their memory ends."""
    monkeypatch.setattr(strips, "WIDE", 1)
    for stride, kernel in ((1, 3), (2, 3), (1, 5), (2, 5), (3, 1)):
        model = Block((5, 160, 6), kernel, stride, kernel // 2, 1, nn.ReLU6, True, False, 3).eval()
        x = np.random.default_rng(0).standard_normal((2, 5, 70, 40), dtype=np.float32)
        y = x
        for layer, norm in zip(model.layers, model.norms, strict=True):
            y = norm.eval()(layer(y))
            y = F.relu6(y) if layer is not model.layers[-1] else y
        for setting, got in every_setting(lambda model=model, x=x: model.predict(x).copy()).items():
            assert np.array_equal(got, y), (stride, kernel, setting)


def test_the_plan_tells_and_has_no_memory_for_what_passes():
    model = nn.Sequential(nn.Conv2d(16, 96, 1), nn.ReLU6(), nn.Conv2d(96, 96, 3, 2, 1, groups=96), nn.Conv2d(96, 24, 1))
    plan = model.plan((1, 16, 112, 112), training=False)
    assert [row.way for row in plan.rows] == ["in strips"] * 3
    assert "Conv2d + ReLU6 (in strips)" in str(plan)
    assert [row.activations for row in plan.rows] == [0, 0, 24 * 56 * 56 * 4] == [0, 0, plan.arena]
    assert ways(model.plan((1, 16, 20, 20), training=False)) == [""] * 3  # it stays in a cache anyway
    assert ways(model.plan((1, 16, 112, 112))) == [""] * 3  # backward reads it


@pytest.mark.parametrize("reader", ["hook", "second", "output"])
def test_what_others_read_is_made_as_a_whole(monkeypatch, reader):
    monkeypatch.setattr(strips, "WIDE", 1)

    class Net(nn.Module):
        def __init__(self):
            self.up, self.filters, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            wide = self.up(x)
            y = self.down(self.filters(wide))
            return y + wide[:, :, 1:-1, 1:-1] if reader == "second" else (y, wide) if reader == "output" else y

    model = Net().eval()
    if reader == "hook":
        seen = []
        model.up.register_forward_hook(lambda module, inputs, output: seen.append(output.copy()))
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 9), dtype=np.float32)
    assert ways(model.plan(x.shape, training=False)) == ["", "in strips", "in strips"]
    wide = F.conv2d(x, model.up.weight.data, model.up.bias.data)
    y = model.down(model.filters(wide))
    got = model.predict(x)
    if reader == "hook":
        assert np.array_equal(seen[-1], wide)
    want = y + wide[:, :, 1:-1, 1:-1] if reader == "second" else y
    assert np.array_equal(got[0] if reader == "output" else got, want)


def test_a_real_net_has_the_same_scores(monkeypatch):
    fastconv.manual_seed(0)
    model = models.mobilenet_v2().eval()
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    got = model.predict(x).copy()
    together = ways(model.plan(x.shape, training=False)).count("in strips")
    monkeypatch.setattr(strips, "WIDE", 1 << 40)
    fastconv.manual_seed(0)
    one_by_one = models.mobilenet_v2().eval()
    assert together > 6
    assert "in strips" not in ways(one_by_one.plan(x.shape, training=False))
    assert np.array_equal(got, one_by_one.predict(x))
