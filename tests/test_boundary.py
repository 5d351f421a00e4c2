"""What the boundary promises of any call: arrays that share memory, sizes of any length, arrays that are none.

`scripts/fuzz_functional.py` draws such calls by the ten thousand; here is what each of its parts found or proves.
"""

import inspect
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv import functional as F
from fastconv import nn
from fastconv.functional import residual
from fastconv.functional._check import MOST_NUMBERS, check_apart, check_array

RNG = np.random.default_rng(11)
N, C, H, W = 2, 3, 5, 4


def image(*shape):
    """A float32 array of NCHW shape over NHWC memory."""
    n, c, h, w = shape or (N, C, H, W)
    return RNG.normal(size=(n, h, w, c)).astype(np.float32).transpose(0, 3, 1, 2)


def signal():
    """A float32 array (N, C, W) as convolutions return it."""
    return image(N, C, 1, W)[:, :, 0]


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


LABELS = np.array([2, 0])
CORE = residual.ResidualCore(4, 6)

# name: arguments by name, which of them are written, and which the first of those may coincide with
CALLS = {
    "relu": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "leaky_relu": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "tanh": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "sigmoid": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "softsign": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "safe_exp": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "safe_log": (lambda: dict(input=abs(image()), out=image()), ["out"], ["input"]),
    "softmax": (lambda: dict(input=image(), out=image()), ["out"], ["input"]),
    "log_softmax": (lambda: dict(input=image(), out=image(), axis=2), ["out"], ["input"]),
    "add": (lambda: dict(a=image(), b=image(), out=image()), ["out"], ["a", "b"]),
    **{
        f"{name}_backward": (
            lambda known=known: {"grad_output": image(), known: image(), "grad_input": image()},
            ["grad_input"], ["grad_output", known],
        )
        for name, known in (("relu", "output"), ("leaky_relu", "input"), ("tanh", "output"), ("sigmoid", "output"),
                            ("softsign", "input"), ("softmax", "output"), ("log_softmax", "output"))
    },
    "linear": (lambda: dict(input=array(4, 4), weight=array(4, 4), bias=array(4), out=array(4, 4)), ["out"], []),
    "linear_backward": (
        lambda: dict(grad_output=array(4, 4), input=array(4, 4), weight=array(4, 4), output=array(4, 4),
                     activation="relu", grad_input=array(4, 4), grad_weight=array(4, 4), grad_bias=array(4)),
        ["grad_input", "grad_weight", "grad_bias"], [],
    ),
    "bias_add": (lambda: dict(input=image(), bias=array(C), out=image()), ["out"], ["input"]),
    "bias_add_backward": (
        lambda: dict(grad_output=image(), output=image(), activation="relu", grad_input=image(), grad_bias=array(C)),
        ["grad_input", "grad_bias"], ["grad_output", "output"],
    ),
    "conv2d": (
        lambda: dict(input=image(), weight=array(C, C, 3, 3), bias=array(C), padding=1, coefficients=array(2, C),
                     out=image()),
        ["out"], [],
    ),
    "conv2d_backward": (
        lambda: dict(grad_output=image(), input=image(), weight=array(C, C, 3, 3), padding=1, output=image(),
                     activation="relu", grad_input=image(), grad_weight=array(C, C, 3, 3), grad_bias=array(C)),
        ["grad_input", "grad_weight", "grad_bias"], [],
    ),
    "conv2d_input_grad": (
        lambda: dict(grad_output=image(), input_shape=(N, C, H, W), weight=array(C, C, 3, 3), padding=1, out=image()),
        ["out"], [],
    ),
    "conv1d": (
        lambda: dict(input=signal(), weight=array(C, C, 3), padding=1, out=signal()),
        ["out"], [],
    ),
    "conv1d_backward": (
        lambda: dict(grad_output=signal(), input=signal(), weight=array(C, C, 3), padding=1, grad_input=signal(),
                     grad_weight=array(C, C, 3), grad_bias=array(C)),
        ["grad_input", "grad_weight", "grad_bias"], [],
    ),
    "max_pool2d": (
        lambda: dict(input=image(), kernel_size=3, stride=1, padding=1, out=image(),
                     argmax=np.zeros((N, H, W, C), np.uint8).transpose(0, 3, 1, 2)),
        ["out", "argmax"], [],
    ),
    "max_pool2d_backward": (
        lambda: dict(grad_output=image(), argmax=np.full((N, H, W, C), 4, np.uint8).transpose(0, 3, 1, 2),
                     input_shape=(N, C, H, W), kernel_size=3, stride=1, padding=1, grad_input=image()),
        ["grad_input"], [],
    ),
    "avg_pool2d": (lambda: dict(input=image(), kernel_size=3, stride=1, padding=1, out=image()), ["out"], []),
    "avg_pool2d_backward": (
        lambda: dict(grad_output=image(), input_shape=(N, C, H, W), kernel_size=3, stride=1, padding=1,
                     grad_input=image()),
        ["grad_input"], [],
    ),
    "adaptive_avg_pool2d": (lambda: dict(input=image(), output_size=(H, W), out=image()), ["out"], []),
    "adaptive_avg_pool2d_backward": (
        lambda: dict(grad_output=image(), input_shape=(N, C, H, W), grad_input=image()), ["grad_input"], [],
    ),
    "group_norm": (
        lambda: dict(input=image(2, 4, 3, 2), num_groups=2, weight=array(4), bias=array(4), out=image(2, 4, 3, 2)),
        ["out"], [],
    ),
    "instance_norm": (lambda: dict(input=image(), weight=array(C), bias=array(C), out=image()), ["out"], []),
    "layer_norm": (
        lambda: dict(input=image(), normalized_shape=W, weight=array(W), bias=array(W), out=image()), ["out"], [],
    ),
    "layer_norm2d": (lambda: dict(input=image(), weight=array(C), bias=array(C), out=image()), ["out"], []),
    "local_response_norm": (lambda: dict(input=image(), size=3, out=image()), ["out"], []),
    "pixel_shuffle": (
        lambda: dict(input=image(2, 4, 3, 2), upscale_factor=2, out=image(2, 1, 6, 4)), ["out"], [],
    ),
    "channel_shuffle": (lambda: dict(input=image(2, 4, 3, 2), groups=2, out=image(2, 4, 3, 2)), ["out"], []),
    "reflection_pad2d": (
        lambda: dict(input=image(), padding=(1, 0, 0, 2), out=image(N, C, H + 2, W + 1)), ["out"], [],
    ),
    "adaptive_max_pool2d": (lambda: dict(input=image(), output_size=(H, W), out=image()), ["out"], []),
    "adaptive_max_pool2d_backward": (
        lambda: dict(grad_output=image(), input=image(), grad_input=image()), ["grad_input"], [],
    ),
    "global_max_pool2d": (lambda: dict(input=image(), out=image(N, C, 1, 1)), ["out"], []),
    "global_max_pool2d_backward": (
        lambda: dict(grad_output=image(N, C, 1, 1), input=image(), grad_input=image()), ["grad_input"], [],
    ),
    "max_pool1d": (lambda: dict(input=signal(), kernel_size=3, stride=1, padding=1, out=signal()), ["out"], []),
    "max_pool1d_backward": (
        lambda: dict(grad_output=signal(), input=signal(), kernel_size=3, stride=1, padding=1, grad_input=signal()),
        ["grad_input"], [],
    ),
    "avg_pool1d": (lambda: dict(input=signal(), kernel_size=3, stride=1, padding=1, out=signal()), ["out"], []),
    "avg_pool1d_backward": (
        lambda: dict(grad_output=signal(), input_shape=(N, C, W), kernel_size=3, stride=1, padding=1,
                     grad_input=signal()),
        ["grad_input"], [],
    ),
    "max_unpool2d": (
        lambda: dict(input=image(), indices=np.zeros((N, C, H, W), int), kernel_size=1, out=image()), ["out"], [],
    ),
    "max_unpool2d_backward": (
        lambda: dict(grad_output=image(), indices=np.zeros((N, C, H, W), int), grad_input=image()),
        ["grad_input"], [],
    ),
    "global_avg_pool2d": (lambda: dict(input=image(), out=image(N, C, 1, 1)), ["out"], []),
    "global_avg_pool2d_backward": (
        lambda: dict(grad_output=image(N, C, 1, 1), input_shape=(N, C, H, W), grad_input=image()), ["grad_input"], [],
    ),
    "cross_entropy": (
        lambda: dict(input=array(2, 4), target=LABELS.copy(), reduction="none", weight=abs(array(4)),
                     sample_weight=abs(array(2)), probabilities=array(2, 4), out=array(2)),
        ["probabilities", "out"], [],
    ),
    "cross_entropy_backward": (
        lambda: dict(grad_output=array(2), input=array(2, 4), target=LABELS.copy(), reduction="none",
                     weight=abs(array(4)), sample_weight=abs(array(2)), probabilities=F.softmax(array(2, 4)),
                     grad_input=array(2, 4)),
        ["grad_input"], ["input", "probabilities"],
    ),
    "multi_margin_loss": (
        lambda: dict(input=array(2, 4), target=LABELS.copy(), reduction="none", out=array(2)), ["out"], [],
    ),
    "multi_margin_loss_backward": (
        lambda: dict(grad_output=array(2), input=array(2, 4), target=LABELS.copy(), reduction="none",
                     grad_input=array(2, 4)),
        ["grad_input"], ["input"],
    ),
    "mse_loss": (
        lambda: dict(input=image(), target=image(), reduction="none", out=image()), ["out"], ["input", "target"],
    ),
    "mse_loss_backward": (
        lambda: dict(grad_output=image(), input=image(), target=image(), reduction="none", grad_input=image()),
        ["grad_input"], ["input", "target"],
    ),
    **{
        name: (
            lambda: dict(input=image(), target=image(), reduction="none", sample_weight=abs(image()), out=image()),
            ["out"], ["input", "target"],
        )
        for name in ("l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits")
    },
    **{
        f"{name}_backward": (
            lambda: dict(grad_output=image(), input=image(), target=image(), reduction="none",
                         sample_weight=abs(image()), grad_input=image()),
            ["grad_input"], ["input", "target"],
        )
        for name in ("l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits")
    },
    "dice_loss": (
        lambda: dict(input=image(), target=abs(image()), reduction="none", sample_weight=abs(array(N)),
                     out=array(N, C)),
        ["out"], [],
    ),
    "dice_loss_backward": (
        lambda: dict(grad_output=array(N, C), input=image(), target=abs(image()), reduction="none",
                     sample_weight=abs(array(N)), grad_input=image()),
        ["grad_input"], ["input"],
    ),
    "batch_norm": (
        lambda: dict(input=image(), running_mean=array(C), running_var=abs(array(C)), weight=array(C), bias=array(C),
                     training=True, activation="relu", out=image(), saved=array(2, C)),
        ["out", "saved", "running_mean", "running_var"], ["input"],
    ),
    "batch_norm_coefficients": (
        lambda: dict(running_mean=array(C), running_var=abs(array(C)), weight=array(C), bias=array(C),
                     out=array(2, C), saved=array(2, C)),
        ["out", "saved"], [],
    ),
    "batch_norm_backward": (
        lambda: dict(grad_output=image(), input=image(), weight=array(C), saved=abs(array(2, C)), training=True,
                     output=image(), activation="relu", grad_input=image(), grad_weight=array(C), grad_bias=array(C)),
        ["grad_input", "grad_weight", "grad_bias"], ["grad_output", "input", "output"],
    ),
    "dropout": (
        lambda: dict(input=image(), p=0.5, training=True, seed=1, stream=2, step=3, out=image(),
                     mask=np.zeros((N, H, W, C), np.uint8).transpose(0, 3, 1, 2)),
        ["out", "mask"], ["input"],
    ),
    "dropout_backward": (
        lambda: dict(grad_output=image(), mask=RNG.integers(0, 2, (N, H, W, C), np.uint8).transpose(0, 3, 1, 2), p=0.5,
                     grad_input=image()),
        ["grad_input"], ["grad_output"],
    ),
    "sgd_step": (
        lambda: dict(param=array(9), grad=array(9), momentum_buffer=array(9), lr=0.1, momentum=0.9),
        ["param", "momentum_buffer"], [],
    ),
    "adam_step": (
        lambda: dict(param=array(9), grad=array(9), m=array(9), v=abs(array(9))), ["param", "m", "v"], [],
    ),
    "rmsprop_step": (
        lambda: dict(param=array(9), grad=array(9), square_avg=abs(array(9)), momentum_buffer=array(9),
                     grad_avg=0 * array(9)),
        ["param", "square_avg", "momentum_buffer", "grad_avg"], [],
    ),
    "ema_step": (lambda: dict(average=array(9), param=array(9), decay=0.9), ["average"], []),
    "adagrad_step": (
        lambda: dict(param=array(9), grad=array(9), state_sum=abs(array(9))), ["param", "state_sum"], [],
    ),
    **{
        name: (lambda: dict(input=image(), out=image()), ["out"], ["input"])
        for name in (
            "relu6", "hardtanh", "elu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "exp", "log",
            "sqrt", "erf",
        )
    },
    **{
        f"{name}_backward": (
            lambda known=known: {"grad_output": image(), known: image(), "grad_input": image()},
            ["grad_input"], ["grad_output", known],
        )
        for known, names in (
            ("output", ("relu6", "hardtanh", "elu", "exp", "sqrt")),
            ("input", ("gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "log", "erf")),
        )
        for name in names
    },
    "prelu": (lambda: dict(input=image(), weight=array(C), out=image()), ["out"], ["input"]),
    "prelu_backward": (
        lambda: dict(grad_output=image(), input=image(), weight=array(C), grad_input=image(), grad_weight=array(C)),
        ["grad_input", "grad_weight"], ["grad_output", "input"],
    ),
    "sub": (lambda: dict(a=image(), b=image(), out=image()), ["out"], []),
    "mul": (lambda: dict(a=image(), b=image(), out=image()), ["out"], []),
    "div": (lambda: dict(a=image(), b=image(), out=image()), ["out"], []),
    "conv_transpose2d": (
        lambda: dict(input=image(), weight=array(C, C, 3, 3), bias=array(C), padding=1, out=image()), ["out"], [],
    ),
    "conv_transpose1d": (
        lambda: dict(input=signal(), weight=array(C, C, 3), bias=array(C), padding=1, out=signal()), ["out"], [],
    ),
    "residual_forward": (
        lambda: dict(core=CORE, weights=array(6, 20), h=array(1, 4, 16), chunk=2, marks=array(3, 1, 4, 16)),
        ["h", "marks"], [],
    ),
    "residual_backward": (
        lambda: dict(core=CORE, weights=array(6, 20), g=array(1, 4, 16), marks=array(3, 1, 4, 16), rate=0.1, chunk=2,
                     updated=array(6, 20)),
        ["updated", "g"], ["weights"],
    ),
}  # fmt: skip


def function(name):
    return getattr(residual if name.startswith("residual") else F, name)


def test_every_function_that_writes_is_here():
    outputs = {"out", "grad_input", "grad_weight", "grad_bias", "param", "mask", "argmax", "probabilities", "saved"}
    for name in F.__all__:
        if not inspect.isfunction(getattr(F, name)):
            continue
        code = inspect.unwrap(getattr(F, name)).__code__
        if outputs & set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]):
            assert name in CALLS, name


