/* Max and mean pooling over T and the vector vocabulary; vectors run across channels.
 *
 * Each output pixel has a window; its spans say what of it lies inside the image. The forward pass reads windows,
 * the backward pass writes them: a pixel that no earlier window has is stored, others are added to. Where windows
 * leave gaps everything is zeroed first.
 *
 * Where the channels do not fill their last vector, a pixel's store may spill into the next pixel of the row,
 * which is written afterwards: few channels need no masks, but near the end of a block.
 *
 * Order of sums: a mean adds each row of its window from left to right, then the rows from top to bottom, and
 * divides (with the bits of a true division); a gradient adds its windows in the order (p, q).
 */

/* A window on registers: stores to memory could alias the structs that describe the pooling. */
typedef struct FC(window) {
    ptrdiff_t rows, cols;      /* taps inside the image */
    ptrdiff_t row, col;        /* elements from one tap to the next */
    ptrdiff_t tap, kernel;     /* position of the first tap; positions in a row of the kernel */
    ptrdiff_t old_rows, old_cols; /* the first ones, which earlier windows have too */
    ptrdiff_t channels;
    int whole;                 /* the last vector may spill */
    T divisor, factor;         /* its reciprocal where that is exact, else 0 */
} FC(window);

FC_INLINE FC(window) FC(window_of)(const fc_pool *a, const fc_span *h, const fc_span *w, int whole)
{
    const ptrdiff_t size = h->size * w->size;
    const int exact = size > 0 && size <= 1 << 20 && (size & (size - 1)) == 0;
    FC(window) v = {h->count, w->count, a->h.step * a->w.inputs * a->x_pitch, a->w.step * a->x_pitch,
                    h->tap * a->w.kernel + w->tap, a->w.kernel, h->old, w->old,
                    a->channels, whole, (T)size, exact ? 1 / (T)size : 0};
    return v;
}

/* The quotient: by a power of two it is a product, with the same bits and sooner. */
FC_INLINE VEC FC(mean_of)(FC(window) v, VEC sum)
{
    return v.factor != 0 ? V(mul)(sum, V(set1)(v.factor)) : V(div)(sum, V(set1)(v.divisor));
}

/* The same with constant sizes where they are known: kr, ks (0 where not), old rows and columns (negative). */
FC_INLINE FC(window) FC(fixed)(FC(window) v, const int kr, const int ks, const int old)
{
    v.rows = kr ? kr : v.rows;
    v.cols = ks ? ks : v.cols;
    v.kernel = ks ? ks : v.kernel;
    v.tap = kr && ks ? 0 : v.tap;
    v.old_rows = old < 0 ? v.old_rows : old;
    v.old_cols = old < 0 ? v.old_cols : old;
    return v;
}

/* Whether the kernel is n x n, and has an instance of its own */
FC_INLINE int FC(square)(const fc_pool *a, const ptrdiff_t n)
{
    return FC_SPECIALISE && a->h.kernel == n && a->w.kernel == n;
}

FC_INLINE ptrdiff_t FC(least)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Pixels into which the last vector of a pixel spills, negative where it may not. */
FC_INLINE ptrdiff_t FC(spill)(const fc_pool *a)
{
    const ptrdiff_t rest = (a->channels + LANES - 1) / LANES * LANES - a->channels;
    const ptrdiff_t c = a->channels;
    return rest && (c != a->x_pitch || c != a->y_pitch || c != a->arg_pitch) ? -1 : (rest + c - 1) / c;
}

