"""The one dispatch state: which kernel table is active and how many threads may run.

The isa_*.o and dispatch.o objects are linked into this module alone; the others get the table by cimport.
"""

import os

from cython.parallel cimport prange

from fastconv._ext.runtime cimport fc_ops

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FC_OPENMP_VERSION _OPENMP
    #define fc_openmp_processors() omp_get_num_procs()
    #define fc_seconds() omp_get_wtime()
    #define fc_in_parallel() omp_in_parallel()
    #else
    #define FC_OPENMP_VERSION 0
    #define fc_openmp_processors() 1
    #define fc_seconds() 0.0
    #define fc_in_parallel() 0
    #endif
    /* nanoseconds that Python threads share; MSVC's volatile numbers are atomic on the processors we know */
    #if defined(__GNUC__)
    typedef long long fc_shared;
    #define fc_get(p) __atomic_load_n(p, __ATOMIC_RELAXED)
    #define fc_set(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
    #define fc_take(p, v) __atomic_exchange_n(p, v, __ATOMIC_RELAXED)
    #define fc_add(p, v) __atomic_fetch_add(p, v, __ATOMIC_RELAXED)
    #else
    typedef volatile long long fc_shared;
    #define fc_get(p) (*(p))
    #define fc_set(p, v) (*(p) = (v))
    #define fc_add(p, v) (*(p) += (v))
    static long long fc_take(fc_shared *p, long long v)
    {
        const long long before = *p;
        *p = v;
        return before;
    }
    #endif
    /* What a thread of a team does while it is looked at. The system wakes a thread at times on the processor of the
       thread that waits for it without giving that processor away, so all but the caller keep off the caller's, where
       there are enough processors. The result is how many nanoseconds other programs have had the thread's processor
       since it was last looked at: those in which it neither ran nor slept. */
    #if defined(_OPENMP) && defined(__linux__)
    #include <sched.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    #define fc_processor() sched_getcpu()
    #define fc_thread() ((int)syscall(SYS_gettid))
    static long long fc_nanoseconds(clockid_t clock)
    {
        struct timespec t;
        return clock_gettime(clock, &t) == 0 ? 1000000000LL * t.tv_sec + t.tv_nsec : 0;
    }
    static long long fc_attend(int processor, int caller)
    {
        static __thread int kept_off = -1;
        static __thread long sleeps = -1;
        static __thread long long waited = 0;
        const long slept = sleeps;
        const long long before = waited;
        struct rusage usage;
        cpu_set_t allowed;
        if (omp_get_thread_num() > 0 && processor != kept_off && processor >= 0) {
            kept_off = processor;
            if (sched_getaffinity(caller, sizeof allowed, &allowed) == 0
                && CPU_COUNT(&allowed) >= omp_get_num_threads()) {
                CPU_CLR(processor, &allowed);
                sched_setaffinity(0, sizeof allowed, &allowed);
            }
        }
        if (getrusage(RUSAGE_THREAD, &usage) != 0)
            return 0;
        sleeps = usage.ru_nvcsw;
        waited = fc_nanoseconds(CLOCK_MONOTONIC) - fc_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
        return slept == sleeps && waited > before ? waited - before : 0;
    }
    #else
    #define fc_processor() (-1)
    #define fc_thread() 0
    #define fc_attend(processor, caller) ((void)(processor), (void)(caller), 0LL)
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
    ctypedef long long fc_shared
    double fc_seconds() nogil
    int fc_in_parallel() nogil
    long long fc_get(fc_shared *p) nogil
    void fc_set(fc_shared *p, long long v) nogil
    long long fc_take(fc_shared *p, long long v) nogil
    void fc_add(fc_shared *p, long long v) nogil
    int fc_processor() nogil
    int fc_thread() nogil
    long long fc_attend(int processor, int caller) nogil
    const char *FC_COMPILER
    const char *FC_COMPILER_NAME
    const char *FC_BUILD_FLAGS

cdef extern from "kernels.h" nogil:
    ctypedef struct fc_table:
        const char *name
        const fc_ops *ops[2]

    int fc_table_count()
    const fc_table *fc_table_at(int index)
    int fc_table_supported(int index)
    const fc_table *fc_table_best()
    const char *fc_cpu_features()

cdef const fc_table *active = fc_table_best()
cdef int thread_limit = 1
cdef int most_threads = 1   # that were ever asked for
cdef bint forked = False

# A share of fewer scalar operations (some 3 us on eight lanes) is not worth a look at what handing it over costs.
cdef double work_per_thread = 150e3

