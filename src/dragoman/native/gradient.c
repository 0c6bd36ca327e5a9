/* The gradient of a linear layer by its weight and bias: see model/kernels/products.py.

   R rows, N outputs, K inputs, multiples of P. Sums are float, in the same order whatever the number of threads. */

#include "tiles.h"

enum { SOME = 256, OUTPUTS = 192, INPUTS = 512 }; /* rows, and sizes of a block of the gradient, that the cache holds */
enum { AHEAD = 8 };                               /* rows from what is laid out to what is fetched */

/* sums += the sum over rows of each of n outputs, which lie in panels of V. */
static void add_rows(const int32_t *panels, int64_t pairs, int64_t n, float *sums) {
    for (int64_t i = 0; i < n; i += V) {
        Vector sum = *(Vector *)(sums + i);
        for (int64_t r = 0; r < pairs; r++) sum = add_pair(sum, *(const Whole *)(panels + i * SOME / 2 + r * V), 0x3f803f80u); /* 1, 1 */
        *(Vector *)(sums + i) = sum;
    }
}

/* A tile of the gradient, whose rows are K apart. */
static void add_tile(const int32_t *dy, const int32_t *x, int64_t pairs, float *to, int64_t K) {
    Vector sums[2 * TILE] = {{0}};
#pragma GCC unroll 8
    for (int m = 0; m < TILE; m++) __builtin_prefetch(to + m * K, 1), __builtin_prefetch(to + m * K + V, 1);
    multiply(dy, 1, V, pairs, x, sums);
#pragma GCC unroll 8
    for (int m = 0; m < TILE; m++) *(Vector *)(to + m * K) += sums[2 * m], *(Vector *)(to + m * K + V) += sums[2 * m + 1];
}

/* weight (N, K) += dy^T x, and bias (N), unless NULL, += the sum of dy over rows. */
void add_gradient(const uint16_t *dy, const uint16_t *x, int64_t R, int64_t N, int64_t K, float *weight, float *bias) {
#pragma omp parallel if (R * N * K > 1 << 20)
    {
        int32_t *outputs = room(SOME / 2 * OUTPUTS * sizeof(int32_t)), *inputs = room(SOME / 2 * INPUTS * sizeof(int32_t));
#pragma omp for collapse(2) schedule(static)
        for (int64_t n = 0; n < N; n += OUTPUTS)
            for (int64_t k = 0; k < K; k += INPUTS) {
                const int64_t wide = less(OUTPUTS, N - n), deep = less(INPUTS, K - k);
                for (int64_t r = 0; r < R; r += SOME) {
                    const int64_t some = less(SOME, R - r), pairs = (some + 1) / 2;
                    lay_along(dy + r * N + n, N, AHEAD * N, some, wide, SOME, V, outputs);
                    lay_along(x + r * K + k, K, AHEAD * K, some, deep, SOME, P, inputs);
                    if (bias && k == 0) add_rows(outputs, pairs, wide, bias + n);
                    for (int64_t i = 0; i < wide; i += TILE)
                        for (int64_t j = 0; j < deep; j += P)
                            add_tile(outputs + i / V * V * SOME / 2 + i % V, inputs + j * SOME / 2, pairs,
                                     weight + (n + i) * K + k + j, K);
                }
            }
        free(outputs), free(inputs);
    }
}

/* Whether the processor has instructions for whole matrices (AMX), which oneDNN knows and these kernels do not. */
int64_t multiplies_matrices(void) {
#ifdef __AMX_BF16__
    return 1;
#else
    return 0;
#endif
}
