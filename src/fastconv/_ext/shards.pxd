"""Sums cut into shards."""

from fastconv._ext.runtime cimport fc_ops


cdef inline void add_tree(const fc_ops *table, char *shards, Py_ssize_t count, Py_ssize_t pitch, Py_ssize_t begin,
                          Py_ssize_t n) noexcept nogil:
    """Add elements begin .. begin+n-1 of all shards into the first: neighbours first, then pairs of pairs."""
    cdef Py_ssize_t gap = 1, i
    while gap < count:
        i = 0
        while i + gap < count:
            table.accumulate(shards + ((i + gap) * pitch + begin) * table.size,
                             shards + (i * pitch + begin) * table.size, n)
            i += 2 * gap
        gap *= 2
