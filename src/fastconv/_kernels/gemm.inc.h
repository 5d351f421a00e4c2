/* Register tiles of convolution and linear layers, over T and the vector vocabulary.
 *
 * `rows` is the forward pass and the input gradient: a tile of MR pixels x NV vectors of channels, the
 * reduction running over segments of the pixels' memory; `outer` is the weight gradient: a tile of MR weights
 * x NV vectors of channels, the reduction running over pixels. Each output is one chain of fused
 * multiply-adds in a fixed order, whatever the tile: cutting the chain at KC sets the tile down and picks it
 * up again, unchanged.
 */

/* n lanes of nc channels of one tap: out[c][lane], zero from n to nr */
static void FC(pack_tap)(const fc_pack *a, const T *w, ptrdiff_t n, ptrdiff_t nc, T *out)
{
    const ptrdiff_t nr = a->nr;
    ptrdiff_t c = 0;
    if (a->c_pitch == 1) /* channels side by side: four of them change places with a vector of lanes */
        for (; c + 4 <= nc; c += 4)
            for (ptrdiff_t k = 0; k < nr; k += LANES) {
                VEC quads[4] = {V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0)};
                if (k + LANES <= n)
                    V(load_quads)(w + k * a->lane_pitch + c, a->lane_pitch, quads, LANES);
                else if (k < n)
                    V(load_quads)(w + k * a->lane_pitch + c, a->lane_pitch, quads, n - k);
                for (int j = 0; j < 4; j++)
                    V(store)(out + (c + j) * nr + k, quads[j]);
            }
    for (; c < nc; c++) {
        const T *from = w + c * a->c_pitch;
        T *to = out + c * nr;
        ptrdiff_t k = 0;
        if (a->lane_pitch == 1)
            for (; k + LANES <= n; k += LANES)
                V(store)(to + k, V(load)(from + k));
        for (; k < n; k++)
            to[k] = from[k * a->lane_pitch];
        for (; k < nr; k++)
            to[k] = 0;
    }
}

/* A few channels at a time, so that what the taps of a lane share stays in L1 */
static void FC(pack)(const fc_pack *a)
{
    const ptrdiff_t nr = a->nr, few = 16;
    T *panel = a->panels;
    for (ptrdiff_t k = 0; k < a->lanes; k += nr, panel += a->ntaps * a->nc * nr)
        for (ptrdiff_t c = 0; c < a->nc; c += few)
            for (ptrdiff_t t = 0; t < a->ntaps; t++)
                FC(pack_tap)(a, (const T *)a->w + k * a->lane_pitch + a->taps[t] + c * a->c_pitch,
                             a->lanes - k < nr ? a->lanes - k : nr, a->nc - c < few ? a->nc - c : few,
                             panel + (t * a->nc + c) * nr);
}

/* Where the pixels of a tile lie. Tiles of few pixels take any pixels of a block, so that short rows fill them too:
 * one offset a pixel stays in a register. Higher tiles stay within a row; one pointer reaches three pixels. */
#define FC_ANY_PIXELS(nv) (FC_HEIGHT(nv) <= 9)

/* A tile's pixels, weights and results: terms [first, last) of the chains of channels k and so on */
typedef struct FC(rows_place) {
    const T *x, *w;
    T *y;
    ptrdiff_t k, first, last, tail;
    ptrdiff_t x_pixel[FC_HIGHEST], y_pixel[FC_HIGHEST]; /* from x and y; of any pixels */
    FC(stages) stages;
} FC(rows_place);

#define Y_PIXEL(i) (FC_ANY_PIXELS(nv) ? at->y_pixel[i] : (i) * a->y_col)

/* One tile: mr pixels, nv vectors of channels */
FC_INLINE void FC(rows_tile)(const fc_rows *a, const FC(rows_place) *at, const int mr, const int nv)
{
    const ptrdiff_t nr = a->nr, x_col = a->x_col, first = at->first, last = at->last, tail = at->tail;
    VEC acc[FC_HIGHEST][FC_NV];
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++) {
            T *yi = at->y + Y_PIXEL(i) + v * LANES;
            acc[i][v] = first == 0 ? V(set1)(0) : v == nv - 1 && tail ? V(load_n)(yi, tail) : V(load)(yi);
        }
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
        for (ptrdiff_t c = from; c < to; c++, w += nr) {
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
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++) {
            T *yi = at->y + Y_PIXEL(i) + v * LANES;
            const int part = v == nv - 1 && tail;
            VEC r = acc[i][v];
            if (last == a->depth)
                r = FC(finish_vec)(r, &a->e, at->stages.relu, at->k + v * LANES, part ? tail : 0);
            if (part)
                V(store_n)(yi, r, tail);
            else
                V(store)(yi, r);
        }
}

