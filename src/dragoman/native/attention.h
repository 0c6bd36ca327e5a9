/* One token attends to the keys and values of its text: softmax(scale q k) v, head by head. Keys and values are float32,
   or bfloat16 where the model's weights are narrower, too: they are read more often than anything else.

   T keys, H query heads, G key/value heads (G divides H), C channels of one head. */

#include "numbers.h"

typedef uint16_t Narrow __attribute__((vector_size(2 * V), aligned(2)));

/* Of V vectors, the sum of each. */
INLINE Vector sums_of(Vector *x) {
#if defined(__AVX512F__)
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#else
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#endif
#pragma GCC unroll 4
    for (int half = V / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) x[i] = EVEN(x[2 * i], x[2 * i + 1]) + ODD(x[2 * i], x[2 * i + 1]);
    return x[0];
}

INLINE Vector widened(const void *numbers, int64_t at, const int narrow) {
    if (!narrow) return *(const Vector *)((const float *)numbers + at);
    const uint16_t *from = (const uint16_t *)numbers + at;
#ifdef __AVX512F__
    return (Vector)((Whole)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from)) << 16);
#else
    return (Vector)(__builtin_convertvector(*(const Narrow *)from, Whole) << 16);
#endif
}

INLINE float widened_one(const void *numbers, int64_t at, const int narrow) {
    if (!narrow) return ((const float *)numbers)[at];
    union { uint32_t bits; float number; } wide = {(uint32_t)((const uint16_t *)numbers)[at] << 16};
    return wide.number;
}

/* Where the keys of T tokens begin: in the slots of a list, or one after the other from the first on. */
typedef struct {
    const void *kv;
    const int32_t *slot;
    int64_t first, wide; /* numbers from one token to the next */
} Past;

INLINE int64_t token_at(const Past *past, int64_t t) { return (past->slot ? past->slot[t] : past->first + t) * past->wide; }

INLINE void scores(const int64_t C, const int narrow, const float *q, const Past *past, int64_t head, int64_t T, float scale,
                   float *weight) {
    for (int64_t from = 0; from < T; from += V) {
        Vector product[V];
#pragma GCC unroll 16
        for (int i = 0; i < V; i++) {
            const int64_t at = token_at(past, from + i < T ? from + i : T - 1) + head * C;
            product[i] = *(const Vector *)q * widened(past->kv, at, narrow);
            for (int64_t c = V; c < C; c += V) product[i] += *(const Vector *)(q + c) * widened(past->kv, at + c, narrow);
        }
        *(Vector *)(weight + from) = sums_of(product) * scale;
    }
}

INLINE void scores_of_odd_heads(const int64_t C, const int narrow, const float *q, const Past *past, int64_t head, int64_t T,
                                float scale, float *weight) {
    for (int64_t t = 0; t < T; t++) {
        const int64_t at = token_at(past, t) + head * C;
        float product = 0;
        for (int64_t c = 0; c < C; c++) product += q[c] * widened_one(past->kv, at + c, narrow);
        weight[t] = product * scale;
    }
}

/* In place, in whole vectors. The weights' sum is what is returned; what lies behind the last of them adds nothing to it. */
INLINE float exponentials(int64_t T, float *weight) {
    const int64_t padded = (T + V - 1) / V * V;
    float highest = -INFINITY, sum = 0;
    for (int64_t t = T; t < padded; t++) weight[t] = -INFINITY;
#pragma omp simd reduction(max : highest)
    for (int64_t t = 0; t < padded; t++) highest = weight[t] > highest ? weight[t] : highest;
#pragma omp simd reduction(+ : sum)
    for (int64_t t = 0; t < padded; t++) sum += weight[t] = exponential(weight[t] - highest);
    return sum;
}

INLINE void mix(const int vectors, const int narrow, const Past *past, int64_t from, int64_t T, const float *weight, float share,
                float *to) {
    Vector sum[4] = {{0}, {0}, {0}, {0}};
    for (int64_t t = 0; t < T; t++) {
        const int64_t at = token_at(past, t) + from;
        for (int j = 0; j < vectors; j++) sum[j] += widened(past->kv, at + j * V, narrow) * weight[t];
    }
    for (int j = 0; j < vectors; j++) ((Vector *)to)[j] = sum[j] * share;
}

INLINE void attend_as(const int64_t C, const int narrow, int64_t H, int64_t G, float scale, const float *query, const Past *past,
                      int64_t T, float *weight, float *to) {
    for (int64_t h = 0; h < H; h++, query += C, to += C) {
        const int64_t head = h / (H / G), values = (G + head) * C;
        int64_t c = 0;
        if (T == 0) {
            memset(to, 0, C * sizeof(float));
            continue;
        }
        if (C % V == 0)
            scores(C, narrow, query, past, head, T, scale, weight);
        else
            scores_of_odd_heads(C, narrow, query, past, head, T, scale, weight);
        const float share = 1.0f / exponentials(T, weight);
        for (; c + 4 * V <= C; c += 4 * V) mix(4, narrow, past, values + c, T, weight, share, to + c);
        for (; c + 2 * V <= C; c += 2 * V) mix(2, narrow, past, values + c, T, weight, share, to + c);
        for (; c + V <= C; c += V) mix(1, narrow, past, values + c, T, weight, share, to + c);
        for (; c < C; c++) {
            float sum = 0;
            for (int64_t t = 0; t < T; t++) sum += widened_one(past->kv, token_at(past, t) + values + c, narrow) * weight[t];
            to[c] = sum * share;
        }
    }
}

/* Heads of the usual sizes are compiled by themselves. weight: room for T numbers and a vector more. */
#define OF_SIZE(C, narrow) attend_as(C, narrow, H, G, scale, query, past, T, weight, to)
#define OF_NUMBERS(narrow)                                                                                            \
    if (C == 64)                                                                                                      \
        OF_SIZE(64, narrow);                                                                                          \
    else if (C == 32)                                                                                                 \
        OF_SIZE(32, narrow);                                                                                          \
    else if (C == 128)                                                                                                \
        OF_SIZE(128, narrow);                                                                                         \
    else                                                                                                              \
        OF_SIZE(C, narrow);

static void attend(int64_t C, int narrow, int64_t H, int64_t G, float scale, const float *query, const Past *past, int64_t T,
                   float *weight, float *to) {
    if (narrow) {
        OF_NUMBERS(1)
    } else {
        OF_NUMBERS(0)
    }
}
