"""Losses with weights, soft targets, labels left out; losses of elements; Dice: oracles, PyTorch, bits, gradients."""

import gc
import inspect
import math
import pickle
import re
import weakref

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F
from fastconv import nn

FLOATS = [np.float32, np.float64]
REDUCTIONS = ["mean", "sum", "none"]
ELEMENTS = {
    "mse": (F.mse_loss, F.mse_loss_backward, None),
    "l1": (F.l1_loss, F.l1_loss_backward, None),
    "smooth_l1": (F.smooth_l1_loss, F.smooth_l1_loss_backward, "beta"),
    "huber": (F.huber_loss, F.huber_loss_backward, "delta"),
    "bce": (F.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits_backward, None),
}
floats = pytest.mark.parametrize("dtype", FLOATS)
elements = pytest.mark.parametrize("kind", ELEMENTS)


def drawn_cross_entropy(rng, dtype=np.float64, soft=None):
    """Arguments of one call: scores, target, settings."""
    n, c = int(rng.integers(1, 6)), int(rng.integers(1, 40))
    spatial = tuple(int(s) for s in rng.integers(1, 5, rng.integers(0, 3)))
    x = (rng.normal(size=(n, c, *spatial)) * 3).astype(dtype)
    labels = rng.integers(0, c, (n, *spatial))
    how = {"label_smoothing": float(rng.choice([0.0, 0.1, 1.0]))}
    if rng.random() < 0.5:
        how["weight"] = rng.uniform(0.1, 3, c).astype(dtype)
    if rng.random() < 0.5:
        how["sample_weight"] = rng.uniform(0, 2, (n, *spatial) if rng.random() < 0.5 else n).astype(dtype)
    if rng.random() < 0.4 if soft is None else soft:
        q = rng.uniform(0, 1, x.shape)
        return x, (q / q.sum(1, keepdims=True)).astype(dtype), how
    if rng.random() < 0.5:
        how["ignore_index"] = int(rng.choice([-100, 255, 0]))
        labels[rng.random(labels.shape) < 0.3] = how["ignore_index"]
    return x, labels, how


def drawn_elements(rng, kind, dtype=np.float64):
    shape = tuple(int(s) for s in rng.integers(1, 9, rng.integers(1, 5)))
    x = (rng.normal(size=shape) * 2).astype(dtype)
    t = rng.uniform(0, 1, shape).astype(dtype) if kind == "bce" else rng.normal(size=shape).astype(dtype)
    how = {}
    if (name := ELEMENTS[kind][2]) is not None:
        how[name] = float(rng.choice([0.3, 1.0, 2.5]))
    if rng.random() < 0.5:
        how["sample_weight"] = rng.uniform(0, 2, shape if rng.random() < 0.5 else shape[:1]).astype(dtype)
    if kind == "bce":
        if rng.random() < 0.5:
            how["pos_weight"] = rng.uniform(0.2, 5, shape[-1:]).astype(dtype)
        if rng.random() < 0.5:
            how["weight"] = rng.uniform(0, 2, shape[-1:]).astype(dtype)
    return x, t, how


def exact_elements(kind, x, t, how):
    losses = reference.element_loss(kind, x, t, how.get(ELEMENTS[kind][2], 0.0), how.get("pos_weight", 1.0))
    count = float(losses.size)
    if "weight" in how:
        losses = losses * how["weight"]
    if "sample_weight" in how:
        s = how["sample_weight"].astype(np.float64)
        s = np.broadcast_to(s.reshape(*s.shape, *(1,) * (losses.ndim - s.ndim)), losses.shape)
        losses, count = losses * s, s.sum()
    return losses, count


def check_reductions(call, single, losses, count, atol):
    assert_allclose(single, losses, rtol=0, atol=atol)
    total = call("sum")
    assert type(total) is float
    assert_allclose(total, losses.sum(), rtol=1e-5 if single.dtype == np.float32 else 1e-12, atol=atol)
    assert_allclose(call("mean"), losses.sum() / count if count else np.nan, rtol=1e-5, atol=atol)


# --- forward ----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(FLOATS))
@settings(max_examples=150, deadline=None)
def test_weighted_cross_entropy_matches_the_oracle(seed, dtype):
    x, target, how = drawn_cross_entropy(np.random.default_rng(seed), dtype)
    losses, count = reference.weighted_cross_entropy(x, target, **how)
    bound = 3 * np.finfo(dtype).eps * (8 * max(1.0, abs(x).max()) + x.shape[1]) * 9
    check_reductions(lambda r: F.cross_entropy(x, target, r, **how), F.cross_entropy(x, target, "none", **how),
                     losses, count, bound)  # fmt: skip