/* The end of the regular windows in a row of them, from `begin` on, whose last tap stays before column `safe`. */
FC_INLINE ptrdiff_t FC(run_end)(const fc_axis *w, ptrdiff_t safe)
{
    if (w->begin == w->end)
        return w->end;
    const ptrdiff_t room = safe - w->spans[w->begin].first - (w->kernel - 1) * w->step;
    return room <= 0 ? w->begin : FC(least)(w->end, w->begin + (room + w->stride - 1) / w->stride);
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

/* One vector of channels: the first of the largest, or the first NaN. */
FC_INLINE void FC(max_vec)(FC(window) v, const T *x, T *y, void *arg, ptrdiff_t at, ptrdiff_t part, const int arg_size)
{
    VEC best = FC(get)(x, part), position = V(set1)((T)v.tap);
    for (ptrdiff_t r = 0; r < v.rows; r++)
        for (ptrdiff_t s = 0; s < v.cols; s++) {
            if (r == 0 && s == 0)
                continue;
            const VEC value = FC(get)(x + r * v.row + s * v.col, part);
            const MASK keep = V(or)(V(le)(value, best), V(isnan)(best));
            best = V(select)(keep, best, value);
            if (arg_size)
                position = V(select)(keep, position, V(set1)((T)(v.tap + r * v.kernel + s)));
        }
    FC(put)(y, best, part);
    if (arg_size)
        FC(put_positions)(arg, at, position, part, arg_size);
}

FC_INLINE void FC(max_window)(FC(window) v, const T *x, T *y, void *arg, ptrdiff_t at, const int arg_size)
{
    ptrdiff_t c = 0;
    for (; c + LANES <= v.channels || (v.whole && c < v.channels); c += LANES)
        FC(max_vec)(v, x + c, y + c, arg, at + c, 0, arg_size);
    if (c < v.channels)
        FC(max_vec)(v, x + c, y + c, arg, at + c, v.channels - c, arg_size);
}

/* nv vectors of channels: the mean of what lies inside. */
FC_INLINE void FC(avg_vec)(FC(window) v, const T *x, T *y, ptrdiff_t part, const int nv)
{
    VEC sum[4], line[4];
    for (int i = 0; i < nv; i++)
        sum[i] = V(set1)(0);
    for (ptrdiff_t r = 0; r < v.rows; r++) {
        for (int i = 0; i < nv; i++)
            line[i] = FC(get)(x + r * v.row + i * LANES, part);
        for (ptrdiff_t s = 1; s < v.cols; s++)
            for (int i = 0; i < nv; i++)
                line[i] = V(add)(line[i], FC(get)(x + r * v.row + s * v.col + i * LANES, part));
        for (int i = 0; i < nv; i++)
            sum[i] = V(add)(sum[i], line[i]);
    }
    for (int i = 0; i < nv; i++)
        FC(put)(y + i * LANES, FC(mean_of)(v, sum[i]), part);
}

FC_INLINE void FC(avg_window)(FC(window) v, const T *x, T *y)
{
    ptrdiff_t c = 0;
    for (; c + 4 * LANES <= v.channels; c += 4 * LANES)
        FC(avg_vec)(v, x + c, y + c, 0, 4);
    for (; c + LANES <= v.channels || (v.whole && c < v.channels); c += LANES)
        FC(avg_vec)(v, x + c, y + c, 0, 1);
    if (c < v.channels)
        FC(avg_vec)(v, x + c, y + c, v.channels - c, 1);
}

/* Output rows [p0, p1), for kernels of kr x ks taps (0: any). */
FC_INLINE void FC(pool_rows)(const fc_pool *a, const T *x, T *y, void *arg, ptrdiff_t p0, ptrdiff_t p1, const int mean,
                             const int kr, const int ks, const int arg_size)
{
    const ptrdiff_t width = a->w.inputs, q = a->w.outputs, spill = FC(spill)(a);
    const ptrdiff_t y_pitch = a->y_pitch, arg_pitch = a->arg_pitch, stride = a->w.stride * a->x_pitch;
    for (ptrdiff_t i = p0; i < p1; i++) {
        const fc_span *h = a->h.spans + i;
        const ptrdiff_t safe_in = (a->h.inputs - h->first - (h->count - 1) * a->h.step) * width - spill;
        const ptrdiff_t safe_out = (p1 - i) * q - spill;
        const ptrdiff_t end = spill < 0 ? a->w.end : FC(least)(FC(run_end)(&a->w, safe_in), safe_out);
        const T *row = x + h->first * width * a->x_pitch;
        for (ptrdiff_t j = 0; j < q; j++) {
            const fc_span *w = a->w.spans + j;
            const T *px = row + w->first * a->x_pitch;
            T *py = y + (i * q + j) * y_pitch;
            ptrdiff_t at = (i * q + j) * arg_pitch;
            if (j != a->w.begin || j >= end) { /* cut by a border, or near the end of the block */
                const FC(window) v = FC(window_of)(a, h, w, 0);
                mean ? FC(avg_window)(v, px, py) : FC(max_window)(v, px, py, arg, at, arg_size);
                continue;
            }
            const FC(window) v = FC(window_of)(a, h, w, spill >= 0);
            if (kr && h->count == kr)
                for (; j < end; j++, px += stride, py += y_pitch, at += arg_pitch)
                    mean ? FC(avg_window)(FC(fixed)(v, kr, ks, -1), px, py)
                         : FC(max_window)(FC(fixed)(v, kr, ks, -1), px, py, arg, at, arg_size);
            else
                for (; j < end; j++, px += stride, py += y_pitch, at += arg_pitch)
                    mean ? FC(avg_window)(FC(fixed)(v, 0, ks, -1), px, py)
                         : FC(max_window)(FC(fixed)(v, 0, ks, -1), px, py, arg, at, arg_size);
            j--;
        }
    }
}

static void FC(max_pool)(const fc_pool *a, const void *x, void *y, void *arg, ptrdiff_t p0, ptrdiff_t p1)
{
    const int two = FC(square)(a, 2), three = FC(square)(a, 3);
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
    if (FC(square)(a, 2))
        FC(pool_rows)(a, x, y, NULL, p0, p1, 1, 2, 2, 0);
    else if (FC(square)(a, 3))
        FC(pool_rows)(a, x, y, NULL, p0, p1, 1, 3, 3, 0);
    else
        FC(pool_rows)(a, x, y, NULL, p0, p1, 1, 0, 0, 0);
}

/* --- backward ----------------------------------------------------------------------------------------------- */

FC_INLINE void FC(zero_pixels)(const fc_pool *a, T *gx, ptrdiff_t n)
{
    const ptrdiff_t pitch = a->x_pitch, channels = a->channels;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t c = 0; c < channels; c++)
            gx[i * pitch + c] = 0;
}

