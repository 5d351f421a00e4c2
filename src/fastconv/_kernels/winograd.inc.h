/* Winograd convolution F(4 x 4, 3 x 3) and F(2 x 2, 5 x 5) over T and the vector vocabulary (Lavin and Gray, arXiv
 * 1509.09308).
 *
 * A tile of 4 x 4 or 2 x 2 results reads 6 x 6 pixels. Pixels and filters are taken to 36 values each, multiplied there
 * value by value, summed over the channels, and taken back: results = A' ((G filter) * (B' pixels)). In one dimension,
 * with the points 0, +-a = +-5/8, +-b = +-3/2 and infinity (tests/test_winograd.py derives the matrices from them):
 *
 *        | aabb       -aa-bb     1   |        |  1 / aabb        |        | 1   0   0    0   |
 *        |    -abb -bb    a      1   |        | ca  ca a  ca aa  |        | 1   a   aa   aaa |
 *   B' = |     abb -bb   -a      1   |    G = | ca -ca a  ca aa  |    A = | 1  -a   aa  -aaa |
 *        |    -aab -aa    b      1   |        | cb  cb b  cb bb  |        | 1   b   bb   bbb |
 *        |     aab -aa   -b      1   |        | cb -cb b  cb bb  |        | 1  -b   bb  -bbb |
 *        |    aabb    -aa-bb       1 |        |  0   0       1   |        | 0   0   0    1   |
 *
 *   ca = 1 / (2 aa (aa - bb)) = -2048/2975, cb = 1 / (2 bb (bb - aa)) = 128/1071
 *
 * For 5 x 5 the same points give the same B'; G goes on to their fourth powers, A ends with the first.
 *
 * All but G is exact in single precision. Two dimensions are the same along columns, then along rows. The weight
 * gradient turns it around: G' (sum over tiles of (A gradients) * (B' pixels)); so can the input gradient: a tile's
 * share in 6 x 6 pixels is B ((G filter) * (A gradients)), summed over the filters, and shares are added. Each step is
 * one fixed expression, so that every table has the same bits. Values lie in planes, one each: `v + e * v_plane +
 * tile * v_tile`, e = 6 * row + column.
 */

/* x in, B' x out */
FC_INLINE void FC(winograd_pixels)(const VEC *x, VEC *v)
{
    const VEC p = V(set1)((T)-2.640625), q = V(set1)((T)0.87890625);
    const VEC a2 = V(set1)((T)-0.390625), b2 = V(set1)((T)-2.25);
    const VEC ea = V(fma)(b2, x[2], x[4]), oa = V(fma)(b2, x[1], x[3]);
    const VEC eb = V(fma)(a2, x[2], x[4]), ob = V(fma)(a2, x[1], x[3]);
    v[0] = V(fma)(q, x[0], V(fma)(p, x[2], x[4]));
    v[1] = V(fma)(V(set1)((T)0.625), oa, ea);
    v[2] = V(fma)(V(set1)((T)-0.625), oa, ea);
    v[3] = V(fma)(V(set1)((T)1.5), ob, eb);
    v[4] = V(fma)(V(set1)((T)-1.5), ob, eb);
    v[5] = V(fma)(q, x[1], V(fma)(p, x[3], x[5]));
}

/* B m: what `winograd_pixels` does, turned round */
FC_INLINE void FC(winograd_shares)(const VEC *m, VEC *x)
{
    const VEC p = V(set1)((T)-2.640625), q = V(set1)((T)0.87890625);
    const VEC sa = V(add)(m[1], m[2]), da = V(sub)(m[1], m[2]);
    const VEC sb = V(add)(m[3], m[4]), db = V(sub)(m[3], m[4]);
    x[0] = V(mul)(q, m[0]);
    x[1] = V(fma)(q, m[5], V(fma)(V(set1)((T)-1.40625), da, V(mul)(V(set1)((T)-0.5859375), db)));
    x[2] = V(fma)(p, m[0], V(fma)(V(set1)((T)-2.25), sa, V(mul)(V(set1)((T)-0.390625), sb)));
    x[3] = V(fma)(p, m[5], V(fma)(V(set1)((T)0.625), da, V(mul)(V(set1)((T)1.5), db)));
    x[4] = V(add)(m[0], V(add)(sa, sb));
    x[5] = m[5];
}

