/* What tower.c offers: a model, the state of its texts, and a call that reads more tokens. */

#pragma once

#include <stdint.h>

typedef struct Model Model;

typedef struct {
    int32_t *table;  /* (rows, room): slots of each row's tokens */
    int32_t *length; /* tokens of each row so far */
    int64_t room, used; /* slots in use */
    void **kv;       /* for each layer (slots, 2, G C), of float32 or bfloat16 */
    void **source;   /* for each layer (source tokens, 2, G C), or NULL */
    int32_t *first, *count; /* of each sentence: index of its first source token, number of them */
    int64_t beams;
} State;

void run(const Model *m, State *s, const int64_t *ids, const int32_t *rows, int64_t n, float *answers);
