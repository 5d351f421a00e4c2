"""Schedules against their formulas and against each other."""

import math

import pytest

from fastconv.schedule import Constant, Cosine, InverseTime, StepLR, Warmup


def test_step_drops_by_gamma_every_step_size():
    schedule = StepLR(3, gamma=0.5)
    assert [schedule(t) for t in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_inverse_time_halves_after_one_over_decay():
    schedule = InverseTime(0.125)
    assert [schedule(t) for t in (0, 8, 24)] == [1.0, 0.5, 0.25]
    assert InverseTime(0)(10**9) == 1.0


def test_cosine_runs_from_one_to_final_and_stays():
    schedule = Cosine(200, final=0.1)
    assert schedule(0) == 1.0
    assert schedule(100) == pytest.approx(0.55, abs=4 * math.ulp(1))
    assert schedule(200) == schedule(201) == schedule(10**6) == pytest.approx(0.1, abs=4 * math.ulp(1))
    factors = [schedule(t) for t in range(201)]
    assert factors == sorted(factors, reverse=True)


def test_warmup_rises_linearly_then_hands_over_at_its_own_zero():
    schedule = Warmup(4, StepLR(2, gamma=0.5))
    assert [schedule(t) for t in range(9)] == [0.2, 0.4, 0.6, 0.8, 1, 1, 0.5, 0.5, 0.25]
    assert Warmup(1)(0) == 0.5


def test_schedules_are_values():
    assert Warmup(5, Cosine(10)) == Warmup(5, Cosine(10))
    assert repr(StepLR(7)) == "StepLR(step_size=7, gamma=0.1)"
    assert Constant()(3) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepLR(0), "step_size must be at least 1, got 0"),
        (lambda: StepLR(5, gamma=0), "gamma must be above 0, got 0"),
        (lambda: InverseTime(-1), "decay must be at least 0, got -1"),
        (lambda: InverseTime(math.nan), "decay must be at least 0, got nan"),
        (lambda: Cosine(0), "total must be at least 1, got 0"),
        (lambda: Cosine(5, final=-0.5), "final must be at least 0, got -0.5"),
        (lambda: Warmup(0), "steps must be at least 1, got 0"),
    ],
)
def test_bad_hyperparameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