/* A' m, for 5 x 5 */
FC_INLINE void FC(winograd_two_results)(const VEC *m, VEC *y)
{
    const VEC da = V(sub)(m[1], m[2]), db = V(sub)(m[3], m[4]);
    y[0] = V(add)(V(add)(m[0], V(add)(m[1], m[2])), V(add)(m[3], m[4]));
    y[1] = V(fma)(V(set1)((T)0.625), da, V(fma)(V(set1)((T)1.5), db, m[5]));
}

/* A' m */
FC_INLINE void FC(winograd_results)(const VEC *m, VEC *y)
{
    const VEC sa = V(add)(m[1], m[2]), da = V(sub)(m[1], m[2]);
    const VEC sb = V(add)(m[3], m[4]), db = V(sub)(m[3], m[4]);
    y[0] = V(add)(V(add)(m[0], sa), sb);
    y[1] = V(fma)(V(set1)((T)0.625), da, V(mul)(V(set1)((T)1.5), db));
    y[2] = V(fma)(V(set1)((T)0.390625), sa, V(mul)(V(set1)((T)2.25), sb));
    y[3] = V(fma)(V(set1)((T)0.244140625), da, V(fma)(V(set1)((T)3.375), db, m[5]));
}

/* A g */
FC_INLINE void FC(winograd_gradients)(const VEC *g, VEC *v)
{
    const VEC a2 = V(set1)((T)0.390625), b2 = V(set1)((T)2.25);
    const VEC ea = V(fma)(a2, g[2], g[0]), oa = V(fma)(a2, g[3], g[1]);
    const VEC eb = V(fma)(b2, g[2], g[0]), ob = V(fma)(b2, g[3], g[1]);
    v[0] = g[0];
    v[1] = V(fma)(V(set1)((T)0.625), oa, ea);
    v[2] = V(fma)(V(set1)((T)-0.625), oa, ea);
    v[3] = V(fma)(V(set1)((T)1.5), ob, eb);
    v[4] = V(fma)(V(set1)((T)-1.5), ob, eb);
    v[5] = g[3];
}

/* A g, for 5 x 5 */
FC_INLINE void FC(winograd_two_gradients)(const VEC *g, VEC *v)
{
    v[0] = g[0];
    v[1] = V(fma)(V(set1)((T)0.625), g[1], g[0]);
    v[2] = V(fma)(V(set1)((T)-0.625), g[1], g[0]);
    v[3] = V(fma)(V(set1)((T)1.5), g[1], g[0]);
    v[4] = V(fma)(V(set1)((T)-1.5), g[1], g[0]);
    v[5] = g[1];
}

/* Filters and their gradients go through double precision and are rounded once: they are few, and errors here would be
 * those of every result. */
FC_INLINE vf64 FC(times)(double a, vf64 x) { return f64_mul(f64_set1(a), x); }

/* w0 + a w2 (+ aa w4) */
FC_INLINE vf64 FC(even)(const vf64 *w, double a, const int taps)
{
    return f64_add(w[0], FC(times)(a, taps > 3 ? f64_add(w[2], FC(times)(a, w[4])) : w[2]));
}

/* root (w1 + a w3), where a = root * root */
FC_INLINE vf64 FC(odd)(const vf64 *w, double root, const int taps)
{
    return FC(times)(root, taps > 3 ? f64_add(w[1], FC(times)(root * root, w[3])) : w[1]);
}

/* G w: `taps` numbers in, six out */
FC_INLINE void FC(winograd_weights)(const vf64 *w, vf64 *u, const int taps)
{
    const double c0 = 256.0 / 225, ca = -2048.0 / 2975, cb = 128.0 / 1071;
    const vf64 ea = FC(even)(w, 0.390625, taps), eb = FC(even)(w, 2.25, taps);
    const vf64 oa = FC(odd)(w, 0.625, taps), ob = FC(odd)(w, 1.5, taps);
    u[0] = FC(times)(c0, w[0]);
    u[1] = FC(times)(ca, f64_add(ea, oa));
    u[2] = FC(times)(ca, f64_sub(ea, oa));
    u[3] = FC(times)(cb, f64_add(eb, ob));
    u[4] = FC(times)(cb, f64_sub(eb, ob));
    u[5] = w[taps - 1];
}

