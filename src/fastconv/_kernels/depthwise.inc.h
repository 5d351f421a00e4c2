/* Convolutions with one filter a channel: vectors run over channels; forward, input gradient and weight gradient.
 *
 * Forward and input gradient read images as they lie: what a tap would read beside the image is zero, in registers.
 */

/* Where the pixels of a tile lie: mr of them in a row, `channels` channels from c on; the taps are those of the rows of
 * the filter that lie on the image */
typedef struct FC(depthwise_place) {
    const T *x, *w;
    T *y;
    const ptrdiff_t *tap_r, *tap_c;
    ptrdiff_t ntaps, column, c, channels;
    int act;
} FC(depthwise_place);

/* mr pixels, vector after vector of channels, or less than a vector (tail). `run` taps at a time stand side by side, a
 * column apart, as neighbouring pixels do if there are more than one: what they share is loaded once. At an edge some
 * columns lie beside the image. */
FC_INLINE void FC(depthwise_tile)(const fc_depthwise *a, const FC(depthwise_place) *at, const int run, const int edge,
                                  const int tail, const int mr)
{
    const ptrdiff_t next = run > 1 ? 1 : a->col_step, part = tail ? at->channels : 0;
    for (ptrdiff_t c = 0; c < at->channels; c += LANES) {
        const T *w = at->w + c;
        VEC acc[FC_DEPTHWISE];
        FC_UNROLL for (int i = 0; i < mr; i++)
            acc[i] = V(set1)(0);
        for (ptrdiff_t t = 0; t < at->ntaps; t += run) {
            const T *p = at->x + at->tap_r[t] * a->x_row + at->tap_c[t] * a->x_col + c;
            const ptrdiff_t column = at->column + at->tap_c[t];
            VEC pixel[FC_DEPTHWISE + FC_WIDEST_RUN - 1];
            FC_UNROLL for (int i = 0; i < mr + run - 1; i++) {
                const int beside = edge && (size_t)(column + i * next) >= (size_t)a->width;
                pixel[i] = beside ? V(set1)(0) : FC(get)(p + i * next * a->x_col, part);
            }
            FC_UNROLL for (int j = 0; j < run; j++, w += a->w_row) {
                const VEC b = FC(get)(w, part);
                FC_UNROLL for (int i = 0; i < mr; i++)
                    acc[i] = V(fma)(pixel[i + j], b, acc[i]);
            }
        }
        FC(finish_sums)(acc, mr, 1, &a->e, at->act, at->c + c, part);
        FC_UNROLL for (int i = 0; i < mr; i++)
            FC(put)(at->y + i * a->y_col + c, acc[i], part);
    }
}

/* An instance for each run of taps, between the edges and there, and for tails; for each number of pixels */
#define FC_EACH_PIXELS(F, RUN, EDGE, TAIL)                                                                           \
    F(1, RUN, EDGE, TAIL) F(2, RUN, EDGE, TAIL) F(3, RUN, EDGE, TAIL) F(4, RUN, EDGE, TAIL) F(5, RUN, EDGE, TAIL)     \
    F(6, RUN, EDGE, TAIL) F(7, RUN, EDGE, TAIL) F(8, RUN, EDGE, TAIL)
#define FC_EACH_KIND(F) F(1, 0, 0) F(3, 0, 0) F(5, 0, 0) F(1, 1, 0) F(3, 1, 0) F(5, 1, 0) F(1, 1, 1)
#define FC_TILE(M, RUN, EDGE, TAIL)                                                                                  \
    static FC_NOINLINE void FC(depthwise_tile_##M##_##RUN##_##EDGE##_##TAIL)(const fc_depthwise *a,                  \
                                                                             const FC(depthwise_place) *at)          \
    {                                                                                                                \
        if (M <= FC_DEPTHWISE && (RUN == 1 || FC_SPECIALISE))                                                        \
            FC(depthwise_tile)(a, at, RUN, EDGE, TAIL, M);                                                           \
    }
