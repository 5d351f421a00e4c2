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
 * else one chain; over samples the blocks in order and then 16 lanes by halves (8, 4, 2, 1) for D < 16. From D = 16
 * on, registers of outputs are as long as registers of samples: a chain over the samples then takes 16 multiply-adds
 * for a register of weights, the tree as many multiplications and as many additions and shuffles again. There the tape
 * holds samples as rows, (blocks, 16, D), and registers run across outputs in all three walks.
 */

#ifndef FC_DEEP_CONSTANTS
#define FC_DEEP_CONSTANTS
#include <string.h>
enum { FC_SOFTSIGN = 0, FC_TANH = 1, FC_RELU = 2 };
enum { FC_SOFTSIGN_ESTIMATED = 3 }; /* of one output in four, where states are bounded: deep_bounded */
enum { FC_DEEP_SMALL = 8, FC_DEEP_TREE = 15, FC_DEEP_TILE = 8, FC_DEEP_MAX = 512 };
/* made by a weighted minimax fit, relative error 6e-9 before rounding */
static const float fc_deep_tanh_p[] = {1.0f, 0.13450628519058228f, 0.0035790023393929005f, 2.2023414203431457e-05f,
                                       1.5428213373525068e-08f};
static const float fc_deep_tanh_q[] = {1.0f, 0.4678395688533783f, 0.026192277669906616f, 0.00034236672217957675f,
                                       8.598877343501954e-07f};
#if defined(__GNUC__) && !defined(__clang__)
#define FC_UNROLL _Pragma("GCC unroll 16")
#else
#define FC_UNROLL
#endif
#endif

/* registers of a block */
#define BV (16 / LANES)
/* where the kernels that hold the state in registers exist: not for float64, which proves, nor for one lane */
#define FC_DEEP_REGISTERS (FC_SINGLE && LANES >= 4)

/* -z / (1 + |z|), rounded as division rounds it, whatever the estimate: one cubic step takes it to within 0.51 ulp of
 * the reciprocal, from which Markstein's step rounds the quotient correctly. tests/test_deep_quotient.py visits all z.
 * Needs |z| < 2**100 (or NaN); negative, so that the sign of a quotient of 0 comes out right too.
 *   P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990, theorem 8.4 */
FC_INLINE VEC FC(deep_quotient)(VEC z, VEC estimate)
{
    const VEC d = V(add)(V(set1)(1), V(abs)(z)); /* estimate: of -1 / d */
    const VEC e = V(fma)(d, estimate, V(set1)(1));
    const VEC r = V(fma)(estimate, V(fma)(e, e, e), estimate);
    const VEC q = V(mul)(z, r);
    return V(fma)(V(fma)(q, d, z), r, q);
}

/* tanh for |z| <= 7.9 as z P(z**2) / Q(z**2) and constant beyond: within 6 ulp, never above 1 */
FC_INLINE VEC FC(deep_tanh)(VEC z)
{
    if (sizeof(T) != 4)
        return FC(tanh_vec)(z);
    const VEC x = V(max)(V(set1)((T)-7.9), V(min)(V(set1)((T)7.9), z)); /* in this order NaN stays */
    const VEC u = V(mul)(x, x);
    VEC p = V(set1)((T)fc_deep_tanh_p[4]), q = V(set1)((T)fc_deep_tanh_q[4]);
    FC_UNROLL for (int i = 3; i >= 0; i--) {
        p = V(fma)(p, u, V(set1)((T)fc_deep_tanh_p[i]));
        q = V(fma)(q, u, V(set1)((T)fc_deep_tanh_q[i]));
    }
    return V(div)(V(mul)(x, p), q);
}

FC_INLINE VEC FC(deep_act)(VEC z, const int act)
{
    if (act == FC_SOFTSIGN)
        return V(div)(z, V(add)(V(set1)(1), V(abs)(z)));
    if (act == FC_TANH)
        return FC(deep_tanh)(z);
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

/* the registers of a block added by halves down to one */
FC_INLINE VEC FC(deep_fold)(VEC *sum)
{
    FC_UNROLL for (int half = BV / 2; half > 0; half /= 2)
        FC_UNROLL for (int v = 0; v < half; v++)
            sum[v] = V(add)(sum[v], sum[v + half]);
    return sum[0];
}

FC_INLINE ptrdiff_t FC(deep_split)(ptrdiff_t d) { return d <= FC_DEEP_SMALL ? (d + 1) / 2 : d; }

/* --- D < 16: the state in memory, one register of lanes at a time --- */

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
        VEC sums[4];
        for (ptrdiff_t i = 0; i < 4; i++) {
            VEC all[BV];
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
                all[v] = sum;
            }
            sums[i] = FC(deep_fold)(all);
        }
        if (m == 4)
            V(descend4)(w + j, sums, rate, new + j);
        else {
            T tail[4] = {0};
            for (ptrdiff_t i = 0; i < m; i++)
                tail[i] = w[j + i];
            V(descend4)(tail, sums, rate, tail);
            for (ptrdiff_t i = 0; i < m; i++)
                new[j + i] = tail[i];
        }
    }
}

static FC_NOINLINE void FC(deep_backward_wide)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    T *dz = a->scratch;
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
        for (ptrdiff_t k = 0; k <= n; k++)
            FC(deep_update_tree)(a, w + k * n, new + k * n, k < n ? x + k * 16 : NULL, dz);
    }
}

