/* Runs of 16 numbers, whatever the register: a sum over many has 16 lanes, number i added to lane i % 16 in turn, and
 * the lanes are added in one fixed tree, 8 to 8, 4 to 4, 2 to 2, 1 to 1.
 */

#ifndef FC_WIDTH
#define FC_WIDTH 16
#define FC_REGISTERS (FC_WIDTH / LANES)
#define FC_FOR_REGISTERS(v) for (int v = 0; v < FC_REGISTERS; v++)

static const float fc_f32_lane_numbers[FC_WIDTH] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const double fc_f64_lane_numbers[FC_WIDTH] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#endif

/* The next 16 of n numbers, beyond the last of them `pad`. */
FC_INLINE void FC(load_lanes)(const T *x, ptrdiff_t n, T pad, VEC *lanes)
{
    FC_FOR_REGISTERS(v) {
        const ptrdiff_t rest = n - v * LANES;
        if (rest >= LANES)
            lanes[v] = V(load)(x + v * LANES);
        else if (rest > 0) {
            const MASK within = V(lt)(V(load)(FC(lane_numbers)), V(set1)((T)rest));
            lanes[v] = V(select)(within, V(load_n)(x + v * LANES, rest), V(set1)(pad));
        } else
            lanes[v] = V(set1)(pad);
    }
}

FC_INLINE void FC(store_lanes)(T *y, ptrdiff_t n, const VEC *lanes)
{
    FC_FOR_REGISTERS(v) {
        const ptrdiff_t rest = n - v * LANES;
        if (rest >= LANES)
            V(store)(y + v * LANES, lanes[v]);
        else if (rest > 0)
            V(store_n)(y + v * LANES, lanes[v], rest);
    }
}

FC_INLINE void FC(fill_lanes)(VEC *lanes, T value)
{
    FC_FOR_REGISTERS(v) lanes[v] = V(set1)(value);
}

/* The first n of 16 numbers; beyond them 0. */
FC_INLINE void FC(keep_lanes)(ptrdiff_t n, VEC *lanes)
{
    FC_FOR_REGISTERS(v) {
        const ptrdiff_t rest = n - v * LANES;
        if (rest < LANES) {
            const MASK within = V(lt)(V(load)(FC(lane_numbers)), V(set1)((T)(rest > 0 ? rest : 0)));
            lanes[v] = V(select)(within, lanes[v], V(set1)(0));
        }
    }
}

/* The tree; whole registers are added as such, which changes no bit. */
FC_INLINE T FC(sum_lanes)(VEC *lanes)
{
    for (int half = FC_REGISTERS / 2; half; half /= 2)
        for (int v = 0; v < half; v++)
            lanes[v] = V(add)(lanes[v], lanes[v + half]);
    T t[LANES];
    V(store)(t, lanes[0]);
    for (int half = LANES / 2; half; half /= 2)
        for (int v = 0; v < half; v++)
            t[v] += t[v + half];
    return t[0];
}
