"""The nets of the timing scripts, and the same nets in PyTorch with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastconv
from fastconv import models, nn, optim

LR, MOMENTUM = 1e-3, 0.9


@dataclass(frozen=True)
class Net:
    """A net, the images it takes and the batch it is timed at."""

    name: str
    batch: int
    image: tuple[int, int, int]
    classes: int = 10

    def build(self) -> nn.Module:
        fastconv.manual_seed(0)
        if self.name == "mlp":  # smaller than the zoo's: one hidden layer
            return nn.Sequential(
                nn.Flatten(), nn.Linear(int(np.prod(self.image)), 128), nn.ReLU(), nn.Linear(128, self.classes),
                input_grad=False,
            )  # fmt: skip
        return models.build(self.name, self.image, self.classes)

    def data(self, batch: int, kind: str = "normal") -> tuple[np.ndarray, np.ndarray]:
        """Return a batch of images over channels-last memory and labels."""
        rng = np.random.default_rng(0)
        c, h, w = self.image
        x = rng.standard_normal((batch, h, w, c), dtype=np.float32)
        x = DATA[kind](x).transpose(0, 3, 1, 2)
        return x, rng.integers(0, self.classes, batch)

    def twin(self, torch: Any) -> Any:
        """Return the same net of PyTorch's layers with the same weights."""
        return to_torch(torch, self.build())

    def __str__(self) -> str:
        return f"{self.name} b{self.batch}"


DATA: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda x: x,
    "denormal": lambda x: x * np.float32(1e-40),
    "nan": lambda x: np.where(np.abs(x) > 1, np.float32(np.nan), x),
    "zeros": lambda x: x * np.float32(0),
    "huge": lambda x: x * np.float32(1e30),
}
"""What a batch may hold: kinds of numbers on which a processor can be slow."""

NETS = [
    Net("mlp", 128, (1, 28, 28)),
    Net("lenet5", 64, (1, 28, 28)),
    Net("mnist-small", 64, (1, 28, 28)),
    Net("cifar-small", 32, (3, 32, 32)),
    Net("resnet20", 128, (3, 32, 32)),
    Net("vgg-small", 64, (3, 32, 32)),
]


def flops(model: nn.Module, x: np.ndarray, training: bool) -> float:
    """Return the useful operations of the convolutions and linear layers, 2 a multiply-add.

    A training step takes each product three times, the very first layer's twice: nobody asks for the
    gradient of the images.
    """
    counts: list[float] = []

    def count(layer: nn.Module, input: np.ndarray, output: np.ndarray) -> None:
        weight: Any = layer
        shared = input if isinstance(layer, nn.ConvTranspose2d) else output
        counts.append(2.0 * shared.size * weight.weight.data[0].size)

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    removers = [layer.register_forward_hook(count) for layer in layers]
    model.predict(x)
    for remove in removers:
        remove()
    return 3 * sum(counts) - counts[0] if training else sum(counts)


def train_step(
    model: nn.Module, x: np.ndarray, y: np.ndarray, optimizer: optim.Optimizer | None = None
) -> Callable[[], float]:
    """Return a function that does one whole step on the batch: gradients to zero, forward, backward, update."""
    loss = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM) if optimizer is None else optimizer
    model.train()

    def step() -> float:
        optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward())
        optimizer.step()
        return value

    return step


