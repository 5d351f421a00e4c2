"""Loops that do nothing but reach the machine's limits; the benchmarks time them."""

from cython.parallel cimport prange
from libc.string cimport memcpy

from fastconv._ext.runtime cimport fc_ops, ops

cdef enum:
    CHAINS = 10


def fma_throughput(int kind, Py_ssize_t rounds, int threads):
    """Run independent fused multiply-adds on every thread; return the floating-point operations done."""
    cdef const fc_ops *table = ops(kind)
    cdef double sink[1024]
    cdef int i
    for i in prange(threads, nogil=True, schedule='static', num_threads=threads):
        table.fma_throughput(rounds, &sink[i % 64 * 16])
    return 2.0 * CHAINS * table.lanes * rounds * threads


def fma_latency(int kind, Py_ssize_t rounds):
    """Run ``rounds`` fused multiply-adds, each waiting for the one before."""
    cdef const fc_ops *table = ops(kind)
    cdef double sink[1]
    with nogil:
        table.fma_latency(rounds, sink)


def copy(const unsigned char[::1] source, unsigned char[::1] target, int threads):
    """Copy on every thread; return the bytes moved (read and written)."""
    cdef Py_ssize_t n = min(source.shape[0], target.shape[0]) // threads
    cdef int i
    for i in prange(threads, nogil=True, schedule='static', num_threads=threads):
        memcpy(&target[i * n], &source[i * n], n)
    return 2.0 * n * threads
