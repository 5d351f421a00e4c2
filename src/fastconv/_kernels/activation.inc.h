/* The mathematics of activations.inc: of each row y = act(x, a, b) and its gradient, the gradient g of y times the slope
 * that follows from what is known, the output y or the input x. What is asked of each:
 *
 * - at infinity it has its limit (0 for silu(-inf), where the formula says inf * 0), and NaN stays NaN;
 * - a denormal number counts as zero. Comparisons and arithmetic do so by themselves; V(max) may return such a number.
 */

/* expands to e.g. FC_INLINE VEC FC(relu_act)(VEC x, VEC a, VEC b) */
#define FC_ACT(name) FC_INLINE VEC FC(name##_act)(VEC x, FC_UNUSED VEC a, FC_UNUSED VEC b)
#define FC_GRAD(name, known) FC_INLINE VEC FC(name##_grad)(VEC g, VEC known, FC_UNUSED VEC a, FC_UNUSED VEC b)
#define ONE V(set1)(1)
#define ZERO V(set1)(0)

typedef VEC FC(activation)(VEC x, VEC a, VEC b);
typedef VEC FC(gradient)(VEC g, VEC known, VEC a, VEC b);

/* low <= x <= high, or NaN */
FC_INLINE VEC FC(clip)(VEC x, VEC low, VEC high) { return V(min)(high, V(max)(low, x)); }

/* A denormal number becomes zero with its sign. */
FC_INLINE VEC FC(flushed)(VEC x)
{
    return V(select)(V(lt)(V(abs)(x), V(set1)(FC(smallest))), V(copysign)(ZERO, x), x);
}

/* y <= 0 ? 0 : g, with g kept where y is NaN */
FC_INLINE VEC FC(relu_mask)(VEC g, VEC y) { return V(select)(V(lt)(ZERO, y), g, V(select)(V(isnan)(y), g, ZERO)); }

FC_ACT(relu) { return FC(relu_vec)(FC(flushed)(x)); }
FC_GRAD(relu, y) { return FC(relu_mask)(g, y); }

/* x > 0 ? x : a x */
FC_ACT(leaky_relu) { return V(select)(V(lt)(ZERO, x), x, V(mul)(x, a)); }
FC_GRAD(leaky_relu, x) { return V(select)(V(lt)(ZERO, x), g, V(mul)(g, a)); }

/* x between a and b */
FC_ACT(hardtanh) { return FC(clip)(FC(flushed)(x), a, b); }
FC_GRAD(hardtanh, y) { return V(select)(V(or)(V(le)(y, a), V(le)(b, y)), ZERO, g); }

/* x > 0 ? x : a (exp(x) - 1), a >= 0 */
FC_ACT(elu)
{
    const VEC y = V(select)(V(lt)(ZERO, x), x, V(mul)(a, FC(expm1_falling)(V(min)(ZERO, x))));
    return V(select)(V(isnan)(x), x, y);
}
FC_GRAD(elu, y) { return V(select)(V(le)(y, ZERO), V(mul)(g, V(add)(y, a)), g); }

/* x Phi(x); Phi(-40) is 0 and Phi(40) is 1 */
FC_ACT(gelu)
{
    const VEC near = FC(clip)(x, V(set1)(-40), V(set1)(40));
    VEC bell;
    const VEC phi = FC(normal_vec)(near, &bell);
    return V(mul)(V(max)(V(set1)(-40), x), phi);
}
FC_GRAD(gelu, x)
{
    const VEC near = FC(clip)(x, V(set1)(-40), V(set1)(40));
    VEC bell;
    const VEC phi = FC(normal_vec)(near, &bell);
    return V(mul)(g, V(fma)(V(mul)(near, V(set1)((T)0.3989422804014327)), bell, phi));
}

/* exp(-|x|) */
FC_INLINE VEC FC(falling)(VEC x) { return FC(exp_falling)(V(mul)(V(abs)(x), V(set1)(-1))); }

/* s = sigmoid(v), and its slope s (1 - s), which is t / (1 + t)**2 on both sides, t = exp(-|v|) */
FC_INLINE VEC FC(sigmoid_and_slope)(VEC v, VEC *slope)
{
    const VEC t = FC(falling)(v), r = V(div)(ONE, V(add)(ONE, t));
    *slope = V(mul)(V(mul)(t, r), r);
    return V(mul)(V(select)(V(lt)(v, ZERO), t, ONE), r);
}

/* x (1 + tanh u) / 2 = x sigmoid(2 u), 2 u = x (p + q x**2), p = sqrt(8 / pi), q = 0.044715 p */
#define P V(set1)((T)1.5957691216057308)
#define Q V(set1)((T)0.07135481627260025)
FC_ACT(gelu_tanh)
{
    const VEC low = V(max)(V(set1)(-1000), x); /* so that -inf gives its limit */
    return V(mul)(low, FC(sigmoid_vec)(V(mul)(low, V(fma)(V(mul)(low, low), Q, P))));
}
FC_GRAD(gelu_tanh, x)
{
    const VEC near = FC(clip)(x, V(set1)(-1000), V(set1)(1000)), square = V(mul)(near, near);
    VEC slope;
    const VEC s = FC(sigmoid_and_slope)(V(mul)(near, V(fma)(square, Q, P)), &slope);
    return V(mul)(g, V(fma)(slope, V(mul)(near, V(fma)(square, V(mul)(Q, V(set1)(3)), P)), s));
}
#undef P
#undef Q

/* x with infinities made finite */
FC_INLINE VEC FC(finite)(VEC x) { return FC(clip)(x, V(set1)(-FC(largest)), V(set1)(FC(largest))); }

