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

   The columns of X know nothing of each other but by G. So a thread takes a panel of them, as many
   as stay in its cache, computes the panel's next X, and at once what it adds to the next G. This
   is summed for a fixed number of parts of X, whichever threads work on them. So the bits do not
   depend on the number of threads. */

#include "threads.h"
#include "tiles.h"
#include <math.h>

int muon_allowed(void) { return tiles_allowed(); }

enum { STEPS = 5 };
enum { SHARED_SIZE = 1 << 17 }; /* all threads share a matrix from this size on; else one each */
enum { MOST_PARTS = 4, PANEL = 256 };
/* Rows and columns of a product that are computed at a time: a multiple of WIDTH and of DEPTH. */
enum { BLOCK = WIDTH % DEPTH ? 2 * WIDTH : WIDTH };
/* So many k are summed at a time: WIDTH columns stay in the L1 cache. */
enum { CHUNK = 288 * PER_ELEMENT };

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
  size_t m, n; /* rounded up to DEPTH; what is missing is 0 */
  int tall;    /* whether X is u^T */
  int by_gram; /* whether to iterate on G alone */
  size_t parts;
  Factor x_right, gram, gram_right, U, P_right, product, F[2]; /* product is G P */
  float *sums;     /* of each part: G on and above the diagonal, strip after strip */
  double *squares; /* of each part: the sum of the squares of u */
  number *panels;  /* of each thread: a panel of X as a left factor, and of X^T as a right one */
  number *columns; /* of each thread: BLOCK columns of the next X */
} Job;

/* Where the share of thread `me` in so many things begins; it ends where that of me + 1 begins. */
INLINE size_t share(size_t things, size_t me, size_t of) { return things * me / of; }

/* --- factors -------------------------------------------------------------------------------- */

/* Row i of a left factor from k on, and LANES columns of a right one; i is a multiple of LANES. */
INLINE number *left_at(const Factor *f, size_t i, size_t k) { return f->at + i * f->K + k; }
INLINE number *right_at(const Factor *f, size_t i, size_t k) { return f->at + i * f->K + k * LANES; }

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

/* out, in rows BLOCK apart, = some rows of a from i on times some columns of b from j on, or +=. */
static void multiply_chunks(const Factor *a, const Factor *b, size_t i, size_t j, size_t rows,
                            size_t columns, float *out, int more) {
  for (size_t k = 0; k < a->K; k += CHUNK)
    multiply_part(left_at(a, i, k), a->K, right_at(b, j, k), b->K, rows, columns,
                  smaller(CHUNK, a->K - k), out, BLOCK, more || k);
}

/* --- symmetric matrices ---------------------------------------------------------------------- */

/* Only blocks above and on the diagonal are computed. They are in strips: BLOCK columns. */
INLINE size_t count_strips(size_t m) { return (m + BLOCK - 1) / BLOCK; }
INLINE size_t size_of_strips(size_t strips) { return strips * (strips + 1) / 2 * BLOCK * BLOCK; }

/* Whether strip s is one of a thread's. They differ in size: in each round, the thread that had the
   largest one gets the smallest. */
INLINE int is_mine(size_t s, size_t me, size_t of) {
  return s % of == (s / of % 2 ? of - 1 - me : me);
}

/* scale (left right) + b G + a I, as a left and a right factor; one of these may be NULL. Without
   factors it is scale times the sum of the parts of G. */
typedef struct {
  const Factor *left, *right;
  float scale, b, a;
  const Factor *out, *out_right;
} Symmetric;

/* The block at row i and column j, and its mirror image; `block` has the product, or the part of G
   that is the first. */
static void finish(const Job *job, const Symmetric *s, size_t i, size_t j, size_t rows,
                   size_t columns, float *block) {
  if (i == j) /* exactly symmetric: what is not grows in each iteration */
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
  store(s->out, s->out_right, (Source){block, BLOCK, rows, columns, 1}, i, j);
  if (i != j) store(s->out, s->out_right, (Source){block, BLOCK, columns, rows, 0}, j, i);
}

static void symmetric(const Job *job, Symmetric s, int me, int of) {
  const size_t size = size_of_strips(count_strips(job->m));
  float block[BLOCK * BLOCK];
  for (size_t t = 0; t < count_strips(job->m); t++) {
    if (!is_mine(t, (size_t)me, (size_t)of)) continue;
    const size_t j = t * BLOCK, columns = smaller(BLOCK, job->m - j);
    for (size_t i = 0; i <= j; i += BLOCK) {
      const size_t rows = smaller(BLOCK, job->m - i);
      float *sum = job->sums + size_of_strips(t) + i * BLOCK;
      if (s.left) multiply_chunks(s.left, s.right, i, j, rows, columns, block, 0);
      else
        for (size_t p = 1; p < job->parts; p++)
          for (size_t at = 0; at < rows * BLOCK; at++) sum[at] += sum[p * size + at];
      finish(job, &s, i, j, rows, columns, s.left ? block : sum);
    }
  }
}