/* --- D >= 16: rows of samples, registers of outputs. Every product is one tile, some rows by two registers, a chain
 * for each number: what is loaded is used eight times, or twice where it is one number for all lanes. --- */

/* rows of a tile */
#define FC_DEEP_ROWS (LANES < 4 ? LANES : FC_VECTORS == 32 && LANES >= 8 ? 8 : 4)

/* acc[r][v] += sum over k < n of x[r * xr + k * xk] * w[k * wk + v * LANES ...], in order; meanwhile bytes from `soon`
 * on, unless that is 0, are on their way to the cache, `pace` for each k */
FC_INLINE void FC(deep_chains)(VEC acc[][2], const T *x, const ptrdiff_t xr, const ptrdiff_t xk, const T *w,
                               const ptrdiff_t wk, const ptrdiff_t n, const ptrdiff_t part, const int nr, const int nv,
                               uintptr_t soon, const uintptr_t pace)
{
    for (ptrdiff_t k = 0; k < n; k++) {
        VEC wv[2];
        if (pace) {
            FC_PREFETCH(soon);
            soon += pace;
        }
        FC_UNROLL for (int v = 0; v < nv; v++)
            wv[v] = FC(get)(w + k * wk + v * LANES, part);
        FC_UNROLL for (int r = 0; r < nr; r++) {
            const VEC xv = V(set1)(x[r * xr + k * xk]);
            FC_UNROLL for (int v = 0; v < nv; v++)
                acc[r][v] = V(fma)(xv, wv[v], acc[r][v]);
        }
    }
}

/* outputs [j, j + nv registers) of a layer on nr rows: y = x + alpha * act(b + x w), and the slopes; where given */
FC_INLINE void FC(deep_rows_outputs)(const fc_deep *a, const T *w, const T *x, T *y, T *d, const ptrdiff_t j,
                                     const ptrdiff_t part, const uintptr_t soon, const int act, const int nr,
                                     const int nv)
{
    enum { pace = FC_DEEP_ROWS * 2 * LANES * sizeof(T) / 16 }; /* all tiles of 16 samples meet all weights once */
    const ptrdiff_t n = a->width;
    const T alpha = (T)a->alpha, root = (T)a->root;
    VEC acc[8][2];
    FC_UNROLL for (int v = 0; v < nv; v++) {
        const VEC bias = FC(get)(w + n * n + j + v * LANES, part);
        FC_UNROLL for (int r = 0; r < nr; r++)
            acc[r][v] = bias;
    }
    FC(deep_chains)(acc, x, n, 1, w + j, n, n, part, nr, nv, soon + (uintptr_t)(j * n) * pace / (2 * LANES),
                    pace);
    FC_UNROLL for (int r = 0; r < nr; r++)
        FC_UNROLL for (int v = 0; v < nv; v++) {
            const ptrdiff_t at = r * n + j + v * LANES;
            const VEC s = FC(deep_act)(acc[r][v], act);
            if (y)
                FC(put)(y + at, V(fma)(V(set1)(alpha), s, FC(get)(x + at, part)), part);
            if (d)
                FC(put)(d + at, FC(deep_slope)(s, alpha, root, act), part);
        }
}

/* one layer on FC_DEEP_ROWS rows of samples, the first of which is the batch's `s` */
static FC_NOINLINE void FC(deep_rows_layer)(const fc_deep *a, const T *w, const T *x, T *y, T *d, ptrdiff_t s)
{
    const ptrdiff_t n = a->width;
    const uintptr_t soon = (uintptr_t)w + (uintptr_t)(a->ahead + s % 16 * n * n / 16) * sizeof(T);
    /* expands to the layer for one activation */
#define FC_DEEP_OUTPUTS(ACT)                                                                                         \
    for (; j + 2 * LANES <= a->width; j += 2 * LANES)                                                                \
        FC(deep_rows_outputs)(a, w, x, y, d, j, 0, soon, ACT, FC_DEEP_ROWS, 2);                                      \
    for (; j + LANES <= a->width; j += LANES)                                                                        \
        FC(deep_rows_outputs)(a, w, x, y, d, j, 0, soon, ACT, FC_DEEP_ROWS, 1);                                      \
    if (j < a->width)                                                                                                \
        FC(deep_rows_outputs)(a, w, x, y, d, j, a->width - j, soon, ACT, FC_DEEP_ROWS, 1);
    ptrdiff_t j = 0;
    if (a->activation == FC_SOFTSIGN) {
        FC_DEEP_OUTPUTS(FC_SOFTSIGN)
    } else if (a->activation == FC_TANH) {
        FC_DEEP_OUTPUTS(FC_TANH)
    } else {
        FC_DEEP_OUTPUTS(FC_RELU)
    }
#undef FC_DEEP_OUTPUTS
}

