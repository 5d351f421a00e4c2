/* The vector vocabulary (see vec_scalar.h) on AVX-512 (F, BW, DQ, VL): 16 floats or 8 doubles a register. */
#ifndef FC_VEC_AVX512_H
#define FC_VEC_AVX512_H

#ifdef FC_EMULATE_AVX512 /* the same source on processors without AVX-512, for tests (FASTCONV_EMULATE_AVX512=1) */
#include "emulate_avx512.h"
#else
#include <immintrin.h>
#endif
#include <stddef.h>
#include <stdint.h>

#include "vec_generic.h"
#include "vec_quad.h"

#define FC_ISA avx512
#define FC_NV (FC_SINGLE ? 4 : 2)
#define FC_HEIGHT(nv) (!FC_SINGLE ? 8 : (nv) <= 2 ? 14 : (nv) == 3 ? 9 : 6)
#define FC_PANEL_BYTES (64 * 1024)
#define FC_FREE_TAILS 1
#define FC_VECTORS 32
#define FC_ESTIMATES 1
#ifndef FC_EMULATE_AVX512
#define FC_REGISTER "v"
#endif

#define f32_LANES 16
typedef __m512 vf32;
typedef __mmask16 mf32;

static inline __mmask16 fc_first32(ptrdiff_t n) { return (__mmask16)((1u << n) - 1u); }

static inline vf32 f32_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void f32_store(float *p, vf32 a) { _mm512_storeu_ps(p, a); }
static inline vf32 f32_load_n(const float *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(fc_first32(n), p); }
static inline void f32_store_n(float *p, vf32 a, ptrdiff_t n) { _mm512_mask_storeu_ps(p, fc_first32(n), a); }
static inline vf32 f32_set1(float a) { return _mm512_set1_ps(a); }
static inline vf32 f32_add(vf32 a, vf32 b) { return _mm512_add_ps(a, b); }
static inline vf32 f32_sub(vf32 a, vf32 b) { return _mm512_sub_ps(a, b); }
static inline vf32 f32_mul(vf32 a, vf32 b) { return _mm512_mul_ps(a, b); }
static inline vf32 f32_div(vf32 a, vf32 b) { return _mm512_div_ps(a, b); }
static inline vf32 f32_estimate(vf32 a) { return _mm512_rcp14_ps(a); }
static inline vf32 f32_fma(vf32 a, vf32 b, vf32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf32 f32_sqrt(vf32 a) { return _mm512_sqrt_ps(a); }
static inline vf32 f32_max(vf32 a, vf32 b) { return _mm512_max_ps(a, b); }
static inline vf32 f32_min(vf32 a, vf32 b) { return _mm512_min_ps(a, b); }
static inline mf32 f32_lt(vf32 a, vf32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline mf32 f32_le(vf32 a, vf32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline mf32 f32_eq(vf32 a, vf32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline mf32 f32_isnan(vf32 a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline mf32 f32_or(mf32 m, mf32 n) { return (mf32)(m | n); }
static inline vf32 f32_select(mf32 m, vf32 a, vf32 b) { return _mm512_mask_blend_ps(m, b, a); }
static inline vf32 f32_abs(vf32 a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf32 f32_copysign(vf32 a, vf32 s)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, s));
}
static inline vf32 f32_round(vf32 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf32 f32_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline void f32_store_u8(uint8_t *p, vf32 a)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}
static inline vf32 f32_pow2(vf32 n)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
static inline vf32 f32_exponent(vf32 a)
{
    return _mm512_cvtepi32_ps(
        _mm512_sub_epi32(_mm512_srli_epi32(_mm512_castps_si512(a), 23), _mm512_set1_epi32(127)));
}
static inline vf32 f32_mantissa(vf32 a)
{
    __m512i bits = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x007fffff));
    return _mm512_castsi512_ps(_mm512_or_si512(bits, _mm512_set1_epi32(0x3f800000)));
}

static inline void f32_descend4(const float *w, const vf32 *a, float rate, float *r)
{
    __m512 p = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xee));
    __m512 q = _mm512_add_ps(_mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xdd));
    __m256 low = _mm512_castps512_ps256(s);
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(s), 1));
    /* quads of partial sums [0 | 1], [2 | 3] */
    __m256 t = _mm256_add_ps(_mm256_shuffle_ps(low, high, 0x44), _mm256_shuffle_ps(low, high, 0xee));
    __m256 u = _mm256_add_ps(t, _mm256_movehdup_ps(t)); /* 0 . 2 . | 1 . 3 . */
    __m128 sum = _mm_unpacklo_ps(_mm256_castps256_ps128(u), _mm256_extractf128_ps(u, 1));
    sum = _mm_movelh_ps(sum, _mm_unpackhi_ps(_mm256_castps256_ps128(u), _mm256_extractf128_ps(u, 1)));
    _mm_storeu_ps(r, _mm_fnmadd_ps(_mm_set1_ps(rate), sum, _mm_loadu_ps(w)));
}
static inline void f32_descend8(const float *w, const vf32 *a, float rate, float *r)
{
    __m512 s[2];
    for (int i = 0; i < 2; i++) {
        __m512 p = _mm512_add_ps(_mm512_shuffle_f32x4(a[4 * i], a[4 * i + 1], 0x44),
                                 _mm512_shuffle_f32x4(a[4 * i], a[4 * i + 1], 0xee));
        __m512 q = _mm512_add_ps(_mm512_shuffle_f32x4(a[4 * i + 2], a[4 * i + 3], 0x44),
                                 _mm512_shuffle_f32x4(a[4 * i + 2], a[4 * i + 3], 0xee));
        s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xdd));
    }
    /* quads 0 0 4 4 | 1 1 5 5 | 2 2 6 6 | 3 3 7 7, then the sums in the even lanes */
    __m512 t = _mm512_add_ps(_mm512_shuffle_ps(s[0], s[1], 0x44), _mm512_shuffle_ps(s[0], s[1], 0xee));
    t = _mm512_add_ps(t, _mm512_movehdup_ps(t));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14);
    __m256 sum = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, t));
    _mm256_storeu_ps(r, _mm256_fnmadd_ps(_mm256_set1_ps(rate), sum, _mm256_loadu_ps(w)));
}

