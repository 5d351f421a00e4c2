/* Names of the vector vocabulary (see vec_scalar.h) element by element, for tables that have no better way. */
#ifndef FC_VEC_GENERIC_H
#define FC_VEC_GENERIC_H

#define FC_GENERIC_QUADS(X, T)                                                                                       \
    static inline void X##_load_quads(const T *p, ptrdiff_t pitch, v##X *a, ptrdiff_t n)                             \
    {                                                                                                                \
        T lanes[4][X##_LANES] = {{0}};                                                                               \
        for (ptrdiff_t i = 0; i < n; i++, p += pitch)                                                                \
            for (int j = 0; j < 4; j++)                                                                              \
                lanes[j][i] = p[j];                                                                                  \
        for (int j = 0; j < 4; j++)                                                                                  \
            a[j] = X##_load(lanes[j]);                                                                               \
    }                                                                                                                \
    static inline void X##_store_quads(T *p, ptrdiff_t pitch, const v##X *a, ptrdiff_t n, int m)                     \
    {                                                                                                                \
        T lanes[4][X##_LANES];                                                                                       \
        for (int j = 0; j < m; j++)                                                                                  \
            X##_store(lanes[j], a[j]);                                                                               \
        for (ptrdiff_t i = 0; i < n; i++, p += pitch)                                                                \
            for (int j = 0; j < m; j++)                                                                              \
                p[j] = lanes[j][i];                                                                                  \
    }

#endif
