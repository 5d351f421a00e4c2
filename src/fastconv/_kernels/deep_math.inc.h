/* Mathematics of residual cores: activations, their slopes, and the sum of a block. */

#ifndef FC_DEEP_CONSTANTS
#define FC_DEEP_CONSTANTS
enum { FC_SOFTSIGN = 0, FC_TANH = 1, FC_RELU = 2 };
/* Softsign, of which one output in four is made from an estimate of the reciprocal: the divider is busy with the other
 * three meanwhile. deep_bounded says where that may be done. */
enum { FC_SOFTSIGN_ESTIMATED = 3 };
enum { FC_DEEP_SMALL = 8, FC_DEEP_TILE = 8, FC_DEEP_MAX = 512 };
/* tanh(z) = z P(z**2) / Q(z**2), made by a weighted minimax fit: relative error 6e-9 before rounding */
static const float fc_deep_tanh_p[] = {1.0f, 0.13450628519058228f, 0.0035790023393929005f, 2.2023414203431457e-05f,
                                       1.5428213373525068e-08f};
static const float fc_deep_tanh_q[] = {1.0f, 0.4678395688533783f, 0.026192277669906616f, 0.00034236672217957675f,
                                       8.598877343501954e-07f};
#endif

/* registers of a block */
#define BV (16 / LANES)
/* whether there are kernels that hold the state in registers: not for float64, in which nets are only checked, and not
 * for registers of one lane */
#define FC_DEEP_REGISTERS (FC_SINGLE && LANES >= 4)

/* -z / (1 + |z|), rounded as division rounds it, whatever the estimate: one cubic step takes it to within 0.51 ulp of
 * the reciprocal, from which Markstein's step rounds the quotient correctly. tests/test_deep_quotient.py visits all z.
 * Needs |z| < 2**100 (or NaN); negative, so that the sign of a quotient of 0 comes out right too.
 *   P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990, theorem 8.4 */
FC_INLINE VEC FC(deep_quotient)(VEC z, VEC estimate)
{
    const VEC d = V(add)(V(set1)(1), V(abs)(z)); /* estimate: of -1 / d */
    const VEC e = V(fma)(d, estimate, V(set1)(1));
    const VEC r = V(fma)(estimate, V(fma)(e, e, e), estimate);
    const VEC q = V(mul)(z, r);
    return V(fma)(V(fma)(q, d, z), r, q);
}

/* tanh for |z| <= 7.9 as z P(z**2) / Q(z**2) and constant beyond: within 6 ulp, never above 1 */
FC_INLINE VEC FC(deep_tanh)(VEC z)
{
    if (sizeof(T) != 4)
        return FC(tanh_vec)(z);
    const VEC x = V(max)(V(set1)((T)-7.9), V(min)(V(set1)((T)7.9), z)); /* this order keeps NaN */
    const VEC u = V(mul)(x, x);
    VEC p = V(set1)((T)fc_deep_tanh_p[4]), q = V(set1)((T)fc_deep_tanh_q[4]);
    FC_UNROLL for (int i = 3; i >= 0; i--) {
        p = V(fma)(p, u, V(set1)((T)fc_deep_tanh_p[i]));
        q = V(fma)(q, u, V(set1)((T)fc_deep_tanh_q[i]));
    }
    return V(div)(V(mul)(x, p), q);
}

FC_INLINE VEC FC(deep_act)(VEC z, const int act)
{
    if (act == FC_SOFTSIGN)
        return V(div)(z, V(add)(V(set1)(1), V(abs)(z)));
    if (act == FC_TANH)
        return FC(deep_tanh)(z);
    return FC(relu_vec)(z);
}

/* alpha * act'(z) from s = act(z); root = sqrt(alpha), since softsign's slope is (1 - |s|)**2 */
FC_INLINE VEC FC(deep_slope)(VEC s, T alpha, T root, const int act)
{
    if (act == FC_SOFTSIGN) {
        const VEC t = V(fma)(V(abs)(s), V(set1)(-root), V(set1)(root));
        return V(mul)(t, t);
    }
    if (act == FC_TANH)
        return V(fma)(V(mul)(s, s), V(set1)(-alpha), V(set1)(alpha));
    return V(select)(V(lt)(V(set1)(0), s), V(set1)(alpha), V(set1)(0));
}

/* Adds the registers of a block by halves, until one is left. */
FC_INLINE VEC FC(deep_fold)(VEC *sum)
{
    FC_UNROLL for (int half = BV / 2; half > 0; half /= 2)
        FC_UNROLL for (int v = 0; v < half; v++)
            sum[v] = V(add)(sum[v], sum[v + half]);
    return sum[0];
}
