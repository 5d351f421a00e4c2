/* The vector vocabulary on plain C: one lane, the reference that every other table must equal bit by bit.
 *
 * The same names in each vec_*.h, for X in {f32, f64}:
 *   vX, mX                      vector and mask types;  X_LANES lanes of a register
 *   X_load, X_store             unaligned;  X_load_n, X_store_n: the first n lanes (0 < n < X_LANES), the rest reads as 0
 *   X_set1                      broadcast
 *   X_add X_sub X_mul X_div X_sqrt     IEEE, correctly rounded;  X_fma(a, b, c) = a * b + c rounded once
 *   X_max(a, b) = a > b ? a : b        b where either is NaN;  X_min(a, b) = a < b ? a : b
 *   X_lt, X_le, X_eq, X_isnan   masks (comparisons with NaN are false);  X_or(m, n) of two masks
 *   X_select(m, a, b) = m ? a : b
 *   X_abs, X_copysign           on the sign bit alone
 *   X_round                     to the nearest integer, ties to even
 *   X_pow2(n)                   2**n for integral n in the range of normal exponents
 *   X_exponent, X_mantissa      x = mantissa * 2**exponent, 1 <= mantissa < 2, for positive normal x
 *   X_load_u8, X_store_u8       X_LANES bytes as lanes of integral value, 0 to 255
 *   X_load_f64, X_store_f64     f64_LANES numbers of X as vf64; the other way rounded once
 *   X_estimate(a)               about 1 / a, relative error below 2**-10, for 1 <= |a| < 2**100
 *   X_descend4(w, a, rate, r)   r[i] = w[i] - rate * s[i], fused, i < 4; s[i] is the sum of the lanes of a[i] by halves
 *   X_load_quads(p, pitch, a, n)       lane i of a[j] = p[i * pitch + j], i < n, j < 4; 0 in the other lanes
 *   X_store_quads(p, pitch, a, n, m)   the other way, i < n, j < m, where 1 < m <= 4
 *
 * And of float registers with 4 to 16 lanes, whose quarters (of 16) are runs of 4 lanes:
 *   f32_descend8                as descend4, i < 8
 *   f32_load4(p)                the 4 numbers at p in each run
 *   f32_quarters(z, q)          z: LANES / 4 times 16 numbers; run m of q[i] is quarter i of the m-th
 *   f32_descend_quarters(w, a, n, rate, r)   as descend4 on the sums of runs: of a[0], then of a[1], ..., of a[n - 1];
 *                               n is 4, or what 4 leaves of 5, 10, 18
 *   f32_turn(p, p_row, q, q_row)   LANES rows of LANES numbers as columns, from 8 lanes on
 *
 * FC_NV: the most vectors of channels a register tile is wide; FC_HEIGHT(nv): the most pixels of one nv wide, so that
 * nothing spills and few loads stand beside its multiply-adds; FC_PANEL_BYTES: weights that stay near while tiles
 * pass; FC_FREE_TAILS: whether masked loads cost no more than whole ones; FC_VECTORS: how many registers there are;
 * FC_ESTIMATES: whether an estimate made exact (deep.inc.h) takes less time than X_div holds the divider. Doubles have
 * fewer tiles where that costs little, since tiles take long to compile.
 */
#ifndef FC_VEC_SCALAR_H
#define FC_VEC_SCALAR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vec_generic.h"

#define FC_ISA scalar
#define FC_NV 1
#define FC_HEIGHT(nv) 4
#define FC_PANEL_BYTES (16 * 1024)
#define FC_FREE_TAILS 0
#define FC_VECTORS 16
#define FC_ESTIMATES 0

/* Expands to the vocabulary of one type; U and E are its bits as unsigned and signed integers,
 * P the number of bits of its mantissa, B its exponent bias. */
