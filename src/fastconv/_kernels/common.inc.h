/* What several families use, over T and the vector vocabulary. */

/* One vector, or its first `part` lanes where part is not 0. */
FC_INLINE VEC FC(get)(const T *p, ptrdiff_t part) { return part ? V(load_n)(p, part) : V(load)(p); }
FC_INLINE void FC(put)(T *p, VEC a, ptrdiff_t part)
{
    if (part)
        V(store_n)(p, a, part);
    else
        V(store)(p, a);
}

/* x < 0 ? 0 : x, which keeps NaN */
FC_INLINE VEC FC(relu_vec)(VEC x) { return V(max)(V(set1)(0), x); }

/* y += x, elementwise */
static void FC(accumulate)(const void *x, void *y, ptrdiff_t n)
{
    const T *p = x;
    T *q = y;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        V(store)(q + i, V(add)(V(load)(q + i), V(load)(p + i)));
    if (i < n)
        V(store_n)(q + i, V(add)(V(load_n)(q + i, n - i), V(load_n)(p + i, n - i)), n - i);
}

/* Rows of few channels are read `fold` at a time as one wider row, so that narrow layers fill the registers too: such
 * a row has at least 64 elements and, unless nothing is folded, less than 128. Fold depends on c alone. */
enum { FC(WIDE) = 128 };

FC_INLINE ptrdiff_t FC(fold)(ptrdiff_t c)
{
    ptrdiff_t fold = 1;
    while (fold * c < FC(WIDE) / 2)
        fold *= 2;
    return fold;
}

/* Fill wide (fold, c): every row is a copy of the given one */
FC_INLINE void FC(repeat)(const T *row, ptrdiff_t c, ptrdiff_t fold, T *wide)
{
    for (ptrdiff_t f = 0; f < fold; f++)
        for (ptrdiff_t j = 0; j < c; j++)
            wide[f * c + j] = row[j];
}
