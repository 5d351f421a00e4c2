"""One fused pass of an optimiser over a flat parameter, in blocks shared among the threads.

All arrays of a call are flat and of one length; the ones that may be None say so. Each thread takes one stretch of
blocks, the same in all passes over a parameter: what it wrote before is in its own caches.
"""

from cython.parallel cimport prange
from libc.string cimport memset

from fastconv._ext.runtime cimport fc_adagrad, fc_adam, fc_average, fc_ops, fc_rmsprop, fc_sgd, ops, threads_for

ctypedef fused real:
    float
    double

cdef enum:
    BLOCK = 2048


def zero(real[::1] grad):
    """Set all numbers to zero."""
    cdef Py_ssize_t n = grad.shape[0], i
    for i in prange((n + BLOCK - 1) // BLOCK, schedule="static", num_threads=threads_for(8.0 * n), nogil=True):
        memset(&grad[i * BLOCK], 0, (min((i + 1) * BLOCK, n) - i * BLOCK) * sizeof(real))


def sgd(
    real[::1] param,
    const real[::1] grad,
    real[::1] buffer,
    double lr,
    double momentum,
    double dampening,
    double weight_decay,
    bint nesterov,
    bint first_step,
):
    """torch.optim.SGD; buffer may be None."""
    cdef Py_ssize_t n = param.shape[0], i
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef fc_sgd a
    a.param = &param[0]
    a.grad = &grad[0]
    a.buffer = NULL if buffer is None else &buffer[0]
    a.lr = lr
    a.momentum = momentum
    a.dampening = dampening
    a.weight_decay = weight_decay
    a.nesterov = nesterov
    a.first_step = first_step
    for i in prange((n + BLOCK - 1) // BLOCK, schedule="static", num_threads=threads_for(16.0 * n), nogil=True):
        table.sgd(&a, i * BLOCK, min((i + 1) * BLOCK, n))


def adam(
    real[::1] param,
    const real[::1] grad,
    real[::1] average,
    real[::1] square,
    double lr,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    double step_size,
    double correction2,
    bint decoupled,
):
    """torch.optim.Adam, or AdamW where decoupled; see fc_adam for the two corrections."""
    cdef Py_ssize_t n = param.shape[0], i
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef fc_adam a
    a.param = &param[0]
    a.grad = &grad[0]
    a.average = &average[0]
    a.square = &square[0]
    a.lr = lr
    a.beta1 = beta1
    a.beta2 = beta2
    a.eps = eps
    a.weight_decay = weight_decay
    a.step_size = step_size
    a.correction2 = correction2
    a.decoupled = decoupled
    for i in prange((n + BLOCK - 1) // BLOCK, schedule="static", num_threads=threads_for(16.0 * n), nogil=True):
        table.adam(&a, i * BLOCK, min((i + 1) * BLOCK, n))


def rmsprop(
    real[::1] param,
    const real[::1] grad,
    real[::1] square,
    real[::1] buffer,
    real[::1] average,
    double lr,
    double alpha,
    double eps,
    double weight_decay,
    double momentum,
):
    """torch.optim.RMSprop; buffer (momentum) and average (centred) may be None."""
    cdef Py_ssize_t n = param.shape[0], i
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef fc_rmsprop a
    a.param = &param[0]
    a.grad = &grad[0]
    a.square = &square[0]
    a.buffer = NULL if buffer is None else &buffer[0]
    a.average = NULL if average is None else &average[0]
    a.lr = lr
    a.alpha = alpha
    a.eps = eps
    a.weight_decay = weight_decay
    a.momentum = momentum
    for i in prange((n + BLOCK - 1) // BLOCK, schedule="static", num_threads=threads_for(16.0 * n), nogil=True):
        table.rmsprop(&a, i * BLOCK, min((i + 1) * BLOCK, n))


def adagrad(
    real[::1] param, const real[::1] grad, real[::1] square, double lr, double eps, double weight_decay
):
    """torch.optim.Adagrad; lr as decayed."""
    cdef Py_ssize_t n = param.shape[0], i
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef fc_adagrad a
    a.param = &param[0]
    a.grad = &grad[0]
    a.square = &square[0]
    a.lr = lr
    a.eps = eps
    a.weight_decay = weight_decay
    for i in prange((n + BLOCK - 1) // BLOCK, schedule="static", num_threads=threads_for(16.0 * n), nogil=True):
        table.adagrad(&a, i * BLOCK, min((i + 1) * BLOCK, n))


def average(const real[::1] param, real[::1] mean, double decay):
    """Move mean towards param: mean += (1 - decay) * (param - mean)."""
    cdef Py_ssize_t n = param.shape[0], i
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef fc_average a
    a.param = &param[0]
    a.average = &mean[0]
    a.decay = decay
    for i in prange((n + BLOCK - 1) // BLOCK, schedule="static", num_threads=threads_for(2.0 * n), nogil=True):
        table.average(&a, i * BLOCK, min((i + 1) * BLOCK, n))
