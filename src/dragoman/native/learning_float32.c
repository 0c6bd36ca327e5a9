#define FLOAT32
#include "learning.c"
