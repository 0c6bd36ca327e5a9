/* Dropout whose mask is a function of a seed and of an element's place: what forward drew is drawn again backward. */

#pragma once

#include "numbers.h"

typedef struct {
    int64_t seed, below; /* a number below 2^16 is drawn for each element, which is zeroed where that is below this */
    double factor;       /* of the others */
} Dropout;

typedef uint32_t Bits __attribute__((vector_size(4 * V), aligned(4)));

/* Sixteen bits twice for each place, from the seed and the place alone: so that what forward drew is drawn again backward.
   The finish of MurmurHash3 (Austin Appleby), with half of the seed before it and half behind. */
INLINE Bits drawn(Bits place, uint64_t seed) {
    place = place * 0x9e3779b1u ^ (uint32_t)seed;
    place = (place ^ place >> 16) * 0x85ebca6bu + (uint32_t)(seed >> 32);
    place = (place ^ place >> 13) * 0xc2b2ae35u;
    return place ^ place >> 16;
}

/* V elements from place i, a multiple of P, on, and the V behind them: two from each draw. */
INLINE void drop(const Dropout *d, int64_t i, Vector *low, Vector *high) {
    const Vector zero = {0};
    if (!d->below) return;
    const Bits bits = drawn((Bits)LANES + (uint32_t)(i / 2), (uint64_t)d->seed);
    *low = chosen((Whole)(bits & 0xffff) >= (int32_t)d->below, *low * (float)d->factor, zero);
    *high = chosen((Whole)(bits >> 16) >= (int32_t)d->below, *high * (float)d->factor, zero);
}
