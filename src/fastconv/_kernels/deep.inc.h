/* Residual cores of any depth, h <- h + alpha * act(h W + b), and their exact gradients.
 *
 * Lanes are samples. A batch is cut into blocks of 16 (padded by the caller), a state is (blocks, D, 16), and a
 * layer's weights are W (in, out) row after row and then b: D + 1 rows of D, the bias being the row whose input
 * is 1. Four walks over a chunk of layers:
 *
 *   forward     the state alone, held in registers for D = 2, 4, 8
 *   recompute   the same again; `tape` keeps each layer's input h and slope d = alpha * act'(z)
 *   gradient    from the last layer to the first: dz = g * d takes the place of d, g += dz W^T
 *   update      W -= rate * h^T dz, each layer for itself
 *
 * Only g has to go through all chunks one after the other. Updates fill the waits of a recomputation, of the chunk
 * whose turn is next: one loop does both, and the tape's layers are written again as soon as they were used.
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
enum { FC_DEEP_SMALL = 8, FC_DEEP_TILE = 8, FC_DEEP_MAX = 512 };
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

static FC_NOINLINE void FC(deep_gradient_wide)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *w = (const T *)a->w + i * row;
        for (ptrdiff_t v = 0; v < a->blocks * BV; v++) {
            const ptrdiff_t at = v / BV * n * 16 + v % BV * LANES;
            T *g = (T *)a->g + at, *d = (T *)a->tape + (2 * i + 1) * state + at;
            ptrdiff_t k = 0;
            for (ptrdiff_t j = 0; j < n; j++)
                V(store)(d + j * 16, V(mul)(V(load)(g + j * 16), V(load)(d + j * 16)));
            for (; k + 8 <= n; k += 8)
                FC(deep_inputs)(a, w, d, g, k, 8);
            for (; k + 4 <= n; k += 4)
                FC(deep_inputs)(a, w, d, g, k, 4);
            for (; k < n; k++)
                FC(deep_inputs)(a, w, d, g, k, 1);
        }
    }
}

static FC_NOINLINE void FC(deep_update_wide)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    for (ptrdiff_t i = 0; i < a->layers; i++) {
        const T *w = (const T *)a->w + i * row, *x = (const T *)a->tape + 2 * i * state;
        T *new = (T *)a->w_new + i * row;
        for (ptrdiff_t k = 0; k <= n; k++)
            FC(deep_update_tree)(a, w + k * n, new + k * n, k < n ? x + k * 16 : NULL, x + state);
    }
}

/* --- D >= 16: rows of samples, registers of outputs. Every product is one tile, some rows by two registers, a chain
 * for each number: what is loaded is used eight times, or twice where it is one number for all lanes. --- */

/* rows of a tile */
#define FC_DEEP_ROWS (LANES < 4 ? LANES : FC_VECTORS == 32 && LANES >= 8 ? 8 : 4)

/* Weights on their way to the cache: a walk prefetches its share of those that will be wanted next, `pace` bytes for
 * each step of a tile. A core has few loads on their way at a time (12 on Ice Lake), so they have to be spread. */
typedef struct {
    uintptr_t at, pace;
} FC(deep_soon);

/* share `first` of `shares` of what is a->ahead of the layer at w, over so many steps */
FC_INLINE FC(deep_soon) FC(deep_coming)(const fc_deep *a, const T *w, int first, int shares, ptrdiff_t steps)
{
    const ptrdiff_t row = a->width * (a->width + 1);
    const uintptr_t bytes = (uintptr_t)row * sizeof(T) / (uintptr_t)shares;
    const FC(deep_soon) soon = {(uintptr_t)w + (uintptr_t)a->ahead * sizeof(T) + bytes * (uintptr_t)first,
                                bytes / (uintptr_t)steps + 1};
    return soon;
}

