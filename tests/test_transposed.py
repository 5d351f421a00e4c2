"""Transposed convolutions: exact on integers, the adjoint of a convolution, gradients, PyTorch's names and values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layers import LAYOUTS
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F
from fastconv import nn
from fastconv.testing import gradcheck


@dataclass(frozen=True)
class Case:
    """One transposed convolution; the last five in the order of the function's arguments."""

    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        return self.name

    @property
    def options(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation

    @property
    def channels(self) -> int:
        return self.w[1] * self.groups

    @property
    def output(self) -> tuple[int, ...]:
        sides = [
            (n - 1) * s - 2 * p + d * (k - 1) + more + 1
            for n, k, s, p, more, d in zip(
                self.x[2:], self.w[2:], self.stride, self.padding, self.output_padding, self.dilation, strict=True
            )
        ]
        return (self.x[0], self.channels, *sides)


CASES = [
    Case("one pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
    Case("U-Net up", (2, 8, 5, 4), (8, 4, 2, 2), (2, 2)),
    Case("channel tails", (2, 17, 6, 5), (17, 13, 3, 3), (1, 1), (1, 1)),
    Case("wide, over several tiles", (2, 24, 9, 11), (24, 40, 3, 3), (2, 2), (1, 1), (1, 1)),
    Case("generator 4x4 s2 p1", (3, 16, 4, 4), (16, 8, 4, 4), (2, 2), (1, 1)),
    Case("stride wider than the kernel", (2, 3, 4, 3), (3, 5, 2, 1), (3, 4)),
    Case("stride, padding and dilation of two kinds", (2, 4, 5, 6), (4, 3, 3, 2), (2, 3), (2, 1), (1, 2), 1, (2, 1)),
    Case("groups", (2, 6, 5, 4), (6, 2, 3, 3), (2, 1), (1, 0), (1, 0), 3),
    Case("depthwise", (2, 16, 6, 5), (16, 1, 3, 3), (2, 2), (1, 1), (1, 1), 16),
    Case("output padding as wide as the stride, below the dilation", (2, 3, 4, 4), (3, 4, 2, 2), (1, 2), (1, 0),
         (1, 2), 1, (2, 3)),
    Case("the padding cuts whole taps off", (1, 3, 4, 4), (3, 2, 3, 3), (1, 1), (2, 2)),
    Case("no images", (0, 3, 4, 4), (3, 2, 3, 3)),
]  # fmt: skip


@st.composite
def drawn_cases(draw):
    two = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    groups = draw(st.integers(1, 3))
    stride, dilation = two(1, 3), two(1, 3)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    x = (draw(st.integers(1, 2)), groups * draw(st.integers(1, 3)), *two(1, 5))
    case = Case(
        "drawn", x, (x[1], draw(st.integers(1, 3)), *two(1, 3)), stride, two(0, 2), more, groups, dilation
    )  # fmt: skip
    assume(min(case.output) > 0)
    return case


def integers(case, dtype=np.float32, seed=0):
    """Return x, w, b and a gradient of the output, whose products add up exactly in any order."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-4, 5, shape).astype(dtype) for shape in (case.x, case.w, (case.channels,), case.output)]


def normals(case, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in (case.x, case.w, (case.channels,), case.output)]


def run(case, x, w, b, g):
    """Return the output and the three gradients."""
    return F.conv_transpose2d(x, w, b, *case.options), *F.conv_transpose2d_backward(g, x, w, b, *case.options)


def expected(case, x, w, b, g):
    return (
        reference.conv_transpose2d(x, w, b, *case.options),
        *reference.conv_transpose2d_backward(g, x, w, *case.options),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_are_exact_on_every_isa_and_thread_count(case, dtype, every_setting):
    arrays = integers(case, dtype)
    wanted = expected(case, *arrays)
    for setting, results in every_setting(lambda: run(case, *arrays)).items():
        for name, got, want in zip(("output", "grad_x", "grad_w", "grad_b"), results, wanted, strict=True):
            assert got.dtype == dtype
            assert_array_equal(got, want, err_msg=f"{name} with {setting}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_random_data_gives_the_same_bits_on_every_isa_and_thread_count(case, every_setting):
    arrays = normals(case)
    results = every_setting(lambda: [a.tobytes() for a in run(case, *arrays)])
    assert len(set(map(tuple, results.values()))) == 1


@given(case=drawn_cases(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_drawn_shapes_are_exact(case, seed):
    arrays = integers(case, seed=seed)
    for got, want in zip(run(case, *arrays), expected(case, *arrays), strict=True):
        assert_array_equal(got, want)


@given(case=drawn_cases(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_it_has_the_bits_of_a_convolution_turned_around(case, seed):
    assume(all(more < s for more, s in zip(case.output_padding, case.stride, strict=True)))
    x, w, _, g = normals(case, seed=seed)
    backwards = (case.stride, case.padding, case.dilation, case.groups)
    grad, grad_w, _ = F.conv2d_backward(x, g, w, *backwards)
    y, grad_x, its_grad_w, none = run(case, x, w, None, g)
    assert none is None
    assert_array_equal(y, grad)
    assert_array_equal(grad_x, F.conv2d(g, w, None, *backwards))
    assert_array_equal(its_grad_w, grad_w)


@given(case=drawn_cases(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_it_is_the_adjoint_of_a_convolution(case, seed):
    assume(all(more < s for more, s in zip(case.output_padding, case.stride, strict=True)))
    x, w, _, g = integers(case, np.float64, seed)
    down = reference.conv2d(g, w, None, case.stride, case.padding, case.dilation, case.groups)
    assert (F.conv_transpose2d(x, w, None, *case.options) * g).sum() == (x * down).sum()


@pytest.mark.gradients
@given(case=drawn_cases(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_gradients_match_central_differences(case, seed):
    x, w, b, g = normals(case, np.float64, seed)
    found = F.conv_transpose2d_backward(g, x, w, b, *case.options)
    for i, (name, array) in enumerate(zip("xwb", (x, w, b), strict=True)):
        def loss(changed, i=i):
            operands = [changed if j == i else a for j, a in enumerate((x, w, b))]
            return float((F.conv_transpose2d(*operands, *case.options) * g).sum())

        size = max(np.abs(x).max() * np.abs(w).max() * case.x[1] * np.prod(case.w[2:]), 1)
        bound = 8 * np.finfo(np.float64).eps * (1 + np.abs(g).sum() * size) / 1e-6
        numerical = reference.numerical_gradient(loss, array)
        assert_allclose(found[i], numerical, rtol=0, atol=bound, err_msg=name)


@pytest.mark.gradients
@given(case=drawn_cases(), bias=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_the_layers_pass_the_gradient_check(case, bias, seed):
    n, c, _, w = case.x
    settings_2d = (case.w[2:], case.stride, case.padding, case.output_padding, case.groups, bias, case.dilation)
    gradcheck(nn.ConvTranspose2d(c, case.channels, *settings_2d), case.x, seed=seed)
    settings_1d = [value[1] if isinstance(value, tuple) else value for value in settings_2d]
    gradcheck(nn.ConvTranspose1d(c, case.channels, *settings_1d), (n, c, w), seed=seed)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("case", CASES[1:10], ids=str)
def test_layout_never_changes_a_result(case, name):
    x, w, b, g = normals(case)
    laid = [LAYOUTS[name if a.ndim > 1 else "C"](a) for a in (x, w, b, g)]
    for got, want in zip(run(case, *laid), run(case, x, w, b, g), strict=True):
        assert_array_equal(got, want)
    out = np.empty(np.array(case.output)[[0, 2, 3, 1]], np.float32).transpose(0, 3, 1, 2)
    assert F.conv_transpose2d(*laid[:3], *case.options, out=out) is out
    assert_array_equal(out, run(case, x, w, b, g)[0])


@given(case=drawn_cases(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_signal_is_an_image_of_one_row(case, seed):
    x, w, b, g = normals(case, seed=seed)
    signal = Case("signal", (*case.x[:2], 1, case.x[3]), (*case.w[:2], 1, case.w[3]), (1, case.stride[1]),
                  (0, case.padding[1]), (0, case.output_padding[1]), case.groups, (1, case.dilation[1]))  # fmt: skip
    x, w, g = x[:, :, :1], w[:, :, :1], g[:, :, :1]
    options = [value[1] if isinstance(value, tuple) else value for value in case.options]
    y = F.conv_transpose1d(x[:, :, 0], w[:, :, 0], b, *options)
    grads = F.conv_transpose1d_backward(g[:, :, 0], x[:, :, 0], w[:, :, 0], b, *options)
    of_image = run(signal, x, w, b, g)
    for got, want in zip((y, *grads), of_image, strict=True):
        assert_array_equal(got, want.reshape(got.shape))


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "weight expects 4 input channels, input has 3",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(4, 2, 3, 3))),
        (ValueError, "input has 4, and groups must divide them .*groups=3",
         lambda: F.conv_transpose2d(ones(1, 4, 4, 4), ones(4, 2, 3, 3), groups=3)),
        (ValueError, "groups must be an int >= 1, got 0",
         lambda: F.conv_transpose2d(ones(1, 4, 4, 4), ones(4, 2, 3, 3), groups=0)),
        (ValueError, "groups must be an int >= 1, got 1.5",
         lambda: F.conv_transpose2d(ones(1, 4, 4, 4), ones(4, 2, 3, 3), groups=1.5)),
        (ValueError, "input must have 4 dimensions, got shape",
         lambda: F.conv_transpose2d(ones(3, 4, 4), ones(3, 2, 3, 3))),
        (ValueError, "weight must have 3 dimensions, got shape",
         lambda: F.conv_transpose1d(ones(1, 3, 4), ones(3, 2, 3, 3))),
        (ValueError, "weight has an empty dimension", lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 0, 3, 3))),
        (ValueError, r"bias must have shape \(2,\), got \(3,\)",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3), ones(3))),
        (ValueError, r"output_padding=\(2, 1\).*must be below stride or dilation",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3), stride=2, output_padding=(2, 1))),
        (ValueError, r"padding=\(3, 3\).*make an output of 0x0 of an input of shape \(1, 3, 4, 4\)",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3), padding=3)),
        (ValueError, "stride must be an int >= 1 .*got 0",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3), stride=0)),
        (ValueError, "larger than any memory",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3), stride=2**40)),
        (TypeError, "float32 and float64",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3, dtype=np.float64))),
        (TypeError, "int64", lambda: F.conv_transpose2d(ones(1, 3, 4, 4, dtype=np.int64), ones(3, 2, 3, 3))),
        (ValueError, r"grad_output must have shape \(1, 2, 6, 6\), got \(1, 2, 5, 6\)",
         lambda: F.conv_transpose2d_backward(ones(1, 2, 5, 6), ones(1, 3, 4, 4), ones(3, 2, 3, 3))),
        (ValueError, "out must be writable, channels-last",
         lambda: F.conv_transpose2d(ones(1, 3, 4, 4), ones(3, 2, 3, 3), out=ones(1, 2, 6, 6))),
        (ValueError, "groups=2 must divide in_channels=3", lambda: nn.ConvTranspose2d(3, 4, 2, groups=2)),
        (ValueError, "kernel_size must be an int >= 1", lambda: nn.ConvTranspose1d(3, 4, (2, 2))),
        (ValueError, "output_padding must be an int >= 0", lambda: nn.ConvTranspose2d(3, 4, 2, output_padding=-1)),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_with_the_values(error, words, call):
    with pytest.raises(error, match=words):
        call()


# ---- beside PyTorch


@given(case=drawn_cases(), bias=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_layers_have_torch_s_names_and_values(case, bias, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    size = (case.w[2:], case.stride, case.padding, case.output_padding, case.groups, bias, case.dilation)
    for dimensions, ours, theirs in (
        (2, nn.ConvTranspose2d, torch.nn.ConvTranspose2d), (1, nn.ConvTranspose1d, torch.nn.ConvTranspose1d),
    ):  # fmt: skip
        options = size if dimensions == 2 else [value[1] if isinstance(value, tuple) else value for value in size]
        shape = case.x if dimensions == 2 else (*case.x[:2], case.x[3])
        layer = ours(case.x[1], case.channels, *options).astype(np.float64)
        other = theirs(case.x[1], case.channels, *options).double()
        other.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in layer.state_dict().items()})
        x = rng.integers(-4, 5, shape).astype(np.float64)
        y = layer(x)
        given_x = torch.from_numpy(x).requires_grad_()
        wanted = other(given_x)
        assert y.shape == tuple(wanted.shape)
        g = rng.integers(-4, 5, y.shape).astype(np.float64)
        wanted.backward(torch.from_numpy(g))
        terms = 4 * (np.prod(case.w[2:]) * case.x[1] + np.prod(y.shape)) + 1
        near = dict(rtol=0, atol=4 * 16 * terms * np.finfo(np.float64).eps)
        assert_allclose(y, wanted.detach().numpy(), **near)
        assert_allclose(layer.backward(g), given_x.grad.numpy(), **near)
        theirs_by_name = dict(other.named_parameters())
        for name, parameter in layer.named_parameters():
            assert_allclose(parameter.grad, theirs_by_name[name].grad.numpy(), **near)


def test_weights_are_drawn_as_torch_draws_them():
    torch = pytest.importorskip("torch")
    for options in ((12, 6, 3), (8, 8, 2, 2, 0, 0, 4)):
        ours, theirs = nn.ConvTranspose2d(*options), torch.nn.ConvTranspose2d(*options)
        for name, parameter in ours.named_parameters():
            bound = 1 / np.sqrt(np.prod(ours.weight.shape[1:]))
            assert np.abs(parameter.data).max() <= bound
            assert np.abs(dict(theirs.named_parameters())[name].detach().numpy()).max() <= bound
        assert np.abs(ours.weight.data).max() > 0.8 * bound
