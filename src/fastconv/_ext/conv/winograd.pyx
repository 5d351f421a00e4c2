"""Winograd convolution F(4x4, 3x3) and F(2x2, 5x5) of stride 1: 4 or 2.8 times fewer multiplications than `direct`.

    pixels of 6x6 --kernel `input`--> 36 values a tile --kernel `products`--> 36 sums a tile
    filters --`pack`, kernel `filters`--> 36 values -------^      --kernel `output`--> its results, epilogue included

Gradients are in winograd_input_gradient.pyx and winograd_gradient.pyx.

Order of sums, whatever the blocking: the transforms are fixed expressions (winograd.inc.h). Products are summed in
chains over a few channels, each from zero, and the chains' sums added in order. Zero padding takes part as zeros. A
tile belongs to one image, so a result does not depend on the rest of the batch.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport panel_lanes
from fastconv._ext.conv.scratch cimport (
    PANELS, SUMS, TAPS, VALUES_OF_TILES, WINDOWS, ZEROS, Scratch, aligned, book, booked, get, nothing_booked,
)
from fastconv._ext.epilogue cimport Epilogue, epilogue_at, pixel_pitch
from fastconv._ext.runtime cimport (
    FC_RUN_COLUMNS, fc_epilogue, fc_ops, fc_pack, fc_winograd, fc_winograd_products, ops, threads_for,
)

ctypedef fused real:
    float
    double

cdef enum:              # of no influence on any bit
    LANES = 64          # filters whose sums are in a core's cache beside a block of tiles
    FEW_LANES = 32      # the same where all tiles meet them
    LAID_OUT = 32       # channels of filters that are laid out at a time, on their way to values
    DEPTH = 128         # channels of filters whose values are in the cache, where all tiles meet them
    AHEAD = 1 << 18     # bytes of pixels, at most, that are fetched while products are computed


cdef Py_ssize_t side_of(Py_ssize_t taps) noexcept nogil:
    """Return the side of a tile's results, which read 6x6 pixels."""
    return 7 - taps


