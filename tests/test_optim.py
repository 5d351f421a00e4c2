"""Optimisers against PyTorch's formulas written down in NumPy, and on functions whose minimum is known."""

import copy

import numpy as np
import pytest

from fastconv import nn
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


# --- one block of memory for all parameters


def calls_of(optimizer):
    """Return a list that grows by the size of each kernel call's stretch."""
    sizes, update = [], optimizer._update
    optimizer._update = lambda run: (sizes.append(run.param.size), update(run))
    return sizes


@pytest.mark.parametrize(("make", "formula", "options"), CASES)
@pytest.mark.parametrize("frozen", [(), (1,), (0, 3, 4), (0, 1, 2, 3, 4)])
def test_one_pass_has_the_bits_of_a_step_for_each_parameter(make, formula, options, frozen):
    together, apart = parameters(np.float32), parameters(np.float32)
    for index in frozen:
        together[index].requires_grad = apart[index].requires_grad = False
    optimizer, optimizers = make(together, **options), [make([p], **options) for p in apart]
    sizes = calls_of(optimizer)
    for step in range(4):
        set_gradients(together, step)
        set_gradients(apart, step)
        optimizer.step()
        for one in optimizers:
            one.step()
    for p, q in zip(together, apart, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    runs = "".join(" " if k in frozen else "x" for k in range(5)).split()
    assert len(sizes) == 4 * len(runs)


def test_parameters_lie_side_by_side_on_cache_lines():
    params = parameters(np.float32)
    before = [p.data.copy() for p in params]
    SGD(params)
    starts = [p.data.ctypes.data for p in params]
    assert all(start % 64 == 0 for start in starts)
    assert starts[-1] - starts[0] < sum(p.data.nbytes + 64 for p in params)
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, old)


def test_a_parameter_with_another_array_is_updated_there():
    params, again = parameters(np.float32), parameters(np.float32)
    first, second = Adam(params, lr=0.1), Adam(again, lr=0.1)
    sizes = calls_of(first)
    own = params[2].data.copy()
    params[2].data = own
    params[3].grad = params[3].grad.copy()
    for step in range(3):
        set_gradients(params, step)
        set_gradients(again, step)
        first.step()
        second.step()
    assert params[2].data is own
    assert len(sizes) == 3 * 4  # 0 and 1 together, 4, 2 and 3 on their own
    for p, q in zip(params, again, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    first.zero_grad()
    assert not any(p.grad.any() for p in params)


def test_thawing_joins_the_runs_again():
    params = parameters(np.float32)
    params[1].requires_grad = False
    optimizer = SGD(params, lr=0.1)
    sizes = calls_of(optimizer)
    optimizer.step()
    params[1].requires_grad = True
    optimizer.step()
    assert len(sizes) == 2 + 1


def test_two_optimisers_share_a_block_and_halves_move_out():
    params = parameters(np.float64)
    first = SGD(params, lr=0.5)
    place = params[0].data
    second = Adam(params)
    assert params[0].data is place
    half = SGD(params[:2], lr=0.5)
    assert params[0].data is not place
    set_gradients(params, 0)
    expected = [p.data - 0.5 * p.grad for p in params]
    sizes = calls_of(first)
    first.step()
    assert len(sizes) == 3  # two that moved, the other three together
    for p, want in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.data, want, rtol=0, atol=1e-15)
    half.step()
    second.step()


def test_dtypes_have_blocks_of_their_own():
    params = [*parameters(np.float32), *parameters(np.float64)]
    optimizer = SGD(params, lr=0.1)
    sizes = calls_of(optimizer)
    optimizer.step()
    assert len(sizes) == 2
    assert [p.data.dtype for p in params] == [np.float32] * 5 + [np.float64] * 5


def test_models_train_on_in_their_block():
    def train(model, optimizer, steps):
        loss = nn.CrossEntropyLoss()
        for step in range(steps):
            rng = np.random.default_rng(step)
            x = rng.standard_normal((8, 5)).astype(next(model.parameters()).data.dtype)
            optimizer.zero_grad()
            loss(model(x), rng.integers(0, 3, 8))
            model.backward(loss.backward())
            optimizer.step()

    def build():
        model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
        rng = np.random.default_rng(0)
        state = model.state_dict()
        model.load_state_dict({k: rng.standard_normal(v.shape).astype(v.dtype) for k, v in state.items()
                               if v.dtype.kind == "f"}, strict=False)  # fmt: skip
        return model

    model = build()
    model[1].running_var[...] = 1
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, 2)
    saved, states = model.state_dict(), optimizer.state_dict()
    places = [p.data for p in model.parameters()]

    twin = copy.deepcopy(model)
    assert all(p.home is None for p in twin.parameters())
    follower = SGD(twin.parameters(), lr=0.1, momentum=0.9)
    follower.load_state_dict(states)
    train(model, optimizer, 3)
    train(twin, follower, 3)
    final = model.state_dict()
    for name, array in twin.state_dict().items():
        np.testing.assert_array_equal(array, final[name])

    model.load_state_dict(saved)
    optimizer.load_state_dict(states)
    assert all(p.data is place for p, place in zip(model.parameters(), places, strict=True))
    train(model, optimizer, 3)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, final[name])

    model.astype(np.float64)
    train(model, SGD(model.parameters(), lr=0.1), 1)
    assert all(p.data.dtype == np.float64 and p.grad.any() for p in model.parameters())


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
