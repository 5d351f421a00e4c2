"""The sizes of one convolution: geometry.pyx."""


cdef class Geometry:
    cdef readonly Py_ssize_t n, c, h, w, k, r, s, p, q, sh, sw, top, left, dh, dw, groups
    cdef readonly bint depthwise

    cdef double work(self) noexcept nogil


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b
