/* The vector vocabulary (see vec_scalar.h) on AArch64 NEON: 4 floats or 2 doubles a register. */
#ifndef FC_VEC_NEON_H
#define FC_VEC_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vec_generic.h"

#define FC_ISA neon
#define FC_NV 2
#define FC_HEIGHT(nv) 8
#define FC_PANEL_BYTES (16 * 1024)
#define FC_FREE_TAILS 0
#define FC_VECTORS 32
#define FC_ESTIMATES 0
#define FC_REGISTER "w"

/* Expands to the vocabulary of one type; S is the intrinsics' suffix, I and U its integer twins, L its lanes,
 * P the bits of its mantissa, B its exponent bias. max and min select by comparison: FMAX would return NaN
 * where x86 returns its second operand. */
#define FC_NEON(X, T, V, M, S, I, U, VI, CVT_I, CVT_F, L, P, B)                                                      \
    typedef V v##X;                                                                                                  \
    typedef M m##X;                                                                                                  \
    static inline v##X X##_load(const T *p) { return vld1q_##S(p); }                                                 \
    static inline void X##_store(T *p, v##X a) { vst1q_##S(p, a); }                                                  \
    static inline v##X X##_load_n(const T *p, ptrdiff_t n)                                                           \
    {                                                                                                                \
        T buffer[L] = {0};                                                                                           \
        memcpy(buffer, p, (size_t)n * sizeof(T));                                                                    \
        return vld1q_##S(buffer);                                                                                    \
    }                                                                                                                \
    static inline void X##_store_n(T *p, v##X a, ptrdiff_t n)                                                        \
    {                                                                                                                \
        T buffer[L];                                                                                                 \
        vst1q_##S(buffer, a);                                                                                        \
        memcpy(p, buffer, (size_t)n * sizeof(T));                                                                    \
    }                                                                                                                \
    static inline v##X X##_set1(T a) { return vdupq_n_##S(a); }                                                      \
    static inline v##X X##_add(v##X a, v##X b) { return vaddq_##S(a, b); }                                           \
    static inline v##X X##_sub(v##X a, v##X b) { return vsubq_##S(a, b); }                                           \
    static inline v##X X##_mul(v##X a, v##X b) { return vmulq_##S(a, b); }                                           \
    static inline v##X X##_div(v##X a, v##X b) { return vdivq_##S(a, b); }                                           \
    static inline v##X X##_fma(v##X a, v##X b, v##X c) { return vfmaq_##S(c, a, b); }                                \
    static inline v##X X##_sqrt(v##X a) { return vsqrtq_##S(a); }                                                    \
    static inline v##X X##_max(v##X a, v##X b) { return vbslq_##S(vcgtq_##S(a, b), a, b); }                          \
    static inline v##X X##_min(v##X a, v##X b) { return vbslq_##S(vcltq_##S(a, b), a, b); }                          \
    static inline m##X X##_lt(v##X a, v##X b) { return vcltq_##S(a, b); }                                            \
    static inline m##X X##_le(v##X a, v##X b) { return vcleq_##S(a, b); }                                            \
    static inline m##X X##_eq(v##X a, v##X b) { return vceqq_##S(a, b); }                                            \
    static inline m##X X##_isnan(v##X a)                                                                             \
    {                                                                                                                \
        return veorq_##U(vceqq_##S(a, a), vdupq_n_##U(~(M##_BITS)0));                                                \
    }                                                                                                                \
    static inline m##X X##_or(m##X m, m##X n) { return vorrq_##U(m, n); }                                            \
    static inline v##X X##_select(m##X m, v##X a, v##X b) { return vbslq_##S(m, a, b); }                             \
    static inline v##X X##_abs(v##X a) { return vabsq_##S(a); }                                                      \
    static inline v##X X##_copysign(v##X a, v##X s) { return vbslq_##S(vdupq_n_##U(M##_SIGN), s, a); }               \
    static inline v##X X##_round(v##X a) { return vrndnq_##S(a); }                                                   \
    static inline v##X X##_load_u8(const uint8_t *p)                                                                 \
    {                                                                                                                \
        T buffer[L];                                                                                                 \
        for (int i = 0; i < L; i++)                                                                                  \
            buffer[i] = (T)p[i];                                                                                     \
        return vld1q_##S(buffer);                                                                                    \
    }                                                                                                                \
    static inline void X##_store_u8(uint8_t *p, v##X a)                                                              \
    {                                                                                                                \
        T buffer[L];                                                                                                 \
        vst1q_##S(buffer, a);                                                                                        \
        for (int i = 0; i < L; i++)                                                                                  \
            p[i] = (uint8_t)buffer[i];                                                                               \
    }                                                                                                                \
    static inline v##X X##_pow2(v##X n)                                                                              \
    {                                                                                                                \
        return vreinterpretq_##S##_##I(vshlq_n_##I(vaddq_##I(CVT_I(n), vdupq_n_##I(B)), P));                         \
    }                                                                                                                \
    static inline v##X X##_exponent(v##X a)                                                                          \
    {                                                                                                                \
        VI biased = vreinterpretq_##I##_##U(vshrq_n_##U(vreinterpretq_##U##_##S(a), P));                             \
        return CVT_F(vsubq_##I(biased, vdupq_n_##I(B)));                                                             \
    }                                                                                                                \
    static inline v##X X##_mantissa(v##X a)                                                                          \
    {                                                                                                                \
        M low = vandq_##U(vreinterpretq_##U##_##S(a), vdupq_n_##U(((M##_BITS)1 << P) - 1));                          \
        return vreinterpretq_##S##_##U(vorrq_##U(low, vdupq_n_##U((M##_BITS)B << P)));                               \
    }

#define uint32x4_t_BITS uint32_t
#define uint64x2_t_BITS uint64_t
#define uint32x4_t_SIGN 0x80000000u
#define uint64x2_t_SIGN 0x8000000000000000u
#define f32_LANES 4
#define f64_LANES 2
FC_NEON(f32, float, float32x4_t, uint32x4_t, f32, s32, u32, int32x4_t, vcvtnq_s32_f32, vcvtq_f32_s32, 4, 23, 127)
FC_NEON(f64, double, float64x2_t, uint64x2_t, f64, s64, u64, int64x2_t, vcvtnq_s64_f64, vcvtq_f64_s64, 2, 52, 1023)

static inline vf32 f32_estimate(vf32 a)
{
    vf32 r = vrecpeq_f32(a);
    return vmulq_f32(r, vrecpsq_f32(a, r));
}
static inline vf64 f64_estimate(vf64 a) { return vdivq_f64(vdupq_n_f64(1), a); }

static inline void f32_descend4(const float *w, const vf32 *a, float rate, float *r)
{
    vf32 p = vaddq_f32(vcombine_f32(vget_low_f32(a[0]), vget_low_f32(a[1])),
                       vcombine_f32(vget_high_f32(a[0]), vget_high_f32(a[1])));
    vf32 q = vaddq_f32(vcombine_f32(vget_low_f32(a[2]), vget_low_f32(a[3])),
                       vcombine_f32(vget_high_f32(a[2]), vget_high_f32(a[3])));
    vst1q_f32(r, vfmsq_f32(vld1q_f32(w), vdupq_n_f32(rate), vpaddq_f32(p, q)));
}
static inline void f64_descend4(const double *w, const vf64 *a, double rate, double *r)
{
    for (int i = 0; i < 4; i += 2)
        vst1q_f64(r + i, vfmsq_f64(vld1q_f64(w + i), vdupq_n_f64(rate), vpaddq_f64(a[i], a[i + 1])));
}
static inline void f32_descend8(const float *w, const vf32 *a, float rate, float *r)
{
    f32_descend4(w, a, rate, r);
    f32_descend4(w + 4, a + 4, rate, r + 4);
}
static inline vf32 f32_load4(const float *p) { return vld1q_f32(p); }
static inline void f32_quarters(const vf32 *z, vf32 *q)
{
    for (int i = 0; i < 4; i++)
        q[i] = z[i];
}
static inline void f32_descend_quarters(const float *w, const vf32 *s, int n, float rate, float *r)
{
    (void)n; /* always 4 here */
    f32_descend4(w, s, rate, r);
}
FC_GENERIC_QUADS(f32, float)
FC_GENERIC_QUADS(f64, double)

static inline vf64 f32_load_f64(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }
static inline void f32_store_f64(float *p, vf64 a) { vst1_f32(p, vcvt_f32_f64(a)); }
static inline vf64 f64_load_f64(const double *p) { return f64_load(p); }
static inline void f64_store_f64(double *p, vf64 a) { f64_store(p, a); }

#endif
