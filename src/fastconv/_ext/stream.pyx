"""Advice on a mapped file, given by all threads at once.

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
    """
    ctypedef size_t uintptr_t
    int fc_advise(uintptr_t p, size_t n, int advice) nogil

cdef enum:
    PIECE = 2 << 20  # what one entry of the upper table of pages maps, so that threads share no lower one


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
    if not (0 <= first < first + nbytes <= mapped.shape[0]):
        raise IndexError(f"bytes [{first}, {first + nbytes}) of a mapping of {mapped.shape[0]}")
    begin = <uintptr_t>&mapped[first]
    end = begin + nbytes
    pieces = (end - 1) // PIECE - begin // PIECE + 1
    for piece in prange(pieces, nogil=True, num_threads=threads_for(<double>nbytes * 16)):
        p = max(begin, (begin // PIECE + piece) * PIECE)
        q = min(end, (begin // PIECE + piece + 1) * PIECE)
        refused |= fc_advise(p, q - p, advice)
    return refused