/* --- X, by panels ---------------------------------------------------------------------------- */

typedef struct {
  Factor left, right_t; /* a panel of X, and of X^T */
} Panel;

static Panel panel_of(const Job *job, int me, size_t width) {
  number *at = job->panels + (size_t)me * 2 * job->m * PANEL;
  return (Panel){{at, width}, {at + job->m * width, width}};
}

/* Store some rows i on of X: column j on of all, column k on of the panel. */
static void store_x(const Job *job, const Panel *panel, Source s, size_t i, size_t j, size_t k) {
  store(&panel->left, &panel->right_t, s, i, k);
  store(NULL, &job->x_right, (Source){s.from, s.stride, s.K, s.size, !s.along}, j, i);
}

/* Move the average of gradients; u, and the sum of its squares. */
static float direction(const Job *job, size_t at, size_t length, float *restrict u) {
  const float *restrict g = job->matrix->gradient + at, momentum = job->step->momentum;
  float *restrict a = job->matrix->average + at, sum = 0;
  const size_t ahead = 4 * job->matrix->columns; /* rows are read in pieces, which CPUs do not expect */
  for (size_t i = 0; i < length; i += 16)
    __builtin_prefetch(g + ahead + i), __builtin_prefetch(a + ahead + i);
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < length; i++) {
    a[i] += (1 - momentum) * (g[i] - a[i]);
    u[i] = g[i] + momentum * (a[i] - g[i]);
    sum += u[i] * u[i];
  }
  return sum;
}

/* A panel of X = u, which is divided by |u| later; the sum of the squares of u. */
static double begin(const Job *job, const Panel *panel, size_t j) {
  const size_t width = panel->left.K, all_rows = job->tall ? width : job->m;
  const size_t row = job->tall ? j : 0, column = job->tall ? 0 : j;
  const size_t rows = job->matrix->rows, columns = job->matrix->columns;
  float piece[DEPTH * PANEL];
  double squares = 0;
  for (size_t r = 0; r < all_rows; r += DEPTH)
    for (size_t c = 0, length; c < (job->tall ? job->m : width); c += length) {
      length = smaller(PANEL, (job->tall ? job->m : width) - c);
      for (size_t i = 0; i < DEPTH; i++) {
        float *u = piece + i * PANEL;
        const size_t y = row + r + i, x = column + c;
        const size_t known = y < rows && x < columns ? smaller(length, columns - x) : 0;
        squares += direction(job, y * columns + x, known, u);
        memset(u + known, 0, (length - known) * sizeof *u);
      }
      if (job->tall) store_x(job, panel, (Source){piece, PANEL, length, DEPTH, 0}, c, j + r, r);
      else store_x(job, panel, (Source){piece, PANEL, DEPTH, length, 1}, r, j + c, c);
    }
  return squares;
}

/* 1 / |u|. */
static float scale_of(const Job *job) {
  double sum = 0;
  for (size_t p = 0; p < job->parts; p++) sum += job->squares[p];
  return (float)(1 / (sum > 1e-14 ? sqrt(sum) : 1e-7));
}

/* block += a X, of which it has some rows from i on and some columns from j on. */
static void add_x(const Job *job, size_t i, size_t j, size_t rows, size_t columns, float a,
                  float *block) {
  for (size_t c = 0; c < columns; c += LANES)
    for (size_t r = 0; r < rows; r += PER_ELEMENT) {
      const elements x = *(const loose_elements *)right_at(&job->x_right, j + c, i + r);
      for (size_t k = 0; k < PER_ELEMENT; k++)
        *(loose *)(block + (r + k) * BLOCK + c) += a * (vec)(!HALF ? x : k ? x & ~0xffff : x << 16);
    }
}

static void transpose_block(const float *block, size_t rows, size_t columns, float *out) {
  for (size_t r = 0; r < rows; r += LANES)
    for (size_t c = 0; c < columns; c += LANES) {
      elements row[LANES];
      UNROLL
      for (size_t l = 0; l < LANES; l++) row[l] = *(const loose_elements *)(block + (r + l) * BLOCK + c);
      transpose(row);
      UNROLL
      for (size_t l = 0; l < LANES; l++) *(loose_elements *)(out + (c + l) * BLOCK + r) = row[l];
    }
}

/* Some weights, from row y and column x on. */
typedef struct {
  size_t y, x, rows, columns;
} Part;

