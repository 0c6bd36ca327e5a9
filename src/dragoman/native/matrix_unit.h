/* Products in tiles, by the matrix unit of Intel's processors (AMX) or by an emulation of it.

   A tile has up to 16 rows of 64 bytes. One instruction adds the product of a tile of inputs (M rows of up to 16 words) and one
   of weights (as many rows of 16 words, one for each output) to a tile of sums (M rows of 16). A word is four int8 or two
   bfloat16, so weights in panels (products.h) are tiles as they are: their rows lie P words apart.

   MATRIX_UNIT is AMX where library.py builds for a processor that has it, EMULATED where a test asks for it. The emulation follows
   Intel's manual (volume 2, TDPBUSD and TDPBF16PS), except that numbers below 1e-38 are not flushed to 0. */

#pragma once

#include "numbers.h"

#define AMX 1
#define EMULATED 2
enum { TILE_ROWS = 16, TILE_WORDS = 16 };

#ifndef MATRIX_UNIT

#define MATRIX_UNIT 0

#else

/* What a tile of each number has: the operand of the instruction that loads the shapes of all tiles. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} Shapes;

#if MATRIX_UNIT == AMX

#include <sys/syscall.h>
#include <unistd.h>

/* Ask the kernel for the registers of tiles, 8 KB in each thread that uses them; return whether it gives them. */
static int permitted(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

#define SHAPES(shapes)                                                                                                \
    do {                                                                                                              \
        __asm__ volatile("" ::"r"(shapes) : "memory"); /* gcc 12 takes it that 8 bytes of them are read */            \
        _tile_loadconfig(shapes);                                                                                     \
    } while (0)
#define ZERO(t) _tile_zero(t)
#define LOAD(t, from, apart) _tile_loadd(t, from, apart)
#define STORE(t, to, apart) _tile_stored(t, to, apart)
#define ADD_INT8(sum, x, w) _tile_dpbusd(sum, x, w)
#define ADD_BFLOAT16(sum, x, w) _tile_dpbf16ps(sum, x, w)
#define RELEASE() _tile_release()

#else

static int permitted(void) { return 1; }

static _Thread_local Shapes emulated;
static _Thread_local union { uint8_t bytes[16][64]; int32_t whole[16][16]; float real[16][16]; uint16_t half[16][32]; } tile[8];

static void emulate_shapes(const Shapes *shapes) {
    emulated = *shapes;
    memset(tile, 0, sizeof tile);
}

static void emulate_load(int t, const char *from, int64_t apart) {
    memset(tile[t].bytes, 0, sizeof tile[t].bytes);
    for (int r = 0; r < emulated.rows[t]; r++) memcpy(tile[t].bytes[r], from + r * apart, emulated.bytes[t]);
}

static void emulate_store(int t, char *to, int64_t apart) {
    for (int r = 0; r < emulated.rows[t]; r++) memcpy(to + r * apart, tile[t].bytes[r], emulated.bytes[t]);
}

static void emulate_add_int8(int sum, int x, int w) {
    for (int m = 0; m < emulated.rows[sum]; m++)
        for (int k = 0; k < emulated.bytes[x]; k++)
            for (int n = 0; n < emulated.bytes[sum] / 4; n++)
                tile[sum].whole[m][n] += tile[x].bytes[m][k] * (int8_t)tile[w].bytes[k / 4][4 * n + k % 4];
}

static void emulate_add_bfloat16(int sum, int x, int w) {
    for (int m = 0; m < emulated.rows[sum]; m++)
        for (int n = 0; n < emulated.bytes[sum] / 4; n++) {
            float part[2] = {0, 0}; /* of even and of odd inputs */
            for (int k = 0; k < emulated.bytes[x] / 2; k++)
                part[k % 2] = fmaf(number_of_half(tile[x].half[m][k]), number_of_half(tile[w].half[k / 2][2 * n + k % 2]), part[k % 2]);
            tile[sum].real[m][n] += part[0] + part[1];
        }
}

#define SHAPES(shapes) emulate_shapes(shapes)
#define ZERO(t) memset(tile[t].bytes, 0, sizeof tile[t].bytes)
#define LOAD(t, from, apart) emulate_load(t, (const char *)(from), apart)
#define STORE(t, to, apart) emulate_store(t, (char *)(to), apart)
#define ADD_INT8(sum, x, w) emulate_add_int8(sum, x, w)
#define ADD_BFLOAT16(sum, x, w) emulate_add_bfloat16(sum, x, w)
#define RELEASE()

#endif

/* The tiles of M rows and half a panel each: sums 0 and 1; inputs 2, weights 3 and 4; the same of the words that are left when K
   is no multiple of 16: inputs 5, weights 6 and 7. */
static void begin_tiles(int M, int64_t words) {
    const uint8_t left = (uint8_t)(words % TILE_WORDS);
    Shapes shapes = {.palette = 1};
    for (int t = 0; t < 5; t++) shapes.rows[t] = t < 3 ? (uint8_t)M : TILE_ROWS, shapes.bytes[t] = 64;
    if (left) {
        shapes.rows[5] = (uint8_t)M, shapes.bytes[5] = (uint16_t)(4 * left);
        for (int t = 6; t < 8; t++) shapes.rows[t] = left, shapes.bytes[t] = 64;
    }
    SHAPES(&shapes);
}

#define IN_TILES(name, ADD)                                                                                           \
    /* sums (M, P) = M rows of inputs, ``words`` words each, times a panel. */                                        \
    static void name(const uint8_t *x, int64_t words, const int32_t *panel, void *sums) {                             \
        int64_t k = 0;                                                                                                \
        __asm__ volatile("" ::: "memory"); /* the compiler does not know that tiles are loaded from memory */         \
        ZERO(0);                                                                                                      \
        ZERO(1);                                                                                                      \
        for (; k + TILE_WORDS <= words; k += TILE_WORDS) {                                                            \
            LOAD(2, x + 4 * k, 4 * words);                                                                            \
            LOAD(3, panel + k * P, 4 * P);                                                                            \
            ADD(0, 2, 3);                                                                                             \
            if (P == 32) {                                                                                            \
                LOAD(4, panel + k * P + TILE_WORDS, 4 * P);                                                           \
                ADD(1, 2, 4);                                                                                         \
            }                                                                                                         \
        }                                                                                                             \
        if (k < words) {                                                                                              \
            LOAD(5, x + 4 * k, 4 * words);                                                                            \
            LOAD(6, panel + k * P, 4 * P);                                                                            \
            ADD(0, 5, 6);                                                                                             \
            if (P == 32) {                                                                                            \
                LOAD(7, panel + k * P + TILE_WORDS, 4 * P);                                                           \
                ADD(1, 5, 7);                                                                                         \
            }                                                                                                         \
        }                                                                                                             \
        STORE(0, sums, 4 * P);                                                                                        \
        if (P == 32) STORE(1, (int32_t *)sums + TILE_WORDS, 4 * P);                                                   \
        __asm__ volatile("" ::: "memory");                                                                            \
    }
IN_TILES(tiles_int8, ADD_INT8)
IN_TILES(tiles_bfloat16, ADD_BFLOAT16)

static uint16_t half_of(int whole) { /* exact up to 256 */
    union { float number; uint32_t bits; } x = {(float)whole};
    return (uint16_t)(x.bits >> 16);
}

/* Return whether tiles give the sums that loops give, over two tiles of words and a part of one. */
static int multiplies_in_tiles(void) {
    enum { M = 3, WORDS = 2 * TILE_WORDS + 3, K = 4 * WORDS };
    static uint8_t x[M][K];
    static int8_t w[WORDS][P][4];
    static uint16_t half_x[M][K / 2], half_w[WORDS][P][2];
    int32_t whole[M][P], same = 1;
    float real[M][P];
    for (int i = 0; i < M * K; i++) (&x[0][0])[i] = (uint8_t)(7 * i + 3);
    for (int i = 0; i < WORDS * P * 4; i++) (&w[0][0][0])[i] = (int8_t)(5 * i % 251 - 125);
    for (int i = 0; i < M * K / 2; i++) (&half_x[0][0])[i] = half_of(i % 17 - 8);
    for (int i = 0; i < WORDS * P * 2; i++) (&half_w[0][0][0])[i] = half_of(i % 13 - 6);
    begin_tiles(M, WORDS);
    tiles_int8(&x[0][0], WORDS, (const int32_t *)w, whole);
    tiles_bfloat16((const uint8_t *)half_x, WORDS, (const int32_t *)half_w, real);
    RELEASE();
    for (int m = 0; m < M; m++)
        for (int n = 0; n < P; n++) {
            int32_t sum = 0, of_halves = 0;
            for (int k = 0; k < K; k++) sum += x[m][k] * w[k / 4][n][k % 4];
            for (int k = 0; k < K / 2; k++)
                of_halves += ((m * K / 2 + k) % 17 - 8) * (((k / 2 * P + n) * 2 + k % 2) % 13 - 6);
            same &= whole[m][n] == sum && real[m][n] == (float)of_halves;
        }
    return same;
}

#endif
