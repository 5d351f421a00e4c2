/* Softmax and losses over rows of classes: x[row, c], c contiguous.
 *
 * A sum over classes has the 16 lanes of lanes.inc.h. A row with a NaN or +inf, or of -inf alone, has no softmax: all
 * of it is NaN.
 */

/* The largest of n classes; NaNs are passed over. */
FC_INLINE T FC(row_max)(const T *x, ptrdiff_t n)
{
    VEC largest[FC_REGISTERS], lanes[FC_REGISTERS];
    FC(fill_lanes)(largest, -INFINITY);
    for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
        FC(load_lanes)(x + c, n - c, -INFINITY, lanes);
        FC_FOR_REGISTERS(v) largest[v] = V(max)(lanes[v], largest[v]);
    }
    for (int half = FC_REGISTERS / 2; half; half /= 2)
        for (int v = 0; v < half; v++)
            largest[v] = V(max)(largest[v], largest[v + half]);
    T t[LANES];
    V(store)(t, largest[0]);
    for (int half = LANES / 2; half; half /= 2)
        for (int v = 0; v < half; v++)
            t[v] = t[v] > t[v + half] ? t[v] : t[v + half];
    return t[0];
}

/* The sum of exp(x - shift), the terms kept in e unless it is NULL. */
FC_INLINE T FC(row_exp)(const T *x, T shift, T *e, ptrdiff_t n)
{
    VEC sum[FC_REGISTERS], lanes[FC_REGISTERS];
    FC(fill_lanes)(sum, 0);
    for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
        FC(load_lanes)(x + c, n - c, -INFINITY, lanes);
        FC_FOR_REGISTERS(v) {
            lanes[v] = FC(exp_falling)(V(sub)(lanes[v], V(set1)(shift)));
            sum[v] = V(add)(sum[v], lanes[v]);
        }
        if (e)
            FC(store_lanes)(e + c, n - c, lanes);
    }
    return FC(sum_lanes)(sum);
}

FC_INLINE void FC(row_divide)(T *y, T divisor, ptrdiff_t n)
{
    VEC lanes[FC_REGISTERS];
    for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
        FC(load_lanes)(y + c, n - c, 0, lanes);
        FC_FOR_REGISTERS(v) lanes[v] = V(div)(lanes[v], V(set1)(divisor));
        FC(store_lanes)(y + c, n - c, lanes);
    }
}

FC_INLINE T FC(log_one)(T x)
{
    T t[LANES];
    V(store)(t, FC(log_vec)(V(set1)(x)));
    return t[0];
}

static void FC(softmax)(const void *x_, void *y_, ptrdiff_t rows, ptrdiff_t n)
{
    const T *x = x_;
    T *y = y_;
    for (; rows > 0; rows--, x += n, y += n)
        FC(row_divide)(y, FC(row_exp)(x, FC(row_max)(x, n), y, n), n);
}

static void FC(log_softmax)(const void *x_, void *y_, ptrdiff_t rows, ptrdiff_t n)
{
    const T *x = x_;
    T *y = y_;
    for (; rows > 0; rows--, x += n, y += n) {
        const T largest = FC(row_max)(x, n);
        const T log_sum = FC(log_one)(FC(row_exp)(x, largest, NULL, n));
        for (ptrdiff_t c = 0; c < n; c++)
            y[c] = (x[c] - largest) - log_sum;
    }
}

/* dx = y (g - sum of g y) */
static void FC(softmax_backward)(const void *g_, const void *y_, void *dx_, ptrdiff_t rows, ptrdiff_t n)
{
    const T *g = g_, *y = y_;
    T *dx = dx_;
    for (; rows > 0; rows--, g += n, y += n, dx += n) {
        VEC sum[FC_REGISTERS], a[FC_REGISTERS], b[FC_REGISTERS];
        FC(fill_lanes)(sum, 0);
        for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
            FC(load_lanes)(g + c, n - c, 0, a);
            FC(load_lanes)(y + c, n - c, 0, b);
            FC_FOR_REGISTERS(v) sum[v] = V(fma)(a[v], b[v], sum[v]);
        }
        const T total = FC(sum_lanes)(sum);
        for (ptrdiff_t c = 0; c < n; c++)
            dx[c] = y[c] * (g[c] - total);
    }
}

