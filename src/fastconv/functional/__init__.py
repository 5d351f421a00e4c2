"""Operations, forward and backward, with signatures as in ``torch.nn.functional``.

This package is the boundary: it checks arguments, allocates results and calls the compiled kernels, which
trust it. Arrays are float32 or float64; 4-d arrays have NCHW shape, and results lie in NHWC memory
("channels last"): inputs in any other layout are copied once. Every function takes ``out=`` (or
``grad_input=``) to write into; gradients of parameters are *added* to the arrays given.

Functions that a model's forward calls take values (`fastconv.graph.value.Value`) and parameters in the place of arrays
too, and then write down what is to be done.

The examples call the functions by their bare names, as after ``from fastconv.functional import *``.
"""

import fastconv.config  # noqa: F401  (reads FASTCONV_ISA and the thread settings before the first kernel runs)
from fastconv.functional import activation as _activation
from fastconv.functional import adaptive as _adaptive
from fastconv.functional import arithmetic as _arithmetic
from fastconv.functional import convolution as _convolution
from fastconv.functional import elementary as _elementary
from fastconv.functional import groupnorm as _groupnorm
from fastconv.functional import linear as _linear
from fastconv.functional import normalization as _normalization
from fastconv.functional import pooling as _pooling2d
from fastconv.functional import pooling1d as _pooling1d
from fastconv.functional import prelu as _prelu
from fastconv.functional import rearrange as _rearrange
from fastconv.functional import resampling as _resampling
from fastconv.functional import shape as _shape
from fastconv.functional import softmax as _softmax
from fastconv.functional import transposed as _transposed
from fastconv.functional._check import (
    release_scratch,
)
from fastconv.functional._docs import complete as _complete
from fastconv.functional._epilogue import (
    ACTIVATIONS,
)
from fastconv.functional._values import takes_values
from fastconv.functional.activation import (
    elu_backward,
    gelu_backward,
    hardsigmoid_backward,
    hardswish_backward,
    hardtanh_backward,
    leaky_relu_backward,
    mish_backward,
    relu6_backward,
    relu_backward,
    silu_backward,
    softplus_backward,
    softsign_backward,
)
from fastconv.functional.adaptive import (
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d_backward,
    global_avg_pool2d_backward,
    global_max_pool2d_backward,
)
from fastconv.functional.arithmetic import (
    div_backward,
    mean_backward,
    mul_backward,
    sub_backward,
    sum_backward,
)
from fastconv.functional.binary_loss import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
)
from fastconv.functional.class_loss import (
    cross_entropy,
    cross_entropy_backward,
    multi_margin_loss,
    multi_margin_loss_backward,
)
from fastconv.functional.convolution import (
    conv1d_backward,
    conv2d_backward,
    conv2d_input_grad,
)
from fastconv.functional.dice import (
    dice_loss,
    dice_loss_backward,
)
from fastconv.functional.dropout import (
    dropout,
    dropout_backward,
    dropout_mask_like,
)
from fastconv.functional.element_loss import (
    huber_loss,
    huber_loss_backward,
    l1_loss,
    l1_loss_backward,
    mse_loss,
    mse_loss_backward,
    smooth_l1_loss,
    smooth_l1_loss_backward,
)
from fastconv.functional.elementary import (
    erf_backward,
    exp_backward,
    log_backward,
    sigmoid_backward,
    sqrt_backward,
    tanh_backward,
)
from fastconv.functional.groupnorm import (
    group_norm_backward,
    instance_norm_backward,
    layer_norm2d_backward,
    layer_norm_backward,
    local_response_norm_backward,
)
from fastconv.functional.linear import (
    bias_add_backward,
    linear_backward,
)
from fastconv.functional.normalization import (
    batch_norm_backward,
    batch_norm_coefficients,
)
from fastconv.functional.optim import (
    adagrad_step,
    adam_step,
    ema_step,
    rmsprop_step,
    sgd_step,
    vector_norm,
)
from fastconv.functional.pooling import (
    avg_pool2d_backward,
    max_pool2d_argmax_like,
    max_pool2d_backward,
    max_unpool2d_backward,
    pool2d_output_shape,
)
from fastconv.functional.pooling1d import (
    avg_pool1d_backward,
    max_pool1d_backward,
)
from fastconv.functional.prelu import (
    prelu_backward,
)
from fastconv.functional.rearrange import (
    channel_shuffle_backward,
    pixel_shuffle_backward,
    reflection_pad2d_backward,
)
from fastconv.functional.resampling import (
    interpolate_backward,
)
from fastconv.functional.safe import (
    safe_exp,
    safe_log,
)
from fastconv.functional.shape import (
    cat_backward,
    pad_backward,
)
from fastconv.functional.softmax import (
    log_softmax_backward,
    softmax_backward,
)
from fastconv.functional.transposed import (
    conv_transpose1d_backward,
    conv_transpose2d_backward,
)
from fastconv.functional.unfolding import (
    col2im,
    im2col,
)

