/* One decoding step of a layer of Mamba or Mamba-2, from the convolution to the output; see model/inference/packed_mamba.py. In
   PyTorch the same is some thirty operations, each of which costs more to start than to run.

   n rows, D width, E inner channels, N states, R rank, K tokens of the convolution, C channels of the convolution, H heads of P
   channels in G groups. E, C and for Mamba-2 N are multiples of V. */

#include "numbers.h"

void linear(const void *layer, const float *x, int64_t n, float *y); /* products.h */

INLINE Vector silu_each(Vector x) { return x / (1.0f + exponential_each(-x)); }

/* log(1 + exp(x)), within a few units in the last place: the larger of x and 0, and log(1 + u) of u = exp(-|x|) by the series of
   2 artanh(u / (2 + u)). */
INLINE Vector softplus_each(Vector x) {
    const Vector zero = {0}, u = exponential_each(lower(x, -x)), s = u / (2.0f + u), q = s * s;
    Vector series = zero + 2.0f / 15;
    series = series * q + 2.0f / 13;
    series = series * q + 2.0f / 11;
    series = series * q + 2.0f / 9;
    series = series * q + 2.0f / 7;
    series = series * q + 2.0f / 5;
    series = series * q + 2.0f / 3;
    series = series * q + 2.0f;
    return higher(x, zero) + s * series;
}

/* silu(causal convolution over K tokens + bias) */
INLINE void convolve(const float *window, const float *weight, const float *bias, int64_t K, int64_t C, float *y) {
    for (int64_t c = 0; c < C; c += V) {
        Vector sum = bias ? at(bias + c) : (Vector){0};
        for (int64_t k = 0; k < K; k++) sum += at(window + k * C + c) * at(weight + k * C + c);
        *(Vector *)(y + c) = silu_each(sum);
    }
}

/* The part of a block before its mixer: RMS norm, and one product for all inputs. */
typedef struct {
    const void *inputs; /* Linear: D -> A */
    const float *norm;  /* D, a multiple of V */
    int64_t D, A;
    double eps;
} InputProjection;

/* Write n x A: the products of the normed rows of ``x``. */
static void project(const InputProjection *p, const float *x, int64_t n, float *normed, float *products) {
    for (int64_t row = 0; row < n; row++) {
        const float *from = x + row * p->D;
        float *to = normed + row * p->D;
        Vector squares = {0};
        for (int64_t d = 0; d < p->D; d += V) squares += at(from + d) * at(from + d);
        const float scale = 1.0f / sqrtf(sum_of(squares) / p->D + (float)p->eps);
        for (int64_t d = 0; d < p->D; d += V) *(Vector *)(to + d) = at(from + d) * scale * at(p->norm + d);
    }
    linear(p->inputs, normed, n, products);
}

/* ``window``: n x K x C, the K - 1 tokens of ``past`` and the newest, which stands in ``new``, ``stride`` numbers a row. */
static void append(const float *past, const float *new, int64_t stride, int64_t n, int64_t K, int64_t C, float *window) {
    for (int64_t row = 0; row < n; row++) {
        memcpy(window + row * K * C, past + row * (K - 1) * C, (K - 1) * C * sizeof(float));
        memcpy(window + (row * K + K - 1) * C, new + row * stride, C * sizeof(float));
    }
}

