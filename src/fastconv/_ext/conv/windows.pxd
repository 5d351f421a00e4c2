"""Blocks of input rows, copied with a zero border where pixels read columns outside of their image.

A window holds what a block of grid rows reads: for each row of the filter a strip of the image. Strips that overlap
are one piece of the image; between others stand no rows, however far apart the rows of the filter are. Rows outside of
the image, which nobody reads, are left as they are.
"""

from libc.string cimport memcpy, memset

from fastconv._ext.conv.scratch cimport aligned
from fastconv._ext.runtime cimport fc_ops

# A block of input rows should stay in L2 beside the weights it meets, and several small images together.
cdef enum:
    WINDOW_BYTES = 192 * 1024
    IMAGES_BYTES = 384 * 1024


cdef struct Image:
    # Images (n, h, w, c) and the grid of pixels that reads them: pixel (i, j) has its origin at
    # (i * sr - top, j * sc - left) and reaches `reach_r` rows, of which it reads every `step_r`-th, and `reach_c`
    # columns from there. In memory the pixels for the next row of the filter lie `strip` rows on.
    const char *x
    Py_ssize_t h, w, c, size
    Py_ssize_t rows, cols, sr, sc, top, left, reach_r, reach_c, step_r, strip


cdef inline bint in_bounds(const Image *m) noexcept nogil:
    """Return whether no pixel reads outside the image, so that no window has to be copied."""
    if m.reach_r == 0:   # a phase without taps reads nothing
        return True
    return (m.top <= 0 and m.left <= 0
            and (m.rows - 1) * m.sr - m.top + m.reach_r <= m.h
            and (m.cols - 1) * m.sc - m.left + m.reach_c <= m.w)


cdef inline Py_ssize_t window_width(const Image *m) noexcept nogil:
    return (m.cols - 1) * m.sc + m.reach_c


cdef inline Py_ssize_t strip_distance(const Image *m, Py_ssize_t rows) noexcept nogil:
    """Return the rows from strip to strip, in a window of so many grid rows."""
    return min(m.step_r, (rows - 1) * m.sr + 1)


cdef inline Py_ssize_t window_rows(const Image *m, Py_ssize_t rows) noexcept nogil:
    return (m.reach_r - 1) // m.step_r * strip_distance(m, rows) + (rows - 1) * m.sr + 1


cdef inline Py_ssize_t window_bytes(const Image *m, Py_ssize_t rows) noexcept nogil:
    return aligned(window_rows(m, rows) * window_width(m) * m.c * m.size)


cdef inline Py_ssize_t plane_pitch(const Image *m, Py_ssize_t rows) noexcept nogil:
    """Return the elements between planes: an odd number of cache lines, so that planes do not share cache sets."""
    cdef Py_ssize_t lines = window_rows(m, rows) * window_width(m) * m.size // 64 + 1
    return (lines | 1) * 64 // m.size


cdef inline Py_ssize_t planes_bytes(const Image *m, Py_ssize_t rows) noexcept nogil:
    return plane_pitch(m, rows) * m.c * m.size + 64   # whole vectors are read at the very end


cdef inline Py_ssize_t find_strip(const Image *m, Py_ssize_t i0, Py_ssize_t rows, Py_ssize_t r, Py_ssize_t *first,
                                  Py_ssize_t *end) noexcept nogil:
    """Find the rows first .. end-1 of the window of the grid rows i0 .. i0+rows-1 that are copied for row r of the
    filter: those on the image that no row behind it copies. Return the image's row of the first."""
    cdef Py_ssize_t row = i0 * m.sr - m.top + r * m.step_r, count = (rows - 1) * m.sr + 1, above = max(0, -row)
    if (r + 1) * m.step_r < m.reach_r:
        count = min(count, m.strip)
    first[0], end[0] = r * m.strip + above, r * m.strip + min(count, m.h - row)
    return row + above


cdef inline void copy_window(const fc_ops *table, const Image *m, Py_ssize_t n, Py_ssize_t i0, Py_ssize_t rows,
                             Py_ssize_t plane, char *window) noexcept nogil:
    """Copy what the grid rows i0 .. i0+rows-1 of image n read, zeros where that is beside the image.

    Pixel after pixel, or, where ``plane`` is not 0, into one plane a channel, so many elements apart.
    """
    cdef Py_ssize_t pixel = m.size if plane else m.c * m.size
    cdef Py_ssize_t width = window_width(m)
    cdef Py_ssize_t before = min(max(m.left, 0), width)
    cdef Py_ssize_t first = before - m.left   # column of the image that stands behind the left border
    cdef Py_ssize_t inside = max(min(width - before, m.w - first), 0)
    cdef Py_ssize_t r, row, at = 0, end = 0
    cdef const char *x = NULL
    cdef char *line
    if plane:
        memset(window, 0, plane * m.c * m.size)
    for r in range((m.reach_r - 1) // m.step_r + 1):
        row = find_strip(m, i0, rows, r, &at, &end)
        while at < end:
            line = window + at * width * pixel
            if inside > 0:   # else it would point nowhere
                x = m.x + ((n * m.h + row) * m.w + first) * m.c * m.size
            if plane:
                if inside > 0:
                    table.deinterleave(x, inside, m.c, line + before * pixel, plane)
            else:
                memset(line, 0, before * pixel)
                if inside > 0:
                    memcpy(line + before * pixel, x, inside * pixel)
                memset(line + (before + inside) * pixel, 0, (width - before - inside) * pixel)
            at += 1
            row += 1


cdef inline Py_ssize_t lanes_bytes(const fc_ops *table, const Image *m, Py_ssize_t rows) noexcept nogil:
    return table.lanes * window_bytes(m, rows)


cdef inline void copy_lanes(const fc_ops *table, const Image *m, Py_ssize_t n, Py_ssize_t apart, Py_ssize_t images,
                            Py_ssize_t i0, Py_ssize_t rows, char *window) noexcept nogil:
    """Copy what the grid rows i0 .. i0+rows-1 of the images n, n + apart, ... read: each number a vector of images.

    Zeros stand beside the image.
    """
    cdef Py_ssize_t number = table.lanes * m.size, width = window_width(m)
    cdef Py_ssize_t before = min(max(m.left, 0), width)
    cdef Py_ssize_t first = before - m.left
    cdef Py_ssize_t inside = max(min(width - before, m.w - first), 0)
    cdef Py_ssize_t r, row, at = 0, end = 0
    cdef char *line
    for r in range((m.reach_r - 1) // m.step_r + 1):
        row = find_strip(m, i0, rows, r, &at, &end)
        while at < end:
            line = window + at * width * m.c * number
            memset(line, 0, before * m.c * number)
            if inside > 0:
                table.to_lanes(m.x + ((n * m.h + row) * m.w + first) * m.c * m.size, apart * m.h * m.w * m.c, images,
                               inside * m.c, line + before * m.c * number)
            memset(line + (before + inside) * m.c * number, 0, (width - before - inside) * m.c * number)
            at += 1
            row += 1
