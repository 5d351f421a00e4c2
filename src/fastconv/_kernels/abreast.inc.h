/* Convolution with images abreast: a vector is one number of LANES images, so that layers of few channels fill it, and
 * nothing changes places between a multiply-add and the next. Chains are those of rows.inc.h and outer.inc.h. */

/* A tile's sums stay in registers: those of one to four filters and up to eight pixels or weights. */
enum { FC(abreast_sums) = FC_VECTORS >= 32 ? 24 : 12, FC(abreast_most) = 8 };
#define FC_ABREAST(kt)                                                                                               \
    (FC(abreast_sums) / (kt) < FC(abreast_most) ? FC(abreast_sums) / (kt) : FC(abreast_most))

/* lanes[i][l] = x[l, i], i < n; images x_image apart; 0 in lanes beyond the last image */
static void FC(to_lanes)(const void *x, ptrdiff_t x_image, ptrdiff_t images, ptrdiff_t n, void *lanes)
{
    const T *p = x;
    T *out = lanes;
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) {
        VEC quads[4];
        if (images >= LANES)
            V(load_quads)(p + i, x_image, quads, LANES);
        else
            V(load_quads)(p + i, x_image, quads, images);
        for (int j = 0; j < 4; j++)
            V(store)(out + (i + j) * LANES, quads[j]);
    }
    for (; i < n; i++)
        for (ptrdiff_t l = 0; l < LANES; l++)
            out[i * LANES + l] = l < images ? p[l * x_image + i] : 0;
}

/* y[l, i] = lanes[i][l], i < n; images y_image apart */
static void FC(from_lanes)(const void *lanes, ptrdiff_t n, void *y, ptrdiff_t y_image, ptrdiff_t images)
{
    const T *p = lanes;
    T *out = y;
    for (ptrdiff_t i = 0; i < n; i += 4) {
        const ptrdiff_t m = n - i < 4 ? n - i : 4;
        if (m == 1) {
            for (ptrdiff_t l = 0; l < images && l < LANES; l++)
                out[l * y_image + i] = p[i * LANES + l];
            break;
        }
        VEC quads[4];
        for (ptrdiff_t j = 0; j < 4; j++)
            quads[j] = V(load)(p + (i + (j < m ? j : 0)) * LANES);
        if (images >= LANES && m == 4)
            V(store_quads)(out + i, y_image, quads, LANES, 4);
        else
            V(store_quads)(out + i, y_image, quads, images < LANES ? images : LANES, (int)m);
    }
}

/* ---- forward and input gradient ---- */

/* Where a tile lies, and which taps of each run of `in_row`, [first, last), meet a pixel of the image there */
typedef struct FC(abreast_place) {
    const T *x;
    T *y;
    ptrdiff_t k, first, last, in_row;
    int act;
} FC(abreast_place);

/* -1 in lanes that are -0, else 1 */
FC_INLINE VEC FC(negative_zero)(VEC a)
{
    return V(select)(V(eq)(a, V(set1)(0)), V(copysign)(V(set1)(1), a), V(set1)(1));
}

/* One term of all sums: pixels at p, weights at w */
FC_INLINE void FC(abreast_term)(const T *p, ptrdiff_t x_col, const T *w, VEC (*acc)[4], const int mr, const int kt)
{
    if (kt > mr) { /* the fewer ones stay in registers */
        VEC pixel[FC(abreast_most)];
        for (int j = 0; j < mr; j++) {
            pixel[j] = V(load)(p + j * x_col);
            FC_PIN(pixel[j]);
        }
        for (int i = 0; i < kt; i++) {
            const VEC factor = V(set1)(w[i]);
            for (int j = 0; j < mr; j++)
                acc[j][i] = V(fma)(pixel[j], factor, acc[j][i]);
        }
    } else {
        VEC factor[4];
        for (int i = 0; i < kt; i++)
            factor[i] = V(set1)(w[i]);
        for (int j = 0; j < mr; j++) {
            VEC pixel = V(load)(p + j * x_col);
            FC_PIN(pixel);
            for (int i = 0; i < kt; i++)
                acc[j][i] = V(fma)(pixel, factor[i], acc[j][i]);
        }
    }
}

