/* Attention of a training step in bfloat16, forward and back, whose weights are never stored as a whole (Dao et al.,
   arXiv:2205.14135): see model/ops/attention.py.

   B texts, H query heads, G key/value heads (G divides H), Q queries, K keys, C channels of one head, a multiple of P.
   Of what is multiplied (tiles.h), pairs are pairs of channels where channels are summed over, pairs of tokens where tokens
   are. */

#include "heads.h"
#include "tiles.h"

enum { TILE = V / 2, SPAN = 64 }; /* rows of a product; most queries whose weights are kept going back */

typedef struct {
    Heads q, k, v, y; /* y: the output, or given that by y */
    float *log_sums;  /* (B, H, Q): of what is normalized by them */
    Heads dq, dk, dv; /* going back */
    const uint8_t *seen;
    int64_t seen_text, seen_query; /* steps from one to the next in ``seen``, which may be NULL: a byte for each of K keys */
    double scale;
    int64_t causal; /* query i sees no key behind key i */
    int64_t B, H, G, Q, K, C;
} Attention;

/* Step from one head to the next of the same text, or to the first head of the next text. */
INLINE int64_t ahead(const Heads *heads, int64_t h, int64_t H) { return h + 1 < H ? heads->head : heads->text - h * heads->head; }

/* ---- layouts of operands -------------------------------------------------------------------------------- */

/* Half of each of two rows after the other's, number by number: done log2(V) times it transposes. */
INLINE void interleave(const Whole *a, Whole *to) {
#pragma GCC unroll 8
    for (int i = 0; i < V / 2; i++) to[2 * i] = LOW(a[i], a[i + V / 2]), to[2 * i + 1] = HIGH(a[i], a[i + V / 2]);
}

/* (T, C) -> panels of P tokens, in each (C / 2, P) pairs of channels; tokens that fill up the last one are zeros. What comes
   ``ahead`` is brought into the cache. */
static void lay_across(const uint16_t *x, int64_t token, int64_t ahead, int64_t T, int64_t C, int32_t *to) {
    for (int64_t t = 0; t < up_to(T, P); t += V)
        for (int64_t c = 0; c < C / 2; c += V) {
            Whole a[V], b[V];
#pragma GCC unroll 16
            for (int i = 0; i < V; i++) {
                a[i] = t + i < T ? *(const Whole *)(x + (t + i) * token + 2 * c) : (Whole){0};
                __builtin_prefetch(x + (t + i) * token + 2 * c + ahead);
            }
            interleave(a, b), interleave(b, a), interleave(a, b);
            if (V == 16) interleave(b, a);
            const Whole *turned = V == 16 ? a : b;
#pragma GCC unroll 16
            for (int i = 0; i < V; i++) *(Whole *)(to + (t / P * C / 2 + c + i) * P + t % P) = turned[i];
        }
}

/* ``count`` of TILE rows, and zeros for the others. */
static void lay_rows(const uint16_t *x, int64_t token, int64_t count, int64_t C, uint16_t *to) {
    for (int64_t m = 0; m < TILE; m++)
        if (m < count)
            memcpy(to + m * C, x + m * token, C * sizeof *to);
        else
            memset(to + m * C, 0, C * sizeof *to);
}

/* ---- masks -------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t from, to; /* keys, in whole vectors, outside of which none of these queries sees any */
} Range;

/* Of TILE queries: -1 for each of up_to(K, P) keys that is seen, 0 for the others. */
typedef struct {
    int8_t *keys;
    Range range;
    int64_t text; /* whose queries all see the same, which is this; -1 for none */
} Sight;

static void look_from(const Attention *a, int64_t b, int64_t query, int64_t space, int8_t *restrict to) {
    const int64_t keys = query >= a->Q ? 0 : a->causal ? less(a->K, query + 1) : a->K;
    const uint8_t *restrict seen = a->seen ? a->seen + b * a->seen_text + query * a->seen_query : NULL;
    if (seen)
        for (int64_t j = 0; j < keys; j++) to[j] = (int8_t)-seen[j];
    else
        memset(to, -1, keys);
    memset(to + keys, 0, space - keys);
}