/* acc[r][v] += sum over k < n of x[r * xr + k * xk] * w[k * wk + v * LANES ...], in order */
FC_INLINE void FC(deep_chains)(VEC acc[][2], const T *x, const ptrdiff_t xr, const ptrdiff_t xk, const T *w,
                               const ptrdiff_t wk, const ptrdiff_t n, const ptrdiff_t part, const int nr, const int nv,
                               FC(deep_soon) *soon)
{
    for (ptrdiff_t k = 0; k < n; k++) {
        VEC wv[2];
        FC_PREFETCH(soon->at);
        FC_PREFETCH(soon->at + 64); /* where the pace is a line or more */
        soon->at += soon->pace;
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
                                     const ptrdiff_t part, FC(deep_soon) *soon, const int act, const int nr,
                                     const int nv)
{
    const ptrdiff_t n = a->width;
    const T alpha = (T)a->alpha, root = (T)a->root;
    VEC acc[8][2];
    FC_UNROLL for (int v = 0; v < nv; v++) {
        const VEC bias = FC(get)(w + n * n + j + v * LANES, part);
        FC_UNROLL for (int r = 0; r < nr; r++)
            acc[r][v] = bias;
    }
    FC(deep_chains)(acc, x, n, 1, w + j, n, n, part, nr, nv, soon);
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

/* one layer on m samples */
static FC_NOINLINE void FC(deep_rows_layer)(const fc_deep *a, const T *w, const T *x, T *y, T *d, ptrdiff_t m,
                                            FC(deep_soon) soon)
{
    const ptrdiff_t n = a->width;
    /* expands to the layer for one activation */
#define FC_DEEP_OUTPUTS(ACT)                                                                                         \
    for (; j + 2 * LANES <= n; j += 2 * LANES)                                                                       \
        FC(deep_rows_outputs)(a, w, x, y, d, j, 0, &soon, ACT, FC_DEEP_ROWS, 2);                                     \
    for (; j + LANES <= n; j += LANES)                                                                               \
        FC(deep_rows_outputs)(a, w, x, y, d, j, 0, &soon, ACT, FC_DEEP_ROWS, 1);                                     \
    if (j < n)                                                                                                       \
        FC(deep_rows_outputs)(a, w, x, y, d, j, n - j, &soon, ACT, FC_DEEP_ROWS, 1);
    for (ptrdiff_t s = 0; s < m; s += FC_DEEP_ROWS) {
        ptrdiff_t j = 0;
        if (a->activation == FC_SOFTSIGN) {
            FC_DEEP_OUTPUTS(FC_SOFTSIGN)
        } else if (a->activation == FC_TANH) {
            FC_DEEP_OUTPUTS(FC_TANH)
        } else {
            FC_DEEP_OUTPUTS(FC_RELU)
        }
        x += FC_DEEP_ROWS * n;
        y = y ? y + FC_DEEP_ROWS * n : NULL;
        d = d ? d + FC_DEEP_ROWS * n : NULL;
    }
#undef FC_DEEP_OUTPUTS
}

/* steps of the tiles of m rows by n columns, chains of k */
FC_INLINE ptrdiff_t FC(deep_steps)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k)
{
    return m / FC_DEEP_ROWS * ((n + 2 * LANES - 1) / (2 * LANES)) * k;
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
    const ptrdiff_t n = a->width, row = (n + 1) * n, end = FC_DEEP_GROUP * (a->first + a->vectors);
    T buffer[2][FC_DEEP_MAX * 16];
    for (ptrdiff_t s = FC_DEEP_GROUP * a->first, m; s < end; s += m) { /* a block, or half of one */
        T *h = (T *)a->h + s / 16 * n * 16 + s % 16;
        m = s % 16 || s + FC_DEEP_GROUP == end ? FC_DEEP_GROUP : 16;
        FC(deep_turn)(h, 16, buffer[0], n, n, m);
        for (ptrdiff_t i = 0; i < a->layers; i++) {
            const T *w = (const T *)a->w + i * row;
            FC(deep_rows_layer)(a, w, buffer[i & 1], buffer[(i + 1) & 1], NULL, m,
                                FC(deep_coming)(a, w, 0, 1, FC(deep_steps)(m, n, n)));
        }
        FC(deep_turn)(buffer[a->layers & 1], n, h, 16, m, n);
    }
}

/* The three walks of a chunk's way back prefetch a third each of the chunk that is next. */
static FC_NOINLINE void FC(deep_rows_recompute)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, m = a->blocks * 16, state = m * n;
    T *tape = a->tape;
    for (ptrdiff_t b = 0; b < a->blocks; b++)
        FC(deep_turn)((const T *)a->h + b * n * 16, 16, tape + b * n * 16, n, n, 16);
    for (ptrdiff_t i = 0; i < a->layers; i++, tape += 2 * state) {
        const T *w = (const T *)a->w + i * row;
        FC(deep_rows_layer)(a, w, tape, i + 1 < a->layers ? tape + 2 * state : NULL, tape + state, m,
                            FC(deep_coming)(a, w, 0, 3, FC(deep_steps)(m, n, n)));
    }
}

