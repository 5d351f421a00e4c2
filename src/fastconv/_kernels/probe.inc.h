/* What the machine can do at best, for benchmarks to state shares of. */

enum { FC(CHAINS) = 10 }; /* latency 4 or 5 x 2 units, and the registers of AVX2 hold them */

/* n rounds of CHAINS independent fused multiply-adds of one register each */
static void FC(fma_throughput)(ptrdiff_t n, void *sink)
{
    const VEC a = V(set1)((T)0.999), b = V(set1)((T)0.001);
    VEC acc[FC(CHAINS)];
    for (int j = 0; j < FC(CHAINS); j++)
        acc[j] = V(set1)((T)j);
    for (ptrdiff_t i = 0; i < n; i++)
        for (int j = 0; j < FC(CHAINS); j++)
            acc[j] = V(fma)(acc[j], a, b);
    for (int j = 1; j < FC(CHAINS); j++)
        acc[0] = V(add)(acc[0], acc[j]);
    V(store_n)(sink, acc[0], 1);
}

/* n fused multiply-adds, each waiting for the one before */
static void FC(fma_latency)(ptrdiff_t n, void *sink)
{
    const VEC a = V(set1)((T)0.999), b = V(set1)((T)0.001);
    VEC acc = b;
    for (ptrdiff_t i = 0; i < n; i++)
        acc = V(fma)(acc, a, b);
    V(store_n)(sink, acc, 1);
}
