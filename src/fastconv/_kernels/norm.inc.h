/* Batch normalisation and dropout, over T and the vector vocabulary.
 *
 * Activations are rows of C channels, x (n, c); vectors run across channels. Rows of few channels are folded
 * (common.inc.h): the partial sums of the folded rows are added in a fixed tree, so fold is part of the order of the
 * sums.
 */

/* row[c] = sum of the rows of wide (fold, c), halves upon halves; what wide held is gone afterwards */
FC_INLINE void FC(unfold)(T *wide, ptrdiff_t c, ptrdiff_t fold, T *row)
{
    while (fold > 1) {
        fold /= 2;
        FC(accumulate)(wide + fold * c, wide, fold * c);
    }
    for (ptrdiff_t j = 0; j < c; j++)
        row[j] = wide[j];
}

/* nv vectors of columns: m2 += (x - sum / count)^2 over the rows in order */
FC_INLINE void FC(square_tile)(const T *x, ptrdiff_t n, ptrdiff_t width, const T *sum, T count, T *m2, const int nv,
                               const ptrdiff_t part)
{
    VEC mean[4], acc[4];
    for (int v = 0; v < nv; v++) {
        mean[v] = V(div)(FC(get)(sum + v * LANES, part), V(set1)(count));
        acc[v] = FC(get)(m2 + v * LANES, part);
    }
    for (ptrdiff_t i = 0; i < n; i++)
        for (int v = 0; v < nv; v++) {
            const VEC d = V(sub)(FC(get)(x + i * width + v * LANES, part), mean[v]);
            acc[v] = V(fma)(d, d, acc[v]);
        }
    for (int v = 0; v < nv; v++)
        FC(put)(m2 + v * LANES, acc[v], part);
}

static void FC(column_square)(const T *x, ptrdiff_t n, ptrdiff_t width, const T *sum, T count, T *m2)
{
    ptrdiff_t j = 0;
    for (; j + 4 * LANES <= width; j += 4 * LANES)
        FC(square_tile)(x + j, n, width, sum + j, count, m2 + j, 4, 0);
    for (; j + LANES <= width; j += LANES)
        FC(square_tile)(x + j, n, width, sum + j, count, m2 + j, 1, 0);
    if (j < width)
        FC(square_tile)(x + j, n, width, sum + j, count, m2 + j, 1, width - j);
}

/* sum[c] = sum of x (n, c) over rows; m2[c] = sum of (x - sum / n)^2, a second pass over the same block */
static void FC(moments)(const void *x_, ptrdiff_t n, ptrdiff_t c, void *sum_, void *m2_)
{
    const T *x = x_;
    const ptrdiff_t fold = FC(fold)(c), width = fold * c, rows = n / fold, rest = n % fold * c;
    T wide[2][FC(WIDE)];
    T *sum = fold > 1 ? wide[0] : sum_;
    T *m2 = fold > 1 ? wide[1] : m2_;
    for (ptrdiff_t j = 0; j < width; j++)
        sum[j] = m2[j] = 0;
    FC(column_sum)(x, rows, width, sum);
    FC(column_sum)(x + rows * width, 1, rest, sum);
    if (fold > 1) {
        FC(unfold)(sum, c, fold, sum_);
        FC(repeat)(sum_, c, fold, sum);
    }
    FC(column_square)(x, rows, width, sum, (T)n, m2);
    FC(column_square)(x + rows * width, 1, rest, sum, (T)n, m2);
    if (fold > 1)
        FC(unfold)(m2, c, fold, m2_);
}

/* Joins the moments of two blocks of rows; those of both replace the first's (Chan, Golub, LeVeque 1979, eq. 2.1) */
static void FC(merge_moments)(ptrdiff_t n, void *sum_, void *m2_, ptrdiff_t n2, const void *sum2_, const void *m22_,
                              ptrdiff_t c)
{
    T *sum = sum_, *m2 = m2_;
    const T *sum2 = sum2_, *m22 = m22_;
    const VEC count = V(set1)((T)n), count2 = V(set1)((T)n2);
    const VEC weight = V(set1)((T)((double)n * (double)n2 / (double)(n + n2)));
    for (ptrdiff_t j = 0; j < c; j += LANES) {
        const ptrdiff_t part = c - j < LANES ? c - j : 0;
        const VEC s = FC(get)(sum + j, part), s2 = FC(get)(sum2 + j, part);
        const VEC d = V(sub)(V(div)(s2, count2), V(div)(s, count));
        const VEC within = V(add)(FC(get)(m2 + j, part), FC(get)(m22 + j, part));
        FC(put)(m2 + j, V(fma)(V(mul)(d, weight), d, within), part);
        FC(put)(sum + j, V(add)(s, s2), part);
    }
}

/* Returns a gradient; where `masked`, only what of it goes through a ReLU whose output is y */
FC_INLINE VEC FC(let_through)(const T *g, const T *y, ptrdiff_t j, ptrdiff_t part, const int masked)
{
    const VEC a = FC(get)(g + j, part);
    return masked ? FC(relu_mask)(a, FC(get)(y + j, part)) : a;
}