static void look(const Attention *a, int64_t b, int64_t query, Sight *sight) {
    const int64_t space = up_to(a->K, P), last = less(a->Q, query + TILE);
    if (sight->text == b) return;
    sight->text = a->causal || a->seen_query ? -1 : b;
    for (int64_t m = 0; m < TILE; m++) look_from(a, b, query + m, space, sight->keys + m * space);
    sight->range = (Range){0, up_to(a->causal ? less(a->K, last) : a->K, V)};
    if (!a->seen) return;
    Range seen = {sight->range.to, 0};
    for (int64_t j = 0; j < sight->range.to; j += V) {
        uint64_t any = 0, some;
        for (int64_t m = 0; m < TILE; m++)
            for (int64_t i = 0; i < V; i += 8) memcpy(&some, sight->keys + m * space + j + i, 8), any |= some;
        if (any) seen = (Range){less(seen.from, j), j + V};
    }
    sight->range = seen;
}

/* ---- forward ------------------------------------------------------------------------------------------ */

/* Of TILE rows with the keys in range: (TILE, space). */
static void scores(const uint16_t *rows, const int32_t *panels, int64_t C, Range range, int64_t space, float factor, float *to) {
    for (int64_t j = range.from / P * P; j < range.to; j += P) {
        Vector sum[2 * TILE] = {{0}};
        multiply(TILE, (const Word *)rows, C / 2, 1, C / 2, panels + j * C / 2, sum);
        for (int m = 0; m < TILE; m++) {
            *(Vector *)(to + m * space + j) = sum[2 * m] * factor;
            *(Vector *)(to + m * space + j + V) = sum[2 * m + 1] * factor;
        }
    }
}

/* exp(x - the largest) of what is seen. What divides them to weights is returned, 0 where nothing is seen. */
static float exponentials(const float *x, const int8_t *sight, Range range, uint16_t *to, float *log_sum) {
    const Vector none = {0}, never = none - INFINITY;
    Vector highest = never, total = {0};
    for (int64_t j = range.from; j < range.to; j += V)
        highest = higher(chosen(words_of_bytes(sight + j), *(const Vector *)(x + j), never), highest);
    const float largest = highest_in(highest), top = largest == -INFINITY ? 0 : largest;
    for (int64_t j = range.from; j < range.to; j += V) {
        const Vector e = chosen(words_of_bytes(sight + j), exponential_each(*(const Vector *)(x + j) - top), none);
        total += e;
        to_half(to + j, e);
    }
    const float sum = sum_of(total);
    *log_sum = sum > 0 || sum != sum ? top + logf(sum) : 0;
    return sum > 0 || sum != sum ? 1 / sum : 0;
}

/* TILE rows times panels of P channels, over the keys in range; the first ``count`` are what is wanted. */
static void mix(const uint16_t *rows, const int32_t *panels, int64_t C, Range range, int64_t space, const float *factor,
                int64_t count, uint16_t *to, int64_t token) {
    for (int64_t c = 0; c < C; c += P) {
        Vector sum[2 * TILE] = {{0}};
        multiply(TILE, (const Word *)(rows + range.from), space / 2, 1, (range.to - range.from) / 2,
                 panels + (c / P * space + range.from) / 2 * P, sum);
        for (int m = 0; m < count; m++) {
            to_half(to + m * token + c, sum[2 * m] * factor[m]);
            to_half(to + m * token + c + V, sum[2 * m + 1] * factor[m]);
        }
    }
}

/* What one thread works in. */
typedef struct {
    int32_t *k_across, *v_along;
    uint16_t *q_rows, *weights;
    float *x;
    Sight sight;
} Place;

