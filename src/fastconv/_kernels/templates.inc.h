/* Every template, for one element type; then each kernel behind its guard. A new family is included here. */
#include "common.inc.h"
#include "math.inc.h"
#include "lanes.inc.h"
#include "activation.inc.h"
#include "epilogue.inc.h"
#include "pack.inc.h"
#include "rows.inc.h"
#include "planes.inc.h"
#include "thin.inc.h"
#include "outer.inc.h"
#include "abreast.inc.h"
#include "depthwise.inc.h"
#include "sums.inc.h"
#include "winograd.inc.h"
#include "winograd_products.inc.h"
#include "norm.inc.h"
#include "rownorm.inc.h"
#include "optim.inc.h"
#include "probe.inc.h"
#include "elementwise.inc.h"
#include "loss.inc.h"
#include "element_loss.inc.h"
#include "pool.inc.h"
#include "deep.inc.h"

#define FC_OP(name, params, args)                                                                                    \
    static void FC_GUARDED(name) params                                                                              \
    {                                                                                                                \
        unsigned saved = fc_flush_denormals();                                                                       \
        FC(name) args;                                                                                               \
        fc_restore_state(saved);                                                                                     \
    }
#include "ops.inc"
#undef FC_OP
