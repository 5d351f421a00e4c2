"""Parts of a concatenation are written where the result lies: the same bits, fewer copies."""

import numpy as np
import pytest
from graphs import MOVES, Recipe, arrays_of, as_tuple, build, everything, recipes, schedule_of, use_poison
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import functional as F
from fastconv import nn
from fastconv.graph import schedule
from fastconv.graph.joining import gaps_of
from fastconv.graph.operation import Spec

drawn = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ACTIVATIONS = (nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.1), nn.SiLU, nn.GELU, None)


class Net(nn.Module):
    """A net that is made of numbers: `shapes` are its inputs', `full` whether all parts can lie in place."""

    def __init__(self, shape, seed):
        fastconv.manual_seed(seed)
        self.recipe = Recipe((shape,), (), ())
        self.layers = nn.ModuleList([])

    def add(self, *layers):
        self.layers.append(nn.Sequential(*(layer for layer in layers if layer is not None)))
        return len(self.layers) - 1


class Dense(Net):
    """A block whose layers see all features before them: as one list, or joined step by step."""

    def __init__(self, shape, growths, kind, activation, nested, seed):
        super().__init__(shape, seed)
        self.nested, width = nested, shape[1]
        self.stem = self.add(nn.Conv2d(width, 3, 3, padding=1), nn.ReLU())
        width, self.blocks = 3, []
        for growth in growths:
            act = None if activation is None else activation()
            self.blocks.append(self.add(
                nn.BatchNorm2d(width) if kind % 2 == 0 else None, act,
                nn.Conv2d(width, growth, 3, padding=1, bias=kind % 3 > 0), nn.ReLU() if kind > 2 else None,
            ))  # fmt: skip
            width += growth
        self.last = self.add(nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))

    def forward(self, x):
        features = [self.layers[self.stem](x)]
        for block in self.blocks:
            new = self.layers[block](F.cat(features, 1))
            features = [F.cat([*features, new], 1)] if self.nested else [*features, new]
        return self.layers[self.last](F.cat(features, 1))


def _branch(kind, c, width, act):
    """Return the layers of a branch from c channels to some."""
    return (
        lambda: (nn.Conv2d(c, width, 1), act),
        lambda: (nn.Conv2d(c, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), act),
        lambda: (nn.MaxPool2d(3, 1, 1), nn.Conv2d(c, width, 1), act),
        lambda: (nn.Conv2d(c, width, 1), nn.MaxPool2d(3, 1, 1)),
        lambda: (nn.Conv2d(c, width, 1), nn.AvgPool2d(3, 1, 1)),
        lambda: (nn.Conv2d(c, width, 1), nn.Bias(width), act),
        lambda: (nn.ConvTranspose2d(c, width, 3, padding=1), act),
        lambda: (nn.Conv2d(c, width, 1), nn.Softmax(1)),
    )[kind]()


class Branches(Net):
    """Branches of several widths and kinds, joined; again, and the result once more."""

    def __init__(self, shape, widths, kinds, activation, seed):
        super().__init__(shape, seed)
        c, self.blocks = shape[1], []
        for _ in range(2):
            block = []
            for width, kind in zip(widths, kinds, strict=True):
                act = None if activation is None else activation()
                block.append(self.add(*_branch(kind, c, width, act)))
            self.blocks.append(block)
            c = sum(widths)

    def forward(self, x):
        for block in self.blocks:
            x = F.cat([self.layers[i](x) for i in block], 1)
        return x * 0.5


class Skips(Net):
    """Down and up again, what was there on the way down joined on the way up."""

    def __init__(self, shape, widths, norm, nearest, activation, seed):
        super().__init__(shape, seed)
        c, self.down, self.up = shape[1], [], []

        def block(c, k):
            act = None if activation is None else activation()
            return self.add(nn.Conv2d(c, k, 3, padding=1), nn.BatchNorm2d(k) if norm else None, act)

        for k in widths:
            self.down.append(block(c, k))
            c = k
        self.pool = self.add(nn.MaxPool2d(2))
        for k in widths[-2::-1]:
            if nearest:
                up = self.add(nn.Upsample(scale_factor=2), nn.Conv2d(c, k, 1))
            else:
                up = self.add(nn.ConvTranspose2d(c, k, 2, stride=2))
            self.up.append((up, block(2 * k, k)))
            c = k

    def forward(self, x):
        skips = []
        for i in self.down[:-1]:
            x = self.layers[i](x)
            skips.append(x)
            x = self.layers[self.pool](x)
        x = self.layers[self.down[-1]](x)
        for up, block in self.up:
            x = self.layers[block](F.cat([self.layers[up](x), skips.pop()], 1))
        return x


