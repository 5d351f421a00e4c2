"""Draws nets of any shape: chains, fan-outs, merges, shared layers, several inputs and outputs, odd sizes."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

import fastconv
from fastconv import functional as F
from fastconv import nn
from fastconv.functional._check import empty_aligned
from fastconv.graph import program as programs
from fastconv.graph.operation import Spec
from fastconv.graph.program import Program

# Moves: each takes the values so far (their shapes) and numbers that were drawn, and adds values or does nothing.
MOVES = (
    "layer", "layer", "layer", "activation", "shared", "parameter", "number", "merge", "merge", "gate", "divide", "cat",
    "pool", "mean", "centre", "slice", "pad", "permute", "reshape", "block", "unused",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What `build` makes a net of.

    Attributes
    ----------
    shapes : tuple of shapes
        Of the inputs, batch included.
    moves : tuple of (str, int, int, int)
        What comes next, and numbers that choose among what fits.
    outputs : tuple of int
        Which values come out, counted from the last.
    """

    shapes: tuple
    moves: tuple
    outputs: tuple
    seed: int = 0


@st.composite
def recipes(draw, moves=MOVES, max_moves=8, max_inputs=2):
    rank = draw(st.sampled_from((2, 3, 4)))
    batch = draw(st.integers(2, 4))
    sizes = tuple(draw(st.integers(2, 5)) for _ in range(rank - 2))
    count = draw(st.integers(1, max_inputs))
    shapes = tuple((batch, draw(st.integers(1, 3)), *sizes) for _ in range(count))
    number = st.integers(0, 99)
    steps = draw(st.lists(st.tuples(st.sampled_from(moves), number, number, number), min_size=1, max_size=max_moves))
    outputs = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    return Recipe(shapes, tuple(steps), (0, *outputs[1:]), draw(st.integers(0, 9)))


@dataclass
class _Builder:
    """Follows the shapes while layers are made; `steps` are functions from the values so far to new values."""

    shapes: list
    steps: list = field(default_factory=list)
    layers: list = field(default_factory=list)
    parameters: list = field(default_factory=list)
    widths: list = field(default_factory=list)  # of each layer: (shape it takes, shape it gives)

    def emit(self, function, shape):
        self.steps.append(function)
        self.shapes.append(tuple(shape))

    def call(self, index, at):
        self.emit(lambda net, v: net.layers[index](v[at]), self.widths[index][1])

    def add_layer(self, layer, at, shape):
        self.layers.append(layer)
        self.widths.append((self.shapes[at], tuple(shape)))
        self.call(len(self.layers) - 1, at)


