"""Parameter groups, gradients held within bounds, averaged weights: against PyTorch, and to the same bits."""

import copy
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastconv
from fastconv import functional as F
from fastconv import nn, optim
from fastconv.nn import Parameter
from fastconv.optim import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm_, clip_grad_value_

SHAPES = [(5, 7), (5,), (4, 3, 3, 3), (4,), (2, 9)]
METHODS = [
    (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, {"lr": 0.02, "momentum": 0.5, "nesterov": True}),
    (SGD, {"lr": 0.1}, {"momentum": 0.9}),
    (Adam, {"lr": 0.01}, {"betas": (0.8, 0.9), "weight_decay": 0.1, "lr": 0.05}),
    (AdamW, {"lr": 0.01}, {"weight_decay": 0.0, "eps": 1e-4}),
    (RMSprop, {"lr": 0.01}, {"momentum": 0.5, "centered": True, "alpha": 0.9}),
    (Adagrad, {"lr": 0.01}, {"lr_decay": 0.1, "lr": 0.1}),
]
methods = pytest.mark.parametrize(("make", "defaults", "own"), METHODS)


def parameters(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]


def set_gradients(params, step):
    rng = np.random.default_rng(100 + step)
    for p in params:
        p.grad[...] = rng.normal(size=p.shape)


def grouped(params, own):
    """The first two in a group of their own, in the middle of the others."""
    return [{"params": [params[2]]}, {"params": params[:2], **own}, {"params": params[3:]}]


def bits(params):
    return [p.data.tobytes() for p in params]


@methods
def test_groups_are_pytorchs(make, defaults, own):
    torch = pytest.importorskip("torch")
    ours, theirs = parameters(), [torch.nn.Parameter(torch.tensor(p.data.copy())) for p in parameters()]
    optimizer = make(grouped(ours, own), **defaults)
    other = getattr(torch.optim, make.__name__)(grouped(theirs, own), **defaults)
    for step in range(6):
        set_gradients(ours, step)
        for p, q in zip(ours, theirs, strict=True):
            q.grad = torch.tensor(p.grad)
        if step == 3:  # as a schedule does
            optimizer.lr *= 0.5
            for group in other.param_groups:
                group["lr"] *= 0.5
        optimizer.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        assert_allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-13)


@methods
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_group_has_the_bits_of_an_optimiser_of_its_own(make, defaults, own, dtype):
    together, apart = parameters(dtype), parameters(dtype)
    one = make(grouped(together, own), **defaults)
    two = [make(apart[2:], **defaults), make(apart[:2], **{**defaults, **own})]
    for step in range(5):
        set_gradients(together, step)
        set_gradients(apart, step)
        one.step()
        for optimizer in two:
            optimizer.step()
    assert bits(together) == bits(apart)


@methods
def test_state_of_groups_goes_round(make, defaults, own):
    first, second = parameters(), parameters()
    a, b = make(grouped(first, own), **defaults), make(grouped(second, own), **defaults)
    for step in range(6):
        if step == 3:
            a.lr = 0.005
            for p, q in zip(first, second, strict=True):
                q.data[...] = p.data
            b.load_state_dict(a.state_dict())
            copied, c = copy.deepcopy((first, a))
        set_gradients(first, step)
        a.step()
        if step >= 3:
            for others, optimizer in ((second, b), (copied, c)):
                set_gradients(others, step)
                optimizer.step()
    assert bits(first) == bits(second) == bits(copied)


def test_a_rate_of_its_own_follows_the_optimisers():
    params = parameters()
    optimizer = SGD([{"params": params[:2], "lr": 0.01}, {"params": params[2:]}], lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]
    optimizer.lr = 0.05
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.05]
    optimizer.lr = 0.0
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    optimizer.lr = 0.1
    assert optimizer.param_groups[0]["lr"] == 0.01
    optimizer.param_groups[1]["lr"] = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.2]
    alone = SGD(params, lr=0.1)
    alone.param_groups[0]["lr"] = 0.3
    alone.param_groups[0]["momentum"] = 0.9
    assert (alone.lr, alone.momentum) == (0.3, 0.9)
    assert dict(alone.param_groups[0])["params"] == params
    assert "5 parameters, lr=0.3" in repr(alone.param_groups[0])


def net():
    fastconv.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.parametrize("make", [SGD, Adam, AdamW, RMSprop, Adagrad])