/* TILE queries from the given one on. */
static void attend_tile(const Attention *a, const Place *p, int64_t b, int64_t h, int64_t query) {
    const int64_t C = a->C, space = up_to(a->K, P), count = less(TILE, a->Q - query);
    float factor[TILE], *log_sums = a->log_sums + (b * a->H + h) * a->Q + query;
    const Range range = p->sight.range;
    lay_rows(head_of(&a->q, b, h) + query * a->q.token, a->q.token, count, C, p->q_rows);
    scores(p->q_rows, p->k_across, C, range, space, (float)a->scale, p->x);
    for (int64_t m = 0; m < count; m++) {
        const int64_t row = m * space;
        factor[m] = exponentials(p->x + row, p->sight.keys + row, range, p->weights + row, log_sums + m);
    }
    mix(p->weights, p->v_along, C, range, space, factor, count, head_of(&a->y, b, h) + query * a->y.token, a->y.token);
}

void flash(const Attention *a) {
    const int64_t C = a->C, K = a->K, space = up_to(K, P), each = a->H / a->G, words = space * C / 2 * sizeof(int32_t);
#pragma omp parallel
    {
        Place p = {room(words), room(words), room(TILE * C * sizeof(uint16_t)), room(TILE * space * sizeof(uint16_t)),
                   room(TILE * space * sizeof(float)), {room(TILE * space), {0, 0}, -1}};
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < a->B; b++)
            for (int64_t g = 0; g < a->G; g++) {
                lay_across(head_of(&a->k, b, g), a->k.token, ahead(&a->k, g, a->G), K, C, p.k_across);
                lay_along(head_of(&a->v, b, g), a->v.token, ahead(&a->v, g, a->G), K, C, space, P, p.v_along);
                for (int64_t i = 0; i < a->Q; i += TILE) {
                    look(a, b, i, &p.sight);
                    for (int64_t h = g * each; h < (g + 1) * each; h++) attend_tile(a, &p, b, h, i);
                }
            }
        free(p.k_across), free(p.v_along), free(p.q_rows), free(p.weights), free(p.x), free(p.sight.keys);
    }
}

/* ---- back --------------------------------------------------------------------------------------------- */

/* Weights, and what is given by scores, of ``span`` queries: panels of V keys, in each (span / 2, V) pairs of queries. */
typedef struct {
    int32_t *weights, *by_scores;
    int64_t span;
} Pairs;

/* In place: scores become weights, which are summed with what is given by them. */
static float weigh(float *x, const float *by_weights, const int8_t *sight, Range range, float log_sum) {
    Vector along = {0};
    for (int64_t j = range.from; j < range.to; j += V) {
        const Vector none = {0}, e = exponential_each(*(const Vector *)(x + j) - log_sum);
        const Vector weight = *(Vector *)(x + j) = chosen(words_of_bytes(sight + j), e, none);
        along += weight * *(const Vector *)(by_weights + j);
    }
    return sum_of(along);
}

/* By scores: weight (by_weight - the sum of both over the row), here of two rows, whose numbers are laid side by side, too. */
static void pair_up(const float *x, const float *by_weights, int64_t space, const float *along, Range range, float factor,
                    uint16_t *rows, int64_t at, Pairs to) {
    for (int64_t j = range.from; j < range.to; j += V) {
        const Vector w0 = *(const Vector *)(x + j), w1 = *(const Vector *)(x + space + j);
        const Vector d0 = w0 * (*(const Vector *)(by_weights + j) - along[0]) * factor;
        const Vector d1 = w1 * (*(const Vector *)(by_weights + space + j) - along[1]) * factor;
        *(Whole *)(to.weights + j * to.span / 2 + at * V) = side_by_side(w0, w1);
        *(Whole *)(to.by_scores + j * to.span / 2 + at * V) = side_by_side(d0, d1);
        to_half(rows + j, d0);
        to_half(rows + space + j, d1);
    }
}

