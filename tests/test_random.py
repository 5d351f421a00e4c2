"""Seeds belong to a context: threads, tasks and notebook cells."""

import asyncio
import contextvars
import copy
import hashlib
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import nn, optim, random

SEEDS = st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1)), min_size=2, max_size=4)


def train(seed, meet=lambda: None):
    """Build and train a net with dropout, meeting the others between any two layers and steps; return its digest."""
    if seed is not None:
        fastconv.manual_seed(seed)
    layers = []
    for make in (lambda: nn.Linear(3, 5), nn.Dropout, nn.Tanh, lambda: nn.Linear(5, 2), nn.Dropout):
        meet()
        layers.append(make())
    model, loss = nn.Sequential(*layers), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    x, y = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3), np.arange(8) % 2
    for _ in range(3):
        meet()
        optimizer.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward())
        optimizer.step()
    return hashlib.sha256(b"".join(array.tobytes() for array in model.state_dict().values())).hexdigest()


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_threads_draw_the_numbers_of_processes(seeds):
    with ThreadPoolExecutor(1) as pool:  # one alone, as in a process of its own
        expected = [pool.submit(train, seed).result() for seed in seeds if seed is not None]
    barrier = threading.Barrier(len(seeds))
    with ThreadPoolExecutor(len(seeds)) as pool:
        found = list(pool.map(lambda seed: train(seed, barrier.wait), seeds))
    assert [digest for digest, seed in zip(found, seeds, strict=True) if seed is not None] == expected


def test_a_new_thread_starts_as_a_new_process():
    fastconv.manual_seed(7)
    nn.Linear(2, 2)
    code = "import fastconv.random as r; print(r.next_key(), r.next_key())"
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(f"{random.next_key()} {random.next_key()}"))
    thread.start()
    thread.join()
    assert seen == [process] == ["(0, 0) (0, 1)"]
    assert random.next_key() == (7, 1)


def test_tasks_part_company():
    """A task goes on from where its maker is, and leaves the maker and other tasks alone."""
    fastconv.manual_seed(3)

    async def draw(seed):
        keys = [random.next_key()]
        await asyncio.sleep(0)
        if seed is not None:
            fastconv.manual_seed(seed)
        for _ in range(3):
            keys.append(random.next_key())
            await asyncio.sleep(0)
        return keys

    async def main():
        random.next_key()
        return await asyncio.gather(draw(None), draw(8), draw(9), draw(None))

    found = asyncio.run(main())
    assert found[0] == found[3] == [(3, 1), (3, 2), (3, 3), (3, 4)]
    assert [keys[1:] for keys in found[1:3]] == [[(seed, k) for k in range(3)] for seed in (8, 9)]
    assert random.next_key() == (3, 0)


def test_a_notebook_that_gives_each_cell_a_context_goes_on():
    def cell(body):
        def run():
            return contextvars.Context().run(body)

        return run

    seen = []
    cells = [cell(lambda: fastconv.manual_seed(5)), *[cell(lambda: seen.append(random.next_key()))] * 3]
    thread = threading.Thread(target=lambda: [run() for run in cells])
    thread.start()
    thread.join()
    assert seen == [(5, 0), (5, 1), (5, 2)]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed):
    fastconv.manual_seed(1)
    with pytest.raises(ValueError, match=rf"seed must be in \[0, 2\*\*64\), got {seed}"):
        fastconv.manual_seed(seed)
    assert random.next_key() == (1, 0)


@pytest.mark.parametrize("seed", [1.0, "1", None, [1]])
def test_seeds_of_other_types(seed):
    with pytest.raises(TypeError, match="seed must be an integer"):
        fastconv.manual_seed(seed)


def test_trainings_in_threads_may_share_a_loss():
    """It keeps nothing but its settings; what backward needs is each thread's own."""

    def job(seed, loss, barrier):
        fastconv.manual_seed(seed)
        rng = np.random.default_rng(seed)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        for _ in range(20):
            x, y = rng.standard_normal((9, 4)).astype(np.float32), rng.integers(0, 3, 9)
            y = rng.standard_normal((9, 3)).astype(np.float32) if isinstance(loss, nn.MSELoss) else y
            optimizer.zero_grad()
            barrier.wait()
            loss(model(x), y)
            barrier.wait()
            model.backward(loss.backward())
            optimizer.step()
        return [p.data.tobytes() for p in model.parameters()]

    for loss in (nn.CrossEntropyLoss(), nn.MSELoss("sum"), nn.MultiMarginLoss(2.0)):
        alone = [job(seed, type(loss)(*loss_arguments(loss)), threading.Barrier(1)) for seed in range(4)]
        barrier = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda seed, loss=loss, barrier=barrier: job(seed, loss, barrier), range(4)))
        assert together == alone
        assert repr(pickle.loads(pickle.dumps(copy.deepcopy(loss)))) == repr(loss)
        with pytest.raises(RuntimeError, match="called before forward"):
            loss.backward()  # of this thread


def loss_arguments(loss):
    return (loss.margin,) if isinstance(loss, nn.MultiMarginLoss) else (loss.reduction,)
