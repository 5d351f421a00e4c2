/* Body of every isa_<isa>.c: instantiate the templates for float and double, guard them, fill the table.
 * Everything here is static but the table, so that no function compiled for one instruction set can be
 * linked in where another is needed. */
#include <assert.h>
#include <math.h>

#include "kernels.h"
#include "language.inc.h"

#define T float
#define TYPE f32
#define FC_SINGLE 1
#include "templates.inc.h"
#undef FC_SINGLE
#undef T
#undef TYPE

#define T double
#define TYPE f64
#define FC_SINGLE 0
#include "templates.inc.h"
#undef FC_SINGLE
#undef T

const fc_table FC_CAT(fc_table_, FC_ISA) = {
    FC_STR(FC_ISA),
    {
#undef TYPE
#define TYPE f32
        {sizeof(float), LANES, FC_HEIGHT(1), FC_NV * LANES,
#define FC_OP(name, params, args) FC_GUARDED(name),
#include "ops.inc"
#undef FC_OP
        },
#undef TYPE
#define TYPE f64
        {sizeof(double), LANES, FC_HEIGHT(1), FC_NV * LANES,
#define FC_OP(name, params, args) FC_GUARDED(name),
#include "ops.inc"
#undef FC_OP
        },
    },
};
