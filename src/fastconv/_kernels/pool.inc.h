/* Max and mean pooling over T and the vector vocabulary; vectors run across channels.
 *
 *   spans:  output pixel -> the part of its window inside the image        forward, and backward where tiled
 *   visits: input pixel -> the windows it is in, ascending                 backward where windows overlap
 *
 * Where the channels do not fill their last vector, a pixel's store spills into the next pixel of the row, which
 * is written afterwards: few channels need no masks. Only pixels near the end of a block ("not whole") are masked.
 *
 * Order of sums: a mean adds each row of its window from left to right, then the rows from top to bottom, and
 * divides (a true division); a gradient starts at zero and adds its windows in the order (p, q).
 */

/* Pixels into which the last vector of a pixel spills; more than any image has where that is not allowed. */
FC_INLINE ptrdiff_t FC(spill)(const fc_pool *a)
{
    const ptrdiff_t rest = (a->channels + LANES - 1) / LANES * LANES - a->channels;
    if (rest && a->channels != a->pitch)
        return PTRDIFF_MAX / 2;
    return (rest + a->pitch - 1) / a->pitch;
}

FC_INLINE void FC(put_positions)(void *arg, ptrdiff_t at, VEC position, ptrdiff_t part, const int arg_size)
{
    if (arg_size == 1 && !part) {
        V(store_u8)((uint8_t *)arg + at, position);
        return;
    }
    T lanes[LANES];
    V(store)(lanes, position);
    for (ptrdiff_t i = 0; i < (part ? part : LANES); i++)
        if (arg_size == 1)
            ((uint8_t *)arg)[at + i] = (uint8_t)lanes[i];
        else
            ((int32_t *)arg)[at + i] = (int32_t)lanes[i];
}

FC_INLINE VEC FC(get_positions)(const void *arg, ptrdiff_t at, ptrdiff_t part, const int arg_size)
{
    if (arg_size == 1 && !part)
        return V(load_u8)((const uint8_t *)arg + at);
    T lanes[LANES] = {0};
    for (ptrdiff_t i = 0; i < (part ? part : LANES); i++)
        lanes[i] = arg_size == 1 ? (T)((const uint8_t *)arg)[at + i] : (T)((const int32_t *)arg)[at + i];
    return V(load)(lanes);
}

/* --- forward ------------------------------------------------------------------------------------------------ */

/* One window, one vector of channels: the first of the largest, or the first NaN. */
FC_INLINE void FC(max_vec)(const fc_pool *a, const T *x, T *y, void *arg, ptrdiff_t at, ptrdiff_t tap, ptrdiff_t rows,
                           ptrdiff_t cols, ptrdiff_t part, const int arg_size)
{
    const ptrdiff_t row = a->h.step * a->w.inputs * a->pitch, col = a->w.step * a->pitch;
    VEC best = FC(get)(x, part), position = V(set1)((T)tap);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t s = r == 0; s < cols; s++) {
            const VEC value = FC(get)(x + r * row + s * col, part);
            const MASK keep = V(or)(V(le)(value, best), V(isnan)(best));
            best = V(select)(keep, best, value);
            if (arg_size)
                position = V(select)(keep, position, V(set1)((T)(tap + r * a->w.kernel + s)));
        }
    FC(put)(y + at, best, part);
    if (arg_size)
        FC(put_positions)(arg, at, position, part, arg_size);
}

FC_INLINE void FC(max_window)(const fc_pool *a, const T *x, T *y, void *arg, ptrdiff_t at, ptrdiff_t tap,
                              ptrdiff_t rows, ptrdiff_t cols, int whole, const int arg_size)
{
    ptrdiff_t c = 0;
    for (; c + LANES <= a->channels || (whole && c < a->channels); c += LANES)
        FC(max_vec)(a, x + c, y, arg, at + c, tap, rows, cols, 0, arg_size);
    if (c < a->channels)
        FC(max_vec)(a, x + c, y, arg, at + c, tap, rows, cols, a->channels - c, arg_size);
}

/* One window, nv vectors of channels: the mean of what lies inside. */
FC_INLINE void FC(avg_vec)(const fc_pool *a, const T *x, T *y, ptrdiff_t rows, ptrdiff_t cols, VEC divisor,
                           ptrdiff_t part, const int nv)
{
    VEC sum[4];
    for (int v = 0; v < nv; v++)
        sum[v] = V(set1)(0);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const T *px = x + r * a->w.inputs * a->pitch;
        VEC line[4];
        for (int v = 0; v < nv; v++)
            line[v] = FC(get)(px + v * LANES, part);
        for (ptrdiff_t s = 1; s < cols; s++)
            for (int v = 0; v < nv; v++)
                line[v] = V(add)(line[v], FC(get)(px + s * a->pitch + v * LANES, part));
        for (int v = 0; v < nv; v++)
            sum[v] = V(add)(sum[v], line[v]);
    }
    for (int v = 0; v < nv; v++)
        FC(put)(y + v * LANES, V(div)(sum[v], divisor), part);
}

