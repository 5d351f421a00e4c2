"""Nets of any shape: gradients, and that fusing, watching, sharing memory and freezing change no bit."""

import copy

import numpy as np
import pytest
from graphs import Packed, Recipe, arrays_of, as_tuple, build, everything, recipes, schedule_of, use_poison
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn
from fastconv.testing import gradcheck

drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@drawn
@given(recipes())
def test_gradients_are_those_of_central_differences(recipe):
    model = Packed(build(recipe))
    gradcheck(model, model.shape(), samples=12)


@drawn
@given(recipes())
def test_fusing_changes_no_bit(recipe):
    assert everything(build(recipe)) == everything(build(recipe, fuse=False))


@settings(drawn, max_examples=15)
@given(recipes())
def test_neither_threads_nor_instruction_set_change_a_bit(every_setting, recipe):
    results = list(every_setting(lambda: everything(build(recipe), 1)).values())
    assert results[1:] == results[:-1]


@drawn
@given(recipes())
def test_no_value_is_read_when_its_memory_is_free(monkeypatch, recipe):
    expected = everything(build(recipe))
    with monkeypatch.context() as context:
        use_poison(context)
        assert everything(build(recipe)) == expected


@drawn
@given(recipes())
def test_two_values_that_live_at_one_time_never_overlap(recipe):
    for gradients in (True, False):
        net = build(recipe)
        plan = schedule_of(net, *recipe.shapes, gradients=gradients)
        slots = plan.slots
        assert plan.nbytes == max((s.offset + -(-s.nbytes // 64) * 64 for s in slots), default=0)
        for i, a in enumerate(slots):
            assert a.offset % 64 == 0
            for b in slots[:i]:
                if a.first <= b.last and b.first <= a.last:
                    assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


@drawn
@given(recipes())
def test_the_arena_is_as_large_as_the_plan_says(recipe):
    for training in (True, False):
        model = Packed(build(recipe)).train(training)
        [x] = arrays_of([model.shape()])
        plan = model.plan(model.shape(), training)
        if training:
            model.backward(np.ones_like(model(x)))
            held = [run.session.arena.nbytes for run in model._running().runs]
        else:
            model.predict(x)
            held = [session.arena.nbytes for session in model._running().sessions]
        assert held == [plan.arena]


BY_INPUT = (nn.GELU, nn.SiLU, nn.Hardswish, nn.Softplus, nn.Mish, lambda: nn.LeakyReLU(-0.5), lambda: nn.GELU("tanh"))


class Activated(nn.Module):
    """Operations of all kinds, each with an activation whose gradient is made from its input."""

    def __init__(self, shape, kinds, activation, seed):
        fastconv.manual_seed(seed)
        self.recipe, self.kinds, c = Recipe((shape,), (), ()), kinds, shape[1]
        make = (
            lambda: nn.Conv2d(c, c, 3, padding=1), lambda: nn.Conv2d(c, c, 1, groups=c), lambda: nn.BatchNorm2d(c),
            lambda: nn.ConvTranspose2d(c, c, 3, padding=1), lambda: nn.Bias(c), lambda: nn.Identity(),
            lambda: nn.GroupNorm(1, c), lambda: nn.InstanceNorm2d(c, affine=True), lambda: nn.LayerNorm(shape[1:]),
            lambda: nn.LayerNorm(shape[3:], bias=False), lambda: nn.LayerNorm2d(c),
        )  # fmt: skip
        self.layers = nn.ModuleList([make[kind]() for kind in kinds])
        self.activation = activation()

    def forward(self, x):
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            y = layer(x)
            x = self.activation(y + x if kind % 2 else y)
        return x.mean((2, 3))


class Again(nn.Module):
    """A net whose results are computed once more in backward."""

    def __init__(self, net):
        self.recipe, self.net = net.recipe, net
        net.checkpoint = True

    def forward(self, x):
        return self.net(x)


@st.composite
def activated(draw):
    shape = tuple(draw(st.integers(2, 6)) for _ in range(4))
    kinds, activation = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)), draw(st.sampled_from(BY_INPUT))
    seed = draw(st.integers(0, 99))
    return lambda: Activated(shape, kinds, activation, seed)


@drawn
@given(activated())
def test_activations_that_need_their_input_are_fused_and_change_no_bit(monkeypatch, make):
    net, apart = make(), make()
    apart.fuse = False
    expected = everything(apart)
    assert everything(net) == expected
    assert everything(Again(make())) == expected
    plan = schedule_of(net, *net.recipe.shapes)
    assert not [g for g in plan.groups if g.op.takes_part_as == "activation" and g.nodes[0].inputs[0].node is not None]
    assert len(plan.forward) < len(schedule_of(apart, *net.recipe.shapes).forward)
    with monkeypatch.context() as context:
        use_poison(context)
        assert everything(make()) == expected
        assert everything(Again(make())) == expected


def watch(net, names):
    """Note the arrays that every module is given and gives."""

    def note(layer, x, y):
        seen.append((names[id(layer)], tuple(a.copy() for a in as_tuple(x)), tuple(a.copy() for a in as_tuple(y))))

    seen = []
    for module in net.modules():
        module.register_forward_hook(note)
    return seen


def same(a, b):
    return [x.tobytes() for x in a] == [x.tobytes() for x in b]


@drawn
@given(recipes())
def test_hooks_see_every_layer_and_change_no_bit(recipe):
    expected = everything(build(recipe))
    nets = build(recipe), build(recipe, fuse=False)
    names = [{id(module): name for name, module in net.named_modules()} for net in nets]
    seen, seen_apart = map(watch, nets, names)
    assert everything(nets[0]) == everything(nets[1]) == expected
    for (name, x, y), (name_apart, x_apart, y_apart) in zip(seen, seen_apart, strict=True):
        assert name == name_apart
        assert same(x, x_apart)
        assert same(y, y_apart)
    called = {node.module for node in schedule_of(nets[0], *recipe.shapes).graph.nodes} - {None}
    assert {names[0][id(module)] for module in called} <= {name for name, *_ in seen}
    seen.clear()
    nets[0].predict(*arrays_of(recipe.shapes))
    for name, x, y in seen:
        layer = copy.deepcopy(dict(nets[0].named_modules())[name])  # of this layer alone
        assert same(y, as_tuple(layer.eval()(*x)))


@drawn
@given(recipes(), st.integers(0, 2**16))
def test_freezing_leaves_the_other_gradients_as_they_are(recipe, bits):
    free, frozen = build(recipe), build(recipe)
    chosen = [bool(bits >> i & 1) for i, _ in enumerate(frozen.parameters())]
    for parameter, freeze in zip(frozen.parameters(), chosen, strict=True):
        parameter.requires_grad = not freeze
        parameter.grad[...] = 7 if freeze else 0
    for net in (free, frozen):
        outputs = [a.copy() for a in as_tuple(net(*arrays_of(recipe.shapes)))]
        net.found = [a.copy() for a in as_tuple(net.backward(*arrays_of([a.shape for a in outputs], 1)))]
    assert same(free.found, frozen.found)
    for a, b, freeze in zip(free.parameters(), frozen.parameters(), chosen, strict=True):
        assert b.grad.tobytes() == (np.full_like(b.grad, 7) if freeze else a.grad).tobytes()


class Counted(nn.Module):
    """Twice its input; counts its backwards."""

    def __init__(self):
        self.backwards = 0

    def forward(self, input):
        return self._save(2 * input)

    def backward(self, grad_output):
        vars(self)["backwards"] += 1
        return 2 * self._recall(grad_output)[0]


@pytest.mark.parametrize("trained", range(-1, 4))
def test_nothing_below_the_lowest_trained_layer_runs_backward(trained):
    linears, counters = [nn.Linear(3, 3) for _ in range(4)], [Counted() for _ in range(4)]
    layers = [layer for pair in zip(linears, counters, strict=True) for layer in pair]
    model = nn.Sequential(*layers, input_grad=False)
    for parameter in model.parameters():
        parameter.requires_grad = False
    if trained >= 0:
        linears[trained].weight.requires_grad = True
    plan = schedule_of(model, (2, 3))
    assert {step.owner for step in plan.backward} == set(range(2 * trained if trained >= 0 else 8, 8))
    x = arrays_of([(2, 3)])[0]
    assert model.backward(np.ones_like(model(x))) is None
    assert [counter.backwards for counter in counters] == [int(0 <= trained <= i) for i in range(4)]
    assert [bool(layer.weight.grad.any()) for layer in linears] == [i == trained for i in range(4)]
    assert not any(layer.bias.grad.any() for layer in linears)


def test_an_input_that_no_output_depends_on_has_a_gradient_of_zeros():
    class First(nn.Module):
        def forward(self, a, b):
            return a * 2

    model = First()
    a, b = arrays_of([(2, 3), (4, 5)])
    model(a, b)
    one, none = model.backward(a)
    assert_array_equal(one, 2 * a)
    assert_array_equal(none, np.zeros_like(b))


def test_a_value_that_comes_out_twice_has_both_gradients():
    class Same(nn.Module):
        def forward(self, x):
            y = x * 3
            return y, y, x

    model = Same()
    x, g, h, i = arrays_of([(2, 3)] * 4)
    first, second, third = model(x)
    assert_array_equal(first, second)
    assert_array_equal(third, x)
    assert_array_equal(model.backward(g, h, i), 3 * (g + h) + i)


@pytest.mark.parametrize("reads", [3, 5])
def test_gradients_at_a_fan_out_are_added_from_the_last_reader_to_the_first(reads, every_setting):
    class Fan(nn.Module):
        def forward(self, x):
            base = x * 1
            return tuple(base * float(i) for i in range(1, reads + 1))

    x = np.ones((64, 33), np.float32)
    grads = [np.random.default_rng(i).standard_normal(x.shape).astype(np.float32) * 10.0**i for i in range(reads)]
    expected = grads[-1] * np.float32(reads)
    for i in reversed(range(reads - 1)):
        expected = expected + grads[i] * np.float32(i + 1)

    def step():
        model = Fan()
        model(x)
        return model.backward(*grads).tobytes()

    assert set(every_setting(step).values()) == {expected.tobytes()}
