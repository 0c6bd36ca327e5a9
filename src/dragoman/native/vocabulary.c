/* Ranking of the logits of a decoding step for a search, in one or two passes. The PyTorch twin is decode/search/ranking.py.

   R rows, V vocabulary; B sentences, W hypotheses of each, K candidates. */

#include "numbers.h"
#include "ranking.h"

enum { STRETCH = 64 };

static float highest_of(const float *x, int64_t count) {
    Vector some = {0};
    some -= INFINITY;
    int64_t i = 0;
    for (; i + V <= count; i += V) some = higher(at(x + i), some);
    float highest = highest_in(some);
    for (; i < count; i++) highest = x[i] > highest ? x[i] : highest;
    return highest;
}

/* Return log sum exp of a row: NaN where a logit is NaN or none is finite. Write the maximum of each stretch to ``tops`` unless it
   is NULL. One pass over memory: a stretch is still in the cache when it is read again. */
static float partition_of(const float *x, int64_t N, float *tops) {
    float highest = -INFINITY, rest = 0;
    Vector sum = {0};
    for (int64_t from = 0; from < N; from += STRETCH, x += STRETCH) {
        const int64_t count = N - from < STRETCH ? N - from : STRETCH;
        const float top = highest_of(x, count);
        if (tops) tops[from / STRETCH] = top;
        if (top > highest) {
            sum *= exponential_below_1(highest - top);
            highest = top;
        }
        const float base = highest > -INFINITY ? highest : 0; /* a difference of two infinities is no number */
        int64_t i = 0;
        for (; i + V <= count; i += V) sum += exponential_each(at(x + i) - base);
        for (; i < count; i++) rest += exponential_below_1(x[i] - base); /* in the last stretch alone */
    }
    return highest > -INFINITY ? logf(sum_of(sum) + rest) + highest : NAN;
}

void partition(const float *logits, int64_t R, int64_t V, float *to) {
    SHARED(R * V > 1 << 16, for (int64_t r = 0; r < R; r++) to[r] = partition_of(logits + r * V, V, NULL);)
}

/* Return the index of the first number from ``from`` on that equals ``highest``. */
static int64_t place_of(float highest, const float *x, int64_t from, int64_t V) {
    while (from < V - 1 && x[from] != highest) from++;
    return from;
}

/* Argmax of each row of N numbers, rows ``apart`` numbers apart; the lowest index among equals. */
void largest(const float *rows, int64_t R, int64_t N, int64_t apart, int64_t *to) {
    SHARED(R * N > 1 << 16, for (int64_t r = 0; r < R; r++) {
        const float *x = rows + r * apart;
        float highest = -INFINITY;
        int64_t at = 0;
        for (int64_t from = 0; from < N; from += STRETCH) {
            const float top = highest_of(x + from, N - from < STRETCH ? N - from : STRETCH);
            if (top > highest) highest = top, at = from;
        }
        to[r] = place_of(highest, x, at, N);
    })
}

/* Of each row the most probable token among those from ``first`` on, the lowest among equals, and its log-probability. */
void likeliest(const float *logits, int64_t R, int64_t V, int64_t first, int64_t *token, float *log_prob) {
    SHARED(R * V > 1 << 16, for (int64_t r = 0; r < R; r++) {
        const float *x = logits + r * V;
        float *tops = room((V / STRETCH + 1) * sizeof(float));
        const float all = partition_of(x, V, tops);
        int64_t best = 0;
        tops[0] = highest_of(x + first, (V < STRETCH ? V : STRETCH) - first);
        for (int64_t i = 1; i * STRETCH < V; i++)
            if (tops[i] > tops[best]) best = i;
        token[r] = place_of(tops[best], x, best ? best * STRETCH : first, V);
        log_prob[r] = x[token[r]] - all;
        release(tops);
    })
}

typedef struct {
    float score;
    int64_t beam, token;
} Candidate;

/* Insert after all entries with an equal or higher score. */
static void insert(Candidate *list, int64_t K, Candidate new) {
    int64_t at = K - 1;
    for (; at > 0 && new.score > list[at - 1].score; at--) list[at] = list[at - 1];
    list[at] = new;
}

static void look_through(const float *x, const float *tops, int64_t V, int64_t first, float offset, int64_t beam,
                         Candidate *list, int64_t K) {
    for (int64_t from = 0; from < V; from += STRETCH) {
        const int64_t to = from + STRETCH < V ? from + STRETCH : V;
        if (!(tops[from / STRETCH] + offset > list[K - 1].score)) continue;
        for (int64_t token = from > first ? from : first; token < to; token++) {
            const Candidate new = {x[token] + offset, beam, token};
            if (new.score > list[K - 1].score) insert(list, K, new);
        }
    }
}

/* The K highest of total + log softmax of each sentence, over the tokens from ``first`` on. A score is minus infinity where there are
   fewer, and NaN where a logit of the sentence is. partition: log sum exp of each row, or NULL for that of these logits. */
void continuations(const float *logits, const float *total, const float *partition, int64_t B, int64_t W, int64_t V, int64_t K,
                   int64_t first, float *score, int64_t *beam, int64_t *token) {
    SHARED(B * W * V > 1 << 16, for (int64_t b = 0; b < B; b++) {
        Candidate *list = room(K * sizeof(Candidate));
        float *tops = room((V / STRETCH + 1) * sizeof(float));
        for (int64_t k = 0; k < K; k++) list[k] = (Candidate){-INFINITY, 0, 0};
        int bad = 0;
        for (int64_t r = b * W; r < (b + 1) * W; r++) {
            const float own = partition_of(logits + r * V, V, tops), offset = total[r] - (partition ? partition[r] : own);
            bad |= offset != offset;
            look_through(logits + r * V, tops, V, first, offset, r - b * W, list, K);
        }
        for (int64_t k = 0; k < K; k++) {
            score[b * K + k] = bad ? NAN : list[k].score;
            beam[b * K + k] = list[k].beam;
            token[b * K + k] = list[k].token;
        }
        release(list);
        release(tops);
    })
}
