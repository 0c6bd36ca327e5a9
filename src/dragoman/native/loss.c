/* Cross-entropy; the logits are overwritten by their gradient. The PyTorch twin is CrossEntropyLoss in
   model/chunked_loss.py.

   R rows, N entries of the vocabulary. */

#include "value.h"

/* The last V numbers of a row, padded with minus infinity, whose probability is 0. */
static Vector rest(const Value *logits, int64_t N) {
    Value some[V];
    for (int64_t i = 0; i < V; i++) some[i] = N / V * V + i < N ? logits[N / V * V + i] : LOWEST;
    return of(some);
}

/* Return the largest logit of a row; write the sum of all. */
static float largest(const Value *logits, int64_t N, float *sum) {
    Vector highest = rest(logits, N), total = {0};
    for (int64_t i = 0; i + V <= N; i += V) {
        const Vector x = of(logits + i);
        highest = higher(x, highest);
        total += x;
    }
    *sum = sum_of(total);
    for (int64_t i = N / V * V; i < N; i++) *sum += number(logits[i]);
    return highest_in(highest);
}

/* -sum_v q(v) log softmax(logits)(v), where q has 1 - smoothing on the target and spreads the rest evenly (label smoothing).
   When learning, the row becomes its gradient, softmax - q. */
static double row(Value *logits, int64_t target, int64_t N, float smoothing, int learning, float *x) {
    float sum;
    const float picked = number(logits[target]), top = largest(logits, N, &sum);
    Vector total = *(Vector *)(x + N / V * V) = exponential_each(rest(logits, N) - top);
    for (int64_t i = 0; i + V <= N; i += V) total += *(Vector *)(x + i) = exponential_each(of(logits + i) - top);
    const float norm = sum_of(total), even = smoothing / N, factor = 1 / norm;
    if (learning) {
        x[target] -= (1 - smoothing) * norm;
        int64_t i = 0;
        for (; i + V <= N; i += V) put(logits + i, at(x + i) * factor - even);
        Value last[V];
        put(last, at(x + i) * factor - even);
        memcpy(logits + i, last, (N - i) * sizeof(Value));
    }
    const double spread = smoothing > 0 ? even * sum : 0; /* a logit of minus infinity counts only if others than the target do */
    return (double)logf(norm) + top - (1 - smoothing) * picked - spread;
}

/* Return 0; or, before anything is written, the number of the first row whose target is no entry, counted from 1. */
int64_t NAMED(cross_entropy)(Value *logits, const int64_t *targets, int64_t R, int64_t N, double smoothing, int64_t learning,
                             double *losses) {
    for (int64_t r = 0; r < R; r++)
        if (targets[r] < 0 || targets[r] >= N) return r + 1;
#pragma omp parallel if (R * N > 1 << 16)
    {
        float *x = room((N + V) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < R; r++)
            losses[r] = row(logits + r * N, targets[r], N, (float)smoothing, (int)learning, x);
        release(x);
    }
    return 0;
}
