"""Settings of the process: the instruction set and the number of threads; neither changes a bit of a result.

Environment: ``FASTCONV_ISA`` forces a kernel table, ``FASTCONV_NUM_THREADS`` (else ``OMP_NUM_THREADS``) the
threads. Both are read once, when this module is imported.
"""

import os
import platform
import sys
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import numpy as np

from fastconv._version import __version__

_CGROUPS = "/sys/fs/cgroup"

# Idle OpenMP threads wait between two kernels either awake or asleep. Waking one takes longer than many a kernel of a
# small net: steps asleep took twice as long. Threads that stay awake for many milliseconds, as by default, take the
# cores that other programs want: steps took twenty times as long beside two of those. So they stay awake for part of a
# millisecond. The library reads its settings when it is loaded, which is here; the environment is left as it was, and a
# user's own setting wins.
_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}
_chosen = {} if {*_WAITING, "KMP_BLOCKTIME"} & os.environ.keys() else _WAITING
os.environ.update(_chosen)
try:
    import fastconv._ext.runtime as runtime
finally:
    for _name in _chosen:
        del os.environ[_name]

__all__ = ["algorithm", "available_isas", "info", "isa", "processor", "show_config", "threads"]


_algorithm: ContextVar[str] = ContextVar("algorithm", default="auto")


class _Setting(AbstractContextManager[str]):
    """What ``isa(...)`` and its kin return where they set: usable as a context that puts the old value back."""

    def __init__(self, now: str, restore: Any) -> None:
        self.now, self._restore = now, restore

    def __enter__(self) -> str:
        return self.now

    def __exit__(self, *exc: object) -> None:
        self._restore()

    def __repr__(self) -> str:
        return f"<fastconv setting: {self.now}>"


def available_isas() -> list[str]:
    """Return the names of the kernel tables that this machine can run, worst first.

    Examples
    --------
    >>> from fastconv import config
    >>> config.available_isas()[0]  # the table that every machine can run
    'scalar'
    >>> config.isa() in config.available_isas()
    True
    """
    return [name for name, supported in runtime.tables().items() if supported]


def isa(name: str | None = None) -> Any:
    """Return the active instruction set's name, or make another one active.

    Parameters
    ----------
    name : str, optional
        "scalar", "avx2", "avx512" or "neon", as far as this build and machine have them; "auto" is the best.

    Returns
    -------
    str or context manager
        Without ``name`` the active table's name; with it an object that may be used in a ``with`` statement to
        restore the former table on leaving.

    Raises
    ------
    ValueError
        If ``name`` is unknown, not in this build, or not supported by the processor or operating system.

    Examples
    --------
    >>> from fastconv import config
    >>> with config.isa("scalar"):
    ...     config.isa()
    'scalar'
    """
    if name is None:
        return runtime.active_table()
    before = runtime.active_table()
    _set_isa(name, "config.isa")
    return _Setting(runtime.active_table(), lambda: runtime.set_table(before))


def _set_isa(name: str, origin: str) -> None:
    if name == "auto":
        name = runtime.best_table()
    choices = available_isas()
    if name not in choices:
        known = runtime.tables()
        why = "is not supported by this processor or operating system" if name in known else "is unknown"
        raise ValueError(f"{origin}: instruction set {name!r} {why}; choose one of {', '.join(choices)}, auto")
    runtime.set_table(name)


def threads(n: int | None = None) -> Any:
    """Return the number of threads for large operations, or set it (1 <= n <= 1024).

    With ``n`` the returned object may be used in a ``with`` statement to restore the former number.

    Parameters
    ----------
    n : int, optional

    Raises
    ------
    ValueError
        If ``n`` is not an integer in [1, 1024].

    Examples
    --------
    >>> from fastconv import config
    >>> before = config.threads()
    >>> with config.threads(1):
    ...     config.threads()
    1
    >>> config.threads() == before
    True
    """
    if n is None:
        return runtime.threads()
    before = runtime.threads()
    _set_threads(n, "config.threads")
    return _Setting(str(n), lambda: runtime.set_threads(before))


def algorithm(name: str | None = None) -> Any:
    """Return the setting of the algorithm of two-dimensional convolutions, or set it.

    It holds where ``algorithm=`` is not given: for functions and layers alike, in this thread (or context of
    `contextvars`) alone; other threads begin with "auto". It decides bits, unlike the other settings.

    Parameters
    ----------
    name : str, optional
        "auto", the first of the algorithms that pays, by the shape and dtype alone (``docs/numerics.md``); "direct",
        one chain of fused multiply-adds an output.

    Returns
    -------
    str or context manager
        Without ``name`` the setting; with it an object that may be used in a ``with`` statement to restore the former
        one on leaving.

    Raises
    ------
    ValueError
        If ``name`` is neither. An algorithm that some shapes refuse is asked for where they are known, by
        ``algorithm=``.

    Examples
    --------
    >>> from fastconv import config
    >>> with config.algorithm("direct"):
    ...     config.algorithm()
    'direct'
    """
    before = _algorithm.get()
    if name is None:
        return before
    if not isinstance(name, str) or name not in ("auto", "direct"):
        why = "; a shape may refuse it: give it as algorithm= where it fits" if isinstance(name, str) and name else ""
        raise ValueError(f"config.algorithm: the setting must be 'auto' or 'direct', got {name!r}{why}")
    _algorithm.set(name)
    return _Setting(name, lambda: _algorithm.set(before))


