/* Residual cores of any depth, h <- h + alpha * act(h W + b), and their exact gradients.
 *
 * Lanes are samples. A batch is cut into blocks of 16 (padded by the caller), a state is (blocks, D, 16), and a
 * layer's weights are W (in, out) row after row and then b: D + 1 rows of D, the bias being the row whose input
 * is 1. Three walks over a chunk of layers:
 *
 *   forward     the state alone, held in registers for D = 2, 4, 8
 *   recompute   the same again; `tape` keeps each layer's input h and slope d = alpha * act'(z)
 *   backward    from the last layer to the first: dz = g * d,  g += dz W^T,  W -= rate * h^T dz
 *
 * `both` walks one chunk back and recomputes another in one loop: two independent chains fill each other's waits.
 * Sums, in every table: over inputs (and outputs, in g) two chains for D <= 8, of the first half and of the rest,
 * else one chain; over samples the blocks in order and then 16 lanes by halves (8, 4, 2, 1) for D < 16, else one
 * chain over the samples.
 */

#ifndef FC_DEEP_CONSTANTS
#define FC_DEEP_CONSTANTS
enum { FC_SOFTSIGN = 0, FC_TANH = 1, FC_RELU = 2 };
enum { FC_DEEP_SMALL = 8, FC_DEEP_TREE = 15, FC_DEEP_TILE = 8, FC_DEEP_MAX = 512 };
#if defined(__GNUC__) && !defined(__clang__)
#define FC_UNROLL _Pragma("GCC unroll 16")
#else
#define FC_UNROLL
#endif
#endif

/* registers of a block */
#define BV (16 / LANES)
/* where the kernels that hold the state in registers exist: not for float64, which proves, nor for one lane */
#define FC_DEEP_REGISTERS (sizeof(T) == 4 && BV <= 4)

FC_INLINE VEC FC(deep_act)(VEC z, const int act)
{
    if (act == FC_SOFTSIGN)
        return V(div)(z, V(add)(V(set1)(1), V(abs)(z)));
    if (act == FC_TANH)
        return FC(tanh_vec)(z);
    return FC(relu_vec)(z);
}

/* alpha * act'(z) from s = act(z); root = sqrt(alpha), since softsign's slope is (1 - |s|)**2 */
FC_INLINE VEC FC(deep_slope)(VEC s, T alpha, T root, const int act)
{
    if (act == FC_SOFTSIGN) {
        const VEC t = V(fma)(V(abs)(s), V(set1)(-root), V(set1)(root));
        return V(mul)(t, t);
    }
    if (act == FC_TANH)
        return V(fma)(V(mul)(s, s), V(set1)(-alpha), V(set1)(alpha));
    return V(select)(V(lt)(V(set1)(0), s), V(set1)(alpha), V(set1)(0));
}

/* acc[o] += sum over i of x[i] * w[i * wi + o * wo], in two chains cut at `split` where split < n */
FC_INLINE void FC(deep_sums)(VEC *acc, const T *x, const ptrdiff_t x_row, const T *w, const ptrdiff_t wi,
                             const ptrdiff_t wo, const ptrdiff_t n, const ptrdiff_t split, const int no)
{
    for (ptrdiff_t i = 0; i < split; i++) {
        const VEC xi = V(load)(x + i * x_row);
        FC_UNROLL for (int o = 0; o < no; o++)
            acc[o] = V(fma)(xi, V(set1)(w[i * wi + o * wo]), acc[o]);
    }
    if (split < n) {
        VEC rest[FC_DEEP_TILE];
        const VEC x0 = V(load)(x + split * x_row);
        FC_UNROLL for (int o = 0; o < no; o++)
            rest[o] = V(mul)(x0, V(set1)(w[split * wi + o * wo]));
        for (ptrdiff_t i = split + 1; i < n; i++) {
            const VEC xi = V(load)(x + i * x_row);
            FC_UNROLL for (int o = 0; o < no; o++)
                rest[o] = V(fma)(xi, V(set1)(w[i * wi + o * wo]), rest[o]);
        }
        FC_UNROLL for (int o = 0; o < no; o++)
            acc[o] = V(add)(acc[o], rest[o]);
    }
}

FC_INLINE ptrdiff_t FC(deep_split)(ptrdiff_t d) { return d <= FC_DEEP_SMALL ? (d + 1) / 2 : d; }

