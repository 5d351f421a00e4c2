"""A warm step allocates nothing, and the memory that a plan tells is the memory that a step takes."""

import ctypes
import gc
import platform
import shutil
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

import fastconv
from fastconv import functional as F
from fastconv import models, nn, optim

NUMPY = np.lib.tracemalloc_domain


def step_of(name, batch, image):
    """Return a model and a function that does one whole training step of it."""
    fastconv.manual_seed(0)
    model = models.build(name, image, 10)
    loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    rng = np.random.default_rng(0)
    c, h, w = image
    x = rng.standard_normal((batch, h, w, c), np.float32).transpose(0, 3, 1, 2)
    y = rng.integers(0, 10, batch)

    def step():
        optimizer.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward())
        optimizer.step()

    return model, step


def numpy_bytes():
    """Return the bytes of all NumPy arrays' data that were allocated since tracing began."""
    filters = [tracemalloc.DomainFilter(True, NUMPY)]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(filters).traces)


@pytest.fixture
def traced(all_threads):
    F.release_scratch()
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


STEPS = [("lenet5", 8, (1, 28, 28)), ("cifar-small", 4, (3, 16, 16)), ("resnet20", 4, (3, 8, 8))]


@pytest.mark.parametrize(("name", "batch", "image"), STEPS, ids=[row[0] for row in STEPS])
def test_numpys_counter_stands_still_over_a_hundred_steps(traced, name, batch, image):
    _, step = step_of(name, batch, image)
    for _ in range(3):
        step()
    before = numpy_bytes()
    for _ in range(100):
        step()
    assert numpy_bytes() == before


COUNTER = """
#include <stddef.h>
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
static long large;
static size_t least = (size_t)-1;
void count_from(size_t nbytes) { least = nbytes; large = 0; }
long counted(void) { return large; }
static size_t note(size_t n) { if (n >= least) large++; return n; }
void *malloc(size_t n) { return __libc_malloc(note(n)); }
void *calloc(size_t k, size_t n) { note(k * n); return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { return __libc_realloc(p, note(n)); }
void *memalign(size_t a, size_t n) { return __libc_memalign(a, note(n)); }
void *aligned_alloc(size_t a, size_t n) { return __libc_memalign(a, note(n)); }
int posix_memalign(void **p, size_t a, size_t n) { *p = __libc_memalign(a, note(n)); return *p ? 0 : 12; }
"""


def test_a_hundred_warm_steps_call_malloc_for_no_array(tmp_path):
    """Counts calls of malloc and its like for 2 KiB or more; what Python itself needs for a call is smaller."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if platform.libc_ver()[0] != "glibc" or compiler is None:
        pytest.skip("counting calls of malloc needs glibc and a C compiler")
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(COUNTER)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    code = f"""
        import ctypes, sys
        sys.path[:0] = {sys.path!r}
        import test_memory
        counter = ctypes.CDLL({str(library)!r})
        counter.count_from.argtypes, counter.counted.restype = [ctypes.c_size_t], ctypes.c_long
        found = []
        for row in test_memory.STEPS:
            _, step = test_memory.step_of(*row)
            for _ in range(20):
                step()
            counter.count_from(2048)
            for _ in range(100):
                step()
            found.append(counter.counted())
            counter.count_from(2**62)
        counter.count_from(2048)
        bytearray(5000)
        print(*found, counter.counted())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"LD_PRELOAD": str(library), "PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *found, witness = map(int, done.stdout.split())
    assert found == [0] * len(STEPS)
    assert witness == 1


class MallInfo(ctypes.Structure):
    NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]


def test_mallocs_bytes_in_use_stand_still_over_a_hundred_steps():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("the C library has no mallinfo2")
    libc.mallinfo2.restype = MallInfo
    _, step = step_of(*STEPS[0])
    for _ in range(20):
        step()

    def in_use():
        gc.collect()
        info = libc.mallinfo2()
        return info.uordblks + info.hblkhd

    in_use()
    before = in_use()
    for _ in range(100):
        step()
    # Python's own objects of a call may come and go in the same heap, but not by 100 small objects' worth.
    assert abs(in_use() - before) < 100 * 64


PLANNED = [("cifar-small", 32, (3, 32, 32)), ("resnet20", 32, (3, 32, 32)), ("lenet5", 64, (1, 28, 28))]


@pytest.mark.parametrize(("name", "batch", "image"), PLANNED, ids=[row[0] for row in PLANNED])
def test_planned_bytes_are_the_measured_peak(traced, name, batch, image):
    model = models.build(name, image, 10)
    plan = model.plan((batch, *image))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *image[1:], image[0]), np.float32).transpose(0, 3, 1, 2)
    grad = np.ones((batch, 10), np.float32)
    for _ in range(2):
        model(x)
        model.backward(grad)
    # What is held after a step is its peak: a warm step allocates no array, as tested above.
    assert plan.total == pytest.approx(numpy_bytes() - x.nbytes - grad.nbytes, rel=0.01)