def dense(a):
    """The block of memory behind a C-contiguous array or an NCHW view over NHWC memory."""
    if a.flags.c_contiguous:
        return a
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a.transpose(0, 2, 1)


def onto(written, other, shift):
    """The two arrays copied into one piece of memory, the first `shift` bytes behind where the second begins."""
    size = written.nbytes + other.nbytes
    raw = np.zeros(3 * size, np.uint8)
    placed = []
    for a, at in ((other, size), (written, size + shift)):
        block = dense(a)
        view = raw[at : at + block.nbytes].view(block.dtype).reshape(block.shape)
        if not (placed and shift == 0):
            view[...] = block
        axes = (0, 3, 1, 2) if a.ndim == 4 else (0, 2, 1)
        placed.append(view if block is a else view.transpose(axes))
    return placed[1], placed[0]


@pytest.mark.parametrize("name", CALLS)
def test_shared_memory_gives_the_right_result_or_an_error(name):
    make, written, in_place = CALLS[name]
    call = function(name)
    refused = 0
    arguments = make()
    arrays = [key for key, value in arguments.items() if isinstance(value, np.ndarray)]
    for key in written:
        for other in arrays:
            if other == key or not arguments[other].size:
                continue
            item = arguments[key].itemsize
            for shift in (0, item, -item, arguments[other].nbytes - item, item - arguments[key].nbytes):
                given = {k: v.copy("K") if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
                mine, theirs = onto(given[key], given[other], shift)
                given[key], given[other] = mine, theirs
                if not np.shares_memory(mine, theirs) or not mine.flags.aligned or not theirs.flags.aligned:
                    continue
                apart = {k: v.copy("K") if isinstance(v, np.ndarray) else v for k, v in given.items()}
                before = {k: v.tobytes() for k, v in given.items() if isinstance(v, np.ndarray)}
                coincides = shift == 0 and key == written[0] and other in in_place
                if coincides:
                    call(**given)
                    call(**apart)
                    for result in written:
                        assert given[result].tobytes() == apart[result].tobytes(), f"{result}, {key} being {other}"
                else:
                    words = "(shares memory with|labels must lie|at least 0)"  # numbers that the other's bytes make
                    with pytest.raises(ValueError, match=rf"{name}: .*{words}"):
                        call(**given)
                    assert before == {k: v.tobytes() for k, v in given.items() if isinstance(v, np.ndarray)}
                    refused += 1
    assert refused > 0 or len(arrays) == 1


def test_neighbours_that_share_no_byte_are_taken():
    """Rows of one buffer, and columns: their bounds meet, their bytes do not."""
    both = array(8, 16)
    np.testing.assert_array_equal(F.relu(both[:4], out=both[4:]), np.maximum(both[:4], 0))
    wide = array(2, 3 * 64)
    line = wide.reshape(-1)[64:128]
    columns = wide[:, :64]  # its two rows lie on both sides of the line
    check_apart("here", {"out": line}, {"input": columns})
    with pytest.raises(ValueError, match="here: out shares memory with input; pass another array"):
        check_apart("here", {"out": line}, {"input": wide[:, 60:70]})


def test_a_part_of_the_input_is_refused_with_the_way_out():
    buffer = array(101)
    with pytest.raises(ValueError, match=r"relu: out shares memory with input, which it may be itself.*pass another"):
        F.relu(buffer[:100], out=buffer[1:])


# --- arrays that are not what they seem -------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_foreign_arrays_are_refused_by_name(name):
    """Masked arrays, matrices and lists, in the place of any array of any function."""
    make = CALLS[name][0]
    arrays = [key for key, value in make().items() if isinstance(value, np.ndarray)]
    for key in arrays:
        for kind, words in (
            (lambda a: np.ma.masked_array(a, mask=np.zeros(a.shape, bool)), r"masked array.*\.filled\("),
            (list, "(must be a NumPy|an array of integer|must be an array)"),
            (lambda a: np.zeros((2, 2), a.dtype).view(np.matrix), r"np\.matrix; pass np\.asarray"),
        ):
            given = make()
            before = {k: v.tobytes() for k, v in given.items() if isinstance(v, np.ndarray) and k != key}
            given[key] = kind(given[key])
            with pytest.raises(TypeError, match=f"{name}: .*{words}"):
                function(name)(**given)
            assert before == {k: given[k].tobytes() for k in before}


@pytest.mark.parametrize("name", [name for name in CALLS if name.removesuffix("_backward").endswith("1d")])
@hypothesis.settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4))
def test_errors_of_signals_tell_the_shapes_that_were_given(name, channels, length):
    """Inside they are images of one row, which is nothing that a caller knows of."""
    make = CALLS[name][0]
    for argument in [argument for argument, value in make().items() if getattr(value, "ndim", 0) == 3]:
        call = make()
        n, c, size = call[argument].shape
        call[argument] = array(n, c + channels, size + length)
        if channels or length or argument in ("out", "grad_input"):  # results do not lie in C order
            with pytest.raises(ValueError, match=name) as found:
                function(name)(**call)
            assert not re.search(r"\d, 1, \d|\b1x", str(found.value)), found.value


