#include "vec_scalar.h"
#include "isa.inc.h"
