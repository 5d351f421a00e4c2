#define FC_SINGLE 0
#include "vec_scalar.h"
#include "isa.inc.h"