@pytest.mark.parametrize("name", CALLS)
def test_foreign_byte_order_gives_the_same_bits(name):
    make, written, _ = CALLS[name]
    native = make()
    for key in native:
        if not isinstance(native[key], np.ndarray) or native[key].itemsize == 1 or key in written:
            continue
        given, plain = ({k: v.copy("K") if isinstance(v, np.ndarray) else v for k, v in native.items()} for _ in "ab")
        given[key] = given[key].astype(given[key].dtype.newbyteorder(">"))
        if name.startswith("residual"):  # these lie in files, and are never copied
            with pytest.raises(ValueError, match=r"native|dtype float32"):
                function(name)(**given)
            continue
        function(name)(**given)
        function(name)(**plain)
        for result in written:
            assert given[result].tobytes() == plain[result].tobytes(), f"{result}, {key} in foreign byte order"


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.ReLU(), nn.Linear(5, 5), nn.BatchNorm1d(5), nn.DeepResidual(5, 3),
                                   nn.Sequential(nn.Linear(5, 5), nn.ReLU())], ids=repr)  # fmt: skip
def test_layers_take_gradients_in_foreign_byte_order(layer):
    x, grad = array(4, 5), array(4, 5)
    layer.eval()  # the same weights and masks both times
    layer(x)
    want = layer.backward(grad).tobytes()
    layer(x)
    assert layer.backward(grad.astype(">f4")).astype("<f4").tobytes() == want
    with pytest.raises(TypeError, match=r"masked array.*\.filled"):
        layer.train()(np.ma.masked_array(x, mask=x > 0))


