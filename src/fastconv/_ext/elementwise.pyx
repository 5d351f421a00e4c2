"""Maps over contiguous memory: exp, log, sums, differences, a kernel being given by its name; matrices turned."""

from cython.parallel cimport prange

from fastconv._ext.runtime cimport MOVING, fc_ops, ops, threads_for

ctypedef fused real:
    float
    double

ctypedef void (*unary_kernel)(const void *x, void *y, Py_ssize_t n) noexcept nogil
ctypedef void (*binary_kernel)(const void *a, const void *b, void *y, Py_ssize_t n) noexcept nogil
ctypedef void (*scaled_kernel)(const void *a, const void *b, double s, void *y, Py_ssize_t n) noexcept nogil

# Elements of one kernel call: two operands and the result stay in L2.
cdef Py_ssize_t BLOCK = 16384
# Scalar operations an element costs, for the thread policy: a map with exp in it, and one without.
cdef double CURVED = 16
cdef double STRAIGHT = 1


cdef unary_kernel find_unary(const fc_ops *table, str name) except NULL:
    if name == "exp":
        return table.exp
    if name == "log":
        return table.log
    raise KeyError(name)


cdef binary_kernel find_binary(const fc_ops *table, str name) except NULL:
    if name == "add":
        return table.add
    raise KeyError(name)


cdef scaled_kernel find_scaled(const fc_ops *table, str name) except NULL:
    if name == "difference":
        return table.difference
    raise KeyError(name)


def unary(const real[::1] x, real[::1] y, str name):
    """Write y = f(x); y may be x."""
    cdef Py_ssize_t n = x.shape[0], begin
    cdef unary_kernel f = find_unary(ops(sizeof(real) // 4 - 1), name)
    cdef int threads = threads_for(n * (MOVING + CURVED))
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        f(&x[begin], &y[begin], min(BLOCK, n - begin))


def binary(const real[::1] a, const real[::1] b, real[::1] y, str name):
    """Write y = f(a, b); y may be a or b."""
    cdef Py_ssize_t n = a.shape[0], begin
    cdef binary_kernel f = find_binary(ops(sizeof(real) // 4 - 1), name)
    cdef int threads = threads_for(n * (MOVING + STRAIGHT))
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        f(&a[begin], &b[begin], &y[begin], min(BLOCK, n - begin))


def scaled(const real[::1] a, const real[::1] b, double s, real[::1] y, str name):
    """Write y = f(a, b, s); y may be a or b."""
    cdef Py_ssize_t n = a.shape[0], begin
    cdef scaled_kernel f = find_scaled(ops(sizeof(real) // 4 - 1), name)
    cdef int threads = threads_for(n * (MOVING + STRAIGHT))
    for begin in prange(0, n, BLOCK, nogil=True, schedule='static', num_threads=threads):
        f(&a[begin], &b[begin], s, &y[begin], min(BLOCK, n - begin))


def turn(const real[:, :, ::1] x, real[:, :, ::1] y):
    """Write y (N, B, A): each matrix of x (N, A, B) transposed."""
    cdef Py_ssize_t n = x.shape[0], rows = x.shape[1], cols = x.shape[2], i
    if n * rows * cols == 0:
        return
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef int threads = threads_for(<double>(MOVING + 1) * n * rows * cols)
    for i in prange(n, nogil=True, schedule='static', num_threads=threads):
        table.deinterleave(&x[i, 0, 0], rows, cols, &y[i, 0, 0], rows)
