"""What all timing scripts share: options, the machine's peak, taking turns, and the table they print.

A comparison is fair by construction: both sides get the same threads and inputs, are warmed up, checked against
each other (a wrong result is not timed) and then run in turns A B A B, so that a change of clock hits both.
"""

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fastconv import config
from fastconv._ext import probe, runtime

CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
_clock = time.perf_counter


def arguments(
    description: str, *, peer: bool = True, both: bool = False, **extra: dict[str, Any]
) -> argparse.Namespace:
    """Parse the options every script takes, and apply the ISA and threads; some belong to scripts with a ``peer``.

    ``both``: the script can time two algorithms at once, by `with_direct`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", metavar="REGEX", help="only the problems whose name matches")
    parser.add_argument("--isa", default=config.isa(), help="kernel table (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=config.threads(), help="default: %(default)s")
    parser.add_argument(
        "--algorithm", choices=["auto", "direct", *(["both"] if both else [])], default=config.algorithm(),
        help="of convolutions that do not say theirs (default: %(default)s)"
        + ("; both: direct takes part in the same turns, in a column of its own" if both else ""),
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    if peer:
        parser.add_argument("--peer", choices=["torch", "none"], default="torch", help="default: %(default)s")
        parser.add_argument("--seconds", type=float, default=0.4, help="time for each side of a problem (%(default)s)")
        parser.add_argument(
            "--clock", choices=CLOCKS, default="wall",
            help="cpu: processor time of one thread, for busy machines; needs --threads 1 (default: %(default)s)",
        )  # fmt: skip
    for name, options in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    args = parser.parse_args()
    if peer:
        if args.clock == "cpu" and args.threads != 1:
            parser.error(f"--clock cpu needs --threads 1, got {args.threads}: it counts one thread")
        global _clock
        _clock = CLOCKS[args.clock]
    try:
        re.compile(args.match)
        config.isa(args.isa)
        config.threads(args.threads)
        config.algorithm("auto" if args.algorithm == "both" else args.algorithm)
    except (ValueError, re.error) as error:
        parser.error(str(error))
    return args


def load_peer(args: argparse.Namespace) -> Any:
    """Return the torch module with the same number of threads and instruction set, or None."""
    if args.peer == "none":
        return None
    if args.isa == "avx2":  # read when torch is imported
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    try:
        import torch
    except ImportError:
        sys.exit("no PyTorch here: pip install -r bench/requirements.txt, or --peer none")
    torch.set_num_threads(args.threads)
    return torch


@dataclass
class Peak:
    """The machine's limits, measured: GFLOP/s of independent FMAs in float32, GB/s of a large copy."""

    gflops: float
    gbytes: float

    @classmethod
    def measure(cls, threads: int) -> "Peak":
        gflops = max(_rate(lambda: probe.fma_throughput(0, 100_000, threads)) for _ in range(30))
        source, target = np.ones(1 << 27, np.uint8), np.ones(1 << 27, np.uint8)
        gbytes = max(_rate(lambda: probe.copy(source, target, threads)) for _ in range(6))
        return cls(gflops / 1e9, gbytes / 1e9)


def _rate(work: Callable[[], float]) -> float:
    runtime.threads_of(1e30)   # a look, as kernels have it: threads find processors of their own
    begin = _clock()
    amount = work()
    return amount / (_clock() - begin)


def header(args: argparse.Namespace, peak: Peak, torch: Any, peer: str | None = None) -> None:
    """Print what runs and on what."""
    peer = peer or (f"PyTorch {torch.__version__}" if torch else "no peer")
    ours = f"fastconv {config.info()['fastconv']} ({args.algorithm}) on {args.isa}, {args.threads} threads"
    print(f"{ours}, against {peer}")
    print(f"{config.processor()}; peak {peak.gflops:.0f} GFLOP/s (FMA loop), {peak.gbytes:.1f} GB/s (copy loop)\n")


def take_turns(sides: dict[str, Callable[[], Any]], seconds: float, at_least: int = 5) -> dict[str, list[float]]:
    """Run the sides in turns until each has had its seconds; return every run's time in seconds.

    A turn of a short problem is several runs in a row, so that switching sides does not dominate. Each turn waits
    until the other side's idle threads no longer spin, and starts with a run that is not timed, unless a run is so
    long that what the other left in caches does not count.
    """
    repeats = {}
    warm = {}
    for name, side in sides.items():
        side()
        side()
        begin = _clock()
        side()
        one = _clock() - begin
        repeats[name], warm[name] = max(1, int(20e-3 / max(one, 1e-7))), one < 0.25
    times: dict[str, list[float]] = {name: [] for name in sides}
    begin = time.perf_counter()
    rounds = 0
    while rounds < at_least or time.perf_counter() - begin < seconds * len(sides):
        for name, side in sides.items():
            _rest()
            if warm[name]:
                side()
            start = _clock()
            for _ in range(repeats[name]):
                side()
            times[name].append((_clock() - start) / repeats[name])
        rounds += 1
    return times


