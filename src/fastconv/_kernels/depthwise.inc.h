/* Convolutions with one filter a channel: vectors run over channels; forward, input gradient and weight gradient. */

/* Whether taps come in threes, one pixel apart: rows of a 3-wide filter of stride and dilation 1. What neighbouring
 * pixels share is then loaded once. */
FC_INLINE int FC(in_threes)(const ptrdiff_t *taps, ptrdiff_t ntaps, ptrdiff_t x_col)
{
    if (ntaps % 3)
        return 0;
    for (ptrdiff_t t = 0; t < ntaps; t += 3)
        if (taps[t + 1] - taps[t] != x_col || taps[t + 2] - taps[t + 1] != x_col)
            return 0;
    return 1;
}

/* mr pixels of one vector of channels, all taps */
FC_INLINE void FC(depthwise_tile)(const fc_depthwise *a, const T *x, const T *w, T *y, ptrdiff_t c,
                                  int act, const ptrdiff_t tail, const int threes, const int mr)
{
    VEC acc[FC_DEPTHWISE];
    for (int i = 0; i < mr; i++)
        acc[i] = V(set1)(0);
    for (ptrdiff_t t = 0; t < a->ntaps; t += threes ? 3 : 1) {
        const T *p = x + a->taps[t];
        VEC b[3], pixel[FC_DEPTHWISE + 2];
        for (int j = 0; j < (threes ? 3 : 1); j++, w += a->w_row)
            b[j] = tail ? V(load_n)(w, tail) : V(load)(w);
        for (int i = 0; i < (threes ? mr + 2 : mr); i++)
            pixel[i] = tail ? V(load_n)(p + i * a->x_col, tail) : V(load)(p + i * a->x_col);
        for (int j = 0; j < (threes ? 3 : 1); j++)
            for (int i = 0; i < mr; i++)
                acc[i] = V(fma)(pixel[i + j], b[j], acc[i]);
    }
    for (int i = 0; i < mr; i++) {
        const VEC r = FC(finish_vec)(acc[i], &a->e, act, c, tail);
        if (tail)
            V(store_n)(y + i * a->y_col, r, tail);
        else
            V(store)(y + i * a->y_col, r);
    }
}

static void FC(depthwise)(const fc_depthwise *a)
{
    const int threes = FC(in_threes)(a->taps, a->ntaps, a->x_col);
    const FC(stages) stages = FC(stages_of)(&a->e);
    const int act = stages.act;
    const ptrdiff_t mr = a->cols < FC_DEPTHWISE ? 1 : FC_DEPTHWISE;
    /* a few columns from top to bottom: what the rows of the filter share stays in L1 */
    for (ptrdiff_t next = 0; next < a->cols; next += mr) {
        const ptrdiff_t j = a->cols - next < mr ? a->cols - mr : next; /* the last may overlap those before */
        for (ptrdiff_t i = 0; i < a->rows; i++)
            for (ptrdiff_t c = 0; c < a->channels; c += LANES) {
                const T *x = (const T *)a->x + i * a->x_row + j * a->x_col + c, *w = (const T *)a->w + c;
                T *y = (T *)a->y + i * a->y_row + j * a->y_col + c;
                const ptrdiff_t tail = a->channels - c < LANES ? a->channels - c : 0;
                if (tail || mr == 1)
                    for (ptrdiff_t m = 0; m < mr; m++)
                        FC(depthwise_tile)(a, x + m * a->x_col, w, y + m * a->y_col, c, act, tail, 0, 1);
                else if (threes)
                    FC(depthwise_tile)(a, x, w, y, c, act, 0, 1, FC_DEPTHWISE);
                else
                    FC(depthwise_tile)(a, x, w, y, c, act, 0, 0, FC_DEPTHWISE);
                if (stages.later)
                    FC(finish_later)(&stages, a->y, i * a->y_row + j * a->y_col, a->y_col,
                                     i * a->e.add_row + j * a->e.add_col, a->e.add_col, mr, c, tail ? tail : LANES);
            }
    }
}

