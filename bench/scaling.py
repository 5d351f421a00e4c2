"""How time grows with threads, batch and image size: training steps and inference, against PyTorch.

Threads 1 to --threads at each net's batch; batches of 1 to 512 images; images of 16 to 1024 pixels a side. PyTorch
runs eager, in both of its memory formats, and the better one counts. The last lines give the speed-up of more
threads for both, the time an image and, over image sizes, the time a pixel and how much it differs; and how long
ResNet-50 takes to be written down and planned.
"""

import dataclasses
import time
from typing import Any

import numpy as np
from harness import Peak, Table, arguments, header, load_peer, selected, take_turns
from nets import NETS, Net, check_same, flops, inference, torch_sides, train_step

from fastconv import config, models

BATCHES = (1, 4, 16, 64, 256, 512)
SIDES = (16, 32, 64, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Case:
    """One line twice: a net at a batch, an image size and a number of threads."""

    kind: str
    net: Net
    threads: int

    def __str__(self) -> str:
        value = {"threads": self.threads, "batch": self.net.batch, "side": self.net.image[1]}[self.kind]
        return f"{self.net.name} {self.kind} {value}"


def cases(threads: int) -> list[Case]:
    nets = {net.name: net for net in NETS}
    found = [Case("threads", net, n) for net in NETS for n in range(1, threads + 1)]
    for name in ("lenet5", "resnet20"):
        found += [Case("batch", dataclasses.replace(nets[name], batch=n), threads) for n in BATCHES]
    for side in SIDES:
        batch = max(1, 64 * 32**2 // side**2)  # as many pixels each time, up to 256 a side
        found.append(Case("side", Net("resnet20", batch, (3, side, side)), threads))
    return found


def run(case: Case, torch: Any, table: Table, seconds: float) -> None:
    config.threads(case.threads)
    if torch:
        torch.set_num_threads(case.threads)
    x, y = case.net.data(case.net.batch)
    for part, make in (("step", lambda net: train_step(net, x, y)), ("inference", lambda net: inference(net, x))):
        sides = {"ours": make(case.net.build())}
        if torch:
            sides |= torch_sides(torch, case.net, x, y, part == "step", compiled=False)
        table.add(str(case), part, take_turns(sides, seconds), flops=flops(case.net.build(), x, part == "step"))


def summary(chosen: list[Case], table: Table) -> None:
    """Print how many times faster all threads are than one, and the milliseconds an image."""
    rows = {(row.name, row.part): row for row in table.rows}
    for case in chosen:
        for part in ("step", "inference"):
            row = rows[str(case), part]
            if case.kind == "threads":
                one = rows.get((str(dataclasses.replace(case, threads=1)), part))
                if case.threads == 1 or one is None:
                    continue
                text = f"{one.ours / row.ours:.2f} x one thread"
                if row.peer and one.peer:
                    text += f" (peer {one.peer / row.peer:.2f})"
            else:
                text = f"{row.ours / case.net.batch * 1e3:.3f} ms an image"
                if row.peer:
                    text += f" (peer {row.peer / case.net.batch * 1e3:.3f})"
                if case.kind == "side":
                    text += f", {pixel(case, row):.1f} ns a pixel"
            print(f"{case!s:24} {part:11} {text}")
    sides = [case for case in chosen if case.kind == "side"]
    for part in ("step", "inference") if len(sides) > 1 else ():
        costs = [pixel(case, rows[str(case), part]) for case in sides]
        low, high = min(costs), max(costs)
        print(f"time a pixel, {part}: from {low:.1f} to {high:.1f} ns, {high / low - 1:.0%} more")


def pixel(case: Case, row: Any) -> float:
    """Return our nanoseconds a pixel."""
    return float(row.ours) / (case.net.batch * case.net.image[1] * case.net.image[2]) * 1e9


def compilation() -> None:
    """Print the least times of ResNet-50's plan, and of its first forward beyond another one."""
    plans, firsts = [], []
    x = np.zeros((1, 3, 32, 32), np.float32)
    for _ in range(5):
        model = models.resnet50().eval()
        begin = time.thread_time()
        model.plan((32, 3, 224, 224))
        plans.append(time.thread_time() - begin)
        times = []
        for _ in range(3):
            begin = time.thread_time()
            model(x)
            times.append(time.thread_time() - begin)
        firsts.append(times[0] - min(times[1:]))
    print(f"ResNet-50: plan {1e3 * min(plans):.1f} ms, compiled in the first forward {1e3 * min(firsts):.1f} ms")


def main() -> None:
    args = arguments(__doc__)
    torch = load_peer(args)
    chosen = selected(cases(args.threads), args)
    peak = Peak.measure(args.threads)
    header(args, peak, torch)
    table = Table(args, peak)
    checked: set[Net] = set()
    for case in chosen:
        if torch and case.net not in checked:
            check_same(torch, case.net)
            checked.add(case.net)
        run(case, torch, table, args.seconds)
    summary(chosen, table)
    compilation()
    table.close()


if __name__ == "__main__":
    main()
