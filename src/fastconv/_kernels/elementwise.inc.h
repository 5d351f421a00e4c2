/* Activations, their gradients and sums, element by element over contiguous memory. The result may lie where an
 * operand lies. Of a gradient's arguments, g is the gradient of the output, y the output, x the input. ReLU's
 * gradient is `relu_mask` of gemm.inc.h.
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

/* x / (1 + |x|), with |x| kept finite so that +-inf gives its limit +-1 */
FC_INLINE VEC FC(softsign_vec)(VEC x)
{
    const VEC a = V(min)(V(set1)(FC(largest)), V(abs)(x));
    return V(copysign)(V(div)(a, V(add)(V(set1)(1), a)), x);
}

/* A denormal number becomes zero with its sign: whether V(max) flushes what it returns is the instruction's choice. */
FC_INLINE VEC FC(relu_flushed)(VEC x)
{
    const MASK denormal = V(lt)(V(abs)(x), V(set1)(FC(smallest)));
    return FC(relu_vec)(V(select)(denormal, V(copysign)(V(set1)(0), x), x));
}

FC_INLINE VEC FC(tanh_gradient)(VEC g, VEC y)
{
    return V(mul)(g, V(fma)(y, V(mul)(y, V(set1)(-1)), V(set1)(1)));
}

FC_INLINE VEC FC(sigmoid_gradient)(VEC g, VEC y) { return V(mul)(V(mul)(g, V(sub)(V(set1)(1), y)), y); }

FC_INLINE VEC FC(softsign_gradient)(VEC g, VEC x)
{
    const VEC d = V(add)(V(set1)(1), V(abs)(x));
    return V(div)(V(div)(g, d), d);
}

FC_INLINE VEC FC(add_vec)(VEC a, VEC b) { return V(add)(a, b); }

/* leaky_relu(x) with a = b = x, its gradient with a = g and b = x */
FC_INLINE VEC FC(leak)(VEC a, VEC b, VEC slope) { return V(select)(V(lt)(V(set1)(0), b), a, V(mul)(a, slope)); }

FC_INLINE VEC FC(scaled_difference)(VEC a, VEC b, VEC s) { return V(mul)(V(sub)(a, b), s); }

static void FC(relu)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(relu_flushed), x, y, n); }
static void FC(tanh)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(tanh_vec), x, y, n); }
static void FC(sigmoid)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(sigmoid_vec), x, y, n); }
static void FC(softsign)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(softsign_vec), x, y, n); }
static void FC(exp)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(exp_vec), x, y, n); }
static void FC(log)(const void *x, void *y, ptrdiff_t n) { FC(map_unary)(FC(log_vec), x, y, n); }

static void FC(tanh_backward)(const void *g, const void *y, void *dx, ptrdiff_t n)
{
    FC(map_binary)(FC(tanh_gradient), g, y, dx, n);
}
static void FC(sigmoid_backward)(const void *g, const void *y, void *dx, ptrdiff_t n)
{
    FC(map_binary)(FC(sigmoid_gradient), g, y, dx, n);
}
static void FC(softsign_backward)(const void *g, const void *x, void *dx, ptrdiff_t n)
{
    FC(map_binary)(FC(softsign_gradient), g, x, dx, n);
}
static void FC(add)(const void *a, const void *b, void *y, ptrdiff_t n) { FC(map_binary)(FC(add_vec), a, b, y, n); }

static void FC(leaky_relu)(const void *a, const void *b, double slope, void *y, ptrdiff_t n)
{
    FC(map_scaled)(FC(leak), a, b, slope, y, n);
}
static void FC(difference)(const void *a, const void *b, double s, void *y, ptrdiff_t n)
{
    FC(map_scaled)(FC(scaled_difference), a, b, s, y, n);
}
