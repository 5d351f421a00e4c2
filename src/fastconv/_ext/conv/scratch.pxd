"""Scratch memory of one call, in regions.

Whoever describes a computation books the regions it needs, from sizes alone; the memory is asked for once, and whoever
computes gets each region by its name.
"""

cdef enum:  # the regions
    TAPS, PANELS, SEGMENTS, WINDOWS, SUMS, BIAS_SUMS, ZEROS, VALUES_OF_TILES, REGIONS

cdef struct Scratch:
    char *base                    # set when the memory is there
    Py_ssize_t nbytes[REGIONS]


cdef inline Py_ssize_t aligned(Py_ssize_t nbytes) noexcept nogil:
    return (nbytes + 63) & ~<Py_ssize_t>63


cdef inline void nothing_booked(Scratch *s) noexcept nogil:
    cdef int region
    s.base = NULL
    for region in range(REGIONS):
        s.nbytes[region] = 0


cdef inline void book(Scratch *s, int region, Py_ssize_t nbytes) noexcept nogil:
    """Book so many bytes, on cache lines of their own; computations that take turns share a region."""
    s.nbytes[region] = max(s.nbytes[region], aligned(nbytes))


cdef inline Py_ssize_t booked(const Scratch *s) noexcept nogil:
    """Return the bytes of all regions."""
    cdef Py_ssize_t total = 0
    cdef int region
    for region in range(REGIONS):
        total += s.nbytes[region]
    return total


cdef inline char *get(const Scratch *s, int region) noexcept nogil:
    """Return where a booked region lies."""
    cdef char *at = s.base
    cdef int before
    for before in range(region):
        at += s.nbytes[before]
    return at