SEEDS = st.integers(0, 99)
WIDTHS = st.integers(1, 9) | st.sampled_from((16, 17, 33))


@st.composite
def nets(draw):
    """Draw a function that makes a net, the same each time."""
    batch, act, seed = draw(st.integers(1, 3)), draw(st.sampled_from(ACTIVATIONS)), draw(SEEDS)
    family = draw(st.sampled_from(("dense", "branches", "skips", "halves")))
    if family == "dense":
        shape = (batch, 2, draw(st.integers(2, 6)), draw(st.integers(2, 6)))
        growths, kind = draw(st.lists(WIDTHS, min_size=1, max_size=3)), draw(st.integers(0, 5))
        nested = draw(st.booleans())
        return lambda: Dense(shape, growths, kind, act, nested, seed)
    if family == "halves":
        shape = (batch, 2, draw(st.integers(2, 6)), draw(st.integers(2, 6)))
        kinds, halves = [draw(st.integers(0, 7)) for _ in range(2)], [draw(WIDTHS) for _ in range(2)]
        return lambda: Halves(shape, halves, kinds, act, seed)
    if family == "branches":
        shape = (batch, 2, draw(st.integers(2, 6)), draw(st.integers(2, 6)))
        kinds = draw(st.lists(st.integers(0, 7), min_size=2, max_size=4))
        widths = [draw(WIDTHS) for _ in kinds]
        return lambda: Branches(shape, widths, kinds, act, seed)
    widths, norm, nearest = draw(st.lists(WIDTHS, min_size=2, max_size=3)), draw(st.booleans()), draw(st.booleans())
    return lambda: Skips((batch, 2, 8, 12), widths, norm, nearest, act, seed)


class Halves(Net):
    """Channels in two parts, each through an operation of its own, and one through the other's gate."""

    READERS = (
        lambda c: nn.BatchNorm2d(c), lambda c: nn.Tanh(), lambda c: nn.Bias(c), lambda c: nn.AvgPool2d(3, 1, 1),
        lambda c: nn.GELU(), lambda c: nn.Conv2d(c, c, 1), lambda c: nn.Identity(), lambda c: nn.PReLU(c),
    )  # fmt: skip

    def __init__(self, shape, widths, kinds, act, seed):
        super().__init__(shape, seed)
        self.cut, width = widths[0], sum(widths)
        self.stem = self.add(nn.Conv2d(shape[1], width, 1), act() if act else None)
        self.parts = [self.add(self.READERS[k](c)) for k, c in zip(kinds, (widths[0], width - widths[0]), strict=True)]

    def forward(self, x):
        y = self.layers[self.stem](x)
        a, b = (self.layers[i](part) for i, part in zip(self.parts, (y[:, : self.cut], y[:, self.cut :]), strict=True))
        return F.cat([a * F.sigmoid(y[:, : self.cut]), b], 1)


def copied(monkeypatch, make):
    """Return everything that a net computes when nothing is put in place."""
    with monkeypatch.context() as context:
        context.setattr(schedule, "places", lambda *_: {})
        return everything(make())


@drawn
@given(nets())
def test_in_place_and_copied_have_the_same_bits(monkeypatch, make):
    assert everything(make()) == copied(monkeypatch, make)


@drawn
@given(recipes(moves=(*["cat"] * 4, *["layer"] * 3, *MOVES)))
def test_in_place_and_copied_have_the_same_bits_in_any_net(monkeypatch, recipe):
    assert everything(build(recipe)) == copied(monkeypatch, lambda: build(recipe))


@drawn
@given(recipes(moves=(*["slice"] * 5, *["activation"] * 2, *["layer"] * 3, "merge", "merge", *MOVES)))
def test_slices_in_place_and_copied_have_the_same_bits_in_any_net(monkeypatch, recipe):
    assert everything(build(recipe)) == copied(monkeypatch, lambda: build(recipe))


@settings(drawn, max_examples=15)
@given(nets())
def test_neither_threads_nor_instruction_set_change_a_bit(every_setting, make):
    results = list(every_setting(lambda: everything(make(), 1)).values())
    assert results[1:] == results[:-1]


