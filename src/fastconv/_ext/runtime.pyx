"""The one dispatch state: which kernel table is active and how many threads may run.

The isa_*.o and dispatch.o objects are linked into this module alone; the others get the table by cimport.
"""

import os

from fastconv._ext.runtime cimport fc_ops

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FC_OPENMP_VERSION _OPENMP
    #define fc_openmp_processors() omp_get_num_procs()
    #else
    #define FC_OPENMP_VERSION 0
    #define fc_openmp_processors() 1
    #endif
    #ifdef __VERSION__
    #define FC_COMPILER __VERSION__
    #elif defined(_MSC_VER)
    #define FC_COMPILER "MSVC"
    #else
    #define FC_COMPILER "unknown"
    #endif
    #if defined(__clang__)
    #define FC_COMPILER_NAME "clang "
    #elif defined(__GNUC__)
    #define FC_COMPILER_NAME "gcc "
    #else
    #define FC_COMPILER_NAME ""
    #endif
    """
    const int FC_OPENMP_VERSION
    int fc_openmp_processors()   # a call into the library, so that it is loaded with this module and no later
    const char *FC_COMPILER
    const char *FC_COMPILER_NAME
    const char *FC_BUILD_FLAGS

cdef extern from "kernels.h" nogil:
    ctypedef struct fc_table:
        const char *name
        fc_ops ops[2]

    int fc_table_count()
    const fc_table *fc_table_at(int index)
    int fc_table_supported(int index)
    const fc_table *fc_table_best()
    const char *fc_cpu_features()

cdef const fc_table *active = fc_table_best()
cdef int thread_limit = 1
cdef bint forked = False

# A share of fewer scalar operations (some 3 us on eight lanes) is cheaper to do than to hand over.
cdef double work_per_thread = 150e3


cdef const fc_ops *ops(int kind) noexcept nogil:
    return &active.ops[kind]


cdef const fc_ops *ops_shorter(int kind) noexcept nogil:
    # Return the table with half the lanes of the active one, if there is one: same bits, shorter latencies.
    cdef int i
    cdef const fc_ops *half
    for i in range(fc_table_count()):
        half = &fc_table_at(i).ops[kind]
        if 2 * half.lanes == active.ops[kind].lanes and fc_table_supported(i):
            return half
    return &active.ops[kind]


cdef int threads_for(double work) noexcept nogil:
    # In a forked child OpenMP's threads are gone and its locks are in an unknown state: stay serial there.
    if forked or work < 2 * work_per_thread:
        return 1
    if work < thread_limit * work_per_thread:
        return <int>(work / work_per_thread)
    return thread_limit


def _after_fork():
    global forked
    forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def tables():
    """Return {name: supported here} of the tables in this build, worst first."""
    return {fc_table_at(i).name.decode(): bool(fc_table_supported(i)) for i in range(fc_table_count())}


def active_table():
    """Return the name of the active table."""
    return active.name.decode()


def set_table(str name):
    """Make the named table active; the caller has checked that it is supported."""
    global active
    for i in range(fc_table_count()):
        if fc_table_at(i).name.decode() == name:
            active = fc_table_at(i)


def best_table():
    """Return the name of the best table this machine can run."""
    return fc_table_best().name.decode()


def threads():
    """Return the number of threads a large operation uses."""
    return thread_limit


def set_threads(int n):
    """Set the number of threads; the caller has checked it."""
    global thread_limit
    thread_limit = n


def set_work_per_thread(double work):
    """Set the least share of scalar operations worth a thread, and return the former one.

    Tests set it to 0, so that the small problems they can afford are shared among threads too.
    """
    global work_per_thread
    before = work_per_thread
    work_per_thread = work
    return before


def build_info():
    """Return what this build was made with."""
    return {
        "compiler": (FC_COMPILER_NAME + FC_COMPILER).decode(),
        "flags": FC_BUILD_FLAGS.decode(),
        "openmp": FC_OPENMP_VERSION,
        "openmp_processors": fc_openmp_processors(),
        "cpu_features": fc_cpu_features().decode().split(),
    }


def tile(int kind):
    """Return the register tile of the active table: lanes, most pixels, most channels (kind 0: float32, 1: float64)."""
    cdef const fc_ops *table = ops(kind)
    return {"lanes": table.lanes, "mr": table.mr, "nr": table.nr}
