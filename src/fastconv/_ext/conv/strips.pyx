"""Convolutions of one filter a channel, and the 1x1 convolutions before and behind them, strip after strip of rows.

    x --1x1--> a few rows --one filter a channel--> a few rows --1x1--> y

What stands between them is several times as wide as x and y, in the nets that have such blocks, and never lies in
memory as a whole: rows wait in a core's cache until the filters have passed. Each sum is that of the layers one by one.
"""

from cython.parallel cimport prange, threadid
from libc.string cimport memmove

from fastconv._ext.conv.correlation cimport Correlation, correlate_pixels, depthwise_rows, lay_out_taps
from fastconv._ext.conv.forward cimport describe, lay_taps
from fastconv._ext.conv.geometry cimport Geometry, ceil_div
from fastconv._ext.conv.packing cimport pack_taps
from fastconv._ext.conv.scratch cimport PANELS, SEGMENTS, TAPS, Scratch, aligned, booked, get, nothing_booked
from fastconv._ext.epilogue cimport Epilogue, pixel_pitch
from fastconv._ext.runtime cimport fc_ops, ops, threads_for

ctypedef fused real:
    float
    double


# Rows that wait for the filters, and those behind them, stay in L2.
cdef Py_ssize_t WAITING_BYTES = 256 * 1024


cdef struct Strips:
    Correlation before, through, behind   # 1x1, one filter a channel, 1x1
    bint expands, projects                # whether there is one before, and behind
    Py_ssize_t rows                       # of the filters' result, a strip
    Py_ssize_t capacity, row_bytes        # how many rows can wait, and the bytes of one
    Py_ssize_t ranges, range_rows         # tasks for threads: ranges of the result's rows
    Py_ssize_t waiting, between           # bytes of a thread for rows before and behind the filters
    int threads


