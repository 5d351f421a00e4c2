"""Winograd convolution, what all of its passes share: winograd.pyx."""

from fastconv._ext.conv.geometry cimport Geometry
from fastconv._ext.runtime cimport fc_winograd, fc_winograd_products

cdef enum:
    VALUES = 36         # of a tile
    BLOCK = 24          # tiles whose values are in a core's cache at a time


cdef Py_ssize_t up_to(Py_ssize_t a, Py_ssize_t b) noexcept nogil
cdef Py_ssize_t plane_pitch(Py_ssize_t elements, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t count_tiles(Geometry g, Py_ssize_t h, Py_ssize_t w) noexcept nogil
cdef Py_ssize_t side_of(Py_ssize_t taps) noexcept nogil
cdef void fetch_nothing(fc_winograd_products *s) noexcept nogil
cdef void fetch_pixels(fc_winograd_products *s, int which, const fc_winograd *a, Py_ssize_t first, Py_ssize_t end,
                       Py_ssize_t overlap, Py_ssize_t size, Py_ssize_t *room) noexcept nogil
cdef void lay_tiles(fc_winograd *a, void *x, Py_ssize_t h, Py_ssize_t w, Py_ssize_t channels, Py_ssize_t pitch,
                    Py_ssize_t top, Py_ssize_t left, Geometry g, Py_ssize_t p, Py_ssize_t q) noexcept nogil