/* --- any width: the state in memory, one register of lanes at a time --- */

/* `no` outputs of a layer: y = x + alpha * act(b + x w), and the slopes where d is given; rows x_row, y_row apart */
FC_INLINE void FC(deep_outputs)(const fc_deep *a, const T *w, const T *x, const ptrdiff_t x_row, T *y,
                                const ptrdiff_t y_row, T *d, const ptrdiff_t o, const int act, const int no)
{
    const ptrdiff_t n = a->width;
    const T alpha = (T)a->alpha, root = (T)a->root;
    VEC acc[FC_DEEP_TILE];
    FC_UNROLL for (int i = 0; i < no; i++)
        acc[i] = V(set1)(w[n * n + o + i]);
    FC(deep_sums)(acc, x, x_row, w + o, n, 1, n, FC(deep_split)(n), no);
    FC_UNROLL for (int i = 0; i < no; i++) {
        const VEC s = FC(deep_act)(acc[i], act);
        if (y)
            V(store)(y + (o + i) * y_row, V(fma)(V(set1)(alpha), s, V(load)(x + (o + i) * x_row)));
        if (d)
            V(store)(d + (o + i) * y_row, FC(deep_slope)(s, alpha, root, act));
    }
}

static FC_NOINLINE void FC(deep_layer)(const fc_deep *a, const T *w, const T *x, ptrdiff_t x_row, T *y,
                                       ptrdiff_t y_row, T *d)
{
    /* expands to the layer for one activation, outputs in tiles of 8, 4 and 1 */
#define FC_DEEP_LAYER(ACT)                                                                                           \
    for (; o + 8 <= a->width; o += 8)                                                                                \
        FC(deep_outputs)(a, w, x, x_row, y, y_row, d, o, ACT, 8);                                                    \
    for (; o + 4 <= a->width; o += 4)                                                                                \
        FC(deep_outputs)(a, w, x, x_row, y, y_row, d, o, ACT, 4);                                                    \
    for (; o < a->width; o++)                                                                                        \
        FC(deep_outputs)(a, w, x, x_row, y, y_row, d, o, ACT, 1);
    ptrdiff_t o = 0;
    if (a->activation == FC_SOFTSIGN) {
        FC_DEEP_LAYER(FC_SOFTSIGN)
    } else if (a->activation == FC_TANH) {
        FC_DEEP_LAYER(FC_TANH)
    } else {
        FC_DEEP_LAYER(FC_RELU)
    }
#undef FC_DEEP_LAYER
}

static FC_NOINLINE void FC(deep_forward_wide)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n;
    T buffer[2][FC_DEEP_MAX * LANES];
    for (ptrdiff_t v = a->first; v < a->first + a->vectors; v++) {
        T *h = (T *)a->h + v / BV * n * 16 + v % BV * LANES;
        for (ptrdiff_t k = 0; k < n; k++)
            V(store)(buffer[0] + k * LANES, V(load)(h + k * 16));
        for (ptrdiff_t i = 0; i < a->layers; i++)
            FC(deep_layer)(a, (const T *)a->w + i * row, buffer[i & 1], LANES, buffer[(i + 1) & 1], LANES, NULL);
        for (ptrdiff_t k = 0; k < n; k++)
            V(store)(h + k * 16, V(load)(buffer[a->layers & 1] + k * LANES));
    }
}

static FC_NOINLINE void FC(deep_recompute_wide)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    for (ptrdiff_t v = 0; v < a->blocks * BV; v++) {
        const ptrdiff_t at = v / BV * n * 16 + v % BV * LANES;
        T *tape = (T *)a->tape + at;
        for (ptrdiff_t k = 0; k < n; k++)
            V(store)(tape + k * 16, V(load)((const T *)a->h + at + k * 16));
        for (ptrdiff_t i = 0; i < a->layers; i++, tape += 2 * state)
            FC(deep_layer)(a, (const T *)a->w + i * row, tape, 16, i + 1 < a->layers ? tape + 2 * state : NULL, 16,
                           tape + state);
    }
}

