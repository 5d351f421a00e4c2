/* Losses of single elements, x against t: their values, weighted or not, their sums over a block, their gradients; and
 * what norms are made of. The sums have the 16 lanes of lanes.inc.h.
 */

/* What one element costs, and its slope; c is the parameter of the loss, p what a positive target weighs. */
#define FC_LOSS(name) FC_INLINE VEC FC(name##_loss)(VEC x, VEC t, FC_UNUSED VEC c, FC_UNUSED VEC p)
#define FC_SLOPE(name) FC_INLINE VEC FC(name##_slope)(VEC x, VEC t, FC_UNUSED VEC c, FC_UNUSED VEC p)
#define ZERO V(set1)(0)
#define ONE V(set1)(1)

typedef VEC FC(element)(VEC x, VEC t, VEC c, VEC p);

/* (x - t)**2 */
FC_LOSS(squared)
{
    const VEC d = V(sub)(x, t);
    return V(mul)(d, d);
}
FC_SLOPE(squared) { return V(mul)(V(sub)(x, t), V(set1)(2)); }

/* the sign of d, 0 at 0, NaN of NaN */
FC_INLINE VEC FC(sign)(VEC d)
{
    const VEC unit = V(copysign)(ONE, d);
    return V(select)(V(or)(V(eq)(d, ZERO), V(isnan)(d)), d, unit);
}

/* |x - t| */
FC_LOSS(absolute) { return V(abs)(V(sub)(x, t)); }
FC_SLOPE(absolute) { return FC(sign)(V(sub)(x, t)); }

/* d < c ? d**2 / (2 c) : d - c / 2, d = |x - t| */
FC_LOSS(smooth)
{
    const VEC d = V(abs)(V(sub)(x, t)), half = V(set1)((T)0.5);
    const VEC near = V(div)(V(mul)(V(mul)(half, d), d), c);
    return V(select)(V(lt)(d, c), near, V(sub)(d, V(mul)(half, c)));
}
FC_SLOPE(smooth)
{
    const VEC d = V(sub)(x, t);
    return V(select)(V(lt)(V(abs)(d), c), V(div)(d, c), FC(sign)(d));
}

/* d <= c ? d**2 / 2 : c (d - c / 2), d = |x - t| */
FC_LOSS(huber)
{
    const VEC d = V(abs)(V(sub)(x, t)), half = V(set1)((T)0.5);
    return V(select)(V(le)(d, c), V(mul)(V(mul)(half, d), d), V(mul)(c, V(sub)(d, V(mul)(half, c))));
}
FC_SLOPE(huber)
{
    const VEC d = V(sub)(x, t);
    return V(select)(V(le)(V(abs)(d), c), d, V(mul)(c, FC(sign)(d)));
}

/* -(p t log s + (1 - t) log(1 - s)), s = sigmoid(x), that is
 * (1 - t) x + (1 + (p - 1) t) (log(1 + exp(-|x|)) + max(-x, 0)) */
FC_LOSS(logistic)
{
    const VEC minus = V(mul)(x, V(set1)(-1));
    const VEC rest = V(add)(FC(log1p_vec)(FC(falling)(x)), V(max)(minus, ZERO));
    const VEC share = V(fma)(V(sub)(p, ONE), t, ONE);
    return V(fma)(share, V(select)(V(isnan)(x), x, rest), V(mul)(V(sub)(ONE, t), x));
}
/* (1 + (p - 1) t) sigmoid(x) - p t */
FC_SLOPE(logistic)
{
    const VEC share = V(fma)(V(sub)(p, ONE), t, ONE);
    return V(sub)(V(mul)(share, FC(sigmoid_vec)(x)), V(mul)(p, t));
}

/* 16 elements from i on; `loss` is a constant at every call, so that it is inlined. */
FC_INLINE void FC(element_lanes)(FC(element) *loss, const fc_element_loss *a, ptrdiff_t i, ptrdiff_t n, VEC *y)
{
    VEC t[FC_REGISTERS], p[FC_REGISTERS], w[FC_REGISTERS];
    FC(load_lanes)((const T *)a->x + i, n, 0, y);
    FC(load_lanes)((const T *)a->target + i, n, 0, t);
    FC(fill_lanes)(p, 1);
    if (a->positive)
        FC(load_lanes)((const T *)a->positive + i, n, 1, p);
    FC_FOR_REGISTERS(v) y[v] = loss(y[v], t[v], V(set1)((T)a->parameter), p[v]);
    if (a->weight) {
        FC(load_lanes)((const T *)a->weight + i, n, 0, w);
        FC_FOR_REGISTERS(v) y[v] = V(mul)(y[v], w[v]);
    }
}

