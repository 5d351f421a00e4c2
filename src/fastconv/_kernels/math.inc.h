/* exp, log, tanh, sigmoid, erf and the normal distribution as polynomials over the vector vocabulary: the same
 * operations, hence the same bits, in every table. Kernels run with denormals flushed: a result below the smallest
 * normal number is 0.
 *
 *   exp(x)     = 2**n (1 + m),   n = round(x / ln 2),  r = x - n ln 2,  m = r + r**2 P(r)
 *   expm1(x)   = (2**n - 1) + 2**n m
 *   log(x)     = e ln 2 + log(1 + f),  sqrt(1/2) <= 1 + f < sqrt(2),
 *                log(1 + f) = f - (f**2 / 2 - s (f**2 / 2 + R(s**2))),  s = f / (2 + f)
 *   tanh(x)    = -sign(x) t / (2 + t),  t = expm1(-2 |x|)
 *   sigmoid(x) = 1 / (1 + t) or t / (1 + t),  t = exp(-|x|)
 *   log1p(t)   = log(u) t / (u - 1),  u = 1 + t rounded (W. Kahan, HP-15C handbook, 1982)
 *   Phi(-z)    = exp(-z**2 / 2) S(t) / (z + 3),  t = (z - 3) / (z + 3),  z >= 0; a map of the half line to an interval
 *                on which the scaled tail is smooth, as in M. Shepherd and J. Laframboise, "Chebyshev approximation of
 *                (1 + 2x) exp(x**2) erfc(x) in 0 <= x < oo", Math. Comp. 36 (1981). Accurate where Phi itself is small
 *   erf(x)     = x E(x**2) for |x| < 1, else 1 - 2 Phi(-sqrt(2) |x|) with the sign of x
 *
 * P, R, S and E interpolate at Chebyshev nodes; tests/test_activation.py states and asserts the largest errors.
 */

#ifndef FC_MATH_CONSTANTS
#define FC_MATH_CONSTANTS
#include <math.h> /* INFINITY and NAN alone */

/* ln 2 in two parts; the first has so few bits that its product with any exponent is exact */
static const float fc_f32_ln2_hi = 0x1.62e4p-1f, fc_f32_ln2_lo = 1.4286068e-6f;
static const double fc_f64_ln2_hi = 0x1.62e42fefa38p-1, fc_f64_ln2_lo = 5.497923018708371e-14;

/* the largest and smallest arguments whose exponential is a finite normal number */
static const float fc_f32_exp_max = 0x1.62e42ep+6f, fc_f32_exp_min = -0x1.5d589ep+6f;
static const double fc_f64_exp_max = 0x1.62e42fefa39efp+9, fc_f64_exp_min = -0x1.6232bdd7abcd2p+9;

/* the normal numbers */
static const float fc_f32_smallest = 0x1p-126f, fc_f32_largest = 0x1.fffffep+127f;
static const double fc_f64_smallest = 0x1p-1022, fc_f64_largest = 0x1.fffffffffffffp+1023;

/* P: (exp(r) - 1 - r) / r**2 on |r| <= ln(2) / 2 */
static const float fc_f32_exp_p[] = {0.5f, 0.16666576f, 0.041666556f, 0.008363179f, 0.0013926184f};
static const double fc_f64_exp_p[] = {
    0.5000000000000001,     0.16666666666666669,    0.04166666666662413,    0.008333333333330062,
    0.0013888888917213717,  0.00019841269863053618, 2.4801521295954376e-05, 2.7557268459997064e-06,
    2.7620088445409746e-07, 2.510038549551032e-08,
};

/* R / s**2: (2 atanh(s) - 2 s) / s**3 in powers of s**2, on |s| <= 3 - 2 sqrt(2) */
static const float fc_f32_log_r[] = {0.66666687f, 0.39988777f, 0.29580054f};
static const double fc_f64_log_r[] = {
    0.666666666666667,   0.39999999999899444, 0.2857142862600327,  0.22222211130259878,
    0.18182889455674947, 0.15331710618210773, 0.14616585424888623,
};

/* S: (z + 3) exp(z**2 / 2) Phi(-z) in powers of t, on 0 <= z <= 13.3 and 0 <= z <= 37.7, beyond which Phi(-z) is no
 * normal number; relative error 7.42e-8 and 9.59e-17, the rounding of the coefficients included */
