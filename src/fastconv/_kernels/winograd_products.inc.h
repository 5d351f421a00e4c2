/* Products of Winograd's values over T and the vector vocabulary: one product of matrices a plane, in register tiles.
 */

/* Tiles of one plane, `times` of them one below the other: mr rows, nv vectors of lanes, depth in blocks. Each block
 * is a chain of its own, from zero on, added to the sum of those before. a's rows (across) or a's depth lie side by
 * side. */
FC_INLINE void FC(winograd_tile)(const fc_winograd_products *s, const T *a, const T *b, T *c, ptrdiff_t depth,
                                 ptrdiff_t times, const int across, const int mr, const int nv)
{
    const ptrdiff_t a_step = across ? s->a_depth : 1, a_row = across ? 1 : s->a_row, b_depth = s->b_depth;
    const ptrdiff_t c_row = s->c_row, block = s->block;
    for (; times > 0; times--, a += mr * a_row, c += mr * c_row) {
        const T *x_at = a, *w_at = b;
        int more = s->more;
        for (ptrdiff_t left = depth; left > 0; left -= block, more = 1) {
            VEC acc[FC_HIGHEST][FC_NV];
            for (int i = 0; i < mr; i++)
                for (int v = 0; v < nv; v++)
                    acc[i][v] = V(set1)(0);
            for (ptrdiff_t d = left < block ? left : block; d > 0; d--, x_at += a_step, w_at += b_depth) {
                VEC w[FC_NV];
                for (int v = 0; v < nv; v++) {
                    w[v] = V(load)(w_at + v * LANES);
                    if (nv > 2)
                        FC_PIN(w[v]); /* loaded once, not with each multiply-add */
                }
                for (int i = 0; i < mr; i++) {
                    const VEC x = V(set1)(x_at[i * a_row]);
                    for (int v = 0; v < nv; v++)
                        acc[i][v] = V(fma)(x, w[v], acc[i][v]);
                }
            }
            T *to = c;
            if (more)
                FC_UNROLL for (int i = 0; i < mr; i++, to += c_row)
                    FC_UNROLL for (int v = 0; v < nv; v++)
                        V(store)(to + v * LANES, V(add)(V(load)(to + v * LANES), acc[i][v]));
            else
                FC_UNROLL for (int i = 0; i < mr; i++, to += c_row)
                    FC_UNROLL for (int v = 0; v < nv; v++)
                        V(store)(to + v * LANES, acc[i][v]);
        }
    }
}

typedef void FC(winograd_tile_of)(const fc_winograd_products *s, const T *a, const T *b, T *c, ptrdiff_t depth,
                                  ptrdiff_t times);
#define FC_TILE(M, NV)                                                                                               \
    static FC_NOINLINE void FC(winograd_tile_##M##_##NV)(const fc_winograd_products *s, const T *a, const T *b, T *c,\
                                                         ptrdiff_t depth, ptrdiff_t times)                           \
    {                                                                                                                \
        if (M <= FC_HEIGHT(NV))                                                                                      \
            FC(winograd_tile)(s, a, b, c, depth, times, 0, M, NV);                                                    \
    }                                                                                                                \
    static FC_NOINLINE void FC(winograd_across_##M##_##NV)(const fc_winograd_products *s, const T *a, const T *b,    \
                                                           T *c, ptrdiff_t depth, ptrdiff_t times)                   \
    {                                                                                                                \
        if (M <= FC_HEIGHT(NV))                                                                                      \
            FC(winograd_tile)(s, a, b, c, depth, times, 1, M, NV);                                                    \
    }
#define FC_TILES(NV) FC_EACH_HEIGHT(FC_TILE, NV)
FC_EACH_NV(FC_TILES)
#undef FC_TILE
#undef FC_TILES
#define FC_TILES(NV) {FC_EACH_HEIGHT(FC_TILE, NV)},
static FC(winograd_tile_of) *const FC(winograd_tiles)[2][FC_NV][FC_HIGHEST] = {
#define FC_TILE(M, NV) FC(winograd_tile_##M##_##NV),
    {FC_EACH_NV(FC_TILES)},
#undef FC_TILE
#define FC_TILE(M, NV) FC(winograd_across_##M##_##NV),
    {FC_EACH_NV(FC_TILES)},
#undef FC_TILE
};
#undef FC_TILES

/* What will be needed behind the products, and how much of it is fetched each time */
typedef struct FC(ahead) {
    const char *at, *end;
    ptrdiff_t step;
} FC(ahead);

FC_INLINE void FC(fetch_ahead)(FC(ahead) *f)
{
    const char *stop = f->end - f->at < f->step ? f->end : f->at + f->step;
    for (; f->at < stop; f->at += 64)
        FC_PREFETCH_FAR(f->at);
}

/* How some rows are cut into tiles of nearly equal heights: `higher` of mr + 1 rows, then `times` of mr */
typedef struct FC(cut) {
    ptrdiff_t mr, higher, times;
} FC(cut);

