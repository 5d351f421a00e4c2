/* Register tiles of the forward pass and the input gradient: a tile is MR pixels x NV vectors of channels, the
 * reduction runs over segments of the pixels' memory. Each output is one chain of fused multiply-adds in a fixed order,
 * whatever the tile: cutting the chain at KC sets the tile down and picks it up again, unchanged. */

/* Where the pixels of a tile lie. Tiles of few pixels take any pixels of a block, so that short rows fill them too:
 * one offset a pixel stays in a register. Higher tiles stay within a row; one pointer reaches three pixels. */
#define FC_ANY_PIXELS(nv) (FC_HEIGHT(nv) <= 9)

/* Terms of a chain between two fetches of what will be needed next */
enum { FC(ROWS_TERMS) = 16 };

/* A tile's pixels, weights and results: terms [first, last) of the chains of channels k and so on */
typedef struct FC(rows_place) {
    const T *x, *w;
    T *y;
    ptrdiff_t k, first, last, tail;
    ptrdiff_t x_pixel[FC_HIGHEST], y_pixel[FC_HIGHEST]; /* from x and y; of any pixels */
    uintptr_t next, second; /* what will be needed next: `fetched` cache lines at a time, `left` in all, */
    ptrdiff_t fetched, left, last_left; /* the last of them from `second` on */
    FC(stages) stages;
} FC(rows_place);

#define Y_PIXEL(i) (FC_ANY_PIXELS(nv) ? at->y_pixel[i] : (i) * a->y_col)

