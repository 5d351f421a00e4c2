#define FC_SINGLE 1
#include "vec_scalar.h"
#include "isa.inc.h"