/* dx = g - exp(y) * sum of g */
static void FC(log_softmax_backward)(const void *g_, const void *y_, void *dx_, ptrdiff_t rows, ptrdiff_t n)
{
    const T *g = g_, *y = y_;
    T *dx = dx_;
    for (; rows > 0; rows--, g += n, y += n, dx += n) {
        VEC sum[FC_REGISTERS], a[FC_REGISTERS], b[FC_REGISTERS];
        FC(fill_lanes)(sum, 0);
        for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
            FC(load_lanes)(g + c, n - c, 0, a);
            FC_FOR_REGISTERS(v) sum[v] = V(add)(sum[v], a[v]);
        }
        const VEC minus_total = V(set1)(-FC(sum_lanes)(sum));
        for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
            FC(load_lanes)(g + c, n - c, 0, a);
            FC(load_lanes)(y + c, n - c, 0, b);
            FC_FOR_REGISTERS(v) a[v] = V(fma)(FC(exp_vec)(b[v]), minus_total, a[v]);
            FC(store_lanes)(dx + c, n - c, a);
        }
    }
}

/* loss[row] = log(sum of exp(x)) - x[target]; the softmax is left in p unless it is NULL */
static void FC(cross_entropy)(const void *x_, const int64_t *target, void *loss_, void *p_, ptrdiff_t rows,
                              ptrdiff_t n)
{
    const T *x = x_;
    T *loss = loss_, *p = p_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n) {
        const T largest = FC(row_max)(x, n);
        const T sum = FC(row_exp)(x, largest, p, n);
        loss[i] = FC(log_one)(sum) - (x[target[i]] - largest);
        if (p) {
            FC(row_divide)(p, sum, n);
            p += n;
        }
    }
}

/* dx = (p - 1 at the target) g[row]; where g_step is 0 all rows share one g */
static void FC(cross_entropy_backward)(const void *g_, ptrdiff_t g_step, const void *p_, const int64_t *target,
                                       void *dx_, ptrdiff_t rows, ptrdiff_t n)
{
    const T *g = g_, *p = p_;
    T *dx = dx_;
    for (ptrdiff_t i = 0; i < rows; i++, g += g_step, p += n, dx += n) {
        const T of_target = (p[target[i]] - 1) * *g;
        for (ptrdiff_t c = 0; c < n; c++)
            dx[c] = p[c] * *g;
        dx[target[i]] = of_target;
    }
}

/* max(0, z), keeping NaN */
FC_INLINE T FC(hinge)(T z) { return 0 > z ? 0 : z; }

/* loss[row] = (sum over c != target of max(0, margin - x[target] + x[c])) / n */
static void FC(margin)(const void *x_, const int64_t *target, double margin, void *loss_, ptrdiff_t rows,
                       ptrdiff_t n)
{
    const T *x = x_;
    T *loss = loss_;
    for (ptrdiff_t i = 0; i < rows; i++, x += n) {
        const ptrdiff_t skip = target[i] / FC_WIDTH; /* the only block that holds the target */
        const T shift = (T)margin - x[target[i]];
        T lanes[FC_WIDTH] = {0};
        ptrdiff_t c = 0;
        for (; c + FC_WIDTH <= n; c += FC_WIDTH) {
            if (c / FC_WIDTH == skip) {
                for (int v = 0; v < FC_WIDTH; v++)
                    lanes[v] += c + v == target[i] ? 0 : FC(hinge)(shift + x[c + v]);
            } else {
                for (int v = 0; v < FC_WIDTH; v++)
                    lanes[v] += FC(hinge)(shift + x[c + v]);
            }
        }
        for (int v = 0; c < n; v++, c++)
            lanes[v] += c == target[i] ? 0 : FC(hinge)(shift + x[c]);
        for (int half = FC_WIDTH / 2; half; half /= 2)
            for (int v = 0; v < half; v++)
                lanes[v] += lanes[v + half];
        loss[i] = lanes[0] / (T)n;
    }
}

/* dx = g / n at each class that is within the margin; at the target, -g / n times the number of those classes */
static void FC(margin_backward)(const void *g_, ptrdiff_t g_step, const void *x_, const int64_t *target,
                                double margin, void *dx_, ptrdiff_t rows, ptrdiff_t n)
{
    const T *g = g_, *x = x_;
    T *dx = dx_;
    const VEC zero = V(set1)(0), one = V(set1)(1);
    for (ptrdiff_t i = 0; i < rows; i++, g += g_step, x += n, dx += n) {
        const T shift = (T)margin - x[target[i]];
        const T share = *g / (T)n;
        const int target_counts = shift + x[target[i]] > 0;
        VEC within[FC_REGISTERS], lanes[FC_REGISTERS]; /* within counts classes, exactly */
        FC(fill_lanes)(within, 0);
        for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
            FC(load_lanes)(x + c, n - c, -INFINITY, lanes);
            FC_FOR_REGISTERS(v) {
                const VEC z = V(add)(V(set1)(shift), lanes[v]);
                const MASK violates = V(lt)(zero, z);
                within[v] = V(add)(within[v], V(select)(violates, one, zero));
                lanes[v] = V(select)(violates, V(set1)(share), V(select)(V(isnan)(z), z, zero));
            }
            FC(store_lanes)(dx + c, n - c, lanes);
        }
        const T others = FC(sum_lanes)(within) - (T)target_counts;
        dx[target[i]] = shift != shift ? shift : -(others * share);
    }
}

