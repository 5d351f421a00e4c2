/* An empty object on other processors. */
#if defined(__aarch64__) || defined(_M_ARM64)
#define FC_SINGLE 1
#include "vec_neon.h"
#include "isa.inc.h"
#endif
