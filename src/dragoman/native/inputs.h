/* Inputs of a product, rounded to the format of its weights, and the dot products of that format.

   K inputs. A panel's weights lie in words of 32 bits: one float, two bfloat16 or four int8. */

#pragma once

#include "matrix_unit.h"
#include "numbers.h"

enum { FLOAT32, BFLOAT16, INT8 };

/* Return the number of 32-bit words that hold K numbers. */
INLINE int64_t words_of(int64_t kind, int64_t K) { return kind == FLOAT32 ? K : kind == BFLOAT16 ? (K + 1) / 2 : (K + 3) / 4; }

typedef int32_t Bits __attribute__((may_alias)); /* of a float: those of absolute values are in the order of the values */

/* ---- bfloat16 --------------------------------------------------------------------------------------- */

INLINE uint32_t round_to_bfloat16(float x) { /* to nearest, ties to even; its 16 bits are the upper ones */
    union { float number; uint32_t bits; } of = {x};
    return of.bits + 0x7fff + (of.bits >> 16 & 1);
}

static void to_bfloat16(const float *x, int64_t K, uint16_t *to) {
    for (int64_t k = 0; k < K; k++) to[k] = (uint16_t)(round_to_bfloat16(x[k]) >> 16);
}

#if defined(__AVX512BF16__) || MATRIX_UNIT

enum { MOST_BFLOAT16 = MOST }; /* rows of a block */

typedef uint32_t Bfloat16Pair __attribute__((may_alias));

static void to_bfloat16_pairs(const float *x, int64_t K, Bfloat16Pair *to) {
    to_bfloat16(x, K, (uint16_t *)to);
    if (K % 2) ((uint16_t *)to)[K] = 0; /* meets weights of 0 */
}

INLINE Vector dot2(Vector sum, Whole w, Bfloat16Pair x) { return add_pair(sum, w, x); }

#else

enum { MOST_BFLOAT16 = V == 16 ? MOST : 5 }; /* a word of weights takes two registers */

/* Rounded inputs, as floats: without an instruction for pairs they would be taken apart for each product. */
typedef struct {
    float low, high;
} Bfloat16Pair;

static void to_bfloat16_pairs(const float *x, int64_t K, Bfloat16Pair *to) {
    for (int64_t k = 0; k < K; k++) ((Bits *)to)[k] = (int32_t)(round_to_bfloat16(x[k]) & 0xffff0000);
    if (K % 2) to[K / 2].high = 0; /* meets weights of 0 */
}

INLINE Vector dot2(Vector sum, Whole w, Bfloat16Pair x) { return add_both(sum, w, x.low, x.high); }

#endif

/* ---- int8: from -127 to 127, in units of 1/127 of the largest absolute input of the row -------------------- */

/* A row of inputs in int8. */
typedef struct {
    float absmax;       /* NaN where an input is NaN or infinite, so that outputs are NaN as well */
    int32_t correction; /* to be added to its sums with all weights */
} QuantizedRow;

static float absmax(const float *x, int64_t K) {
    union { int32_t bits; float number; } found = {.number = 1e-20f};
    int32_t bits = found.bits;
#pragma omp simd reduction(max : bits)
    for (int64_t k = 0; k < K; k++) {
        const int32_t absolute = ((const Bits *)x)[k] & 0x7fffffff;
        bits = absolute > bits ? absolute : bits;
    }
    found.bits = bits;
    return found.number < INFINITY ? found.number : NAN;
}

INLINE int32_t quantized(float x, float factor) { return (int32_t)rintf(x * factor); }

#if !defined(__AVX512VNNI__) && !defined(__AVXVNNI__) && !MATRIX_UNIT && \
    (defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__)))

/* No instruction adds products of four int8 to a sum, but one adds products of two in 16 bits: inputs are absolute values and signs. */
#define ABSOLUTE 1
enum { MOST_INT8 = V == 16 ? MOST : 5 }; /* rows of a block */

/* Four absolute values, and 255 for each input that is negative. */
typedef struct {
    uint32_t absolute, negative;
} Int8Quad;

static QuantizedRow to_int8(const float *x, int64_t K, Int8Quad *to) {
    enum { PART = 256 };
    const float size = absmax(x, K), factor = 127.0f / size;
    int32_t correction = 0;
    for (int64_t from = 0; from < K; from += PART, to += PART / 4) {
        const int64_t count = K - from < PART ? K - from : PART, words = (count + 3) / 4;
        int8_t some[PART];
        uint32_t four[PART / 4];
#pragma omp simd reduction(+ : correction)
        for (int64_t k = 0; k < count; k++) {
            some[k] = (int8_t)quantized(x[from + k], factor);
            correction += some[k] < 0 ? -some[k] : 0;
        }
        for (int64_t k = count; k % 4; k++) some[k] = 0; /* meets weights of 0 */
        memcpy(four, some, 4 * words);
        for (int64_t i = 0; i < words; i++) {
            const uint32_t ones = four[i] >> 7 & 0x01010101, negative = (ones << 8) - ones;
            to[i] = (Int8Quad){(four[i] ^ negative) + ones, negative};
        }
    }
    return (QuantizedRow){size, correction};
}

/* 16 bits hold two products of |x| and w or, where x is negative, of |x| and ~w, which is -w - 1. So sums lack |x| of each
   negative input. The empty statement of assembly keeps the compiler from computing the products of many
   rows first, which leaves no registers for sums. */
INLINE Whole dot4(Whole sum, Whole w, Int8Quad x) {
    const Whole zero = {0}, factors = w ^ (zero + (int32_t)x.negative);
#ifdef __AVX512F__
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi32((int)x.absolute), (__m512i)factors);
    sum += (Whole)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    __asm__ volatile("" : "+v"(sum));
#else
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32((int)x.absolute), (__m256i)factors);
    sum += (Whole)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    __asm__ volatile("" : "+x"(sum));
#endif
    return sum;
}

#else

#define ABSOLUTE 0
enum { MOST_INT8 = MOST };

typedef uint32_t Int8Quad; /* four inputs + 128 */

static QuantizedRow to_int8(const float *x, int64_t K, Int8Quad *to) {
    const float size = absmax(x, K), factor = 127.0f / size;
    uint8_t *shifted = (uint8_t *)to;
    for (int64_t k = 0; k < K; k++) shifted[k] = (uint8_t)(quantized(x[k], factor) + 128);
    for (int64_t k = K; k % 4; k++) shifted[k] = 0; /* meets weights of 0 */
    return (QuantizedRow){size, 0};
}

INLINE Whole dot4(Whole sum, Whole w, Int8Quad x) {
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
    const size_t word = kind == FLOAT32 ? sizeof(float) : kind == BFLOAT16 ? sizeof(Bfloat16Pair) : sizeof(Int8Quad);
    return words_of(kind, K) * (int64_t)word;
}
