"""Softmax and losses over rows of classes, shared out by rows; every row is one kernel's own business.

Losses of a batch are summed in double over 16 lanes, row i into lane i % 16, then the lanes in a fixed tree.
"""

from cython cimport view
from cython.parallel cimport prange
from libc.stdint cimport int64_t

from fastconv._ext.runtime cimport (
    FC_LOSS_ABSOLUTE,
    FC_LOSS_HUBER,
    FC_LOSS_LOGISTIC,
    FC_LOSS_SMOOTH,
    FC_LOSS_SQUARED,
    fc_cross_entropy,
    fc_dice,
    fc_element_loss,
    fc_ops,
    ops,
    threads_for,
)

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


def look(const int64_t[::1] labels, Py_ssize_t classes, int64_t ignore, bint ignoring):
    """Return the index of the first label outside [0, classes), or -1, and whether one is `ignore`, if `ignoring`.

    A label that is `ignore` is not outside then.
    """
    cdef Py_ssize_t i
    cdef bint found = False
    for i in range(labels.shape[0]):
        if ignoring and labels[i] == ignore:
            found = True
        elif not 0 <= labels[i] < classes:
            return i, found
    return -1, found


def first_of(const int64_t[::1] labels, int64_t label):
    """Return the index of the first label that is this one, or -1."""
    cdef Py_ssize_t i
    for i in range(labels.shape[0]):
        if labels[i] == label:
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


