/* Gradients in bfloat16 that are summed in float32: of a linear layer with respect to its weight and bias (see
   model/ops/products.py), and of tensors that are read twice.

   R rows, N outputs, K inputs, multiples of P. Sums are float, in the same order whatever the number of threads. */

#include "tiles.h"

enum { SOME = 256, OUTPUTS = 192, INPUTS = 512 }; /* rows, outputs and inputs of a block of the gradient: it stays in the cache */
enum { WIDE = 4 * MOST };                         /* outputs of a panel: four tiles; OUTPUTS is a multiple */
enum { AHEAD = 8 };                               /* rows between the one that is packed and the one that is prefetched */

/* sums += the sum over rows of each of n outputs, which are packed in panels. */
static void add_rows(const int32_t *panels, int64_t pairs, int64_t n, float *sums) {
    for (int64_t i = 0; i < n; i += V) {
        const int32_t *at = panels + i / WIDE * WIDE * SOME / 2 + i % WIDE;
        Vector sum = *(Vector *)(sums + i);
        for (int64_t r = 0; r < pairs; r++) sum = add_pair(sum, *(const Whole *)(at + r * WIDE), 0x3f803f80u); /* 1, 1 */
        *(Vector *)(sums + i) = sum;
    }
}

/* Add to M rows and P columns of the gradient; its rows are K numbers apart. */
INLINE void add_tile(const int M, const int32_t *dy, const int32_t *x, int64_t pairs, float *to, int64_t K) {
    Vector sums[SUMS] = {{0}};
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) __builtin_prefetch(to + m * K, 1), __builtin_prefetch(to + m * K + V, 1);
    multiply(M, 2, dy, 1, WIDE, pairs, x, sums);
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) *(Vector *)(to + m * K) += sums[2 * m], *(Vector *)(to + m * K + V) += sums[2 * m + 1];
}

/* Add to all tiles of a block that starts at ``to``. An incomplete last panel takes V / 2 outputs at a time. */
static void add_block(const int32_t *outputs, const int32_t *inputs, int64_t pairs, int64_t wide, int64_t deep, float *to, int64_t K) {
    for (int64_t i = 0; i < wide;) {
        const int whole = wide - i / WIDE * WIDE >= WIDE;
        const int32_t *dy = outputs + i / WIDE * WIDE * SOME / 2 + i % WIDE;
        for (int64_t j = 0; j < deep; j += P)
            if (whole)
                add_tile(MOST, dy, inputs + j * SOME / 2, pairs, to + i * K + j, K);
            else
                add_tile(V / 2, dy, inputs + j * SOME / 2, pairs, to + i * K + j, K);
        i += whole ? MOST : V / 2;
    }
}

/* weight (N, K) += dy^T x, and bias (N), unless NULL, += the sum of dy over rows. */
void add_gradient(const uint16_t *dy, const uint16_t *x, int64_t R, int64_t N, int64_t K, float *weight, float *bias) {
#pragma omp parallel if (R * N * K > 1 << 20)
    {
        int32_t *outputs = room(SOME / 2 * OUTPUTS * sizeof(int32_t)), *inputs = room(SOME / 2 * INPUTS * sizeof(int32_t));
#pragma omp for collapse(2) schedule(static)
        for (int64_t n = 0; n < N; n += OUTPUTS)
            for (int64_t k = 0; k < K; k += INPUTS)
                for (int64_t r = 0; r < R; r += SOME) {
                    const int64_t some = less(SOME, R - r), wide = less(OUTPUTS, N - n), deep = less(INPUTS, K - k);
                    lay_along(dy + r * N + n, N, AHEAD * N, some, wide, SOME, WIDE, outputs);
                    lay_along(x + r * K + k, K, AHEAD * K, some, deep, SOME, P, inputs);
                    if (bias && k == 0) add_rows(outputs, (some + 1) / 2, wide, bias + n);
                    add_block(outputs, inputs, (some + 1) / 2, wide, deep, weight + n * K + k, K);
                }
        release(outputs), release(inputs);
    }
}

/* sum = x + narrow, of n numbers, a multiple of V. */
void add_narrow(const float *x, const uint16_t *narrow, int64_t n, float *sum) {
#pragma omp parallel for schedule(static) if (n > LARGE)
    for (int64_t i = 0; i < n; i += V) *(Vector *)(sum + i) = at(x + i) + of_half(narrow + i);
}

/* Return whether the processor has matrix instructions (AMX), which oneDNN uses and these kernels do not. */
int64_t multiplies_matrices(void) {
#ifdef __AMX_BF16__
    return 1;
#else
    return 0;
#endif
}
