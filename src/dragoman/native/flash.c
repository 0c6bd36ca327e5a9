/* FlashAttention, forward and backward: the attention weights are never stored as a whole (Dao et al.,
   arXiv:2205.14135). See model/ops/attention.py.

   B texts, H query heads, G key/value heads (G divides H), Q queries, K keys, C channels of one head, a multiple of P.
   The operands of a product lie in words (value.h): of neighbouring channels where the product sums over channels, of tokens
   where it sums over tokens. */

#include "heads.h"
#include "tiles.h"

enum { TILE = V / 2, SPAN = 64 }; /* rows of a product; queries whose weights the backward pass keeps at once */

typedef struct {
    Heads q, k, v, y; /* y: the output; in the backward pass its gradient */
    float *log_sums;  /* (B, H, Q): log sum exp of the scores of each query */
    Heads dq, dk, dv; /* written by the backward pass */
    const uint8_t *seen;
    int64_t seen_text, seen_query; /* strides of ``seen``: a byte for each of K keys, 1 where it is visible; NULL for all of them */
    double scale;
    int64_t causal; /* query i sees no key after key i */
    int64_t B, H, G, Q, K, C;
} Attention;

/* Return the distance to the next head of the same text, or to the first head of the next text. */
INLINE int64_t ahead(const Heads *heads, int64_t h, int64_t H) { return h + 1 < H ? heads->head : heads->text - h * heads->head; }

/* ---- layouts of operands -------------------------------------------------------------------------------- */

/* Interleave pairs of rows, half of each: log2(V) times it transposes the block. */
INLINE void interleave(const Whole *a, Whole *to) {
#pragma GCC unroll 8
    for (int i = 0; i < V / 2; i++) to[2 * i] = LOW(a[i], a[i + V / 2]), to[2 * i + 1] = HIGH(a[i], a[i + V / 2]);
}

/* Pack (T, C) into panels of P tokens, each (C / PER_WORD, P) words of channels. The last half of a panel is filled up with zeros.
   Prefetch what lies ``ahead``. */
static void lay_across(const Value *x, int64_t token, int64_t ahead, int64_t T, int64_t C, int32_t *to) {
    for (int64_t t = 0; t < up_to(T, V); t += V)
        for (int64_t c = 0; c < C / PER_WORD; c += V) {
            Whole a[V], b[V];
#pragma GCC unroll 16
            for (int i = 0; i < V; i++) {
                const Value *from = x + (t + i) * token + PER_WORD * c;
                a[i] = t + i < T ? *(const Whole *)from : (Whole){0};
                __builtin_prefetch(from + ahead);
            }
            interleave(a, b), interleave(b, a), interleave(a, b);
            if (V == 16) interleave(b, a);
            const Whole *turned = V == 16 ? a : b;
#pragma GCC unroll 16
            for (int i = 0; i < V; i++) *(Whole *)(to + (t / P * C / PER_WORD + c + i) * P + t % P) = turned[i];
        }
}

/* Copy ``count`` of TILE rows, and write zeros for the others. */
static void lay_rows(const Value *x, int64_t token, int64_t count, int64_t C, Value *to) {
    for (int64_t m = 0; m < TILE; m++)
        if (m < count)
            memcpy(to + m * C, x + m * token, C * sizeof *to);
        else
            memset(to + m * C, 0, C * sizeof *to);
}

/* ---- masks -------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t from, to; /* keys, in whole vectors: none of these queries sees one outside */
} Range;

/* Mask of TILE queries: -1 for each of up_to(K, P) keys that is visible, 0 for the others. */
typedef struct {
    int8_t *keys;
    Range range;
    int64_t text; /* the text whose queries all have this mask; -1 where masks differ by query */
} Mask;

static void mask_of_query(const Attention *a, int64_t b, int64_t query, int64_t space, int8_t *restrict to) {
    const int64_t keys = query >= a->Q ? 0 : a->causal ? less(a->K, query + 1) : a->K;
    const uint8_t *restrict seen = a->seen ? a->seen + b * a->seen_text + query * a->seen_query : NULL;
    if (seen)
        for (int64_t j = 0; j < keys; j++) to[j] = (int8_t)-seen[j];
    else
        memset(to, -1, keys);
    memset(to + keys, 0, space - keys);
}

