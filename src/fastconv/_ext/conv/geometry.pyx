"""The sizes of one convolution."""


cdef class Geometry:
    """The sizes of one convolution: N C H W input, K filters, R S kernel, P Q output."""

    def __init__(self, Py_ssize_t n, Py_ssize_t c, Py_ssize_t h, Py_ssize_t w, Py_ssize_t k, Py_ssize_t r,
                 Py_ssize_t s, Py_ssize_t p, Py_ssize_t q, Py_ssize_t sh, Py_ssize_t sw, Py_ssize_t top,
                 Py_ssize_t left, Py_ssize_t dh, Py_ssize_t dw, Py_ssize_t groups):
        self.n, self.c, self.h, self.w, self.k, self.r, self.s = n, c, h, w, k, r, s
        self.p, self.q, self.sh, self.sw, self.top, self.left = p, q, sh, sw, top, left
        self.dh, self.dw, self.groups = dh, dw, groups
        self.depthwise = groups > 1 and groups == c and groups == k

    cdef double work(self) noexcept nogil:
        return <double>self.n * self.p * self.q * self.k * (self.c // self.groups) * self.r * self.s

    @property
    def extent(self):
        """The numbers of all arrays with the widest borders that a pass may lay around an image."""
        cdef double rows = <double>self.h + 2.0 * self.r * self.dh + <double>self.p * self.sh
        cdef double columns = <double>self.w + 2.0 * self.s * self.dw + <double>self.q * self.sw
        return (self.n * rows * columns * (<double>self.c + self.k)
                + <double>self.k * (self.c // self.groups) * self.r * self.s)
