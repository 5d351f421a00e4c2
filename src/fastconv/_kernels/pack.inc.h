/* Weights and pixels in another order: panels of weights, planes of channels. */

/* Whether the taps of a channel lie side by side, all of them in order, and its channels do: a lane is one run */
FC_INLINE int FC(one_run)(const fc_pack *a)
{
    for (ptrdiff_t t = 0; t < a->ntaps; t++)
        if (a->taps[t] != t)
            return 0;
    return a->c_pitch == a->ntaps;
}

/* n lanes that are runs: elements change places with lanes, four at a time. A cache line of each lane is used up before
 * the next, which is fetched meanwhile: so many lanes are too many for hardware to foresee. */
static void FC(pack_runs)(const fc_pack *a, const T *w, ptrdiff_t n, T *out)
{
    enum { LINE = 64 / sizeof(T) };
    const ptrdiff_t nr = a->nr, length = a->nc * a->ntaps;
    ptrdiff_t c = 0, t = 0;
    for (ptrdiff_t begin = 0; begin < length; begin += LINE) {
        const ptrdiff_t some = length - begin < LINE ? length - begin : LINE;
        T *to[LINE]; /* where each element's lanes go */
        for (ptrdiff_t e = 0; e < some; e++) {
            to[e] = out + (t * a->nc + c) * nr;
            if (++t == a->ntaps) {
                t = 0;
                c++;
            }
        }
        for (ptrdiff_t k = 0; k < nr; k += LANES) {
            const ptrdiff_t part = nr - k < LANES ? nr - k : 0, lanes = n - k < LANES ? n - k : LANES;
            const T *from = w + k * a->lane_pitch + begin;
            for (ptrdiff_t i = 0; i < lanes; i++)
                FC_PREFETCH(from + i * a->lane_pitch + 2 * LINE);
            ptrdiff_t e = 0;
#if FC_SINGLE && LANES >= 8
            if (a->ntaps == 1 && lanes == LANES && !part) /* squares: each line is loaded once */
                for (; e + LANES <= some; e += LANES)
                    f32_turn(from + e, a->lane_pitch, to[e] + k, nr);
#endif
            for (; e + 4 <= some; e += 4) {
                VEC quads[4] = {V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0)};
                if (lanes == LANES)
                    V(load_quads)(from + e, a->lane_pitch, quads, LANES);
                else if (lanes > 0)
                    V(load_quads)(from + e, a->lane_pitch, quads, lanes);
                for (int j = 0; j < 4; j++)
                    FC(put)(to[e + j] + k, quads[j], part);
            }
            for (; e < some; e++)
                for (ptrdiff_t i = 0; i < (part ? part : LANES); i++)
                    to[e][k + i] = i < lanes ? from[i * a->lane_pitch + e] : 0;
        }
    }
}

/* n lanes of nc channels of one tap: out[c][lane], zero from n to nr */
static void FC(pack_tap)(const fc_pack *a, const T *w, ptrdiff_t n, ptrdiff_t nc, T *out)
{
    const ptrdiff_t nr = a->nr;
    for (ptrdiff_t c = 0; c < nc; c++) {
        const T *from = w + c * a->c_pitch;
        T *to = out + c * nr;
        ptrdiff_t k = 0;
        if (a->lane_pitch == 1)
            for (; k + LANES <= n; k += LANES)
                V(store)(to + k, V(load)(from + k));
        for (; k < n; k++)
            to[k] = from[k * a->lane_pitch];
        for (; k < nr; k++)
            to[k] = 0;
    }
}

/* Whether the taps of a lane lie side by side, the last one first, and those of the next lane behind them */
FC_INLINE int FC(turned_run)(const fc_pack *a)
{
    for (ptrdiff_t t = 0; t < a->ntaps; t++)
        if (a->taps[t] != a->ntaps - 1 - t)
            return 0;
    return a->lane_pitch == a->ntaps && a->ntaps >= 4;
}

/* n lanes of such taps, of nc channels: taps change places with lanes, four at a time, some of the last four twice */
static void FC(pack_turned)(const fc_pack *a, const T *w, ptrdiff_t n, T *out)
{
    const ptrdiff_t nr = a->nr, ntaps = a->ntaps;
    for (ptrdiff_t c = 0; c < a->nc; c++)
        for (ptrdiff_t k = 0; k < nr; k += LANES) {
            const ptrdiff_t part = nr - k < LANES ? nr - k : 0, lanes = n - k < LANES ? n - k : LANES;
            const T *from = w + c * a->c_pitch + k * ntaps;
            for (ptrdiff_t begin = 0; begin < ntaps; begin += 4) {
                const ptrdiff_t e = begin + 4 < ntaps ? begin : ntaps - 4;
                VEC quads[4] = {V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0)};
                if (lanes == LANES)
                    V(load_quads)(from + e, ntaps, quads, LANES);
                else if (lanes > 0)
                    V(load_quads)(from + e, ntaps, quads, lanes);
                for (int j = 0; j < 4; j++)
                    FC(put)(out + ((ntaps - 1 - e - j) * a->nc + c) * nr + k, quads[j], part);
            }
        }
}

static void FC(pack)(const fc_pack *a)
{
    const ptrdiff_t nr = a->nr, few = 16;
    const int runs = FC(one_run)(a), turned = FC(turned_run)(a);
    T *panel = a->panels;
    for (ptrdiff_t k = 0; k < a->lanes; k += nr, panel += a->ntaps * a->nc * nr) {
        const T *w = (const T *)a->w + k * a->lane_pitch;
        const ptrdiff_t n = a->lanes - k < nr ? a->lanes - k : nr;
        if (runs) {
            FC(pack_runs)(a, w, n, panel);
            continue;
        }
        if (turned) {
            FC(pack_turned)(a, w, n, panel);
            continue;
        }
        /* a few channels at a time, so that what the taps of a lane share stays in L1 */
        for (ptrdiff_t c = 0; c < a->nc; c += few)
            for (ptrdiff_t t = 0; t < a->ntaps; t++)
                FC(pack_tap)(a, w + a->taps[t] + c * a->c_pitch, n, a->nc - c < few ? a->nc - c : few,
                             panel + (t * a->nc + c) * nr);
    }
}

/* planes[k][i] = x[i, k]; x (n, c) contiguous, planes `pitch` apart */
static void FC(deinterleave)(const void *x, ptrdiff_t n, ptrdiff_t c, void *planes, ptrdiff_t pitch)
{
    const T *p = x;
    T *out = planes;
    ptrdiff_t k = 0;
    for (; k + 4 <= c; k += 4, out += 4 * pitch) { /* four at a time: every cache line is met a quarter as often */
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            VEC quads[4];
            if (i + LANES <= n) {
                V(load_quads)(p + i * c + k, c, quads, LANES);
                for (int j = 0; j < 4; j++)
                    V(store)(out + j * pitch + i, quads[j]);
            } else {
                V(load_quads)(p + i * c + k, c, quads, n - i);
                for (int j = 0; j < 4; j++)
                    V(store_n)(out + j * pitch + i, quads[j], n - i);
            }
        }
    }
    for (; k < c; k++, out += pitch)
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] = p[i * c + k];
}
