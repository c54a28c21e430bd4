/* A step of Muon (Jordan et al. 2024): momentum, and the nearly orthogonal factor of what comes of
   it by Newton-Schulz iterations.

   W is a matrix of weights, g its gradient, both (rows, columns) of any size, in float32.

       a <- a + (1 - mu) (g - a)      the average of gradients
       u = g + mu (a - g)             Nesterov's momentum
       X = u / |u|                    (m, n), or u^T / |u|, so that m <= n
       five times:
         G = X X^T                    (m, m)
         U = b G + c G G              (m, m)
         X <- a X + U X               (m, n)
       W <- decay W - rate X          or X^T

   With P = a I + U, an iteration is X <- P X, and so G <- P G P. Where X has many more columns than
   rows, iterating on G alone takes fewer products: F <- F P, and at last X <- F X. This squares the
   condition number. float32 has enough digits for that, bfloat16 has not.

   G, P and their products are polynomials of the first G, so they are symmetric. What lies below
   the diagonal is a copy.

   All results of a product are computed in blocks, each by one thread. How the blocks are shared
   does not change the order of a sum, so the bits do not depend on the number of threads. */

#include "threads.h"
#include "tiles.h"
#include <math.h>

int muon_allowed(void) { return tiles_allowed(); }

enum { STEPS = 5 };
enum { SHARED_SIZE = 1 << 17 }; /* all threads share a matrix from this size on; else one each */
/* Rows and columns of a block: a multiple of WIDTH and DEPTH. */
enum { BLOCK = 48 * PER_ELEMENT };
/* Factors are stored in chunks of so many k, for which WIDTH columns stay in the L1 cache. */
enum { CHUNK = 6 * BLOCK };
enum { PIECE = 256 }; /* columns of W that are read at a time */

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

/* A left factor of `size` rows or a right factor of `size` columns. Each chunk is stored as pack.h
   says. */
typedef struct {
  number *at;
  size_t size, K;
} Factor;

typedef struct {
  const Matrix *matrix;
  const Step *step;
  size_t m, n; /* rounded up to DEPTH; what is missing is 0 */
  int tall;    /* whether X is u^T */
  int by_gram; /* whether to iterate on G alone */
  Factor x, x_left, x_right_t; /* X as a right factor and as a left one, and X^T as a right one */
  Factor gram, gram_right, polynomial, product, factors[2]; /* G, P or U, G P, F */
  double *squares; /* the sum of the squares of each row of u */
  float *local;    /* of each thread, see local_size */
} Job;

/* The part of `units` from which on thread `me` works, up to that of me + 1. */
INLINE size_t share(size_t units, int me, int of) { return units * (size_t)me / (size_t)of; }

/* --- factors -------------------------------------------------------------------------------- */

INLINE size_t length_of_chunk(const Factor *f, size_t k) {
  return smaller(CHUNK, f->K - k / CHUNK * CHUNK);
}

INLINE number *chunk_from(const Factor *f, size_t i, size_t k) {
  return f->at + k / CHUNK * CHUNK * f->size + i * length_of_chunk(f, k);
}

INLINE number *left_at(const Factor *f, size_t i, size_t k) {
  return chunk_from(f, i, k) + k % CHUNK;
}

/* i is a multiple of LANES. */
INLINE number *right_at(const Factor *f, size_t i, size_t k) {
  return chunk_from(f, i, k) + k % CHUNK * LANES;
}

static void store_left(const Factor *f, Source s, size_t i, size_t k) {
  for (size_t r = 0; r < s.size; r += LANES)
    for (size_t c = 0; c < s.K; c += DEPTH)
      pack_block(&s, r, c, 0, left_at(f, i + r, k + c), length_of_chunk(f, k + c));
}

static void store_right(const Factor *f, Source s, size_t i, size_t k) {
  for (size_t r = 0; r < s.size; r += LANES)
    for (size_t c = 0; c < s.K; c += DEPTH)
      pack_block(&s, r, c, 1, right_at(f, i + r, k + c), DEPTH);
}

/* out (rows, columns) = the rows of a from i on times the columns of b from j on. */
static void multiply_chunks(const Factor *a, const Factor *b, size_t i, size_t j, size_t rows,
                            size_t columns, float *out, size_t stride) {
  for (size_t k = 0; k < a->K; k += CHUNK) {
    const size_t K = length_of_chunk(a, k);
    multiply(left_at(a, i, k), K, right_at(b, j, k), rows, columns, K, out, stride, k > 0);
  }
}

