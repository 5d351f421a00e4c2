"""Parameters that join training late, or pause, get the updates that PyTorch gives them: each counts its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_optim import CASES, SHAPES, parameters, set_gradients

from fastconv.optim import SGD, Adam

# Which parameters train in each step.
MASKS = st.lists(st.lists(st.booleans(), min_size=len(SHAPES), max_size=len(SHAPES)), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), MASKS, st.integers(0, 9), st.booleans())
def test_each_parameter_counts_its_own_updates(case, masks, renewed, loose):
    """As one optimiser for each, which steps when its parameter trains; and as the formula in double precision."""
    make, formula, options = case
    together, apart = parameters(np.float32), parameters(np.float32)
    optimizer, optimizers = make(together, **options), [make([p], **options) for p in apart]
    expected, states = [p.data.astype(np.float64) for p in together], [{} for _ in together]
    counts = [0] * len(together)
    for step, mask in enumerate(masks):
        if step == renewed:  # as a run that is resumed
            kept = optimizer.state_dict()
            optimizer = make(together, **options)
            optimizer.load_state_dict(kept)
        if loose and step == 1:
            together[2].data = together[2].data.copy()
        for p, trained in zip(together, mask, strict=True):
            p.requires_grad = trained
        set_gradients(together, step)
        set_gradients(apart, step)
        optimizer.step()
        for k, trained in enumerate(mask):
            if trained:
                counts[k] += 1
                optimizers[k].step()
                grad = together[k].grad.astype(np.float64)
                expected[k] = formula(expected[k], grad, states[k], counts[k], **options)
    magnified = 1e2 if options.get("centered") else 1.0  # as in test_optim
    for p, q, want in zip(together, apart, expected, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
        bound = 10 * 16 * np.finfo(np.float32).eps * (1 + np.abs(want).max()) * magnified
        np.testing.assert_allclose(p.data, want, rtol=0, atol=bound)
    assert optimizer.state_dict()["updates"].tolist() == counts
    assert optimizer.steps == len(masks)


def test_a_thawed_parameter_moves_by_a_first_step():
    """Adam's first step is lr, whatever the gradient; momentum begins with the gradient, undampened."""
    for make, moved in (
        (lambda p: Adam(p, lr=0.125, eps=0.0), lambda g: 0.125 * np.sign(g)),
        (lambda p: SGD(p, lr=0.125, momentum=0.5, dampening=0.75), lambda g: 0.125 * g),
    ):
        params = parameters(np.float64)
        params[1].requires_grad = False
        optimizer = make(params)
        for step in range(5):
            set_gradients(params, step)
            optimizer.step()
        params[1].requires_grad = True
        before = params[1].data.copy()
        optimizer.step()
        np.testing.assert_allclose(before - params[1].data, moved(params[1].grad), rtol=1e-12)


def test_a_state_without_counts_is_that_of_parameters_updated_in_every_step():
    first, second = parameters(np.float32), parameters(np.float32)
    optimizer, again = Adam(first), Adam(second)
    for step in range(3):
        set_gradients(first, step)
        optimizer.step()
    state = optimizer.state_dict()
    del state["updates"]
    again.load_state_dict(state)
    assert again.state_dict()["updates"].tolist() == [3] * len(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": np.array(-1)}, "between 0 and step, got -1"),
        ({"updates": np.full(5, 2)}, "between 0 and step, got 1 and"),
        ({"updates": np.full(5, -1)}, "between 0 and step"),
        ({"updates": np.zeros(4, int)}, r"updates has shape \(4,\), needs \(5,\)"),
        ({"lr": np.array(np.nan)}, r"lr must be in \[0, inf\), got nan"),
        ({"step": np.array(1.5)}, "step is float64, needs int64"),
        ({"exp_avg.0": np.full(SHAPES[0], 1j)}, r"exp_avg\.0 is complex128, needs float32"),
        ({"exp_avg.0": np.full(SHAPES[0], "a")}, r"exp_avg\.0 is <U1, needs float32"),
    ],
)
def test_states_out_of_range_are_refused_and_change_nothing(change, message):
    params = parameters(np.float32)
    optimizer = Adam(params)
    set_gradients(params, 0)
    optimizer.step()
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict({**before, **change})
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
