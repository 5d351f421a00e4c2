"""What is computed twice instead of kept: the same bits, less memory, and a plan that says so."""

import copy

import numpy as np
import pytest
from graphs import arrays_of, build, everything, recipes, schedule_of
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import functional as F
from fastconv import nn


class Scale(nn.Module):
    """An opaque layer: it defines backward itself, and counts how often it runs."""

    extra_names = ("runs",)

    def __init__(self, features):
        self.weight = nn.Parameter(np.linspace(0.5, 1.5, features, dtype=np.float32).reshape(features, 1, 1))
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        return self._save(x * self.weight.data, x)

    def backward(self, g):
        g, x = self._recall(g)
        self.weight.grad += (g * x).sum(axis=(0, 2, 3)).reshape(-1, 1, 1)
        return g * self.weight.data

    def output_specs(self, x):
        return (x,)


class Block(nn.Module):
    """A residual block of convolution, normalisation, dropout, and a layer of one's own where that is asked for."""

    def __init__(self, features, own, p):
        self.conv1, self.bn1 = nn.Conv2d(features, features, 3, padding=1), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = nn.Conv2d(features, features, 3, padding=1), nn.BatchNorm2d(features, momentum=None)
        self.own = Scale(features) if own else nn.Tanh()
        self.drop = nn.Dropout(p)

    def forward(self, x):
        y = self.drop(F.relu(self.bn1(self.conv1(x))))
        return F.relu(self.bn2(self.conv2(self.own(y))) + x)


class Residual(nn.Module):
    def __init__(self, blocks, features=4, own=False, p=0.3):
        self.stem = nn.Conv2d(2, features, 3, padding=1)
        self.blocks = nn.ModuleList([Block(features, own and i % 2 == 0, p) for i in range(blocks)])
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(features, 3)

    def forward(self, x):
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                x = self.pool(x)
        return self.head(x.mean((2, 3)))


def residual(*args, **kwargs):
    fastconv.manual_seed(1)
    return Residual(*args, **kwargs)


def steps(model, shapes=((4, 2, 8, 8),), count=3):
    """Return the bytes of all that steps compute, and the counters after them."""
    found = []
    for step in range(count):
        y = model(*arrays_of(shapes, step)).copy()
        found += [y, model.backward(*arrays_of([y.shape], 50 + step)).copy()]
    found += [*(p.grad for p in model.parameters()), *model.state_dict().values()]
    found.append(model.predict(*arrays_of(shapes, 9)))
    return [a.tobytes() for a in found], model.extra_state()


def everything_and_counters(net):
    return everything(net, 3), net.extra_state()


@settings(max_examples=80, deadline=None)
@given(recipes(max_moves=12), st.data())
def test_drawn_nets_with_layers_that_run_twice(recipe, data):
    net, other = build(recipe), build(recipe)
    layers = [m for m in other.modules() if m is not other and not isinstance(m, nn.ModuleList)]
    for layer in layers:
        layer.checkpoint = data.draw(st.booleans())
    assert everything_and_counters(other) == everything_and_counters(net)


@settings(max_examples=80, deadline=None)
@given(recipes(max_moves=14), st.floats(0, 1.1))
def test_drawn_nets_under_a_limit(recipe, share):
    net, other = build(recipe), build(recipe)
    plain = schedule_of(net, *recipe.shapes)
    state = held(net)
    other.memory_limit = max(state + int(plain.nbytes * share), 1)
    wanted = everything_and_counters(net)
    try:
        found = schedule_of(other, *recipe.shapes)
    except ValueError as error:
        assert f"{other.memory_limit:,}" in str(error)  # noqa: PT017
        return
    assert found.nbytes + state <= other.memory_limit
    assert everything_and_counters(other) == wanted


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.booleans(), st.sampled_from([0.0, 0.3]), st.data())
def test_residual_nets_with_blocks_that_run_twice(blocks, own, p, data):
    net, other = residual(blocks, own=own, p=p), residual(blocks, own=own, p=p)
    candidates = [other.stem, *other.blocks, *(m for b in other.blocks for m in (b.conv1, b.bn1, b.own, b.drop))]
    for layer in candidates:
        layer.checkpoint = data.draw(st.booleans())
    assert steps(other) == steps(net)


