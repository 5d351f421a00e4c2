"""Convolution and linear layers: im2col folded into the GEMM.

The column matrix is never stored. Pixels lie in NHWC memory, so what a filter row reads of one pixel is one run
of consecutive elements; register tiles walk such runs ("segments") for several pixels at once:

    input (N, H, W, C) --copy with zero border, a block of rows a task (skipped where nothing is padded)--> window
    weight (K, C, R, S) --pack: nr filters side by side--> panels
    window x panels --kernel `rows`--> output (N, P, Q, K)                        forward, bias and ReLU included
        (few filters: the window in planes, one a channel; kernel `planes`, vectors over pixels)
    grad_output x flipped panels --kernel `rows`, one call a phase of the stride--> grad_input
    window x grad_output --kernel `outer`--> shards of (R * S * C, K) --fixed tree--> grad_weight
        (where a filter row's weights fill vectors better: shards of (K, R * S * C), the operands swapped)

Order of sums, whatever the blocking: forward (r, s, c) ascending; grad_input ascending addresses of grad_output,
that is (r, s) descending, then k; grad_weight pixels (n, p, q) ascending within a shard, shards cut by shape alone
and added pairwise. Zero padding takes part in the sums as zeros, but for rows of the filter that lie wholly above or
below the image: those are left out.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memcpy, memset

from fastconv._ext.epilogue cimport Epilogue, epilogue_at
from fastconv._ext.runtime cimport (
    fc_depthwise, fc_depthwise_outer, fc_epilogue, fc_ops, fc_outer, fc_pack, fc_planes, fc_rows, fc_segment, ops,
    threads_for,
)

ctypedef fused real:
    float
    double

# A block of input rows should stay in L2 beside the weights it meets; so should several small images.
cdef Py_ssize_t WINDOW_BYTES = 192 * 1024
cdef Py_ssize_t IMAGES_BYTES = 384 * 1024
# Pixels that the kernel `outer` takes at a time: what it reads of one panel stays in L1.
cdef Py_ssize_t OUTER_PIXELS = 64
# Sums of weight gradients beyond this do not stay in L2: they are taken a part at a time, over all pixels.
cdef Py_ssize_t SUMS_BYTES = 192 * 1024


cdef class Geometry:
    """The sizes of one convolution: N C H W input, K filters, R S kernel, P Q output."""
    cdef readonly Py_ssize_t n, c, h, w, k, r, s, p, q, sh, sw, top, left, dh, dw, groups
    cdef readonly bint depthwise

    def __init__(self, Py_ssize_t n, Py_ssize_t c, Py_ssize_t h, Py_ssize_t w, Py_ssize_t k, Py_ssize_t r,
                 Py_ssize_t s, Py_ssize_t p, Py_ssize_t q, Py_ssize_t sh, Py_ssize_t sw, Py_ssize_t top,
                 Py_ssize_t left, Py_ssize_t dh, Py_ssize_t dw, Py_ssize_t groups):
        self.n, self.c, self.h, self.w, self.k, self.r, self.s = n, c, h, w, k, r, s
        self.p, self.q, self.sh, self.sw, self.top, self.left = p, q, sh, sw, top, left
        self.dh, self.dw, self.groups = dh, dw, groups
        self.depthwise = groups > 1 and groups == c and groups == k

    cdef double work(self) noexcept nogil:
        return <double>self.n * self.p * self.q * self.k * (self.c // self.groups) * self.r * self.s


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t aligned(Py_ssize_t nbytes) noexcept nogil:
    return (nbytes + 63) & ~<Py_ssize_t>63


# --- windows: a block of input rows, with its zero border -------------------------------------------------


cdef struct Image:
    # Images (n, h, w, c) and the grid of pixels that reads them: pixel (i, j) has its origin at
    # (i * sr - top, j * sc - left) and reaches `reach_r` rows and `reach_c` columns from there.
    const char *x
    Py_ssize_t h, w, c, size
    Py_ssize_t rows, cols, sr, sc, top, left, reach_r, reach_c


cdef bint in_bounds(const Image *m) noexcept nogil:
    """Return whether no pixel reads outside the image, so that no window has to be copied."""
    if m.reach_r == 0:   # a phase without taps reads nothing
        return True
    return (m.top <= 0 and m.left <= 0
            and (m.rows - 1) * m.sr - m.top + m.reach_r <= m.h
            and (m.cols - 1) * m.sc - m.left + m.reach_c <= m.w)


cdef Py_ssize_t window_width(const Image *m) noexcept nogil:
    return (m.cols - 1) * m.sc + m.reach_c


cdef Py_ssize_t window_bytes(const Image *m, Py_ssize_t rows) noexcept nogil:
    return aligned(((rows - 1) * m.sr + m.reach_r) * window_width(m) * m.c * m.size)


cdef Py_ssize_t plane_pitch(const Image *m, Py_ssize_t rows) noexcept nogil:
    """Return the elements between planes: an odd number of cache lines, so that planes do not share cache sets."""
    cdef Py_ssize_t lines = ((rows - 1) * m.sr + m.reach_r) * window_width(m) * m.size // 64 + 1
    return (lines | 1) * 64 // m.size


cdef Py_ssize_t planes_bytes(const Image *m, Py_ssize_t rows) noexcept nogil:
    return plane_pitch(m, rows) * m.c * m.size + 64   # whole vectors are read at the very end


cdef void copy_window(const fc_ops *table, const Image *m, Py_ssize_t n, Py_ssize_t i0, Py_ssize_t rows,
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


# --- correlation: forward, and one phase of the input gradient --------------------------------------------


cdef struct Correlation:
    const fc_ops *table
    Image image
    Py_ssize_t n, ntaps
    Py_ssize_t tap_rows        # rows of the filter: its taps are tap_rows times as many as stand in a row
    const Py_ssize_t *tap_r    # (ntaps) rows and columns from a pixel's origin, in the order of summation
    const Py_ssize_t *tap_c
    Py_ssize_t groups, cg, kg  # source and destination channels of a group
    bint depthwise
    const char *panels         # packed weights, panels of nr channels, `panel_pitch` elements a group
    Py_ssize_t nr, panel_pitch
    fc_epilogue e
    char *y                    # pixel (n, i, j) at y + n * y_image + i * y_row + j * y_col elements
    Py_ssize_t y_image, y_row, y_col
    int threads
    # filled by plan():
    bint direct, planes
    Py_ssize_t images, image_blocks, row_block, row_blocks, col_block, col_blocks, parts
    Py_ssize_t row_segments, pitch, window, x_image, x_plane
    fc_segment *segments
    Py_ssize_t *offsets


cdef Py_ssize_t plan(Correlation *a, char *scratch) noexcept nogil:
    """Choose blocks and lay out the segments in ``scratch``; return the bytes needed (all that NULL is for)."""
    cdef Image *m = &a.image
    cdef Py_ssize_t tasks, limit
    a.planes = planes_pay(a)
    a.direct = not a.planes and in_bounds(m)
    a.pitch = (m.w if a.direct else window_width(m)) * (1 if a.planes else m.c)
    cdef bint flat = (a.direct and a.ntaps == 1 and a.tap_r[0] == 0 and a.tap_c[0] == 0 and m.sr == 1 and m.sc == 1
                      and m.top == 0 and m.left == 0 and m.h == m.rows and m.w == m.cols
                      and a.y_row == a.y_col * m.cols and a.y_image == a.y_row * m.rows)
    if flat:  # all pixels of all images are one long row
        m.cols = a.n * m.rows * m.cols
        m.w = m.cols
        m.h = m.rows = a.n = 1
        a.pitch = m.cols * m.c
    a.row_block, a.col_block = max(m.rows, 1), max(m.cols, 1)
    if flat:
        a.col_block = min(a.col_block, max(8 * a.table.mr, WINDOW_BYTES // (m.c * m.size)))
        if m.cols > a.kg:   # threads share the pixels; else the weights, which are more to fetch (see parts)
            while a.threads > 1 and ceil_div(m.cols, a.col_block) < 2 * a.threads and a.col_block > 2 * a.table.mr:
                a.col_block = ceil_div(a.col_block, 2)
        a.col_block = ceil_div(ceil_div(m.cols, max(1, ceil_div(m.cols, a.col_block))), a.table.mr) * a.table.mr
    else:
        limit = WINDOW_BYTES // max(1, m.sr * window_width(m) * m.c * m.size)
        a.row_block = max(1, min(a.row_block, limit))
        while a.threads > 1 and a.n * ceil_div(m.rows, a.row_block) < 4 * a.threads and a.row_block > 1:
            a.row_block = ceil_div(a.row_block, 2)
        a.row_block = max(1, ceil_div(m.rows, max(1, ceil_div(m.rows, a.row_block))))
    a.row_blocks = ceil_div(m.rows, a.row_block)
    a.col_blocks = ceil_div(m.cols, a.col_block)
    a.window = 0
    if a.planes:
        a.window = planes_bytes(m, a.row_block)
    elif not a.direct:
        a.window = window_bytes(m, a.row_block)
    # whole images go together as long as they stay in L2: each panel of weights is met by more pixels
    a.images = 1
    if a.row_blocks == 1 and a.col_blocks == 1 and not a.depthwise:
        limit = IMAGES_BYTES // max(1, a.window if a.window else m.h * a.pitch * m.size)
        if a.groups * a.kg * a.ntaps * a.cg * m.size > 4 * IMAGES_BYTES:
            limit *= 2   # weights come from beyond L2, and cost more than the images would
        a.images = max(1, min(limit, ceil_div(a.n, a.threads)))
        a.images = ceil_div(a.n, ceil_div(a.n, a.images * a.threads) * a.threads)
    a.image_blocks = ceil_div(a.n, a.images)
    a.x_image = a.window // m.size if a.window else m.h * a.pitch
    a.x_plane = plane_pitch(m, a.row_block) if a.planes else 0
    tasks = a.image_blocks * a.row_blocks * a.col_blocks
    a.parts = 1
    if a.threads > 1 and tasks < 2 * a.threads and tasks > 0 and not a.depthwise:
        a.parts = min(a.groups * ceil_div(a.kg, a.nr), ceil_div(2 * a.threads, tasks))
    a.window *= a.images
    if scratch != NULL:
        lay_out_taps(a, scratch)
    return aligned(max(a.ntaps, 1) * sizeof(fc_segment)) + a.threads * a.window


cdef bint planes_pay(const Correlation *a) noexcept nogil:
    """Return whether vectors over pixels beat vectors over channels; of no influence on any bit.

    Cycles a pixel: the former spend half a cycle on each multiply-add of a vector and one on each element that changes
    places; the latter as much when they fill a tile, more when one vector of channels is all there is: each
    multiply-add then loads a factor of its own.
    """
    cdef Py_ssize_t lanes = a.table.lanes, vectors = ceil_div(a.kg, lanes)
    if a.depthwise or a.image.sc != 1 or a.ntaps < 2 or a.image.cols == 0 or a.groups * a.kg > 2 * lanes:
        return False
    cdef double depth = a.ntaps * a.cg
    cdef double lanes_used = <double>a.image.cols / (ceil_div(a.image.cols, lanes) * lanes)
    cdef double over_pixels = 0.55 * depth * a.kg / (lanes * lanes_used) + a.kg + a.cg
    return over_pixels < depth * vectors * (0.85 if vectors == 1 else 0.55)


cdef void lay_out_taps(Correlation *a, char *scratch) noexcept nogil:
    """Write where the taps lie: segments of memory, as many for each row of the filter, or one offset a tap."""
    cdef Py_ssize_t t, offset, n = 0, in_row = a.ntaps // max(a.tap_rows, 1)
    cdef Py_ssize_t pixel = 1 if a.planes else a.image.c
    a.segments = <fc_segment *>scratch
    a.offsets = <Py_ssize_t *>scratch
    for t in range(a.ntaps):
        offset = a.tap_r[t] * a.pitch + a.tap_c[t] * pixel
        if a.depthwise or a.planes:
            a.offsets[t] = offset
        elif t % in_row and a.segments[n - 1].offset + a.segments[n - 1].length == offset:
            a.segments[n - 1].length += a.cg
        else:
            a.segments[n].offset = offset
            a.segments[n].length = a.cg
            n += 1
    a.row_segments = n // max(a.tap_rows, 1)


cdef struct Place:
    # a block of the result: where it begins, in elements of y and of what is added to it, and its size
    Py_ssize_t y, add, images, rows, cols


cdef void correlate_block(const Correlation *a, Py_ssize_t task, char *window) noexcept nogil:
    """Run one task: a block of rows and columns of one image, for some of the output channels."""
    cdef const Image *m = &a.image
    cdef Py_ssize_t size = m.size
    cdef Py_ssize_t part = task % a.parts
    task //= a.parts
    cdef Py_ssize_t j0 = task % a.col_blocks * a.col_block
    task //= a.col_blocks
    cdef Py_ssize_t i0 = task % a.row_blocks * a.row_block
    cdef Py_ssize_t n = task // a.row_blocks * a.images, images = min(a.images, a.n - n), image
    cdef Py_ssize_t end = min(i0 + a.row_block, m.rows), cols = min(a.col_block, m.cols - j0)
    cdef const char *x = window
    if a.direct:
        x = m.x + (((n * m.h + i0 * m.sr - m.top) * m.w) + j0 * m.sc - m.left) * m.c * size
    else:
        for image in range(images):
            copy_window(a.table, m, n + image, i0, end - i0, a.x_plane, window + image * a.x_image * size)
    cdef Place at
    at.y = n * a.y_image + i0 * a.y_row + j0 * a.y_col
    at.add = n * a.e.add_image + i0 * a.e.add_row + j0 * a.e.add_col
    at.images, at.cols = images, cols
    # rows that meet the same rows of the filter go together: at the edges some of those lie outside
    cdef Py_ssize_t i = i0, rows, first, last, next_first, next_last
    filter_rows(a, i, &first, &last)
    while i < end:
        rows = 0
        next_first, next_last = first, last
        while next_first == first and next_last == last:
            rows += 1
            if i + rows == end:
                break
            filter_rows(a, i + rows, &next_first, &next_last)
        at.rows = rows
        correlate_rows(a, part, x, &at, first, last)
        x += rows * m.sr * a.pitch * size
        at.y += rows * a.y_row
        at.add += rows * a.e.add_row
        i += rows
        first, last = next_first, next_last


cdef inline void filter_rows(const Correlation *a, Py_ssize_t i, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil:
    """Find the rows of the filter that lie on the image where it stands on grid row i."""
    cdef Py_ssize_t in_row = a.ntaps // max(a.tap_rows, 1), row = i * a.image.sr - a.image.top
    first[0], last[0] = 0, a.tap_rows
    while first[0] < last[0] and row + a.tap_r[first[0] * in_row] < 0:
        first[0] += 1
    while first[0] < last[0] and row + a.tap_r[(last[0] - 1) * in_row] >= a.image.h:
        last[0] -= 1


cdef void correlate_rows(const Correlation *a, Py_ssize_t part, const char *x, const Place *at, Py_ssize_t first,
                         Py_ssize_t last) noexcept nogil:
    """Run some rows of some images with the rows first .. last-1 of the filter."""
    cdef const Image *m = &a.image
    cdef Py_ssize_t size = m.size, in_row = a.ntaps // max(a.tap_rows, 1)
    cdef Py_ssize_t t0 = first * in_row, ntaps = (last - first) * in_row
    cdef fc_depthwise d
    if a.depthwise:
        d.x, d.x_row, d.x_col = x, m.sr * a.pitch, m.sc * m.c
        d.taps, d.ntaps, d.w, d.w_row = a.offsets + t0, ntaps, a.panels + t0 * m.c * size, m.c
        d.y, d.y_row, d.y_col, d.e = a.y + at.y * size, a.y_row, a.y_col, epilogue_at(&a.e, at.y, at.add, 0, size)
        d.rows, d.cols, d.channels = at.rows, at.cols, m.c
        a.table.depthwise(&d)
        return
    cdef fc_rows b
    b.x_image, b.x_row, b.x_col = a.x_image, m.sr * a.pitch, m.sc * m.c
    b.segments, b.depth = a.segments + first * a.row_segments, ntaps * a.cg
    b.w_panel, b.nr = a.ntaps * a.cg * a.nr, a.nr
    b.y_image, b.y_row, b.y_col = a.y_image, a.y_row, a.y_col
    b.images, b.rows, b.cols = at.images, at.rows, at.cols
    cdef fc_planes p
    p.x_image, p.x_plane, p.x_row = a.x_image, a.x_plane, m.sr * a.pitch
    p.taps, p.ntaps, p.nc, p.w_row = a.offsets + t0, ntaps, a.cg, a.nr
    p.y_image, p.y_row, p.y_col = a.y_image, a.y_row, a.y_col
    p.images, p.rows, p.cols = at.images, at.rows, at.cols
    # this part's share of the panels of all groups, one call a group
    cdef Py_ssize_t panels = ceil_div(a.kg, a.nr)
    cdef Py_ssize_t begin = part * a.groups * panels // a.parts
    cdef Py_ssize_t end = (part + 1) * a.groups * panels // a.parts
    cdef Py_ssize_t group, k0, k1
    while begin < end:
        group = begin // panels
        k0 = (begin - group * panels) * a.nr
        k1 = min(a.kg, (end - group * panels) * a.nr)
        b.w = a.panels + (group * a.panel_pitch + k0 * a.ntaps * a.cg + t0 * a.cg * a.nr) * size
        b.e = epilogue_at(&a.e, at.y, at.add, group * a.kg + k0, size)
        b.y = a.y + (at.y + group * a.kg + k0) * size
        b.channels = k1 - k0
        if a.planes:
            p.x, p.w, p.y, p.channels, p.e = x + group * a.cg * a.x_plane * size, b.w, b.y, b.channels, b.e
            a.table.planes(&p)
        else:
            b.x = x + group * a.cg * size
            a.table.rows(&b)
        begin = (group + 1) * panels


cdef void correlate(Correlation *a, char *scratch) noexcept nogil:
    """Run all tasks of a planned correlation."""
    cdef Py_ssize_t tasks = a.image_blocks * a.row_blocks * a.col_blocks * a.parts
    cdef char *windows = scratch + aligned(max(a.ntaps, 1) * sizeof(fc_segment))
    cdef Py_ssize_t task
    if a.threads == 1:
        for task in range(tasks):
            correlate_block(a, task, windows)
    else:
        for task in prange(tasks, schedule='static', num_threads=a.threads):
            correlate_block(a, task, windows + threadid() * a.window)


cdef Py_ssize_t panel_lanes(const fc_ops *table, Py_ssize_t lanes) noexcept nogil:
    """Return the channels of a panel of packed weights: as few panels as tiles allow, of equal width."""
    cdef Py_ssize_t vectors = ceil_div(lanes, table.lanes)
    return ceil_div(vectors, max(1, ceil_div(vectors * table.lanes, table.nr))) * table.lanes


cdef Py_ssize_t panel_pitch(Py_ssize_t nr, Py_ssize_t lanes, Py_ssize_t depth) noexcept nogil:
    """Return the elements that the packed weights of one group take."""
    return ceil_div(lanes, nr) * nr * depth


cdef void pack_group(const fc_pack *whole, const fc_ops *table, Py_ssize_t groups, Py_ssize_t w_pitch,
                     int threads) noexcept nogil:
    """Pack the weights of all groups, ``w_pitch`` elements apart, panel by panel."""
    cdef Py_ssize_t panels = ceil_div(whole.lanes, whole.nr)
    cdef Py_ssize_t depth = whole.ntaps * whole.nc
    cdef Py_ssize_t task
    for task in prange(groups * panels, schedule='static', num_threads=threads):
        pack_panel(whole, table, task // panels * w_pitch, task % panels * whole.nr, task * whole.nr * depth)


cdef void pack_panel(const fc_pack *whole, const fc_ops *table, Py_ssize_t base, Py_ssize_t lane,
                     Py_ssize_t out) noexcept nogil:
    cdef fc_pack one = whole[0]
    one.w = <const char *>whole.w + (base + lane * whole.lane_pitch) * table.size
    one.lanes = min(whole.nr, whole.lanes - lane)
    one.panels = <char *>whole.panels + out * table.size
    table.pack(&one)


cdef void pack_depthwise(const char *w, const Py_ssize_t *taps, Py_ssize_t ntaps, Py_ssize_t channels,
                         Py_ssize_t pitch, Py_ssize_t size, char *out) noexcept nogil:
    """Turn (channels, taps) into (taps, channels), taps in the order given."""
    cdef Py_ssize_t t, c
    for t in range(ntaps):
        for c in range(channels):
            memcpy(out + (t * channels + c) * size, w + (c * pitch + taps[t]) * size, size)


def forward(const real[:, :, :, ::1] x, const real[:, :, :, ::1] weight, real[:, :, :, ::1] y, Geometry g,
            Epilogue epilogue, scratch):
    """Write y (N, P, Q, K): the epilogue of the correlation of x (N, H, W, C) with weight (K, C/groups, R, S).

    ``scratch`` is a function from a number of bytes to a uint8 array.
    """
    epilogue.check(sizeof(real), g.n * g.p * g.q, g.k)
    if g.n == 0:
        return
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t cg = g.c // g.groups, kg = g.k // g.groups, ntaps = g.r * g.s
    cdef Correlation a
    a.table = ops(sizeof(real) // 4 - 1)
    a.image.x = <const char *>&x[0, 0, 0, 0]
    a.image.h, a.image.w, a.image.c, a.image.size = g.h, g.w, g.c, size
    a.image.rows, a.image.cols, a.image.sr, a.image.sc = g.p, g.q, g.sh, g.sw
    a.image.top, a.image.left = g.top, g.left
    a.image.reach_r, a.image.reach_c = (g.r - 1) * g.dh + 1, (g.s - 1) * g.dw + 1
    a.n, a.ntaps, a.tap_rows = g.n, ntaps, g.r
    a.groups, a.cg, a.kg, a.depthwise = g.groups, cg, kg, g.depthwise
    a.e = epilogue.e
    a.e.add_image, a.e.add_row = g.p * g.q * a.e.add_col, g.q * a.e.add_col
    a.y = <char *>&y[0, 0, 0, 0]
    a.y_image, a.y_row, a.y_col = g.p * g.q * g.k, g.q * g.k, g.k
    a.threads = threads_for(g.work())
    a.nr = panel_lanes(a.table, kg)
    a.panel_pitch = ntaps * g.c if g.depthwise else panel_pitch(a.nr, kg, ntaps * cg)
    cdef Py_ssize_t tap_bytes = aligned(3 * ntaps * sizeof(Py_ssize_t))
    cdef Py_ssize_t pack_bytes = aligned((1 if g.depthwise else g.groups) * a.panel_pitch * size)
    cdef Py_ssize_t t
    cdef Py_ssize_t zero = 0
    a.tap_r = a.tap_c = &zero   # a 1x1 filter's taps; otherwise any value serves to count bytes
    cdef Py_ssize_t block_bytes = plan_bytes(&a)
    cdef unsigned char[::1] arena = scratch(tap_bytes + pack_bytes + block_bytes)
    cdef char *base = <char *>&arena[0]
    cdef Py_ssize_t *taps = <Py_ssize_t *>base
    cdef fc_pack pack
    with nogil:
        for t in range(ntaps):
            taps[t] = t
            taps[ntaps + t] = t // g.s * g.dh
            taps[2 * ntaps + t] = t % g.s * g.dw
        a.tap_r, a.tap_c = taps + ntaps, taps + 2 * ntaps
        a.panels = base + tap_bytes
        if g.depthwise:
            pack_depthwise(<const char *>&weight[0, 0, 0, 0], taps, ntaps, g.c, ntaps, size, base + tap_bytes)
        else:
            pack.w, pack.lane_pitch, pack.c_pitch = &weight[0, 0, 0, 0], cg * ntaps, ntaps
            pack.taps, pack.ntaps, pack.nc, pack.lanes, pack.nr = taps, ntaps, cg, kg, a.nr
            pack.panels = base + tap_bytes
            pack_group(&pack, a.table, g.groups, kg * cg * ntaps, threads_for(8.0 * g.k * cg * ntaps))
        plan(&a, base + tap_bytes + pack_bytes)
        correlate(&a, base + tap_bytes + pack_bytes)


cdef Py_ssize_t plan_bytes(const Correlation *a) noexcept nogil:
    """Return the scratch bytes of a correlation without planning it for good."""
    cdef Correlation trial = a[0]
    return plan(&trial, NULL)


cdef struct Phase:
    # Along one axis: the positions first, first + stride, ... of the input, and the kernel positions that reach them
    # from output positions: `count` of them, the first `shift` ahead, `reach` from the first to the last.
    Py_ssize_t first, positions, count, shift, reach


cdef Phase phase_taps(Py_ssize_t first, Py_ssize_t length, Py_ssize_t pad, Py_ssize_t stride, Py_ssize_t dilation,
                      Py_ssize_t kernel, Py_ssize_t *taps, Py_ssize_t *shifts) noexcept nogil:
    """Describe a phase; list the kernel positions and their distances from the first, unless ``taps`` is NULL.

    Input position u = first + pad meets output position (u - r * dilation) / stride. Positions come in ascending
    order of that shift, r descending.
    """
    cdef Phase phase
    cdef Py_ssize_t r, shift = 0, u = first + pad
    phase.first, phase.positions = first, ceil_div(length - first, stride)
    phase.count = phase.shift = phase.reach = 0
    for r in range(kernel - 1, -1, -1):
        if (u - r * dilation) % stride == 0:
            shift = (u - r * dilation) // stride
            if phase.count == 0:
                phase.shift = shift
            if taps != NULL:
                taps[phase.count] = r
                shifts[phase.count] = shift - phase.shift
            phase.reach = shift - phase.shift + 1
            phase.count += 1
    return phase


cdef void take_phase(Correlation *a, Geometry g, Phase rows, Phase cols, char *grad_x,
                     const fc_epilogue *whole) noexcept nogil:
    """Make ``a`` the correlation that writes one phase of grad_x."""
    cdef bint empty = rows.count == 0 or cols.count == 0
    a.image.h, a.image.w = g.p, g.q
    a.image.rows, a.image.cols, a.image.sr, a.image.sc = rows.positions, cols.positions, 1, 1
    a.image.top, a.image.left = 0 if empty else -rows.shift, 0 if empty else -cols.shift
    a.image.reach_r, a.image.reach_c = 0 if empty else rows.reach, 0 if empty else cols.reach
    a.n, a.ntaps, a.tap_rows = g.n, rows.count * cols.count, 0 if empty else rows.count
    a.y = grad_x + (rows.first * g.w + cols.first) * g.c * a.image.size
    a.y_image, a.y_row, a.y_col = g.h * g.w * g.c, g.sh * g.w * g.c, g.sw * g.c
    a.e = epilogue_at(whole, (rows.first * g.w + cols.first) * g.c, (rows.first * g.w + cols.first) * whole.add_col, 0,
                      a.image.size)
    a.e.add_image, a.e.add_row = g.h * g.w * whole.add_col, g.sh * g.w * whole.add_col
    a.e.add_col = g.sw * whole.add_col


def input_gradient(const real[:, :, :, ::1] grad_y, const real[:, :, :, ::1] weight, real[:, :, :, ::1] grad_x,
                   Geometry g, Epilogue epilogue, scratch):
    """Write grad_x (N, H, W, C): the epilogue of the correlation of grad_y (N, P, Q, K) with the flipped filters.

    It is done by phases of the stride. An epilogue that adds another gradient is what a value read twice needs.
    """
    epilogue.check(sizeof(real), g.n * g.h * g.w, g.c)
    if g.n == 0:
        return
    cdef Py_ssize_t size = sizeof(real)
    cdef Py_ssize_t cg = g.c // g.groups, kg = g.k // g.groups, ntaps = g.r * g.s
    cdef Py_ssize_t h0, w0, i, j, t, zero = 0, block_bytes = 0
    cdef Phase rows, cols
    cdef char *out = <char *>&grad_x[0, 0, 0, 0]
    cdef Correlation a
    a.table = ops(sizeof(real) // 4 - 1)
    a.image.x = <const char *>&grad_y[0, 0, 0, 0]
    a.image.c, a.image.size = g.k, size
    a.groups, a.cg, a.kg, a.depthwise = g.groups, kg, cg, g.depthwise
    a.nr = panel_lanes(a.table, cg)
    a.threads = threads_for(g.work() / (g.sh * g.sw))
    a.tap_r = a.tap_c = &zero   # as for a 1x1 filter: any value serves to count bytes
    for h0 in range(min(g.sh, g.h)):
        rows = phase_taps(h0, g.h, g.top, g.sh, g.dh, g.r, NULL, NULL)
        for w0 in range(min(g.sw, g.w)):
            take_phase(&a, g, rows, phase_taps(w0, g.w, g.left, g.sw, g.dw, g.s, NULL, NULL), out, &epilogue.e)
            block_bytes = max(block_bytes, plan_bytes(&a))
    # tables: tap number, row and column shifts of a phase; kernel rows, their shifts; columns; shifts
    cdef Py_ssize_t tap_bytes = aligned((3 * ntaps + 2 * g.r + 2 * g.s) * sizeof(Py_ssize_t))
    cdef Py_ssize_t pack_bytes = aligned(
        (ntaps * g.c if g.depthwise else g.groups * panel_pitch(a.nr, cg, ntaps * kg)) * size)
    cdef unsigned char[::1] arena = scratch(tap_bytes + pack_bytes + block_bytes)
    cdef char *base = <char *>&arena[0]
    cdef Py_ssize_t *taps = <Py_ssize_t *>base
    cdef Py_ssize_t *tap_r = taps + ntaps
    cdef Py_ssize_t *tap_c = tap_r + ntaps
    cdef Py_ssize_t *kernel_r = tap_c + ntaps
    cdef Py_ssize_t *shift_r = kernel_r + g.r
    cdef Py_ssize_t *kernel_c = shift_r + g.r
    cdef Py_ssize_t *shift_c = kernel_c + g.s
    cdef fc_pack pack
    a.tap_r, a.tap_c = tap_r, tap_c
    a.panels = base + tap_bytes
    with nogil:
        for h0 in range(min(g.sh, g.h)):
            rows = phase_taps(h0, g.h, g.top, g.sh, g.dh, g.r, kernel_r, shift_r)
            for w0 in range(min(g.sw, g.w)):
                cols = phase_taps(w0, g.w, g.left, g.sw, g.dw, g.s, kernel_c, shift_c)
                t = 0
                for i in range(rows.count):
                    for j in range(cols.count):
                        taps[t], tap_r[t], tap_c[t] = kernel_r[i] * g.s + kernel_c[j], shift_r[i], shift_c[j]
                        t += 1
                take_phase(&a, g, rows, cols, out, &epilogue.e)
                if g.depthwise:
                    pack_depthwise(<const char *>&weight[0, 0, 0, 0], taps, t, g.c, ntaps, size, base + tap_bytes)
                else:
                    a.panel_pitch = panel_pitch(a.nr, cg, t * kg)
                    pack.w, pack.lane_pitch, pack.c_pitch = &weight[0, 0, 0, 0], ntaps, cg * ntaps
                    pack.taps, pack.ntaps, pack.nc, pack.lanes, pack.nr = taps, t, kg, cg, a.nr
                    pack.panels = base + tap_bytes
                    pack_group(&pack, a.table, g.groups, kg * cg * ntaps, threads_for(8.0 * g.c * kg * t))
                plan(&a, base + tap_bytes + pack_bytes)
                correlate(&a, base + tap_bytes + pack_bytes)


# --- weight gradient --------------------------------------------------------------------------------------


cdef struct WeightGradient:
    const fc_ops *table
    Image image
    const char *g              # grad_output (n, rows, cols, k)
    Py_ssize_t k, groups, cg, kg
    bint depthwise, direct
    bint swapped               # vectors run over a filter row's weights, not over the filters; of no influence on bits
    Py_ssize_t pitch, total    # elements of a row of the window; grid rows of all images
    const Py_ssize_t *taps     # (m) offsets of a group's weights, in the order (r, s, c)
    const Py_ssize_t *filters  # (kg) 0, 1, 2, ...: offsets of a group's filters in grad_output, where swapped
    Py_ssize_t m, run          # weights of a group; how many of them have neighbouring offsets
    Py_ssize_t row_weights, dilation   # weights of one row of the filter, and how far the next is
    Py_ssize_t shards, parts, chunk, row_block, call_rows
    const char *bordered       # all images with their borders, or NULL: windows are copied block by block
    char *dw                   # shards of (groups, m, kg); swapped (groups, kg, m); depthwise (m, k)
    Py_ssize_t window


cdef Py_ssize_t count_shards(Py_ssize_t pixels, Py_ssize_t rows, Py_ssize_t weights) noexcept nogil:
    """Return into how many shards the sum over pixels is cut: by shape alone, since it decides the bits.

    Enough to occupy cores, each with 256 pixels or more, together at most 1 Mi elements.
    """
    return max(1, min(min(16, rows), min(pixels // 256, (1 << 20) // weights)))


cdef void outer_block(const WeightGradient *a, Py_ssize_t task, char *window) noexcept nogil:
    """Run one task: the pixels of one shard, some of the weights."""
    cdef Py_ssize_t part = task % a.parts, shard = task // a.parts
    cdef Py_ssize_t row = shard * a.total // a.shards, end = (shard + 1) * a.total // a.shards
    cdef Py_ssize_t m0 = part * a.m // a.parts, m1 = (part + 1) * a.m // a.parts
    cdef char *dw = a.dw + shard * a.groups * a.m * a.kg * a.image.size
    clear_sums(dw, a, m0, m1)
    while m0 < m1:
        outer_rows(a, row, end, m0, min(m0 + a.chunk, m1), dw, window)
        m0 += a.chunk


cdef void outer_rows(const WeightGradient *a, Py_ssize_t row, Py_ssize_t end, Py_ssize_t m0, Py_ssize_t m1,
                     char *dw, char *window) noexcept nogil:
    """Add the grid rows row .. end-1 of all images to the weights m0 .. m1-1 of each group."""
    cdef const Image *im = &a.image
    cdef Py_ssize_t size = im.size
    cdef Py_ssize_t n, i, rows, done, step
    cdef const char *x
    cdef const char *g
    while row < end:
        n, i = row // im.rows, row % im.rows
        rows = min(min(a.row_block, im.rows - i), end - row)
        if a.direct:
            x = im.x + ((n * im.h + i * im.sr - im.top) * im.w - im.left) * im.c * size
        elif a.bordered != NULL:
            x = a.bordered + n * a.window + i * im.sr * a.pitch * size
        else:
            copy_window(a.table, im, n, i, rows, 0, window)
            x = window
        g = a.g + row * im.cols * a.k * size
        done = 0
        while done < rows:
            step = min(a.call_rows, rows - done)
            outer_step(a, x, g, i, i + done, i + done + step, m0, m1, dw)
            done += step
        row += rows


cdef void outer_step(const WeightGradient *a, const char *x, const char *g, Py_ssize_t origin, Py_ssize_t first,
                     Py_ssize_t last, Py_ssize_t m0, Py_ssize_t m1, char *dw) noexcept nogil:
    """Add the grid rows first .. last-1 of one image, whose row ``origin`` is at x and g, to the weights m0 .. m1-1.

    Where a row of the filter lies off the image, its weights are left out: near the edges each row of the filter
    takes the grid rows that it meets, elsewhere all take them together.
    """
    cdef const Image *im = &a.image
    cdef Py_ssize_t size = im.size, top = first * im.sr - im.top, bottom = (last - 1) * im.sr - im.top
    cdef Py_ssize_t r = m0 // a.row_weights, end = ceil_div(m1, a.row_weights), begin, stop
    cdef bint inside = top + r * a.dilation >= 0 and bottom + (end - 1) * a.dilation < im.h
    while r < end:
        begin, stop = first, last
        while begin < stop and begin * im.sr - im.top + r * a.dilation < 0:
            begin += 1
        while begin < stop and (stop - 1) * im.sr - im.top + r * a.dilation >= im.h:
            stop -= 1
        if begin < stop:
            outer_call(a, x + (begin - origin) * im.sr * a.pitch * size, g + (begin - origin) * im.cols * a.k * size,
                       stop - begin, max(m0, r * a.row_weights),
                       m1 if inside else min(m1, (r + 1) * a.row_weights), dw)
        if inside:
            break
        r += 1


cdef void outer_call(const WeightGradient *a, const char *x, const char *g, Py_ssize_t rows, Py_ssize_t m0,
                     Py_ssize_t m1, char *dw) noexcept nogil:
    """Add some rows of one image to the weights m0 .. m1-1 of each group."""
    cdef const Image *im = &a.image
    cdef Py_ssize_t size = im.size, group
    cdef fc_outer b
    cdef fc_depthwise_outer d
    if a.depthwise:
        d.x, d.x_row, d.x_col, d.taps, d.ntaps = x, im.sr * a.pitch, im.sc * im.c, a.taps + m0, m1 - m0
        d.g, d.g_row, d.g_col = g, im.cols * a.k, a.k
        d.rows, d.cols, d.channels = rows, im.cols, a.k
        d.dw, d.dw_row = dw + m0 * a.k * size, a.k
        a.table.depthwise_outer(&d)
        return
    cdef Py_ssize_t t, end
    for group in range(a.groups):
        if a.swapped:
            b.x = g + group * a.kg * size
            b.taps, b.m, b.dw_row = a.filters, a.kg, a.m
            t = m0
            while t < m1:
                end = min(m1, (t // a.run + 1) * a.run)
                b.g = x + (group * a.cg + a.taps[t]) * size
                b.channels = end - t
                b.dw = dw + (group * a.kg * a.m + t) * size
                lay_pixels(&b, rows, im.cols, im.cols * a.k, a.k, im.sr * a.pitch, im.sc * im.c)
                a.table.outer(&b)
                t = end
        else:
            b.x, b.g = x + group * a.cg * size, g + group * a.kg * size
            b.taps, b.m, b.channels = a.taps + m0, m1 - m0, a.kg
            b.dw, b.dw_row = dw + (group * a.m + m0) * a.kg * size, a.kg
            lay_pixels(&b, rows, im.cols, im.sr * a.pitch, im.sc * im.c, im.cols * a.k, a.k)
            a.table.outer(&b)


cdef inline void lay_pixels(fc_outer *b, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t x_row, Py_ssize_t x_col,
                            Py_ssize_t g_row, Py_ssize_t g_col) noexcept nogil:
    """Say where the pixels lie; a single column becomes a row, since the kernel's inner loop runs along rows."""
    if cols == 1:
        b.rows, b.cols, b.x_row, b.x_col, b.g_row, b.g_col = 1, rows, 0, x_row, 0, g_row
    else:
        b.rows, b.cols, b.x_row, b.x_col, b.g_row, b.g_col = rows, cols, x_row, x_col, g_row, g_col


