"""The list of algorithms, packed weights and booked scratch memory, beneath the boundary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from problems import TEST
from sharing import small_work_shared

import fastconv._ext.conv.algorithms as algorithms
from fastconv import config
from fastconv._ext.conv.algorithms import ALGORITHMS, choose, instances, kernel
from fastconv._ext.conv.input_gradient import input_gradient, packed_bytes
from fastconv._ext.conv.input_gradient import pack as input_gradient_pack
from fastconv.functional._epilogue import NOTHING, Epilogue
from fastconv.functional._geometry import convolution
from fastconv.functional._scratch import empty_aligned

OPERATIONS = ("forward", "input_gradient", "weight_gradient")


def geometry_of(problem):
    return convolution("test", problem.input_shape, problem.weight_shape, *problem.options)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def drawn_arrays(g, dtype, seed=0):
    """Return x, weight and a gradient of the output as kernels take them."""
    rng = np.random.default_rng(seed)
    shapes = (g.n, g.h, g.w, g.c), (g.k, g.c // g.groups, g.r, g.s), (g.n, g.p, g.q, g.k)
    return [normal(rng, shape, dtype) for shape in shapes]


def exactly(nbytes):
    """Return scratch memory of just this size, full of NaNs: nothing may be read that was not written."""
    arena = empty_aligned(nbytes, np.uint8)
    arena[:] = 255
    return arena


def computed(algorithm, operation, g, arrays, scratch=exactly):
    x, weight, grad = arrays
    run = getattr(algorithm, operation)[x.itemsize]
    if operation == "forward":
        out = np.empty_like(grad)
        run(x, weight, out, g, NOTHING, scratch)
    elif operation == "input_gradient":
        out = np.empty_like(x)
        run(grad, weight, out, g, NOTHING, scratch)
    else:
        out = np.zeros_like(weight)
        run(x, grad, out, g, scratch)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("problem", TEST, ids=str)
def test_every_algorithm_gives_the_same_bits_in_every_setting(problem, dtype, every_setting):
    g = geometry_of(problem)
    arrays = drawn_arrays(g, dtype)
    for algorithm in ALGORITHMS:
        for operation in OPERATIONS:
            if not algorithm.refusal(operation, g, arrays[0].itemsize):
                results = every_setting(lambda a=algorithm, o=operation: computed(a, o, g, arrays).tobytes())
                assert len(set(results.values())) == 1, (algorithm.name, operation)


@given(st.sampled_from(TEST), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_gradients_that_nearly_cancel_are_equal_in_every_setting(problem, dtype, seed):
    """What is left of them is a denormal number, which kernels flush: the last addition to a gradient is one, too."""
    g = geometry_of(problem)
    x, weight, grad = drawn_arrays(g, dtype, seed)
    grad *= 8 * np.finfo(dtype).tiny
    found = computed(choose("weight_gradient", g, x.itemsize), "weight_gradient", g, (x, weight, grad))
    for algorithm in ALGORITHMS:
        if algorithm.refusal("weight_gradient", g, x.itemsize):
            continue
        results = []
        for name in config.available_isas():
            total = found * dtype(-1.01)
            with config.isa(name):
                algorithm.weight_gradient[x.itemsize](x, grad, total, g, exactly)
            results.append(total)
        for total in results:
            assert total.tobytes() == results[0].tobytes(), algorithm.name
            assert not ((total != 0) & (np.abs(total) < np.finfo(dtype).tiny)).any()


@pytest.mark.parametrize("problem", TEST, ids=str)
def test_the_choice_reads_neither_instruction_set_nor_threads(problem, every_setting):
    g = geometry_of(problem)
    for operation in OPERATIONS:
        for itemsize in (4, 8):
            chosen = every_setting(lambda o=operation, i=itemsize: choose(o, g, i).name)
            assert len(set(chosen.values())) == 1


@given(st.sampled_from(TEST), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_packed_weights_give_the_bits_of_weights(problem, dtype, seed):
    """Weights packed for one instruction set are packed again for another, whose tiles may be of another width."""
    g = geometry_of(problem)
    x, weight, grad = arrays = drawn_arrays(g, dtype, seed)
    run, pack = (instances(function)[x.itemsize] for function in (input_gradient, input_gradient_pack))
    want = computed(choose("input_gradient", g, x.itemsize, "direct"), "input_gradient", g, arrays)
    for packing in config.available_isas():
        with config.isa(packing):
            packed = exactly(packed_bytes(g, x.itemsize))
            pack(weight, g, packed, exactly)
        for running in config.available_isas():
            unread = np.full_like(weight, np.nan) if running == packing else weight
            with config.isa(running):
                out = np.empty_like(x)
                run(grad, unread, out, g, NOTHING, exactly, packed)
            assert_array_equal(out, want, err_msg=f"packed by {packing}, run by {running}")


@given(
    st.integers(1, 6), st.integers(1, 70), st.integers(1, 150), st.sampled_from([np.float32, np.float64]),
    st.sampled_from([None, "relu", "gelu"]), st.booleans(), st.integers(0, 2**16),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_few_rows_read_weights_as_they_lie_with_the_bits_of_packed_ones(n, c, k, dtype, activation, plain, seed):
    g, more = (convolution("test", (rows, c, 1, 1), (k, c, 1, 1), 1, 0, 1, 1) for rows in (n, n + 7))
    x, weight, add = drawn_arrays(more, dtype, seed)
    itemsize, direct = x.itemsize, choose("forward", g, x.itemsize, "direct")
    bias = np.linspace(-1, 1, k, dtype=dtype)
    found = []
    with small_work_shared():
        for isa in config.available_isas():
            with config.isa(isa):
                for threads in (1, 3):
                    for sizes in (g, more):  # packed where there are more rows
                        out, pre = np.empty_like(add[: sizes.n]), np.empty_like(add[: sizes.n])
                        epilogue = (
                            Epilogue(activation) if plain else Epilogue(activation, (), bias, None, add[: sizes.n], pre)
                        )
                        with config.threads(threads):
                            direct.forward[itemsize](x[: sizes.n], weight, out, sizes, epilogue, exactly)
                        found.append((out[:n].tobytes(), b"" if plain else pre[:n].tobytes()))
    assert len(set(found)) == 1
    exact = np.rint(4 * x[:n, 0, 0]), np.rint(4 * weight[:, :, 0, 0])
    out = np.empty_like(add[:n])
    direct.forward[itemsize](exact[0][:, None, None], exact[1][:, :, None, None], out, g, NOTHING, exactly)
    assert_array_equal(out[:, 0, 0], exact[0] @ exact[1].T)


def test_packed_weights_of_another_size_are_refused():
    [g, other] = (convolution("test", (1, 8, 6, 6), (8, 8, side, side), 1, 1, 1, 1) for side in (3, 5))
    x, weight, grad = drawn_arrays(g, np.float32)
    run, pack = (instances(function)[4] for function in (input_gradient, input_gradient_pack))
    packed = exactly(packed_bytes(other, 4))
    with pytest.raises(ValueError, match=rf"pack: packed weights need \d+ bytes here, got {packed.nbytes}"):
        pack(weight, g, packed, exactly)
    pack(drawn_arrays(other, np.float32)[1], other, packed, exactly)
    for wrong in (packed, packed[:8], packed[:0]):
        with pytest.raises(ValueError, match=f"input_gradient: packed weights need .* got {wrong.size}"):
            run(grad, weight, x, g, NOTHING, exactly, wrong)


@pytest.mark.parametrize("problem", TEST, ids=str)
def test_scratch_memory_is_all_that_was_booked_and_no_more(problem, every_setting):
    """The memory lies between guards, which stay as they are."""
    g = geometry_of(problem)
    arrays = drawn_arrays(g, np.float32)

    def guarded(nbytes):
        arena = exactly(nbytes + 512)
        arena[:256] = arena[256 + nbytes :] = 77
        lent.append(arena)
        return arena[256 : 256 + nbytes]

    def run():
        for algorithm in ALGORITHMS:
            for operation in OPERATIONS:
                if not algorithm.refusal(operation, g, 4):
                    computed(algorithm, operation, g, arrays, guarded)

    lent = []
    every_setting(run)
    assert lent
    for arena in lent:
        assert (arena[:256] == 77).all()
        assert (arena[-256:] == 77).all()


def test_algorithms_by_name(monkeypatch):
    g = geometry_of(TEST[0])
    direct = choose("forward", g, 4, "direct")
    assert direct.name == "direct"
    assert kernel("input_gradient", g, 8, "direct") is direct.input_gradient[8]
    with pytest.raises(ValueError, match=r"algorithm must be 'auto' or one of .*'direct', got 'fft'"):
        choose("forward", g, 4, "fft")
    picky = direct._replace(
        name="picky",
        refusal=lambda operation, g, itemsize: "" if itemsize == 4 else "it computes float32 alone",
        pays=lambda operation, g, itemsize: operation == "forward",
    )
    monkeypatch.setattr(algorithms, "ALGORITHMS", [picky, direct])
    assert choose("forward", g, 4) is picky
    assert choose("forward", g, 8) is direct
    assert choose("weight_gradient", g, 4) is direct
    assert choose("weight_gradient", g, 4, "picky") is picky
    with pytest.raises(ValueError, match="algorithm 'picky' cannot compute this forward: it computes float32 alone"):
        choose("forward", g, 8, "picky")
