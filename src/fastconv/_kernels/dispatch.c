/* Which kernel tables this build holds and which of them this machine can run.
 *
 * Compiled with baseline flags: it runs before anything is known of the processor. A table is supported when
 * the processor has every feature its object was compiled with *and* the operating system saves the
 * registers (XCR0), which hypervisors and old kernels may not.
 */
#include "kernels.h"

#include <string.h>

#define FC_TABLE(isa) {#isa, {&fc_f32_ops__##isa, &fc_f64_ops__##isa}}
extern const fc_ops fc_f32_ops__scalar, fc_f64_ops__scalar;
#if defined(FC_ARCH_X86)
extern const fc_ops fc_f32_ops__avx2, fc_f64_ops__avx2, fc_f32_ops__avx512, fc_f64_ops__avx512;
static const fc_table tables[] = {FC_TABLE(scalar), FC_TABLE(avx2), FC_TABLE(avx512)};
#elif defined(FC_ARCH_ARM64)
extern const fc_ops fc_f32_ops__neon, fc_f64_ops__neon;
static const fc_table tables[] = {FC_TABLE(scalar), FC_TABLE(neon)};
#else
static const fc_table tables[] = {FC_TABLE(scalar)};
#endif

enum { COUNT = sizeof tables / sizeof tables[0] };

#if defined(FC_ARCH_X86)
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
static void cpuid(unsigned leaf, unsigned subleaf, unsigned r[4]) { __cpuidex((int *)r, (int)leaf, (int)subleaf); }
static uint64_t xcr0(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}
static uint64_t xcr0(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}
#endif

enum { EBX = 1, ECX = 2 };
enum { YMM_STATE = 0x06, ZMM_STATE = 0xe6 }; /* XCR0: SSE, AVX; and opmask, upper ZMM halves, ZMM16-31 */

/* Feature, CPUID leaf, register, bit, state the operating system must save, table that needs it. */
static const struct feature {
    const char *name;
    unsigned leaf, reg, bit;
    uint64_t state;
    int table;
} features[] = {
    {"sse4.2", 1, ECX, 20, 0, 0},
    {"fma", 1, ECX, 12, YMM_STATE, 1},
    {"avx", 1, ECX, 28, YMM_STATE, 1},
    {"avx2", 7, EBX, 5, YMM_STATE, 1},
    {"avx512f", 7, EBX, 16, ZMM_STATE, 2},
    {"avx512dq", 7, EBX, 17, ZMM_STATE, 2},
    {"avx512bw", 7, EBX, 30, ZMM_STATE, 2},
    {"avx512vl", 7, EBX, 31, ZMM_STATE, 2},
};
enum { FEATURES = sizeof features / sizeof features[0] };

static int has(const struct feature *f)
{
    unsigned r[4];
    cpuid(0, 0, r);
    if (r[0] < f->leaf)
        return 0;
    cpuid(f->leaf, 0, r);
    if (!((r[f->reg] >> f->bit) & 1u))
        return 0;
    if (!f->state)
        return 1;
    cpuid(1, 0, r);
    return ((r[ECX] >> 27) & 1u) && (xcr0() & f->state) == f->state; /* bit 27: OSXSAVE, xgetbv may run */
}

int fc_table_supported(int index)
{
#if defined(FC_EMULATE_AVX512)
    if (index == 2)
        return 1;
#endif
    for (int i = 0; i < FEATURES; i++)
        if (features[i].table && features[i].table <= index && !has(&features[i]))
            return 0;
    return index >= 0 && index < COUNT;
}

const char *fc_cpu_features(void)
{
    static char text[128];
    char fresh[128] = "";
    for (int i = 0; i < FEATURES; i++)
        if (has(&features[i])) {
            if (fresh[0])
                strcat(fresh, " ");
            strcat(fresh, features[i].name);
        }
    memcpy(text, fresh, sizeof text); /* the same bytes from every thread */
    return text;
}
#else
int fc_table_supported(int index) { return index >= 0 && index < COUNT; }
#if defined(FC_ARCH_ARM64)
const char *fc_cpu_features(void) { return "neon"; }
#else
const char *fc_cpu_features(void) { return ""; }
#endif
#endif

int fc_table_count(void) { return COUNT; }

const fc_table *fc_table_at(int index) { return index >= 0 && index < COUNT ? &tables[index] : NULL; }

const fc_table *fc_table_best(void)
{
    int best = COUNT - 1;
    while (best > 0 && !fc_table_supported(best))
        best--;
    return &tables[best];
}