@elements
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(FLOATS))
@settings(max_examples=60, deadline=None)
def test_element_losses_match_the_oracle(kind, seed, dtype):
    x, t, how = drawn_elements(np.random.default_rng(seed), kind, dtype)
    losses, count = exact_elements(kind, x, t, how)
    function = ELEMENTS[kind][0]
    bound = 16 * np.finfo(dtype).eps * max(1.0, abs(x).max(), abs(t).max()) ** 2 * 10
    check_reductions(lambda r: function(x, t, r, **how), function(x, t, "none", **how), losses, count, bound)


def drawn_dice(rng, dtype=np.float64):
    n, c = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    spatial = tuple(int(s) for s in rng.integers(1, 9, rng.integers(0, 3)))
    x = rng.normal(size=(n, c, *spatial)).astype(dtype)
    how = {"normalize": "sigmoid" if c == 1 or rng.random() < 0.5 else "softmax", "smooth": float(rng.choice([1, 0.1]))}
    if rng.random() < 0.3:
        return x, rng.uniform(0, 1, x.shape).astype(dtype), how
    target = rng.integers(0, max(c, 2), (n, *spatial))
    if rng.random() < 0.5:
        how["ignore_index"] = 255
        target[rng.random(target.shape) < 0.3] = 255
    return x, target, how


@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(FLOATS))
@settings(max_examples=100, deadline=None)
def test_dice_matches_the_oracle(seed, dtype):
    rng = np.random.default_rng(seed)
    x, target, how = drawn_dice(rng, dtype)
    losses = reference.dice_loss(x, target, **how)
    assert_allclose(F.dice_loss(x, target, "none", **how), losses, rtol=0, atol=100 * np.finfo(dtype).eps)
    weight = rng.uniform(0.1, 2, len(x)).astype(dtype)
    mean = (losses * weight[:, None]).sum() / weight.sum() / x.shape[1]
    assert_allclose(F.dice_loss(x, target, sample_weight=weight, **how), mean, rtol=0, atol=100 * np.finfo(dtype).eps)


def test_dice_by_hand():
    """Whole marks: two of three right pixels, one too many: 1 - 2 * 2 / (3 + 3)."""
    p = np.array([[[1, 1, 1, 0, 0.0]]])
    t = np.array([[[1, 1, 0, 1, 0.0]]])
    assert F.dice_loss(p, t, normalize="none", smooth=0.0) == 1 - 4 / 6
    assert F.dice_loss(p, t[:, 0].astype(int), normalize="none", smooth=0.0) == 1 - 4 / 6
    assert F.dice_loss(p, p, normalize="none", smooth=0.0) == 0
    nothing = np.zeros((1, 1, 4))
    assert math.isnan(F.dice_loss(nothing, nothing, normalize="none", smooth=0.0))
    assert F.dice_loss(nothing, nothing, normalize="none") == 0


@floats
def test_one_hot_probabilities_cost_what_labels_cost(dtype):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(50, 12)).astype(dtype), rng.integers(0, 12, 50)
    assert_allclose(F.cross_entropy(x, np.eye(12, dtype=dtype)[labels], "none"),
                    F.cross_entropy(x, labels, "none"), rtol=8 * np.finfo(dtype).eps)  # fmt: skip