def test_subclasses_that_mean_what_arrays_mean_are_taken(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(3, 4))
    x[...] = array(3, 4)
    check_array("here", "x", x)
    np.testing.assert_array_equal(F.relu(x), np.maximum(np.array(x), 0))


# --- sizes ------------------------------------------------------------------------------------------------

X, K = image(2, 4, 4, 6), array(4, 2, 3, 2)
HUGE = [2**31 - 1, 2**31, 2**32, 2**45, 2**61, 2**62 - 1, 2**63 - 2, 2**63, 2**64, 10**400]


class Windowed:
    """Every operation that has windows, as functions of stride, padding and dilation."""

    conv2d = partial(F.conv2d, X, K, groups=2)
    conv2d_backward = partial(F.conv2d_backward, image(2, 4, 3, 3), X, K, groups=2)
    conv2d_input_grad = partial(F.conv2d_input_grad, image(2, 4, 3, 3), X.shape, K, groups=2)
    im2col = partial(F.im2col, X, 2)
    col2im = partial(F.col2im, array(2, 16, 15), (4, 6), 2)
    max_pool2d = partial(F.max_pool2d, X, 3, return_indices=True, ceil_mode=True)
    pool2d_output_shape = partial(F.pool2d_output_shape, X.shape, 3)

    @staticmethod
    def avg_pool2d(stride=None, padding=0, dilation=1):
        return F.avg_pool2d(X, 2, stride, padding, dilation=dilation, ceil_mode=True)

    max_pool1d = partial(F.max_pool1d, X[:, :, 0], 3, return_indices=True, ceil_mode=True)

    @staticmethod
    def avg_pool1d(stride=None, padding=0, dilation=1):
        return F.avg_pool1d(X[:, :, 0], dilation, stride, padding, ceil_mode=True)

    @staticmethod
    def max_unpool2d(stride=None, padding=0, dilation=1):
        return F.max_unpool2d(X, np.zeros(X.shape, int), dilation, stride, padding)

    @staticmethod
    def adaptive_avg_pool2d(stride=1, **_):
        return F.adaptive_avg_pool2d(X, stride)

    @staticmethod
    def global_avg_pool2d_backward(stride=1, **_):
        return F.global_avg_pool2d_backward(image(2, 4, 1, 1), (2, 4, stride, 2))


