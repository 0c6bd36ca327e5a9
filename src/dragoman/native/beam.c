/* A step of beam search, and the backtracking through its steps. The twins in PyTorch and NumPy are decode/search/beam.py and
   decode/search/backpointers.py.

   N sentences, W hypotheses of each before the step (1 at the first), K after it, V vocabulary. */

#include "beam.h"
#include "numbers.h"
#include "ranking.h"

enum { EARLY_STOP, FIRST_STOP, HEURISTIC_STOP, FULL_STOP, CERTAIN_STOP }; /* the first and the heuristic differ only in nbest */

typedef struct {
    float *score, *log_prob; /* to rank by, and of the model */
    int64_t *beam, *token;
    uint8_t *truncated;
} Candidates; /* of a sentence, best first */

static int is_end(const Step *s, int64_t token) {
    for (int64_t i = 0; i < s->end_count; i++)
        if (token == s->ends[i]) return 1;
    return 0;
}

/* At its length limit a sentence's candidates are its rows, each ended here. A row that may not end counts only where none may. */
static void end_all(const Step *s, int64_t n, Candidates c) {
    const int64_t V = s->vocabulary, W = s->W;
    const float *logits = s->logits + n * W * V, *ranked = s->ranked + n * W * V;
    float *all = room(W * sizeof(float));
    int64_t *top = room(W * sizeof(int64_t));
    int some_may = 0;
    partition(logits, W, V, all);
    largest(ranked + s->eos, W, V - s->eos, V, top);
    for (int64_t w = 0; w < W; w++) some_may |= ranked[w * V + s->eos] > -INFINITY;
    for (int64_t w = 0; w < W; w++) {
        const int may = !some_may || ranked[w * V + s->eos] > -INFINITY;
        const float score = may ? s->total[n * W + w] + (logits[w * V + s->eos] - all[w]) : -INFINITY;
        int64_t at = w;
        for (; at > 0 && score > c.score[at - 1]; at--) {
            c.score[at] = c.score[at - 1];
            c.log_prob[at] = c.log_prob[at - 1];
            c.beam[at] = c.beam[at - 1];
            c.truncated[at] = c.truncated[at - 1];
        }
        c.score[at] = score;
        c.log_prob[at] = score + (s->log_prob[n * W + w] - s->total[n * W + w]);
        c.beam[at] = w;
        c.truncated[at] = top[w] != 0;
    }
    for (int64_t k = 0; k < s->candidates; k++) {
        c.token[k] = s->eos;
        if (k >= W) c.score[k] = -INFINITY, c.beam[k] = 0, c.truncated[k] = 0;
    }
    release(all);
    release(top);
}

/* Record which of the K best candidates end. */
static void end(Step *s, int64_t n, Candidates c) {
    const int at_limit = s->open_ended && s->limit[n] <= s->length[n];
    float *best = s->best + n * s->nbest;
    for (int64_t k = 0; k < s->K; k++) {
        const int complete = s->complete && s->complete[n * s->W + c.beam[k]], ends = is_end(s, c.token[k]);
        const float total = c.score[k], score = total / s->divisors[s->length[n] - complete];
        const int real = total > -INFINITY;
        if (!(ends || at_limit) || total == -INFINITY) continue; /* NaN is recorded: the caller raises */
        s->found[s->ended++] = (Ended){
            s->sentence[n],
            n * s->W + c.beam[k],
            complete ? -1 : c.token[k],
            c.log_prob[k],
            score,
            at_limit ? !ends : c.truncated[k],
            (uint8_t)real,
        };
        s->finished[n] += real;
        if (!real || !(score > best[s->nbest - 1])) continue;
        int64_t at = s->nbest - 1;
        for (; at > 0 && score > best[at - 1]; at--) best[at] = best[at - 1];
        best[at] = score;
    }
}

