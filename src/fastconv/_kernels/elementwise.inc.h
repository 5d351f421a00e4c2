/* exp, log, sums and differences, element by element over contiguous memory. The result may lie where an operand lies.
 */

typedef VEC FC(unary)(VEC x);
typedef VEC FC(binary)(VEC a, VEC b);
typedef VEC FC(scaled)(VEC a, VEC b, VEC s);

/* In the three maps f is a constant at every call, so that it is inlined. */
FC_INLINE void FC(map_unary)(FC(unary) *f, const T *x, T *y, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        V(store)(y + i, f(V(load)(x + i)));
    if (i < n)
        V(store_n)(y + i, f(V(load_n)(x + i, n - i)), n - i);
}

FC_INLINE void FC(map_binary)(FC(binary) *f, const T *a, const T *b, T *y, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        V(store)(y + i, f(V(load)(a + i), V(load)(b + i)));
    if (i < n)
        V(store_n)(y + i, f(V(load_n)(a + i, n - i), V(load_n)(b + i, n - i)), n - i);
}

FC_INLINE void FC(map_scaled)(FC(scaled) *f, const T *a, const T *b, double s, T *y, ptrdiff_t n)
{
    const VEC sv = V(set1)((T)s);
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        V(store)(y + i, f(V(load)(a + i), V(load)(b + i), sv));
    if (i < n)
        V(store_n)(y + i, f(V(load_n)(a + i, n - i), V(load_n)(b + i, n - i), sv), n - i);
}

FC_INLINE VEC FC(add_vec)(VEC a, VEC b) { return V(add)(a, b); }

FC_INLINE VEC FC(scaled_difference)(VEC a, VEC b, VEC s) { return V(mul)(V(sub)(a, b), s); }

static void FC(exp)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(exp_vec), x, y, n); }
static void FC(log)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(log_vec), x, y, n); }

static void FC(add)(const void *a, const void *b, void *y, ptrdiff_t n) { FC(map_binary)(FC(add_vec), a, b, y, n); }

static void FC(difference)(const void *a, const void *b, double s, void *y, ptrdiff_t n)
{
    FC(map_scaled)(FC(scaled_difference), a, b, s, y, n);
}
