/* Causal attention of one head over one sequence, forward and backward.

   Shapes: T steps, head width K. Queries, keys and values are numbers in rows of width(K), with
   zeros after the K-th. A block of queries is processed at a time:

       S = q k^T,  P = softmax(S / sqrt(K)) up to each query's own step,  y = (P mask) v

   P mask is P, or with dropout P times its mask. */

#include "dropout.h"
#include "tiles.h"
#include "transformer.h"

enum { QUERIES = 32 }; /* a block; a multiple of DEPTH and of ROW_STEP */

/* The stored length of a row of n numbers. */
INLINE size_t width(size_t n) { return round_up(n, DEPTH); }

typedef struct {
  size_t T, K;
  const Dropout *dropout; /* or NULL */
} Attention;

/* The workspace of one thread. */
typedef struct {
  float *P, *dP;             /* (QUERIES, width(T)) each */
  number *masked, *dS;       /* the same: P mask, and the gradient of q k^T */
  number *k_t, *v_t;         /* right factors k^T, v^T */
  number *q, *k, *v, *dy;    /* right factors */
  number *transposed;        /* (width(T), QUERIES), a left factor */
  float *y, *dq, *dk, *dv;   /* (T rounded up to QUERIES, width(K)) each */
} AttentionWorkspace;

/* Compute the largest number or the sum of each of n rows, up to column i + r in row r. */
static void reduce_rows(const float *P, size_t stride, size_t i, size_t n, int largest,
                        float *out) {
  vec all[QUERIES] = {{0}};
  for (size_t r = 0; r < n; r++) {
    const float *row = P + r * stride;
    all[r] = load(row);
    for (size_t j = LANES; j < i + r + 1; j += LANES)
      all[r] = largest ? larger_lanes(load(row + j), all[r]) : all[r] + load(row + j);
  }
  for (size_t r = 0; r < n; r += LANES) *(loose *)(out + r) = reduce_each(all + r, largest);
}

/* Compute rows [i, i + n) of P and P mask; k_t is packed. `row` is the number of the head's first
   row of masks. Rows are computed in whole vectors; what is after the query's own key is 0. */
static void probabilities(const Attention *s, const AttentionWorkspace *w, const number *q,
                          size_t i, size_t n, size_t row) {
  const size_t K = width(s->K), T = width(s->T), known = width(i + n);
  const float scale = 1 / sqrtf((float)s->K);
  float top[QUERIES], sum[QUERIES];
  multiply_part(q + i * K, K, w->k_t, K, round_up(n, ROW_STEP), round_up(i + n, LANES), K, w->P, T,
                0);
  for (size_t r = 0; r < n; r++)
    for (size_t j = i + r + 1; j % LANES; j++) w->P[r * T + j] = -INFINITY;
  reduce_rows(w->P, T, i, n, 1, top);
  for (size_t r = 0; r < n; r++)
    exponentials(w->P + r * T, round_up(i + r + 1, LANES), top[r], scale);
  reduce_rows(w->P, T, i, n, 0, sum);
  for (size_t r = 0; r < n; r++) {
    const size_t vectors = round_up(i + r + 1, LANES);
    float *P = w->P + r * T, *masked = P;
    scale_row(P, vectors, 1 / sum[r]);
    for (size_t j = i + r + 1; j < known; j++) P[j] = 0;
    if (s->dropout) {
      masked = memcpy(w->dP, P, known * sizeof(float));
      drop(s->dropout, row_key(s->dropout, ON_WEIGHTS, row + i + r), masked, vectors);
    }
    to_padded_numbers(masked, known, w->masked + r * T);
  }
}