/* One vector of channels: the gradient (divided, for a mean), or zero where the maximum was elsewhere. */
FC_INLINE void FC(scatter_vec)(FC(window) v, const T *g, const void *arg, ptrdiff_t at, T *gx, ptrdiff_t part,
                               const int arg_size)
{
    VEC value = FC(get)(g, part), position = V(set1)(0);
    if (arg_size)
        position = FC(get_positions)(arg, at, part, arg_size);
    else
        value = FC(mean_of)(v, value);
    for (ptrdiff_t r = 0; r < v.rows; r++)
        for (ptrdiff_t s = 0; s < v.cols; s++) {
            T *p = gx + r * v.row + s * v.col;
            VEC mine = value;
            if (arg_size)
                mine = V(select)(V(eq)(position, V(set1)((T)(v.tap + r * v.kernel + s))), value, V(set1)(0));
            if (r < v.old_rows || s < v.old_cols)
                mine = V(add)(FC(get)(p, part), mine);
            FC(put)(p, mine, part);
        }
}

FC_INLINE void FC(scatter_window)(FC(window) v, const T *g, const void *arg, ptrdiff_t at, T *gx, const int arg_size)
{
    ptrdiff_t c = 0;
    for (; c + LANES <= v.channels || (v.whole && c < v.channels); c += LANES)
        FC(scatter_vec)(v, g + c, arg, at + c, gx + c, 0, arg_size);
    if (c < v.channels)
        FC(scatter_vec)(v, g + c, arg, at + c, gx + c, v.channels - c, arg_size);
}

/* The windows of output row i, what of them lies in the input rows of span h; old: where that is known, see above. */
FC_INLINE void FC(scatter_row)(const fc_pool *a, const fc_span *h, ptrdiff_t i, const T *g, const void *arg, T *gx,
                               ptrdiff_t spill, const int kernel, const int old, const int arg_size)
{
    const ptrdiff_t width = a->w.inputs, q = a->w.outputs, stride = a->w.stride * a->x_pitch;
    const ptrdiff_t y_pitch = a->y_pitch, arg_pitch = a->arg_pitch;
    const ptrdiff_t end = spill < 0 ? a->w.end : FC(least)(FC(run_end)(&a->w, width - spill), q - spill);
    for (ptrdiff_t j = 0; j < q; j++) {
        const fc_span *w = a->w.spans + j;
        T *px = gx + (h->first * width + w->first) * a->x_pitch;
        const T *pg = g + (i * q + j) * y_pitch;
        ptrdiff_t at = (i * q + j) * arg_pitch;
        if (j != a->w.begin || j >= end) {
            FC(scatter_window)(FC(window_of)(a, h, w, 0), pg, arg, at, px, arg_size);
            continue;
        }
        const FC(window) v = FC(window_of)(a, h, w, spill >= 0);
        if (kernel && h->count == kernel && h->old == old && w->old == old)
            for (; j < end; j++, px += stride, pg += y_pitch, at += arg_pitch)
                FC(scatter_window)(FC(fixed)(v, kernel, kernel, old), pg, arg, at, px, arg_size);
        else
            for (; j < end; j++, px += stride, pg += y_pitch, at += arg_pitch)
                FC(scatter_window)(FC(fixed)(v, 0, kernel, -1), pg, arg, at, px, arg_size);
        j--;
    }
}

