/* The vector vocabulary (see vec_scalar.h) on AVX2 + FMA: 8 floats or 4 doubles a register. */
#ifndef FC_VEC_AVX2_H
#define FC_VEC_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vec_generic.h"
#include "vec_quad.h"

#define FC_ISA avx2
#define FC_NV 2
#define FC_HEIGHT(nv) ((nv) == 1 ? (FC_SINGLE ? 12 : 8) : 6)
#define FC_PANEL_BYTES (16 * 1024)
#define FC_FREE_TAILS 0
#define FC_VECTORS 16
#define FC_ESTIMATES 0
#define FC_REGISTER "x"

#define f32_LANES 8
typedef __m256 vf32;
typedef __m256 mf32;

/* Lanes 0..n-1 all ones, from a window that slides over -1s and 0s. */
static const int32_t fc_window32[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

static inline __m256i fc_first32(ptrdiff_t n) { return _mm256_loadu_si256((const __m256i *)(fc_window32 + 8 - n)); }

static inline vf32 f32_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void f32_store(float *p, vf32 a) { _mm256_storeu_ps(p, a); }
static inline vf32 f32_load_n(const float *p, ptrdiff_t n) { return _mm256_maskload_ps(p, fc_first32(n)); }
static inline void f32_store_n(float *p, vf32 a, ptrdiff_t n)
{
    /* not maskstore: it is microcoded on AMD before Zen 4 */
    __m128 half = _mm256_castps256_ps128(a);
    if (n & 4) {
        _mm_storeu_ps(p, half);
        half = _mm256_extractf128_ps(a, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, half);
        half = _mm_movehl_ps(half, half);
        p += 2;
    }
    if (n & 1)
        _mm_store_ss(p, half);
}
static inline vf32 f32_set1(float a) { return _mm256_set1_ps(a); }
static inline vf32 f32_add(vf32 a, vf32 b) { return _mm256_add_ps(a, b); }
static inline vf32 f32_sub(vf32 a, vf32 b) { return _mm256_sub_ps(a, b); }
static inline vf32 f32_mul(vf32 a, vf32 b) { return _mm256_mul_ps(a, b); }
static inline vf32 f32_div(vf32 a, vf32 b) { return _mm256_div_ps(a, b); }
static inline vf32 f32_estimate(vf32 a) { return _mm256_rcp_ps(a); }
static inline vf32 f32_fma(vf32 a, vf32 b, vf32 c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf32 f32_sqrt(vf32 a) { return _mm256_sqrt_ps(a); }
static inline vf32 f32_max(vf32 a, vf32 b) { return _mm256_max_ps(a, b); }
static inline vf32 f32_min(vf32 a, vf32 b) { return _mm256_min_ps(a, b); }
static inline mf32 f32_lt(vf32 a, vf32 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline mf32 f32_le(vf32 a, vf32 b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline mf32 f32_eq(vf32 a, vf32 b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline mf32 f32_isnan(vf32 a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline mf32 f32_or(mf32 m, mf32 n) { return _mm256_or_ps(m, n); }
static inline vf32 f32_select(mf32 m, vf32 a, vf32 b) { return _mm256_blendv_ps(b, a, m); }
static inline vf32 f32_abs(vf32 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf32 f32_copysign(vf32 a, vf32 s)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, s));
}
static inline vf32 f32_round(vf32 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf32 f32_load_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline void f32_store_u8(uint8_t *p, vf32 a)
{
    __m256i lanes = _mm256_cvtps_epi32(a);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
static inline vf32 f32_pow2(vf32 n)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline vf32 f32_exponent(vf32 a)
{
    return _mm256_cvtepi32_ps(
        _mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(a), 23), _mm256_set1_epi32(127)));
}
static inline vf32 f32_mantissa(vf32 a)
{
    __m256i bits = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x007fffff));
    return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x3f800000)));
}

