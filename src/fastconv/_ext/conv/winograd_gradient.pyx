"""Winograd's weight gradient: values of the input's tiles times those of grad_output's, summed over the tiles.

    pixels of 6x6 --kernel `input`--> 36 values a tile --kernel `products`--> shards of 36 sums a weight
    grad_output of 4x4 or 2x2 --kernel `gradient`--> 36 values ---^
    shards --fixed tree, kernel `filter_gradient`--> grad_weight

Order of sums, whatever the blocking: the tiles of all images, row by row, are cut into shards by shape alone; in a
shard the products are summed in chains over CHAIN tiles, each from zero, and the chains' sums added in order; shards
are added pairwise.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from fastconv._ext.bias cimport add_columns, bias_shards
from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport panel_lanes
from fastconv._ext.conv.scratch cimport (
    BIAS_SUMS, SUMS, VALUES_OF_TILES, WINDOWS, ZEROS, Scratch, aligned, book, booked, get, nothing_booked,
)
from fastconv._ext.conv.winograd cimport (
    BLOCK, VALUES, count_tiles, fetch_nothing, fetch_pixels, lay_tiles, plane_pitch, side_of, up_to,
)
from fastconv._ext.runtime cimport FC_RUN_COLUMNS, fc_ops, fc_winograd, fc_winograd_products, ops, threads_for
from fastconv._ext.shards cimport add_tree

ctypedef fused real:
    float
    double

cdef enum:
    CHAIN = 16          # tiles of one chain: part of the order
    SHARD = 64          # tiles of a shard, at least: part of the order
    ROWS = 48           # channels whose sums a task takes
    LANES = 64          # filters of them
    AHEAD = 1 << 19     # bytes of pixels, at most, that are fetched while products are computed
    FEW = 2             # where values of all tiles are so many times as many as sums at most, they are kept
    FEW_NARROW = 8      # the same where panels are narrower than LANES: sums and values are read more often


cdef struct WeightGradient:
    const fc_ops *table
    fc_winograd x, g             # tiles of the input and of grad_output
    int taps                     # 3 or 5: the side of a filter
    Py_ssize_t tiles, c, k, nr, shards
    bint resident                # all tiles' values are made first; then each block of weights is finished by itself
    Py_ssize_t rows, lanes       # of such a block: channels and filters; else all of them
    Py_ssize_t chunk             # tiles whose values are made at a time: all, or chains of them
    bint shared                  # threads share the tiles of a chunk and its sums; else the shards
    int threads
    Py_ssize_t back              # channels whose sums are taken back at a time
    Py_ssize_t s_plane, s_row    # sums: (shards, VALUES, rows, s_row)
    Py_ssize_t x_panel, g_panel  # bytes of the values of `rows` channels and of `lanes` filters
    Py_ssize_t g_first, each     # bytes before the first of filters, and of all values
    Py_ssize_t summed, taken     # bytes of sums, and of the weights a thread has on their way


cdef Py_ssize_t count_shards(Py_ssize_t tiles, Py_ssize_t weights) noexcept nogil:
    """Return into how many shards the sum over tiles is cut: by shape alone, since it decides the bits."""
    return max(1, min(min(16, tiles // SHARD), (1 << 21) // (VALUES * weights)))


cdef void plan(WeightGradient *a, Py_ssize_t dw, Scratch *s) noexcept nogil:
    """Choose blocks and book scratch memory."""
    cdef Py_ssize_t size = a.table.size, vector = a.table.lanes, chains
    a.nr = panel_lanes(a.table, a.k)
    a.shards = count_shards(a.tiles, a.c * a.k)
    a.resident = a.tiles * (a.c + a.k) <= (FEW if a.nr >= LANES else FEW_NARROW) * a.c * a.k
    if a.resident:
        a.rows = min(a.c, up_to(ceil_div(a.c, ceil_div(a.c, ROWS)), vector))
        a.lanes = min(a.k, max(1, LANES // a.nr) * a.nr)
        a.chunk = a.tiles
        a.back = a.rows
    else:
        a.rows, a.lanes = a.c, a.k
        # sums are set down and taken up once a chunk: it has as many values as there are sums
        chains = max(3, a.c * a.k // (CHAIN * (a.c + a.k)))
        a.chunk = min(a.tiles, min(chains, ceil_div(ceil_div(a.tiles, CHAIN), a.shards)) * CHAIN)
        a.back = min(a.c, max(1, 2048 // a.k))
    a.shared = a.resident or (a.threads > 1 and a.shards < 2 * a.threads)
    a.s_row = up_to(a.lanes, vector)
    a.s_plane = plane_pitch(a.rows * a.s_row, size)
    a.x.v_tile, a.g.v_tile = up_to(a.rows, vector), a.s_row
    a.x.v_plane = plane_pitch(a.chunk * a.x.v_tile, size)
    a.g.v_plane = plane_pitch(a.chunk * a.g.v_tile, size)
    a.x_panel = aligned(VALUES * a.x.v_plane * size)
    a.g_panel = aligned(VALUES * a.g.v_plane * size)
    a.g_first = ceil_div(a.c, a.rows) * a.x_panel
    a.each = a.g_first + ceil_div(a.k, a.lanes) * a.g_panel
    a.summed = aligned(a.shards * VALUES * a.s_plane * size)
    a.taken = aligned(a.taps * a.taps * a.back * a.s_row * size)
    book(s, ZEROS, FC_RUN_COLUMNS * dw * max(a.c, a.k) * size)
    book(s, VALUES_OF_TILES, a.each if a.shared else a.threads * a.each)
    book(s, SUMS, a.threads * a.summed if a.resident else a.summed)
    book(s, WINDOWS, a.threads * a.taken)


cdef void tile_values(const WeightGradient *a, Py_ssize_t first, Py_ssize_t tiles, Py_ssize_t at,
                      char *values) noexcept nogil:
    """Take some tiles of both sides to their values, ``at`` tiles from the beginning of ``values``."""
    cdef Py_ssize_t size = a.table.size, begin = 0
    cdef fc_winograd one = a.x
    one.first, one.tiles, one.v = first, tiles, values + at * one.v_tile * size
    while begin < a.c:
        one.channels = min(a.rows, a.c - begin)
        one.x = <char *>a.x.x + begin * size
        a.table.winograd_input(&one)
        one.v = <char *>one.v + a.x_panel
        begin += a.rows
    one = a.g
    one.first, one.tiles, one.v = first, tiles, values + a.g_first + at * one.v_tile * size
    begin = 0
    while begin < a.k:
        one.channels = min(a.lanes, a.k - begin)
        one.x = <char *>a.g.x + begin * size
        a.table.winograd_gradient(&one)
        one.v = <char *>one.v + a.g_panel
        begin += a.lanes


cdef fc_winograd_products products_of(const WeightGradient *a, const char *x, const char *g, char *sums) noexcept nogil:
    """Return the products of all planes and rows of a panel of channels with one of filters."""
    cdef fc_winograd_products s
    fetch_nothing(&s)
    s.a, s.a_plane, s.a_row, s.a_depth = x, a.x.v_plane, 1, a.x.v_tile
    s.b, s.b_plane, s.b_depth, s.b_panel, s.nr = g, a.g.v_plane, a.g.v_tile, a.nr, a.nr
    s.c, s.c_plane, s.c_row = sums, a.s_plane, a.s_row
    s.planes, s.rows, s.lanes, s.block = VALUES, a.rows, a.s_row, CHAIN
    return s


cdef inline Py_ssize_t shard_begin(const WeightGradient *a, Py_ssize_t shard) noexcept nogil:
    """Return a shard's first tile: shards are cut between chains."""
    return min(a.tiles, shard * ceil_div(a.tiles, CHAIN) // a.shards * CHAIN)


cdef void sum_shard(const WeightGradient *a, Py_ssize_t shard, char *values, char *sums) noexcept nogil:
    """Sum the tiles of a shard, a chunk at a time, on one thread."""
    cdef Py_ssize_t begin = shard_begin(a, shard), end = shard_begin(a, shard + 1), first = begin
    cdef fc_winograd_products s = products_of(a, values, values + a.g_first,
                                              sums + shard * VALUES * a.s_plane * a.table.size)
    cdef Py_ssize_t behind, room
    while first < end:
        s.depth, s.more = min(a.chunk, end - first), first > begin
        tile_values(a, first, s.depth, 0, values)
        behind, room = first + s.depth, AHEAD
        fetch_nothing(&s)
        fetch_pixels(&s, 0, &a.g, behind, min(a.tiles, behind + a.chunk), 0, a.table.size, &room)
        fetch_pixels(&s, 1, &a.x, behind, min(a.tiles, behind + a.chunk), a.taps - 1, a.table.size, &room)
        a.table.winograd_products(&s)
        first = behind


cdef void shared_values(const WeightGradient *a, Py_ssize_t first, Py_ssize_t tiles, char *values) noexcept nogil:
    """Take some tiles to their values: threads share them."""
    cdef Py_ssize_t block = ceil_div(tiles, up_to(ceil_div(tiles, BLOCK), a.threads)), task
    for task in prange(ceil_div(tiles, block), schedule='static', num_threads=a.threads):
        tile_values(a, first + task * block, min(block, tiles - task * block), task * block, values)


cdef void part_of_products(const fc_ops *table, const fc_winograd_products *all, Py_ssize_t plane,
                           Py_ssize_t row) noexcept nogil:
    """Add the products of one plane and ROWS of its rows."""
    cdef fc_winograd_products s = all[0]
    s.a = <const char *>s.a + (plane * s.a_plane + row) * table.size
    s.b = <const char *>s.b + plane * s.b_plane * table.size
    s.c = <char *>s.c + (plane * s.c_plane + row * s.c_row) * table.size
    s.planes, s.rows = 1, min(<Py_ssize_t>ROWS, s.rows - row)
    table.winograd_products(&s)


cdef void sum_shared(const WeightGradient *a, Py_ssize_t shard, char *values, char *sums) noexcept nogil:
    """Sum the tiles of a shard: threads share the tiles of a chunk, then its sums."""
    cdef Py_ssize_t begin = shard_begin(a, shard), end = shard_begin(a, shard + 1), first = begin, task
    cdef Py_ssize_t parts = ceil_div(a.c, ROWS)
    cdef fc_winograd_products s = products_of(a, values, values + a.g_first,
                                              sums + shard * VALUES * a.s_plane * a.table.size)
    while first < end:
        s.depth, s.more = min(a.chunk, end - first), first > begin
        shared_values(a, first, s.depth, values)
        for task in prange(VALUES * parts, schedule='static', num_threads=a.threads):
            part_of_products(a.table, &s, task // parts, task % parts * ROWS)
        first += s.depth


cdef void take_back(const WeightGradient *a, char *sums, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t lanes,
                    char *taken, char *grad) noexcept nogil:
    """Add the shards for some rows, take them back to weights and add those: grad (K, C, R, S) += ..."""
    cdef Py_ssize_t size = a.table.size, whole = up_to(lanes, a.table.lanes), taps = a.taps * a.taps, i
    for i in range(VALUES * rows if a.shards > 1 else 0):
        add_tree(a.table, sums, a.shards, VALUES * a.s_plane, i // rows * a.s_plane + (row + i % rows) * a.s_row,
                 whole)
    for i in range(rows):
        a.table.winograd_filter_gradient(sums + (row + i) * a.s_row * size, a.s_plane, taken + taps * i * whole * size,
                                         whole, whole, a.taps)
    a.table.accumulate_turned(taken, whole, taps * rows, lanes, grad, a.c * taps)


cdef void finish_block(const WeightGradient *a, Py_ssize_t block, const char *values, char *sums, char *taken,
                       char *grad) noexcept nogil:
    """Sum all tiles for a block of weights, and take the sums back, while they are in a core's cache."""
    cdef Py_ssize_t across = ceil_div(a.k, a.lanes), i = block // across, j = block % across, shard, begin
    cdef Py_ssize_t size = a.table.size, lanes = min(a.lanes, a.k - j * a.lanes)
    cdef fc_winograd_products s = products_of(a, NULL, NULL, sums)
    s.rows, s.lanes, s.more = min(a.rows, a.c - i * a.rows), up_to(lanes, a.table.lanes), False
    for shard in range(a.shards):
        begin = shard_begin(a, shard)
        s.depth = shard_begin(a, shard + 1) - begin
        s.a_bytes = s.depth * a.x.v_tile * size
        if a.g.v_tile > a.nr:   # else they lie in a line, and hardware foresees it
            s.b_bytes = s.depth * a.g.v_tile * size
        s.a = values + i * a.x_panel + begin * a.x.v_tile * size
        s.b = values + a.g_first + j * a.g_panel + begin * a.g.v_tile * size
        s.c = sums + shard * VALUES * a.s_plane * size
        a.table.winograd_products(&s)
    take_back(a, sums, 0, s.rows, lanes, taken, grad + (j * a.lanes * a.c + i * a.rows) * a.taps * a.taps * size)


cdef void run(const WeightGradient *a, char *values, char *sums, char *taken, char *grad) noexcept nogil:
    """Add the gradient to grad (K, C, R, S)."""
    cdef Py_ssize_t task
    if a.resident:
        shared_values(a, 0, a.tiles, values)
        for task in prange(ceil_div(a.c, a.rows) * ceil_div(a.k, a.lanes), schedule='dynamic', num_threads=a.threads):
            finish_block(a, task, values, sums + threadid() * a.summed, taken + threadid() * a.taken, grad)
        return
    if a.shared:
        for task in range(a.shards):
            sum_shared(a, task, values, sums)
    else:
        for task in prange(a.shards, schedule='static', num_threads=a.threads):
            sum_shard(a, task, values + threadid() * a.each, sums)
    for task in prange(ceil_div(a.c, a.back), schedule='static', num_threads=a.threads):
        take_back(a, sums, task * a.back, min(a.back, a.c - task * a.back), a.k, taken + threadid() * a.taken,
                  grad + task * a.back * a.taps * a.taps * a.table.size)


def weight_gradient(const real[:, :, :, ::1] x, const real[:, :, :, ::1] grad_y, real[:, :, :, ::1] grad_weight,
                    Geometry g, scratch, real[::1] grad_bias=None):
    """Add to grad_weight (K, C, R, S) the gradient for x (N, H, W, C) and grad_y (N, P, Q, K).

    And to grad_bias (K) the sums of grad_y, with the bits of `bias_gradient`.
    """
    if g.n == 0:
        return
    cdef Py_ssize_t side = side_of(g.r)
    cdef Py_ssize_t pixels = g.n * g.p * g.q
    cdef char *grad_of_bias = NULL
    cdef WeightGradient a
    cdef Scratch s
    a.table = ops(sizeof(real) // 4 - 1)
    a.taps, a.tiles, a.c, a.k = g.r, count_tiles(g, g.p, g.q), g.c, g.k
    a.threads = threads_for(64.0 / (side * side) * g.n * g.p * g.q * g.c * g.k)
    nothing_booked(&s)
    plan(&a, g.dw, &s)
    if grad_bias is not None:
        grad_of_bias = <char *>&grad_bias[0]
        book(&s, BIAS_SUMS, bias_shards(pixels) * g.k * sizeof(real))
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    lay_tiles(&a.x, <void *>&x[0, 0, 0, 0], g.h, g.w, g.c, g.c, g.top, g.left, g, g.p, g.q)
    lay_tiles(&a.g, <void *>&grad_y[0, 0, 0, 0], g.p, g.q, g.k, g.k, 0, 0, g, g.p, g.q)
    a.x.zeros = a.g.zeros = get(&s, ZEROS)
    cdef char *grad = <char *>&grad_weight[0, 0, 0, 0]
    with nogil:
        memset(get(&s, ZEROS), 0, FC_RUN_COLUMNS * g.dw * max(a.c, a.k) * a.table.size)
        run(&a, get(&s, VALUES_OF_TILES), get(&s, SUMS), get(&s, WINDOWS), grad)
        if grad_of_bias != NULL:
            add_columns(a.table, <const char *>&grad_y[0, 0, 0, 0], pixels, g.k, get(&s, BIAS_SUMS), grad_of_bias)
