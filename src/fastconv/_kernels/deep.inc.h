/* Residual cores of any depth, h <- h + alpha * act(h W + b), and their exact gradients.
 *
 * Lanes are samples. A batch is cut into blocks of 16 (padded by the caller), a state is (blocks, D, 16), and a
 * layer's weights are W (in, out) row after row and then b: D + 1 rows of D, the bias being the row whose input
 * is 1. Four walks over a chunk of layers:
 *
 *   forward     the state alone, held in registers for D = 2, 4, 8
 *   recompute   the same again; `tape` keeps each layer's input h and slope d = alpha * act'(z)
 *   gradient    from the last layer to the first: dz = g * d takes the place of d, g += dz W^T
 *   update      W -= rate * h^T dz, each layer for itself
 *
 * Only g has to go through all chunks one after the other. Updates fill the waits of a recomputation, of the chunk
 * whose turn is next: one loop does both, and the tape's layers are written again as soon as they were used.
 * Sums, in every table: over inputs (and outputs, in g) two chains for D <= 8, of the first half and of the rest,
 * else one chain; over samples the blocks in order and then 16 lanes by halves (8, 4, 2, 1) for D < 16. From D = 16
 * on, registers of outputs are as long as registers of samples: a chain over the samples then takes 16 multiply-adds
 * for a register of weights, the tree as many multiplications and as many additions and shuffles again. There the tape
 * holds samples as rows, (blocks, 16, D), and registers run across outputs in all three walks.
 */

#include "deep_math.inc.h"
#include "deep_lanes.inc.h"
#include "deep_rows.inc.h"
#if FC_DEEP_REGISTERS
#include "deep_registers.inc.h"
#include "deep_registers_update.inc.h"
#endif

/* FC_DEEP_WIDTHS expands to CALL(D) for the width a has, where it has kernels of its own, and else to FEW or, from 16
 * on, to MANY; FC_DEEP_CASES to CALL(D, activation), both constants. */
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

/* a: the chunk whose weights are updated; c: the chunk, perhaps of no layers, that is recomputed on the same tape */
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

/* One thread's work on its way back: chunk a's gradient and updates, chunk c recomputed on another tape. */
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