@drawn
@given(nets())
def test_no_part_is_read_when_its_memory_is_free(monkeypatch, make):
    expected = everything(make())
    with monkeypatch.context() as context:
        use_poison(context)
        assert everything(make()) == expected


@drawn
@given(nets(), st.booleans())
def test_in_place_never_needs_more_memory(monkeypatch, make, gradients):
    net = make().train(gradients)
    found = schedule_of(net, *net.recipe.shapes, gradients=gradients)
    with monkeypatch.context() as context:
        context.setattr(schedule, "places", lambda *_: {})
        net = make().train(gradients)
        assert found.nbytes <= schedule_of(net, *net.recipe.shapes, gradients=gradients).nbytes


def joined(net, gradients=True):
    """Return, for each concatenation, how many of its parts can lie in place, and how many there are."""
    graph = schedule_of(net, *net.recipe.shapes, gradients=gradients).graph
    plan = schedule._Scheduler(graph, [True] * len(graph.inputs), gradients, ()).run()
    return [(plan.joined[i], len(plan.groups[i].inputs)) for i in sorted(plan.joined)]


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_dense_block_copies_nothing_and_keeps_its_features_once(monkeypatch, nested, gradients):
    net = Dense((2, 2, 6, 6), (4, 5, 6), 0, nn.ReLU, nested, 0).train(gradients)
    found = joined(net, gradients)
    assert all(there == parts for there, parts in found)
    plan = schedule_of(net, *net.recipe.shapes, gradients=gradients)
    pixels = 4 * 2 * 6 * 6
    slots = sorted(s.nbytes for s in plan.slots if s.kind == "activation" and plan.groups[s.owner].op.name == "Cat")
    assert slots == [pixels * (3 + 4 + 5 + 6)]
    assert not [step for step in plan.forward if plan.groups[step.owner].op.name == "Cat"]


@pytest.mark.parametrize("gradients", [True, False])
def test_branches_and_skips_copy_nothing(gradients):
    branches = Branches((2, 2, 5, 5), (3, 4, 5, 6, 7, 8), (0, 1, 2, 3, 4, 6), nn.ReLU, 0).train(gradients)
    assert joined(branches, gradients) == [(6, 6), (6, 6)]
    skips = Skips((2, 2, 8, 8), (4, 6, 8), True, False, nn.ReLU, 0).train(gradients)
    assert joined(skips, gradients) == [(2, 2), (2, 2)]


class Joins(nn.Module):
    def __init__(self, forward):
        self.recipe = Recipe(((2, 3, 4, 4),), (), ())
        self.a, self.b, self.join = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), forward

    def forward(self, x):
        return self.join(self, x, self.a(x), self.b(x))


