/* Epilogues (fc_epilogue of args.h) over T and the vector vocabulary.
 *
 * Convolution tiles do bias, scale, shift and what maxima and minima make (ReLU, ReLU6) in their registers
 * (`finish_vec`) and leave the rest, where there is any, to `finish_later`, which takes up what the tile has just stored,
 * while it is in the first cache. Rows that come from memory go through `finish`.
 */

/* Some rows of n neighbouring channels, and what of an epilogue belongs to them; a step left out is NULL. */
typedef struct FC(span) {
    const T *x, *add;
    T *pre, *y;
    ptrdiff_t x_row, add_row, y_row, rows, n;
    const T *bias, *scale, *shift, *slopes;
} FC(span);

/* What a sum, which is no denormal number, becomes in registers: act is FC_ACT_none, _relu or _hardtanh */
FC_INLINE VEC FC(act_vec)(VEC r, const fc_epilogue *e, int act)
{
    if (act == FC_ACT_none)
        return r;
    return act == FC_ACT_relu ? FC(relu_vec)(r) : FC(clip)(r, V(set1)((T)e->a), V(set1)((T)e->b));
}

/* The sums of the channels from k on, in registers, with the epilogue applied */
FC_INLINE VEC FC(finish_vec)(VEC r, const fc_epilogue *e, int act, ptrdiff_t k, ptrdiff_t part)
{
    const T *b = e->bias, *f = e->scale, *s = e->shift;
    if (b)
        r = V(add)(r, FC(get)(b + k, part));
    if (f)
        r = V(fma)(r, FC(get)(f + k, part), FC(get)(s + k, part));
    return FC(act_vec)(r, e, act);
}

/* The same of n sums, a constant, `apart` registers from one to the next: step after step for all of them. A loop that
 * makes each ready before the next is not unrolled, and the sums go through memory. */
FC_INLINE void FC(finish_sums)(VEC *sums, const int n, const int apart, const fc_epilogue *e, int act, ptrdiff_t k,
                               ptrdiff_t part)
{
    if (e->bias) {
        const VEC b = FC(get)((const T *)e->bias + k, part);
        FC_UNROLL for (int i = 0; i < n; i++)
            sums[i * apart] = V(add)(sums[i * apart], b);
    }
    if (e->scale) {
        const VEC f = FC(get)((const T *)e->scale + k, part), s = FC(get)((const T *)e->shift + k, part);
        FC_UNROLL for (int i = 0; i < n; i++)
            sums[i * apart] = V(fma)(sums[i * apart], f, s);
    }
    if (act == FC_ACT_relu) {
        FC_UNROLL for (int i = 0; i < n; i++)
            sums[i * apart] = FC(relu_vec)(sums[i * apart]);
    } else if (act != FC_ACT_none) {
        const VEC low = V(set1)((T)e->a), high = V(set1)((T)e->b);
        FC_UNROLL for (int i = 0; i < n; i++)
            sums[i * apart] = FC(clip)(sums[i * apart], low, high);
    }
}

FC_INLINE VEC FC(none_act)(VEC x, VEC a, VEC b)
{
    (void)a, (void)b;
    return x;
}

/* ReLU of a sum, which is no denormal number */
FC_INLINE VEC FC(sum_relu_act)(VEC x, VEC a, VEC b)
{
    (void)a, (void)b;
    return FC(relu_vec)(x);
}

/* Which parts of an epilogue a loop looks for */
enum { FC(BARE), FC(BIASED), FC(SCALED), FC(WHOLE) };

/* One vector, or its first `part` lanes, at channel k of row i. f, form and channels are constants at every call, here
 * and below, so that what is not there costs nothing. */
