"""One net in many threads: each has the bits of a thread alone, and nobody sees the others."""

import copy
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from layers import KINDS, build
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn, optim
from fastconv.train import Trainer, evaluate

THREADS, ROUNDS = 8, 25


@pytest.fixture(autouse=True)
def hasty():
    """Let threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def drawn(rng):
    """Return a net of drawn layers on (N, C), (N, C, L) or (N, C, H, W), and the shape of a sample."""
    fastconv.manual_seed(int(rng.integers(1000)))
    rank, channels = int(rng.integers(2, 5)), int(rng.integers(2, 7))
    sample = (channels, *rng.integers(3, 7, rank - 2))
    layers, x = [], np.ones((2, *sample), np.float32)
    while len(layers) < 6:
        layer = build(KINDS[rng.integers(len(KINDS))], rng, x.shape[1])
        if rng.random() < 0.2:
            layer = nn.Residual(layer, activation=nn.ReLU())
        try:
            x = layer(x).copy()
        except ValueError:  # takes no such shape
            continue
        layers.append(layer)
    return nn.Sequential(*layers[:3], nn.Sequential(*layers[3:])), sample


def together(jobs):
    """Run functions at the same time, each in a thread; return what they return."""
    barrier = threading.Barrier(len(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [f.result(60) for f in [pool.submit(lambda job=job: (barrier.wait(), job())[1]) for job in jobs]]


@pytest.mark.parametrize("seed", range(12))
def test_predictions_of_eight_threads_are_those_of_one(seed):
    rng = np.random.default_rng(seed)
    model, sample = drawn(rng)
    model[1].eval()  # modes of its own
    modes = [module.training for module in model.modules()]
    inputs = [rng.standard_normal((int(rng.integers(1, 6)), *sample)).astype(np.float32) for _ in range(THREADS)]
    sizes = [rng.choice([None, 2]) for _ in inputs]
    alone = copy.deepcopy(model)
    expected = [alone.predict(x, size).tobytes() for x, size in zip(inputs, sizes, strict=True)]
    state, over, seen = model.state_dict(), threading.Event(), set()

    def watch():
        while not over.is_set():
            seen.add(tuple(module.training for module in model.modules()))
            pickle.dumps(model)

    def job(x, size, want):
        return sum(model.predict(x, size).tobytes() != want for _ in range(ROUNDS))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        wrong = together([lambda a=a: job(*a) for a in zip(inputs, sizes, expected, strict=True)])
    finally:
        over.set()
        watcher.join()
    assert wrong == [0] * THREADS
    assert seen == {tuple(modes)}
    for name, array in model.state_dict().items():
        assert_array_equal(array, state[name])


class Slow(nn.Linear):
    """A layer that takes long to be looked at."""

    def is_opaque(self):
        time.sleep(0.02)
        return super().is_opaque()


def test_a_thread_that_comes_while_another_looks_at_the_net_waits_for_it():
    fastconv.manual_seed(0)
    model = nn.Sequential(Slow(5, 4), nn.BatchNorm1d(4))  # in training, one sample would be an error
    x = np.ones((1, 5), np.float32)
    expected = copy.deepcopy(model).predict(x)
    model._running()
    late = [lambda i=i: (time.sleep(0.008 * i), model.predict(x))[1] for i in range(THREADS)]
    for found in together(late):
        assert_array_equal(found, expected)


def test_models_that_share_layers_wait_for_each_other():
    fastconv.manual_seed(0)
    shared = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Tanh())
    models = [nn.Sequential(shared, nn.Linear(20, k)) for k in (2, 3, 4)]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((n, 6)).astype(np.float32) for n in (3, 4, 5)]
    expected = [m.predict(x).tobytes() for m, x in zip(models, inputs, strict=True)]

    def job(k):
        return sum(models[k % 3].predict(inputs[k % 3]).tobytes() != expected[k % 3] for _ in range(60))

    assert together([lambda k=k: job(k) for k in range(6)]) == [0] * 6


def test_predicting_and_evaluating_beside_a_training_changes_no_bit_of_it():
    def make():
        fastconv.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
        loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01)
        return model, Trainer(model, loss, optimizer, progress=False)

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 5)).astype(np.float32), rng.integers(0, 2, 96)
    alone, trainer = make()
    trainer.fit((x, y), (x, y), epochs=3, batch_size=8)
    model, trainer = make()
    over = threading.Event()

    def fit():
        try:
            trainer.fit((x, y), (x, y), epochs=3, batch_size=8)
        finally:
            over.set()

    def predict():
        times = 0
        while not over.is_set():
            assert np.isfinite(model.predict(x[:7])).all()
            times += 1
        return times

    def judge():
        while not over.is_set():
            evaluate(model, nn.CrossEntropyLoss(), [(x, y)])

    assert min(together([fit, predict, predict, judge])[1:3]) > 0
    for name, array in model.state_dict().items():
        assert_array_equal(array, alone.state_dict()[name])


def test_a_thread_that_waits_is_not_passed_by_for_ever():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    x, over = np.ones((32, 64), np.float32), threading.Event()

    def greedy():
        while not over.is_set():
            model.predict(x)

    def modest():
        for _ in range(20):
            model.predict(x)
        over.set()

    together([greedy, greedy, modest])


def test_a_run_inside_a_run_of_the_same_layers_is_refused():
    x = np.ones((2, 3), np.float32)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    other = nn.Sequential(nn.Linear(3, 3), model[1])
    for inner in (model, other, model[0]):
        tried = []
        remove = model[0].register_forward_hook(lambda *_, inner=inner, tried=tried: tried.append(inner.predict(x)))
        for run in (model, model.predict):
            if inner is other:  # whose layers have not run yet
                run(x)
                continue
            with pytest.raises(RuntimeError, match="cannot begin another run inside one of its own"):
                run(x)
        remove()
    assert model.training
    twin = copy.deepcopy(model)
    results = []
    remove = model[0].register_forward_hook(lambda *_: results.append(twin.predict(x)))
    assert_array_equal(model.predict(x), results[0])


def test_a_module_may_predict_with_a_part_of_itself():
    """A frozen encoder, say, as often as it likes."""

    class Features(nn.Module):
        def __init__(self):
            self.encoder, self.head = nn.Sequential(nn.Linear(3, 4), nn.Dropout()), nn.Linear(4, 1)

        def forward(self, input):
            return self._save(self.head(self.encoder.predict(input) + self.encoder.predict(-input)))

        def backward(self, grad_output):
            return self.head.backward(self._recall(grad_output)[0])

    model, x = Features(), np.ones((2, 3), np.float32)
    y = model(x)
    model.backward(np.ones_like(y))
    assert_array_equal(y, model.predict(x))


def test_a_failed_prediction_leaves_the_turn_to_others():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="linear"):
        model.predict(np.ones((2, 5), np.float32))
    assert model.training
    assert len(together([lambda: model.predict(np.ones((2, 3), np.float32))])[0]) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_threads_it_has_not():
    model, x = nn.Sequential(nn.Linear(3, 3)), np.ones((2, 3), np.float32)
    inside, over = threading.Event(), threading.Event()
    model[0].register_forward_hook(lambda *_: (inside.set(), over.wait(30)) if not inside.is_set() else None)
    thread = threading.Thread(target=model.predict, args=(x,))
    thread.start()
    inside.wait(30)
    child = os.fork()
    if not child:
        try:
            timer = threading.Timer(20, os._exit, (2,))
            timer.daemon = True
            timer.start()
            os._exit(0 if model.predict(x).shape == (2, 3) else 1)
        finally:
            os._exit(3)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