/* nv vectors of columns: sum += g, dot += g * (x - mean), over the rows in order */
FC_INLINE void FC(dot_tile)(const T *g, const T *y, const T *x, ptrdiff_t n, ptrdiff_t width, const T *mean, T *sum,
                            T *dot, const int nv, const ptrdiff_t part, const int masked)
{
    VEC m[2], s[2], d[2];
    for (int v = 0; v < nv; v++) {
        m[v] = FC(get)(mean + v * LANES, part);
        s[v] = FC(get)(sum + v * LANES, part);
        d[v] = FC(get)(dot + v * LANES, part);
    }
    for (ptrdiff_t i = 0; i < n; i++)
        for (int v = 0; v < nv; v++) {
            const VEC gi = FC(let_through)(g, y, i * width + v * LANES, part, masked);
            s[v] = V(add)(s[v], gi);
            d[v] = V(fma)(gi, V(sub)(FC(get)(x + i * width + v * LANES, part), m[v]), d[v]);
        }
    for (int v = 0; v < nv; v++) {
        FC(put)(sum + v * LANES, s[v], part);
        FC(put)(dot + v * LANES, d[v], part);
    }
}

FC_INLINE void FC(column_dot)(const T *g, const T *y, const T *x, ptrdiff_t n, ptrdiff_t width, const T *mean, T *sum,
                              T *dot, const int masked)
{
    ptrdiff_t j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES)
        FC(dot_tile)(g + j, y + j, x + j, n, width, mean + j, sum + j, dot + j, 2, 0, masked);
    for (; j + LANES <= width; j += LANES)
        FC(dot_tile)(g + j, y + j, x + j, n, width, mean + j, sum + j, dot + j, 1, 0, masked);
    if (j < width)
        FC(dot_tile)(g + j, y + j, x + j, n, width, mean + j, sum + j, dot + j, 1, width - j, masked);
}

/* sums[0, c] = sum of g (n, c) over rows; sums[1, c] = sum of g * (x - mean[c]); g masked by y unless that is NULL */
static void FC(norm_sums)(const void *g_, const void *y_, const void *x_, const void *mean_, ptrdiff_t n, ptrdiff_t c,
                          void *sums_)
{
    const T *g = g_, *y = y_ ? y_ : g_, *x = x_, *mean = mean_;
    T *sums = sums_;
    const ptrdiff_t fold = FC(fold)(c), width = fold * c, rows = n / fold, rest = n % fold * c;
    T wide[3][FC(WIDE)];
    T *sum = sums, *dot = sums + c;
    if (fold > 1) {
        FC(repeat)(mean, c, fold, wide[0]);
        mean = wide[0];
        sum = wide[1];
        dot = wide[2];
    }
    for (ptrdiff_t j = 0; j < width; j++)
        sum[j] = dot[j] = 0;
    const ptrdiff_t last = rows * width;
    if (y_) {
        FC(column_dot)(g, y, x, rows, width, mean, sum, dot, 1);
        FC(column_dot)(g + last, y + last, x + last, 1, rest, mean, sum, dot, 1);
    } else {
        FC(column_dot)(g, y, x, rows, width, mean, sum, dot, 0);
        FC(column_dot)(g + last, y + last, x + last, 1, rest, mean, sum, dot, 0);
    }
    if (fold > 1) {
        FC(unfold)(sum, c, fold, sums);
        FC(unfold)(dot, c, fold, sums + c);
    }
}

FC_INLINE void FC(norm_backward_row)(const T *g, const T *y, const T *x, const T *coef, ptrdiff_t pitch,
                                     ptrdiff_t width, const int masked, T *dx)
{
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        const ptrdiff_t part = width - j < LANES ? width - j : 0;
        const T *k = coef + j;
        const VEC centred = V(sub)(FC(get)(x + j, part), FC(get)(k, part));
        const VEC inner = V(fma)(centred, FC(get)(k + pitch, part), FC(get)(k + 2 * pitch, part));
        const VEC gj = FC(let_through)(g, y, j, part, masked);
        FC(put)(dx + j, V(fma)(gj, FC(get)(k + 3 * pitch, part), inner), part);
    }
}

FC_INLINE void FC(norm_backward_rows)(const T *g, const T *y, const T *x, const T *coef, ptrdiff_t pitch, ptrdiff_t n,
                                      ptrdiff_t width, ptrdiff_t rest, const int masked, T *dx)
{
    for (; n > 0; n--, g += width, y += width, x += width, dx += width)
        FC(norm_backward_row)(g, y, x, coef, pitch, width, masked, dx);
    FC(norm_backward_row)(g, y, x, coef, pitch, rest, masked, dx);
}

/* dx (n, c) = g * coef[3] + ((x - coef[0]) * coef[1] + coef[2]), coef (4, c); g masked by y unless that is NULL */
static void FC(norm_backward)(const void *g_, const void *y_, const void *x_, const void *coef_, ptrdiff_t n,
                              ptrdiff_t c, void *dx_)
{
    const T *g = g_, *y = y_ ? y_ : g_, *x = x_, *coef = coef_;
    T *dx = dx_;
    const ptrdiff_t fold = FC(fold)(c), width = fold * c;
    T wide[4][FC(WIDE)];
    ptrdiff_t pitch = c;
    if (fold > 1) {
        for (int k = 0; k < 4; k++)
            FC(repeat)(coef + k * c, c, fold, wide[k]);
        coef = wide[0];
        pitch = FC(WIDE);
    }
    if (y_)
        FC(norm_backward_rows)(g, y, x, coef, pitch, n / fold, width, n % fold * c, 1, dx);
    else
        FC(norm_backward_rows)(g, y, x, coef, pitch, n / fold, width, n % fold * c, 0, dx);
}

/* y[i] = x[i] * (mask[i] ? scale : 0), which keeps NaN; plain C: the vocabulary has no bytes */
static void FC(drop)(const void *x_, const unsigned char *mask, double scale, ptrdiff_t n, void *y_)
{
    const T *x = x_;
    T *y = y_;
    const T s = (T)scale;
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = x[i] * ((T)mask[i] * s);
}