static void read_mask(const Attention *a, int64_t b, int64_t query, Mask *mask) {
    const int64_t space = up_to(a->K, P), last = less(a->Q, query + TILE);
    if (mask->text == b) return;
    mask->text = a->causal || a->seen_query ? -1 : b;
    for (int64_t m = 0; m < TILE; m++) mask_of_query(a, b, query + m, space, mask->keys + m * space);
    mask->range = (Range){0, up_to(a->causal ? less(a->K, last) : a->K, V)};
    if (!a->seen) return;
    Range seen = {mask->range.to, 0};
    for (int64_t j = 0; j < mask->range.to; j += V) {
        uint64_t any = 0, some;
        for (int64_t m = 0; m < TILE; m++)
            for (int64_t i = 0; i < V; i += 8) memcpy(&some, mask->keys + m * space + j + i, 8), any |= some;
        if (any) seen = (Range){less(seen.from, j), j + V};
    }
    mask->range = seen;
}

/* ---- forward ------------------------------------------------------------------------------------------ */

/* Scores (TILE, space) of TILE queries with the keys in range. */
static void scores(const Value *rows, const int32_t *panels, int64_t C, Range range, int64_t space, float factor, float *to) {
    int64_t j = range.from / P * P;
    for (; j + V < range.to; j += P) {
        Vector sum[2 * TILE] = {{0}};
        multiply(TILE, 2, (const Word *)rows, C / PER_WORD, 1, C / PER_WORD, panels + j * C / PER_WORD, sum);
        for (int m = 0; m < TILE; m++) {
            *(Vector *)(to + m * space + j) = sum[2 * m] * factor;
            *(Vector *)(to + m * space + j + V) = sum[2 * m + 1] * factor;
        }
    }
    if (j < range.to) { /* the last panel has keys in its first half alone */
        Vector sum[TILE] = {{0}};
        multiply(TILE, 1, (const Word *)rows, C / PER_WORD, 1, C / PER_WORD, panels + j * C / PER_WORD, sum);
        for (int m = 0; m < TILE; m++) *(Vector *)(to + m * space + j) = sum[m] * factor;
    }
}

/* Write exp(x - max x) over the visible keys, 0 for the others. Return 1 / their sum, or 0 where no key is visible. */
static float exponentials(const float *x, const int8_t *mask, Range range, Value *to, float *log_sum) {
    const Vector none = {0}, never = none - INFINITY;
    Vector highest = never, total = {0};
    for (int64_t j = range.from; j < range.to; j += V)
        highest = higher(chosen(words_of_bytes(mask + j), *(const Vector *)(x + j), never), highest);
    const float largest = highest_in(highest), top = largest == -INFINITY ? 0 : largest;
    for (int64_t j = range.from; j < range.to; j += V) {
        const Vector e = chosen(words_of_bytes(mask + j), exponential_each(*(const Vector *)(x + j) - top), none);
        total += e;
        put(to + j, e);
    }
    const float sum = sum_of(total);
    *log_sum = sum > 0 || sum != sum ? top + logf(sum) : 0;
    return sum > 0 || sum != sum ? 1 / sum : 0;
}

/* Multiply TILE rows of weights by panels of P channels, over the keys in range; store the first ``count`` rows. */
static void weighted_sum(const Value *rows, const int32_t *panels, int64_t C, Range range, int64_t space, const float *factor,
                int64_t count, Value *to, int64_t token) {
    for (int64_t c = 0; c < C; c += P) {
        Vector sum[2 * TILE] = {{0}};
        multiply(TILE, 2, (const Word *)(rows + range.from), space / PER_WORD, 1, (range.to - range.from) / PER_WORD,
                 panels + (c / P * space + range.from) / PER_WORD * P, sum);
        for (int m = 0; m < count; m++) {
            put(to + m * token + c, sum[2 * m] * factor[m]);
            put(to + m * token + c + V, sum[2 * m + 1] * factor[m]);
        }
    }
}

