/* Attention heads, (B, H, T, C) with any strides but the last: the C channels of a head are contiguous. */

#pragma once

#include "value.h"

typedef struct {
    Value *x;
    int64_t text, token, head; /* strides, in numbers */
} Heads;

static inline Value *head_of(const Heads *heads, int64_t b, int64_t h) { return heads->x + b * heads->text + h * heads->head; }