/* --- symmetric matrices --------------------------------------------------------------------- */

/* scale (left right) + b G + a I, all (m, m) and symmetric, as a left and a right factor; of these,
   one may have no memory, if it is not wanted. */
typedef struct {
  const Factor *left, *right;
  float scale, b, a;
  const Factor *out, *out_right;
} Symmetric;

static void add_gram(const Job *job, const Symmetric *s, size_t i, size_t j, size_t rows,
                     size_t columns, float *block) {
  for (size_t r = 0; r < rows; r++) {
    const number *g = s->b ? left_at(&job->gram, i + r, j) : NULL;
    float *row = block + r * BLOCK;
    if (s->scale != 1)
      for (size_t c = 0; c < columns; c++) row[c] *= s->scale;
    if (g)
#pragma omp simd
      for (size_t c = 0; c < columns; c++) row[c] += s->b * from_number(g[c]);
    if (i == j) row[r] += s->a;
  }
}

/* The block at row i and column j, i <= j, and its mirror image. */
static void symmetric_block(const Job *job, const Symmetric *s, size_t i, size_t j) {
  float block[BLOCK * BLOCK];
  const size_t rows = smaller(BLOCK, job->m - i), columns = smaller(BLOCK, job->m - j);
  const size_t width = i == j ? WIDTH : BLOCK; /* on the diagonal, no more than needed */
  for (size_t c = 0; c < columns; c += width)
    multiply_chunks(s->left, s->right, i, j + c, i == j ? smaller(rows, c + width) : rows,
                    smaller(width, columns - c), block + c, BLOCK);
  if (i == j)
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < r; c++) block[r * BLOCK + c] = block[c * BLOCK + r];
  add_gram(job, s, i, j, rows, columns, block);
  const Source own = {block, BLOCK, rows, columns, 1}, mirror = {block, BLOCK, columns, rows, 0};
  if (s->out) store_left(s->out, own, i, j);
  if (s->out && i != j) store_left(s->out, mirror, j, i);
  if (s->out_right) store_right(s->out_right, own, i, j);
  if (s->out_right && i != j) store_right(s->out_right, mirror, j, i);
}

static void symmetric(const Job *job, Symmetric s, int me, int of) {
  int turn = 0;
  for (size_t j = 0; j < job->m; j += BLOCK)
    for (size_t i = 0; i <= j; i += BLOCK)
      if (turn++ % of == me) symmetric_block(job, &s, i, j);
}

/* --- X -------------------------------------------------------------------------------------- */

/* Store rows i on and columns j on of X: s.size rows of s.K numbers. */
static void store_x(const Job *job, Source s, size_t i, size_t j) {
  store_left(&job->x_left, s, i, j);
  store_right(&job->x_right_t, s, i, j);
  store_right(&job->x, (Source){s.from, s.stride, s.K, s.size, !s.along}, j, i);
}

/* Move the average of gradients; u, and the sum of its squares. */
static float direction(const Job *job, size_t at, size_t length, float *restrict u) {
  const float *restrict g = job->matrix->gradient + at, momentum = job->step->momentum;
  float *restrict a = job->matrix->average + at, sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < length; i++) {
    a[i] += (1 - momentum) * (g[i] - a[i]);
    u[i] = g[i] + momentum * (a[i] - g[i]);
    sum += u[i] * u[i];
  }
  return sum;
}

/* X = u, which is divided by |u| later; threads share the rows of W. */
static void begin(const Job *job, int me, int of) {
  const size_t all_rows = job->tall ? job->n : job->m, all_columns = job->tall ? job->m : job->n;
  const size_t rows = job->matrix->rows, columns = job->matrix->columns;
  float piece[DEPTH * PIECE];
  for (size_t r = share(all_rows / DEPTH, me, of) * DEPTH;
       r < share(all_rows / DEPTH, me + 1, of) * DEPTH; r += DEPTH) {
    for (size_t i = r; i < r + DEPTH; i++) job->squares[i] = 0;
    for (size_t c = 0; c < all_columns; c += PIECE) {
      const size_t width = smaller(PIECE, all_columns - c);
      const size_t known = smaller(width, columns - c);
      for (size_t i = 0; i < DEPTH; i++) {
        float *u = piece + i * PIECE;
        const size_t length = r + i < rows ? known : 0;
        job->squares[r + i] += direction(job, (r + i) * columns + c, length, u);
        memset(u + length, 0, (width - length) * sizeof *u);
      }
      if (job->tall) store_x(job, (Source){piece, PIECE, width, DEPTH, 0}, c, r);
      else store_x(job, (Source){piece, PIECE, DEPTH, width, 1}, r, c);
    }
  }
}

