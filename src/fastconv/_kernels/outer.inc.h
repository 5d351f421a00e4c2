/* Register tiles of the weight gradient: a tile is MR weights x NV vectors of channels, the reduction runs over pixels,
 * one chain of fused multiply-adds a weight. */

/* One tile: mr weights, nv vectors of channels; the factors of a pixel lie side by side (near) or where taps say.
 * `tail` lanes of the last vector count, or all where it is 0: an instance of its own unless masked loads are free. */
FC_INLINE void FC(outer_tile)(const fc_outer *a, const ptrdiff_t *taps, ptrdiff_t k, T *dw, ptrdiff_t tail,
                              const int near, const int mr, const int nv)
{
    VEC acc[FC_HIGHEST][FC_NV];
    if (a->fresh) {
        FC_UNROLL for (int i = 0; i < mr; i++)
            FC_UNROLL for (int v = 0; v < nv; v++)
                acc[i][v] = V(set1)(0);
    } else
        FC_UNROLL for (int i = 0; i < mr; i++)
            FC_UNROLL for (int v = 0; v < nv; v++) {
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
    if (a->onto) {
        dw = (T *)a->onto + (dw - (const T *)a->dw);
        FC_UNROLL for (int i = 0; i < mr; i++)
            FC_UNROLL for (int v = 0; v < nv; v++) {
                const T *d = dw + i * a->dw_row + v * LANES;
                acc[i][v] = V(add)(v == nv - 1 && tail ? V(load_n)(d, tail) : V(load)(d), acc[i][v]);
            }
    }
    FC_UNROLL for (int i = 0; i < mr; i++)
        FC_UNROLL for (int v = 0; v < nv; v++) {
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
    if (!FC_SPECIALISE) {
        FC(outer_run)(a, a->taps, a->m, k, dw, tail, 0, nv);
        return;
    }
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

/* Fetch a part of the pixels behind these, in the order of memory: what is read of a pixel at a time lies far from what
 * is read of the next, which no hardware foresees */
static void FC(outer_fetch)(const fc_outer *a, ptrdiff_t part, ptrdiff_t parts)
{
    const ptrdiff_t bytes = (ptrdiff_t)sizeof(T) * (a->cols == 1 ? a->rows * a->g_row : a->cols * a->g_col);
    const uintptr_t g = (uintptr_t)a->g + bytes;
    for (ptrdiff_t i = part * bytes / parts; i < (part + 1) * bytes / parts; i += 64)
        FC_PREFETCH_FAR(g + i);
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
            FC(outer_fetch)(a, k / nr, panels);
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
