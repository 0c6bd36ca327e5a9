/* Cross-entropy of logits in bfloat16, which become their own gradient: see model/loss.py, whose CrossEntropy holds the same
   in PyTorch.

   R rows, N entries of the vocabulary. */

#include "numbers.h"

/* A row in float32, filled up to whole registers by what has no share in the softmax; the largest of it, and the sum. */
static float widened(const uint16_t *logits, int64_t N, float *to, float *sum) {
    Vector highest = {0}, total = {0};
    highest -= INFINITY;
    int64_t i = 0;
    for (; i + V <= N; i += V) {
        const Vector x = of_half(logits + i);
        *(Vector *)(to + i) = x;
        highest = chosen(x > highest, x, highest);
        total += x;
    }
    float top = highest_in(highest), rest = 0;
    for (int64_t j = i; j < i + V; j++) { /* at least one number is filled in, and none of it is read but here */
        const uint32_t bits = j < N ? (uint32_t)logits[j] << 16 : 0xff800000u; /* minus infinity */
        memcpy(to + j, &bits, 4);
        if (j < N) rest += to[j], top = to[j] > top ? to[j] : top;
    }
    *sum = sum_of(total) + rest;
    return top;
}

/* -sum_v q(v) log softmax(logits)(v), where q has 1 - smoothing on the target and the rest evenly everywhere. When learning,
   the row becomes softmax - q. */
static double row(uint16_t *logits, int64_t target, int64_t N, float smoothing, int learning, float *x) {
    float sum;
    const float top = widened(logits, N, x, &sum), picked = x[target];
    Vector total = {0};
    for (int64_t i = 0; i < N; i += V) {
        const Vector e = exponential_each(*(Vector *)(x + i) - top);
        *(Vector *)(x + i) = e;
        total += e;
    }
    const float norm = sum_of(total), even = smoothing / N, factor = 1 / norm;
    if (learning) {
        x[target] -= (1 - smoothing) * norm;
        int64_t i = 0;
        for (; i + V <= N; i += V) to_half(logits + i, *(Vector *)(x + i) * factor - even);
        uint16_t last[V];
        to_half(last, *(Vector *)(x + i) * factor - even);
        memcpy(logits + i, last, (N - i) * sizeof(uint16_t));
    }
    return (double)logf(norm) + top - (1 - smoothing) * picked - even * sum;
}

void cross_entropy(uint16_t *logits, const int64_t *targets, int64_t R, int64_t N, double smoothing, int64_t learning,
                   double *losses) {
#pragma omp parallel if (R * N > 1 << 16)
    {
        float *x = room((N + V) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < R; r++)
            losses[r] = row(logits + r * N, targets[r], N, (float)smoothing, (int)learning, x);
        free(x);
    }
}

/* sum += x, of n numbers, a multiple of V. */
void accumulate(const uint16_t *x, int64_t n, float *sum) {
#pragma omp parallel for schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i += V) *(Vector *)(sum + i) += of_half(x + i);
}
