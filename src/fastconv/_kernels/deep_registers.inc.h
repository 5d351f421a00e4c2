/* Residual cores of 2, 4 and 8 units: forward walk, recomputation and gradient. D is a constant, and the state stays in
 * registers from layer to layer. deep_registers_update.inc.h has the updates. */

/* The number of registers of lanes that walk the layers together, each with chains of its own: as many as the state
 * can stay in. */
#define FC_DEEP_CHAINS(D) (FC_VECTORS == 32 && (D) < 8 ? 4 : 2)
/* How many of them share the weights that are in registers. One, where D is small: then no sum has to leave its
 * register. */
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

/* Prefetches the weights of a layer: no hardware foresees the order in which chunks are walked. */
FC_INLINE void FC(deep_prefetch)(const T *w, ptrdiff_t ahead, const int D)
{
    const uintptr_t first = (uintptr_t)w + (uintptr_t)ahead * sizeof(T);
    FC_UNROLL for (int i = 0; i < D * (D + 1) * (int)sizeof(T); i += 64)
        FC_PREFETCH(first + i);
}

/* Takes nv registers of lanes, h, through a layer. If there is a d, the slopes of register v go to d[v], in rows of
 * 16. */
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

/* Takes nv registers of lanes through all layers. The state is replaced; with `kept` it stays, and states and slopes
 * go to the tape. */
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

/* Expands to RUN(v, nv) until the registers of lanes [FIRST, END) are done, each with as many as the state can stay
 * in. */
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

/* Whether all sums of a softsign chunk stay below 2**60 on the registers [v, end). A layer moves the state by alpha at
 * most, so the largest weight and the largest state at the beginning tell. */
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

/* Takes the gradient g of nv registers of lanes back through a layer. In d[v], dz takes the place of the slopes. */
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

/* Takes the gradient g of nv registers of lanes back through all layers. */
FC_INLINE void FC(deep_back_run)(const fc_deep *a, const ptrdiff_t first, const int D, const int nv)
{
    const int shared = nv > 1 ? 2 : 1; /* with one, loading the weights would take longer than the sums */
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

#undef FC_DEEP_CHAINS
#undef FC_DEEP_SHARED
#undef FC_DEEP_RUNS