cdef void cut(Strips *a, double work) noexcept nogil:
    """Cut the result into ranges for threads, and those into strips."""
    cdef const Correlation *t = &a.through
    cdef Py_ssize_t rows = t.image.rows
    a.row_bytes = t.image.w * t.image.c * t.image.size
    a.capacity = max(t.image.reach_r, min(t.image.h, WAITING_BYTES // a.row_bytes))
    if a.expands:
        a.rows = (a.capacity - t.image.reach_r) // t.image.sr + 1
    else:
        a.rows = max(1, WAITING_BYTES // (t.image.cols * t.image.c * t.image.size))
    a.rows = min(a.rows, rows)
    a.threads = threads_for(work)
    a.ranges = 1
    if a.threads > 1:
        a.ranges = min(ceil_div(2 * a.threads, t.n), ceil_div(rows, a.rows))
    a.range_rows = ceil_div(rows, a.ranges)
    a.ranges = ceil_div(rows, a.range_rows)
    a.waiting = aligned(a.capacity * a.row_bytes) if a.expands else 0
    a.between = aligned(a.rows * t.image.cols * t.image.c * t.image.size) if a.projects else 0


cdef void run_range(const Strips *a, Py_ssize_t task, char *buffer) noexcept nogil:
    """Run one task: a range of rows of one image."""
    cdef const Correlation *t = &a.through
    cdef Py_ssize_t size = t.image.size, n = task // a.ranges, row = task % a.ranges * a.range_rows
    cdef Py_ssize_t end = min(t.image.rows, row + a.range_rows), rows, need, last, pixel, count
    cdef Py_ssize_t base = 0, there = 0   # the rows base .. there-1 wait
    cdef char *between = buffer + a.waiting
    cdef const char *x
    while row < end:
        rows = min(a.rows, end - row)
        x = t.image.x + n * t.image.h * a.row_bytes
        if a.expands:
            need = min(t.image.h, max(0, row * t.image.sr - t.image.top))
            last = max(need, min(t.image.h, (row + rows - 1) * t.image.sr - t.image.top + t.image.reach_r))
            if need >= there:
                base = there = need
            elif last - base > a.capacity:
                memmove(buffer, buffer + (need - base) * a.row_bytes, (there - need) * a.row_bytes)
                base = need
            if last > there:
                pixel = (n * t.image.h + there) * t.image.w
                correlate_pixels(&a.before, a.before.image.x + pixel * a.before.image.c * size,
                                 (last - there) * t.image.w, buffer + (there - base) * a.row_bytes, 0, 0)
                there = last
            x = buffer - base * a.row_bytes
        pixel = (n * t.image.rows + row) * t.image.cols
        if a.projects:
            depthwise_rows(t, x, row, rows, 0, t.image.c, between, 0, 0)
            count = rows * t.image.cols
            correlate_pixels(&a.behind, between, count, a.behind.y + pixel * a.behind.y_col * size, 0,
                             pixel * a.behind.e.add_col)
        else:
            depthwise_rows(t, x, row, rows, 0, t.image.c, t.y + pixel * t.y_col * size, 0, pixel * t.e.add_col)
        row += rows


cdef void place(Correlation *a, Geometry g, const Scratch *s, const char *weight) noexcept nogil:
    """Lay out the taps of one convolution, and pack its weights."""
    lay_taps(a, g, s)
    if not a.depthwise:
        lay_out_taps(a, get(s, SEGMENTS))
    a.panels = get(s, PANELS)
    pack_taps(a.table, weight, g, False, <const Py_ssize_t *>get(s, TAPS), a.ntaps, get(s, PANELS))


def strips(const real[:, :, :, ::1] x, tuple weights, real[:, :, :, :] y, tuple geometries, tuple epilogues,
           bint expands, bint projects, scratch):
    """Write y (N, P, Q, K): two or three convolutions of x (N, H, W, C), one after the other.

    The one of one filter a channel stands behind a 1x1 convolution where ``expands``, before one where ``projects``.
    The pixels of y may lie at any one distance. Epilogues have no `pre`, those but the last no `add`.
    """
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Strips a
    cdef Correlation *stages[3]
    cdef Scratch s[3]
    cdef const real[:, :, :, ::1] weight
    cdef Geometry g, last = geometries[len(geometries) - 1]
    cdef Epilogue e
    cdef Py_ssize_t pitch = pixel_pitch(y.shape, y.strides, sizeof(real)), total = 0, i, task
    cdef double work = 0
    a.expands, a.projects = expands, projects
    stages[0], stages[1], stages[2] = &a.before, &a.through, &a.behind
    if not expands:
        stages[0], stages[1] = &a.through, &a.behind
    for i in range(len(geometries)):
        g, e = geometries[i], epilogues[i]
        e.check(sizeof(real), g.n * g.p * g.q, g.k)
        if e.e.pre != NULL or (e.e.add != NULL and g is not last):
            raise ValueError("strips: no convolution keeps what its activation is given, none but the last adds")
        nothing_booked(&s[i])
        describe(stages[i], g, table, pitch if g is last else g.k, False, &s[i])
        stages[i].e = e.e
        stages[i].e.add_image, stages[i].e.add_row = g.p * g.q * e.e.add_col, g.q * e.e.add_col
        work += g.work()
        total += booked(&s[i])
    if last.n == 0:
        return
    cut(&a, work)
    cdef Py_ssize_t own = a.waiting + a.between
    cdef unsigned char[::1] arena = scratch(total + a.threads * own)
    cdef char *buffers = <char *>&arena[0]
    for i in range(len(geometries)):
        s[i].base = buffers
        buffers += booked(&s[i])
        weight = weights[i]
        place(stages[i], geometries[i], &s[i], <const char *>&weight[0, 0, 0, 0])
    stages[0].image.x = <const char *>&x[0, 0, 0, 0]
    stages[len(geometries) - 1].y = <char *>&y[0, 0, 0, 0]
    with nogil:
        for task in prange(a.through.n * a.ranges, schedule='static', num_threads=a.threads):
            run_range(&a, task, buffers + threadid() * own)
