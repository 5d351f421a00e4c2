"""Residual cores: which thread walks which chunk, forward and backward.

Forward, threads share the lanes of the batch and meet only at the end. Backward, they take chunks in turn, and what
a thread recomputes it reads again itself, out of its own cache. Only the gradient of the state goes through chunk after
chunk, from thread to thread; while the others have it, a thread updates the weights of its last chunk and recomputes
its next one. They meet through one counter, within one parallel region: to wake a sleeping thread for each chunk would
cost as much as a short chunk takes. A walk that waits for its own results, and one with fewer registers than threads,
takes the registers of half the length: their latencies are shorter, and there are two of them.
"""

from cython.parallel cimport parallel, prange
from libc.math cimport sqrt
from libc.string cimport memcpy

from fastconv._ext.runtime cimport FC_DEEP_GROUP, FC_DEEP_WIDE, fc_deep, fc_ops, ops, ops_shorter, threads_for

cdef extern from *:
    """
    #include <stddef.h>
    #ifdef _OPENMP
    #include <omp.h>
    #define fc_team() omp_get_num_threads()
    #define fc_rank() omp_get_thread_num()
    #else
    #define fc_team() 1
    #define fc_rank() 0
    #endif

    #ifdef _MSC_VER
    #include <windows.h>
    #define fc_publish(p, v) (MemoryBarrier(), *(volatile ptrdiff_t *)(p) = (v))
    #define fc_look(p) (*(volatile ptrdiff_t *)(p))
    #define fc_pause() YieldProcessor()
    #define fc_yield() SwitchToThread()
    #else
    #include <sched.h>
    #define fc_publish(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    #define fc_look(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #if defined(__x86_64__)
    #define fc_pause() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define fc_pause() __asm__ volatile("yield")
    #else
    #define fc_pause() (void)0
    #endif
    #define fc_yield() sched_yield()
    #endif

    /* what another core wrote last, or none yet, is on its way; of a large state the beginning */
    static void fc_fetch(const void *p, size_t n)
    {
    #ifdef __GNUC__
        for (size_t i = 0; i < n && i < 1024; i += 64)
            __builtin_prefetch((const char *)p + i);
    #endif
    }

    /* until *p is v: some 20 microseconds of looking, then others may have the processor between two looks */
    static void fc_await(const ptrdiff_t *p, ptrdiff_t v)
    {
        for (int looks = 0; fc_look(p) != v; looks++) {
            if (looks < 500)
                fc_pause();
            else
                fc_yield();
        }
    }
    """
    int fc_team() nogil
    int fc_rank() nogil
    void fc_publish(Py_ssize_t *p, Py_ssize_t v) nogil
    void fc_fetch(const void *p, size_t n) nogil
    void fc_await(const Py_ssize_t *p, Py_ssize_t v) nogil


ctypedef fused real:
    float
    double


cdef enum:
    AHEAD = 2048  # numbers that a forward walk prefetches ahead, two pages; a layer, where that is longer


def lanes(int kind):
    """Return the lanes of a register in the active table."""
    return ops(kind).lanes


cdef bint waits(Py_ssize_t width, Py_ssize_t blocks) noexcept nogil:
    # Whether a walk mostly waits for its own results. Two short registers then take less time than a long one.
    return width <= 4 and blocks == 1


cdef Py_ssize_t group(const fc_ops *table, Py_ssize_t width) noexcept nogil:
    # Number of samples that a forward walk takes together.
    return table.lanes if width < FC_DEEP_WIDE else FC_DEEP_GROUP


cdef void describe(fc_deep *a, Py_ssize_t width, Py_ssize_t blocks, int activation, double alpha) noexcept nogil:
    a.width = width
    a.blocks = blocks
    a.activation = activation
    a.alpha = alpha
    a.root = sqrt(alpha)


