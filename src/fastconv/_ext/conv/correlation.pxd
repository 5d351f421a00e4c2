"""Correlation of images with packed weights: correlation.pyx."""

from fastconv._ext.conv.scratch cimport Scratch
from fastconv._ext.conv.windows cimport Image
from fastconv._ext.runtime cimport fc_epilogue, fc_ops, fc_pack, fc_segment

# How pixels are read: from images abreast, one a lane of vectors; from planes of channels, with vectors over pixels; as
# one long row of all images' pixels; from images as they lie; from copies with a zero border. Of no influence on any
# bit.
cdef enum Way:
    ABREAST, PLANES, FLAT, LYING, WINDOWED


cdef struct Correlation:
    const fc_ops *table
    Image image
    Py_ssize_t n, ntaps
    Py_ssize_t tap_rows        # rows of the filter: its taps are tap_rows times as many as stand in a row
    const Py_ssize_t *tap_r    # (ntaps) rows and columns from a pixel's origin, in the order of summation
    const Py_ssize_t *tap_c
    Py_ssize_t groups, cg, kg  # source and destination channels of a group
    bint depthwise
    bint by_rows, ahead        # of one filter a channel: how pixels are gone through (depthwise.inc.h)
    const char *panels         # packed weights, panels of nr channels; NULL where each is packed when it is needed,
    fc_pack weights            # of these weights, whose groups lie `group_pitch` elements apart
    Py_ssize_t nr, group_pitch
    bint once                  # few pixels: each panel is packed where it is met (share_panels)
    fc_epilogue e
    char *y                    # pixel (n, i, j) at y + n * y_image + i * y_row + j * y_col elements
    Py_ssize_t y_image, y_row, y_col
    int threads
    # filled by book_correlation:
    Way way
    bint skips                 # taps beside the image are left out where images are abreast, and weights finite
    Py_ssize_t images, image_blocks, row_block, row_blocks, col_block, col_blocks, parts
    Py_ssize_t row_segments, pitch, window, room, x_image, x_plane, line
    fc_segment *segments
    Py_ssize_t *offsets


cdef void book_correlation(Correlation *a, Scratch *s) noexcept nogil
cdef void correlate(Correlation *a, const Scratch *s) noexcept nogil
cdef void lay_out_taps(Correlation *a, char *region) noexcept nogil
cdef void depthwise_rows(const Correlation *a, const char *x, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t c,
                         Py_ssize_t end, char *y, Py_ssize_t at, Py_ssize_t add) noexcept nogil
cdef void correlate_pixels(const Correlation *a, const char *x, Py_ssize_t count, char *y, Py_ssize_t at,
                           Py_ssize_t add) noexcept nogil