/* four 128-bit quads a register, transposed within each */
static inline void fc_quads(__m512 *q)
{
    const __m512 t = _mm512_unpacklo_ps(q[0], q[1]), u = _mm512_unpackhi_ps(q[0], q[1]);
    const __m512 v = _mm512_unpacklo_ps(q[2], q[3]), w = _mm512_unpackhi_ps(q[2], q[3]);
    q[0] = _mm512_shuffle_ps(t, v, 0x44);
    q[1] = _mm512_shuffle_ps(t, v, 0xee);
    q[2] = _mm512_shuffle_ps(u, w, 0x44);
    q[3] = _mm512_shuffle_ps(u, w, 0xee);
}
static inline void f32_load_quads(const float *p, ptrdiff_t pitch, vf32 *a, ptrdiff_t n)
{
    for (int j = 0; j < 4; j++, p += pitch) { /* elements j, j + 4, ... */
        __m512 q = _mm512_castps128_ps512(fc_load_quad(p, j < n));
        q = _mm512_insertf32x4(q, fc_load_quad(p + 4 * pitch, j + 4 < n), 1);
        q = _mm512_insertf32x4(q, fc_load_quad(p + 8 * pitch, j + 8 < n), 2);
        q = _mm512_insertf32x4(q, fc_load_quad(p + 12 * pitch, j + 12 < n), 3);
        a[j] = q;
    }
    fc_quads(a);
}
static inline void f32_store_quads(float *p, ptrdiff_t pitch, const vf32 *a, ptrdiff_t n, int m)
{
    __m512 q[4] = {a[0], a[1], a[2], a[3]};
    fc_quads(q);
    for (int j = 0; j < 4; j++, p += pitch) {
        if (j < n)
            fc_store_quad(p, _mm512_castps512_ps128(q[j]), m);
        if (j + 4 < n)
            fc_store_quad(p + 4 * pitch, _mm512_extractf32x4_ps(q[j], 1), m);
        if (j + 8 < n)
            fc_store_quad(p + 8 * pitch, _mm512_extractf32x4_ps(q[j], 2), m);
        if (j + 12 < n)
            fc_store_quad(p + 12 * pitch, _mm512_extractf32x4_ps(q[j], 3), m);
    }
}
static inline vf32 f32_load4(const float *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
static inline void f32_quarters(const vf32 *z, vf32 *q)
{
    __m512 a = _mm512_shuffle_f32x4(z[0], z[1], 0x44), b = _mm512_shuffle_f32x4(z[2], z[3], 0x44);
    q[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    q[1] = _mm512_shuffle_f32x4(a, b, 0xdd);
    a = _mm512_shuffle_f32x4(z[0], z[1], 0xee), b = _mm512_shuffle_f32x4(z[2], z[3], 0xee);
    q[2] = _mm512_shuffle_f32x4(a, b, 0x88);
    q[3] = _mm512_shuffle_f32x4(a, b, 0xdd);
}
static inline void f32_turn(const float *p, ptrdiff_t p_row, float *q, ptrdiff_t q_row)
{
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(p + i * p_row);
    for (int i = 0; i < 16; i += 4) { /* 4 x 4 within each quarter */
        const __m512 a = _mm512_shuffle_ps(r[i], r[i + 1], 0x44), b = _mm512_shuffle_ps(r[i + 2], r[i + 3], 0x44);
        const __m512 c = _mm512_shuffle_ps(r[i], r[i + 1], 0xee), d = _mm512_shuffle_ps(r[i + 2], r[i + 3], 0xee);
        t[i] = _mm512_shuffle_ps(a, b, 0x88);
        t[i + 1] = _mm512_shuffle_ps(a, b, 0xdd);
        t[i + 2] = _mm512_shuffle_ps(c, d, 0x88);
        t[i + 3] = _mm512_shuffle_ps(c, d, 0xdd);
    }
    for (int j = 0; j < 4; j++) { /* then the quarters */
        const vf32 column[4] = {t[j], t[j + 4], t[j + 8], t[j + 12]};
        vf32 turned[4];
        f32_quarters(column, turned);
        for (int i = 0; i < 4; i++)
            _mm512_storeu_ps(q + (4 * i + j) * q_row, turned[i]);
    }
}
/* in each quarter: the sums of the pairs 0 2 and 1 3 of a, then those of b */
static inline __m512 fc_pairs(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_shuffle_ps(a, b, 0x4e));
}
static inline void f32_descend_quarters(const float *w, const vf32 *s, int n, float rate, float *r)
{
    if (n == 4) {
        __m512 p = fc_pairs(s[0], s[1]), q = fc_pairs(s[2], s[3]);
        __m512 sum = _mm512_add_ps(_mm512_shuffle_ps(p, q, 0x88), _mm512_shuffle_ps(p, q, 0xdd));
        sum = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), sum);
        _mm512_storeu_ps(r, _mm512_fnmadd_ps(_mm512_set1_ps(rate), sum, _mm512_loadu_ps(w)));
        return;
    }
    __m512 p = fc_pairs(s[0], s[n - 1]);
    p = _mm512_add_ps(p, _mm512_movehdup_ps(p)); /* sums in lanes 0 and 2 of each quarter */
    p = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14), p);
    if (n == 2)
        _mm256_storeu_ps(r, _mm256_fnmadd_ps(_mm256_set1_ps(rate), _mm512_castps512_ps256(p), _mm256_loadu_ps(w)));
    else
        _mm_storeu_ps(r, _mm_fnmadd_ps(_mm_set1_ps(rate), _mm512_castps512_ps128(p), _mm_loadu_ps(w)));
}

