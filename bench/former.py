"""Time whole steps and inference of the nets of steps.py with this build and with another one, in turns.

    python bench/former.py ../former/src

Each build runs in a process of its own, on one thread, with the same nets and inputs; both are asked in turns A B B A
for processor time, and the least of all rounds is told, which neither the clock nor neighbours can make smaller. Before
a problem is timed, both results are compared: where their bits differ, the line says so. Peak memory of
allocations by NumPy is measured beside, in one run more, and the time from a process's start until the import is done.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
PARTS = ("step", "inference", "batch 1")


class Build:
    """A process that runs what it is asked with one build's package."""

    def __init__(self, source: Path, bytecode: Path) -> None:
        self.source, self.bytecode = source, bytecode
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], env=self.environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.source), "FASTCONV_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.bytecode)}
        return os.environ | own | kept

    def ask(self, *words: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(words), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"the process of {self.source} ended: {self.process.wait()}")
        return json.loads(answer)

    def import_time(self, code: str) -> float:
        """Return the processor time of a fresh process that runs this, in seconds."""

        def used() -> float:
            total = resource.getrusage(resource.RUSAGE_CHILDREN)
            return total.ru_utime + total.ru_stime

        before = used()
        subprocess.run([sys.executable, "-c", code], check=True, env=self.environment())
        return used() - before


def serve() -> None:
    """Answer, line by line, on standard output: a problem is made, timed, or measured for memory."""
    sys.path.insert(0, str(HERE))
    import tracemalloc

    import numpy as np
    from nets import NETS, inference, train_step

    side: Any = None
    for line in sys.stdin:
        match json.loads(line):
            case ["nets"]:
                answer: Any = [(str(net), net.name) for net in NETS]
            case ["make", name, part]:
                net = next(net for net in NETS if net.name == name)
                x, y = net.data(1 if part == "batch 1" else net.batch)
                model = net.build()
                side = train_step(model, x, y) if part == "step" else inference(model, x)
                first = side() if part != "step" else [side() for _ in range(3)]
                answer = hashlib.sha256(np.ascontiguousarray(first).tobytes()).hexdigest()
            case ["time", repeats]:
                start = time.process_time()
                for _ in range(repeats):
                    side()
                answer = (time.process_time() - start) / repeats
            case ["memory", name, part]:
                tracemalloc.start()
                net = next(net for net in NETS if net.name == name)
                x, y = net.data(1 if part == "batch 1" else net.batch)
                model, before = net.build(), tracemalloc.get_traced_memory()[0]
                side = train_step(model, x, y) if part == "step" else inference(model, x)
                side()
                side()
                answer = tracemalloc.get_traced_memory()[1] - before
                tracemalloc.stop()
        print(json.dumps(answer), flush=True)


def contest(builds: list[Build], name: str, part: str, rounds: int) -> tuple[list[float], bool]:
    """Return each build's least seconds of a call, and whether their results are the same bits."""
    same = len({build.ask("make", name, part) for build in builds}) == 1
    repeats = max(1, int(0.02 / max(max(build.ask("time", 2) for build in builds), 1e-7)))
    least = [float("inf")] * len(builds)
    for at in range(rounds):
        order = range(len(builds)) if at % 2 else reversed(range(len(builds)))
        for i in order:
            least[i] = min(least[i], builds[i].ask("time", repeats))
    return least, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("former", type=Path, help="the other build's folder of packages, its src")
    parser.add_argument("--match", default="", metavar="REGEX", help="only the problems whose name matches")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each (default: %(default)s)")
    args = parser.parse_args()
    with TemporaryDirectory() as bytecode:
        compare([Build(args.former.resolve(), Path(bytecode)), Build(HERE.parent / "src", Path(bytecode))], args)


def compare(builds: list[Build], args: argparse.Namespace) -> None:
    """Print a line for each problem that matches."""
    for code in ("import fastconv", "import fastconv.nn"):
        if re.search(args.match, f"{code} start"):
            pairs = [[build.import_time(code) for build in builds] for _ in range(args.rounds)]
            line(code, "start", [min(times) for times in zip(*pairs[1:], strict=True)], 1e3, "ms")
    for title, name in builds[0].ask("nets"):
        for part in PARTS:
            if re.search(args.match, f"{title} {part}"):
                times, same = contest(builds, name, part, args.rounds)
                line(title, part, times, 1e3, "ms", "" if same else "  other bits")
        for part in PARTS[:2]:
            if re.search(args.match, f"{title} {part}, peak"):
                line(title, f"{part}, peak", [build.ask("memory", name, part) for build in builds], 1e-6, "MB")


def line(name: str, part: str, figures: list[float], scale: float, unit: str, note: str = "") -> None:
    former, ours = figures
    print(
        f"{name:20} {part:16} {former * scale:10.3f} {ours * scale:10.3f} {unit} {100 * (ours / former - 1):+6.1f} %"
        f"{note}",
        flush=True,
    )


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main()
