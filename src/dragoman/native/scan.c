/* The selective scan of Mamba, forward and backward, each in one pass over memory. Its PyTorch twin is model/ops/selective_scan.py.

       h_t = exp(step_t a) h_{t-1} + step_t b_t x_t        y_t = c_t h_t

   B rows of T tokens, E channels (a multiple of V) of N states. The states of a channel stay in registers and in the first
   cache. For the gradient they are kept once in SPAN tokens, and the others computed again. */

#include "numbers.h"

enum { SPAN = 16, SLICE = 8 }; /* tokens; registers of channels whose gradients of b and c are summed before they are stored */

typedef struct {
    const float *x, *step; /* B x T x E */
    const float *a;        /* N x E */
    const float *b, *c;    /* B x T x N, ``stride`` numbers from token to token */
    const float *first;    /* B x N x E, or NULL for zeros */
    const uint8_t *starts; /* T for each row, ``shift`` from row to row, or NULL: 1 where the state is emptied before a token */
    int64_t B, T, E, N, stride, shift;
    float *y, *last; /* B x T x E, B x N x E */
    float *begins;   /* B x spans x N x E: the state before each span; NULL where no gradient is wanted */
} Scan;

int64_t scan_span(void) { return SPAN; }
int64_t scan_slice(void) { return SLICE * V; }

static void load_state(const float *from, int64_t N, int64_t E, Vector *h) {
    for (int64_t n = 0; n < N; n++) h[n] = from ? at(from + n * E) : (Vector){0};
}

static void store_state(const Vector *h, int64_t N, int64_t E, float *to) {
    for (int64_t n = 0; n < N; n++) *(Vector *)(to + n * E) = h[n];
}

INLINE int begins_text(const Scan *s, int64_t row, int64_t t) { return s->starts && s->starts[row * s->shift + t]; }

void selective_scan(const Scan *s) {
    const int64_t T = s->T, E = s->E, N = s->N, spans = (T + SPAN - 1) / SPAN;
#pragma omp parallel for collapse(2) schedule(static) if (s->B * T * E * N > LARGE)
    for (int64_t row = 0; row < s->B; row++)
        for (int64_t e = 0; e < E; e += V) {
            Vector h[N];
            load_state(s->first ? s->first + row * N * E + e : NULL, N, E, h);
            for (int64_t t = 0; t < T; t++) {
                const int64_t i = (row * T + t) * E + e, j = (row * T + t) * s->stride;
                if (s->begins && t % SPAN == 0) store_state(h, N, E, s->begins + (row * spans + t / SPAN) * N * E + e);
                if (begins_text(s, row, t)) memset(h, 0, sizeof h);
                const Vector step = at(s->step + i), added = step * at(s->x + i);
                Vector y = {0};
                for (int64_t n = 0; n < N; n++) {
                    h[n] = exponential_each(step * at(s->a + n * E + e)) * h[n] + added * s->b[j + n];
                    y += h[n] * s->c[j + n];
                }
                *(Vector *)(s->y + i) = y;
            }
            store_state(h, N, E, s->last + row * N * E + e);
        }
}

typedef struct {
    const float *y, *last; /* gradients of the outputs */
    float *x, *step;       /* B x T x E */
    float *a;              /* B x N x E, to be summed over rows */
    float *b, *c;          /* slices x B x T x N, to be summed over slices */
    float *first;          /* B x N x E */
} ScanGradient;

/* One register of channels over one span, from its last token to its first. ``carried``: the gradient of the states that comes
   from later tokens. */
INLINE void span_gradient(const Scan *s, const ScanGradient *g, int64_t row, int64_t span, int64_t e, Vector *carried, Vector *by_a,
                          Vector *states, Vector *decays, Vector *by_b, Vector *by_c) {
    const int64_t T = s->T, E = s->E, N = s->N, spans = (T + SPAN - 1) / SPAN, begin = span * SPAN;
    const int64_t length = T - begin < SPAN ? T - begin : SPAN;
    load_state(s->begins + (row * spans + span) * N * E + e, N, E, states); /* states[t]: the state before token t */
    for (int64_t t = 0; t < length; t++) {
        const int64_t i = (row * T + begin + t) * E + e, j = (row * T + begin + t) * s->stride;
        const Vector step = at(s->step + i), added = step * at(s->x + i), zero = {0};
        const int fresh = begins_text(s, row, begin + t);
        for (int64_t n = 0; n < N; n++) {
            const Vector decay = fresh ? zero : exponential_each(step * at(s->a + n * E + e));
            decays[t * N + n] = decay;
            states[(t + 1) * N + n] = decay * states[t * N + n] + added * s->b[j + n];
        }
    }
    for (int64_t t = length - 1; t >= 0; t--) {
        const int64_t i = (row * T + begin + t) * E + e, j = (row * T + begin + t) * s->stride;
        const Vector step = at(s->step + i), x = at(s->x + i), up = at(g->y + i), added = step * x;
        Vector by_input = {0}, by_rates = {0};
        for (int64_t n = 0; n < N; n++) {
            const Vector by_state = carried[n] + up * s->c[j + n], back = by_state * decays[t * N + n];
            const Vector by_rate = back * states[t * N + n];
            by_c[t * N + n] += states[(t + 1) * N + n] * up;
            by_b[t * N + n] += by_state * added;
            by_input += by_state * s->b[j + n];
            by_rates += by_rate * at(s->a + n * E + e);
            by_a[n] += by_rate * step;
            carried[n] = back;
        }
        *(Vector *)(g->x + i) = step * by_input;
        *(Vector *)(g->step + i) = x * by_input + by_rates;
    }
}

void selective_scan_gradient(const Scan *s, const ScanGradient *g) {
    const int64_t B = s->B, T = s->T, E = s->E, N = s->N, slices = (E + SLICE * V - 1) / (SLICE * V);
#pragma omp parallel for collapse(2) schedule(static) if (B * T * E * N > LARGE)
    for (int64_t slice = 0; slice < slices; slice++)
        for (int64_t row = 0; row < B; row++) {
            const int64_t from = slice * SLICE * V, to = from + SLICE * V < E ? from + SLICE * V : E;
            Vector *memory = room(sizeof(Vector) * N * (2 * SLICE + 4 * SPAN + 1));
            Vector *carried = memory, *by_a = carried + SLICE * N, *by_b = by_a + SLICE * N, *by_c = by_b + SPAN * N;
            Vector *decays = by_c + SPAN * N, *states = decays + SPAN * N;
            memset(by_a, 0, sizeof(Vector) * SLICE * N);
            for (int64_t e = from; e < to; e += V) load_state(g->last + row * N * E + e, N, E, carried + (e - from) / V * N);
            for (int64_t span = (T + SPAN - 1) / SPAN - 1; span >= 0; span--) {
                memset(by_b, 0, sizeof(Vector) * 2 * SPAN * N);
                for (int64_t e = from, k = 0; e < to; e += V, k += N)
                    span_gradient(s, g, row, span, e, carried + k, by_a + k, states, decays, by_b, by_c);
                const int64_t begin = span * SPAN, count = (T - begin < SPAN ? T - begin : SPAN) * N;
                const int64_t place = ((slice * B + row) * T + begin) * N;
                for (int64_t i = 0; i < count; i++) {
                    g->b[place + i] = sum_of(by_b[i]);
                    g->c[place + i] = sum_of(by_c[i]);
                }
            }
            for (int64_t e = from, k = 0; e < to; e += V, k += N) {
                store_state(carried + k, N, E, g->first + row * N * E + e);
                store_state(by_a + k, N, E, g->a + row * N * E + e);
            }
            release(memory);
        }
}
