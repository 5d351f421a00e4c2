"""Build of the compiled parts; everything declarative stands in pyproject.toml.

    _kernels/isa_<isa>_<type>.c  --own flags-->  isa_<isa>_<type>.o  \\
    _kernels/dispatch.c          --baseline--->  dispatch.o          --linked into-->  _ext/runtime
    _ext/*.pyx                   --OpenMP----->  the other extension modules, which cimport runtime

Environment: FASTCONV_NO_OPENMP=1 builds without threads; FASTCONV_DEBUG=1 turns on bounds checks and C asserts;
FASTCONV_SANITIZE=address,undefined instruments everything; FASTCONV_EMULATE_AVX512=1 compiles the AVX-512
table through the SIMDe headers so that its source can be tested on any x86-64.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_start_method
from pathlib import Path

from Cython import __version__ as CYTHON
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

EXT, KERNELS = Path("src/fastconv/_ext"), Path("src/fastconv/_kernels")
TABLES = sorted(str(p) for p in KERNELS.glob("*.c"))
HEADERS = sorted(str(p) for p in [*KERNELS.glob("*.h"), *KERNELS.glob("*.inc")])
DEBUG = os.environ.get("FASTCONV_DEBUG") == "1"
SANITIZE = os.environ.get("FASTCONV_SANITIZE", "")
EMULATE = os.environ.get("FASTCONV_EMULATE_AVX512") == "1"
NO_OPENMP = os.environ.get("FASTCONV_NO_OPENMP") == "1"

# Flags of each instruction set, (GCC and Clang, MSVC); dispatch.c tests for the same features.
ISA_FLAGS = {
    "avx512": (["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"], ["/arch:AVX512"]),
    "avx2": (["-mavx2", "-mfma"], ["/arch:AVX2"]),
    "scalar": (["-O1"], []),  # no slower than by -O2: what takes its time are calls of fma
    "neon": ([], []),
}
if EMULATE:
    ISA_FLAGS["avx512"] = (["-mavx2", "-mfma", "-DFC_EMULATE_AVX512", "-fno-strict-aliasing", "-Wno-psabi"], [])

# No contraction and no fast-math: the order and rounding of every sum is part of the interface.
UNIX_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
MSVC_FLAGS = ["/std:c11", "/O2", "/fp:precise"]

# What saves GCC time: passes of -O3 that bring little in float64, which nets are checked in rather than trained, and
# most passes in Cython's modules, which wait for kernels: of -O2 they need what makes a call short.
GCC_FLAGS = {
    "f32": [],
    "f64": [
        "-fno-unswitch-loops", "-fno-tree-vectorize", "-fno-split-paths", "-fno-tree-partial-pre", "-fno-ipa-cp-clone",
        "-fno-gcse-after-reload", "-fno-predictive-commoning", "-fno-loop-interchange", "-fno-loop-unroll-and-jam",
    ],
    "modules": [
        "-O1", "-finline-small-functions", "-fpartial-inlining", "-freorder-blocks-and-partition",
        "-foptimize-sibling-calls", "-fstrict-aliasing", "-fcaller-saves", "-fschedule-insns2", "-fpeephole2",
    ],
}  # fmt: skip

# Cython's processes, where they need not read this file anew
TRANSLATORS = (os.cpu_count() or 1) if get_start_method() == "fork" else 0


class BuildExt(build_ext):
    """Compile each table with its own flags and link the objects into ``runtime`` only: one dispatch state."""

    def finalize_options(self) -> None:
        if self.editable_mode:  # in the folder of all other builds, not in one that is thrown away
            ordinary = build(self.distribution)
            ordinary.ensure_finalized()
            self.build_lib, self.build_temp = ordinary.build_platlib, ordinary.build_temp
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        # no Python is in them, so that one object each does for every version
        self.kernels = str(Path(self.build_temp).with_name(f"kernels.{self.plat_name}"))

    def run(self) -> None:
        if not os.path.isdir(self.kernels):
            print(
                "fastconv: compiling its kernels for every instruction set, which takes two cores a minute or two; the "
                "next build in this folder compiles only what has changed",
                file=sys.stderr,
            )
        super().run()

    def build_extension(self, ext: Extension) -> None:
        msvc = self.compiler.compiler_type == "msvc"
        common = MSVC_FLAGS if msvc else [*UNIX_FLAGS, *self.gcc_flags("modules")]
        ext.extra_compile_args = [*common, *debug_flags(msvc), *instrumentation()]
        ext.extra_link_args = instrumentation()
        if not NO_OPENMP and sys.platform != "darwin":
            ext.extra_compile_args.append("/openmp" if msvc else "-fopenmp")
            if not msvc:
                ext.extra_link_args.append("-fopenmp")
        if ext.name == "fastconv._ext.runtime":
            ext.define_macros = [("FC_BUILD_FLAGS", '"' + " ".join(ext.extra_compile_args) + '"')]
            # a compiler for other processors does not know the flags; tables that are not for it are empty objects
            x86 = self.plat_name.lower().endswith(("x86_64", "amd64"))
            flags = {
                f"isa_{isa}_{kind}.c": [*self.gcc_flags(kind), *(both[msvc] if x86 or isa == "scalar" else [])]
                for kind in ("f32", "f64")  # the slowest to compile first
                for isa, both in ISA_FLAGS.items()
            }
            flags["dispatch.c"] = ["-DFC_EMULATE_AVX512"] if EMULATE else []
            with ThreadPoolExecutor(self.parallel) as pool:
                ext.extra_objects = list(pool.map(self.kernel_object, flags, flags.values()))
        super().build_extension(ext)

    def gcc_flags(self, what: str) -> list[str]:
        """Return GCC's own flags, or none for a compiler that does not say that it is GCC."""
        command = getattr(self.compiler, "compiler", [])
        return GCC_FLAGS[what] if any("gcc" in Path(word).name for word in command) else []

    def kernel_object(self, name: str, flags: list[str]) -> str:
        """Return the object of one kernel source, compiled again only when it or a header has changed."""
        source = str(KERNELS / name)
        msvc = self.compiler.compiler_type == "msvc"
        common = [*(MSVC_FLAGS if msvc else [*UNIX_FLAGS, "-Wall", "-Wextra"]), *debug_flags(msvc)]
        [obj] = self.compiler.object_filenames([source], output_dir=self.kernels)
        if self.force or newer_group([source, "setup.py", *HEADERS], obj):
            self.compiler.compile(
                [source],
                output_dir=self.kernels,
                extra_postargs=[*common, *flags, *instrumentation()],
                debug=self.debug,
            )
        return obj