/* new[i] = w[i] - rate * (sum over samples of x[s, i] * dz[s]), for nr rows of weights and nv registers of outputs */
FC_INLINE void FC(deep_rows_update)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz, const ptrdiff_t part,
                                    FC(deep_soon) *soon, const int nr, const int nv)
{
    const ptrdiff_t n = a->width;
    const VEC rate = V(set1)(-(T)a->rate);
    VEC acc[8][2];
    FC_UNROLL for (int r = 0; r < nr; r++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            acc[r][v] = V(set1)(0);
    FC(deep_chains)(acc, x, 1, n, dz, n, a->blocks * 16, part, nr, nv, soon);
    FC_UNROLL for (int r = 0; r < nr; r++)
        FC_UNROLL for (int v = 0; v < nv; v++)
            FC(put)(new + r * n + v * LANES, V(fma)(rate, acc[r][v], FC(get)(w + r * n + v * LANES, part)), part);
}

static FC_NOINLINE void FC(deep_rows_layer_update)(const fc_deep *a, const T *w, T *new, const T *x, const T *dz)
{
    const ptrdiff_t n = a->width;
    const VEC rate = V(set1)(-(T)a->rate);
    FC(deep_soon) soon = FC(deep_coming)(a, w, 2, 3, FC(deep_steps)(n, n, a->blocks * 16));
    for (ptrdiff_t j = 0, step; j < n; j += step) {
        const ptrdiff_t part = n - j < LANES ? n - j : 0;
        ptrdiff_t k = 0;
        step = n - j >= 2 * LANES ? 2 * LANES : LANES;
        if (step == 2 * LANES)
            for (; k + FC_DEEP_ROWS <= n; k += FC_DEEP_ROWS)
                FC(deep_rows_update)(a, w + k * n + j, new + k * n + j, x + k, dz + j, 0, &soon, FC_DEEP_ROWS, 2);
        else if (!part)
            for (; k + FC_DEEP_ROWS <= n; k += FC_DEEP_ROWS)
                FC(deep_rows_update)(a, w + k * n + j, new + k * n + j, x + k, dz + j, 0, &soon, FC_DEEP_ROWS, 1);
        for (; k < n; k++)
            for (ptrdiff_t v = 0; v < step; v += LANES)
                FC(deep_rows_update)(a, w + k * n + j + v, new + k * n + j + v, x + k, dz + j + v, part, &soon, 1, 1);

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
                                    FC(deep_soon) *soon, const int nv)
{
    const ptrdiff_t n = a->width;
    for (ptrdiff_t s = 0; s < a->blocks * 16; s += FC_DEEP_ROWS, dz += FC_DEEP_ROWS * n, g += FC_DEEP_ROWS * n) {
        VEC acc[8][2];
        FC_UNROLL for (int r = 0; r < FC_DEEP_ROWS; r++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                acc[r][v] = FC(get)(g + r * n + v * LANES, part);
        FC(deep_chains)(acc, dz, n, 1, turned, 2 * LANES, n, part, FC_DEEP_ROWS, nv, soon);
        FC_UNROLL for (int r = 0; r < FC_DEEP_ROWS; r++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                FC(put)(g + r * n + v * LANES, acc[r][v], part);
    }
}

static FC_NOINLINE void FC(deep_rows_gradient)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    T turned[FC_DEEP_MAX * 2 * LANES];
    T *g = a->scratch;
    for (ptrdiff_t b = 0; b < a->blocks; b++)
        FC(deep_turn)((const T *)a->g + b * n * 16, 16, g + b * n * 16, n, n, 16);
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *w = (const T *)a->w + i * row;
        T *dz = (T *)a->tape + (2 * i + 1) * state;
        FC(deep_soon) soon = FC(deep_coming)(a, w, 1, 3, FC(deep_steps)(a->blocks * 16, n, n));
        for (ptrdiff_t e = 0; e < state; e += LANES)
            V(store)(dz + e, V(mul)(V(load)(g + e), V(load)(dz + e)));
        for (ptrdiff_t k = 0; k < n; k += 2 * LANES) {
            const ptrdiff_t m = n - k < 2 * LANES ? n - k : 2 * LANES;
            FC(deep_turn)(w + k * n, n, turned, 2 * LANES, m, n);
            if (m == 2 * LANES)
                FC(deep_rows_inputs)(a, turned, dz, g + k, 0, &soon, 2);
            else {
                if (m >= LANES)
                    FC(deep_rows_inputs)(a, turned, dz, g + k, 0, &soon, 1);
                if (m % LANES)
                    FC(deep_rows_inputs)(a, turned + m / LANES * LANES, dz, g + k + m / LANES * LANES, m % LANES,
                                         &soon, 1);
            }
        }
    }
    for (ptrdiff_t b = 0; b < a->blocks; b++)
        FC(deep_turn)(g + b * n * 16, n, (T *)a->g + b * n * 16, 16, 16, n);
}

static FC_NOINLINE void FC(deep_rows_updates)(const fc_deep *a)
{
    const ptrdiff_t n = a->width, row = (n + 1) * n, state = a->blocks * n * 16;
    for (ptrdiff_t i = 0; i < a->layers; i++) {
        const T *x = (const T *)a->tape + 2 * i * state;
        FC(deep_rows_layer_update)(a, (const T *)a->w + i * row, (T *)a->w_new + i * row, x, x + state);
    }
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

/* RUN(v, nv) for the registers of lanes [FIRST, END), as many in a run as hold the state */
#define FC_DEEP_RUNS(RUN, FIRST, END, D)                                                                             \
    ptrdiff_t v = FIRST;                                                                                             \
    const ptrdiff_t end = END;                                                                                       \
    for (; v + FC_DEEP_CHAINS(D) <= end; v += FC_DEEP_CHAINS(D))                                                     \
        RUN(v, FC_DEEP_CHAINS(D));                                                                                   \
    if (FC_DEEP_CHAINS(D) > 2 && v + 2 <= end) {                                                                     \
        RUN(v, 2);                                                                                                   \
        v += 2;                                                                                                      \
    }                                                                                                                \
    if (v < end)                                                                                                     \
        RUN(v, 1);

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
#define FC_RUN(V, NV) FC(deep_run)(a, V, 0, D, NV, act)
    FC_DEEP_RUNS(FC_RUN, a->first, a->first + a->vectors, D)
#undef FC_RUN
}

FC_INLINE void FC(deep_recompute_small)(const fc_deep *a, const int D, const int act)
{
#define FC_RUN(V, NV) FC(deep_run)(a, V, 1, D, NV, act)
    FC_DEEP_RUNS(FC_RUN, 0, a->blocks * BV, D)
#undef FC_RUN
}

/* g of nv registers of lanes is taken back through a layer; at d[v] dz takes the place of the slopes */
FC_INLINE void FC(deep_back)(VEC g[][FC_DEEP_SMALL], const T *w, T *const *d, const int D, const int nv)
{
    const int half = (D + 1) / 2;
    VEC dz[2][FC_DEEP_SMALL], rest[2];
    FC_UNROLL for (int v = 0; v < nv; v++)
        FC_UNROLL for (int j = 0; j < D; j++) {
            dz[v][j] = V(mul)(g[v][j], V(load)(d[v] + j * 16));
            V(store)(d[v] + j * 16, dz[v][j]);
        }
    FC_UNROLL for (int k = 0; k < D; k++) {
        FC_UNROLL for (int v = 0; v < nv; v++) {
            g[v][k] = V(fma)(dz[v][0], V(set1)(w[k * D]), g[v][k]);
            rest[v] = V(mul)(dz[v][half], V(set1)(w[k * D + half]));
        }
        FC_UNROLL for (int j = 1; j < half; j++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                g[v][k] = V(fma)(dz[v][j], V(set1)(w[k * D + j]), g[v][k]);
        FC_UNROLL for (int j = half + 1; j < D; j++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                rest[v] = V(fma)(dz[v][j], V(set1)(w[k * D + j]), rest[v]);
        FC_UNROLL for (int v = 0; v < nv; v++)
            g[v][k] = V(add)(g[v][k], rest[v]);
    }
}

/* g of nv registers of lanes through all layers */
FC_INLINE void FC(deep_back_run)(const fc_deep *a, const ptrdiff_t first, const int D, const int nv)
{
    const int shared = nv > 1 ? 2 : 1; /* loads of weights would take longer than the sums */
    const ptrdiff_t all = a->blocks * D * 16;
    T *at[4], *d[4];
    VEC g[4][FC_DEEP_SMALL];
    FC_UNROLL for (int v = 0; v < nv; v++) {
        const ptrdiff_t lanes = (first + v) / BV * D * 16 + (first + v) % BV * LANES;
        at[v] = (T *)a->g + lanes;
        d[v] = (T *)a->tape + (2 * a->layers - 1) * all + lanes;
        FC(deep_load)(g[v], at[v], D);
    }
    for (ptrdiff_t i = a->layers - 1; i >= 0; i--) {
        const T *w = (const T *)a->w + i * D * (D + 1);
        FC_UNROLL for (int v = 0; v < nv; v += shared) {
            FC_AGAIN(w);
            FC(deep_back)(g + v, w, d + v, D, shared);
            FC_UNROLL for (int u = v; u < v + shared; u++)
                d[u] -= 2 * all;
        }
    }
    FC_UNROLL for (int v = 0; v < nv; v++)
        FC(deep_save)(g[v], at[v], D);
}

FC_INLINE void FC(deep_gradient_small)(const fc_deep *a, const int D)
{
#define FC_RUN(V, NV) FC(deep_back_run)(a, V, D, NV)
    FC_DEEP_RUNS(FC_RUN, 0, a->blocks * BV, D)
#undef FC_RUN
}

FC_INLINE void FC(deep_load_block)(VEC g[][BV], const T *from, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        FC_UNROLL for (int v = 0; v < BV; v++)
            g[k][v] = V(load)(from + k * 16 + v * LANES);
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

FC_INLINE void FC(deep_update_quarters)(VEC dz[][BV], const T *w, T *new, const T *x, T rate, const int D)
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

/* the weights of a layer, from its inputs x and, behind them, dz: a batch of one block */
FC_INLINE void FC(deep_update_block)(const T *w, T *new, const T *x, T rate, const int D)
{
    VEC dz[FC_DEEP_SMALL][BV];
    FC(deep_load_block)(dz, x + D * 16, D);
    if (D == 2)
        FC(deep_update2)(dz, w, new, x, rate);
    else
        FC(deep_update_quarters)(dz, w, new, x, rate, D);
}

/* all products of a block added to the sums of D * (D + 1) weights, or put there */
FC_INLINE void FC(deep_products)(VEC *sums, const T *x, const T *dz, const int begin, const int D)
{
    VEC z[FC_DEEP_SMALL];
    FC(deep_load)(z, dz, D);
    FC_UNROLL for (int k = 0; k < D; k++) {
        const VEC xk = V(load)(x + k * 16);
        FC_UNROLL for (int j = 0; j < D; j++)
            sums[k * D + j] = begin ? V(mul)(xk, z[j]) : V(fma)(xk, z[j], sums[k * D + j]);
    }
    FC_UNROLL for (int j = 0; j < D; j++)
        sums[D * D + j] = begin ? z[j] : V(add)(sums[D * D + j], z[j]);
}

/* A batch of several blocks, where registers hold the sums of all weights: a block is one register, D = 4. */
FC_INLINE void FC(deep_update_sums)(const fc_deep *a, const int D)
{
    const ptrdiff_t row = D * (D + 1), block = D * 16, state = a->blocks * block;
    const T rate = (T)a->rate;
    for (ptrdiff_t i = 0; i < a->layers; i++) {
        const T *x = (const T *)a->tape + 2 * i * state, *w = (const T *)a->w + i * row;
        T *new = (T *)a->w_new + i * row;
        VEC sums[20];
        FC(deep_products)(sums, x, x + state, 1, D);
        for (ptrdiff_t b = 1; b < a->blocks; b++) {
            x += block;
            FC(deep_products)(sums, x, x + state, 0, D);
        }
        V(descend8)(w, sums, rate, new);
        V(descend8)(w + 8, sums + 8, rate, new + 8);
        V(descend4)(w + 16, sums + 16, rate, new + 16);
    }
}

/* a batch of several blocks */
FC_INLINE void FC(deep_update_blocks)(const fc_deep *a, const int D)
{
    if (BV == 1 && D == 4) {
        FC(deep_update_sums)(a, D);
        return;
    }
    const ptrdiff_t row = D * (D + 1), block = D * 16, state = a->blocks * block;
    const T rate = (T)a->rate;
    for (ptrdiff_t i = 0; i < a->layers; i++) {
        const T *x = (const T *)a->tape + 2 * i * state, *all = x + state, *w = (const T *)a->w + i * row;
        T *new = (T *)a->w_new + i * row;
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

/* updates of chunk a and recomputation of chunk c, on the same tape and in one loop: a batch of one block */
FC_INLINE void FC(deep_update_small)(const fc_deep *a, const fc_deep *c, const int D, const int act)
{
    const ptrdiff_t row = D * (D + 1), layer = 2 * D * 16, ahead = c->ahead;
    const ptrdiff_t both = a->layers < c->layers ? a->layers : c->layers;
    const T rate = (T)a->rate, alpha = (T)a->alpha, root = (T)a->root;
    const T *w = a->w, *again = c->w;
    T *new = a->w_new, *tape = a->tape;
    VEC h[BV][FC_DEEP_SMALL];
    ptrdiff_t i = 0;
    FC_UNROLL for (int v = 0; v < BV; v++)
        FC(deep_load)(h[v], (const T *)c->h + v * LANES, D);
    for (; i < both; i++) {
        FC(deep_prefetch)(again + i * row, ahead, D);
        FC(deep_update_block)(w + i * row, new + i * row, tape + i * layer, rate, D);
        FC(deep_again)(h, again + i * row, tape + i * layer, alpha, root, D, act);
    }
    for (; i < a->layers; i++)
        FC(deep_update_block)(w + i * row, new + i * row, tape + i * layer, rate, D);
    for (; i < c->layers; i++)
        FC(deep_again)(h, again + i * row, tape + i * layer, alpha, root, D, act);
}

/* the gradient's way through chunk a and its updates, and recomputation of chunk c on a tape of its own, in one loop:
 * what one thread does, with a batch of one block */
FC_INLINE void FC(deep_both_small)(const fc_deep *a, const fc_deep *c, const int D, const int act)
{
    const ptrdiff_t row = D * (D + 1), layer = 2 * D * 16, ahead = c->ahead;
    const T rate = (T)a->rate, alpha = (T)a->alpha, root = (T)a->root;
    const T *w = a->w, *again = c->w;
    T *new = a->w_new, *tape = a->tape, *next = c->tape;
    const int shared = BV > 1 ? 2 : 1;
    VEC g[BV][FC_DEEP_SMALL], h[BV][FC_DEEP_SMALL];
    ptrdiff_t i = a->layers - 1, l = 0;
    FC_UNROLL for (int v = 0; v < BV; v++) {
        FC(deep_load)(g[v], (const T *)a->g + v * LANES, D);
        FC(deep_load)(h[v], (const T *)c->h + v * LANES, D);
    }
#define FC_BACK()                                                                                                    \
    FC_UNROLL for (int v = 0; v < BV; v += shared) {                                                                 \
        T *slopes = tape + i * layer + D * 16 + v * LANES, *d[2] = {slopes, slopes + LANES};                         \
        FC(deep_back)(g + v, w + i * row, d, D, shared);                                                             \
    }                                                                                                                \
    FC(deep_update_block)(w + i * row, new + i * row, tape + i * layer, rate, D);
    for (; i >= 0 && l < c->layers; i--, l++) {
        FC(deep_prefetch)(again + l * row, ahead, D);
        FC_BACK()
        FC(deep_again)(h, again + l * row, next + l * layer, alpha, root, D, act);
    }
    for (; i >= 0; i--) {
        FC_BACK()
    }
    for (; l < c->layers; l++)
        FC(deep_again)(h, again + l * row, next + l * layer, alpha, root, D, act);
    FC_UNROLL for (int v = 0; v < BV; v++)
        FC(deep_save)(g[v], (T *)a->g + v * LANES, D);
#undef FC_BACK
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
    FC_DEEP_OWN(CALL) if (a->width < FC_DEEP_WIDE) {                                                                 \
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

static void FC(deep_gradient)(const fc_deep *a)
{
#define FC_CALL(D) FC(deep_gradient_small)(a, D);
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_gradient_wide)(a), FC(deep_rows_gradient)(a))
#undef FC_CALL
}

/* a: the chunk whose weights are updated; c: the chunk, perhaps of no layers, that is recomputed on the same tape */
static void FC(deep_update)(const fc_deep *a, const fc_deep *c)
{
#define FC_ONE(D, ACT) FC(deep_update_small)(a, c, D, ACT)
#define FC_CALL(D)                                                                                                   \
    if (a->blocks == 1) {                                                                                            \
        FC_DEEP_CASES(FC_ONE, D, 0) /* updates hide the divider's time */                                            \
        return;                                                                                                      \
    }                                                                                                                \
    FC(deep_update_blocks)(a, D);
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_update_wide)(a), FC(deep_rows_updates)(a))
    if (c->layers)
        FC(deep_recompute)(c);
#undef FC_CALL
#undef FC_ONE
}

/* One thread's work on its way back: chunk a's gradient and updates, chunk c recomputed on another tape. */
static void FC(deep_both)(const fc_deep *a, const fc_deep *c)
{
#define FC_ONE(D, ACT) FC(deep_both_small)(a, c, D, ACT)
#define FC_CALL(D)                                                                                                   \
    if (a->blocks == 1) {                                                                                            \
        FC_DEEP_CASES(FC_ONE, D, 0)                                                                                  \
        return;                                                                                                      \
    }
    FC_DEEP_WIDTHS(FC_CALL, , )
    FC(deep_gradient)(a); /* nothing to interleave */
    FC(deep_update)(a, c);
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
#undef FC_DEEP_RUNS
#undef FC_DEEP_SHARED
#undef FC_DEEP_REGISTERS
#undef BV
