"""The gradient of the weights, and of the bias: sums over pixels in shards, added in a fixed tree.

Where shards are whole images, as many in each, vectors may have a shard in each lane: layers of few channels fill them.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memset

from fastconv._ext.bias cimport add_columns, bias_shards
from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport panel_lanes
from fastconv._ext.conv.scratch cimport BIAS_SUMS, SUMS, TAPS, WINDOWS, Scratch, book, booked, get, nothing_booked
from fastconv._ext.conv.windows cimport (
    IMAGES_BYTES, WINDOW_BYTES, Image, copy_lanes, copy_window, in_bounds, lanes_bytes, strip_distance, window_bytes,
    window_rows, window_width,
)
from fastconv._ext.runtime cimport fc_abreast_outer, fc_depthwise_outer, fc_ops, fc_outer, ops, threads_for
from fastconv._ext.shards cimport add_tree

ctypedef fused real:
    float
    double

# Pixels that the kernel `outer` takes at a time: what it reads of one panel stays in L1.
cdef Py_ssize_t OUTER_PIXELS = 64
# Pixels that lie so far apart are packed by it, which pays more for twice as many.
cdef Py_ssize_t PACKED_BYTES = 512
# What the kernel `abreast_outer` reads at a time of pixels and of three filters stays in L1, too; or else all its sums.
cdef Py_ssize_t ABREAST_BYTES = 40 * 1024
# Sums of weight gradients beyond this do not stay in L2: they are taken a part at a time, over all pixels.
cdef Py_ssize_t SUMS_BYTES = 192 * 1024


cdef struct WeightGradient:
    const fc_ops *table
    Image image
    const char *g              # grad_output (n, rows, cols, k)
    Py_ssize_t k, groups, cg, kg
    bint depthwise, direct
    bint abreast               # vectors run over the shards; of no influence on bits, either
    Py_ssize_t number          # bytes from a number of a pixel to the next, where the kernels read them
    bint swapped               # vectors run over a filter row's weights, not over the filters; of no influence on bits
    Py_ssize_t pitch, total    # elements of a row of the window; grid rows of all images
    const Py_ssize_t *taps     # (m) offsets of a group's weights, in the order (r, s, c)
    const Py_ssize_t *filters  # (kg) 0, 1, 2, ...: offsets of a group's filters in grad_output, where swapped
    Py_ssize_t m, run          # weights of a group; how many of them have neighbouring offsets
    Py_ssize_t row_weights     # weights of one row of the filter
    Py_ssize_t shards, parts, chunk, row_block, call_rows
    bint bordered              # the windows are all images with their borders; else they are copied block by block
    const char *windows
    char *dw                   # shards of (groups, m, kg); swapped (groups, kg, m); depthwise (m, k)
    bint straight              # one shard, which lies as grad_weight does: finished sums are added there at once
    bint by_filters            # parts are filters, whose weights lie in one stretch, as the optimiser shares them out
    char *grad                 # grad_weight
    char *bias_sums            # (shards, k): abreast, the sums of the bias's gradient, made on the way; or NULL
    Py_ssize_t window, images
    int threads


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
    cdef WeightGradient own
    cdef Py_ssize_t first = part * a.kg // a.parts
    if a.by_filters:
        own = a[0]
        own.kg = (part + 1) * a.kg // a.parts - first
        own.g, own.grad = a.g + first * a.image.size, a.grad + first * a.m * a.image.size
        dw += first * a.m * a.image.size
        outer_chunks(&own, row, end, 0, a.m, dw, window)
        return
    if not a.straight:
        clear_sums(dw, a, m0, m1)
    outer_chunks(a, row, end, m0, m1, dw, window)


cdef void outer_chunks(const WeightGradient *a, Py_ssize_t row, Py_ssize_t end, Py_ssize_t m0, Py_ssize_t m1,
                       char *dw, char *window) noexcept nogil:
    """Add the grid rows row .. end-1 of all images to the weights m0 .. m1-1, as many at a time as stay in cache."""
    while m0 < m1:
        outer_rows(a, row, end, m0, min(m0 + a.chunk, m1), dw, window)
        m0 += a.chunk


cdef void abreast_block(const WeightGradient *a, Py_ssize_t task, char *window) noexcept nogil:
    """Run one task: as many shards as a vector has lanes, some of the weights."""
    cdef const Image *im = &a.image
    cdef Py_ssize_t part = task % a.parts, lanes = a.table.lanes, first = task // a.parts * lanes
    cdef Py_ssize_t m0 = part * a.m // a.parts, m1 = (part + 1) * a.m // a.parts
    cdef Py_ssize_t apart = a.images // a.shards, row_numbers = im.cols * a.k
    cdef Py_ssize_t t, n, i, rows, done, step
    cdef char *g = window + lanes_bytes(a.table, im, a.row_block)
    cdef char *dw = g + a.row_block * row_numbers * a.number
    cdef char *bias = NULL if part or a.bias_sums == NULL else dw + a.m * a.kg * a.number
    cdef Py_ssize_t pixels[2]
    memset(dw + m0 * a.kg * a.number, 0, (m1 - m0) * a.kg * a.number)
    if bias != NULL:
        memset(bias, 0, a.k * a.number)
    for t in range(apart):
        n = first * apart + t
        i = 0
        while i < im.rows:
            rows = min(a.row_block, im.rows - i)
            copy_lanes(a.table, im, n, apart, lanes, i, rows, window)
            a.table.to_lanes(a.g + (n * im.rows + i) * row_numbers * im.size, apart * im.rows * row_numbers, lanes,
                             rows * row_numbers, g)
            if bias != NULL:
                pixels[0], pixels[1] = 0, rows * im.cols
                a.table.column_sums(g, pixels, 1, a.k * lanes, bias)
            done = 0
            while done < rows:
                step = min(a.call_rows, rows - done)
                outer_step(a, window, g, i, i + done, i + done + step, m0, m1, dw)
                done += step
            i += rows
    a.table.from_lanes(dw + m0 * a.kg * a.number, (m1 - m0) * a.kg, a.dw + (first * a.m + m0) * a.kg * im.size,
                       a.m * a.kg, lanes)
    if bias != NULL:
        a.table.from_lanes(bias, a.k, a.bias_sums + first * a.k * im.size, a.k, lanes)


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
        elif a.bordered:
            x = a.windows + n * a.window + i * im.sr * a.pitch * size
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
    cdef Py_ssize_t size = a.number, top = first * im.sr - im.top, bottom = (last - 1) * im.sr - im.top
    cdef Py_ssize_t r = m0 // a.row_weights, end = ceil_div(m1, a.row_weights), begin, stop, above
    cdef bint inside = top + r * im.step_r >= 0 and bottom + (end - 1) * im.step_r < im.h
    if not inside:   # rows of the filter that meet the image somewhere
        r = max(r, ceil_div(max(0, -bottom), im.step_r))
        end = min(end, ceil_div(max(0, im.h - top), im.step_r))
    while r < end:
        above = im.top - r * im.step_r
        begin = max(first, ceil_div(max(0, above), im.sr))
        stop = min(last, ceil_div(max(0, im.h + above), im.sr))
        if begin < stop:
            outer_call(a, x + (begin - origin) * im.sr * a.pitch * size, g + (begin - origin) * im.cols * a.k * size,
                       begin, stop, max(m0, r * a.row_weights),
                       m1 if inside else min(m1, (r + 1) * a.row_weights), dw)
        if inside:
            break
        r += 1


cdef void outer_call(const WeightGradient *a, const char *x, const char *g, Py_ssize_t first, Py_ssize_t last,
                     Py_ssize_t m0, Py_ssize_t m1, char *dw) noexcept nogil:
    """Add the grid rows first .. last-1 of one image, which are at x and g, to the weights m0 .. m1-1 of each group."""
    cdef const Image *im = &a.image
    cdef Py_ssize_t size = im.size, rows = last - first, group, place
    cdef fc_outer b
    cdef fc_depthwise_outer d
    cdef fc_abreast_outer v
    if a.abreast:
        v.x, v.x_row, v.x_col, v.taps, v.m = x, im.sr * a.pitch, im.sc * im.c, a.taps + m0, m1 - m0
        v.g, v.g_row, v.g_col = g, im.cols * a.k, a.k
        v.rows, v.cols, v.channels, v.dw = rows, im.cols, a.k, dw + m0 * a.k * a.number
        a.table.abreast_outer(&v)
        return
    if a.depthwise:
        d.x, d.x_row, d.x_col, d.taps, d.ntaps = x, im.sr * a.pitch, im.sc * im.c, a.taps + m0, m1 - m0
        d.g, d.g_row, d.g_col = g, im.cols * a.k, a.k
        d.rows, d.cols, d.channels = rows, im.cols, a.k
        d.dw, d.dw_row = dw + m0 * a.k * size, a.k
        a.table.depthwise_outer(&d)
        return
    cdef Py_ssize_t t, end
    b.fresh, b.onto = a.straight and first == 0, NULL
    for group in range(a.groups):
        if a.swapped:
            b.x = g + group * a.kg * size
            b.taps, b.m, b.dw_row = a.filters, a.kg, a.m
            t = m0
            while t < m1:
                end = min(m1, (t // a.run + 1) * a.run)
                b.g = x + (group * a.cg + a.taps[t]) * size
                b.channels = end - t
                place = (group * a.kg * a.m + t) * size
                b.dw = dw + place
                if a.straight and last == a.total:
                    b.onto = a.grad + place
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


cdef void finish(const fc_ops *table, const WeightGradient *a, real *grad, Py_ssize_t task,
                 Py_ssize_t block) noexcept nogil:
    """Add the shards for a block of one group and scatter them: grad (K, C/groups, R*S) += dw."""
    cdef Py_ssize_t length = a.kg if a.swapped else a.cg, blocks = ceil_div(length, block)
    cdef Py_ssize_t group = task // blocks, first = task % blocks * block, last = min(length, first + block)
    cdef Py_ssize_t m = a.m, kg = a.kg, cg = a.cg, taps = m // cg, pitch = a.groups * m * kg
    cdef Py_ssize_t c, t, k
    cdef const real *dw = <const real *>a.dw
    if a.swapped:
        add_tree(table, a.dw, a.shards, pitch, (group * kg + first) * m, (last - first) * m)
        if taps == 1:
            table.accumulate(dw + (group * kg + first) * m, grad + (group * kg + first) * m, (last - first) * m)
            return
        for k in range(group * kg + first, group * kg + last):
            table.accumulate_turned(dw + k * m, cg, taps, cg, grad + k * m, taps)
        return
    for t in range(taps):
        add_tree(table, a.dw, a.shards, pitch, (group * m + t * cg + first) * kg, (last - first) * kg)
    # sixteen filters at a time: whole cache lines are read, and each filter is written from end to end
    dw, grad = dw + group * m * kg, grad + group * kg * m
    for k in range(0, kg, 16):
        if taps == 1:
            table.accumulate_turned(dw + first * kg + k, kg, last - first, min(16, kg - k), grad + k * m + first, m)
            continue
        for c in range(first, last):
            table.accumulate_turned(dw + c * kg + k, cg * kg, taps, min(16, kg - k), grad + k * m + c * taps, m)


cdef double tile_cost(const fc_ops *table, Py_ssize_t lanes, Py_ssize_t rows) noexcept nogil:
    """Return about how many cycles a pixel takes with vectors over ``lanes`` sums and a broadcast for each row.

    Narrow tiles load more for each multiply-add.
    """
    cdef Py_ssize_t vectors = ceil_div(lanes, table.lanes), width = panel_lanes(table, lanes) // table.lanes
    return vectors * rows * (0.9 if width == 1 else 0.6 if width == 2 else 0.53)


cdef bint abreast_pays(const WeightGradient *a, double over_channels) noexcept nogil:
    """Return whether a shard in each lane is cheaper than vectors over channels, both in cycles a pixel.

    Parts of the weights share a vector of shards among threads; each lays out the images for itself.
    """
    cdef Py_ssize_t lanes = a.table.lanes, vectors, parts
    if lanes < 4 or a.depthwise or a.groups > 1 or a.shards != 16 or a.images % a.shards:
        return False
    vectors = a.shards // lanes
    parts = ceil_div(a.threads, vectors)
    if (parts > a.m // 8 or a.image.rows * a.image.cols < 16 or lanes_bytes(a.table, &a.image, 4) > IMAGES_BYTES
            or a.m * a.kg * lanes * a.image.size > ABREAST_BYTES):
        return False
    cdef double over_shards = 0.55 * a.m * a.kg / (lanes * parts) + 0.3 * (a.cg * a.image.sr * a.image.sc + a.kg)
    return over_shards / min(a.threads, vectors) < over_channels / a.threads


cdef void lay_abreast(WeightGradient *a) noexcept nogil:
    """Choose the blocks of a gradient with a shard in each lane."""
    cdef Image *im = &a.image
    a.direct = a.bordered = a.swapped = False
    a.number = a.table.lanes * im.size
    a.pitch = window_width(im) * im.c
    a.parts = ceil_div(a.threads, a.shards // a.table.lanes)
    cdef Py_ssize_t row = im.sr * a.pitch * a.number, g_row = im.cols * a.kg * a.number
    a.row_block = max(1, min(im.rows, IMAGES_BYTES // (row + g_row)))
    a.call_rows = max(1, (ABREAST_BYTES - window_rows(im, 1) * row // im.sr)
                      // (row + im.cols * min(a.kg, 3) * a.number))
    a.window = lanes_bytes(a.table, im, a.row_block) + a.row_block * g_row + (a.m + 1) * a.kg * a.number


cdef void describe(WeightGradient *a, Geometry g, const fc_ops *table, Scratch *s) noexcept nogil:
    """Make ``a`` the weight gradient of these sizes, and book the memory it needs."""
    cdef Py_ssize_t size = table.size
    cdef Image *im = &a.image
    a.table, a.images = table, g.n
    im.h, im.w, im.c, im.size = g.h, g.w, g.c, size
    im.rows, im.cols, im.sr, im.sc, im.top, im.left = g.p, g.q, g.sh, g.sw, g.top, g.left
    im.reach_r, im.reach_c, im.step_r = (g.r - 1) * g.dh + 1, (g.s - 1) * g.dw + 1, g.dh
    a.direct = in_bounds(im)
    if a.direct and g.r == 1 and g.s == 1 and g.sh == 1 and g.sw == 1 and g.h == g.p and g.w == g.q:
        im.rows = im.h = g.n * g.h * g.w   # each pixel is a row of its own: shards and blocks of any size
        im.cols = im.w = a.images = 1
    a.total = a.images * im.rows
    a.pitch = (im.w if a.direct else window_width(im)) * im.c
    a.k, a.depthwise = g.k, g.depthwise
    a.groups, a.cg, a.kg = g.groups, g.c // g.groups, g.k // g.groups
    if a.depthwise:  # the channels are the lanes, the taps the weights
        a.groups, a.cg, a.kg = 1, 1, g.k
    a.row_weights = g.s * a.cg
    a.m = g.r * a.row_weights
    a.run = a.row_weights if g.dw == 1 and a.groups == 1 else a.cg
    # sums with vectors over the channels of one tap lie as grad_weight does: preferred where the cost is the same
    cdef double over_weights = tile_cost(a.table, a.run, a.kg) * (a.m // a.run)
    cdef double over_filters = tile_cost(a.table, a.kg, a.m)
    a.swapped = not a.depthwise and over_weights < over_filters * (1.05 if g.r == 1 and g.s == 1 else 1)
    cdef Py_ssize_t weights = a.groups * a.m * a.kg
    a.shards = count_shards(g.n * g.p * g.q, a.total, weights)
    a.threads = threads_for(g.work())
    a.parts = 1
    if a.threads > 1 and a.shards < 2 * a.threads:
        a.parts = max(1, min(ceil_div(2 * a.threads, a.shards), a.m // a.table.mr))
    a.row_block = im.rows
    if not a.direct:
        a.row_block = max(1, min(im.rows, WINDOW_BYTES // (im.sr * window_width(im) * im.c * size)))
    a.call_rows = max(1, OUTER_PIXELS * a.table.nr // (im.cols * min(a.table.nr, a.run if a.swapped else a.kg)))
    if im.cols == 1 and (im.c if a.swapped else a.k) * size >= PACKED_BYTES:
        a.call_rows *= 2
    a.chunk = max(a.table.mr, SUMS_BYTES // (a.groups * a.kg * size) // a.table.mr * a.table.mr)
    a.bordered = not a.direct and a.chunk < a.m
    if a.bordered:
        a.row_block = im.rows
    a.straight = a.swapped and a.m == a.cg and a.shards == 1 and a.direct and a.images == 1
    a.by_filters = a.straight and a.groups == 1 and a.threads <= a.kg // a.table.mr
    if a.by_filters:
        a.parts = a.threads   # each reads all of the image
    if a.straight and a.total <= 2 * OUTER_PIXELS:
        a.call_rows = max(a.call_rows, a.total)   # no sum waits in memory
    if a.chunk < a.m:   # tiles are set down once in many pixels
        a.call_rows = max(a.call_rows, min(im.rows, ceil_div(64, im.cols)))
    a.window = 0 if a.direct else window_bytes(im, a.row_block)
    a.number = size
    a.abreast = abreast_pays(a, min(over_weights, over_filters))
    if a.abreast:
        lay_abreast(a)   # of 16 shards, none of which goes straight
    im.strip = im.step_r if a.direct else strip_distance(im, a.row_block)
    book(s, TAPS, (a.m + a.kg) * sizeof(Py_ssize_t))
    book(s, SUMS, a.shards * weights * size)
    book(s, WINDOWS, (a.images if a.bordered else a.threads) * a.window)


def weight_gradient(const real[:, :, :, ::1] x, const real[:, :, :, ::1] grad_y, real[:, :, :, ::1] grad_weight,
                    Geometry g, scratch, real[::1] grad_bias=None):
    """Add to grad_weight (K, C/groups, R, S) the gradient for x (N, H, W, C) and grad_y (N, P, Q, K).

    And to grad_bias (K) the sums of grad_y, with the bits of `bias_gradient`.
    """
    if g.n == 0:
        return
    cdef WeightGradient a
    cdef Scratch s
    nothing_booked(&s)
    describe(&a, g, ops(sizeof(real) // 4 - 1), &s)
    cdef Py_ssize_t pixels = g.n * g.p * g.q
    if grad_bias is not None:
        book(&s, BIAS_SUMS, bias_shards(pixels) * g.k * sizeof(real))
    cdef unsigned char[::1] arena = scratch(booked(&s))
    s.base = <char *>&arena[0]
    cdef Py_ssize_t *taps = <Py_ssize_t *>get(&s, TAPS)
    cdef char *windows = get(&s, WINDOWS)
    a.image.x, a.g = <const char *>&x[0, 0, 0, 0], <const char *>&grad_y[0, 0, 0, 0]
    a.taps, a.filters, a.dw, a.windows = taps, taps + a.m, get(&s, SUMS), windows
    a.grad = <char *>&grad_weight[0, 0, 0, 0]
    cdef char *grad_of_bias = NULL
    a.bias_sums = NULL
    if grad_bias is not None:
        grad_of_bias = <char *>&grad_bias[0]
        if a.abreast:   # of as many shards, of the same pixels
            a.bias_sums = get(&s, BIAS_SUMS)
    cdef Py_ssize_t m, n, task
    cdef Py_ssize_t tasks = a.shards // (a.table.lanes if a.abreast else 1) * a.parts
    cdef Py_ssize_t block = max(1, 8192 // (a.kg * g.r * g.s))
    if a.swapped:
        block = max(1, 8192 // a.m)
    cdef Py_ssize_t finish_tasks = 0 if a.straight else a.groups * ceil_div(a.kg if a.swapped else a.cg, block)
    cdef real *grad = &grad_weight[0, 0, 0, 0]
    with nogil:
        for m in range(a.m):
            taps[m] = m // a.cg // g.s * a.image.strip * a.pitch + m // a.cg % g.s * g.dw * g.c + m % a.cg
        for m in range(a.kg):
            taps[a.m + m] = m
        if a.bordered:
            for n in prange(a.images, schedule='static', num_threads=a.threads):
                copy_window(a.table, &a.image, n, 0, a.image.rows, 0, windows + n * a.window)
        for task in prange(tasks, schedule='static', num_threads=a.threads):
            if a.abreast:
                abreast_block(&a, task, windows + threadid() * a.window)
            else:
                outer_block(&a, task, windows + threadid() * a.window)
        for task in prange(finish_tasks, schedule='static', num_threads=a.threads):
            finish(a.table, &a, grad, task, block)
        if a.bias_sums != NULL:
            add_tree(a.table, a.bias_sums, a.shards, g.k, 0, g.k)
            a.table.accumulate(a.bias_sums, grad_of_bias, g.k)
        elif grad_of_bias != NULL and pixels > 0:
            add_columns(a.table, a.g, pixels, g.k, get(&s, BIAS_SUMS), grad_of_bias)
