"""How many threads share an operation: by its work, and by what handing it over costs."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import small_work_shared

from fastconv import config, nn, optim
from fastconv import functional as F
from fastconv._ext import runtime

WORK = [0.0, 1e3, 1e5, 3e5, 1e6, 1e8, 1e30]


def test_small_work_stays_alone_and_endless_work_takes_all_threads():
    with config.threads(3):
        for _ in range(50):
            assert runtime.threads_of(1e5) == 1
            assert runtime.threads_of(1e30) == 3  # however long threads wait for a processor
            assert all(1 <= runtime.threads_of(work) <= 3 for work in WORK)
    with config.threads(1):
        assert runtime.threads_of(1e30) == 1


def test_a_fixed_share_is_not_looked_at():
    before = runtime.set_work_per_thread(0)
    try:
        with config.threads(4):
            assert [runtime.threads_of(work) for work in WORK] == [4] * len(WORK)
    finally:
        assert runtime.set_work_per_thread(before) == 0
    assert runtime.set_work_per_thread(before) == before


def test_bits_stay_whatever_threads_are_taken_meanwhile():
    """Python threads look at what handing over costs in turns, while all of them compute."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 24, 30, 30), np.float32), rng.standard_normal((24, 24, 3, 3), np.float32)
    with config.threads(1):
        want = F.conv2d(x, w, padding=1).tobytes()
    found = []

    def run():
        found.extend(F.conv2d(x, w, padding=1).tobytes() == want for _ in range(40))

    with config.threads(3):
        workers = [threading.Thread(target=run) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(found) == 160
    assert all(found)


def test_memory_is_booked_for_the_threads_of_an_idle_machine():
    """Whatever was measured: a plan tells the same bytes on a busy machine, and what is reserved is enough later."""
    with config.threads(4):
        runtime.size_for_all_threads(True)
        try:
            assert [runtime.threads_of(work) for work in WORK] == [1, 1, 1, 2, 4, 4, 4]
        finally:
            runtime.size_for_all_threads(False)
    model = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1))
    with config.threads(3):
        assert len({model.plan((2, 24, 30, 30)).scratch for _ in range(20)}) == 1


@given(st.data())
def test_threads_that_share_few_pixels_and_panels_change_no_bit(data):
    # Panels of 32 to 64 filters are dealt out to the threads; of those that are left they share the pixels.
    n, h, w = (data.draw(st.integers(1, most), name) for name, most in (("images", 3), ("height", 15), ("width", 15)))
    kernel, stride = data.draw(st.sampled_from([1, 1, 3]), "kernel"), data.draw(st.integers(1, 2), "stride")
    groups = data.draw(st.integers(1, 2), "groups")
    channels = groups * data.draw(st.integers(2, 24), "channels")
    filters = groups * data.draw(st.integers(1, 150), "filters")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, channels, h, w), np.float32)
    weight = rng.standard_normal((filters, channels // groups, kernel, kernel), np.float32)

    def run(threads):
        with config.threads(threads):
            return F.conv2d(x, weight, stride=stride, padding=kernel // 2, groups=groups, algorithm="direct").tobytes()

    with small_work_shared():
        alone = run(1)
        assert all(run(threads) == alone for threads in (2, 3, 5))


@given(st.data())
def test_threads_that_share_the_filters_of_a_linear_layer_change_no_bit(data):
    # Each thread packs, multiplies and sums the weights of its own filters, which the optimiser's pass shares alike.
    n, features = data.draw(st.integers(1, 140), "rows"), data.draw(st.sampled_from([3, 64, 600, 784]), "features")
    filters, dtype = data.draw(st.integers(1, 150), "filters"), data.draw(st.sampled_from(["f4", "f8"]), "dtype")
    rng = np.random.default_rng(0)
    x, weight, grad = (rng.standard_normal(s).astype(dtype) for s in [(n, features), (filters, features), (n, filters)])

    def run(threads):
        sums = np.ones_like(weight)
        with config.threads(threads):
            y = F.linear(x, weight)
            F.linear_backward(grad, x, weight, grad_weight=sums)
        return y.tobytes(), sums.tobytes()

    with small_work_shared():
        alone = run(1)
        assert all(run(threads) == alone for threads in (2, 3, 5))


@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=4), threads=st.integers(1, 5))
def test_threads_set_all_gradients_to_zero_and_nothing_else(sizes, threads):
    params = [nn.Parameter(np.ones(size, np.float32)) for size in sizes]
    optimizer = optim.SGD(params)
    for param in params:
        param.grad.fill(np.nan)
    with small_work_shared(), config.threads(threads):
        optimizer.zero_grad()
    assert all(not param.grad.any() and (param.data == 1).all() for param in params)


AFFINITY = """
import json, os
before = sorted(os.sched_getaffinity(0))
from fastconv import config
from fastconv._ext import runtime
others = {int(task) for task in os.listdir("/proc/self/task")}
with config.threads(2):
    runtime.threads_of(1e30)
made = {int(task) for task in os.listdir("/proc/self/task")} - others
print(json.dumps([before, sorted(os.sched_getaffinity(0)), [sorted(os.sched_getaffinity(task)) for task in made]]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no threads to processors")
def test_the_second_thread_keeps_off_the_processor_of_the_first():
    # Woken up there it would wait for the thread that waits for it. The caller stays free to go anywhere.
    if len(os.sched_getaffinity(0)) < 2 or not runtime.build_info()["openmp"]:
        pytest.skip("there are no two processors, or no threads")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    run = subprocess.run([sys.executable, "-c", AFFINITY], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    before, after, made = json.loads(run.stdout)
    assert after == before
    assert len(made) == 1
    assert len(made[0]) == len(before) - 1
    assert set(made[0]) < set(before)
