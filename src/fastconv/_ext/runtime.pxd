"""The kernel table and the thread policy, for the other extension modules.

A module takes its table once a call, `ops(kind)`, and uses that snapshot to the end: forcing another
instruction set meanwhile changes later calls only.
"""

from libc.stdint cimport int64_t

cdef extern from "kernels.h" nogil:
    enum: FC_OUTPUT, FC_INPUT, FC_EITHER
    enum: FC_ACT_none, FC_ACT_relu

    ctypedef struct fc_epilogue:
        const void *bias
        const void *scale
        const void *shift
        const void *add
        Py_ssize_t add_image
        Py_ssize_t add_row
        Py_ssize_t add_col
        void *pre
        int activation
        double a
        double b
        const void *slopes

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
        Py_ssize_t nr
        void *panels

    ctypedef struct fc_rows:
        const void *x
        Py_ssize_t x_image
        Py_ssize_t x_row
        Py_ssize_t x_col
        const fc_segment *segments
        Py_ssize_t depth
        const void *w
        Py_ssize_t w_panel
        Py_ssize_t nr
        void *y
        Py_ssize_t y_image
        Py_ssize_t y_row
        Py_ssize_t y_col
        Py_ssize_t images
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        fc_epilogue e
        const void *next[2]
        Py_ssize_t next_bytes[2]

    ctypedef struct fc_planes:
        const void *x
        Py_ssize_t x_image
        Py_ssize_t x_plane
        Py_ssize_t x_row
        const Py_ssize_t *taps
        Py_ssize_t ntaps
        Py_ssize_t nc
        const void *w
        Py_ssize_t w_row
        void *y
        Py_ssize_t y_image
        Py_ssize_t y_row
        Py_ssize_t y_col
        Py_ssize_t images
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        fc_epilogue e

    ctypedef struct fc_thin:
        const void *x
        Py_ssize_t x_row
        Py_ssize_t rows
        Py_ssize_t depth
        const void *w
        Py_ssize_t w_row
        void *y
        Py_ssize_t y_row
        Py_ssize_t channels
        fc_epilogue e

    ctypedef struct fc_abreast:
        const void *x
        Py_ssize_t x_row
        Py_ssize_t x_col
        const Py_ssize_t *taps
        Py_ssize_t ntaps
        Py_ssize_t nc
        const void *w
        Py_ssize_t w_row
        Py_ssize_t in_row
        const Py_ssize_t *tap_c
        Py_ssize_t col
        Py_ssize_t col_step
        Py_ssize_t width
        void *line
        void *y
        Py_ssize_t y_image
        Py_ssize_t y_row
        Py_ssize_t y_col
        Py_ssize_t images
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        fc_epilogue e

    ctypedef struct fc_abreast_outer:
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
        bint fresh
        void *onto

    ctypedef struct fc_depthwise:
        const void *x
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t x_row
        Py_ssize_t x_col
        Py_ssize_t top
        Py_ssize_t left
        Py_ssize_t row_step
        Py_ssize_t col_step
        const Py_ssize_t *tap_r
        const Py_ssize_t *tap_c
        Py_ssize_t ntaps
        Py_ssize_t in_row
        const void *w
        Py_ssize_t w_row
        void *y
        Py_ssize_t y_row
        Py_ssize_t y_col
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t channels
        int by_rows
        int ahead
        fc_epilogue e

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

    enum: FC_RUN_COLUMNS

    ctypedef struct fc_winograd:
        void *x
        Py_ssize_t x_image
        Py_ssize_t x_row
        Py_ssize_t x_col
        Py_ssize_t h
        Py_ssize_t w
        Py_ssize_t side
        Py_ssize_t top
        Py_ssize_t left
        Py_ssize_t dh
        Py_ssize_t dw
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t first
        Py_ssize_t tiles
        Py_ssize_t channels
        const void *zeros
        void *v
        Py_ssize_t v_plane
        Py_ssize_t v_tile
        fc_epilogue e

    ctypedef struct fc_winograd_products:
        const void *a
        Py_ssize_t a_plane
        Py_ssize_t a_row
        Py_ssize_t a_depth
        const void *b
        Py_ssize_t b_plane
        Py_ssize_t b_panel
        Py_ssize_t b_depth
        Py_ssize_t nr
        void *c
        Py_ssize_t c_plane
        Py_ssize_t c_row
        Py_ssize_t planes
        Py_ssize_t rows
        Py_ssize_t lanes
        Py_ssize_t depth
        Py_ssize_t block
        bint more
        const void *ahead[2]
        Py_ssize_t ahead_bytes[2]
        Py_ssize_t a_bytes
        Py_ssize_t b_bytes

    ctypedef struct fc_sgd:
        void *param
        const void *grad
        void *buffer
        double lr
        double momentum
        double dampening
        double weight_decay
        bint nesterov
        bint first_step

    ctypedef struct fc_adam:
        void *param
        const void *grad
        void *average
        void *square
        double lr
        double beta1
        double beta2
        double eps
        double weight_decay
        double step_size
        double correction2
        bint decoupled

    ctypedef struct fc_rmsprop:
        void *param
        const void *grad
        void *square
        void *buffer
        void *average
        double lr
        double alpha
        double eps
        double weight_decay
        double momentum

    ctypedef struct fc_adagrad:
        void *param
        const void *grad
        void *square
        double lr
        double eps
        double weight_decay

    ctypedef struct fc_average:
        const void *param
        void *average
        double decay

    enum: FC_LOSS_SQUARED, FC_LOSS_ABSOLUTE, FC_LOSS_SMOOTH, FC_LOSS_HUBER, FC_LOSS_LOGISTIC

    ctypedef struct fc_cross_entropy:
        const void *x
        Py_ssize_t classes
        const int64_t *target
        const void *soft
        const void *weight
        const void *sample
        double keep
        double floor
        void *loss
        void *p
        const void *g
        Py_ssize_t g_step

    ctypedef struct fc_dice:
        const void *p
        Py_ssize_t channels
        const int64_t *labels
        const void *dense
        void *grad

    ctypedef struct fc_element_loss:
        int kind
        const void *x
        const void *target
        const void *weight
        const void *positive
        double parameter
        void *out
        const void *g
        Py_ssize_t g_step

    ctypedef struct fc_span:
        Py_ssize_t first
        Py_ssize_t count
        Py_ssize_t tap
        Py_ssize_t size
        Py_ssize_t old

    ctypedef struct fc_axis:
        Py_ssize_t inputs
        Py_ssize_t outputs
        Py_ssize_t kernel
        Py_ssize_t step
        Py_ssize_t begin
        Py_ssize_t end
        Py_ssize_t stride
        Py_ssize_t covered
        const fc_span *spans

    ctypedef struct fc_pool:
        fc_axis h
        fc_axis w
        Py_ssize_t x_pitch
        Py_ssize_t y_pitch
        Py_ssize_t arg_pitch
        Py_ssize_t channels
        Py_ssize_t arg_size
        bint tiled

    enum: FC_DEEP_WIDE, FC_DEEP_GROUP

    ctypedef struct fc_deep:
        Py_ssize_t layers
        Py_ssize_t width
        Py_ssize_t blocks
        Py_ssize_t first
        Py_ssize_t vectors
        int activation
        double alpha
        double root
        double rate
        Py_ssize_t ahead
        const void *w
        void *w_new
        void *h
        void *g
        void *tape
        void *scratch

    # The fields of the table; one line a kernel, in the order and with the parameters of ops.inc.
    ctypedef struct fc_ops:
        Py_ssize_t size
        Py_ssize_t lanes
        Py_ssize_t mr
        Py_ssize_t nr
        # pack, rows, planes, thin, outer, depthwise, sums.inc.h
        void (*pack)(const fc_pack *a) noexcept nogil
        void (*rows)(const fc_rows *a) noexcept nogil
        void (*deinterleave)(const void *x, Py_ssize_t n, Py_ssize_t c, void *planes,
                             Py_ssize_t pitch) noexcept nogil
        void (*planes)(const fc_planes *a) noexcept nogil
        void (*thin)(const fc_thin *a) noexcept nogil
        void (*outer)(const fc_outer *a) noexcept nogil
        void (*depthwise)(const fc_depthwise *a) noexcept nogil
        void (*depthwise_outer)(const fc_depthwise_outer *a) noexcept nogil
        void (*column_sums)(const void *x, const Py_ssize_t *first, Py_ssize_t shards, Py_ssize_t c,
                            void *sums) noexcept nogil
        void (*accumulate)(const void *x, void *y, Py_ssize_t n) noexcept nogil
        void (*accumulate_turned)(const void *x, Py_ssize_t x_pitch, Py_ssize_t m, Py_ssize_t n, void *y,
                                  Py_ssize_t y_pitch) noexcept nogil
        # abreast.inc.h
        void (*to_lanes)(const void *x, Py_ssize_t x_image, Py_ssize_t images, Py_ssize_t n, void *lanes) noexcept nogil
        void (*from_lanes)(const void *lanes, Py_ssize_t n, void *y, Py_ssize_t y_image,
                           Py_ssize_t images) noexcept nogil
        void (*abreast)(const fc_abreast *a) noexcept nogil
        void (*abreast_outer)(const fc_abreast_outer *a) noexcept nogil
        # winograd.inc.h
        void (*winograd_filters)(const void *w, Py_ssize_t w_plane, void *u, Py_ssize_t u_plane,
                                 Py_ssize_t n, const fc_pack *next, int taps) noexcept nogil
        void (*winograd_input)(const fc_winograd *a) noexcept nogil
        void (*winograd_products)(const fc_winograd_products *s) noexcept nogil
        void (*winograd_output)(const fc_winograd *a) noexcept nogil
        void (*winograd_gradient)(const fc_winograd *a) noexcept nogil
        void (*winograd_shared)(const fc_winograd *a) noexcept nogil
        void (*winograd_filter_gradient)(const void *m, Py_ssize_t m_plane, void *w, Py_ssize_t w_plane,
                                         Py_ssize_t n, int taps) noexcept nogil
        # epilogue.inc.h
        void (*finish)(const fc_epilogue *e, const void *x, Py_ssize_t x_row, void *y, Py_ssize_t y_row,
                       Py_ssize_t n, Py_ssize_t c) noexcept nogil
        void (*activate_backward)(const fc_epilogue *e, const void *g, Py_ssize_t g_row, const void *known,
                                  Py_ssize_t known_row, void *dx, Py_ssize_t dx_row, Py_ssize_t n,
                                  Py_ssize_t c) noexcept nogil
        # norm.inc.h
        void (*moments)(const void *x, Py_ssize_t n, Py_ssize_t c, void *sum, void *m2) noexcept nogil
        void (*merge_moments)(Py_ssize_t n, void *sum, void *m2,
                              Py_ssize_t n2, const void *sum2, const void *m22, Py_ssize_t c) noexcept nogil
        void (*norm_sums)(const void *g, const void *y, const void *x, const void *mean,
                          Py_ssize_t n, Py_ssize_t c, void *sums) noexcept nogil
        void (*norm_backward)(const void *g, const void *y, const void *x, const void *coef,
                              Py_ssize_t n, Py_ssize_t c, void *dx) noexcept nogil
        void (*drop)(const void *x, const unsigned char *mask, double scale, Py_ssize_t n, void *y) noexcept nogil
        # rownorm.inc.h
        void (*row_norm)(const void *x, Py_ssize_t n, Py_ssize_t d, double eps, void *mean, void *invstd,
                         void *y) noexcept nogil
        void (*row_renorm)(const void *x, Py_ssize_t n, Py_ssize_t d, const void *mean, const void *invstd,
                           void *y) noexcept nogil
        void (*row_norm_backward)(const void *g, const void *weight, Py_ssize_t n, Py_ssize_t d, const void *invstd,
                                  void *dx) noexcept nogil
        # optim.inc.h
        void (*sgd)(const fc_sgd *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*adam)(const fc_adam *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*rmsprop)(const fc_rmsprop *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*adagrad)(const fc_adagrad *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*average)(const fc_average *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        # probe.inc.h
        void (*fma_throughput)(Py_ssize_t n, void *sink) noexcept nogil
        void (*fma_latency)(Py_ssize_t n, void *sink) noexcept nogil
        # elementwise.inc.h
        void (*exp)(const void *x, void *y, Py_ssize_t n) noexcept nogil
        void (*log)(const void *x, void *y, Py_ssize_t n) noexcept nogil
        void (*add)(const void *a, const void *b, void *y, Py_ssize_t n) noexcept nogil
        void (*difference)(const void *a, const void *b, double s, void *y, Py_ssize_t n) noexcept nogil
        # loss.inc.h
        void (*softmax)(const void *x, void *y, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
        void (*log_softmax)(const void *x, void *y, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
        void (*softmax_backward)(const void *g, const void *y, void *dx, Py_ssize_t rows,
                                 Py_ssize_t n) noexcept nogil
        void (*log_softmax_backward)(const void *g, const void *y, void *dx, Py_ssize_t rows,
                                     Py_ssize_t n) noexcept nogil
        void (*cross_entropy)(const void *x, const int64_t *target, void *loss, void *p, Py_ssize_t rows,
                              Py_ssize_t n) noexcept nogil
        void (*cross_entropy_backward)(const void *g, Py_ssize_t g_step, const void *p,
                                       const int64_t *target, void *dx, Py_ssize_t rows,
                                       Py_ssize_t n) noexcept nogil
        void (*margin)(const void *x, const int64_t *target, double margin, void *loss, Py_ssize_t rows,
                       Py_ssize_t n) noexcept nogil
        void (*margin_backward)(const void *g, Py_ssize_t g_step, const void *x, const int64_t *target,
                                double margin, void *dx, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
        void (*squared_error)(const void *a, const void *b, void *sum, Py_ssize_t n) noexcept nogil
        void (*weighted_cross_entropy)(const fc_cross_entropy *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*weighted_cross_entropy_backward)(const fc_cross_entropy *a, Py_ssize_t first,
                                                Py_ssize_t last) noexcept nogil
        void (*dice_sums)(const fc_dice *a, Py_ssize_t first, Py_ssize_t last, double *sums) noexcept nogil
        void (*dice_backward)(const fc_dice *a, const void *u, const void *v, Py_ssize_t first,
                              Py_ssize_t last) noexcept nogil
        # element_loss.inc.h
        void (*element_loss)(const fc_element_loss *a, Py_ssize_t first, Py_ssize_t last, void *sum) noexcept nogil
        void (*element_loss_backward)(const fc_element_loss *a, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*powers)(const void *x, int power, void *sum, Py_ssize_t n) noexcept nogil
        # pool.inc.h
        void (*max_pool)(const fc_pool *a, const void *x, void *y, void *arg,
                         Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*avg_pool)(const fc_pool *a, const void *x, void *y, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*max_pool_backward)(const fc_pool *a, const void *g, const void *arg, void *gx,
                                  Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        void (*avg_pool_backward)(const fc_pool *a, const void *g, void *gx,
                                  Py_ssize_t begin, Py_ssize_t end) noexcept nogil
        # deep.inc.h
        void (*deep_forward)(const fc_deep *a) noexcept nogil
        void (*deep_recompute)(const fc_deep *a) noexcept nogil
        void (*deep_gradient)(const fc_deep *a) noexcept nogil
        void (*deep_update)(const fc_deep *a, const fc_deep *c) noexcept nogil
        void (*deep_both)(const fc_deep *a, const fc_deep *c) noexcept nogil


# kind: 0 float32, 1 float64 (sizeof(real) // 4 - 1 in a fused function)
cdef const fc_ops *ops(int kind) noexcept nogil

cdef const fc_ops *ops_shorter(int kind) noexcept nogil

# What an element that is read and written costs beside its arithmetic, in scalar operations: such a pass waits for
# memory, more so where another thread wrote what it reads.
cdef enum:
    MOVING = 7

# Threads for a loop of `work` scalar operations: 1 where starting them would cost more than they save.
cdef int threads_for(double work) noexcept nogil
