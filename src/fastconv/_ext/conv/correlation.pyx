"""Correlation of images with packed weights: forward, and one phase of the input gradient.

`book_correlation` cuts the result into blocks, which are tasks for threads, and says how they read pixels; `correlate`
runs them. Neither has an influence on any bit: each result is one chain, taps and channels in their order.
"""

from cython.parallel cimport prange, threadid

from fastconv._ext.conv.geometry cimport ceil_div
from fastconv._ext.conv.packing cimport finite, pack_panel, panel_weights
from fastconv._ext.conv.scratch cimport SEGMENTS, WINDOWS, Scratch, book, get
from fastconv._ext.conv.windows cimport (
    IMAGES_BYTES, WINDOW_BYTES, Image, copy_lanes, copy_window, in_bounds, lanes_bytes, plane_pitch, planes_bytes,
    strip_distance, window_bytes, window_width,
)
from fastconv._ext.epilogue cimport epilogue_at
from fastconv._ext.runtime cimport fc_abreast, fc_depthwise, fc_planes, fc_rows, fc_segment


# What a tile of images abreast reads should be so little as to stay in L1 beside its weights.
cdef Py_ssize_t TILE_BYTES = 24 * 1024

# Packing a weight where it is met takes so many cycles, most of them for fetching it.
cdef double PACKING = 0.5

# Threads that get so many pixels each share the pixels alone, so that in the layer behind most of what a thread reads
# is what it wrote itself. Of fewer pixels they share the channels, and where weights are so many times as many as
# results: packing all of them in each thread would take longer than fetching the results of another.
cdef Py_ssize_t PIXELS = 64
cdef Py_ssize_t WEIGHTS = 4


# What a layer of one filter a channel reads and writes is gone through row by row where it is more than LARGE_BYTES, so
# that hardware fetches it; where it is more than FAR_BYTES it comes from memory, and rows are fetched ahead.
cdef Py_ssize_t LARGE_BYTES = 10 * 1024 * 1024
cdef Py_ssize_t FAR_BYTES = 16 * 1024 * 1024


# --- blocks -----------------------------------------------------------------------------------------------


cdef Way cheapest(const Correlation *a, Way otherwise) noexcept nogil:
    """Return the cheapest of vectors over channels (``otherwise``), over pixels and over images.

    Cycles a pixel: vectors of channels spend half a cycle on each multiply-add of a vector when they fill a tile, more
    when one vector of channels is all there is: each multiply-add then loads a factor of its own, which high tiles hide
    but low ones do not. The other two spend some time on each element that changes places. Images abreast take a
    little more where what a tile reads does not stay in L1.
    """
    cdef Py_ssize_t lanes = a.table.lanes, vectors = ceil_div(a.kg, lanes)
    if a.ntaps < 2 or a.image.cols == 0 or a.groups * a.kg > 2 * lanes or a.kg > a.nr:   # neither goes over panels
        return otherwise
    cdef double depth = a.ntaps * a.cg, filled
    cdef double one = 0.55 if a.table.mr > 12 else 0.6 if a.table.mr > 8 else 0.85   # vector of channels
    cdef double over_channels = depth * vectors * (one if vectors == 1 else 0.55)
    filled = <double>a.image.cols / (ceil_div(a.image.cols, lanes) * lanes)
    cdef double over_pixels = 0.55 * depth * a.kg / (lanes * filled) + a.kg + a.cg
    if vectors == 1:   # each row of the filter is a loop of its own
        over_channels += a.tap_rows
        over_pixels += a.tap_rows
    filled = <double>a.n / (ceil_div(a.n, lanes) * lanes)
    cdef Py_ssize_t tile = a.tap_rows * (a.image.reach_c + 3 * a.image.sc) * a.cg * lanes * a.image.size
    cdef double over_images = (0.55 if tile <= TILE_BYTES else 0.6) * depth * a.kg / (lanes * filled)
    over_images += 0.3 * (a.kg + a.cg)
    if over_images < min(over_pixels, over_channels) and lanes_bytes(a.table, &a.image, 4) < 2 * IMAGES_BYTES:
        return ABREAST
    return PLANES if over_pixels < over_channels and a.image.sc == 1 else otherwise


cdef bint is_flat(const Correlation *a) noexcept nogil:
    """Return whether each pixel reads itself alone, and results follow each other as pixels do."""
    cdef const Image *m = &a.image
    return (a.ntaps == 1 and m.sr == 1 and m.sc == 1 and m.top == 0 and m.left == 0 and m.h == m.rows and m.w == m.cols
            and a.y_row == a.y_col * m.cols and a.y_image == a.y_row * m.rows)