#define FC_TILES(RUN, EDGE, TAIL) FC_EACH_PIXELS(FC_TILE, RUN, EDGE, TAIL)
FC_EACH_KIND(FC_TILES)
#undef FC_TILE
#undef FC_TILES
#define FC_TILE(M, RUN, EDGE, TAIL) FC(depthwise_tile_##M##_##RUN##_##EDGE##_##TAIL),
#define FC_TILES(RUN, EDGE, TAIL) {FC_EACH_PIXELS(FC_TILE, RUN, EDGE, TAIL)},
static void (*const FC(depthwise_tiles)[7][8])(const fc_depthwise *a, const FC(depthwise_place) *at) = {
    FC_EACH_KIND(FC_TILES)};
#undef FC_TILE
#undef FC_TILES
#undef FC_EACH_KIND
#undef FC_EACH_PIXELS

/* How many taps of a row of the filter the tiles take together */
FC_INLINE ptrdiff_t FC(depthwise_run)(const fc_depthwise *a)
{
    if (!FC_SPECIALISE || a->col_step != 1 || (a->in_row != 3 && a->in_row != 5))
        return 1;
    for (ptrdiff_t t = 1; t < a->in_row; t++) /* all rows of a filter have the same columns */
        if (a->tap_c[t] != a->tap_c[t - 1] + 1)
            return 1;
    return a->in_row;
}

/* The taps [first, last) of those rows of the filter that lie on the image for row i of the block */
FC_INLINE void FC(depthwise_rows)(const fc_depthwise *a, ptrdiff_t i, ptrdiff_t *first, ptrdiff_t *last)
{
    const ptrdiff_t row = a->top + i * a->row_step;
    *first = 0;
    *last = a->ntaps;
    while (*first < *last && row + a->tap_r[*first] < 0)
        *first += a->in_row;
    while (*first < *last && row + a->tap_r[*last - 1] >= a->height)
        *last -= a->in_row;
}

/* Some rows behind row i: the pixels that a row of mr columns is the first to read, and its results, are fetched. Columns
 * go from top to bottom, pieces of rows, which no hardware foresees. */
enum { FC(ROWS_AHEAD) = 2 };
static FC_NOINLINE void FC(depthwise_fetch)(const fc_depthwise *a, ptrdiff_t i, ptrdiff_t j, ptrdiff_t mr, ptrdiff_t c,
                                            ptrdiff_t channels)
{
    i += FC(ROWS_AHEAD);
    if (i >= a->rows || !a->ntaps)
        return;
    const uintptr_t pixel = a->x_col * sizeof(T), bytes = ((mr * a->col_step - 1) * a->x_col + channels) * sizeof(T);
    const uintptr_t results = ((mr - 1) * a->y_col + channels) * sizeof(T);
    ptrdiff_t row = a->top + i * a->row_step + a->tap_r[a->ntaps - 1];
    for (ptrdiff_t n = 0; n < a->row_step && row >= 0; n++, row--) {
        if (row >= a->height)
            continue;
        const uintptr_t first = (uintptr_t)a->x + (row * a->x_row + c) * sizeof(T) +
                                (a->left + j * a->col_step + a->tap_c[a->ntaps - 1]) * pixel;
        for (uintptr_t byte = 0; byte < bytes; byte += 64)
            FC_PREFETCH(first + byte);
    }
    const uintptr_t y = (uintptr_t)a->y + (i * a->y_row + j * a->y_col + c) * sizeof(T);
    for (uintptr_t byte = 0; byte < results; byte += 64)
        FC_PREFETCH(y + byte);
}

