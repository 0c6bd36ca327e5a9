/* A stack of Transformer blocks over tokens of many texts at once, each token with the keys and values its own text has
   so far. One call is one step of decoding, the reading of prompts, or the encoding of sources.

   Keys and values lie in slots, one for each token read, in the order of reading. A table says for every row which slots
   hold its past: rows that part ways after a common past share its slots, so a beam search moves no keys, only entries
   of its table. What a row computes never depends on the other rows, to the bit.

   n tokens, D width, H query heads, G key/value heads (G divides H), C channels of one head. */

#include "attention.h"
#include "products.h"
#include "tower.h"

enum { NO_NORM, LAYER_NORM, RMS_NORM, RMS_NORM_OVER_HEADS }; /* the last one for queries and keys alone */
enum { RELU, GELU, GELU_TANH, GELU_QUICK, SILU, TANH };
enum { NO_ROTATION, HALVES, NEIGHBOURS };

typedef struct {
    const float *weight, *bias; /* bias or NULL */
    int64_t kind;
    double eps;
} Norm;

typedef struct {
    Norm before, output, after;
    double residual_scale;
} Residual;

typedef struct {
    Linear inputs; /* queries, keys and values concatenated; in cross-attention, queries only */
    Linear source; /* in cross-attention keys and values concatenated */
    Linear out;
    Norm q_norm, k_norm;
    double scale;
    int64_t H, G, C;
    int64_t window;      /* tokens visible, the current one included; 0 for all */
    int64_t rotation, rotary_dim; /* number of rotated channels of a head */
    const float *cos_sin;  /* for each position the cosines of its pairs, then the sines */
} Attention;

typedef struct {
    Attention self, cross;
    Linear up, down; /* up: where it is gated, the gates come first */
    int64_t activation, gated, crossed;
    Residual self_residual, cross_residual, mlp_residual;
} Block;

struct Model {
    const float *embedding;
    const float *positions; /* added to embeddings, a row for each position; or NULL */
    double scale;           /* of embeddings */
    Norm embedding_norm, final_norm;
    const Block *blocks;
    int64_t depth, D, causal;
    int64_t narrow; /* keys and values are bfloat16 */
    Linear output; /* N = 0: the output is the hidden vectors */
};

/* ---- operations on one row ------------------------------------------------------------------------- */

/* Return the sum of x - less, or of its squares, over D numbers. */
INLINE float sum_over(const float *x, int64_t D, float less, const int squared) {
    Vector even = {0}, odd = {0}; /* two chains of additions, which need not wait for each other */
    int64_t i = 0;
    for (; i + P <= D; i += P) {
        const Vector a = at(x + i) - less, b = at(x + i + V) - less;
        even += squared ? a * a : a;
        odd += squared ? b * b : b;
    }
    float sum = sum_of(even + odd);
    for (; i < D; i++) sum += squared ? (x[i] - less) * (x[i] - less) : x[i] - less;
    return sum;
}

static void normalize(const Norm *norm, const float *x, int64_t D, float *to) {
    if (norm->kind == NO_NORM) {
        if (to != x) memcpy(to, x, D * sizeof(float));
        return;
    }
    const float mean = norm->kind == LAYER_NORM ? sum_over(x, D, 0, 0) / D : 0, square = sum_over(x, D, mean, 1);
    const float scale = 1.0f / sqrtf(square / D + (float)norm->eps);
    if (norm->bias)
        for (int64_t i = 0; i < D; i++) to[i] = (x[i] - mean) * scale * norm->weight[i] + norm->bias[i];
    else
        for (int64_t i = 0; i < D; i++) to[i] = (x[i] - mean) * scale * norm->weight[i];
}

/* x becomes after(residual_scale x + output(y)). */
static void add(const Residual *residual, int64_t n, int64_t D, float *y, float *x) {
    const float residual_scale = (float)residual->residual_scale;
    SHARED(n * D > 1 << 15, for (int64_t i = 0; i < n; i++) {
        float *to = x + i * D, *from = y + i * D;
        normalize(&residual->output, from, D, from);
        for (int64_t d = 0; d < D; d++) to[d] = residual_scale * to[d] + from[d];
        normalize(&residual->after, to, D, to);
    })
}

static const float *before(const Residual *residual, int64_t n, int64_t D, const float *x, float *buffer) {
    if (residual->before.kind == NO_NORM) return x;
    SHARED(n * D > 1 << 15, for (int64_t i = 0; i < n; i++) normalize(&residual->before, x + i * D, D, buffer + i * D);)
    return buffer;
}

