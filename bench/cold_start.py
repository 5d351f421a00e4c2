"""Time from the start of a process to 97 % on MNIST with LeNet-5, against the same script in PyTorch.

Each turn starts two fresh processes, mnist_fastconv.py and mnist_torch.py: import, load, train and evaluate every
100 steps until 97 % of the test images are right. Both draw their own weights and orders from the turn's number.
MNIST is looked for in the folder FASTCONV_DATA. Both packages have their bytecode, as an installer leaves it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import Peak, Table, arguments, header, load_peer, selected
from nets import NETS, flops

HERE = Path(__file__).parent


def run(script: str, goal: float, seed: int, args: argparse.Namespace) -> tuple[float, int]:
    """Return the seconds that a fresh process took, and its training steps."""
    threads = str(args.threads)
    settings = {"FASTCONV_ISA": args.isa, "FASTCONV_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / script), str(goal), str(seed)],
        env=inherited | settings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr}")
    steps, accuracy = done.stdout.split()
    if float(accuracy) < goal:
        sys.exit(f"{script}: {float(accuracy):.2%} after {steps} steps, not {goal:.0%}: not timed")
    return seconds, int(steps)


def main() -> None:
    args = arguments(
        __doc__,
        turns={"type": int, "default": 5, "help": "processes of each side (default: %(default)s)"},
        goal={"type": float, "default": 0.97, "help": "share of test images to get right (default: %(default)s)"},
    )
    if "FASTCONV_DATA" not in os.environ:
        sys.exit("set FASTCONV_DATA to the folder that holds mnist/")
    (problem,) = selected(["mnist lenet5"], args)
    torch = load_peer(args)
    peak = Peak.measure(args.threads)
    header(args, peak, torch)
    scripts = {"ours": "mnist_fastconv.py"} | ({"PyTorch": "mnist_torch.py"} if torch else {})
    for script in scripts.values():
        run(script, 0.1, 0, args)   # not timed: writes bytecode where there is none
    times: dict[str, list[float]] = {side: [] for side in scripts}
    steps: dict[str, list[int]] = {side: [] for side in scripts}
    for turn in range(args.turns):
        for side, script in scripts.items():
            seconds, done = run(script, args.goal, turn, args)
            times[side].append(seconds)
            steps[side].append(done)
    table = Table(args, peak)
    table.add(problem, "cold start", times, flops=work(steps["ours"]))
    table.close()
    for side, counts in steps.items():
        print(f"{side:8} {', '.join(f'{s:.2f} s ({n} steps)' for s, n in zip(times[side], counts, strict=True))}")


def work(steps: list[int]) -> float:
    """Return the operations of the products in training and evaluation, for the median run."""
    net = next(net for net in NETS if net.name == "lenet5")
    image = net.data(1)[0]
    training, evaluation = (flops(net.build(), image, kind) for kind in (True, False))
    done = statistics.median(steps)
    return done * net.batch * training + done // 100 * 10_000 * evaluation


if __name__ == "__main__":
    main()
