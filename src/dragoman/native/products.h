/* Products of few rows with large matrices: y = x W + b, weights in panels of P outputs.

   A panel holds its weights in the order in which they are read: for each input (or pair of inputs in bfloat16, or four in
   int8) those of P outputs side by side. Every output of every row is summed over its inputs in
   the same order whatever the number of rows, so a row's answer does not depend on the rows beside it, to the bit.

   n rows, K inputs, N outputs. */

#pragma once

#include "inputs.h"

typedef struct {
    const void *weight;
    const float *scale;     /* INT8: of each output, divided by 127 */
    const int32_t *excess;  /* INT8: 128 times the sum of each output's weights: what sums of inputs + 128 have too much */
    const float *bias;      /* or NULL */
    int64_t kind, K, N;
} Linear;

/* ---- blocks: M rows by Q panels ------------------------------------------------------------------ */

/* Weights ``ahead`` of those of a block, and how many bytes of them are prefetched at each step. Otherwise only the first block of
   a panel would wait for memory. */
typedef struct {
    int64_t ahead, pace;
} Next;

/* Few rows are one block, which reads weights all the time anyway. Blocks of up to five rows gain nothing where they are many. */
INLINE void fetch(const int M, const void *weight, const Next *next, int64_t k) {
    if (M > 5) __builtin_prefetch((const char *)weight + next->ahead + k * next->pace);
}

