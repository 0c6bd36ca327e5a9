/* Cross-entropy of logits in bfloat16; the logits are overwritten by their gradient. The PyTorch twin is CrossEntropyLoss in
   model/chunked_loss.py.

   R rows, N entries of the vocabulary. */

#include "numbers.h"

/* The last V numbers of a row, padded with minus infinity, whose probability is 0. */
static Vector rest(const uint16_t *logits, int64_t N) {
    uint16_t some[V];
    for (int64_t i = 0; i < V; i++) some[i] = N / V * V + i < N ? logits[N / V * V + i] : 0xff80; /* minus infinity */
    return of_half(some);
}

/* Return the largest logit of a row; write the sum of all. */
static float largest(const uint16_t *logits, int64_t N, float *sum) {
    Vector highest = rest(logits, N), total = {0};
    for (int64_t i = 0; i + V <= N; i += V) {
        const Vector x = of_half(logits + i);
        highest = higher(x, highest);
        total += x;
    }
    *sum = sum_of(total);
    for (int64_t i = N / V * V; i < N; i++) {
        const uint32_t bits = (uint32_t)logits[i] << 16;
        float x;
        memcpy(&x, &bits, 4);
        *sum += x;
    }
    return highest_in(highest);
}

/* -sum_v q(v) log softmax(logits)(v), where q has 1 - smoothing on the target and spreads the rest evenly (label smoothing).
   When learning, the row becomes its gradient, softmax - q. */
static double row(uint16_t *logits, int64_t target, int64_t N, float smoothing, int learning, float *x) {
    float sum, picked;
    const uint32_t bits = (uint32_t)logits[target] << 16;
    memcpy(&picked, &bits, 4);
    const float top = largest(logits, N, &sum);
    Vector total = *(Vector *)(x + N / V * V) = exponential_each(rest(logits, N) - top);
    for (int64_t i = 0; i + V <= N; i += V) total += *(Vector *)(x + i) = exponential_each(of_half(logits + i) - top);
    const float norm = sum_of(total), even = smoothing / N, factor = 1 / norm;
    if (learning) {
        x[target] -= (1 - smoothing) * norm;
        int64_t i = 0;
        for (; i + V <= N; i += V) to_half(logits + i, at(x + i) * factor - even);
        uint16_t last[V];
        to_half(last, at(x + i) * factor - even);
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
        release(x);
    }
}

/* sum += x, of n numbers, a multiple of V. */
void accumulate(const uint16_t *x, int64_t n, float *sum) {
#pragma omp parallel for schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i += V) *(Vector *)(sum + i) += of_half(x + i);
}
