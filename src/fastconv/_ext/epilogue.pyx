"""What becomes of a result before it is stored, as one object; the same over rows that lie in memory.

    r + bias[k];  fma(r, scale[k], shift[k]);  r + add[pixel, k];  pre[pixel, k] = r;  activation(r)

Each step is left out where there is nothing for it. Convolution, linear layers and batch normalisation take an
Epilogue and apply it in their own pass, bit-equal to the steps one after the other.
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.parallel cimport prange

from fastconv._ext.runtime cimport MOVING, fc_epilogue, fc_ops, ops, threads_for

cdef extern from *:
    """
    #include "kernels.h"
    typedef struct fc_activation {
        const char *name;
        int known, cost, channels;
        double a, b;
        const char *parameters;
    } fc_activation;
    static const fc_activation fc_activations[] = {
    #define FC_ACTIVATION(name, mathematics, known, cost, channels, a, b, parameters) \\
        {#name, known, cost, channels, a, b, parameters},
    #include "activations.inc"
    #undef FC_ACTIVATION
    };
    enum { FC_ACTIVATIONS = sizeof fc_activations / sizeof *fc_activations };
    """
    ctypedef struct fc_activation:
        const char *name
        int known
        int cost
        int channels
        double a
        double b
        const char *parameters

    const fc_activation *fc_activations
    enum: FC_ACTIVATIONS

ctypedef fused real:
    float
    double

# Elements of one kernel call: operands and the result stay in L2.
cdef Py_ssize_t BLOCK = 16384


def activations():
    """Return (name, known, channels, (a, b), parameters) of each row of activations.inc; its code is its place + 1.

    known is "output", "input" or "either", what the gradient is made from; channels tells whether the parameter is
    an array; (a, b) are the defaults, parameters the names of those that may be given.
    """
    known = ("output", "input", "either")
    return [
        (row.name.decode(), known[row.known], bool(row.channels), (row.a, row.b),
         tuple(row.parameters.decode().split()))
        for row in fc_activations[:FC_ACTIVATIONS]
    ]


cdef dict CODES = {fc_activations[i].name.decode(): i + 1 for i in range(FC_ACTIVATIONS)}


cdef class Epilogue:
    """Steps that an operation applies to its result, in its own pass.

    Arrays are as kernels take them: one dtype, C-contiguous, channels last; `add` may have gaps between pixels.

    Parameters
    ----------
    activation : str or None
        A name of :func:`activations`.
    params : tuple
        The activation's parameters, in order; defaults for those left out. One a channel is an array (K,).
    bias : array (K,) or None
    coefficients : array (2, K) or None
        Scale and shift.
    add : array (..., K) or None
        Of the result's shape.
    pre : array (..., K) or None
        Receives what the activation is given.

    Raises
    ------
    KeyError
        If there is no such activation.
    ValueError
        If the arrays do not fit together.
    """

    def __cinit__(self, activation=None, tuple params=(), bias=None, coefficients=None, add=None, pre=None):
        cdef const fc_activation *row
        cdef fc_epilogue *e = &self.e
        self.channels = self.pixels = -1
        self.cost = 1
        self.held = (bias, coefficients, add, pre, params)
        if activation is not None:
            e.activation = CODES[activation]
            row = &fc_activations[e.activation - 1]
            self.cost, e.a, e.b = row.cost, row.a, row.b
            if row.channels:
                e.slopes = self.address(params[0], "params", 1, False)
            else:
                if len(params) > 0:
                    e.a = params[0]
                if len(params) > 1:
                    e.b = params[1]
        if bias is not None:
            e.bias = self.address(bias, "bias", 1, False)
        if coefficients is not None:
            e.scale = self.address(coefficients, "coefficients", 2, False)
            e.shift = <const char *>e.scale + self.channels * self.itemsize
        if add is not None:
            e.add = self.images(add, "add", False)
        if pre is not None:
            e.pre = self.images(pre, "pre", True)

    cdef char *address(self, object a, str name, Py_ssize_t rows, bint writable) except NULL:
        """Return where an array (rows, K) lies."""
        cdef Py_buffer view
        PyObject_GetBuffer(a, &view, PyBUF_C_CONTIGUOUS)
        cdef char *start = <char *>view.buf
        cdef Py_ssize_t size = view.itemsize, nbytes = view.len
        PyBuffer_Release(&view)
        self.agree(name, size, nbytes // (size * rows), self.pixels)
        return start

    cdef char *images(self, object a, str name, bint writable) except NULL:
        """Return where an array (..., K) lies, whose pixels follow each other at one distance."""
        cdef Py_buffer view
        PyObject_GetBuffer(a, &view, PyBUF_STRIDES | PyBUF_WRITABLE if writable else PyBUF_STRIDES)
        cdef char *start = <char *>view.buf
        cdef Py_ssize_t size = view.itemsize, channels = view.shape[view.ndim - 1], pixels = 1, d
        cdef Py_ssize_t pitch = channels * size
        cdef bint regular = view.strides[view.ndim - 1] == size or channels == 1
        for d in range(view.ndim - 2, -1, -1):
            if view.shape[d] != 1:
                if pixels == 1:
                    pitch = view.strides[d]
                regular = regular and view.strides[d] == pitch * pixels
            pixels *= view.shape[d]
        PyBuffer_Release(&view)
        if not regular or pitch % size or (writable and pitch != channels * size):
            raise ValueError(f"Epilogue: {name} must have its channels last and its pixels at one distance")
        if not writable:
            self.e.add_col = pitch // size
        self.agree(name, size, channels, pixels)
        return start

    cdef int agree(self, str name, Py_ssize_t size, Py_ssize_t channels, Py_ssize_t pixels) except -1:
        """Note the sizes of an array, or raise ValueError if those noted before differ."""
        if (self.itemsize not in (0, size) or self.channels not in (-1, channels) or self.pixels not in (-1, pixels)):
            raise ValueError(
                f"Epilogue: {name} has {pixels} pixels of {channels} channels of {size} bytes, what came before "
                f"{self.pixels} pixels of {self.channels} channels of {self.itemsize} bytes"
            )
        self.itemsize, self.channels, self.pixels = size, channels, pixels
        return 0

    cdef int check(self, Py_ssize_t size, Py_ssize_t pixels, Py_ssize_t channels) except -1:
        """Raise ValueError unless this fits a result of so many pixels and channels, and elements of so many bytes."""
        if (self.itemsize not in (0, size) or self.channels not in (-1, channels) or self.pixels not in (-1, pixels)):
            raise ValueError(
                f"Epilogue: its arrays have {self.pixels} pixels of {self.channels} channels of {self.itemsize} bytes, "
                f"the result has {pixels} pixels of {channels} channels of {size} bytes"
            )
        return 0


cdef fc_epilogue epilogue_at(const fc_epilogue *e, Py_ssize_t at, Py_ssize_t add_at, Py_ssize_t k,
                             Py_ssize_t size) noexcept nogil:
    cdef fc_epilogue b = e[0]
    if b.bias != NULL:
        b.bias = <const char *>b.bias + k * size
    if b.scale != NULL:
        b.scale = <const char *>b.scale + k * size
        b.shift = <const char *>b.shift + k * size
    if b.add != NULL:
        b.add = <const char *>b.add + (add_at + k) * size
    if b.pre != NULL:
        b.pre = <char *>b.pre + (at + k) * size
    if b.slopes != NULL:
        b.slopes = <const char *>b.slopes + k * size
    return b


cdef Py_ssize_t row_pitch(Py_ssize_t rows, Py_ssize_t c, Py_ssize_t stride, Py_ssize_t size) noexcept nogil:
    return c if rows == 1 else stride // size


cdef Py_ssize_t pixel_pitch(const Py_ssize_t *shape, const Py_ssize_t *strides, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t axis
    for axis in range(2, -1, -1):
        if shape[axis] > 1:
            return strides[axis] // size
    return shape[3]


def finish(const real[:, :] x, real[:, :] y, Epilogue epilogue):
    """Write y (pixels, C) = epilogue(x), channels together, pixels at one distance; y may be x."""
    cdef Py_ssize_t pixels = x.shape[0], c = x.shape[1], size = sizeof(real)
    epilogue.check(size, pixels, c)
    if pixels == 0:
        return
    cdef Py_ssize_t x_row = row_pitch(pixels, c, x.strides[0], size), y_row = row_pitch(pixels, c, y.strides[0], size)
    if epilogue.e.pre != NULL and y_row != c:
        raise ValueError("finish: with pre, the pixels of y must follow each other")
    run_finish(ops(sizeof(real) // 4 - 1), epilogue.e, <const char *>&x[0, 0], x_row, <char *>&y[0, 0], y_row,
               pixels, c, epilogue.cost)


cdef void run_finish(const fc_ops *table, fc_epilogue e, const char *x, Py_ssize_t x_row, char *y, Py_ssize_t y_row,
                     Py_ssize_t pixels, Py_ssize_t c, double cost) noexcept nogil:
    cdef Py_ssize_t block, task
    cdef bint close = x_row == c and y_row == c and (e.add == NULL or e.add_col == c)
    if close and e.bias == NULL and e.scale == NULL and e.slopes == NULL:
        pixels, c, x_row, y_row, e.add_col = pixels * c, 1, 1, 1, 1   # elements are alike: any block of them will do
    block = max(1, BLOCK // c)
    cdef int threads = threads_for(pixels * c * (MOVING + cost))
    for task in prange((pixels + block - 1) // block, schedule='static', num_threads=threads):
        finish_block(table, &e, x, x_row, y, y_row, task * block, min(block, pixels - task * block), c)


cdef void finish_block(const fc_ops *table, const fc_epilogue *e, const char *x, Py_ssize_t x_row, char *y,
                       Py_ssize_t y_row, Py_ssize_t first, Py_ssize_t pixels, Py_ssize_t c) noexcept nogil:
    cdef fc_epilogue b = epilogue_at(e, first * y_row, first * e.add_col, 0, table.size)
    table.finish(&b, x + first * x_row * table.size, x_row, y + first * y_row * table.size, y_row, pixels, c)


def activate_backward(const real[:, :] grad_y, const real[:, :] known, real[:, :] grad_x, Epilogue epilogue):
    """Write grad_x (pixels, C): grad_y times the activation's slope where its output or input is ``known``.

    Channels lie together, pixels at one distance; grad_x may be either of the others.
    """
    cdef Py_ssize_t pixels = known.shape[0], c = known.shape[1], size = sizeof(real), first, block
    if pixels == 0:
        return
    cdef const fc_epilogue *e = &epilogue.e
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t g_row = row_pitch(pixels, c, grad_y.strides[0], size)
    cdef Py_ssize_t k_row = row_pitch(pixels, c, known.strides[0], size)
    cdef Py_ssize_t x_row = row_pitch(pixels, c, grad_x.strides[0], size)
    if e.slopes == NULL and g_row == c and k_row == c and x_row == c:
        pixels, c, g_row, k_row, x_row = pixels * c, 1, 1, 1, 1
    block = max(1, BLOCK // c)
    cdef const char *g = <const char *>&grad_y[0, 0]
    cdef const char *k = <const char *>&known[0, 0]
    cdef char *dx = <char *>&grad_x[0, 0]
    cdef int threads = threads_for(pixels * c * (MOVING + epilogue.cost))
    for first in prange(0, pixels, block, nogil=True, schedule='static', num_threads=threads):
        table.activate_backward(e, g + first * g_row * size, g_row, k + first * k_row * size, k_row,
                                dx + first * x_row * size, x_row, min(block, pixels - first), c)