/* to[j * to_row + i] = from[i * from_row + j] for i < m, j < n */
static FC_NOINLINE void FC(deep_turn)(const T *from, ptrdiff_t from_row, T *to, ptrdiff_t to_row, ptrdiff_t m,
                                      ptrdiff_t n)
{
    ptrdiff_t i = 0;
#if FC_SINGLE && LANES >= 8
    for (; i + LANES <= m; i += LANES) {
        ptrdiff_t j = 0;
        for (; j + LANES <= n; j += LANES)
            V(turn)(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
        for (; j < n; j++)
            for (ptrdiff_t r = i; r < i + LANES; r++)
                to[j * to_row + r] = from[r * from_row + j];
    }
#endif
    for (; i < m; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            to[j * to_row + i] = from[i * from_row + j];
}

static FC_NOINLINE void FC(deep_rows_forward)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n;
    T buffer[2][FC_DEEP_MAX * LANES];
    for (ptrdiff_t v = a->first; v < a->first + a->vectors; v++) {
        T *h = (T *)a->h + v / BV * n * 16 + v % BV * LANES;
        FC(deep_turn)(h, 16, buffer[0], n, n, LANES);
        for (ptrdiff_t i = 0; i < a->layers; i++)
            for (ptrdiff_t r = 0; r < LANES; r += FC_DEEP_ROWS)
                FC(deep_rows_layer)(a, (const T *)a->w + i * row, buffer[i & 1] + r * n, buffer[(i + 1) & 1] + r * n,
                                    NULL, v * LANES + r);
        FC(deep_turn)(buffer[a->layers & 1], n, h, 16, LANES, n);
    }
}

static FC_NOINLINE void FC(deep_rows_recompute)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    T *tape = a->tape;
    for (ptrdiff_t b = 0; b < a->blocks; b++)
        FC(deep_turn)((const T *)a->h + b * n * 16, 16, tape + b * n * 16, n, n, 16);
    for (ptrdiff_t i = 0; i < a->layers; i++, tape += 2 * state)
        for (ptrdiff_t at = 0; at < state; at += FC_DEEP_ROWS * n)
            FC(deep_rows_layer)(a, (const T *)a->w + i * row, tape + at,
                                i + 1 < a->layers ? tape + 2 * state + at : NULL, tape + state + at, at / n);
}

