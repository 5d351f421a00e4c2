/* Body of every isa_<isa>_<type>.c: instantiate the templates for float (FC_SINGLE 1) or double (0), guard them, fill
 * one half of a table. Everything here is static but that half, so that no function compiled for one instruction set
 * can be linked in where another is needed. */
#include <assert.h>
#include <math.h>

#include "kernels.h"
#include "language.inc.h"

#if FC_SINGLE
#define T float
#define TYPE f32
#else
#define T double
#define TYPE f64
#endif
#include "templates.inc.h"

const fc_ops FC_GUARDED(ops) = {
    sizeof(T), LANES, FC_HEIGHT(1), FC_NV * LANES,
#define FC_OP(name, params, args) FC_GUARDED(name),
#include "ops.inc"
#undef FC_OP
};