cdef Py_ssize_t up_to(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """Return a, rounded up to a multiple of b."""
    return ceil_div(a, b) * b


cdef Py_ssize_t plane_pitch(Py_ssize_t elements, Py_ssize_t size) noexcept nogil:
    """Return the elements from one value's plane to the next: planes do not share the sets of a cache."""
    return aligned(elements * size) // size + 64 // size


cdef inline Py_ssize_t chain(Py_ssize_t channels) noexcept nogil:
    """Return the channels of one chain of products: part of the order.

    Chains about as long as they are many lose least; shorter ones cost a load, an addition and a store each.
    """
    return 8 if channels <= 32 else 16


cdef Py_ssize_t tiles_along(Py_ssize_t pixels, Py_ssize_t dilation, Py_ssize_t side) noexcept nogil:
    """Return the tiles of a phase along an axis."""
    return ceil_div(ceil_div(pixels, dilation), side)


cdef Py_ssize_t count_tiles(Geometry g, Py_ssize_t h, Py_ssize_t w) noexcept nogil:
    """Return the tiles of all phases of all images, for results of h x w pixels."""
    cdef Py_ssize_t side = side_of(g.r)
    return g.n * g.dh * g.dw * tiles_along(h, g.dh, side) * tiles_along(w, g.dw, side)


cdef Convolution between(const fc_ops *table, Geometry g, Py_ssize_t c, Py_ssize_t k, Py_ssize_t h,
                         Py_ssize_t w) noexcept nogil:
    """Return the convolution of images of c channels that has results of h x w pixels and k channels."""
    cdef Convolution a
    cdef Py_ssize_t side = side_of(g.r)
    a.table, a.taps, a.c, a.k, a.panels = table, g.r, c, k, NULL
    a.to_values, a.from_values = table.winograd_input, table.winograd_output
    a.tiles = count_tiles(g, h, w)
    a.threads = threads_for(64.0 / (side * side) * g.n * h * w * c * k)
    a.nr = panel_lanes(table, k)
    a.u_plane = plane_pitch(c * a.nr, table.size)
    a.panel = VALUES * a.u_plane
    return a


cdef void plan(Convolution *a, Py_ssize_t dw, Scratch *s) noexcept nogil:
    """Choose blocks and book scratch memory."""
    cdef Py_ssize_t size = a.table.size, panels = ceil_div(a.k, a.nr), blocks, in_panel
    a.resident = a.tiles < a.k
    a.group = min(max(1, (FEW_LANES if a.resident else LANES) // a.nr), panels) * a.nr
    a.depth = a.c
    a.u = 0
    blocks = up_to(ceil_div(a.tiles, BLOCK), a.threads)
    a.block = ceil_div(a.tiles, blocks)
    in_panel = a.tiles
    if a.resident:
        a.group = min(a.group, max(1, panels // a.threads) * a.nr)
        a.depth = min(<Py_ssize_t>DEPTH, a.c)
        a.u_plane = plane_pitch(a.depth * a.nr, size)
        a.panel = VALUES * a.u_plane
        a.u = aligned(a.group // a.nr * a.panel * size)
        book(s, PANELS, a.threads * a.u)
    else:
        in_panel = a.block = up_to(a.block, 6)
        book(s, PANELS, panels * a.panel * size)
    a.source.v_tile = up_to(a.depth, a.table.lanes)
    a.source.v_plane = plane_pitch(in_panel * a.source.v_tile, size)
    a.v_panel = VALUES * a.source.v_plane * size
    a.result.v_tile = a.group
    a.result.v_plane = plane_pitch(in_panel * a.group, size)
    a.laid_out = aligned(a.taps * a.taps * LAID_OUT * a.nr * size)
    a.v = aligned(ceil_div(a.c, a.depth) * a.v_panel)
    a.m = aligned(VALUES * a.result.v_plane * size)
    book(s, TAPS, a.taps * a.taps * sizeof(Py_ssize_t))
    book(s, ZEROS, FC_RUN_COLUMNS * dw * a.c * size)
    book(s, WINDOWS, a.threads * a.laid_out)
    book(s, VALUES_OF_TILES, a.v if a.resident else a.threads * a.v)
    book(s, SUMS, a.threads * a.m)


cdef inline const char *weights_at(const Convolution *a, Py_ssize_t panel, Py_ssize_t c) noexcept nogil:
    """Return where the weights of a panel lie, from a channel on."""
    return <const char *>a.pack.w + (panel * a.nr * a.pack.lane_pitch + c * a.pack.c_pitch) * a.table.size


cdef void filters(const Convolution *a, Py_ssize_t panel, Py_ssize_t first, Py_ssize_t depth, char *laid_out,
                  char *u) noexcept nogil:
    """Take one panel of filters to their values: the channels first .. first+depth-1."""
    cdef Py_ssize_t size = a.table.size, done = 0, behind
    cdef fc_pack one = a.pack
    cdef fc_pack next = a.pack   # what is fetched meanwhile: the channels behind, or those of the panel behind
    one.lanes = min(a.nr, a.k - panel * a.nr)
    one.panels = laid_out
    while done < depth:
        one.nc = min(<Py_ssize_t>LAID_OUT, depth - done)
        one.w = weights_at(a, panel, first + done)
        behind = first + done + one.nc
        next.w = weights_at(a, panel, behind) if behind < a.c else weights_at(a, panel + 1, 0)
        a.table.pack(&one)
        a.table.winograd_filters(laid_out, one.nc * a.nr, u + done * a.nr * size, a.u_plane, one.nc * a.nr, &next,
                                 a.taps)
        done += one.nc


cdef void all_filters(const Convolution *a, const Scratch *s, char *panels) noexcept nogil:
    """Take all filters to their values: threads share channels of panels."""
    cdef Py_ssize_t cuts = ceil_div(a.c, <Py_ssize_t>LAID_OUT), task
    for task in prange(ceil_div(a.k, a.nr) * cuts, schedule='static', num_threads=a.threads):
        some_filters(a, task // cuts, task % cuts * LAID_OUT, get(s, WINDOWS) + threadid() * a.laid_out, panels)


cdef void some_filters(const Convolution *a, Py_ssize_t panel, Py_ssize_t first, char *laid_out,
                       char *panels) noexcept nogil:
    """Take some channels of a panel to their places among the values of all filters."""
    filters(a, panel, first, min(<Py_ssize_t>LAID_OUT, a.c - first), laid_out,
            panels + (panel * a.panel + first * a.nr) * a.table.size)


cdef void values(const Convolution *a, Py_ssize_t first, Py_ssize_t tiles, char *v) noexcept nogil:
    """Take some tiles to their values."""
    cdef fc_winograd read = a.source
    cdef Py_ssize_t c = 0
    read.first, read.tiles, read.v = first, tiles, v
    while c < a.c:
        read.channels = min(a.depth, a.c - c)
        a.to_values(&read)
        read.x = <char *>read.x + a.depth * a.table.size
        read.v = <char *>read.v + a.v_panel
        c += a.depth


cdef inline const char *reached(const fc_winograd *a, Py_ssize_t end, Py_ssize_t overlap,
                                Py_ssize_t size) noexcept nogil:
    """Return where the pixels end that tiles 0 .. end-1 lie on, and the tiles in a row with them.

    Tiles reach so many rows into those below them as they ``overlap``.
    """
    cdef Py_ssize_t rows = ceil_div(end, a.cols), within = rows % a.rows
    cdef Py_ssize_t pixels = max(0, min(a.h, a.side * within - a.top + overlap)) if within else 0
    return <const char *>a.x + (rows // a.rows * a.x_image + pixels * a.x_row) * size


cdef void fetch_nothing(fc_winograd_products *s) noexcept nogil:
    s.ahead[0] = s.ahead[1] = NULL
    s.ahead_bytes[0] = s.ahead_bytes[1] = s.a_bytes = s.b_bytes = 0


cdef void fetch_pixels(fc_winograd_products *s, int which, const fc_winograd *a, Py_ssize_t first, Py_ssize_t end,
                       Py_ssize_t overlap, Py_ssize_t size, Py_ssize_t *room) noexcept nogil:
    """Let products fetch meanwhile the pixels of the tiles first .. end-1, if there is ``room`` for so many bytes."""
    if a.dh > 1 or a.dw > 1:   # they lie apart
        return
    cdef const char *begin = reached(a, first, overlap, size)
    cdef Py_ssize_t nbytes = reached(a, end, overlap, size) - begin
    if nbytes <= room[0]:
        s.ahead[which], s.ahead_bytes[which] = begin, nbytes
        room[0] -= nbytes


cdef void multiply(const Convolution *a, const char *v, Py_ssize_t first, Py_ssize_t tiles, const char *u,
                   Py_ssize_t depth, bint more, Py_ssize_t lanes, char *m) noexcept nogil:
    """Multiply the values of some tiles and filters, and sum over some channels.

    Where ``first`` is a tile, not -1, the memory of the results from there on is fetched meanwhile, and the pixels of
    the block of tiles behind. Values of all tiles are too many for a core's cache: each plane's are fetched.
    """
    cdef fc_winograd_products s
    cdef Py_ssize_t room = AHEAD, behind = first + tiles
    fetch_nothing(&s)
    if first >= 0:
        fetch_pixels(&s, 0, &a.result, first, behind, 0, a.table.size, &room)
        fetch_pixels(&s, 1, &a.source, behind, min(a.tiles, behind + tiles), a.taps - 1, a.table.size, &room)
    if a.resident:
        s.a_bytes = tiles * a.source.v_tile * a.table.size
    s.a, s.a_plane, s.a_row, s.a_depth = v, a.source.v_plane, a.source.v_tile, 1
    s.b, s.b_plane, s.b_panel, s.b_depth, s.nr = u, a.u_plane, a.panel, a.nr, a.nr
    s.c, s.c_plane, s.c_row = m, a.result.v_plane, a.result.v_tile
    s.planes, s.rows, s.lanes, s.depth = VALUES, tiles, up_to(lanes, a.table.lanes), depth
    s.block, s.more = chain(a.c), more
    a.table.winograd_products(&s)


cdef void results(const Convolution *a, Py_ssize_t first, Py_ssize_t tiles, Py_ssize_t k0, Py_ssize_t lanes,
                  char *m) noexcept nogil:
    """Take sums back to results."""
    cdef fc_winograd write = a.result
    write.x = <char *>write.x + k0 * a.table.size
    write.first, write.tiles, write.channels, write.v = first, tiles, lanes, m
    write.e = epilogue_at(&a.e, 0, 0, k0, a.table.size)
    a.from_values(&write)


cdef void share_of_tiles(const Convolution *a, Py_ssize_t share, char *v, char *m) noexcept nogil:
    """Let a thread's tiles, about as many as any other's, meet all filters, a block at a time."""
    cdef Py_ssize_t sixes = ceil_div(a.tiles, 6), first = share * sixes // a.threads * 6
    cdef Py_ssize_t end = min(a.tiles, (share + 1) * sixes // a.threads * 6)
    while first < end:
        block_of_tiles(a, first, min(a.block, end - first), v, m)
        first += a.block


cdef void block_of_tiles(const Convolution *a, Py_ssize_t first, Py_ssize_t tiles, char *v, char *m) noexcept nogil:
    """Let a block of tiles meet all filters."""
    cdef Py_ssize_t k = 0, lanes
    values(a, first, tiles, v)
    while k < a.k:
        lanes = min(a.group, a.k - k)
        multiply(a, v, -1 if k else first, tiles, a.panels + k // a.nr * a.panel * a.table.size, a.c, False, lanes, m)
        results(a, first, tiles, k, lanes, m)
        k += lanes


cdef void group_of_filters(const Convolution *a, Py_ssize_t group, const char *v, char *laid_out, char *u,
                           char *m) noexcept nogil:
    """Let a group of filters meet all tiles, some channels at a time."""
    cdef Py_ssize_t k = group * a.group, lanes = min(a.group, a.k - k), c = 0, depth, panel, size = a.table.size
    while c < a.c:
        depth = min(a.depth, a.c - c)
        for panel in range(ceil_div(lanes, a.nr)):
            filters(a, k // a.nr + panel, c, depth, laid_out, u + panel * a.panel * size)
        multiply(a, v + c // a.depth * a.v_panel, -1, a.tiles, u, depth, c > 0, lanes, m)
        c += depth
    results(a, 0, a.tiles, k, lanes, m)


cdef void clear_border(Convolution *a, const Scratch *s) noexcept nogil:
    """Set what is read in the place of a row outside of an image to zero."""
    a.source.zeros = get(s, ZEROS)
    memset(get(s, ZEROS), 0, FC_RUN_COLUMNS * a.source.dw * a.c * a.table.size)


cdef void convolve_resident(const Convolution *a, const Scratch *s) noexcept nogil:
    """Make all tiles' values, and let groups of filters meet them."""
    cdef Py_ssize_t size = a.table.size, task
    cdef char *laid_out = get(s, WINDOWS)
    cdef char *v = get(s, VALUES_OF_TILES)
    cdef char *m = get(s, SUMS)
    cdef char *u = get(s, PANELS)
    for task in prange(ceil_div(a.tiles, a.block), schedule='static', num_threads=a.threads):
        values(a, task * a.block, min(a.block, a.tiles - task * a.block), v + task * a.block * a.source.v_tile * size)
    for task in prange(ceil_div(a.k, a.group), schedule='dynamic', num_threads=a.threads):
        group_of_filters(a, task, v, laid_out + threadid() * a.laid_out, u + threadid() * a.u, m + threadid() * a.m)


cdef void convolve(Convolution *a, const Scratch *s) noexcept nogil:
    """Run a planned convolution."""
    cdef Py_ssize_t task
    cdef char *v = get(s, VALUES_OF_TILES)
    cdef char *m = get(s, SUMS)
    if a.resident:
        convolve_resident(a, s)
        return
    all_filters(a, s, get(s, PANELS))
    a.panels = get(s, PANELS)
    for task in prange(a.threads, schedule='static', num_threads=a.threads):
        share_of_tiles(a, task, v + threadid() * a.v, m + threadid() * a.m)


cdef void lay_tiles(fc_winograd *a, void *x, Py_ssize_t h, Py_ssize_t w, Py_ssize_t channels, Py_ssize_t pitch,
                    Py_ssize_t top, Py_ssize_t left, Geometry g, Py_ssize_t p, Py_ssize_t q) noexcept nogil:
    """Say where images (n, h, w, channels) lie, their pixels ``pitch`` elements apart, and their tiles.

    These are of results of p x q pixels, and begin ``top`` rows and ``left`` columns before the image.
    """
    a.x, a.x_image, a.x_row, a.x_col = x, h * w * pitch, w * pitch, pitch
    a.h, a.w, a.channels, a.top, a.left, a.side, a.dh, a.dw = h, w, channels, top, left, side_of(g.r), g.dh, g.dw
    a.rows, a.cols = tiles_along(p, g.dh, a.side), tiles_along(q, g.dw, a.side)


cdef void lay_filters(Convolution *a, const void *w, bint flipped, bint turned, Py_ssize_t *taps) noexcept nogil:
    """Say where weights lie; where ``flipped`` their channels are the lanes, where ``turned`` their last tap is first.
    """
    cdef Py_ssize_t count = a.taps * a.taps, t
    for t in range(count):
        taps[t] = count - 1 - t if turned else t
    a.pack.w, a.pack.taps, a.pack.ntaps, a.pack.nr = w, taps, count, a.nr
    a.pack.lane_pitch = count if flipped else count * a.c
    a.pack.c_pitch = count * a.k if flipped else count


cdef void run(Convolution *a, const Scratch *s, const void *w, bint flipped, const fc_epilogue *e) noexcept nogil:
    """Run a planned convolution, its epilogue at the whole result."""
    a.e = e[0]
    a.e.add_row = a.result.w * a.e.add_col
    a.e.add_image = a.result.h * a.e.add_row
    a.source.e = a.result.e = a.e
    lay_filters(a, w, flipped, flipped, <Py_ssize_t *>get(s, TAPS))
    clear_border(a, s)
    convolve(a, s)


def forward(const real[:, :, :, ::1] x, const real[:, :, :, ::1] weight, real[:, :, :, :] y, Geometry g,
            Epilogue epilogue, scratch):
    """Write y (N, P, Q, K): the epilogue of the correlation of x (N, H, W, C) with weight (K, C, R, S).

    The pixels of y may lie at any one distance, unless the epilogue has `pre`.
    ``scratch`` is a function from a number of bytes to a uint8 array.
    """
    epilogue.check(sizeof(real), g.n * g.p * g.q, g.k)
    if g.n == 0:
        return
    cdef Py_ssize_t pitch = pixel_pitch(y.shape, y.strides, sizeof(real))
    if epilogue.e.pre != NULL and pitch != g.k:
        raise ValueError("forward: with pre, the pixels of y must follow each other")
    cdef Convolution a = between(ops(sizeof(real) // 4 - 1), g, g.c, g.k, g.p, g.q)
    cdef Scratch s
    nothing_booked(&s)
    plan(&a, g.dw, &s)
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    lay_tiles(&a.source, <void *>&x[0, 0, 0, 0], g.h, g.w, g.c, g.c, g.top, g.left, g, g.p, g.q)
    lay_tiles(&a.result, &y[0, 0, 0, 0], g.p, g.q, g.k, pitch, 0, 0, g, g.p, g.q)
    with nogil:
        run(&a, &s, &weight[0, 0, 0, 0], False, &epilogue.e)
