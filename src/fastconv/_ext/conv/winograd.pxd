"""Winograd convolution, what all of its passes share: winograd.pyx."""

from fastconv._ext.conv.geometry cimport Geometry
from fastconv._ext.conv.scratch cimport Scratch
from fastconv._ext.runtime cimport fc_epilogue, fc_ops, fc_pack, fc_winograd, fc_winograd_products

cdef enum:
    VALUES = 36         # of a tile
    BLOCK = 24          # tiles whose values are in a core's cache at a time


cdef struct Convolution:
    const fc_ops *table
    void (*to_values)(const fc_winograd *) noexcept nogil    # kernels: of tiles that are read, and of those written
    void (*from_values)(const fc_winograd *) noexcept nogil
    fc_winograd source, result   # tiles of the images that are read, and of those written
    fc_epilogue e
    fc_pack pack                 # of all filters
    int taps                     # 3 or 5: the side of a filter
    Py_ssize_t tiles, c, k       # channels read and written
    Py_ssize_t nr, group         # lanes of a panel of filters, and of those whose sums are taken at a time
    const char *panels           # values of all filters, `panel` elements each
    Py_ssize_t u_plane, panel
    bint resident                # all tiles' values are made first, and meet the filters a group at a time
    Py_ssize_t depth             # channels whose values lie side by side, `v_panel` bytes before those behind them
    Py_ssize_t v_panel
    Py_ssize_t block             # tiles whose values are made at a time; unless resident they meet all filters
    int threads
    Py_ssize_t laid_out, u, v, m   # bytes a thread has, of filters on their way, their values, tiles' values and sums


cdef Py_ssize_t up_to(Py_ssize_t a, Py_ssize_t b) noexcept nogil
cdef Py_ssize_t plane_pitch(Py_ssize_t elements, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t count_tiles(Geometry g, Py_ssize_t h, Py_ssize_t w) noexcept nogil
cdef Py_ssize_t side_of(Py_ssize_t taps) noexcept nogil
cdef void fetch_nothing(fc_winograd_products *s) noexcept nogil
cdef void fetch_pixels(fc_winograd_products *s, int which, const fc_winograd *a, Py_ssize_t first, Py_ssize_t end,
                       Py_ssize_t overlap, Py_ssize_t size, Py_ssize_t *room) noexcept nogil
cdef void lay_tiles(fc_winograd *a, void *x, Py_ssize_t h, Py_ssize_t w, Py_ssize_t channels, Py_ssize_t pitch,
                    Py_ssize_t top, Py_ssize_t left, Geometry g, Py_ssize_t p, Py_ssize_t q) noexcept nogil
cdef Convolution between(const fc_ops *table, Geometry g, Py_ssize_t c, Py_ssize_t k, Py_ssize_t h,
                         Py_ssize_t w) noexcept nogil
cdef void plan(Convolution *a, Py_ssize_t dw, Scratch *s) noexcept nogil
cdef void run(Convolution *a, const Scratch *s, const void *w, bint flipped, const fc_epilogue *e) noexcept nogil
cdef void lay_filters(Convolution *a, const void *w, bint flipped, bint turned, Py_ssize_t *taps) noexcept nogil
cdef void all_filters(const Convolution *a, const Scratch *s, char *panels) noexcept nogil
cdef void multiply(const Convolution *a, const char *v, Py_ssize_t first, Py_ssize_t tiles, const char *u,
                   Py_ssize_t depth, bint more, Py_ssize_t lanes, char *m) noexcept nogil
cdef void convolve_resident(const Convolution *a, const Scratch *s) noexcept nogil
cdef void clear_border(Convolution *a, const Scratch *s) noexcept nogil
