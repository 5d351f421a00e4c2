"""What is not arithmetic: the import, the compilation of a net, and Python's share of a call.

All on one thread, in processor time, the least of several runs. A net's first forward writes it down (trace) and plans
it (schedule); ResNet-50 stands for large ones. Python's share of a call is the call without its kernels, which run in
turns with it.
"""

import os

os.environ["FASTCONV_NUM_THREADS"] = "1"  # before the import that reads it

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from nets import NETS, Net, inference, train_step

from fastconv import functional as F
from fastconv import nn
from fastconv.graph.operation import Spec
from fastconv.nn import _running


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
    for _ in range(10):
        before = used()
        subprocess.run([sys.executable, "-c", code], check=True)
        found.append(used() - before)
    return min(found)


def share(call: Callable[[], Any], model: nn.Module, passes: Iterable[int]) -> tuple[float, float]:
    """Return the seconds of a call, and of its kernels alone."""
    call()
    program = model._running().runs[-1].program
    calls = [entry for at in passes for step in program._calls[at] for entry in step]

    def kernels() -> None:
        for function, arguments in calls:
            function(*arguments)

    def many(run: Callable[[], Any]) -> Callable[[], None]:
        return lambda: [run() for _ in range(200)] and None

    pairs = [(least(many(call), 1), least(many(kernels), 1)) for _ in range(30)]
    return min(a for a, _ in pairs) / 200, min(b for _, b in pairs) / 200


def main() -> None:
    plain, ours = import_time("import numpy"), import_time("from fastconv import nn")
    print(f"import           numpy {1e3 * plain:.0f} ms, with fastconv.nn {1e3 * ours:.0f} ms")
    model, specs = ResNet50(), [Spec((32, 3, 224, 224), np.dtype(np.float32))]
    raw: Any = ResNet50.forward.raw  # type: ignore[attr-defined]
    for training in (True, False):
        model.train(training)
        graph = _running.trace(model, raw, specs)
        trace = least(lambda: _running.trace(model, raw, specs))
        plan = least(lambda: _running._scheduled(model, graph, training))  # noqa: B023
        mode = "training" if training else "evaluation"
        print(f"ResNet-50        {mode}: trace {1e3 * trace:.1f} ms, schedule {1e3 * plan:.1f} ms")
    for name, batch, training in (("mlp", 1, False), ("lenet5", 1, False), ("lenet5", 16, True)):
        net: Net = next(net for net in NETS if net.name == name)
        built, (x, y) = net.build(), net.data(batch)
        call = train_step(built, x, y) if training else inference(built, x)
        whole, kernels = share(call, built, (0, 1) if training else (0,))
        what = f"{'step' if training else 'inference'} at batch {batch}: {1e6 * whole:.1f} us"
        print(f"{name:16} {what}, {1e6 * (whole - kernels):.1f} us without the kernels of forward and backward")


if __name__ == "__main__":
    main()