/* What no query of a tile sees between keys that others see. */
static void clear(Pairs pairs, int64_t from, int64_t to, int64_t at) {
    for (int64_t j = from; j < to; j += V) {
        memset(pairs.weights + j * pairs.span / 2 + at * V, 0, TILE / 2 * V * sizeof(int32_t));
        memset(pairs.by_scores + j * pairs.span / 2 + at * V, 0, TILE / 2 * V * sizeof(int32_t));
    }
}

/* sum += pairs^T panels, of so many pairs of queries: (space, C) by keys. */
static void gather(const int32_t *pairs, int64_t span, int64_t from, int64_t to, const int32_t *panels, int64_t j, int64_t C,
                   float *sum) {
    for (int64_t half = 0; half < V; half += TILE)
        for (int64_t c = 0; c < C; c += P) {
            Vector sums[2 * TILE];
            float *at = sum + (j + half) * C + c;
            for (int m = 0; m < TILE; m++) sums[2 * m] = *(Vector *)(at + m * C), sums[2 * m + 1] = *(Vector *)(at + m * C + V);
            multiply(TILE, pairs + j * span / 2 + from * V + half, 1, V, to - from, panels + (c / P * span / 2 + from) * P, sums);
            for (int m = 0; m < TILE; m++) *(Vector *)(at + m * C) = sums[2 * m], *(Vector *)(at + m * C + V) = sums[2 * m + 1];
        }
}

static void give(const float *sum, int64_t T, int64_t C, uint16_t *to, int64_t token) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < C; c += V) to_half(to + t * token + c, *(const Vector *)(sum + t * C + c));
}

/* What one thread works in, going back. */
typedef struct {
    int32_t *k_across, *v_across, *k_along, *q_along, *dy_along;
    uint16_t *q_rows, *dy_rows, *rows;
    float *x, *by_weights, *dk, *dv;
    Sight sight;
    Pairs pairs;
} Desk;

/* TILE queries from the given one on, of which there are ``count``: their weights and what is given by their scores, laid out
   at the given place; and what is given by themselves. */
static void go_back_tile(const Attention *a, Desk *d, int64_t b, int64_t h, int64_t query, int64_t count, int64_t place) {
    const int64_t C = a->C, space = up_to(a->K, P);
    const float *log_sums = a->log_sums + (b * a->H + h) * a->Q + query;
    float along[TILE], one[TILE];
    look(a, b, query, &d->sight);
    const Range range = d->sight.range;
    lay_rows(head_of(&a->q, b, h) + query * a->q.token, a->q.token, count, C, d->q_rows);
    lay_rows(head_of(&a->y, b, h) + query * a->y.token, a->y.token, count, C, d->dy_rows);
    scores(d->q_rows, d->k_across, C, range, space, (float)a->scale, d->x);
    scores(d->dy_rows, d->v_across, C, range, space, 1, d->by_weights);
    for (int64_t m = 0; m < TILE; m++) {
        const int64_t row = m * space;
        along[m] = weigh(d->x + row, d->by_weights + row, d->sight.keys + row, range, m < count ? log_sums[m] : 0);
        one[m] = 1;
    }
    for (int64_t m = 0; m < TILE; m += 2)
        pair_up(d->x + m * space, d->by_weights + m * space, space, along + m, range, (float)a->scale, d->rows + m * space,
                (place + m) / 2, d->pairs);
    mix(d->rows, d->k_along, C, range, space, one, count, head_of(&a->dq, b, h) + query * a->dq.token, a->dq.token);
}

