"""Weights in panels: packing.pyx."""

from fastconv._ext.conv.geometry cimport Geometry
from fastconv._ext.runtime cimport fc_ops, fc_pack

# What stands before packed weights: for which tile they were packed.
cdef struct Header:
    Py_ssize_t nr, size

cdef enum:
    HEADER_BYTES = 64

cdef Py_ssize_t panel_lanes(const fc_ops *table, Py_ssize_t lanes) noexcept nogil
cdef Py_ssize_t panel_bytes(const fc_ops *table, Geometry g, bint flipped) noexcept nogil
cdef void pack_taps(const fc_ops *table, const char *w, Geometry g, bint flipped, const Py_ssize_t *taps,
                    Py_ssize_t ntaps, char *panels) noexcept nogil
cdef fc_pack weights_of(const fc_ops *table, const char *w, Geometry g, bint flipped, const Py_ssize_t *taps,
                        Py_ssize_t ntaps) noexcept nogil
cdef const char *panel_weights(const fc_ops *table, const fc_pack *weights, Py_ssize_t group_pitch,
                               Py_ssize_t index) noexcept nogil
cdef void pack_panel(const fc_ops *table, const fc_pack *weights, Py_ssize_t group_pitch, Py_ssize_t index,
                     char *panel) noexcept nogil
cdef bint finite(const fc_ops *table, const char *panels, Py_ssize_t count) noexcept nogil
cdef const char *panels_of(const fc_ops *table, Py_ssize_t nr, Py_ssize_t nbytes,
                           const unsigned char[::1] packed) except? NULL
