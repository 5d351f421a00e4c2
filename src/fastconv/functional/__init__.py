"""Operations, forward and backward, with signatures as in ``torch.nn.functional``.

This package is the boundary: it checks arguments, allocates results and calls the compiled kernels, which
trust it. Arrays are float32 or float64; 4-d arrays have NCHW shape, and results lie in NHWC memory
("channels last"): inputs in any other layout are copied once. Every function takes ``out=`` (or
``grad_input=``) to write into; gradients of parameters are *added* to the arrays given.
"""

import fastconv.config  # noqa: F401  (reads FASTCONV_ISA and the thread settings before the first kernel runs)
from fastconv.functional._check import release_scratch
from fastconv.functional._values import takes_values
from fastconv.functional.activation import (
    add,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    safe_exp,
    safe_log,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    softsign,
    softsign_backward,
    tanh,
    tanh_backward,
)
from fastconv.functional.arithmetic import (
    div, div_backward, mean, mean_backward, mul, mul_backward, sub, sub_backward, sum, sum_backward,
)  # fmt: skip
from fastconv.functional.convolution import (
    col2im,
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    conv2d_input_grad,
    im2col,
)
from fastconv.functional.dropout import dropout, dropout_backward, dropout_mask_like
from fastconv.functional.linear import bias_add, bias_add_backward, linear, linear_backward
from fastconv.functional.loss import (
    cross_entropy,
    cross_entropy_backward,
    mse_loss,
    mse_loss_backward,
    multi_margin_loss,
    multi_margin_loss_backward,
)
from fastconv.functional.normalization import batch_norm, batch_norm_backward, batch_norm_coefficients
from fastconv.functional.optim import adagrad_step, adam_step, rmsprop_step, sgd_step
from fastconv.functional.pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    max_pool2d,
    max_pool2d_argmax_like,
    max_pool2d_backward,
    pool2d_output_shape,
)

from fastconv.functional.shape import cat, cat_backward, flatten, pad, pad_backward, permute, reshape, stack

from fastconv.graph.value import functions  # noqa: E402

for _name in functions.keys() & globals().keys():
    globals()[_name] = takes_values(globals()[_name])

__all__ = [
    "adagrad_step",
    "adam_step",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "add",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_coefficients",
    "bias_add",
    "bias_add_backward",
    "cat",
    "cat_backward",
    "col2im",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_input_grad",
    "cross_entropy",
    "cross_entropy_backward",
    "div",
    "div_backward",
    "dropout",
    "dropout_backward",
    "dropout_mask_like",
    "flatten",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "im2col",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_argmax_like",
    "max_pool2d_backward",
    "mean",
    "mean_backward",
    "mse_loss",
    "mse_loss_backward",
    "mul",
    "mul_backward",
    "multi_margin_loss",
    "multi_margin_loss_backward",
    "pad",
    "pad_backward",
    "permute",
    "pool2d_output_shape",
    "release_scratch",
    "relu",
    "relu_backward",
    "reshape",
    "rmsprop_step",
    "safe_exp",
    "safe_log",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "softsign",
    "softsign_backward",
    "stack",
    "sub",
    "sub_backward",
    "sum",
    "sum_backward",
    "tanh",
    "tanh_backward",
]
