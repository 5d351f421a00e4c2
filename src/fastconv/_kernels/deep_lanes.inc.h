/* Residual cores of fewer than 16 units. The state lies in memory; a register holds samples, and one register of them
 * goes through a layer at a time. */

/* acc[o] += sum over i of x[i] * w[i * wi + o * wo]; if split < n, in two chains that are cut at `split` */
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

/* Computes `no` outputs of a layer: y = x + alpha * act(b + x w), and the slopes if there is a d. Rows of x and y lie
 * x_row and y_row apart. */
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
    if (!FC_SPECIALISE_ACTIVATIONS) {
        FC_DEEP_LAYER(a->activation)
    } else if (a->activation == FC_SOFTSIGN) {
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
