/* Arguments of the kernels that take many. Axis letters: N C H W input, K filters, R S kernel, P Q output. */
#ifndef FC_ARGS_H
#define FC_ARGS_H

/* Activations by number; the gradient of each is made from its output, its input, or either (activations.inc). */
enum { FC_OUTPUT, FC_INPUT, FC_EITHER };
enum {
    FC_ACT_none,
#define FC_ACTIVATION(name, mathematics, known, cost, channels, a, b, parameters) FC_ACT_##name,
#include "activations.inc"
#undef FC_ACTIVATION
};

/* What becomes of a result before it is stored, in this order, each step where there is one:
 *   r + bias[k];  fma(r, scale[k], shift[k]);  r + add[pixel, k];  pre[pixel, k] = r;  act(r)
 * Pointers are those of a kernel's first pixel and channel. Neither add nor pre may lie where the result does. */
typedef struct fc_epilogue {
    const void *bias;          /* IN (channels) or NULL */
    const void *scale, *shift; /* IN (channels) or NULL: batch normalisation */
    const void *add;           /* IN: pixel (n, i, j) at add + n * add_image + i * add_row + j * add_col, or NULL */
    ptrdiff_t add_image, add_row, add_col;
    void *pre;                 /* OUT: what the activation was given, laid out as the result, or NULL */
    int activation;            /* FC_ACT_... */
    double a, b;               /* its parameters */
    const void *slopes;        /* IN (channels): its first parameter where that is one a channel */
} fc_epilogue;

/* A run of consecutive elements that one output pixel reads, relative to that pixel's origin. */
typedef struct fc_segment {
    ptrdiff_t offset, length;
} fc_segment;

/* Panels of nr lanes from a strided matrix: w[panel][tap][c][lane], lanes beyond `lanes` zero. */
typedef struct fc_pack {
    const void *w;             /* IN: element (lane, tap, c) at w + lane * lane_pitch + taps[tap] + c * c_pitch */
    ptrdiff_t lane_pitch, c_pitch;
    const ptrdiff_t *taps;     /* IN (ntaps) */
    ptrdiff_t ntaps, nc, lanes;
    ptrdiff_t nr;              /* lanes of a panel: of one alone any number from `lanes` on, else of whole vectors */
    void *panels;              /* OUT (ceil(lanes / nr), ntaps, nc, nr) */
} fc_pack;

/* Correlation of a block of output pixels of some images with packed weights:
 *   y[n, i, j, k] = epilogue(sum over segments, in order, of x[...] * w[...][k]) */
typedef struct fc_rows {
    const void *x;             /* IN: origin of pixel (n, i, j) at x + n * x_image + i * x_row + j * x_col */
    ptrdiff_t x_image, x_row, x_col;
    const fc_segment *segments;
    ptrdiff_t depth;           /* sum of the segments' lengths */
    const void *w;             /* IN: panels (ceil(channels / nr), depth, nr), `w_panel` elements apart */
    ptrdiff_t w_panel, nr;
    void *y;                   /* OUT: pixel (n, i, j) at y + n * y_image + i * y_row + j * y_col, then k */
    ptrdiff_t y_image, y_row, y_col;
    ptrdiff_t images, rows, cols, channels;
    fc_epilogue e;
    const void *next[2];       /* what will be needed next, fetched meanwhile: so many bytes of each */
    ptrdiff_t next_bytes[2];
} fc_rows;

/* The same for few channels, vectors running over the pixels of a row: the input lies in planes, one a channel.
 *   y[n, i, j, k] = epilogue(sum over taps t, then channels c, of x[c][pixel + taps[t]] * w[t, c][k]) */
typedef struct fc_planes {
    const void *x;             /* IN: channel c of pixel (n, i, j) at x + n * x_image + c * x_plane + i * x_row + j */
    ptrdiff_t x_image, x_plane, x_row; /* LANES - 1 elements behind the last pixel are read and not used */
    const ptrdiff_t *taps;     /* IN (ntaps) */
    ptrdiff_t ntaps, nc;
    const void *w;             /* IN (ntaps, nc, w_row), the first `channels` of each row */
    ptrdiff_t w_row;
    void *y;                   /* OUT: pixel (n, i, j) at y + n * y_image + i * y_row + j * y_col, then k */
    ptrdiff_t y_image, y_row, y_col;
    ptrdiff_t images, rows, cols, channels;
    fc_epilogue e;
} fc_planes;

