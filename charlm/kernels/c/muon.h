/* What muon.c needs of matrices: factors of products, and symmetric matrices. See there for the
   letters. */

#include "threads.h"
#include "tiles.h"
#include <math.h>

enum { STEPS = 5 };
enum { SHARED_SIZE = 1 << 17 }; /* all threads share a matrix from this size on; else one each */
enum { PANEL = 256 }; /* the columns of a panel of X, and the k that are summed at a time */
/* Rows and columns of a product that are computed at a time: a multiple of WIDTH and of DEPTH. */
enum { BLOCK = WIDTH % DEPTH ? 2 * WIDTH : WIDTH };

typedef struct {
  size_t rows, columns;
  const float *gradient;
  float *average, *weights;
  float rate;
} Matrix;

typedef struct {
  const Matrix *matrices; /* the largest first */
  size_t count;
  float a, b, c, momentum, decay;
  char *workspace;
} Step;

/* A left or a right factor, stored as pack.h says. */
typedef struct {
  number *at;
  size_t K;
} Factor;

typedef struct {
  const Matrix *matrix;
  const Step *step;
  size_t m, n;  /* rounded up to DEPTH; what is missing is 0 */
  int tall;     /* whether X is u^T */
  int by_gram;  /* whether to iterate on G alone */
  size_t parts; /* of the columns of X */
  Factor x_right, gram, gram_right, U, P_right, GP, F[2]; /* left if not right */
  float *sums;     /* of each part: G on and above the diagonal, strip after strip */
  double *squares; /* of each part: the sum of the squares of u */
  number *panels;  /* of each thread, see panel_of */
} Job;

/* --- factors -------------------------------------------------------------------------------- */

/* Row i of a left factor from k on. */
INLINE number *left_at(const Factor *f, size_t i, size_t k) { return f->at + i * f->K + k; }

/* LANES columns of a right factor, from k on; i is a multiple of LANES. */
INLINE number *right_at(const Factor *f, size_t i, size_t k) {
  return f->at + i * f->K + k * LANES;
}

/* Store rows i on of a left factor, columns i on of a right factor, or both, from k on. */
static void store(const Factor *left, const Factor *right, Source s, size_t i, size_t k) {
  for (size_t r = 0; r < s.size; r += LANES)
    for (size_t c = 0; c < s.K; c += DEPTH) {
      elements row[LANES];
      load_block(&s, r, c, row);
      for (int transposed = 0; transposed < 2; transposed++) {
        const int is_left = transposed != s.along;
        const Factor *f = is_left ? left : right;
        if (!f) continue;
        if (transposed) transpose(row);
        store_block(row, is_left ? left_at(f, i + r, k + c) : right_at(f, i + r, k + c),
                    is_left ? f->K : DEPTH);
      }
    }
}

/* out = a b, or += with `add`: rows of a from i on, columns of b from j on. Rows of out are BLOCK
   apart. */
static void multiply_factors(const Factor *a, const Factor *b, size_t i, size_t j, size_t rows,
                            size_t columns, float *out, int add) {
  for (size_t k = 0; k < a->K; k += PANEL)
    multiply_part(left_at(a, i, k), a->K, right_at(b, j, k), b->K, rows, columns,
                  smaller(PANEL, a->K - k), out, BLOCK, add || k);
}

/* --- symmetric matrices ---------------------------------------------------------------------- */

/* Only blocks above and on the diagonal are computed. They are stored in strips of BLOCK columns.
   */
INLINE size_t count_strips(size_t m) { return (m + BLOCK - 1) / BLOCK; }
INLINE size_t size_of_strips(size_t strips) { return strips * (strips + 1) / 2 * BLOCK * BLOCK; }

/* Return whether a thread computes strip s. Strips differ in size: of each `threads` strips, the
   thread that had the largest one before gets the smallest. */
INLINE int is_mine(size_t s, size_t thread, size_t threads) {
  return s % threads == (s / threads % 2 ? threads - 1 - thread : thread);
}

/* scale (left right) + b G + a I, stored as a left and a right factor; one of these may be NULL. If
   left and right are NULL: scale times the sum of the parts of G. */
typedef struct {
  const Factor *left, *right;
  float scale, b, a;
  const Factor *out, *out_right;
} Symmetric;

/* Store the block at row i and column j, and its mirror image. `block` has the product, or the
   first part of G. */
static void finish(const Job *job, const Symmetric *s, size_t i, size_t j, size_t rows,
                   size_t columns, float *block) {
  if (i == j) /* make it exactly symmetric: each iteration multiplies the difference */
    for (size_t r = 0; r < columns; r++)
      for (size_t c = 0; c < r; c++) block[r * BLOCK + c] = block[c * BLOCK + r];
  for (size_t r = 0; r < rows; r++) {
    float *row = block + r * BLOCK;
    const number *g = left_at(&job->gram, i + r, j);
    if (s->b != 0) {
#pragma omp simd
      for (size_t c = 0; c < columns; c++) row[c] = s->scale * row[c] + s->b * from_number(g[c]);
    } else if (s->scale != 1) {
      for (size_t c = 0; c < columns; c++) row[c] *= s->scale;
    }
    if (i == j) row[r] += s->a;
  }
  store(s->out, s->out_right, (Source){block, BLOCK, rows, columns, 1, NULL}, i, j);
  if (i != j) store(s->out, s->out_right, (Source){block, BLOCK, columns, rows, 0, NULL}, j, i);
}

static void symmetric(const Job *job, Symmetric s, int thread, int threads) {
  const size_t size = size_of_strips(count_strips(job->m));
  float block[BLOCK * BLOCK];
  for (size_t t = 0; t < count_strips(job->m); t++) {
    if (!is_mine(t, (size_t)thread, (size_t)threads)) continue;
    const size_t j = t * BLOCK, columns = smaller(BLOCK, job->m - j);
    for (size_t i = 0; i <= j; i += BLOCK) {
      const size_t rows = smaller(BLOCK, job->m - i);
      float *sum = job->sums + size_of_strips(t) + i * BLOCK;
      if (s.left) multiply_factors(s.left, s.right, i, j, rows, columns, block, 0);
      else
        for (size_t p = 1; p < job->parts; p++)
          for (size_t at = 0; at < rows * BLOCK; at++) sum[at] += sum[p * size + at];
      finish(job, &s, i, j, rows, columns, s.left ? block : sum);
    }
  }
}