FC_INLINE void FC(avg_window)(const fc_pool *a, const T *x, T *y, ptrdiff_t rows, ptrdiff_t cols, T divisor, int whole)
{
    const VEC d = V(set1)(divisor);
    ptrdiff_t c = 0;
    for (; c + 4 * LANES <= a->channels; c += 4 * LANES)
        FC(avg_vec)(a, x + c, y + c, rows, cols, d, 0, 4);
    for (; c + LANES <= a->channels || (whole && c < a->channels); c += LANES)
        FC(avg_vec)(a, x + c, y + c, rows, cols, d, 0, 1);
    if (c < a->channels)
        FC(avg_vec)(a, x + c, y + c, rows, cols, d, a->channels - c, 1);
}

/* Output rows [p0, p1). Windows of kr x ks taps run with constant bounds, others (kr = 0, or cut by the border) not. */
FC_INLINE void FC(pool_rows)(const fc_pool *a, const T *x, T *y, void *arg, ptrdiff_t p0, ptrdiff_t p1, const int mean,
                             const int kr, const int ks, const int arg_size)
{
    const ptrdiff_t width = a->w.inputs, q = a->w.outputs, spill = FC(spill)(a);
    const ptrdiff_t safe_in = a->h.inputs * width - spill, safe_out = p1 * q - spill;
    for (ptrdiff_t i = p0; i < p1; i++) {
        const fc_span *h = a->h.spans + i;
        const ptrdiff_t last = (h->first + (h->count - 1) * a->h.step) * width;
        for (ptrdiff_t j = 0; j < q; j++) {
            const fc_span *w = a->w.spans + j;
            const int whole = i * q + j < safe_out && last + w->first + (w->count - 1) * a->w.step < safe_in;
            const int full = kr && h->count == kr && w->count == ks;
            const T *px = x + (h->first * width + w->first) * a->pitch;
            const ptrdiff_t at = (i * q + j) * a->pitch, tap = h->tap * a->w.kernel + w->tap;
            const T divisor = mean ? (T)(h->size * w->size) : 1;
            if (mean && full)
                FC(avg_window)(a, px, y + at, kr, ks, divisor, whole);
            else if (mean)
                FC(avg_window)(a, px, y + at, h->count, w->count, divisor, whole);
            else if (full)
                FC(max_window)(a, px, y, arg, at, tap, kr, ks, whole, arg_size);
            else
                FC(max_window)(a, px, y, arg, at, tap, h->count, w->count, whole, arg_size);
        }
    }
}

static void FC(max_pool)(const fc_pool *a, const void *x, void *y, void *arg, ptrdiff_t p0, ptrdiff_t p1)
{
    const int two = a->h.kernel == 2 && a->w.kernel == 2, three = a->h.kernel == 3 && a->w.kernel == 3;
    if (a->arg_size == 4)
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 0, 0, 4);
    else if (a->arg_size == 1 && two)
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 2, 2, 1);
    else if (a->arg_size == 1 && three)
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 3, 3, 1);
    else if (a->arg_size == 1)
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 0, 0, 1);
    else if (two)
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 2, 2, 0);
    else if (three)
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 3, 3, 0);
    else
        FC(pool_rows)(a, x, y, arg, p0, p1, 0, 0, 0, 0);
}

static void FC(avg_pool)(const fc_pool *a, const void *x, void *y, ptrdiff_t p0, ptrdiff_t p1)
{
    if (a->h.kernel == 2 && a->w.kernel == 2)
        FC(pool_rows)(a, x, y, NULL, p0, p1, 1, 2, 2, 0);
    else if (a->h.kernel == 3 && a->w.kernel == 3)
        FC(pool_rows)(a, x, y, NULL, p0, p1, 1, 3, 3, 0);
    else
        FC(pool_rows)(a, x, y, NULL, p0, p1, 1, 0, 0, 0);
}

/* --- backward, windows side by side: each writes its own pixels ---------------------------------------------- */

FC_INLINE void FC(zero_pixels)(const fc_pool *a, T *gx, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t c = 0; c < a->channels; c++)
            gx[i * a->pitch + c] = 0;
}

