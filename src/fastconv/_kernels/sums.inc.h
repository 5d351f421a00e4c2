/* Sums over rows; sums added where they belong. */

/* nv vectors of the sums over n rows; of the last one `part` lanes where part is not 0 */
FC_INLINE void FC(column_tile)(const T *x, ptrdiff_t n, ptrdiff_t c, T *sum, ptrdiff_t part, const int nv)
{
    VEC acc[8];
    FC_UNROLL for (int v = 0; v < nv; v++)
        acc[v] = FC(get)(sum + v * LANES, v == nv - 1 ? part : 0);
    for (ptrdiff_t i = 0; i < n; i++, x += c)
        FC_UNROLL for (int v = 0; v < nv; v++)
            acc[v] = V(add)(acc[v], FC(get)(x + v * LANES, v == nv - 1 ? part : 0));
    FC_UNROLL for (int v = 0; v < nv; v++)
        FC(put)(sum + v * LANES, acc[v], v == nv - 1 ? part : 0);
}

/* sum[c] += x[0, c] + x[1, c] + ... in order; x (n, c) contiguous. As many vectors together as there are, up to eight:
 * one alone would wait for its own additions. */
static void FC(column_sum)(const void *x, ptrdiff_t n, ptrdiff_t c, void *sum)
{
    for (ptrdiff_t j = 0; j < c; j += 8 * LANES) {
        const ptrdiff_t left = c - j < 8 * LANES ? c - j : 8 * LANES, part = left % LANES;
        const T *p = (const T *)x + j;
        T *s = (T *)sum + j;
        switch ((left + LANES - 1) / LANES) {
            case 1: FC(column_tile)(p, n, c, s, part, 1); break;
            case 2: FC(column_tile)(p, n, c, s, part, 2); break;
            case 3: FC(column_tile)(p, n, c, s, part, 3); break;
            case 4: FC(column_tile)(p, n, c, s, part, 4); break;
            case 5: FC(column_tile)(p, n, c, s, part, 5); break;
            case 6: FC(column_tile)(p, n, c, s, part, 6); break;
            case 7: FC(column_tile)(p, n, c, s, part, 7); break;
            default: FC(column_tile)(p, n, c, s, part, 8);
        }
    }
}

/* sums[s] += rows first[s], ..., first[s + 1] - 1 of x, each shard in order; sums (shards, c). Of narrow rows four shards
 * go side by side, since one would wait for its own additions. */
static void FC(column_sums)(const void *x, const ptrdiff_t *first, ptrdiff_t shards, ptrdiff_t c, void *sums)
{
    ptrdiff_t s = 0;
    for (; s + 4 <= shards && c < 4 * LANES; s += 4, first += 4) {
        T *sum = (T *)sums + s * c;
        ptrdiff_t n = first[1] - first[0];
        for (int v = 1; v < 4; v++)
            n = first[v + 1] - first[v] < n ? first[v + 1] - first[v] : n;
        for (ptrdiff_t k = 0; k < c; k += LANES) {
            const ptrdiff_t part = c - k < LANES ? c - k : 0;
            const T *p[4];
            VEC acc[4];
            for (int v = 0; v < 4; v++) {
                p[v] = (const T *)x + first[v] * c + k;
                acc[v] = FC(get)(sum + v * c + k, part);
            }
            for (ptrdiff_t i = 0; i < n * c; i += c)
                for (int v = 0; v < 4; v++)
                    acc[v] = V(add)(acc[v], FC(get)(p[v] + i, part));
            for (int v = 0; v < 4; v++)
                FC(put)(sum + v * c + k, acc[v], part);
        }
        for (int v = 0; v < 4; v++)
            FC(column_sum)((const T *)x + (first[v] + n) * c, first[v + 1] - first[v] - n, c, sum + v * c);
    }
    for (; s < shards; s++, first++)
        FC(column_sum)((const T *)x + first[0] * c, first[1] - first[0], c, (T *)sums + s * c);
}

/* y[j * y_pitch + i] += x[i * x_pitch + j], i < m, j < n. A cache line of each row of y is used up before the next,
 * which is fetched meanwhile: so many rows are too many for hardware to foresee, and may share few sets of the cache. */
static void FC(accumulate_turned)(const void *x, ptrdiff_t x_pitch, ptrdiff_t m, ptrdiff_t n, void *y,
                                  ptrdiff_t y_pitch)
{
    enum { LINE = 64 / sizeof(T) };
    const ptrdiff_t quads_end = m / 4 * 4;
    ptrdiff_t i = 0, end = LINE - (ptrdiff_t)((uintptr_t)y % 64 / sizeof(T)); /* where y's second line begins */
    for (end = (end + 3) / 4 * 4; i < quads_end; i = end, end += LINE) {
        end = end < quads_end ? end : quads_end;
        for (ptrdiff_t j = 0; j < n; j += LANES) {
            const ptrdiff_t part = n - j < LANES ? n - j : 0, rows = part ? part : LANES;
            T *q = (T *)y + j * y_pitch;
            for (ptrdiff_t row = 0; row < rows; row++)
                FC_PREFETCH_FAR(q + row * y_pitch + i + 2 * LINE);
            for (ptrdiff_t k = i; k < end; k += 4) { /* four rows of x are four neighbours in a row of y */
                const T *p = (const T *)x + k * x_pitch + j;
                VEC quads[4];
                V(load_quads)(q + k, y_pitch, quads, rows);
                for (int v = 0; v < 4; v++)
                    quads[v] = V(add)(quads[v], FC(get)(p + v * x_pitch, part));
                V(store_quads)(q + k, y_pitch, quads, rows, 4);
            }
        }
    }
    for (; i < m; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            ((T *)y)[j * y_pitch + i] += ((const T *)x)[i * x_pitch + j];
}