/* new[i] = w[i] - rate * (sum over samples of x[s, i] * dz[s]), for nr rows of weights and nv registers of outputs */
FC_INLINE void FC(deep_rows_update)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz, const ptrdiff_t part,
                                    const int nr, const int nv)
{
    const ptrdiff_t n = a->width;
    const VEC rate = V(set1)(-(T)a->rate);
    VEC acc[8][2];
    FC_UNROLL for (int r = 0; r < nr; r++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            acc[r][v] = V(set1)(0);
    FC(deep_chains)(acc, x, 1, n, dz, n, a->blocks * 16, part, nr, nv, 0, 0);
    FC_UNROLL for (int r = 0; r < nr; r++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            FC(put)(new + r * n + v * LANES, V(fma)(rate, acc[r][v], FC(get)(w + r * n + v * LANES, part)), part);
}

static FC_NOINLINE void FC(deep_rows_updates)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz)
{
    const ptrdiff_t n = a->width;
    const VEC rate = V(set1)(-(T)a->rate);
    for (ptrdiff_t j = 0, step; j < n; j += step) {
        const ptrdiff_t part = n - j < LANES ? n - j : 0;
        ptrdiff_t k = 0;
        step = n - j >= 2 * LANES ? 2 * LANES : LANES;
        if (step == 2 * LANES)
            for (; k + FC_DEEP_ROWS <= n; k += FC_DEEP_ROWS)
                FC(deep_rows_update)(a, w + k * n + j, new + k * n + j, x + k, dz + j, 0, FC_DEEP_ROWS, 2);
        else if (!part)
            for (; k + FC_DEEP_ROWS <= n; k += FC_DEEP_ROWS)
                FC(deep_rows_update)(a, w + k * n + j, new + k * n + j, x + k, dz + j, 0, FC_DEEP_ROWS, 1);
        for (; k < n; k++)
            for (ptrdiff_t v = 0; v < step; v += LANES)
                FC(deep_rows_update)(a, w + k * n + j + v, new + k * n + j + v, x + k, dz + j + v, part, 1, 1);

        for (ptrdiff_t v = j; v < j + step; v += LANES) { /* the bias */
            VEC sum = V(set1)(0);
            for (ptrdiff_t s = 0; s < a->blocks * 16; s++)
                sum = V(add)(sum, FC(get)(dz + s * n + v, part));
            FC(put)(new + n * n + v, V(fma)(rate, sum, FC(get)(w + n * n + v, part)), part);
        }
    }
}

/* g[s, k] += sum over outputs of dz[s, j] * w[k, j], for nv registers of inputs; turned: those rows of w as columns */
FC_INLINE void FC(deep_rows_inputs)(const fc_deep *a, const T *turned, const T *dz, T *g, const ptrdiff_t part,
                                    const int nv)
{
    const ptrdiff_t n = a->width;
    for (ptrdiff_t s = 0; s < a->blocks * 16; s += FC_DEEP_ROWS, dz += FC_DEEP_ROWS * n, g += FC_DEEP_ROWS * n) {
        VEC acc[8][2];
        FC_UNROLL for (int r = 0; r < FC_DEEP_ROWS; r++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                acc[r][v] = FC(get)(g + r * n + v * LANES, part);
        FC(deep_chains)(acc, dz, n, 1, turned, 2 * LANES, n, part, FC_DEEP_ROWS, nv, 0, 0);
        FC_UNROLL for (int r = 0; r < FC_DEEP_ROWS; r++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                FC(put)(g + r * n + v * LANES, acc[r][v], part);
    }
}

static FC_NOINLINE void FC(deep_rows_backward)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    T turned[FC_DEEP_MAX * 2 * LANES];
    T *dz = a->scratch, *g = dz + state;
    for (ptrdiff_t b = 0; b < a->blocks; b++)
        FC(deep_turn)((const T *)a->g + b * n * 16, 16, g + b * n * 16, n, n, 16);
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *w = (const T *)a->w + i * row, *x = (const T *)a->tape + i * 2 * state, *d = x + state;
        for (ptrdiff_t e = 0; e < state; e += LANES)
            V(store)(dz + e, V(mul)(V(load)(g + e), V(load)(d + e)));
        for (ptrdiff_t k = 0; k < n; k += 2 * LANES) {
            const ptrdiff_t m = n - k < 2 * LANES ? n - k : 2 * LANES;
            FC(deep_turn)(w + k * n, n, turned, 2 * LANES, m, n);
            if (m == 2 * LANES)
                FC(deep_rows_inputs)(a, turned, dz, g + k, 0, 2);
            else {
                if (m >= LANES)
                    FC(deep_rows_inputs)(a, turned, dz, g + k, 0, 1);
                if (m % LANES)
                    FC(deep_rows_inputs)(a, turned + m / LANES * LANES, dz, g + k + m / LANES * LANES, m % LANES, 1);
            }
        }
        FC(deep_rows_updates)(a, w, (T *)a->w_new + i * row, x, dz);
    }
    for (ptrdiff_t b = 0; b < a->blocks; b++)
        FC(deep_turn)(g + b * n * 16, n, (T *)a->g + b * n * 16, 16, 16, n);
}

#if FC_DEEP_REGISTERS
/* --- widths 2, 4, 8: D is a constant, the state stays in registers from layer to layer --- */

/* registers of lanes that walk the layers together, each a chain of its own: as many as hold the state */
#define FC_DEEP_CHAINS(D) (FC_VECTORS == 32 && (D) < 8 ? 4 : 2)
/* of those, how many share a layer's weights in registers; one, and its sums spill nothing, where D is small */
#define FC_DEEP_SHARED(D) (FC_VECTORS == 16 && (D) == 8 ? 2 : 1)

FC_INLINE void FC(deep_load)(VEC *h, const T *from, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        h[k] = V(load)(from + k * 16);
}

FC_INLINE void FC(deep_save)(const VEC *h, T *to, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        V(store)(to + k * 16, h[k]);
}

/* The weights of a layer are on their way to the cache. Chunks are walked in an order no hardware foresees. */
FC_INLINE void FC(deep_prefetch)(const T *w, ptrdiff_t ahead, const int D)
{
    const uintptr_t first = (uintptr_t)w + (uintptr_t)ahead * sizeof(T);
    FC_UNROLL for (int i = 0; i < D * (D + 1) * (int)sizeof(T); i += 64)
        FC_PREFETCH(first + i);
}

/* one layer on nv registers of lanes: h is replaced, register v's slopes go to d[v] (rows of 16) where given */
FC_INLINE void FC(deep_step)(VEC h[][FC_DEEP_SMALL], const T *w, T *const *d, T alpha, T root, const int D,
                             const int nv, const int act)
{
    const int half = (D + 1) / 2;
    VEC z[FC_DEEP_SMALL][2], rest[2];
    FC_UNROLL for (int j = 0; j < D; j++) {
        FC_UNROLL for (int v = 0; v < nv; v++) {
            rest[v] = V(mul)(h[v][half], V(set1)(w[half * D + j]));
            z[j][v] = V(fma)(h[v][0], V(set1)(w[j]), V(set1)(w[D * D + j]));
        }
        FC_UNROLL for (int k = half + 1; k < D; k++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                rest[v] = V(fma)(h[v][k], V(set1)(w[k * D + j]), rest[v]);
        FC_UNROLL for (int k = 1; k < half; k++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                z[j][v] = V(fma)(h[v][k], V(set1)(w[k * D + j]), z[j][v]);
        FC_UNROLL for (int v = 0; v < nv; v++) {
            z[j][v] = V(add)(z[j][v], rest[v]);
            if (nv == 1)
                FC_PIN(z[j][v]);
        }
    }
    FC_UNROLL for (int j = 0; j < D; j++) {
        const int estimated = act == FC_SOFTSIGN_ESTIMATED && j % 4 == 1;
        FC_UNROLL for (int v = 0; v < nv; v++) {
            VEC s;
            if (estimated) /* the negative quotient */
                s = FC(deep_quotient)(z[j][v], V(estimate)(V(sub)(V(set1)(-1), V(abs)(z[j][v]))));
            else
                s = FC(deep_act)(z[j][v], act == FC_SOFTSIGN_ESTIMATED ? FC_SOFTSIGN : act);
            h[v][j] = V(fma)(V(set1)(estimated ? -alpha : alpha), s, h[v][j]);
            if (d)
                V(store)(d[v] + j * 16,
                         FC(deep_slope)(s, alpha, root, act == FC_SOFTSIGN_ESTIMATED ? FC_SOFTSIGN : act));
        }
    }
}

/* nv registers of lanes through all layers: the state is replaced or, with `kept`, states and slopes go to the tape */
FC_INLINE void FC(deep_run)(const fc_deep *a, const ptrdiff_t first, const int kept, const int D, const int nv,
                            const int act)
{
    const T alpha = (T)a->alpha, root = (T)a->root;
    const int shared = nv > 1 ? FC_DEEP_SHARED(D) : 1;
    const ptrdiff_t all = a->blocks * D * 16;
    const T *w = a->w;
    T *x[4], *d[4];
    VEC h[4][FC_DEEP_SMALL];
    FC_UNROLL for (int v = 0; v < nv; v++) {
        const ptrdiff_t at = (first + v) / BV * D * 16 + (first + v) % BV * LANES;
        FC(deep_load)(h[v], (const T *)a->h + at, D);
        x[v] = (kept ? (T *)a->tape : (T *)a->h) + at;
        d[v] = x[v] + all;
    }
    const ptrdiff_t ahead = a->ahead;
    for (ptrdiff_t i = 0; i < a->layers; i++, w += D * (D + 1)) {
        FC(deep_prefetch)(w, ahead, D);
        FC_UNROLL for (int v = 0; v < nv; v += shared) {
            FC_AGAIN(w);
            if (kept)
                FC_UNROLL for (int u = v; u < v + shared; u++)
                    FC(deep_save)(h[u], x[u], D);
            FC(deep_step)(h + v, w, kept ? d + v : NULL, alpha, root, D, shared, act);
            if (kept)
                FC_UNROLL for (int u = v; u < v + shared; u++) {
                    x[u] += 2 * all;
                    d[u] += 2 * all;
                }
        }
    }
    if (!kept)
        FC_UNROLL for (int v = 0; v < nv; v++)
            FC(deep_save)(h[v], x[v], D);
}

FC_INLINE void FC(deep_runs)(const fc_deep *a, ptrdiff_t v, const ptrdiff_t end, const int kept, const int D,
                             const int act)
{
    for (; v + FC_DEEP_CHAINS(D) <= end; v += FC_DEEP_CHAINS(D))
        FC(deep_run)(a, v, kept, D, FC_DEEP_CHAINS(D), act);
    if (FC_DEEP_CHAINS(D) > 2 && v + 2 <= end) {
        FC(deep_run)(a, v, kept, D, 2, act);
        v += 2;
    }
    if (v < end)
        FC(deep_run)(a, v, kept, D, 1, act);
}

/* whether all sums of a softsign chunk stay below 2**60 on registers [v, end), whatever its layers do: each moves the
 * state by alpha at most */
static FC_NOINLINE int FC(deep_bounded)(const fc_deep *a, ptrdiff_t v, const ptrdiff_t end)
{
    const T *w = a->w;
    const ptrdiff_t n = a->width, numbers = a->layers * n * (n + 1);
    VEC high[2] = {V(set1)(0), V(set1)(0)};
    double most[2] = {0, 0};
    ptrdiff_t i = 0;
    for (; i + LANES <= numbers; i += LANES)
        high[0] = V(max)(V(abs)(V(load)(w + i)), high[0]);
    if (i < numbers)
        high[0] = V(max)(V(abs)(V(load_n)(w + i, numbers - i)), high[0]);
    for (; v < end; v++)
        for (ptrdiff_t k = 0; k < n; k++)
            high[1] = V(max)(V(abs)(V(load)((const T *)a->h + (v / BV * n + k) * 16 + v % BV * LANES)), high[1]);
    for (int p = 0; p < 2; p++) {
        T lanes[LANES];
        V(store)(lanes, high[p]);
        for (i = 0; i < LANES; i++)
            most[p] = lanes[i] > most[p] ? (double)lanes[i] : most[p];
    }
    return most[0] * ((double)n * (most[1] + 1.1 * a->alpha * (double)a->layers) + 1) < 0x1p60;
}

FC_INLINE void FC(deep_forward_small)(const fc_deep *a, const int D, const int act)
{
    FC(deep_runs)(a, a->first, a->first + a->vectors, 0, D, act);
}

FC_INLINE void FC(deep_recompute_small)(const fc_deep *a, const int D, const int act)
{
    FC(deep_runs)(a, 0, a->blocks * BV, 1, D, act);
}

FC_INLINE void FC(deep_load_block)(VEC g[][BV], const T *from, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        FC_UNROLL for (int v = 0; v < BV; v++)
            g[k][v] = V(load)(from + k * 16 + v * LANES);
}

FC_INLINE void FC(deep_save_block)(VEC g[][BV], T *to, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        FC_UNROLL for (int v = 0; v < BV; v++)
            V(store)(to + k * 16 + v * LANES, g[k][v]);
}

/* g of one block is taken back through a layer; dz receives the gradient of the layer's sums. Its chain is short:
 * the registers of the block share each weight here, and what they spill costs nothing. */
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

/* two weights, all that descend4 leaves at D = 2 */
FC_INLINE void FC(deep_descend2)(const T *w, VEC *sums, T rate, T *new)
{
    T pair[4] = {w[0], w[1], 0, 0};
    sums[2] = sums[3] = V(set1)(0);
    V(descend4)(pair, sums, rate, pair);
    new[0] = pair[0];
    new[1] = pair[1];
}

/* the weights of D = 2, each sum a register of its own until the end */
FC_INLINE void FC(deep_update2)(VEC dz[][BV], const T *w, T *new, const T *x, T rate)
{
    VEC sums[8];
    FC_UNROLL for (int e = 0; e < 6; e++) {
        VEC sum[BV];
        FC_UNROLL for (int v = 0; v < BV; v++)
            sum[v] = e < 4 ? V(mul)(V(load)(x + e / 2 * 16 + v * LANES), dz[e % 2][v]) : dz[e % 2][v];
        sums[e] = FC(deep_fold)(sum);
    }
    V(descend4)(w, sums, rate, new);
    FC(deep_descend2)(w + 4, sums + 4, rate, new + 4);
}

/* The weights of D = 4, 8. Four samples are a quarter; a register holds the same quarter of several outputs, and the
 * input's quarter is loaded into each of its places. So the halves and quarters of sixteen samples are added without
 * a shuffle for each weight; what remains are sums of four lanes. Register r of them: the outputs of a group. */
FC_INLINE VEC FC(deep_quarter_sums)(const T *x, VEC q[][4], const int r, const int D)
{
    const int groups = D * 4 / LANES, k = r / groups, o = r % groups;
    VEC term[4];
    FC_UNROLL for (int i = 0; i < 4; i++)
        term[i] = k < D ? V(mul)(V(load4)(x + k * 16 + i * 4), q[o][i]) : q[o][i];
    return V(add)(V(add)(term[0], term[2]), V(add)(term[1], term[3]));
}

FC_INLINE void FC(deep_update)(VEC dz[][BV], const T *w, T *new, const T *x, T rate, const int D)
{
    const int outputs = LANES / 4, groups = D / outputs, count = (D + 1) * groups, rest = count % 4;
    VEC q[FC_DEEP_SMALL][4], sums[4];
    FC_UNROLL for (int o = 0; o < groups; o++)
        V(quarters)(dz[o * outputs], q[o]);
    int r = 0;
    FC_UNROLL for (; r + 4 <= count; r += 4) {
        FC_UNROLL for (int i = 0; i < 4; i++)
            sums[i] = FC(deep_quarter_sums)(x, q, r + i, D);
        V(descend_quarters)(w + r * outputs, sums, 4, rate, new + r * outputs);
    }
    if (rest) {
        FC_UNROLL for (int i = 0; i < rest; i++)
            sums[i] = FC(deep_quarter_sums)(x, q, r + i, D);
        V(descend_quarters)(w + r * outputs, sums, rest, rate, new + r * outputs);
    }
}

/* one layer back on a batch of one block: g is replaced, the layer's weights are updated */
FC_INLINE void FC(deep_back)(VEC g[][BV], const T *w, T *new, const T *x, const T *d, T rate, const int D)
{
    VEC dz[FC_DEEP_SMALL][BV];
    FC(deep_gradient)(g, dz, w, d, D);
    if (D == 2)
        FC(deep_update2)(dz, w, new, x, rate);
    else
        FC(deep_update)(dz, w, new, x, rate, D);
}

FC_INLINE void FC(deep_backward_small)(const fc_deep *a, const int D)
{
    const ptrdiff_t row = D * (D + 1), state = D * 16;
    const T rate = (T)a->rate;
    VEC g[FC_DEEP_SMALL][BV];
    FC(deep_load_block)(g, a->g, D);
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *tape = (const T *)a->tape + i * 2 * state;
        FC(deep_prefetch)((const T *)a->w + i * row, a->ahead, D);
        FC(deep_back)(g, (const T *)a->w + i * row, (T *)a->w_new + i * row, tape, tape + state, rate, D);
    }
    FC(deep_save_block)(g, a->g, D);
}

/* all products of a block added to the sums of D * (D + 1) weights, or put there */
FC_INLINE void FC(deep_products)(VEC *sums, const T *x, VEC dz[][BV], const int begin, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++) {
        const VEC xk = V(load)(x + k * 16);
        FC_UNROLL for (int j = 0; j < D; j++)
            sums[k * D + j] = begin ? V(mul)(xk, dz[j][0]) : V(fma)(xk, dz[j][0], sums[k * D + j]);
    }
    FC_UNROLL for (int j = 0; j < D; j++)
        sums[D * D + j] = begin ? dz[j][0] : V(add)(sums[D * D + j], dz[j][0]);
}

/* A batch of several blocks, whose g is in memory, where registers hold the sums of all weights: a block is one
 * register, D = 4. */
FC_INLINE void FC(deep_backward_sums)(const fc_deep *a, const int D)
{
    const ptrdiff_t row = D * (D + 1), block = D * 16, state = a->blocks * block;
    const T rate = (T)a->rate;
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *x = (const T *)a->tape + i * 2 * state, *w = (const T *)a->w + i * row;
        T *new = (T *)a->w_new + i * row, *at = a->g;
        VEC sums[20], g[FC_DEEP_SMALL][BV], dz[FC_DEEP_SMALL][BV];
        FC(deep_prefetch)(w, a->ahead, D);
        FC(deep_load_block)(g, at, D);
        FC(deep_gradient)(g, dz, w, x + state, D);
        FC(deep_save_block)(g, at, D);
        FC(deep_products)(sums, x, dz, 1, D);
        for (ptrdiff_t b = 1; b < a->blocks; b++) {
            at += block;
            x += block;
            FC(deep_load_block)(g, at, D);
            FC(deep_gradient)(g, dz, w, x + state, D);
            FC(deep_save_block)(g, at, D);
            FC(deep_products)(sums, x, dz, 0, D);
        }
        V(descend8)(w, sums, rate, new);
        V(descend8)(w + 8, sums + 8, rate, new + 8);
        V(descend4)(w + 16, sums + 16, rate, new + 16);
    }
}

