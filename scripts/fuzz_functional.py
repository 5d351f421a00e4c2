#!/usr/bin/env python3
"""Draws calls of every public function of fastconv.functional, most of them odd, and checks what comes back.

    scripts/fuzz_functional.py --calls 100000        scripts/fuzz_functional.py --seconds 90 --seed 7
    scripts/fuzz_functional.py --seed 7 --only 1234  (one call again, shown)

A call is drawn right: small shapes, small whole numbers, so that sums are exact. Then it is bent, by one or more of:
the layout of an array (reversed, with gaps, misaligned, read-only, foreign byte order), its dtype, its shape (empty, a
dimension more or less, huge over one number's memory), its class, an output that lies over another array, numbers
without end in the place of sizes and settings, things that are no argument at all. What may come back is

- what the slow twin in tests/reference.py says of the arguments as they were, in the result and in every array that is
  written, while every other array stays as it was;
- or TypeError, ValueError or MemoryError, with a message that names the function called (or the one whose arguments a
  backward call repeats), and all arrays as they were.

Anything else is a failure, and so are a signal and a call that computes for 30 seconds: calls run in a child process
that writes down which one it is at. A public function without a draw in scripts/fuzz_calls/ is a failure too. For
memory errors that no check sees, build with FASTCONV_SANITIZE=address,undefined (CONTRIBUTING.md has the environment).
"""

import argparse
import collections
import contextlib
import importlib
import inspect
import mmap
import os
import pkgutil
import signal
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from fuzz_calls import DRAWS, Draw, Unchecked  # noqa: E402

import fastconv.functional  # noqa: E402
from fastconv import config  # noqa: E402
from fastconv._ext import runtime  # noqa: E402

SECONDS_A_CALL = 300 if "ASAN_OPTIONS" in os.environ else 30
MEMORY = 3 << 30
LARGEST = 1 << 22  # numbers of an array that a twin takes or a result is compared in
HUGE = (2**15, 2**20 + 1, 2**31 - 1, 2**31, 2**32 + 1, 2**45, 2**61, 2**62 - 1, 2**63 - 1, 2**63, 2**64, 10**400, -1,
        0, -(2**31), -(2**63), -(2**64))  # fmt: skip
FOREIGN = (None, "3", b"x", 1.5, float("nan"), float("inf"), 2j, [1, 2], (1, 2, 3), {}, {1: 2}, object(), True, (),
           [[]], np.float32(2), np.int64(2), np.array(2.0, np.float32))  # fmt: skip


def public():
    """Find every public function of the package, wherever in it it is defined."""
    package, found = fastconv.functional, {}
    modules = [package]
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            modules.append(importlib.import_module(f"{package.__name__}.{info.name}"))
    for module in modules:
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            value = getattr(module, name)
            if inspect.isfunction(value) and (module is package or value.__module__ == module.__name__):
                found[name] = value
    return found


# --- bending a call ---------------------------------------------------------------------------------------


def is_array(a):
    return isinstance(a, np.ndarray)


def small(a):
    """Whether an array may be copied, and copied bit by bit."""
    return is_array(a) and max((a.size, *a.shape)) < 2**16 and not a.dtype.hasobject


def flushed(a):
    """The same array with zeros for denormal numbers, as kernels see it; bytes laid over others may hold some."""
    if not is_array(a) or a.dtype.kind != "f" or not small(a):
        return a
    tiny = abs(a) < np.finfo(a.dtype).tiny
    return np.where(tiny, a.dtype.type(0), a).astype(a.dtype) if (tiny & (a != 0)).any() else a


def relaid(rng, a):
    """The same numbers, lying otherwise."""
    kind = rng.integers(8)
    if kind == 0:
        return np.array(a, order="C")
    if kind == 1:
        return np.array(a, order="F")
    if kind == 2:
        return a[tuple(slice(None, None, -1) for _ in a.shape)].copy()[tuple(slice(None, None, -1) for _ in a.shape)]
    if kind == 3 and a.ndim:
        wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1] + 1), a.dtype)
        wide[..., 1::2] = a
        return wide[..., 1::2]
    if kind == 4:
        b = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        b[...] = a
        return b
    if kind == 5:
        b = a.copy("K")
        b.flags.writeable = False
        return b
    if kind == 6:
        return a.astype(a.dtype.newbyteorder(">"))
    return a.copy("K")