/* g[k] += sum over outputs of dz[j] * w[k, j], for `no` inputs from k on */
FC_INLINE void FC(deep_inputs)(const fc_deep *a, const T *w, const T *dz, T *g, const ptrdiff_t k, const int no)
{
    const ptrdiff_t n = a->width;
    VEC acc[FC_DEEP_TILE];
    FC_UNROLL for (int i = 0; i < no; i++)
        acc[i] = V(load)(g + (k + i) * 16);
    FC(deep_sums)(acc, dz, 16, w + k * n, 1, n, n, FC(deep_split)(n), no);
    FC_UNROLL for (int i = 0; i < no; i++)
        V(store)(g + (k + i) * 16, acc[i]);
}

/* new = w - rate * x^T dz for one row of weights (x NULL: the bias), D < 16: sums over lanes by halves */
static FC_NOINLINE void FC(deep_update_tree)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz)
{
    const ptrdiff_t n = a->width;
    const T rate = (T)a->rate;
    for (ptrdiff_t j = 0; j < n; j += 4) {
        const ptrdiff_t m = n - j < 4 ? n - j : 4;
        VEC sums[4][BV];
        for (ptrdiff_t i = 0; i < 4; i++)
            for (int v = 0; v < BV; v++) {
                const ptrdiff_t at = v * LANES;
                VEC sum = V(set1)(0);
                if (i < m) {
                    const T *z = dz + (j + i) * 16 + at;
                    sum = x ? V(mul)(V(load)(x + at), V(load)(z)) : V(load)(z);
                    for (ptrdiff_t b = 1; b < a->blocks; b++) {
                        const VEC zb = V(load)(z + b * n * 16);
                        sum = x ? V(fma)(V(load)(x + at + b * n * 16), zb, sum) : V(add)(sum, zb);
                    }
                }
                sums[i][v] = sum;
            }
        if (m == 4)
            V(descend4)(w + j, sums[0], rate, new + j);
        else {
            T tail[4] = {0};
            for (ptrdiff_t i = 0; i < m; i++)
                tail[i] = w[j + i];
            V(descend4)(tail, sums[0], rate, tail);
            for (ptrdiff_t i = 0; i < m; i++)
                new[j + i] = tail[i];
        }
    }
}

/* new = w - rate * x^T dz for `no` rows of weights and one register of outputs, D >= 16: samples in order.
 * x (blocks, rows, 16); dz (blocks, 16, D): element (sample, output) */
FC_INLINE void FC(deep_update_tile)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz, ptrdiff_t tail,
                                    const int no)
{
    const ptrdiff_t n = a->width;
    VEC acc[FC_DEEP_TILE];
    FC_UNROLL for (int i = 0; i < no; i++)
        acc[i] = V(set1)(0);
    for (ptrdiff_t b = 0; b < a->blocks; b++, x += n * 16)
        for (ptrdiff_t s = 0; s < 16; s++, dz += n) {
            const VEC z = tail ? V(load_n)(dz, tail) : V(load)(dz);
            FC_UNROLL for (int i = 0; i < no; i++)
                acc[i] = V(fma)(V(set1)(x[i * 16 + s]), z, acc[i]);
        }
    const VEC rate = V(set1)(-(T)a->rate);
    FC_UNROLL for (int i = 0; i < no; i++) {
        if (tail)
            V(store_n)(new + i * n, V(fma)(rate, acc[i], V(load_n)(w + i * n, tail)), tail);
        else
            V(store)(new + i * n, V(fma)(rate, acc[i], V(load)(w + i * n)));
    }
}

static FC_NOINLINE void FC(deep_update_rows)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz)
{
    const ptrdiff_t n = a->width;
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t tail = n - j < LANES ? n - j : 0;
        ptrdiff_t k = 0;
        for (; k + 8 <= n && !tail; k += 8)
            FC(deep_update_tile)(a, w + k * n + j, new + k * n + j, x + k * 16, dz + j, 0, 8);
        for (; k < n; k++)
            FC(deep_update_tile)(a, w + k * n + j, new + k * n + j, x + k * 16, dz + j, tail, 1);

        VEC sum = V(set1)(0); /* the bias */
        for (ptrdiff_t s = 0; s < a->blocks * 16; s++)
            sum = V(add)(sum, tail ? V(load_n)(dz + s * n + j, tail) : V(load)(dz + s * n + j));
        const VEC rate = V(set1)(-(T)a->rate);
        if (tail)
            V(store_n)(new + n * n + j, V(fma)(rate, sum, V(load_n)(w + n * n + j, tail)), tail);
        else
            V(store)(new + n * n + j, V(fma)(rate, sum, V(load)(w + n * n + j)));
    }
}

