/* The forward pass for few filters: a tile is vectors of pixels x 1 to 4 channels, the input lies in planes. Chains are
 * those of rows.inc.h. */

/* Each vector of pixels has its address in a register. */
enum { FC(most_vectors) = 8 };

/* nv vectors of pixels, kt channels, the whole chain; vector v begins at x[v] and its n[v] results at y[v] */
FC_INLINE void FC(planes_tile)(const fc_planes *a, const T *const *x, T *const *y, const ptrdiff_t *n, ptrdiff_t k,
                               int act, const int kt, const int nv)
{
    VEC acc[4][FC(most_vectors)];
    for (int i = 0; i < kt; i++)
        for (int v = 0; v < nv; v++)
            acc[i][v] = V(set1)(0);
    const T *w = (const T *)a->w + k;
    for (ptrdiff_t t = 0; t < a->ntaps; t++) {
        ptrdiff_t at = a->taps[t];
        for (ptrdiff_t c = 0; c < a->nc; c++, w += a->w_row, at += a->x_plane) {
            if (kt == 4) { /* fewer vectors than channels: hold those */
                VEC p[FC(most_vectors)];
                for (int v = 0; v < nv; v++) {
                    p[v] = V(load)(x[v] + at);
                    FC_PIN(p[v]); /* loaded once, not with each multiply-add */
                }
                for (int i = 0; i < kt; i++) {
                    const VEC b = V(set1)(w[i]);
                    for (int v = 0; v < nv; v++)
                        acc[i][v] = V(fma)(p[v], b, acc[i][v]);
                }
            } else {
                VEC b[4];
                for (int i = 0; i < kt; i++)
                    b[i] = V(set1)(w[i]);
                for (int v = 0; v < nv; v++) {
                    VEC p = V(load)(x[v] + at);
                    FC_PIN(p);
                    for (int i = 0; i < kt; i++)
                        acc[i][v] = V(fma)(p, b[i], acc[i][v]);
                }
            }
        }
    }
    const T *bias = a->e.bias, *scale = a->e.scale, *shift = a->e.shift;
    for (int i = 0; i < kt; i++) {
        const VEC b = V(set1)(bias ? bias[k + i] : 0);
        const VEC f = V(set1)(scale ? scale[k + i] : 0);
        const VEC s = V(set1)(scale ? shift[k + i] : 0);
        for (int v = 0; v < nv; v++) {
            VEC r = bias ? V(add)(acc[i][v], b) : acc[i][v];
            if (scale)
                r = V(fma)(r, f, s);
            acc[i][v] = FC(act_vec)(r, &a->e, act);
        }
    }
    for (int v = 0; v < nv; v++) {
        T *out = y[v] + k;
        if (kt == 1 && a->y_col == 1) {
            if (n[v] == LANES)
                V(store)(out, acc[0][v]);
            else
                V(store_n)(out, acc[0][v], n[v]);
            continue;
        }
        if (kt > 1) {
            const VEC quads[4] = {acc[0][v], acc[1][v], acc[kt > 2 ? 2 : 0][v], acc[kt > 3 ? 3 : 0][v]};
            if (n[v] == LANES)
                V(store_quads)(out, a->y_col, quads, LANES, kt);
            else
                V(store_quads)(out, a->y_col, quads, n[v], kt);
            continue;
        }
        T pixels[LANES];
        V(store)(pixels, acc[0][v]);
        for (ptrdiff_t j = 0; j < n[v]; j++, out += a->y_col)
            *out = pixels[j];
    }
}

/* kt channels from k on of all pixels, at most FC_PV / kt vectors of pixels at a time, a third of that at the end */
FC_INLINE void FC(planes_run)(const fc_planes *a, ptrdiff_t k, int act, const int kt)
{
    const int full = FC_PV / kt < FC(most_vectors) ? FC_PV / kt : FC(most_vectors), few = full >= 3 ? full / 3 : 1;
    const ptrdiff_t across = (a->cols + LANES - 1) / LANES;
    ptrdiff_t image = 0, i = 0, j = 0, left = a->images * a->rows * across;
    while (left > 0) {
        const T *x[FC(most_vectors)];
        T *y[FC(most_vectors)];
        ptrdiff_t n[FC(most_vectors)];
        const int nv = left > few ? full : few;
        for (int v = 0; v < nv; v++) {
            if (v < left) {
                x[v] = (const T *)a->x + image * a->x_image + i * a->x_row + j;
                y[v] = (T *)a->y + image * a->y_image + i * a->y_row + j * a->y_col;
                n[v] = a->cols - j < LANES ? a->cols - j : LANES;
                if ((j += LANES) >= a->cols) {
                    j = 0;
                    if (++i == a->rows) {
                        i = 0;
                        image++;
                    }
                }
            } else { /* nothing left for this vector: it repeats the one before */
                x[v] = x[v - 1];
                y[v] = y[v - 1];
                n[v] = 0;
            }
        }
        if (nv == full)
            FC(planes_tile)(a, x, y, n, k, act, kt, full);
        else
            FC(planes_tile)(a, x, y, n, k, act, kt, few);
        left -= nv;
    }
}

static void FC(planes_block)(const fc_planes *a, int act)
{
    const ptrdiff_t groups = (a->channels + 3) / 4;
    for (ptrdiff_t g = 0, k = 0; g < groups; g++) { /* five channels are 3 and 2, not 4 and 1 */
        const ptrdiff_t kt = (a->channels - k + groups - g - 1) / (groups - g);
        switch (kt) {
            case 1: FC(planes_run)(a, k, act, 1); break;
            case 2: FC(planes_run)(a, k, act, 2); break;
            case 3: FC(planes_run)(a, k, act, 3); break;
            default: FC(planes_run)(a, k, act, 4);
        }
        k += kt;
    }
}

static void FC(planes)(const fc_planes *a)
{
    const FC(stages) stages = FC(stages_of)(&a->e);
    if (!stages.later) {
        FC(planes_block)(a, stages.act);
        return;
    }
    /* some rows at a time, so that they stay in L1 until they are finished */
    enum { ROOM = 16 * 1024 / sizeof(T) };
    const ptrdiff_t most = ROOM / (a->cols * a->y_col) > 0 ? ROOM / (a->cols * a->y_col) : 1;
    fc_planes b = *a;
    b.images = 1;
    for (ptrdiff_t n = 0; n < a->images; n++)
        for (ptrdiff_t i = 0; i < a->rows; i += most) {
            b.x = (const T *)a->x + n * a->x_image + i * a->x_row;
            b.y = (T *)a->y + n * a->y_image + i * a->y_row;
            b.rows = a->rows - i < most ? a->rows - i : most;
            FC(planes_block)(&b, FC_ACT_none);
            for (ptrdiff_t r = i; r < i + b.rows; r++)
                FC(finish_later)(&stages, a->y, n * a->y_image + r * a->y_row, a->y_col,
                                 n * a->e.add_image + r * a->e.add_row, a->e.add_col, a->cols, 0, a->channels);
        }
}