/* sum[0] = the sum of (a - b)**2 over one block */
static void FC(squared_error)(const void *a_, const void *b_, void *sum_, ptrdiff_t n)
{
    const T *a = a_, *b = b_;
    VEC sum[FC_REGISTERS], u[FC_REGISTERS], w[FC_REGISTERS];
    FC(fill_lanes)(sum, 0);
    for (ptrdiff_t i = 0; i < n; i += FC_WIDTH) {
        FC(load_lanes)(a + i, n - i, 0, u);
        FC(load_lanes)(b + i, n - i, 0, w);
        FC_FOR_REGISTERS(v) {
            u[v] = V(sub)(u[v], w[v]);
            sum[v] = V(fma)(u[v], u[v], sum[v]);
        }
    }
    *(T *)sum_ = FC(sum_lanes)(sum);
}

/* The weights of a row's classes: q[c] = w[c] * (keep * soft[c] + floor); soft is 0 and w is 1 where there are none */
FC_INLINE void FC(class_shares)(const fc_cross_entropy *a, ptrdiff_t i, ptrdiff_t c, VEC *q)
{
    const ptrdiff_t n = a->classes;
    const VEC floor = V(set1)((T)a->floor);
    if (a->soft) {
        FC(load_lanes)((const T *)a->soft + i * n + c, n - c, 0, q);
        FC_FOR_REGISTERS(v) q[v] = V(fma)(V(set1)((T)a->keep), q[v], floor);
    } else
        FC_FOR_REGISTERS(v) q[v] = floor;
    if (a->weight) {
        VEC w[FC_REGISTERS];
        FC(load_lanes)((const T *)a->weight + c, n - c, 0, w);
        FC_FOR_REGISTERS(v) q[v] = V(mul)(q[v], w[v]);
    }
}

/* The weight of the label's own term: keep * w[label] */
FC_INLINE T FC(label_share)(const fc_cross_entropy *a, int64_t label)
{
    return a->weight ? (T)a->keep * ((const T *)a->weight)[label] : (T)a->keep;
}

/* loss[row] = sample[row] * (share of the label * nll[label] + sum of q[c] * nll[c]), nll = log(sum of exp(x)) - x;
 * rows with label -1 cost 0. The softmax is left in p unless it is NULL. */
static void FC(weighted_cross_entropy)(const fc_cross_entropy *a, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t n = a->classes;
    const int spread = a->soft || a->floor != 0;
    for (ptrdiff_t i = first; i < last; i++) {
        const T *x = (const T *)a->x + i * n;
        T *p = a->p ? (T *)a->p + i * n : NULL, *loss = (T *)a->loss + i;
        if (a->target && a->target[i] < 0) {
            *loss = 0;
            for (ptrdiff_t c = 0; p && c < n; c++)
                p[c] = 0;
            continue;
        }
        const T largest = FC(row_max)(x, n);
        const T sum = FC(row_exp)(x, largest, p, n), log_sum = FC(log_one)(sum);
        if (p)
            FC(row_divide)(p, sum, n);
        T value = 0;
        if (a->target)
            value = FC(label_share)(a, a->target[i]) * (log_sum - (x[a->target[i]] - largest));
        if (spread) {
            VEC sums[FC_REGISTERS], lanes[FC_REGISTERS], q[FC_REGISTERS];
            FC(fill_lanes)(sums, 0);
            for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
                FC(load_lanes)(x + c, n - c, 0, lanes);
                FC(class_shares)(a, i, c, q);
                FC_FOR_REGISTERS(v) {
                    const VEC nll = V(sub)(V(set1)(log_sum), V(sub)(lanes[v], V(set1)(largest)));
                    lanes[v] = V(mul)(q[v], nll);
                }
                FC(keep_lanes)(n - c, lanes);
                FC_FOR_REGISTERS(v) sums[v] = V(add)(sums[v], lanes[v]);
            }
            value += FC(sum_lanes)(sums);
        }
        *loss = a->sample ? value * ((const T *)a->sample)[i] : value;
    }
}