/* up to 9 taps (a 3x3 filter) of one vector of channels, all pixels of the block */
FC_INLINE void FC(depthwise_outer_tile)(const fc_depthwise_outer *a, const T *x, const T *g, const ptrdiff_t *taps,
                                        T *dw, const ptrdiff_t tail, const int mt)
{
    VEC acc[9];
    for (int t = 0; t < mt; t++)
        acc[t] = tail ? V(load_n)(dw + t * a->dw_row, tail) : V(load)(dw + t * a->dw_row);
    for (ptrdiff_t i = 0; i < a->rows; i++)
        for (ptrdiff_t j = 0; j < a->cols; j++) {
            const T *p = x + i * a->x_row + j * a->x_col;
            const T *q = g + i * a->g_row + j * a->g_col;
            const VEC b = tail ? V(load_n)(q, tail) : V(load)(q);
            for (int t = 0; t < mt; t++)
                acc[t] = V(fma)(tail ? V(load_n)(p + taps[t], tail) : V(load)(p + taps[t]), b, acc[t]);
        }
    for (int t = 0; t < mt; t++)
        if (tail)
            V(store_n)(dw + t * a->dw_row, acc[t], tail);
        else
            V(store)(dw + t * a->dw_row, acc[t]);
}

/* The same for n threes of taps: a row's pixels move through three registers, each loaded once */
FC_INLINE void FC(depthwise_outer_threes)(const fc_depthwise_outer *a, const T *x, const T *g, const ptrdiff_t *taps,
                                          T *dw, const int n)
{
    VEC acc[3][3];
    for (int r = 0; r < n; r++)
        for (int s = 0; s < 3; s++)
            acc[r][s] = V(load)(dw + (3 * r + s) * a->dw_row);
    for (ptrdiff_t i = 0; i < a->rows; i++) {
        const T *q = g + i * a->g_row, *p[3];
        VEC pixel[3][3];
        for (int r = 0; r < n; r++) {
            p[r] = x + i * a->x_row + taps[3 * r];
            for (int s = 0; s < 2; s++, p[r] += a->x_col)
                pixel[r][s] = V(load)(p[r]);
        }
        ptrdiff_t j = 0;
        for (; j + 3 <= a->cols; j += 3)
            for (int turn = 0; turn < 3; turn++, q += a->g_col) {
                const VEC b = V(load)(q);
                for (int r = 0; r < n; r++, p[r - 1] += a->x_col) {
                    pixel[r][(turn + 2) % 3] = V(load)(p[r]);
                    for (int s = 0; s < 3; s++)
                        acc[r][s] = V(fma)(pixel[r][(turn + s) % 3], b, acc[r][s]);
                }
            }
        for (; j < a->cols; j++, q += a->g_col) {
            const VEC b = V(load)(q);
            for (int r = 0; r < n; r++, p[r - 1] += a->x_col)
                for (int s = 0; s < 3; s++)
                    acc[r][s] = V(fma)(V(load)(p[r] + (s - 2) * a->x_col), b, acc[r][s]);
        }
    }
    for (int r = 0; r < n; r++)
        for (int s = 0; s < 3; s++)
            V(store)(dw + (3 * r + s) * a->dw_row, acc[r][s]);
}

static void FC(depthwise_outer)(const fc_depthwise_outer *a)
{
    const int threes = FC_VECTORS >= 32 && a->ntaps <= 9 && FC(in_threes)(a->taps, a->ntaps, a->x_col);
    for (ptrdiff_t c = 0; c < a->channels; c += LANES) {
        const T *x = (const T *)a->x + c;
        const T *g = (const T *)a->g + c;
        const ptrdiff_t tail = a->channels - c < LANES ? a->channels - c : 0;
        if (threes && !tail) {
            T *dw = (T *)a->dw + c;
            switch (a->ntaps) {
                case 3: FC(depthwise_outer_threes)(a, x, g, a->taps, dw, 1); break;
                case 6: FC(depthwise_outer_threes)(a, x, g, a->taps, dw, 2); break;
                default: FC(depthwise_outer_threes)(a, x, g, a->taps, dw, 3);
            }
            continue;
        }
        for (ptrdiff_t t = 0; t < a->ntaps; t += 9) {
            T *dw = (T *)a->dw + t * a->dw_row + c;
            const ptrdiff_t mt = a->ntaps - t < 9 ? a->ntaps - t : 9;
            if (mt == 9 && !tail)
                FC(depthwise_outer_tile)(a, x, g, a->taps + t, dw, 0, 9);
            else
                for (ptrdiff_t m = 0; m < mt; m++)
                    FC(depthwise_outer_tile)(a, x, g, a->taps + t + m, dw + m * a->dw_row, tail, 1);
        }
    }
}
