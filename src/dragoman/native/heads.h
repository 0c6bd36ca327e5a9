/* Attention heads in bfloat16, (B, H, T, C) with any strides but the last: the C channels of a head are contiguous. */

#pragma once

#include <stdint.h>

typedef struct {
    uint16_t *x;
    int64_t text, token, head; /* strides, in numbers */
} Heads;

static inline uint16_t *head_of(const Heads *heads, int64_t b, int64_t h) { return heads->x + b * heads->text + h * heads->head; }
