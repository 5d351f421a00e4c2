"""The gradient of a bias: bias.pyx."""

from fastconv._ext.runtime cimport fc_ops

cdef Py_ssize_t bias_shards(Py_ssize_t pixels) noexcept nogil
cdef void add_columns(const fc_ops *table, const char *g, Py_ssize_t pixels, Py_ssize_t k, char *sums,
                      char *grad_bias) noexcept nogil
