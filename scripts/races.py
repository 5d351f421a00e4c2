#!/usr/bin/env python3
"""Looks for data races in the compiled loops and kernels with ThreadSanitizer, on one call after the other.

    FASTCONV_SANITIZE=thread python setup.py build_ext --inplace --force
    scripts/races.py --calls 3000 --seed 0

Needs GCC on Linux. Calls are those of scripts/fuzz_calls/, as they are drawn and not bent, on two to four threads
however small they are, on every instruction set; then nets are trained, with a residual core, with branches whose
results are joined and with normalisation by groups; a deep net in its file, in each way to train it; and one model is
called from several threads of Python at once. The loops are the package's own, over a stand-in for GCC's OpenMP library
that the sanitizer sees through (races_openmp.c).

What is proved: in the calls made, no two threads of a loop touch the same memory without one waiting for the other,
whatever the order in which they happened to run. What is not: calls that were not made, and code that is not the
package's (NumPy and the interpreter are not instrumented). Before anything else two planted races have to be found.
"""

import argparse
import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
RACE = 66  # the exit code of a process that had one
LIBRARY = "FASTCONV_RACES_LIBRARY"  # the stand-in, named to the processes that run on it


def in_threads(*bodies):
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- what runs under the sanitizer ------------------------------------------------------------------------


def planted_in_openmp(options):
    ctypes.CDLL(os.environ[LIBRARY]).races_control()


def planted_in_python(options):
    """Two calls that write one array."""
    from fastconv import functional

    x, out = np.ones(1 << 16, np.float32), np.empty(1 << 16, np.float32)
    in_threads(*[lambda: [functional.relu(x, out=out) for _ in range(20)]] * 2)


def drawn_calls(options):
    import fuzz_functional
    from fuzz_calls import DRAWS, Draw

    from fastconv import config

    functions = fuzz_functional.public()
    names = sorted(set(DRAWS) & set(functions))
    isas = config.available_isas()
    for number in range(options.calls):
        rng = np.random.default_rng([options.seed, number])
        name = names[number % len(names)]
        call = DRAWS[name](Draw(rng))
        positional, named = call.given(call.args)
        with config.isa(isas[number // len(names) % len(isas)]), config.threads(int(rng.integers(2, 5))):
            try:
                functions[name](*positional, **named)
            except (ValueError, TypeError):
                continue


def trained_nets(options):
    from fastconv import config, nn, optim
    from fastconv import functional as F

    class Joined(nn.Module):
        """Parts that are written where their concatenation lies, with and without gaps between the pixels."""

        def __init__(self, algorithm):
            self.one, self.three = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 9, 3, padding=1, algorithm=algorithm)
            self.pool, self.norm = nn.MaxPool2d(3, 1, 1), nn.GroupNorm(3, 6)

        def forward(self, x):
            return F.relu(F.cat((self.norm(self.one(x)), self.three(x), self.pool(x)), 1))

    rng = np.random.default_rng(options.seed)
    x, labels = rng.normal(size=(8, 3, 9, 9)).astype(np.float32), rng.integers(0, 3, 8)
    for isa in config.available_isas():
        for algorithm in ("direct", "winograd"):
            with config.isa(isa), config.threads(3):
                model = nn.Sequential(
                    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Joined(algorithm), nn.AvgPool2d(2),
                    nn.Conv2d(23, 4, 3), nn.LayerNorm((4, 2, 2)), nn.GELU(), nn.Dropout(0.25),
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.DeepResidual(4, 50), nn.Linear(4, 3),
                )  # fmt: skip
                loss, steps = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01)
                for _ in range(3):
                    loss(model(x), labels)
                    model.backward(loss.backward())
                    steps.step()
                model.predict(x[:2])


def deep_nets_in_files(options):
    """Windows of a mapped file: threads advise and map it, compute on it, and change it."""
    from fastconv import config, data, deep

    rng = np.random.default_rng(options.seed)
    images, labels = rng.integers(0, 256, (40, 1, 6, 6)).astype(np.uint8), rng.integers(0, 10, 40)
    dataset = data.Dataset("noise", tuple("0123456789"), data.Samples(images, labels), data.Samples(images, labels))
    ways = {"run": {}, "step": {"durability": "step"}, "memory": {"in_memory": True}, "short": {"chunk": 7}}
    with tempfile.TemporaryDirectory() as folder:
        for number, isa in enumerate(config.available_isas()):
            for name, way in ways.items():
                paths = deep.Paths.of(Path(folder, f"{number}-{name}.bin"))
                deep.create(paths, deep.Record(16, 3000, 0.02, "softsign", 36, 10, options.seed))
                with config.isa(isa), config.threads(3):
                    with deep.Training(paths, dataset, batch=16, window=1 << 20, **way) as training:
                        for _ in range(2):
                            training.step()
                        training.save()
                    deep.evaluate(paths, dataset.test, dataset.levels)


def one_model_in_threads(options):
    from fastconv import config, nn

    x = np.random.default_rng(options.seed).normal(size=(4, 3, 8, 8)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)).eval()
    with config.threads(2):
        in_threads(*[lambda: [model.predict(x) for _ in range(10)]] * 4)


PARTS = {part.__name__: part for part in (
    planted_in_openmp, planted_in_python, drawn_calls, trained_nets, deep_nets_in_files, one_model_in_threads,
)}  # fmt: skip


# --- the process above ------------------------------------------------------------------------------------


def tool(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def run(part, library, options):
    """Run one part under the sanitizer; return whether there was a race, and what was said."""
    environment = {
        **os.environ, LIBRARY: library, "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "4",
        "LD_PRELOAD": f"{tool('gcc', '-print-file-name=libtsan.so')} {library}",
        "TSAN_OPTIONS": f"exitcode={RACE} report_signal_unsafe=0 history_size=5",
    }  # fmt: skip
    words = ["setarch", platform.machine(), "-R", sys.executable, "-W", "ignore", __file__, "--part", part,
             "--calls", str(options.calls), "--seed", str(options.seed)]  # fmt: skip
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, RACE):
        sys.exit(f"{part}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done.returncode == RACE, done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="drawn calls, over all functions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        from fastconv._ext import runtime

        runtime.set_work_per_thread(0)
        PARTS[options.part](options)
        return
    runtime = next((HERE.parent / "src/fastconv/_ext").glob("runtime.*.so"), None)
    if runtime is None or b"__tsan_init" not in runtime.read_bytes():
        sys.exit("the extensions are not built with FASTCONV_SANITIZE=thread")
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/openmp.so"
        tool("gcc", "-shared", "-fPIC", "-g", "-O1", "-fsanitize=thread", str(HERE / "races_openmp.c"), "-o", library)
        bad = 0
        for part in PARTS:
            planted, (race, said) = part.startswith("planted"), run(part, library, options)
            bad += race != planted
            found = f"{said.count('WARNING: ThreadSanitizer')} reports of races" if race else "no race"
            verdict = "" if not planted else ", as planted" if race else ", but one was planted"
            print(f"{part}: {found}{verdict}", flush=True)
            if race and not planted:
                print(said[:20000])
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