cdef void clear_sums(char *dw, const WeightGradient *a, Py_ssize_t m0, Py_ssize_t m1) noexcept nogil:
    """Set the sums of the weights m0 .. m1-1 to zero."""
    cdef Py_ssize_t block, size = a.image.size
    cdef Py_ssize_t width = a.k if a.depthwise else a.kg
    if a.swapped:
        for block in range(a.groups * a.kg):
            memset(dw + (block * a.m + m0) * size, 0, (m1 - m0) * size)
    else:
        for block in range(1 if a.depthwise else a.groups):
            memset(dw + (block * a.m + m0) * width * size, 0, (m1 - m0) * width * size)


cdef void add_tree(const fc_ops *table, char *shards, Py_ssize_t count, Py_ssize_t pitch, Py_ssize_t begin,
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


cdef void finish(const fc_ops *table, const WeightGradient *a, real *grad, Py_ssize_t task,
                 Py_ssize_t block) noexcept nogil:
    """Add the shards for a block of one group and scatter them: grad (K, C/groups, R*S) += dw."""
    cdef Py_ssize_t length = a.kg if a.swapped else a.cg, blocks = ceil_div(length, block)
    cdef Py_ssize_t group = task // blocks, first = task % blocks * block, last = min(length, first + block)
    cdef Py_ssize_t taps = a.m // a.cg, pitch = a.groups * a.m * a.kg
    cdef Py_ssize_t c, t, k, k0
    cdef const real *dw
    cdef real *out
    if a.swapped:
        add_tree(table, a.dw, a.shards, pitch, (group * a.kg + first) * a.m, (last - first) * a.m)
        if taps == 1:
            table.accumulate(a.dw + (group * a.kg + first) * a.m * sizeof(real),
                             grad + (group * a.kg + first) * a.m, (last - first) * a.m)
            return
        for k in range(group * a.kg + first, group * a.kg + last):
            dw, out = <const real *>a.dw + k * a.m, grad + k * a.m
            for t in range(taps):
                for c in range(a.cg):
                    out[c * taps + t] += dw[t * a.cg + c]
        return
    for t in range(taps):
        add_tree(table, a.dw, a.shards, pitch, (group * a.m + t * a.cg + first) * a.kg, (last - first) * a.kg)
    # sixteen filters at a time: whole cache lines are read, and each filter is written from end to end
    for k0 in range(0, a.kg, 16):
        for c in range(first, last):
            for t in range(taps):
                dw = <const real *>a.dw + (group * a.m + t * a.cg + c) * a.kg
                out = grad + group * a.kg * a.m + c * taps + t
                for k in range(k0, min(k0 + 16, a.kg)):
                    out[k * a.m] += dw[k]


cdef double tile_cost(const fc_ops *table, Py_ssize_t lanes, Py_ssize_t rows) noexcept nogil:
    """Return about how many cycles a pixel takes with vectors over ``lanes`` sums and a broadcast for each row.

    Narrow tiles load more for each multiply-add.
    """
    cdef Py_ssize_t vectors = ceil_div(lanes, table.lanes), width = panel_lanes(table, lanes) // table.lanes
    return vectors * rows * (0.9 if width == 1 else 0.6 if width == 2 else 0.53)


def weight_gradient(const real[:, :, :, ::1] x, const real[:, :, :, ::1] grad_y, real[:, :, :, ::1] grad_weight,
                    Geometry g, scratch):
    """Add to grad_weight (K, C/groups, R, S) the gradient for x (N, H, W, C) and grad_y (N, P, Q, K)."""
    if g.n == 0:
        return
    cdef Py_ssize_t size = sizeof(real), images = g.n
    cdef WeightGradient a
    cdef Image *im = &a.image
    a.table = ops(sizeof(real) // 4 - 1)
    im.x = <const char *>&x[0, 0, 0, 0]
    im.h, im.w, im.c, im.size = g.h, g.w, g.c, size
    im.rows, im.cols, im.sr, im.sc, im.top, im.left = g.p, g.q, g.sh, g.sw, g.top, g.left
    im.reach_r, im.reach_c = (g.r - 1) * g.dh + 1, (g.s - 1) * g.dw + 1
    a.direct = in_bounds(im)
    if a.direct and g.r == 1 and g.s == 1 and g.sh == 1 and g.sw == 1 and g.h == g.p and g.w == g.q:
        im.rows = im.h = g.n * g.h * g.w   # each pixel is a row of its own: shards and blocks of any size
        im.cols = im.w = images = 1
    a.total = images * im.rows
    a.pitch = (im.w if a.direct else window_width(im)) * im.c
    a.g = <const char *>&grad_y[0, 0, 0, 0]
    a.k, a.depthwise = g.k, g.depthwise
    a.groups, a.cg, a.kg = g.groups, g.c // g.groups, g.k // g.groups
    if a.depthwise:  # the channels are the lanes, the taps the weights
        a.groups, a.cg, a.kg = 1, 1, g.k
    a.row_weights, a.dilation = g.s * a.cg, g.dh
    a.m = g.r * a.row_weights
    a.run = a.row_weights if g.dw == 1 and a.groups == 1 else a.cg
    # sums with vectors over the channels of one tap lie as grad_weight does: preferred where the cost is the same
    a.swapped = (not a.depthwise and tile_cost(a.table, a.run, a.kg) * (a.m // a.run)
                 < tile_cost(a.table, a.kg, a.m) * (1.05 if g.r == 1 and g.s == 1 else 1))
    cdef Py_ssize_t weights = a.groups * a.m * a.kg
    a.shards = count_shards(g.n * g.p * g.q, a.total, weights)
    cdef int threads = threads_for(g.work())
    a.parts = 1
    if threads > 1 and a.shards < 2 * threads:
        a.parts = max(1, min(ceil_div(2 * threads, a.shards), a.m // a.table.mr))
    a.row_block = im.rows
    if not a.direct:
        a.row_block = max(1, min(im.rows, WINDOW_BYTES // (im.sr * window_width(im) * im.c * size)))
    a.call_rows = max(1, OUTER_PIXELS * a.table.nr // (im.cols * min(a.table.nr, a.run if a.swapped else a.kg)))
    a.chunk = max(a.table.mr, SUMS_BYTES // (a.groups * a.kg * size) // a.table.mr * a.table.mr)
    cdef bint bordered = not a.direct and a.chunk < a.m
    if bordered:
        a.row_block = im.rows
    if a.chunk < a.m:   # tiles are set down once in many pixels
        a.call_rows = max(a.call_rows, min(im.rows, ceil_div(64, im.cols)))
    a.window = 0 if a.direct else window_bytes(im, a.row_block)
    cdef Py_ssize_t tap_bytes = aligned((a.m + a.kg) * sizeof(Py_ssize_t))
    cdef Py_ssize_t dw_bytes = aligned(a.shards * weights * size)
    cdef unsigned char[::1] arena = scratch(tap_bytes + dw_bytes + (images if bordered else threads) * a.window)
    cdef char *base = <char *>&arena[0]
    cdef Py_ssize_t *taps = <Py_ssize_t *>base
    a.taps, a.filters = taps, taps + a.m
    a.dw = base + tap_bytes
    cdef char *windows = base + tap_bytes + dw_bytes
    a.bordered = windows if bordered else NULL
    cdef Py_ssize_t m, n, task
    cdef Py_ssize_t tasks = a.shards * a.parts
    cdef Py_ssize_t block = max(1, 8192 // (a.kg * g.r * g.s))
    if a.swapped:
        block = max(1, 8192 // a.m)
    cdef Py_ssize_t finish_tasks = a.groups * ceil_div(a.kg if a.swapped else a.cg, block)
    cdef real *grad = &grad_weight[0, 0, 0, 0]
    with nogil:
        for m in range(a.m):
            taps[m] = m // a.cg // g.s * g.dh * a.pitch + m // a.cg % g.s * g.dw * im.c + m % a.cg
        for m in range(a.kg):
            taps[a.m + m] = m
        if bordered:
            for n in prange(images, schedule='static', num_threads=threads):
                copy_window(a.table, im, n, 0, im.rows, 0, windows + n * a.window)
        for task in prange(tasks, schedule='static', num_threads=threads):
            outer_block(&a, task, windows + threadid() * a.window)
        for task in prange(finish_tasks, schedule='static', num_threads=threads):
            finish(a.table, &a, grad, task, block)


def bias_gradient(const real[:, ::1] grad_y, real[::1] grad_bias, scratch):
    """Add to grad_bias (K) the sums of grad_y (pixels, K), in shards cut by the number of pixels alone."""
    cdef Py_ssize_t pixels = grad_y.shape[0], k = grad_y.shape[1], shard
    if pixels == 0:
        return
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t shards = max(1, min(16, pixels // 256))
    cdef Py_ssize_t nbytes = shards * k * sizeof(real)
    cdef unsigned char[::1] arena = scratch(nbytes)
    cdef char *sums = <char *>&arena[0]
    cdef const char *g = <const char *>&grad_y[0, 0]
    cdef Py_ssize_t size = sizeof(real)
    cdef int threads = threads_for(<double>pixels * k)
    with nogil:
        memset(sums, 0, nbytes)
        for shard in prange(shards, schedule='static', num_threads=threads):
            table.column_sum(g + shard * pixels // shards * k * size,
                             (shard + 1) * pixels // shards - shard * pixels // shards, k, sums + shard * k * size)
        add_tree(table, sums, shards, k, 0, k)
        table.accumulate(sums, &grad_bias[0], k)
