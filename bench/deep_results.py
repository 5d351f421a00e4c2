"""The results of the earlier program on MNIST, made again: each row is a few commands of ``fastconv``.

    FASTCONV_DATA=... python bench/deep_results.py [--only REGEX] [--json FILE]

``hundred`` trains 100 layers for 2000 steps at batch 16 and both rates 0.1, the same for the three activations.
``million`` (a convolutional stem before a million layers) is Python, not a command: see ``million`` below.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def fastconv(*words: Any, folder: str) -> dict[str, Any]:
    """Run one command with --json and return what it prints last."""
    command = [sys.executable, "-m", "fastconv", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def deep(folder: str, limit: int | None, **options: Any) -> dict[str, Any]:
    words = [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", value)]
    trained = fastconv("deep", "train", "--in-memory", "--report-every", 50, *words, folder=folder)
    tested = fastconv("deep", "eval", *(["--limit", limit] if limit else []), folder=folder)
    return {**tested, "step_seconds": trained["step_seconds"]}


def mlp(folder: str) -> dict[str, Any]:
    fastconv("mlp", "train", "--steps", 1000, "--lr", 0.05, folder=folder)
    trained = fastconv("mlp", "train", "--steps", 4000, "--lr", 0.03, folder=folder)
    return {**fastconv("mlp", "eval", folder=folder), "step_seconds": trained["step_seconds"]}


def million(folder: str, layers: int = 1_000_000, warm: int = 2000, steps: int = 100) -> dict[str, Any]:
    """A stem of two convolutions, first on its own, then with a million layers of width 16 behind it.

    Fresh layers change the state by a thousandth, so that they can be put in where the stem has learned already.
    """
    import time

    import numpy as np

    from fastconv import data, functional, manual_seed, nn, optim

    manual_seed(0)
    images = data.load("mnist")
    stem = [
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(784, 16), nn.Tanh(),
    ]  # fmt: skip
    head = nn.Linear(16, 10)
    loss, batches = nn.CrossEntropyLoss(), data.Batches(*images.train, 64, drop_last=True)
    done, seconds = 0, 0.0
    for count, middle in ((warm, []), (steps, [nn.DeepResidual(16, layers, lr=0.02)])):
        model = nn.Sequential(*stem, *middle, head, input_grad=False)
        # the layers take their own steps within backward
        adam = optim.Adam([*nn.Sequential(*stem).parameters(), *head.parameters()], lr=5e-4 if middle else 2e-3)
        start = time.perf_counter()
        for _ in range(count):
            x, labels = batches.batch(*divmod(done, len(batches)))
            loss(model(x / np.float32(255)), labels)
            model.zero_grad()
            model.backward(loss.backward())
            adam.step()
            done += 1
        seconds = (time.perf_counter() - start) / max(1, count)
    output = model.predict(images.test.images.astype(np.float32) / np.float32(255), batch_size=1000)
    return {
        "test_loss": functional.cross_entropy(output, images.test.labels),
        "test_accuracy": float((output.argmax(axis=1) == images.test.labels).mean()),
        "step_seconds": seconds,
    }


HUNDRED = {"layers": 100, "width": 4, "steps": 2000, "batch": 16, "layer_lr": 0.1, "head_lr": 0.1}
# name: the earlier program's test loss and accuracy, and how to make ours
RESULTS = {
    "hundred tanh": (0.963, 0.704, lambda f: deep(f, None, activation="tanh", **HUNDRED)),
    "hundred softsign": (1.007, 0.694, lambda f: deep(f, None, activation="softsign", **HUNDRED)),
    "hundred relu": (1.189, 0.651, lambda f: deep(f, None, activation="relu", **HUNDRED)),
    "ten thousand of width 32": (
        0.745, 0.765,
        lambda f: deep(f, 1000, layers=10_000, width=32, steps=1200, batch=1, layer_lr=0.01, head_lr=0.01),
    ),
    "ten million of width 4": (
        0.965, 0.701,
        lambda f: deep(f, None, layers=10_000_000, width=4, steps=1000, batch=16, layer_lr=0.01, head_lr=0.01),
    ),
    "mlp": (0.174, 0.951, mlp),
    "stem and a million of width 16": (None, None, million),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows = {}
    for name, (loss, accuracy, make) in RESULTS.items():
        if not re.search(args.only, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = found = make(folder)
        earlier = f"earlier {loss} / {accuracy}" if loss else ""
        print(
            f"{name:<32} loss {found['test_loss']:.3f}  accuracy {found['test_accuracy']:.4f}  "
            f"{found['step_seconds']:.3g} s a step  {earlier}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