def inference(model: nn.Module, x: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that runs the net forward, in evaluation mode."""
    model.eval()
    return lambda: model(x)


# ---- the same in PyTorch


def to_torch(torch: Any, model: nn.Module) -> Any:
    """Return the net of ``torch.nn`` layers with the same weights; a bias layer joins the layer before it."""
    twin = convert(torch, model)
    own, theirs = model.state_dict(), twin.state_dict()
    pairs = zip(theirs, own.values(), strict=True)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in pairs})
    return twin


def convert(torch: Any, layer: nn.Module | None, bias: bool = False) -> Any:
    """Return the layer of ``torch.nn`` with the same settings and new weights."""
    tnn = torch.nn
    match layer:
        case None:
            return tnn.Identity()
        case nn.Sequential():
            layers = list(layer)
            following = [*layers[1:], None]
            return tnn.Sequential(*(
                convert(torch, one, isinstance(behind, nn.Bias))
                for one, behind in zip(layers, following, strict=True) if not isinstance(one, nn.Bias)
            ))  # fmt: skip
        case nn.Residual():
            return _residual(torch, layer)
        case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear():
            kind = getattr(tnn, type(layer).__name__)
            settings = {name: value for name, value in layer.config().items() if name != "algorithm"}
            return kind(**{**settings, "bias": bias or layer.bias is not None})
        case nn.GlobalAvgPool2d():
            return tnn.AdaptiveAvgPool2d(1)
        case nn.AvgPool2d() if layer.config()["dilation"] in (1, (1, 1)):  # PyTorch's means have no dilation
            return tnn.AvgPool2d(**{name: value for name, value in layer.config().items() if name != "dilation"})
        case nn.ReLU() | nn.Flatten() | nn.MaxPool2d() | nn.BatchNorm2d() | nn.Dropout():
            return getattr(tnn, type(layer).__name__)(**layer.config())
    raise TypeError(f"no PyTorch twin for {layer!r}")


def _residual(torch: Any, layer: nn.Residual) -> Any:
    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = convert(torch, layer.body)
            self.shortcut = convert(torch, layer.shortcut)
            self.activation = convert(torch, layer.activation)

        def forward(self, x: Any) -> Any:
            return self.activation(self.body(x) + self.shortcut(x))

    return Residual()


def torch_sides(torch: Any, net: Net, x: np.ndarray, y: np.ndarray, training: bool, compiled: bool) -> dict:
    """Return the peer's ways of doing the same, by name: both memory formats, eager and compiled."""
    sides = {}
    torch.compiler.reset()  # else the nets before this one count against its limit of recompilations
    for name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        tx = torch.from_numpy(np.ascontiguousarray(x)).to(memory_format=layout)
        ty = torch.from_numpy(y)
        for prefix, change in (("", lambda twin: twin), ("compiled ", torch.compile)):
            if prefix and not compiled:
                continue
            twin = net.twin(torch).to(memory_format=layout).train(training)
            make = _torch_step if training else _torch_inference
            side = make(torch, change(twin), twin, tx, ty)
            if not prefix or _compiles(side, prefix + name):
                sides[prefix + name] = side
    return sides


def _compiles(side: Callable[[], Any], name: str) -> bool:
    """Say so and return False where the peer's compiler, or what it made, fails; the eager ways are left then."""
    try:
        side()
    except RuntimeError as error:  # torch 2.13.0 on AVX2: indices of a maximum out of bounds
        print(f"PyTorch, {name}, left out: {str(error).splitlines()[0]}", flush=True)
        return False
    return True


def _torch_step(torch: Any, run: Any, net: Any, x: Any, y: Any) -> Callable[[], float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> float:
        optimizer.zero_grad()
        loss = cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _torch_inference(torch: Any, run: Any, net: Any, x: Any, y: Any) -> Callable[[], Any]:
    def forward() -> Any:
        with torch.inference_mode():
            return run(x)

    return forward


# ---- is it the same?


def check_same(torch: Any, net: Net, most: int = 16) -> None:
    """Exit unless scores, loss and gradients are the peer's, in float64 and in float32, for up to ``most`` images.

    In float64 they agree up to rounding. In float32 a ReLU or a maximum may go the other way in one of the two
    where it is within rounding of a tie; about a share eps of all elements is, which changes the norm of a
    gradient by some sqrt(eps), or as much as it changes the peer's own gradients against its float64.
    """
    x, y = net.data(min(net.batch, most))
    single, double = (_peer(torch, net, x, y, dtype) for dtype in (torch.float32, torch.float64))
    noise = max(distance(single, double), 8 * float(np.finfo(np.float32).eps) ** 0.5)
    for dtype, allowed in ((np.float64, float(np.finfo(np.float64).eps) ** 0.5), (np.float32, 8 * noise)):
        error = distance(_ours(net, x, y, dtype), double)
        if not error <= allowed:
            raise SystemExit(f"{net}: {dtype.__name__} differs by {error:.3g}, more than {allowed:.3g}: not timed")


def _certain(model: Any) -> Any:
    """Turn dropout off, in ours or the peer's: the two draw different masks."""
    for layer in model.modules():
        if type(layer).__name__ == "Dropout":
            layer.p = 0.0
    return model


def _ours(net: Net, x: np.ndarray, y: np.ndarray, dtype: Any) -> list[np.ndarray]:
    model, loss = _certain(net.build()).astype(dtype).train(), nn.CrossEntropyLoss()
    scores = model.predict(x.astype(dtype))
    value = loss(model(x.astype(dtype)), y)
    model.backward(loss.backward())
    return [scores, np.array(value), *(p.grad for p in model.parameters())]


def _peer(torch: Any, net: Net, x: np.ndarray, y: np.ndarray, dtype: Any) -> list[np.ndarray]:
    twin = _certain(net.twin(torch)).to(dtype)
    images = torch.from_numpy(np.ascontiguousarray(x)).to(dtype)
    scores = twin.eval()(images).detach().numpy()
    loss = torch.nn.functional.cross_entropy(twin.train()(images), torch.from_numpy(y))
    loss.backward()
    return [scores, np.array(loss.item()), *(p.grad.numpy() for p in twin.parameters())]


def distance(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """Return the largest relative error of an array, in the Euclidean norm.

    Where the exact array is zero, as is the gradient of a bias that a normalisation takes away again, the error is
    relative to the largest of all.
    """
    norms = [float(np.linalg.norm(b)) for b in want]
    largest = max(norms)
    scales = [norm if norm > 1e-10 * largest else largest for norm in norms]
    return max(float(np.linalg.norm(a - b)) / scale for a, b, scale in zip(got, want, scales, strict=True))
