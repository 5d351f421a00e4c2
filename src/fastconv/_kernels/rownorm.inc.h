/* Normalises rows; one call takes many. The order of the sums of a row is that of norm.inc.h for a column of one
 * channel: 64 chains, element i in chain i % 64, then halves upon halves. */

enum { FC(ROW_CHAINS) = FC(WIDE) / 2, FC(ROW_VECTORS) = FC(WIDE) / 2 / LANES };

/* the sum of all chains, halves upon halves */
FC_INLINE T FC(chains_sum)(VEC *acc)
{
    T lane[LANES];
    for (int half = FC(ROW_VECTORS) / 2; half > 0; half /= 2)
        for (int v = 0; v < half; v++)
            acc[v] = V(add)(acc[v], acc[v + half]);
    V(store)(lane, acc[0]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

/* the next element of each chain; a chain that has none left gets 0 */
FC_INLINE void FC(next_of_chains)(const T *x, ptrdiff_t left, VEC *one)
{
    for (int v = 0; v < FC(ROW_VECTORS); v++, left -= LANES)
        one[v] = left >= LANES ? V(load)(x + v * LANES) : left > 0 ? V(load_n)(x + v * LANES, left) : V(set1)(0);
}

FC_INLINE void FC(start_chains)(VEC *acc)
{
    for (int v = 0; v < FC(ROW_VECTORS); v++)
        acc[v] = V(set1)(0);
}

FC_INLINE T FC(row_sum)(const T *x, ptrdiff_t d)
{
    VEC acc[FC(ROW_VECTORS)], one[FC(ROW_VECTORS)];
    FC(start_chains)(acc);
    for (ptrdiff_t i = 0; i < d; i += FC(ROW_CHAINS)) {
        FC(next_of_chains)(x + i, d - i, one);
        for (int v = 0; v < FC(ROW_VECTORS); v++)
            acc[v] = V(add)(acc[v], one[v]);
    }
    return FC(chains_sum)(acc);
}

/* the sum of (x - mean)^2 */
FC_INLINE T FC(row_squares)(const T *x, ptrdiff_t d, T mean)
{
    T means[FC(ROW_CHAINS)];
    VEC acc[FC(ROW_VECTORS)], one[FC(ROW_VECTORS)], middle[FC(ROW_VECTORS)];
    for (int j = 0; j < FC(ROW_CHAINS); j += LANES)
        V(store)(means + j, V(set1)(mean));
    FC(start_chains)(acc);
    for (ptrdiff_t i = 0; i < d; i += FC(ROW_CHAINS)) {
        FC(next_of_chains)(x + i, d - i, one);
        FC(next_of_chains)(means, d - i, middle); /* behind the end both are 0, and so is what they differ by */
        for (int v = 0; v < FC(ROW_VECTORS); v++) {
            const VEC away = V(sub)(one[v], middle[v]);
            acc[v] = V(fma)(away, away, acc[v]);
        }
    }
    return FC(chains_sum)(acc);
}

/* y = (x - mean) * invstd as x * invstd + (-mean * invstd) */
FC_INLINE void FC(row_normalised)(const T *x, ptrdiff_t d, double mean, double invstd, T *y)
{
    const VEC scale = V(set1)((T)invstd), shift = V(set1)((T)(-mean * invstd));
    for (ptrdiff_t j = 0; j < d; j += LANES) {
        const ptrdiff_t part = d - j < LANES ? d - j : 0;
        FC(put)(y + j, V(fma)(FC(get)(x + j, part), scale, shift), part);
    }
}

/* y (n, d) = the rows of x, each normalised; mean[i] and invstd[i] = 1 / sqrt(variance + eps) */
static void FC(row_norm)(const void *x_, ptrdiff_t n, ptrdiff_t d, double eps, void *mean_, void *invstd_, void *y_)
{
    const T *x = x_;
    T *y = y_, *saved = mean_, *inverse = invstd_;
    for (ptrdiff_t i = 0; i < n; i++, x += d, y += d) {
        const T sum = FC(row_sum)(x, d);
        const T m2 = FC(row_squares)(x, d, sum / (T)d);
        const double mean = (double)sum / d, invstd = 1 / sqrt((double)m2 / d + eps);
        saved[i] = (T)mean;
        inverse[i] = (T)invstd;
        FC(row_normalised)(x, d, mean, invstd, y);
    }
}

/* y (n, d) = the rows of x, normalised by means and inverse deviations that are known already */
static void FC(row_renorm)(const void *x_, ptrdiff_t n, ptrdiff_t d, const void *mean, const void *invstd, void *y_)
{
    const T *x = x_;
    T *y = y_;
    for (ptrdiff_t i = 0; i < n; i++, x += d, y += d)
        FC(row_normalised)(x, d, ((const T *)mean)[i], ((const T *)invstd)[i], y);
}

/* dx holds the normalised row when this begins, and the row's gradient when it ends */
FC_INLINE void FC(row_gradient)(const T *g, const T *weight, ptrdiff_t d, double invstd, T *dx, const int affine)
{
    VEC sum[FC(ROW_VECTORS)], dot[FC(ROW_VECTORS)];
    VEC one[FC(ROW_VECTORS)], row[FC(ROW_VECTORS)], factor[FC(ROW_VECTORS)];
    FC(start_chains)(sum);
    FC(start_chains)(dot);
    for (ptrdiff_t i = 0; i < d; i += FC(ROW_CHAINS)) {
        FC(next_of_chains)(g + i, d - i, one);
        FC(next_of_chains)(dx + i, d - i, row);
        if (affine)
            FC(next_of_chains)(weight + i, d - i, factor);
        for (int v = 0; v < FC(ROW_VECTORS); v++) {
            if (affine)
                one[v] = V(fma)(one[v], factor[v], V(set1)(0));
            sum[v] = V(add)(sum[v], one[v]);
            dot[v] = V(fma)(one[v], row[v], dot[v]);
        }
    }
    const double even = FC(chains_sum)(sum), slope = FC(chains_sum)(dot);
    const VEC along = V(set1)((T)(-invstd * slope / d)), shift = V(set1)((T)(-invstd * even / d));
    const VEC scale = V(set1)((T)invstd);
    for (ptrdiff_t j = 0; j < d; j += LANES) {
        const ptrdiff_t part = d - j < LANES ? d - j : 0;
        VEC a = FC(get)(g + j, part);
        if (affine)
            a = V(fma)(a, FC(get)(weight + j, part), V(set1)(0));
        FC(put)(dx + j, V(fma)(a, scale, V(fma)(FC(get)(dx + j, part), along, shift)), part);
    }
}

/* dx (n, d) holds normalised rows when this begins, and their gradients when it ends; g is the gradient of dx * weight
 * (weight: NULL or (d)) */
static void FC(row_norm_backward)(const void *g_, const void *weight, ptrdiff_t n, ptrdiff_t d, const void *invstd,
                                  void *dx_)
{
    const T *g = g_;
    T *dx = dx_;
    for (ptrdiff_t i = 0; i < n; i++, g += d, dx += d)
        if (weight)
            FC(row_gradient)(g, weight, d, ((const T *)invstd)[i], dx, 1);
        else
            FC(row_gradient)(g, weight, d, ((const T *)invstd)[i], dx, 0);
}
