"""Time one thread and all of them while other programs want the processors, too.

Each net runs in turns on one thread and on all, beside so many processes that compute without a break. A turn takes
--seconds, many slices of the system's scheduler, and the mean counts: waits are what this is about. A ratio is the time
of all threads over that of one: below 1 threads gain, and beside neighbours it should not be far above 1.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from harness import Peak, arguments, header, selected
from nets import NETS, inference, train_step

from fastconv import config, manual_seed, models


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many processes computing meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def image_net(name: str, batch: int) -> Callable[[], Any]:
    manual_seed(0)
    x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    return inference(models.build(name, (3, 224, 224), 1000), x)


def mean_times(work: Callable[[], Any], threads: tuple[int, ...], seconds: float, turns: int = 4) -> list[float]:
    """Return the mean time of a call on each number of threads, which take turns of some seconds."""
    calls, spent = dict.fromkeys(threads, 0), dict.fromkeys(threads, 0.0)
    for _ in range(turns):
        for count in threads:
            config.threads(count)
            work()
            begin = now = time.perf_counter()
            while now - begin < seconds:
                work()
                calls[count] += 1
                now = time.perf_counter()
            spent[count] += now - begin
    return [spent[count] / calls[count] for count in threads]


PROBLEMS: dict[str, Callable[[], Callable[[], Any]]] = {
    "mlp step": lambda: train_step(NETS[0].build(), *NETS[0].data(NETS[0].batch)),
    "lenet5 step": lambda: train_step(NETS[1].build(), *NETS[1].data(NETS[1].batch)),
    "mobilenet_v2 b1": lambda: image_net("mobilenet_v2", 1),
    "resnet18 b1": lambda: image_net("resnet18", 1),
    "mobilenet_v2 b8": lambda: image_net("mobilenet_v2", 8),
}


def main() -> None:
    args = arguments(
        __doc__,
        neighbours={"type": int, "nargs": "+", "default": [0, 1, 2], "help": "how many (default: %(default)s)"},
    )
    if args.threads == 1:
        sys.exit("one thread alone has nothing to be compared with: --threads 2 or more")
    args.peer = "none"
    header(args, Peak.measure(args.threads), None)
    print(f"{'problem':20} {'neighbours':>10} {'one thread ms':>14} {f'{args.threads} threads ms':>14} {'ratio':>6}")
    for name in selected(list(PROBLEMS), args):
        work = PROBLEMS[name]()
        for count in args.neighbours:
            with neighbours(count):
                one, all_threads = mean_times(work, (1, args.threads), args.seconds)
            figures = f"{one * 1e3:14.2f} {all_threads * 1e3:14.2f} {all_threads / one:6.2f}"
            print(f"{name:20} {count:10} {figures}", flush=True)


if __name__ == "__main__":
    main()