/* A few columns, mr from j on, of the rows [begin, end), from top to bottom */
static void FC(depthwise_columns)(const fc_depthwise *a, const FC(stages) *stages, ptrdiff_t begin, ptrdiff_t end,
                                  ptrdiff_t j, ptrdiff_t mr, ptrdiff_t c, ptrdiff_t channels, ptrdiff_t run)
{
    const ptrdiff_t column = a->left + j * a->col_step, whole = channels / LANES * LANES;
    int edge = 0;
    for (ptrdiff_t t = 0; t < a->in_row; t++)
        edge |= column + a->tap_c[t] < 0 || column + (mr - 1) * a->col_step + a->tap_c[t] >= a->width;
    for (ptrdiff_t i = begin; i < end; i++) {
        ptrdiff_t first, last;
        FC(depthwise_rows)(a, i, &first, &last);
        if (a->ahead)
            FC(depthwise_fetch)(a, i, j, mr, c, channels);
        FC(depthwise_place) at = {
            .x = (const T *)a->x + (a->top + i * a->row_step) * a->x_row + column * a->x_col + c,
            .w = (const T *)a->w + first * a->w_row + c,
            .y = (T *)a->y + i * a->y_row + j * a->y_col + c,
            .tap_r = a->tap_r + first, .tap_c = a->tap_c + first, .ntaps = last - first,
            .column = column, .c = c, .channels = whole, .act = stages->act,
        };
        FC(depthwise_tiles)[run / 2 + 3 * edge][mr - 1](a, &at);
        if (whole < channels) {
            at.x += whole;
            at.w += whole;
            at.y += whole;
            at.c += whole;
            at.channels = channels - whole;
            FC(depthwise_tiles)[6][mr - 1](a, &at);
        }
        if (stages->later)
            FC(finish_later)(stages, a->y, i * a->y_row + j * a->y_col, a->y_col, i * a->e.add_row + j * a->e.add_col,
                             a->e.add_col, mr, c, channels);
    }
}

static void FC(depthwise)(const fc_depthwise *a)
{
    const FC(stages) stages = FC(stages_of)(&a->e);
    const ptrdiff_t run = FC(depthwise_run)(a), tiles = (a->cols + FC_DEPTHWISE - 1) / FC_DEPTHWISE;
    /* so many channels that their weights and pixels of the rows of a filter stay in L1 */
    const ptrdiff_t filter_rows = a->in_row ? a->ntaps / a->in_row : 0;
    const ptrdiff_t near = a->ntaps + filter_rows * (FC_DEPTHWISE * a->col_step + a->in_row) + FC_DEPTHWISE;
    const ptrdiff_t most = FC_DEPTHWISE_BYTES / (ptrdiff_t)sizeof(T) / near / LANES * LANES;
    const ptrdiff_t blocks = most ? (a->channels + most - 1) / most : (a->channels + LANES - 1) / LANES;
    const ptrdiff_t block = ((a->channels + blocks - 1) / blocks + LANES - 1) / LANES * LANES;
    for (ptrdiff_t c = 0; c < a->channels; c += block) {
        const ptrdiff_t channels = a->channels - c < block ? a->channels - c : block;
        /* from top to bottom what the rows of a filter share stays in L1; row by row hardware foresees what comes */
        const ptrdiff_t step = a->by_rows ? 1 : a->rows;
        for (ptrdiff_t i = 0; i < a->rows; i += step)
            for (ptrdiff_t j = 0, left = tiles, mr; left > 0; left--, j += mr) {
                mr = (a->cols - j + left - 1) / left;
                FC(depthwise_columns)(a, &stages, i, i + step, j, mr, c, channels, run);
            }
    }
}

/* up to 9 taps (a 3x3 filter) of one vector of channels, all pixels of the block */
FC_INLINE void FC(depthwise_outer_tile)(const fc_depthwise_outer *a, const T *x, const T *g, const ptrdiff_t *taps,
                                        T *dw, const ptrdiff_t tail, const int mt)
{
    VEC acc[9];
    for (int t = 0; t < mt; t++)
        acc[t] = tail ? V(load_n)(dw + t * a->dw_row, tail) : V(load)(dw + t * a->dw_row);
    for (ptrdiff_t i = 0; i < a->rows; i++)
        for (ptrdiff_t j = 0; j < a->cols; j++) {
            const T *p = x + i * a->x_row + j * a->x_col;
            const T *q = g + i * a->g_row + j * a->g_col;
            const VEC b = tail ? V(load_n)(q, tail) : V(load)(q);
            for (int t = 0; t < mt; t++)
                acc[t] = V(fma)(tail ? V(load_n)(p + taps[t], tail) : V(load)(p + taps[t]), b, acc[t]);
        }
    for (int t = 0; t < mt; t++)
        if (tail)
            V(store_n)(dw + t * a->dw_row, acc[t], tail);
        else
            V(store)(dw + t * a->dw_row, acc[t]);
}