/* dx = g[row] * sample[row] * (p * (share of the label + sum of q) - q); at the label its share is taken away, too */
static void FC(weighted_cross_entropy_backward)(const fc_cross_entropy *a, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t n = a->classes;
    const int spread = a->soft || a->floor != 0;
    for (ptrdiff_t i = first; i < last; i++) {
        const T *p = (const T *)a->x + i * n;
        T *dx = (T *)a->p + i * n;
        const int64_t label = a->target ? a->target[i] : 0;
        if (label < 0) {
            for (ptrdiff_t c = 0; c < n; c++)
                dx[c] = 0;
            continue;
        }
        const T g = ((const T *)a->g)[i * a->g_step];
        const T scale = a->sample ? g * ((const T *)a->sample)[i] : g;
        const T share = a->target ? FC(label_share)(a, label) : 0;
        VEC sums[FC_REGISTERS], lanes[FC_REGISTERS], q[FC_REGISTERS];
        FC(fill_lanes)(q, 0);
        T total = share;
        if (spread) {
            FC(fill_lanes)(sums, 0);
            for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
                FC(class_shares)(a, i, c, q);
                FC(keep_lanes)(n - c, q);
                FC_FOR_REGISTERS(v) sums[v] = V(add)(sums[v], q[v]);
            }
            total += FC(sum_lanes)(sums);
        }
        const T at_label = a->target ? p[label] : 0;
        for (ptrdiff_t c = 0; c < n; c += FC_WIDTH) {
            FC(load_lanes)(p + c, n - c, 0, lanes);
            if (spread)
                FC(class_shares)(a, i, c, q);
            FC_FOR_REGISTERS(v) {
                lanes[v] = V(sub)(V(mul)(lanes[v], V(set1)(total)), q[v]);
                lanes[v] = V(mul)(lanes[v], V(set1)(scale));
            }
            FC(store_lanes)(dx + c, n - c, lanes);
        }
        if (a->target) {
            T own = 0;
            if (spread)
                own = a->weight ? (T)a->floor * ((const T *)a->weight)[label] : (T)a->floor;
            dx[label] = (at_label * total - own - share) * scale;
        }
    }
}

/* sums (3, channels) = the sums over pixels [first, last) of p t, p and t, in double, pixel by pixel; t is 1 in the
 * label's channel, and where there is one channel it is the label. Pixels with label -1 are left out. */
static void FC(dice_sums)(const fc_dice *a, ptrdiff_t first, ptrdiff_t last, double *sums)
{
    const ptrdiff_t n = a->channels;
    for (ptrdiff_t c = 0; c < 3 * n; c++)
        sums[c] = 0;
    for (ptrdiff_t i = first; i < last; i++) {
        const T *p = (const T *)a->p + i * n;
        if (a->labels) {
            const int64_t label = a->labels[i];
            if (label < 0)
                continue;
            for (ptrdiff_t c = 0; c < n; c++)
                sums[n + c] += p[c];
            const ptrdiff_t at = n == 1 ? 0 : (ptrdiff_t)label;
            const double t = n == 1 ? (double)label : 1.0;
            sums[at] += p[at] * t;
            sums[2 * n + at] += t;
        } else {
            const T *t = (const T *)a->dense + i * n;
            for (ptrdiff_t c = 0; c < n; c++)
                sums[c] += (double)p[c] * t[c];
            for (ptrdiff_t c = 0; c < n; c++)
                sums[n + c] += p[c];
            for (ptrdiff_t c = 0; c < n; c++)
                sums[2 * n + c] += t[c];
        }
    }
}

/* dp = u[c] * t + v[c] over pixels [first, last), 0 where the label is -1 */
static void FC(dice_backward)(const fc_dice *a, const void *u_, const void *v_, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t n = a->channels;
    const T *u = u_, *w = v_;
    for (ptrdiff_t i = first; i < last; i++) {
        T *dp = (T *)a->grad + i * n;
        if (a->labels) {
            const int64_t label = a->labels[i];
            for (ptrdiff_t c = 0; c < n; c++)
                dp[c] = label < 0 ? 0 : w[c];
            if (label >= 0) {
                const ptrdiff_t at = n == 1 ? 0 : (ptrdiff_t)label;
                dp[at] = u[at] * (n == 1 ? (T)label : 1) + w[at];
            }
        } else {
            const T *t = (const T *)a->dense + i * n;
            for (ptrdiff_t c = 0; c < n; c++)
                dp[c] = u[c] * t[c] + w[c];
        }
    }
}