/* [sum of a's halves | sum of b's halves] */
static inline __m256 fc_halves(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21));
}
static inline void f32_descend4(const float *w, const vf32 *a, float rate, float *r)
{
    __m256 p = fc_halves(a[0], a[2]), q = fc_halves(a[1], a[3]);
    __m256 s = _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x44), _mm256_shuffle_ps(p, q, 0xee));
    __m128 low = _mm256_castps256_ps128(s), high = _mm256_extractf128_ps(s, 1);
    __m128 sum = _mm_add_ps(_mm_shuffle_ps(low, high, 0x88), _mm_shuffle_ps(low, high, 0xdd));
    _mm_storeu_ps(r, _mm_fnmadd_ps(_mm_set1_ps(rate), sum, _mm_loadu_ps(w)));
}
static inline void f32_descend8(const float *w, const vf32 *a, float rate, float *r)
{
    __m256 p = fc_halves(a[0], a[4]), q = fc_halves(a[1], a[5]);
    __m256 s = _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x44), _mm256_shuffle_ps(p, q, 0xee)); /* 0 0 1 1 | 4 4 5 5 */
    p = fc_halves(a[2], a[6]), q = fc_halves(a[3], a[7]);
    __m256 t = _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x44), _mm256_shuffle_ps(p, q, 0xee)); /* 2 2 3 3 | 6 6 7 7 */
    __m256 sum = _mm256_add_ps(_mm256_shuffle_ps(s, t, 0x88), _mm256_shuffle_ps(s, t, 0xdd));
    _mm256_storeu_ps(r, _mm256_fnmadd_ps(_mm256_set1_ps(rate), sum, _mm256_loadu_ps(w)));
}