def test_biases_and_norms_are_left_out_of_decay_by_one_switch(make):
    model, twin = net(), net()
    optimizer = make(model, lr=0.1, weight_decay=0.5, decay_bias_norm=False)
    assert sorted(p.data.ndim for p in optimizer.param_groups[1]["params"]) == [1, 1, 1, 1]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    params = list(twin.parameters())
    both = [make([p for p in params if (p.data.ndim > 1) is wide], lr=0.1, weight_decay=0.5 if wide else 0.0)
            for wide in (True, False)]  # fmt: skip
    for step in range(4):
        set_gradients(list(model.parameters()), step)
        set_gradients(params, step)
        optimizer.step()
        for other in both:
            other.step()
    assert bits(model.parameters()) == bits(params)
    assert optimizer.params == list(model.parameters())


def test_two_groups_are_two_runs_of_memory():
    """What has no decay lies side by side, so that a step is one call per group."""
    optimizer = SGD(net(), lr=0.1, weight_decay=0.5, decay_bias_norm=False)
    optimizer._look()
    assert len(optimizer._runs) == 2


def test_frozen_and_late_parameters_in_groups_are_pytorchs():
    torch = pytest.importorskip("torch")
    ours, theirs = parameters(), [torch.nn.Parameter(torch.tensor(p.data.copy())) for p in parameters()]
    optimizer, other = Adam(ours[:2], lr=0.01), torch.optim.Adam(theirs[:2], lr=0.01)
    for step in range(8):
        if step == 2:
            optimizer.add_param_group({"params": ours[2:], "lr": 0.05, "weight_decay": 0.1})
            other.add_param_group({"params": theirs[2:], "lr": 0.05, "weight_decay": 0.1})
        frozen = 3 if 3 <= step < 5 else None
        set_gradients(ours, step)
        for k, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.requires_grad = k != frozen
            q.grad = None if k == frozen else torch.tensor(p.grad)
        optimizer.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        assert_allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-13)


def test_a_group_that_does_not_fit_changes_nothing():
    params = parameters()
    optimizer = SGD(params[:3], lr=0.1, momentum=0.9)
    set_gradients(params, 0)
    optimizer.step()
    before = optimizer.state_dict()
    for group, error, words in (
        ({"params": params[2:]}, ValueError, "occurs more than once among the 6 given"),
        ({"params": params[3:], "momentun": 0.5}, ValueError, "no setting 'momentun'; did you mean 'momentum'"),
        ({"params": params[3:], "lr": -1}, ValueError, "lr must be in"),
        ({"params": [3]}, TypeError, "one that holds int"),
        ({"lr": 0.1}, TypeError, 'must be a dictionary with "params"'),
        (params[3:], TypeError, "must be a dictionary"),
    ):
        with pytest.raises(error, match=words):
            optimizer.add_param_group(group)
    after = optimizer.state_dict()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    optimizer.step()
    with pytest.raises(ValueError, match="needs an lr above 0 beside it"):
        SGD([{"params": params, "lr": 0.1}], lr=0.0)
    with pytest.raises(ValueError, match="no setting 'initial_accumulator_value'"):
        Adagrad([{"params": params, "initial_accumulator_value": 0.1}])


def test_a_model_is_its_parameters():
    a, b = net(), net()
    for model, params in ((a, a), (b, b.parameters())):
        optimizer = SGD(params, lr=0.1)
        set_gradients(list(model.parameters()), 0)
        optimizer.step()
    assert bits(a.parameters()) == bits(b.parameters())


# --- clipping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("limit", [0.0, 0.5, 30.0, 1e4])
def test_clipping_is_pytorchs(order, limit):
    torch = pytest.importorskip("torch")
    ours = parameters()
    set_gradients(ours, 1)
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        q.grad = torch.tensor(p.grad.copy())
    norm = torch.nn.utils.clip_grad_norm_(theirs, limit, order)
    assert_allclose(clip_grad_norm_(ours, limit, order), norm.item(), rtol=1e-14)
    for p, q in zip(ours, theirs, strict=True):
        assert_allclose(p.grad, q.grad.numpy(), rtol=1e-13)
    torch.nn.utils.clip_grad_value_(theirs, limit / 10)
    clip_grad_value_(ours, limit / 10)
    for p, q in zip(ours, theirs, strict=True):
        assert_allclose(p.grad, q.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_have_the_same_bits_everywhere(every_setting, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 101, 300)).astype(dtype)

    def run():
        return tuple(F.vector_norm(part, order) for part in (x, x[0, :7], x[:, 3, 5:]) for order in (1, 2, math.inf))

    found = set(every_setting(run).values())
    assert len(found) == 1
    exact = [np.linalg.norm(part.astype(np.float64).ravel(), order)
             for part in (x, x[0, :7], x[:, 3, 5:]) for order in (1, 2, math.inf)]  # fmt: skip
    assert_allclose(found.pop(), exact, rtol=(4096 / 16 + 8) * np.finfo(dtype).eps)