def _set_threads(n: int, origin: str) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= 1024:
        raise ValueError(f"{origin}: the number of threads must be an integer in [1, 1024], got {n!r}")
    runtime.set_threads(int(n))


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _cgroup_quota() -> float | None:
    """Return the processor quota of this process's control group in cores, or None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    quotas = []
    try:
        for line in _text("/proc/self/cgroup").splitlines():
            _, controllers, group = line.split(":", 2)
            names = group.strip("/").split("/")
            if controllers == "":  # version 2: a quota of any ancestor counts too
                for level in range(len(names), -1, -1):
                    limit = os.path.join(_CGROUPS, *names[:level], "cpu.max")
                    if os.path.exists(limit):
                        quota, period = _text(limit).split()
                        if quota != "max":
                            quotas.append(int(quota) / int(period))
            elif "cpu" in controllers.split(","):
                folder = os.path.join(_CGROUPS, "cpu", *names)
                quota_us = int(_text(os.path.join(folder, "cpu.cfs_quota_us")))
                if quota_us > 0:
                    quotas.append(quota_us / int(_text(os.path.join(folder, "cpu.cfs_period_us"))))
    except (OSError, ValueError):
        return min(quotas, default=None)
    return min(quotas, default=None)


def _default_threads() -> tuple[int, str]:
    """Return the number of threads to use and why that many."""
    for variable in ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").strip()
        if not text:
            continue
        first = text.split(",")[0].strip()  # OMP_NUM_THREADS may list nested levels
        if first.isdecimal() and 1 <= int(first) <= 1024:
            return int(first), variable
        if variable == "FASTCONV_NUM_THREADS":
            raise ValueError(f"FASTCONV_NUM_THREADS must be an integer in [1, 1024], got {text!r}")
    counts = [(os.cpu_count() or 1, "core count")]
    if hasattr(os, "sched_getaffinity"):
        counts.append((len(os.sched_getaffinity(0)), "affinity mask"))
    quota = _cgroup_quota()
    if quota is not None:
        counts.append((max(1, int(quota + 0.5)), f"cgroup quota of {quota:g} cores"))
    if not runtime.build_info()["openmp"]:
        counts.append((1, "built without OpenMP"))
    return min(counts, key=lambda pair: pair[0])


def _openmp_runtime() -> str:
    """Return the file name of the OpenMP library in this process, or what stands in for it."""
    if not runtime.build_info()["openmp"]:
        return "none (built without OpenMP)"
    try:
        maps = _text("/proc/self/maps")
    except OSError:
        return f"specification {runtime.build_info()['openmp']}"
    files = {os.path.basename(line.split()[-1]) for line in maps.splitlines() if "omp" in line.rpartition("/")[2]}
    names = sorted(n for n in files if n.startswith(("libgomp", "libomp", "libiomp")))
    return ", ".join(names) or f"specification {runtime.build_info()['openmp']}"


def processor() -> str:
    """Return the processor's name as the operating system gives it.

    Examples
    --------
    >>> from fastconv import config
    >>> len(config.processor()) > 0  # "AMD EPYC 7B13 64-Core Processor", say
    True
    """
    try:
        lines = _text("/proc/cpuinfo").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, "") or platform.processor() or platform.machine()


def info() -> dict[str, Any]:
    """Return everything ``fastconv info`` prints, as a JSON-able dictionary.

    Examples
    --------
    >>> from fastconv import config
    >>> found = config.info()
    >>> found["isas"]["scalar"], found["isa"] == config.isa(), found["threads"] == config.threads()
    ('available', True, True)
    """
    build = runtime.build_info()
    return {
        "fastconv": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor_features": build["cpu_features"],
        "isa": isa(),
        "algorithm": algorithm(),
        "isas": {name: "available" if ok else "not supported here" for name, ok in runtime.tables().items()},
        "threads": threads(),
        "threads_because": _threads_because if threads() == _threads_at_import else "set by config.threads",
        "openmp": _openmp_runtime(),
        "compiler": build["compiler"],
        "flags": build["flags"],
        "tile_float32": runtime.tile(0),
        "tile_float64": runtime.tile(1),
    }


def show_config() -> None:
    """Print the settings and the build, one per line.

    Examples
    --------
    >>> from fastconv import config
    >>> config.show_config()  # doctest: +ELLIPSIS
    fastconv             ...
    isa                  ...
    threads              ...
    """
    for name, value in info().items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = " ".join(value)
        print(f"{name.replace('_', ' '):20} {value}")


_threads_at_import, _threads_because = _default_threads()
_set_threads(_threads_at_import, _threads_because)
if os.environ.get("FASTCONV_ISA", "").strip():
    _set_isa(os.environ["FASTCONV_ISA"].strip(), "FASTCONV_ISA")
