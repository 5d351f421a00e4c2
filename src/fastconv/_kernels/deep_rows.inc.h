/* Residual cores of 16 units and more. Samples are rows, and a register holds outputs. Every product is made of tiles
 * of some rows by two registers, with a chain of multiply-adds for each number. A loaded register of weights serves all
 * rows of its tile, and a number that is spread over all lanes serves both registers. */

/* rows of a tile */
#define FC_DEEP_ROWS (LANES < 4 ? LANES : FC_VECTORS == 32 && LANES >= 8 ? 8 : 4)

/* Prefetching: a walk fetches its share of the weights that come next, `pace` bytes in each step of a tile. A core
 * can wait for few loads at a time (12 on Ice Lake), so the fetches are spread over the walk. */
typedef struct {
    uintptr_t at, pace;
} FC(deep_soon);

/* Returns how to fetch share number `first` of `shares` of the layer that lies a->ahead of w, in so many steps. */
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

/* Computes nv registers of outputs, from output j on, for nr rows: y = x + alpha * act(b + x w) and the slopes d, each
 * unless it is NULL. */
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
        if (!FC_SPECIALISE_ACTIVATIONS) {
            FC_DEEP_OUTPUTS(a->activation)
        } else if (a->activation == FC_SOFTSIGN) {
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

/* Returns the number of steps in the tiles of m rows by n columns, whose chains are k long. */
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
    for (ptrdiff_t s = FC_DEEP_GROUP * a->first, m; s < end; s += m) { /* s goes on by a block or by half of one */
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

/* Each of the three walks that take a chunk back prefetches a third of the chunk that comes next. */
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

/* g[s, k] += sum over outputs of dz[s, j] * w[k, j], for nv registers of inputs, whose rows of w are the columns of
 * `turned` */
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

#undef FC_DEEP_ROWS