/* the same on a batch of several blocks, whose g is in memory */
FC_INLINE void FC(deep_backward_blocks)(const fc_deep *a, const int D)
{
    if (BV == 1 && D == 4) {
        FC(deep_backward_sums)(a, D);
        return;
    }
    const ptrdiff_t row = D * (D + 1), block = D * 16, state = a->blocks * block;
    const T rate = (T)a->rate;
    T *all = a->scratch;
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *x = (const T *)a->tape + i * 2 * state, *w = (const T *)a->w + i * row;
        T *new = (T *)a->w_new + i * row;
        FC(deep_prefetch)(w, a->ahead, D);
        for (ptrdiff_t b = 0; b < a->blocks; b++) {
            VEC g[FC_DEEP_SMALL][BV], dz[FC_DEEP_SMALL][BV];
            FC(deep_load_block)(g, (const T *)a->g + b * block, D);
            FC(deep_gradient)(g, dz, w, x + state + b * block, D);
            FC(deep_save_block)(g, (T *)a->g + b * block, D);
            FC(deep_save_block)(dz, all + b * block, D);
        }
        FC_UNROLL for (int k = 0; k <= D; k++) { /* the weights of an input, then the biases */
            VEC sums[FC_DEEP_SMALL], parts[FC_DEEP_SMALL][BV];
            const T *xk = x + k * 16;
            FC_UNROLL for (int j = 0; j < D; j++)
                FC_UNROLL for (int v = 0; v < BV; v++) {
                    parts[j][v] = V(load)(all + j * 16 + v * LANES);
                    if (k < D)
                        parts[j][v] = V(mul)(V(load)(xk + v * LANES), parts[j][v]);
                }
            for (ptrdiff_t b = 1; b < a->blocks; b++)
                FC_UNROLL for (int v = 0; v < BV; v++) {
                    const VEC xb = V(load)(xk + (k < D ? b * block + v * LANES : 0));
                    FC_UNROLL for (int j = 0; j < D; j++) {
                        const VEC z = V(load)(all + b * block + j * 16 + v * LANES);
                        parts[j][v] = k < D ? V(fma)(xb, z, parts[j][v]) : V(add)(parts[j][v], z);
                    }
                }
            FC_UNROLL for (int j = 0; j < D; j++)
                sums[j] = FC(deep_fold)(parts[j]);
            if (D == 8)
                V(descend8)(w + k * D, sums, rate, new + k * D);
            else if (D == 4)
                V(descend4)(w + k * D, sums, rate, new + k * D);
            else
                FC(deep_descend2)(w + k * D, sums, rate, new + k * D);
        }
    }
}

