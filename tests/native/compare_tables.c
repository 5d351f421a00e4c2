/* Run every convolution, normalisation and residual-core kernel of every supported table on the same random data and
 * compare the bits with the scalar table's. For machines and emulators where the Python tests cannot run
 * (see scripts/cross_neon.sh). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

enum { C = 7, K = 21, ROWS = 5, COLS = 17, TAPS = 3, WIDTH = COLS + TAPS, COUNT = 65536 };

static double x64[COUNT], w64[COUNT], g64[COUNT];
static float x32[COUNT], w32[COUNT], g32[COUNT];

static void fill(unsigned seed)
{
    for (int i = 0; i < COUNT; i++) {
        double *targets[] = {x64, w64, g64};
        float *singles[] = {x32, w32, g32};
        for (int j = 0; j < 3; j++) {
            seed = seed * 1664525u + 1013904223u;
            targets[j][i] = ((double)seed / 4294967296.0 - 0.5) * 3.0;
            singles[j][i] = (float)targets[j][i];
        }
    }
}

/* Three layers of residual cores, forward and back, of some widths, batches and activations. */
static char *run_deep(const fc_ops *ops, const void *x, const void *w, const void *g, char *out)
{
    static char tape[COUNT * 16], scratch[COUNT * 16];
    const ptrdiff_t widths[] = {1, 2, 4, 5, 8, 17}, layers = 3, size = ops->size;
    for (int i = 0; i < 6; i++)
        for (ptrdiff_t blocks = 1; blocks < 3; blocks++)
            for (int act = 0; act < 3; act++) {
                const ptrdiff_t d = widths[i], state = blocks * d * 16 * size, row = d * (d + 1) * size;
                char *h = out, *back = h + state, *w_new = back + state;
                memcpy(h, x, state);
                memcpy(back, g, state);
                fc_deep a = {.layers = layers, .width = d, .blocks = blocks, .alpha = 0.25, .root = 0.5, .rate = 0.1,
                             .vectors = blocks * 16 / (d < FC_DEEP_WIDE ? ops->lanes : FC_DEEP_GROUP),
                             .activation = act, .w = w, .w_new = w_new, .h = h, .g = back, .tape = tape,
                             .scratch = scratch};
                fc_deep again = a;
                ops->deep_forward(&a);
                a.h = again.h = (void *)x;
                ops->deep_recompute(&a);
                ops->deep_gradient(&a);
                ops->deep_update(&a, &again); /* recomputed beside the updates, then walked back in its turn */
                again.w_new = w_new + layers * row;
                ops->deep_gradient(&again);
                a.layers = 0;
                ops->deep_update(&again, &a);
                out = w_new + 2 * layers * row;
            }
    return out;
}

/* Batch normalisation, forward and back, of few channels (rows are folded) and many, with tails. */
static char *run_norm(const fc_ops *ops, const void *x, const void *w, const void *g, char *out)
{
    const ptrdiff_t channels[] = {1, 3, 16, 21, 130}, n = 37;
    for (int i = 0; i < 5; i++) {
        const ptrdiff_t c = channels[i], row = c * ops->size;
        const void *relu[] = {NULL, x};
        memset(out, 0, 4 * row);
        ops->moments(x, n, c, out, out + row);
        ops->moments(g, n - 9, c, out + 2 * row, out + 3 * row);
        ops->merge_moments(n, out, out + row, n - 9, out + 2 * row, out + 3 * row, c);
        out += 4 * row;
        for (int k = 0; k < 2; k++) {
            fc_epilogue e = {.scale = w, .shift = (const char *)w + row, .activation = k};
            ops->finish(&e, x, c, out, c, n, c);
            out += n * row;
            memset(out, 0, 2 * row);
            ops->norm_sums(g, relu[k], x, w, n, c, out);
            out += 2 * row;
            ops->norm_backward(g, relu[k], x, w, n, c, out);
            out += n * row;
        }
    }
    return out;
}

