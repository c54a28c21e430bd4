/* The gradients by the weights: dW (O, I) = dy^T x, summed over all rows of all sequences.

   A thread that has dy and x of some rows stores them as factors, for all threads to use. When a
   chunk of sequences is done, each thread computes a part of each dW. So each sum has the same
   order for any number of threads, and is long, which is fast. */

#include "blocks.h"

enum { SPAN = 512 }; /* rows that are summed up before the next part of dW: they stay in the cache */

/* Store rows of dy (n, O) and x (n, I), which are numbers, as rows k to k + n of a chunk. */
static void store_dy(const Blocks *s, const Shared *shared, int matrix, const number *dy, size_t n,
                     size_t k) {
  const size_t O = rows_of(s, matrix);
  pack_left((Source){.numbers = dy, .stride = width(O), .size = O, .K = n}, shared->dy[matrix] + k,
            shared->length);
}
static void store_x(const Blocks *s, const Shared *shared, int matrix, const number *x, size_t n,
                    size_t k) {
  const size_t I = columns_of(s, matrix);
  pack_right_part((Source){.numbers = x, .stride = width(I), .size = I, .K = n},
                  shared->x[matrix] + k * LANES, shared->length);
}

/* The part of `count` that is this thread's, in units of `unit`. */
static void share(size_t count, size_t unit, int me, int of, size_t *from, size_t *to) {
  const size_t units = round_up(count, unit) / unit;
  *from = smaller(units * (size_t)me / (size_t)of * unit, count);
  *to = smaller(units * (size_t)(me + 1) / (size_t)of * unit, count);
}

/* dW = or += for this thread's rows of all matrices and biases, by `length` rows of a chunk. */
static void add_gradients(const Blocks *s, const Shared *shared, float *const *gradients,
                          size_t length, int more, int me, int of) {
  for (int w = 0; w < MATRICES; w++) {
    const size_t I = columns_of(s, w), lda = shared->length;
    size_t from, to;
    share(rows_of(s, w), LANES, me, of, &from, &to);
    const number *const dy = shared->dy[w] + from * lda;
    for (size_t k = 0; k < length; k += SPAN)
      multiply_part(dy + k, lda, shared->x[w] + k * LANES, lda, to - from, I,
                    smaller(SPAN, length - k), gradients[w] + from * I, I, more || k);
    float *const bias = gradients[BIASES + w];
    for (size_t o = from; bias && o < to; o++) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (size_t k = 0; k < length; k++) sum += from_number(dy[(o - from) * lda + k]);
      bias[o] = (more ? bias[o] : 0) + sum;
    }
  }
}

/* The gradients of the norms: the sums of those of all groups. */
static void sum_norms(const Blocks *s, const Shared *shared, float *const *gradients, int me,
                      int of) {
  const size_t groups = round_up(s->B, group_of(s)) / group_of(s);
  size_t from, to;
  share(s->D, LANES, me, of, &from, &to);
  for (int i = 0; i < 4; i++) {
    float *const out = gradients[GAIN1 + i];
    if (!out) continue;
    for (size_t d = from; d < to; d++) out[d] = 0;
    for (size_t g = 0; g < groups; g++)
      for (size_t d = from; d < to; d++) out[d] += shared->norms[(g * 4 + (size_t)i) * s->D + d];
  }
}