/* one layer made again on a block, state and slopes to the tape */
FC_INLINE void FC(deep_again)(VEC h[][FC_DEEP_SMALL], const T *w, T *tape, T alpha, T root, const int D, const int act)
{
    const int shared = BV > 1 ? 2 : 1;
    FC_UNROLL for (int v = 0; v < BV; v += shared) {
        T *d[2] = {tape + D * 16 + v * LANES, tape + D * 16 + (v + 1) * LANES};
        FC_AGAIN(w);
        FC_UNROLL for (int u = v; u < v + shared; u++)
            FC(deep_save)(h[u], tape + u * LANES, D);
        FC(deep_step)(h + v, w, d, alpha, root, D, shared, act);
    }
}

/* recompute and backward of one block in one loop, for as many layers as both chunks have */
FC_INLINE void FC(deep_both_small)(const fc_deep *a, const fc_deep *c, const int D, const int act)
{
    const ptrdiff_t row = D * (D + 1), state = D * 16, n = a->layers < c->layers ? a->layers : c->layers;
    const T rate = (T)a->rate, alpha = (T)a->alpha, root = (T)a->root;
    const T *w = c->w;
    T *tape = c->tape;
    VEC g[FC_DEEP_SMALL][BV], h[BV][FC_DEEP_SMALL];
    FC(deep_load_block)(g, a->g, D);
    FC_UNROLL for (int v = 0; v < BV; v++)
        FC(deep_load)(h[v], (const T *)c->h + v * LANES, D);
    ptrdiff_t i = a->layers - 1;
    for (; i >= a->layers - n; i--, w += row, tape += 2 * state) {
        const T *back = (const T *)a->tape + i * 2 * state;
        FC(deep_prefetch)(w, c->ahead, D);
        FC(deep_again)(h, w, tape, alpha, root, D, act);
        FC(deep_back)(g, (const T *)a->w + i * row, (T *)a->w_new + i * row, back, back + state, rate, D);
    }
    for (; i >= 0; i--) {
        const T *back = (const T *)a->tape + i * 2 * state;
        FC(deep_back)(g, (const T *)a->w + i * row, (T *)a->w_new + i * row, back, back + state, rate, D);
    }
    for (ptrdiff_t l = n; l < c->layers; l++, w += row, tape += 2 * state)
        FC(deep_again)(h, w, tape, alpha, root, D, act);
    FC(deep_save_block)(g, a->g, D);
}