/* The same for few channels of several images, one a lane; offsets of x count vectors. */
typedef struct fc_abreast {
    const void *x;             /* IN: channel c of pixel (i, j) at x + i * x_row + j * x_col + c */
    ptrdiff_t x_row, x_col;
    const ptrdiff_t *taps;     /* IN (ntaps) */
    ptrdiff_t ntaps, nc;
    const void *w;             /* IN (ntaps, nc, w_row), the first `channels` of each row */
    ptrdiff_t w_row;
    ptrdiff_t in_row;          /* how many taps stand in a row of the filter */
    const ptrdiff_t *tap_c;    /* IN (in_row): their columns from a pixel's origin, ascending. Taps beside the image, */
    ptrdiff_t col, col_step, width; /* of `width` columns, where pixel j has its origin in col + j * col_step, may be */
                               /* left out: x is +0 there, weights are finite. NULL: none is left out */
    void *line;                /* scratch (cols, channels) vectors */
    void *y;                   /* OUT: pixel (n, i, j) at y + n * y_image + i * y_row + j * y_col, then k */
    ptrdiff_t y_image, y_row, y_col;
    ptrdiff_t images, rows, cols, channels; /* no more images than lanes */
    fc_epilogue e;
} fc_abreast;

/* The same for few pixels and filters of one tap, which are not packed:
 *   y[i, k] = epilogue(sum over c, in order, of x[i, c] * w[k, c]) */
typedef struct fc_thin {
    const void *x;             /* IN (rows, depth), rows x_row apart */
    ptrdiff_t x_row, rows, depth;
    const void *w;             /* IN (channels, depth), rows w_row apart */
    ptrdiff_t w_row;
    void *y;                   /* OUT (rows, channels), rows y_row apart */
    ptrdiff_t y_row, channels;
    fc_epilogue e;             /* rows of what is added lie add_col apart */
} fc_thin;

/* Sums of outer products over a block of pixels, added to dw in the order (i, j):
 *   dw[m, k] += sum over pixels of x[pixel + taps[m]] * g[pixel, k]                                     */
typedef struct fc_outer {
    const void *x;             /* IN: pixel (i, j) at x + i * x_row + j * x_col */
    ptrdiff_t x_row, x_col;
    const ptrdiff_t *taps;     /* IN (m): offsets of the m factors */
    ptrdiff_t m;
    const void *g;             /* IN: pixel (i, j) at g + i * g_row + j * g_col, channels contiguous */
    ptrdiff_t g_row, g_col;
    ptrdiff_t rows, cols, channels;
    void *dw;                  /* IN OUT (m, dw_row), the first `channels` of each row */
    ptrdiff_t dw_row;
    int fresh;                 /* sums begin at zero, not at what dw holds */
    void *onto;                /* NULL, or IN OUT, laid out as dw: finished sums are added here, dw is not written */
} fc_outer;

/* The same in each lane for itself; offsets count vectors. */
typedef struct fc_abreast_outer {
    const void *x;             /* IN: pixel (i, j) at x + i * x_row + j * x_col */
    ptrdiff_t x_row, x_col;
    const ptrdiff_t *taps;     /* IN (m) */
    ptrdiff_t m;
    const void *g;             /* IN: pixel (i, j) at g + i * g_row + j * g_col, channels side by side */
    ptrdiff_t g_row, g_col;
    ptrdiff_t rows, cols, channels;
    void *dw;                  /* IN OUT (m, channels) vectors */
} fc_abreast_outer;

/* One filter a channel, of a block of rows and columns of an image as it lies:
 *   y[i, j, c] = epilogue(sum over taps, in order, of
 *                         x[top + i * row_step + tap_r[t], left + j * col_step + tap_c[t], c] * w[t, c])
 * Columns beside the image are zeros; rows of the filter above or below it are left out. */
typedef struct fc_depthwise {
    const void *x;             /* IN (height, width, channels): rows x_row apart, columns x_col */
    ptrdiff_t height, width, x_row, x_col;
    ptrdiff_t top, left, row_step, col_step;
    const ptrdiff_t *tap_r, *tap_c; /* IN (ntaps): row after row of the filter, rows and columns ascending */
    ptrdiff_t ntaps, in_row;   /* how many taps stand in a row */
    const void *w;             /* IN (ntaps, w_row) */
    ptrdiff_t w_row;
    void *y;                   /* OUT: pixel (i, j) at y + i * y_row + j * y_col */
    ptrdiff_t y_row, y_col;
    ptrdiff_t rows, cols, channels;
    int by_rows;               /* row after row, for pixels and results that no cache near a core holds; */
    int ahead;                 /* or fetched rows ahead, for those that come from memory */
    fc_epilogue e;
} fc_depthwise;