/* Buffers of one thread. */
typedef struct {
    int32_t *k_across, *v_along;
    Value *q_rows, *weights;
    float *x;
    Mask mask;
} ForwardBuffers;

/* Attention of TILE queries, from ``query`` on. */
static void attend_tile(const Attention *a, const ForwardBuffers *p, int64_t b, int64_t h, int64_t query) {
    const int64_t C = a->C, space = up_to(a->K, P), count = less(TILE, a->Q - query);
    float factor[TILE], *log_sums = a->log_sums + (b * a->H + h) * a->Q + query;
    const Range range = p->mask.range;
    lay_rows(head_of(&a->q, b, h) + query * a->q.token, a->q.token, count, C, p->q_rows);
    scores(p->q_rows, p->k_across, C, range, space, (float)a->scale, p->x);
    for (int64_t m = 0; m < count; m++) {
        const int64_t row = m * space;
        factor[m] = exponentials(p->x + row, p->mask.keys + row, range, p->weights + row, log_sums + m);
    }
    weighted_sum(p->weights, p->v_along, C, range, space, factor, count, head_of(&a->y, b, h) + query * a->y.token, a->y.token);
}

void NAMED(flash)(const Attention *a) {
    const int64_t C = a->C, K = a->K, space = up_to(K, P), each = a->H / a->G, words = space * C * sizeof(Value);
#pragma omp parallel
    {
        ForwardBuffers p = {room(words), room(words), room(TILE * C * sizeof(Value)), room(TILE * space * sizeof(Value)),
                   room(TILE * space * sizeof(float)), {room(TILE * space), {0, 0}, -1}};
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < a->B; b++)
            for (int64_t g = 0; g < a->G; g++) {
                lay_across(head_of(&a->k, b, g), a->k.token, ahead(&a->k, g, a->G), K, C, p.k_across);
                lay_along(head_of(&a->v, b, g), a->v.token, ahead(&a->v, g, a->G), K, C, space, P, p.v_along);
                for (int64_t i = 0; i < a->Q; i += TILE) {
                    read_mask(a, b, i, &p.mask);
                    for (int64_t h = g * each; h < (g + 1) * each; h++) attend_tile(a, &p, b, h, i);
                }
            }
        release(p.k_across), release(p.v_along), release(p.q_rows), release(p.weights), release(p.x), release(p.mask.keys);
    }
}

/* ---- backward ----------------------------------------------------------------------------------------- */

/* Weights and gradients of the scores of ``span`` queries: panels of V keys, each (span / PER_WORD, V) words of queries. */
typedef struct {
    int32_t *weights, *dscores;
    int64_t span;
} Transposed;

/* Turn scores into weights in place. Return sum(weights * dweights), which the gradient of a softmax subtracts. */
static float weights_of(float *x, const float *dweights, const int8_t *mask, Range range, float log_sum) {
    Vector dot = {0};
    for (int64_t j = range.from; j < range.to; j += V) {
        const Vector none = {0}, e = exponential_each(*(const Vector *)(x + j) - log_sum);
        const Vector weight = *(Vector *)(x + j) = chosen(words_of_bytes(mask + j), e, none);
        dot += weight * *(const Vector *)(dweights + j);
    }
    return sum_of(dot);
}

/* Gradients of the scores of PER_WORD rows: weight (dweight - sum(weight dweight)). They are stored as rows, and transposed. */
static void score_gradients(const float *x, const float *dweights, int64_t space, const float *dot, Range range, float factor,
                    Value *rows, int64_t at, Transposed to) {
    for (int64_t j = range.from; j < range.to; j += V) {
        Vector weights[PER_WORD], gradients[PER_WORD];
        for (int m = 0; m < PER_WORD; m++) {
            weights[m] = *(const Vector *)(x + m * space + j);
            gradients[m] = weights[m] * (*(const Vector *)(dweights + m * space + j) - dot[m]) * factor;
            put(rows + m * space + j, gradients[m]);
        }
        *(Whole *)(to.weights + j * to.span / PER_WORD + at * V) = words_of(weights);
        *(Whole *)(to.dscores + j * to.span / PER_WORD + at * V) = words_of(gradients);
    }
}

