/* Updates of residual cores of 2, 4 and 8 units, and the walks that do them while a chunk is recomputed. */

FC_INLINE void FC(deep_load_block)(VEC g[][BV], const T *from, const int D)
{
    FC_UNROLL for (int k = 0; k < D; k++)
        FC_UNROLL for (int v = 0; v < BV; v++)
            g[k][v] = V(load)(from + k * 16 + v * LANES);
}

/* Updates two weights: at D = 2 descend4 takes four of a layer's six, and leaves these. */
FC_INLINE void FC(deep_descend2)(const T *w, VEC *sums, T rate, T *new)
{
    T pair[4] = {w[0], w[1], 0, 0};
    sums[2] = sums[3] = V(set1)(0);
    V(descend4)(pair, sums, rate, pair);
    new[0] = pair[0];
    new[1] = pair[1];
}

/* Updates the weights of D = 2. Until the end each sum has a register of its own. */
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

/* Sums for the weights of D = 4 and 8. Four samples are a quarter of a block. A register holds the same quarter of
 * several outputs, and the input's quarter is loaded beside each of them. The first two additions of the tree over
 * sixteen samples then need no shuffles: they leave four lanes for each weight. Returns register r of these sums, that
 * of the outputs of one group. */
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

/* Updates the weights of a layer for a batch of one block, from its inputs x and from dz, which lies behind them. */
FC_INLINE void FC(deep_update_block)(const T *w, T *new, const T *x, T rate, const int D)
{
    VEC dz[FC_DEEP_SMALL][BV];
    FC(deep_load_block)(dz, x + D * 16, D);
    if (D == 2)
        FC(deep_update2)(dz, w, new, x, rate);
    else
        FC(deep_update_quarters)(dz, w, new, x, rate, D);
}

/* Adds the products of a block to the sums of the D * (D + 1) weights; with `begin` the sums begin with them. */
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

/* Updates for a batch of several blocks where registers can hold the sums of all weights: at D = 4, if a register is as
 * long as a block. */
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

/* Updates for a batch of several blocks. */
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

/* Takes a block through one layer once more; its state before the layer, and the slopes, go to the tape. */
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

/* Updates chunk a and recomputes chunk c, on the same tape and in one loop, for a batch of one block. */
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

/* Takes the gradient through chunk a, updates its weights, and recomputes chunk c on a tape of its own, in one loop.
 * This is what a single thread does with a batch of one block. */
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