adaptive_avg_pool2d = takes_values(_adaptive.adaptive_avg_pool2d)
adaptive_max_pool2d = takes_values(_adaptive.adaptive_max_pool2d)
add = takes_values(_arithmetic.add)
avg_pool1d = takes_values(_pooling1d.avg_pool1d)
avg_pool2d = takes_values(_pooling2d.avg_pool2d)
batch_norm = takes_values(_normalization.batch_norm)
bias_add = takes_values(_linear.bias_add)
cat = takes_values(_shape.cat)
channel_shuffle = takes_values(_rearrange.channel_shuffle)
conv1d = takes_values(_convolution.conv1d)
conv2d = takes_values(_convolution.conv2d)
conv_transpose1d = takes_values(_transposed.conv_transpose1d)
conv_transpose2d = takes_values(_transposed.conv_transpose2d)
div = takes_values(_arithmetic.div)
elu = takes_values(_activation.elu)
erf = takes_values(_elementary.erf)
exp = takes_values(_elementary.exp)
flatten = takes_values(_shape.flatten)
gelu = takes_values(_activation.gelu)
global_avg_pool2d = takes_values(_adaptive.global_avg_pool2d)
global_max_pool2d = takes_values(_adaptive.global_max_pool2d)
group_norm = takes_values(_groupnorm.group_norm)
hardsigmoid = takes_values(_activation.hardsigmoid)
hardswish = takes_values(_activation.hardswish)
hardtanh = takes_values(_activation.hardtanh)
instance_norm = takes_values(_groupnorm.instance_norm)
interpolate = takes_values(_resampling.interpolate)
layer_norm = takes_values(_groupnorm.layer_norm)
layer_norm2d = takes_values(_groupnorm.layer_norm2d)
leaky_relu = takes_values(_activation.leaky_relu)
linear = takes_values(_linear.linear)
local_response_norm = takes_values(_groupnorm.local_response_norm)
log = takes_values(_elementary.log)
log_softmax = takes_values(_softmax.log_softmax)
max_pool1d = takes_values(_pooling1d.max_pool1d)
max_pool2d = takes_values(_pooling2d.max_pool2d)
max_unpool2d = takes_values(_pooling2d.max_unpool2d)
mean = takes_values(_arithmetic.mean)
mish = takes_values(_activation.mish)
mul = takes_values(_arithmetic.mul)
pad = takes_values(_shape.pad)
permute = takes_values(_shape.permute)
pixel_shuffle = takes_values(_rearrange.pixel_shuffle)
prelu = takes_values(_prelu.prelu)
reflection_pad2d = takes_values(_rearrange.reflection_pad2d)
relu = takes_values(_activation.relu)
relu6 = takes_values(_activation.relu6)
reshape = takes_values(_shape.reshape)
sigmoid = takes_values(_elementary.sigmoid)
silu = takes_values(_activation.silu)
softmax = takes_values(_softmax.softmax)
softplus = takes_values(_activation.softplus)
softsign = takes_values(_activation.softsign)
sqrt = takes_values(_elementary.sqrt)
stack = takes_values(_shape.stack)
sub = takes_values(_arithmetic.sub)
sum = takes_values(_arithmetic.sum)
tanh = takes_values(_elementary.tanh)

__all__ = [
    "ACTIVATIONS",
    "adagrad_step",
    "adam_step",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "add",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_coefficients",
    "bias_add",
    "bias_add_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cat",
    "cat_backward",
    "channel_shuffle",
    "channel_shuffle_backward",
    "col2im",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_input_grad",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dice_loss",
    "dice_loss_backward",
    "div",
    "div_backward",
    "dropout",
    "dropout_backward",
    "dropout_mask_like",
    "elu",
    "elu_backward",
    "ema_step",
    "erf",
    "erf_backward",
    "exp",
    "exp_backward",
    "flatten",
    "gelu",
    "gelu_backward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "group_norm",
    "group_norm_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "huber_loss",
    "huber_loss_backward",
    "im2col",
    "instance_norm",
    "instance_norm_backward",
    "interpolate",
    "interpolate_backward",
    "l1_loss",
    "l1_loss_backward",
    "layer_norm",
    "layer_norm2d",
    "layer_norm2d_backward",
    "layer_norm_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "log",
    "log_backward",
    "log_softmax",
    "log_softmax_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_argmax_like",
    "max_pool2d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "mean",
    "mean_backward",
    "mish",
    "mish_backward",
    "mse_loss",
    "mse_loss_backward",
    "mul",
    "mul_backward",
    "multi_margin_loss",
    "multi_margin_loss_backward",
    "pad",
    "pad_backward",
    "permute",
    "pixel_shuffle",
    "pixel_shuffle_backward",
    "pool2d_output_shape",
    "prelu",
    "prelu_backward",
    "reflection_pad2d",
    "reflection_pad2d_backward",
    "release_scratch",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "reshape",
    "rmsprop_step",
    "safe_exp",
    "safe_log",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "softsign",
    "softsign_backward",
    "sqrt",
    "sqrt_backward",
    "stack",
    "sub",
    "sub_backward",
    "sum",
    "sum_backward",
    "tanh",
    "tanh_backward",
    "vector_norm",
]

_complete({name: value for name in __all__ if callable(value := globals()[name])})
