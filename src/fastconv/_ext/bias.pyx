"""The gradient of a bias: sums over rows. Adding it is a step of an epilogue (epilogue.pyx)."""

from cython.parallel cimport prange
from libc.string cimport memset

from fastconv._ext.runtime cimport fc_ops, ops, threads_for
from fastconv._ext.shards cimport add_tree

ctypedef fused real:
    float
    double


cdef Py_ssize_t bias_shards(Py_ssize_t pixels) noexcept nogil:
    """Return into how many shards the sums over so many pixels are cut."""
    return max(1, min(16, pixels // 256))


cdef void add_columns(const fc_ops *table, const char *g, Py_ssize_t pixels, Py_ssize_t k, char *sums,
                      char *grad_bias) noexcept nogil:
    """Add to grad_bias (k) the sums of g (pixels, k); ``sums`` is memory for `bias_shards` rows."""
    cdef Py_ssize_t shards = bias_shards(pixels), shard, task
    cdef Py_ssize_t first[17]
    cdef int threads = threads_for(<double>pixels * k)
    cdef Py_ssize_t side = 4 if threads <= 4 else 1   # so many shards go side by side
    memset(sums, 0, shards * k * table.size)
    for shard in range(shards + 1):
        first[shard] = shard * pixels // shards
    for task in prange((shards + side - 1) // side, schedule='static', num_threads=threads):
        table.column_sums(g, first + task * side, min(side, shards - task * side), k,
                          sums + task * side * k * table.size)
    add_tree(table, sums, shards, k, 0, k)
    table.accumulate(sums, grad_bias, k)


def bias_gradient(const real[:, ::1] grad_y, real[::1] grad_bias, scratch):
    """Add to grad_bias (K) the sums of grad_y (pixels, K), in shards cut by the number of pixels alone."""
    cdef Py_ssize_t pixels = grad_y.shape[0], k = grad_y.shape[1]
    if pixels == 0:
        return
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef unsigned char[::1] arena = scratch(bias_shards(pixels) * k * sizeof(real))
    with nogil:
        add_columns(table, <const char *>&grad_y[0, 0], pixels, k, <char *>&arena[0], <char *>&grad_bias[0])