@floats
def test_what_weighs_nothing_changes_nothing(isa, dtype):
    """Rows of the label left out may hold anything; ones as weights give plain bits."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(40, 20)).astype(dtype), rng.integers(0, 20, 40)
    plain, gradient = F.cross_entropy(x, labels), F.cross_entropy_backward(1.0, x, labels)
    ones = np.ones(40, dtype)
    assert F.cross_entropy(x, labels, sample_weight=ones, weight=np.ones(20, dtype)) == plain
    assert_array_equal(F.cross_entropy_backward(1.0, x, labels, sample_weight=ones), gradient)
    more = np.concatenate([x, np.full((3, 20), np.nan, dtype)])
    ignored = np.concatenate([labels, [-100] * 3])
    assert F.cross_entropy(more, ignored) == plain
    dx = F.cross_entropy_backward(1.0, more, ignored)
    assert_array_equal(dx[:40], gradient)
    assert_array_equal(dx[40:], 0)
    for smoothing in (0.0, 0.2):
        assert_array_equal(F.cross_entropy_backward(1.0, more[40:], ignored[40:], label_smoothing=smoothing), 0)
        assert math.isnan(F.cross_entropy(more[40:], ignored[40:], label_smoothing=smoothing))
        assert F.cross_entropy(more[40:], ignored[40:], "sum", label_smoothing=smoothing) == 0


@floats
def test_special_values_of_elements(isa, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([nan, inf, -inf, 0, 0, 1e4, -1e4], dtype)
    t = np.array([0, 0, 0, nan, 0, 1, 0], dtype)
    size = np.array([nan, inf, inf, nan, 0, 9999, 1e4], dtype)
    assert_array_equal(F.l1_loss(x, t, "none"), size)
    assert_array_equal(F.l1_loss_backward(1.0, x, t, "sum"), [nan, 1, -1, nan, 0, 1, -1])
    assert_array_equal(F.smooth_l1_loss(x, t, "none"), np.where(size > 1, size - dtype(0.5), size))
    assert_array_equal(F.huber_loss_backward(1.0, x, t, "sum", 2.0), [nan, 2, -2, nan, 0, 2, -2])
    found = F.binary_cross_entropy_with_logits(x, t, "none")
    assert_array_equal(found[[0, 1, 3, 5, 6]], [nan, inf, nan, 0, 0])
    grad = F.binary_cross_entropy_with_logits_backward(1.0, x, t, "sum")
    assert_array_equal(grad, [nan, 1, 0, nan, 0.5, 0, 0])


# --- equal bits -------------------------------------------------------------------------------------------


@floats
def test_same_bits_on_every_table_and_thread_count(every_setting, dtype):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 19, 40, 41)).astype(dtype)
    labels = rng.integers(0, 19, (3, 40, 41))
    labels[0, :9] = 255
    soft = rng.uniform(0, 1, x.shape).astype(dtype)
    settings_of = {"weight": rng.uniform(0, 2, 19).astype(dtype), "label_smoothing": 0.1,
                   "sample_weight": rng.uniform(0, 2, 3).astype(dtype)}  # fmt: skip
    each = rng.uniform(0, 2, x.shape).astype(dtype)

    def run():
        found = []
        for target, how in ((labels, {"ignore_index": 255, **settings_of}), (soft, settings_of)):
            found += [F.cross_entropy(x, target, r, **how) for r in REDUCTIONS]
            found.append(F.cross_entropy_backward(1.0, x, target, **how))
        for function, backward, _ in ELEMENTS.values():
            found += [function(x, soft, r, sample_weight=each) for r in REDUCTIONS]
            found.append(backward(1.0, x, soft, sample_weight=each))
        for target in (labels, soft):
            found += [F.dice_loss(x, target, ignore_index=255), F.dice_loss_backward(1.0, x, target, ignore_index=255)]
        return b"".join(np.asarray(a).tobytes() for a in found)

    assert len(set(every_setting(run).values())) == 1


def test_layout_never_changes_a_result():
    rng = np.random.default_rng(3)
    x, t = (rng.normal(size=(3, 5, 20, 21)).astype(np.float32) for _ in range(2))
    w = rng.uniform(0, 1, x.shape).astype(np.float32)
    labels = rng.integers(0, 5, (3, 20, 21))

    def run(lay):
        a, b, c = map(lay, (x, t, w))
        return [function(a, b, sample_weight=c) for function, _, _ in ELEMENTS.values()] + [
            backward(1.0, a, b, sample_weight=c).tobytes() for _, backward, _ in ELEMENTS.values()
        ] + [F.dice_loss(a, labels), F.cross_entropy(a, abs(b)), F.dice_loss(a, c)]

    plain = run(np.array)
    for lay in (
        lambda a: a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), np.asfortranarray, lambda a: a.astype(">f4"),
    ):  # fmt: skip
        assert run(lay) == plain


# --- gradients --------------------------------------------------------------------------------------------


def compare_gradient(value, dx, x, magnitude):
    h = 1e-6
    bound = 32 * np.finfo(float).eps * max(1.0, magnitude) / h + 200 * h * h * max(1.0, magnitude)
    assert_allclose(dx, reference.numerical_gradient(value, x), rtol=0, atol=bound)


@pytest.mark.gradients
@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_gradient_of_weighted_cross_entropy(reduction, seed):
    rng = np.random.default_rng(seed)
    x, target, how = drawn_cross_entropy(rng)
    losses, count = reference.weighted_cross_entropy(x, target, **how)
    if reduction == "mean" and not count:
        return
    g = rng.normal(size=losses.shape) if reduction == "none" else 1.5
    dx = F.cross_entropy_backward(g, x, target, reduction, **how)
    magnitude = np.abs(losses).sum() * np.abs(g).max() / (count if reduction == "mean" else 1)
    compare_gradient(lambda x: float(np.sum(g * F.cross_entropy(x, target, reduction, **how))), dx, x, magnitude)
    p = np.empty_like(x) if x.ndim < 4 else np.moveaxis(np.empty((len(x), *x.shape[2:], x.shape[1])), -1, 1)
    F.cross_entropy(x, target, reduction, probabilities=p, **how)
    assert_array_equal(F.cross_entropy_backward(g, x, target, reduction, probabilities=p, **how), dx)


@pytest.mark.gradients
@elements
@given(seed=st.integers(0, 2**32), reduction=st.sampled_from(REDUCTIONS))
@settings(max_examples=40, deadline=None)
def test_gradient_of_elements(kind, reduction, seed):
    rng = np.random.default_rng(seed)
    x, t, how = drawn_elements(rng, kind)
    losses, count = exact_elements(kind, x, t, how)
    d = abs(x - t)
    if (kind != "bce" and (abs(d - how.get(ELEMENTS[kind][2], 0.0)) < 1e-4).any()) or (d < 1e-4).any():
        return  # at a kink
    g = rng.normal(size=x.shape) if reduction == "none" else 1.5
    function, backward, _ = ELEMENTS[kind]
    magnitude = np.abs(losses).sum() * np.abs(g).max() / (count if reduction == "mean" else 1)
    compare_gradient(lambda x: float(np.sum(g * function(x, t, reduction, **how))), backward(g, x, t, reduction, **how),
                     x, magnitude)  # fmt: skip


@pytest.mark.gradients
@given(seed=st.integers(0, 2**32), reduction=st.sampled_from(REDUCTIONS))
@settings(max_examples=60, deadline=None)
def test_gradient_of_dice(reduction, seed):
    rng = np.random.default_rng(seed)
    x, target, how = drawn_dice(rng)
    if rng.random() < 0.5:
        how["sample_weight"] = rng.uniform(0.1, 2, len(x))
    g = rng.normal(size=x.shape[:2]) if reduction == "none" else 1.5
    dx = F.dice_loss_backward(g, x, target, reduction, **how)
    compare_gradient(lambda x: float(np.sum(g * F.dice_loss(x, target, reduction, **how))), dx, x, 2.0 * x.shape[1])


# --- PyTorch ----------------------------------------------------------------------------------------------


def torch_pair(torch, x):
    return torch.tensor(x.copy(), requires_grad=True)


@given(seed=st.integers(0, 2**32), reduction=st.sampled_from(REDUCTIONS))
@settings(max_examples=100, deadline=None)
def test_cross_entropy_is_pytorchs(seed, reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x, target, how = drawn_cross_entropy(rng)
    how.pop("sample_weight", None)
    theirs = torch_pair(torch, x)
    given_them = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in how.items()}
    loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(target), reduction=reduction, **given_them)
    assert_allclose(F.cross_entropy(x, target, reduction, **how), loss.detach().numpy(), rtol=1e-12, atol=1e-13)
    loss.sum().backward()
    g = np.ones(loss.shape) if reduction == "none" else 1.0
    if np.isfinite(theirs.grad.numpy()).all():  # of nothing but labels left out theirs may be NaN
        assert_allclose(F.cross_entropy_backward(g, x, target, reduction, **how), theirs.grad.numpy(), atol=1e-13)


@elements
@given(seed=st.integers(0, 2**32), reduction=st.sampled_from(REDUCTIONS))
@settings(max_examples=40, deadline=None)
def test_element_losses_are_pytorchs(kind, seed, reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x, t, how = drawn_elements(rng, kind)
    how.pop("sample_weight", None)
    name = ELEMENTS[kind][0].__name__
    theirs = torch_pair(torch, x)
    given_them = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in how.items()}
    weighted = {}
    if kind in ("mse", "l1") and "weight" in inspect.signature(getattr(torch.nn.functional, name)).parameters:
        w = rng.uniform(0.1, 2, x.shape)
        weighted, given_them["weight"] = {"sample_weight": w}, torch.tensor(w)
    loss = getattr(torch.nn.functional, name)(theirs, torch.tensor(t), reduction=reduction, **given_them)
    ours = ELEMENTS[kind][0](x, t, reduction, **how, **weighted)
    assert_allclose(ours, loss.detach().numpy(), rtol=1e-12, atol=1e-13)
    loss.sum().backward()
    g = np.ones(loss.shape) if reduction == "none" else 1.0
    dx = ELEMENTS[kind][1](g, x, t, reduction, **how, **weighted)
    assert_allclose(dx, theirs.grad.numpy(), rtol=1e-12, atol=1e-13)


# --- the boundary -----------------------------------------------------------------------------------------


def test_wrong_weights_and_targets_are_named():
    x, labels = np.zeros((3, 4)), np.array([0, 1, 2])
    for how, message in (
        ({"weight": np.array([1, -2.0, 1, 1])}, r"weight\[1\] is -2.0, but weights are finite and at least 0"),
        ({"weight": np.ones(3)}, r"weight must have shape \(4,\), got \(3,\)"),
        ({"sample_weight": np.array([1, np.nan, 1])}, r"sample_weight\[1\] is nan"),
        ({"sample_weight": np.ones(4)}, r"sample_weight must have shape \(3,\) or \(3,\), got \(4,\)"),
        ({"label_smoothing": 1.5}, r"label_smoothing must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": np.nan}, "label_smoothing must be in"),
        ({"ignore_index": 7}, None),
    ):
        for call in (F.cross_entropy, lambda *a, **k: F.cross_entropy_backward(1.0, *a, **k)):
            if message is None:
                call(x, labels, **how)
                continue
            with pytest.raises(ValueError, match=message):
                call(x, labels, **how)
    with pytest.raises(ValueError, match=r"target\[1\] is 255, but labels must lie in \[0, 4\)"):
        F.cross_entropy(x, np.array([0, 255, 2]))
    assert F.cross_entropy(x, np.array([0, 255, 2], np.uint8), ignore_index=255) == F.cross_entropy(x[:2], labels[:2])
    soft = np.full((3, 4), 0.25)
    soft[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"target\[2, 1\] is nan, but probabilities are at least 0"):
        F.cross_entropy(x, soft)
    with pytest.raises(TypeError, match="target is float32, input is float64"):
        F.cross_entropy(x, np.full((3, 4), 0.25, np.float32))
    with pytest.raises(TypeError, match=r"ignore_index must be a whole number, got 1\.5"):
        F.cross_entropy(x, labels, ignore_index=1.5)


def test_wrong_settings_of_elements_and_dice():
    x = np.zeros((3, 4))
    for call, message in (
        (lambda: F.smooth_l1_loss(x, x, beta=-1.0), "smooth_l1_loss: beta must be finite and at least 0, got -1.0"),
        (lambda: F.huber_loss(x, x, delta=0.0), "huber_loss: delta must be finite and above 0, got 0.0"),
        (lambda: F.l1_loss(x, x, sample_weight=np.ones(4)), r"sample_weight must have shape \(3,\) or \(3, 4\)"),
        (lambda: F.binary_cross_entropy_with_logits(x, x, pos_weight=np.ones(3)),
         r"pos_weight must go with shape \(3, 4\), got \(3,\)"),
        (lambda: F.binary_cross_entropy_with_logits(x, x, weight=np.full(4, np.inf)), r"weight\[0\] is inf"),
        (lambda: F.dice_loss(x, np.zeros(3, int), normalize="tanh"), "'softmax', 'sigmoid' or 'none', got 'tanh'"),
        (lambda: F.dice_loss(x, np.array([0, 4, 1])), r"target\[1\] is 4, but labels must lie in \[0, 4\)"),
        (lambda: F.dice_loss(x[:, :1], np.zeros(3, int)), "the softmax of one class is 1"),
        (lambda: F.dice_loss(x, np.zeros(3, int), smooth=-1), "smooth must be finite and at least 0, got -1"),
        (lambda: nn.SmoothL1Loss(beta=-1), "beta must be finite"),
        (lambda: nn.HuberLoss(delta=np.nan), "delta must be finite and above 0, got nan"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=-0.1), "label_smoothing must be in"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


# --- classes ----------------------------------------------------------------------------------------------


def test_classes_call_their_functions():
    rng = np.random.default_rng(4)
    x, t = (rng.normal(size=(6, 5)).astype(np.float32) for _ in range(2))
    labels, w = rng.integers(0, 5, 6), rng.uniform(0, 2, 6).astype(np.float32)
    weight = [1.0, 2.0, 3.0, 4.0, 5.0]
    for loss, target, function, backward, how in (
        (nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1), labels, F.cross_entropy, F.cross_entropy_backward,
         {"weight": np.array(weight, np.float32), "label_smoothing": 0.1}),
        (nn.DiceLoss(smooth=0.5), labels, F.dice_loss, F.dice_loss_backward, {"smooth": 0.5}),
        (nn.L1Loss(), t, F.l1_loss, F.l1_loss_backward, {}),
        (nn.MSELoss(), t, F.mse_loss, F.mse_loss_backward, {}),
        (nn.SmoothL1Loss(beta=0.3), t, F.smooth_l1_loss, F.smooth_l1_loss_backward, {"beta": 0.3}),
        (nn.HuberLoss(delta=0.3), t, F.huber_loss, F.huber_loss_backward, {"delta": 0.3}),
        (nn.BCEWithLogitsLoss(pos_weight=3.0), abs(t), F.binary_cross_entropy_with_logits,
         F.binary_cross_entropy_with_logits_backward, {"pos_weight": np.array(3, np.float32)}),
    ):  # fmt: skip
        for reduction in REDUCTIONS:
            loss.reduction = reduction
            for extra in ({}, {"sample_weight": w}):
                value = loss(x, target, *extra.values())
                expected = function(x, target, reduction, **how, **extra)
                assert_array_equal(value, expected)
                g = np.ones_like(expected) if reduction == "none" else 2.0
                assert_array_equal(loss.backward(g), backward(g, x, target, reduction, **how, **extra))
                assert pickle.loads(pickle.dumps(value)) is not None


def test_repr_shows_what_was_chosen():
    assert repr(nn.CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(label_smoothing=0.1, reduction='mean')"
    assert repr(nn.HuberLoss("sum")) == "HuberLoss(delta=1.0, reduction='sum')"
    assert repr(nn.DiceLoss()) == "DiceLoss(reduction='mean')"


def net():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


def test_a_loss_knows_its_way_back():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 3, 8)
    model, criterion = net(), nn.CrossEntropyLoss()
    loss = criterion(model(x), y)
    assert isinstance(loss, float)
    loss.backward()
    found = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    criterion(model(x), y)
    model.backward(criterion.backward())
    for ours, plain in zip(found, model.parameters(), strict=True):
        assert_array_equal(ours, plain.grad)
    first, second = net(), nn.Sequential(nn.Linear(3, 2))
    criterion(second(first(x)), y % 2).backward()
    assert all(p.grad.any() for m in (first, second) for p in m.parameters())


def test_a_list_of_losses_holds_no_arrays():
    model, criterion = net(), nn.CrossEntropyLoss()
    y = np.array([0, 1])
    held = weakref.ref(y)
    kept = [criterion(model(np.ones((2, 4), np.float32)), y)]
    criterion(model(np.ones((1, 4), np.float32)), np.array([0]))
    del y
    gc.collect()
    assert held() is None
    assert kept[0] > 0


def test_a_loss_that_has_lost_its_way_says_so():
    x, y = np.ones((2, 4), np.float32), np.array([0, 1])
    model, criterion = net(), nn.CrossEntropyLoss()
    old = criterion(model(x), y)
    criterion(model(x), y)
    with pytest.raises(RuntimeError, match="the loss has been called again since"):
        old.backward()
    held = nn.CrossEntropyLoss()(model(x), y)
    model(x)
    with pytest.raises(RuntimeError, match="the model has run again, or is gone"):
        held.backward()
    with pytest.raises(RuntimeError, match=r"call model\.backward\(loss\.backward\(\)\)"):
        criterion(model(x) * 2, y).backward()


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
@given(st.integers(0, 3), st.floats(-9, -0.25), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_weight_that_is_none_is_named_by_its_place(name, rank, wrong, seed):
    """A single number has no place."""
    rng = np.random.default_rng(seed)
    weight = np.ones((2, 3, 4)[3 - rank :])
    place = tuple(int(i) for i in rng.integers(0, weight.shape))
    weight[place] = wrong
    x = np.zeros((2, 3, 4))
    named = f"{name}[{', '.join(map(str, place))}]" if rank else name
    with pytest.raises(ValueError, match=rf"logits: {re.escape(f'{named} is {wrong}, but weights')}"):
        F.binary_cross_entropy_with_logits(x, x, **{name: weight})