/* G' m: six numbers in, `taps` out */
FC_INLINE void FC(winograd_sums)(const vf64 *m, vf64 *w, const int taps)
{
    const double c0 = 256.0 / 225, ca = -2048.0 / 2975, cb = 128.0 / 1071;
    const vf64 sa = FC(times)(ca, f64_add(m[1], m[2])), da = FC(times)(ca, f64_sub(m[1], m[2]));
    const vf64 sb = FC(times)(cb, f64_add(m[3], m[4])), db = FC(times)(cb, f64_sub(m[3], m[4]));
    w[0] = f64_add(FC(times)(c0, m[0]), f64_add(sa, sb));
    w[1] = f64_add(FC(times)(0.625, da), FC(times)(1.5, db));
    w[2] = f64_add(FC(times)(0.390625, sa), FC(times)(2.25, sb));
    if (taps == 3) {
        w[2] = f64_add(w[2], m[5]);
        return;
    }
    w[3] = f64_add(FC(times)(0.244140625, da), FC(times)(3.375, db));
    w[4] = f64_add(f64_add(FC(times)(0.152587890625, sa), FC(times)(5.0625, sb)), m[5]);
}

/* Some tiles that follow each other in a row of an image's phase, and what of their pixels lies on the image: rows
 * [i0, i1) of `reach`, columns [j0, j1) of `columns` */
typedef struct FC(run) {
    ptrdiff_t tiles, columns;
    ptrdiff_t n, row, col; /* the image; its pixel the run begins at, which may be outside */
    ptrdiff_t i0, i1, j0, j1;
} FC(run);

/* Which of n steps of `step` from `first` on, at most `most`, are from 0 to `end`: [*from, *to) */
FC_INLINE void FC(inside)(ptrdiff_t first, ptrdiff_t step, ptrdiff_t most, ptrdiff_t end, ptrdiff_t *from,
                          ptrdiff_t *to)
{
    *from = first < 0 ? (step - 1 - first) / step : 0;
    const ptrdiff_t before = end > first ? (end - first + step - 1) / step : 0;
    *to = before < most ? before : most;
}

/* At most so many tiles from the t-th on; a tile reads or writes reach x reach pixels */
FC_INLINE FC(run) FC(run_of)(const fc_winograd *a, ptrdiff_t t, ptrdiff_t most, const ptrdiff_t reach,
                             const ptrdiff_t side)
{
    const ptrdiff_t tile = a->first + t, of_phase = a->rows * a->cols, phase = tile / of_phase;
    const ptrdiff_t i = tile % of_phase / a->cols, j = tile % a->cols;
    FC(run) p = {
        .n = phase / (a->dh * a->dw),
        .row = phase / a->dw % a->dh + side * i * a->dh - a->top,
        .col = phase % a->dw + side * j * a->dw - a->left,
    };
    p.tiles = a->cols - j < a->tiles - t ? a->cols - j : a->tiles - t;
    p.tiles = p.tiles < most ? p.tiles : most;
    p.columns = side * (p.tiles - 1) + reach;
    FC(inside)(p.row, a->dh, reach, a->h, &p.i0, &p.i1);
    FC(inside)(p.col, a->dw, p.columns, a->w, &p.j0, &p.j1);
    if (p.i0 >= p.i1 || p.j0 >= p.j1) /* wholly in the border */
        p.i0 = p.i1 = p.j0 = p.j1 = 0;
    return p;
}

/* One vector of channels, or `part` of it: n columns of `reach` pixels become columns of six values */
FC_INLINE void FC(winograd_columns)(const T *const *rows, ptrdiff_t x_col, VEC (*half)[6], ptrdiff_t n, ptrdiff_t part,
                                    void (*step)(const VEC *x, VEC *v), const int reach)
{
    for (ptrdiff_t j = 0, at = 0; j < n; j++, at += x_col) {
        VEC x[6];
        FC_UNROLL for (int i = 0; i < reach; i++)
            x[i] = FC(get)(rows[i] + at, part);
        step(x, half[j]);
    }
}