cdef void forward_part(
    const fc_ops *table, fc_deep a, const real *w, real *h, real *marks, Py_ssize_t layers, Py_ssize_t chunk
) noexcept nogil:
    # Take the groups of lanes of h from a.first on through all layers. marks (chunks, blocks, D, 16) gets the state
    # before each chunk.
    cdef Py_ssize_t row = a.width * (a.width + 1), state = a.blocks * a.width * 16
    cdef Py_ssize_t c, v, k, at, lanes = group(table, a.width)
    a.h = h
    a.ahead = max(<Py_ssize_t>AHEAD, row)
    for c in range((layers + chunk - 1) // chunk):
        if marks != NULL:
            for v in range(a.first, a.first + a.vectors):
                at = v * lanes // 16 * a.width * 16 + v * lanes % 16
                for k in range(a.width):
                    memcpy(marks + c * state + at + k * 16, h + at + k * 16, lanes * sizeof(real))
        a.layers = min(chunk, layers - c * chunk)
        a.w = w + c * chunk * row
        table.deep_forward(&a)


def forward(
    const real[:, ::1] weights,
    real[:, :, ::1] h,
    real[:, :, :, ::1] marks,
    Py_ssize_t chunk,
    int activation,
    double alpha,
):
    """Replace the state h (blocks, D, 16) by the one after all layers of weights (L, D * D + D).

    marks (chunks, blocks, D, 16), unless None, receives the state before each chunk.
    """
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t layers = weights.shape[0], blocks = h.shape[0], width = h.shape[1]
    cdef int threads = threads_for(<double>layers * blocks * 16 * (width + 8) * width)
    cdef Py_ssize_t count, parts, p
    cdef fc_deep a
    cdef real *saved = NULL
    if layers == 0 or blocks == 0:
        return
    if waits(width, blocks) or width < FC_DEEP_WIDE and blocks * 16 // table.lanes < threads:
        table = ops_shorter(sizeof(real) // 4 - 1)
    count = blocks * 16 // group(table, width)
    parts = min(<Py_ssize_t>threads, count)
    if marks is not None:
        saved = &marks[0, 0, 0, 0]
    with nogil:
        describe(&a, width, blocks, activation, alpha)
        for p in prange(parts, schedule='static', num_threads=threads):
            forward_range(table, &a, &weights[0, 0], &h[0, 0, 0], saved, layers, chunk,
                          p * count // parts, (p + 1) * count // parts)


cdef void forward_range(
    const fc_ops *table, const fc_deep *shared, const real *w, real *h, real *marks, Py_ssize_t layers,
    Py_ssize_t chunk, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    cdef fc_deep a = shared[0]
    a.first = first
    a.vectors = end - first
    forward_part(table, a, w, h, marks, layers, chunk)


cdef struct walk:
    Py_ssize_t layers, chunk, row, state, tape_size, chunks


cdef void place(fc_deep *a, const walk *s, Py_ssize_t c, Py_ssize_t turns, const real *w, real *w_new,
                const real *marks, real *tape) noexcept nogil:
    # Point a at chunk c, which chunk c - turns will follow. Before the first chunk, a has no layers.
    a.layers = min(s.chunk, s.layers - c * s.chunk) if c >= 0 else 0
    c = max(c, <Py_ssize_t>0)
    a.w = w + c * s.chunk * s.row
    a.w_new = w_new + c * s.chunk * s.row
    a.h = <void *>(marks + c * s.state)
    a.tape = tape
    a.ahead = -turns * s.chunk * s.row


def backward(
    const real[:, ::1] weights,
    real[:, ::1] updated,
    real[:, :, ::1] g,
    const real[:, :, :, ::1] marks,
    real[:, ::1] tapes,
    real[::1] scratch,
    Py_ssize_t chunk,
    int activation,
    double alpha,
    double rate,
):
    """Walk all layers back: replace g (blocks, D, 16) and set updated = weights - rate * gradient.

    updated may be weights itself. marks as forward left them; tapes (threads at most, chunk * 2 * blocks * D * 16);
    scratch (blocks * D * 16).
    """
    cdef const fc_ops *table = ops(sizeof(real) // 4 - 1)
    cdef Py_ssize_t blocks = g.shape[0], width = g.shape[1], layers = weights.shape[0]
    cdef int threads = min(<int>tapes.shape[0], threads_for(<double>layers * blocks * 16 * (width + 8) * width))
    cdef Py_ssize_t walked
    cdef fc_deep a
    cdef walk s
    if layers == 0 or blocks == 0:
        return
    s.layers = layers
    s.chunk = chunk
    s.row = width * (width + 1)
    s.state = blocks * width * 16
    s.tape_size = tapes.shape[1]
    walked = s.chunks = (layers + chunk - 1) // chunk
    threads = min(<Py_ssize_t>threads, s.chunks)
    with nogil:
        describe(&a, width, blocks, activation, alpha)
        a.g = &g[0, 0, 0]
        a.rate = rate
        a.scratch = &scratch[0]
        with parallel(num_threads=threads):
            if fc_team() == 1:
                alone(table, &a, &s, &weights[0, 0], &updated[0, 0], &marks[0, 0, 0, 0], &tapes[0, 0])
            else:
                take_turns(table, &a, &s, &walked, fc_rank(), fc_team(), &weights[0, 0], &updated[0, 0],
                           &marks[0, 0, 0, 0], &tapes[0, 0])


cdef void take_turns(const fc_ops *table, const fc_deep *shared, const walk *s, Py_ssize_t *walked, int rank, int team,
                     const real *w, real *w_new, const real *marks, real *tapes) noexcept nogil:
    # This thread owns a tape and every team-th chunk; walked is the last chunk that the gradient has passed.
    cdef fc_deep a = shared[0], b = shared[0]
    cdef const fc_ops *again = ops_shorter(sizeof(real) // 4 - 1) if waits(a.width, a.blocks) else table
    cdef real *tape = tapes + rank * s.tape_size
    cdef Py_ssize_t c = s.chunks - 1 - (s.chunks - 1 - rank) % team
    place(&b, s, c, team, w, w_new, marks, tape)
    again.deep_recompute(&b)
    while c >= 0:
        a = b
        place(&b, s, c - team, team, w, w_new, marks, tape)
        fc_fetch(a.g, s.state * sizeof(real))
        fc_fetch(b.h, s.state * sizeof(real))
        fc_await(walked, c + 1)
        table.deep_gradient(&a)
        fc_publish(walked, c)
        table.deep_update(&a, &b)
        c = c - team


cdef void alone(const fc_ops *table, const fc_deep *shared, const walk *s, const real *w, real *w_new,
                const real *marks, real *tapes) noexcept nogil:
    # A thread on its own uses two tapes in turn.
    cdef fc_deep a = shared[0], b = shared[0]
    cdef Py_ssize_t c
    place(&b, s, s.chunks - 1, 1, w, w_new, marks, tapes + ((s.chunks - 1) & 1) * s.tape_size)
    table.deep_recompute(&b)
    for c in range(s.chunks - 1, -1, -1):
        a = b
        place(&b, s, c - 1, 1, w, w_new, marks, tapes + ((c - 1) & 1) * s.tape_size)
        table.deep_both(&a, &b)