#define FC_SCALAR(X, T, U, E, P, B, FMA, SQRT, RINT, FABS, COPYSIGN)                                                 \
    typedef T v##X;                                                                                                  \
    typedef int m##X;                                                                                                \
    static inline v##X X##_load(const T *p) { return *p; }                                                           \
    static inline void X##_store(T *p, v##X a) { *p = a; }                                                           \
    static inline v##X X##_load_n(const T *p, ptrdiff_t n) { return n > 0 ? *p : (T)0; }                             \
    static inline void X##_store_n(T *p, v##X a, ptrdiff_t n) { if (n > 0) *p = a; }                                 \
    static inline v##X X##_set1(T a) { return a; }                                                                   \
    static inline v##X X##_add(v##X a, v##X b) { return a + b; }                                                     \
    static inline v##X X##_sub(v##X a, v##X b) { return a - b; }                                                     \
    static inline v##X X##_mul(v##X a, v##X b) { return a * b; }                                                     \
    static inline v##X X##_div(v##X a, v##X b) { return a / b; }                                                     \
    static inline v##X X##_fma(v##X a, v##X b, v##X c) { return FMA(a, b, c); }                                      \
    static inline v##X X##_estimate(v##X a) { return (T)1 / a; }                                                     \
    static inline v##X X##_sqrt(v##X a) { return SQRT(a); }                                                          \
    static inline v##X X##_max(v##X a, v##X b) { return a > b ? a : b; }                                             \
    static inline v##X X##_min(v##X a, v##X b) { return a < b ? a : b; }                                             \
    static inline m##X X##_lt(v##X a, v##X b) { return a < b; }                                                      \
    static inline m##X X##_le(v##X a, v##X b) { return a <= b; }                                                     \
    static inline m##X X##_eq(v##X a, v##X b) { return a == b; }                                                     \
    static inline m##X X##_isnan(v##X a) { return a != a; }                                                          \
    static inline m##X X##_or(m##X m, m##X n) { return m | n; }                                                      \
    static inline v##X X##_select(m##X m, v##X a, v##X b) { return m ? a : b; }                                      \
    static inline v##X X##_abs(v##X a) { return FABS(a); }                                                           \
    static inline v##X X##_copysign(v##X a, v##X s) { return COPYSIGN(a, s); }                                       \
    static inline v##X X##_round(v##X a) { return RINT(a); }                                                         \
    static inline v##X X##_load_u8(const uint8_t *p) { return (T)*p; }                                               \
    static inline void X##_store_u8(uint8_t *p, v##X a) { *p = (uint8_t)a; }                                         \
    static inline v##X X##_pow2(v##X n)                                                                              \
    {                                                                                                                \
        U bits = (U)((E)n + B) << P;                                                                                 \
        T r;                                                                                                         \
        memcpy(&r, &bits, sizeof r);                                                                                 \
        return r;                                                                                                    \
    }                                                                                                                \
    static inline v##X X##_exponent(v##X a)                                                                          \
    {                                                                                                                \
        U bits;                                                                                                      \
        memcpy(&bits, &a, sizeof a);                                                                                 \
        return (T)((E)(bits >> P) - B);                                                                              \
    }                                                                                                                \
    static inline v##X X##_mantissa(v##X a)                                                                          \
    {                                                                                                                \
        U bits;                                                                                                      \
        T r;                                                                                                         \
        memcpy(&bits, &a, sizeof a);                                                                                 \
        bits = (bits & (((U)1 << P) - 1)) | ((U)B << P);                                                             \
        memcpy(&r, &bits, sizeof r);                                                                                 \
        return r;                                                                                                    \
    }                                                                                                                \
    static inline void X##_descend4(const T *w, const v##X *a, T rate, T *r)                                         \
    {                                                                                                                \
        for (int i = 0; i < 4; i++)                                                                                  \
            r[i] = FMA(-rate, a[i], w[i]);                                                                           \
    }

#define f32_LANES 1
#define f64_LANES 1
FC_SCALAR(f32, float, uint32_t, int32_t, 23, 127, fmaf, sqrtf, rintf, fabsf, copysignf)
FC_SCALAR(f64, double, uint64_t, int64_t, 52, 1023, fma, sqrt, rint, fabs, copysign)

static inline vf64 f32_load_f64(const float *p) { return *p; }
static inline void f32_store_f64(float *p, vf64 a) { *p = (float)a; }
static inline vf64 f64_load_f64(const double *p) { return *p; }
static inline void f64_store_f64(double *p, vf64 a) { *p = a; }

FC_GENERIC_QUADS(f32, float)
FC_GENERIC_QUADS(f64, double)

#endif