@pytest.mark.parametrize("own", [False, True])
def test_blocks_that_run_twice_take_less(own):
    net, other = residual(6, own=own), residual(6, own=own)
    for block in other.blocks:
        block.checkpoint = True
    shape = (8, 2, 12, 12)
    plain, less = net.plan(shape), other.plan(shape)
    assert less.arena < 0.8 * plain.arena
    assert schedule_of(other, shape).nbytes == less.arena
    assert not plain.twice
    assert all(name.startswith("blocks.") for name in less.twice)
    assert any("conv2" in name or "conv1" in name for name in less.twice)
    for a, b in zip(plain.rows, less.rows, strict=True):
        assert (a.name, a.layers, a.output, a.parameters) == (b.name, b.layers, b.output, b.parameters)
        assert b.flops == a.flops + b.again * a.flops / 3  # a third of a step's products is forward
        assert ("(twice)" in next(line for line in str(less).splitlines() if line.startswith(f"{b.name} "))) == b.again
    assert less.flops > plain.flops
    assert other.plan(shape, training=False).arena == net.plan(shape, training=False).arena


def held(model):
    return sum(a.nbytes for _, a in model.named_state()) + sum(p.grad.nbytes for p in model.parameters())


@pytest.mark.parametrize("own", [False, True])
def test_limits_from_all_to_the_least(own):
    shapes = ((8, 2, 12, 12),)
    net = residual(6, own=own)
    most = net.plan(shapes[0]).arena
    wanted, seen = steps(net, shapes), []
    for share in np.linspace(1, 0, 21):
        other = residual(6, own=own)
        other.memory_limit = held(other) + int(most * share)
        before = copy.deepcopy(other.state_dict())
        try:
            plan = other.plan(shapes[0])
        except ValueError:
            for run in (lambda m=other: m.plan(shapes[0]), lambda m=other: m(*arrays_of(shapes))):
                with pytest.raises(ValueError, match=rf"memory limit of {other.memory_limit:,} bytes is below the"):
                    run()
            for name, array in other.state_dict().items():
                assert array.tobytes() == before[name].tobytes()
            assert other.extra_state() == residual(6, own=own).extra_state()
            other.memory_limit = None  # it goes on without
            assert steps(other, shapes) == wanted
            continue
        assert plan.arena + held(other) <= other.memory_limit
        assert steps(other, shapes) == wanted
        seen.append(plan.arena)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.8 * most
    assert len(seen) < 21


def test_the_least_that_an_error_names_is_enough():
    shapes = ((8, 2, 12, 12),)
    other = residual(6)
    other.memory_limit = 1
    with pytest.raises(ValueError, match="is below the") as error:
        other(*arrays_of(shapes))
    least = int(str(error.value).split("is below the ")[1].split(" that")[0].replace(",", ""))
    other.memory_limit = least - 1
    with pytest.raises(ValueError, match="is below the"):
        other(*arrays_of(shapes))
    other.memory_limit = least
    assert steps(other, shapes) == steps(residual(6), shapes)


def test_a_limit_does_not_bind_evaluation():
    net = residual(2)
    net.memory_limit = 1
    net.predict(*arrays_of([(4, 2, 8, 8)]))


@pytest.mark.parametrize("wrong", [0, -1, "1 GB", 1.5, True, float("nan")])
def test_a_limit_that_is_none(wrong):
    net = residual(1)
    with pytest.raises(ValueError, match="memory_limit must be a whole number of bytes"):
        net.memory_limit = wrong
    assert net.memory_limit is None