cdef void book_correlation(Correlation *a, Scratch *s) noexcept nogil:
    """Choose how pixels are read, and blocks; book what `correlate` needs. Reads sizes and the number of threads."""
    cdef Image *m = &a.image
    cdef Py_ssize_t tasks, limit, count, tiles
    if a.depthwise:
        book_depthwise(a)
        return
    a.way = cheapest(a, FLAT if is_flat(a) else LYING if in_bounds(m) else WINDOWED)
    cdef bint copied = a.way == ABREAST or a.way == PLANES or a.way == WINDOWED
    a.pitch = (window_width(m) if copied else m.w) * (1 if a.way == PLANES else m.c)
    if a.way == FLAT:  # all pixels of all images are one long row
        m.cols = a.n * m.rows * m.cols
        m.w = m.cols
        m.h = m.rows = a.n = 1
        a.pitch = m.cols * m.c
    a.row_block, a.col_block = max(m.rows, 1), max(m.cols, 1)
    a.row_blocks = a.col_blocks = 1
    if a.way == FLAT:
        a.col_block = min(a.col_block, max(4 * a.table.mr, min(8 * a.table.mr, WINDOW_BYTES // (m.c * m.size))))
        if m.cols > a.kg:   # threads share the pixels; else the weights, which are more to fetch (see parts)
            while a.threads > 1 and ceil_div(m.cols, a.col_block) < 2 * a.threads and a.col_block > 2 * a.table.mr:
                a.col_block = ceil_div(a.col_block, 2)
        tiles = ceil_div(m.cols, a.table.mr)
        a.col_blocks = fair_blocks(ceil_div(m.cols, a.col_block), 1, tiles, a.threads)
        a.col_block = ceil_div(tiles, a.col_blocks) * a.table.mr
    else:
        limit = WINDOW_BYTES // max(1, m.sr * window_width(m) * m.c * m.size)
        count = a.n
        if a.way == ABREAST:
            limit = IMAGES_BYTES // (m.sr * window_width(m) * m.c * m.size * a.table.lanes)
            count = ceil_div(a.n, a.table.lanes)
        a.row_block = max(1, min(a.row_block, limit))
        while a.threads > 1 and count * ceil_div(m.rows, a.row_block) < 4 * a.threads and a.row_block > 1:
            a.row_block = ceil_div(a.row_block, 2)
        a.row_blocks = fair_blocks(ceil_div(m.rows, a.row_block), count, m.rows, a.threads)
        a.row_block = max(1, ceil_div(m.rows, a.row_blocks))
    a.once = a.once and a.way != ABREAST
    if a.once:
        a.row_block, a.col_block = max(m.rows, 1), max(m.cols, 1)
        a.row_blocks = a.col_blocks = 1
    a.window = a.line = 0
    m.strip = strip_distance(m, a.row_block) if copied else m.step_r
    if a.way == ABREAST:
        a.line = lanes_bytes(a.table, m, a.row_block)
        a.window = a.line + a.table.lanes * m.cols * a.kg * m.size
    elif a.way == PLANES:
        a.window = planes_bytes(m, a.row_block)
    elif a.way == WINDOWED:
        a.window = window_bytes(m, a.row_block)
    # whole images go together as long as they stay in L2: each panel of weights is met by more pixels
    a.images = 1
    if a.way == ABREAST:
        a.images = a.table.lanes
    elif a.once:
        a.images = a.n
    elif a.row_blocks == 1 and a.col_blocks == 1:
        limit = IMAGES_BYTES // max(1, a.window if copied else m.h * a.pitch * m.size)
        if a.groups * a.kg * a.ntaps * a.cg * m.size > 4 * IMAGES_BYTES:
            limit *= 2   # weights come from beyond L2, and cost more than the images would
        a.images = max(1, min(limit, ceil_div(a.n, a.threads)))
        a.images = ceil_div(a.n, ceil_div(a.n, a.images * a.threads) * a.threads)
    a.image_blocks = ceil_div(a.n, a.images)
    a.x_image = a.window // m.size if copied else m.h * a.pitch
    a.x_plane = plane_pitch(m, a.row_block) if a.way == PLANES else 0
    tasks = a.image_blocks * a.row_blocks * a.col_blocks
    a.parts = 1
    if a.once:
        a.parts = a.threads
    elif a.threads > 1 and tasks < 2 * a.threads and tasks > 0:
        a.parts = min(a.groups * ceil_div(a.kg, a.nr), ceil_div(2 * a.threads, tasks))
    if a.way != ABREAST:
        a.window *= a.images
    a.room = ceil_div(a.nr * a.ntaps * a.cg * m.size, 64) * 64 if a.once else 0
    book(s, SEGMENTS, max(a.ntaps, 1) * sizeof(fc_segment))   # or two lists of offsets
    book(s, WINDOWS, a.threads * (a.window + a.room))


cdef Py_ssize_t fair_blocks(Py_ssize_t blocks, Py_ssize_t times, Py_ssize_t most, Py_ssize_t threads) noexcept nogil:
    """Return so many blocks or a few more, up to ``most``, that each thread gets as many, of ``times`` such things."""
    cdef Py_ssize_t more = max(1, blocks)
    while more * times % threads and more < most:
        more += 1
    return max(1, blocks) if blocks <= 1 or more * times % threads else more


cdef void book_depthwise(Correlation *a) noexcept nogil:
    """The same for one filter a channel: images are read as they lie, threads share rows, of few pixels channels."""
    cdef const Image *m = &a.image
    cdef Py_ssize_t tasks = 4 * a.threads if a.threads > 1 and a.n > 1 else a.threads
    cdef Py_ssize_t each = ceil_div(tasks, max(1, a.n))   # of an image
    a.way = LYING
    a.row_block = max(1, ceil_div(m.rows, each))
    a.parts = 1
    if a.threads > 1 and a.n * m.rows * m.cols < PIXELS * a.threads:
        a.row_block = max(1, m.rows)
        a.parts = min(ceil_div(m.c, a.table.lanes), each)
    a.row_blocks = ceil_div(m.rows, a.row_block)
    a.col_blocks = a.images = 1
    a.image_blocks = a.n
    a.window = a.room = 0
    cdef Py_ssize_t nbytes = a.n * m.c * (m.h * m.w + m.rows * m.cols) * m.size
    a.ahead = nbytes > FAR_BYTES
    a.by_rows = LARGE_BYTES < nbytes <= FAR_BYTES


# --- tasks ------------------------------------------------------------------------------------------------


cdef void correlate(Correlation *a, const Scratch *s) noexcept nogil:
    """Run all tasks; taps and panels are in their places."""
    cdef Py_ssize_t tasks = a.image_blocks * a.row_blocks * a.col_blocks * a.parts
    cdef char *windows = get(s, WINDOWS)
    cdef Py_ssize_t task, count
    if not a.depthwise:
        lay_out_taps(a, get(s, SEGMENTS))
    a.skips = False
    if a.way == ABREAST:
        count = a.groups * ceil_div(a.kg, a.nr) * a.nr * a.ntaps * a.cg
        a.skips = lies_beside(&a.image) and finite(a.table, a.panels, count)
    if a.threads == 1:
        for task in range(tasks):
            correlate_block(a, task, windows)
    else:
        for task in prange(tasks, schedule='static', num_threads=a.threads):
            correlate_block(a, task, windows + threadid() * (a.window + a.room))


cdef bint lies_beside(const Image *m) noexcept nogil:
    """Return whether some pixels read columns beside the image."""
    return m.left > 0 or (m.cols - 1) * m.sc - m.left + m.reach_c > m.w


cdef void lay_out_taps(Correlation *a, char *region) noexcept nogil:
    """Write where the taps lie: segments of memory, as many for each row of the filter, or one offset a tap."""
    cdef Py_ssize_t t, offset, n = 0, in_row = a.ntaps // max(a.tap_rows, 1)
    cdef Py_ssize_t pixel = 1 if a.way == PLANES else a.image.c
    a.segments = <fc_segment *>region
    a.offsets = <Py_ssize_t *>region
    for t in range(a.ntaps):
        offset = a.tap_r[t] // a.image.step_r * a.image.strip * a.pitch + a.tap_c[t] * pixel
        if a.way == PLANES or a.way == ABREAST:
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
    char *line   # of images abreast: room for a row of it
    const char *next[2]      # weights or pixels that are needed next, and where results will go
    Py_ssize_t next_bytes[2]


cdef void correlate_block(const Correlation *a, Py_ssize_t task, char *window) noexcept nogil:
    """Run one task: a block of rows and columns of one image, for some of the output channels."""
    if a.depthwise:
        depthwise_block(a, task)
        return
    cdef const Image *m = &a.image
    cdef Py_ssize_t size = m.size
    cdef Py_ssize_t part = task % a.parts
    task //= a.parts
    # blocks differ by one row, or by one tile where rows are not cut
    cdef Py_ssize_t j = task % a.col_blocks, unit = 1 if a.col_blocks == 1 else a.table.mr
    cdef Py_ssize_t tiles = ceil_div(m.cols, unit), j0 = j * tiles // a.col_blocks * unit
    cdef Py_ssize_t cols = min(m.cols, (j + 1) * tiles // a.col_blocks * unit) - j0
    task //= a.col_blocks
    cdef Py_ssize_t i = task % a.row_blocks
    cdef Py_ssize_t i0 = i * m.rows // a.row_blocks, end = (i + 1) * m.rows // a.row_blocks
    cdef Py_ssize_t n = task // a.row_blocks * a.images, images = min(a.images, a.n - n), image
    cdef const char *x = window
    if a.way == LYING or a.way == FLAT:
        x = m.x + (((n * m.h + i0 * m.sr - m.top) * m.w) + j0 * m.sc - m.left) * m.c * size
    elif a.way == ABREAST:
        copy_lanes(a.table, m, n, 1, images, i0, end - i0, window)
    else:
        for image in range(images):
            copy_window(a.table, m, n + image, i0, end - i0, a.x_plane, window + image * a.x_image * size)
    cdef Py_ssize_t panels = a.groups * ceil_div(a.kg, a.nr), begin, behind
    cdef Place at = place_of(a, n, i0, j0)
    at.line, at.images, at.cols = window + a.line, images, cols
    if a.way == FLAT and not a.once:   # the pixels behind these
        behind = min(cols, m.cols - j0 - cols)
        at.next[0], at.next_bytes[0] = x + cols * m.c * size, behind * m.c * size
        at.next[1], at.next_bytes[1] = a.y + (at.y + cols * a.y_col) * size, behind * a.y_col * size
    if a.once:
        share_panels(a, part, panels, x, window + a.window, at)
        return
    begin = part * panels // a.parts
    correlate_panels(a, begin, (part + 1) * panels // a.parts, a.panels + begin * a.nr * a.ntaps * a.cg * size, x, i0,
                     end, at)


cdef void share_panels(const Correlation *a, Py_ssize_t part, Py_ssize_t panels, const char *x, char *room,
                       Place at) noexcept nogil:
    """Run one thread's share of all pixels and panels, where a panel is packed by whoever meets it.

    Of few pixels threads get as many panels each. Of the panels that are left, they share the pixels where that is
    sooner done, though each packs the panel, than if some of them took one more.
    """
    cdef const Image *m = &a.image
    cdef Py_ssize_t each = panels // a.parts, left = panels % a.parts, begin, end, unit
    cdef double packing = PACKING * a.table.lanes, pixels = 0.5 * a.n * m.rows * m.cols   # cycles a vector of weights
    if a.n * m.rows * m.cols >= max(PIXELS * a.parts, a.ntaps * a.cg // WEIGHTS):
        each, left = 0, panels
    elif left * (packing + pixels / a.parts) > packing + pixels:
        begin, end = part * panels // a.parts, (part + 1) * panels // a.parts
        pack_and_correlate(a, begin, end, x, room, 0, m.rows, at)
        return
    pack_and_correlate(a, part * each, (part + 1) * each, x, room, 0, m.rows, at)
    if a.way == FLAT:
        unit = ceil_div(m.cols, a.table.mr)   # in tiles
        begin, end = part * unit // a.parts * a.table.mr, min(m.cols, (part + 1) * unit // a.parts * a.table.mr)
        x += begin * m.c * m.size
        at.y, at.add, at.cols = at.y + begin * a.y_col, at.add + begin * a.e.add_col, end - begin
        if at.cols > 0:
            pack_and_correlate(a, panels - left, panels, x, room, 0, 1, at)
    else:
        begin, end = part * m.rows // a.parts, (part + 1) * m.rows // a.parts
        x += begin * m.sr * a.pitch * m.size
        at.y, at.add = at.y + begin * a.y_row, at.add + begin * a.e.add_row
        pack_and_correlate(a, panels - left, panels, x, room, begin, end, at)


cdef void pack_and_correlate(const Correlation *a, Py_ssize_t begin, Py_ssize_t end_panel, const char *x, char *room,
                             Py_ssize_t i, Py_ssize_t end, Place at) noexcept nogil:
    """Run the rows i .. end-1 with some panels, each packed into ``room`` while the next one is fetched."""
    cdef Py_ssize_t panel
    if i == end:
        return
    for panel in range(begin, end_panel):
        pack_panel(a.table, &a.weights, a.group_pitch, panel, room)
        if panel + 1 < end_panel:
            at.next[0] = panel_weights(a.table, &a.weights, a.group_pitch, panel + 1)
            at.next_bytes[0] = a.nr * a.weights.lane_pitch * a.image.size
        else:
            at.next_bytes[0] = 0
        correlate_panels(a, panel, panel + 1, room, x, i, end, at)


cdef Place place_of(const Correlation *a, Py_ssize_t n, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    """Return where a block of one pixel begins."""
    cdef Place at
    at.y = n * a.y_image + i * a.y_row + j * a.y_col
    at.add = n * a.e.add_image + i * a.e.add_row + j * a.e.add_col
    at.images = at.rows = at.cols = 1
    at.line = NULL
    at.next[0] = at.next[1] = NULL
    at.next_bytes[0] = at.next_bytes[1] = 0
    return at


cdef void depthwise_block(const Correlation *a, Py_ssize_t task) noexcept nogil:
    """Run one task of one filter a channel: some rows of an image, or some of its channels."""
    cdef const Image *m = &a.image
    cdef Py_ssize_t vectors = ceil_div(m.c, a.table.lanes), part = task % a.parts
    cdef Py_ssize_t row = task // a.parts % a.row_blocks * a.row_block, n = task // a.parts // a.row_blocks
    cdef Py_ssize_t c = part * vectors // a.parts * a.table.lanes
    cdef Py_ssize_t end = min(m.c, (part + 1) * vectors // a.parts * a.table.lanes)
    cdef Py_ssize_t y = n * a.y_image + row * a.y_row, add = n * a.e.add_image + row * a.e.add_row
    depthwise_rows(a, m.x + n * m.h * m.w * m.c * m.size, row, min(a.row_block, m.rows - row), c, end,
                   a.y + y * m.size, y, add)


cdef void depthwise_rows(const Correlation *a, const char *x, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t c,
                         Py_ssize_t end, char *y, Py_ssize_t at, Py_ssize_t add) noexcept nogil:
    """Run some rows of the grid, for the channels c .. end-1, of one filter a channel on the image at x.

    Results lie at y on: ``at`` elements behind the whole's, ``add`` behind what is added.
    """
    cdef const Image *m = &a.image
    cdef fc_depthwise d
    d.x, d.height, d.width, d.x_row, d.x_col = x + c * m.size, m.h, m.w, m.w * m.c, m.c
    d.top, d.left, d.row_step, d.col_step = row * m.sr - m.top, -m.left, m.sr, m.sc
    d.tap_r, d.tap_c, d.ntaps, d.in_row = a.tap_r, a.tap_c, a.ntaps, a.ntaps // max(a.tap_rows, 1)
    d.w, d.w_row = a.panels + c * m.size, m.c
    d.y, d.y_row, d.y_col = y + c * m.size, a.y_row, a.y_col
    d.rows, d.cols, d.channels, d.by_rows, d.ahead = rows, m.cols, end - c, a.by_rows, a.ahead
    d.e = epilogue_at(&a.e, at, add, c, m.size)
    a.table.depthwise(&d)


cdef void correlate_pixels(const Correlation *a, const char *x, Py_ssize_t count, char *y, Py_ssize_t at,
                           Py_ssize_t add) noexcept nogil:
    """Run so many pixels in a row that read themselves alone (FLAT), from x on.

    Results lie at y on: ``at`` elements behind the whole's, ``add`` behind what is added.
    """
    cdef Correlation part = a[0]
    cdef Py_ssize_t first = 0, size = a.image.size
    cdef Place place = place_of(a, 0, 0, 0)
    part.y = y
    part.e = epilogue_at(&a.e, at, add, 0, size)
    while first < count:
        place.cols, place.y, place.add = min(a.col_block, count - first), first * a.y_col, first * a.e.add_col
        correlate_panels(&part, 0, a.groups * ceil_div(a.kg, a.nr), a.panels, x + first * a.image.c * size, 0, 1, place)
        first += a.col_block


cdef void correlate_panels(const Correlation *a, Py_ssize_t begin, Py_ssize_t end_panel, const char *panels,
                           const char *x, Py_ssize_t i, Py_ssize_t end, Place at) noexcept nogil:
    """Run the rows i .. end-1 of a block with some panels of weights, the first of which is ``panels``."""
    # rows that meet the same rows of the filter go together: at the edges some of those lie outside
    cdef Py_ssize_t rows, first, last, next_first, next_last, all_rows = end - i, part
    cdef Py_ssize_t fetched[2]
    for part in range(2):
        fetched[part] = at.next_bytes[part]
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
        for part in range(2):
            at.next_bytes[part] = fetched[part] * rows // all_rows
        correlate_rows(a, begin, end_panel, panels, x, &at, first, last)
        for part in range(2):
            at.next[part] += at.next_bytes[part]
        x += rows * a.image.sr * a.pitch * a.image.size * (a.table.lanes if a.way == ABREAST else 1)
        at.y += rows * a.y_row
        at.add += rows * a.e.add_row
        i += rows
        first, last = next_first, next_last


cdef inline void filter_rows(const Correlation *a, Py_ssize_t i, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil:
    """Find the rows of the filter that lie on the image where it stands on grid row i."""
    cdef Py_ssize_t row = i * a.image.sr - a.image.top
    first[0] = min(a.tap_rows, ceil_div(max(0, -row), a.image.step_r))
    last[0] = max(first[0], min(a.tap_rows, ceil_div(max(0, a.image.h - row), a.image.step_r)))


cdef void correlate_rows(const Correlation *a, Py_ssize_t begin, Py_ssize_t end, const char *weights, const char *x,
                         const Place *at, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Run some rows of some images with the rows first .. last-1 of the filter, and the panels begin .. end-1."""
    cdef const Image *m = &a.image
    cdef Py_ssize_t size = m.size, in_row = a.ntaps // max(a.tap_rows, 1), part
    cdef Py_ssize_t t0 = first * in_row, ntaps = (last - first) * in_row
    cdef fc_rows b
    b.x_image, b.x_row, b.x_col = a.x_image, m.sr * a.pitch, m.sc * m.c
    b.segments, b.depth = a.segments + first * a.row_segments, ntaps * a.cg
    b.w_panel, b.nr = a.ntaps * a.cg * a.nr, a.nr
    b.y_image, b.y_row, b.y_col = a.y_image, a.y_row, a.y_col
    b.images, b.rows, b.cols = at.images, at.rows, at.cols
    for part in range(2):
        b.next[part], b.next_bytes[part] = at.next[part], at.next_bytes[part]
    cdef fc_planes p
    p.x_image, p.x_plane, p.x_row = a.x_image, a.x_plane, m.sr * a.pitch
    p.taps, p.ntaps, p.nc, p.w_row = a.offsets + t0, ntaps, a.cg, a.nr
    p.y_image, p.y_row, p.y_col = a.y_image, a.y_row, a.y_col
    p.images, p.rows, p.cols = at.images, at.rows, at.cols
    cdef fc_abreast v
    v.x_row, v.x_col = b.x_row, b.x_col
    v.taps, v.ntaps, v.nc, v.w_row, v.line = p.taps, ntaps, a.cg, a.nr, at.line
    v.in_row, v.tap_c = in_row, a.tap_c if a.skips else NULL
    v.col, v.col_step, v.width = -m.left, m.sc, m.w
    v.y_image, v.y_row, v.y_col = a.y_image, a.y_row, a.y_col
    v.images, v.rows, v.cols = at.images, at.rows, at.cols
    # one call a group
    cdef Py_ssize_t panels = ceil_div(a.kg, a.nr), group, k0, k1
    while begin < end:
        group = begin // panels
        k0 = (begin - group * panels) * a.nr
        k1 = min(a.kg, (end - group * panels) * a.nr)
        b.w = weights + t0 * a.cg * a.nr * size
        b.e = epilogue_at(&a.e, at.y, at.add, group * a.kg + k0, size)
        b.y = a.y + (at.y + group * a.kg + k0) * size
        b.channels = k1 - k0
        if a.way == PLANES:
            p.x, p.w, p.y, p.channels, p.e = x + group * a.cg * a.x_plane * size, b.w, b.y, b.channels, b.e
            a.table.planes(&p)
        elif a.way == ABREAST:
            v.x, v.w, v.y, v.channels, v.e = x + group * a.cg * a.table.lanes * size, b.w, b.y, b.channels, b.e
            a.table.abreast(&v)
        else:
            b.x = x + group * a.cg * size
            a.table.rows(&b)
        weights += ((group + 1) * panels - begin) * a.nr * a.ntaps * a.cg * size
        begin = (group + 1) * panels
