/* Products of Winograd's values over T and the vector vocabulary: one product of matrices a plane, in register tiles.
 */

/* What will be needed later: `each` bytes of it are fetched with every chain, for a core waits where it asks for too
 * many at once. */
typedef struct FC(ahead) {
    const char *at, *until;
    ptrdiff_t each;
} FC(ahead);

/* Tiles of one plane, `times` of them one below the other: mr rows, nv vectors of lanes, depth in blocks. Each block
 * is a chain of its own, from zero on, added to the sum of those before. a's rows (across) or a's depth lie side by
 * side. */
FC_INLINE void FC(winograd_tile)(const fc_winograd_products *s, const T *a, const T *b, T *c, ptrdiff_t depth,
                                 ptrdiff_t times, FC(ahead) *ahead, const int across, const int mr, const int nv)
{
    const ptrdiff_t a_step = across ? s->a_depth : 1, a_row = across ? 1 : s->a_row, b_depth = s->b_depth;
    const ptrdiff_t c_row = s->c_row, block = s->block;
    for (; times > 0; times--, a += mr * a_row, c += mr * c_row) {
        const T *x_at = a, *w_at = b;
        int more = s->more;
        for (ptrdiff_t left = depth; left > 0; left -= block, more = 1) {
            for (ahead->until += ahead->each; ahead->at < ahead->until; ahead->at += 64)
                FC_PREFETCH_FAR(ahead->at);
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
                                  ptrdiff_t times, FC(ahead) *ahead);
#define FC_TILE(M, NV)                                                                                               \
    static FC_NOINLINE void FC(winograd_tile_##M##_##NV)(const fc_winograd_products *s, const T *a, const T *b, T *c,\
                                                         ptrdiff_t depth, ptrdiff_t times, FC(ahead) *ahead)         \
    {                                                                                                                \
        if (M <= FC_HEIGHT(NV))                                                                                      \
            FC(winograd_tile)(s, a, b, c, depth, times, ahead, 0, M, NV);                                             \
    }                                                                                                                \
    static FC_NOINLINE void FC(winograd_across_##M##_##NV)(const fc_winograd_products *s, const T *a, const T *b,    \
                                                           T *c, ptrdiff_t depth, ptrdiff_t times,                   \
                                                           FC(ahead) *ahead)                                         \
    {                                                                                                                \
        if (M <= FC_HEIGHT(NV))                                                                                      \
            FC(winograd_tile)(s, a, b, c, depth, times, ahead, 1, M, NV);                                             \
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
    ptrdiff_t chains;          /* of a plane: those of all its tiles */
    FC(ahead) ahead;
    const char *ends, *next, *next_ends; /* of what is fetched ahead, and the range behind it */
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
    p.chains = 0;
    for (int i = 0; i < 2; i++) { /* panels but the last, the last one */
        const ptrdiff_t panels = i ? 1 : (s->lanes + s->nr - 1) / s->nr - 1;
        const ptrdiff_t tiles = s->rows / FC(ROWS) * (p.whole[i].higher + p.whole[i].times) + p.rest[i].higher +
                                p.rest[i].times;
        p.chains += panels * tiles * ((s->depth + s->block - 1) / s->block);
    }
    return p;
}

/* Fetch two ranges from now on, in the course of so many chains */
FC_INLINE void FC(fetch)(FC(pieces) *p, const void *first, ptrdiff_t first_bytes, const void *second,
                         ptrdiff_t second_bytes, ptrdiff_t chains)
{
    p->ahead.at = p->ahead.until = (const char *)first;
    p->ends = p->ahead.at + first_bytes;
    p->next = (const char *)second;
    p->next_ends = p->next + second_bytes;
    p->ahead.each = chains ? (first_bytes + second_bytes + chains - 1) / chains : 0;
}

/* Where a range is fetched, go on with the one behind it */
FC_INLINE void FC(fetch_on)(FC(pieces) *p)
{
    if (p->ahead.at < p->ends)
        return;
    p->ahead.at = p->ahead.until = p->next;
    p->ends = p->next = p->next_ends;
    if (p->ahead.at >= p->ends)
        p->ahead.each = 0;
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
                    FC(fetch_on)(p);
                    if (cut.higher) {
                        (*high)(s, from, panel, to, depth, cut.higher, &p->ahead);
                        from += cut.higher * (cut.mr + 1) * s->a_row;
                        to += cut.higher * (cut.mr + 1) * s->c_row;
                    }
                    high[-1](s, from, panel, to, depth, cut.times, &p->ahead);
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
    const int far = s.a_bytes || s.b_bytes;
    const ptrdiff_t sooner = p.chains - p.chains / 4; /* than the next plane begins */
    if (!far)
        FC(fetch)(&p, s.ahead[0], s.ahead_bytes[0], s.ahead[1], s.ahead_bytes[1], s.planes * p.chains);
    for (ptrdiff_t e = 0; e < s.planes; e++) {
        const T *a = (const T *)s.a + e * s.a_plane, *b = (const T *)s.b + e * s.b_plane;
        if (far && e + 1 < s.planes)
            FC(fetch)(&p, a + s.a_plane, s.a_bytes, b + s.b_plane, s.b_bytes, sooner);
        else if (far)
            FC(fetch)(&p, s.ahead[0], s.ahead_bytes[0], s.ahead[1], s.ahead_bytes[1], p.chains);
        FC(winograd_plane)(&s, &p, a, b, (T *)s.c + e * s.c_plane);
    }
}