/* 1 / |u|. */
static float scale_of(const Job *job) {
  double sum = 0; /* by every thread in the same order */
  for (size_t i = 0; i < job->matrix->rows; i++) sum += job->squares[i];
  return (float)(1 / (sum > 1e-14 ? sqrt(sum) : 1e-7));
}

/* Move `length` weights against X. */
INLINE void move(const Job *job, size_t at, size_t length, const float *x) {
  float *w = job->matrix->weights + at;
#pragma omp simd
  for (size_t i = 0; i < length; i++) w[i] = job->step->decay * w[i] - job->matrix->rate * x[i];
}

/* Apply `width` columns of X from j on, in rows BLOCK apart, to the weights. */
static void apply(const Job *job, const float *x, size_t j, size_t width, float *row_of_w) {
  const size_t rows = job->matrix->rows, columns = job->matrix->columns;
  if (!job->tall) {
    width = smaller(width, columns - j);
    for (size_t i = 0; i < rows; i++) move(job, i * columns + j, width, x + i * BLOCK);
    return;
  }
  for (size_t c = 0; c < width; c += LANES) {
    for (size_t i = 0; i < job->m; i += LANES) {
      elements row[LANES];
      UNROLL
      for (size_t r = 0; r < LANES; r++) row[r] = *(const loose_elements *)(x + (i + r) * BLOCK + c);
      transpose(row);
      UNROLL
      for (size_t r = 0; r < LANES; r++) *(loose_elements *)(row_of_w + r * job->m + i) = row[r];
    }
    for (size_t r = 0; r < LANES && j + c + r < rows; r++)
      move(job, (j + c + r) * columns, columns, row_of_w + r * job->m);
  }
}

/* The floats of a thread: BLOCK columns of X, and LANES rows of W. */
static size_t local_size(const Job *job) { return job->m * (BLOCK + LANES); }

/* X <- scale (a X + U X); threads share the columns. The last X is applied to the weights. */
static void advance(const Job *job, const Factor *U, float a, float scale, int last, int me,
                    int of) {
  const size_t m = job->m, to = share(job->n / DEPTH, me + 1, of) * DEPTH;
  float *x = job->local + (size_t)me * local_size(job);
  size_t end;
  for (size_t j = share(job->n / DEPTH, me, of) * DEPTH; j < to; j = end) {
    end = smaller(to, (j / BLOCK + 1) * BLOCK); /* in one chunk */
    const size_t width = end - j;
    multiply_chunks(U, &job->x, 0, j, m, width, x, BLOCK);
    for (size_t i = 0; i < m; i++) {
      const number *before = left_at(&job->x_left, i, j);
      float *row = x + i * BLOCK;
#pragma omp simd
      for (size_t c = 0; c < width; c++) row[c] = scale * (a * from_number(before[c]) + row[c]);
    }
    if (last) apply(job, x, j, width, x + m * BLOCK);
    else store_x(job, (Source){x, BLOCK, m, width, 1}, 0, j);
  }
}

/* --- a step --------------------------------------------------------------------------------- */

static void iterate(const Job *job, float scale, int me, int of) {
  const float a = job->step->a, b = job->step->b, c = job->step->c;
  const Factor *gram = &job->gram, *gram_right = &job->gram_right;
  for (int i = 0; i < STEPS; i++) {
    const float squared = i ? 1 : scale * scale;
    symmetric(job, (Symmetric){&job->x_left, &job->x_right_t, squared, 0, 0, gram, gram_right}, me,
              of);
    barrier(of);
    symmetric(job, (Symmetric){gram, gram_right, c, b, 0, &job->polynomial, NULL}, me, of);
    barrier(of);
    advance(job, &job->polynomial, a, i ? 1 : scale, i + 1 == STEPS, me, of);
    barrier(of);
  }
}