def weighted_cross_entropy(const real[:, ::1] x, const int64_t[::1] target, const real[:, ::1] soft,
                           const real[::1] weight, const real[::1] sample, double smoothing, real[::1] losses,
                           real[:, ::1] probabilities):
    """Write the cross-entropy of each row with its weights; all but x and losses may be None, target or soft is not."""
    cdef Py_ssize_t rows = x.shape[0], n = x.shape[1], i, step = rows_of_block(n)
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if rows == 0:
        return
    cdef fc_cross_entropy a = cross_entropy_of(target, soft, weight, sample, smoothing, n)
    a.x = &x[0, 0]
    a.loss = &losses[0]
    a.p = NULL
    if probabilities is not None:
        a.p = &probabilities[0, 0]
    cdef int threads = threads_for(CURVED * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        table.weighted_cross_entropy(&a, i, min(i + step, rows))


def weighted_cross_entropy_backward(const real[::1] scale, const real[:, ::1] probabilities,
                                    const int64_t[::1] target, const real[:, ::1] soft, const real[::1] weight,
                                    const real[::1] sample, double smoothing, real[:, ::1] grad_x):
    """Write the gradient of `weighted_cross_entropy` times scale; grad_x may be probabilities."""
    cdef Py_ssize_t rows = grad_x.shape[0], n = grad_x.shape[1], i, step = rows_of_block(n)
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if rows == 0:
        return
    cdef fc_cross_entropy a = cross_entropy_of(target, soft, weight, sample, smoothing, n)
    a.x = &probabilities[0, 0]
    a.p = &grad_x[0, 0]
    a.g = &scale[0]
    a.g_step = 0 if scale.shape[0] == 1 else 1
    cdef int threads = threads_for(STRAIGHT * rows * n)
    for i in prange(0, rows, step, nogil=True, schedule='static', num_threads=threads):
        table.weighted_cross_entropy_backward(&a, i, min(i + step, rows))


cdef fc_cross_entropy cross_entropy_of(const int64_t[::1] target, const real[:, ::1] soft, const real[::1] weight,
                                       const real[::1] sample, double smoothing, Py_ssize_t classes):
    cdef fc_cross_entropy a
    a.classes = classes
    a.target = a.soft = a.weight = a.sample = NULL
    if target is not None:
        a.target = &target[0]
    if soft is not None:
        a.soft = &soft[0, 0]
    if weight is not None:
        a.weight = &weight[0]
    if sample is not None:
        a.sample = &sample[0]
    a.keep = 1 - smoothing
    a.floor = smoothing / classes
    a.loss = NULL
    a.g = NULL
    a.g_step = 0
    return a


KINDS = {"squared": FC_LOSS_SQUARED, "absolute": FC_LOSS_ABSOLUTE, "smooth": FC_LOSS_SMOOTH, "huber": FC_LOSS_HUBER,
         "logistic": FC_LOSS_LOGISTIC}


def element_loss(const real[::1] x, const real[::1] target, const real[::1] weight, const real[::1] positive,
                 str kind, double parameter, real[::1] losses, real[::1] sums):
    """Write the loss of each element, or where losses is None their sum over each block of 4096."""
    cdef Py_ssize_t n = x.shape[0], begin
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if n == 0:
        return
    cdef bint single = losses is not None
    cdef fc_element_loss a
    a.kind = KINDS[kind]
    a.x = &x[0]
    a.target = &target[0]
    a.weight = a.positive = NULL
    if weight is not None:
        a.weight = &weight[0]
    if positive is not None:
        a.positive = &positive[0]
    a.parameter = parameter
    a.out = NULL
    if single:
        a.out = &losses[0]
    cdef int threads = threads_for(CURVED * n)
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        table.element_loss(&a, begin, min(begin + BLOCK, n), NULL if single else &sums[begin // BLOCK])


def element_loss_backward(const real[::1] scale, const real[::1] x, const real[::1] target, const real[::1] weight,
                          const real[::1] positive, str kind, double parameter, real[::1] grad_x):
    """Write the slope of each element's loss times scale, of one number or one an element."""
    cdef Py_ssize_t n = x.shape[0], begin
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if n == 0:
        return
    cdef fc_element_loss a
    a.kind = KINDS[kind]
    a.x = &x[0]
    a.target = &target[0]
    a.weight = a.positive = NULL
    if weight is not None:
        a.weight = &weight[0]
    if positive is not None:
        a.positive = &positive[0]
    a.parameter = parameter
    a.out = &grad_x[0]
    a.g = &scale[0]
    a.g_step = 0 if scale.shape[0] == 1 else 1
    cdef int threads = threads_for(CURVED * n)
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        table.element_loss_backward(&a, begin, min(begin + BLOCK, n))


def powers(const real[::1] x, int power, real[::1] sums):
    """Write the sum of |x| (power 1) or x**2 (2), or the largest |x| (0), of each block of 4096 elements."""
    cdef Py_ssize_t n = x.shape[0], begin
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef int threads = threads_for(STRAIGHT * n)
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        table.powers(&x[begin], power, &sums[begin // BLOCK], min(BLOCK, n - begin))


def dice_sums(const real[:, :, ::1] p, const int64_t[:, ::1] labels, const real[:, :, ::1] dense,
              double[:, :, ::1] sums):
    """Write for each sample the sums of p t, p and t of its channels: sums (samples, 3, channels).

    Pixels are added in blocks of 4096 (of all channels), these from the first to the last.
    """
    cdef Py_ssize_t samples = p.shape[0], pixels = p.shape[1], n = p.shape[2], block, blocks_, c
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if samples == 0:
        return
    blocks_ = (pixels + BLOCK - 1) // BLOCK
    cdef double[:, ::1] parts = view.array((samples * blocks_, 3 * n), sizeof(double), 'd')
    cdef fc_dice a = dice_of(labels, n)
    a.p = &p[0, 0, 0]
    if dense is not None:
        a.dense = &dense[0, 0, 0]
    cdef int threads = threads_for(STRAIGHT * samples * pixels * n)
    for block in prange(samples * blocks_, nogil=True, schedule='static', num_threads=threads):
        table.dice_sums(&a, block // blocks_ * pixels + block % blocks_ * BLOCK,
                        block // blocks_ * pixels + min((block % blocks_ + 1) * BLOCK, pixels), &parts[block, 0])
    for block in range(samples * blocks_):
        for c in range(3 * n):
            if block % blocks_ == 0:
                sums[block // blocks_, c // n, c % n] = parts[block, c]
            else:
                sums[block // blocks_, c // n, c % n] += parts[block, c]


def dice_backward(const real[:, :, ::1] p, const int64_t[:, ::1] labels, const real[:, :, ::1] dense,
                  const real[:, ::1] u, const real[:, ::1] v, real[:, :, ::1] grad_p):
    """Write u t + v, with u and v of each sample and channel."""
    cdef Py_ssize_t samples = p.shape[0], pixels = p.shape[1], n = p.shape[2], block, blocks_
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if samples == 0:
        return
    blocks_ = (pixels + BLOCK - 1) // BLOCK
    cdef fc_dice a = dice_of(labels, n)
    a.p = &p[0, 0, 0]
    if dense is not None:
        a.dense = &dense[0, 0, 0]
    a.grad = &grad_p[0, 0, 0]
    cdef int threads = threads_for(STRAIGHT * samples * pixels * n)
    for block in prange(samples * blocks_, nogil=True, schedule='static', num_threads=threads):
        table.dice_backward(&a, &u[block // blocks_, 0], &v[block // blocks_, 0],
                            block // blocks_ * pixels + block % blocks_ * BLOCK,
                            block // blocks_ * pixels + min((block % blocks_ + 1) * BLOCK, pixels))


cdef fc_dice dice_of(const int64_t[:, ::1] labels, Py_ssize_t channels):
    cdef fc_dice a
    a.channels = channels
    a.dense = a.grad = NULL
    a.labels = NULL
    if labels is not None:
        a.labels = &labels[0, 0]
    return a
