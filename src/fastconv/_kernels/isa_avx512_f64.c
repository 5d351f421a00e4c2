/* An empty object on other processors. */
#if defined(__x86_64__) || defined(_M_X64)
#define FC_SINGLE 0
#include "vec_avx512.h"
#include "isa.inc.h"
#endif