/* two 128-bit quads a register, transposed within each */
static inline void fc_quads(__m256 *q)
{
    const __m256 t = _mm256_unpacklo_ps(q[0], q[1]), u = _mm256_unpackhi_ps(q[0], q[1]);
    const __m256 v = _mm256_unpacklo_ps(q[2], q[3]), w = _mm256_unpackhi_ps(q[2], q[3]);
    q[0] = _mm256_shuffle_ps(t, v, 0x44);
    q[1] = _mm256_shuffle_ps(t, v, 0xee);
    q[2] = _mm256_shuffle_ps(u, w, 0x44);
    q[3] = _mm256_shuffle_ps(u, w, 0xee);
}
static inline void f32_load_quads(const float *p, ptrdiff_t pitch, vf32 *a, ptrdiff_t n)
{
    for (int j = 0; j < 4; j++, p += pitch) { /* elements j, j + 4, ... */
        __m256 q = _mm256_castps128_ps256(fc_load_quad(p, j < n));
        q = _mm256_insertf128_ps(q, fc_load_quad(p + 4 * pitch, j + 4 < n), 1);
        a[j] = q;
    }
    fc_quads(a);
}
static inline void f32_store_quads(float *p, ptrdiff_t pitch, const vf32 *a, ptrdiff_t n, int m)
{
    __m256 q[4] = {a[0], a[1], a[2], a[3]};
    fc_quads(q);
    for (int j = 0; j < 4; j++, p += pitch) {
        if (j < n)
            fc_store_quad(p, _mm256_castps256_ps128(q[j]), m);
        if (j + 4 < n)
            fc_store_quad(p + 4 * pitch, _mm256_extractf128_ps(q[j], 1), m);
    }
}
static inline vf32 f32_load4(const float *p) { return _mm256_broadcast_ps((const __m128 *)p); }
static inline void f32_quarters(const vf32 *z, vf32 *q)
{
    for (int v = 0; v < 2; v++) {
        q[2 * v] = _mm256_permute2f128_ps(z[v], z[v + 2], 0x20);
        q[2 * v + 1] = _mm256_permute2f128_ps(z[v], z[v + 2], 0x31);
    }
}
static inline void f32_turn(const float *p, ptrdiff_t p_row, float *q, ptrdiff_t q_row)
{
    __m256 t[8];
    for (int i = 0; i < 8; i += 4) { /* 4 x 4 within each half */
        const __m256 r = _mm256_loadu_ps(p + i * p_row), s = _mm256_loadu_ps(p + (i + 1) * p_row);
        const __m256 u = _mm256_loadu_ps(p + (i + 2) * p_row), v = _mm256_loadu_ps(p + (i + 3) * p_row);
        const __m256 a = _mm256_shuffle_ps(r, s, 0x44), b = _mm256_shuffle_ps(u, v, 0x44);
        const __m256 c = _mm256_shuffle_ps(r, s, 0xee), d = _mm256_shuffle_ps(u, v, 0xee);
        t[i] = _mm256_shuffle_ps(a, b, 0x88);
        t[i + 1] = _mm256_shuffle_ps(a, b, 0xdd);
        t[i + 2] = _mm256_shuffle_ps(c, d, 0x88);
        t[i + 3] = _mm256_shuffle_ps(c, d, 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(q + j * q_row, _mm256_permute2f128_ps(t[j], t[j + 4], 0x20));
        _mm256_storeu_ps(q + (j + 4) * q_row, _mm256_permute2f128_ps(t[j], t[j + 4], 0x31));
    }
}
/* in each quarter: the sums of the pairs 0 2 and 1 3 of a, then those of b */
static inline __m256 fc_pairs(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xcc), _mm256_shuffle_ps(a, b, 0x4e));
}
static inline void f32_descend_quarters(const float *w, const vf32 *s, int n, float rate, float *r)
{
    __m256 p = fc_pairs(s[0], s[1]);
    if (n == 4) {
        __m256 q = fc_pairs(s[2], s[3]);
        p = _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x88), _mm256_shuffle_ps(p, q, 0xdd));
        p = _mm256_permutevar8x32_ps(p, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_ps(r, _mm256_fnmadd_ps(_mm256_set1_ps(rate), p, _mm256_loadu_ps(w)));
        return;
    }
    p = _mm256_add_ps(p, _mm256_movehdup_ps(p)); /* sums in lanes 0 and 2 of each quarter */
    __m128 sum = _mm_shuffle_ps(_mm256_castps256_ps128(p), _mm256_extractf128_ps(p, 1), 0x88);
    sum = _mm_shuffle_ps(sum, sum, 0xd8);
    _mm_storeu_ps(r, _mm_fnmadd_ps(_mm_set1_ps(rate), sum, _mm_loadu_ps(w)));
}

#define f64_LANES 4
typedef __m256d vf64;
typedef __m256d mf64;

