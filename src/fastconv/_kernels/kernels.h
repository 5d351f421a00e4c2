/* The kernel table: what the extension modules see of an instruction set.
 *
 *   vec_<isa>.h  +  *.inc.h (templates over type and vocabulary)  ->  isa_<isa>_<type>.c  ->  fc_<type>_ops__<isa>
 *                           dispatch.c joins both types in a table and picks one, once; _ext.runtime holds it
 *
 * Kernels do not allocate, do not call Python or OpenMP and trust their arguments. Sizes and pitches are
 * counted in elements.
 */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#define FC_ARCH_X86 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define FC_ARCH_ARM64 1
#endif

#include "args.h"

typedef struct fc_ops {
    ptrdiff_t size;   /* bytes of an element */
    ptrdiff_t lanes;  /* elements of a register */
    ptrdiff_t mr, nr; /* register tiles: the most pixels of one, the most channels of one */
#define FC_OP(name, params, args) void(*name) params;
#include "ops.inc"
#undef FC_OP
} fc_ops;

enum { FC_F32 = 0, FC_F64 = 1 };

typedef struct fc_table {
    const char *name;
    const fc_ops *ops[2]; /* [FC_F32], [FC_F64] */
} fc_table;

/* dispatch.c */
int fc_table_count(void);                  /* tables in this build, worst first */
const fc_table *fc_table_at(int index);
int fc_table_supported(int index);         /* by the processor and the operating system */
const fc_table *fc_table_best(void);
const char *fc_cpu_features(void);         /* space separated, for people */

#endif