INLINE void sums_float32(const int M, const int Q, const float *x, int64_t K, const float *w, const Next *next, Vector *to) {
    Vector sum[SUMS] = {{0}};
    for (int64_t k = 0; k < K; k++) {
        fetch(M, w, next, k);
#pragma GCC unroll 4
        for (int q = 0; q < Q; q++) {
            const Vector *at = (const Vector *)(w + (q * K + k) * P);
            const Vector w0 = at[0], w1 = at[1];
#pragma GCC unroll 12
            for (int m = 0; m < M; m++) {
                sum[(m * Q + q) * 2] += w0 * x[m * K + k];
                sum[(m * Q + q) * 2 + 1] += w1 * x[m * K + k];
            }
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < M * Q * 2; i++) to[i] = sum[i];
}

/* x holds K pairs of bfloat16 or quads of int8, w as many words for each output; ``add`` is their dot product. */
#define SUMS_OF_WORDS(name, Sum, Input, add)                                                                          \
    INLINE void name(const int M, const int Q, const Input *x, int64_t K, const int32_t *w, const Next *next,         \
                     Sum *to) {                                                                                       \
        Sum sum[SUMS] = {{0}};                                                                                        \
        for (int64_t k = 0; k < K; k++) {                                                                             \
            fetch(M, w, next, k);                                                                                     \
            _Pragma("GCC unroll 4") for (int q = 0; q < Q; q++) {                                                     \
                const Whole *at = (const Whole *)(w + (q * K + k) * P);                                               \
                const Whole w0 = at[0], w1 = at[1];                                                                   \
                _Pragma("GCC unroll 12") for (int m = 0; m < M; m++) {                                                \
                    sum[(m * Q + q) * 2] = add(sum[(m * Q + q) * 2], w0, x[m * K + k]);                               \
                    sum[(m * Q + q) * 2 + 1] = add(sum[(m * Q + q) * 2 + 1], w1, x[m * K + k]);                       \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
        _Pragma("GCC unroll 24") for (int i = 0; i < M * Q * 2; i++) to[i] = sum[i];                                  \
    }
SUMS_OF_WORDS(sums_bfloat16, Vector, Bfloat16Pair, dot2)
SUMS_OF_WORDS(sums_int8, Whole, Int8Quad, dot4)

/* What makes sums into V outputs. */
typedef struct {
    Vector bias, scale;
    Whole excess;
} Finish;

/* Read it for ``count`` outputs; scale and excess are as long as the panels. */
INLINE Finish finish_of(const Linear *l, const int kind, int64_t output, int64_t count) {
    Finish f = {{0}, {0}, {0}};
    if (l->bias) memcpy(&f.bias, l->bias + output, count * sizeof(float));
    if (kind == INT8) f.scale = *(const Vector *)(l->scale + output), f.excess = *(const Whole *)(l->excess + output);
    return f;
}

/* Return sums of row m as outputs. */
INLINE Vector finished(const int kind, Vector sum, Finish f, const QuantizedRow *of_rows, int m) {
    if (kind == INT8) {
        const Whole exact = ABSOLUTE ? (Whole)sum + of_rows[m].correction : (Whole)sum - f.excess;
        sum = __builtin_convertvector(exact, Vector) * (of_rows[m].absmax * f.scale);
    }
    return sum + f.bias;
}

/* Turn the sums of M rows into outputs. Loops over whole panels are unrolled, so that the sums stay in registers. */
INLINE void finish(const Linear *l, const int kind, const int M, const int outputs, const Vector *sums, const QuantizedRow *of_rows,
                   int64_t first, float *y) {
    if (first + outputs <= l->N) {
#pragma GCC unroll 8
        for (int j = 0; j < outputs; j += V) {
            const Finish f = finish_of(l, kind, first + j, V);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++)
                *(Vector *)(y + m * l->N + first + j) = finished(kind, sums[(m * outputs + j) / V], f, of_rows, m);
        }
        return;
    }
    for (int64_t output = first; output < l->N; output += V) {
        const int64_t count = l->N - output < V ? l->N - output : V;
        const Finish f = finish_of(l, kind, output, count);
        for (int m = 0; m < M; m++) {
            const Vector found = finished(kind, sums[(m * outputs + output - first) / V], f, of_rows, m);
            memcpy(y + m * l->N + output, &found, count * sizeof(float));
        }
    }
}

/* Compute M rows, from x on, and Q panels, from ``panel`` on. of_rows: of INT8. */
INLINE void block(const Linear *l, const int kind, const int M, const int Q, const void *x, const QuantizedRow *of_rows,
                  int64_t panel, const Next *next, float *y) {
    Vector sums[SUMS]; /* not all are used */
    const int64_t words = words_of(kind, l->K);
    const int32_t *w = (const int32_t *)l->weight + panel * words * P;
    if (kind == FLOAT32)
        sums_float32(M, Q, x, words, (const float *)w, next, sums);
    else if (kind == BFLOAT16)
        sums_bfloat16(M, Q, x, words, w, next, sums);
    else
        sums_int8(M, Q, x, words, w, next, (Whole *)sums);
    finish(l, kind, M, Q * P, sums, of_rows, panel * P, y);
}

/* Few rows take several panels at once: independent sums hide the latency of an addition. */
#define ROWS(M, Q)                                                                                                    \
    case M:                                                                                                           \
        for (; p + Q <= end; p += Q) block(l, KIND, M, Q, x, of_rows, p, next, y);                                    \
        for (; Q > 1 && p < end; p++) block(l, KIND, M, 1, x, of_rows, p, next, y);                                   \
        break;

#ifdef __AVX512F__
#define REST ROWS(6, 1) ROWS(7, 1) ROWS(8, 1) ROWS(9, 1) ROWS(10, 1) ROWS(11, 1) ROWS(12, 1)
#else
#define REST ROWS(6, 1)
#endif
#define OF_KIND(name, kind)                                                                                           \
    static void name(const Linear *l, int M, const void *x, const QuantizedRow *of_rows, int64_t p, int64_t end,      \
                     const Next *next, float *y) {                                                                    \
        enum { KIND = kind };                                                                                         \
        switch (M) { ROWS(1, 4) ROWS(2, 2) ROWS(3, 2) ROWS(4, 1) ROWS(5, 1) REST }                                    \
    }
OF_KIND(rows_float32, FLOAT32)
OF_KIND(rows_bfloat16, BFLOAT16)
OF_KIND(rows_int8, INT8)

/* ---- how rows are divided ------------------------------------------------------------------------------------- */

/* Return how many of n rows a block gets: as many as any other, ``most`` at the most. */
INLINE int rows_of_a_block(int64_t n, int64_t most) {
    const int64_t chunk = n < CHUNK ? n : CHUNK, blocks = (chunk + most - 1) / most;
    return (int)((chunk + blocks - 1) / blocks);
}

/* ---- the matrix unit ------------------------------------------------------------------------------------------------- */

/* Rows from which its products are faster than those of vectors, which have the same sums in int8. In bfloat16 sums are rounded in
   another order, so that all products are of one kind. */
static int64_t int8_tiles_from = 1;

#if MATRIX_UNIT
static int uses_matrix_unit;

static int uses_tiles(int64_t kind, int64_t n) {
    return uses_matrix_unit && (kind == BFLOAT16 || (kind == INT8 && n >= int8_tiles_from));
}

/* Compute n rows and the panels from p to end; M rows at a time, so that there is room for as many in the last block. */
static void panels_in_tiles(const Linear *l, const uint8_t *x, const QuantizedRow *of_rows, int64_t n, int M, int64_t p, int64_t end,
                            float *y) {
    const int64_t words = words_of(l->kind, l->K);
    Vector sums[TILE_ROWS * P / V];
    begin_tiles(M, words);
    for (; p < end; p++) {
        const int32_t *panel = (const int32_t *)l->weight + p * words * P;
        for (int64_t i = 0; i < n; i += M) {
            const int rows = n - i < M ? (int)(n - i) : M;
            (l->kind == INT8 ? tiles_int8 : tiles_bfloat16)(x + i * 4 * words, words, panel, sums);
            if (l->kind == INT8)
                finish(l, INT8, rows, P, sums, of_rows + i, p * P, y + i * l->N);
            else
                finish(l, BFLOAT16, rows, P, sums, NULL, p * P, y + i * l->N);
        }
    }
    RELEASE();
}

enum { PANELS = 8 }; /* for each of which the shapes of tiles are loaded once */

static void linear_in_tiles(const Linear *l, const uint8_t *x, const QuantizedRow *of_rows, int64_t n, float *y) {
    const int64_t panels = (l->N + P - 1) / P, bytes = 4 * words_of(l->kind, l->K);
    const int M = rows_of_a_block(n, TILE_ROWS);
    for (int64_t from = 0; from < n; from += CHUNK) {
        const int64_t rows = n - from < CHUNK ? n - from : CHUNK;
        SHARED(n * l->K * l->N > 1 << 17, for (int64_t p = 0; p < panels; p += PANELS) {
            const int64_t end = p + PANELS < panels ? p + PANELS : panels;
            panels_in_tiles(l, x + from * bytes, of_rows ? of_rows + from : NULL, rows, M, p, end, y + from * l->N);
        })
    }
}
#else
static int uses_tiles(int64_t kind, int64_t n) { return 0; }

static void linear_in_tiles(const Linear *l, const uint8_t *x, const QuantizedRow *of_rows, int64_t n, float *y) {}
#endif

/* Return how many panels a block of rows takes one after the other: as many as the cache holds, so that the pages of its outputs are
   looked up once for all of them, where there are enough for many threads. */
INLINE int64_t panels_at_once(int64_t panels, int64_t bytes) {
    const int64_t most = panels >= 128 ? 4 : 1, fit = (32 << 10) / bytes;
    return fit < 1 ? 1 : fit < most ? fit : most;
}

/* ---- the product --------------------------------------------------------------------------------- */

void linear(const Linear *l, const float *x, int64_t n, float *y) {
    if (n == 0) return; /* there would be no block to divide rows among */
    const int64_t panels = (l->N + P - 1) / P, words = words_of(l->kind, l->K), bytes = bytes_of(l->kind, l->K);
    uint8_t *inputs = l->kind == FLOAT32 ? NULL : room((n + TILE_ROWS) * bytes); /* the last tile's rows may be read whole */
    QuantizedRow *of_rows = l->kind == INT8 ? room(n * sizeof(QuantizedRow)) : NULL;
    if (l->kind == BFLOAT16)
        for (int64_t i = 0; i < n; i++) to_bfloat16_pairs(x + i * l->K, l->K, (Bfloat16Pair *)(inputs + i * bytes));
    else if (l->kind == INT8)
        for (int64_t i = 0; i < n; i++) of_rows[i] = to_int8(x + i * l->K, l->K, (Int8Quad *)(inputs + i * bytes));
    const uint8_t *rows = inputs ? inputs : (const uint8_t *)x;
    if (uses_tiles(l->kind, n)) {
        linear_in_tiles(l, rows, of_rows, n, y);
        release(inputs);
        release(of_rows);
        return;
    }
    void (*multiply)(const Linear *, int, const void *, const QuantizedRow *, int64_t, int64_t, const Next *, float *) =
        l->kind == FLOAT32 ? rows_float32 : l->kind == BFLOAT16 ? rows_bfloat16 : rows_int8;

    const int most = rows_of_a_block(n, l->kind == INT8 ? MOST_INT8 : l->kind == BFLOAT16 ? MOST_BFLOAT16 : MOST);
    const int64_t step = n <= 3 ? 4 : panels_at_once(panels, 4 * words * P);
    for (int64_t from = 0; from < n; from += CHUNK) {
        const int64_t to = from + CHUNK < n ? from + CHUNK : n;
        SHARED(n * l->K * l->N > 1 << 17, for (int64_t p = 0; p < panels; p += step) {
            const int64_t end = p + step < panels ? p + step : panels;
            Next next = {step * 4 * words * P, 0};
            for (int64_t i = from; i < to;) {
                const int M = to - i >= most ? most : (int)(to - i);
                next.pace = 4 * P * M / (to - from);
                multiply(l, M, rows + i * bytes, of_rows ? of_rows + i : NULL, p, end, &next, y + i * l->N);
                next.ahead += next.pace * words;
                i += M;
            }
        })
    }
    release(inputs);
    release(of_rows);
}