/* Move weights against X; or only fetch them. */
static void move(const Job *job, Part part, const float *x) {
  const float decay = job->step->decay, rate = job->matrix->rate;
  for (size_t r = 0; r < part.rows; r++) {
    float *restrict w = job->matrix->weights + (part.y + r) * job->matrix->columns + part.x;
    if (!x)
      for (size_t c = 0; c < part.columns; c += 16) __builtin_prefetch(w + c, 1);
    else
#pragma omp simd
      for (size_t c = 0; c < part.columns; c++) w[c] = decay * w[c] - rate * x[r * BLOCK + c];
  }
}

/* The weights that belong to a block of X. */
static Part weights_of(const Job *job, size_t i, size_t j, size_t rows, size_t columns) {
  const Part all = job->tall ? (Part){j, i, columns, rows} : (Part){i, j, rows, columns};
  return (Part){all.y, all.x, smaller(all.rows, job->matrix->rows - all.y),
                smaller(all.columns, job->matrix->columns - all.x)};
}

/* X <- a X + U X for some columns from j on, column k on of the panel; or apply this to the
   weights. */
static void advance(const Job *job, const Factor *U, float a, const Panel *panel, size_t j, size_t k,
                    size_t columns, int is_last, number *space) {
  const Factor next = {space, job->m}; /* the old ones are in use until all are known */
  float block[BLOCK * BLOCK], turned[BLOCK * BLOCK];
  for (size_t i = 0, rows; i < job->m; i += rows) {
    rows = smaller(BLOCK, job->m - i);
    const Part weights = weights_of(job, i, j, rows, columns);
    if (is_last) move(job, weights, NULL);
    multiply_chunks(U, &job->x_right, i, j, rows, columns, block, 0);
    if (a != 0) add_x(job, i, j, rows, columns, a, block);
    if (is_last) {
      if (job->tall) transpose_block(block, rows, columns, turned);
      move(job, weights, job->tall ? turned : block);
      continue;
    }
    store(&panel->left, &panel->right_t, (Source){block, BLOCK, rows, columns, 1}, i, k);
    store(NULL, &next, (Source){block, BLOCK, columns, rows, 0}, 0, i);
  }
  if (!is_last) memcpy(right_at(&job->x_right, j, 0), space, job->m * columns * sizeof *space);
}

/* Add the part of G that belongs to a panel to `sums`, or begin with it. */
static void add_gram(const Job *job, const Panel *panel, float *sums, int more) {
  for (size_t i = 0; i < count_strips(job->m); i++) {
    const size_t j = i * BLOCK, columns = smaller(BLOCK, job->m - j);
    float *sum = sums + size_of_strips(i);
    multiply_chunks(&panel->left, &panel->right_t, 0, j, j + columns, columns, sum, more);
  }
}

/* Compute X after `done` iterations, a X + U X, and its G; or apply the last X. */
static void pass(const Job *job, int done, const Factor *U, float a, int me, int of) {
  const size_t parts = done < STEPS ? job->parts : (size_t)of, columns = job->n / DEPTH;
  const size_t end = share(parts, (size_t)me + 1, (size_t)of);
  for (size_t p = share(parts, (size_t)me, (size_t)of); p < end; p++) {
    const size_t from = share(columns, p, parts) * DEPTH, to = share(columns, p + 1, parts) * DEPTH;
    double squares = 0;
    for (size_t j = from, width; j < to; j += width) {
      width = smaller(PANEL, to - j);
      const Panel panel = panel_of(job, me, width);
      if (done == 0) squares += begin(job, &panel, j);
      else
        for (size_t k = 0; k < width; k += BLOCK)
          advance(job, U, a, &panel, j + k, k, smaller(BLOCK, width - k), done == STEPS,
                  job->columns + (size_t)me * job->m * BLOCK);
      if (done < STEPS)
        add_gram(job, &panel, job->sums + p * size_of_strips(count_strips(job->m)), j > from);
    }
    if (done == 0) job->squares[p] = squares;
  }
  barrier(of);
}

/* --- a step --------------------------------------------------------------------------------- */

/* Add up G after `done` iterations; returns the scale of X. */
static float gather(const Job *job, int done, int me, int of) {
  const float scale = done ? 1 : scale_of(job);
  const Symmetric sum = {.scale = scale * scale, .out = &job->gram, .out_right = &job->gram_right};
  symmetric(job, sum, me, of);
  barrier(of);
  return scale;
}

