"""Weights in panels: nr filters side by side, one panel after the other, group after group.

Where each filter has one channel (depthwise) they lie tap after tap, all channels side by side.
"""

from cython.parallel cimport prange
from libc.string cimport memcmp

from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.runtime cimport fc_ops, fc_pack, threads_for

ctypedef fused real:
    float
    double


cdef Py_ssize_t panel_lanes(const fc_ops *table, Py_ssize_t lanes) noexcept nogil:
    """Return the channels of a panel of packed weights: as few panels as tiles allow, of equal width."""
    cdef Py_ssize_t vectors = ceil_div(lanes, table.lanes)
    return ceil_div(vectors, max(1, ceil_div(vectors * table.lanes, table.nr))) * table.lanes


cdef Py_ssize_t panel_pitch(Py_ssize_t nr, Py_ssize_t lanes, Py_ssize_t depth) noexcept nogil:
    """Return the elements of one group's panels, of ``depth`` weights a lane."""
    return ceil_div(lanes, nr) * nr * depth


cdef Py_ssize_t panel_bytes(const fc_ops *table, Geometry g, bint flipped) noexcept nogil:
    """Return the bytes of all panels, whose lanes are filters or, where ``flipped``, channels."""
    cdef Py_ssize_t cg = g.c // g.groups, kg = g.k // g.groups
    cdef Py_ssize_t lanes = cg if flipped else kg, nc = kg if flipped else cg
    if g.depthwise:
        return g.r * g.s * g.c * table.size
    return g.groups * panel_pitch(panel_lanes(table, lanes), lanes, g.r * g.s * nc) * table.size


cdef void pack_taps(const fc_ops *table, const char *w, Geometry g, bint flipped, const Py_ssize_t *taps,
                    Py_ssize_t ntaps, char *panels) noexcept nogil:
    """Pack some taps of the weights (K, C/groups, R, S) in the order given: as ``panel_bytes`` says."""
    cdef Py_ssize_t cg = g.c // g.groups, whole = g.r * g.s, count, task
    cdef fc_pack a
    cdef int threads
    if g.depthwise:   # one panel of all channels, however many
        a.w, a.taps, a.ntaps, a.panels = w, taps, ntaps, panels
        a.lane_pitch, a.c_pitch, a.lanes, a.nc, a.nr = whole, whole, g.c, 1, g.c
        table.pack(&a)
        return
    a = weights_of(table, w, g, flipped, taps, ntaps)
    count = ceil_div(a.lanes, a.nr)
    threads = threads_for(8.0 * g.k * cg * ntaps)
    for task in prange(g.groups * count, schedule='static', num_threads=threads):
        pack_panel(table, &a, g.k * cg * whole // g.groups, task, panels + task * a.nr * ntaps * a.nc * table.size)


cdef fc_pack weights_of(const fc_ops *table, const char *w, Geometry g, bint flipped, const Py_ssize_t *taps,
                        Py_ssize_t ntaps) noexcept nogil:
    """Return where the weights of the first group lie, and how wide their panels are."""
    cdef Py_ssize_t cg = g.c // g.groups, kg = g.k // g.groups, whole = g.r * g.s
    cdef fc_pack a
    a.w, a.taps, a.ntaps, a.panels = w, taps, ntaps, NULL
    if flipped:
        a.lane_pitch, a.c_pitch, a.lanes, a.nc = whole, cg * whole, cg, kg
    else:
        a.lane_pitch, a.c_pitch, a.lanes, a.nc = cg * whole, whole, kg, cg
    a.nr = panel_lanes(table, a.lanes)
    return a


cdef const char *panel_weights(const fc_ops *table, const fc_pack *weights, Py_ssize_t group_pitch,
                               Py_ssize_t index) noexcept nogil:
    """Return where the weights of a panel lie, counted through all groups, ``group_pitch`` elements apart."""
    cdef Py_ssize_t count = ceil_div(weights.lanes, weights.nr), lane = index % count * weights.nr
    return <const char *>weights.w + (index // count * group_pitch + lane * weights.lane_pitch) * table.size


cdef void pack_panel(const fc_ops *table, const fc_pack *weights, Py_ssize_t group_pitch, Py_ssize_t index,
                     char *panel) noexcept nogil:
    """Pack one panel."""
    cdef fc_pack one = weights[0]
    one.w = panel_weights(table, weights, group_pitch, index)
    one.lanes = min(one.nr, one.lanes - index % ceil_div(one.lanes, one.nr) * one.nr)
    one.panels = panel
    table.pack(&one)


cdef bint finite(const fc_ops *table, const char *panels, Py_ssize_t count) noexcept nogil:
    """Return whether so many packed weights are neither infinite nor NaN."""
    if table.size == 4:
        return all_finite(<const float *>panels, count)
    return all_finite(<const double *>panels, count)


cdef bint all_finite(const real *a, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint odd = False
    for i in range(count):
        odd |= a[i] - a[i] != 0
    return not odd


def same_bytes(const unsigned char[::1] a, const unsigned char[::1] b):
    """Return whether two arrays hold the same bytes."""
    return a.shape[0] == b.shape[0] and (a.shape[0] == 0 or memcmp(&a[0], &b[0], a.shape[0]) == 0)


cdef const char *panels_of(const fc_ops *table, Py_ssize_t nr, Py_ssize_t nbytes,
                           const unsigned char[::1] packed) except? NULL:
    """Return the panels, of nr lanes and so many bytes, that were packed; NULL if that was for another instruction set.
    """
    cdef Py_ssize_t wanted = HEADER_BYTES + nbytes, given = packed.shape[0]
    cdef const Header *header
    if given > HEADER_BYTES:
        header = <const Header *>&packed[0]
        if header.size == table.size and header.nr != nr:
            return NULL
        if header.size == table.size and given == wanted:
            return <const char *>&packed[HEADER_BYTES]
    raise ValueError(f"input_gradient: packed weights need {wanted} bytes here, got {given}")