#define f64_LANES 8
typedef __m512d vf64;
typedef __mmask8 mf64;

static inline __mmask8 fc_first64(ptrdiff_t n) { return (__mmask8)((1u << n) - 1u); }

static inline vf64 f64_load(const double *p) { return _mm512_loadu_pd(p); }
static inline void f64_store(double *p, vf64 a) { _mm512_storeu_pd(p, a); }
static inline vf64 f64_load_n(const double *p, ptrdiff_t n) { return _mm512_maskz_loadu_pd(fc_first64(n), p); }
static inline void f64_store_n(double *p, vf64 a, ptrdiff_t n) { _mm512_mask_storeu_pd(p, fc_first64(n), a); }
static inline vf64 f64_set1(double a) { return _mm512_set1_pd(a); }
static inline vf64 f64_add(vf64 a, vf64 b) { return _mm512_add_pd(a, b); }
static inline vf64 f64_sub(vf64 a, vf64 b) { return _mm512_sub_pd(a, b); }
static inline vf64 f64_mul(vf64 a, vf64 b) { return _mm512_mul_pd(a, b); }
static inline vf64 f64_div(vf64 a, vf64 b) { return _mm512_div_pd(a, b); }
static inline vf64 f64_estimate(vf64 a) { return _mm512_div_pd(_mm512_set1_pd(1), a); }
static inline vf64 f64_fma(vf64 a, vf64 b, vf64 c) { return _mm512_fmadd_pd(a, b, c); }
static inline vf64 f64_sqrt(vf64 a) { return _mm512_sqrt_pd(a); }
static inline vf64 f64_max(vf64 a, vf64 b) { return _mm512_max_pd(a, b); }
static inline vf64 f64_min(vf64 a, vf64 b) { return _mm512_min_pd(a, b); }
static inline mf64 f64_lt(vf64 a, vf64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
static inline mf64 f64_le(vf64 a, vf64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
static inline mf64 f64_eq(vf64 a, vf64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
static inline mf64 f64_isnan(vf64 a) { return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q); }
static inline mf64 f64_or(mf64 m, mf64 n) { return (mf64)(m | n); }
static inline vf64 f64_select(mf64 m, vf64 a, vf64 b) { return _mm512_mask_blend_pd(m, b, a); }
static inline vf64 f64_abs(vf64 a) { return _mm512_andnot_pd(_mm512_set1_pd(-0.0), a); }
static inline vf64 f64_copysign(vf64 a, vf64 s)
{
    const __m512d sign = _mm512_set1_pd(-0.0);
    return _mm512_or_pd(_mm512_andnot_pd(sign, a), _mm512_and_pd(sign, s));
}
static inline vf64 f64_round(vf64 a)
{
    return _mm512_roundscale_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf64 f64_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline void f64_store_u8(uint8_t *p, vf64 a)
{
    _mm_storel_epi64((__m128i *)p, _mm256_cvtepi32_epi8(_mm512_cvtpd_epi32(a)));
}
static inline vf64 f64_pow2(vf64 n)
{
    return _mm512_castsi512_pd(
        _mm512_slli_epi64(_mm512_add_epi64(_mm512_cvtpd_epi64(n), _mm512_set1_epi64(1023)), 52));
}
static inline vf64 f64_exponent(vf64 a)
{
    return _mm512_cvtepi64_pd(
        _mm512_sub_epi64(_mm512_srli_epi64(_mm512_castpd_si512(a), 52), _mm512_set1_epi64(1023)));
}
static inline vf64 f64_mantissa(vf64 a)
{
    __m512i bits = _mm512_and_si512(_mm512_castpd_si512(a), _mm512_set1_epi64(0x000fffffffffffff));
    return _mm512_castsi512_pd(_mm512_or_si512(bits, _mm512_set1_epi64(0x3ff0000000000000)));
}

static inline void f64_descend4(const double *w, const vf64 *a, double rate, double *r)
{
    __m512d p = _mm512_add_pd(_mm512_shuffle_f64x2(a[0], a[1], 0x44), _mm512_shuffle_f64x2(a[0], a[1], 0xee));
    __m512d q = _mm512_add_pd(_mm512_shuffle_f64x2(a[2], a[3], 0x44), _mm512_shuffle_f64x2(a[2], a[3], 0xee));
    __m512d s = _mm512_add_pd(_mm512_shuffle_f64x2(p, q, 0x88), _mm512_shuffle_f64x2(p, q, 0xdd));
    __m256d low = _mm512_castpd512_pd256(s), high = _mm512_extractf64x4_pd(s, 1); /* 0 0 1 1 | 2 2 3 3 */
    __m256d sum = _mm256_add_pd(_mm256_unpacklo_pd(low, high), _mm256_unpackhi_pd(low, high)); /* 0 2 1 3 */
    sum = _mm256_permute4x64_pd(sum, 0xd8);
    _mm256_storeu_pd(r, _mm256_fnmadd_pd(_mm256_set1_pd(rate), sum, _mm256_loadu_pd(w)));
}
FC_GENERIC_QUADS(f64, double)

static inline vf64 f32_load_f64(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
static inline void f32_store_f64(float *p, vf64 a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }
static inline vf64 f64_load_f64(const double *p) { return f64_load(p); }
static inline void f64_store_f64(double *p, vf64 a) { f64_store(p, a); }

#endif
