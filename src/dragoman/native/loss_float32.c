#define FLOAT32
#include "loss.c"