/* An instance for each size, each a function of its own: among many loops compilers run out of registers */
#define FC_TILE(M, NV)                                                                                               \
    static FC_NOINLINE void FC(rows_tile_##M##_##NV)(const fc_rows *a, const FC(rows_place) *at)                     \
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
static void (*const FC(rows_tiles)[FC_NV][FC_HIGHEST])(const fc_rows *a, const FC(rows_place) *at) = {
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
    ptrdiff_t j = 0;
    for (ptrdiff_t tiles = (pixels + FC_HEIGHT(nv) - 1) / FC_HEIGHT(nv); tiles > 0; tiles--) {
        const ptrdiff_t mr = (pixels + tiles - 1) / tiles, n0 = n, i0 = i, j0 = j;
        const ptrdiff_t x0 = n * a->x_image + i * a->x_row + j * a->x_col;
        const ptrdiff_t y0 = n * a->y_image + i * a->y_row + j * a->y_col;
        at->x = (const T *)a->x + x0;
        at->y = (T *)a->y + y0 + at->k;
        if (FC_ANY_PIXELS(nv))
            for (ptrdiff_t m = 0; m < mr; m++) {
                at->x_pixel[m] = n * a->x_image + i * a->x_row + j * a->x_col - x0;
                at->y_pixel[m] = n * a->y_image + i * a->y_row + j * a->y_col - y0;
                if (++j == a->cols) {
                    j = 0;
                    if (++i == a->rows) {
                        i = 0;
                        n++;
                    }
                }
            }
        else
            j += mr;
        FC(rows_tiles)[nv - 1][mr - 1](a, at);
        if (at->stages.later && at->last == a->depth)
            FC(rows_later)(a, at, n0, i0, j0, mr, nv * LANES - (at->tail ? LANES - at->tail : 0));
        pixels -= mr;
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

static void FC(rows)(const fc_rows *a)
{
    const ptrdiff_t nr = a->nr, kc = FC_PANEL_BYTES / (ptrdiff_t)sizeof(T) / nr;
    FC(rows_place) at;
    at.stages = FC(stages_of)(&a->e);
    at.first = 0;
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

/* planes[k][i] = x[i, k]; x (n, c) contiguous, planes `pitch` apart */
static void FC(deinterleave)(const void *x, ptrdiff_t n, ptrdiff_t c, void *planes, ptrdiff_t pitch)
{
    const T *p = x;
    T *out = planes;
    ptrdiff_t k = 0;
    for (; k + 4 <= c; k += 4, out += 4 * pitch) { /* four at a time: every cache line is met a quarter as often */
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            VEC quads[4];
            if (i + LANES <= n) {
                V(load_quads)(p + i * c + k, c, quads, LANES);
                for (int j = 0; j < 4; j++)
                    V(store)(out + j * pitch + i, quads[j]);
            } else {
                V(load_quads)(p + i * c + k, c, quads, n - i);
                for (int j = 0; j < 4; j++)
                    V(store_n)(out + j * pitch + i, quads[j], n - i);
            }
        }
    }
    for (; k < c; k++, out += pitch)
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = p[i * c + k];
}

/* Each vector of pixels has its address in a register. */
enum { FC(most_vectors) = 8 };

/* nv vectors of pixels, kt channels, the whole chain; vector v begins at x[v] and its n[v] results at y[v] */
FC_INLINE void FC(planes_tile)(const fc_planes *a, const T *const *x, T *const *y, const ptrdiff_t *n, ptrdiff_t k,
                               int relu, const int kt, const int nv)
{
    VEC acc[4][FC(most_vectors)];
    for (int i = 0; i < kt; i++)
        for (int v = 0; v < nv; v++)
            acc[i][v] = V(set1)(0);
    const T *w = (const T *)a->w + k;
    for (ptrdiff_t t = 0; t < a->ntaps; t++) {
        ptrdiff_t at = a->taps[t];
        for (ptrdiff_t c = 0; c < a->nc; c++, w += a->w_row, at += a->x_plane) {
            if (kt == 4) { /* fewer vectors than channels: hold those */
                VEC p[FC(most_vectors)];
                for (int v = 0; v < nv; v++) {
                    p[v] = V(load)(x[v] + at);
                    FC_PIN(p[v]); /* loaded once, not with each multiply-add */
                }
                for (int i = 0; i < kt; i++) {
                    const VEC b = V(set1)(w[i]);
                    for (int v = 0; v < nv; v++)
                        acc[i][v] = V(fma)(p[v], b, acc[i][v]);
                }
            } else {
                VEC b[4];
                for (int i = 0; i < kt; i++)
                    b[i] = V(set1)(w[i]);
                for (int v = 0; v < nv; v++) {
                    VEC p = V(load)(x[v] + at);
                    FC_PIN(p);
                    for (int i = 0; i < kt; i++)
                        acc[i][v] = V(fma)(p, b[i], acc[i][v]);
                }
            }
        }
    }
    const T *bias = a->e.bias, *scale = a->e.scale, *shift = a->e.shift;
    for (int i = 0; i < kt; i++) {
        const VEC b = V(set1)(bias ? bias[k + i] : 0);
        const VEC f = V(set1)(scale ? scale[k + i] : 0);
        const VEC s = V(set1)(scale ? shift[k + i] : 0);
        for (int v = 0; v < nv; v++) {
            VEC r = bias ? V(add)(acc[i][v], b) : acc[i][v];
            if (scale)
                r = V(fma)(r, f, s);
            acc[i][v] = relu ? FC(relu_vec)(r) : r;
        }
    }
    for (int v = 0; v < nv; v++) {
        T *out = y[v] + k;
        if (kt == 1 && a->y_col == 1) {
            if (n[v] == LANES)
                V(store)(out, acc[0][v]);
            else
                V(store_n)(out, acc[0][v], n[v]);
            continue;
        }
        if (kt > 1) {
            const VEC quads[4] = {acc[0][v], acc[1][v], acc[kt > 2 ? 2 : 0][v], acc[kt > 3 ? 3 : 0][v]};
            if (n[v] == LANES)
                V(store_quads)(out, a->y_col, quads, LANES, kt);
            else
                V(store_quads)(out, a->y_col, quads, n[v], kt);
            continue;
        }
        T pixels[LANES];
        V(store)(pixels, acc[0][v]);
        for (ptrdiff_t j = 0; j < n[v]; j++, out += a->y_col)
            *out = pixels[j];
    }
}

/* kt channels from k on of all pixels, at most FC_PV / kt vectors of pixels at a time, a third of that at the end */
FC_INLINE void FC(planes_run)(const fc_planes *a, ptrdiff_t k, int relu, const int kt)
{
    const int full = FC_PV / kt < FC(most_vectors) ? FC_PV / kt : FC(most_vectors), few = full >= 3 ? full / 3 : 1;
    const ptrdiff_t across = (a->cols + LANES - 1) / LANES;
    ptrdiff_t image = 0, i = 0, j = 0, left = a->images * a->rows * across;
    while (left > 0) {
        const T *x[FC(most_vectors)];
        T *y[FC(most_vectors)];
        ptrdiff_t n[FC(most_vectors)];
        const int nv = left > few ? full : few;
        for (int v = 0; v < nv; v++) {
            if (v < left) {
                x[v] = (const T *)a->x + image * a->x_image + i * a->x_row + j;
                y[v] = (T *)a->y + image * a->y_image + i * a->y_row + j * a->y_col;
                n[v] = a->cols - j < LANES ? a->cols - j : LANES;
                if ((j += LANES) >= a->cols) {
                    j = 0;
                    if (++i == a->rows) {
                        i = 0;
                        image++;
                    }
                }
            } else { /* nothing left for this vector: it repeats the one before */
                x[v] = x[v - 1];
                y[v] = y[v - 1];
                n[v] = 0;
            }
        }
        if (nv == full)
            FC(planes_tile)(a, x, y, n, k, relu, kt, full);
        else
            FC(planes_tile)(a, x, y, n, k, relu, kt, few);
        left -= nv;
    }
}

static void FC(planes_block)(const fc_planes *a, int relu)
{
    const ptrdiff_t groups = (a->channels + 3) / 4;
    for (ptrdiff_t g = 0, k = 0; g < groups; g++) { /* five channels are 3 and 2, not 4 and 1 */
        const ptrdiff_t kt = (a->channels - k + groups - g - 1) / (groups - g);
        switch (kt) {
            case 1: FC(planes_run)(a, k, relu, 1); break;
            case 2: FC(planes_run)(a, k, relu, 2); break;
            case 3: FC(planes_run)(a, k, relu, 3); break;
            default: FC(planes_run)(a, k, relu, 4);
        }
        k += kt;
    }
}

static void FC(planes)(const fc_planes *a)
{
    const FC(stages) stages = FC(stages_of)(&a->e);
    if (!stages.later) {
        FC(planes_block)(a, stages.relu);
        return;
    }
    /* some rows at a time, so that they stay in L1 until they are finished */
    enum { ROOM = 16 * 1024 / sizeof(T) };
    const ptrdiff_t most = ROOM / (a->cols * a->y_col) > 0 ? ROOM / (a->cols * a->y_col) : 1;
    fc_planes b = *a;
    b.images = 1;
    for (ptrdiff_t n = 0; n < a->images; n++)
        for (ptrdiff_t i = 0; i < a->rows; i += most) {
            b.x = (const T *)a->x + n * a->x_image + i * a->x_row;
            b.y = (T *)a->y + n * a->y_image + i * a->y_row;
            b.rows = a->rows - i < most ? a->rows - i : most;
            FC(planes_block)(&b, 0);
            for (ptrdiff_t r = i; r < i + b.rows; r++)
                FC(finish_later)(&stages, a->y, n * a->y_image + r * a->y_row, a->y_col,
                                 n * a->e.add_image + r * a->e.add_row, a->e.add_col, a->cols, 0, a->channels);
        }
}

/* One tile: mr weights, nv vectors of channels; the factors of a pixel lie side by side (near) or where taps say.
 * `tail` lanes of the last vector count, or all where it is 0: an instance of its own unless masked loads are free. */
FC_INLINE void FC(outer_tile)(const fc_outer *a, const ptrdiff_t *taps, ptrdiff_t k, T *dw, ptrdiff_t tail,
                              const int near, const int mr, const int nv)
{
    VEC acc[FC_HIGHEST][FC_NV];
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++) {
            const T *d = dw + i * a->dw_row + v * LANES;
            acc[i][v] = v == nv - 1 && tail ? V(load_n)(d, tail) : V(load)(d);
        }
    for (ptrdiff_t r = 0; r < a->rows; r++) {
        const T *x = (const T *)a->x + r * a->x_row + (near ? taps[0] : 0);
        const T *g = (const T *)a->g + r * a->g_row + k;
        for (ptrdiff_t j = 0; j < a->cols; j++, x += a->x_col, g += a->g_col) {
            VEC b[FC_NV];
            for (int v = 0; v < nv; v++)
                b[v] = v == nv - 1 && tail ? V(load_n)(g + v * LANES, tail) : V(load)(g + v * LANES);
            for (int i = 0; i < mr; i++) {
                const VEC factor = V(set1)(x[near ? i : taps[i]]);
                for (int v = 0; v < nv; v++)
                    acc[i][v] = V(fma)(factor, b[v], acc[i][v]);
            }
        }
    }
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++) {
            T *d = dw + i * a->dw_row + v * LANES;
            if (v == nv - 1 && tail)
                V(store_n)(d, acc[i][v], tail);
            else
                V(store)(d, acc[i][v]);
        }
}

/* Weights whose factors lie apart: one offset each stays in a register. */
#define FC_APART(nv) (FC_HEIGHT(nv) < 8 ? FC_HEIGHT(nv) : 8)

/* m weights, near or apart, as equal tiles */
FC_INLINE void FC(outer_run)(const fc_outer *a, const ptrdiff_t *taps, ptrdiff_t m, ptrdiff_t k, T *dw, ptrdiff_t tail,
                             const int near, const int nv)
{
    const ptrdiff_t most = near ? FC_HEIGHT(nv) : FC_APART(nv);
    for (ptrdiff_t tiles = (m + most - 1) / most; tiles > 0; tiles--) {
        const ptrdiff_t mr = (m + tiles - 1) / tiles;
#define FC_CASE(M, NV)                                                                                               \
    case M:                                                                                                          \
        if (M <= (near ? FC_HEIGHT(NV) : FC_APART(NV))) {                                                            \
            if (FC_FREE_TAILS)                                                                                       \
                FC(outer_tile)(a, taps, k, dw, tail ? tail : LANES, near, M, NV);                                    \
            else if (tail)                                                                                           \
                FC(outer_tile)(a, taps, k, dw, tail, near, M, NV);                                                   \
            else                                                                                                     \
                FC(outer_tile)(a, taps, k, dw, 0, near, M, NV);                                                      \
        }                                                                                                            \
        break;
        switch (mr) {
            FC_EACH_HEIGHT(FC_CASE, nv)
        }
#undef FC_CASE
        taps += mr;
        dw += mr * a->dw_row;
        m -= mr;
    }
}

/* How many weights from `taps` on, of m, have their factors side by side */
FC_INLINE ptrdiff_t FC(outer_near)(const ptrdiff_t *taps, ptrdiff_t m)
{
    ptrdiff_t run = 1;
    while (run < m && taps[run] == taps[0] + run)
        run++;
    return run;
}

/* All weights for nv vectors of channels from k on */
FC_INLINE void FC(outer_panel)(const fc_outer *a, ptrdiff_t k, T *dw, ptrdiff_t tail, const int nv)
{
    ptrdiff_t t = 0, apart = 0; /* weights before t that are still to be taken, apart */
    while (t < a->m) {
        const ptrdiff_t run = FC(outer_near)(a->taps + t, a->m - t);
        if (run < 5) /* too few sums to fill the latency of their additions */
            apart += run;
        if ((run >= 5 || t + run == a->m) && apart > 0) {
            const ptrdiff_t from = run >= 5 ? t - apart : t + run - apart;
            FC(outer_run)(a, a->taps + from, apart, k, dw + from * a->dw_row, tail, 0, nv);
            apart = 0;
        }
        if (run >= 5)
            FC(outer_run)(a, a->taps + t, run, k, dw + t * a->dw_row, tail, 1, nv);
        t += run;
    }
}

#undef FC_APART

/* n channels from k on, side by side: out[pixel][n] */
static void FC(outer_pack)(const fc_outer *a, ptrdiff_t k, ptrdiff_t n, T *out)
{
    for (ptrdiff_t i = 0; i < a->rows; i++) {
        const T *g = (const T *)a->g + i * a->g_row + k;
        for (ptrdiff_t j = 0; j < a->cols; j++, g += a->g_col, out += n) {
            ptrdiff_t c = 0;
            for (; c + LANES <= n; c += LANES)
                V(store)(out + c, V(load)(g + c));
            if (c < n)
                V(store_n)(out + c, V(load_n)(g + c, n - c), n - c);
        }
    }
}

static void FC(outer)(const fc_outer *a)
{
    enum { ROOM = 24 * 1024 / sizeof(T) };
    T panel[ROOM];
    const ptrdiff_t vectors = (a->channels + LANES - 1) / LANES, panels = (vectors + FC_NV - 1) / FC_NV;
    const ptrdiff_t nr = (vectors + panels - 1) / panels * LANES;
    /* Pixels of many channels lie a power of two apart: a few dozen of them overfill the sets of L1 that they share.
     * They are packed where many tiles read them again. */
    const int far = a->g_col * (ptrdiff_t)sizeof(T) >= 512 && a->m >= 56 && a->rows * a->cols * nr <= ROOM;
    fc_outer b = *a;
    for (ptrdiff_t k = 0; k < a->channels; k += nr) {
        const ptrdiff_t n = a->channels - k < nr ? a->channels - k : nr;
        T *dw = (T *)a->dw + k;
        ptrdiff_t from = k;
        if (far) {
            FC(outer_pack)(a, k, n, panel);
            b.g = panel;
            b.g_col = n;
            b.g_row = a->cols * n;
            from = 0;
        }
#define FC_CASE(NV) case NV: FC(outer_panel)(&b, from, dw, n % LANES, NV); break;
        switch ((n + LANES - 1) / LANES) {
            FC_EACH_NV(FC_CASE)
        }
#undef FC_CASE
    }
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

/* mr pixels of one vector of channels, all taps */
FC_INLINE void FC(depthwise_tile)(const fc_depthwise *a, const T *x, const T *w, T *y, ptrdiff_t c,
                                  int relu, const ptrdiff_t tail, const int threes, const int mr)
{
    VEC acc[FC_DEPTHWISE];
    for (int i = 0; i < mr; i++)
        acc[i] = V(set1)(0);
    for (ptrdiff_t t = 0; t < a->ntaps; t += threes ? 3 : 1) {
        const T *p = x + a->taps[t];
        VEC b[3], pixel[FC_DEPTHWISE + 2];
        for (int j = 0; j < (threes ? 3 : 1); j++, w += a->w_row)
            b[j] = tail ? V(load_n)(w, tail) : V(load)(w);
        for (int i = 0; i < (threes ? mr + 2 : mr); i++)
            pixel[i] = tail ? V(load_n)(p + i * a->x_col, tail) : V(load)(p + i * a->x_col);
        for (int j = 0; j < (threes ? 3 : 1); j++)
            for (int i = 0; i < mr; i++)
                acc[i] = V(fma)(pixel[i + j], b[j], acc[i]);
    }
    for (int i = 0; i < mr; i++) {
        const VEC r = FC(finish_vec)(acc[i], &a->e, relu, c, tail);
        if (tail)
            V(store_n)(y + i * a->y_col, r, tail);
        else
            V(store)(y + i * a->y_col, r);
    }
}

static void FC(depthwise)(const fc_depthwise *a)
{
    const int threes = FC(in_threes)(a->taps, a->ntaps, a->x_col);
    const FC(stages) stages = FC(stages_of)(&a->e);
    const int relu = stages.relu;
    const ptrdiff_t mr = a->cols < FC_DEPTHWISE ? 1 : FC_DEPTHWISE;
    /* a few columns from top to bottom: what the rows of the filter share stays in L1 */
    for (ptrdiff_t next = 0; next < a->cols; next += mr) {
        const ptrdiff_t j = a->cols - next < mr ? a->cols - mr : next; /* the last may overlap those before */
        for (ptrdiff_t i = 0; i < a->rows; i++)
            for (ptrdiff_t c = 0; c < a->channels; c += LANES) {
                const T *x = (const T *)a->x + i * a->x_row + j * a->x_col + c, *w = (const T *)a->w + c;
                T *y = (T *)a->y + i * a->y_row + j * a->y_col + c;
                const ptrdiff_t tail = a->channels - c < LANES ? a->channels - c : 0;
                if (tail || mr == 1)
                    for (ptrdiff_t m = 0; m < mr; m++)
                        FC(depthwise_tile)(a, x + m * a->x_col, w, y + m * a->y_col, c, relu, tail, 0, 1);
                else if (threes)
                    FC(depthwise_tile)(a, x, w, y, c, relu, 0, 1, FC_DEPTHWISE);
                else
                    FC(depthwise_tile)(a, x, w, y, c, relu, 0, 0, FC_DEPTHWISE);
                if (stages.later)
                    FC(finish_later)(&stages, a->y, i * a->y_row + j * a->y_col, a->y_col,
                                     i * a->e.add_row + j * a->e.add_col, a->e.add_col, mr, c, tail ? tail : LANES);
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

/* sum[c] += x[0, c] + x[1, c] + ... in order; x (n, c) contiguous */
static void FC(column_sum)(const void *x, ptrdiff_t n, ptrdiff_t c, void *sum)
{
    T *s = sum;
    for (ptrdiff_t j = 0; j < c; j += 4 * LANES) {
        const ptrdiff_t left = c - j;
        if (left >= 4 * LANES) {
            VEC acc[4];
            for (int v = 0; v < 4; v++)
                acc[v] = V(load)(s + j + v * LANES);
            for (ptrdiff_t i = 0; i < n; i++)
                for (int v = 0; v < 4; v++)
                    acc[v] = V(add)(acc[v], V(load)((const T *)x + i * c + j + v * LANES));
            for (int v = 0; v < 4; v++)
                V(store)(s + j + v * LANES, acc[v]);
        } else
            for (ptrdiff_t k = j; k < c; k += LANES) {
                const ptrdiff_t part = c - k < LANES ? c - k : LANES;
                VEC acc = part < LANES ? V(load_n)(s + k, part) : V(load)(s + k);
                for (ptrdiff_t i = 0; i < n; i++) {
                    const T *p = (const T *)x + i * c + k;
                    acc = V(add)(acc, part < LANES ? V(load_n)(p, part) : V(load)(p));
                }
                if (part < LANES)
                    V(store_n)(s + k, acc, part);
                else
                    V(store)(s + k, acc);
            }
    }
}
