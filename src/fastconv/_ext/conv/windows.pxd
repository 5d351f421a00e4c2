"""Blocks of input rows, copied with a zero border where pixels read outside of their image."""

from libc.string cimport memcpy, memset

from fastconv._ext.conv.scratch cimport aligned
from fastconv._ext.runtime cimport fc_ops

# A block of input rows should stay in L2 beside the weights it meets, and several small images together.
cdef enum:
    WINDOW_BYTES = 192 * 1024
    IMAGES_BYTES = 384 * 1024


cdef struct Image:
    # Images (n, h, w, c) and the grid of pixels that reads them: pixel (i, j) has its origin at
    # (i * sr - top, j * sc - left) and reaches `reach_r` rows and `reach_c` columns from there.
    const char *x
    Py_ssize_t h, w, c, size
    Py_ssize_t rows, cols, sr, sc, top, left, reach_r, reach_c


cdef inline bint in_bounds(const Image *m) noexcept nogil:
    """Return whether no pixel reads outside the image, so that no window has to be copied."""
    if m.reach_r == 0:   # a phase without taps reads nothing
        return True
    return (m.top <= 0 and m.left <= 0
            and (m.rows - 1) * m.sr - m.top + m.reach_r <= m.h
            and (m.cols - 1) * m.sc - m.left + m.reach_c <= m.w)


cdef inline Py_ssize_t window_width(const Image *m) noexcept nogil:
    return (m.cols - 1) * m.sc + m.reach_c


cdef inline Py_ssize_t window_bytes(const Image *m, Py_ssize_t rows) noexcept nogil:
    return aligned(((rows - 1) * m.sr + m.reach_r) * window_width(m) * m.c * m.size)


cdef inline Py_ssize_t plane_pitch(const Image *m, Py_ssize_t rows) noexcept nogil:
    """Return the elements between planes: an odd number of cache lines, so that planes do not share cache sets."""
    cdef Py_ssize_t lines = ((rows - 1) * m.sr + m.reach_r) * window_width(m) * m.size // 64 + 1
    return (lines | 1) * 64 // m.size


cdef inline Py_ssize_t planes_bytes(const Image *m, Py_ssize_t rows) noexcept nogil:
    return plane_pitch(m, rows) * m.c * m.size + 64   # whole vectors are read at the very end


cdef inline void copy_window(const fc_ops *table, const Image *m, Py_ssize_t n, Py_ssize_t i0, Py_ssize_t rows,
                             Py_ssize_t plane, char *window) noexcept nogil:
    """Copy what the grid rows i0 .. i0+rows-1 of image n read, zeros where that is outside.

    Pixel after pixel, or, where ``plane`` is not 0, into one plane a channel, so many elements apart.
    """
    cdef Py_ssize_t pixel = m.size if plane else m.c * m.size
    cdef Py_ssize_t width = window_width(m)
    cdef Py_ssize_t before = min(max(m.left, 0), width)
    cdef Py_ssize_t first = before - m.left   # column of the image that stands behind the left border
    cdef Py_ssize_t inside = max(min(width - before, m.w - first), 0)
    cdef Py_ssize_t row = i0 * m.sr - m.top
    cdef Py_ssize_t end = row + (rows - 1) * m.sr + m.reach_r
    cdef const char *x
    if plane:
        memset(window, 0, plane * m.c * m.size)
    while row < end:
        if 0 <= row < m.h and inside > 0:   # else it would point nowhere
            x = m.x + ((n * m.h + row) * m.w + first) * m.c * m.size
        if plane:
            if 0 <= row < m.h and inside > 0:
                table.deinterleave(x, inside, m.c, window + before * pixel, plane)
        elif 0 <= row < m.h:
            memset(window, 0, before * pixel)
            if inside > 0:
                memcpy(window + before * pixel, x, inside * pixel)
            memset(window + (before + inside) * pixel, 0, (width - before - inside) * pixel)
        else:
            memset(window, 0, width * pixel)
        window += width * pixel
        row += 1


cdef inline Py_ssize_t lanes_bytes(const fc_ops *table, const Image *m, Py_ssize_t rows) noexcept nogil:
    return table.lanes * window_bytes(m, rows)


cdef inline void copy_lanes(const fc_ops *table, const Image *m, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t images,
                            Py_ssize_t i0, Py_ssize_t rows, char *window) noexcept nogil:
    """Copy what the grid rows i0 .. i0+rows-1 of the images n, n + apart, ... read: each number a vector of images.

    Zeros stand beside the image; rows above or below it, which nobody reads, are left as they are.
    """
    cdef Py_ssize_t number = table.lanes * m.size, width = window_width(m)
    cdef Py_ssize_t before = min(max(m.left, 0), width)
    cdef Py_ssize_t first = before - m.left
    cdef Py_ssize_t inside = max(min(width - before, m.w - first), 0)
    cdef Py_ssize_t row = i0 * m.sr - m.top
    cdef Py_ssize_t end = row + (rows - 1) * m.sr + m.reach_r
    while row < end:
        if 0 <= row < m.h:
            memset(window, 0, before * m.c * number)
            if inside > 0:
                table.to_lanes(m.x + ((n * m.h + row) * m.w + first) * m.c * m.size, apart * m.h * m.w * m.c, images,
                               inside * m.c, window + before * m.c * number)
            memset(window + (before + inside) * m.c * number, 0, (width - before - inside) * m.c * number)
        window += width * m.c * number
        row += 1
