"""Time nets of real size on images of 224×224 against PyTorch and ONNX Runtime: forward at batch 1 and 8, steps at 8.

PyTorch runs eager, in both of its memory formats, and with --compile yes compiled, too; ONNX Runtime, forward alone,
runs what `fastconv.onnx.save` makes of the net, with its default optimisations and as many threads. Each line's peer is
the best of all; the lines at the end give the ratio to each. A net whose scores or gradients differ is not timed.

EfficientNet-Lite0 is the file efficientnet_lite0.onnx below the folder models of FASTCONV_DATA, and left out without.
"""

import argparse
import importlib
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Peak, Table, arguments, header, load_peer, selected, take_turns
from nets import Net, check_same, convert, distance, flops, inference, torch_sides, train_step

import fastconv
from fastconv import models, nn, onnx

FILE = Path(os.environ.get("FASTCONV_DATA", ".")) / "models" / "efficientnet_lite0.onnx"
IMAGE = (3, 224, 224)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "mobilenet_v2": models.mobilenet_v2,
    "efficientnet_lite0": lambda: onnx.load(FILE),
    "squeezenet1_1": models.squeezenet1_1,
    "densenet121": models.densenet121,
    "vgg16_bn": models.vgg16_bn,
    "unet": lambda: models.unet(21),
}


@dataclass(frozen=True)
class RealNet(Net):
    """A net for images of 224×224 and its twin in PyTorch."""

    def build(self) -> nn.Module:
        fastconv.manual_seed(0)
        return BUILDERS[self.name]()

    def data(self, batch: int, kind: str = "normal") -> tuple[np.ndarray, np.ndarray]:
        x, y = super().data(batch, kind)
        if self.name == "unet":  # a label a pixel
            y = np.random.default_rng(1).integers(0, self.classes, (batch, *self.image[1:]))
        return x, y

    def twin(self, torch: Any) -> Any:
        model = self.build()
        match self.name:
            case "efficientnet_lite0":
                return follower(torch, model)
            case "unet":
                net = torch_unet(torch, model)
            case _:
                net = getattr(torchvision(torch).models, self.name)(weights=None)
        net.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()}, strict=False)
        return net

    def __str__(self) -> str:
        return self.name


NETS = [RealNet(name, 8, IMAGE, 21 if name == "unet" else 1000) for name in BUILDERS]