/* dw[t, c] += sum over pixels, in the order (i, j), of x[pixel + taps[t] + c] * g[pixel, c] */
typedef struct fc_depthwise_outer {
    const void *x;
    ptrdiff_t x_row, x_col;
    const ptrdiff_t *taps;
    ptrdiff_t ntaps;
    const void *g;
    ptrdiff_t g_row, g_col;
    ptrdiff_t rows, cols, channels;
    void *dw;                  /* IN OUT (ntaps, dw_row) */
    ptrdiff_t dw_row;
} fc_depthwise_outer;

/* Tiles whose columns of pixels are taken together, and those columns at most */
enum { FC_RUN = 4, FC_RUN_COLUMNS = 4 * FC_RUN + 2 };

/* Winograd convolution F(4 x 4, 3 x 3) or F(2 x 2, 5 x 5): between the pixels of images and the 36 values of each of
 * their tiles, numbered through all images, row by row (winograd.inc.h). */
typedef struct fc_winograd {
    void *x;                   /* IN or OUT: pixel (n, i, j) at x + n * x_image + i * x_row + j * x_col */
    ptrdiff_t x_image, x_row, x_col;
    ptrdiff_t h, w;            /* rows and columns of an image; what is outside counts as zeros */
    ptrdiff_t side;            /* 4 or 2: a tile has side x side results */
    ptrdiff_t top, left;       /* tile (i, j) of phase (a, b) begins at the image's pixel */
    ptrdiff_t dh, dw;          /* (a + side * i * dh - top, b + side * j * dw - left), a < dh, b < dw: */
    ptrdiff_t rows, cols;      /* it has each dh-th row and dw-th column; tiles of a phase */
    ptrdiff_t first, tiles;    /* the tiles first, first + 1, ... */
    ptrdiff_t channels;
    const void *zeros;         /* IN (FC_RUN_COLUMNS * dw * x_col): a row of pixels outside; of no use to the output */
    void *v;                   /* OUT or IN: value e of the t-th tile at v + e * v_plane + t * v_tile, whole vectors */
    ptrdiff_t v_plane, v_tile;
    fc_epilogue e;             /* of the output; add_image and so on as for x */
} fc_winograd;

/* Products of matrices, one a plane: c[row, lane] = sum over blocks of depth of chains over a block,
 *   c[row, lane] (+)= sum over depth of a[row * a_row + depth * a_depth] * b[lane's panel][depth * b_depth + lane] */
typedef struct fc_winograd_products {
    const void *a;
    ptrdiff_t a_plane, a_row, a_depth; /* a_row or a_depth is 1 */
    const void *b;                     /* IN: panels of nr lanes, b_panel apart */
    ptrdiff_t b_plane, b_panel, b_depth, nr;
    void *c;                           /* OUT, or IN OUT where there is `more` than this depth: (rows, lanes) */
    ptrdiff_t c_plane, c_row;
    ptrdiff_t planes, rows, lanes, depth; /* lanes: whole vectors */
    ptrdiff_t block;                   /* of depth: the chains' lengths */
    int more;
    const void *ahead[2];              /* what will be needed behind the products, fetched meanwhile; any address */
    ptrdiff_t ahead_bytes[2];          /* so much of it, or 0 */
    ptrdiff_t a_bytes, b_bytes;        /* of a plane, fetched while the one before it is multiplied; 0: they are near */
} fc_winograd_products;

/* One optimiser step: param and the state are IN OUT, elementwise with grad; an absent state is NULL. */
typedef struct fc_sgd {
    void *param;
    const void *grad;
    void *buffer;              /* momentum; NULL: plain gradient descent */
    double lr, momentum, dampening, weight_decay;
    int nesterov, first_step;  /* first_step: the buffer is set to the gradient */
} fc_sgd;

typedef struct fc_adam {
    void *param;
    const void *grad;
    void *average, *square;
    double lr, beta1, beta2, eps, weight_decay;
    double step_size;          /* lr / (1 - beta1^step) */
    double correction2;        /* sqrt(1 - beta2^step) */
    int decoupled;
} fc_adam;

typedef struct fc_rmsprop {
    void *param;
    const void *grad;
    void *square;
    void *buffer;              /* momentum, or NULL */
    void *average;             /* of the gradient, where centred, or NULL */
    double lr, alpha, eps, weight_decay, momentum;
} fc_rmsprop;

typedef struct fc_adagrad {
    void *param;
    const void *grad;
    void *square;
    double lr, eps, weight_decay;
} fc_adagrad;

/* An exponential average: average += (1 - decay) * (param - average). */
typedef struct fc_average {
    const void *param;
    void *average;
    double decay;
} fc_average;