/* One tile: mr pixels of a row, kt filters. Whether it has to be done again with all taps: those beside the image add
 * zeros, which change no sum but -0. */
FC_INLINE int FC(abreast_tile)(const fc_abreast *a, const FC(abreast_place) *at, const int mr, const int kt)
{
    const ptrdiff_t x_col = a->x_col * LANES, k = at->k, first = at->first, last = at->last, in_row = at->in_row;
    const T *w = (const T *)a->w + k;
    VEC acc[FC(abreast_most)][4];
    for (int j = 0; j < mr; j++)
        for (int i = 0; i < kt; i++)
            acc[j][i] = V(set1)(0);
    if (a->nc == 1 && last == a->ntaps) /* one loop in the place of three */
        for (ptrdiff_t t = 0; t < last; t++, w += a->w_row)
            FC(abreast_term)(at->x + a->taps[t] * LANES, x_col, w, acc, mr, kt);
    else
        for (ptrdiff_t row = 0; row < a->ntaps; row += in_row) {
            w += first * a->nc * a->w_row;
            for (ptrdiff_t t = row + first; t < row + last; t++) {
                const T *p = at->x + a->taps[t] * LANES;
                for (ptrdiff_t c = 0; c < a->nc; c++, w += a->w_row, p += LANES)
                    FC(abreast_term)(p, x_col, w, acc, mr, kt);
            }
            w += (in_row - last) * a->nc * a->w_row;
        }
    if (last - first < in_row) {
        VEC least = V(set1)(1);
        T lanes[LANES], sum = 0;
        FC_UNROLL for (int j = 0; j < mr; j++)
            FC_UNROLL for (int i = 0; i < kt; i++)
                least = V(min)(least, FC(negative_zero)(acc[j][i]));
        V(store)(lanes, least);
        for (ptrdiff_t l = 0; l < LANES; l++)
            sum += lanes[l];
        if (sum < LANES)
            return 1;
    }
    /* each step of the epilogue for all sums, so that none is asked for twice */
    const T *bias = a->e.bias, *scale = a->e.scale, *shift = a->e.shift;
    if (bias)
        FC_UNROLL for (int i = 0; i < kt; i++) {
            const VEC b = V(set1)(bias[k + i]);
            FC_UNROLL for (int j = 0; j < mr; j++)
                acc[j][i] = V(add)(acc[j][i], b);
        }
    if (scale)
        FC_UNROLL for (int i = 0; i < kt; i++) {
            const VEC f = V(set1)(scale[k + i]), s = V(set1)(shift[k + i]);
            FC_UNROLL for (int j = 0; j < mr; j++)
                acc[j][i] = V(fma)(acc[j][i], f, s);
        }
    if (at->act != FC_ACT_none)
        FC_UNROLL for (int j = 0; j < mr; j++)
            FC_UNROLL for (int i = 0; i < kt; i++)
                acc[j][i] = FC(act_vec)(acc[j][i], &a->e, at->act);
    T *y = at->y + k * LANES;
    FC_UNROLL for (int j = 0; j < mr; j++, y += a->channels * LANES)
        FC_UNROLL for (int i = 0; i < kt; i++)
            V(store)(y + i * LANES, acc[j][i]);
    return 0;
}

/* All taps, as one run */
FC_INLINE void FC(all_taps)(const fc_abreast *a, FC(abreast_place) *at)
{
    at->first = 0;
    at->last = at->in_row = a->ntaps;
}

/* The taps without those that lie beside the image for all of the pixels j .. j + mr - 1 */
static void FC(choose_taps)(const fc_abreast *a, ptrdiff_t j, ptrdiff_t mr, FC(abreast_place) *at)
{
    FC(all_taps)(a, at);
    if (!a->tap_c)
        return;
    const ptrdiff_t left = a->col + j * a->col_step, right = left + (mr - 1) * a->col_step;
    ptrdiff_t first = 0, last = a->in_row;
    while (first < last && right + a->tap_c[first] < 0)
        first++;
    while (first < last && left + a->tap_c[last - 1] >= a->width)
        last--;
    if (last - first < a->in_row) {
        at->first = first;
        at->last = last;
        at->in_row = a->in_row;
    }
}