/* The values of all tiles: reach x reach pixels in, 36 values out, whole vectors of them. The columns of a run are
 * taken first, so that those of two tiles are taken once. A row of pixels outside the image is read from a->zeros. The
 * loop over six rows stays a loop: taken apart, they are too many values at once. */
FC_INLINE void FC(winograd_to_tiles)(const fc_winograd *a, void (*step)(const VEC *x, VEC *v), const int reach,
                                     const int side)
{
    const ptrdiff_t v_plane = a->v_plane, x_row = a->x_row, x_col = a->dw * a->x_col;
    ptrdiff_t six = 6;
    FC_AGAIN(six);
    for (ptrdiff_t t = 0; t < a->tiles;) {
        const FC(run) p = FC(run_of)(a, t, FC_RUN, reach, side);
        const T *rows[6];
        for (int i = 0; i < reach; i++)
            rows[i] = i < p.i0 || i >= p.i1 ? a->zeros
                                            : (const T *)a->x + p.n * a->x_image + (p.row + i * a->dh) * x_row +
                                                  p.col * a->x_col + p.j0 * x_col;
        VEC half[FC_RUN_COLUMNS][6];
        for (ptrdiff_t j = 0; j < p.columns; j++)
            if (j < p.j0 || j >= p.j1)
                for (int i = 0; i < 6; i++)
                    half[j][i] = V(set1)(0);
        for (ptrdiff_t c = 0; c < a->channels; c += LANES) {
            const ptrdiff_t part = a->channels - c < LANES ? a->channels - c : 0;
            if (part)
                FC(winograd_columns)(rows, x_col, half + p.j0, p.j1 - p.j0, part, step, reach);
            else
                FC(winograd_columns)(rows, x_col, half + p.j0, p.j1 - p.j0, 0, step, reach);
            T *v = (T *)a->v + t * a->v_tile + c;
            for (ptrdiff_t tile = 0; tile < p.tiles; tile++, v += a->v_tile) {
                T *to = v;
                for (ptrdiff_t i = 0; i < six; i++, to += 6 * v_plane) {
                    VEC x[6], y[6];
                    FC_UNROLL for (int j = 0; j < reach; j++)
                        x[j] = half[side * tile + j][i];
                    step(x, y);
                    FC_UNROLL for (int j = 0; j < 6; j++)
                        V(store)(to + j * v_plane, y[j]);
                }
            }
            for (int i = 0; i < reach; i++)
                rows[i] += LANES;
        }
        t += p.tiles;
    }
}

static void FC(winograd_input)(const fc_winograd *a)
{
    if (a->side == 4)
        FC(winograd_to_tiles)(a, FC(winograd_pixels), 6, 4);
    else
        FC(winograd_to_tiles)(a, FC(winograd_pixels), 6, 2);
}

static void FC(winograd_gradient)(const fc_winograd *a)
{
    if (a->side == 4)
        FC(winograd_to_tiles)(a, FC(winograd_gradients), 4, 4);
    else
        FC(winograd_to_tiles)(a, FC(winograd_two_gradients), 2, 2);
}

