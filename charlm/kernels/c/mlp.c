/* The forward step of an MLP, of B texts: the logits after the N characters that it sees.

   D hidden units, V vocabulary. A layer is h = f(W x + b), where x is the h of the layer below. For
   the first layer, W x is the sum of N rows of a table, one for each character, or x is given. */

#include "linear.h"
#include "functions.h"

enum { SIGMOID, TANH, RELU };
enum { TEXTS = 32 }; /* computed at a time */

typedef struct {
  size_t activation, B, N, D, V, n_layer;
  const float *table;  /* (., D), W x by row, or NULL */
  const int64_t *rows; /* (B, N), of the table */
  const float *b;      /* (D,), that of the first layer */
  const Matrix *layers; /* (D, .), with biases; the first one only without a table */
  Matrix head;          /* (V, D) */
  float *x;             /* (B, I), the first layer's x; only without a table */
  float *h;             /* (n_layer, B, D) */
  number *packed;       /* workspace for x and h, see Rows */
  float *logits;        /* (B, V) */
} Network;

static void activate(size_t kind, float *x, size_t count) {
  switch (kind) {
    case SIGMOID:
#pragma omp simd
      for (size_t i = 0; i < count; i++) x[i] = sigmoid(x[i]);
      break;
    case TANH:
#pragma omp simd
      for (size_t i = 0; i < count; i++) x[i] = hyperbolic_tangent(x[i]);
      break;
    default: /* NaN stays */
#pragma omp simd
      for (size_t i = 0; i < count; i++) x[i] = x[i] < 0 ? 0 : x[i];
  }
}

/* Compute outputs [from, to) of the first layer from the table. */
static void sum_rows(const Network *n, size_t from, size_t to) {
  for (size_t text = 0; text < n->B; text++) {
    float *h = n->h + text * n->D;
    memcpy(h + from, n->b + from, (to - from) * sizeof(float));
    for (size_t i = 0; i < n->N; i++) {
      const float *row = n->table + (size_t)n->rows[text * n->N + i] * n->D;
#pragma omp simd
      for (size_t u = from; u < to; u++) h[u] += row[u];
    }
  }
}

/* Compute this thread's part of y = W x + b for all texts, x (B, m->I) and y (B, m->O). */
static void apply(const Network *n, const Matrix *m, const float *x, float *y, int thread,
                  int threads) {
  size_t from, to;
  const Rows all = {n->B, m->I, x, n->packed};
  pack_rows(m, &all, thread, threads);
  partition(m->O, LINE_FLOATS, thread, threads, &from, &to);
  for (size_t text = 0; from < to && text < n->B; text += TEXTS) {
    const Rows some = slice_rows(&all, text, TEXTS, m->I);
    linear(m, &some, from, to, y + text * m->O + from, m->O, 0);
  }
}

static void read_part(const void *job, int thread, int threads) {
  const Network *n = job;
  const size_t size = n->B * n->D;
  size_t from, to;
  partition(n->D, LINE_FLOATS, thread, threads, &from, &to);
  const float *x = n->x;
  for (size_t i = 0; i < n->n_layer; i++) {
    float *h = n->h + i * size;
    if (!i && n->table) sum_rows(n, from, to);
    else apply(n, n->layers + i, x, h, thread, threads);
    for (size_t text = 0; from < to && text < n->B; text++)
      activate(n->activation, h + text * n->D + from, to - from);
    barrier(threads); /* h is complete, and no thread reads the packed x after this */
    x = h;
  }
  apply(n, &n->head, x, n->logits, thread, threads);
}

int mlp_allowed(void) { return tiles_allowed(); }

/* Compute the logits after the N characters of each text. */
void mlp_read(int threads, const Network *n) {
  multiply_on_threads(&n->head, threads, read_part, n);
}