def reshaped(rng, a):
    kind = rng.integers(8)
    axis = rng.integers(a.ndim) if a.ndim else 0
    if kind == 0:
        return a[None]
    if kind == 1 and a.ndim:
        return a[0] if a.shape[0] else a[..., None]
    if kind == 2 and a.ndim:
        return np.take(a, range(0), axis)
    if kind == 3 and a.ndim:
        return np.concatenate([a, a], axis)
    if kind == 4 and a.ndim:
        return np.take(a, range(max(a.shape[axis] - 1, 0)), axis)
    if kind == 5 and a.ndim:  # huge, over the memory of one number
        shape = list(a.shape)
        shape[axis] = int(rng.choice([2**16, 2**31, 2**33, 2**40]))
        try:
            return np.broadcast_to(np.ones((), a.dtype), shape)
        except ValueError:
            return a
    if kind == 6:
        return a.T
    return np.broadcast_to(a[:1], a.shape) if a.ndim and a.shape[0] else a  # rows that are one row


def recast(rng, a):
    kind = rng.integers(8)
    if kind == 0:
        return np.ma.masked_array(a, mask=rng.random(a.shape) < 0.5)
    if kind == 1:
        return (a.reshape(len(a), -1) if a.ndim and a.size else np.zeros((1, 1), a.dtype)).view(np.matrix)
    if kind == 2:
        return a.tolist()
    dtypes = (np.float32, np.float64, np.int32, np.int64, np.uint8, np.complex64, np.float16, bool, object, "U3")
    with np.errstate(all="ignore"):
        dtype = dtypes[rng.integers(len(dtypes))]
        return a if a.dtype.kind == "U" else a.astype(dtype)


