"""Batch normalisation and dropout over rows of channels: x is (M, C), M = N * H * W.

Batch statistics are one pass over memory: rows are cut into shards by (M, C) alone, each small enough to stay
in the cache for its two passes (sum, then squares about the shard's own mean), and the shards are merged in a
fixed pairwise tree. Rows may lie at any one distance: where they do not follow each other, a core takes a shard of
them into its cache first. What is per channel is computed in double and rounded once.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastconv._ext.epilogue cimport Epilogue, row_pitch, run_finish
from fastconv._ext.runtime cimport FC_ACT_none, FC_ACT_relu, fc_epilogue, fc_ops, ops, threads_for

cdef extern from "philox.h" nogil:
    void fc_philox_keep(const uint64_t *key, const uint64_t *counter, uint64_t first, Py_ssize_t blocks,
                        uint64_t threshold, uint8_t *keep)

# Elements of a shard: 64 KiB of float32, within every second-level cache.
cdef enum:
    SHARD = 16384


cdef Py_ssize_t shard_rows(Py_ssize_t c) noexcept nogil:
    """Return the rows of a shard: whole folds of narrow ones (see norm.inc.h), enough wide ones for few sums."""
    if c < 64:
        return SHARD // c // 64 * 64
    return max(SHARD // c, <Py_ssize_t>32)


cdef Py_ssize_t scratch_elements(Py_ssize_t m, Py_ssize_t c) noexcept nogil:
    """Return the elements of scratch memory that the functions here need for rows (m, c)."""
    return (2 * ((m + shard_rows(c) - 1) // shard_rows(c)) + 4) * c


cdef Py_ssize_t room_elements(Py_ssize_t m, Py_ssize_t c, Py_ssize_t arrays) noexcept nogil:
    """Return the elements in which the cores gather shards of so many arrays."""
    return threads_for(1e30) * arrays * shard_rows(c) * c   # of all threads: how many there are may change meanwhile


cdef const real *gathered(
    const real *a, Py_ssize_t row, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t c, real *room
) noexcept nogil:
    """Return the rows from `first` on, one behind the other: where they lie, or copied to `room`."""
    cdef Py_ssize_t i
    if a == NULL:
        return a
    a += first * row
    if row == c:
        return a
    for i in range(rows):
        memcpy(room + i * c, a + i * row, c * sizeof(real))
    return room


def forward(
    const real[:, :] x,
    const real[::1] weight,
    const real[::1] bias,
    real[::1] running_mean,
    real[::1] running_var,
    double momentum,
    double eps,
    real[:, :] y,
    real[:, ::1] saved,
    Epilogue epilogue,
    scratch,
):
    """Normalise by the batch's statistics; running ones, weight and bias may be None.

    ``scratch`` is, here and below, a function from a number of bytes to a uint8 array.
    """
    cdef Py_ssize_t m = x.shape[0], c = x.shape[1], j
    cdef Py_ssize_t x_row = row_pitch(m, c, x.strides[0], sizeof(real))
    cdef Py_ssize_t y_row = row_pitch(m, c, y.strides[0], sizeof(real))
    cdef Py_ssize_t room = room_elements(m, c, x_row != c)
    cdef unsigned char[::1] arena = scratch((room + scratch_elements(m, c)) * sizeof(real))
    cdef real *shards = <real *>&arena[0]
    cdef real *coef = shards + room
    cdef real *sums = coef + 4 * c
    cdef double mean, var
    epilogue.check(sizeof(real), m, c)
    cdef fc_epilogue e = epilogue.e
    with nogil:
        batch_moments(&x[0, 0], x_row, m, c, sums, shards)
        for j in range(c):
            mean = <double>sums[j] / m
            var = <double>sums[c + j] / m
            channel_coefficients[real](mean, var, eps, weight, bias, j, c, coef, saved)
            if running_mean is not None:
                running_mean[j] = <real>(momentum * mean + (1 - momentum) * running_mean[j])
            if running_var is not None:
                var = <double>sums[c + j] / (m - 1)
                running_var[j] = <real>(momentum * var + (1 - momentum) * running_var[j])
        scale_shift(&x[0, 0], x_row, m, c, coef, e, &y[0, 0], y_row, epilogue.cost)


def evaluate(
    const real[:, :] x,
    const real[::1] weight,
    const real[::1] bias,
    const real[::1] mean,
    const real[::1] var,
    double eps,
    real[:, :] y,
    real[:, ::1] saved,
    Epilogue epilogue,
    scratch,
):
    """Normalise by given statistics; weight and bias may be None."""
    cdef Py_ssize_t m = x.shape[0], c = x.shape[1]
    cdef Py_ssize_t x_row = row_pitch(m, c, x.strides[0], sizeof(real))
    cdef Py_ssize_t y_row = row_pitch(m, c, y.strides[0], sizeof(real))
    cdef unsigned char[::1] arena = scratch(scratch_elements(m, c) * sizeof(real))
    cdef real *coef = <real *>&arena[0]
    epilogue.check(sizeof(real), m, c)
    cdef fc_epilogue e = epilogue.e
    if c == 0:
        return
    cdef const real *w = NULL if weight is None else &weight[0]
    cdef const real *b = NULL if bias is None else &bias[0]
    with nogil:
        known_coefficients[real](w, b, &mean[0], &var[0], eps, c, coef, &saved[0, 0], &saved[1, 0])
        if m > 0:
            scale_shift(&x[0, 0], x_row, m, c, coef, e, &y[0, 0], y_row, epilogue.cost)


cdef class Coefficients:
    """The scale and shift that `evaluate` applies, of arrays that stay where they are: a call without arguments.

    Short as the arrays are, looking at seven of them would take most of a call.
    """

    cdef tuple arrays   # kept alive
    cdef const void *weight
    cdef const void *bias
    cdef const void *mean
    cdef const void *var
    cdef void *coef
    cdef void *saved_mean
    cdef void *saved_invstd
    cdef double eps
    cdef Py_ssize_t c
    cdef bint single

    def __call__(self):
        """Set coef (2, C), saved the mean and the inverse standard deviation."""
        with nogil:
            if self.single:
                known_coefficients(<const float *>self.weight, <const float *>self.bias, <const float *>self.mean,
                                   <const float *>self.var, self.eps, self.c, <float *>self.coef,
                                   <float *>self.saved_mean, <float *>self.saved_invstd)
            else:
                known_coefficients(<const double *>self.weight, <const double *>self.bias, <const double *>self.mean,
                                   <const double *>self.var, self.eps, self.c, <double *>self.coef,
                                   <double *>self.saved_mean, <double *>self.saved_invstd)


def coefficients(
    const real[::1] weight,
    const real[::1] bias,
    const real[::1] mean,
    const real[::1] var,
    double eps,
    real[:, ::1] coef,
    real[:, ::1] saved,
):
    """Return `Coefficients` of these arrays; weight and bias may be None."""
    cdef Coefficients made = Coefficients()
    made.arrays = (weight, bias, mean, var, coef, saved)
    made.eps, made.c, made.single = eps, coef.shape[1], sizeof(real) == sizeof(float)
    made.weight = made.bias = made.mean = made.var = NULL
    made.coef = made.saved_mean = made.saved_invstd = NULL
    if made.c > 0:
        made.weight = NULL if weight is None else &weight[0]
        made.bias = NULL if bias is None else &bias[0]
        made.mean, made.var, made.coef = &mean[0], &var[0], &coef[0, 0]
        made.saved_mean, made.saved_invstd = &saved[0, 0], &saved[1, 0]
    return made


cdef void known_coefficients(
    const real *weight, const real *bias, const real *mean, const real *var, double eps, Py_ssize_t c, real *coef,
    real *saved_mean, real *saved_invstd
) noexcept nogil:
    # channel_coefficients by given statistics, to the bit: loops of one kind of work, which compilers turn into vectors
    cdef double invstd[64]
    cdef Py_ssize_t first, n, i
    cdef const real *v
    cdef const real *m
    cdef const real *w = NULL
    cdef const real *b = NULL
    cdef double scale
    for first in range(0, c, 64):
        n = min(64, c - first)
        v, m = var + first, mean + first
        if weight != NULL:
            w = weight + first
        if bias != NULL:
            b = bias + first
        for i in range(n):
            invstd[i] = 1 / sqrt(v[i] + eps)
        for i in range(n):
            saved_mean[first + i] = m[i]
            saved_invstd[first + i] = <real>invstd[i]
        if w != NULL:
            for i in range(n):
                invstd[i] = w[i] * invstd[i]
        for i in range(n):
            scale = invstd[i]
            coef[first + i] = <real>scale
            coef[c + first + i] = <real>(-m[i] * scale if b == NULL else b[i] - m[i] * scale)


cdef void channel_coefficients(
    double mean, double var, double eps, const real[::1] weight, const real[::1] bias,
    Py_ssize_t j, Py_ssize_t c, real *coef, real[:, ::1] saved
) noexcept nogil:
    cdef double invstd = 1 / sqrt(var + eps)
    cdef double scale = invstd
    if weight is not None:
        scale = weight[j] * invstd
    coef[j] = <real>scale
    coef[c + j] = <real>(-mean * scale if bias is None else bias[j] - mean * scale)
    saved[0, j] = <real>mean
    saved[1, j] = <real>invstd


cdef void batch_moments(
    const real *x, Py_ssize_t x_row, Py_ssize_t m, Py_ssize_t c, real *sums, real *shard
) noexcept nogil:
    # sums (shards, 2, C): sum and sum of squared deviations; the first row ends as those of all
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t step = shard_rows(c), shards = (m + step - 1) // step, i, first, span, rows
    cdef real *a
    cdef real *b
    for i in prange(shards, schedule="static", num_threads=threads_for(3.0 * m * c)):
        first = i * step
        rows = min(step, m - first)
        table.moments(gathered(x, x_row, first, rows, c, shard + threadid() * step * c), rows, c, sums + 2 * i * c,
                      sums + 2 * i * c + c)
    span = 1
    while span < shards:
        for i in prange(0, shards - span, 2 * span, schedule="static",
                        num_threads=threads_for(8.0 * c * (shards // (2 * span)))):
            a = sums + 2 * i * c
            b = a + 2 * span * c
            first = (i + span) * step
            table.merge_moments(span * step, a, a + c, min(span * step, m - first), b, b + c, c)
        span = 2 * span


cdef void scale_shift(
    const real *x, Py_ssize_t x_row, Py_ssize_t m, Py_ssize_t c, const real *coef, fc_epilogue e, real *y,
    Py_ssize_t y_row, double cost
) noexcept nogil:
    # y = fma(x, coef[0], coef[1]), and what the epilogue makes of it
    e.scale, e.shift = coef, coef + c
    run_finish(ops(sizeof(real) // 4 - 1), e, <const char *>x, x_row, <char *>y, y_row, m, c, 1 + cost)


def backward(
    const real[:, :] g,
    const real[:, :] y,
    const real[:, :] x,
    const real[::1] weight,
    const real[:, ::1] saved,
    bint training,
    real[:, ::1] dx,
    real[::1] dweight,
    real[::1] dbias,
    scratch,
):
    """Set dx and add to dweight and dbias, each unless it is None; g counts where ReLU's output y lets it through,
    if y is not None."""
    cdef Py_ssize_t m = x.shape[0], c = x.shape[1], step = shard_rows(c), i, j, first, rows
    cdef Rows a
    if m == 0:
        return
    a.g_row = row_pitch(m, c, g.strides[0], sizeof(real))
    a.x_row = row_pitch(m, c, x.strides[0], sizeof(real))
    a.y_row = c if y is None else row_pitch(m, c, y.strides[0], sizeof(real))
    cdef Py_ssize_t room = room_elements(m, c, 3 * (a.g_row != c or a.x_row != c or a.y_row != c))
    cdef unsigned char[::1] arena = scratch((room + scratch_elements(m, c)) * sizeof(real))
    cdef real *shards = <real *>&arena[0]
    cdef real *shard
    cdef real *coef = shards + room
    cdef real *sums = coef + 4 * c
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef double invstd, scale
    cdef const real *passed = NULL
    cdef fc_epilogue e = Epilogue().e
    if y is not None:
        passed = &y[0, 0]
    with nogil:
        if training or dweight is not None or dbias is not None:
            gradient_sums(&g[0, 0], passed, &x[0, 0], a, &saved[0, 0], m, c, sums, shards)
        for j in range(c):
            invstd = saved[1, j]
            scale = invstd
            if weight is not None:
                scale = weight[j] * invstd
            if dweight is not None:
                dweight[j] += <real>(invstd * sums[c + j])
            if dbias is not None:
                dbias[j] += sums[j]
            if training:
                coef[j] = saved[0, j]
                coef[c + j] = <real>(-scale * invstd * invstd * sums[c + j] / m)
                coef[2 * c + j] = <real>(-scale * sums[j] / m)
                coef[3 * c + j] = <real>scale
            else:
                coef[j] = <real>scale
                coef[c + j] = 0
        if dx is not None:
            if training:
                for i in prange((m + step - 1) // step, schedule="static", num_threads=threads_for(4.0 * m * c)):
                    first = i * step
                    rows = min(step, m - first)
                    shard = shards + 3 * threadid() * step * c
                    table.norm_backward(gathered(&g[0, 0], a.g_row, first, rows, c, shard),
                                        gathered(passed, a.y_row, first, rows, c, shard + step * c),
                                        gathered(&x[0, 0], a.x_row, first, rows, c, shard + 2 * step * c), coef,
                                        rows, c, &dx[first, 0])
            elif passed != NULL:
                e.activation = FC_ACT_relu
                for i in prange((m + step - 1) // step, schedule="static", num_threads=threads_for(2.0 * m * c)):
                    first = i * step
                    table.activate_backward(&e, &g[first, 0], a.g_row, passed + first * a.y_row, a.y_row,
                                            &dx[first, 0], c, min(step, m - first), c)
                e.activation = FC_ACT_none
                scale_shift(&dx[0, 0], c, m, c, coef, e, &dx[0, 0], c, 1)
            else:
                scale_shift(&g[0, 0], a.g_row, m, c, coef, e, &dx[0, 0], c, 1)


cdef void gradient_sums(
    const real *g, const real *y, const real *x, Rows a, const real *mean, Py_ssize_t m, Py_ssize_t c, real *sums,
    real *shards
) noexcept nogil:
    # sums (shards, 2, C): sum of g and of g * (x - mean); the first row ends as those of all
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t step = shard_rows(c), count = (m + step - 1) // step, i, first, span, rows
    cdef real *shard
    for i in prange(count, schedule="static", num_threads=threads_for(4.0 * m * c)):
        first = i * step
        rows = min(step, m - first)
        shard = shards + 3 * threadid() * step * c
        table.norm_sums(gathered(g, a.g_row, first, rows, c, shard),
                        gathered(y, a.y_row, first, rows, c, shard + step * c),
                        gathered(x, a.x_row, first, rows, c, shard + 2 * step * c), mean, rows, c, sums + 2 * i * c)
    span = 1
    while span < count:
        for i in prange(0, count - span, 2 * span, schedule="static",
                        num_threads=threads_for(2.0 * c * (count // (2 * span)))):
            table.accumulate(sums + 2 * (i + span) * c, sums + 2 * i * c, 2 * c)
        span = 2 * span


def draw_mask(
    const uint64_t[::1] key,
    const uint64_t[::1] counter,
    uint64_t threshold,
    uint8_t[:, :, ::1] mask,
    uint8_t[::1] drawn,
):
    """Set mask (n, pixels, channels) to 1 where the element's 32 random bits are at least threshold.

    The bits of a Philox generator, low halves of its words first, go to the elements in the order (n, channel,
    pixel), that of an NCHW array. `drawn` is scratch for as many elements, rounded up to a multiple of 8.
    """
    cdef Py_ssize_t n = mask.shape[0], hw = mask.shape[1], c = mask.shape[2], total = n * hw * c
    cdef Py_ssize_t blocks = (total + 7) // 8, tiles = (hw + 63) // 64, i, q, first
    cdef int threads = threads_for(4.0 * total)
    for i in prange(0, blocks, 512, schedule="static", num_threads=threads, nogil=True):
        fc_philox_keep(&key[0], &counter[0], i, min(<Py_ssize_t>512, blocks - i), threshold, &drawn[8 * i])
    # A tile is 64 pixels and all channels: each cache line is read while it is in the cache.
    for i in prange(n * tiles, schedule="static", num_threads=threads, nogil=True):
        q = i % tiles * 64
        first = i // tiles * c * hw
        interleave(&drawn[first + q], hw, c, min(<Py_ssize_t>64, hw - q), &mask[i // tiles, q, 0])


cdef void interleave(
    const uint8_t *planes, Py_ssize_t hw, Py_ssize_t c, Py_ssize_t pixels, uint8_t *out
) noexcept nogil:
    # out (pixels, c) from c planes of hw bytes
    cdef Py_ssize_t p, k
    for p in range(pixels):
        for k in range(c):
            out[p * c + k] = planes[k * hw + p]


def drop(const real[::1] x, const uint8_t[::1] mask, double scale, real[::1] y):
    """Set y = x * scale where the mask is 1, x * 0 elsewhere."""
    cdef Py_ssize_t n = x.shape[0], i, first
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    for i in prange((n + SHARD - 1) // SHARD, schedule="static", num_threads=threads_for(2.0 * n), nogil=True):
        first = i * SHARD
        table.drop(&x[first], &mask[first], scale, min(<Py_ssize_t>SHARD, n - first), &y[first])
