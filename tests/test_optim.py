"""Optimisers against PyTorch's formulas written down in NumPy, and on functions whose minimum is known."""

import numpy as np
import pytest

from fastconv.nn import Parameter
from fastconv.optim import SGD, Adagrad, Adam, AdamW, RMSprop

SHAPES = [(3,), (5, 7), (4, 3, 3, 3), (1,), (33,)]


def sgd(p, g, s, t, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    if momentum:
        s["b"] = g if t == 1 else momentum * s["b"] + (1 - dampening) * g
        g = g + momentum * s["b"] if nesterov else s["b"]
    return p - lr * g


def adam(p, g, s, t, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    denominator = np.sqrt(s["v"]) / np.sqrt(1 - betas[1] ** t) + eps
    return p - lr / (1 - betas[0] ** t) * s["m"] / denominator


def adamw(p, g, s, t, lr, weight_decay=1e-2, **more):
    return adam(p, g, s, t, lr, weight_decay=weight_decay, decoupled=True, **more)


def rmsprop(p, g, s, t, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    g = g + weight_decay * p
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g * g
    spread = s["v"]
    if centered:
        s["m"] = alpha * s.get("m", 0) + (1 - alpha) * g
        spread = spread - s["m"] ** 2
    g = g / (np.sqrt(spread) + eps)
    if momentum:
        s["b"] = g = momentum * s.get("b", 0) + g
    return p - lr * g


def adagrad(p, g, s, t, lr, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    g = g + weight_decay * p
    s["s"] = s.get("s", initial_accumulator_value) + g * g
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s["s"]) + eps)


CASES = [
    (SGD, sgd, {"lr": 0.1}),
    (SGD, sgd, {"lr": 0.1, "weight_decay": 0.05}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (Adam, adam, {"lr": 0.01}),
    (Adam, adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    (AdamW, adamw, {"lr": 0.01}),
    (AdamW, adamw, {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.2}),
    (RMSprop, rmsprop, {"lr": 0.01}),
    (RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.8, "weight_decay": 0.1}),
    (RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.9, "centered": True, "eps": 1e-4}),
    (RMSprop, rmsprop, {"lr": 0.01, "centered": True, "momentum": 0.5, "eps": 1e-4}),
    (Adagrad, adagrad, {"lr": 0.05}),
    (Adagrad, adagrad, {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
]


def parameters(dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]


def set_gradients(params, step):
    rng = np.random.default_rng(1000 + step)
    for p in params:
        p.grad[...] = rng.normal(size=p.grad.shape)


@pytest.mark.parametrize(("make", "formula", "options"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ten_steps_follow_the_formula(make, formula, options, dtype):
    params = parameters(dtype)
    optimizer = make(params, **options)
    expected = [p.data.astype(np.float64) for p in params]
    states = [{} for _ in params]
    for step in range(1, 11):
        set_gradients(params, step)
        optimizer.step()
        for k, p in enumerate(params):
            grad = p.grad.astype(np.float64)
            expected[k] = formula(expected[k], grad, states[k], step, **options)
    # A step rounds a handful of values of the size of the parameter and of its update (at most ten times
    # that); centred RMSprop divides by a difference, which magnifies roundings by at most 1/eps.
    magnified = 1e2 if options.get("centered") else 1.0
    for p, want in zip(params, expected, strict=True):
        bound = 10 * 16 * np.finfo(dtype).eps * (1 + np.abs(want).max()) * magnified
        np.testing.assert_allclose(p.data, want, rtol=0, atol=bound)


def test_defaults_are_pytorchs():
    params = parameters(np.float32)
    assert repr(SGD(params)) == ("SGD(lr=0.001, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)")
    assert repr(Adam(params)) == "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    assert repr(AdamW(params)) == "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    assert repr(RMSprop(params)) == (
        "RMSprop(lr=0.01, alpha=0.99, eps=1e-08, weight_decay=0.0, momentum=0.0, centered=False)"
    )
    assert repr(Adagrad(params)) == (
        "Adagrad(lr=0.01, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10)"
    )


@pytest.mark.parametrize(("make", "formula", "options"), CASES)
def test_a_resumed_run_has_the_same_bits(make, formula, options):
    params, again = parameters(np.float32), parameters(np.float32)
    first, second = make(params, **options), make(again, **options)
    for step in range(6):
        if step == 3:
            for p, q in zip(params, again, strict=True):
                q.data[...] = p.data
            second.load_state_dict(first.state_dict())
        set_gradients(params, step)
        first.step()
        if step >= 3:
            set_gradients(again, step)
            second.step()
    for p, q in zip(params, again, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_state_dict_is_a_copy_of_arrays():
    params = parameters(np.float32)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    assert list(state)[:3] == ["step", "lr", "momentum_buffer.0"]
    assert all(isinstance(array, np.ndarray) for array in state.values())
    set_gradients(params, 0)
    optimizer.step()
    assert not state["momentum_buffer.0"].any()
    assert int(state["step"]) == 0


def test_load_state_dict_refuses_a_foreign_state_and_changes_nothing():
    params = parameters(np.float32)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"SGD: state has unknown entries exp_avg\.0"):
        optimizer.load_state_dict({**state, "exp_avg.0": np.zeros(3)})
    with pytest.raises(ValueError, match="SGD: state lacks lr"):
        optimizer.load_state_dict({name: array for name, array in state.items() if name != "lr"})
    with pytest.raises(ValueError, match=r"momentum_buffer\.1 has shape \(7, 5\), needs \(5, 7\)"):
        optimizer.load_state_dict({**state, "step": np.array(9), "momentum_buffer.1": np.zeros((7, 5))})
    assert optimizer.steps == 0


def test_frozen_parameters_stay():
    params = parameters(np.float32)
    params[1].requires_grad = False
    before = [p.data.copy() for p in params]
    set_gradients(params, 0)
    Adam(params, lr=0.1).step()
    changed = [not np.array_equal(p.data, old) for p, old in zip(params, before, strict=True)]
    assert changed == [True, False, True, True, True]


def test_zero_grad_and_a_learning_rate_set_by_hand():
    params = parameters(np.float64)
    optimizer = SGD(params, lr=0.0)
    before = params[0].data.copy()
    set_gradients(params, 0)
    optimizer.step()
    np.testing.assert_array_equal(params[0].data, before)
    optimizer.lr = 0.5
    optimizer.step()
    np.testing.assert_allclose(params[0].data, before - 0.5 * params[0].grad, rtol=0, atol=1e-15)
    optimizer.zero_grad()
    assert not any(p.grad.any() for p in params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: SGD([], lr=0.1), "SGD: no parameters to train"),
        (lambda p: SGD([p, p], lr=0.1), "a parameter occurs more than once among the 2 given"),
        (lambda p: SGD([p], lr=-1), r"SGD: lr must be in \[0, inf\), got -1.0"),
        (lambda p: SGD([p], lr=float("nan")), r"SGD: lr must be in \[0, inf\), got nan"),
        (lambda p: SGD([p], lr=1, momentum=-0.1), "SGD: momentum must be in"),
        (lambda p: SGD([p], lr=1, nesterov=True), "nesterov needs momentum > 0 and dampening == 0"),
        (lambda p: Adam([p], betas=(0.9, 1.0)), r"Adam: betas\[1\] must be in \[0, 1\), got 1.0"),
        (lambda p: AdamW([p], weight_decay=-1), "AdamW: weight_decay must be in"),
        (lambda p: RMSprop([p], alpha=1.5), r"RMSprop: alpha must be in \[0, 1\), got 1.5"),
        (lambda p: Adagrad([p], eps=-1e-9), "Adagrad: eps must be in"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(Parameter(np.zeros(3, np.float32)))


def minimise(optimizer, p, gradient, steps):
    for _ in range(steps):
        p.grad[...] = gradient(p.data)
        optimizer.step()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (SGD, {"lr": 0.02}),
        (SGD, {"lr": 0.02, "momentum": 0.9}),
        (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
        (Adam, {"lr": 0.05}),
        (AdamW, {"lr": 0.05, "weight_decay": 0.0}),
        (RMSprop, {"lr": 0.0005}),
        (Adagrad, {"lr": 0.5}),
    ],
)
def test_quadratic_bowl(make, options):
    """f(x) = sum(c (x - a)^2) / 2 with condition number 20."""
    curvature, minimum = np.array([1.0, 5.0, 20.0]), np.array([1.0, -2.0, 0.5])
    p = Parameter(np.zeros(3))
    minimise(make([p], **options), p, lambda x: curvature * (x - minimum), 5000)
    np.testing.assert_allclose(p.data, minimum, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "options"),
    [(SGD, {"lr": 1e-3, "momentum": 0.9}), (Adam, {"lr": 0.02}), (RMSprop, {"lr": 5e-4, "alpha": 0.9})],
)
def test_rosenbrock(make, options):
    """f(x, y) = (1 - x)^2 + 100 (y - x^2)^2 from (-1.2, 1); the minimum is (1, 1)."""
    p = Parameter(np.array([-1.2, 1.0]))

    def gradient(x):
        return [-2 * (1 - x[0]) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)]

    minimise(make([p], **options), p, gradient, 10_000)
    np.testing.assert_allclose(p.data, [1, 1], rtol=0, atol=0.02)
