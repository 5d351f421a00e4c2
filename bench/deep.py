"""Residual cores against their limits: the latency of one dependent multiply-add, and the peak FLOP/s.

    python bench/deep.py                  all problems, 2 threads
    python bench/deep.py --layers 1e6     a tenth of the depth, for a quick look

Times are the best of the repeats, forward and backward apart; a training step is both. Softsign's chain of
dependent operations in one layer, forward and backward, takes about 12 such latencies: no order of work is faster.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from fastconv import config
from fastconv._ext import probe
from fastconv.functional.residual import (
    ResidualCore,
    backward_workspace,
    residual_backward,
    residual_forward,
    to_blocks,
)


def fma_latency() -> float:
    """Seconds of one multiply-add that waits for the one before."""
    best, rounds = np.inf, 1_000_000
    for _ in range(20):
        begin = time.perf_counter()
        probe.fma_latency(0, rounds)
        best = min(best, time.perf_counter() - begin)
    return best / rounds


def peak_flops(threads: int) -> float:
    best = 0.0
    for _ in range(30):
        begin = time.perf_counter()
        done = probe.fma_throughput(0, 100_000, threads)
        best = max(best, done / (time.perf_counter() - begin))
    return best


def bandwidth(threads: int) -> float:
    source, target = np.ones(1 << 27, np.uint8), np.ones(1 << 27, np.uint8)
    best = 0.0
    for _ in range(6):
        begin = time.perf_counter()
        done = probe.copy(source, target, threads)
        best = max(best, done / (time.perf_counter() - begin))
    return best


def step_seconds(core: ResidualCore, batch: int, threads: int, repeats: int) -> tuple[float, float]:
    """Best seconds of forward and backward of one training step in memory."""
    rng = np.random.default_rng(0)
    weights = np.zeros((core.layers, core.row), np.float32)
    weights[:, : core.width**2] = rng.random((core.layers, core.width**2), np.float32) * 2e-3 - 1e-3
    x = rng.standard_normal((batch, core.width)).astype(np.float32)
    chunk = core.chunk(batch)
    marks = np.empty((-(-core.layers // chunk), *to_blocks(x).shape), np.float32)
    room = backward_workspace(core, batch, chunk)
    forward = backward = np.inf
    with config.threads(threads):
        for _ in range(repeats):
            h, g = to_blocks(x), to_blocks(1e-3 * x, "zero")
            begin = time.perf_counter()
            residual_forward(core, weights, h, chunk=chunk, marks=marks)
            middle = time.perf_counter()
            residual_backward(core, weights, g, marks, 0.01, chunk=chunk, workspace=room)
            forward, backward = min(forward, middle - begin), min(backward, time.perf_counter() - middle)
    return forward, backward


def evaluation_seconds(core: ResidualCore, samples: int, threads: int, repeats: int) -> float:
    rng = np.random.default_rng(0)
    weights = rng.random((core.layers, core.row), np.float32) * 2e-3 - 1e-3
    h = to_blocks(rng.standard_normal((samples, core.width)).astype(np.float32))
    best = np.inf
    with config.threads(threads):
        for _ in range(repeats):
            begin = time.perf_counter()
            residual_forward(core, weights, h)
            best = min(best, time.perf_counter() - begin)
    return best


def stream_ratio(layers: int) -> tuple[float, float]:
    """Best step in memory and streamed from a file in the page cache, through fastconv.deep."""
    from fastconv.data import Dataset, Samples
    from fastconv.deep import Paths, Record, Training, create

    images = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8)).astype(np.uint8)
    samples = Samples(images, np.arange(64, dtype=np.int64) % 10)
    dataset = Dataset("noise", tuple("0123456789"), samples, samples)
    best = []
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths.of(Path(folder) / "net.bin")
        create(paths, Record(4, layers, layers**-0.5, "softsign", 64, 10, 0))
        for in_memory in (True, False):
            with Training(paths, dataset, in_memory=in_memory) as training:
                best.append(min(training.step().seconds for _ in range(6)))
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=float, default=1e7, help="depth at width 4 (default: %(default)g)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    layers, threads = int(args.layers), args.threads
    latency, peak, copied = fma_latency(), peak_flops(threads), bandwidth(threads)
    print(f"{config.isa()}, {threads} threads: dependent FMA {latency * 1e9:.2f} ns, "
          f"peak {peak / 1e9:.0f} GFLOP/s, copy {copied / 1e9:.1f} GB/s")  # fmt: skip
    figures: dict[str, float] = {"fma_latency": latency, "peak_flops": peak, "copy_bytes": copied}

    def tell(name: str, value: float, text: str, target: str) -> None:
        figures[name] = value
        print(f"{name:<44} {text:<44} {target}", flush=True)

    base = 0.0
    for name, activation, batch, n, goal in (
        ("width 4, softsign, batch 16", "softsign", 16, threads, 22),
        ("width 4, softsign, batch 16, 1 thread", "softsign", 16, 1, 32),
        ("width 4, tanh, batch 16", "tanh", 16, threads, 1.6),
        ("width 4, ReLU, batch 16", "relu", 16, threads, 1.0),
        ("width 4, softsign, batch 64", "softsign", 64, threads, 2.5),
    ):
        forward, backward = step_seconds(ResidualCore(4, layers, None, activation), batch, n, args.repeats)
        each = (forward + backward) / layers
        base = base or each
        relative = goal < 16
        tell(
            name,
            each,
            f"{each * 1e9:.1f} ns a layer ({forward / layers * 1e9:.1f} + {backward / layers * 1e9:.1f}), "
            + (f"{each / base:.2f} x softsign" if relative else f"{each / latency:.1f} latencies"),
            f"at most {goal}",
        )
    few = max(1, layers // 100)
    wide = ResidualCore(32, few)
    forward, backward = step_seconds(wide, 16, threads, args.repeats)
    share = 6 * 32 * 32 * 16 * few / (forward + backward) / peak
    tell("width 32, batch 16", share, f"{100 * share:.1f} % of peak (forward, two products back)", "at least 25 %")
    seconds = evaluation_seconds(ResidualCore(4, layers // 10), 10_000, threads, 2)
    rate = 10_000 * (layers // 10) / seconds
    tell("evaluation, 10,000 samples", rate, f"{rate:.3g} layer-samples/s", "at least 4e9")
    memory, streamed = stream_ratio(layers)
    tell("streamed step", streamed / memory, f"{streamed / memory:.2f} x in memory ({memory:.3g} s)", "at most 1.3")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