def instrumentation() -> list[str]:
    flags = ["-UNDEBUG", "-g", "-O2"] if DEBUG else []
    # -O0: the tiles, instrumented, take the compiler a minute so, and more than ten from -O1 on
    return [*flags, f"-fsanitize={SANITIZE}", "-g1", "-O0", "-fno-omit-frame-pointer"] if SANITIZE else flags


def debug_flags(msvc: bool) -> list[str]:
    """Turn off the -g that distributors' Pythons ask for: with it the wheel is ten times its size."""
    return [] if msvc or DEBUG or SANITIZE else ["-g0"]


def extensions() -> list[Extension]:
    # runtime first: its tables are what a build waits for
    pyx = sorted(EXT.rglob("*.pyx"), key=lambda p: (p.stem != "runtime", p))
    # what modules have of Cython itself, memoryviews above all, is one module too, not a copy in each
    pyx.append(EXT / "_shared.c")
    names = [".".join(p.with_suffix("").parts[1:]) for p in pyx]
    of_all = ["setup.py", *HEADERS]  # flags count, too
    return [
        Extension(
            name,
            [str(p)],
            include_dirs=[str(KERNELS)],
            depends=[*of_all, *TABLES] if p.stem == "runtime" else of_all,
        )
        for name, p in zip(names, pyx, strict=True)
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        build_dir=f"build/cython-{CYTHON}",  # modules of two versions do not go together
        include_path=["src"],
        nthreads=TRANSLATORS,
        shared_utility_qualified_name="fastconv._ext._shared",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "initializedcheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "freethreading_compatible": True,
        },
    ),
    cmdclass={"build_ext": BuildExt},
)
