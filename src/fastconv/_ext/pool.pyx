"""Max and mean pooling: geometry, blocks and threads around the kernels of pool.inc.h.

A task is a block of rows of one image, and for few large images a part of its channels too. Nothing is summed
across tasks, so blocks and threads change no bit.
"""

from cython.parallel cimport prange, threadid

from fastconv._ext.runtime cimport fc_axis, fc_ops, fc_pool, fc_span, fc_visit, ops, threads_for

ctypedef fused real:
    float
    double

# Input elements of a task: enough to pay for a call, few enough to balance threads.
cdef Py_ssize_t TASK_ELEMENTS = 32 * 1024
# Channels are cut at multiples of this, a whole number of vectors in every table.
cdef Py_ssize_t CHANNELS = 64


cdef class Axis:
    """The windows along one axis, from both sides.

    spans (outputs, 4) are first, count, tap and size of each window; visits (.., 2) are window and tap, those of
    input element i from heads[i] to heads[i + 1].
    """
    cdef readonly Py_ssize_t inputs, outputs, kernel, step
    cdef readonly bint tiled
    cdef readonly const Py_ssize_t[:, ::1] spans, visits
    cdef readonly const Py_ssize_t[::1] heads

    def __init__(self, Py_ssize_t inputs, Py_ssize_t kernel, Py_ssize_t step, const Py_ssize_t[:, ::1] spans,
                 const Py_ssize_t[::1] heads, const Py_ssize_t[:, ::1] visits):
        self.inputs, self.outputs, self.kernel, self.step = inputs, spans.shape[0], kernel, step
        self.spans, self.heads, self.visits = spans, heads, visits
        self.tiled = step == 1
        cdef Py_ssize_t i, end = 0
        for i in range(self.outputs):
            self.tiled = self.tiled and spans[i, 0] == end
            end = spans[i, 0] + spans[i, 1]

    cdef fc_axis pointers(self) noexcept:
        cdef fc_axis a
        a.inputs, a.outputs, a.kernel, a.step = self.inputs, self.outputs, self.kernel, self.step
        a.spans = <const fc_span *>&self.spans[0, 0]
        a.heads = &self.heads[0]
        a.visits = <const fc_visit *>&self.visits[0, 0]
        return a


cdef class Geometry:
    """The windows of an image: rows and columns, and how many taps one has."""
    cdef readonly Axis h, w
    cdef readonly Py_ssize_t taps

    def __init__(self, Axis h, Axis w):
        self.h, self.w = h, w
        self.taps = h.kernel * w.kernel


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef struct Job:
    # rows [0, rows) of each of n images in blocks, channels in parts
    fc_pool pool
    const fc_ops *table
    Py_ssize_t n, rows, block, blocks, parts
    int threads


