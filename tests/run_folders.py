"""Run folders made up for tests and benches of what reads them: no training, the same files each time."""

import base64
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import nn, serialize

KINDS = ("learning", "too slow", "exploded", "overfitting")
NAMES = ("0.weight", "0.bias", "3.weight", "3.bias", "7.weight", "7.bias")
MODULES = ("1", "4", "6")

HOSTILE = "<script>alert(1)<\\script><img src=x onerror=alert(2)>"


def write_run(folder: Path, kind: str = "learning", *, seed: int = 0, epochs: int = 12, steps: int = 0, **options: Any):
    """Write the folder of a run whose curves have the symptoms of ``kind``; return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    options = {"dataset": "digits", "model": "digits", "epochs": epochs, "lr": 0.05, "l2": 0.0, "seed": seed} | options
    classes = [str(digit) for digit in range(10)]
    write(folder / "config.json", {"fastconv": "0", "options": options, "input_shape": [1, 8, 8], "classes": classes})
    write(folder / "env.json", {"started": f"2026-01-{1 + seed % 28:02d}T10:00:00+00:00", "threads": 2})
    records = [epoch_record(kind, epoch, epochs, rng) for epoch in range(1, epochs + 1)]
    if kind == "exploded":
        records = records[:3]
        records[-1]["loss"] = None
    lines = [step_record(kind, step, steps, rng) for step in range(1, steps + 1)] + records
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    result = {"status": "diverged" if kind == "exploded" else "finished", "steps": 10 * epochs}
    if kind == "exploded":
        result["reason"] = "the loss is nan after 27 updates, in epoch 3 (learning rate 50)"
    else:
        result["test_accuracy"] = records[-1]["validation_accuracy"] - 0.01
    write(folder / "result.json", result)
    return folder


def add_epoch(folder: Path, epoch: int) -> None:
    """Write the record of one more epoch of a run."""
    with (folder / "metrics.jsonl").open("a") as file:
        print(json.dumps(epoch_record("learning", epoch, 40, np.random.default_rng(epoch))), file=file)


def add_model(folder: Path, seed: int = 0) -> None:
    """Give a run a small model with filters to look at."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    for param in model.parameters():
        param.data[...] = rng.normal(size=param.data.shape)
    serialize.save(model, folder / "model.safetensors")


def write_many(root: Path, count: int, *, epochs: int = 30, steps: int = 0) -> None:
    """Write runs of all kinds, their rates and penalties drawn as a search draws them."""
    rng = np.random.default_rng(1)
    for i in range(count):
        rate, penalty = 10 ** rng.uniform(-6, 1), 10 ** rng.uniform(-5, 2)
        kind = KINDS[1] if rate < 1e-4 else KINDS[2] if rate > 1 else KINDS[3] if i % 5 == 0 else KINDS[0]
        options = {"lr": float(f"{rate:.3g}"), "l2": float(f"{penalty:.3g}")}
        write_run(root / f"trial-{i:03d}", kind, seed=i, epochs=epochs, steps=steps, **options)


def write_odd(root: Path) -> Path:
    """Write runs of every health, one of a hostile name, one damaged, one that has only begun: twelve."""
    for i, kind in enumerate(KINDS * 2):
        rate, penalty = 10.0 ** (i - 5), (0.0, 1e-4, 1e-2)[i % 3]
        folder = write_run(root / f"{kind}-{i}", kind, seed=i, steps=20, lr=rate, l2=penalty)
        if kind != "exploded":
            add_model(folder, i)
    write_run(root / HOSTILE, seed=50, model="</script><script>alert(3)</script>", lr=7.0)
    write_run(root / "deeper" / "__proto__", seed=51)
    write_run(root / "going-on", seed=52, epochs=1)
    (root / "going-on" / "result.json").unlink()
    (root / "going-on" / "metrics.jsonl").write_text("")
    (write_run(root / "broken") / "config.json").write_text("{nope")
    return root


def block_of(page: Path, name: str) -> str:
    """Return the text of a block of a report page."""
    pattern = rf'<script type="([a-z/]+)" id="{name}">(.*?)</script>'
    kind, text = re.search(pattern, page.read_text("utf-8"), re.S).groups()
    return text if kind == "application/json" else zlib.decompress(base64.b64decode(text)).decode("utf-8")


def told(page: Path, name: str = "page") -> Any:
    """Return what a block of data of a report page holds."""
    return json.loads(block_of(page, name))


def write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value), "utf-8")


def epoch_record(kind: str, epoch: int, epochs: int, rng: np.random.Generator) -> dict[str, Any]:
    speed, noise = rng.uniform(2, 6), rng.normal(0, 0.02, 2)
    at = epoch / epochs
    loss = 2.3 * math.exp(-speed * at) + 0.05 + 0.05 * noise[0]
    validation, accuracy = loss * (1.1 + noise[1]) + 0.02, 0.98 - 0.88 * math.exp(-speed * at) + 0.2 * noise[0]
    unseen = accuracy - 0.02 + 0.2 * noise[1]
    if kind == "too slow":
        loss, validation, accuracy, unseen = 2.3 - 0.01 * at, 2.302 - 0.008 * at, 0.12, 0.11 + noise[1]
    if kind == "exploded":
        loss, validation, accuracy, unseen = 2.3 * 4**epoch, 2.4 * 4**epoch, 0.1, 0.1
    if kind == "overfitting":
        validation, unseen = validation + 1.6 * at**2, unseen - 0.25 * at
    return {
        "kind": "epoch", "epoch": epoch, "steps": 10 * epoch, "lr": 0.05 * (1 - at) + 1e-4, "loss": loss,
        "accuracy": min(accuracy, 1.0), "penalty": 0.0, "validation_loss": validation,
        "validation_accuracy": min(max(unseen, 0.0), 1.0), "seconds": 0.5, "step_ms": 3.2, "images_per_second": 2000.0,
    }  # fmt: skip


def step_record(kind: str, step: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    scale = {"too slow": 1e-6, "exploded": 1.0}.get(kind, 1e-3)
    draw = {name: float(np.exp(rng.normal(0, 0.3))) for name in (*NAMES, *MODULES)}
    return {
        "kind": "step", "step": step, "loss": 2.3 * math.exp(-3 * step / steps) + 0.1 * draw["1"], "lr": 0.05,
        "update_ratio": {name: scale * draw[name] for name in NAMES},
        "grad_norm": {name: 3 * draw[name] * math.exp(-step / steps) for name in NAMES},
        "activations": {
            name: {"layer": "ReLU", "mean": 0.4 * draw[name], "std": 0.6 * draw[name], "zeros": 0.5, "saturated": 0.0,
                   "dead": min(1.0, 0.02 * draw[name])}
            for name in MODULES
        },
    }  # fmt: skip
