/* Products of two bfloat16 matrices that both change from call to call, in tiles: some rows by a panel of P columns.

   A 32-bit word holds a pair of numbers that are neighbours along the dimension that is summed over. Inside a row they already
   lie side by side; where the sum runs over rows, lay_along packs pairs of rows first. */

#pragma once

#include "numbers.h"

typedef int32_t Word __attribute__((may_alias)); /* rows are also written as uint16_t */

INLINE int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t more(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* sums += M rows (at most MOST) times a panel, over ``words`` words, which are ``step`` apart in a row. Each row has two vectors
   of sums. */
INLINE void multiply(const int M, const Word *rows, int64_t row, int64_t step, int64_t words, const int32_t *panel, Vector *sums) {
    Vector sum[SUMS];
#pragma GCC unroll 24
    for (int i = 0; i < 2 * M; i++) sum[i] = sums[i];
    for (int64_t k = 0; k < words; k++) {
        const Whole w0 = *(const Whole *)(panel + k * P), w1 = *(const Whole *)(panel + k * P + V);
#pragma GCC unroll 12
        for (int m = 0; m < M; m++) {
            const uint32_t pair = (uint32_t)rows[m * row + k * step];
            sum[2 * m] = add_pair(sum[2 * m], w0, pair);
            sum[2 * m + 1] = add_pair(sum[2 * m + 1], w1, pair);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < 2 * M; i++) sums[i] = sum[i];
}

/* Pack (T, C), rows ``step`` apart, into panels of ``panel`` columns, each (space / 2, panel) pairs of rows, with zeros after row
   T. Prefetch what lies ``ahead``. */
INLINE void lay_along(const uint16_t *x, int64_t step, int64_t ahead, int64_t T, int64_t C, int64_t space, const int64_t panel,
                      int32_t *to) {
    for (int64_t t = 0; t < space; t += 2)
        for (int64_t c = 0; c < C; c += V) {
            const uint16_t *at = x + t * step + c;
            Whole pairs = {0};
            if (t < T) pairs = words_of_halves(at);
            if (t + 1 < T) pairs |= words_of_halves(at + step) << 16;
            *(Whole *)(to + (c / panel * space / 2 + t / 2) * panel + c % panel) = pairs;
            if (c % P == 0) __builtin_prefetch(at + ahead), __builtin_prefetch(at + ahead + step);
        }
}