def _rest() -> None:
    """Wait until no thread of this process runs.

    Idle threads spin before they sleep, OpenMP's for 15 ms and ONNX Runtime's for 40, and each holds a processor
    that the other side's threads lack meanwhile.
    """
    for _ in range(100):
        before = time.process_time()
        time.sleep(10e-3)
        if time.process_time() - before < 1e-3:
            return
    sys.exit("a thread of this process ran for a second while nothing was timed: the other side cannot be timed fairly")


def with_direct(
    sides: dict[str, Callable[[], Any]], make: Callable[[], Callable[[], Any]], args: argparse.Namespace
) -> dict[str, Callable[[], Any]]:
    """Return the sides and, where both algorithms are asked for, ours once more under "direct"."""
    if args.algorithm != "both":
        return sides
    with config.algorithm("direct"):
        work = make()

    def direct() -> Any:
        with config.algorithm("direct"):
            return work()

    return {"ours": sides["ours"], "direct": direct, **sides}


@dataclass
class Row:
    """One line of a table: the medians in seconds, and what of the machine ours used."""

    name: str
    part: str
    ours: float
    spread: float
    peer: float | None
    ratio: float | None
    direct: float | None
    rate: float
    unit: str
    share: float

    def __str__(self) -> str:
        peer = "" if self.peer is None else f"{self.peer * 1e3:10.3f}"
        ratio = "" if self.ratio is None else f"{self.ratio:7.2f}"
        direct = "" if self.direct is None else f"{self.direct:7.2f}"
        return (
            f"{self.name:24} {self.part:11} {self.ours * 1e3:10.3f} {self.spread * 100:4.0f} % {peer:>10} {ratio:>7} "
            f"{direct:>7} {self.rate:8.1f} {self.unit} {self.share * 100:4.0f} %"
        )


TITLE = (
    f"{'problem':24} {'part':11} {'ours ms':>10} {'spread':>6} {'peer ms':>10} {'ratio':>7} {'direct':>7} "
    f"{'rate':>8} {'':7} {'peak':>6}"
)


@dataclass
class Table:
    """Collects rows, prints each as it comes, and the worst ratio and geometric mean of each part at the end."""

    args: argparse.Namespace
    peak: Peak
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, part: str, times: dict[str, list[float]], flops: float = 0, nbytes: float = 0) -> None:
        """Add a line; the peer is the best of all sides but "ours" and "direct", by its best median."""
        ours = statistics.median(times["ours"])
        spread = (max(times["ours"]) - min(times["ours"])) / ours if len(times["ours"]) < 20 else _iqr(times["ours"])
        peers = [statistics.median(t) for side, t in times.items() if side not in ("ours", "direct")]
        peer = min(peers, default=None)
        plain = peer / statistics.median(times["direct"]) if peer and "direct" in times else None
        if flops:
            rate, unit, limit = flops / ours / 1e9, "GFLOP/s", self.peak.gflops
        else:
            rate, unit, limit = nbytes / ours / 1e9, "GB/s   ", self.peak.gbytes
        if not self.rows:
            print(TITLE)
        ratio = peer / ours if peer else None
        self.rows.append(Row(name, part, ours, spread, peer, ratio, plain, rate, unit, rate / limit))
        print(self.rows[-1], flush=True)

    def close(self) -> None:
        """Print the summary and write the JSON."""
        summary = {}
        for part in dict.fromkeys(row.part for row in self.rows):
            rows = [row for row in self.rows if row.part == part and row.ratio]
            if not rows:
                continue
            worst = min(rows, key=lambda row: row.ratio)
            mean = statistics.geometric_mean(row.ratio for row in rows)
            summary[part] = {"worst": worst.ratio, "worst_name": worst.name, "geometric_mean": mean}
            plain = [row.direct for row in rows if row.direct]
            if plain:
                summary[part] |= {"direct_worst": min(plain), "direct_mean": statistics.geometric_mean(plain)}
            print(
                f"{part:11} worst ratio {worst.ratio:.2f} ({worst.name}), geometric mean {mean:.2f}"
                + (f"; direct: {min(plain):.2f}, {statistics.geometric_mean(plain):.2f}" if plain else "")
            )
        if self.args.json:
            report = {
                "peak": vars(self.peak),
                "cpu": config.processor(),
                "config": config.info(),
                "summary": summary,
                "rows": [vars(row) for row in self.rows],
            }
            self.args.json.write_text(json.dumps(report, indent=1) + "\n")
            print(f"wrote {self.args.json}")


def _iqr(values: list[float]) -> float:
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def selected(problems: Iterable[Any], args: argparse.Namespace) -> list[Any]:
    """Return the problems whose name matches; exit with their names when none does."""
    problems = list(problems)
    found = [p for p in problems if re.search(args.match, str(p))]
    if not found:
        sys.exit(f"no problem matches {args.match!r}; there are: {', '.join(map(str, problems))}")
    return found


def check_close(name: str, got: np.ndarray, want: np.ndarray, terms: int) -> None:
    """Exit unless the results agree as two float32 sums of ``terms`` terms must."""
    scale = float(np.abs(want).max(initial=1e-30))
    error = float(np.abs(got - want).max(initial=0.0))
    bound = 8 * np.finfo(np.float32).eps * max(terms, 16) ** 0.5 * 4 * scale
    if not error <= bound:
        sys.exit(f"{name}: results differ by {error:.3g}, more than {bound:.3g}: not timed")