/* y + x, the residual connection */
static void add(const float *x, int64_t count, float *y) {
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

typedef struct {
    const void *selection, *step, *out;         /* Linear */
    const float *convolution, *bias;            /* K x E, E or NULL */
    const float *step_bias, *skip, *rates;      /* E, E, N x E */
    int64_t E, N, R, K;
} MambaWeights;

/* ``window``: n x K x E, the newest token last. ``gate``: E numbers a row, ``stride`` apart. ``first``, ``last``: n x N x E. */
void mamba_step(const MambaWeights *m, const float *window, const float *gate, int64_t stride, const float *first, int64_t n,
                float *last, float *y) {
    const int64_t E = m->E, N = m->N, R = m->R, all = R + 2 * N;
    float *u = room(sizeof(float) * n * (2 * E + all + R)), *raw = u + n * E, *chosen = raw + n * E, *low = chosen + n * all;
    SHARED(n * m->K * E > LARGE, for (int64_t row = 0; row < n; row++)
               convolve(window + row * m->K * E, m->convolution, m->bias, m->K, E, u + row * E);)
    linear(m->selection, u, n, chosen);
    for (int64_t row = 0; row < n; row++) memcpy(low + row * R, chosen + row * all, R * sizeof(float));
    linear(m->step, low, n, raw);
    SHARED(n * N * E > LARGE, for (int64_t row = 0; row < n; row++) {
        const float *b = chosen + row * all + R, *c = b + N, *old = first + row * N * E;
        for (int64_t e = 0; e < E; e += V) {
            const Vector step = softplus_each(at(raw + row * E + e) + at(m->step_bias + e)), x = at(u + row * E + e);
            const Vector added = step * x;
            Vector sum = x * at(m->skip + e);
            for (int64_t i = e; i < N * E; i += E) {
                const Vector h = exponential_each(step * at(m->rates + i)) * at(old + i) + added * b[i / E];
                *(Vector *)(last + row * N * E + i) = h;
                sum += h * c[i / E];
            }
            *(Vector *)(raw + row * E + e) = sum * silu_each(at(gate + row * stride + e));
        }
    })
    linear(m->out, raw, n, y);
    release(u);
}

/* A whole block: x + mixer(norm(x)). ``past``: n x (K - 1) x E; ``window``, which is filled: n x K x E. */
void mamba_block(const InputProjection *p, const MambaWeights *m, const float *x, int64_t n, const float *past, const float *first,
                 float *window, float *last, float *y) {
    float *normed = room(sizeof(float) * n * (p->D + p->A)), *both = normed + n * p->D;
    project(p, x, n, normed, both);
    append(past, both, p->A, n, m->K, m->E, window);
    mamba_step(m, window, both + m->E, p->A, first, n, last, y);
    add(x, n * p->D, y);
    release(normed);
}

typedef struct {
    const void *out;                       /* Linear */
    const float *convolution, *bias;       /* K x C, C or NULL */
    const float *step_bias, *skip, *rates; /* H each */
    const float *norm;                     /* E */
    int64_t E, N, K, C, H, G, norm_before_gate;
    double eps, smallest, largest;
} Mamba2Weights;

/* Gate E outputs: y silu(gate), normed by group before or after the gate. */
INLINE void gate_and_norm(const Mamba2Weights *m, const float *gate, float *y) {
    const int64_t size = m->E / m->G;
    for (int64_t g = 0; g < m->G; g++) {
        float squares = 0;
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            if (!m->norm_before_gate) y[e] *= gate[e] / (1.0f + exponential(-gate[e]));
            squares += y[e] * y[e];
        }
        const float scale = 1.0f / sqrtf(squares / size + (float)m->eps);
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            y[e] *= scale * m->norm[e];
            if (m->norm_before_gate) y[e] *= gate[e] / (1.0f + exponential(-gate[e]));
        }
    }
}

/* ``window``: n x K x C, the newest token last. ``gate``: E numbers a row, and ``steps``: H, both ``stride`` apart. ``first``,
   ``last``: n x E x N. */
void mamba2_step(const Mamba2Weights *m, const float *window, const float *gate, const float *steps, int64_t stride,
                 const float *first, int64_t n, float *last, float *y) {
    const int64_t E = m->E, N = m->N, C = m->C, P = E / m->H;
    float *u = room(sizeof(float) * n * (C + E)), *found = u + n * C;
    SHARED(n * N * E > LARGE, for (int64_t row = 0; row < n; row++) {
        float *own = u + row * C;
        convolve(window + row * m->K * C, m->convolution, m->bias, m->K, C, own);
        for (int64_t head = 0; head < m->H; head++) {
            const float raw = steps[row * stride + head] + m->step_bias[head];
            float step = raw > 0 ? raw + log1pf(expf(-raw)) : log1pf(expf(raw));
            step = step < m->smallest ? m->smallest : step > m->largest ? m->largest : step;
            const float decay = expf(step * m->rates[head]);
            const float *b = own + E + head / (m->H / m->G) * N, *c = b + m->G * N;
            for (int64_t e = head * P; e < (head + 1) * P; e++) {
                const float *old = first + (row * E + e) * N, added = step * own[e];
                float *now = last + (row * E + e) * N;
                Vector sum = {0};
                for (int64_t i = 0; i < N; i += V) {
                    const Vector h = at(old + i) * decay + at(b + i) * added;
                    *(Vector *)(now + i) = h;
                    sum += h * at(c + i);
                }
                found[row * E + e] = sum_of(sum) + m->skip[head] * own[e];
            }
        }
        gate_and_norm(m, gate + row * stride, found + row * E);
    })
    linear(m->out, found, n, y);
    release(u);
}

/* A whole block, as ``mamba_block``; the convolution has C channels. */
void mamba2_block(const InputProjection *p, const Mamba2Weights *m, const float *x, int64_t n, const float *past, const float *first,
                  float *window, float *last, float *y) {
    float *normed = room(sizeof(float) * n * (p->D + p->A)), *every = normed + n * p->D;
    project(p, x, n, normed, every);
    append(past, every + m->E, p->A, n, m->K, m->C, window);
    mamba2_step(m, window, every, every + m->E + m->C, p->A, first, n, last, y);
    add(x, n * p->D, y);
    release(normed);
}