FC_INLINE void FC(finish_one)(const FC(span) *s, ptrdiff_t i, ptrdiff_t k, const ptrdiff_t part, VEC a, VEC b,
                              FC(activation) *f, const int form, const int channels)
{
    VEC r = FC(get)(s->x + i * s->x_row + k, part);
    if (form == FC(BIASED) || (form == FC(WHOLE) && s->bias))
        r = V(add)(r, FC(get)(s->bias + k, part));
    if (form == FC(SCALED) || (form == FC(WHOLE) && s->scale))
        r = V(fma)(r, FC(get)(s->scale + k, part), FC(get)(s->shift + k, part));
    if (form == FC(WHOLE) && s->add)
        r = V(add)(r, FC(get)(s->add + i * s->add_row + k, part));
    if (form == FC(WHOLE) && s->pre)
        FC(put)(s->pre + i * s->y_row + k, r, part);
    FC(put)(s->y + i * s->y_row + k, f(r, channels ? FC(get)(s->slopes + k, part) : a, b), part);
}

FC_INLINE void FC(finish_rows)(const fc_epilogue *e, const FC(span) *given, FC(activation) *f, const int form,
                               const int channels)
{
    const FC(span) s = *given; /* a copy: what is stored cannot lie here */
    const VEC a = V(set1)((T)e->a), b = V(set1)((T)e->b);
    for (ptrdiff_t i = 0; i < s.rows; i++) {
        ptrdiff_t k = 0;
        for (; k + LANES <= s.n; k += LANES)
            FC(finish_one)(&s, i, k, 0, a, b, f, form, channels);
        if (k < s.n)
            FC(finish_one)(&s, i, k, s.n - k, a, b, f, form, channels);
    }
}

