/* A linear layer of few rows: weights are read where they lie, once, instead of being packed to be read once. Four terms
 * at a time change places with a vector of channels. Chains are those of rows.inc.h, in the order of the terms. */

/* Rows of weights that are read side by side, at most: more streams than that no hardware fetches ahead */
enum { FC(THIN_ROWS) = 16 };

/* The terms [first, last) of mr rows and nv vectors of channels from k on, n of the last vector's lanes */
FC_INLINE void FC(thin_terms)(const fc_thin *a, ptrdiff_t row, ptrdiff_t k, ptrdiff_t first, ptrdiff_t last,
                              ptrdiff_t n, VEC acc[4][4], const int mr, const int nv)
{
    const T *x = (const T *)a->x + row * a->x_row;
    for (int v = 0; v < nv; v++) {
        const T *w = (const T *)a->w + (k + v * LANES) * a->w_row;
        const ptrdiff_t lanes = v == nv - 1 ? n : LANES;
        ptrdiff_t c = first;
        for (; c + 4 <= last; c += 4) {
            VEC quads[4];
            if (lanes == LANES)
                V(load_quads)(w + c, a->w_row, quads, LANES);
            else
                V(load_quads)(w + c, a->w_row, quads, lanes);
            for (int j = 0; j < 4; j++)
                for (int i = 0; i < mr; i++)
                    acc[i][v] = V(fma)(V(set1)(x[i * a->x_row + c + j]), quads[j], acc[i][v]);
        }
        for (; c < last; c++) {
            T factors[LANES] = {0};
            for (ptrdiff_t j = 0; j < lanes; j++)
                factors[j] = w[j * a->w_row + c];
            for (int i = 0; i < mr; i++)
                acc[i][v] = V(fma)(V(set1)(x[i * a->x_row + c]), V(load)(factors), acc[i][v]);
        }
    }
}

static FC_NOINLINE void FC(thin_store)(const fc_thin *a, const FC(stages) *stages, ptrdiff_t row, ptrdiff_t k,
                                       ptrdiff_t channels, VEC acc[4][4], const int mr)
{
    for (int i = 0; i < mr; i++)
        for (ptrdiff_t j = 0; j < channels; j += LANES) {
            const ptrdiff_t part = channels - j < LANES ? channels - j : 0;
            FC(put)((T *)a->y + (row + i) * a->y_row + k + j,
                    FC(finish_vec)(acc[i][j / LANES], &a->e, stages->act, k + j, part), part);
        }
    if (stages->later)
        FC(finish_later)(stages, a->y, row * a->y_row, a->y_row, row * a->e.add_col, a->e.add_col, mr, k, channels);
}

/* mr rows, nv vectors of channels: a cache line of each weight's row at a time */
FC_INLINE void FC(thin_tile)(const fc_thin *a, const FC(stages) *stages, ptrdiff_t row, ptrdiff_t k,
                             ptrdiff_t channels, const int mr, const int nv)
{
    const ptrdiff_t line = 64 / sizeof(T), n = channels - (nv - 1) * LANES;
    VEC acc[4][4];
    for (int i = 0; i < mr; i++)
        for (int v = 0; v < nv; v++)
            acc[i][v] = V(set1)(0);
    for (ptrdiff_t c = 0; c < a->depth; c += line)
        FC(thin_terms)(a, row, k, c, a->depth - c < line ? a->depth : c + line, n, acc, mr, nv);
    FC(thin_store)(a, stages, row, k, channels, acc, mr);
}

static void FC(thin)(const fc_thin *a)
{
    const FC(stages) stages = FC(stages_of)(&a->e);
    for (ptrdiff_t row = 0; row < a->rows;) {
        const ptrdiff_t mr = a->rows - row < 4 ? a->rows - row : 4;
        /* eight sums or fewer stay in registers */
        const ptrdiff_t held = (mr <= 2 ? 4 : 2) * LANES, most = held < FC(THIN_ROWS) ? held : FC(THIN_ROWS);
        for (ptrdiff_t k = 0; k < a->channels; k += most) {
            const ptrdiff_t n = a->channels - k < most ? a->channels - k : most;
#define FC_CASE(M, NV) case 8 * M + NV: FC(thin_tile)(a, &stages, row, k, n, M, NV); break;
            switch (8 * mr + (n + LANES - 1) / LANES) {
                FC_CASE(1, 1) FC_CASE(1, 2) FC_CASE(1, 3) FC_CASE(1, 4)
                FC_CASE(2, 1) FC_CASE(2, 2) FC_CASE(2, 3) FC_CASE(2, 4)
                FC_CASE(3, 1) FC_CASE(3, 2) FC_CASE(4, 1) FC_CASE(4, 2)
            }
#undef FC_CASE
        }
        row += mr;
    }
}
