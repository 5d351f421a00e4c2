"""What is not arithmetic: the import, the compilation of a net, and Python's share of a call.

All on one thread, in processor time, the least of several runs. A net's first forward writes it down (trace) and plans
it (schedule); ResNet-50 stands for large ones. Python's share of a call is what is left where no kernel does anything:
those of forward and backward, of loss and optimiser, and the zeroing of gradients. It still is called, with all its
arguments.
"""

import os

os.environ["FASTCONV_NUM_THREADS"] = "1"  # before the import that reads it

import argparse
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from nets import LR, MOMENTUM, NETS, Net, inference, train_step

from fastconv import functional as F
from fastconv import nn, optim
from fastconv.functional import _class_loss as class_loss
from fastconv.functional import _loss as losses
from fastconv.functional import _optim as steps
from fastconv.graph.operation import Spec
from fastconv.nn import _tracing


class Bottleneck(nn.Module):
    """Three convolutions and a way past them (He et al., "Deep residual learning", arXiv 1512.03385)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            project = nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(4 * width))

    def forward(self, x: Any) -> Any:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """Sixteen bottlenecks, a thousand classes."""

    def __init__(self) -> None:
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks, channels = [], 64
        for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for i in range(count):
                blocks.append(Bottleneck(channels, width, 2 if stage and not i else 1))
                channels = 4 * width
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(channels, 1000)

    def forward(self, x: Any) -> Any:
        x = self.blocks(self.maxpool(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def least(run: Callable[[], Any], times: int = 15) -> float:
    """Return the least processor time of one run, in seconds."""
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def import_time(code: str) -> float:
    """Return the least processor time of a fresh process that runs this, in seconds."""

    def used() -> float:
        total = resource.getrusage(resource.RUSAGE_CHILDREN)
        return total.ru_utime + total.ru_stime

    found = []
    with TemporaryDirectory() as bytecode:
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
        for _ in range(11):
            before = used()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            found.append(used() - before)
    return min(found)


def nothing(*arguments: Any) -> float:
    """Stand in for a kernel."""
    return 1.0


def without_kernels(model: nn.Module, optimizer: optim.Optimizer | None) -> None:
    """Let all kernels of a model that has run do nothing from now on, in this process for good."""
    for phase in model._running().runs[-1].program._calls:
        for at, step in enumerate(phase):
            phase[at] = [(nothing, arguments) for _, arguments in step]
    for kernels in (class_loss._cross_entropy, class_loss._cross_entropy_backward, losses._total, steps._SGD):
        kernels.update(dict.fromkeys(kernels, nothing))
    for block in () if optimizer is None else optimizer._blocks:
        block.grad = block.grad[:0]


def share(net: Net, batch: int, training: bool) -> tuple[float, float]:
    """Return the seconds of a call, and of the same call without its kernels."""
    model, (x, y) = net.build(), net.data(batch)
    optimizer = optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM) if training else None
    call = inference(model, x) if optimizer is None else train_step(model, x, y, optimizer)
    gc.collect()
    gc.disable()  # a collection is none of the call's work
    whole = least(call, 2000)
    without_kernels(model, optimizer)
    rest = least(call, 20000)
    gc.enable()
    return whole, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", nargs=3, metavar=("NET", "BATCH", "TRAINING"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.share:
        named, batch, training = args.share
        print(*share(next(net for net in NETS if net.name == named), int(batch), training == "1"))
        return
    plain, ours = import_time("import numpy"), import_time("from fastconv import nn")
    print(f"import           numpy {1e3 * plain:.0f} ms, with fastconv.nn {1e3 * ours:.0f} ms")
    model, specs = ResNet50(), [Spec((32, 3, 224, 224), np.dtype(np.float32))]
    raw: Any = ResNet50.forward.raw  # type: ignore[attr-defined]
    for training in (True, False):
        model.train(training)
        graph = _tracing.trace(model, raw, specs)
        trace = least(lambda: _tracing.trace(model, raw, specs))
        plan = least(lambda: _tracing.scheduled(model, graph, training))  # noqa: B023
        mode = "training" if training else "evaluation"
        print(f"ResNet-50        {mode}: trace {1e3 * trace:.1f} ms, schedule {1e3 * plan:.1f} ms")
    for name, batch, training in (
        ("mlp", 1, False), ("lenet5", 1, False), ("resnet20", 1, False), ("mlp", 128, True), ("lenet5", 64, True),
        ("resnet20", 16, True),
    ):  # fmt: skip
        # Each in a process of its own, since kernels are taken away for good.
        command = [sys.executable, __file__, "--share", name, str(batch), str(int(training))]
        whole, rest = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        what = f"{'step' if training else 'inference'} at batch {batch}"
        print(f"{name:16} {what}: {1e6 * whole:.1f} us, of which Python {1e6 * rest:.1f} us")


if __name__ == "__main__":
    main()
