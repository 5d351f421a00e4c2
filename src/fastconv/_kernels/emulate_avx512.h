/* AVX-512 in software, for tests on processors without it: the SIMDe headers, and what they lack, lane by lane. */
#ifndef FC_EMULATE_AVX512_H
#define FC_EMULATE_AVX512_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Expands to the masked load and store of one type: NAME ps or pd, T the element, V its vector, M its mask. */
#define FC_EMULATED_MEMORY(NAME, T, V, M)                                                                            \
    static inline V fc_maskz_loadu_##NAME(M mask, const T *p)                                                        \
    {                                                                                                                \
        T lanes[64 / sizeof(T)] = {0};                                                                               \
        V r;                                                                                                         \
        for (unsigned i = 0; i < 64 / sizeof(T); i++)                                                                \
            if (mask >> i & 1)                                                                                       \
                lanes[i] = p[i];                                                                                     \
        memcpy(&r, lanes, sizeof r);                                                                                 \
        return r;                                                                                                    \
    }                                                                                                                \
    static inline void fc_mask_storeu_##NAME(T *p, M mask, V a)                                                      \
    {                                                                                                                \
        T lanes[64 / sizeof(T)];                                                                                     \
        memcpy(lanes, &a, sizeof a);                                                                                 \
        for (unsigned i = 0; i < 64 / sizeof(T); i++)                                                                \
            if (mask >> i & 1)                                                                                       \
                p[i] = lanes[i];                                                                                     \
    }

/* Expands to the conversion of the first N lanes of A (elements S) to R (elements D). */
#define FC_EMULATED_CONVERSION(NAME, N, S, A, D, R, EXPRESSION)                                                      \
    static inline R fc_##NAME(A a)                                                                                   \
    {                                                                                                                \
        S from[sizeof(A) / sizeof(S)];                                                                               \
        D to[sizeof(R) / sizeof(D)] = {0};                                                                           \
        R r;                                                                                                         \
        memcpy(from, &a, sizeof a);                                                                                  \
        for (int i = 0; i < N; i++)                                                                                  \
            to[i] = (D)EXPRESSION;                                                                                   \
        memcpy(&r, to, sizeof r);                                                                                    \
        return r;                                                                                                    \
    }

FC_EMULATED_MEMORY(ps, float, __m512, __mmask16)
FC_EMULATED_MEMORY(pd, double, __m512d, __mmask8)
FC_EMULATED_CONVERSION(rcp14_ps, 16, float, __m512, float, __m512, (1.0f + 0x1p-14f) / from[i]) /* as rough as may be */
FC_EMULATED_CONVERSION(cvtepi32_ps, 16, int32_t, __m512i, float, __m512, from[i])
FC_EMULATED_CONVERSION(cvtepi64_pd, 8, int64_t, __m512i, double, __m512d, from[i])
FC_EMULATED_CONVERSION(cvtepi32_pd, 8, int32_t, __m256i, double, __m512d, from[i])
FC_EMULATED_CONVERSION(cvtps_pd, 8, float, __m256, double, __m512d, from[i])
FC_EMULATED_CONVERSION(cvtpd_ps, 8, double, __m512d, float, __m256, from[i])
FC_EMULATED_CONVERSION(cvtps_epi32, 16, float, __m512, int32_t, __m512i, rintf(from[i]))
FC_EMULATED_CONVERSION(cvtpd_epi64, 8, double, __m512d, int64_t, __m512i, rint(from[i]))
FC_EMULATED_CONVERSION(cvtpd_epi32, 8, double, __m512d, int32_t, __m256i, rint(from[i]))
FC_EMULATED_CONVERSION(cvtepu8_epi32, 16, uint8_t, __m128i, int32_t, __m512i, from[i])
FC_EMULATED_CONVERSION(cvtepi32_epi8, 16, int32_t, __m512i, int8_t, __m128i, from[i])
FC_EMULATED_CONVERSION(cvtepi32_epi8_256, 8, int32_t, __m256i, int8_t, __m128i, from[i])

