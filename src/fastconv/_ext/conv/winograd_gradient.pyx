"""Winograd's weight gradient: values of the input's tiles times those of grad_output's, summed over the tiles.

    pixels of 6x6 --kernel `input`--> 36 values a tile --kernel `products`--> shards of 36 sums a weight
    grad_output of 4x4 --kernel `gradient`--> 36 values ----^      --fixed tree, kernel `filter_gradient`--> grad_weight

Order of sums, whatever the blocking: the tiles of all images, row by row, are cut into shards by shape alone; in a
shard the products are summed in chains over CHAIN tiles, each from zero, and the chains' sums added in order; shards
are added pairwise.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport panel_lanes
from fastconv._ext.conv.scratch cimport (
    SUMS, VALUES_OF_TILES, WINDOWS, ZEROS, Scratch, aligned, book, booked, get, nothing_booked,
)
from fastconv._ext.conv.winograd cimport BLOCK, VALUES, lay_tiles, plane_pitch, up_to
from fastconv._ext.runtime cimport fc_ops, fc_winograd, fc_winograd_products, ops, threads_for
from fastconv._ext.shards cimport add_tree

ctypedef fused real:
    float
    double

cdef enum:
    CHAIN = 16          # tiles of one chain: part of the order
    ROWS = 48           # channels whose sums a task takes


cdef struct WeightGradient:
    const fc_ops *table
    fc_winograd x, g             # tiles of the input and of grad_output
    Py_ssize_t tiles, c, k, nr
    Py_ssize_t shards, s_plane, s_row   # sums: (shards, VALUES, c, s_row)
    Py_ssize_t chunk             # tiles whose values are made at a time: chains of them
    Py_ssize_t rows              # channels whose sums are taken back at a time
    bint shared                  # threads share each chunk; else the shards
    int threads
    Py_ssize_t u, each           # of a set of values: bytes before those of grad_output, and all of them
    Py_ssize_t taken             # bytes a thread has for weights on their way
    char *sums


cdef Py_ssize_t count_shards(Py_ssize_t tiles, Py_ssize_t weights) noexcept nogil:
    """Return into how many shards the sum over tiles is cut: by shape alone, since it decides the bits."""
    return max(1, min(min(16, ceil_div(tiles, CHAIN)), (1 << 21) // (VALUES * weights)))


cdef void plan(WeightGradient *a, Scratch *s) noexcept nogil:
    """Choose blocks and book scratch memory."""
    cdef Py_ssize_t size = a.table.size, chains
    a.nr = panel_lanes(a.table, a.k)
    a.shards = count_shards(a.tiles, a.c * a.k)
    a.shared = a.threads > 1 and a.shards < 2 * a.threads
    a.s_row = up_to(a.k, a.table.lanes)
    a.s_plane = plane_pitch(a.c * a.s_row, size)
    a.rows = min(a.c, max(1, 2048 // a.s_row))
    a.x.v_tile, a.g.v_tile = up_to(a.c, a.table.lanes), up_to(a.k, a.table.lanes)
    # sums are set down and taken up once a chunk: it has as many values as there are sums
    chains = max(3, a.c * a.k // (CHAIN * (a.c + a.k)))
    a.chunk = min(chains, ceil_div(ceil_div(a.tiles, CHAIN), a.shards)) * CHAIN
    a.x.v_plane = plane_pitch(min(a.chunk, a.tiles) * a.x.v_tile, size)
    a.g.v_plane = plane_pitch(min(a.chunk, a.tiles) * a.g.v_tile, size)
    a.u = aligned(VALUES * a.x.v_plane * size)
    a.each = a.u + aligned(VALUES * a.g.v_plane * size)
    a.taken = aligned(9 * a.rows * a.s_row * size)
    book(s, ZEROS, 6 * max(a.c, a.k) * size)
    book(s, VALUES_OF_TILES, a.each if a.shared else a.threads * a.each)
    book(s, SUMS, a.shards * VALUES * a.s_plane * size)
    book(s, WINDOWS, a.threads * a.taken)


cdef void tile_values(const WeightGradient *a, Py_ssize_t first, Py_ssize_t tiles, Py_ssize_t at,
                      char *values) noexcept nogil:
    """Take some tiles of both sides to their values, ``at`` tiles from the beginning of ``values``."""
    cdef fc_winograd one = a.x
    one.first, one.tiles, one.v = first, tiles, values + at * one.v_tile * a.table.size
    a.table.winograd_input(&one)
    one = a.g
    one.first, one.tiles, one.v = first, tiles, values + a.u + at * one.v_tile * a.table.size
    a.table.winograd_gradient(&one)


cdef void add_products(const WeightGradient *a, Py_ssize_t shard, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t row,
                       Py_ssize_t rows, Py_ssize_t tiles, bint more, const char *values) noexcept nogil:
    """Add the products of a chunk's tiles to some planes and rows of a shard's sums."""
    cdef fc_winograd_products s
    cdef Py_ssize_t size = a.table.size
    s.a, s.a_plane, s.a_row, s.a_depth = values + (plane * a.x.v_plane + row) * size, a.x.v_plane, 1, a.x.v_tile
    s.b, s.b_plane, s.b_depth = values + a.u + plane * a.g.v_plane * size, a.g.v_plane, a.g.v_tile
    s.b_panel = s.nr = a.nr
    s.c = a.sums + ((shard * VALUES + plane) * a.s_plane + row * a.s_row) * size
    s.c_plane, s.c_row = a.s_plane, a.s_row
    s.planes, s.rows, s.lanes, s.depth, s.block, s.more = planes, rows, a.s_row, tiles, CHAIN, more
    a.table.winograd_products(&s)


cdef inline Py_ssize_t shard_begin(const WeightGradient *a, Py_ssize_t shard) noexcept nogil:
    """Return a shard's first tile: shards are cut between chains."""
    return min(a.tiles, shard * ceil_div(a.tiles, CHAIN) // a.shards * CHAIN)


cdef void sum_shard(const WeightGradient *a, Py_ssize_t shard, char *values) noexcept nogil:
    """Sum the tiles of a shard, on one thread."""
    cdef Py_ssize_t begin = shard_begin(a, shard), end = shard_begin(a, shard + 1), first = begin, tiles
    while first < end:
        tiles = min(a.chunk, end - first)
        tile_values(a, first, tiles, 0, values)
        add_products(a, shard, 0, VALUES, 0, a.c, tiles, first > begin, values)
        first += tiles


cdef void sum_shared(const WeightGradient *a, Py_ssize_t shard, char *values) noexcept nogil:
    """Sum the tiles of a shard: threads share the tiles of a chunk, then its sums."""
    cdef Py_ssize_t begin = shard_begin(a, shard), end = shard_begin(a, shard + 1), first = begin, tiles, task
    cdef Py_ssize_t parts = ceil_div(a.c, ROWS)
    while first < end:
        tiles = min(a.chunk, end - first)
        for task in prange(ceil_div(tiles, BLOCK), schedule='static', num_threads=a.threads):
            tile_values(a, first + task * BLOCK, min(<Py_ssize_t>BLOCK, tiles - task * BLOCK), task * BLOCK, values)
        for task in prange(VALUES * parts, schedule='static', num_threads=a.threads):
            add_products(a, shard, task // parts, 1, task % parts * ROWS,
                         min(<Py_ssize_t>ROWS, a.c - task % parts * ROWS), tiles, first > begin, values)
        first += tiles


cdef void take_back(const WeightGradient *a, char *grad, Py_ssize_t first, char *taken) noexcept nogil:
    """Add the shards for some channels, take them back to weights and add those: grad (K, C, 3, 3) += ..."""
    cdef Py_ssize_t last = min(a.c, first + a.rows), n = (last - first) * a.s_row, size = a.table.size, e, c
    for e in range(VALUES):
        add_tree(a.table, a.sums, a.shards, VALUES * a.s_plane, e * a.s_plane + first * a.s_row, n)
    a.table.winograd_filter_gradient(a.sums + first * a.s_row * size, a.s_plane, taken, n, n)
    for c in range(first, last):
        a.table.accumulate_turned(taken + (c - first) * a.s_row * size, n, 9, a.k, grad + c * 9 * size, a.c * 9)


def weight_gradient(const real[:, :, :, ::1] x, const real[:, :, :, ::1] grad_y, real[:, :, :, ::1] grad_weight,
                    Geometry g, scratch):
    """Add to grad_weight (K, C, 3, 3) the gradient for x (N, H, W, C) and grad_y (N, P, Q, K)."""
    if g.n == 0:
        return
    cdef Py_ssize_t rows = ceil_div(g.p, 4), cols = ceil_div(g.q, 4), task
    cdef WeightGradient a
    cdef Scratch s
    a.table = ops(sizeof(real) // 4 - 1)
    a.tiles, a.c, a.k = g.n * rows * cols, g.c, g.k
    a.threads = threads_for(4.0 * g.n * g.p * g.q * g.c * g.k)
    nothing_booked(&s)
    plan(&a, &s)
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    lay_tiles(&a.x, <void *>&x[0, 0, 0, 0], g.h, g.w, g.c, g.c, g.top, g.left, rows, cols)
    lay_tiles(&a.g, <void *>&grad_y[0, 0, 0, 0], g.p, g.q, g.k, g.k, 0, 0, rows, cols)
    a.x.zeros = a.g.zeros = get(&s, ZEROS)
    a.sums = get(&s, SUMS)
    cdef char *values = get(&s, VALUES_OF_TILES)
    cdef char *taken = get(&s, WINDOWS)
    cdef char *grad = <char *>&grad_weight[0, 0, 0, 0]
    with nogil:
        memset(get(&s, ZEROS), 0, 6 * max(a.c, a.k) * a.table.size)
        if a.shared:
            for task in range(a.shards):
                sum_shared(&a, task, values)
        else:
            for task in prange(a.shards, schedule='static', num_threads=a.threads):
                sum_shard(&a, task, values + threadid() * a.each)
        for task in prange(ceil_div(a.c, a.rows), schedule='static', num_threads=a.threads):
            take_back(&a, grad, task * a.rows, taken + threadid() * a.taken)
