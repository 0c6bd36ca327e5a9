/* Products of two matrices that both change from call to call, in tiles: some rows by a panel of P columns.

   Their operands lie in words (value.h). Inside a row the numbers of a word already lie side by side; where the sum runs over rows,
   lay_along packs rows first. */

#pragma once

#include "value.h"

enum { LINE = 64 / sizeof(Value) }; /* numbers in a line of the cache */

typedef int32_t Word __attribute__((may_alias)); /* rows are also written as Values */

INLINE int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t more(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* sums += M rows (at most MOST) times the first W V columns of a panel (W is 1 or 2), over ``words`` words, which are ``step`` apart
   in a row. Each row has W vectors of sums. */
INLINE void multiply(const int M, const int W, const Word *rows, int64_t row, int64_t step, int64_t words, const int32_t *panel,
                     Vector *sums) {
    Vector sum[SUMS];
#pragma GCC unroll 24
    for (int i = 0; i < W * M; i++) sum[i] = sums[i];
    for (int64_t k = 0; k < words; k++) {
        const Whole w0 = *(const Whole *)(panel + k * P), w1 = *(const Whole *)(panel + k * P + V * (W - 1));
#pragma GCC unroll 12
        for (int m = 0; m < M; m++) {
            const uint32_t word = (uint32_t)rows[m * row + k * step];
            sum[W * m] = add_word(sum[W * m], w0, word);
            if (W == 2) sum[W * m + 1] = add_word(sum[W * m + 1], w1, word);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < W * M; i++) sums[i] = sum[i];
}

/* Pack (T, C), rows ``step`` apart, into panels of ``panel`` columns, each (space / PER_WORD, panel) words of rows, with zeros
   after row T. Prefetch what lies ``ahead``. */
INLINE void lay_along(const Value *x, int64_t step, int64_t ahead, int64_t T, int64_t C, int64_t space, const int64_t panel,
                      int32_t *to) {
    for (int64_t t = 0; t < space; t += PER_WORD)
        for (int64_t c = 0; c < C; c += V) {
            const Value *at = x + t * step + c;
            *(Whole *)(to + (c / panel * space + t) / PER_WORD * panel + c % panel) = words_of_rows(at, step, T - t);
            if (c % LINE == 0) __builtin_prefetch(at + ahead), __builtin_prefetch(at + ahead + (PER_WORD - 1) * step);
        }
}