/* Compute y (T, width(K)) in the workspace. `row` is the first row of the head's masks. */
static void attend(const Attention *s, const AttentionWorkspace *w, const number *q,
                   const number *k, const number *v, size_t row) {
  const size_t K = width(s->K), T = width(s->T);
  pack_right((Source){.numbers = k, .stride = K, .size = s->T, .K = K, .along = 1}, w->k_t);
  pack_right((Source){.numbers = v, .stride = K, .size = K, .K = s->T}, w->v);
  for (size_t i = 0; i < s->T; i += QUERIES) {
    const size_t n = smaller(QUERIES, s->T - i);
    probabilities(s, w, q, i, n, row);
    multiply_part(w->masked, T, w->v, T, round_up(n, ROW_STEP), K, width(i + n), w->y + i * K, K,
                  0);
  }
}

/* Compute rows [i, i + n) of dS from P and dP = dy v^T, the gradient of P mask. */
static void softmax_backward(const Attention *s, const AttentionWorkspace *w, size_t i, size_t n) {
  const size_t T = width(s->T), known = width(i + n);
  const float scale = 1 / sqrtf((float)s->K);
  for (size_t r = 0; r < n; r++) {
    const size_t length = round_up(i + r + 1, LANES); /* P is 0 after the query's own step */
    const float *P = w->P + r * T;
    const number *masked = w->masked + r * T;
    float *dP = w->dP + r * T, along;
#pragma omp simd
    for (size_t j = 0; j < length; j++) dP[j] *= from_number(masked[j]);
    SUM(along, length, j, load(dP + j), dP[j]);
#pragma omp simd
    for (size_t j = 0; j < length; j++) dP[j] = scale * (dP[j] - P[j] * along);
    for (size_t j = length; j < known; j++) dP[j] = 0;
    to_padded_numbers(dP, known, w->dS + r * T);
  }
}

/* out (keys, width(K)) = M^T x, or +=: M (n, keys) are rows of a block, x a right factor from the
   block's first query on. */
static void multiply_transposed(const Attention *s, const AttentionWorkspace *w, const number *M,
                                size_t keys, size_t n, const number *x, float *out, int add) {
  const size_t K = width(s->K), T = width(s->T);
  pack_left((Source){.numbers = M, .stride = T, .size = keys, .K = n}, w->transposed, QUERIES);
  multiply_part(w->transposed, QUERIES, x, T, round_up(keys, ROW_STEP), K, width(n), out, K, add);
}

/* Compute dq, dk and dv in the workspace from dy (T, width(K)). */
static void attend_backward(const Attention *s, const AttentionWorkspace *w, const number *q,
                            const number *k, const number *v, const number *dy, size_t row) {
  const size_t K = width(s->K), T = width(s->T), last = (s->T - 1) / QUERIES * QUERIES;
  pack_right((Source){.numbers = k, .stride = K, .size = s->T, .K = K, .along = 1}, w->k_t);
  pack_right((Source){.numbers = v, .stride = K, .size = s->T, .K = K, .along = 1}, w->v_t);
  pack_right((Source){.numbers = q, .stride = K, .size = K, .K = s->T}, w->q);
  pack_right((Source){.numbers = k, .stride = K, .size = K, .K = s->T}, w->k);
  pack_right((Source){.numbers = dy, .stride = K, .size = K, .K = s->T}, w->dy);
  for (size_t i = last + QUERIES; i > 0;) { /* the last block first: it has all keys */
    i -= QUERIES;
    const size_t n = smaller(QUERIES, s->T - i), rows = round_up(n, ROW_STEP), keys = i + n;
    probabilities(s, w, q, i, n, row);
    multiply_part(dy + i * K, K, w->v_t, K, rows, round_up(keys, LANES), K, w->dP, T, 0);
    softmax_backward(s, w, i, n);
    multiply_transposed(s, w, w->masked, keys, n, w->dy + i * LANES, w->dv, i < last);
    multiply_transposed(s, w, w->dS, keys, n, w->q + i * LANES, w->dk, i < last);
    multiply_part(w->dS, T, w->k, T, rows, K, width(keys), w->dq + i * K, K, 0);
  }
}
