"""Advice on a mapped file, given by all threads at once, and what of it the system holds in memory.

To map and unmap a window takes the system some tenth of the time that threads compute on it.
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
    """
    ctypedef size_t uintptr_t
    int fc_advise(uintptr_t p, size_t n, int advice) nogil
    bint fc_cached(uintptr_t p, unsigned char *page) nogil

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
