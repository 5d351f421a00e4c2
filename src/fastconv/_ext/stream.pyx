"""Advice on a mapped file, given by all threads at once, what of it the system holds in memory, and what is lost.

To map and unmap a window takes the system some tenth of the time that threads compute on it.

A page that a mapped file has no more, because somebody cut it short or the disk failed, ends a process (SIGBUS). In a
guarded mapping a page of zeros takes its place, which the walk goes on with, and it is asked afterwards whether that
happened.
"""

from cython.parallel cimport prange

from fastconv._ext.runtime cimport threads_for

cdef extern from *:
    """
    #include <errno.h>
    #include <stddef.h>
    #include <stdint.h>
    #ifdef _WIN32
    #define fc_advise(p, n, advice) ENOSYS
    #else
    #include <sys/mman.h>
    #define fc_advise(p, n, advice) (madvise((void *)(p), n, advice) ? errno : 0)
    #endif
    #ifdef __linux__
    #define fc_cached(p, page) (mincore((void *)(p), 1, page) == 0 && *(page) & 1)
    #else /* others count pages of this process, not of the system's cache */
    #define fc_cached(p, page) 0
    #endif

    #define FC_GUARDS 1024
    static struct { uintptr_t first, end; volatile int lost; } fc_guards[FC_GUARDS];

    #ifdef _WIN32
    #define fc_listen() (void)0
    #else
    #include <signal.h>
    #include <unistd.h>

    static struct sigaction fc_former;
    static uintptr_t fc_page;

    static void fc_on_bus(int number, siginfo_t *info, void *context)
    {
        uintptr_t at = (uintptr_t)info->si_addr;
        (void)number;
        (void)context;
        for (int i = 0; i < FC_GUARDS; i++) {
            if (fc_guards[i].first <= at && at < fc_guards[i].end) {
                void *page = (void *)(at / fc_page * fc_page);
                fc_guards[i].lost = 1;
                if (mmap(page, fc_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page)
                    return;
            }
        }
        sigaction(SIGBUS, &fc_former, NULL); /* none of ours: it comes again, to whoever was there before */
    }

    /* also after somebody else has taken the signal */
    static void fc_listen(void)
    {
        struct sigaction now;
        fc_page = (uintptr_t)sysconf(_SC_PAGESIZE);
        if (sigaction(SIGBUS, NULL, &now) || ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == fc_on_bus))
            return;
        fc_former = now;
        now.sa_sigaction = fc_on_bus;
        now.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&now.sa_mask);
        sigaction(SIGBUS, &now, NULL);
    }
    #endif
    """
    ctypedef size_t uintptr_t
    int fc_advise(uintptr_t p, size_t n, int advice) nogil
    bint fc_cached(uintptr_t p, unsigned char *page) nogil
    enum: FC_GUARDS
    struct fc_guard:
        uintptr_t first, end
        int lost
    fc_guard *fc_guards
    void fc_listen()

cdef enum:
    PIECE = 2 << 20  # what one entry of the upper table of pages maps, so that threads share no lower one


cdef int check_range(const unsigned char[::1] mapped, Py_ssize_t first, Py_ssize_t nbytes) except -1:
    if not (0 <= first < first + nbytes <= mapped.shape[0]):
        raise IndexError(f"bytes [{first}, {first + nbytes}) of a mapping of {mapped.shape[0]}")
    return 0


def advise(const unsigned char[::1] mapped, Py_ssize_t first, Py_ssize_t nbytes, int advice):
    """Give ``madvise`` an advice on bytes [first, first + nbytes) of a mapping; first is a multiple of the page.

    Returns
    -------
    int
        0, or the bits of every errno with which the system refused.
    """
    cdef uintptr_t begin, end, p, q
    cdef Py_ssize_t piece, pieces
    cdef int refused = 0
    check_range(mapped, first, nbytes)
    begin = <uintptr_t>&mapped[first]
    end = begin + nbytes
    pieces = (end - 1) // PIECE - begin // PIECE + 1
    for piece in prange(pieces, nogil=True, num_threads=threads_for(<double>nbytes * 16)):
        p = max(begin, (begin // PIECE + piece) * PIECE)
        q = min(end, (begin // PIECE + piece + 1) * PIECE)
        refused |= fc_advise(p, q - p, advice)
    return refused


def cached(const unsigned char[::1] mapped, Py_ssize_t first, Py_ssize_t nbytes, Py_ssize_t step):
    """Return whether the system holds a page of every ``step`` of bytes [first, first + nbytes) in memory.

    first and step are multiples of the page. Nothing is read: a read that is not to wait for the disk (RWF_NOWAIT)
    starts one nevertheless, and finds what a fast disk has brought meanwhile. Of a file that this user may not
    write, Linux says that all is there; other systems do not tell, and the answer is no.
    """
    cdef Py_ssize_t at
    cdef unsigned char page
    check_range(mapped, first, nbytes)
    for at in range(first, first + nbytes, step):
        if not fc_cached(<uintptr_t>&mapped[at], &page):
            return False
    return True


def guard(const unsigned char[::1] mapped):
    """Have pages of a mapping that its file has no more replaced by zeros, until `unguard`.

    Returns
    -------
    int
        Number of the guard, for `lost` and `unguard`; -1 where there are too many.
    """
    cdef int i
    fc_listen()
    for i in range(FC_GUARDS):
        if fc_guards[i].end == 0:
            fc_guards[i].lost = 0
            fc_guards[i].first = <uintptr_t>&mapped[0]
            fc_guards[i].end = fc_guards[i].first + mapped.shape[0]
            return i
    return -1


def lost(int number):
    """Return whether a page of a guarded mapping was replaced."""
    return 0 <= number < FC_GUARDS and fc_guards[number].lost != 0


def unguard(int number):
    """Give a guard back; the mapping is about to go."""
    if 0 <= number < FC_GUARDS:
        fc_guards[number].first = 0
        fc_guards[number].end = 0
