"""Schedules against their formulas and against each other."""

import math

import pytest

from fastconv.schedule import (
    Constant,
    Cosine,
    CosineAnnealingWarmRestarts,
    InverseTime,
    OneCycleLR,
    StepLR,
    Warmup,
)


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


def rates_of(torch, make, steps):
    """What a schedule of PyTorch makes of a base rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("T_0", "T_mult"), [(5, 1), (3, 2), (1, 3)])
def test_warm_restarts_are_pytorchs(T_0, T_mult):
    torch = pytest.importorskip("torch")
    make = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    expected = rates_of(torch, lambda o: make(o, T_0, T_mult, eta_min=0.01), 40)
    schedule = CosineAnnealingWarmRestarts(T_0, T_mult, final=0.01)
    assert [schedule(t) for t in range(40)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("total", "start", "how"), [(50, 0.3, "cos"), (50, 0.3, "linear"), (7, 0.8, "cos"), (2, 0.3, "cos")]
)
def test_one_cycle_is_pytorchs(total, start, how):
    torch = pytest.importorskip("torch")
    expected = rates_of(
        torch,
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=total, pct_start=start, anneal_strategy=how, cycle_momentum=False
        ),
        total - 1,
    )
    schedule = OneCycleLR(total, pct_start=start, anneal_strategy=how)
    assert [schedule(t) for t in range(total - 1)] == pytest.approx(expected, abs=1e-12)


def test_one_cycle_stays_at_its_end_and_restarts_begin_at_one():
    cycle = OneCycleLR(20)
    assert cycle(19) == cycle(10**9) == pytest.approx(4e-6)
    assert max(cycle(t) for t in range(20)) == cycle(5) == 1.0
    restarts = CosineAnnealingWarmRestarts(4, 3)
    assert [t for t in range(60) if restarts(t) == 1.0] == [0, 4, 16, 52]


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
        (lambda: OneCycleLR(1), "total must be at least 2, got 1"),
        (lambda: OneCycleLR(9, pct_start=1.0), r"pct_start must be in \(0, 1\), got 1.0"),
        (lambda: OneCycleLR(9, anneal_strategy="step"), "'cos' or 'linear', got 'step'"),
        (lambda: CosineAnnealingWarmRestarts(0), "T_0 must be at least 1, got 0"),
        (lambda: CosineAnnealingWarmRestarts(3, 0), "T_mult must be at least 1, got 0"),
        (lambda: Warmup(0), "steps must be at least 1, got 0"),
    ],
)
def test_bad_hyperparameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
