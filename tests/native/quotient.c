/* Softsign's quotient by an estimate of the reciprocal beside that of division: a shared library for one vocabulary,
 * named by FC_VOCABULARY, whose one function tests/test_deep_quotient.py calls. It is made of the very templates that
 * the tables are made of. */
#include <assert.h>
#include <math.h>
#include <string.h>

#define FC_SINGLE 1
#include FC_VOCABULARY
#include "kernels.h"
#include "language.inc.h"

#define T float
#define TYPE f32
#include "common.inc.h"
#include "math.inc.h"
#include "deep_math.inc.h"

/* Counts the z among n floats, from the one with bits `first` on, signs alternating, whose quotient by an estimate
 * that is off by the factor 1 + nudge is not the one by division. */
__attribute__((visibility("default"))) ptrdiff_t quotient_errors(ptrdiff_t first, ptrdiff_t n, double nudge)
{
    const unsigned saved = fc_flush_denormals();
    ptrdiff_t wrong = 0;
    for (ptrdiff_t i = first; i < first + n; i += LANES) {
        uint32_t bits[LANES];
        T numbers[LANES], got[LANES], right[LANES];
        for (int l = 0; l < LANES; l++)
            bits[l] = (uint32_t)(i + l) | (uint32_t)((i + l) & 1) << 31;
        memcpy(numbers, bits, sizeof bits);
        const VEC z = V(load)(numbers), estimate = V(estimate)(V(sub)(V(set1)(-1), V(abs)(z)));
        const VEC q = FC(deep_quotient)(z, V(fma)(estimate, V(set1)((T)nudge), estimate));
        V(store)(got, V(mul)(q, V(set1)(-1)));
        V(store)(right, FC(deep_act)(z, FC_SOFTSIGN));
        for (int l = 0; l < LANES; l++)
            wrong += i + l < first + n && memcmp(got + l, right + l, sizeof(T)) != 0;
    }
    fc_restore_state(saved);
    return wrong;
}
