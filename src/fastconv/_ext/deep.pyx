"""Residual cores: which thread walks which chunk, forward and backward.

Forward, threads share the lanes of the batch and meet only at the end. Backward, two threads take chunks in
turn: while one walks chunk c back, the other recomputes chunk c - 1, which it will walk back next; what a thread
recomputes it reads again itself, out of its own cache. One thread does both in one loop, on two tapes.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.string cimport memcpy

from fastconv._ext.runtime cimport fc_deep, fc_ops, ops, threads_for

ctypedef fused real:
    float
    double


def lanes(int kind):
    """Return the lanes of a register in the active table."""
    return ops(kind).lanes


cdef void describe(fc_deep *a, Py_ssize_t width, Py_ssize_t blocks, int activation, double alpha) noexcept nogil:
    a.width = width
    a.blocks = blocks
    a.activation = activation
    a.alpha = alpha
    a.root = sqrt(alpha)


cdef void forward_part(
    const fc_ops *table, fc_deep a, const real *w, real *h, real *marks, Py_ssize_t layers, Py_ssize_t chunk
) noexcept nogil:
    # the registers a.first.. of h through all layers; marks (chunks, blocks, D, 16): the state before each chunk
    cdef Py_ssize_t row = a.width * (a.width + 1), state = a.blocks * a.width * 16
    cdef Py_ssize_t c, v, k, at, lanes = table.lanes
    a.h = h
    for c in range((layers + chunk - 1) // chunk):
        if marks != NULL:
            for v in range(a.first, a.first + a.vectors):
                at = v * lanes // 16 * a.width * 16 + v * lanes % 16
                for k in range(a.width):
                    memcpy(marks + c * state + at + k * 16, h + at + k * 16, lanes * sizeof(real))
        a.layers = min(chunk, layers - c * chunk)
        a.w = w + c * chunk * row
        table.deep_forward(&a)


def forward(
    const real[:, ::1] weights,
    real[:, :, ::1] h,
    real[:, :, :, ::1] marks,
    Py_ssize_t chunk,
    int activation,
    double alpha,
):
    """Replace the state h (blocks, D, 16) by the one after all layers of weights (L, D * D + D).

    marks (chunks, blocks, D, 16), unless None, receives the state before each chunk.
    """
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t layers = weights.shape[0], blocks = h.shape[0], width = h.shape[1], lanes = table.lanes
    cdef Py_ssize_t count = blocks * 16 // lanes
    cdef int threads = threads_for(<double>layers * blocks * 16 * (width + 8) * width)
    cdef Py_ssize_t parts = min(<Py_ssize_t>threads, count), p
    cdef fc_deep a
    cdef real *saved = NULL
    if layers == 0 or blocks == 0:
        return
    if marks is not None:
        saved = &marks[0, 0, 0, 0]
    with nogil:
        describe(&a, width, blocks, activation, alpha)
        for p in prange(parts, schedule='static', num_threads=threads):
            forward_range(table, &a, &weights[0, 0], &h[0, 0, 0], saved, layers, chunk,
                          p * count // parts, (p + 1) * count // parts)


cdef void forward_range(
    const fc_ops *table, const fc_deep *shared, const real *w, real *h, real *marks, Py_ssize_t layers,
    Py_ssize_t chunk, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    cdef fc_deep a = shared[0]
    a.first = first
    a.vectors = end - first
    forward_part(table, a, w, h, marks, layers, chunk)


cdef struct walk:
    Py_ssize_t layers, chunk, row, state
    Py_ssize_t tape_size


cdef void place(fc_deep *a, const walk *s, Py_ssize_t c, const real *w, real *w_new, const real *marks,
                real *tapes, Py_ssize_t tape) noexcept nogil:
    # point a at chunk c and one of the two tapes
    a.layers = min(s.chunk, s.layers - c * s.chunk)
    a.w = w + c * s.chunk * s.row
    a.w_new = w_new + c * s.chunk * s.row
    a.h = <void *>(marks + c * s.state)
    a.tape = tapes + tape * s.tape_size


def backward(
    const real[:, ::1] weights,
    real[:, ::1] updated,
    real[:, :, ::1] g,
    const real[:, :, :, ::1] marks,
    real[:, ::1] tapes,
    real[::1] scratch,
    Py_ssize_t chunk,
    int activation,
    double alpha,
    double rate,
):
    """Walk all layers back: replace g (blocks, D, 16) and set updated = weights - rate * gradient.

    updated may be weights itself. marks as forward left them; tapes (2, chunk * 2 * blocks * D * 16);
    scratch (2 * blocks * D * 16).
    """
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t blocks = g.shape[0], width = g.shape[1], layers = weights.shape[0], c, chunks
    cdef int threads = min(2, threads_for(<double>layers * blocks * 16 * (width + 8) * width)), t
    cdef fc_deep a
    cdef walk s
    if layers == 0 or blocks == 0:
        return
    s.layers = layers
    s.chunk = chunk
    s.row = width * (width + 1)
    s.state = blocks * width * 16
    s.tape_size = tapes.shape[1]
    chunks = (layers + chunk - 1) // chunk
    with nogil:
        describe(&a, width, blocks, activation, alpha)
        a.g = &g[0, 0, 0]
        a.rate = rate
        a.scratch = &scratch[0]
        place(&a, &s, chunks - 1, &weights[0, 0], &updated[0, 0], &marks[0, 0, 0, 0], &tapes[0, 0], (chunks - 1) & 1)
        table.deep_recompute(&a)
        c = chunks - 1
        while c >= 0:
            if threads == 1 or c == 0:
                alone(table, &a, &s, c, &weights[0, 0], &updated[0, 0], &marks[0, 0, 0, 0], &tapes[0, 0])
            else:
                for t in prange(2, schedule='static', num_threads=2):
                    in_turn(table, &a, &s, c, t, &weights[0, 0], &updated[0, 0], &marks[0, 0, 0, 0], &tapes[0, 0])
            c = c - 1


cdef void in_turn(const fc_ops *table, const fc_deep *shared, const walk *s, Py_ssize_t c, int t, const real *w,
                  real *w_new, const real *marks, real *tapes) noexcept nogil:
    # thread t owns the chunks and the tape of its parity
    cdef fc_deep a = shared[0]
    if t == (c & 1):
        place(&a, s, c, w, w_new, marks, tapes, t)
        table.deep_backward(&a)
    else:
        place(&a, s, c - 1, w, w_new, marks, tapes, t)
        table.deep_recompute(&a)


cdef void alone(const fc_ops *table, const fc_deep *shared, const walk *s, Py_ssize_t c, const real *w, real *w_new,
                const real *marks, real *tapes) noexcept nogil:
    cdef fc_deep a = shared[0], b = shared[0]
    place(&a, s, c, w, w_new, marks, tapes, c & 1)
    if c == 0:
        table.deep_backward(&a)
        return
    place(&b, s, c - 1, w, w_new, marks, tapes, (c - 1) & 1)
    table.deep_both(&a, &b)
