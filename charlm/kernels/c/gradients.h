/* The gradients of the weights: dW (O, I) = dy^T x, summed over all rows of all sequences.

   Threads leave dy and x of their rows for all to use. When a chunk of sequences is done, each
   thread computes a part of each dW. So a sum has the same order for any number of threads. */

#include "blocks.h"
#include "threads.h"

/* out (M, N) = dy^T x, or += where `add`, over R rows of dy (R, M) and x (R, N). */
static void add_transposed(const Workspace *w, const number *dy, size_t dy_stride, const number *x,
                        size_t x_stride, size_t M, size_t N, size_t R, float *out, size_t stride,
                        int add) {
  for (size_t r = 0; r < R; r += SPAN) {
    const size_t K = smaller(SPAN, R - r);
    const number *const rows = dy + r * dy_stride;
    pack_left((Source){.numbers = rows, .stride = dy_stride, .size = M, .K = K}, w->left, LENGTH);
    pack_right_part((Source){.numbers = x + r * x_stride, .stride = x_stride, .size = N, .K = K},
                    w->right, LENGTH);
    multiply_part(w->left, LENGTH, w->right, LENGTH, M, N, width(K), out, stride, add || r);
  }
}

/* out (O,) = the sum of R rows of dy, or += where `add`. */
static void add_rows(const number *dy, size_t stride, size_t O, size_t R, float *out, int add) {
  if (!add) memset(out, 0, O * sizeof(float));
  for (size_t r = 0; r < R; r++)
#pragma omp simd
    for (size_t o = 0; o < O; o++) out[o] += from_number(dy[r * stride + o]);
}

/* This thread's part of the gradients of matrices and biases, from R rows of a chunk. */
static void add_gradients(const Blocks *s, const Factors *factors, const Workspace *w,
                          float *const *gradients, size_t R, int add, int thread, int threads) {
  for (int m = 0; m < MATRICES; m++) {
    const size_t O = rows_of(s, m), I = columns_of(s, m), wide = width(O), deep = width(I);
    const number *const dy = factors->dy[m], *const x = factors->x[m];
    size_t from, to;
    /* along the longer side: every thread packs the whole other side */
    partition(larger(O, I), LANES, thread, threads, &from, &to);
    if (O >= I)
      add_transposed(w, dy + from, wide, x, deep, to - from, I, R, gradients[m] + from * I, I, add);
    else add_transposed(w, dy, wide, x + from, deep, O, to - from, R, gradients[m] + from, I, add);
    partition(O, LANES, thread, threads, &from, &to);
    if (gradients[BIASES + m])
      add_rows(dy + from, wide, to - from, R, gradients[BIASES + m] + from, add);
  }
}

/* The gradients of the norms: the sums of those of all groups. */
static void sum_norms(const Blocks *s, const Shared *shared, float *const *gradients, int thread,
                      int threads) {
  const size_t groups = round_up(s->B, group_of(s)) / group_of(s);
  size_t from, to;
  partition(s->D, LANES, thread, threads, &from, &to);
  for (int i = 0; i < 4; i++) {
    float *const out = gradients[GAIN1 + i];
    if (!out) continue;
    for (size_t d = from; d < to; d++) out[d] = 0;
    for (size_t g = 0; g < groups; g++)
      for (size_t d = from; d < to; d++) out[d] += shared->norms[(g * 4 + (size_t)i) * s->D + d];
  }
}