/* Winograd convolution, forward and the weight gradient, with a border and with tails of tiles, channels and chains. */
static char *run_winograd(const fc_ops *ops, const void *x, const void *w, const void *g, char *out, int taps)
{
    enum { TILES = 2 * 5, CV = 16, KV = 32, VALUES = 36 };
    static char v[VALUES * TILES * CV * 8], gv[VALUES * TILES * KV * 8], m[VALUES * TILES * KV * 8];
    static char zeros[FC_RUN_COLUMNS * (C > K ? C : K) * 8];
    const ptrdiff_t size = ops->size;
    memset(v, 0, sizeof v); /* vectors differ in how far they reach beyond the channels */
    memset(gv, 0, sizeof gv);
    fc_winograd pixels = {.x = (void *)x, .x_row = COLS * C, .x_col = C, .h = ROWS, .w = COLS, .side = 7 - taps,
                          .top = 1, .left = 2, .dh = 1, .dw = 1, .rows = 2, .cols = 5, .tiles = TILES,
                          .channels = C, .zeros = zeros, .v = v, .v_plane = TILES * CV, .v_tile = CV};
    ops->winograd_input(&pixels);
    fc_winograd_products products = {.a = v, .a_plane = TILES * CV, .a_row = CV, .a_depth = 1, .b = w,
                                     .b_plane = C * KV, .b_panel = ops->nr, .b_depth = KV, .nr = ops->nr, .c = m,
                                     .c_plane = TILES * KV, .c_row = KV, .planes = VALUES, .rows = TILES, .lanes = KV,
                                     .depth = C, .block = 3, .a_bytes = TILES * CV * size, .b_bytes = C * KV * size};
    ops->winograd_products(&products);
    fc_winograd results = {.x = out, .x_row = COLS * K, .x_col = K, .h = ROWS, .w = COLS, .side = 7 - taps,
                           .dh = 1, .dw = 1, .rows = 2, .cols = 5, .tiles = TILES, .channels = K, .v = m,
                           .v_plane = TILES * KV, .v_tile = KV,
                           .e = {.bias = g, .scale = x, .shift = g, .activation = FC_ACT_silu}};
    ops->winograd_output(&results);
    out += ROWS * COLS * K * size;
    memset(out, 0, ROWS * COLS * K * size);
    results.x = out;
    results.top = 1;
    results.left = 2;
    ops->winograd_shared(&results);
    results.top = results.left = 0;
    out += ROWS * COLS * K * size;
    results.x = (void *)g;
    results.zeros = zeros;
    results.v = gv;
    ops->winograd_gradient(&results);
    products = (fc_winograd_products){.a = v, .a_plane = TILES * CV, .a_row = 1, .a_depth = CV, .b = gv,
                                      .b_plane = TILES * KV, .b_panel = ops->nr, .b_depth = KV, .nr = ops->nr, .c = m,
                                      .c_plane = C * KV, .c_row = KV, .planes = VALUES, .rows = C, .lanes = KV,
                                      .depth = TILES, .block = 4};
    ops->winograd_products(&products);
    ops->winograd_filter_gradient(m, C * KV, out, C * KV, C * KV, taps);
    const void *sums = out;
    out += taps * taps * C * KV * size;
    memcpy(out, g, K * taps * taps * C * size);
    ops->accumulate_turned(sums, KV, taps * taps * C, K, out, taps * taps * C);
    out += K * taps * taps * C * size;
    const fc_pack behind = {.w = w, .lane_pitch = C * taps * taps, .c_pitch = taps * taps, .nr = ops->nr};
    ops->winograd_filters(w, C * KV, out, C * KV, C * KV, &behind, taps);
    out += VALUES * C * KV * size;
    ptrdiff_t turned[25]; /* of filters whose channels are lanes */
    for (int t = 0; t < taps * taps; t++)
        turned[t] = taps * taps - 1 - t;
    const fc_pack pack = {.w = w, .lane_pitch = taps * taps, .c_pitch = K * taps * taps, .taps = turned,
                          .ntaps = taps * taps, .nc = C, .lanes = K, .nr = KV, .panels = out};
    ops->pack(&pack);
    return out + taps * taps * C * KV * size;
}