static const float fc_f32_tail_s[] = {
    0.72908366f,   -0.5093321f,   0.23001844f,   -0.047259018f, -0.0104704145f,
    0.006939723f,  0.0010463642f, -0.00093922095f, -0.00023883415f, 2.9888886e-05f,
};
static const double fc_f64_tail_s[] = {
    0.729083690133373,       -0.50933198191749,       0.23001771997460413,     -0.04726302514292303,
    -0.010462867023331811,   0.006972621238915067,    0.0010275922594306286,   -0.001045828599431761,
    -0.00025657534806483996, 0.00015439426450285796,  7.88126708990654e-05,    -1.324494695518338e-05,
    -2.0689096991536298e-05, -3.5216133908330577e-06, 3.639916625566716e-06,   2.265799443896134e-06,
    8.034075495120081e-09,   -6.075958583532725e-07,  -2.728908909040796e-07,  5.7010576583732415e-08,
    9.465302028669781e-08,   1.6458206850090955e-08,  -1.308320378227847e-08,  -4.756050907968524e-09,
};

/* E: erf(x) / x in powers of x**2, on |x| <= 1; relative error 6.63e-8 and 4.42e-17, the rounding of the coefficients
 * included */
static const float fc_f32_erf_e[] = {
    1.1283791f, -0.37612626f, 0.11283594f, -0.026854211f, 0.0051890872f, -0.00080168643f, 7.875875e-05f,
};
static const double fc_f64_erf_e[] = {
    1.1283791670955126,     -0.37612638903183543,   0.11283791670945006,    -0.02686617064323777,
    0.0052239776071164225,  -0.0008548325975389692, 0.00012055294904839707, -1.492473690741966e-05,
    1.6447424703317362e-06, -1.6208483801871705e-07, 1.3720064546777686e-08, -7.795898827002142e-10,
};
#endif

/* p[0] + p[1] x + ... + p[n - 1] x**(n - 1), by Horner's rule */
FC_INLINE VEC FC(polynomial)(VEC x, const T *p, const int n)
{
    VEC y = V(set1)(p[n - 1]);
    for (int i = n - 2; i >= 0; i--)
        y = V(fma)(y, x, V(set1)(p[i]));
    return y;
}

/* exp(x) = 2**n (1 + m) for x in [exp_min, exp_max]; NaN must be caught by the caller */
FC_INLINE VEC FC(exp_parts)(VEC x, VEC *m)
{
    const VEC n = V(round)(V(mul)(x, V(set1)((T)1.4426950408889634)));
    const VEC r = V(fma)(n, V(set1)(-FC(ln2_lo)), V(fma)(n, V(set1)(-FC(ln2_hi)), x));
    const VEC p = FC(polynomial)(r, FC(exp_p), sizeof FC(exp_p) / sizeof(T));
    *m = V(fma)(V(mul)(r, r), p, r);
    return n;
}

FC_INLINE VEC FC(exp_vec)(VEC x)
{
    const VEC low = V(set1)(FC(exp_min)), high = V(set1)(FC(exp_max));
    VEC m;
    const VEC n = FC(exp_parts)(V(max)(V(min)(x, high), low), &m);
    /* n may be one above the largest exponent: scale in two steps */
    const VEC half = V(round)(V(mul)(n, V(set1)((T)0.5)));
    const VEC scale = V(pow2)(half);
    VEC y = V(mul)(V(fma)(scale, m, scale), V(pow2)(V(sub)(n, half)));
    y = V(select)(V(lt)(x, low), V(set1)(0), y);
    y = V(select)(V(lt)(high, x), V(set1)(INFINITY), y);
    return V(select)(V(isnan)(x), x, y);
}

/* exp(x) for x <= 0, which needs one scaling only: what softmax, tanh and sigmoid ask for */
FC_INLINE VEC FC(exp_falling)(VEC x)
{
    const VEC low = V(set1)(FC(exp_min));
    VEC m;
    const VEC scale = V(pow2)(FC(exp_parts)(V(max)(x, low), &m));
    const VEC y = V(select)(V(lt)(x, low), V(set1)(0), V(fma)(scale, m, scale));
    return V(select)(V(isnan)(x), x, y);
}

