/* Heads in bfloat16 wherever they lie: (B, H, T, C), the C channels of a head side by side. */

#pragma once

#include <stdint.h>

typedef struct {
    uint16_t *x;
    int64_t text, token, head; /* steps from one to the next, in numbers */
} Heads;

static inline uint16_t *head_of(const Heads *heads, int64_t b, int64_t h) { return heads->x + b * heads->text + h * heads->head; }
