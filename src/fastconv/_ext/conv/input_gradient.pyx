"""The gradient of the input: correlation of grad_output with the flipped filters, by phases of the stride.

Input positions a stride apart meet the same taps: each phase is one correlation, whose results lie a stride apart.
"""

from fastconv._ext.conv.correlation cimport Correlation, book_correlation, correlate
from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport HEADER_BYTES, Header, pack_taps, panel_bytes, panel_lanes, panels_of
from fastconv._ext.conv.scratch cimport PANELS, TAPS, Scratch, book, booked, get, nothing_booked
from fastconv._ext.epilogue cimport Epilogue, epilogue_at, pixel_pitch
from fastconv._ext.runtime cimport fc_epilogue, fc_ops, ops, threads_for

ctypedef fused real:
    float
    double


cdef struct Phase:
    # Along one axis: the positions first, first + stride, ... of the input, and the kernel positions that reach them
    # from output positions: `count` of them, the first `shift` ahead, `reach` from the first to the last, each `step`
    # behind the one before.
    Py_ssize_t first, positions, count, shift, reach, step


cdef Phase phase_taps(Py_ssize_t first, Py_ssize_t length, Py_ssize_t pad, Py_ssize_t stride, Py_ssize_t dilation,
                      Py_ssize_t kernel, Py_ssize_t *taps, Py_ssize_t *shifts) noexcept nogil:
    """Describe a phase; list the kernel positions and their distances from the first, unless ``taps`` is NULL.

    Input position u = first + pad meets output position (u - r * dilation) / stride. Positions come in ascending
    order of that shift, r descending.
    """
    cdef Phase phase
    cdef Py_ssize_t r, shift = 0, u = first + pad
    phase.first, phase.positions = first, ceil_div(length - first, stride)
    phase.count = phase.shift = phase.reach = 0
    phase.step = 1
    for r in range(kernel - 1, -1, -1):
        if (u - r * dilation) % stride == 0:
            shift = (u - r * dilation) // stride
            if phase.count == 0:
                phase.shift = shift
            elif phase.count == 1:
                phase.step = shift - phase.shift
            if taps != NULL:
                taps[phase.count] = r
                shifts[phase.count] = shift - phase.shift
            phase.reach = shift - phase.shift + 1
            phase.count += 1
    return phase


cdef struct Taps:
    # Of one phase: each tap's number, row and column; and what `phase_taps` lists for its rows and for its columns.
    Py_ssize_t *number
    Py_ssize_t *row
    Py_ssize_t *col
    Py_ssize_t *kernel_r
    Py_ssize_t *shift_r
    Py_ssize_t *kernel_c
    Py_ssize_t *shift_c


cdef Py_ssize_t taps_bytes(Geometry g) noexcept nogil:
    return (3 * g.r * g.s + 2 * g.r + 2 * g.s) * sizeof(Py_ssize_t)


cdef Taps lay_taps(Geometry g, char *region) noexcept nogil:
    """Divide memory of ``taps_bytes`` among the lists."""
    cdef Taps t
    cdef Py_ssize_t ntaps = g.r * g.s
    t.number = <Py_ssize_t *>region
    t.row = t.number + ntaps
    t.col = t.row + ntaps
    t.kernel_r = t.col + ntaps
    t.shift_r = t.kernel_r + g.r
    t.kernel_c = t.shift_r + g.r
    t.shift_c = t.kernel_c + g.s
    return t


cdef Py_ssize_t find_taps(const Taps *t, Geometry g, Py_ssize_t h0, Py_ssize_t w0, Phase *rows,
                          Phase *cols) noexcept nogil:
    """Describe the phase that begins at (h0, w0), list its taps, and return how many there are."""
    cdef Py_ssize_t i, j, count = 0
    rows[0] = phase_taps(h0, g.h, g.top, g.sh, g.dh, g.r, t.kernel_r, t.shift_r)
    cols[0] = phase_taps(w0, g.w, g.left, g.sw, g.dw, g.s, t.kernel_c, t.shift_c)
    for i in range(rows.count):
        for j in range(cols.count):
            t.number[count] = t.kernel_r[i] * g.s + t.kernel_c[j]
            t.row[count], t.col[count] = t.shift_r[i], t.shift_c[j]
            count += 1
    return count


