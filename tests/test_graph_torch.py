"""Whole nets beside PyTorch: one source runs on both, and outputs, gradients and running statistics agree.

How far two right results may lie apart is found with PyTorch alone, in float64. A sum of K products, rounded in
whatever order, is the exact sum of products each of which is off by at most K * eps of itself. So the net runs again
with every input, weight, gradient and layer's output moved by K * eps of itself, at random to either side (what comes
back through a layer is then moved as well). What that does to a result, times four for the few runs there are, is what
rounding may do to it.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

import fastconv
from fastconv import functional
from fastconv import nn as fastconv_nn

torch = pytest.importorskip("torch")
torch_functional = torch.nn.functional


class TorchFunctional:
    """The functions that the nets use, of which `torch` has some in `torch.nn.functional` and some at its top."""

    cat = torch.cat
    relu = torch_functional.relu
    max_pool2d = torch_functional.max_pool2d
    interpolate = torch_functional.interpolate


def nets(nn, F):
    """Return the classes of nets, written with the layers and functions of one of the two."""

    class Twice(nn.Module):
        def __init__(self, before, after):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, padding=1)
            self.bn2 = nn.BatchNorm2d(after)

        def forward(self, x):
            x = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(x)))

    class UNet(nn.Module):
        def __init__(self, channels, width, classes, depth):
            super().__init__()
            widths = [width << i for i in range(depth + 1)]
            self.down = nn.ModuleList([Twice(a, b) for a, b in zip([channels, *widths], widths)])  # noqa: B905
            self.up = nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1]])
            self.merge = nn.ModuleList([Twice(2 * w, w) for w in widths[:-1]])
            self.head = nn.Conv2d(width, classes, 1)

        def forward(self, x):
            skips = []
            for i, block in enumerate(self.down):
                x = block(x if i == 0 else F.max_pool2d(x, 2))
                skips.append(x)
            for i in reversed(range(len(self.up))):
                x = self.merge[i](F.cat([skips[i], self.up[i](x)], 1))
            return self.head(x)

    class TwoTower(nn.Module):
        """Two images go through one tower, whose statistics see both."""

        def __init__(self, channels, width, features):
            super().__init__()
            self.conv = nn.Conv2d(channels, width, 3, padding=1)
            self.bn = nn.BatchNorm2d(width)
            self.project = nn.Sequential(nn.Linear(width, features), nn.Tanh(), nn.Linear(features, features))
            self.head = nn.Linear(4 * features, 1)

        def tower(self, x):
            return self.project(F.relu(self.bn(self.conv(x))).mean((2, 3)))

        def forward(self, left, right):
            a, b = self.tower(left), self.tower(right)
            return self.head(F.cat([a, b, a * b, a - b], 1)), (a * b).sum(1)

    class Dense(nn.Module):
        def __init__(self, before, growth):
            super().__init__()
            self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(4 * growth)
            self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

        def forward(self, x):
            new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
            return F.cat([x, new], 1)

    class DenseBlock(nn.Module):
        def __init__(self, channels, growth, layers):
            super().__init__()
            self.layers = nn.Sequential(*[Dense(channels + i * growth, growth) for i in range(layers)])
            self.norm = nn.BatchNorm2d(channels + layers * growth)
            self.transition = nn.Conv2d(channels + layers * growth, channels, 1, bias=False)
            self.pool = nn.AvgPool2d(2)

        def forward(self, x):
            return self.pool(self.transition(F.relu(self.norm(self.layers(x)))))

    class Inception(nn.Module):
        def __init__(self, channels, one, reduce, three, five, pool):
            super().__init__()
            self.branch1 = nn.Conv2d(channels, one, 1)
            self.branch3 = nn.Sequential(
                nn.Conv2d(channels, reduce, 1), nn.ReLU(), nn.Conv2d(reduce, three, 3, padding=1)
            )
            self.branch5 = nn.Sequential(
                nn.Conv2d(channels, reduce, 1), nn.ReLU(), nn.Conv2d(reduce, five, 5, padding=2)
            )
            self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(channels, pool, 1))

        def forward(self, x):
            branches = [self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)]
            return F.cat([F.relu(branch) for branch in branches], 1)

    class SqueezeExcite(nn.Module):
        def __init__(self, channels, squeezed):
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.bn = nn.BatchNorm2d(channels)
            self.fc1, self.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

        def forward(self, x):
            y = self.bn(self.conv(x))
            weight = self.fc2(F.relu(self.fc1(y.mean(dim=(2, 3))))).sigmoid()
            return F.relu(x + y * weight[:, :, None, None])

    class Decoder(nn.Module):
        """What the others leave out: nearest `interpolate`, strides, groups, a parameter of one's own, `view`."""

        def __init__(self, channels, width):
            super().__init__()
            self.down = nn.Conv2d(channels, 2 * width, 3, stride=2, padding=1)
            self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
            self.act = nn.PReLU(2 * width)
            self.linear = nn.Linear(2 * width, 2 * width, bias=False)

        def forward(self, x):
            n, _, height, width = x.shape
            y = self.act(self.depthwise(self.down(x)))
            y = F.interpolate(y, size=(height, width))
            y = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
            y = self.linear(y).view(n, height * width, -1)
            return y.transpose(1, 2), y[:, 1:].mean(-1, keepdim=True) / 2 - 1

    return {kind.__name__: kind for kind in (UNet, TwoTower, DenseBlock, Inception, SqueezeExcite, Decoder)}


OURS, THEIRS = nets(fastconv_nn, functional), nets(torch.nn, TorchFunctional)