INLINE float squashed(float x) { /* tanh; exponentials of opposite signs never overflow here */
    const float e = exponential_below_1(-2.0f * fabsf(x)), size = (1.0f - e) / (1.0f + e);
    return x < 0 ? -size : size;
}

INLINE float activated(float x, const int64_t kind) {
    switch (kind) {
        case RELU: return x > 0 ? x : 0;
        case GELU: return 0.5f * x * (1.0f + erff(x * 0.707106781f));
        case GELU_TANH: return 0.5f * x * (1.0f + squashed(0.797884561f * (x + 0.044715f * x * x * x)));
        case GELU_QUICK: return x / (1.0f + exponential(-1.702f * x));
        case SILU: return x / (1.0f + exponential(-x));
        default: return squashed(x);
    }
}

/* Apply the activation to F numbers; a gated row (gate, x) gives act(gate) x. */
INLINE void activate_as(const int64_t kind, int gated, int64_t F, const float *x, float *to) {
    if (gated)
        for (int64_t i = 0; i < F; i++) to[i] = activated(x[i], kind) * x[F + i];
    else
        for (int64_t i = 0; i < F; i++) to[i] = activated(x[i], kind);
}

static void activate_row(const Block *b, const float *x, float *to) {
    const int64_t F = b->gated ? b->up.N / 2 : b->up.N;
    switch (b->activation) {
        case RELU: activate_as(RELU, b->gated, F, x, to); break;
        case GELU: activate_as(GELU, b->gated, F, x, to); break;
        case GELU_TANH: activate_as(GELU_TANH, b->gated, F, x, to); break;
        case GELU_QUICK: activate_as(GELU_QUICK, b->gated, F, x, to); break;
        case SILU: activate_as(SILU, b->gated, F, x, to); break;
        default: activate_as(TANH, b->gated, F, x, to);
    }
}

static void activate(const Block *b, int64_t n, const float *x, float *to) {
    const int64_t N = b->up.N, F = b->gated ? N / 2 : N;
    SHARED(n * F > 1 << 15, for (int64_t i = 0; i < n; i++) activate_row(b, x + i * N, to + i * F);)
}

static void rotate(const Attention *a, int64_t position, float *x) {
    const int64_t pairs = a->rotary_dim / 2, distance = a->rotation == HALVES ? pairs : 1, stride = a->rotation == HALVES ? 1 : 2;
    const float *cosine = a->cos_sin + position * a->rotary_dim, *sine = cosine + pairs;
    for (int64_t i = 0; i < pairs; i++) {
        const float first = x[i * stride], second = x[i * stride + distance];
        x[i * stride] = first * cosine[i] - second * sine[i];
        x[i * stride + distance] = second * cosine[i] + first * sine[i];
    }
}

/* Norm and rotate the heads of one token, which start at x. */
static void prepare(const Attention *a, const Norm *norm, int64_t heads, int64_t position, float *x) {
    if (norm->kind == RMS_NORM_OVER_HEADS) normalize(norm, x, heads * a->C, x);
    for (int64_t h = 0; h < heads; h++) {
        if (norm->kind != NO_NORM && norm->kind != RMS_NORM_OVER_HEADS) normalize(norm, x + h * a->C, a->C, x + h * a->C);
        if (a->rotation != NO_ROTATION) rotate(a, position, x + h * a->C);
    }
}

/* ---- a block -------------------------------------------------------------------------------------- */

typedef struct {
    int64_t n, longest;     /* largest number of keys that a token sees */
    const int32_t *row;
    int32_t *position, *slot, *seen;
    float *wide, *narrow;   /* buffers between layers */
} Tokens;

static void keep(const float *kv, int64_t count, int64_t slot, int narrow, void *to) {
    if (narrow)
        to_bfloat16(kv, count, (uint16_t *)to + slot * count);
    else
        memcpy((float *)to + slot * count, kv, count * sizeof(float));
}

/* One query of ``a`` over the first ``count`` tokens of ``past``. */
static void attend_once(const Attention *a, const Model *m, const float *query, const Past *past, int64_t count, float *to) {
    float *weight = room_for_weights(a->H, count);
    attend(a->C, (int)m->narrow, a->H, a->G, (float)a->scale, query, past, count, weight, to);
    release(weight);
}

