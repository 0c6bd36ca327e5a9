#define FLOAT32
#include "residual.c"
