/* What all kernels count with. Written with the compiler's vectors, so that any processor runs it; only the products of
   bfloat16 and of whole numbers ask for instructions by name, where there are some. */

#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
enum { V = 16, MOST = 12 }; /* numbers of a register; rows of a block: 24 sums, and room for what is multiplied */
#else
enum { V = 8, MOST = 6 };
#endif
enum { P = 2 * V, SUMS = 2 * MOST, CHUNK = 240 }; /* CHUNK rows stay in the cache while the weights come by */

typedef float Vector __attribute__((vector_size(4 * V), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(4 * V), aligned(4)));

typedef uint16_t Half __attribute__((vector_size(2 * V), aligned(2))); /* as many numbers in bfloat16 */

#define INLINE static inline __attribute__((always_inline))

static void *room(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64); }

INLINE float exponential_below_1(float x) { /* of x <= 0; within 2 units in the last place; nothing below exp(-87) */
    const float shift = 12582912.0f; /* 1.5 * 2**23: what is added to it is rounded, and its lowest bits are a whole number */
    x = x < -87.0f ? -87.0f : x;
    union { uint32_t bits; float number; } power = {.number = x * 1.44269504f + shift};
    const float n = power.number - shift;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float e = 1.98756915e-4f;
    e = e * r + 1.39819995e-3f;
    e = e * r + 8.33345205e-3f;
    e = e * r + 4.16657962e-2f;
    e = e * r + 1.66666657e-1f;
    e = e * r + 5.00000000e-1f;
    e = e * r * r + r + 1.0f;
    power.bits = (power.bits + 127) << 23;
    return e * power.number;
}

INLINE float exponential(float x) { /* and nothing above exp(87) */
    return x > 0 ? 1.0f / exponential_below_1(-x) : exponential_below_1(x);
}

/* ---- as many at once as a register holds ------------------------------------------------------------- */

INLINE Vector of_half(const uint16_t *x) {
#ifdef __AVX512F__
    const Whole wide = (Whole)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x));
#else
    const Whole wide = __builtin_convertvector(*(const Half *)x, Whole);
#endif
    return (Vector)(wide << 16);
}

INLINE void to_half(uint16_t *to, Vector x) { /* to the nearest, halves to even */
    const Whole bits = (Whole)x, rounded = bits + 0x7fff + (bits >> 16 & 1);
#ifdef __AVX512F__
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)(rounded >> 16)));
#else
    *(Half *)to = __builtin_convertvector(rounded >> 16, Half);
#endif
}

INLINE Vector chosen(Whole where, Vector x, Vector otherwise) {
    return (Vector)((where & (Whole)x) | (~where & (Whole)otherwise));
}

INLINE Vector exponential_each(Vector x) { /* as exponential; what is no number stays none */
    const Vector zero = {0}, lowest = zero - 87.0f, highest = zero + 88.0f;
    x = chosen(x < lowest, lowest, chosen(x > highest, highest, x));
    const Vector shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the last bits are the nearest whole number */
    const Vector n = shifted - 12582912.0f;
    const Vector r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    Vector e = zero + 1.98756915e-4f;
    e = e * r + 1.39819995e-3f;
    e = e * r + 8.33345205e-3f;
    e = e * r + 4.16657962e-2f;
    e = e * r + 1.66666657e-1f;
    e = e * r + 5.00000000e-1f;
    e = e * r * r + r + 1.0f;
    return e * (Vector)(((Whole)shifted << 23) + (127 << 23));
}

#if defined(__AVX512F__)
#define LANES ((Whole){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#else
#define LANES ((Whole){0, 1, 2, 3, 4, 5, 6, 7})
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#endif

INLINE float sum_of(Vector x) {
#pragma GCC unroll 4
    for (int half = V / 2; half; half /= 2) x = EVEN(x, x) + ODD(x, x);
    return x[0];
}

INLINE Vector higher(Vector a, Vector b) { return chosen(a > b, a, b); }

INLINE float highest_in(Vector x) {
#pragma GCC unroll 4
    for (int half = V / 2; half; half /= 2) x = higher(EVEN(x, x), ODD(x, x));
    return x[0];
}