/* Windows side by side: the input rows of the windows [p0, p1), and what no window covers. */
FC_INLINE void FC(scatter_tiled)(const fc_pool *a, const T *g, const void *arg, T *gx, ptrdiff_t p0, ptrdiff_t p1,
                                 const int kernel, const int arg_size)
{
    const ptrdiff_t width = a->w.inputs;
    /* of several vectors the last would spill over the first of the next pixel, which is already written */
    const ptrdiff_t spill = a->channels > LANES && a->channels % LANES ? -1 : FC(spill)(a);
    for (ptrdiff_t i = p0; i < p1; i++) {
        const fc_span *h = a->h.spans + i;
        FC(scatter_row)(a, h, i, g, arg, gx, spill, kernel, 0, arg_size);
        for (ptrdiff_t r = h->first; r < h->first + h->count; r++)
            FC(zero_pixels)(a, gx + (r * width + a->w.covered) * a->x_pitch, width - a->w.covered);
    }
    if (p1 == a->h.outputs)
        FC(zero_pixels)(a, gx + a->h.covered * width * a->x_pitch, (a->h.inputs - a->h.covered) * width);
}

/* Overlapping windows, or windows with gaps: the input rows [h0, h1), from all windows that reach them. */
FC_INLINE void FC(scatter_added)(const fc_pool *a, const T *g, const void *arg, T *gx, ptrdiff_t h0, ptrdiff_t h1,
                                 const int kernel, const int arg_size)
{
    const ptrdiff_t step = a->h.step, width = a->w.inputs;
    for (ptrdiff_t r = h0; r < h1; r++) {
        const ptrdiff_t covered = r < a->h.covered ? a->w.covered : 0;
        FC(zero_pixels)(a, gx + (r * width + covered) * a->x_pitch, width - covered);
    }
    for (ptrdiff_t i = 0; i < a->h.outputs; i++) {
        fc_span h = a->h.spans[i];
        for (; h.count > 0 && h.first < h0; h.first += step, h.tap++, h.old--)
            h.count--;
        while (h.count > 0 && h.first + (h.count - 1) * step >= h1)
            h.count--;
        if (h.count > 0)
            FC(scatter_row)(a, &h, i, g, arg, gx, -1, kernel, 1, arg_size);
    }
}

FC_INLINE void FC(scatter)(const fc_pool *a, const T *g, const void *arg, T *gx, ptrdiff_t begin, ptrdiff_t end,
                           const int kernel, const int arg_size)
{
    if (a->tiled)
        FC(scatter_tiled)(a, g, arg, gx, begin, end, kernel, arg_size);
    else
        FC(scatter_added)(a, g, arg, gx, begin, end, kernel, arg_size);
}

static void FC(max_pool_backward)(const fc_pool *a, const void *g, const void *arg, void *gx, ptrdiff_t begin,
                                  ptrdiff_t end)
{
    if (a->arg_size == 4)
        FC(scatter)(a, g, arg, gx, begin, end, 0, 4);
    else if (FC(square)(a, 2))
        FC(scatter)(a, g, arg, gx, begin, end, 2, 1);
    else if (FC(square)(a, 3))
        FC(scatter)(a, g, arg, gx, begin, end, 3, 1);
    else
        FC(scatter)(a, g, arg, gx, begin, end, 0, 1);
}

static void FC(avg_pool_backward)(const fc_pool *a, const void *g, void *gx, ptrdiff_t begin, ptrdiff_t end)
{
    if (FC(square)(a, 2))
        FC(scatter)(a, g, NULL, gx, begin, end, 2, 0);
    else if (FC(square)(a, 3))
        FC(scatter)(a, g, NULL, gx, begin, end, 3, 0);
    else
        FC(scatter)(a, g, NULL, gx, begin, end, 0, 0);
}