static FC_NOINLINE void FC(deep_backward_wide)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    T *dz = a->scratch, *turned = dz + state;
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *w = (const T *)a->w + i * row, *x = (const T *)a->tape + i * 2 * state, *d = x + state;
        T *new = (T *)a->w_new + i * row;
        for (ptrdiff_t e = 0; e < state; e += LANES)
            V(store)(dz + e, V(mul)(V(load)((const T *)a->g + e), V(load)(d + e)));
        for (ptrdiff_t v = 0; v < a->blocks * BV; v++) {
            const ptrdiff_t at = v / BV * n * 16 + v % BV * LANES;
            T *g = (T *)a->g + at;
            ptrdiff_t k = 0;
            for (; k + 8 <= n; k += 8)
                FC(deep_inputs)(a, w, dz + at, g, k, 8);
            for (; k + 4 <= n; k += 4)
                FC(deep_inputs)(a, w, dz + at, g, k, 4);
            for (; k < n; k++)
                FC(deep_inputs)(a, w, dz + at, g, k, 1);
        }
        if (n <= FC_DEEP_TREE) {
            for (ptrdiff_t k = 0; k <= n; k++)
                FC(deep_update_tree)(a, w + k * n, new + k * n, k < n ? x + k * 16 : NULL, dz);
        } else {
            for (ptrdiff_t b = 0; b < a->blocks; b++)
                for (ptrdiff_t j = 0; j < n; j++)
                    for (ptrdiff_t s = 0; s < 16; s++)
                        turned[(b * 16 + s) * n + j] = dz[(b * n + j) * 16 + s];
            FC(deep_update_rows)(a, w, new, x, turned);
        }
    }
}

/* --- widths 2, 4, 8: D is a constant, the state stays in registers from layer to layer --- */