/* Clear the keys that no query of a tile sees, between keys that others see. */
static void clear(Transposed tiles, int64_t from, int64_t to, int64_t at) {
    for (int64_t j = from; j < to; j += V) {
        memset(tiles.weights + j * tiles.span / PER_WORD + at * V, 0, TILE * V * sizeof(Value));
        memset(tiles.dscores + j * tiles.span / PER_WORD + at * V, 0, TILE * V * sizeof(Value));
    }
}

/* sum += transposed panels over the words of queries ``from`` to ``to``: (space, C), a row for each key. */
static void add_transposed(const int32_t *transposed, int64_t span, int64_t from, int64_t to, const int32_t *panels, int64_t j,
                           int64_t C, float *sum) {
    for (int64_t half = 0; half < V; half += TILE)
        for (int64_t c = 0; c < C; c += P) {
            Vector sums[2 * TILE];
            float *at = sum + (j + half) * C + c;
            for (int m = 0; m < TILE; m++) sums[2 * m] = *(Vector *)(at + m * C), sums[2 * m + 1] = *(Vector *)(at + m * C + V);
            multiply(TILE, 2, transposed + j * span / PER_WORD + from * V + half, 1, V, to - from,
                     panels + (c / P * span / PER_WORD + from) * P, sums);
            for (int m = 0; m < TILE; m++) *(Vector *)(at + m * C) = sums[2 * m], *(Vector *)(at + m * C + V) = sums[2 * m + 1];
        }
}

static void store(const float *sum, int64_t T, int64_t C, Value *to, int64_t token) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < C; c += V) put(to + t * token + c, *(const Vector *)(sum + t * C + c));
}

/* Buffers of one thread in the backward pass. */
typedef struct {
    int32_t *k_across, *v_across, *k_along, *q_along, *dy_along;
    Value *q_rows, *dy_rows, *rows;
    float *x, *dweights, *dk, *dv;
    Mask mask;
    Transposed transposed;
} BackwardBuffers;

/* Recompute the weights of ``count`` queries from ``query`` on, and the gradients of their scores: both are laid out at
   ``place``. Store the gradient of the queries. */
static void backward_tile(const Attention *a, BackwardBuffers *d, int64_t b, int64_t h, int64_t query, int64_t count, int64_t place) {
    const int64_t C = a->C, space = up_to(a->K, P);
    const float *log_sums = a->log_sums + (b * a->H + h) * a->Q + query;
    float dot[TILE], one[TILE];
    read_mask(a, b, query, &d->mask);
    const Range range = d->mask.range;
    lay_rows(head_of(&a->q, b, h) + query * a->q.token, a->q.token, count, C, d->q_rows);
    lay_rows(head_of(&a->y, b, h) + query * a->y.token, a->y.token, count, C, d->dy_rows);
    scores(d->q_rows, d->k_across, C, range, space, (float)a->scale, d->x);
    scores(d->dy_rows, d->v_across, C, range, space, 1, d->dweights);
    for (int64_t m = 0; m < TILE; m++) {
        const int64_t row = m * space;
        dot[m] = weights_of(d->x + row, d->dweights + row, d->mask.keys + row, range, m < count ? log_sums[m] : 0);
        one[m] = 1;
    }
    for (int64_t m = 0; m < TILE; m += PER_WORD)
        score_gradients(d->x + m * space, d->dweights + m * space, space, dot + m, range, (float)a->scale, d->rows + m * space,
                (place + m) / PER_WORD, d->transposed);
    weighted_sum(d->rows, d->k_along, C, range, space, one, count, head_of(&a->dq, b, h) + query * a->dq.token, a->dq.token);
}