/* A cross-entropy whose rows and classes have weights (loss.inc.h). */
typedef struct fc_cross_entropy {
    const void *x;             /* (rows, classes): scores; backward: their softmax */
    ptrdiff_t classes;
    const int64_t *target;     /* (rows): labels, -1 of rows that are left out; or NULL */
    const void *soft;          /* (rows, classes): a probability of each class; or NULL */
    const void *weight;        /* (classes), or NULL */
    const void *sample;        /* (rows): what the rows weigh, or NULL */
    double keep, floor;        /* 1 - label smoothing, and that over the classes */
    void *loss;                /* (rows) OUT */
    void *p;                   /* (rows, classes) OUT: softmax, or NULL; backward: the gradient, may be x */
    const void *g;             /* backward: one number, or one a row */
    ptrdiff_t g_step;
} fc_cross_entropy;

/* Overlaps of p with its target, over pixels of `channels` each. */
typedef struct fc_dice {
    const void *p;             /* (pixels, channels) */
    ptrdiff_t channels;
    const int64_t *labels;     /* (pixels), -1 of those left out; or NULL */
    const void *dense;         /* (pixels, channels), where there are no labels */
    void *grad;                /* backward: (pixels, channels) OUT */
} fc_dice;

enum { FC_LOSS_SQUARED, FC_LOSS_ABSOLUTE, FC_LOSS_SMOOTH, FC_LOSS_HUBER, FC_LOSS_LOGISTIC };

/* Losses of single elements (element_loss.inc.h). */
typedef struct fc_element_loss {
    int kind;
    const void *x, *target;
    const void *weight;        /* of every element, or NULL */
    const void *positive;      /* what a positive target weighs, for every element, or NULL */
    double parameter;          /* where the square ends */
    void *out;                 /* OUT: losses, or the gradient, which may be any of the inputs */
    const void *g;             /* backward: one number, or one an element */
    ptrdiff_t g_step;
} fc_element_loss;

/* The part of a pooling window, along one axis, that lies inside the input. */
typedef struct fc_span {
    ptrdiff_t first, count;    /* input elements first, first + step, ... */
    ptrdiff_t tap;             /* index within the kernel of the first of them */
    ptrdiff_t size;            /* what this axis contributes to the divisor of a mean */
    ptrdiff_t old;             /* of these, the leading ones that earlier windows share; all if there are gaps */
} fc_span;

typedef struct fc_axis {
    ptrdiff_t inputs, outputs, kernel, step;
    ptrdiff_t begin, end, stride; /* windows [begin, end) have all taps inside, and lie stride apart */
    ptrdiff_t covered;            /* elements [0, covered) are in some window; 0 where windows leave gaps */
    const fc_span *spans;         /* (outputs) */
} fc_axis;

/* Pooling of one image: x (H, W, x_pitch) -> y (P, Q, y_pitch) and positions (P, Q, arg_pitch), the first `channels` of
 * each pixel. */
typedef struct fc_pool {
    fc_axis h, w;
    ptrdiff_t x_pitch, y_pitch, arg_pitch, channels;
    ptrdiff_t arg_size;        /* bytes of a position within the window: 1 unsigned, 4 signed, 0 for none */
    int tiled;                 /* windows neither overlap nor leave gaps */
} fc_pool;

/* Residual layers from this width on: samples are rows, and a forward walk takes them by groups. */
enum { FC_DEEP_WIDE = 16, FC_DEEP_GROUP = 8 };

/* A chunk of residual layers of width D; a state is (blocks, D, 16), lanes are samples (deep.inc.h) */
typedef struct fc_deep {
    ptrdiff_t layers, width, blocks;
    ptrdiff_t first, vectors;  /* forward: the range of registers of lanes, or of groups of rows, in all blocks */
    int activation;            /* 0 softsign, 1 tanh, 2 ReLU */
    double alpha, root, rate;  /* root: sqrt(alpha) */
    ptrdiff_t ahead;           /* distance, in numbers, from a layer's weights to those that are prefetched beside it */
    const void *w;             /* IN (layers, D + 1, D) */
    void *w_new;               /* OUT (layers, D + 1, D); may be w */
    void *h;                   /* forward: IN OUT state; recompute: IN state of the first layer */
    void *g;                   /* gradient: IN OUT gradient of the state */
    void *tape;                /* (layers, 2, blocks, D, 16): inputs and slopes; of rows (.., 16, D) */
    void *scratch;             /* gradient: (blocks, D, 16) */
} fc_deep;

#endif