WINDOWED = [name for name in vars(Windowed) if not name.startswith("_")]


def test_huge_sizes_are_errors_or_right():
    """Every setting of every windowed operation, from any length of integer: an error, or what small numbers give."""
    rng = np.random.default_rng(3)
    done = {"right": 0, "refused": 0}
    settings = ("stride", "padding", "dilation")
    for _ in range(1500):
        chosen = {name: rng.integers(1, 4).item() for name in settings if rng.random() < 0.6}
        for name in settings:
            if rng.random() < 0.5:
                chosen[name] = int(rng.choice(np.array(HUGE, object)))
                if rng.random() < 0.3:
                    chosen[name] = (chosen[name], 1)
        try:
            getattr(Windowed, WINDOWED[rng.integers(len(WINDOWED))])(**chosen)
            done["right"] += 1
        except (ValueError, MemoryError) as error:
            done["refused"] += bool(str(error))
    assert min(done.values()) > 100, done
    assert sum(done.values()) == 1500


@pytest.mark.parametrize("big", HUGE)
def test_a_stride_that_takes_no_second_step_may_be_of_any_length(big):
    """One window: the stride says nothing, and changes no bit."""
    x, w = image(2, 4, 4, 6), array(3, 4, 4, 6)
    np.testing.assert_array_equal(F.conv2d(x, w, stride=big), F.conv2d(x, w))
    g = image(2, 3, 1, 1)
    for got, want in zip(F.conv2d_backward(g, x, w, stride=big), F.conv2d_backward(g, x, w), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(F.max_pool2d(x, 4, big), F.max_pool2d(x, 4, 7))
    np.testing.assert_array_equal(F.conv2d(x, w[:, :, :1, :1], stride=big), F.conv2d(x[:, :, :1, :1], w[:, :, :1, :1]))
    np.testing.assert_array_equal(F.conv2d(x, w[:, :, :1, :1], dilation=big), F.conv2d(x, w[:, :, :1, :1]))


def test_a_size_beyond_memory_is_named():
    with pytest.raises(ValueError, match=rf"conv2d: a padded input of 2x4x{4 + 2**62}x8 is larger than any memory"):
        F.conv2d(X, array(2, 4, 2, 2), padding=(2**61, 1), stride=2**60)
    with pytest.raises(ValueError, match=r"linear: out of .* is larger than any memory"):
        F.linear(np.broadcast_to(np.float32(1), (2**30, 4)), np.broadcast_to(np.float32(1), (2**30, 4)))
    assert MOST_NUMBERS * 8 < 2**63 // 2**10 // 4  # times threads, times the images side by side that kernels plan


def test_sizes_alone_take_no_memory():
    """Nothing a window wide is made for a size that no array has: shapes come at once, mismatches are refused first."""
    assert F.pool2d_output_shape((1, 1, 2**40, 3), 2) == (1, 1, 2**39, 1)
    for backward in (partial(F.avg_pool2d_backward, image(1, 1, 2, 2)), partial(
        F.max_pool2d_backward, image(1, 1, 2, 2), np.zeros((1, 1, 2, 2), np.uint8)
    )):  # fmt: skip
        with pytest.raises(ValueError, match=r"grad_output must have shape \(1, 1, 549755813888, 1\)"):
            backward((1, 1, 2**40, 3), 2)
    empty = np.empty((0, 1, 4, 4), np.float32)
    assert F.im2col(empty, (2**20, 2**20), padding=2**19 - 2).shape == (0, 2**40, 1)
    columns = np.empty((0, 2**40, 1), np.float32)
    assert F.col2im(columns, (4, 4), (2**20, 2**20), padding=2**19 - 2).shape == (0, 1, 4, 4)
    with pytest.raises(ValueError, match="target must have shape"):
        F.cross_entropy(array(2, 3), np.broadcast_to(np.uint64(1), 2**40))


def test_absent_arrays_are_refused_by_name():
    for call in (
        lambda: F.relu(None),
        lambda: F.conv2d(X, None),
        lambda: F.adam_step(array(3), array(3), None, array(3)),
        lambda: F.batch_norm_backward(X, X, None, None, True),
        lambda: F.max_pool2d_backward(X, None, X.shape, 1),
    ):
        with pytest.raises(TypeError, match=r"\w+: \w+ must be a NumPy array, got NoneType"):
            call()


def test_a_residual_core_says_what_it_cannot_be():
    for error, words, settings in (
        (TypeError, "width must be an int, got 2.5", (2.5, 3)),
        (TypeError, "layers must be an int, got '3'", (2, "3")),
        (ValueError, r"weights of 1(0+)\.\.\.(0+)x6 is larger than any memory", (2, 10**400)),
        (ValueError, r"weights of 1152921504606846976x6 is larger than any memory", (2, 2**60)),
        (TypeError, "alpha must be a number, got '1'", (2, 3, "1")),
        (ValueError, "alpha is larger than any float", (2, 3, 10**400)),
    ):
        with pytest.raises(error, match=words):
            residual.ResidualCore(*settings)


def test_filters_must_be_some():
    with pytest.raises(ValueError, match="conv2d: weight has an empty dimension"):
        F.conv2d(X, array(0, 4, 2, 2))


def test_messages_name_what_was_called():
    layer = nn.MaxPool2d(3, padding=1, dilation=2**70)
    with pytest.raises(ValueError, match=r"^max_pool2d: "):
        layer(X)
    for shape in ((1, 2, 3), (1, 1, 2**64, 1), (1, 1, 0, 1), (1, 1, 2.0, 1), 7, (-1, 1, 1, 1)):
        with pytest.raises(ValueError, match="conv2d_input_grad: input_shape"):
            F.conv2d_input_grad(X, shape, K)


def test_numbers_that_are_none():
    p = array(3)
    for call, error, words in (
        (lambda: F.adagrad_step(p, array(3), abs(array(3)), 0.1, -1, step=2), ValueError, "lr_decay must be >= 0"),
        (lambda: F.adam_step(p, array(3), array(3), array(3), step=10**400), ValueError, r"below 2\*\*64"),
        (lambda: F.sgd_step(p, array(3), None, 10**400), ValueError, "lr is larger than any float"),
        (lambda: F.sgd_step(p, array(3), None, "0.1"), TypeError, "lr must be a number, got '0.1'"),
        (lambda: F.leaky_relu(p, None), TypeError, "negative_slope must be a number, got None"),
        (lambda: F.leaky_relu(p, np.ma.masked_array(1.0, True)), TypeError, "negative_slope is a masked array"),
        (lambda: F.mse_loss_backward([1, 2], p, p), TypeError, "grad_output must be a number"),
        (lambda: F.softmax(array(2, 2), 1.0), TypeError, "axis must be an int, got 1.0"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_every_public_function_is_drawn():
    # The script compares its list of draws with the package before it draws anything.
    script = Path(__file__).parent.parent / "scripts" / "fuzz_functional.py"
    run = subprocess.run([sys.executable, str(script), "--calls", "50"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
