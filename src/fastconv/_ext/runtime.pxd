"""The kernel table and the thread policy, for the other extension modules.

A module takes its table once a call, `ops(kind)`, and uses that snapshot to the end: forcing another
instruction set meanwhile changes later calls only.
"""

cdef extern from "kernels.h" nogil:
    ctypedef struct fc_segment:
        Py_ssize_t offset
        Py_ssize_t length

    ctypedef struct fc_pack:
        const void *w
        Py_ssize_t lane_pitch
        Py_ssize_t c_pitch
        const Py_ssize_t *taps
        Py_ssize_t ntaps
        Py_ssize_t nc
        Py_ssize_t lanes
        void *panels

    ctypedef struct fc_rows:
        const void *x
        Py_ssize_t x_row
        Py_ssize_t x_col
        const fc_segment *segments
        Py_ssize_t nsegments
        Py_ssize_t depth
        const void *w
        const void *bias
        void *y
        Py_ssize_t y_row
        Py_ssize_t y_col
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        bint relu

    ctypedef struct fc_outer:
        const void *x
        Py_ssize_t x_row
        Py_ssize_t x_col
        const Py_ssize_t *taps
        Py_ssize_t m
        const void *g
        Py_ssize_t g_row
        Py_ssize_t g_col
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        void *dw
        Py_ssize_t dw_row

    ctypedef struct fc_depthwise:
        const void *x
        Py_ssize_t x_row
        Py_ssize_t x_col
        const Py_ssize_t *taps
        Py_ssize_t ntaps
        const void *w
        Py_ssize_t w_row
        const void *bias
        void *y
        Py_ssize_t y_row
        Py_ssize_t y_col
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        bint relu

    ctypedef struct fc_depthwise_outer:
        const void *x
        Py_ssize_t x_row
        Py_ssize_t x_col
        const Py_ssize_t *taps
        Py_ssize_t ntaps
        const void *g
        Py_ssize_t g_row
        Py_ssize_t g_col
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        void *dw
        Py_ssize_t dw_row

    # The fields of the table; one line a kernel, in the order and with the parameters of ops.inc.
    ctypedef struct fc_ops:
        Py_ssize_t size
        Py_ssize_t lanes
        Py_ssize_t mr
        Py_ssize_t nr
        Py_ssize_t kc
        # gemm.inc.h
        void (*pack)(const fc_pack *a) noexcept nogil
        void (*rows)(const fc_rows *a) noexcept nogil
        void (*outer)(const fc_outer *a) noexcept nogil
        void (*depthwise)(const fc_depthwise *a) noexcept nogil
        void (*depthwise_outer)(const fc_depthwise_outer *a) noexcept nogil
        void (*column_sum)(const void *x, Py_ssize_t n, Py_ssize_t c, void *sum) noexcept nogil
        void (*accumulate)(const void *x, void *y, Py_ssize_t n) noexcept nogil
        void (*bias_add)(const void *x, const void *b, void *y, Py_ssize_t n, Py_ssize_t c, int relu) noexcept nogil
        void (*relu_mask)(const void *g, const void *y, void *out, Py_ssize_t n) noexcept nogil


# kind: 0 float32, 1 float64 (sizeof(real) // 4 - 1 in a fused function)
cdef const fc_ops *ops(int kind) noexcept nogil

# Threads for a loop of `work` scalar operations: 1 where starting them would cost more than they save.
cdef int threads_for(double work) noexcept nogil
