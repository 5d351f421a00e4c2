"""The forward pass: forward.pyx."""

from fastconv._ext.conv.correlation cimport Correlation
from fastconv._ext.conv.geometry cimport Geometry
from fastconv._ext.conv.scratch cimport Scratch
from fastconv._ext.runtime cimport fc_ops

cdef void describe(Correlation *a, Geometry g, const fc_ops *table, Py_ssize_t pitch, bint once,
                   Scratch *s) noexcept nogil
cdef void lay_taps(Correlation *a, Geometry g, const Scratch *s) noexcept nogil
