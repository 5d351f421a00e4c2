/* Residual cores of any depth, h <- h + alpha * act(h W + b), and their exact gradients.
 *
 * Lanes are samples. The caller cuts a batch into blocks of 16 and pads the last one. A state is (blocks, D, 16). A
 * layer's weights are the rows of W (in, out) and then b: D + 1 rows of D, where b is the row of an input that is
 * always 1. Four walks go over a chunk of layers:
 *
 *   forward     the state alone, held in registers for D = 2, 4, 8
 *   recompute   the same again; `tape` keeps each layer's input h and slope d = alpha * act'(z)
 *   gradient    from the last layer to the first: dz = g * d takes the place of d, g += dz W^T
 *   update      W -= rate * h^T dz, each layer for itself
 *
 * Only g has to pass through the chunks one after the other. A recomputation waits for its own results much of the
 * time, and the updates of the chunk before it fill these waits: one loop does both, and writes each layer of the tape
 * again as soon as the update has used it.
 *
 * The order of sums is the same in every table. A sum over inputs (or over outputs, in g) is two chains for D <= 8, one
 * of the first half and one of the rest, and a single chain for larger D. A sum over samples takes the blocks in order;
 * for D < 16 the 16 lanes are then added by halves (8, 4, 2, 1). From D = 16 on a sum over samples is one chain: the
 * tape holds samples as rows, (blocks, 16, D), and registers run across outputs in all three walks. A register of
 * weights then costs 16 multiply-adds; the tree costs 16 multiplications and about as many additions and shuffles.
 */

#include "deep_math.inc.h"
#include "deep_lanes.inc.h"
#include "deep_rows.inc.h"
#if FC_DEEP_REGISTERS
#include "deep_registers.inc.h"
#include "deep_registers_update.inc.h"
#endif

/* FC_DEEP_WIDTHS expands to CALL(D) if there are kernels for the very width of a, else to FEW below 16 units, and to
 * MANY from 16 on. FC_DEEP_CASES expands to CALL(D, activation), where both are constants. */
#if FC_DEEP_REGISTERS
#define FC_DEEP_OWN(CALL)                                                                                            \
    if (a->width == 4) {                                                                                             \
        CALL(4)                                                                                                      \
    } else if (a->width == 2) {                                                                                      \
        CALL(2)                                                                                                      \
    } else if (a->width == 8) {                                                                                      \
        CALL(8)                                                                                                      \
    } else
#else
#define FC_DEEP_OWN(CALL)
#endif
#define FC_DEEP_WIDTHS(CALL, FEW, MANY)                                                                              \
    FC_DEEP_OWN(CALL) if (a->width < FC_DEEP_WIDE) {                                                                 \
        FEW;                                                                                                         \
    } else {                                                                                                         \
        MANY;                                                                                                        \
    }
#define FC_DEEP_CASES(CALL, D, ESTIMATED)                                                                            \
    if (a->activation == FC_SOFTSIGN && (ESTIMATED))                                                                 \
        CALL(D, FC_SOFTSIGN_ESTIMATED);                                                                              \
    else if (a->activation == FC_SOFTSIGN)                                                                           \
        CALL(D, FC_SOFTSIGN);                                                                                        \
    else if (a->activation == FC_TANH)                                                                               \
        CALL(D, FC_TANH);                                                                                            \
    else                                                                                                             \
        CALL(D, FC_RELU);

static void FC(deep_forward)(const fc_deep *a)
{
#define FC_ONE(D, ACT) FC(deep_forward_small)(a, D, ACT)
#define FC_CALL(D) FC_DEEP_CASES(FC_ONE, D, FC_ESTIMATES && FC(deep_bounded)(a, a->first, a->first + a->vectors))
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_forward_wide)(a), FC(deep_rows_forward)(a))
#undef FC_CALL
#undef FC_ONE
}

static void FC(deep_recompute)(const fc_deep *a)
{
#define FC_ONE(D, ACT) FC(deep_recompute_small)(a, D, ACT)
#define FC_CALL(D) FC_DEEP_CASES(FC_ONE, D, FC_ESTIMATES && a->blocks == 1 && FC(deep_bounded)(a, 0, BV))
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_recompute_wide)(a), FC(deep_rows_recompute)(a))
#undef FC_CALL
#undef FC_ONE
}

static void FC(deep_gradient)(const fc_deep *a)
{
#define FC_CALL(D) FC(deep_gradient_small)(a, D);
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_gradient_wide)(a), FC(deep_rows_gradient)(a))
#undef FC_CALL
}

/* The weights of chunk a are updated; chunk c, which may have no layers, is recomputed on the same tape. */
static void FC(deep_update)(const fc_deep *a, const fc_deep *c)
{
#define FC_ONE(D, ACT) FC(deep_update_small)(a, c, D, ACT)
#define FC_CALL(D)                                                                                                   \
    if (a->blocks == 1) {                                                                                            \
        FC_DEEP_CASES(FC_ONE, D, 0) /* updates hide the divider's time */                                            \
        return;                                                                                                      \
    }                                                                                                                \
    FC(deep_update_blocks)(a, D);
    FC_DEEP_WIDTHS(FC_CALL, FC(deep_update_wide)(a), FC(deep_rows_updates)(a))
    if (c->layers)
        FC(deep_recompute)(c);
#undef FC_CALL
#undef FC_ONE
}

/* All that a single thread does on its way back: gradient and updates of chunk a, recomputation of chunk c on another
 * tape. */
static void FC(deep_both)(const fc_deep *a, const fc_deep *c)
{
#define FC_ONE(D, ACT) FC(deep_both_small)(a, c, D, ACT)
#define FC_CALL(D)                                                                                                   \
    if (a->blocks == 1) {                                                                                            \
        FC_DEEP_CASES(FC_ONE, D, 0)                                                                                  \
        return;                                                                                                      \
    }
    FC_DEEP_WIDTHS(FC_CALL, , )
    FC(deep_gradient)(a); /* nothing to interleave */
    FC(deep_update)(a, c);
#undef FC_CALL
#undef FC_ONE
}

#undef FC_DEEP_CASES
#undef FC_DEEP_WIDTHS
#undef FC_DEEP_OWN
#undef FC_DEEP_REGISTERS
#undef BV