/* side x side results from 36 sums a tile, with the epilogue of theirs */
FC_INLINE void FC(winograd_from_tiles)(const fc_winograd *a, void (*step)(const VEC *m, VEC *y), const int side)
{
    const FC(stages) stages = FC(stages_of)(&a->e);
    const ptrdiff_t v_plane = a->v_plane, x_row = a->dh * a->x_row, x_col = a->dw * a->x_col;
    ptrdiff_t six = 6;
    FC_AGAIN(six);
    for (ptrdiff_t t = 0; t < a->tiles;) {
        const FC(run) p = FC(run_of)(a, t, a->cols, side, side);
        const ptrdiff_t at = p.n * a->x_image + p.row * a->x_row + p.col * a->x_col;
        for (ptrdiff_t tile = 0; tile < p.tiles; tile++) {
            const ptrdiff_t pixels = p.j1 - side * tile < side ? p.j1 - side * tile : side;
            for (ptrdiff_t k = 0; k < a->channels; k += LANES) {
                const ptrdiff_t part = a->channels - k < LANES ? a->channels - k : 0;
                const T *m = (const T *)a->v + (t + tile) * a->v_tile + k;
                VEC half[6][4];
                for (ptrdiff_t j = 0; j < six; j++, m += v_plane) {
                    VEC x[6];
                    FC_UNROLL for (int i = 0; i < 6; i++)
                        x[i] = V(load)(m + 6 * i * v_plane);
                    step(x, half[j]);
                }
                T *to = (T *)a->x + at + side * tile * x_col + k;
                for (ptrdiff_t i = 0; i < p.i1; i++, to += x_row) {
                    VEC x[6], y[4];
                    FC_UNROLL for (int j = 0; j < 6; j++)
                        x[j] = half[j][i];
                    step(x, y);
                    FC(finish_sums)(y, side, 1, &a->e, stages.act, k, part);
                    if (pixels == side && !part) {
                        FC_UNROLL for (int j = 0; j < side; j++)
                            V(store)(to + j * x_col, y[j]);
                    } else
                        FC_UNROLL for (int j = 0; j < side; j++)
                            if (j < pixels)
                                FC(put)(to + j * x_col, y[j], part);
                }
            }
        }
        if (stages.later)
            for (ptrdiff_t i = 0; i < p.i1; i++)
                FC(finish_later)(&stages, a->x, at + i * x_row, x_col,
                                 p.n * a->e.add_image + (p.row + i * a->dh) * a->e.add_row + p.col * a->e.add_col,
                                 a->dw * a->e.add_col, p.j1, 0, a->channels);
        t += p.tiles;
    }
}

static void FC(winograd_output)(const fc_winograd *a)
{
    if (a->side == 4)
        FC(winograd_from_tiles)(a, FC(winograd_results), 4);
    else
        FC(winograd_from_tiles)(a, FC(winograd_two_results), 2);
}

/* Column j of a run of tiles: six values become six rows of pixels, which are added to those at `to` */
FC_INLINE void FC(winograd_add_column)(const VEC *values, T *to, ptrdiff_t x_row, ptrdiff_t i0, ptrdiff_t i1,
                                       ptrdiff_t part)
{
    VEC x[6];
    FC(winograd_shares)(values, x);
    FC_UNROLL for (int i = 0; i < 6; i++)
        if (i >= i0 && i < i1)
            FC(put)(to + i * x_row, V(add)(FC(get)(to + i * x_row, part), x[i]), part);
}

/* Adds to the pixels what 36 sums a tile give to the 6 x 6 of them that the tile reads. Runs of tiles follow each
 * other, and what a run gives is summed, tile after tile, before it is added. */
FC_INLINE void FC(winograd_to_pixels)(const fc_winograd *a, const int side)
{
    const ptrdiff_t v_plane = a->v_plane, x_row = a->dh * a->x_row, x_col = a->dw * a->x_col;
    ptrdiff_t six = 6;
    FC_AGAIN(six);
    for (ptrdiff_t t = 0; t < a->tiles;) {
        const FC(run) p = FC(run_of)(a, t, FC_RUN, 6, side);
        T *pixels = (T *)a->x + p.n * a->x_image + p.row * a->x_row + p.col * a->x_col;
        for (ptrdiff_t c = 0; c < a->channels; c += LANES) {
            const ptrdiff_t part = a->channels - c < LANES ? a->channels - c : 0;
            VEC half[FC_RUN_COLUMNS][6];
            for (ptrdiff_t j = 0; j < p.columns; j++)
                FC_UNROLL for (int i = 0; i < 6; i++)
                    half[j][i] = V(set1)(0);
            const T *m = (const T *)a->v + t * a->v_tile + c;
            for (ptrdiff_t tile = 0; tile < p.tiles; tile++, m += a->v_tile)
                for (ptrdiff_t i = 0; i < six; i++) {
                    VEC x[6], y[6];
                    FC_UNROLL for (int j = 0; j < 6; j++)
                        x[j] = V(load)(m + (6 * i + j) * v_plane);
                    FC(winograd_shares)(x, y);
                    FC_UNROLL for (int j = 0; j < 6; j++)
                        half[side * tile + j][i] = V(add)(half[side * tile + j][i], y[j]);
                }
            T *to = pixels + p.j0 * x_col + c;
            if (p.i0 == 0 && p.i1 == 6 && !part)
                for (ptrdiff_t j = p.j0; j < p.j1; j++, to += x_col)
                    FC(winograd_add_column)(half[j], to, x_row, 0, 6, 0);
            else
                for (ptrdiff_t j = p.j0; j < p.j1; j++, to += x_col)
                    FC(winograd_add_column)(half[j], to, x_row, p.i0, p.i1, part);
        }
        t += p.tiles;
    }
}