static void attend_to_self(const Attention *a, const Model *m, const State *s, void *kv, const Tokens *t, const float *x, float *to) {
    const int64_t queries = a->H * a->C, wide = 2 * a->G * a->C;
    linear(&a->inputs, x, t->n, t->wide);
    for (int64_t i = 0; i < t->n; i++) {
        float *q = t->wide + i * (queries + wide);
        prepare(a, &a->q_norm, a->H, t->position[i], q);
        prepare(a, &a->k_norm, a->G, t->position[i], q + queries);
        keep(q + queries, wide, t->slot[i], (int)m->narrow, kv);
    }
    SHARED(t->n * t->longest > 64, for (int64_t i = 0; i < t->n; i++) {
        const int64_t hidden = a->window && t->seen[i] > a->window ? t->seen[i] - a->window : 0;
        const Past past = {kv, s->table + t->row[i] * s->room + hidden, 0, wide};
        attend_once(a, m, t->wide + i * (queries + wide), &past, t->seen[i] - hidden, t->narrow + i * queries);
    })
    linear(&a->out, t->narrow, t->n, to);
}

static void attend_across(const Attention *a, const Model *m, const State *s, const void *kv, const Tokens *t, const float *x,
                          float *to) {
    const int64_t queries = a->H * a->C;
    linear(&a->inputs, x, t->n, t->wide);
    SHARED(t->n * t->longest > 64, for (int64_t i = 0; i < t->n; i++) {
        const int64_t sentence = t->row[i] / s->beams;
        const Past past = {kv, NULL, s->first[sentence], 2 * a->G * a->C};
        prepare(a, &a->q_norm, a->H, 0, t->wide + i * queries);
        attend_once(a, m, t->wide + i * queries, &past, s->count[sentence], t->narrow + i * queries);
    })
    linear(&a->out, t->narrow, t->n, to);
}

enum { FEW = 48 }; /* rows at a time; measured: 48 to 240 cost the same, 1,000 make the encoding of sources 5% slower */

/* Take few rows at a time, so that the hidden layer stays in the cache. */
static void feed_forward(const Block *b, int64_t D, const Tokens *t, const float *x, float *to) {
    for (int64_t from = 0; from < t->n; from += FEW) {
        const int64_t n = t->n - from < FEW ? t->n - from : FEW;
        linear(&b->up, x + from * D, n, t->wide);
        activate(b, n, t->wide, t->narrow);
        linear(&b->down, t->narrow, n, to + from * D);
    }
}

static void pass(const Model *m, int64_t layer, const State *s, const Tokens *t, float *x, float *y, float *normed) {
    const Block *b = m->blocks + layer;
    const int64_t D = m->D, n = t->n;
    attend_to_self(&b->self, m, s, s->kv[layer], t, before(&b->self_residual, n, D, x, normed), y);
    add(&b->self_residual, n, D, y, x);
    if (b->crossed) {
        attend_across(&b->cross, m, s, s->source[layer], t, before(&b->cross_residual, n, D, x, normed), y);
        add(&b->cross_residual, n, D, y, x);
    }
    feed_forward(b, D, t, before(&b->mlp_residual, n, D, x, normed), y);
    add(&b->mlp_residual, n, D, y, x);
}

/* ---- the whole stack ----------------------------------------------------------------------------- */

/* Give the new tokens their positions and slots, and record them in the state. */
static void place(const Model *m, State *s, Tokens *t) {
    for (int64_t i = 0; i < t->n; i++) {
        const int64_t row = t->row[i];
        t->position[i] = s->length[row]++;
        t->slot[i] = s->table[row * s->room + t->position[i]] = (int32_t)s->used++;
    }
    for (int64_t i = 0; i < t->n; i++) {
        t->seen[i] = m->causal ? t->position[i] + 1 : s->length[t->row[i]];
        t->longest = t->seen[i] > t->longest ? t->seen[i] : t->longest;
        if (s->source && s->count[t->row[i] / s->beams] > t->longest) t->longest = s->count[t->row[i] / s->beams];
    }
}

