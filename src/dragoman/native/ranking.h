/* Ranking of logits, defined in vocabulary.c. */

#pragma once

#include <stdint.h>

void partition(const float *logits, int64_t R, int64_t V, float *to);
void largest(const float *rows, int64_t R, int64_t N, int64_t apart, int64_t *to);
void likeliest(const float *logits, int64_t R, int64_t V, int64_t first, int64_t *token, float *log_prob);
void continuations(const float *logits, const float *total, const float *partition, int64_t B, int64_t W, int64_t V, int64_t K,
                   int64_t first, float *score, int64_t *beam, int64_t *token);