def test_norms_of_special_numbers():
    for order in (1, 2, math.inf):
        assert F.vector_norm(np.zeros((0, 3)), order) == 0
        assert math.isnan(F.vector_norm(np.array([1, np.nan, 3]), order))
        assert F.vector_norm(np.array([1, -np.inf, 3]), order) == math.inf
    whole = np.random.default_rng(1).integers(-8, 9, 20_000).astype(np.float32)
    assert F.vector_norm(whole, 1) == abs(whole).sum(dtype=np.float64)
    assert F.vector_norm(whole) == math.sqrt((whole.astype(np.float64) ** 2).sum())


def test_clipping_leaves_small_gradients_and_frozen_ones_alone():
    params = parameters(np.float32)
    set_gradients(params, 2)
    params[0].requires_grad = False
    params[0].grad[...] = 1e6
    before = [p.grad.copy() for p in params]
    norm = clip_grad_norm_(params, 1e3)
    assert norm < 100
    for p, old in zip(params, before, strict=True):
        assert_array_equal(p.grad, old)
    params[1].grad[0] = np.nan
    with pytest.raises(RuntimeError, match="the norm of the gradients is nan"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert_array_equal(params[2].grad, before[2])
    clip_grad_value_(params, 0.5)
    assert np.isnan(params[1].grad[0])
    assert abs(params[2].grad).max() == 0.5
    for call, words in (
        (lambda: clip_grad_norm_(params, -1), "max_norm must be at least 0, got -1"),
        (lambda: clip_grad_norm_(params, 1, 3), "ord must be 1, 2 or inf, got 3"),
        (lambda: clip_grad_value_(params, math.nan), "clip_value must be at least 0, got nan"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="parameters must be Parameters"):
        clip_grad_norm_([np.zeros(3)], 1.0)


# --- averages ---------------------------------------------------------------------------------------------


def test_the_average_is_pytorchs():
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model, theirs = nn.Linear(4, 3).astype(np.float64), torch.nn.Linear(4, 3).double()
    ema, other = optim.EMA(model, 0.9), AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    rng = np.random.default_rng(0)
    for _ in range(5):
        for p, q in zip(model.parameters(), theirs.parameters(), strict=True):
            p.data[...] = rng.normal(size=p.shape)
            q.data = torch.tensor(p.data.copy())
        ema.update()
        other.update_parameters(theirs)
    with ema.applied():
        for p, q in zip(model.parameters(), other.module.parameters(), strict=True):
            assert_allclose(p.data, q.detach().numpy(), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averages_have_the_same_bits_everywhere(every_setting, dtype):
    rng = np.random.default_rng(1)
    start, param = (rng.normal(size=30_001).astype(dtype) for _ in range(2))

    def run():
        average = start.copy()
        for decay in (0.9, 0.3, 0.999):
            F.ema_step(average, param, decay)
        return average.tobytes()

    assert len(set(every_setting(run).values())) == 1
    average = start.copy()
    F.ema_step(average, param, 0.0)
    assert_array_equal(average, param)
    F.ema_step(average, start, 1.0)
    assert_array_equal(average, param)


def test_averages_come_and_go():
    model = net()
    ema = optim.EMA(model, 0.5)
    own = bits(model.parameters())
    with ema.applied():  # nothing averaged yet
        assert bits(model.parameters()) == own
    ema.update()
    for p in model.parameters():
        p.data += 1
    ema.update()
    moved = bits(model.parameters())
    with ema.applied():
        inside = bits(model.parameters())
        with pytest.raises(RuntimeError, match="holds its averages"):
            ema.update()
        with pytest.raises(RuntimeError, match="already"), ema.applied():
            pass
    assert bits(model.parameters()) == moved
    assert inside != moved
    again = optim.EMA(model, 0.5)
    again.load_state_dict(ema.state_dict())
    assert again.steps == 2
    with again.applied():
        assert bits(model.parameters()) == inside
    again.copy_to(model)
    assert bits(model.parameters()) == inside
    with pytest.raises(ValueError, match=r"not a state of this model's average: 0\.weight"):
        ema.load_state_dict({k: v for k, v in ema.state_dict().items() if k != "0.weight"})
    with pytest.raises(ValueError, match=r"EMA: decay must be in \[0, 1\), got 1.0"):
        optim.EMA(model, 1.0)