/* x sigmoid(x) */
FC_ACT(silu) { return V(mul)(V(max)(V(set1)(-FC(largest)), x), FC(sigmoid_vec)(x)); }
FC_GRAD(silu, x)
{
    VEC slope;
    const VEC s = FC(sigmoid_and_slope)(x, &slope);
    return V(mul)(g, V(fma)(FC(finite)(x), slope, s));
}

/* tanh(log(1 + exp(x))) = m / (m + r), where with t = exp(-|x|): m = t**2 + 2 t, r = 2 for x < 0; m = 1 + 2 t,
 * r = 2 t**2 for x >= 0 */
FC_INLINE VEC FC(mish_gate)(VEC x, VEC t, VEC *r)
{
    const MASK negative = V(lt)(x, ZERO);
    const VEC m = V(select)(negative, V(mul)(t, V(add)(t, V(set1)(2))), V(fma)(t, V(set1)(2), ONE));
    *r = V(select)(negative, V(set1)(2), V(mul)(V(mul)(t, t), V(set1)(2)));
    return m;
}

/* x tanh(log(1 + exp(x))) */
FC_ACT(mish)
{
    VEC r;
    const VEC m = FC(mish_gate)(x, FC(falling)(x), &r);
    return V(mul)(V(max)(V(set1)(-FC(largest)), x), V(div)(m, V(add)(m, r)));
}
/* w + x (1 - w**2) sigmoid(x), w = m / d, d = m + r, 1 - w**2 = r (d + m) / d**2 */
FC_GRAD(mish, x)
{
    const VEC t = FC(falling)(x), s = V(div)(V(select)(V(lt)(x, ZERO), t, ONE), V(add)(ONE, t));
    VEC r;
    const VEC m = FC(mish_gate)(x, t, &r), d = V(add)(m, r);
    const VEC bend = V(div)(V(mul)(r, V(add)(d, m)), V(mul)(d, d));
    return V(mul)(g, V(fma)(FC(finite)(x), V(mul)(bend, s), V(div)(m, d)));
}

/* clip(x + 3, 0, 6) / 6 */
FC_ACT(hardsigmoid) { return V(div)(FC(clip)(V(add)(x, V(set1)(3)), ZERO, V(set1)(6)), V(set1)(6)); }
FC_GRAD(hardsigmoid, x)
{
    return V(select)(V(or)(V(le)(x, V(set1)(-3)), V(le)(V(set1)(3), x)), ZERO, V(div)(g, V(set1)(6)));
}

/* x clip(x + 3, 0, 6) / 6 */
FC_ACT(hardswish)
{
    const VEC low = V(max)(V(set1)(-3), x); /* so that -inf gives its limit */
    return V(mul)(low, FC(hardsigmoid_act)(x, a, b));
}
FC_GRAD(hardswish, x)
{
    const VEC middle = V(mul)(g, V(add)(V(div)(x, V(set1)(3)), V(set1)((T)0.5)));
    return V(select)(V(le)(x, V(set1)(-3)), ZERO, V(select)(V(le)(V(set1)(3), x), g, middle));
}

FC_ACT(sigmoid) { return FC(sigmoid_vec)(x); }
FC_GRAD(sigmoid, y) { return V(mul)(V(mul)(g, V(sub)(ONE, y)), y); }

FC_ACT(tanh) { return FC(tanh_vec)(x); }
FC_GRAD(tanh, y) { return V(mul)(g, V(fma)(y, V(mul)(y, V(set1)(-1)), ONE)); }

/* log(1 + exp(a x)) / a, and x itself where a x > b */
FC_ACT(softplus)
{
    const VEC z = V(mul)(x, a);
    const VEC y = V(div)(V(add)(V(max)(ZERO, z), FC(log1p_vec)(FC(falling)(z))), a);
    return V(select)(V(lt)(b, z), x, y);
}
FC_GRAD(softplus, x)
{
    const VEC z = V(mul)(x, a);
    return V(select)(V(lt)(b, z), g, V(mul)(g, FC(sigmoid_vec)(z)));
}

/* x / (1 + |x|), with |x| kept finite so that +-inf gives its limit +-1 */
FC_ACT(softsign)
{
    const VEC size = V(min)(V(set1)(FC(largest)), V(abs)(x));
    return V(copysign)(V(div)(size, V(add)(ONE, size)), x);
}
FC_GRAD(softsign, x)
{
    const VEC d = V(add)(ONE, V(abs)(x));
    return V(div)(V(div)(g, d), d);
}

FC_ACT(exp) { return FC(exp_vec)(x); }
FC_GRAD(exp, y) { return V(mul)(g, y); }

/* of zero -infinity, of negative numbers NaN */
FC_ACT(log) { return FC(log_vec)(x); }
FC_GRAD(log, x) { return V(div)(g, x); }

/* of negative numbers NaN, the one that is written here: processors differ in theirs */
FC_ACT(sqrt) { return V(select)(V(lt)(x, ZERO), V(set1)(NAN), V(sqrt)(x)); }
FC_GRAD(sqrt, y) { return V(div)(V(mul)(g, V(set1)((T)0.5)), y); }

/* erf(28) is 1, and its slope there is 0 */
FC_ACT(erf) { return FC(erf_vec)(FC(clip)(x, V(set1)(-28), V(set1)(28))); }
FC_GRAD(erf, x)
{
    const VEC near = FC(clip)(x, V(set1)(-28), V(set1)(28));
    return V(mul)(g, V(mul)(FC(bell_vec)(near, V(set1)(-1)), V(set1)((T)1.1283791670955126)));
}

#undef FC_ACT
#undef FC_GRAD
#undef ONE
#undef ZERO