def laid_over(rng, a, b):
    """Copies of a and b in one piece of memory, dense as they are, at a distance of whole elements."""
    if not (a.size and b.size):
        return a, b
    room = a.nbytes + b.nbytes
    memory = np.zeros(3 * room + 64, np.uint8)
    item = a.itemsize
    shift = int(rng.choice([0, item, -item, int(rng.integers(-a.nbytes, b.nbytes + 1)) // item * item]))
    placed = []
    for source, at in ((b, room - room % 8), (a, room - room % 8 + shift)):
        order = np.argsort([-abs(s) for s in source.strides], kind="stable")
        block = source.transpose(order)
        view = memory[at : at + source.nbytes].view(source.dtype).reshape(block.shape)
        view[...] = block
        placed.append(view.transpose(np.argsort(order)))
    return placed[1], placed[0]


def bent_number(rng, value):
    odd = HUGE[rng.integers(len(HUGE))]
    if isinstance(value, tuple) and value and rng.random() < 0.7:
        at = rng.integers(len(value))
        return (*value[:at], odd, *value[at + 1 :])
    return odd if rng.random() < 0.7 else (odd, 1)


def bend(rng, args, written):
    """Change some of the arguments; whatever it does, the twin sees the same.

    Of two huge sizes that go together there is the first: a million windows of 65,536 pixels are no fault, but an hour.
    """
    while args and rng.random() < 0.6:
        before = dict(args)
        with contextlib.suppress(ValueError, TypeError, IndexError, MemoryError):  # some classes can hold few shapes
            bend_one(rng, args, written)
        if sum(map(huge, args.values())) > max(1, sum(map(huge, before.values()))):
            args |= before


def huge(value):
    """Return whether this is a size, or has one, with which a call could be taken and would be long."""
    sizes = value.shape if is_array(value) else value if isinstance(value, tuple) else (value,)
    return any(isinstance(size, int) and 2**15 <= size < 2**33 for size in sizes)


def bend_one(rng, args, written):
    kind = rng.random()
    # a matrix is bent no further: NumPy itself dies of one that has three axes
    arrays = [k for k, v in args.items() if small(v) and not isinstance(v, np.matrix)]
    if kind < 0.50 and not arrays:
        return
    if kind < 0.35:
        name = arrays[rng.integers(len(arrays))]
        args[name] = relaid(rng, args[name])
    elif kind < 0.50 and written:
        out, other = written[rng.integers(len(written))], arrays[rng.integers(len(arrays))]
        if out != other and small(args.get(out)) and not isinstance(args[out], np.matrix):
            args[out], args[other] = laid_over(rng, args[out], args[other])
    elif kind < 0.66 and arrays:
        name = arrays[rng.integers(len(arrays))]
        args[name] = (reshaped if kind < 0.58 else recast)(rng, args[name])
    elif kind < 0.90:
        numbers = [k for k, v in args.items() if isinstance(v, int | float | tuple) and not isinstance(v, bool)]
        if numbers:
            name = numbers[rng.integers(len(numbers))]
            args[name] = bent_number(rng, args[name])
    else:
        name = list(args)[rng.integers(len(args))]
        args[name] = FOREIGN[rng.integers(len(FOREIGN))]


# --- judging what comes back ------------------------------------------------------------------------------


class Wrong(Exception):
    """What a call did that it may not do."""


def snapshot(a):
    return np.asarray(a).tobytes() if small(a) else None


def plain(a):
    """A copy that the twin may read: native, C order, no view of anything."""
    return np.array(a, dtype=a.dtype.newbyteorder("=")) if is_array(a) and a.size < LARGEST else a


def compare(what, got, want, eps, tiny, ulps, magnitude):
    if want is None or got is None:
        if want is not got:
            raise Wrong(f"{what} is {got!r:.60}, the twin says {want!r:.60}")
        return
    got64, want64 = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got64.shape != want64.shape:
        raise Wrong(f"{what} has shape {got64.shape}, the twin says {want64.shape}")
    finite = np.isfinite(want64)
    scale = max(1.0, magnitude, float(np.abs(want64[finite]).max(initial=0)))
    with np.errstate(all="ignore"):
        close = abs(got64 - want64) <= ulps * eps * scale + 1024 * tiny
        right = (got64 == want64) | (np.isnan(got64) & np.isnan(want64)) | close
    if not right.all():
        at = np.argwhere(~right)[0] if right.ndim else ()
        raise Wrong(f"{what}{list(map(int, at))} is {got64[tuple(at)]!r}, the twin says {want64[tuple(at)]!r}")


def judge(name, function, call, error_prefixes):
    """Run one call; return the name of the error it ended in, or "right"."""
    args = call.args
    before = {k: snapshot(v) for k, v in args.items()}
    seen = {k: plain(v) for k, v in args.items()}
    try:
        positional, named = call.given(args)
        with np.errstate(all="ignore"):
            result = function(*positional, **named)
    except (TypeError, ValueError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and not text.startswith(error_prefixes):
            raise Wrong(f"the message does not name the function: {type(error).__name__}: {text:.200}") from error
        for k, v in args.items():
            if before[k] is not None and before[k] != snapshot(v):
                raise Wrong(f"refused ({text:.80}), but {k} was written") from error
        return type(error).__name__
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error!s:.200}") from error
    results = result if isinstance(result, tuple) else (result,)
    if call.twin is None or any(is_array(r) and r.size > LARGEST for r in results):
        return "right"
    with np.errstate(all="ignore"):
        try:
            want, contents = call.twin({k: flushed(v) for k, v in seen.items()})
        except (Unchecked, MemoryError):
            return "right"
        except Exception as error:
            raise Wrong(f"it was taken, but the twin cannot do it: {type(error).__name__}: {error!s:.200}") from error
    floats = [a for a in seen.values() if is_array(a) and a.dtype.kind == "f"]
    kinds = [np.finfo(a.dtype) for a in floats] or [np.finfo(np.float64)]
    eps, tiny = (max(float(getattr(kind, name)) for kind in kinds) for name in ("eps", "tiny"))
    values = np.concatenate([abs(a[np.isfinite(a)].astype(np.float64)).reshape(-1) for a in floats if small(a)] or [[]])
    magnitude = float(values.max(initial=0))
    ulps = call.ulps
    if magnitude > 1e6 or ((values > 0) & (values < 1e-6)).any():  # remains of arrays that lay over each other
        ulps = max(ulps, 64.0)
    if magnitude > 1e12:
        return "right"
    tolerance = eps, tiny, ulps, magnitude
    wanted = want if isinstance(want, tuple) else (want,)
    if len(results) != len(wanted):
        raise Wrong(f"{len(results)} results, the twin says {len(wanted)}")
    written = set(contents)
    try:
        for i, (got, expected) in enumerate(zip(results, wanted, strict=True)):
            compare(f"result {i}", got, expected, *tolerance)
        for k, expected in contents.items():
            if is_array(args[k]) and expected is not ...:
                compare(k, args[k], expected, *tolerance)
    except MemoryError:  # of the comparison, under the script's own limit
        return "MemoryError"
    shared = [args[k] for k in written if is_array(args[k])] + [r for r in results if is_array(r)]
    for k, v in args.items():
        if k in written or before[k] is None or any(np.may_share_memory(v, w) for w in shared):
            continue
        if before[k] != snapshot(v):
            raise Wrong(f"{k} was written")
    return "right"


def prefixes(name, call):
    named = {"max_pool2d_argmax_like": "max_pool2d"}.get(name, name)
    return (f"{named}: ", "random.generator: ", *([f"{call.repeats}: "] if call.repeats else []))


def one(seed, number, functions, names):
    """Draw call ``number``; return (name, call)."""
    rng = np.random.default_rng([seed, number])
    name = names[number % len(names)]
    call = DRAWS[name](Draw(rng))
    bend(rng, call.args, call.written)
    return name, call


def set_alarm(seconds):
    """Have the process end by SIGPROF after so many seconds of work, however busy the machine is."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def run(options, functions, names, start, progress, counts):
    """Make calls from number ``start`` on; return the failures found."""
    failures, began = [], time.monotonic()
    warnings.simplefilter("ignore")
    isas = config.available_isas()
    for number in range(start, options.calls):
        if options.seconds and number % 16 == 0 and time.monotonic() - began > options.seconds:
            break
        struct.pack_into("q", progress, 0, number)
        if number % 10_000 == 0 and number > start:
            print(f"{number:,} calls", file=sys.stderr, flush=True)
        set_alarm(SECONDS_A_CALL)
        rng = np.random.default_rng([options.seed, number, 1])
        name, call = one(options.seed, number, functions, names)
        try:
            with config.isa(isas[number % len(isas)]), config.threads(int(rng.integers(1, 4))):
                runtime.set_work_per_thread(0 if rng.random() < 0.1 else 1e9)
                how = judge(name, functions[name], call, prefixes(name, call))
        except Wrong as wrong:
            how = "WRONG"
            shown = "".join(traceback.format_exception(wrong.__cause__)[-2:]) if wrong.__cause__ else ""
            failures.append((number, name, f"{wrong}", shown))
            print(f"WRONG: --seed {options.seed} --only {number}: {name}: {wrong}", flush=True)
        counts[name][how] += 1
        if len(failures) >= options.failures:
            break
    set_alarm(0)
    struct.pack_into("q", progress, 0, -1)
    return failures


def show(name, call):
    print(f"{name}(")
    for k, v in call.args.items():
        if is_array(v):
            kind = type(v).__name__
            print(f"  {k}: {kind} {v.dtype.str} {v.shape} strides {v.strides} "
                  f"{'' if v.flags.writeable else 'read-only '}{'' if v.flags.aligned else 'misaligned'}")  # fmt: skip
        else:
            print(f"  {k}: {v!r:.80}")
    print(")")


def table(counts):
    columns = ("right", "ValueError", "TypeError", "MemoryError", "WRONG")
    print(f"{'function':<30}" + "".join(f"{c:>13}" for c in columns))
    for name in sorted(counts):
        print(f"{name:<30}" + "".join(f"{counts[name][c]:>13,}" for c in columns))
    total = {c: sum(row[c] for row in counts.values()) for c in columns}
    print(f"{'all ' + format(sum(total.values()), ',') + ' calls':<30}" + "".join(f"{total[c]:>13,}" for c in columns))


def limit_memory():
    """Let allocations beyond a few gigabytes fail as they would on a small machine; sanitizers map terabytes."""
    if "ASAN_OPTIONS" not in os.environ:
        try:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        except (ImportError, ValueError, OSError):
            print("memory is not limited here", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=1 << 40, help="so many calls at most, over all functions")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--function", action="append", help="only this one (may be given again)")
    parser.add_argument("--only", type=int, help="one call, shown")
    parser.add_argument("--failures", type=int, default=20, help="stop after so many")
    options = parser.parse_args()
    if options.only is None and not options.seconds and options.calls == 1 << 40:
        parser.error("give --calls or --seconds")
    functions = public()
    missing, extra = sorted(set(functions) - set(DRAWS)), sorted(set(DRAWS) - set(functions))
    if missing or extra:
        sys.exit(f"without a draw in fuzz_calls/: {missing}; drawn, but no public function: {extra}")
    names = sorted(options.function or functions)
    limit_memory()
    if options.only is not None:
        name, call = one(options.seed, options.only, functions, names)
        show(name, call)
        print(judge(name, functions[name], call, prefixes(name, call)))
        return
    began, progress = time.monotonic(), mmap.mmap(-1, 8)
    counts = collections.defaultdict(collections.Counter)
    if not hasattr(os, "fork"):
        bad = bool(run(options, functions, names, 0, progress, counts))
        table(counts)
        sys.exit(bad)
    child = os.fork()
    if child == 0:
        failures = run(options, functions, names, 0, progress, counts)
        table(counts)
        sys.stdout.flush()
        os._exit(1 if failures else 0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) > 1:
        (number,) = struct.unpack_from("q", progress, 0)
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == getattr(signal, "SIGPROF", 0)
        why = f"took {SECONDS_A_CALL} seconds" if hung else f"died: {how}"
        sys.exit(f"WRONG: --seed {options.seed} --only {number}: {names[number % len(names)]} {why}")
    print(f"{time.monotonic() - began:.0f} seconds, seed {options.seed}")
    sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
