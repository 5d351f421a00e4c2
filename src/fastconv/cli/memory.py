"""The memory of ``fastconv deep``: what a run may take, and what it takes beside its weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fastconv.deep import Record

_SPARE = 8 << 20  # bytes that Python may take in a run beside what is counted


class Size(click.ParamType):
    """Bytes, with a suffix K, M, G (powers of 1024) if wished."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = value.upper().removesuffix("B").removesuffix("I")
        scale = {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
        try:
            size = int(float(text.rstrip("KMG")) * 2**scale)
        except (ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"{value!r} is no size; write 256M or 2G", param, ctx)
        return size


def check_place(in_memory: bool, durability: str, memory_limit: int | None, save_every: int | None) -> None:
    """Refuse options of streamed runs for one in memory, and the other way round."""
    streamed = {"--durability step": durability == "step", "--memory-limit": memory_limit is not None}
    for option, given in streamed.items():
        if in_memory and given:
            raise click.UsageError(f"{option} is for a net that is streamed from its file; --in-memory holds it all")
    if save_every is not None and not in_memory:
        raise click.UsageError("--save-every is for --in-memory: a streamed step is in the file when it has ended")


def within(limit: int | None, record: Record, batch: int, chunk: int | None, files: int) -> tuple[int, int]:
    """Return chunk and window with which a streamed step stays within ``--memory-limit``."""
    from fastconv.deep.net import fit

    base = _base_memory() + _SPARE + 4 * batch * record.inputs * 4  # some copies of a batch in float32
    limit = max(256 << 20, base + (64 << 20)) if limit is None else limit
    plan = fit(record.core, batch, limit - base, chunk=chunk, files=files)
    if base + plan.nbytes > limit:
        least = -(-(base + plan.nbytes) // 2**20)
        asked = limit if limit < 2**20 else f"{limit / 2**20:g}M"
        raise ValueError(
            f"--memory-limit {asked}: the program and its images take {base / 2**20:.1f}M, a step on "
            f"batch {batch} {plan.nbytes / 2**20:.1f}M at least; allow {least}M, or take a smaller --batch"
        )
    return plan.chunk, plan.window


def _base_memory() -> int:
    """What is resident before the weights: interpreter, libraries, images."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 128 << 20
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_rss() -> int | None:
    """Return this process's highest resident memory in bytes, or None where the system does not tell."""
    try:
        # not ru_maxrss, which on Linux starts from that of the process that forked this one
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
