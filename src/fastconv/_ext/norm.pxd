"""What normalisations over other rows than a batch's share with it: see norm.pyx."""

from fastconv._ext.runtime cimport fc_epilogue

ctypedef fused real:
    float
    double

# elements of scratch that the functions below need for (m, c) rows
cdef Py_ssize_t scratch_elements(Py_ssize_t m, Py_ssize_t c) noexcept nogil

cdef struct Rows:
    # elements from one row to the next, of a gradient, an output and an input
    Py_ssize_t g_row, y_row, x_row

# Where rows do not follow each other (a row is not c elements), `shard` and `shards` are scratch that each thread
# gathers them in; else they are not touched.

# sums (shards, 2, C): of x and of squared deviations from its mean over m rows; the first row ends as those of all
cdef void batch_moments(
    const real *x, Py_ssize_t x_row, Py_ssize_t m, Py_ssize_t c, real *sums, real *shard
) noexcept nogil

# sums (shards, 2, C): of g and of g * (x - mean), g where ReLU's output y lets it through unless that is NULL
cdef void gradient_sums(
    const real *g, const real *y, const real *x, Rows a, const real *mean, Py_ssize_t m, Py_ssize_t c, real *sums,
    real *shards
) noexcept nogil

# y = fma(x, coef[0], coef[1]), and what the epilogue makes of it
cdef void scale_shift(
    const real *x, Py_ssize_t x_row, Py_ssize_t m, Py_ssize_t c, const real *coef, fc_epilogue e, real *y,
    Py_ssize_t y_row, double cost
) noexcept nogil
