"""What follows a sum before it is stored: see epilogue.pyx."""

from fastconv._ext.runtime cimport fc_epilogue, fc_ops


cdef class Epilogue:
    cdef fc_epilogue e                 # pointers at the first pixel and channel; add_col is the pitch of `add`
    cdef readonly Py_ssize_t itemsize  # of the arrays, 0 without one
    cdef readonly Py_ssize_t channels  # of the arrays, -1 without one
    cdef readonly Py_ssize_t pixels    # of add and pre, -1 without one
    cdef readonly double cost          # scalar operations of the activation, an element
    cdef tuple held                    # the arrays, kept alive

    cdef char *address(self, object a, str name, Py_ssize_t rows, bint writable) except NULL
    cdef char *images(self, object a, str name, bint writable) except NULL
    cdef int agree(self, str name, Py_ssize_t size, Py_ssize_t channels, Py_ssize_t pixels) except -1
    cdef int check(self, Py_ssize_t size, Py_ssize_t pixels, Py_ssize_t channels) except -1


# The epilogue of a block that begins `at` elements behind the result, `add_at` behind `add`, at channel k.
cdef fc_epilogue epilogue_at(const fc_epilogue *e, Py_ssize_t at, Py_ssize_t add_at, Py_ssize_t k,
                             Py_ssize_t size) noexcept nogil

# y (pixels, C) = epilogue(x), pixels x_row and y_row elements apart, shared among threads
cdef void run_finish(const fc_ops *table, fc_epilogue e, const char *x, Py_ssize_t x_row, char *y, Py_ssize_t y_row,
                     Py_ssize_t pixels, Py_ssize_t c, double cost) noexcept nogil

# The elements from one of these rows (rows, c) to the next
cdef Py_ssize_t row_pitch(Py_ssize_t rows, Py_ssize_t c, Py_ssize_t stride, Py_ssize_t size) noexcept nogil

# The elements from one pixel of images (N, H, W, C), whose pixels lie at one distance, to the next
cdef Py_ssize_t pixel_pitch(const Py_ssize_t *shape, const Py_ssize_t *strides, Py_ssize_t size) noexcept nogil