/* Return whether a sentence is finished, given the total log-probabilities of its continuing hypotheses. */
static int is_done(const Step *s, int64_t n, const float *total) {
    float highest = -INFINITY;
    for (int64_t k = 0; k < s->K; k++) highest = total[k] > highest || total[k] != total[k] ? total[k] : highest;
    const float found = s->best[(n + 1) * s->nbest - 1];
    const float rival = highest / s->divisors[s->stop == CERTAIN_STOP ? s->limit[n] : s->length[n]];
    if (s->limit[n] <= s->length[n]) return 1;
    if (s->stop == EARLY_STOP) return s->finished[n] >= s->K;
    return found >= rival && (s->stop != FULL_STOP || s->finished[n] >= s->K);
}

/* Continue with the K best candidates that do not end, unless the sentence is finished. */
static void go_on(Step *s, int64_t n, Candidates c) {
    const int64_t K = s->K, to = s->left * K;
    int64_t count = 0;
    for (int ended = 0; ended < 2; ended++)
        for (int64_t k = 0; k < s->candidates && count < K; k++) {
            if (is_end(s, c.token[k]) != ended) continue;
            s->new_total[to + count] = c.score[k];
            s->new_log_prob[to + count] = c.log_prob[k];
            s->continued[to + count] = (Continued){n * s->W + c.beam[k], c.token[k], c.log_prob[k]};
            s->row[to + count] = to + c.beam[k];
            s->moved |= c.beam[k] != count;
            count++;
        }
    if (is_done(s, n, s->new_total + to)) return;
    const int64_t place = s->left++;
    s->keep[place] = n;
    s->sentence[place] = s->sentence[n];
    s->limit[place] = s->limit[n];
    s->length[place] = s->length[n];
    s->finished[place] = s->finished[n];
    memmove(s->best + place * s->nbest, s->best + n * s->nbest, s->nbest * sizeof(float));
}

void beam_step(Step *s) {
    const int64_t count = s->candidates, N = s->N;
    float *score = room(2 * N * count * sizeof(float)), *log_prob = score + N * count, *own = NULL;
    int64_t *beam = room(2 * N * count * sizeof(int64_t)), *token = beam + N * count;
    uint8_t *truncated = room(count);
    if (s->ranked != s->logits) {
        own = room(N * s->W * sizeof(float));
        partition(s->logits, N * s->W, s->vocabulary, own);
    }
    continuations(s->ranked, s->total, own, N, s->W, s->vocabulary, count, s->eos, score, beam, token);
    for (int64_t i = 0; i < N * count; i++) {
        const int64_t r = i / count * s->W + beam[i];
        const float by_model = own ? s->logits[r * s->vocabulary + token[i]] + (s->log_prob[r] - own[r])
                                   : score[i] + (s->log_prob[r] - s->total[r]);
        log_prob[i] = score[i] > -INFINITY ? by_model : score[i];
    }
    s->left = s->moved = s->ended = 0;
    for (int64_t n = 0; n < N; n++) {
        const Candidates c = {score + n * count, log_prob + n * count, beam + n * count, token + n * count, truncated};
        memset(truncated, 0, count);
        s->length[n]++;
        if (s->limit[n] <= s->length[n] && !s->open_ended) end_all(s, n, c);
        end(s, n, c);
        go_on(s, n, c);
    }
    release(score);
    release(beam);
    release(truncated);
    release(own);
}

/* Backtrack n hypotheses: write their tokens and log-probabilities (n, T). ended (n, 4): the step before the first token, the step of
   the last one, the row that is extended there, and that token; starts: of each step, the first of its rows that continued. */
void walk_back(int64_t n, int64_t T, const int64_t *ended, const double *log_prob, const int64_t *starts, const Continued *continued,
               int64_t *tokens, double *log_probs) {
    for (int64_t i = 0; i < n; i++, ended += 4, tokens += T, log_probs += T) {
        const int64_t first = ended[0], last = ended[1];
        int64_t row = ended[2];
        double total = log_prob[i];
        tokens[last - first] = ended[3];
        for (int64_t t = last - 1; t >= first; t--) {
            const Continued before = continued[starts[t] + row];
            tokens[t - first] = before.token;
            log_probs[t - first + 1] = total - before.log_prob;
            total = before.log_prob;
            row = before.parent;
        }
        log_probs[0] = total;
    }
}
