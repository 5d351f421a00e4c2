"""Softmax and losses over rows of classes, shared out by rows; every row is one kernel's own business.

Losses of a batch are summed in double over 16 lanes, row i into lane i % 16, then the lanes in a fixed tree.
"""

from cython.parallel cimport prange
from libc.stdint cimport int64_t

from fastconv._ext.runtime cimport fc_ops, ops, threads_for

ctypedef fused real:
    float
    double

# Elements of one kernel call, in whole rows. It cuts the sums of squared_error: it is part of the result.
cdef Py_ssize_t BLOCK = 4096
# Scalar operations an element costs, for the thread policy: with an exponential, and without.
cdef double CURVED = 16
cdef double STRAIGHT = 2


cdef Py_ssize_t rows_of_block(Py_ssize_t n) noexcept nogil:
    return max(1, BLOCK // n)


def first_outside(const int64_t[::1] labels, Py_ssize_t classes):
    """Return the index of the first label not in [0, classes), or -1."""
    cdef Py_ssize_t i
    for i in range(labels.shape[0]):
        if not 0 <= labels[i] < classes:
            return i
    return -1


def softmax(const real[:, ::1] x, real[:, ::1] y, bint logarithm):
    """Write the softmax of each row, or its logarithm; y may be x."""
    cdef Py_ssize_t rows = x.shape[0], n = x.shape[1], i, step = rows_of_block(n)
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    f = table.log_softmax if logarithm else table.softmax
    cdef int threads = threads_for(CURVED * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        f(&x[i, 0], &y[i, 0], min(step, rows - i), n)


def softmax_backward(const real[:, ::1] grad_y, const real[:, ::1] y, real[:, ::1] grad_x, bint logarithm):
    """Write the gradient of `softmax` from its result y; grad_x may be grad_y or y."""
    cdef Py_ssize_t rows = y.shape[0], n = y.shape[1], i, step = rows_of_block(n)
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    f = table.log_softmax_backward if logarithm else table.softmax_backward
    cdef int threads = threads_for((CURVED if logarithm else STRAIGHT) * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        f(&grad_y[i, 0], &y[i, 0], &grad_x[i, 0], min(step, rows - i), n)


def cross_entropy(const real[:, ::1] x, const int64_t[::1] target, real[::1] losses,
                  real[:, ::1] probabilities):
    """Write -log softmax(x)[target] of each row, and the softmax itself unless `probabilities` is None."""
    cdef Py_ssize_t rows = x.shape[0], n = x.shape[1], i, step = rows_of_block(n)
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef bint keep = probabilities is not None
    cdef int threads = threads_for(CURVED * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        table.cross_entropy(&x[i, 0], &target[i], &losses[i], &probabilities[i, 0] if keep else NULL,
                            min(step, rows - i), n)


def cross_entropy_backward(const real[::1] scale, const real[:, ::1] probabilities,
                           const int64_t[::1] target, real[:, ::1] grad_x):
    """Write (probabilities - one-hot target) * scale, a number or one a row; grad_x may be probabilities."""
    cdef Py_ssize_t rows = grad_x.shape[0], n = grad_x.shape[1], i, step = rows_of_block(n)
    cdef Py_ssize_t g = 0 if scale.shape[0] == 1 else 1
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef int threads = threads_for(STRAIGHT * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        table.cross_entropy_backward(&scale[i * g], g, &probabilities[i, 0], &target[i], &grad_x[i, 0],
                                     min(step, rows - i), n)


def margin(const real[:, ::1] x, const int64_t[::1] target, double margin, real[::1] losses):
    """Write the hinge loss of each row."""
    cdef Py_ssize_t rows = x.shape[0], n = x.shape[1], i, step = rows_of_block(n)
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef int threads = threads_for(STRAIGHT * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        table.margin(&x[i, 0], &target[i], margin, &losses[i], min(step, rows - i), n)


def margin_backward(const real[::1] scale, const real[:, ::1] x, const int64_t[::1] target, double margin,
                    real[:, ::1] grad_x):
    """Write the gradient of `margin` times scale, of one number or one a row; grad_x may be x."""
    cdef Py_ssize_t rows = x.shape[0], n = x.shape[1], i, step = rows_of_block(n)
    cdef Py_ssize_t g = 0 if scale.shape[0] == 1 else 1
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef int threads = threads_for(STRAIGHT * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        table.margin_backward(&scale[i * g], g, &x[i, 0], &target[i], margin, &grad_x[i, 0],
                              min(step, rows - i), n)


def squared_error(const real[::1] a, const real[::1] b, real[::1] sums):
    """Write the sum of (a - b)**2 of each block of 4096 elements; sums has room for one number a block."""
    cdef Py_ssize_t n = a.shape[0], begin
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef int threads = threads_for(STRAIGHT * n)
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        table.squared_error(&a[begin], &b[begin], &sums[begin // BLOCK], min(BLOCK, n - begin))


def blocks(Py_ssize_t n):
    """Return how many blocks `squared_error` cuts n elements into."""
    return (n + BLOCK - 1) // BLOCK


def total(const real[::1] losses):
    """Return the sum of the losses as a double."""
    cdef double[16] lanes
    cdef Py_ssize_t i, half = 8
    for i in range(16):
        lanes[i] = 0
    for i in range(losses.shape[0]):
        lanes[i & 15] += losses[i]
    while half:
        for i in range(half):
            lanes[i] += lanes[i + half]
        half = half // 2
    return lanes[0]
