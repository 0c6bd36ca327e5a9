/* Dropout whose mask is a function of a seed and an element's index: the backward pass draws the mask of the forward pass again. */

#pragma once

#include "numbers.h"

typedef struct {
    int64_t seed, below; /* an element is zeroed where its 16 random bits are less than ``below`` */
    double factor;       /* scale of the elements that are kept */
} Dropout;

typedef uint32_t Bits __attribute__((vector_size(4 * V), aligned(4)));

/* Return twice sixteen random bits for each place, a function of seed and place: the finalizer of MurmurHash3 (Austin Appleby),
   with half of the seed mixed in before it and half inside. */
INLINE Bits drawn(Bits place, uint64_t seed) {
    place = place * 0x9e3779b1u ^ (uint32_t)seed;
    place = (place ^ place >> 16) * 0x85ebca6bu + (uint32_t)(seed >> 32);
    place = (place ^ place >> 13) * 0xc2b2ae35u;
    return place ^ place >> 16;
}

/* Apply dropout to the V elements from i on, a multiple of P, and to the V after them: each draw serves two elements. */
INLINE void drop(const Dropout *d, int64_t i, Vector *low, Vector *high) {
    const Vector zero = {0};
    if (!d->below) return;
    const Bits bits = drawn((Bits)LANES + (uint32_t)(i / 2), (uint64_t)d->seed);
    *low = chosen((Whole)(bits & 0xffff) >= (int32_t)d->below, *low * (float)d->factor, zero);
    *high = chosen((Whole)(bits >> 16) >= (int32_t)d->below, *high * (float)d->factor, zero);
}
