"""The forward pass: correlation of the input with the filters, taps in the order (r, s)."""

from cython.parallel cimport prange

from fastconv._ext.conv.correlation cimport Correlation, book_correlation, correlate
from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport pack_taps, panel_bytes, panel_lanes, weights_of
from fastconv._ext.conv.scratch cimport PANELS, TAPS, Scratch, book, booked, get, nothing_booked
from fastconv._ext.epilogue cimport Epilogue, epilogue_at, pixel_pitch
from fastconv._ext.runtime cimport fc_epilogue, fc_ops, fc_thin, ops, threads_for

ctypedef fused real:
    float
    double


# So few pixels do not pay for packing the weights. With so few, of images that stay in L2, a panel is packed where it
# is met, into the cache.
cdef Py_ssize_t THIN = 4
cdef Py_ssize_t FEW = 1024
cdef Py_ssize_t FEW_BYTES = 2 * 1024 * 1024


cdef bint is_thin(Geometry g) noexcept nogil:
    """Return whether these are few pixels, each of which reads itself alone."""
    return (g.n * g.p * g.q <= THIN and g.groups == 1 and g.r == 1 and g.s == 1 and g.sh == 1 and g.sw == 1
            and g.top == 0 and g.left == 0 and g.h == g.p and g.w == g.q)


cdef void run_thin(const fc_ops *table, Geometry g, const char *x, const char *w, char *y, Py_ssize_t pitch,
                   const fc_epilogue *e) noexcept nogil:
    """Multiply few pixels by weights as they lie; threads share the filters."""
    cdef fc_thin a
    a.x, a.x_row, a.rows, a.depth = x, g.c, g.n * g.p * g.q, g.c
    a.w, a.w_row, a.y, a.y_row, a.channels, a.e = w, g.c, y, pitch, g.k, e[0]
    cdef int threads = threads_for(g.work())
    cdef Py_ssize_t block = 4 * table.lanes, task
    if threads == 1:
        table.thin(&a)
        return
    for task in prange(ceil_div(g.k, block), schedule='static', num_threads=threads):
        thin_block(table, &a, task * block, min(block, g.k - task * block))


cdef void thin_block(const fc_ops *table, const fc_thin *whole, Py_ssize_t k, Py_ssize_t channels) noexcept nogil:
    cdef fc_thin a = whole[0]
    a.w = <const char *>a.w + k * a.w_row * table.size
    a.y = <char *>a.y + k * table.size
    a.channels = channels
    a.e = epilogue_at(&a.e, 0, 0, k, table.size)
    table.thin(&a)


cdef bint are_few(Geometry g, const fc_ops *table) noexcept nogil:
    """Return whether a panel of weights is better packed where it is met."""
    return not g.depthwise and g.n * g.p * g.q <= FEW and g.n * g.h * g.w * g.c * table.size <= FEW_BYTES


cdef void describe(Correlation *a, Geometry g, const fc_ops *table, Py_ssize_t pitch, bint once,
                   Scratch *s) noexcept nogil:
    """Make ``a`` the correlation of these sizes, results ``pitch`` elements apart; book what it needs."""
    a.table = table
    a.once = once
    a.group_pitch = g.k * (g.c // g.groups) * g.r * g.s // g.groups
    a.image.h, a.image.w, a.image.c, a.image.size = g.h, g.w, g.c, table.size
    a.image.rows, a.image.cols, a.image.sr, a.image.sc = g.p, g.q, g.sh, g.sw
    a.image.top, a.image.left = g.top, g.left
    a.image.reach_r, a.image.reach_c, a.image.step_r = (g.r - 1) * g.dh + 1, (g.s - 1) * g.dw + 1, g.dh
    a.n, a.ntaps, a.tap_rows = g.n, g.r * g.s, g.r
    a.groups, a.cg, a.kg, a.depthwise = g.groups, g.c // g.groups, g.k // g.groups, g.depthwise
    a.y_image, a.y_row, a.y_col = g.p * g.q * pitch, g.q * pitch, pitch
    a.threads = threads_for(g.work())
    a.nr = panel_lanes(table, a.kg)
    book(s, TAPS, 3 * a.ntaps * sizeof(Py_ssize_t))
    book_correlation(a, s)
    if not a.once:
        book(s, PANELS, panel_bytes(table, g, False))


cdef void lay_taps(Correlation *a, Geometry g, const Scratch *s) noexcept nogil:
    """List the taps: their numbers from the region's beginning on, then rows and columns."""
    cdef Py_ssize_t *taps = <Py_ssize_t *>get(s, TAPS)
    cdef Py_ssize_t t
    a.tap_r, a.tap_c = taps + a.ntaps, taps + 2 * a.ntaps
    for t in range(a.ntaps):
        taps[t] = t
        taps[a.ntaps + t] = t // g.s * g.dh
        taps[2 * a.ntaps + t] = t % g.s * g.dw


def forward(const real[:, :, :, ::1] x, const real[:, :, :, ::1] weight, real[:, :, :, :] y, Geometry g,
            Epilogue epilogue, scratch):
    """Write y (N, P, Q, K): the epilogue of the correlation of x (N, H, W, C) with weight (K, C/groups, R, S).

    The pixels of y may lie at any one distance, unless the epilogue has `pre`.
    ``scratch`` is a function from a number of bytes to a uint8 array.
    """
    epilogue.check(sizeof(real), g.n * g.p * g.q, g.k)
    if g.n == 0:
        return
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t pitch = pixel_pitch(y.shape, y.strides, sizeof(real))
    if epilogue.e.pre != NULL and pitch != g.k:
        raise ValueError("forward: with pre, the pixels of y must follow each other")
    cdef Correlation a
    cdef Scratch s
    if is_thin(g):
        with nogil:
            run_thin(table, g, <const char *>&x[0, 0, 0, 0], <const char *>&weight[0, 0, 0, 0],
                     <char *>&y[0, 0, 0, 0], pitch, &epilogue.e)
        return
    nothing_booked(&s)
    describe(&a, g, table, pitch, are_few(g, table), &s)
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    cdef const Py_ssize_t *taps = <const Py_ssize_t *>get(&s, TAPS)
    a.image.x, a.y = <const char *>&x[0, 0, 0, 0], <char *>&y[0, 0, 0, 0]
    a.e = epilogue.e
    a.e.add_image, a.e.add_row = g.p * g.q * a.e.add_col, g.q * a.e.add_col
    with nogil:
        lay_taps(&a, g, &s)
        if a.once:
            a.weights = weights_of(table, <const char *>&weight[0, 0, 0, 0], g, False, taps, a.ntaps)
        else:
            a.panels = get(&s, PANELS)
            pack_taps(table, <const char *>&weight[0, 0, 0, 0], g, False, taps, a.ntaps, get(&s, PANELS))
        correlate(&a, &s)
