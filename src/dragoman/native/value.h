/* The type of the numbers that the kernels of a training step read and write. A file of kernels that includes this header is
   compiled twice: as it is for bfloat16, and by the file of two lines beside it for float32, where the name of each exported
   function ends in _float32. Sums are float32 in both.

   Operands of a product of matrices lie in words of 32 bits. A word holds the PER_WORD numbers that are neighbours along the
   dimension that is summed over: two in bfloat16, one in float32. What each function does is said where it is for bfloat16. */

#pragma once

#include "numbers.h"

#ifdef FLOAT32

typedef float Value;
enum { PER_WORD = 1 };
#define NAMED(function) function##_float32
static const Value LOWEST = -INFINITY;

INLINE float number(Value x) { return x; }

INLINE Vector of(const Value *x) { return at(x); }

INLINE void put(Value *to, Vector x) { *(Vector *)to = x; }

INLINE Whole words_of(const Vector *rows) { return (Whole)rows[0]; }

INLINE Whole words_of_rows(const Value *x, int64_t step, int64_t rows) { return rows > 0 ? (Whole)at(x) : (Whole){0}; }

INLINE Vector add_word(Vector sum, Whole w, uint32_t word) {
    union { uint32_t bits; float number; } factor = {word};
    return sum + (Vector)w * factor.number;
}

#else

typedef uint16_t Value;
enum { PER_WORD = 2 };
#define NAMED(function) function
static const Value LOWEST = 0xff80; /* minus infinity */

INLINE float number(Value x) { return number_of_half(x); }

/* Read V numbers. */
INLINE Vector of(const Value *x) { return of_half(x); }

/* Write V numbers, rounded. */
INLINE void put(Value *to, Vector x) { to_half(to, x); }

/* Pack PER_WORD vectors: word i holds number i of each. */
INLINE Whole words_of(const Vector *rows) { return side_by_side(rows[0], rows[1]); }

/* Likewise V numbers of PER_WORD rows, ``step`` apart, of which ``rows`` are there; the others count as zeros. */
INLINE Whole words_of_rows(const Value *x, int64_t step, int64_t rows) {
    const Whole first = rows > 0 ? words_of_halves(x) : (Whole){0};
    return rows > 1 ? first | words_of_halves(x + step) << 16 : first;
}

/* Return sum + w x for all numbers that a word holds. */
INLINE Vector add_word(Vector sum, Whole w, uint32_t word) { return add_pair(sum, w, word); }

#endif