def draw(name, rng):
    """Return arguments of a net's constructor, and its inputs' shapes."""

    def upto(n, low=1):
        return int(rng.integers(low, n + 1))

    n, c, h, w = upto(4, 2), upto(4), upto(9, 3), upto(9, 3)
    if name == "UNet":
        depth = upto(2)
        h, w = (upto(3) << depth for _ in range(2))
        return (c, upto(6), upto(4), depth), [(n, c, h, w)]
    if name == "TwoTower":
        return (c, upto(9), upto(6)), [(n, c, h, w), (n, c, h, w)]
    if name == "DenseBlock":
        return (c, upto(5), upto(3)), [(n, c, h, w)]
    if name == "Inception":
        return (c, upto(9), upto(5), upto(9), upto(5), upto(5)), [(n, c, h, w)]
    if name == "SqueezeExcite":
        return (3 * c, upto(4)), [(n, 3 * c, h, w)]
    return (c, upto(5)), [(n, c, h, w)]


@dataclass
class Step:
    """Weights, inputs and gradients of outputs: all that a step is made of."""

    state: dict
    inputs: list
    grads: list

    def moved(self, by, rng):
        """Return it with every float moved by this part of itself, to either side."""

        def move(a):
            return a * (1 + by * rng.choice([-1.0, 1.0], a.shape)) if a.dtype.kind == "f" else a

        state = {k: move(a) for k, a in self.state.items()}
        return Step(state, [move(a) for a in self.inputs], [move(a) for a in self.grads])


@contextmanager
def outputs_moved(model, by, rng):
    """Let every layer's output, and the gradient that comes back there, be off by this part of itself."""

    def move(layer, inputs, output):
        return output * torch.from_numpy(1 + by * rng.choice([-1.0, 1.0], output.shape))

    layers = [layer for layer in model.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(move) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def run_theirs(model, step, training):
    """Return all results of a step by name, in float64."""
    model.double().train(training).zero_grad()
    model.load_state_dict({k: torch.from_numpy(np.array(a)) for k, a in step.state.items()})
    inputs = [torch.from_numpy(a.copy()).requires_grad_() for a in step.inputs]
    found = model(*inputs)
    outputs = found if isinstance(found, tuple) else (found,)
    torch.autograd.backward(outputs, [torch.from_numpy(g) for g in step.grads])
    return results(
        [y.detach() for y in outputs], [x.grad for x in inputs],
        {k: p.grad for k, p in model.named_parameters()}, dict(model.named_buffers()),
    )  # fmt: skip


def run_ours(model, step, training, dtype):
    model.astype(dtype).train(training).zero_grad()
    model.load_state_dict(step.state)
    found = model(*(a.astype(dtype) for a in step.inputs))
    outputs = [y.copy() for y in (found if isinstance(found, tuple) else (found,))]
    back = model.backward(*(g.astype(dtype) for g in step.grads))
    return results(
        outputs, back if isinstance(back, tuple) else (back,),
        {k: p.grad for k, p in model.named_parameters()}, dict(model.named_buffers()),
    )  # fmt: skip


def results(outputs, grads, parameters, buffers):
    named = {f"output {i}": y for i, y in enumerate(outputs)}
    named.update({f"gradient of input {i}": g for i, g in enumerate(grads)})
    named.update({f"gradient of {name}": g for name, g in parameters.items()})
    return {k: np.asarray(a).copy() for k, a in (named | buffers).items()}


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", OURS)
def test_outputs_gradients_and_statistics_are_pytorchs(name, training, dtype):
    eps = np.finfo(dtype).eps
    for seed in range(5):
        rng = np.random.default_rng([seed, training])
        fastconv.manual_seed(seed)
        arguments, shapes = draw(name, rng)
        ours, theirs = OURS[name](*arguments), THEIRS[name](*arguments)
        state = {k: np.array(v, np.float64) if v.dtype.kind == "f" else v for k, v in ours.state_dict().items()}
        assert list(state) == list(theirs.state_dict())
        for key in state:
            if "num_batches" in key:
                continue
            if "running" in key:
                state[key] = rng.uniform(0.5, 2, state[key].shape)
            elif "bias" in key or "bn" in key or "norm" in key:
                state[key] = rng.uniform(-1, 1, state[key].shape)
        if dtype == np.float32:  # so that both begin with the same numbers
            state = {k: v.astype(np.float32).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in state.items()}
        inputs = [rng.standard_normal(shape).astype(np.float32).astype(np.float64) for shape in shapes]
        found = theirs.double()(*map(torch.from_numpy, inputs))
        outputs = found if isinstance(found, tuple) else (found,)
        grads = [rng.standard_normal(y.shape).astype(np.float32).astype(np.float64) for y in outputs]
        step = Step(state, inputs, grads)

        wanted = run_theirs(theirs, step, training)
        terms = max(np.prod(a.shape[1:], initial=1) for a in state.values()) + np.prod(shapes[0]) // shapes[0][1]
        with outputs_moved(theirs, terms * eps, rng):
            moved = [run_theirs(theirs, step.moved(terms * eps, rng), training) for _ in range(4)]
        got = run_ours(ours, step, training, dtype)
        assert got.keys() == wanted.keys()
        for key, value in wanted.items():
            assert got[key].shape == value.shape, key
            away = [np.abs(other[key] - value).max(initial=0) for other in moved]
            bound = 4 * np.sqrt(np.mean(np.square(away))) + terms * eps * np.abs(value).max(initial=0)
            error = np.abs(got[key] - value).max(initial=0)
            assert error <= bound, f"{key} of {name}{arguments} on {shapes}, seed {seed}: off by {error}, bound {bound}"
