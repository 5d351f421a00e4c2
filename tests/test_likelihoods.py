"""Losses that are small, zero or negative by nature are no divergence, wherever losses are compared; real ones are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import diagnose, nn, optim
from fastconv.diagnose.advice import Advice
from fastconv.diagnose.health import health
from fastconv.diagnose.overfit import _falling, _near
from fastconv.search.attempt import Cut
from fastconv.search.training import CutOff
from fastconv.train import Callback, ChillOut, Diverged, History, StopOnExplosion, Trainer
from fastconv.train.base import SMALL, ceiling

losses = st.floats(-1e3, 1e3)
factors = st.floats(1.5, 10)
few = settings(deadline=None, max_examples=60)


@given(first=losses, factor=factors)
def test_a_ceiling_is_a_multiple_of_a_large_loss_and_well_above_any(first, factor):
    limit = ceiling(first, factor)
    if first >= math.log(2):  # every untrained cross-entropy
        assert limit == factor * first
    rounding = 4 * np.finfo(float).eps * (1 + factor) * max(abs(first), SMALL)
    assert limit - first >= (factor - 1) * max(abs(first), SMALL) - rounding


class Given(nn.Module):
    """Its output is of no account."""

    def __init__(self):
        self.weight = nn.Parameter(np.zeros((1, 1), np.float32))

    def forward(self, input):
        return self._save(input[:, :1] * 0)

    def backward(self, grad_output):
        return grad_output


class Course:
    """A loss that takes the values given, one per batch."""

    def __init__(self, values):
        self.values = iter(values)

    def __call__(self, output, target):
        self.shape = output.shape
        return next(self.values)

    def backward(self):
        return np.zeros(self.shape, np.float32)


def fit(values, *callbacks, validation=None, steps=1):
    model = Given()
    run = Trainer(model, Course(values), optim.SGD(model.parameters()), callbacks=callbacks, progress=False)
    x = np.zeros((2, 1), np.float32)
    run.fit([(x, x)] * steps, validation, epochs=len(values) // steps)
    return run


@few
@given(first=losses, factor=factors, noise=st.lists(st.floats(-1, 0.9), min_size=1, max_size=6))
def test_an_explosion_is_a_rise_by_the_size_of_a_loss(first, factor, noise):
    """Falls and rises of less than that, or than a guess among two classes costs, are none."""
    size = (factor - 1) * max(abs(first), SMALL)
    fit([first, *(first + part * size for part in noise)], StopOnExplosion(factor))
    with pytest.raises(Diverged, match=r"mean loss .* is more than .* first loss"):
        fit([first, first + 1.1 * size, first], StopOnExplosion(factor))
    cut = CutOff(factor, first, 1)
    fit([first + part * size for part in noise], cut)
    with pytest.raises(Cut):
        fit([first + 1.1 * size], cut)


@few
@given(best=losses, regress=factors, less=st.floats(0.1, 0.9))
def test_going_back_at_once_needs_a_rise_by_the_size_of_the_best(best, regress, less):
    class Figures(Callback):
        def __init__(self, *values):
            self.values = values

        def on_epoch_end(self, trainer):
            trainer.history[-1].update(validation_loss=self.values[trainer.epoch], validation_accuracy=None)

    size = (regress - 1) * (best if best > 0 else max(-best, SMALL))
    for part, count in ((less, 0), (1.1, 1)):
        chill = ChillOut(9, regress=regress)
        fit([1.0, 1.0], Figures(best, best + part * size), chill)
        assert chill.count == (count if size > 1e-9 else chill.count)


@given(first=losses, share=st.floats(0.01, 0.5))
def test_near_zero_is_a_fall_by_nearly_all_of_the_size(first, share):
    level = _near(first, share)
    rounding = 8 * np.finfo(float).eps * abs(first) + 2 * math.ulp(0.0)  # numbers near 0 lie that far apart
    assert abs((first - level) - (1 - share) * abs(first)) <= rounding
    assert not _falling([first] * 10)
    fallen = [first - 0.1 * k * max(abs(first), 1) for k in range(10)]
    assert _falling(fallen)
    assert not _falling([-loss for loss in fallen]) or first == 0


class Gaussian:
    """The negative log-likelihood of targets with deviation ``sigma``: far below 0 for a small one."""

    def __init__(self, sigma):
        self.sigma = sigma

    def __call__(self, output, target):
        self.difference = output - target
        squares = np.square(self.difference / self.sigma, dtype=np.float64)
        return float((0.5 * squares + math.log(self.sigma) + 0.5 * math.log(2 * math.pi)).mean())

    def backward(self):
        return (self.difference / self.sigma**2 / self.difference.size).astype(np.float32)


@pytest.mark.parametrize("sigma", [1.0, 0.4, 0.05, 0.005])
def test_a_likelihood_is_trained_and_checked_like_any_loss(sigma):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = (sigma * (x @ np.array([[1.0], [-0.5], [0.25]])) + 0.2 * sigma).astype(np.float32)
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 1))
    for param in model.parameters():
        param.data *= sigma
    loss, optimizer = Gaussian(sigma), optim.SGD(model.parameters(), lr=0.1 * sigma**2)
    assert (loss(model(x), y) < 0) == (sigma < 0.1)
    report = diagnose.check(model, (x, y), loss=loss, optimizer=optimizer, steps=["loss", "overfit", "rates"])
    rates = report.findings[-1]
    assert rates.figures["suggestion"] is not None, rates.figures["reason"]
    low, high = rates.figures["suggestion"]
    words = {trial["rate"]: trial["word"] for trial in rates.figures["trials"]}
    assert all(words[rate] == "good" for rate in words if low <= rate <= high)
    assert not any("explodes" in remark.text for remark in rates.remarks)
    run = Trainer(model, loss, optimizer, callbacks=[StopOnExplosion(), ChillOut()], progress=False)
    history = run.fit((x, y), (x, y), epochs=20)
    assert history[-1]["validation_loss"] < history[0]["loss"]
    assert run.callbacks[2].count == 0
    assert abs(history[-1]["validation_loss"] - (math.log(sigma) + 0.5 * math.log(2 * math.pi))) < 0.05


@pytest.mark.parametrize(("first", "now", "learning"), [(-4.0, -4.1, False), (-4.0, -7.0, True), (2.0, 0.9, True)])
def test_a_slow_run_is_told_by_the_size_of_its_loss(first, now, learning):
    advice, lines = Advice(), []
    for step, loss in enumerate((first, now, now), start=1):
        record = {"step": step, "loss": loss, "lr": 0.1, "update_ratio": {"weight": 1e-7}}
        lines += advice(record, {}, 8, 0.1)
    assert bool(lines) != learning


@few
@given(first=losses, part=st.floats(-0.9, 0.9), fall=st.floats(0.1, 5))
def test_a_recorded_run_is_judged_by_the_size_of_its_loss(first, part, fall):
    """Rises and falls of less than its size have the names that they have of a large one."""
    size = max(abs(first), SMALL)
    risen = [{"epoch": 1, "loss": first}, {"epoch": 2, "loss": first + 2.2 * size}]
    assert health(History(risen)).name == "exploded"
    risen[1]["loss"] = first + 2 * part * size
    assert health(History(risen)).name != "exploded"
    course = [first, first - fall * size / 2, first - fall * size]
    falling = [{"epoch": k, "loss": loss, "validation_loss": loss} for k, loss in enumerate(course, start=1)]
    assert health(History(falling)).name == "learning"
    falling[2]["validation_loss"] = course[1] + 0.05 * abs(course[1])  # a rise too small to be one
    assert health(History(falling)).name == "learning"
    falling[2]["validation_loss"] = course[1] + 0.2 * max(abs(course[1]), abs(first))
    assert health(History(falling)).name == "overfitting" or abs(first) + abs(course[1]) < 1e-6
