"""Normalisation of each sample by its own statistics: of groups of its channels, or of whole rows.

The sums are those of batch normalisation (norm.pyx): a sample's pixels are the rows, cut into shards by the shape alone
and merged in a fixed tree. A group's statistics are made of its channels', in the order of the channels, in double. A
row is taken as a column of single channels. Threads share samples, or where those are few the shards of each; blocks of
rows, or where a row is longer than a block rows or the shards of each.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libc.string cimport memset

from fastconv._ext.conv.geometry cimport ceil_div
from fastconv._ext.epilogue cimport Epilogue, epilogue_at
from fastconv._ext.norm cimport Rows, batch_moments, gradient_sums, real, scale_shift, scratch_elements
from fastconv._ext.runtime cimport FC_ACT_none, fc_epilogue, fc_ops, ops, threads_for

# Elements of rows that one thread takes at once; a longer row is cut into shards.
cdef Py_ssize_t BLOCK = 16384


cdef int sharing(Py_ssize_t n, double work) noexcept:
    """Return the threads that share n samples: 1 where there are fewer, and each sample is shared instead."""
    cdef int threads = threads_for(work)
    return threads if n >= threads else 1


def group_forward(
    const real[:, :, ::1] x,
    Py_ssize_t groups,
    const real[::1] weight,
    const real[::1] bias,
    double eps,
    real[:, :, ::1] y,
    real[:, :, ::1] saved,
    Epilogue epilogue,
    scratch,
):
    """Normalise groups of channels of each sample (M, C); saved (N, 2, groups) receives mean and 1 / deviation."""
    cdef Py_ssize_t n = x.shape[0], m = x.shape[1], c = x.shape[2], i, own = scratch_elements(m, c)
    cdef int threads = sharing(n, 6.0 * n * m * c)
    cdef unsigned char[::1] arena = scratch(threads * own * sizeof(real))
    cdef real *memory = <real *>&arena[0]
    epilogue.check(sizeof(real), n * m, c)
    cdef fc_epilogue e = epilogue.e
    cdef double cost = epilogue.cost
    for i in prange(n, nogil=True, schedule="static", num_threads=threads):
        group_sample(&x[i, 0, 0], m, c, groups, weight, bias, eps, epilogue_at(&e, i * m * c, 0, 0, sizeof(real)), cost,
                     memory + threadid() * own, &saved[i, 0, 0], &y[i, 0, 0])


cdef void group_sample(
    const real *x, Py_ssize_t m, Py_ssize_t c, Py_ssize_t groups, const real[::1] weight, const real[::1] bias,
    double eps, fc_epilogue e, double cost, real *coef, real *saved, real *y
) noexcept nogil:
    cdef real *sums = coef + 4 * c
    cdef Py_ssize_t depth = c // groups, k, j
    cdef double total, mean, away, invstd, scale
    batch_moments(x, c, m, c, sums, sums)
    for k in range(groups):
        total = 0
        for j in range(k * depth, (k + 1) * depth):
            total = total + sums[j]
        mean = total / (m * depth)
        total = 0
        for j in range(k * depth, (k + 1) * depth):
            away = sums[j] / <double>m - mean
            total = total + sums[c + j] + m * away * away
        invstd = 1 / sqrt(total / (m * depth) + eps)
        saved[k] = <real>mean
        saved[groups + k] = <real>invstd
        for j in range(k * depth, (k + 1) * depth):
            scale = invstd
            if weight is not None:
                scale = weight[j] * invstd
            coef[j] = <real>scale
            coef[c + j] = <real>(-mean * scale if bias is None else bias[j] - mean * scale)
    scale_shift(x, c, m, c, coef, e, y, c, cost)


def group_backward(
    const real[:, :, ::1] g,
    const real[:, :, ::1] y,
    const real[:, :, ::1] x,
    Py_ssize_t groups,
    const real[::1] weight,
    const real[:, :, ::1] saved,
    real[:, :, ::1] dx,
    real[::1] dweight,
    real[::1] dbias,
    scratch,
):
    """Set dx and add to dweight and dbias, each unless it is None; g counts where ReLU's output y lets it through, if
    y is not None. Samples are added in their order, in double."""
    cdef Py_ssize_t n = x.shape[0], m = x.shape[1], c = x.shape[2], i, j, own = scratch_elements(m, c) + c
    cdef int threads = sharing(n, 8.0 * n * m * c)
    cdef unsigned char[::1] arena = scratch((threads * own + 2 * n * c) * sizeof(real))
    cdef real *parts = <real *>&arena[0]
    cdef real *memory = parts + 2 * n * c
    cdef const real *passed = NULL
    cdef real *target = NULL
    cdef double first, second
    if n == 0:
        return
    if y is not None:
        passed = &y[0, 0, 0]
    if dx is not None:
        target = &dx[0, 0, 0]
    for i in prange(n, nogil=True, schedule="static", num_threads=threads):
        group_sample_backward(&g[i, 0, 0], behind(passed, i * m * c), &x[i, 0, 0], m, c, groups, weight,
                              &saved[i, 0, 0], memory + threadid() * own, parts + 2 * i * c, at(target, i * m * c))
    for j in range(c):
        first = second = 0
        for i in range(n):
            first = first + parts[2 * i * c + j]
            second = second + parts[2 * i * c + c + j]
        if dweight is not None:
            dweight[j] += <real>first
        if dbias is not None:
            dbias[j] += <real>second


cdef inline const real *behind(const real *a, Py_ssize_t count) noexcept nogil:
    if a == NULL:
        return NULL
    return a + count


cdef inline real *at(real *a, Py_ssize_t count) noexcept nogil:
    if a == NULL:
        return NULL
    return a + count


cdef void group_sample_backward(
    const real *g, const real *y, const real *x, Py_ssize_t m, Py_ssize_t c, Py_ssize_t groups,
    const real[::1] weight, const real *saved, real *coef, real *part, real *dx
) noexcept nogil:
    # part (2, C): this sample's gradients of weight and bias
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef real *means = coef + 4 * c
    cdef real *sums = means + c
    cdef Py_ssize_t depth = c // groups, step = max(1, BLOCK // c), k, j, first
    cdef double invstd, factor, even, slope
    for j in range(c):
        means[j] = saved[j // depth]
    gradient_sums(g, y, x, Rows(c, c, c), means, m, c, sums, sums)
    for k in range(groups):
        invstd = saved[groups + k]
        even = slope = 0
        for j in range(k * depth, (k + 1) * depth):
            factor = 1
            if weight is not None:
                factor = weight[j]
            even = even + factor * sums[j]
            slope = slope + factor * sums[c + j]
            part[j] = <real>(invstd * sums[c + j])
            part[c + j] = sums[j]
        for j in range(k * depth, (k + 1) * depth):
            factor = 1
            if weight is not None:
                factor = weight[j]
            coef[j] = means[j]
            coef[c + j] = <real>(-invstd * invstd * invstd * slope / (m * depth))
            coef[2 * c + j] = <real>(-invstd * even / (m * depth))
            coef[3 * c + j] = <real>(factor * invstd)
    if dx != NULL:
        for first in prange(0, m, step, schedule="static", num_threads=threads_for(4.0 * m * c)):
            table.norm_backward(g + first * c, behind(y, first * c), x + first * c, coef, min(step, m - first), c,
                                dx + first * c)


def row_forward(
    const real[:, ::1] x,
    const real[::1] weight,
    const real[::1] bias,
    double eps,
    real[:, ::1] y,
    real[:, ::1] saved,
    Epilogue epilogue,
    scratch,
):
    """Normalise each row of x (M, D); saved (2, M) receives mean and 1 / deviation. Weight and bias: both or None."""
    cdef Py_ssize_t m = x.shape[0], d = x.shape[1], i, block = max(1, BLOCK // d), own = scratch_elements(d, 1)
    cdef int threads = sharing(ceil_div(m, block), 6.0 * m * d)
    cdef unsigned char[::1] arena = scratch(threads * own * sizeof(real))
    cdef real *memory = <real *>&arena[0]
    epilogue.check(sizeof(real), m, d)
    cdef fc_epilogue e = epilogue.e
    if weight is not None:
        e.scale, e.shift = &weight[0], &bias[0]
    if d > BLOCK:
        for i in prange(m, nogil=True, schedule="static", num_threads=threads):
            long_row(&x[i, 0], d, eps, epilogue_at(&e, i * d, 0, 0, sizeof(real)), memory + threadid() * own,
                     &saved[0, i], m, &y[i, 0])
        return
    for i in prange(0, m, block, nogil=True, schedule="static", num_threads=threads):
        short_rows(&x[i, 0], min(block, m - i), d, eps, epilogue_at(&e, i * d, 0, 0, sizeof(real)), &saved[0, i], m,
                   &y[i, 0])


cdef void short_rows(
    const real *x, Py_ssize_t rows, Py_ssize_t d, double eps, fc_epilogue e, real *saved, Py_ssize_t m, real *y
) noexcept nogil:
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    table.row_norm(x, rows, d, eps, saved, saved + m, y)
    if e.scale != NULL or e.pre != NULL or e.activation != FC_ACT_none:
        table.finish(&e, y, d, y, d, rows, d)


cdef void long_row(
    const real *x, Py_ssize_t d, double eps, fc_epilogue e, real *coef, real *saved, Py_ssize_t m, real *y
) noexcept nogil:
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef real *sums = coef + 4
    cdef double mean, invstd
    cdef fc_epilogue plain
    batch_moments(x, 1, d, 1, sums, sums)
    mean = <double>sums[0] / d
    invstd = 1 / sqrt(<double>sums[1] / d + eps)
    saved[0] = <real>mean
    saved[m] = <real>invstd
    coef[0] = <real>invstd
    coef[1] = <real>(-mean * invstd)
    memset(&plain, 0, sizeof(plain))
    plain.scale, plain.shift = coef, coef + 1
    table.finish(&plain, x, 1, y, 1, d, 1)
    if e.scale != NULL or e.pre != NULL or e.activation != FC_ACT_none:
        table.finish(&e, y, d, y, d, 1, d)


def row_backward(
    const real[:, ::1] g,
    const real[:, ::1] x,
    const real[::1] weight,
    const real[:, ::1] saved,
    real[:, ::1] dx,
    real[::1] dweight,
    real[::1] dbias,
    scratch,
):
    """Set dx (M, D) and add to dweight and dbias, both unless they are None. Rows are added in shards, in a fixed tree.
    """
    cdef Py_ssize_t m = x.shape[0], d = x.shape[1], i, j, block = max(1, BLOCK // d), own = scratch_elements(d, 1) + d
    cdef Py_ssize_t shared = scratch_elements(m, d)
    cdef int threads = sharing(ceil_div(m, block), 6.0 * m * d)
    cdef unsigned char[::1] arena = scratch((shared + d + threads * own) * sizeof(real))
    cdef real *sums = <real *>&arena[0]
    cdef real *zeros = sums + shared
    cdef real *memory = zeros + d
    cdef const real *factors = NULL
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    if m == 0:
        return
    if weight is not None:
        factors = &weight[0]
    for j in range(d):
        zeros[j] = 0
    # first the normalised rows, where dx will be
    for i in prange(0, m, block, nogil=True, schedule="static", num_threads=threads):
        table.row_renorm(&x[i, 0], min(block, m - i), d, &saved[0, i], &saved[1, i], &dx[i, 0])
    if dweight is not None or dbias is not None:
        gradient_sums(&g[0, 0], <const real *>NULL, &dx[0, 0], Rows(d, d, d), zeros, m, d, sums, sums)
    for j in range(d):
        if dweight is not None:
            dweight[j] += sums[d + j]
        if dbias is not None:
            dbias[j] += sums[j]
    if d > BLOCK:
        for i in prange(m, nogil=True, schedule="static", num_threads=threads):
            long_row_backward(&g[i, 0], d, factors, zeros, saved[1, i], memory + threadid() * own, &dx[i, 0])
        return
    for i in prange(0, m, block, nogil=True, schedule="static", num_threads=threads):
        table.row_norm_backward(&g[i, 0], factors, min(block, m - i), d, &saved[1, i], &dx[i, 0])


cdef void long_row_backward(
    const real *g, Py_ssize_t d, const real *weight, const real *zeros, double invstd, real *coef, real *dx
) noexcept nogil:
    # dx: the normalised row, then its gradient
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef real *weighted = coef + 4
    cdef real *sums = weighted + d
    cdef fc_epilogue plain
    if weight != NULL:
        memset(&plain, 0, sizeof(plain))
        plain.scale, plain.shift = weight, zeros
        table.finish(&plain, g, d, weighted, d, 1, d)
        g = weighted
    gradient_sums(g, <const real *>NULL, dx, Rows(1, 1, 1), zeros, d, 1, sums, sums)
    coef[0] = 0
    coef[1] = <real>(-invstd * sums[1] / d)
    coef[2] = <real>(-invstd * sums[0] / d)
    coef[3] = <real>invstd
    table.norm_backward(g, NULL, dx, coef, d, 1, dx)