/* Whether taps come in threes, one pixel apart: rows of a 3-wide filter of stride and dilation 1. What neighbouring
 * pixels share is then loaded once. */
FC_INLINE int FC(in_threes)(const ptrdiff_t *taps, ptrdiff_t ntaps, ptrdiff_t x_col)
{
    if (ntaps % 3)
        return 0;
    for (ptrdiff_t t = 0; t < ntaps; t += 3)
        if (taps[t + 1] - taps[t] != x_col || taps[t + 2] - taps[t + 1] != x_col)
            return 0;
    return 1;
}

/* The same for n threes of taps: a row's pixels move through three registers, each loaded once */
FC_INLINE void FC(depthwise_outer_threes)(const fc_depthwise_outer *a, const T *x, const T *g, const ptrdiff_t *taps,
                                          T *dw, const int n)
{
    VEC acc[3][3];
    for (int r = 0; r < n; r++)
        for (int s = 0; s < 3; s++)
            acc[r][s] = V(load)(dw + (3 * r + s) * a->dw_row);
    for (ptrdiff_t i = 0; i < a->rows; i++) {
        const T *q = g + i * a->g_row, *p[3];
        VEC pixel[3][3];
        for (int r = 0; r < n; r++) {
            p[r] = x + i * a->x_row + taps[3 * r];
            for (int s = 0; s < 2; s++, p[r] += a->x_col)
                pixel[r][s] = V(load)(p[r]);
        }
        ptrdiff_t j = 0;
        for (; j + 3 <= a->cols; j += 3)
            for (int turn = 0; turn < 3; turn++, q += a->g_col) {
                const VEC b = V(load)(q);
                for (int r = 0; r < n; r++, p[r - 1] += a->x_col) {
                    pixel[r][(turn + 2) % 3] = V(load)(p[r]);
                    for (int s = 0; s < 3; s++)
                        acc[r][s] = V(fma)(pixel[r][(turn + s) % 3], b, acc[r][s]);
                }
            }
        for (; j < a->cols; j++, q += a->g_col) {
            const VEC b = V(load)(q);
            for (int r = 0; r < n; r++, p[r - 1] += a->x_col)
                for (int s = 0; s < 3; s++)
                    acc[r][s] = V(fma)(V(load)(p[r] + (s - 2) * a->x_col), b, acc[r][s]);
        }
    }
    for (int r = 0; r < n; r++)
        for (int s = 0; s < 3; s++)
            V(store)(dw + (3 * r + s) * a->dw_row, acc[r][s]);
}

static void FC(depthwise_outer)(const fc_depthwise_outer *a)
{
    const int threes = FC_VECTORS >= 32 && a->ntaps <= 9 && FC(in_threes)(a->taps, a->ntaps, a->x_col);
    for (ptrdiff_t c = 0; c < a->channels; c += LANES) {
        const T *x = (const T *)a->x + c;
        const T *g = (const T *)a->g + c;
        const ptrdiff_t tail = a->channels - c < LANES ? a->channels - c : 0;
        if (threes && !tail) {
            T *dw = (T *)a->dw + c;
            switch (a->ntaps) {
                case 3: FC(depthwise_outer_threes)(a, x, g, a->taps, dw, 1); break;
                case 6: FC(depthwise_outer_threes)(a, x, g, a->taps, dw, 2); break;
                default: FC(depthwise_outer_threes)(a, x, g, a->taps, dw, 3);
            }
            continue;
        }
        for (ptrdiff_t t = 0; t < a->ntaps; t += 9) {
            T *dw = (T *)a->dw + t * a->dw_row + c;
            const ptrdiff_t mt = a->ntaps - t < 9 ? a->ntaps - t : 9;
            if (mt == 9 && !tail)
                FC(depthwise_outer_tile)(a, x, g, a->taps + t, dw, 0, 9);
            else
                for (ptrdiff_t m = 0; m < mt; m++)
                    FC(depthwise_outer_tile)(a, x, g, a->taps + t + m, dw + m * a->dw_row, tail, 1);
        }
    }
}
