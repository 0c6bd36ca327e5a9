/* Elementwise operations of a training step, each in one pass over memory where PyTorch makes several. model/ops/elementwise.py
   has the PyTorch twin of each.

   n numbers, or N rows of D numbers; n and D are multiples of V. */

#include "dropout.h"
#include "heads.h"
#include "value.h"

#define EACH(n) _Pragma("omp parallel for schedule(static) if (n > LARGE)") for (int64_t i = 0; i < n; i += V)

/* ---- feed-forward: max(x, 0), and silu(g) u with silu(g) = g / (1 + exp(-g)) ---------------------------------- */

#ifndef FLOAT32 /* where PyTorch is as fast */
void relu_gradient(const Value *dy, const Value *y, int64_t n, Value *dx) {
    EACH(n) {
        const Vector zero = {0}, out = of(y + i);
        put(dx + i, chosen(out > zero, of(dy + i), zero));
    }
}
#endif

void NAMED(silu_gate)(const Value *gate, const Value *up, int64_t n, Value *y) {
    EACH(n) {
        const Vector g = of(gate + i);
        put(y + i, g / (1 + exponential_each(-g)) * of(up + i));
    }
}

void NAMED(silu_gate_gradient)(const Value *dy, const Value *gate, const Value *up, int64_t n, Value *dgate,
                               Value *dup) {
    EACH(n) {
        const Vector g = of(gate + i), d = of(dy + i), share = 1 / (1 + exponential_each(-g));
        put(dup + i, d * g * share);
        put(dgate + i, d * of(up + i) * share * (1 + g * (1 - share)));
    }
}

/* ---- attention's weights: softmax over the keys that a query sees; zeros where it sees none ----------------------- */

/* seen: a byte for each of K keys, or NULL for all of them. */
static void softmax_of(const Value *scores, const uint8_t *seen, int64_t K, float *x, Value *y) {
    Vector highest = {0}, total = {0};
    Whole lost = {0}; /* scores that are no numbers */
    highest -= INFINITY;
    for (int64_t i = 0; i < K; i += V) {
        const int64_t left = K - i;
        Value some[V];
        uint8_t of_those[V] = {0};
        const Value *from = left < V ? memcpy(some, scores + i, left * sizeof(Value)) : scores + i;
        if (left < V) memset(of_those, 1, left);
        if (left < V && seen) memcpy(of_those, seen + i, left);
        Vector s = of(from);
        const Vector never = {0};
        if (seen || left < V)
            s = chosen(words_of_bytes((const int8_t *)(left < V ? of_those : seen + i)) != 0, s, never - INFINITY);
        *(Vector *)(x + i) = s;
        highest = chosen(s > highest, s, highest);
        lost |= s != s;
    }
    const float top = highest_in(highest);
    if (top == -INFINITY && !any(lost)) {
        memset(y, 0, K * sizeof(Value));
        return;
    }
    for (int64_t i = 0; i < K; i += V) {
        const Vector none = {0}, s = at(x + i);
        total += *(Vector *)(x + i) = chosen(s == none - INFINITY, none, exponential_each(s - top));
    }
    const float factor = 1 / sum_of(total);
    for (int64_t i = 0; i < K; i += V) {
        Value some[V];
        put(K - i < V ? some : y + i, at(x + i) * factor);
        if (K - i < V) memcpy(y + i, some, (K - i) * sizeof(Value));
    }
}

/* (B, H, Q, K). seen: strides of step_B bytes by text and step_Q by query, the same for all heads. causal: query i sees no key
   after key i. */
void NAMED(softmax)(const Value *scores, const uint8_t *seen, int64_t step_B, int64_t step_Q, int64_t causal, int64_t B, int64_t H,
                    int64_t Q, int64_t K, Value *y) {
#pragma omp parallel if (B * H * Q * K > LARGE)
    {
        float *x = room((K + V) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < B * H * Q; r++) {
            const int64_t count = causal && r % Q < K ? r % Q + 1 : K;
            softmax_of(scores + r * K, seen ? seen + r / (H * Q) * step_B + r % Q * step_Q : NULL, count, x, y + r * K);
            memset(y + r * K + count, 0, (K - count) * sizeof(Value));
        }
        release(x);
    }
}

/* dx = y (dy - sum y dy). The y may have been rounded to bfloat16, and are scaled so that they sum to 1. */
void NAMED(softmax_gradient)(const Value *dy, const Value *y, int64_t N, int64_t K, Value *dx) {
    const int64_t whole = K / V * V;
#pragma omp parallel for schedule(static) if (N * K > LARGE)
    for (int64_t r = 0; r < N; r++) {
        const Value *a = dy + r * K, *b = y + r * K;
        Value last[3][V] = {{0}};
        if (whole < K) {
            memcpy(last[0], a + whole, (K - whole) * sizeof(Value));
            memcpy(last[1], b + whole, (K - whole) * sizeof(Value));
        }
        Vector total = of(last[1]), dot = of(last[0]) * total;
        for (int64_t i = 0; i < whole; i += V) {
            total += of(b + i);
            dot += of(a + i) * of(b + i);
        }
        const float all = sum_of(total), sum = all > 0 ? sum_of(dot) / all : 0;
        for (int64_t i = 0; i < whole; i += V) put(dx + r * K + i, of(b + i) * (of(a + i) - sum));
        if (whole < K) {
            put(last[2], of(last[1]) * (of(last[0]) - sum));
            memcpy(dx + r * K + whole, last[2], (K - whole) * sizeof(Value));
        }
    }
}

/* ---- dropout ---------------------------------------------------------------------------------------------------- */

void NAMED(dropout)(const Value *x, int64_t n, const Dropout *d, Value *y) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += P) {
        const Vector zero = {0};
        Vector low = of(x + i), high = i + V < n ? of(x + i + V) : zero;
        drop(d, i, &low, &high);
        put(y + i, low);
        if (i + V < n) put(y + i + V, high);
    }
}

/* ---- rotary positions: in each head (a, b) -> (a cos - b sin, b cos + a sin), a and b the halves of its C channels - */

/* cos_sin: for each of T positions C / 2 cosines, then C / 2 sines; a table for each text where ``own``. ``back``: the inverse. */
void NAMED(rotate)(const Heads *from, const Heads *to, const float *cos_sin, int64_t own, int64_t back, int64_t B, int64_t T,
                   int64_t H, int64_t C) {
    const int64_t half = C / 2;
#pragma omp parallel for collapse(2) schedule(static) if (B * T * H * C > LARGE)
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++) {
            const float *cosines = cos_sin + (own ? b * T + t : t) * C, *sines = cosines + half;
            for (int64_t h = 0; h < H; h++) {
                const Value *x = head_of(from, b, h) + t * from->token;
                Value *y = head_of(to, b, h) + t * to->token;
                for (int64_t i = 0; i < half; i += V) {
                    const Vector p = of(x + i), q = of(x + half + i), c = at(cosines + i);
                    const Vector s = back ? -at(sines + i) : at(sines + i);
                    put(y + i, p * c - q * s);
                    put(y + half + i, q * c + p * s);
                }
            }
        }
}
