"""The gradient of a bias: sums over rows. Adding it is a step of an epilogue (epilogue.pyx)."""

from cython.parallel cimport prange
from libc.string cimport memset

from fastconv._ext.runtime cimport fc_ops, ops, threads_for
from fastconv._ext.shards cimport add_tree

ctypedef fused real:
    float
    double


def bias_gradient(const real[:, ::1] grad_y, real[::1] grad_bias, scratch):
    """Add to grad_bias (K) the sums of grad_y (pixels, K), in shards cut by the number of pixels alone."""
    cdef Py_ssize_t pixels = grad_y.shape[0], k = grad_y.shape[1], shard
    if pixels == 0:
        return
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t shards = max(1, min(16, pixels // 256))
    cdef Py_ssize_t nbytes = shards * k * sizeof(real)
    cdef unsigned char[::1] arena = scratch(nbytes)
    cdef char *sums = <char *>&arena[0]
    cdef const char *g = <const char *>&grad_y[0, 0]
    cdef Py_ssize_t first[17]
    cdef int threads = threads_for(<double>pixels * k)
    cdef Py_ssize_t side = 4 if threads <= 4 else 1, task   # so many shards go side by side
    with nogil:
        memset(sums, 0, nbytes)
        for shard in range(shards + 1):
            first[shard] = shard * pixels // shards
        for task in prange((shards + side - 1) // side, schedule='static', num_threads=threads):
            table.column_sums(g, first + task * side, min(side, shards - task * side), k,
                              sums + task * side * k * sizeof(real))
        add_tree(table, sums, shards, k, 0, k)
        table.accumulate(sums, &grad_bias[0], k)