/* What is given by the keys and values that any of some tiles see, each of which sees a range of them. */
static void gather_all(const Desk *d, int64_t C, const Range *ranges, int64_t tiles) {
    Range all = {INT64_MAX, 0};
    for (int64_t i = 0; i < tiles; i++)
        if (ranges[i].from < ranges[i].to) all = (Range){less(all.from, ranges[i].from), more(all.to, ranges[i].to)};
    for (int64_t i = 0; i < tiles; i++) {
        clear(d->pairs, all.from, less(ranges[i].from, all.to), i * TILE / 2);
        clear(d->pairs, more(ranges[i].to, all.from), all.to, i * TILE / 2);
    }
    for (int64_t j = all.from; j < all.to; j += V) {
        int64_t from = 0, to = tiles; /* those that see any of these keys, and some between them */
        while (from < to && (j < ranges[from].from || j >= ranges[from].to)) from++;
        while (to > from && (j < ranges[to - 1].from || j >= ranges[to - 1].to)) to--;
        gather(d->pairs.weights, d->pairs.span, from * TILE / 2, to * TILE / 2, d->dy_along, j, C, d->dv);
        gather(d->pairs.by_scores, d->pairs.span, from * TILE / 2, to * TILE / 2, d->q_along, j, C, d->dk);
    }
}

/* From one query of a head on, as many as there is room for. */
static void go_back(const Attention *a, Desk *d, int64_t b, int64_t h, int64_t first) {
    const int64_t span = d->pairs.span, count = less(span, a->Q - first);
    Range ranges[SPAN / TILE];
    lay_along(head_of(&a->q, b, h) + first * a->q.token, a->q.token, ahead(&a->q, h, a->H), count, a->C, span, P, d->q_along);
    lay_along(head_of(&a->y, b, h) + first * a->y.token, a->y.token, ahead(&a->y, h, a->H), count, a->C, span, P, d->dy_along);
    for (int64_t i = 0; i < count; i += TILE) {
        go_back_tile(a, d, b, h, first + i, less(TILE, count - i), i);
        ranges[i / TILE] = d->sight.range;
    }
    gather_all(d, a->C, ranges, up_to(count, TILE) / TILE);
}

static Desk desk(int64_t C, int64_t space, int64_t span) {
    const int64_t words = space * C / 2 * sizeof(int32_t), tile = TILE * C * sizeof(uint16_t);
    const int64_t laid = span / 2 * C * sizeof(int32_t), kept = span / 2 * space * sizeof(int32_t);
    return (Desk){
        room(words), room(words), room(words), room(laid), room(laid), room(tile), room(tile),
        room(TILE * space * sizeof(uint16_t)), room(TILE * space * sizeof(float)), room(TILE * space * sizeof(float)),
        room(2 * words), room(2 * words), {room(TILE * space), {0, 0}, -1}, {room(kept), room(kept), span},
    };
}

static void clear_away(Desk d) {
    void *all[] = {d.k_across, d.v_across, d.k_along, d.q_along, d.dy_along, d.q_rows, d.dy_rows, d.rows, d.x,
                   d.by_weights, d.dk, d.dv, d.sight.keys, d.pairs.weights, d.pairs.by_scores};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

void flash_gradient(const Attention *a) {
    const int64_t C = a->C, K = a->K, space = up_to(K, P), each = a->H / a->G;
    const int64_t span = less(SPAN, up_to(a->Q, TILE));
#pragma omp parallel
    {
        Desk d = desk(C, space, span);
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < a->B; b++)
            for (int64_t g = 0; g < a->G; g++) {
                lay_across(head_of(&a->k, b, g), a->k.token, ahead(&a->k, g, a->G), K, C, d.k_across);
                lay_across(head_of(&a->v, b, g), a->v.token, ahead(&a->v, g, a->G), K, C, d.v_across);
                lay_along(head_of(&a->k, b, g), a->k.token, 0, K, C, space, P, d.k_along);
                memset(d.dk, 0, space * C * sizeof(float));
                memset(d.dv, 0, space * C * sizeof(float));
                for (int64_t h = g * each; h < (g + 1) * each; h++)
                    for (int64_t i = 0; i < a->Q; i += span) go_back(a, &d, b, h, i);
                give(d.dk, K, C, head_of(&a->dk, b, g), a->dk.token);
                give(d.dv, K, C, head_of(&a->dv, b, g), a->dv.token);
            }
        clear_away(d);
    }
}