cdef Job plan(Geometry g, Py_ssize_t n, Py_ssize_t c, Py_ssize_t arg_size, bint by_input, int kind) noexcept:
    """Cut the work; rows are input rows where the gradient gathers (by_input), else output rows."""
    cdef Job job
    job.table = ops(kind)
    job.pool.h, job.pool.w = g.h.pointers(), g.w.pointers()
    job.pool.pitch = job.pool.channels = c
    job.pool.arg_size = arg_size
    job.pool.tiled = g.h.tiled and g.w.tiled
    job.n = n
    job.rows = g.h.inputs if by_input else g.h.outputs
    cdef Py_ssize_t image = max(g.h.inputs * g.w.inputs, g.h.outputs * g.w.outputs) * c
    job.threads = threads_for(<double>n * image * 2)
    job.block = max(1, min(job.rows, TASK_ELEMENTS * job.rows // image))
    while job.threads > 1 and n * ceil_div(job.rows, job.block) < 4 * job.threads and job.block > 1:
        job.block = ceil_div(job.block, 2)
    job.blocks = ceil_div(job.rows, job.block)
    job.parts = 1
    if job.threads > 1 and n * job.blocks < 2 * job.threads:
        job.parts = min(ceil_div(c, CHANNELS), ceil_div(2 * job.threads, n * job.blocks))
    return job


cdef struct Task:
    fc_pool pool
    Py_ssize_t image, begin, end, channel


cdef Task cut(const Job *job, Py_ssize_t index) noexcept nogil:
    """Return one of the n * blocks * parts tasks."""
    cdef Task t
    cdef Py_ssize_t c = job.pool.pitch, units = ceil_div(c, CHANNELS)
    cdef Py_ssize_t part = index % job.parts, block = index // job.parts % job.blocks
    t.pool = job.pool
    t.image = index // job.parts // job.blocks
    t.begin, t.end = block * job.block, min(job.rows, (block + 1) * job.block)
    t.channel = units * part // job.parts * CHANNELS
    t.pool.channels = min(c, units * (part + 1) // job.parts * CHANNELS) - t.channel
    return t


def max_pool(const real[:, :, :, ::1] x, real[:, :, :, ::1] y, unsigned char[:, :, :, ::1] arg,
             Py_ssize_t arg_size, Geometry g):
    """Write y (N, P, Q, C) and, unless arg_size is 0, the bytes of the positions within the windows."""
    cdef Py_ssize_t n = x.shape[0], index, tasks
    if n == 0:
        return
    cdef Job job = plan(g, n, x.shape[3], arg_size, False, sizeof(real) // 4 - 1)
    cdef char *positions = <char *>&arg[0, 0, 0, 0] if arg_size else NULL
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        max_pool_task(&job, index, &x[0, 0, 0, 0], &y[0, 0, 0, 0], positions)


cdef void max_pool_task(const Job *job, Py_ssize_t index, const real *x, real *y, char *arg) noexcept nogil:
    cdef Task t = cut(job, index)
    cdef Py_ssize_t out = t.image * t.pool.h.outputs * t.pool.w.outputs * t.pool.pitch + t.channel
    if arg != NULL:
        arg += out * t.pool.arg_size
    x += t.image * t.pool.h.inputs * t.pool.w.inputs * t.pool.pitch + t.channel
    job.table.max_pool(&t.pool, x, y + out, arg, t.begin, t.end)


def avg_pool(const real[:, :, :, ::1] x, real[:, :, :, ::1] y, Geometry g):
    """Write y (N, P, Q, C): the means of the windows."""
    cdef Py_ssize_t n = x.shape[0], index, tasks
    if n == 0:
        return
    cdef Job job = plan(g, n, x.shape[3], 0, False, sizeof(real) // 4 - 1)
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        avg_pool_task(&job, index, &x[0, 0, 0, 0], &y[0, 0, 0, 0])


cdef void avg_pool_task(const Job *job, Py_ssize_t index, const real *x, real *y) noexcept nogil:
    cdef Task t = cut(job, index)
    x += t.image * t.pool.h.inputs * t.pool.w.inputs * t.pool.pitch + t.channel
    y += t.image * t.pool.h.outputs * t.pool.w.outputs * t.pool.pitch + t.channel
    job.table.avg_pool(&t.pool, x, y, t.begin, t.end)


def max_pool_backward(const real[:, :, :, ::1] grad_y, const unsigned char[:, :, :, ::1] arg, Py_ssize_t arg_size,
                      real[:, :, :, ::1] grad_x, Geometry g):
    """Write grad_x (N, H, W, C) from grad_y (N, P, Q, C) and the positions of the maxima."""
    cdef Py_ssize_t n = grad_x.shape[0], index, tasks
    if n == 0:
        return
    cdef bint tiled = g.h.tiled and g.w.tiled
    cdef Job job = plan(g, n, grad_x.shape[3], arg_size, not tiled, sizeof(real) // 4 - 1)
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        max_backward_task(&job, index, &grad_y[0, 0, 0, 0], <const char *>&arg[0, 0, 0, 0], &grad_x[0, 0, 0, 0])


cdef void max_backward_task(const Job *job, Py_ssize_t index, const real *grad_y, const char *arg,
                            real *grad_x) noexcept nogil:
    cdef Task t = cut(job, index)
    cdef Py_ssize_t out = t.image * t.pool.h.outputs * t.pool.w.outputs * t.pool.pitch + t.channel
    grad_x += t.image * t.pool.h.inputs * t.pool.w.inputs * t.pool.pitch + t.channel
    job.table.max_pool_backward(&t.pool, grad_y + out, arg + out * t.pool.arg_size, grad_x, t.begin, t.end)


def avg_pool_backward(const real[:, :, :, ::1] grad_y, real[:, :, :, ::1] grad_x, Geometry g, scratch):
    """Write grad_x (N, H, W, C) from grad_y (N, P, Q, C); ``scratch(nbytes)`` lends memory."""
    cdef Py_ssize_t n = grad_x.shape[0], c = grad_x.shape[3], index, tasks, rows = 0, i, first, last
    if n == 0:
        return
    cdef bint tiled = g.h.tiled and g.w.tiled
    cdef Job job = plan(g, n, c, 0, not tiled, sizeof(real) // 4 - 1)
    if not tiled:  # a thread's scratch holds the output rows that any block of input rows is in
        for i in range(0, job.rows, job.block):
            first, last = g.h.heads[i], g.h.heads[min(job.rows, i + job.block)]
            if first < last:
                rows = max(rows, g.h.visits[last - 1, 0] + 1 - g.h.visits[first, 0])
    cdef Py_ssize_t share = rows * g.w.outputs * c + 16
    cdef unsigned char[::1] arena = scratch(job.threads * share * sizeof(real))
    cdef real *scaled = <real *>&arena[0]
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        avg_backward_task(&job, index, &grad_y[0, 0, 0, 0], &grad_x[0, 0, 0, 0], scaled + threadid() * share)


cdef void avg_backward_task(const Job *job, Py_ssize_t index, const real *grad_y, real *grad_x,
                            real *scaled) noexcept nogil:
    cdef Task t = cut(job, index)
    grad_y += t.image * t.pool.h.outputs * t.pool.w.outputs * t.pool.pitch + t.channel
    grad_x += t.image * t.pool.h.inputs * t.pool.w.inputs * t.pool.pitch + t.channel
    job.table.avg_pool_backward(&t.pool, grad_y, grad_x, scaled, t.begin, t.end)
