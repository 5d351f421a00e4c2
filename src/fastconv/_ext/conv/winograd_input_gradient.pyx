"""Winograd's input gradient, over tiles of the input or over those of grad_output, whichever are fewer.

Over tiles of the input it is the convolution of grad_output with the filters turned round (winograd.pyx). Over those of
grad_output, forward's own tiles, it is forward turned round:

    grad_output of 4x4 or 2x2 --kernel `gradient`--> 36 values a tile --kernel `products`--> 36 sums a tile
    filters --`pack`, kernel `filters`--> 36 values -----------------------^  --kernel `shared`--> added to 6x6 pixels

A layer without border has fewer of these: of 5x5, from 14x14 to 10x10, 25 instead of 49.

Order of sums over tiles of grad_output: products as forward's. A pixel is 0, plus the shares of the rows of tiles that
read it, from the top; in a row, of runs of FC_RUN tiles, from the left, each of them summed by itself.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.scratch cimport (
    PANELS, SUMS, TAPS, VALUES_OF_TILES, Scratch, aligned, book, booked, get, nothing_booked,
)
from fastconv._ext.conv.winograd cimport (
    BLOCK, VALUES, Convolution, all_filters, between, clear_border, convolve_resident, count_tiles, lay_filters,
    lay_tiles, multiply, plan, plane_pitch, run,
)
from fastconv._ext.epilogue cimport Epilogue, epilogue_at, pixel_pitch
from fastconv._ext.runtime cimport fc_epilogue, fc_ops, fc_winograd, ops

ctypedef fused real:
    float
    double

cdef struct Shares:
    Convolution c          # source: tiles of grad_output; result: their 6x6 pixels of grad_input
    Py_ssize_t rows        # of tiles, an image
    Py_ssize_t block       # rows of tiles that are taken at a time
    Py_ssize_t shares, parts   # tasks: images are shared, and the channels of few of them


cdef bint over_results(Geometry g) noexcept nogil:
    """Return whether tiles of the results are fewer by a fifth: by shape alone, since it decides the bits."""
    return 5 * count_tiles(g, g.p, g.q) <= 4 * count_tiles(g, g.h, g.w)


cdef void plan_shares(Shares *a, Geometry g, Scratch *s) noexcept nogil:
    """Choose blocks and book scratch memory."""
    cdef Convolution *c = &a.c
    cdef Py_ssize_t size = c.table.size, panels = ceil_div(c.k, c.nr), tiles
    c.to_values, c.from_values = c.table.winograd_gradient, c.table.winograd_shared
    a.rows = c.source.rows * g.dh * g.dw
    plan(c, g.dw, s)
    if c.resident:
        return
    a.block = min(g.n * a.rows, max(1, BLOCK // c.source.cols))
    tiles = a.block * c.source.cols
    a.shares = min(<Py_ssize_t>c.threads, g.n)
    a.parts = min(panels, ceil_div(c.threads, a.shares))
    c.source.v_plane = plane_pitch(tiles * c.source.v_tile, size)
    c.result.v_plane = plane_pitch(tiles * c.group, size)
    c.v, c.m = aligned(VALUES * c.source.v_plane * size), aligned(VALUES * c.result.v_plane * size)
    book(s, VALUES_OF_TILES, c.threads * c.v)
    book(s, SUMS, c.threads * c.m)


cdef void clear(const Convolution *c, Py_ssize_t n, Py_ssize_t k0, Py_ssize_t lanes) noexcept nogil:
    """Set some channels of an image to zero."""
    cdef const fc_winograd *x = &c.result
    cdef Py_ssize_t size = c.table.size, pixel
    cdef char *at = <char *>x.x + (n * x.x_image + k0) * size
    if lanes == x.x_col:
        memset(at, 0, x.x_image * size)
        return
    for pixel in range(x.h * x.w):
        memset(at + pixel * x.x_col * size, 0, lanes * size)


cdef void finish(const Convolution *c, Py_ssize_t n, Py_ssize_t k0, Py_ssize_t lanes) noexcept nogil:
    """Apply the epilogue, if there is one, to some channels of an image."""
    cdef const fc_winograd *x = &c.result
    cdef fc_epilogue e = epilogue_at(&c.e, n * x.x_image, n * c.e.add_image, k0, c.table.size)
    cdef char *at = <char *>x.x + (n * x.x_image + k0) * c.table.size
    if e.bias or e.scale or e.add or e.pre or e.activation:
        c.table.finish(&e, at, x.x_col, at, x.x_col, x.h * x.w, lanes)


cdef void share(const Shares *a, Py_ssize_t task, char *v, char *m) noexcept nogil:
    """Run one task: some images, or some of the channels of an image."""
    cdef const Convolution *c = &a.c
    cdef Py_ssize_t size = c.table.size, images = c.tiles // (a.rows * c.source.cols), panels = ceil_div(c.k, c.nr)
    cdef Py_ssize_t part = task % a.parts, image = task // a.parts * images // a.shares
    cdef Py_ssize_t row = image * a.rows, end = (task // a.parts + 1) * images // a.shares * a.rows
    cdef Py_ssize_t begin = part * panels // a.parts * c.nr, stop = min(c.k, (part + 1) * panels // a.parts * c.nr)
    cdef Py_ssize_t next = image, k, lanes
    cdef fc_winograd read = c.source, write = c.result
    read.channels, read.v, write.v = c.c, v, m
    while row < end:
        read.first = write.first = row * c.source.cols
        read.tiles = write.tiles = min(a.block, end - row) * c.source.cols
        c.to_values(&read)
        row = min(end, row + a.block)
        while next * a.rows < row:
            clear(c, next, begin, stop - begin)
            next += 1
        k = begin
        while k < stop:
            lanes = write.channels = min(c.group, stop - k)
            multiply(c, v, -1, read.tiles, c.panels + k // c.nr * c.panel * size, c.c, False, lanes, m)
            write.x = <char *>c.result.x + k * size
            c.from_values(&write)
            k += lanes
        while (image + 1) * a.rows <= row:
            finish(c, image, begin, stop - begin)
            image += 1


cdef void run_shares(Shares *a, const Scratch *s, const void *w, const fc_epilogue *e) noexcept nogil:
    """Run the planned gradient, its epilogue at the whole result."""
    cdef Convolution *c = &a.c
    cdef Py_ssize_t images = c.tiles // (a.rows * c.source.cols), task
    cdef char *v = get(s, VALUES_OF_TILES)
    cdef char *m = get(s, SUMS)
    c.e = e[0]
    c.e.add_image = c.result.h * c.result.w * c.e.add_col
    lay_filters(c, w, True, False, <Py_ssize_t *>get(s, TAPS))
    clear_border(c, s)
    if c.resident:
        for task in prange(images, schedule='static', num_threads=c.threads):
            clear(c, task, 0, c.k)
        convolve_resident(c, s)
        for task in prange(images, schedule='static', num_threads=c.threads):
            finish(c, task, 0, c.k)
        return
    all_filters(c, s, get(s, PANELS))
    c.panels = get(s, PANELS)
    for task in prange(a.shares * a.parts, schedule='static', num_threads=c.threads):
        share(a, task, v + threadid() * c.v, m + threadid() * c.m)


def input_gradient(const real[:, :, :, ::1] grad_y, const real[:, :, :, ::1] weight, real[:, :, :, :] grad_x,
                   Geometry g, Epilogue epilogue, scratch):
    """Write grad_x (N, H, W, C): the epilogue of the correlation of grad_y (N, P, Q, K) with the turned filters.

    The pixels of grad_x may lie at any one distance, unless the epilogue has `pre`.
    """
    epilogue.check(sizeof(real), g.n * g.h * g.w, g.c)
    if g.n == 0:
        return
    cdef Py_ssize_t pitch = pixel_pitch(grad_x.shape, grad_x.strides, sizeof(real))
    if epilogue.e.pre != NULL and pitch != g.c:
        raise ValueError("input_gradient: with pre, the pixels of grad_x must follow each other")
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef bint shares = over_results(g)
    cdef Shares a
    cdef Py_ssize_t top, left
    if shares:
        a.c = between(table, g, g.k, g.c, g.p, g.q)
        lay_tiles(&a.c.source, <void *>&grad_y[0, 0, 0, 0], g.p, g.q, g.k, g.k, 0, 0, g, g.p, g.q)
        lay_tiles(&a.c.result, &grad_x[0, 0, 0, 0], g.h, g.w, g.c, pitch, g.top, g.left, g, g.p, g.q)
    else:
        top, left = (g.r - 1) * g.dh - g.top, (g.r - 1) * g.dw - g.left
        a.c = between(table, g, g.k, g.c, g.h, g.w)
        lay_tiles(&a.c.source, <void *>&grad_y[0, 0, 0, 0], g.p, g.q, g.k, g.k, top, left, g, g.h, g.w)
        lay_tiles(&a.c.result, &grad_x[0, 0, 0, 0], g.h, g.w, g.c, pitch, 0, 0, g, g.h, g.w)
    cdef Scratch s
    nothing_booked(&s)
    if shares:
        plan_shares(&a, g, &s)
    else:
        plan(&a.c, g.dw, &s)
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    with nogil:
        if shares:
            run_shares(&a, &s, &weight[0, 0, 0, 0], &epilogue.e)
        else:
            run(&a.c, &s, &weight[0, 0, 0, 0], True, &epilogue.e)