cdef Py_ssize_t phase_bytes(const fc_ops *table, Geometry g, Py_ssize_t ntaps) noexcept nogil:
    """Return the bytes of the panels of one phase."""
    cdef Py_ssize_t lanes = g.c // g.groups, nr = panel_lanes(table, lanes)
    if g.depthwise:
        return ntaps * g.c * table.size
    return g.groups * ceil_div(lanes, nr) * nr * ntaps * (g.k // g.groups) * table.size


cdef void take_phase(Correlation *a, Geometry g, Phase rows, Phase cols, Py_ssize_t pitch, Scratch *s) noexcept nogil:
    """Make ``a`` the correlation that writes one phase of the gradient, pixels ``pitch`` elements apart; book what it
    needs beside panels."""
    cdef bint empty = rows.count == 0 or cols.count == 0
    a.image.h, a.image.w = g.p, g.q
    a.image.rows, a.image.cols, a.image.sr, a.image.sc = rows.positions, cols.positions, 1, 1
    a.image.top, a.image.left = 0 if empty else -rows.shift, 0 if empty else -cols.shift
    a.image.reach_r, a.image.reach_c = 0 if empty else rows.reach, 0 if empty else cols.reach
    a.image.step_r = rows.step
    a.n, a.ntaps, a.tap_rows = g.n, rows.count * cols.count, 0 if empty else rows.count
    a.y_image, a.y_row, a.y_col = g.h * g.w * pitch, g.sh * g.w * pitch, g.sw * pitch
    book_correlation(a, s)


cdef void place_phase(Correlation *a, Geometry g, Phase rows, Phase cols, char *grad_x, Py_ssize_t pitch,
                      const fc_epilogue *whole) noexcept nogil:
    """Say where the results of a phase go, and what is added to them."""
    cdef Py_ssize_t first = rows.first * g.w + cols.first
    a.y = grad_x + first * pitch * a.image.size
    a.e = epilogue_at(whole, first * pitch, first * whole.add_col, 0, a.image.size)
    a.e.add_image, a.e.add_row = g.h * g.w * whole.add_col, g.sh * g.w * whole.add_col
    a.e.add_col = g.sw * whole.add_col


cdef void describe(Correlation *a, Geometry g, const fc_ops *table, Py_ssize_t pitch, Scratch *s) noexcept nogil:
    """Set what all phases share; book the memory of the largest."""
    cdef Py_ssize_t h0, w0
    cdef Phase rows
    a.table = table
    a.image.c, a.image.size = g.k, table.size
    a.groups, a.cg, a.kg, a.depthwise = g.groups, g.k // g.groups, g.c // g.groups, g.depthwise
    a.nr = panel_lanes(table, a.kg)
    a.once = False
    a.threads = threads_for(g.work() / (g.sh * g.sw))
    for h0 in range(min(g.sh, g.h)):
        rows = phase_taps(h0, g.h, g.top, g.sh, g.dh, g.r, NULL, NULL)
        for w0 in range(min(g.sw, g.w)):
            take_phase(a, g, rows, phase_taps(w0, g.w, g.left, g.sw, g.dw, g.s, NULL, NULL), pitch, s)
    book(s, TAPS, taps_bytes(g))


def input_gradient(const real[:, :, :, ::1] grad_y, const real[:, :, :, ::1] weight, real[:, :, :, :] grad_x,
                   Geometry g, Epilogue epilogue, scratch, const unsigned char[::1] packed=None):
    """Write grad_x (N, H, W, C): the epilogue of the correlation of grad_y (N, P, Q, K) with the flipped filters.

    An epilogue that adds another gradient is what a value read twice needs. The pixels of grad_x may lie at any one
    distance, unless the epilogue has `pre`. ``packed`` is the weight as `pack` has packed it; without it, or if it was
    packed for another instruction set, the weight is packed here.
    """
    epilogue.check(sizeof(real), g.n * g.h * g.w, g.c)
    if g.n == 0:
        return
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t pitch = pixel_pitch(grad_x.shape, grad_x.strides, sizeof(real))
    if epilogue.e.pre != NULL and pitch != g.c:
        raise ValueError("input_gradient: with pre, the pixels of grad_x must follow each other")
    cdef Correlation a
    cdef Scratch s
    nothing_booked(&s)
    describe(&a, g, table, pitch, &s)
    cdef const char *panels = NULL
    if packed is not None:
        panels = panels_of(table, a.nr, panel_bytes(table, g, True), packed)
    if panels == NULL:
        book(&s, PANELS, panel_bytes(table, g, True))
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    cdef Taps t = lay_taps(g, get(&s, TAPS))
    cdef Py_ssize_t h0, w0, ntaps
    cdef Phase rows, cols
    a.image.x = <const char *>&grad_y[0, 0, 0, 0]
    a.tap_r, a.tap_c = t.row, t.col
    with nogil:
        for h0 in range(min(g.sh, g.h)):
            for w0 in range(min(g.sw, g.w)):
                ntaps = find_taps(&t, g, h0, w0, &rows, &cols)
                take_phase(&a, g, rows, cols, pitch, &s)
                place_phase(&a, g, rows, cols, <char *>&grad_x[0, 0, 0, 0], pitch, &epilogue.e)
                if panels == NULL:
                    a.panels = get(&s, PANELS)
                    pack_taps(table, <const char *>&weight[0, 0, 0, 0], g, True, t.number, ntaps, get(&s, PANELS))
                else:
                    a.panels = panels
                    panels += phase_bytes(table, g, ntaps)
                correlate(&a, &s)


def packed_bytes(Geometry g, Py_ssize_t itemsize):
    """Return the bytes of weights that `pack` packs for `input_gradient`, on the active instruction set."""
    return HEADER_BYTES + panel_bytes(ops(itemsize // 4 - 1), g, True)


def pack(const real[:, :, :, ::1] weight, Geometry g, unsigned char[::1] packed, scratch):
    """Pack weight (K, C/groups, R, S) into ``packed``, of `packed_bytes`, phase after phase, so that many calls of
    `input_gradient` can read it. ``packed`` begins on a cache line."""
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t h0, w0, ntaps, wanted = HEADER_BYTES + panel_bytes(table, g, True)
    if packed.shape[0] != wanted:
        raise ValueError(f"pack: packed weights need {wanted} bytes here, got {packed.shape[0]}")
    cdef unsigned char[::1] arena = scratch(taps_bytes(g))
    cdef Taps t = lay_taps(g, <char *>&arena[0])
    cdef Phase rows, cols
    cdef char *panels = <char *>&packed[0] + HEADER_BYTES
    cdef Header *header = <Header *>&packed[0]
    with nogil:
        for h0 in range(min(g.sh, g.h)):
            for w0 in range(min(g.sw, g.w)):
                ntaps = find_taps(&t, g, h0, w0, &rows, &cols)
                pack_taps(table, <const char *>&weight[0, 0, 0, 0], g, True, t.number, ntaps, panels)
                panels += phase_bytes(table, g, ntaps)
    header.nr, header.size = panel_lanes(table, g.c // g.groups), table.size