/* All tiles of a row, kt filters: as many of full width as there are, then smaller ones */
#define FC_TILES(KT)                                                                                                 \
    static FC_NOINLINE int FC(abreast_most_##KT)(const fc_abreast *a, const FC(abreast_place) *at)                     \
    {                                                                                                                \
        return FC(abreast_tile)(a, at, FC_ABREAST(KT), KT);                                                         \
    }                                                                                                                \
    static FC_NOINLINE int FC(abreast_four_##KT)(const fc_abreast *a, const FC(abreast_place) *at)                     \
    {                                                                                                                \
        return FC(abreast_tile)(a, at, FC_ABREAST(KT) > 4 ? 4 : 1, KT);                                             \
    }                                                                                                                \
    static FC_NOINLINE int FC(abreast_two_##KT)(const fc_abreast *a, const FC(abreast_place) *at)                      \
    {                                                                                                                \
        return FC(abreast_tile)(a, at, 2, KT);                                                                      \
    }                                                                                                                \
    static FC_NOINLINE int FC(abreast_one_##KT)(const fc_abreast *a, const FC(abreast_place) *at)                      \
    {                                                                                                                \
        return FC(abreast_tile)(a, at, 1, KT);                                                                      \
    }                                                                                                                \
    static void FC(abreast_row_##KT)(const fc_abreast *a, FC(abreast_place) at)                                        \
    {                                                                                                                \
        int (*tile)(const fc_abreast *a, const FC(abreast_place) *at);                                               \
        for (ptrdiff_t j = 0, n; j < a->cols; j += n) {                                                              \
            const ptrdiff_t left = a->cols - j;                                                                      \
            if (left >= FC_ABREAST(KT)) {                                                                            \
                n = FC_ABREAST(KT);                                                                                  \
                tile = FC(abreast_most_##KT);                                                                        \
            } else if (left >= 4 && FC_ABREAST(KT) > 4) {                                                            \
                n = 4;                                                                                               \
                tile = FC(abreast_four_##KT);                                                                        \
            } else if (left >= 2) {                                                                                  \
                n = 2;                                                                                               \
                tile = FC(abreast_two_##KT);                                                                         \
            } else {                                                                                                 \
                n = 1;                                                                                               \
                tile = FC(abreast_one_##KT);                                                                         \
            }                                                                                                        \
            FC(choose_taps)(a, j, n, &at);                                                                           \
            if (tile(a, &at)) {                                                                                      \
                FC(all_taps)(a, &at);                                                                                \
                tile(a, &at);                                                                                        \
            }                                                                                                        \
            at.x += n * a->x_col * LANES;                                                                            \
            at.y += n * a->channels * LANES;                                                                         \
        }                                                                                                            \
    }
FC_TILES(1)
FC_TILES(2)
FC_TILES(3)
FC_TILES(4)
#undef FC_TILES

static void FC(abreast)(const fc_abreast *a)
{
    const FC(stages) stages = FC(stages_of)(&a->e);
    const ptrdiff_t groups = (a->channels + 3) / 4;
    for (ptrdiff_t row = 0; row < a->rows; row++) {
        FC(abreast_place) at = {(const T *)a->x + row * a->x_row * LANES, a->line, 0, 0, 0, 0, stages.act};
        for (ptrdiff_t g = 0; g < groups; g++) { /* five channels are 3 and 2, not 4 and 1 */
            const ptrdiff_t kt = (a->channels - at.k + groups - g - 1) / (groups - g);
            switch (kt) {
                case 1: FC(abreast_row_1)(a, at); break;
                case 2: FC(abreast_row_2)(a, at); break;
                case 3: FC(abreast_row_3)(a, at); break;
                default: FC(abreast_row_4)(a, at);
            }
            at.k += kt;
        }
        T *y = (T *)a->y + row * a->y_row;
        if (a->y_col == a->channels)
            FC(from_lanes)(a->line, a->cols * a->channels, y, a->y_image, a->images);
        else
            for (ptrdiff_t j = 0; j < a->cols; j++)
                FC(from_lanes)((const T *)a->line + j * a->channels * LANES, a->channels, y + j * a->y_col, a->y_image,
                               a->images);
        if (stages.later)
            for (ptrdiff_t n = 0; n < a->images; n++)
                FC(finish_later)(&stages, a->y, n * a->y_image + row * a->y_row, a->y_col,
                                 n * a->e.add_image + row * a->e.add_row, a->e.add_col, a->cols, 0, a->channels);
    }
}

/* ---- weight gradient ---- */

/* One tile: mr weights, whose factors lie where taps say, kt filters */
FC_INLINE void FC(abreast_outer_tile)(const fc_abreast_outer *a, const ptrdiff_t *taps, ptrdiff_t k, T *dw,
                                      const int mr, const int kt)
{
    const ptrdiff_t x_col = a->x_col * LANES, g_col = a->g_col * LANES;
    ptrdiff_t at[FC(abreast_most)];
    VEC acc[FC(abreast_most)][3];
    for (int i = 0; i < mr; i++) {
        at[i] = taps[i] * LANES;
        for (int v = 0; v < kt; v++)
            acc[i][v] = V(load)(dw + (i * a->channels + v) * LANES);
    }
    for (ptrdiff_t r = 0; r < a->rows; r++) {
        const T *x = (const T *)a->x + r * a->x_row * LANES;
        const T *g = (const T *)a->g + (r * a->g_row + k) * LANES;
        for (ptrdiff_t j = 0; j < a->cols; j++, x += x_col, g += g_col) {
            VEC b[3];
            for (int v = 0; v < kt; v++) {
                b[v] = V(load)(g + v * LANES);
                FC_PIN(b[v]);
            }
            for (int i = 0; i < mr; i++) {
                VEC factor = V(load)(x + at[i]);
                FC_PIN(factor);
                for (int v = 0; v < kt; v++)
                    acc[i][v] = V(fma)(factor, b[v], acc[i][v]);
            }
        }
    }
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < kt; v++)
            V(store)(dw + (i * a->channels + v) * LANES, acc[i][v]);
}

#define FC_CASE(M, KT)                                                                                               \
    case M:                                                                                                          \
        if (M <= FC_ABREAST(KT))                                                                                     \
            FC(abreast_outer_tile)(a, a->taps + t, k, dw, M, KT);                                                    \
        break;
#define FC_TILES(KT)                                                                                                 \
    static FC_NOINLINE void FC(abreast_outer_##KT)(const fc_abreast_outer *a, ptrdiff_t k)                             \
    {                                                                                                                \
        ptrdiff_t t = 0;                                                                                             \
        for (ptrdiff_t tiles = (a->m + FC_ABREAST(KT) - 1) / FC_ABREAST(KT); tiles > 0; tiles--) {                   \
            const ptrdiff_t mr = (a->m - t + tiles - 1) / tiles;                                                     \
            T *dw = (T *)a->dw + (t * a->channels + k) * LANES;                                                      \
            switch (mr) {                                                                                            \
                FC_CASE(1, KT) FC_CASE(2, KT) FC_CASE(3, KT) FC_CASE(4, KT)                                          \
                FC_CASE(5, KT) FC_CASE(6, KT) FC_CASE(7, KT) FC_CASE(8, KT)                                          \
            }                                                                                                        \
            t += mr;                                                                                                 \
        }                                                                                                            \
    }
FC_TILES(1)
FC_TILES(2)
FC_TILES(3)
#undef FC_TILES
#undef FC_CASE

static void FC(abreast_outer)(const fc_abreast_outer *a)
{
    const ptrdiff_t wide = FC_VECTORS >= 32 ? 3 : 2, groups = (a->channels + wide - 1) / wide;
    for (ptrdiff_t g = 0, k = 0; g < groups; g++) {
        const ptrdiff_t kt = (a->channels - k + groups - g - 1) / (groups - g);
        switch (kt) {
            case 1: FC(abreast_outer_1)(a, k); break;
            case 2: FC(abreast_outer_2)(a, k); break;
            default: FC(abreast_outer_3)(a, k);
        }
        k += kt;
    }
}

#undef FC_ABREAST
