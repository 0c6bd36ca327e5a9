#define FLOAT32
#include "flash.c"