/* One window, one vector of channels: the gradient (divided, for a mean), or zero where the maximum was elsewhere. */
FC_INLINE void FC(scatter_vec)(const fc_pool *a, const T *g, const void *arg, ptrdiff_t at, T *gx, const fc_span *h,
                               const fc_span *w, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t part, const int arg_size)
{
    VEC value = FC(get)(g + at, part), position = V(set1)(0);
    if (arg_size)
        position = FC(get_positions)(arg, at, part, arg_size);
    else
        value = V(div)(value, V(set1)((T)(h->size * w->size)));
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t s = 0; s < cols; s++) {
            VEC mine = value;
            if (arg_size) {
                const T tap = (T)((h->tap + r) * a->w.kernel + w->tap + s);
                mine = V(select)(V(eq)(position, V(set1)(tap)), value, V(set1)(0));
            }
            FC(put)(gx + (r * a->w.inputs + s) * a->pitch, mine, part);
        }
}

FC_INLINE void FC(scatter_window)(const fc_pool *a, const T *g, const void *arg, ptrdiff_t at, T *gx, const fc_span *h,
                                  const fc_span *w, ptrdiff_t rows, ptrdiff_t cols, int whole, const int arg_size)
{
    ptrdiff_t c = 0;
    for (; c + LANES <= a->channels || (whole && c < a->channels); c += LANES)
        FC(scatter_vec)(a, g, arg, at + c, gx + c, h, w, rows, cols, 0, arg_size);
    if (c < a->channels)
        FC(scatter_vec)(a, g, arg, at + c, gx + c, h, w, rows, cols, a->channels - c, arg_size);
}

FC_INLINE void FC(scatter_rows)(const fc_pool *a, const T *g, const void *arg, T *gx, ptrdiff_t p0, ptrdiff_t p1,
                                const int kernel, const int arg_size)
{
    const ptrdiff_t width = a->w.inputs, q = a->w.outputs;
    /* a second vector of a pixel would be spilt over: it stands before the next tap's first */
    const ptrdiff_t spill = a->channels > LANES && a->channels % LANES ? PTRDIFF_MAX / 2 : FC(spill)(a);
    const ptrdiff_t right = a->w.spans[q - 1].first + a->w.spans[q - 1].count;
    const ptrdiff_t bottom = a->h.spans[a->h.outputs - 1].first + a->h.spans[a->h.outputs - 1].count;
    for (ptrdiff_t i = p0; i < p1; i++) {
        const fc_span *h = a->h.spans + i;
        T *row = gx + h->first * width * a->pitch;
        for (ptrdiff_t j = 0; j < q; j++) {
            const fc_span *w = a->w.spans + j;
            const int whole = j < q - spill && w->first + w->count <= width - spill;
            const ptrdiff_t at = (i * q + j) * a->pitch;
            if (kernel && h->count == kernel && w->count == kernel)
                FC(scatter_window)(a, g, arg, at, row + w->first * a->pitch, h, w, kernel, kernel, whole, arg_size);
            else
                FC(scatter_window)(a, g, arg, at, row + w->first * a->pitch, h, w, h->count, w->count, whole, arg_size);
        }
        for (ptrdiff_t r = 0; r < h->count; r++)
            FC(zero_pixels)(a, row + (r * width + right) * a->pitch, width - right);
    }
    if (p1 == a->h.outputs)
        FC(zero_pixels)(a, gx + bottom * width * a->pitch, (a->h.inputs - bottom) * width);
}

/* --- backward, overlapping windows: each input pixel gathers -------------------------------------------------- */

/* One input pixel, nv vectors of channels from c on: the sum over its windows, of g for a mean (divided already). */
FC_INLINE void FC(gather_vec)(const fc_pool *a, const T *g, ptrdiff_t g_pitch, ptrdiff_t begin, const void *arg, T *gx,
                              const fc_visit *rows, ptrdiff_t nrows, const fc_visit *cols, ptrdiff_t ncols, ptrdiff_t c,
                              ptrdiff_t part, const int nv, const int arg_size)
{
    VEC sum[4];
    for (int v = 0; v < nv; v++)
        sum[v] = V(set1)(0);
    for (ptrdiff_t i = 0; i < nrows; i++)
        for (ptrdiff_t j = 0; j < ncols; j++) {
            const ptrdiff_t at = ((rows[i].window - begin) * a->w.outputs + cols[j].window) * g_pitch + c;
            const VEC tap = V(set1)((T)(rows[i].tap * a->w.kernel + cols[j].tap));
            for (int v = 0; v < nv; v++) {
                VEC value = FC(get)(g + at + v * LANES, part);
                if (arg_size) {
                    const VEC position = FC(get_positions)(arg, at + v * LANES, part, arg_size);
                    value = V(select)(V(eq)(position, tap), value, V(set1)(0));
                }
                sum[v] = V(add)(sum[v], value);
            }
        }
    for (int v = 0; v < nv; v++)
        FC(put)(gx + c + v * LANES, sum[v], part);
}