/* one layer on nv registers of lanes: h is replaced, its slopes go to d (rows of 16) where given */
FC_INLINE void FC(deep_step)(VEC h[][BV], const T *w, T *d, T alpha, T root, const int D, const int nv,
                             const int act)
{
    const int half = (D + 1) / 2;
    VEC z[FC_DEEP_SMALL][BV];
    FC_UNROLL for (int j = 0; j < D; j++) {
        VEC rest[BV];
        const VEC b = V(set1)(w[D * D + j]), w0 = V(set1)(w[j]), wh = V(set1)(w[half * D + j]);
        FC_UNROLL for (int v = 0; v < nv; v++) {
            z[j][v] = V(fma)(h[0][v], w0, b);
            rest[v] = V(mul)(h[half][v], wh);
        }
        FC_UNROLL for (int k = 1; k < half; k++) {
            const VEC wk = V(set1)(w[k * D + j]);
            FC_UNROLL for (int v = 0; v < nv; v++)
                z[j][v] = V(fma)(h[k][v], wk, z[j][v]);
        }
        FC_UNROLL for (int k = half + 1; k < D; k++) {
            const VEC wk = V(set1)(w[k * D + j]);
            FC_UNROLL for (int v = 0; v < nv; v++)
                rest[v] = V(fma)(h[k][v], wk, rest[v]);
        }
        FC_UNROLL for (int v = 0; v < nv; v++)
            z[j][v] = V(add)(z[j][v], rest[v]);
    }
    FC_UNROLL for (int j = 0; j < D; j++)
        FC_UNROLL for (int v = 0; v < nv; v++) {
            z[j][v] = FC(deep_act)(z[j][v], act);
            h[j][v] = V(fma)(V(set1)(alpha), z[j][v], h[j][v]);
        }
    if (d)
        FC_UNROLL for (int j = 0; j < D; j++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                V(store)(d + j * 16 + v * LANES, FC(deep_slope)(z[j][v], alpha, root, act));
}

/* what the 16 samples add to weight e of a layer: h[k] dz[j], or dz[j] for a bias, or nothing beyond them */
FC_INLINE void FC(deep_terms)(VEC *sum, const T *x, VEC dz[][BV], const int e, const int D)
{
    const int k = e / D, j = e % D;
    FC_UNROLL for (int v = 0; v < BV; v++)
        sum[v] = k < D ? V(mul)(V(load)(x + k * 16 + v * LANES), dz[j][v]) : k == D ? dz[j][v] : V(set1)(0);
}

/* g is taken back through a layer on one block; dz receives the gradient of the layer's sums */
FC_INLINE void FC(deep_gradient)(VEC g[][BV], VEC dz[][BV], const T *w, const T *d, const int D)
{
    const int half = (D + 1) / 2;
    FC_UNROLL for (int j = 0; j < D; j++)
        FC_UNROLL for (int v = 0; v < BV; v++)
            dz[j][v] = V(mul)(g[j][v], V(load)(d + j * 16 + v * LANES));
    FC_UNROLL for (int k = 0; k < D; k++) {
        VEC rest[BV];
        FC_UNROLL for (int v = 0; v < BV; v++) {
            g[k][v] = V(fma)(dz[0][v], V(set1)(w[k * D]), g[k][v]);
            rest[v] = V(mul)(dz[half][v], V(set1)(w[k * D + half]));
        }
        FC_UNROLL for (int j = 1; j < half; j++)
            FC_UNROLL for (int v = 0; v < BV; v++)
                g[k][v] = V(fma)(dz[j][v], V(set1)(w[k * D + j]), g[k][v]);
        FC_UNROLL for (int j = half + 1; j < D; j++)
            FC_UNROLL for (int v = 0; v < BV; v++)
                rest[v] = V(fma)(dz[j][v], V(set1)(w[k * D + j]), rest[v]);
        FC_UNROLL for (int v = 0; v < BV; v++)
            g[k][v] = V(add)(g[k][v], rest[v]);
    }
}

/* one layer back on a batch of one block: g is replaced, the layer's weights are updated */
FC_INLINE void FC(deep_back)(VEC g[][BV], const T *w, T *new, const T *x, const T *d, T rate, const int D)
{
    VEC dz[FC_DEEP_SMALL][BV];
    FC(deep_gradient)(g, dz, w, d, D);
    int e = 0;
    FC_UNROLL for (; e + 8 <= D * (D + 1); e += 8) {
        VEC sums[8][BV];
        FC_UNROLL for (int i = 0; i < 8; i++)
            FC(deep_terms)(sums[i], x, dz, e + i, D);
        V(descend8)(w + e, sums[0], rate, new + e);
    }
    FC_UNROLL for (; e < D * (D + 1); e += 4) {
        VEC sums[4][BV];
        FC_UNROLL for (int i = 0; i < 4; i++)
            FC(deep_terms)(sums[i], x, dz, e + i, D);
        if (e + 4 <= D * (D + 1))
            V(descend4)(w + e, sums[0], rate, new + e);
        else { /* two weights are left at D = 2 */
            T tail[4] = {w[e], w[e + 1], 0, 0};
            V(descend4)(tail, sums[0], rate, tail);
            new[e] = tail[0];
            new[e + 1] = tail[1];
        }
    }
}

FC_INLINE void FC(deep_load)(VEC h[][BV], const T *from, const int D, const int nv)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            h[k][v] = V(load)(from + k * 16 + v * LANES);
}

FC_INLINE void FC(deep_save)(VEC h[][BV], T *to, const int D, const int nv)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            V(store)(to + k * 16 + v * LANES, h[k][v]);
}

FC_INLINE void FC(deep_forward_small)(const fc_deep *a, const int D, const int act)
{
    const T alpha = (T)a->alpha;
    const ptrdiff_t row = D * (D + 1), end = a->first + a->vectors;
    VEC h[FC_DEEP_SMALL][BV];
    for (ptrdiff_t v = a->first; v < end;) {
        T *state = (T *)a->h + v / BV * D * 16 + v % BV * LANES;
        const T *w = a->w;
        if (v % BV == 0 && v + BV <= end) {
            FC(deep_load)(h, state, D, BV);
            for (ptrdiff_t i = 0; i < a->layers; i++, w += row)
                FC(deep_step)(h, w, NULL, alpha, 0, D, BV, act);
            FC(deep_save)(h, state, D, BV);
            v += BV;
        } else {
            FC(deep_load)(h, state, D, 1);
            for (ptrdiff_t i = 0; i < a->layers; i++, w += row)
                FC(deep_step)(h, w, NULL, alpha, 0, D, 1, act);
            FC(deep_save)(h, state, D, 1);
            v += 1;
        }
    }
}

