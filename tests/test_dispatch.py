"""Dispatch: what each object was compiled to, which table is active, and what wrong settings say."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastconv
import fastconv.functional as F
from fastconv import config

KERNELS = Path(__file__).parent.parent / "src" / "fastconv" / "_kernels"
X86 = platform.machine().lower() in ("x86_64", "amd64")


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.skipif(not X86, reason="looks for x86 registers")
@pytest.mark.skipif(not KERNELS.is_dir(), reason="needs the C sources beside the tests")
@pytest.mark.parametrize(("sources", "flags", "wide"), [
    ("dispatch.c", [], None),
    ("isa_scalar_*.c", [], None),
    ("isa_avx2_*.c", ["-mavx2", "-mfma"], "ymm"),
    ("isa_avx512_*.c", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"], "zmm"),
])  # fmt: skip
def test_registers_of_each_object(sources, flags, wide, tmp_path):
    """Baseline objects hold no wide register; the others do (or the check would look at the wrong thing)."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler) or not shutil.which("objdump"):
        pytest.skip(f"needs {compiler} and objdump")
    obj = tmp_path / "kernel.o"
    # -O1 suffices for the wide ones, whose only question is which registers they use
    level = "-O1" if wide else "-O3"
    found = sorted(KERNELS.glob(sources))
    assert len(found) == (2 if "*" in sources else 1)
    for source in found:
        subprocess.run(
            [compiler, "-std=c11", level, "-ffp-contract=off", *flags, "-c", str(source), "-o", str(obj)], check=True
        )
        registers = set(re.findall(r"%([yz]mm)\d", subprocess.check_output(["objdump", "-d", str(obj)], text=True)))
        assert (wide in registers) if wide else not registers, source


def test_no_symbol_but_the_table_leaves_an_isa_object():
    library = Path(fastconv.__file__).parent / "_ext"
    [module] = [p for p in library.glob("runtime.*") if p.suffix in (".so", ".pyd")]
    if module.suffix != ".so" or not shutil.which("nm"):
        pytest.skip("needs nm and a shared object")
    exported = subprocess.check_output(["nm", "-D", "--defined-only", str(module)], text=True)
    names = [line.split()[-1] for line in exported.splitlines()]
    assert [n for n in names if n.startswith("fc_")] == []


def test_the_best_supported_table_is_active_without_settings():
    code = "from fastconv import config; print(config.isa(), config.available_isas()[-1])"
    clean = {k: v for k, v in os.environ.items() if k != "FASTCONV_ISA"}
    out = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True).stdout
    active, best = out.split()
    assert active == best


def test_isa_can_be_forced_and_comes_back():
    before = config.isa()
    with config.isa("scalar") as name:
        assert (name, config.isa()) == ("scalar", "scalar")
    assert config.isa() == before
    config.isa("scalar")
    config.isa("auto")
    assert config.isa() == config.available_isas()[-1]
    config.isa(before)


@pytest.mark.parametrize("name", ["sse9", "AVX2", "", "avx2 "])
def test_an_unknown_isa_is_an_error_that_lists_the_choices(name):
    with pytest.raises(ValueError, match=rf"{name!r} is unknown; choose one of scalar"):
        config.isa(name)


def test_an_unsupported_isa_is_an_error():
    missing = [n for n in ("avx2", "avx512", "neon") if n not in config.available_isas()]
    if not missing:
        pytest.skip("this machine supports every table")
    with pytest.raises(ValueError, match=r"choose one of scalar"):
        config.isa(missing[0])


def test_environment_forces_the_isa_or_refuses():
    code = "from fastconv import config; print(config.isa())"
    assert run(code, FASTCONV_ISA="scalar").stdout.split() == ["scalar"]
    refused = run(code, FASTCONV_ISA="mmx")
    assert refused.returncode != 0
    assert "FASTCONV_ISA: instruction set 'mmx' is unknown; choose one of scalar" in refused.stderr


def test_environment_sets_the_threads_or_refuses():
    code = "from fastconv import config; print(config.threads(), config.info()['threads_because'])"
    assert run(code, FASTCONV_NUM_THREADS="3", OMP_NUM_THREADS="2").stdout.split() == ["3", "FASTCONV_NUM_THREADS"]
    assert run(code, FASTCONV_NUM_THREADS="", OMP_NUM_THREADS="2,4").stdout.split() == ["2", "OMP_NUM_THREADS"]
    refused = run(code, FASTCONV_NUM_THREADS="many")
    assert refused.returncode != 0
    assert "FASTCONV_NUM_THREADS must be an integer in [1, 1024], got 'many'" in refused.stderr


@pytest.mark.parametrize("n", [0, -1, 1025, 1.5, "2", True])
def test_wrong_thread_counts_are_refused(n):
    with pytest.raises(ValueError, match=r"integer in \[1, 1024\], got"):
        config.threads(n)


def test_threads_come_back():
    before = config.threads()
    with config.threads(3):
        assert config.threads() == 3
    assert config.threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_the_affinity_mask_limits_the_threads():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from fastconv import config; print(config.threads())"
    assert run(code, FASTCONV_NUM_THREADS="", OMP_NUM_THREADS="").stdout.split() == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_serially_and_the_same():
    code = """
import os, sys, warnings
import numpy as np
import fastconv.functional as F
from fastconv import config
config.threads(3)
x = np.random.default_rng(0).standard_normal((16, 8, 20, 20)).astype(np.float32)
w = np.ones((16, 8, 3, 3), np.float32)
expected = F.conv2d(x, w).tobytes()
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    os._exit(0 if F.conv2d(x, w).tobytes() == expected else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_info_is_json_and_names_the_essentials():
    found = json.loads(json.dumps(config.info()))
    assert found["isa"] in found["isas"]
    assert found["threads"] == config.threads()
    assert {"compiler", "flags", "openmp", "numpy", "processor_features"} <= found.keys()


def test_scratch_can_be_given_back():
    x = np.ones((2, 3, 8, 8), np.float32)
    y = F.conv2d(x, np.ones((4, 3, 3, 3), np.float32))
    F.release_scratch()
    assert F.conv2d(x, np.ones((4, 3, 3, 3), np.float32)).tobytes() == y.tobytes()
