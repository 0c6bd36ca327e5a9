/* A step of beam search, defined in beam.c.

   N sentences, W hypotheses of each before the step (1 at the first), K after it, V vocabulary. */

#pragma once

#include <stdint.h>

typedef struct {
    int64_t parent, token;
    float log_prob; /* of the model, up to and including the token */
} Continued; /* a hypothesis that goes on */

typedef struct {
    int64_t sentence, parent, token; /* no token, -1, where the hypothesis was complete before */
    float log_prob, score;
    uint8_t truncated, real;
} Ended; /* a hypothesis that ended */

typedef struct {
    int64_t N, W, K, vocabulary, nbest, eos, stop;
    int64_t end_count, candidates, open_ended; /* open_ended: the limit ends an answer after its last token, not by eos */
    const int64_t *ends;                       /* (end_count): tokens that end an answer */
    const float *logits, *ranked; /* (N W, V): as the model gave them, and as rules changed them; one array where none did */
    const uint8_t *complete;      /* (N W): rows that were complete before, whose end is no part of them; NULL for none */
    const float *divisors;        /* length penalty: what a score is divided by, at each length */
    int64_t *sentence, *limit, *length, *finished; /* (N): updated; those of unfinished sentences are moved to the front */
    float *best;                                   /* (N, nbest): the best scores first; moved likewise */
    const float *total, *log_prob; /* (N, W): what hypotheses are ranked by, as rules changed it, and what the model says */
    float *new_total, *new_log_prob; /* of those that continue (at most N K) */
    int64_t *row, *keep;             /* the kept row that each continues; the unfinished sentences (N) */
    Continued *continued;
    Ended *found; /* at most N K */
    int64_t left, moved, ended; /* unfinished sentences; whether any row continues another row; hypotheses that ended */
} Step;

void beam_step(Step *s);