/* Results of all kernels, one after the other; returns the bytes written. */
static size_t run(const fc_ops *ops, int kind, char *out)
{
    static char panels[COUNT * 16];
    const void *x = kind == FC_F32 ? (void *)x32 : (void *)x64;
    const void *w = kind == FC_F32 ? (void *)w32 : (void *)w64;
    const void *g = kind == FC_F32 ? (void *)g32 : (void *)g64;
    const ptrdiff_t size = ops->size;
    char *start = out;
    ptrdiff_t taps[TAPS] = {0, 1, 2}, offsets[TAPS * C];
    fc_segment segments[2] = {{0, 2 * C}, {2 * C, C}};
    for (int m = 0; m < TAPS * C; m++)
        offsets[m] = m;

    const ptrdiff_t channel_taps[TAPS] = {0, C, 2 * C};
    for (int relu = 0; relu < 2; relu++) { /* then with channels side by side, and normalised too */
        fc_pack pack = {.w = w, .lane_pitch = C * TAPS, .c_pitch = relu ? 1 : TAPS,
                        .taps = relu ? channel_taps : taps, .ntaps = TAPS, .nc = C,
                        .lanes = K, .nr = ops->nr, .panels = panels};
        ops->pack(&pack);
        fc_rows rows = {.x = x, .x_row = WIDTH * C, .x_col = C, .segments = segments, .depth = TAPS * C,
                        .w = panels, .w_panel = TAPS * C * ops->nr, .nr = ops->nr, .y = out,
                        .e = {.bias = g, .scale = relu ? x : NULL, .shift = relu ? g : NULL,
                              .activation = relu ? FC_ACT_relu : FC_ACT_none},
                        .y_row = COLS * K, .y_col = K,
                        .images = 1, .rows = ROWS, .cols = COLS, .channels = K};
        ops->rows(&rows);
        out += ROWS * COLS * K * size;
    }
    ops->deinterleave(x, ROWS * WIDTH, C, panels, ROWS * WIDTH + 3);
    for (ptrdiff_t few = 1; few < C; few++) {
        fc_planes planes = {.x = panels, .x_plane = ROWS * WIDTH + 3, .x_row = WIDTH, .taps = taps, .ntaps = TAPS,
                            .nc = C, .w = w, .w_row = C,
                            .e = {.bias = g, .scale = few % 2 ? x : NULL, .shift = few % 2 ? g : NULL,
                                  .activation = few % 2 ? FC_ACT_relu : FC_ACT_gelu},
                            .y = out, .y_row = COLS * few, .y_col = few,
                            .images = 1, .rows = ROWS, .cols = COLS, .channels = few};
        ops->planes(&planes);
        out += ROWS * COLS * few * size;
    }
    memset(out, 0, TAPS * C * K * size);
    fc_outer outer = {x, WIDTH * C, C, offsets, TAPS * C, g, COLS * K, K, ROWS, COLS, K, out, K, 0, NULL};
    ops->outer(&outer);
    outer.fresh = 1; /* the same sums in other memory */
    outer.dw = out + TAPS * C * K * size;
    ops->outer(&outer);
    outer.onto = out; /* and doubled */
    ops->outer(&outer);
    out += 2 * TAPS * C * K * size;

    ptrdiff_t lanes[TAPS] = {0, K, 2 * K};
    for (ptrdiff_t in_row = 3; in_row < 6; in_row++) /* 3 and 5 side by side are taken together */
        for (ptrdiff_t step = 1; step < 3; step++) {
            ptrdiff_t tap_r[10], tap_c[10];
            for (ptrdiff_t t = 0; t < 2 * in_row; t++) {
                tap_r[t] = 2 * (t / in_row);
                tap_c[t] = t % in_row;
            }
            fc_depthwise depthwise = {.x = x, .height = ROWS, .width = COLS, .x_row = COLS * K, .x_col = K, .top = -1,
                                      .left = -2, .row_step = 1, .col_step = step, .tap_r = tap_r, .tap_c = tap_c,
                                      .ntaps = 2 * in_row, .in_row = in_row, .w = w, .w_row = K,
                                      .e = {.bias = g, .scale = x, .shift = g, .activation = FC_ACT_silu}, .y = out,
                                      .y_row = COLS * K, .y_col = K, .rows = ROWS, .cols = (COLS + step - 1) / step,
                                      .channels = K};
            memset(out, 0, ROWS * COLS * K * size);
            ops->depthwise(&depthwise);
            out += ROWS * COLS * K * size;
        }
    memset(out, 0, TAPS * K * size);
    fc_depthwise_outer depthwise_outer = {x, WIDTH * K, K, lanes, TAPS, g, COLS * K, K, ROWS, COLS, K, out, K};
    ops->depthwise_outer(&depthwise_outer);
    out += TAPS * K * size;

    const ptrdiff_t first[7] = {0, 13, 30, 44, 60, 77, 100};
    memset(out, 0, 6 * K * size);
    ops->column_sums(x, first, 6, K, out);
    ops->accumulate(w, out, K);
    out += 6 * K * size;

    /* images abreast: 16 of them, as many together as there are lanes; then a tail of three */
    for (ptrdiff_t few = 1; few < C; few++)
        for (ptrdiff_t images = 3; images < 17; images += 13)
            for (ptrdiff_t n = 0; n < images; n += ops->lanes) {
                const ptrdiff_t image = ROWS * WIDTH * few, some = images - n < ops->lanes ? images - n : ops->lanes;
                const ptrdiff_t result = ROWS * COLS * few;
                char *line = panels + 32 * image * size;
                ops->to_lanes((const char *)x + n * image * size, image, some, image, panels);
                ptrdiff_t few_taps[TAPS] = {0, few, 2 * few};
                fc_abreast abreast = {.x = panels, .x_row = WIDTH * few, .x_col = few, .taps = few_taps, .ntaps = TAPS,
                                      .in_row = TAPS,
                                      .nc = few, .w = w, .w_row = few, .line = line, .y = out + n * result * size,
                                      .y_image = result, .y_row = COLS * few, .y_col = few, .images = some,
                                      .rows = ROWS, .cols = COLS, .channels = few,
                                      .e = {.bias = g, .scale = few % 2 ? x : NULL, .shift = few % 2 ? g : NULL,
                                            .activation = few % 2 ? FC_ACT_relu : FC_ACT_gelu}};
                ops->abreast(&abreast);
                if (n + some == images)
                    out += images * result * size;
            }
    for (ptrdiff_t n = 0; n < 16; n += ops->lanes) { /* and the gradient of a filter in each of 16 lanes */
        const ptrdiff_t few = 3, image = ROWS * WIDTH * few, result = ROWS * COLS * C, weights = TAPS * few * C;
        char *grad = panels + 32 * image * size, *sums = grad + 32 * result * size;
        ops->to_lanes((const char *)x + n * image * size, image, ops->lanes, image, panels);
        ops->to_lanes((const char *)g + n * result * size, result, ops->lanes, result, grad);
        memset(sums, 0, weights * ops->lanes * size);
        fc_abreast_outer abreast = {panels, WIDTH * few, few, offsets, TAPS * few, grad, COLS * C, C, ROWS, COLS, C, sums};
        ops->abreast_outer(&abreast);
        ops->from_lanes(sums, weights, out + n * weights * size, weights, ops->lanes);
    }
    out += 16 * TAPS * 3 * C * size;
    for (int act = FC_ACT_none; act <= FC_ACT_erf; act++) {
        fc_epilogue e = {.bias = w, .activation = act, .a = 0.5, .b = 1.5, .slopes = g};
        ops->finish(&e, x, K, out, K, 30, K);
        out += 30 * K * size;
        if (act != FC_ACT_none)
            ops->activate_backward(&e, g, K, x, K, out, K, 30, K);
        out += 30 * K * size;
    }
    out = run_winograd(ops, x, w, g, out, 3);
    out = run_winograd(ops, x, w, g, out, 5);
    out = run_norm(ops, x, w, g, out);
    out = run_deep(ops, x, w, g, out);
    return (size_t)(out - start);
}

int main(void)
{
    static char expected[COUNT * 32], got[COUNT * 32];
    fill(1);
    for (int t = 1; t < fc_table_count(); t++) {
        if (!fc_table_supported(t))
            continue;
        for (int kind = 0; kind < 2; kind++) {
            size_t n = run(fc_table_at(0)->ops[kind], kind, expected);
            run(fc_table_at(t)->ops[kind], kind, got);
            if (memcmp(expected, got, n) != 0) {
                printf("%s %s differs from scalar\n", fc_table_at(t)->name, kind ? "float64" : "float32");
                return 1;
            }
            printf("%s %s equals scalar: %zu bytes\n", fc_table_at(t)->name, kind ? "float64" : "float32", n);
        }
    }
    return 0;
}