/* One tile: mr pixels, nv vectors of channels */
FC_INLINE void FC(rows_tile)(const fc_rows *a, FC(rows_place) *at, const int mr, const int nv)
{
    const ptrdiff_t nr = a->nr, x_col = a->x_col, first = at->first, last = at->last, tail = at->tail;
    /* a panel's results are pieces of pixels, which no hardware foresees: the next tile's are fetched meanwhile */
    if (a->y_col > nv * LANES) {
        const uintptr_t next = (uintptr_t)(at->y + Y_PIXEL(mr - 1));
        for (int i = 1; i <= mr; i++)
            for (size_t k = 0; k < nv * LANES * sizeof(T); k += 64)
                FC_PREFETCH(next + i * a->y_col * sizeof(T) + k);
    }
    VEC acc[FC_HIGHEST][FC_NV];
    if (first == 0) {
        FC_UNROLL for (int i = 0; i < mr; i++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                acc[i][v] = V(set1)(0);
    } else
        FC_UNROLL for (int i = 0; i < mr; i++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                acc[i][v] = FC(get)(at->y + Y_PIXEL(i) + v * LANES, v == nv - 1 ? tail : 0);
    const T *w = at->w + first * nr;
    ptrdiff_t begin = 0;
    for (const fc_segment *s = a->segments; begin < last; begin += s->length, s++) {
        const ptrdiff_t from = first > begin ? first - begin : 0;
        const ptrdiff_t to = last - begin < s->length ? last - begin : s->length;
        const T *p = at->x + s->offset;
        const T *three[(FC_HIGHEST + 2) / 3];
        if (!FC_ANY_PIXELS(nv))
            for (int i = 0; i < mr; i += 3) {
                three[i / 3] = p + i * x_col + from;
                FC_AGAIN(three[i / 3]); /* not to be taken apart into one offset a pixel again */
            }
        for (ptrdiff_t c = from; c < to;) {
            ptrdiff_t stop = to;
            if (at->left > 0) {
                stop = to - c < FC(ROWS_TERMS) ? to : c + FC(ROWS_TERMS);
                for (ptrdiff_t i = 0; i < at->fetched; i++, at->next += 64) {
                    if (at->left-- == at->last_left)
                        at->next = at->second;
                    FC_PREFETCH_FAR(at->next);
                }
            }
            for (; c < stop; c++, w += nr) {
                VEC b[FC_NV];
                for (int v = 0; v < nv; v++) {
                    b[v] = V(load)(w + v * LANES);
                    if (nv > 2)
                        FC_PIN(b[v]); /* loaded once, not with each multiply-add */
                }
                for (int i = 0; i < mr; i++) {
                    const VEC pixel =
                        V(set1)(FC_ANY_PIXELS(nv) ? p[at->x_pixel[i] + c] : three[i / 3][i % 3 * x_col]);
                    for (int v = 0; v < nv; v++)
                        acc[i][v] = V(fma)(pixel, b[v], acc[i][v]);
                }
                if (!FC_ANY_PIXELS(nv))
                    for (int i = 0; i < mr; i += 3)
                        three[i / 3]++;
            }
        }
    }
    if (last == a->depth)
        FC_UNROLL for (int v = 0; v < nv; v++)
            FC(finish_sums)(&acc[0][v], mr, FC_NV, &a->e, at->stages.act, at->k + v * LANES, v == nv - 1 ? tail : 0);
    FC_UNROLL for (int i = 0; i < mr; i++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            FC(put)(at->y + Y_PIXEL(i) + v * LANES, acc[i][v], v == nv - 1 ? tail : 0);
}

/* An instance for each size, each a function of its own: among many loops compilers run out of registers */
#define FC_TILE(M, NV)                                                                                               \
    static FC_NOINLINE void FC(rows_tile_##M##_##NV)(const fc_rows *a, FC(rows_place) *at)                           \
    {                                                                                                                \
        if (M <= FC_HEIGHT(NV))                                                                                      \
            FC(rows_tile)(a, at, M, NV);                                                                             \
    }
#define FC_TILES(NV) FC_EACH_HEIGHT(FC_TILE, NV)
FC_EACH_NV(FC_TILES)
#undef FC_TILE
#undef FC_TILES
#define FC_TILE(M, NV) FC(rows_tile_##M##_##NV),
#define FC_TILES(NV) {FC_EACH_HEIGHT(FC_TILE, NV)},
static void (*const FC(rows_tiles)[FC_NV][FC_HIGHEST])(const fc_rows *a, FC(rows_place) *at) = {
    FC_EACH_NV(FC_TILES)};
#undef FC_TILE
#undef FC_TILES

/* The rest of the epilogue for the mr pixels of a tile that has been stored, from pixel (n, i, j) on */
static FC_NOINLINE void FC(rows_later)(const fc_rows *a, const FC(rows_place) *at, ptrdiff_t n, ptrdiff_t i,
                                       ptrdiff_t j, ptrdiff_t mr, ptrdiff_t channels)
{
    while (mr > 0) {
        const ptrdiff_t run = a->cols - j < mr ? a->cols - j : mr;
        FC(finish_later)(&at->stages, a->y, n * a->y_image + i * a->y_row + j * a->y_col, a->y_col,
                         n * a->e.add_image + i * a->e.add_row + j * a->e.add_col, a->e.add_col, run, at->k, channels);
        mr -= run;
        j = 0;
        if (++i == a->rows) {
            i = 0;
            n++;
        }
    }
}

/* `pixels` pixels from row i of image n on, as equal tiles: 28 by at most 6 are 6 6 6 5 5, not 6 6 6 6 4 */
FC_INLINE void FC(rows_run)(const fc_rows *a, FC(rows_place) *at, ptrdiff_t n, ptrdiff_t i, ptrdiff_t pixels,
                            const int nv)
{
    const ptrdiff_t cols = a->cols, x_col = a->x_col, y_col = a->y_col;
    const ptrdiff_t next_x = a->x_row - cols * x_col, next_y = a->y_row - cols * y_col; /* from row to row */
    const ptrdiff_t tiles = (pixels + FC_HEIGHT(nv) - 1) / FC_HEIGHT(nv);
    const ptrdiff_t least = pixels / (tiles ? tiles : 1), larger = pixels - tiles * least;
    ptrdiff_t j = 0, x = n * a->x_image + i * a->x_row, y = n * a->y_image + i * a->y_row;
    for (ptrdiff_t tile = 0; tile < tiles; tile++) {
        const ptrdiff_t mr = least + (tile < larger), n0 = n, i0 = i, j0 = j;
        at->x = (const T *)a->x + x;
        at->y = (T *)a->y + y + at->k;
        if (FC_ANY_PIXELS(nv)) {
            const ptrdiff_t x0 = x, y0 = y;
            for (ptrdiff_t m = 0; m < mr; m++) {
                at->x_pixel[m] = x - x0;
                at->y_pixel[m] = y - y0;
                x += x_col;
                y += y_col;
                if (++j == cols) {
                    j = 0;
                    x += next_x;
                    y += next_y;
                    if (++i == a->rows) {
                        i = 0;
                        n++;
                        x += a->x_image - a->rows * a->x_row;
                        y += a->y_image - a->rows * a->y_row;
                    }
                }
            }
        } else {
            j += mr;
            x += mr * x_col;
            y += mr * y_col;
        }
        FC(rows_tiles)[nv - 1][mr - 1](a, at);
        if (at->stages.later && at->last == a->depth)
            FC(rows_later)(a, at, n0, i0, j0, mr, nv * LANES - (at->tail ? LANES - at->tail : 0));
    }
}

/* One panel of weights, nv vectors wide, for all pixels of the block */
FC_INLINE void FC(rows_panel)(const fc_rows *a, FC(rows_place) *at, const int nv)
{
    if (FC_ANY_PIXELS(nv))
        FC(rows_run)(a, at, 0, 0, a->images * a->rows * a->cols, nv);
    else
        for (ptrdiff_t n = 0; n < a->images; n++)
            for (ptrdiff_t i = 0; i < a->rows; i++)
                FC(rows_run)(a, at, n, i, a->cols, nv);
}

/* Spread the fetches of what will be needed next over all tiles */
FC_INLINE void FC(rows_spread)(const fc_rows *a, FC(rows_place) *at)
{
    const ptrdiff_t rounds = (a->images * a->rows * a->cols / FC_HEIGHT(FC_NV) + 1) * (a->depth / FC(ROWS_TERMS) + 1);
    at->next = (uintptr_t)a->next[0];
    at->second = (uintptr_t)a->next[1];
    at->last_left = a->next_bytes[1] / 64;
    at->left = a->next_bytes[0] / 64 + at->last_left;
    at->fetched = (at->left + rounds - 1) / rounds;
}

static void FC(rows)(const fc_rows *a)
{
    const ptrdiff_t nr = a->nr, kc = FC_PANEL_BYTES / (ptrdiff_t)sizeof(T) / nr;
    FC(rows_place) at;
    at.stages = FC(stages_of)(&a->e);
    at.first = 0;
    FC(rows_spread)(a, &at);
    do {
        at.last = a->depth - at.first <= kc + kc / 2 ? a->depth : at.first + kc;
        for (at.k = 0; at.k < a->channels; at.k += nr) {
            const ptrdiff_t n = a->channels - at.k < nr ? a->channels - at.k : nr;
            at.w = (const T *)a->w + at.k / nr * a->w_panel;
            at.tail = n % LANES;
#define FC_CASE(NV) case NV: FC(rows_panel)(a, &at, NV); break;
            switch ((n + LANES - 1) / LANES) {
                FC_EACH_NV(FC_CASE)
            }
#undef FC_CASE
        }
        at.first = at.last;
    } while (at.first < a->depth);
}

#undef FC_ANY_PIXELS
#undef Y_PIXEL