#define _mm512_maskz_loadu_ps fc_maskz_loadu_ps
#define _mm512_maskz_loadu_pd fc_maskz_loadu_pd
#define _mm512_mask_storeu_ps fc_mask_storeu_ps
#define _mm512_mask_storeu_pd fc_mask_storeu_pd
#undef _mm512_rcp14_ps
#define _mm512_rcp14_ps fc_rcp14_ps
#define _mm512_cvtepi32_ps fc_cvtepi32_ps
#define _mm512_cvtepi64_pd fc_cvtepi64_pd
#undef _mm512_cvtps_pd
#undef _mm512_cvtpd_ps
#define _mm512_cvtps_pd fc_cvtps_pd
#define _mm512_cvtpd_ps fc_cvtpd_ps
#define _mm512_cvtps_epi32 fc_cvtps_epi32
#define _mm512_cvtpd_epi64 fc_cvtpd_epi64
#define _mm512_cvtpd_epi32 fc_cvtpd_epi32
#define _mm512_cvtepi32_pd fc_cvtepi32_pd
#define _mm512_cvtepu8_epi32 fc_cvtepu8_epi32
#define _mm512_cvtepi32_epi8 fc_cvtepi32_epi8
#undef _mm256_cvtepi32_epi8
#define _mm256_cvtepi32_epi8 fc_cvtepi32_epi8_256

/* Shuffles of whole quarters: two of a, then two of b; the same bits move in both types. */
static inline __m512 fc_shuffle_f32x4(__m512 a, __m512 b, unsigned order)
{
    float x[16], y[16], to[16];
    __m512 r;
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
    for (unsigned i = 0; i < 4; i++)
        memcpy(to + 4 * i, (i < 2 ? x : y) + 4 * (order >> 2 * i & 3), 16);
    memcpy(&r, to, sizeof r);
    return r;
}
static inline __m512d fc_shuffle_f64x2(__m512d a, __m512d b, unsigned order)
{
    __m512 x, y;
    __m512d r;
    memcpy(&x, &a, sizeof a);
    memcpy(&y, &b, sizeof b);
    x = fc_shuffle_f32x4(x, y, order);
    memcpy(&r, &x, sizeof r);
    return r;
}
/* Within each quarter: two elements of a, then two of b. */
static inline __m512 fc_shuffle_ps(__m512 a, __m512 b, unsigned order)
{
    float x[16], y[16], to[16];
    __m512 r;
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
    for (unsigned i = 0; i < 16; i++)
        to[i] = (i % 4 < 2 ? x : y)[i / 4 * 4 + (order >> 2 * (i % 4) & 3)];
    memcpy(&r, to, sizeof r);
    return r;
}
static inline __m512 fc_movehdup_ps(__m512 a)
{
    return fc_shuffle_ps(a, a, 0xf5);
}
static inline __m512 fc_permutexvar_ps(__m512i order, __m512 a)
{
    int32_t from[16];
    float x[16], to[16];
    __m512 r;
    memcpy(from, &order, sizeof order);
    memcpy(x, &a, sizeof a);
    for (unsigned i = 0; i < 16; i++)
        to[i] = x[from[i] & 15];
    memcpy(&r, to, sizeof r);
    return r;
}
static inline __m256d fc_extractf64x4_pd(__m512d a, int half)
{
    double x[8];
    __m256d r;
    memcpy(x, &a, sizeof a);
    memcpy(&r, x + 4 * half, sizeof r);
    return r;
}

#undef _mm512_shuffle_f32x4
#undef _mm512_shuffle_f64x2
#undef _mm512_shuffle_ps
#undef _mm512_movehdup_ps
#undef _mm512_permutexvar_ps
#undef _mm512_extractf64x4_pd
#define _mm512_shuffle_f32x4 fc_shuffle_f32x4
#define _mm512_shuffle_f64x2 fc_shuffle_f64x2
#define _mm512_shuffle_ps fc_shuffle_ps
#define _mm512_movehdup_ps fc_movehdup_ps
#define _mm512_permutexvar_ps fc_permutexvar_ps
#define _mm512_extractf64x4_pd fc_extractf64x4_pd

#endif
