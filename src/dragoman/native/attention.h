/* One token attends to the keys and values of its text: softmax(scale q k) v, head by head. Keys and values are float32,
   or bfloat16 where the model's weights are narrower than float32 too: nothing is read more often.

   T keys, H query heads, G key/value heads (G divides H), C channels of one head. */

#include "numbers.h"

/* Return the sums of V vectors. */
INLINE Vector sums_of(Vector *x) {
#pragma GCC unroll 4
    for (int half = V / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) x[i] = EVEN(x[2 * i], x[2 * i + 1]) + ODD(x[2 * i], x[2 * i + 1]);
    return x[0];
}

INLINE Vector widened(const void *numbers, int64_t at, const int narrow) {
    return narrow ? of_half((const uint16_t *)numbers + at) : *(const Vector *)((const float *)numbers + at);
}

INLINE float widened_one(const void *numbers, int64_t at, const int narrow) {
    return narrow ? number_of_half(((const uint16_t *)numbers)[at]) : ((const float *)numbers)[at];
}

/* Location of the keys of T tokens: in the slots of a list, or contiguous from the first one. */
typedef struct {
    const void *kv;
    const int32_t *slot;
    int64_t first, wide; /* first token; numbers from one token to the next */
} Past;

INLINE int64_t token_at(const Past *past, int64_t t) { return (past->slot ? past->slot[t] : past->first + t) * past->wide; }

/* Return partial sums of q k. Processors that multiply pairs of bfloat16 round the queries as well as the keys. */
INLINE Vector product_of(const int64_t C, const int narrow, const float *q, const void *kv, int64_t at) {
    Vector sum = {0};
#ifdef __AVX512BF16__
    if (narrow && C % P == 0) {
        for (int64_t c = 0; c < C; c += P) {
            const __m512bh pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(q + c + V), _mm512_loadu_ps(q + c));
            sum = (Vector)_mm512_dpbf16_ps((__m512)sum, pairs, (__m512bh)_mm512_loadu_si512((const uint16_t *)kv + at + c));
        }
        return sum;
    }
#endif
    for (int64_t c = 0; c < C; c += V) sum += *(const Vector *)(q + c) * widened(kv, at + c, narrow);
    return sum;
}

/* Return the scores of ``count`` tokens from ``from`` on; past the last token it is repeated. */
INLINE Vector scores_of(const int64_t C, const int narrow, const int count, const float *q, const Past *past, int64_t head,
                          int64_t from, int64_t T) {
    Vector product[V] = {{0}};
#pragma GCC unroll 16
    for (int i = 0; i < count; i++)
        product[i] = product_of(C, narrow, q, past->kv, token_at(past, from + i < T ? from + i : T - 1) + head * C);
    return sums_of(product);
}

INLINE void scores(const int64_t C, const int narrow, const float *q, const Past *past, int64_t head, int64_t T, float scale,
                   float *weight) {
    int64_t from = 0;
    for (; from + V / 2 < T; from += V) *(Vector *)(weight + from) = scores_of(C, narrow, V, q, past, head, from, T) * scale;
    if (from < T) *(Vector *)(weight + from) = scores_of(C, narrow, V / 2, q, past, head, from, T) * scale;
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

/* Exponentiate T scores in place, relative to their maximum, and return their sum. The padding of the last vector counts as
   exp(-infinity). */
INLINE float exponentials(int64_t T, float *weight) {
    Vector *last = (Vector *)(weight + (T - 1) / V * V), top, sum = {0};
    *last = chosen(LANES < (int32_t)(T - (T - 1) / V * V), *last, (Vector){0} - INFINITY);
    top = *last;
    for (int64_t t = 0; t + V < T; t += V) top = higher(top, *(const Vector *)(weight + t));
    const float highest = highest_in(top);
    for (int64_t t = 0; t < T; t += V) {
#pragma omp simd
        for (int i = 0; i < V; i++) weight[t + i] = exponential_below_1(weight[t + i] - highest);
        sum += *(const Vector *)(weight + t);
    }
    return sum_of(sum);
}

/* Write the weighted sum of V channels for each of ``vectors``. Words that hold two bfloat16 are taken apart: those of even and of odd
   channels are added up by themselves. */
INLINE void mix(const int vectors, const int narrow, const Past *past, int64_t from, int64_t T, const float *weight, float factor,
                float *to) {
    Vector sum[4] = {{0}, {0}, {0}, {0}}, *found = (Vector *)to;
    if (narrow && vectors % 2 == 0) {
        for (int64_t t = 0; t < T; t++) {
            const Whole *words = (const Whole *)((const uint16_t *)past->kv + token_at(past, t) + from);
            for (int j = 0; j < vectors; j += 2) {
                const Whole pairs = words[j / 2];
                sum[j] += (Vector)(pairs << 16) * weight[t];
                sum[j + 1] += (Vector)(pairs & (int32_t)0xffff0000) * weight[t];
            }
        }
        for (int j = 0; j < vectors; j += 2) {
            found[j] = LOW(sum[j], sum[j + 1]) * factor;
            found[j + 1] = HIGH(sum[j], sum[j + 1]) * factor;
        }
        return;
    }
    for (int64_t t = 0; t < T; t++) {
        const int64_t at = token_at(past, t) + from;
        for (int j = 0; j < vectors; j++) sum[j] += widened(past->kv, at + j * V, narrow) * weight[t];
    }
    for (int j = 0; j < vectors; j++) found[j] = sum[j] * factor;
}

/* Allocate the weights of T tokens in H heads, in whole vectors, and a normalizer for each head. */
static float *room_for_weights(int64_t H, int64_t T) { return room(H * (T + V) * sizeof(float)); }

/* Compute all scores, then all exponentials, then all weighted sums: while one head waits for a result, another goes on. */
INLINE void attend_as(const int64_t C, const int narrow, int64_t H, int64_t G, float scale, const float *query, const Past *past,
                      int64_t T, float *weight, float *to) {
    const int64_t padded = (T + V - 1) / V * V;
    float *factor = weight + H * padded;
    if (T == 0) {
        memset(to, 0, H * C * sizeof(float));
        return;
    }
    for (int64_t h = 0; h < H; h++)
        if (C % V == 0)
            scores(C, narrow, query + h * C, past, h / (H / G), T, scale, weight + h * padded);
        else
            scores_of_odd_heads(C, narrow, query + h * C, past, h / (H / G), T, scale, weight + h * padded);
    for (int64_t h = 0; h < H; h++) factor[h] = 1.0f / exponentials(T, weight + h * padded);
    for (int64_t h = 0; h < H; h++, weight += padded, to += C) {
        const int64_t values = (G + h / (H / G)) * C;
        int64_t c = 0;
        for (; c + 4 * V <= C; c += 4 * V) mix(4, narrow, past, values + c, T, weight, factor[h], to + c);
        for (; c + 2 * V <= C; c += 2 * V) mix(2, narrow, past, values + c, T, weight, factor[h], to + c);
        for (; c + V <= C; c += V) mix(1, narrow, past, values + c, T, weight, factor[h], to + c);
        for (; c < C; c++) {
            float sum = 0;
            for (int64_t t = 0; t < T; t++) sum += widened_one(past->kv, token_at(past, t) + values + c, narrow) * weight[t];
            to[c] = sum * factor[h];
        }
    }
}

/* Common head sizes are compiled separately. */
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