/* Writes the losses of [first, last); where `sum` is not NULL, their sum alone. */
FC_INLINE void FC(each_loss)(FC(element) *loss, const fc_element_loss *a, ptrdiff_t first, ptrdiff_t last, void *sum)
{
    VEC sums[FC_REGISTERS], y[FC_REGISTERS];
    FC(fill_lanes)(sums, 0);
    for (ptrdiff_t i = first; i < last; i += FC_WIDTH) {
        FC(element_lanes)(loss, a, i, last - i, y);
        if (sum) {
            FC(keep_lanes)(last - i, y);
            FC_FOR_REGISTERS(v) sums[v] = V(add)(sums[v], y[v]);
        } else
            FC(store_lanes)((T *)a->out + i, last - i, y);
    }
    if (sum)
        *(T *)sum = FC(sum_lanes)(sums);
}

/* Writes the slopes of [first, last) times g, which is one number for all or one for each element. */
FC_INLINE void FC(each_slope)(FC(element) *slope, const fc_element_loss *a, ptrdiff_t first, ptrdiff_t last)
{
    VEC y[FC_REGISTERS], g[FC_REGISTERS];
    FC(fill_lanes)(g, *(const T *)a->g);
    for (ptrdiff_t i = first; i < last; i += FC_WIDTH) {
        FC(element_lanes)(slope, a, i, last - i, y);
        if (a->g_step)
            FC(load_lanes)((const T *)a->g + i, last - i, 0, g);
        FC_FOR_REGISTERS(v) y[v] = V(mul)(y[v], g[v]);
        FC(store_lanes)((T *)a->out + i, last - i, y);
    }
}

static void FC(element_loss)(const fc_element_loss *a, ptrdiff_t first, ptrdiff_t last, void *sum)
{
    switch (a->kind) {
    case FC_LOSS_SQUARED: FC(each_loss)(FC(squared_loss), a, first, last, sum); break;
    case FC_LOSS_ABSOLUTE: FC(each_loss)(FC(absolute_loss), a, first, last, sum); break;
    case FC_LOSS_SMOOTH: FC(each_loss)(FC(smooth_loss), a, first, last, sum); break;
    case FC_LOSS_HUBER: FC(each_loss)(FC(huber_loss), a, first, last, sum); break;
    case FC_LOSS_LOGISTIC: FC(each_loss)(FC(logistic_loss), a, first, last, sum); break;
    }
}

static void FC(element_loss_backward)(const fc_element_loss *a, ptrdiff_t first, ptrdiff_t last)
{
    switch (a->kind) {
    case FC_LOSS_SQUARED: FC(each_slope)(FC(squared_slope), a, first, last); break;
    case FC_LOSS_ABSOLUTE: FC(each_slope)(FC(absolute_slope), a, first, last); break;
    case FC_LOSS_SMOOTH: FC(each_slope)(FC(smooth_slope), a, first, last); break;
    case FC_LOSS_HUBER: FC(each_slope)(FC(huber_slope), a, first, last); break;
    case FC_LOSS_LOGISTIC: FC(each_slope)(FC(logistic_slope), a, first, last); break;
    }
}

/* sum[0] = of one block, the sum of |x| (power 1) or of x**2 (power 2), or the largest |x| (power 0); NaN if one is */
static void FC(powers)(const void *x_, int power, void *sum, ptrdiff_t n)
{
    const T *x = x_;
    VEC sums[FC_REGISTERS], u[FC_REGISTERS];
    FC(fill_lanes)(sums, 0);
    for (ptrdiff_t i = 0; i < n; i += FC_WIDTH) {
        FC(load_lanes)(x + i, n - i, 0, u);
        FC_FOR_REGISTERS(v) {
            const VEC size = V(abs)(u[v]);
            if (power == 2)
                sums[v] = V(fma)(size, size, sums[v]);
            else if (power == 1)
                sums[v] = V(add)(sums[v], size);
            else
                sums[v] = V(select)(V(isnan)(sums[v]), sums[v], V(select)(V(lt)(size, sums[v]), sums[v], size));
        }
    }
    if (power) {
        *(T *)sum = FC(sum_lanes)(sums);
        return;
    }
    T largest = 0;
    FC_FOR_REGISTERS(v) {
        T t[LANES];
        V(store)(t, sums[v]);
        for (int i = 0; i < LANES; i++)
            largest = largest != largest || t[i] < largest ? largest : t[i];
    }
    *(T *)sum = largest;
}

#undef FC_LOSS
#undef FC_SLOPE
#undef ZERO
#undef ONE