static void iterate_by_gram(const Job *job, float scale, int me, int of) {
  const float a = job->step->a, b = job->step->b, c = job->step->c;
  const Factor *gram = &job->gram, *gram_right = &job->gram_right;
  const Factor *P = &job->polynomial, *product = &job->product, *factor = NULL;
  symmetric(job, (Symmetric){&job->x_left, &job->x_right_t, scale * scale, 0, 0, gram, gram_right},
            me, of);
  barrier(of);
  for (int i = 0; i < STEPS; i++) {
    const Factor *next = &job->factors[i % 2];
    symmetric(job, (Symmetric){gram, gram_right, c, b, a, factor ? NULL : next, P}, me, of);
    barrier(of);
    if (factor) symmetric(job, (Symmetric){factor, P, 1, 0, 0, next, NULL}, me, of);
    if (i + 1 < STEPS) {
      symmetric(job, (Symmetric){gram, P, 1, 0, 0, product, NULL}, me, of);
      barrier(of);
      symmetric(job, (Symmetric){product, P, 1, 0, 0, gram, gram_right}, me, of);
    }
    barrier(of);
    factor = next;
  }
  advance(job, factor, 0, scale, 1, me, of);
  barrier(of);
}

static void update(const Job *job, int me, int of) {
  begin(job, me, of);
  barrier(of);
  const float scale = scale_of(job);
  if (job->by_gram) iterate_by_gram(job, scale, me, of);
  else iterate(job, scale, me, of);
}

/* Take memory for `count` things from a workspace, in whole cache lines; `*used` grows. */
static void *take(char *workspace, size_t *used, size_t count, size_t size) {
  const size_t from = *used;
  *used += round_up(count * size, 64);
  return workspace ? workspace + from : NULL;
}

/* The job of a matrix, and how many bytes of the workspace it uses with so many threads. */
static Job job_of(const Step *step, const Matrix *matrix, char *workspace, int threads,
                  size_t *used) {
  Job job = {.matrix = matrix, .step = step, .tall = matrix->rows > matrix->columns};
  const size_t m = round_up(smaller(matrix->rows, matrix->columns), DEPTH);
  const size_t n = round_up(job.tall ? matrix->rows : matrix->columns, DEPTH);
  job.m = m, job.n = n, job.by_gram = !HALF && 2 * n > 3 * m;
  *used = 0;
#define FACTOR(size, K) (Factor){take(workspace, used, (size) * (K), sizeof(number)), size, K}
  job.x = FACTOR(n, m), job.x_left = FACTOR(m, n), job.x_right_t = FACTOR(m, n);
  job.gram = FACTOR(m, m), job.gram_right = FACTOR(m, m), job.polynomial = FACTOR(m, m);
  if (job.by_gram)
    job.product = FACTOR(m, m), job.factors[0] = FACTOR(m, m), job.factors[1] = FACTOR(m, m);
  job.squares = take(workspace, used, job.tall ? n : m, sizeof(double));
  job.local = take(workspace, used, (size_t)threads * local_size(&job), sizeof(float));
  return job;
}

/* The first matrices are shared by all threads, each in the whole workspace. */
static size_t count_shared(const Step *step) {
  size_t i = 0;
  while (i < step->count && step->matrices[i].rows * step->matrices[i].columns >= SHARED_SIZE) i++;
  return i;
}

/* The bytes that each of several threads uses for the matrices that it has alone. */
static size_t size_alone(const Step *step) {
  size_t most = 0, used;
  for (size_t i = count_shared(step); i < step->count; i++) {
    job_of(step, &step->matrices[i], NULL, 1, &used);
    if (used > most) most = used;
  }
  return most;
}

/* The size of the workspace in bytes. */
size_t muon_workspace(int threads, const Step *step) {
  size_t most = (size_t)threads * size_alone(step), used;
  for (size_t i = 0; i < count_shared(step); i++) {
    job_of(step, &step->matrices[i], NULL, threads, &used);
    if (used > most) most = used;
  }
  return most;
}

static void work(const void *given, int me, int of) {
  const Step *step = given;
  const size_t n_shared = count_shared(step);
  size_t used;
  for (size_t i = 0; i < n_shared; i++) {
    const Job job = job_of(step, &step->matrices[i], step->workspace, of, &used);
    update(&job, me, of);
  }
  char *own = step->workspace + (size_t)me * size_alone(step);
  for (size_t i = n_shared + (size_t)me; i < step->count; i += (size_t)of) {
    const Job job = job_of(step, &step->matrices[i], own, 1, &used);
    update(&job, 0, 1);
  }
}

void muon(int threads, const Step *step) { on_threads(threads, tiles_begin, tiles_end, work, step); }
