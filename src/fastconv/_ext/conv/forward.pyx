"""The forward pass: correlation of the input with the filters, taps in the order (r, s)."""

from fastconv._ext.conv.correlation cimport Correlation, book_correlation, correlate
from fastconv._ext.conv.geometry cimport Geometry
from fastconv._ext.conv.packing cimport pack_taps, panel_bytes, panel_lanes, panel_pitch, panels_of
from fastconv._ext.conv.scratch cimport PANELS, TAPS, Scratch, book, booked, get, nothing_booked
from fastconv._ext.epilogue cimport Epilogue, pixel_pitch
from fastconv._ext.runtime cimport fc_ops, ops, threads_for

ctypedef fused real:
    float
    double


cdef void describe(Correlation *a, Geometry g, const fc_ops *table, Py_ssize_t pitch, Scratch *s) noexcept nogil:
    """Make ``a`` the correlation of these sizes, results ``pitch`` elements apart; book what it needs beside panels."""
    a.table = table
    a.image.h, a.image.w, a.image.c, a.image.size = g.h, g.w, g.c, table.size
    a.image.rows, a.image.cols, a.image.sr, a.image.sc = g.p, g.q, g.sh, g.sw
    a.image.top, a.image.left = g.top, g.left
    a.image.reach_r, a.image.reach_c = (g.r - 1) * g.dh + 1, (g.s - 1) * g.dw + 1
    a.n, a.ntaps, a.tap_rows = g.n, g.r * g.s, g.r
    a.groups, a.cg, a.kg, a.depthwise = g.groups, g.c // g.groups, g.k // g.groups, g.depthwise
    a.y_image, a.y_row, a.y_col = g.p * g.q * pitch, g.q * pitch, pitch
    a.threads = threads_for(g.work())
    a.nr = panel_lanes(table, a.kg)
    a.panel_pitch = panel_pitch(a.nr, a.kg, a.ntaps * a.cg)
    book(s, TAPS, 3 * a.ntaps * sizeof(Py_ssize_t))
    book_correlation(a, s)


def forward(const real[:, :, :, ::1] x, const real[:, :, :, ::1] weight, real[:, :, :, :] y, Geometry g,
            Epilogue epilogue, scratch, const unsigned char[::1] packed=None):
    """Write y (N, P, Q, K): the epilogue of the correlation of x (N, H, W, C) with weight (K, C/groups, R, S).

    The pixels of y may lie at any one distance, unless the epilogue has `pre`.
    ``scratch`` is a function from a number of bytes to a uint8 array. ``packed`` is the weight as `pack` has packed it;
    without it, or if it was packed for another instruction set, the weight is packed here.
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
    nothing_booked(&s)
    describe(&a, g, table, pitch, &s)
    a.panels = NULL
    if packed is not None:
        a.panels = panels_of(table, a.nr, panel_bytes(table, g, False), packed)
    if a.panels == NULL:
        book(&s, PANELS, panel_bytes(table, g, False))
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    cdef Py_ssize_t *taps = <Py_ssize_t *>get(&s, TAPS)
    cdef Py_ssize_t t
    a.image.x, a.y = <const char *>&x[0, 0, 0, 0], <char *>&y[0, 0, 0, 0]
    a.e = epilogue.e
    a.e.add_image, a.e.add_row = g.p * g.q * a.e.add_col, g.q * a.e.add_col
    a.tap_r, a.tap_c = taps + a.ntaps, taps + 2 * a.ntaps
    with nogil:
        for t in range(a.ntaps):
            taps[t] = t
            taps[a.ntaps + t] = t // g.s * g.dh
            taps[2 * a.ntaps + t] = t % g.s * g.dw
        if a.panels == NULL:
            a.panels = get(&s, PANELS)
            pack_taps(table, <const char *>&weight[0, 0, 0, 0], g, False, taps, a.ntaps, get(&s, PANELS))
        correlate(&a, &s)