/* These may have loops of their own: a bias or a scale alone, with ReLU or nothing behind it; each activation alone */
static FC_NOINLINE void FC(finish_span)(const fc_epilogue *e, const FC(span) *s)
{
    const int more = !FC_SPECIALISE_ACTIVATIONS || s->add || s->pre || (s->bias && s->scale);
    const int form = more ? FC(WHOLE) : s->bias ? FC(BIASED) : s->scale ? FC(SCALED) : FC(BARE);
#define FC_FORM(act, FORM)                                                                                           \
    if (form == FC(FORM)) {                                                                                          \
        FC(finish_rows)(e, s, FC(act), FC(FORM), 0);                                                                 \
        return;                                                                                                      \
    }
    if (e->activation == FC_ACT_none) {
        FC_FORM(none_act, BIASED)
        FC_FORM(none_act, SCALED)
    } else if (e->activation == FC_ACT_relu) {
        FC_FORM(sum_relu_act, BIASED)
        FC_FORM(sum_relu_act, SCALED)
    }
#undef FC_FORM
#define FC_ACTIVATION(name, mathematics, known, cost, channels, a, b, parameters)                                    \
    case FC_ACT_##name:                                                                                              \
        if (form == FC(BARE))                                                                                        \
            FC(finish_rows)(e, s, FC(mathematics##_act), FC(BARE), channels);                                        \
        else                                                                                                         \
            FC(finish_rows)(e, s, FC(mathematics##_act), FC(WHOLE), channels);                                       \
        break;
    switch (e->activation) {
        FC_ACTIVATION(none, none, FC_OUTPUT, 1, 0, 0, 0, "")
#include "activations.inc"
    }
#undef FC_ACTIVATION
}

/* The parts of an epilogue that tiles apply themselves, and those left for when their sums are stored */
typedef struct FC(stages) {
    int act, later;
    fc_epilogue rest;
} FC(stages);

FC_INLINE FC(stages) FC(stages_of)(const fc_epilogue *e)
{
    FC(stages) s;
    const int act = e->activation == FC_ACT_relu6 ? FC_ACT_hardtanh : e->activation;
    s.later = e->add || e->pre || !(act == FC_ACT_none || act == FC_ACT_relu || act == FC_ACT_hardtanh);
    s.act = s.later ? FC_ACT_none : act;
    s.rest = *e;
    return s;
}

/* The rest for n channels from k on of some pixels that are stored: they lie `at` elements behind y, y_row apart, and
 * what is added `add_at` behind e->add */
static FC_NOINLINE void FC(finish_later)(const FC(stages) *stages, void *y, ptrdiff_t at, ptrdiff_t y_row,
                                         ptrdiff_t add_at, ptrdiff_t add_row, ptrdiff_t rows, ptrdiff_t k, ptrdiff_t n)
{
    const fc_epilogue *e = &stages->rest;
    FC(span) s = {
        .x = (const T *)y + at + k,
        .y = (T *)y + at + k,
        .add = e->add ? (const T *)e->add + add_at + k : NULL,
        .pre = e->pre ? (T *)e->pre + at + k : NULL,
        .slopes = e->slopes ? (const T *)e->slopes + k : NULL,
        .x_row = y_row, .add_row = add_row, .y_row = y_row, .rows = rows, .n = n,
    };
    if (y_row == n && !e->slopes && (!e->add || add_row == n)) { /* pixels without a gap are one row */
        s.n *= rows;
        s.rows = 1;
    }
    FC(finish_span)(e, &s);
}

/* y (n, c) = epilogue(x), rows x_row and y_row apart; y may be x */
static void FC(finish)(const fc_epilogue *e, const void *x, ptrdiff_t x_row, void *y, ptrdiff_t y_row, ptrdiff_t n,
                       ptrdiff_t c)
{
    FC(span) s = {
        .x = x, .add = e->add, .pre = e->pre, .y = y, .x_row = x_row, .add_row = e->add_col, .y_row = y_row, .rows = n,
        .n = c, .bias = e->bias, .scale = e->scale, .shift = e->shift, .slopes = e->slopes,
    };
    const int close = x_row == c && y_row == c && (!s.add || s.add_row == c);
    if (close && !s.bias && !s.scale && !s.slopes) { /* one long row */
        s.n *= n;
        s.rows = 1;
        FC(finish_span)(e, &s);
        return;
    }
    const ptrdiff_t fold = FC(fold)(c);
    if (fold == 1 || n < fold || !close) {
        FC(finish_span)(e, &s);
        return;
    }
    T wide[4][FC(WIDE)];
    const T **rows[] = {&s.bias, &s.scale, &s.shift, &s.slopes};
    for (int i = 0; i < 4; i++)
        if (*rows[i]) {
            FC(repeat)(*rows[i], c, fold, wide[i]);
            *rows[i] = wide[i];
        }
    s.x_row = s.add_row = s.y_row = s.n = fold * c;
    s.rows = n / fold;
    FC(finish_span)(e, &s);
    const ptrdiff_t done = s.rows * s.n;
    s.x += done;
    s.y += done;
    s.add = s.add ? s.add + done : NULL;
    s.pre = s.pre ? s.pre + done : NULL;
    s.rows = 1;
    s.n = n % fold * c;
    FC(finish_span)(e, &s);
}

/* dx (n, c) = g times the slope of the activation where its output or input is `known`, rows so many elements apart;
 * dx may be either */
FC_INLINE void FC(gradient_rows)(const fc_epilogue *e, const T *g, ptrdiff_t g_row, const T *known, ptrdiff_t known_row,
                                 T *dx, ptrdiff_t dx_row, ptrdiff_t n, ptrdiff_t c, FC(gradient) *f, const int channels)
{
    const VEC b = V(set1)((T)e->b);
    VEC a = V(set1)((T)e->a);
    if (!channels && g_row == c && known_row == c && dx_row == c) {
        c *= n;
        n = 1;
    }
    for (ptrdiff_t i = 0; i < n; i++, g += g_row, known += known_row, dx += dx_row)
        for (ptrdiff_t k = 0; k < c; k += LANES) {
            const ptrdiff_t part = c - k < LANES ? c - k : 0;
            if (channels)
                a = FC(get)((const T *)e->slopes + k, part);
            FC(put)(dx + k, f(FC(get)(g + k, part), FC(get)(known + k, part), a, b), part);
        }
}

static void FC(activate_backward)(const fc_epilogue *e, const void *g, ptrdiff_t g_row, const void *known,
                                  ptrdiff_t known_row, void *dx, ptrdiff_t dx_row, ptrdiff_t n, ptrdiff_t c)
{
#define FC_ACTIVATION(name, mathematics, known_, cost, channels, a, b, parameters)                                   \
    case FC_ACT_##name:                                                                                              \
        FC(gradient_rows)(e, g, g_row, known, known_row, dx, dx_row, n, c, FC(mathematics##_grad), channels);        \
        break;
    switch (e->activation) {
#include "activations.inc"
    }
#undef FC_ACTIVATION
}
