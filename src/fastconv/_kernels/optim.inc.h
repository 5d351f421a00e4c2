/* One step of an optimiser on elements [first, last) of a flat parameter, over T and the vector vocabulary.
 *
 * Elementwise, one pass, in PyTorch's order of operations; each product that is added is one fused
 * multiply-add. Hyperparameters come in double and are rounded to T once.
 */

/* decay: grad + weight_decay * param */
FC_INLINE VEC FC(decayed)(VEC grad, VEC param, double weight_decay)
{
    return weight_decay != 0 ? V(fma)(V(set1)((T)weight_decay), param, grad) : grad;
}

/* torch.lerp(old, new, weight): from the nearer end, so that weight 1 gives `new` itself */
FC_INLINE VEC FC(lerp)(VEC old, VEC new, double weight)
{
    const VEC step = V(sub)(new, old);
    return weight < 0.5 ? V(fma)(V(set1)((T)weight), step, old) : V(fma)(V(set1)((T)(weight - 1)), step, new);
}

/* factor * average + (1 - factor) * grad^2 */
FC_INLINE VEC FC(square_average)(VEC average, VEC grad, double factor)
{
    const VEC scaled = V(mul)(V(set1)((T)(1 - factor)), grad);
    return V(fma)(scaled, grad, V(mul)(average, V(set1)((T)factor)));
}

/* FC_STEPS(sgd) expands to a function that does sgd_vec(a, i, 0) for each vector of [first, last) and
 * sgd_vec(a, i, rest) for what is left; the copy of the arguments cannot alias what is written. */
#define FC_STEPS(name)                                                                                               \
    static void FC(name)(const fc_##name *args, ptrdiff_t first, ptrdiff_t last)                                     \
    {                                                                                                                \
        const fc_##name a = *args;                                                                                   \
        ptrdiff_t i = first;                                                                                         \
        for (; i + LANES <= last; i += LANES)                                                                        \
            FC(name##_vec)(&a, i, 0);                                                                                \
        if (i < last)                                                                                                \
            FC(name##_vec)(&a, i, last - i);                                                                         \
    }

FC_INLINE void FC(sgd_vec)(const fc_sgd *a, ptrdiff_t i, const ptrdiff_t part)
{
    T *param = (T *)a->param + i;
    const VEC p = FC(get)(param, part);
    VEC g = FC(decayed)(FC(get)((const T *)a->grad + i, part), p, a->weight_decay);
    if (a->buffer) {
        T *buffer = (T *)a->buffer + i;
        VEC b = g;
        if (!a->first_step)
            b = V(fma)(V(set1)((T)(1 - a->dampening)), g, V(mul)(FC(get)(buffer, part), V(set1)((T)a->momentum)));
        FC(put)(buffer, b, part);
        g = a->nesterov ? V(fma)(V(set1)((T)a->momentum), b, g) : b;
    }
    FC(put)(param, V(fma)(V(set1)((T)-a->lr), g, p), part);
}

FC_STEPS(sgd)

FC_INLINE void FC(adam_vec)(const fc_adam *a, ptrdiff_t i, const ptrdiff_t part)
{
    T *param = (T *)a->param + i, *average = (T *)a->average + i, *square = (T *)a->square + i;
    VEC p = FC(get)(param, part), g = FC(get)((const T *)a->grad + i, part);
    if (a->decoupled)
        p = V(mul)(p, V(set1)((T)(1 - a->lr * a->weight_decay)));
    else
        g = FC(decayed)(g, p, a->weight_decay);
    const VEC m = FC(lerp)(FC(get)(average, part), g, 1 - a->beta1);
    const VEC v = FC(square_average)(FC(get)(square, part), g, a->beta2);
    const VEC denominator = V(add)(V(div)(V(sqrt)(v), V(set1)((T)a->correction2)), V(set1)((T)a->eps));
    FC(put)(average, m, part);
    FC(put)(square, v, part);
    FC(put)(param, V(add)(p, V(div)(V(mul)(V(set1)((T)-a->step_size), m), denominator)), part);
}

FC_STEPS(adam)

FC_INLINE void FC(rmsprop_vec)(const fc_rmsprop *a, ptrdiff_t i, const ptrdiff_t part)
{
    T *param = (T *)a->param + i, *square = (T *)a->square + i;
    const VEC p = FC(get)(param, part);
    const VEC g = FC(decayed)(FC(get)((const T *)a->grad + i, part), p, a->weight_decay);
    const VEC v = FC(square_average)(FC(get)(square, part), g, a->alpha);
    FC(put)(square, v, part);
    VEC spread = v;
    if (a->average) {
        T *average = (T *)a->average + i;
        const VEC m = FC(lerp)(FC(get)(average, part), g, 1 - a->alpha);
        FC(put)(average, m, part);
        /* rounding may leave the variance of a constant gradient below 0 */
        spread = V(max)(V(set1)(0), V(fma)(V(sub)(V(set1)(0), m), m, v));
    }
    const VEC denominator = V(add)(V(sqrt)(spread), V(set1)((T)a->eps));
    if (a->buffer) {
        T *buffer = (T *)a->buffer + i;
        const VEC b = V(add)(V(mul)(FC(get)(buffer, part), V(set1)((T)a->momentum)), V(div)(g, denominator));
        FC(put)(buffer, b, part);
        FC(put)(param, V(fma)(V(set1)((T)-a->lr), b, p), part);
    } else
        FC(put)(param, V(add)(p, V(div)(V(mul)(V(set1)((T)-a->lr), g), denominator)), part);
}

FC_STEPS(rmsprop)

FC_INLINE void FC(adagrad_vec)(const fc_adagrad *a, ptrdiff_t i, const ptrdiff_t part)
{
    T *param = (T *)a->param + i, *square = (T *)a->square + i;
    const VEC p = FC(get)(param, part);
    const VEC g = FC(decayed)(FC(get)((const T *)a->grad + i, part), p, a->weight_decay);
    const VEC v = V(fma)(g, g, FC(get)(square, part));
    const VEC denominator = V(add)(V(sqrt)(v), V(set1)((T)a->eps));
    FC(put)(square, v, part);
    FC(put)(param, V(add)(p, V(div)(V(mul)(V(set1)((T)-a->lr), g), denominator)), part);
}

FC_STEPS(adagrad)

FC_INLINE void FC(average_vec)(const fc_average *a, ptrdiff_t i, const ptrdiff_t part)
{
    T *average = (T *)a->average + i;
    const VEC p = FC(get)((const T *)a->param + i, part);
    FC(put)(average, FC(lerp)(FC(get)(average, part), p, 1 - a->decay), part);
}

FC_STEPS(average)

#undef FC_STEPS
