"""Max and mean pooling: geometry, blocks and threads around the kernels of pool.inc.h.

Images are read and written with their pixels at any one distance, positions lie together.
A task is a block of rows of one image, and for few large images a part of its channels too. Nothing is summed
across tasks, so blocks and threads change no bit.
"""

from cython.parallel cimport prange

from fastconv._ext.epilogue cimport Epilogue, pixel_pitch
from fastconv._ext.runtime cimport MOVING, fc_axis, fc_epilogue, fc_ops, fc_pool, fc_span, ops, threads_for

ctypedef fused real:
    float
    double

# Input elements of a task: enough to pay for a call, few enough to balance threads.
cdef Py_ssize_t TASK_ELEMENTS = 32 * 1024
# Channels are cut at multiples of this, a whole number of vectors in every table.
cdef Py_ssize_t CHANNELS = 64


cdef class Axis:
    """The windows along one axis: spans (outputs, 5) are the fields of fc_span for each."""
    cdef readonly Py_ssize_t inputs, outputs, kernel, step, covered
    cdef readonly bint tiled
    cdef readonly const Py_ssize_t[:, ::1] spans
    cdef Py_ssize_t begin, end, stride

    def __init__(self, Py_ssize_t inputs, Py_ssize_t kernel, Py_ssize_t step, Py_ssize_t covered,
                 const Py_ssize_t[:, ::1] spans):
        self.inputs, self.outputs, self.kernel, self.step = inputs, spans.shape[0], kernel, step
        self.covered, self.spans = covered, spans
        cdef Py_ssize_t i
        self.tiled = covered > 0
        for i in range(self.outputs):
            self.tiled = self.tiled and spans[i, 4] == 0
        # Find the first run of windows that are alike: kernels take it without looking at each of them.
        self.begin, self.stride = 0, 1
        while self.begin < self.outputs and not self.alike(self.begin + 1):
            self.begin += 1
        self.end = self.begin
        if self.begin < self.outputs:
            self.stride = spans[self.begin + 1, 0] - spans[self.begin, 0]
            self.end += 2
        while self.alike(self.end) and spans[self.end, 0] - spans[self.end - 1, 0] == self.stride:
            self.end += 1

    cdef bint alike(self, Py_ssize_t i) noexcept:
        """Return whether window i is whole, and like the one before but for its place."""
        if i < 1 or i >= self.outputs or self.spans[i, 1] < self.kernel or self.spans[i - 1, 1] < self.kernel:
            return False
        return (self.spans[i, 0] > self.spans[i - 1, 0] and self.spans[i, 3] == self.spans[i - 1, 3]
                and self.spans[i, 4] == self.spans[i - 1, 4])

    cdef fc_axis pointers(self) noexcept:
        cdef fc_axis a
        a.inputs, a.outputs, a.kernel, a.step = self.inputs, self.outputs, self.kernel, self.step
        a.begin, a.end, a.stride, a.covered = self.begin, self.end, self.stride, self.covered
        a.spans = <const fc_span *>&self.spans[0, 0]
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
    Py_ssize_t n, rows, block, blocks, parts, known_pitch
    int threads


