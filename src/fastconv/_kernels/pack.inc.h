/* Weights and pixels in another order: panels of weights, planes of channels. */

/* n lanes of nc channels of one tap: out[c][lane], zero from n to nr */
static void FC(pack_tap)(const fc_pack *a, const T *w, ptrdiff_t n, ptrdiff_t nc, T *out)
{
    const ptrdiff_t nr = a->nr;
    ptrdiff_t c = 0;
    if (a->c_pitch == 1) /* channels side by side: four of them change places with a vector of lanes */
        for (; c + 4 <= nc; c += 4)
            for (ptrdiff_t k = 0; k < nr; k += LANES) {
                VEC quads[4] = {V(set1)(0), V(set1)(0), V(set1)(0), V(set1)(0)};
                if (k + LANES <= n)
                    V(load_quads)(w + k * a->lane_pitch + c, a->lane_pitch, quads, LANES);
                else if (k < n)
                    V(load_quads)(w + k * a->lane_pitch + c, a->lane_pitch, quads, n - k);
                for (int j = 0; j < 4; j++)
                    V(store)(out + (c + j) * nr + k, quads[j]);
            }
    for (; c < nc; c++) {
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

/* A few channels at a time, so that what the taps of a lane share stays in L1 */
static void FC(pack)(const fc_pack *a)
{
    const ptrdiff_t nr = a->nr, few = 16;
    T *panel = a->panels;
    for (ptrdiff_t k = 0; k < a->lanes; k += nr, panel += a->ntaps * a->nc * nr)
        for (ptrdiff_t c = 0; c < a->nc; c += few)
            for (ptrdiff_t t = 0; t < a->ntaps; t++)
                FC(pack_tap)(a, (const T *)a->w + k * a->lane_pitch + a->taps[t] + c * a->c_pitch,
                             a->lanes - k < nr ? a->lanes - k : nr, a->nc - c < few ? a->nc - c : few,
                             panel + (t * a->nc + c) * nr);
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