static void FC(winograd_shared)(const fc_winograd *a)
{
    if (a->side == 4)
        FC(winograd_to_pixels)(a, 4);
    else
        FC(winograd_to_pixels)(a, 2);
}

/* u[e][i] of w[tap][i], i < n, for taps x taps: planes of whole vectors, w_plane and u_plane apart. Meanwhile the
 * weights `next` are fetched: as many, of whole panels of lanes. */
FC_INLINE void FC(winograd_to_values)(const T *w, ptrdiff_t w_plane, T *u, ptrdiff_t u_plane, ptrdiff_t n,
                                      const fc_pack *next, const int taps)
{
    const char *filter_next = next->w;
    ptrdiff_t lane = 0;
    for (ptrdiff_t k = 0; k < n; k += f64_LANES) {
        for (ptrdiff_t i = 0; i < f64_LANES; i++, lane++)
            for (size_t byte = 0; byte < taps * taps * sizeof(T); byte += 64)
                FC_PREFETCH_FAR(filter_next + lane * next->lane_pitch * sizeof(T) + byte);
        if (lane >= next->nr) {
            lane = 0;
            filter_next += next->c_pitch * sizeof(T);
        }
        vf64 half[6][5];
        FC_UNROLL for (int j = 0; j < taps; j++) {
            vf64 filter[5], y[6];
            FC_UNROLL for (int i = 0; i < taps; i++)
                filter[i] = V(load_f64)(w + (taps * i + j) * w_plane + k);
            FC(winograd_weights)(filter, y, taps);
            FC_UNROLL for (int i = 0; i < 6; i++)
                half[i][j] = y[i];
        }
        FC_UNROLL for (int i = 0; i < 6; i++) {
            vf64 y[6];
            FC(winograd_weights)(half[i], y, taps);
            FC_UNROLL for (int j = 0; j < 6; j++)
                V(store_f64)(u + (6 * i + j) * u_plane + k, y[j]);
        }
    }
}

static void FC(winograd_filters)(const void *w, ptrdiff_t w_plane, void *u, ptrdiff_t u_plane, ptrdiff_t n,
                                 const fc_pack *next, int taps)
{
    if (taps == 3)
        FC(winograd_to_values)(w, w_plane, u, u_plane, n, next, 3);
    else
        FC(winograd_to_values)(w, w_plane, u, u_plane, n, next, 5);
}

/* w[tap][i] of the sums m[e][i], i < n, as above */
FC_INLINE void FC(winograd_from_values)(const T *m, ptrdiff_t m_plane, T *w, ptrdiff_t w_plane, ptrdiff_t n,
                                        const int taps)
{
    for (ptrdiff_t k = 0; k < n; k += f64_LANES) {
        vf64 half[5][6];
        FC_UNROLL for (int j = 0; j < 6; j++) {
            vf64 values[6], y[5];
            FC_UNROLL for (int i = 0; i < 6; i++)
                values[i] = V(load_f64)(m + (6 * i + j) * m_plane + k);
            FC(winograd_sums)(values, y, taps);
            FC_UNROLL for (int i = 0; i < taps; i++)
                half[i][j] = y[i];
        }
        FC_UNROLL for (int i = 0; i < taps; i++) {
            vf64 y[5];
            FC(winograd_sums)(half[i], y, taps);
            FC_UNROLL for (int j = 0; j < taps; j++)
                V(store_f64)(w + (taps * i + j) * w_plane + k, y[j]);
        }
    }
}

static void FC(winograd_filter_gradient)(const void *m, ptrdiff_t m_plane, void *w, ptrdiff_t w_plane, ptrdiff_t n,
                                         int taps)
{
    if (taps == 3)
        FC(winograd_from_values)(m, m_plane, w, w_plane, n, 3);
    else
        FC(winograd_from_values)(m, m_plane, w, w_plane, n, 5);
}