WAYS = {
    "one value twice": (lambda net, x, a, b: F.cat([a, a, b], 1) * 2, [(2, 3)]),
    "the input": (lambda net, x, a, b: F.cat([x, a, b], 1) * 2, [(2, 3)]),
    "a part that comes out": (lambda net, x, a, b: (F.cat([a, b], 1) * 2, a), [(1, 2)]),
    "in two orders": (lambda net, x, a, b: F.cat([a, b], 1) - F.cat([b, a], 1), [(0, 2), (2, 2)]),
    "in itself, elsewhere": (lambda net, x, a, b: F.cat([F.cat([a, b], 1), a], 1) * 2, [(1, 2), (2, 2)]),
    "read by a layer that cannot": (lambda net, x, a, b: F.cat([a, b], 1).sum() + F.softmax(a, 1).sum(), [(1, 2)]),
    "reshaped": (lambda net, x, a, b: F.cat([a, b], 1).sum() + (a.flatten(1) * 2).sum(), [(1, 2)]),
    "images": (lambda net, x, a, b: F.cat([a, F.softmax(b, 1)], 0)[1:3] * 2, [(2, 2)]),
    "rows": (lambda net, x, a, b: F.cat([a, b], 2) * 2, [(0, 2)]),
    "a single one": (lambda net, x, a, b: F.cat([a], 1) * b, [(1, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_lie_in_place_is_copied(monkeypatch, way):
    forward, expected = WAYS[way]

    def make():
        fastconv.manual_seed(3)
        return Joins(forward)

    assert joined(make()) == expected
    assert everything(make()) == copied(monkeypatch, make)


def test_hooks_get_parts_of_their_own():
    net = Skips((2, 2, 8, 8), (4, 6), False, False, nn.ReLU, 0)
    [x] = arrays_of(net.recipe.shapes)
    expected = [a.copy() for a in as_tuple(net(x))]
    seen = []
    net.layers[0].register_forward_hook(lambda layer, x, y: seen.append(y.copy()))
    assert joined(net) == [(1, 2)]
    assert [a.tobytes() for a in as_tuple(net(x))] == [a.tobytes() for a in expected]
    assert seen[0].shape == (2, 4, 8, 8)


def test_plan_tells_what_is_written_in_place():
    net = Joins(WAYS["one value twice"][0])
    assert [(row.layers, row.in_place) for row in net.plan((2, 3, 4, 4)).rows if row.in_place] == [(("Cat",), (2, 3))]
    assert "Cat (2 of 3 in place)" in str(net.plan((2, 3, 4, 4)))
    assert "Cat (in place)" in str(Joins(WAYS["a single one"][0]).plan((2, 3, 4, 4)))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_gaps_are_those_of_the_memory(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    stop = data.draw(st.integers(start + 1, shape[axis]))
    key = tuple(slice(start, stop) if i == axis else slice(0, n) for i, n in enumerate(shape))
    order = (0, *range(2, len(shape)), 1) if len(shape) in (3, 4) else tuple(range(len(shape)))
    memory = np.arange(int(np.prod(shape))).reshape([shape[i] for i in order])
    part = memory[tuple(key[i] for i in order)]
    close = (np.diff(part.reshape(-1)) == 1).all()
    gaps = gaps_of(Spec(tuple(shape), np.dtype(np.float32)), key)
    assert (gaps == "") == close
    if gaps == "pixels":
        assert axis == 1
        assert part.shape[-1] == 1 or (np.diff(part, axis=-1) == 1).all()
        assert len({int(step) for step in np.diff(part.reshape(-1, part.shape[-1])[:, 0])}) == 1


def steps_of(net, name, gradients=False):
    """Return how many steps of forward are of operations of this name."""
    plan = schedule_of(net, *net.recipe.shapes, gradients=gradients)
    return sum(plan.groups[step.owner].op.name == name for step in plan.forward)


@pytest.mark.parametrize("kinds", [(0, 1), (2, 3), (4, 0)])
def test_slices_of_channels_are_read_where_they_lie(kinds):
    assert steps_of(Halves((2, 3, 4, 5), (3, 4), kinds, nn.ReLU, 0).eval(), "Slice") == 0


@pytest.mark.parametrize("kind", [5, 7])
def test_slices_that_a_reader_cannot_take_are_copied(kind):
    """Convolutions read pixels that follow each other, and so does PReLU on its own."""
    assert steps_of(Halves((2, 3, 4, 5), (3, 4), (0, kind), nn.ReLU, 0).eval(), "Slice") == 1


@pytest.mark.parametrize(
    ("shape", "index", "expected"),
    [
        ((2, 6, 4), (slice(None), slice(1, 3)), ((0, 2), (1, 3), (0, 4))),
        ((2, 6, 4), (..., slice(-2, None)), ((0, 2), (0, 6), (2, 4))),
        ((2, 6), (slice(0, 1),), ((0, 1), (0, 6))),
        ((2, 6), (slice(None), slice(None, None, 2)), ()),
        ((2, 6), (0,), ()),
        ((2, 6), (None, slice(1, 2)), ()),
    ],
)
def test_what_a_slice_cuts_out(shape, index, expected):
    op = F._ops.shape.Slice(tuple(("slice", p.start, p.stop, p.step) if isinstance(p, slice) else p for p in index))
    spec = Spec(shape, np.dtype(np.float32))
    assert tuple((part.start, part.stop) for part in op.cut((spec,), op.infer(spec))) == expected


def test_a_slice_along_several_axes_has_gaps_of_any_kind():
    class Crop(nn.Module):
        def forward(self, x):
            return F.relu(x)[:, :, 1:-1, 2:] * 2

    assert gaps_of(Spec((2, 3, 5, 6), np.dtype(np.float32)), tuple(map(slice, (0, 0, 1, 2), (2, 3, 4, 6)))) == "any"
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6), dtype=np.float32)
    assert np.array_equal(Crop().predict(x), np.maximum(x, 0)[:, :, 1:-1, 2:] * 2)
    model, g = Crop(), np.ones((2, 3, 3, 4), np.float32)
    model.forward(x)
    want = np.zeros_like(x)
    want[:, :, 1:-1, 2:] = 2 * (x[:, :, 1:-1, 2:] > 0)
    assert np.array_equal(model.backward(g), want)