# What it costs to hand work over and to meet again is measured while it runs: it is 2 us where processors are idle and
# milliseconds where others want them, too, since whoever hands over waits for threads that wait for a processor. A look
# is short and meets threads that have just worked, so that it is cheap on most busy machines: the time for which
# threads lost their processors since the look before tells more.
cdef enum:
    LONG = 500_000              # nanoseconds that no idle machine takes
    SLICE = 4_000_000           # nanoseconds for which a processor is lost to another program
    LOOK_AGAIN = 1_000_000      # nanoseconds from one look to the next
    REST = 10_000_000           # and after a dear one, which doubles with each one that follows,
    LONGEST_REST = 1_000_000_000
    FORGOTTEN = 50_000_000      # nanoseconds after which losses do not count any more
    STRAIN = 6_000_000          # nanoseconds lost lately that are too many; a 32nd of them is forgotten with each look
    WORTH = 3                   # a share takes so many times as long as handing it over
    OPERATIONS = 4              # of a lane in a nanosecond: some two thirds of what it can
cdef fc_shared handing_over = 2_000
cdef fc_shared next_look = 0
cdef fc_shared last_look = 0
cdef fc_shared rest = 0
cdef fc_shared strain = 0
cdef fc_shared losses = 0
cdef fc_shared looking = 0
cdef fc_shared sizing = 0   # how many ask for sizes, which are of the most threads there may be


cdef const fc_ops *ops(int kind) noexcept nogil:
    return active.ops[kind]


cdef const fc_ops *ops_shorter(int kind) noexcept nogil:
    # Return the table with half the lanes of the active one, if there is one: same bits, shorter latencies.
    cdef int i
    cdef const fc_ops *half
    for i in range(fc_table_count()):
        half = fc_table_at(i).ops[kind]
        if 2 * half.lanes == active.ops[kind].lanes and fc_table_supported(i):
            return half
    return active.ops[kind]


cdef long long hand_over(int threads) noexcept nogil:
    # Return the nanoseconds in which so many threads start, do nothing and meet again.
    cdef double begin = fc_seconds()
    cdef int _i
    for _i in prange(threads, schedule='static', num_threads=threads):
        fc_get(&handing_over)
    return <long long>(1e9 * (fc_seconds() - begin))


cdef long long attend(int threads) noexcept nogil:
    # The same, of threads that are woken up where they sleep, and looked at.
    cdef double begin = fc_seconds()
    cdef int processor = fc_processor(), caller = fc_thread(), _i
    for _i in prange(threads, schedule='static', num_threads=threads):
        fc_add(&losses, fc_attend(processor, caller))
    return <long long>(1e9 * (fc_seconds() - begin))


cdef void look(long long now) noexcept nogil:
    # Measure what handing over costs, and set when to look again.
    cdef bint resting = fc_get(&rest) > 0 and fc_get(&handing_over) >= LONG
    cdef long long woken, cost, lost, strained, pause
    if fc_get(&next_look) == 0:
        hand_over(thread_limit)   # threads are made
    woken = attend(thread_limit)
    cost = hand_over(thread_limit)
    lost, strained = fc_take(&losses, 0), fc_get(&strain)
    if resting or now - fc_get(&last_look) > FORGOTTEN:
        lost, strained = 0, STRAIN // 2 if resting else 0   # no thread waited for one that had lost its processor
    if woken >= LONG:
        lost = max(lost, woken)
    strained += lost - strained // 32
    fc_set(&strain, strained)
    pause = fc_get(&rest)
    if strained >= STRAIN:
        pause = min(<long long>LONGEST_REST, max(<long long>REST, 2 * pause))
        fc_set(&handing_over, max(cost, <long long>SLICE))
        fc_set(&next_look, now + pause)
    else:
        pause -= pause // 32
        fc_set(&handing_over, max(cost, fc_get(&handing_over) // 2))
        fc_set(&next_look, now + LOOK_AGAIN)
    fc_set(&rest, pause)
    fc_set(&last_look, now)


cdef double share_worth_a_thread() noexcept nogil:
    # Return the least share that pays, by what handing over has cost lately.
    cdef long long now = <long long>(1e9 * fc_seconds())
    if now >= fc_get(&next_look) and fc_take(&looking, 1) == 0:
        look(now)
        fc_set(&looking, 0)
    return max(work_per_thread, <double>WORTH * OPERATIONS * active.ops[0].lanes * fc_get(&handing_over))


cdef int threads_for(double work) noexcept nogil:
    # In a forked child OpenMP's threads are gone and its locks are in an unknown state: stay serial there.
    if forked or thread_limit == 1 or work < 2 * work_per_thread or fc_in_parallel():
        return 1
    cdef double share = work_per_thread
    if share > 0 and fc_get(&sizing) == 0:
        share = share_worth_a_thread()
    if work < 2 * share:
        return 1
    if work < thread_limit * share:
        return <int>(work / share)
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
    global thread_limit, most_threads
    if n > most_threads:
        most_threads = n
        fc_set(&next_look, 0)
    thread_limit = n


def threads_of(double work):
    """Return how many threads an operation of so many scalar operations uses now."""
    return threads_for(work)


def size_for_all_threads(bint begin):
    """Begin or end to take handing over for free: memory is booked for the threads of an idle machine.

    The number of threads may rise between the moment that memory is booked and the one in which it is used.
    """
    fc_add(&sizing, 1 if begin else -1)


def set_work_per_thread(double work):
    """Set the least share of scalar operations worth a thread, whatever handing over costs; return the former one.

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
