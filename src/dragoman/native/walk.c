/* Several steps of a search without rules, made in one call: the model reads the tokens chosen last, the search chooses the next ones,
   and the rows of the state follow. For a small model the Python between two steps costs more than a step. The twin is
   SearchBatch.step (decode/search/search.py), called as often.

   N sentences, W hypotheses of each before a step (1 at the first), K after it, R = N W rows, V vocabulary. */

#include "beam.h"
#include "numbers.h"
#include "ranking.h"
#include "tower.h"

typedef struct {
    const Model *model;
    State *state;                         /* with room for the rows of all steps */
    int32_t *spare_table, *spare_length;  /* as large as those of the state; the two may change places */
    int64_t most, few;       /* steps; sentences at which to stop, after the first step */
    int64_t columns;         /* tokens of the longest row */
    int64_t *token;          /* (rows): read at the first step; in the end those chosen last */
    int64_t *continued, *ended; /* (most): hypotheses that continued and ended at each step */
    int64_t steps, left;     /* made; unfinished sentences */
} Walk;

static int32_t *numbered(int64_t rows) {
    int32_t *row = room(rows * sizeof(int32_t));
    for (int64_t r = 0; r < rows; r++) row[r] = (int32_t)r;
    return row;
}

/* Row r of the state becomes what row from[r] was. */
static void follow(Walk *w, const int64_t *from, int64_t rows) {
    State *s = w->state;
    int32_t *table = s->table, *length = s->length;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(w->spare_table + r * s->room, table + from[r] * s->room, w->columns * sizeof(int32_t));
        w->spare_length[r] = length[from[r]];
    }
    s->table = w->spare_table, s->length = w->spare_length;
    w->spare_table = table, w->spare_length = length;
}

static void keep_sources(State *s, const int64_t *sentence, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        s->first[i] = s->first[sentence[i]];
        s->count[i] = s->count[sentence[i]];
    }
}

/* Let the model read the tokens chosen last. */
static void read(Walk *w, const int32_t *row, int64_t rows, float *logits) {
    run(w->model, w->state, w->token, row, rows, logits);
    w->columns++;
}

/* A beam search. What a step writes follows what the one before it wrote; ``step`` begins with the first. */
void walk_beam(Walk *w, Step *step) {
    const int64_t K = step->K, most = step->N * (step->W > K ? step->W : K);
    float *logits = room(most * step->vocabulary * sizeof(float));
    int32_t *row = numbered(most);
    int64_t *parent = room(most * sizeof(int64_t));
    step->logits = step->ranked = logits;
    w->steps = 0;
    do {
        read(w, row, step->N * step->W, logits);
        beam_step(step);
        const int64_t rows = step->left * K, e = step->ended;
        w->continued[w->steps] = rows, w->ended[w->steps] = e, w->left = step->left;
        for (int64_t r = 0; r < rows; r++) parent[r] = step->continued[r].parent, w->token[r] = step->continued[r].token;
        if (step->moved || step->left < step->N || step->W != K) follow(w, parent, rows);
        if (step->left < step->N && w->state->source) keep_sources(w->state, step->keep, step->left);
        step->total = step->new_total, step->log_prob = step->new_log_prob;
        step->new_total += rows, step->new_log_prob += rows, step->continued += rows, step->found += e;
        step->N = step->left, step->W = w->state->beams = K;
    } while (++w->steps < w->most && w->left > w->few);
    release(logits);
    release(row);
    release(parent);
}

typedef struct {
    int64_t row, token; /* index of the row in the batch */
    float log_prob;
    uint8_t truncated, real; /* real: always 1 here */
} Token;

typedef struct {
    int64_t N, vocabulary, eos;
    int64_t open_ended;        /* the limit ends an answer after its last token, not by eos */
    int64_t steps;             /* made before this call */
    int64_t *sentence, *limit; /* (N): updated; those of unfinished sentences are moved to the front */
    Token *found;              /* of each step, for each of its sentences */
} Greedy;

/* Record the tokens of a step, the most probable ones but where a sentence is at its limit. */
static void record(const Greedy *g, int64_t rows, const float *logits, const int64_t *token, const float *log_prob) {
    for (int64_t r = 0; r < rows; r++) {
        const int truncated = g->limit[r] <= g->steps && token[r] != g->eos;
        g->found[r] = (Token){g->sentence[r], token[r], log_prob[r], (uint8_t)truncated, 1};
        if (!truncated || g->open_ended) continue;
        const float *x = logits + r * g->vocabulary;
        float all;
        partition(x, 1, g->vocabulary, &all);
        g->found[r].token = g->eos;
        g->found[r].log_prob = x[g->eos] - all;
    }
}

/* A greedy search. */
void walk_greedy(Walk *w, Greedy *g) {
    const int64_t N = g->N;
    float *logits = room(N * (g->vocabulary + 1) * sizeof(float)), *log_prob = logits + N * g->vocabulary;
    int32_t *row = numbered(N);
    int64_t *token = room(2 * N * sizeof(int64_t)), *keep = token + N;
    w->steps = 0, w->left = N;
    do {
        const int64_t rows = w->left;
        int64_t left = 0;
        read(w, row, rows, logits);
        g->steps++;
        likeliest(logits, rows, g->vocabulary, g->eos, token, log_prob);
        record(g, rows, logits, token, log_prob);
        for (int64_t r = 0; r < rows; r++) {
            if (g->found[r].token == g->eos || g->limit[r] <= g->steps) continue;
            keep[left] = r;
            w->token[left] = g->found[r].token;
            g->sentence[left] = g->sentence[r];
            g->limit[left++] = g->limit[r];
        }
        if (left < rows) follow(w, keep, left);
        if (left < rows && w->state->source) keep_sources(w->state, keep, left);
        w->ended[w->steps] = rows;
        w->left = left;
        g->found += rows;
    } while (++w->steps < w->most && w->left > w->few);
    release(logits);
    release(row);
    release(token);
}
