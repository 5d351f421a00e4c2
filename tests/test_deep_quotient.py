"""Softsign's quotient by an estimate of the reciprocal is that of division, whatever the estimate; the core's tanh."""

import ctypes
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import config
from fastconv.functional.residual import ResidualCore, from_blocks, residual_forward, to_blocks

LIMIT = 0x71800000  # the bits of 2**100
NUDGES = (0.0, 2**-11, -(2**-11), 2**-12, -(2**-13))  # an estimate's own error is below 2**-11
KERNELS = Path(fastconv.__file__).parent / "_kernels"
FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
    "emulated": ["-mavx2", "-mfma", "-DFC_EMULATE_AVX512", "-fno-strict-aliasing", "-Wno-psabi"],
}


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    """Return how to get ``quotient_errors`` of native/quotient.c for an instruction set."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler) or not (KERNELS / "language.inc.h").exists():
        pytest.skip(f"needs {compiler} and the C sources")
    folder, made = tmp_path_factory.mktemp("quotient"), {}

    def get(isa):
        if isa not in made:
            emulated = isa == "avx512" and "avx512f" not in config.info()["processor_features"]
            subprocess.run(
                [compiler, "-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared",
                 "-fPIC", "-fvisibility=hidden", *FLAGS.get("emulated" if emulated else isa, []),
                 f'-DFC_VOCABULARY="vec_{isa}.h"', f"-I{KERNELS}", str(Path(__file__).parent / "native/quotient.c"),
                 "-o", str(folder / isa), "-lm"],
                check=True,
            )  # fmt: skip
            count = ctypes.CDLL(str(folder / isa)).quotient_errors
            count.argtypes, count.restype = [ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_double], ctypes.c_ssize_t
            made[isa] = count
        return made[isa]

    return get


@pytest.mark.parametrize("nudge", NUDGES)
def test_every_binade_and_every_significand_of_the_hard_ones(nudge, isa, proofs):
    quotient_errors = proofs(isa)
    for first in range(0, LIMIT, 1 << 23):  # zero and denormals, then every binade
        exponent = (first >> 23) - 127
        n = 1 << 16 if -26 <= exponent <= 26 else 1 << 12
        for start in {first, first + (1 << 22) - n // 2, first + (1 << 23) - n}:
            assert quotient_errors(start, n, nudge) == 0


@pytest.mark.slow
@pytest.mark.parametrize("nudge", [2**-11, -(2**-11)])
def test_all_floats(nudge, proofs):
    assert proofs(config.isa())(0, LIMIT, nudge) == 0


def test_the_proof_finds_a_wrong_quotient(isa, proofs):
    """An estimate that is off by more than the cubic step can take."""
    assert proofs(isa)(0x3F800000, 1 << 16, 2**-4) > 0


def softsign_of(values, isa):
    """One layer of width 4 whose sums are its biases, from the state 0: h = alpha * softsign(b)."""
    weights = np.zeros((1, 20), np.float32)
    weights[0, 16:] = values
    with config.isa(isa):
        h = residual_forward(ResidualCore(4, 1, 1.0), weights, to_blocks(np.zeros((70, 4), np.float32)))
    return from_blocks(h, 70)


def test_large_sums_infinities_and_nan_are_those_of_division(isa):
    for value in (0.0, -0.0, 1e-40, 2.0**-126, 1e30, 2.0**100, 2.0**126, -3e38, np.inf, -np.inf, np.nan):
        z = np.float32(0 if abs(value) < 2.0**-126 else value)  # denormals are flushed
        with np.errstate(invalid="ignore"):
            expected = z / (1 + abs(z))
        got = softsign_of([value] * 4, isa)
        np.testing.assert_array_equal(got, np.full((70, 4), expected + np.float32(0)), err_msg=str(value))


def test_the_cores_tanh(isa):
    """Within 6 units of the last place, and never above 1."""
    bits = np.arange(0x31800000, 0x42000000, 4099, dtype=np.uint32)
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32), np.float32([0, 7.9, 8, 100, 1e4])])
    x = np.resize(x, (-(-len(x) // 4), 4))
    weights = np.zeros((1, 20), np.float32)
    weights[0, [0, 5, 10, 15]] = 1
    with config.isa(isa):
        core = ResidualCore(4, 1, 2.0**100, "tanh")  # so large that adding the state changes nothing that counts
        h = from_blocks(residual_forward(core, weights, to_blocks(x)), len(x))
    got, right = h.astype(np.float64) / 2.0**100, np.tanh(x.astype(np.float64))
    ulp = np.spacing(np.abs(right).astype(np.float32)).astype(np.float64)
    np.testing.assert_array_less(np.abs(got - right) / ulp, 6)
    assert np.abs(got).max() < 1