def torchvision(torch: Any) -> Any:
    """Return torchvision, also where its compiled part does not fit this PyTorch: nets are Python."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # an operator of the compiled part, box suppression and the like, is missing
        before, torch.library.register_fake = torch.library.register_fake, lambda *a, **k: lambda function: function
        try:
            return importlib.import_module("torchvision")
        finally:
            torch.library.register_fake = before


def follower(torch: Any, model: Any) -> Any:
    """Return a module that follows the steps of a file of convolutions and their kin."""
    tnn, call = torch.nn, torch.nn.functional
    steps, constants, known = model._net.steps, model._net.constants, {}
    for step in steps:
        if step.layer:
            own = model.at(step.layer)
            layer = known[step.layer] = convert(torch, own)
            layer.load_state_dict({k: torch.from_numpy(a) for k, a in own.state_dict().items()}, strict=False)

    class Follower(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = tnn.ModuleList(known.values())

        def forward(self, x: Any) -> Any:
            at = dict.fromkeys(model._net.inputs, x)
            for step in steps:
                args = [at.get(name) for name in step.inputs]
                match step.kind:
                    case _ if step.layer:
                        result = self.layers[list(known).index(step.layer)](args[0])
                    case "Pad":
                        before, behind = np.split(constants[step.inputs[1]], 2)
                        sides = [int(n) for pair in zip(before[:1:-1], behind[:1:-1], strict=True) for n in pair]
                        result = call.pad(args[0], sides)
                    case "Clip":
                        low, high = (float(constants[name]) for name in step.inputs[1:])
                        result = call.hardtanh(args[0], low, high)
                    case "Add":
                        result = args[0] + args[1]
                    case "GlobalAveragePool":
                        result = call.adaptive_avg_pool2d(args[0], 1)
                    case "Reshape":
                        result = args[0].flatten(1)
                    case "Shape" | "Gather" | "Unsqueeze" | "Concat":  # the shape of the reshape
                        continue
                    case kind:
                        raise TypeError(f"no PyTorch twin for {kind}")
                at[step.outputs[0]] = result
            return at[model._net.outputs[0]]

    return Follower()


def torch_unet(torch: Any, model: Any) -> Any:
    """Return `fastconv.models.unet` in PyTorch, for images whose sides can be halved as often as it does."""
    tnn, call = torch.nn, torch.nn.functional

    class Double(tnn.Module):
        def __init__(self, own: Any) -> None:
            super().__init__()
            self.conv1, self.bn1 = convert(torch, own.conv1), convert(torch, own.bn1)
            self.conv2, self.bn2 = convert(torch, own.conv2), convert(torch, own.bn2)

        def forward(self, x: Any) -> Any:
            return call.relu(self.bn2(self.conv2(call.relu(self.bn1(self.conv1(x))))))

    class Twin(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.bottom = tnn.ModuleList(map(Double, model.down)), Double(model.bottom)
            self.up = tnn.ModuleList(convert(torch, up) for up in model.up)
            self.merge, self.head = tnn.ModuleList(map(Double, model.merge)), convert(torch, model.head)

        def forward(self, x: Any) -> Any:
            skips = []
            for down in self.down:
                skips.append(down(x))
                x = call.max_pool2d(skips[-1], 2)
            x = self.bottom(x)
            for skip, up, merge in reversed(list(zip(skips, self.up, self.merge, strict=True))):
                x = merge(torch.cat([up(x), skip], 1))
            return self.head(x)

    return Twin()


def runtime_side(net: Net, x: np.ndarray, threads: int) -> Callable[[], Any]:
    """Return a function that runs the net in ONNX Runtime; exit where its scores are not ours."""
    import onnxruntime

    model = net.build().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(model, path, x.shape)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(x)}
    exact = net.build().astype(np.float64).predict(x.astype(np.float64))
    error = distance([session.run(None, feed)[0]], [exact])
    allowed = 8 * max(distance([model.predict(x)], [exact]), 64 * float(np.finfo(np.float32).eps))
    if not error <= allowed:
        sys.exit(f"{net}: ONNX Runtime differs by {error:.3g}, more than {allowed:.3g}: not timed")
    return lambda: session.run(None, feed)


def contest(net: Net, batch: int, training: bool, torch: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return what runs in turns: ours and the ways of the peers."""
    x, y = net.data(batch)
    model = net.build()
    sides: dict[str, Any] = {"ours": train_step(model, x, y) if training else inference(model, x)}
    if torch:
        ways = torch_sides(torch, net, x, y, training, args.compile == "yes")
        sides |= {f"PyTorch {name}": side for name, side in ways.items()}
        if not training:
            sides["ONNX Runtime"] = runtime_side(net, x, args.threads)
    return sides


def main() -> None:
    args = arguments(
        __doc__,
        parts={"default": "batch 1,batch 8,step", "help": "what to time, by commas (default: %(default)s)"},
        compile={"choices": ["yes", "no"], "default": "no", "help": "time torch.compile too (default: %(default)s)"},
    )
    parts = args.parts.split(",")
    if unknown := set(parts) - {"batch 1", "batch 8", "step"}:
        sys.exit(f"no part {', '.join(map(repr, unknown))}; there are batch 1, batch 8, step")
    nets = selected(NETS, args)
    torch = load_peer(args)
    peak = Peak.measure(args.threads)
    header(args, peak, torch)
    table = Table(args, peak)
    ratios: dict[tuple[str, str], list[float]] = {}
    lines = []
    for net in nets:
        if net.name == "efficientnet_lite0" and not FILE.exists():
            print(f"{net}: left out, there is no {FILE}")
            continue
        if torch:
            check_same(torch, net, most=1)
        for part in parts:
            training, batch = part == "step", 1 if part == "batch 1" else 8
            times = take_turns(contest(net, batch, training, torch, args), args.seconds, at_least=3)
            table.add(str(net), part, times, flops=flops(net.build(), net.data(batch)[0], training))
            ours = statistics.median(times.pop("ours"))
            one = {side: statistics.median(taken) / ours for side, taken in times.items()}
            lines.append(f"{net!s:24} {part:11} " + ", ".join(f"{side} {ratio:.2f}" for side, ratio in one.items()))
            for side, ratio in one.items():
                ratios.setdefault((part, side), []).append(ratio)
    print("\nratio to each peer")
    print("\n".join(lines))
    for (part, side), found in ratios.items():
        print(f"{part:11} {side:20} worst {min(found):.2f}, geometric mean {statistics.geometric_mean(found):.2f}")
    table.close()


if __name__ == "__main__":
    main()