/* Add up the gradients of the keys and values that some tiles see, each a range of them. */
static void add_tiles(const BackwardBuffers *d, int64_t C, const Range *ranges, int64_t tiles) {
    const int64_t words = TILE / PER_WORD;
    const Transposed *laid = &d->transposed;
    Range all = {INT64_MAX, 0};
    for (int64_t i = 0; i < tiles; i++)
        if (ranges[i].from < ranges[i].to) all = (Range){less(all.from, ranges[i].from), more(all.to, ranges[i].to)};
    for (int64_t i = 0; i < tiles; i++) {
        clear(*laid, all.from, less(ranges[i].from, all.to), i * words);
        clear(*laid, more(ranges[i].to, all.from), all.to, i * words);
    }
    for (int64_t j = all.from; j < all.to; j += V) {
        int64_t from = 0, to = tiles; /* the tiles that see any of these keys, and those between them */
        while (from < to && (j < ranges[from].from || j >= ranges[from].to)) from++;
        while (to > from && (j < ranges[to - 1].from || j >= ranges[to - 1].to)) to--;
        add_transposed(laid->weights, laid->span, from * words, to * words, d->dy_along, j, C, d->dv);
        add_transposed(laid->dscores, laid->span, from * words, to * words, d->q_along, j, C, d->dk);
    }
}

/* Backward pass of the queries of a head from ``first`` on, as many as the buffers hold. */
static void backward(const Attention *a, BackwardBuffers *d, int64_t b, int64_t h, int64_t first) {
    const int64_t span = d->transposed.span, count = less(span, a->Q - first);
    Range ranges[SPAN / TILE];
    lay_along(head_of(&a->q, b, h) + first * a->q.token, a->q.token, ahead(&a->q, h, a->H), count, a->C, span, P, d->q_along);
    lay_along(head_of(&a->y, b, h) + first * a->y.token, a->y.token, ahead(&a->y, h, a->H), count, a->C, span, P, d->dy_along);
    for (int64_t i = 0; i < count; i += TILE) {
        backward_tile(a, d, b, h, first + i, less(TILE, count - i), i);
        ranges[i / TILE] = d->mask.range;
    }
    add_tiles(d, a->C, ranges, up_to(count, TILE) / TILE);
}

static BackwardBuffers new_buffers(int64_t C, int64_t space, int64_t span) {
    const int64_t words = space * C * sizeof(Value), tile = TILE * C * sizeof(Value), sums = space * C * sizeof(float);
    const int64_t laid = span * C * sizeof(Value), kept = span * space * sizeof(Value);
    return (BackwardBuffers){
        room(words), room(words), room(words), room(laid), room(laid), room(tile), room(tile),
        room(TILE * space * sizeof(Value)), room(TILE * space * sizeof(float)), room(TILE * space * sizeof(float)),
        room(sums), room(sums), {room(TILE * space), {0, 0}, -1}, {room(kept), room(kept), span},
    };
}

static void free_buffers(BackwardBuffers d) {
    void *all[] = {d.k_across, d.v_across, d.k_along, d.q_along, d.dy_along, d.q_rows, d.dy_rows, d.rows, d.x,
                   d.dweights, d.dk, d.dv, d.mask.keys, d.transposed.weights, d.transposed.dscores};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) release(all[i]);
}

void NAMED(flash_gradient)(const Attention *a) {
    const int64_t C = a->C, K = a->K, space = up_to(K, P), each = a->H / a->G;
    const int64_t span = less(SPAN, up_to(a->Q, TILE));
#pragma omp parallel
    {
        BackwardBuffers d = new_buffers(C, space, span);
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < a->B; b++)
            for (int64_t g = 0; g < a->G; g++) {
                lay_across(head_of(&a->k, b, g), a->k.token, ahead(&a->k, g, a->G), K, C, d.k_across);
                lay_across(head_of(&a->v, b, g), a->v.token, ahead(&a->v, g, a->G), K, C, d.v_across);
                lay_along(head_of(&a->k, b, g), a->k.token, 0, K, C, space, P, d.k_along);
                memset(d.dk, 0, space * C * sizeof(float));
                memset(d.dv, 0, space * C * sizeof(float));
                for (int64_t h = g * each; h < (g + 1) * each; h++)
                    for (int64_t i = 0; i < a->Q; i += span) backward(a, &d, b, h, i);
                store(d.dk, K, C, head_of(&a->dk, b, g), a->dk.token);
                store(d.dv, K, C, head_of(&a->dv, b, g), a->dv.token);
            }
        free_buffers(d);
    }
}