static const int64_t fc_window64[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

static inline __m256i fc_first64(ptrdiff_t n) { return _mm256_loadu_si256((const __m256i *)(fc_window64 + 4 - n)); }

static inline vf64 f64_load(const double *p) { return _mm256_loadu_pd(p); }
static inline void f64_store(double *p, vf64 a) { _mm256_storeu_pd(p, a); }
static inline vf64 f64_load_n(const double *p, ptrdiff_t n) { return _mm256_maskload_pd(p, fc_first64(n)); }
static inline void f64_store_n(double *p, vf64 a, ptrdiff_t n)
{
    __m128d half = _mm256_castpd256_pd128(a);
    if (n & 2) {
        _mm_storeu_pd(p, half);
        half = _mm256_extractf128_pd(a, 1);
        p += 2;
    }
    if (n & 1)
        _mm_store_sd(p, half);
}
static inline vf64 f64_set1(double a) { return _mm256_set1_pd(a); }
static inline vf64 f64_add(vf64 a, vf64 b) { return _mm256_add_pd(a, b); }
static inline vf64 f64_sub(vf64 a, vf64 b) { return _mm256_sub_pd(a, b); }
static inline vf64 f64_mul(vf64 a, vf64 b) { return _mm256_mul_pd(a, b); }
static inline vf64 f64_div(vf64 a, vf64 b) { return _mm256_div_pd(a, b); }
static inline vf64 f64_estimate(vf64 a) { return _mm256_div_pd(_mm256_set1_pd(1), a); }
static inline vf64 f64_fma(vf64 a, vf64 b, vf64 c) { return _mm256_fmadd_pd(a, b, c); }
static inline vf64 f64_sqrt(vf64 a) { return _mm256_sqrt_pd(a); }
static inline vf64 f64_max(vf64 a, vf64 b) { return _mm256_max_pd(a, b); }
static inline vf64 f64_min(vf64 a, vf64 b) { return _mm256_min_pd(a, b); }
static inline mf64 f64_lt(vf64 a, vf64 b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
static inline mf64 f64_le(vf64 a, vf64 b) { return _mm256_cmp_pd(a, b, _CMP_LE_OQ); }
static inline mf64 f64_eq(vf64 a, vf64 b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
static inline mf64 f64_isnan(vf64 a) { return _mm256_cmp_pd(a, a, _CMP_UNORD_Q); }
static inline mf64 f64_or(mf64 m, mf64 n) { return _mm256_or_pd(m, n); }
static inline vf64 f64_select(mf64 m, vf64 a, vf64 b) { return _mm256_blendv_pd(b, a, m); }
static inline vf64 f64_abs(vf64 a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
static inline vf64 f64_copysign(vf64 a, vf64 s)
{
    const __m256d sign = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_andnot_pd(sign, a), _mm256_and_pd(sign, s));
}
static inline vf64 f64_round(vf64 a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf64 f64_load_u8(const uint8_t *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
}
static inline void f64_store_u8(uint8_t *p, vf64 a)
{
    __m128i words = _mm_packs_epi32(_mm256_cvtpd_epi32(a), _mm_setzero_si128());
    int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(p, &bytes, sizeof bytes);
}
static inline vf64 f64_pow2(vf64 n)
{
    __m256i exponent = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n));
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_add_epi64(exponent, _mm256_set1_epi64x(1023)), 52));
}
static inline vf64 f64_exponent(vf64 a)
{
    /* the biased exponent stands in the low bits of 2**52's mantissa: subtract both at once */
    __m256i biased = _mm256_srli_epi64(_mm256_castpd_si256(a), 52);
    __m256d shifted = _mm256_castsi256_pd(_mm256_or_si256(biased, _mm256_set1_epi64x(0x4330000000000000)));
    return _mm256_sub_pd(shifted, _mm256_set1_pd(0x1p52 + 1023.0));
}
static inline vf64 f64_mantissa(vf64 a)
{
    __m256i bits = _mm256_and_si256(_mm256_castpd_si256(a), _mm256_set1_epi64x(0x000fffffffffffff));
    return _mm256_castsi256_pd(_mm256_or_si256(bits, _mm256_set1_epi64x(0x3ff0000000000000)));
}

static inline __m256d fc_halves64(__m256d a, __m256d b)
{
    return _mm256_add_pd(_mm256_blend_pd(a, b, 0xc), _mm256_permute2f128_pd(a, b, 0x21));
}
static inline void f64_descend4(const double *w, const vf64 *a, double rate, double *r)
{
    __m256d p = fc_halves64(a[0], a[2]), q = fc_halves64(a[1], a[3]);
    __m256d sum = _mm256_add_pd(_mm256_unpacklo_pd(p, q), _mm256_unpackhi_pd(p, q));
    _mm256_storeu_pd(r, _mm256_fnmadd_pd(_mm256_set1_pd(rate), sum, _mm256_loadu_pd(w)));
}
FC_GENERIC_QUADS(f64, double)

static inline vf64 f32_load_f64(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
static inline void f32_store_f64(float *p, vf64 a) { _mm_storeu_ps(p, _mm256_cvtpd_ps(a)); }
static inline vf64 f64_load_f64(const double *p) { return f64_load(p); }
static inline void f64_store_f64(double *p, vf64 a) { f64_store(p, a); }

#endif
