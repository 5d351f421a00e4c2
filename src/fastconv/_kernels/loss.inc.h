/* Softmax and losses over rows of classes: x[row, c], c contiguous.
 *
 * A sum over classes has 16 lanes, whatever the register: class c is added to lane c % 16 in turn, and the lanes
 * are added in one fixed tree, 8 to 8, 4 to 4, 2 to 2, 1 to 1. A row with a NaN or +inf, or of -inf alone, has no
 * softmax: all of it is NaN.
 */

#define FC_WIDTH 16
#define FC_REGISTERS (FC_WIDTH / LANES)
#define FC_FOR_REGISTERS(v) for (int v = 0; v < FC_REGISTERS; v++)

#ifndef FC_LANE_NUMBERS
#define FC_LANE_NUMBERS
static const float fc_f32_lane_numbers[FC_WIDTH] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const double fc_f64_lane_numbers[FC_WIDTH] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#endif

/* The next 16 of n classes, beyond the last of them `pad`. */
FC_INLINE void FC(load_lanes)(const T *x, ptrdiff_t n, T pad, VEC *lanes)
{
    FC_FOR_REGISTERS(v) {
        const ptrdiff_t rest = n - v * LANES;
        if (rest >= LANES)
            lanes[v] = V(load)(x + v * LANES);
        else if (rest > 0) {
            const MASK within = V(lt)(V(load)(FC(lane_numbers)), V(set1)((T)rest));
            lanes[v] = V(select)(within, V(load_n)(x + v * LANES, rest), V(set1)(pad));
        } else
            lanes[v] = V(set1)(pad);
    }
}

FC_INLINE void FC(store_lanes)(T *y, ptrdiff_t n, const VEC *lanes)
{
    FC_FOR_REGISTERS(v) {
        const ptrdiff_t rest = n - v * LANES;
        if (rest >= LANES)
            V(store)(y + v * LANES, lanes[v]);
        else if (rest > 0)
            V(store_n)(y + v * LANES, lanes[v], rest);
    }
}

FC_INLINE void FC(fill_lanes)(VEC *lanes, T value)
{
    FC_FOR_REGISTERS(v) lanes[v] = V(set1)(value);
}

/* The tree; whole registers are added as such, which changes no bit. */
FC_INLINE T FC(sum_lanes)(VEC *lanes)
{
    for (int half = FC_REGISTERS / 2; half; half /= 2)
        for (int v = 0; v < half; v++)
            lanes[v] = V(add)(lanes[v], lanes[v + half]);
    T t[LANES];
    V(store)(t, lanes[0]);
    for (int half = LANES / 2; half; half /= 2)
        for (int v = 0; v < half; v++)
            t[v] += t[v + half];
    return t[0];
}

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

/* dx = (p - 1 at the target) g[row]; a g_step of 0 has one g for all rows */
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
        const ptrdiff_t skip = target[i] / FC_WIDTH; /* the one block that holds the target */
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

/* dx = g / n where class c is within the margin, minus as many times that at the target */
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
        VEC within[FC_REGISTERS], lanes[FC_REGISTERS]; /* within: how many classes, exactly */
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

#undef FC_WIDTH
#undef FC_REGISTERS
#undef FC_FOR_REGISTERS
