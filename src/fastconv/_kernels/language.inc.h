/* The language of the templates, over a compiler and a vocabulary (vec_<isa>.h, included before). */
#define FC_CAT_(a, b) a##b
#define FC_CAT(a, b) FC_CAT_(a, b)
#define FC_STR_(a) #a
#define FC_STR(a) FC_STR_(a)
#define FC_INLINE static inline __attribute__((always_inline))
#define FC_NOINLINE __attribute__((noinline))
#define FC_UNUSED __attribute__((unused))
#if defined(_MSC_VER) && !defined(__clang__)
#undef FC_INLINE
#undef FC_NOINLINE
#undef FC_UNUSED
#define FC_INLINE static __forceinline
#define FC_NOINLINE __declspec(noinline)
#define FC_UNUSED
#endif

/* FC_PIN(v): v is computed before what follows. FC_AGAIN(p): what p points to is loaded again, not kept. Where all
 * registers are in use, compilers otherwise reorder and keep values until they spill the state itself. */
#if defined(__GNUC__) && defined(FC_REGISTER)
#define FC_PIN(v) __asm__("" : "+" FC_REGISTER(v))
#define FC_AGAIN(p) __asm__("" : "+r"(p))
#else
#define FC_PIN(v) (void)(v)
#define FC_AGAIN(p) (void)(p)
#endif

/* FC_UNROLL for (...): a loop of a number of rounds that the compiler knows, written out. */
#if defined(__GNUC__) && !defined(__clang__)
#define FC_UNROLL _Pragma("GCC unroll 16")
#else
#define FC_UNROLL
#endif

/* FC_PREFETCH(p): what p points to will be needed; FC_PREFETCH_FAR(p): but not soon, so that the second cache will do.
 * Any address may be named. */
#if defined(__GNUC__)
#define FC_PREFETCH(p) __builtin_prefetch((const void *)(p))
#define FC_PREFETCH_FAR(p) __builtin_prefetch((const void *)(p), 0, 2)
#elif defined(FC_ARCH_X86)
#include <xmmintrin.h>
#define FC_PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define FC_PREFETCH_FAR(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#else
#define FC_PREFETCH(p) (void)(p)
#define FC_PREFETCH_FAR(p) (void)(p)
#endif

/* Denormals are flushed inside kernels only; the caller's floating-point state comes back on return. */
#if defined(FC_ARCH_X86)
#include <xmmintrin.h>
FC_INLINE unsigned fc_flush_denormals(void)
{
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040u); /* FTZ | DAZ */
    return saved;
}
FC_INLINE void fc_restore_state(unsigned saved) { _mm_setcsr(saved); }
#elif defined(FC_ARCH_ARM64) && defined(__GNUC__)
FC_INLINE unsigned fc_flush_denormals(void)
{
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | (1u << 24)) : "memory"); /* FZ */
    return (unsigned)saved;
}
FC_INLINE void fc_restore_state(unsigned saved) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)saved) : "memory"); }
#else
FC_INLINE unsigned fc_flush_denormals(void) { return 0; }
FC_INLINE void fc_restore_state(unsigned saved) { (void)saved; }
#endif

/* Whether common sizes have instances of their own beside the one for all, and whether activations have: not where they
 * bring little, so that tables are compiled sooner. The bits are the same. */
#define FC_SPECIALISE (LANES > 1)
#define FC_SPECIALISE_ACTIVATIONS (FC_SINGLE && LANES > 1)

/* One instance of a tile for each height and width; cases beyond FC_HEIGHT(nv) are dropped. */
#define FC_HIGHEST 14
#define FC_EACH_HEIGHT(F, NV)                                                                                        \
    F(1, NV) F(2, NV) F(3, NV) F(4, NV) F(5, NV) F(6, NV) F(7, NV) F(8, NV) F(9, NV) F(10, NV) F(11, NV) F(12, NV)    \
    F(13, NV) F(14, NV)
#if FC_NV == 1
#define FC_EACH_NV(F) F(1)
#elif FC_NV == 2
#define FC_EACH_NV(F) F(1) F(2)
#elif FC_NV == 4
#define FC_EACH_NV(F) F(1) F(2) F(3) F(4)
#endif

/* Sums that tiles over pixels keep in registers (a multiple of 12, so that 1 to 4 channels share them evenly). */
#define FC_PV (FC_HEIGHT(FC_NV) * FC_NV >= 24 ? 24 : 12)

/* Most pixels of a depthwise tile: their sums and the pixels that a row of taps reaches stay in registers; and what it
 * reads of some channels in L1, of so many bytes. */
#define FC_DEPTHWISE (FC_VECTORS >= 32 ? 8 : 4)
#define FC_WIDEST_RUN 5
#define FC_DEPTHWISE_BYTES (FC_VECTORS >= 32 ? 32 * 1024 : 24 * 1024)

/* In templates: T the element, TYPE its tag, V(op) a vocabulary name, VEC and MASK its types, LANES, FC(name). */
#define V(op) FC_CAT(FC_CAT(TYPE, _), op)
#define VEC FC_CAT(v, TYPE)
#define MASK FC_CAT(m, TYPE)
#define LANES V(LANES)
#define FC(name) FC_CAT(FC_CAT(FC_CAT(fc_, TYPE), _), name)
#define FC_GUARDED(name) FC_CAT(FC(name), FC_CAT(__, FC_ISA)) /* expands to e.g. fc_f32_rows__avx2 */