FC_INLINE FC(cut) FC(cut_of)(ptrdiff_t rows, ptrdiff_t nv)
{
    const ptrdiff_t most = nv == 1 ? FC_HEIGHT(1) : nv == 2 ? FC_HEIGHT(2) : nv == 3 ? FC_HEIGHT(3) : FC_HEIGHT(4);
    const ptrdiff_t times = (rows + most - 1) / most, mr = times ? rows / times : 0;
    return (FC(cut)){mr, rows - times * mr, times - (rows - times * mr)};
}

/* Rows and lanes by pieces whose sums stay in L1, depth by pieces that do, too. All that takes divisions is worked out
 * once for all planes: one may be no more than a few tiles. */
typedef struct FC(pieces) {
    ptrdiff_t depth, panels;
    FC(cut) whole[2], rest[2]; /* of all rows at a time and of the last ones; by whole panels and the last one */
    ptrdiff_t nv[2];
    FC(ahead) ahead[2];
} FC(pieces);

enum { FC(ROWS) = 48, FC(LANES_AT_ONCE) = 256 / sizeof(T), FC(DEPTH) = 128 };

FC_INLINE FC(pieces) FC(pieces_of)(const fc_winograd_products *s)
{
    FC(pieces) p;
    const ptrdiff_t last = s->lanes % s->nr ? s->lanes % s->nr : s->nr;
    p.depth = FC(DEPTH) / s->block > 0 ? FC(DEPTH) / s->block * s->block : s->block;
    p.panels = FC(LANES_AT_ONCE) / s->nr > 0 ? FC(LANES_AT_ONCE) / s->nr : 1;
    for (int i = 0; i < 2; i++) {
        p.nv[i] = ((i ? last : s->nr) + LANES - 1) / LANES;
        p.whole[i] = FC(cut_of)(FC(ROWS), p.nv[i]);
        p.rest[i] = FC(cut_of)(s->rows % FC(ROWS), p.nv[i]);
    }
    const ptrdiff_t calls = s->planes * ((s->lanes + s->nr - 1) / s->nr) * ((s->rows + FC(ROWS) - 1) / FC(ROWS)) *
                            ((s->depth + p.depth - 1) / p.depth);
    for (int i = 0; i < 2; i++) {
        p.ahead[i].at = s->ahead[i];
        p.ahead[i].end = p.ahead[i].at + s->ahead_bytes[i];
        p.ahead[i].step = calls ? (s->ahead_bytes[i] / 64 / calls + 1) * 64 : 0;
    }
    return p;
}

/* One plane */
FC_INLINE void FC(winograd_plane)(fc_winograd_products *s, FC(pieces) *p, const T *a, const T *b, T *c)
{
    FC(winograd_tile_of) *const(*tiles)[FC_HIGHEST] = FC(winograd_tiles)[s->a_row == 1];
    const int more = s->more;
    for (ptrdiff_t r = 0; r < s->rows; r += FC(ROWS)) {
        const FC(cut) *cuts = s->rows - r < FC(ROWS) ? p->rest : p->whole;
        const T *group = b;
        for (ptrdiff_t g = 0; g < s->lanes; g += p->panels * s->nr, group += p->panels * s->b_panel) {
            const ptrdiff_t end = s->lanes - g < p->panels * s->nr ? s->lanes : g + p->panels * s->nr;
            for (ptrdiff_t d = 0; d < s->depth; d += p->depth) {
                const ptrdiff_t depth = s->depth - d < p->depth ? s->depth - d : p->depth;
                const T *panel = group + d * s->b_depth;
                s->more = more || d > 0;
                for (ptrdiff_t k = g; k < end; k += s->nr, panel += s->b_panel) {
                    const int last = s->lanes - k <= s->nr;
                    const FC(cut) cut = cuts[last];
                    FC(winograd_tile_of) *const *high = tiles[p->nv[last] - 1] + cut.mr;
                    const T *from = a + r * s->a_row + d * s->a_depth;
                    T *to = c + r * s->c_row + k;
                    FC(fetch_ahead)(&p->ahead[0]);
                    FC(fetch_ahead)(&p->ahead[1]);
                    if (cut.higher) {
                        (*high)(s, from, panel, to, depth, cut.higher);
                        from += cut.higher * (cut.mr + 1) * s->a_row;
                        to += cut.higher * (cut.mr + 1) * s->c_row;
                    }
                    high[-1](s, from, panel, to, depth, cut.times);
                }
            }
        }
    }
    s->more = more;
}

static void FC(winograd_products)(const fc_winograd_products *given)
{
    fc_winograd_products s = *given;
    FC(pieces) p = FC(pieces_of)(&s);
    for (ptrdiff_t e = 0; e < s.planes; e++)
        FC(winograd_plane)(&s, &p, (const T *)s.a + e * s.a_plane, (const T *)s.b + e * s.b_plane,
                           (T *)s.c + e * s.c_plane);
}