FC_INLINE void FC(deep_recompute_small)(const fc_deep *a, const int D, const int act)
{
    const T alpha = (T)a->alpha, root = (T)a->root;
    const ptrdiff_t row = D * (D + 1), state = a->blocks * D * 16;
    VEC h[FC_DEEP_SMALL][BV];
    for (ptrdiff_t b = 0; b < a->blocks; b++) {
        const T *w = a->w;
        T *tape = (T *)a->tape + b * D * 16;
        FC(deep_load)(h, (const T *)a->h + b * D * 16, D, BV);
        for (ptrdiff_t i = 0; i < a->layers; i++, w += row, tape += 2 * state) {
            FC(deep_save)(h, tape, D, BV);
            FC(deep_step)(h, w, tape + state, alpha, root, D, BV, act);
        }
    }
}

FC_INLINE void FC(deep_backward_small)(const fc_deep *a, const int D)
{
    const ptrdiff_t row = D * (D + 1), state = D * 16;
    const T rate = (T)a->rate;
    VEC g[FC_DEEP_SMALL][BV];
    FC(deep_load)(g, a->g, D, BV);
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *tape = (const T *)a->tape + i * 2 * state;
        FC(deep_back)(g, (const T *)a->w + i * row, (T *)a->w_new + i * row, tape, tape + state, rate, D);
    }
    FC(deep_save)(g, a->g, D, BV);
}

/* the same on a batch of several blocks, whose g is in memory */
FC_INLINE void FC(deep_backward_blocks)(const fc_deep *a, const int D)
{
    const ptrdiff_t row = D * (D + 1), block = D * 16, state = a->blocks * block;
    const T rate = (T)a->rate;
    T *all = a->scratch;
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *x = (const T *)a->tape + i * 2 * state, *w = (const T *)a->w + i * row;
        T *new = (T *)a->w_new + i * row;
        for (ptrdiff_t b = 0; b < a->blocks; b++) {
            VEC g[FC_DEEP_SMALL][BV], dz[FC_DEEP_SMALL][BV];
            FC(deep_load)(g, (const T *)a->g + b * block, D, BV);
            FC(deep_gradient)(g, dz, w, x + state + b * block, D);
            FC(deep_save)(g, (T *)a->g + b * block, D, BV);
            FC(deep_save)(dz, all + b * block, D, BV);
        }
        FC_UNROLL for (int e = 0; e < D * (D + 1); e += D) { /* the weights of an input, then the biases */
            VEC sums[FC_DEEP_SMALL][BV];
            const T *xk = x + e / D * 16;
            FC(deep_load)(sums, all, D, BV);
            if (e < D * D)
                FC_UNROLL for (int j = 0; j < D; j++)
                    FC_UNROLL for (int v = 0; v < BV; v++)
                        sums[j][v] = V(mul)(V(load)(xk + v * LANES), sums[j][v]);
            for (ptrdiff_t b = 1; b < a->blocks; b++)
                FC_UNROLL for (int v = 0; v < BV; v++) {
                    const VEC xb = V(load)(xk + (e < D * D ? b * block + v * LANES : 0));
                    FC_UNROLL for (int j = 0; j < D; j++) {
                        const VEC z = V(load)(all + b * block + j * 16 + v * LANES);
                        sums[j][v] = e < D * D ? V(fma)(xb, z, sums[j][v]) : V(add)(sums[j][v], z);
                    }
                }
            if (D == 8)
                V(descend8)(w + e, sums[0], rate, new + e);
            else if (D == 4)
                V(descend4)(w + e, sums[0], rate, new + e);
            else {
                T pair[4] = {w[e], w[e + 1], 0, 0};
                sums[2][0] = sums[3][0] = V(set1)(0);
                for (int v = 1; v < BV; v++)
                    sums[2][v] = sums[3][v] = V(set1)(0);
                V(descend4)(pair, sums[0], rate, pair);
                new[e] = pair[0];
                new[e + 1] = pair[1];
            }
        }
    }
}

