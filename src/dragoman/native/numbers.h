/* Vector arithmetic shared by all kernels. They are written with the compiler's vector types, so that any processor runs them.
   Intrinsics stand where the compiler finds no instruction for what is meant: products of bfloat16 and int8, conversions, maxima. */

#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
enum { V = 16, MOST = 12 }; /* floats of a register; rows of a block: 24 registers of sums leave room for the operands */
#else
enum { V = 8, MOST = 6 };
#endif
enum { P = 2 * V, SUMS = 2 * MOST, CHUNK = 240 }; /* CHUNK rows stay in the cache while all weights are read */

typedef float Vector __attribute__((vector_size(4 * V), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(4 * V), aligned(4)));

typedef uint16_t Half __attribute__((vector_size(2 * V), aligned(2))); /* V numbers in bfloat16 */
typedef int8_t Bytes __attribute__((vector_size(V), aligned(1)));

enum { LARGE = 1 << 16 }; /* numbers from which several threads are worth their start */

/* Run a loop on several threads ``where`` it is long enough, else here: a team costs most of a microsecond to start, even one of a
   single thread. */
#define SHARED(where, ...)                                                                                            \
    if ((where) && omp_get_max_threads() > 1) {                                                                       \
        _Pragma("omp parallel for schedule(static)") __VA_ARGS__                                                      \
    } else {                                                                                                          \
        __VA_ARGS__                                                                                                   \
    }

#define INLINE static inline __attribute__((always_inline))

/* Allocate ``bytes`` bytes and a little more, until ``release``. They begin at a line of the cache; before them stands what malloc
   gave, which is faster than aligned_alloc and matters for small products. A parallel loop can neither go on without memory nor return
   an error from its middle: the process ends with a message, rather than by writing to address 0. */
static void *room(size_t bytes) {
    char *memory = bytes < SIZE_MAX - 192 ? malloc(bytes + 192) : NULL;
    if (memory == NULL) {
        fprintf(stderr, "dragoman: out of memory: the kernels asked for %zu bytes: use smaller batches\n", bytes);
        abort();
    }
    void **start = (void **)(memory + 64 - (uintptr_t)memory % 64);
    start[-1] = memory;
    return start;
}

static void release(void *start) {
    if (start) free(((void **)start)[-1]);
}

INLINE float exponential_unclamped(float x) { /* exp(x) of |x| <= 87, within 2 units in the last place */
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer, which stands in the lowest bits */
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

INLINE float exponential_below_1(float x) { return exponential_unclamped(x < -87.0f ? -87.0f : x); } /* of x <= 0; exp(-87) below -87 */

INLINE float exponential(float x) { return exponential_below_1(x > 87.0f ? 87.0f : x); } /* of any x; exp(87) above 87 */

/* ---- one register at a time ------------------------------------------------------------------------- */

INLINE Whole words_of_halves(const uint16_t *x) { /* V bfloat16, the bits of each in a word of its own */
#ifdef __AVX512F__
    return (Whole)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x));
#else
    return __builtin_convertvector(*(const Half *)x, Whole);
#endif
}

INLINE Whole words_of_bytes(const int8_t *x) { /* V int8, each in a word of its own */
#ifdef __AVX512F__
    return (Whole)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x));
#else
    return __builtin_convertvector(*(const Bytes *)x, Whole);
#endif
}

INLINE Vector at(const float *x) { return *(const Vector *)x; }

INLINE float number_of_half(uint16_t x) {
    union { uint32_t bits; float number; } wide = {(uint32_t)x << 16};
    return wide.number;
}

INLINE Vector of_half(const uint16_t *x) { return (Vector)(words_of_halves(x) << 16); }

INLINE void to_half(uint16_t *to, Vector x) { /* round to nearest, ties to even */
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    const Whole bits = (Whole)x, rounded = bits + 0x7fff + (bits >> 16 & 1);
#ifdef __AVX512F__
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)(rounded >> 16)));
#else
    *(Half *)to = __builtin_convertvector(rounded >> 16, Half);
#endif
#endif
}

/* Pack two vectors as pairs of bfloat16 in words of 32 bits. */
INLINE Whole side_by_side(Vector low, Vector high) {
#ifdef __AVX512BF16__
    const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)low));
    return (Whole)a | (Whole)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)high)) << 16;
#else
    const Whole a = (Whole)low, b = (Whole)high;
    return ((a + 0x7fff + (a >> 16 & 1)) >> 16 & 0xffff) | ((b + 0x7fff + (b >> 16 & 1)) & (int32_t)0xffff0000);
#endif
}

/* Return sum + low x + high y, where low and high are the bfloat16 that a word holds. */
INLINE Vector add_both(Vector sum, Whole w, float x, float y) {
    return sum + (Vector)(w << 16) * x + (Vector)(w & (int32_t)0xffff0000) * y;
}

/* The same with x and y as a pair of bfloat16. */
INLINE Vector add_pair(Vector sum, Whole w, uint32_t pair) {
#ifdef __AVX512BF16__
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)w);
#else
    union { uint32_t bits; float number; } low = {pair << 16}, high = {pair & 0xffff0000u};
    return add_both(sum, w, low.number, high.number);
#endif
}

INLINE Vector chosen(Whole where, Vector x, Vector otherwise) {
    return (Vector)((where & (Whole)x) | (~where & (Whole)otherwise));
}

/* Return the larger; b where either is NaN. */
INLINE Vector higher(Vector a, Vector b) {
#ifdef __AVX512F__
    return (Vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return chosen(a > b, a, b);
#endif
}

INLINE Vector lower(Vector a, Vector b) {
#ifdef __AVX512F__
    return (Vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return chosen(a < b, a, b);
#endif
}

INLINE Vector exponential_each(Vector x) { /* as exponential; NaN stays NaN */
    const Vector zero = {0};
    x = higher(zero - 87.0f, lower(zero + 87.0f, x));
    const Vector shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the last bits are the nearest integer */
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
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#else
#define LANES ((Whole){0, 1, 2, 3, 4, 5, 6, 7})
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#endif

INLINE float sum_of(Vector x) {
#pragma GCC unroll 4
    for (int half = V / 2; half; half /= 2) x = EVEN(x, x) + ODD(x, x);
    return x[0];
}

/* Return whether a word is not 0. */
INLINE int any(Whole where) {
    int found = 0;
    for (int i = 0; i < V; i++) found |= where[i] != 0;
    return found;
}

INLINE float highest_in(Vector x) {
#pragma GCC unroll 4
    for (int half = V / 2; half; half /= 2) x = higher(EVEN(x, x), ODD(x, x));
    return x[0];
}
