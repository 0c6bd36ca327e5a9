/* Inputs of a product in the format of its weights, and what adds a product of four int8 to a sum. */

#pragma once

#include "matrix_unit.h"
#include "numbers.h"

enum { FLOAT32, BFLOAT16, INT8 };

/* Return the number of 32-bit words that hold K numbers: each holds one float, two bfloat16 or four int8. */
INLINE int64_t words_of(int64_t kind, int64_t K) { return kind == FLOAT32 ? K : kind == BFLOAT16 ? (K + 1) / 2 : (K + 3) / 4; }

typedef int32_t Bits __attribute__((may_alias)); /* of a float: those of absolute values are in the order of the values */

/* ---- bfloat16 --------------------------------------------------------------------------------------- */

INLINE uint32_t rounded(float x) { /* to bfloat16, halves to even; its 16 bits are the upper ones */
    union { float number; uint32_t bits; } of = {x};
    return of.bits + 0x7fff + (of.bits >> 16 & 1);
}

static void to_bfloat16(const float *x, int64_t K, uint16_t *to) {
    for (int64_t k = 0; k < K; k++) to[k] = (uint16_t)(rounded(x[k]) >> 16);
}

#if defined(__AVX512BF16__) || MATRIX_UNIT

enum { MOST_BFLOAT16 = MOST }; /* rows of a block */

typedef uint32_t Two; /* two numbers in bfloat16 */

static void to_twos(const float *x, int64_t K, Two *to) {
    to_bfloat16(x, K, (uint16_t *)to);
    if (K % 2) ((uint16_t *)to)[K] = 0; /* meets weights of 0 */
}

INLINE Vector add_two(Vector sum, Whole w, Two x) { return add_pair(sum, w, x); }

#else

enum { MOST_BFLOAT16 = V == 16 ? MOST : 5 }; /* a word of weights takes two registers */

/* Two numbers rounded to bfloat16. Without an instruction for pairs they would be taken apart for each product. */
typedef struct {
    float low, high;
} Two;

static void to_twos(const float *x, int64_t K, Two *to) {
    for (int64_t k = 0; k < K; k++) ((Bits *)to)[k] = (int32_t)(rounded(x[k]) & 0xffff0000);
    if (K % 2) to[K / 2].high = 0; /* meets weights of 0 */
}

INLINE Vector add_two(Vector sum, Whole w, Two x) { /* as add_pair */
    return sum + (Vector)(w << 16) * x.low + (Vector)(w & (int32_t)0xffff0000) * x.high;
}

#endif

/* ---- int8: codes from -127 to 127, in units of 1/127 of the largest absolute input of their row -------------------- */

/* What is known of a row. */
typedef struct {
    float size;      /* the largest absolute input; NaN where one is NaN or infinite, so that outputs are NaN as well */
    int32_t missing; /* what the sums of all outputs lack, where words are Magnitudes */
} Row;

static float largest(const float *x, int64_t K) {
    union { int32_t bits; float number; } found = {.number = 1e-20f};
    int32_t bits = found.bits;
#pragma omp simd reduction(max : bits)
    for (int64_t k = 0; k < K; k++) {
        const int32_t of_this = ((const Bits *)x)[k] & 0x7fffffff;
        bits = of_this > bits ? of_this : bits;
    }
    found.bits = bits;
    return found.number < INFINITY ? found.number : NAN;
}

INLINE int32_t code(float x, float factor) { return (int32_t)rintf(x * factor); }

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || MATRIX_UNIT
#define MAGNITUDES 0
#elif defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
#define MAGNITUDES 1
#else
#define MAGNITUDES 0
#endif

#if MAGNITUDES

enum { MOST_INT8 = V == 16 ? MOST : 5 }; /* rows of a block */

/* Four codes: their absolute values, and 255 for each that is negative. */
typedef struct {
    uint32_t sizes, negative;
} Four;

static Row to_int8(const float *x, int64_t K, Four *to) {
    enum { PART = 256 };
    const float size = largest(x, K), factor = 127.0f / size;
    int32_t missing = 0;
    for (int64_t from = 0; from < K; from += PART, to += PART / 4) {
        const int64_t count = K - from < PART ? K - from : PART, words = (count + 3) / 4;
        int8_t codes[PART];
        uint32_t four[PART / 4];
#pragma omp simd reduction(- : missing)
        for (int64_t k = 0; k < count; k++) {
            const int32_t of_this = code(x[from + k], factor);
            codes[k] = (int8_t)of_this;
            missing -= of_this < 0 ? of_this : 0;
        }
        for (int64_t k = count; k % 4; k++) codes[k] = 0; /* meets weights of 0 */
        memcpy(four, codes, 4 * words);
        for (int64_t i = 0; i < words; i++) {
            const uint32_t ones = four[i] >> 7 & 0x01010101, negative = (ones << 8) - ones;
            to[i] = (Four){(four[i] ^ negative) + ones, negative};
        }
    }
    return (Row){size, missing};
}

/* Without an instruction for it pairs of products are added in 16 bits. They hold those of |x| and w or, where x is negative, of |x|
   and ~w, which is -w - 1: sums lack |x| of each negative input. The statement of no instructions keeps the compiler from
   computing the products of many rows first, which leaves no registers for sums. */
INLINE Whole add_four(Whole sum, Whole w, Four x) {
    const Whole zero = {0}, factors = w ^ (zero + (int32_t)x.negative);
#ifdef __AVX512F__
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi32((int)x.sizes), (__m512i)factors);
    sum += (Whole)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    __asm__ volatile("" : "+v"(sum));
#else
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32((int)x.sizes), (__m256i)factors);
    sum += (Whole)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    __asm__ volatile("" : "+x"(sum));
#endif
    return sum;
}

#else

enum { MOST_INT8 = MOST };

typedef uint32_t Four; /* four codes + 128 */

static Row to_int8(const float *x, int64_t K, Four *to) {
    const float size = largest(x, K), factor = 127.0f / size;
    uint8_t *codes = (uint8_t *)to;
    for (int64_t k = 0; k < K; k++) codes[k] = (uint8_t)(code(x[k], factor) + 128);
    for (int64_t k = K; k % 4; k++) codes[k] = 0; /* meets weights of 0 */
    return (Row){size, 0};
}

INLINE Whole add_four(Whole sum, Whole w, Four x) {
#if defined(__AVX512VNNI__)
    return (Whole)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32((int)x), (__m512i)w);
#elif defined(__AVXVNNI__)
    return (Whole)_mm256_dpbusd_avx_epi32((__m256i)sum, _mm256_set1_epi32((int)x), (__m256i)w);
#else
    for (int i = 0; i < 4; i++) sum += (w << (24 - 8 * i) >> 24) * (int32_t)(x >> (8 * i) & 255);
    return sum;
#endif
}

#endif

/* Return how many bytes the inputs of a row take. */
INLINE int64_t bytes_of(int64_t kind, int64_t K) {
    return words_of(kind, K) * (int64_t)(kind == FLOAT32 ? sizeof(float) : kind == BFLOAT16 ? sizeof(Two) : sizeof(Four));
}