FC_INLINE VEC FC(log_vec)(VEC x)
{
    VEC e = V(exponent)(x), m = V(mantissa)(x);
    const MASK large = V(lt)(V(set1)((T)1.4142135623730951), m);
    m = V(select)(large, V(mul)(m, V(set1)((T)0.5)), m);
    e = V(select)(large, V(add)(e, V(set1)(1)), e);

    const VEC f = V(sub)(m, V(set1)(1));
    const VEC s = V(div)(f, V(add)(f, V(set1)(2)));
    const VEC z = V(mul)(s, s);
    const VEC r = V(mul)(z, FC(polynomial)(z, FC(log_r), sizeof FC(log_r) / sizeof(T)));
    const VEC half_square = V(mul)(V(mul)(f, f), V(set1)((T)0.5));
    const VEC small = V(fma)(s, V(add)(half_square, r), V(mul)(e, V(set1)(FC(ln2_lo))));
    VEC y = V(fma)(e, V(set1)(FC(ln2_hi)), V(sub)(f, V(sub)(half_square, small)));

    const VEC below = V(select)(V(lt)(x, V(set1)(0)), V(set1)(NAN), V(set1)(-INFINITY));
    y = V(select)(V(lt)(x, V(set1)(FC(smallest))), below, y);
    y = V(select)(V(eq)(x, V(set1)(INFINITY)), x, y);
    return V(select)(V(isnan)(x), x, y);
}

/* exp(x) - 1 for x <= 0; of NaN it is anything */
FC_INLINE VEC FC(expm1_falling)(VEC x)
{
    VEC m;
    const VEC scale = V(pow2)(FC(exp_parts)(V(max)(x, V(set1)(FC(exp_min))), &m));
    return V(fma)(scale, m, V(sub)(scale, V(set1)(1)));
}

FC_INLINE VEC FC(tanh_vec)(VEC x)
{
    const VEC t = FC(expm1_falling)(V(mul)(V(abs)(x), V(set1)(-2)));
    const VEC y = V(copysign)(V(div)(t, V(add)(t, V(set1)(2))), x);
    return V(select)(V(isnan)(x), x, y);
}

FC_INLINE VEC FC(sigmoid_vec)(VEC x)
{
    const VEC one = V(set1)(1);
    const VEC t = FC(exp_falling)(V(mul)(V(abs)(x), V(set1)(-1)));
    return V(div)(V(select)(V(lt)(x, V(set1)(0)), t, one), V(add)(one, t));
}

/* log(1 + t) for 0 <= t <= 1 */
FC_INLINE VEC FC(log1p_vec)(VEC t)
{
    const VEC u = V(add)(t, V(set1)(1)), rest = V(sub)(u, V(set1)(1));
    const VEC y = V(div)(V(mul)(FC(log_vec)(u), t), rest);
    return V(select)(V(eq)(rest, V(set1)(0)), t, y);
}

/* exp(s x**2) for s < 0: what rounding took from the square counts in its exp */
FC_INLINE VEC FC(bell_vec)(VEC x, VEC s)
{
    const VEC square = V(mul)(x, x), lost = V(fma)(x, x, V(mul)(square, V(set1)(-1)));
    const VEC e = FC(exp_falling)(V(mul)(square, s));
    return V(fma)(V(mul)(lost, s), e, e);
}

/* The normal distribution Phi(x), and exp(-x**2 / 2), for |x| <= 40 */
FC_INLINE VEC FC(normal_vec)(VEC x, VEC *bell)
{
    const VEC z = V(abs)(x), r = V(div)(V(set1)(1), V(add)(z, V(set1)(3)));
    *bell = FC(bell_vec)(x, V(set1)((T)-0.5));
    const VEC s = FC(polynomial)(V(mul)(V(sub)(z, V(set1)(3)), r), FC(tail_s), sizeof FC(tail_s) / sizeof(T));
    const VEC tail = V(mul)(*bell, V(mul)(s, r));
    return V(select)(V(lt)(x, V(set1)(0)), tail, V(sub)(V(set1)(1), tail));
}

/* erf(x) for |x| <= 28 */
FC_INLINE VEC FC(erf_vec)(VEC x)
{
    const VEC size = V(abs)(x);
    const VEC small = V(mul)(size, FC(polynomial)(V(mul)(x, x), FC(erf_e), sizeof FC(erf_e) / sizeof(T)));
    VEC bell;
    const VEC tail = FC(normal_vec)(V(mul)(size, V(set1)((T)-1.4142135623730951)), &bell);
    const VEC large = V(fma)(tail, V(set1)(-2), V(set1)(1));
    return V(copysign)(V(select)(V(lt)(size, V(set1)(1)), small, large), x);
}