#endif

/* FC_DEEP_WIDTHS expands to CALL(D) for the width a has, where it has kernels of its own, and else to FEW or, from 16
 * on, to MANY; FC_DEEP_CASES to CALL(D, activation), both constants. */
#if FC_DEEP_REGISTERS
#define FC_DEEP_OWN(CALL)                                                                                            \
    if (a->width == 4) {                                                                                             \
        CALL(4)                                                                                                      \
    } else if (a->width == 2) {                                                                                      \
        CALL(2)                                                                                                      \
    } else if (a->width == 8) {                                                                                      \
        CALL(8)                                                                                                      \
    } else
#else
#define FC_DEEP_OWN(CALL)
#endif
#define FC_DEEP_WIDTHS(CALL, FEW, MANY)                                                                              \
    FC_DEEP_OWN(CALL) if (a->width <= FC_DEEP_TREE) {                                                                \
        FEW;                                                                                                         \
    } else {                                                                                                         \
        MANY;                                                                                                        \
    }
#define FC_DEEP_CASES(CALL, D, ESTIMATED)                                                                            \
    if (a->activation == FC_SOFTSIGN && (ESTIMATED))                                                                 \
        CALL(D, FC_SOFTSIGN_ESTIMATED);                                                                              \
    else if (a->activation == FC_SOFTSIGN)                                                                           \
        CALL(D, FC_SOFTSIGN);                                                                                        \
    else if (a->activation == FC_TANH)                                                                               \
        CALL(D, FC_TANH);                                                                                            \
    else                                                                                                             \
        CALL(D, FC_RELU);

