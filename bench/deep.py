"""Residual cores against their limits: the latency of one dependent multiply-add, and the peak FLOP/s.

    python bench/deep.py                  all problems
    python bench/deep.py --layers 1e6     a tenth of the depth, for a quick look

Times are the best of the repeats, forward and backward apart; a training step is both. Softsign's chain of
dependent operations in one layer, forward and backward, takes about 12 such latencies: no order of work is faster.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Peak, arguments, selected

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
    args = arguments(
        __doc__,
        peer=False,
        layers={"type": float, "default": 1e7, "help": "depth at width 4 (default: %(default)g)"},
        repeats={"type": int, "default": 5, "help": "of which the best counts (default: %(default)s)"},
    )
    if not (1 <= args.layers < np.inf and args.repeats >= 1):
        sys.exit(f"--layers and --repeats must be at least 1, got {args.layers:g} and {args.repeats}")
    layers, threads = int(args.layers), args.threads

    def step(activation: str, batch: int, n: int) -> tuple[float, str]:
        """Seconds a layer, and in words: forward and backward."""
        forward, backward = step_seconds(ResidualCore(4, layers, None, activation), batch, n, args.repeats)
        forward, backward = forward / layers, backward / layers
        each = forward + backward
        return each, f"{each * 1e9:.1f} ns a layer ({forward * 1e9:.1f} + {backward * 1e9:.1f})"

    def chain(n: int) -> tuple[float, str]:
        """A softsign step on n threads, in latencies."""
        each, text = step("softsign", 16, n)
        return each, f"{text}, {each / latency:.1f} latencies"

    def ratio(activation: str, batch: int) -> tuple[float, str]:
        """A step in relation to softsign at batch 16, measured beside it."""
        base, _ = step("softsign", 16, threads)
        each, text = step(activation, batch, threads)
        return each / base, f"{text}, {each / base:.2f} x softsign"

    def wide() -> tuple[float, str]:
        few = max(1, layers // 100)
        done = 6 * 32 * 32 * 16 * few
        share = done / sum(step_seconds(ResidualCore(32, few), 16, threads, args.repeats)) / peak.gflops / 1e9
        return share, f"{100 * share:.1f} % of peak (forward, two products back)"

    def evaluation() -> tuple[float, str]:
        some = max(1, layers // 10)
        rate = 10_000 * some / evaluation_seconds(ResidualCore(4, some), 10_000, threads, 2)
        return rate, f"{rate:.3g} layer-samples/s"

    def stream() -> tuple[float, str]:
        memory, streamed = stream_ratio(layers)
        return streamed / memory, f"{streamed / memory:.2f} x in memory ({memory:.3g} s)"

    problems: dict[str, tuple[Callable[[], tuple[float, str]], str]] = {
        "width 4, softsign, batch 16": (lambda: chain(threads), "at most 22"),
        "width 4, softsign, batch 16, 1 thread": (lambda: chain(1), "at most 32"),
        "width 4, tanh, batch 16": (lambda: ratio("tanh", 16), "at most 1.6"),
        "width 4, ReLU, batch 16": (lambda: ratio("relu", 16), "at most 1"),
        "width 4, softsign, batch 64": (lambda: ratio("softsign", 64), "at most 2.5"),
        "width 32, batch 16": (wide, "at least 25 %"),
        "evaluation, 10,000 samples": (evaluation, "at least 4e9"),
        "streamed step": (stream, "at most 1.3"),
    }
    chosen = selected(problems, args)
    latency, peak = fma_latency(), Peak.measure(threads)
    print(f"{config.isa()}, {threads} threads: dependent FMA {latency * 1e9:.2f} ns, "
          f"peak {peak.gflops:.0f} GFLOP/s, copy {peak.gbytes:.1f} GB/s", flush=True)  # fmt: skip
    figures = {"fma_latency": latency, "peak_flops": peak.gflops * 1e9, "copy_bytes": peak.gbytes * 1e9}
    for name in chosen:
        run, goal = problems[name]
        figures[name], text = run()
        print(f"{name:<44} {text:<44} {goal}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
