/* Dropout, residual sum and norm between the sublayers of a training step, forward and backward, each in one pass over
   memory. See model/ops/residual.py.

   The residual stream x is float; inputs and outputs of sublayers are Values (value.h). N rows of D numbers, n numbers
   in all; D is a multiple of P. */

#include "dropout.h"
#include "value.h"

enum { BLOCK = 128 }; /* rows whose gradients of a weight are summed first, so that the order of a sum does not depend on the threads */

/* ---- sums ------------------------------------------------------------------------------------------------ */

/* residual_scale x + dropout(f) */
void NAMED(add_dropped)(const float *x, const Value *f, int64_t n, double residual_scale, const Dropout *d, float *y) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += P) {
        Vector low = of(f + i), high = of(f + i + V);
        drop(d, i, &low, &high);
        *(Vector *)(y + i) = low + at(x + i) * (float)residual_scale;
        *(Vector *)(y + i + V) = high + at(x + i + V) * (float)residual_scale;
    }
}

/* Gradient with respect to f, from that of the sum. */
void NAMED(add_dropped_gradient)(const float *dy, int64_t n, const Dropout *d, Value *df) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += P) {
        Vector low = at(dy + i), high = at(dy + i + V);
        drop(d, i, &low, &high);
        put(df + i, low);
        put(df + i + V, high);
    }
}

/* ---- norms ------------------------------------------------------------------------------------------------- */

/* Allocate zeros for the gradients of ``count`` weights of each block of rows; add_blocks sums over blocks. */
static float *room_for_sums(int64_t N, int64_t D, int64_t count) {
    const int64_t bytes = (N + BLOCK - 1) / BLOCK * count * D * sizeof(float);
    return memset(room(bytes), 0, bytes);
}

static void add_blocks(const float *sums, int64_t N, int64_t D, int64_t step, float *to) {
    memset(to, 0, D * sizeof(float));
    for (int64_t b = 0; b * BLOCK < N; b++)
        for (int64_t i = 0; i < D; i += V) *(Vector *)(to + i) += at(sums + b * step + i);
}

/* y = x s w, s = 1 / sqrt(mean x^2 + eps) */
void NAMED(rms_norm)(const float *x, const float *w, int64_t N, int64_t D, double eps, Value *y, float *scale) {
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t r = 0; r < N; r++) {
        const float *row = x + r * D;
        Vector squares = {0};
        for (int64_t i = 0; i < D; i += V) squares += at(row + i) * at(row + i);
        const float s = scale[r] = 1 / sqrtf(sum_of(squares) / D + (float)eps);
        for (int64_t i = 0; i < D; i += V) put(y + r * D + i, at(row + i) * s * at(w + i));
    }
}

/* Gradients with respect to x and w: with g = dy w and u = x s, dx = s (g - u mean(g u)) and dw = sum of dy u over rows. The
   gradient that reaches x past the norm, ``carried``, is added to dx unless it is NULL. */
void NAMED(rms_norm_gradient)(const Value *dy, const float *carried, const float *x, const float *w, const float *scale, int64_t N,
                              int64_t D, float *dx, float *dw) {
    float *sums = room_for_sums(N, D, 1);
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t b = 0; b < (N + BLOCK - 1) / BLOCK; b++)
        for (int64_t r = b * BLOCK; r < N && r < (b + 1) * BLOCK; r++) {
            const Value *up = dy + r * D;
            const float *row = x + r * D, s = scale[r];
            Vector dot = {0};
            for (int64_t i = 0; i < D; i += V) {
                const Vector shared = of(up + i) * at(row + i);
                dot += shared * at(w + i);
                *(Vector *)(sums + b * D + i) += shared * s;
            }
            const float mean = sum_of(dot) * s / D;
            for (int64_t i = 0; i < D; i += V) {
                const Vector d = s * (of(up + i) * at(w + i) - at(row + i) * s * mean);
                *(Vector *)(dx + r * D + i) = carried ? d + at(carried + r * D + i) : d;
            }
        }
    add_blocks(sums, N, D, D, dw);
    release(sums);
}

/* sum = residual_scale x + dropout(f), and y = (sum - mean) s w + b with s = 1 / sqrt(variance + eps). */
void NAMED(add_layer_norm)(const float *x, const Value *f, double residual_scale, const Dropout *d, const float *w,
                           const float *bias, int64_t N, int64_t D, double eps, float *sum, float *mean, float *scale,
                           float *y) {
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t r = 0; r < N; r++) {
        float *row = sum + r * D;
        Vector total = {0}, squares = {0};
        for (int64_t i = 0; i < D; i += P) {
            Vector low = of(f + r * D + i), high = of(f + r * D + i + V);
            drop(d, r * D + i, &low, &high);
            total += *(Vector *)(row + i) = low + at(x + r * D + i) * (float)residual_scale;
            total += *(Vector *)(row + i + V) = high + at(x + r * D + i + V) * (float)residual_scale;
        }
        const float middle = mean[r] = sum_of(total) / D;
        for (int64_t i = 0; i < D; i += V) squares += (at(row + i) - middle) * (at(row + i) - middle);
        const float s = scale[r] = 1 / sqrtf(sum_of(squares) / D + (float)eps);
        for (int64_t i = 0; i < D; i += V) {
            const Vector normed = (at(row + i) - middle) * s * at(w + i);
            *(Vector *)(y + r * D + i) = bias ? normed + at(bias + i) : normed;
        }
    }
}

/* Gradients with respect to x, f, w and b: with g = dy w and u = (sum - mean) s, dsum = s (g - mean(g) - u mean(g u)). */
void NAMED(add_layer_norm_gradient)(const float *dy, const float *sum, const float *mean, const float *scale, const float *w,
                                    double residual_scale, const Dropout *d, int64_t N, int64_t D, float *dx, Value *df,
                                    float *dw, float *db) {
    float *sums = room_for_sums(N, D, 2);
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t b = 0; b < (N + BLOCK - 1) / BLOCK; b++)
        for (int64_t r = b * BLOCK; r < N && r < (b + 1) * BLOCK; r++) {
            const float *up = dy + r * D, *row = sum + r * D, middle = mean[r], s = scale[r];
            float *dw_sums = sums + 2 * b * D, *db_sums = dw_sums + D;
            Vector total = {0}, dot = {0};
            for (int64_t i = 0; i < D; i += V) {
                const Vector u = (at(row + i) - middle) * s, g = at(up + i) * at(w + i);
                total += g;
                dot += g * u;
                *(Vector *)(dw_sums + i) += at(up + i) * u;
                *(Vector *)(db_sums + i) += at(up + i);
            }
            const float first = sum_of(total) / D, second = sum_of(dot) / D;
            for (int64_t i = 0; i < D; i += P) {
                Vector dsum[2];
                for (int j = 0; j < 2; j++) {
                    const int64_t k = i + j * V;
                    const Vector u = (at(row + k) - middle) * s;
                    dsum[j] = s * (at(up + k) * at(w + k) - first - u * second);
                    *(Vector *)(dx + r * D + k) = dsum[j] * (float)residual_scale;
                }
                drop(d, r * D + i, dsum, dsum + 1);
                put(df + r * D + i, dsum[0]);
                put(df + r * D + i + V, dsum[1]);
            }
        }
    add_blocks(sums, N, D, 2 * D, dw);
    add_blocks(sums + D, N, D, 2 * D, db);
    release(sums);
}