static void embed(const Model *m, const Tokens *t, const int64_t *ids, float *x) {
    for (int64_t i = 0; i < t->n; i++) {
        const float *vector = m->embedding + ids[i] * m->D, scale = (float)m->scale;
        const float *position = m->positions ? m->positions + t->position[i] * m->D : NULL;
        float *to = x + i * m->D;
        for (int64_t d = 0; d < m->D; d++) to[d] = vector[d] * scale + (position ? position[d] : 0);
        normalize(&m->embedding_norm, to, m->D, to);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Read the tokens ``ids``; ``rows`` says which row each belongs to, and the tokens of one row come in order. ``answers``: logits
   (n, N), or hidden vectors (n, D). */
void run(const Model *m, State *s, const int64_t *ids, const int32_t *rows, int64_t n, float *answers) {
    int64_t wide = 1, narrow = 1;
    for (int64_t i = 0; i < m->depth; i++) {
        const Block *b = m->blocks + i;
        wide = larger(wide, larger(b->self.inputs.N, larger(b->up.N, b->crossed ? b->cross.inputs.N : 0)));
        narrow = larger(narrow, larger(b->self.out.K, larger(b->down.K, b->crossed ? b->cross.out.K : 0)));
    }
    int32_t *numbers = room(3 * n * sizeof(int32_t));
    float *x = room(n * (3 * m->D + wide + narrow) * sizeof(float)), *y = x + n * m->D, *normed = y + n * m->D;
    Tokens t = {n, 0, rows, numbers, numbers + n, numbers + 2 * n, normed + n * m->D, normed + n * (m->D + wide)};
    place(m, s, &t);
    embed(m, &t, ids, x);
    for (int64_t layer = 0; layer < m->depth; layer++) pass(m, layer, s, &t, x, y, normed);
    float *hidden = m->output.N ? normed : answers;
    for (int64_t i = 0; i < n; i++) normalize(&m->final_norm, x + i * m->D, m->D, hidden + i * m->D);
    if (m->output.N) linear(&m->output, hidden, n, answers);
    release(x);
    release(numbers);
}

/* ---- sources --------------------------------------------------------------------------------------- */

/* Encode N whole texts of up to S tokens without their padding, which keep masks, or else which is the token pad. Write the hidden
   vectors of all texts, concatenated, and where each text begins there and how long it is; return the number of vectors. A layer's
   keys and values are needed in that layer alone. */
int64_t encode(const Model *m, const int64_t *ids, const uint8_t *keep, int64_t pad, int64_t N, int64_t S, int32_t *first, int32_t *count,
               float *hidden) {
    int64_t n = 0, width = 1;
    int64_t *real = room(N * S * sizeof(int64_t));
    int32_t *rows = room(N * S * sizeof(int32_t)), *length = room(N * sizeof(int32_t)), *table = room(N * S * sizeof(int32_t));
    for (int64_t r = 0; r < N; r++) {
        first[r] = (int32_t)n;
        for (int64_t i = r * S; i < (r + 1) * S; i++) {
            if (keep ? !keep[i] : ids[i] == pad) continue;
            rows[n] = (int32_t)r;
            real[n++] = ids[i];
        }
        count[r] = (int32_t)n - first[r];
        length[r] = 0;
    }
    for (int64_t i = 0; i < m->depth; i++) width = larger(width, 2 * m->blocks[i].self.G * m->blocks[i].self.C);
    void *kv = room(n * width * (m->narrow ? sizeof(uint16_t) : sizeof(float))), **layers = room(m->depth * sizeof(void *));
    for (int64_t i = 0; i < m->depth; i++) layers[i] = kv;
    State s = {.table = table, .length = length, .room = S, .kv = layers, .beams = 1};
    run(m, &s, real, rows, n, hidden);
    release(layers);
    release(kv);
    release(table);
    release(length);
    release(rows);
    release(real);
    return n;
}

/* Project the hidden vectors of n source tokens to the keys and values of every layer. */
void project_sources(const Model *m, const float *hidden, int64_t n, void *const *to) {
    for (int64_t layer = 0; layer < m->depth; layer++) {
        const Attention *a = &m->blocks[layer].cross;
        const int64_t width = 2 * a->G * a->C;
        float *kv = room(n * width * sizeof(float));
        linear(&a->source, hidden, n, kv);
        for (int64_t i = 0; i < n; i++) {
            prepare(a, &a->k_norm, a->G, 0, kv + i * width);
            keep(kv + i * width, width, i, (int)m->narrow, to[layer]);
        }
        release(kv);
    }
}

/* ---- features of the processor ------------------------------------------------------------------------ */

void set_threads(int64_t threads) { omp_set_num_threads((int)threads); }

int64_t panel(void) { return P; }

int64_t multiplies_bfloat16(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

/* Use the matrix unit, once for each process, if it may be used and multiplies as it should; return whether. */
int64_t use_matrix_unit(void) {
#if MATRIX_UNIT
    uses_matrix_unit = permitted() && multiplies_in_tiles();
    return uses_matrix_unit;
#else
    return 0;
#endif
}

/* Use the matrix unit for products in int8 of at least so many rows. */
void set_int8_tiles_from(int64_t rows) { int8_tiles_from = rows; }

int64_t multiplies_whole_numbers(void) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    return 1;
#else
    return 0;
#endif
}
