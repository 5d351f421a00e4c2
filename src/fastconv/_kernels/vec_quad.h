/* Four floats of one pixel: what the AVX2 and AVX-512 tables load and store quads with. */
#ifndef FC_VEC_QUAD_H
#define FC_VEC_QUAD_H

static inline __m128 fc_load_quad(const float *p, int there) { return there ? _mm_loadu_ps(p) : _mm_setzero_ps(); }
static inline void fc_store_quad(float *p, __m128 q, int m)
{
    if (m == 4) {
        _mm_storeu_ps(p, q);
        return;
    }
#ifdef __AVX512VL__
    _mm_mask_storeu_ps(p, (__mmask8)((1u << m) - 1u), q);
#else
    _mm_storel_pi((__m64 *)p, q);
    if (m == 3)
        _mm_store_ss(p + 2, _mm_movehl_ps(q, q));
#endif
}

#endif
