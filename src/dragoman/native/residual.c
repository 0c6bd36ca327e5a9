/* Dropout, residual sum and norm between the sublayers of a training step in bfloat16, forward and backward, each in one pass
   over memory. See model/ops/residual.py.

   The residual stream x is float; inputs and outputs of sublayers are bfloat16, here uint16_t. N rows of D numbers, n numbers
   in all; D is a multiple of P. */

#include "dropout.h"

enum { BLOCK = 128 }; /* rows whose gradients of a weight are summed first, so that the order of a sum does not depend on the threads */

/* ---- sums ------------------------------------------------------------------------------------------------ */

/* residual_scale x + dropout(f) */
void add_dropped(const float *x, const uint16_t *f, int64_t n, double residual_scale, const Dropout *d, float *y) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += P) {
        Vector low = of_half(f + i), high = of_half(f + i + V);
        drop(d, i, &low, &high);
        *(Vector *)(y + i) = low + at(x + i) * (float)residual_scale;
        *(Vector *)(y + i + V) = high + at(x + i + V) * (float)residual_scale;
    }
}

/* Gradient with respect to f, from that of the sum. */
void add_dropped_gradient(const float *dy, int64_t n, const Dropout *d, uint16_t *df) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += P) {
        Vector low = at(dy + i), high = at(dy + i + V);
        drop(d, i, &low, &high);
        to_half(df + i, low);
        to_half(df + i + V, high);
    }
}

/* Gradient of a tensor that is read twice, as it is and in bfloat16: the sum of both. */
void add_narrow(const float *dy, const uint16_t *narrow, int64_t n, float *dx) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += V) *(Vector *)(dx + i) = at(dy + i) + of_half(narrow + i);
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

/* y = x s w in bfloat16, s = 1 / sqrt(mean x^2 + eps) */
void rms_norm(const float *x, const float *w, int64_t N, int64_t D, double eps, uint16_t *y, float *scale) {
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t r = 0; r < N; r++) {
        const float *row = x + r * D;
        Vector squares = {0};
        for (int64_t i = 0; i < D; i += V) squares += at(row + i) * at(row + i);
        const float s = scale[r] = 1 / sqrtf(sum_of(squares) / D + (float)eps);
        for (int64_t i = 0; i < D; i += V) to_half(y + r * D + i, at(row + i) * s * at(w + i));
    }
}

/* Gradients with respect to x and w: with g = dy w and u = x s, dx = s (g - u mean(g u)) and dw = sum of dy u over rows. The
   gradient that reaches x past the norm, ``carried``, is added to dx unless it is NULL. */
void rms_norm_gradient(const uint16_t *dy, const float *carried, const float *x, const float *w, const float *scale, int64_t N,
                       int64_t D, float *dx, float *dw) {
    float *sums = room_for_sums(N, D, 1);
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t b = 0; b < (N + BLOCK - 1) / BLOCK; b++)
        for (int64_t r = b * BLOCK; r < N && r < (b + 1) * BLOCK; r++) {
            const uint16_t *up = dy + r * D;
            const float *row = x + r * D, s = scale[r];
            Vector dot = {0};
            for (int64_t i = 0; i < D; i += V) {
                const Vector shared = of_half(up + i) * at(row + i);
                dot += shared * at(w + i);
                *(Vector *)(sums + b * D + i) += shared * s;
            }
            const float mean = sum_of(dot) * s / D;
            for (int64_t i = 0; i < D; i += V) {
                const Vector d = s * (of_half(up + i) * at(w + i) - at(row + i) * s * mean);
                *(Vector *)(dx + r * D + i) = carried ? d + at(carried + r * D + i) : d;
            }
        }
    add_blocks(sums, N, D, D, dw);
    release(sums);
}

/* sum = residual_scale x + dropout(f), and y = (sum - mean) s w + b with s = 1 / sqrt(variance + eps). */
void add_layer_norm(const float *x, const uint16_t *f, double residual_scale, const Dropout *d, const float *w, const float *bias,
                    int64_t N,
                    int64_t D, double eps, float *sum, float *mean, float *scale, float *y) {
#pragma omp parallel for schedule(static) if (N * D > LARGE)
    for (int64_t r = 0; r < N; r++) {
        float *row = sum + r * D;
        Vector total = {0}, squares = {0};
        for (int64_t i = 0; i < D; i += P) {
            Vector low = of_half(f + r * D + i), high = of_half(f + r * D + i + V);
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
void add_layer_norm_gradient(const float *dy, const float *sum, const float *mean, const float *scale, const float *w,
                             double residual_scale, const Dropout *d, int64_t N, int64_t D, float *dx, uint16_t *df, float *dw, float *db) {
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
                to_half(df + r * D + i, dsum[0]);
                to_half(df + r * D + i + V, dsum[1]);
            }
        }
    add_blocks(sums, N, D, 2 * D, dw);
    add_blocks(sums + D, N, D, 2 * D, db);
    release(sums);
}