def _layer(b, at, i, j):
    n, c, *sizes = b.shapes[at]
    k = 1 + j % 4
    plain = [lambda: (nn.Bias(c), (n, c, *sizes))]
    if len(sizes) == 0:
        plain += [
            lambda: (nn.Linear(c, k, bias=j % 3 != 0), (n, k)),
            lambda: (nn.Linear(c, k), (n, k)),
            lambda: (nn.BatchNorm1d(c), (n, c)),
        ]
    if len(sizes) == 1:
        plain += [
            lambda: (nn.Conv1d(c, k, 3, padding=1, bias=j % 3 != 0), (n, k, *sizes)),
            lambda: (nn.Conv1d(c, c, 1, groups=c), (n, c, *sizes)),
            lambda: (nn.BatchNorm1d(c, momentum=None if j % 2 else 0.1), (n, c, *sizes)),
        ]
    if len(sizes) == 2:
        half = tuple((size - 1) // 2 + 1 for size in sizes)
        plain += [
            lambda: (nn.Conv2d(c, k, 3, padding=1, bias=j % 3 != 0), (n, k, *sizes)),
            lambda: (nn.Conv2d(c, 2 * c, 3, padding=1, stride=2, groups=c), (n, 2 * c, *half)),
            lambda: (nn.BatchNorm2d(c, affine=j % 3 != 0), (n, c, *sizes)),
            lambda: (nn.Conv2d(c, k, 1), (n, k, *sizes)),
            lambda: (nn.ChannelShuffle(c), (n, c, *sizes)),
            lambda: (nn.ReflectionPad2d((min(1, sizes[1] - 1), 0, 0, sizes[0] - 1)),
                     (n, c, 2 * sizes[0] - 1, sizes[1] + min(1, sizes[1] - 1))),
            lambda: (nn.SqueezeExcitation(c, k), (n, c, *sizes)),
            lambda: (nn.LocalResponseNorm(1 + j % 3, 0.5), (n, c, *sizes)),
        ]
    if c % 4 == 0 and len(sizes) == 2:
        plain.append(lambda: (nn.PixelShuffle(2), (n, c // 4, *(2 * size for size in sizes))))
    # a number normalised by itself is rounding alone, which differences would take for a slope
    over = (c,) if len(sizes) == 0 else sizes if len(sizes) == 1 else (c, *sizes)
    if int(np.prod(over)) > 1:
        plain.append(lambda: (nn.LayerNorm(over, bias=j % 3 != 0), (n, c, *sizes)))
    if c > 1 and sizes:
        plain.append(lambda: (nn.LayerNorm2d(c, affine=j % 3 != 0), (n, c, *sizes)))
    if c * int(np.prod(sizes)) > c:
        plain.append(lambda: (nn.GroupNorm(c, c, affine=j % 3 != 0), (n, c, *sizes)))
    if c * int(np.prod(sizes)) > 1:
        plain.append(lambda: (nn.GroupNorm(1, c), (n, c, *sizes)))
    layer, shape = plain[i % len(plain)]()
    b.add_layer(layer, at, shape)


def _activation(b, at, i, j):
    kinds = (
        nn.ReLU, nn.Tanh, nn.ReLU, nn.Sigmoid, nn.LeakyReLU, nn.Softmax, nn.LogSoftmax, nn.Softsign, nn.GELU, nn.SiLU,
        lambda: nn.PReLU(b.shapes[at][1], init=0.3 - 0.5 * (i % 3)), nn.PReLU,
    )  # fmt: skip
    if i % 2:
        functions = (F.relu, F.tanh, F.sigmoid, F.leaky_relu, F.softmax, F.softsign, F.gelu, F.softplus, F.mish, F.erf)
        function = functions[j % len(functions)]
        b.emit(lambda net, v: function(v[at]), b.shapes[at])
    else:
        b.add_layer(kinds[j % len(kinds)](), at, b.shapes[at])


def _shared(b, at, i, j):
    fits = [(k, v) for k, (takes, _) in enumerate(b.widths) for v, shape in enumerate(b.shapes) if shape == takes]
    if fits:
        b.call(*fits[(at * 7 + i) % len(fits)])


def _parameter(b, at, i, j):
    shape = b.shapes[at]
    wide = ((shape[1],) + (1,) * (len(shape) - 2), shape[1:], shape[-1:], (1,))[i % 4]
    b.parameters.append(nn.Parameter(np.linspace(-1, 1, int(np.prod(wide)) + 1)[1:].reshape(wide).astype(np.float32)))
    at_parameter = len(b.parameters) - 1
    operation = (F.mul, F.add, F.sub)[j % 3]
    b.emit(lambda net, v: operation(v[at], getattr(net, f"p{at_parameter}")), shape)


def _number(b, at, i, j):
    functions = (lambda x: 2 * x + 1, lambda x: 1 - x, lambda x: -x / 3, lambda x: x - 0.5)
    b.emit(lambda net, v: functions[j % 4](v[at]), b.shapes[at])


def _merge(b, at, i, j):
    fits = [k for k, shape in enumerate(b.shapes) if shape == b.shapes[at]]
    other = fits[i % len(fits)]
    operation = (F.add, F.add, lambda x, y: x - y)[j % 3]
    b.emit(lambda net, v: operation(v[other], v[at]), b.shapes[at])


def _gate(b, at, i, j):
    n, c, *sizes = b.shapes[at]
    fits = [k for k, shape in enumerate(b.shapes) if shape == b.shapes[at] or shape == (n, c, *(1 for _ in sizes))]
    other = fits[i % len(fits)]
    b.emit(lambda net, v: v[at] * v[other].sigmoid(), b.shapes[at])


def _divide(b, at, i, j):
    fits = [k for k, shape in enumerate(b.shapes) if shape == b.shapes[at]]
    other = fits[i % len(fits)]
    b.emit(lambda net, v: v[at] / (F.sigmoid(v[other]) + 1), b.shapes[at])


def _cat(b, at, i, j):
    shape = b.shapes[at]
    axis = 1 if j % 3 else len(shape) - 1
    rest = [(s[:axis], s[axis + 1 :], len(s)) for s in b.shapes]
    fits = [k for k, other in enumerate(rest) if other == rest[at]]
    others = [fits[i % len(fits)], fits[(i // 2) % len(fits)]][: 1 + j % 2]
    total = shape[axis] + sum(b.shapes[k][axis] for k in others)
    if total > 8:
        return
    b.emit(lambda net, v: F.cat([v[at], *(v[k] for k in others)], axis), (*shape[:axis], total, *shape[axis + 1 :]))


def _pool(b, at, i, j):
    n, c, *sizes = b.shapes[at]
    if len(sizes) != 2 or min(sizes) < 2:
        return
    h, w = sizes
    kinds = (
        lambda: (nn.MaxPool2d(2), (n, c, h // 2, w // 2)),
        lambda: (nn.MaxPool2d(3, stride=1, padding=1), (n, c, h, w)),
        lambda: (nn.AvgPool2d(2, 1), (n, c, h - 1, w - 1)),
        lambda: (nn.GlobalAvgPool2d(), (n, c, 1, 1)),
        lambda: (nn.AdaptiveMaxPool2d((1, 2)), (n, c, 1, 2)),
        lambda: (nn.AvgPool2d(2, 1, ((1, 0), (0, 1)), dilation=1), (n, c, h, w)),
        lambda: (nn.MaxPool2d(2, 2, ((1, 0), (0, 1))), (n, c, (h + 1) // 2, (w + 1) // 2)),
    )
    if i % 8 == 7:

        def pooled_and_back(net, v):
            return F.max_unpool2d(*F.max_pool2d(v[at], 2, return_indices=True), 2, output_size=(h, w))

        b.emit(pooled_and_back, (n, c, h, w))
        return
    layer, shape = kinds[i % 8]()
    b.add_layer(layer, at, shape)


def _mean(b, at, i, j):
    n, c, *sizes = b.shapes[at]
    if not sizes:
        return
    axes = tuple(range(2, 2 + len(sizes)))
    if j % 3 == 0:
        b.emit(lambda net, v: v[at].mean(axes), (n, c))
    else:
        method = "mean" if j % 3 == 1 else "sum"
        b.emit(lambda net, v: getattr(v[at], method)(axes, keepdims=True), (n, c, *(1 for _ in sizes)))


def _centre(b, at, i, j):
    axes = ((0,), (1,), (0, 1))[i % 3]
    b.emit(lambda net, v: v[at] - v[at].mean(axes, keepdims=True), b.shapes[at])


def _slice(b, at, i, j):
    shape = b.shapes[at]
    keys = (
        (slice(None), slice(0, 1)), (..., slice(None, None, 2)), (slice(None), slice(None, None, -1)),
        (slice(None), slice(1, None)), (..., slice(None, -1)),
    )  # fmt: skip
    key = keys[i % len(keys)]
    found = np.empty(shape)[key].shape
    if min(found) > 0:
        b.emit(lambda net, v: v[at][key], found)


def _pad(b, at, i, j):
    n, c, *sizes = b.shapes[at]
    if max((c, *sizes)) < 7 and sizes:
        b.emit(lambda net, v: F.pad(v[at], (i % 2, j % 3), 0.5), (n, c, *sizes[:-1], sizes[-1] + i % 2 + j % 3))


def _permute(b, at, i, j):
    rest = b.shapes[at][1:]
    if len(rest) > 1:
        axes = (0, *range(2, len(rest) + 1), 1) if i % 2 else (0, *range(len(rest), 0, -1))
        b.emit(lambda net, v: v[at].permute(*axes), [b.shapes[at][k] for k in axes])


def _reshape(b, at, i, j):
    n, *rest = b.shapes[at]
    size = int(np.prod(rest))
    shapes = [(n, size), (n, size, 1), (n, 1, size), (n, rest[0], size // rest[0]), (n, 1, 1, size)]
    shape = shapes[i % 5]
    b.emit(lambda net, v: v[at].reshape(*shape), shape)


def _block(b, at, i, j):
    shape = b.shapes[at]
    c = shape[1]
    inner = {2: lambda: nn.Linear(c, c), 3: lambda: nn.Conv1d(c, c, 3, padding=1, bias=False),
             4: lambda: nn.Conv2d(c, c, 3, padding=1, bias=False)}[len(shape)]  # fmt: skip
    norm = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    body = nn.Sequential(inner(), *([norm(c)] if j % 2 else []), nn.ReLU(), *([inner()] if j % 3 else []))
    b.add_layer(nn.Residual(body, None, nn.ReLU() if i % 2 else None), at, shape)


def _unused(b, at, i, j):
    """Call a layer whose output nobody reads."""
    b.layers.append(nn.Tanh() if i % 2 else nn.Bias(b.shapes[at][1]))
    b.widths.append((b.shapes[at], b.shapes[at]))
    index = len(b.layers) - 1
    b.emit(lambda net, v: (v[at], net.layers[index](v[at]))[0], b.shapes[at])


_MAKE = {
    "layer": _layer, "activation": _activation, "shared": _shared, "parameter": _parameter, "number": _number,
    "merge": _merge, "gate": _gate, "divide": _divide, "cat": _cat, "pool": _pool, "mean": _mean, "centre": _centre,
    "slice": _slice, "pad": _pad, "permute": _permute, "reshape": _reshape, "block": _block, "unused": _unused,
}  # fmt: skip


class Net(nn.Module):
    """A drawn net: its forward takes the recipe's inputs and returns its outputs, one or a tuple."""

    def __init__(self, recipe):
        self.recipe = recipe
        b = _Builder(list(recipe.shapes))
        for kind, at, i, j in recipe.moves:
            _MAKE[kind](b, len(b.shapes) - 1 - at % min(len(b.shapes), 4), i, j)
        self.layers = nn.ModuleList(b.layers)
        for k, parameter in enumerate(b.parameters):
            setattr(self, f"p{k}", parameter)
        self.steps = tuple(b.steps)
        self.shapes = tuple(b.shapes)

    def forward(self, *inputs):
        values = list(inputs)
        for step in self.steps:
            values.append(step(self, values))
        outputs = tuple(values[-1 - k % len(values)] for k in self.recipe.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


class Packed(nn.Module):
    """A net as one of a single input and output: what `gradcheck` and `plan` take."""

    def __init__(self, net):
        self.net = net

    def shape(self):
        return (self.net.recipe.shapes[0][0], sum(int(np.prod(s[1:])) for s in self.net.recipe.shapes))

    def forward(self, x):
        parts, at = [], 0
        for n, *rest in self.net.recipe.shapes:
            size = int(np.prod(rest))
            parts.append(x[:, at : at + size].reshape(n, *rest))
            at += size
        found = self.net(*parts)
        outputs = found if isinstance(found, tuple) else (found,)
        return F.cat([y.flatten(1) if y.ndim > 1 else y for y in outputs], 1)


def build(recipe, fuse=True):
    """Return the net of a recipe; the same recipe gives the same bits."""
    fastconv.manual_seed(recipe.seed)
    net = Net(recipe)
    for parameter in net.parameters():
        if parameter.data.ndim == 1:  # biases that begin at zero and weights at one would hide faults
            parameter.data += np.linspace(-0.4, 0.5, parameter.data.size, dtype=np.float32)
    net.fuse = fuse
    for module in net.modules():
        if isinstance(module, nn.Sequential):
            module.fuse = fuse
    return net


def arrays_of(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def as_tuple(found):
    return found if isinstance(found, tuple) else (found,)


def everything(net, steps=2, between=lambda net, step: None):
    """Return the bytes of all that steps compute: outputs, gradients of inputs and parameters, and the state."""
    found = []
    for step in range(steps):
        between(net, step)
        inputs = arrays_of(net.recipe.shapes, step)
        outputs = [a.copy() for a in as_tuple(net(*inputs))]
        grads = arrays_of([a.shape for a in outputs], 100 + step)
        back = [None if a is None else a.copy() for a in as_tuple(net.backward(*grads))]
        found += [*outputs, *back]
    found += [p.grad for p in net.parameters()]
    found += [*net.state_dict().values(), *as_tuple(net.predict(*arrays_of(net.recipe.shapes, 9)))]
    return [None if a is None else (a.shape, a.tobytes()) for a in found]


class Poisoned(Program):
    """A program that fills the memory of every slot before its first step and after its last one: with bytes that
    make a NaN of any float, so that a value which is read too late, or before it is written, shows."""

    def _run(self, phase):
        start = phase * len(self.schedule.forward)
        for time, step in enumerate(self._steps[phase], start):
            self._fill(slot for slot in self.schedule.slots if slot.first == time)
            for function, arguments in self._bind(step):
                function(*arguments)
            self._fill(slot for slot in self.schedule.slots if slot.last == time)

    def _fill(self, slots):
        for slot in slots:
            self.arena[slot.offset : slot.offset + slot.nbytes] = 0xFF


def schedule_of(module, *shapes, gradients=True, dtype=np.float32):
    """Return the schedule that a module runs on inputs of such shapes."""
    specs = tuple(Spec(tuple(shape), np.dtype(dtype)) for shape in shapes)
    return module._running().schedule(type(module).forward.raw, specs, gradients)


def program_of(module, *shapes, gradients=True, kind=Program):
    plan = schedule_of(module, *shapes, gradients=gradients)
    return kind(plan, empty_aligned(plan.nbytes, np.uint8))


def use_poison(monkeypatch):
    """Let every program from now on be a poisoned one."""
    monkeypatch.setattr(programs, "Program", Poisoned)
