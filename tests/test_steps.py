"""Runs of so many steps: when they report and save, and how a signal ends them."""

import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv import data, manual_seed, nn
from fastconv.optim import SGD
from fastconv.signals import EndRequest
from fastconv.steps import Abandoned, Report, StepRun
from fastconv.train import Diverged, Trainer
from fastconv.train.mlp import MlpTraining

moments = st.none() | st.integers(1, 12)


@given(
    steps=st.integers(1, 12), report_every=st.integers(1, 15), save_every=moments, signalled=moments, abandoned=moments,
    saves=st.booleans(),
)  # fmt: skip
def test_reports_saves_and_ends(steps, report_every, save_every, signalled, abandoned, saves):
    """A signal that comes during a step ends the run after it; a step that is abandoned never was."""
    told, ending = [], EndRequest(lambda name: "")

    def take():
        n = run.done + 1
        told.append(f"step {n}")
        if n == abandoned:
            ending.number = signal.SIGINT
            raise Abandoned
        if n == signalled:
            ending.number = signal.SIGTERM
        return Report(n, 1.0, 0.5, float(n))

    def save():
        told.append(f"save {run.done}")

    run = StepRun(
        take, steps, ending=ending, report=lambda given, last: told.append(f"report {last.step} {given is run}"),
        report_every=report_every, save=save if saves else None, save_every=save_every,
    )  # fmt: skip
    run.go()
    expected, done = [], 0
    for n in range(1, steps + 1):
        expected.append(f"step {n}")
        if n == abandoned:
            break
        done = n
        if n % report_every == 0 or n == steps:
            expected.append(f"report {n} True")
        if saves and save_every and n % save_every == 0:
            expected.append(f"save {n}")
        if n == signalled:
            break
    assert told == expected + [f"save {done}"] * saves
    assert run.done == done
    assert run.seconds == [float(n) for n in range(1, done + 1)]
    assert run.median == pytest.approx(np.median(run.seconds) if done else np.nan, nan_ok=True)
    assert (run.last is None) == (done == 0)


def dataset(n=70):
    rng = np.random.default_rng(0)

    def draw(count):
        return data.Samples(rng.integers(0, 17, (count, 1, 4, 4)).astype(np.uint8), rng.integers(0, 3, count))

    return data.Dataset("noise", ("a", "b", "c"), draw(n), draw(10), levels=16)


@pytest.mark.parametrize("steps", [1, 9, 23])
def test_the_mlp_takes_the_steps_of_a_plain_loop(tmp_path, steps):
    images = dataset()
    with MlpTraining(tmp_path / "net", lambda: images, hidden=5, batch=16, lr=0.2, seed=3) as training:
        model, loss = training._trainer.model, nn.CrossEntropyLoss()
        manual_seed(0)
        plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))
        plain.load_state_dict(model.state_dict())
        optimizer = SGD(plain.parameters(), lr=0.2)
        batches = data.Batches(*images.train, 16, seed=3, drop_last=True)
        for step in range(steps):
            x, y = batches.batch(*divmod(step, len(batches)))
            output = plain(x / np.float32(16))
            value, right = loss(output, y), float((output.argmax(axis=1) == y).mean())
            plain.zero_grad()
            plain.backward(loss.backward())
            optimizer.step()
            report = training.take()
            assert (report.step, report.loss, report.accuracy) == (step + 1, value, right)
        for (name, a), (_, b) in zip(model.named_state(), plain.named_state(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("first", [0, 1, 8])
def test_an_mlp_goes_on_to_the_same_bits(tmp_path, first):
    settings = {"hidden": 5, "batch": 16, "lr": 0.2, "seed": 3}
    for name, parts in (("whole", [11]), ("parts", [first, 11 - first])):
        for steps in parts:
            with MlpTraining(tmp_path / name, dataset, **settings) as training:
                for _ in range(steps):
                    training.take()
                training.save()
                assert training.step == training.before + steps
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    with MlpTraining(tmp_path / "whole", dataset, **settings) as training:
        with pytest.raises(BlockingIOError, match="another process is training this net"):
            MlpTraining(tmp_path / "whole", dataset, **settings)
        assert training.step == 11


def test_an_mlp_that_diverges_is_left_as_it_was(tmp_path):
    images = dataset()
    with MlpTraining(tmp_path / "net", lambda: images, hidden=5, batch=16, lr=1e38, seed=3) as training:
        with pytest.raises(Diverged, match="the loss is"):
            [training.take() for _ in range(9)]
        assert not np.isfinite(training.loss)
    assert list(tmp_path.iterdir()) == []


def test_a_trainers_step_alone_is_that_of_its_fit():
    images = dataset()
    x, y = images.train.images.astype(np.float32), images.train.labels
    found = []
    for alone in (False, True):
        manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, l2=0.01, progress=False)
        if alone:
            right = [trainer.take_step(x, y) for _ in range(3)]
            assert all(0 <= r <= len(y) for r in right)
        else:
            trainer.fit([(x, y)], epochs=3)
        found.append((trainer.step, trainer.batch_loss, model.state_dict()))
    assert found[0][:2] == found[1][:2]
    for name, array in found[0][2].items():
        np.testing.assert_array_equal(array, found[1][2][name])