/* Input rows [h0, h1); g and arg begin with output row `begin`. */
FC_INLINE void FC(gather_rows)(const fc_pool *a, const T *g, ptrdiff_t g_pitch, ptrdiff_t begin, const void *arg, T *gx,
                               ptrdiff_t h0, ptrdiff_t h1, const int arg_size)
{
    const ptrdiff_t width = a->w.inputs, spill = FC(spill)(a);
    const ptrdiff_t safe_in = h1 * width - spill, safe_out = a->w.outputs - spill;
    for (ptrdiff_t i = h0; i < h1; i++) {
        const fc_visit *r = a->h.visits + a->h.heads[i];
        const ptrdiff_t nr = a->h.heads[i + 1] - a->h.heads[i];
        for (ptrdiff_t j = 0; j < width; j++) {
            const fc_visit *s = a->w.visits + a->w.heads[j];
            const ptrdiff_t ns = a->w.heads[j + 1] - a->w.heads[j];
            const int whole = i * width + j < safe_in && (ns == 0 || s[ns - 1].window < safe_out);
            T *px = gx + (i * width + j) * a->pitch;
            ptrdiff_t c = 0;
            for (; c + 4 * LANES <= a->channels; c += 4 * LANES)
                FC(gather_vec)(a, g, g_pitch, begin, arg, px, r, nr, s, ns, c, 0, 4, arg_size);
            for (; c + LANES <= a->channels || (whole && c < a->channels); c += LANES)
                FC(gather_vec)(a, g, g_pitch, begin, arg, px, r, nr, s, ns, c, 0, 1, arg_size);
            if (c < a->channels)
                FC(gather_vec)(a, g, g_pitch, begin, arg, px, r, nr, s, ns, c, a->channels - c, 1, arg_size);
        }
    }
}

/* Write to `scaled` (rows [p0, p1), Q, channels) the gradient divided by the sizes of the windows. */
static void FC(scale_rows)(const fc_pool *a, const T *g, T *scaled, ptrdiff_t p0, ptrdiff_t p1)
{
    for (ptrdiff_t i = p0; i < p1; i++)
        for (ptrdiff_t j = 0; j < a->w.outputs; j++, scaled += a->channels) {
            const T *pg = g + (i * a->w.outputs + j) * a->pitch;
            const VEC divisor = V(set1)((T)(a->h.spans[i].size * a->w.spans[j].size));
            ptrdiff_t c = 0;
            for (; c + LANES <= a->channels; c += LANES)
                V(store)(scaled + c, V(div)(V(load)(pg + c), divisor));
            if (c < a->channels)
                FC(put)(scaled + c, V(div)(FC(get)(pg + c, a->channels - c), divisor), a->channels - c);
        }
}

static void FC(max_pool_backward)(const fc_pool *a, const void *g, const void *arg, void *gx, ptrdiff_t h0, ptrdiff_t h1)
{
    if (a->arg_size == 4 && a->tiled)
        FC(scatter_rows)(a, g, arg, gx, h0, h1, 0, 4);
    else if (a->arg_size == 4)
        FC(gather_rows)(a, g, a->pitch, 0, arg, gx, h0, h1, 4);
    else if (!a->tiled)
        FC(gather_rows)(a, g, a->pitch, 0, arg, gx, h0, h1, 1);
    else if (a->h.kernel == 2 && a->w.kernel == 2)
        FC(scatter_rows)(a, g, arg, gx, h0, h1, 2, 1);
    else
        FC(scatter_rows)(a, g, arg, gx, h0, h1, 0, 1);
}

/* scratch: output rows that reach [h0, h1) x Q x channels, where windows are not tiled */
static void FC(avg_pool_backward)(const fc_pool *a, const void *g, void *gx, void *scratch, ptrdiff_t h0, ptrdiff_t h1)
{
    if (a->tiled && a->h.kernel == 2 && a->w.kernel == 2)
        FC(scatter_rows)(a, g, NULL, gx, h0, h1, 2, 0);
    else if (a->tiled)
        FC(scatter_rows)(a, g, NULL, gx, h0, h1, 0, 0);
    else {
        const ptrdiff_t from = a->h.heads[h0], to = a->h.heads[h1]; /* the visits of these rows */
        const ptrdiff_t p0 = from < to ? a->h.visits[from].window : 0;
        const ptrdiff_t p1 = from < to ? a->h.visits[to - 1].window + 1 : 0;
        FC(scale_rows)(a, g, scratch, p0, p1);
        FC(gather_rows)(a, scratch, a->channels, p0, NULL, gx, h0, h1, 0);
    }
}