static void iterate(const Job *job, int me, int of) {
  const float a = job->step->a, b = job->step->b, c = job->step->c;
  pass(job, 0, NULL, 0, me, of);
  for (int i = 0; i < STEPS; i++) {
    const float s = gather(job, i, me, of);
    symmetric(job, (Symmetric){&job->gram, &job->gram_right, s * c, s * b, 0, &job->U, NULL}, me, of);
    barrier(of);
    pass(job, i + 1, &job->U, s * a, me, of);
  }
}

static void iterate_by_gram(const Job *job, int me, int of) {
  const float a = job->step->a, b = job->step->b, c = job->step->c;
  const Factor *gram = &job->gram, *gram_right = &job->gram_right, *P = &job->P_right, *F = NULL;
  pass(job, 0, NULL, 0, me, of);
  const float scale = gather(job, 0, me, of);
  for (int i = 0; i < STEPS; i++) {
    const int more = i + 1 < STEPS;
    const Factor *next = &job->F[i % 2];
    symmetric(job, (Symmetric){gram, gram_right, c, b, a, F ? NULL : next, P}, me, of);
    barrier(of);
    if (F) symmetric(job, (Symmetric){F, P, more ? 1 : scale, 0, 0, next, NULL}, me, of);
    if (more) symmetric(job, (Symmetric){gram, P, 1, 0, 0, &job->product, NULL}, me, of);
    barrier(of);
    if (more) symmetric(job, (Symmetric){&job->product, P, 1, 0, 0, gram, gram_right}, me, of);
    if (more) barrier(of);
    F = next;
  }
  pass(job, STEPS, F, 0, me, of);
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
  const int tall = matrix->rows > matrix->columns;
  const size_t m = round_up(tall ? matrix->columns : matrix->rows, DEPTH);
  const size_t n = round_up(tall ? matrix->rows : matrix->columns, DEPTH);
  const size_t parts = matrix->rows * matrix->columns < SHARED_SIZE ? 1 : n < 1024 ? 2 : 4;
  Job job = {.matrix = matrix, .step = step, .m = m, .n = n, .tall = tall, .parts = parts};
  job.by_gram = !HALF && 2 * n > 3 * m;
  *used = 0;
#define FACTOR(size, K) (Factor){take(workspace, used, (size) * (K), sizeof(number)), K}
  job.x_right = FACTOR(n, m), job.gram = FACTOR(m, m), job.gram_right = FACTOR(m, m);
  if (job.by_gram)
    job.P_right = FACTOR(m, m), job.product = FACTOR(m, m), job.F[0] = FACTOR(m, m), job.F[1] = FACTOR(m, m);
  else job.U = FACTOR(m, m);
  job.sums = take(workspace, used, parts * size_of_strips(count_strips(m)), sizeof(float));
  job.squares = take(workspace, used, parts, sizeof(double));
  job.panels = take(workspace, used, (size_t)threads * 2 * m * PANEL, sizeof(number));
  job.columns = take(workspace, used, (size_t)threads * m * BLOCK, sizeof(number));
  return job;
}

/* The first matrices are shared by all threads, each in the whole workspace. */
static size_t count_shared(const Step *step) {
  size_t i = 0;
  while (i < step->count && step->matrices[i].rows * step->matrices[i].columns >= SHARED_SIZE) i++;
  return i;
}

/* The most bytes that a matrix uses, of those from `from` to `to`. */
static size_t most_used(const Step *step, size_t from, size_t to, int threads) {
  size_t most = 0, used;
  for (size_t i = from; i < to; i++) {
    job_of(step, &step->matrices[i], NULL, threads, &used);
    if (used > most) most = used;
  }
  return most;
}

/* The size of the workspace in bytes. */
size_t muon_workspace(int threads, const Step *step) {
  const size_t n_shared = count_shared(step), shared = most_used(step, 0, n_shared, threads);
  const size_t alone = (size_t)threads * most_used(step, n_shared, step->count, 1);
  return shared > alone ? shared : alone;
}

static void update(const Job *job, int me, int of) {
  if (job->by_gram) iterate_by_gram(job, me, of);
  else iterate(job, me, of);
}

static void work(const void *given, int me, int of) {
  const Step *step = given;
  const size_t n_shared = count_shared(step), alone = most_used(step, n_shared, step->count, 1);
  size_t used;
  for (size_t i = 0; i < n_shared; i++) {
    const Job job = job_of(step, &step->matrices[i], step->workspace, of, &used);
    update(&job, me, of);
  }
  for (size_t i = n_shared + (size_t)me; i < step->count; i += (size_t)of) {
    char *own = step->workspace + (size_t)me * alone;
    const Job job = job_of(step, &step->matrices[i], own, 1, &used);
    update(&job, 0, 1);
  }
}

void muon(int threads, const Step *step) { on_threads(threads, tiles_begin, tiles_end, work, step); }