/* the two loops above in one, for as many layers as both have */
FC_INLINE void FC(deep_both_small)(const fc_deep *a, const fc_deep *c, const int D, const int act)
{
    const ptrdiff_t row = D * (D + 1), state = D * 16, n = a->layers < c->layers ? a->layers : c->layers;
    const T rate = (T)a->rate, alpha = (T)a->alpha, root = (T)a->root;
    const T *w = c->w;
    T *tape = c->tape;
    VEC g[FC_DEEP_SMALL][BV], h[FC_DEEP_SMALL][BV];
    FC(deep_load)(g, a->g, D, BV);
    FC(deep_load)(h, c->h, D, BV);
    ptrdiff_t i = a->layers - 1;
    for (; i >= a->layers - n; i--, w += row, tape += 2 * state) {
        const T *back = (const T *)a->tape + i * 2 * state;
        FC(deep_save)(h, tape, D, BV);
        FC(deep_step)(h, w, tape + state, alpha, root, D, BV, act);
        FC(deep_back)(g, (const T *)a->w + i * row, (T *)a->w_new + i * row, back, back + state, rate, D);
    }
    for (; i >= 0; i--) {
        const T *back = (const T *)a->tape + i * 2 * state;
        FC(deep_back)(g, (const T *)a->w + i * row, (T *)a->w_new + i * row, back, back + state, rate, D);
    }
    for (ptrdiff_t l = n; l < c->layers; l++, w += row, tape += 2 * state) {
        FC(deep_save)(h, tape, D, BV);
        FC(deep_step)(h, w, tape + state, alpha, root, D, BV, act);
    }
    FC(deep_save)(g, a->g, D, BV);
}

/* Expands to FC(deep_<name>_<D>), the function for one width with the activation as a constant. */
#define FC_DEEP_CASES(CALL, D)                                                                                       \
    if (a->activation == FC_SOFTSIGN)                                                                                \
        CALL(D, FC_SOFTSIGN);                                                                                        \
    else if (a->activation == FC_TANH)                                                                               \
        CALL(D, FC_TANH);                                                                                            \
    else                                                                                                             \
        CALL(D, FC_RELU);
#define FC_DEEP_WIDTHS(CALL, GENERAL)                                                                                \
    if (FC_DEEP_REGISTERS && a->width == 4) {                                                                           \
        FC_DEEP_CASES(CALL, 4)                                                                                       \
    } else if (FC_DEEP_REGISTERS && a->width == 2) {                                                                    \
        FC_DEEP_CASES(CALL, 2)                                                                                       \
    } else if (FC_DEEP_REGISTERS && a->width == 8) {                                                                    \
        FC_DEEP_CASES(CALL, 8)                                                                                       \
    } else {                                                                                                         \
        GENERAL;                                                                                                     \
    }

static void FC(deep_forward)(const fc_deep *a)
{
#define FC_CALL(D, ACT) FC(deep_forward_small)(a, D, ACT)
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_forward_wide)(a))
#undef FC_CALL
}

static void FC(deep_recompute)(const fc_deep *a)
{
#define FC_CALL(D, ACT) FC(deep_recompute_small)(a, D, ACT)
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_recompute_wide)(a))
#undef FC_CALL
}

static void FC(deep_backward)(const fc_deep *a)
{
    if (FC_DEEP_REGISTERS && a->width == 4)
        a->blocks == 1 ? FC(deep_backward_small)(a, 4) : FC(deep_backward_blocks)(a, 4);
    else if (FC_DEEP_REGISTERS && a->width == 2)
        a->blocks == 1 ? FC(deep_backward_small)(a, 2) : FC(deep_backward_blocks)(a, 2);
    else if (FC_DEEP_REGISTERS && a->width == 8)
        a->blocks == 1 ? FC(deep_backward_small)(a, 8) : FC(deep_backward_blocks)(a, 8);
    else
        FC(deep_backward_wide)(a);
}

/* a: the chunk to walk back; c: the chunk to recompute */
static void FC(deep_both)(const fc_deep *a, const fc_deep *c)
{
#define FC_CALL(D, ACT) FC(deep_both_small)(a, c, D, ACT)
    if (a->blocks == 1) {
        FC_DEEP_WIDTHS(FC_CALL, FC(deep_recompute_wide)(c); FC(deep_backward_wide)(a))
    } else {
        FC(deep_recompute)(c);
        FC(deep_backward)(a);
    }
#undef FC_CALL
}

#undef FC_DEEP_CASES
#undef FC_DEEP_WIDTHS
#undef FC_DEEP_REGISTERS
#undef BV