static void FC(deep_forward)(const fc_deep *a)
{
#define FC_ONE(D, ACT) FC(deep_forward_small)(a, D, ACT)
#define FC_CALL(D) FC_DEEP_CASES(FC_ONE, D, FC_ESTIMATES && FC(deep_bounded)(a, a->first, a->first + a->vectors))
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_forward_wide)(a), FC(deep_rows_forward)(a))
#undef FC_CALL
#undef FC_ONE
}

static void FC(deep_recompute)(const fc_deep *a)
{
#define FC_ONE(D, ACT) FC(deep_recompute_small)(a, D, ACT)
#define FC_CALL(D) FC_DEEP_CASES(FC_ONE, D, FC_ESTIMATES && a->blocks == 1 && FC(deep_bounded)(a, 0, BV))
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_recompute_wide)(a), FC(deep_rows_recompute)(a))
#undef FC_CALL
#undef FC_ONE
}

static void FC(deep_backward)(const fc_deep *a)
{
#define FC_CALL(D) a->blocks == 1 ? FC(deep_backward_small)(a, D) : FC(deep_backward_blocks)(a, D);
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_backward_wide)(a), FC(deep_rows_backward)(a))
#undef FC_CALL
}

/* a: the chunk to walk back; c: the chunk to recompute */
static void FC(deep_both)(const fc_deep *a, const fc_deep *c)
{
#define FC_ONE(D, ACT) FC(deep_both_small)(a, c, D, ACT)
#define FC_CALL(D) FC_DEEP_CASES(FC_ONE, D, 0) /* the walk back hides the divider's time */
    if (a->blocks == 1) {
        FC_DEEP_WIDTHS(FC_CALL, FC(deep_recompute_wide)(c); FC(deep_backward_wide)(a),
                       FC(deep_rows_recompute)(c); FC(deep_rows_backward)(a))
    } else {
        FC(deep_recompute)(c);
        FC(deep_backward)(a);
    }
#undef FC_CALL
#undef FC_ONE
}

/* Counts the z among n floats, from the one with bits `first` on, signs alternating, whose quotient by an estimate
 * off by the factor 1 + nudge is not the one by division; for proofs. */
static void FC(deep_quotient_errors)(ptrdiff_t first, ptrdiff_t n, double nudge, ptrdiff_t *wrong)
{
    *wrong = 0;
    if (sizeof(T) != 4)
        return;
    for (ptrdiff_t i = first; i < first + n; i += LANES) {
        uint32_t bits[LANES];
        T numbers[LANES], got[LANES], right[LANES];
        for (int l = 0; l < LANES; l++)
            bits[l] = (uint32_t)(i + l) | (uint32_t)((i + l) & 1) << 31;
        memcpy(numbers, bits, sizeof bits);
        const VEC z = V(load)(numbers), estimate = V(estimate)(V(sub)(V(set1)(-1), V(abs)(z)));
        const VEC q = FC(deep_quotient)(z, V(fma)(estimate, V(set1)((T)nudge), estimate));
        V(store)(got, V(mul)(q, V(set1)(-1)));
        V(store)(right, FC(deep_act)(z, FC_SOFTSIGN));
        for (int l = 0; l < LANES; l++)
            *wrong += i + l < first + n && memcmp(got + l, right + l, sizeof(T)) != 0;
    }
}

#undef FC_DEEP_CASES
#undef FC_DEEP_WIDTHS
#undef FC_DEEP_OWN
#undef FC_DEEP_ROWS
#undef FC_DEEP_CHAINS
#undef FC_DEEP_SHARED
#undef FC_DEEP_REGISTERS
#undef BV