cdef Job plan(Geometry g, Py_ssize_t n, Py_ssize_t c, Py_ssize_t x_pitch, Py_ssize_t y_pitch, Py_ssize_t arg_size,
              bint by_input, int kind) noexcept:
    """Cut the work; rows are input rows where a gradient is added up (by_input), else output rows."""
    cdef Job job
    job.table = ops(kind)
    job.pool.h, job.pool.w = g.h.pointers(), g.w.pointers()
    job.pool.x_pitch, job.pool.y_pitch, job.pool.arg_pitch, job.pool.channels = x_pitch, y_pitch, c, c
    job.pool.arg_size = arg_size
    job.pool.tiled = g.h.tiled and g.w.tiled
    job.n = n
    job.rows = g.h.inputs if by_input else g.h.outputs
    cdef Py_ssize_t image = max(g.h.inputs * g.w.inputs, g.h.outputs * g.w.outputs) * c
    job.threads = threads_for(<double>(MOVING + 1) * n * image)
    # Where gradients add up, two blocks meet at their edges; a block has more rows then.
    job.block = max(1, min(job.rows, (4 if by_input else 1) * TASK_ELEMENTS * job.rows // image))
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
    cdef Py_ssize_t c = job.pool.channels, units = ceil_div(c, CHANNELS)
    cdef Py_ssize_t part = index % job.parts, block = index // job.parts % job.blocks
    t.pool = job.pool
    t.image = index // job.parts // job.blocks
    t.begin, t.end = block * job.block, min(job.rows, (block + 1) * job.block)
    t.channel = units * part // job.parts * CHANNELS
    t.pool.channels = min(c, units * (part + 1) // job.parts * CHANNELS) - t.channel
    return t


cdef inline Py_ssize_t first_input(const Task *t) noexcept nogil:
    return t.image * t.pool.h.inputs * t.pool.w.inputs * t.pool.x_pitch + t.channel


cdef inline Py_ssize_t first_output(const Task *t, Py_ssize_t pitch) noexcept nogil:
    return t.image * t.pool.h.outputs * t.pool.w.outputs * pitch + t.channel


def max_pool(const real[:, :, :, :] x, real[:, :, :, :] y, unsigned char[:, :, :, ::1] arg,
             Py_ssize_t arg_size, Geometry g):
    """Write y (N, P, Q, C) and, unless arg_size is 0, the bytes of the positions within the windows."""
    cdef Py_ssize_t n = x.shape[0], index, tasks
    if n == 0:
        return
    cdef Py_ssize_t x_pitch = pixel_pitch(x.shape, x.strides, sizeof(real))
    cdef Py_ssize_t y_pitch = pixel_pitch(y.shape, y.strides, sizeof(real))
    cdef Job job = plan(g, n, x.shape[3], x_pitch, y_pitch, arg_size, False, sizeof(real) // 4 - 1)
    cdef char *positions = <char *>&arg[0, 0, 0, 0] if arg_size else NULL
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        max_pool_task(&job, index, &x[0, 0, 0, 0], &y[0, 0, 0, 0], positions)


cdef void max_pool_task(const Job *job, Py_ssize_t index, const real *x, real *y, char *arg) noexcept nogil:
    cdef Task t = cut(job, index)
    if arg != NULL:
        arg += first_output(&t, t.pool.arg_pitch) * t.pool.arg_size
    job.table.max_pool(&t.pool, x + first_input(&t), y + first_output(&t, t.pool.y_pitch), arg, t.begin, t.end)


def avg_pool(const real[:, :, :, :] x, real[:, :, :, :] y, Geometry g):
    """Write y (N, P, Q, C): the means of the windows."""
    cdef Py_ssize_t n = x.shape[0], index, tasks
    if n == 0:
        return
    cdef Py_ssize_t x_pitch = pixel_pitch(x.shape, x.strides, sizeof(real))
    cdef Py_ssize_t y_pitch = pixel_pitch(y.shape, y.strides, sizeof(real))
    cdef Job job = plan(g, n, x.shape[3], x_pitch, y_pitch, 0, False, sizeof(real) // 4 - 1)
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        avg_pool_task(&job, index, &x[0, 0, 0, 0], &y[0, 0, 0, 0])


cdef void avg_pool_task(const Job *job, Py_ssize_t index, const real *x, real *y) noexcept nogil:
    cdef Task t = cut(job, index)
    job.table.avg_pool(&t.pool, x + first_input(&t), y + first_output(&t, t.pool.y_pitch), t.begin, t.end)


def max_pool_backward(const real[:, :, :, :] grad_y, const unsigned char[:, :, :, ::1] arg,
                      Py_ssize_t arg_size, real[:, :, :, ::1] grad_x, Geometry g):
    """Write grad_x (N, H, W, C) from grad_y (N, P, Q, C) and the positions of the maxima."""
    cdef Py_ssize_t n = grad_x.shape[0], index, tasks
    if n == 0:
        return
    cdef bint tiled = g.h.tiled and g.w.tiled
    cdef Py_ssize_t c = grad_x.shape[3]
    cdef Py_ssize_t x_pitch = pixel_pitch(grad_x.shape, grad_x.strides, sizeof(real))
    cdef Py_ssize_t y_pitch = pixel_pitch(grad_y.shape, grad_y.strides, sizeof(real))
    cdef Job job = plan(g, n, c, x_pitch, y_pitch, arg_size, not tiled, sizeof(real) // 4 - 1)
    cdef const char *positions = <const char *>&arg[0, 0, 0, 0]
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        max_backward_task(&job, index, &grad_y[0, 0, 0, 0], positions, &grad_x[0, 0, 0, 0])


cdef void max_backward_task(const Job *job, Py_ssize_t index, const real *grad_y, const char *arg,
                            real *grad_x) noexcept nogil:
    cdef Task t = cut(job, index)
    arg += first_output(&t, t.pool.arg_pitch) * t.pool.arg_size
    job.table.max_pool_backward(&t.pool, grad_y + first_output(&t, t.pool.y_pitch), arg, grad_x + first_input(&t),
                                t.begin, t.end)


def avg_pool_backward(const real[:, :, :, :] grad_y, real[:, :, :, ::1] grad_x, Geometry g,
                      const real[:, :, :, :] known=None, Epilogue activation=None):
    """Write grad_x (N, H, W, C) from grad_y (N, P, Q, C).

    With ``known`` (N, H, W, C), the output of the activation before the pooling, its gradient is taken along: each
    block goes through it while it is in a core's cache.
    """
    cdef Py_ssize_t n = grad_x.shape[0], index, tasks
    if n == 0:
        return
    cdef bint tiled = g.h.tiled and g.w.tiled
    cdef Py_ssize_t c = grad_x.shape[3]
    cdef Py_ssize_t x_pitch = pixel_pitch(grad_x.shape, grad_x.strides, sizeof(real))
    cdef Py_ssize_t y_pitch = pixel_pitch(grad_y.shape, grad_y.strides, sizeof(real))
    cdef Job job = plan(g, n, c, x_pitch, y_pitch, 0, not tiled, sizeof(real) // 4 - 1)
    cdef const real *output = NULL
    cdef const fc_epilogue *e = NULL
    if known is not None:
        job.known_pitch = pixel_pitch(known.shape, known.strides, sizeof(real))
        output, e = &known[0, 0, 0, 0], &activation.e
    tasks = n * job.blocks * job.parts
    for index in prange(tasks, nogil=True, schedule='static', num_threads=job.threads):
        avg_backward_task(&job, index, &grad_y[0, 0, 0, 0], &grad_x[0, 0, 0, 0], output, e)


cdef void avg_backward_task(const Job *job, Py_ssize_t index, const real *grad_y, real *grad_x, const real *known,
                            const fc_epilogue *e) noexcept nogil:
    cdef Task t = cut(job, index)
    cdef Py_ssize_t first = t.begin, end = t.end, at
    grad_y += first_output(&t, t.pool.y_pitch)
    grad_x += first_input(&t)
    job.table.avg_pool_backward(&t.pool, grad_y, grad_x, t.begin, t.end)
    if e == NULL:
        return
    if t.pool.tiled:   # rows are those of the output: these are the input's that were written
        first = t.pool.h.spans[t.begin].first if t.begin else 0
        end = t.pool.h.spans[t.end].first if t.end < t.pool.h.outputs else t.pool.h.inputs
    at = first * t.pool.w.inputs
    known += (t.image * t.pool.h.inputs * t.pool.w.inputs + at) * job.known_pitch + t.channel
    grad_x += at * t.pool.x_pitch
    job.table.activate_backward(e, grad_x, t.pool.x_pitch, known, job.known_pitch, grad_x, t.pool.x_pitch,
                                (end - first) * t.pool.w.inputs, t.pool.channels)
