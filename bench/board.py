"""What `fastconv board` costs: made-up runs, its application asked as a server asks it, no network.

"the first answer" reads all runs; "nothing new" is what a page asks every two seconds while nothing happens; "one run
more" is after one run has gone on by an epoch, "ten runs more" after ten have; a detail is what a run's page is made
of. Seconds are the least of several, processor time of this process; bytes are as sent, compressed.

    python bench/board.py --runs 500
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from run_folders import add_epoch, write_many

from fastconv.viz.report.board import Board


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="of each run (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="watched steps of each run (default: %(default)s)")
    parser.add_argument("--times", type=int, default=7, help="of each request (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_many(root, args.runs, epochs=args.epochs, steps=args.steps)
        figures = measure(root, args.runs, args.epochs, args.times)
    print(f"{args.runs} runs of {args.epochs} epochs and {args.steps} watched steps")
    for name, (seconds, size) in figures.items():
        print(f"{name:<18} {1e3 * seconds:8.1f} ms  {size:9,} bytes")
    if args.json:
        args.json.write_text(json.dumps({"runs": args.runs, **figures}, indent=2))


def measure(root: Path, runs: int, epochs: int, times: int) -> dict[str, tuple[float, int]]:
    """Return the seconds and the bytes of each kind of answer."""
    app = Board(root, token="token", every=0)
    app.hosts = {"127.0.0.1:8000"}
    state = {"version": 0, "epoch": epochs}

    def news(expected: int | None) -> tuple[float, int]:
        app._next_look = 0.0  # as if the pause were over
        seconds, found, size = ask(app, "/token/runs", f"since={state['version']}")
        if expected is not None and len(found["runs"]) != expected:
            raise RuntimeError(f"{len(found['runs'])} runs instead of {expected}")
        state["version"] = found["version"]
        return seconds, size

    def grown(count: int) -> Callable[[], tuple[float, int]]:
        def once() -> tuple[float, int]:
            state["epoch"] += 1
            for i in range(count):
                add_epoch(root / f"trial-{i:03d}", state["epoch"])
            return news(count)

        return once

    first = news(runs)
    found = {"the first answer": first}
    kinds = {"nothing new": lambda: news(0), "one run more": grown(1), "ten runs more": grown(10)}
    for name, once in kinds.items():
        found[name] = min(once() for _ in range(times))
    detail = [ask(app, "/token/detail/1", "") for _ in range(times)]
    found["a detail"] = min((seconds, size) for seconds, _, size in detail)
    return found


def ask(app: Board, path: str, query: str) -> tuple[float, Any, int]:
    """Return the seconds, what the answer holds, and the bytes that are sent."""
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environ)
    environ |= {"HTTP_HOST": "127.0.0.1:8000", "HTTP_ACCEPT_ENCODING": "gzip"}
    head: dict[str, str] = {}
    started = time.process_time()
    body = b"".join(app(environ, lambda status, headers: head.update(headers)))
    seconds = time.process_time() - started
    text = gzip.decompress(body) if head.get("Content-Encoding") == "gzip" else body
    return seconds, json.loads(text), len(body)


if __name__ == "__main__":
    main()
