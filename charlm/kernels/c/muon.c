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
/* The columns of a product that are computed at a time: a multiple of WIDTH and of DEPTH. */
enum { STRIP = WIDTH % DEPTH ? 2 * WIDTH : WIDTH };
/* Factors are stored in chunks of so many k, for which WIDTH columns stay in the L1 cache. */
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
  size_t parts;
  Factor x_right, gram, gram_right, U, P_right, product, F[2]; /* product is G P */
  float *sums;     /* of each part: G on and above the diagonal, strip after strip */
  double *squares; /* of each part: the sum of the squares of u */
  number *panels;  /* of each thread: a panel of X as a left factor, and of X^T as a right one */
  float *strips;   /* of each thread: STRIP columns of a product, and LANES rows of W */
} Job;

/* Where the share of thread `me` in so many things begins; it ends where that of me + 1 begins. */
INLINE size_t share(size_t things, size_t me, size_t of) { return things * me / of; }

/* --- factors -------------------------------------------------------------------------------- */

INLINE size_t length_of_chunk(const Factor *f, size_t k) {
  return smaller(CHUNK, f->K - k / CHUNK * CHUNK);
}

INLINE number *chunk_at(const Factor *f, size_t i, size_t k) {
  return f->at + k / CHUNK * CHUNK * f->size + i * length_of_chunk(f, k);
}

/* Row i from k on. */
INLINE number *left_at(const Factor *f, size_t i, size_t k) { return chunk_at(f, i, k) + k % CHUNK; }

/* LANES columns from i on, a multiple of LANES, from k on. */
INLINE number *right_at(const Factor *f, size_t i, size_t k) {
  return chunk_at(f, i, k) + k % CHUNK * LANES;
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
                    is_left ? length_of_chunk(f, k + c) : DEPTH);
      }
    }
}

/* out, in rows STRIP apart, = the first rows of a times the columns of b from j on. */
static void multiply_strip(const Factor *a, const Factor *b, size_t j, size_t rows, size_t columns,
                           float *out, int more) {
  for (size_t k = 0; k < a->K; k += CHUNK) {
    const size_t K = length_of_chunk(a, k);
    multiply(left_at(a, 0, k), K, right_at(b, j, k), rows, columns, K, out, STRIP, more || k);
  }
}

/* --- symmetric matrices, by strips of the rows above and on the diagonal ---------------------- */

INLINE size_t count_strips(size_t m) { return (m + STRIP - 1) / STRIP; }
INLINE size_t size_of_strips(size_t strips) { return strips * (strips + 1) / 2 * STRIP * STRIP; }

/* Whether strip s is one of a thread's. They differ in size: in each round, the thread that had the
   largest one gets the smallest. */
INLINE int is_mine(size_t s, size_t me, size_t of) {
  return s % of == (s / of % 2 ? of - 1 - me : me);
}

/* scale (left right) + b G + a I, as a left and a right factor; one of these may be NULL. Without
   factors it is the sum of the parts of G. */
typedef struct {
  const Factor *left, *right;
  float scale, b, a;
  const Factor *out, *out_right;
} Symmetric;

static void finish(const Job *job, const Symmetric *s, size_t j, size_t rows, size_t columns,
                   float *strip) {
  float *const diagonal = strip + j * STRIP;
  for (size_t r = 0; r < columns; r++) /* exactly symmetric: what is not grows in each iteration */
    for (size_t c = 0; c < r; c++) diagonal[r * STRIP + c] = diagonal[c * STRIP + r];
  for (size_t r = 0; r < rows; r++) {
    float *row = strip + r * STRIP;
    const number *g = left_at(&job->gram, r, j);
    if (s->b != 0) {
#pragma omp simd
      for (size_t c = 0; c < columns; c++) row[c] = s->scale * row[c] + s->b * from_number(g[c]);
    } else if (s->scale != 1) {
      for (size_t c = 0; c < columns; c++) row[c] *= s->scale;
    }
    if (r >= j) row[r - j] += s->a;
  }
  const Source own = {strip, STRIP, rows, columns, 1}, mirror = {strip, STRIP, columns, j, 0};
  store(s->out, s->out_right, own, 0, j);
  store(s->out, s->out_right, mirror, j, 0);
}

/* A strip of G, the sum of all parts, in place of the first. */
static float *add_parts(const Job *job, size_t strip, size_t length) {
  const size_t size = size_of_strips(count_strips(job->m));
  float *sum = job->sums + size_of_strips(strip), *part = sum;
  for (size_t p = 1; p < job->parts; p++) {
    part += size;
    for (size_t i = 0; i < length; i++) sum[i] += part[i];
  }
  return sum;
}

static float *strip_of(const Job *job, int me) {
  return job->strips + (size_t)me * job->m * (STRIP + LANES);
}

static void symmetric(const Job *job, Symmetric s, int me, int of) {
  for (size_t i = 0; i < count_strips(job->m); i++) {
    if (!is_mine(i, (size_t)me, (size_t)of)) continue;
    const size_t j = i * STRIP, columns = smaller(STRIP, job->m - j), rows = j + columns;
    float *strip = s.left ? strip_of(job, me) : add_parts(job, i, rows * STRIP);
    if (s.left) multiply_strip(s.left, s.right, j, rows, columns, strip, 0);
    finish(job, &s, j, rows, columns, strip);
  }
}

/* --- X, by panels ---------------------------------------------------------------------------- */

typedef struct {
  Factor left, right_t; /* a panel of X, and of X^T */
} Panel;

static Panel panel_of(const Job *job, int me, size_t width) {
  number *at = job->panels + (size_t)me * 2 * job->m * PANEL;
  return (Panel){{at, job->m, width}, {at + job->m * width, job->m, width}};
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

/* x += a X, for some columns of X from j on. */
static void add_x(const Job *job, size_t j, size_t columns, float a, float *x) {
  for (size_t i = 0; i < job->m; i += PER_ELEMENT)
    for (size_t c = 0; c < columns; c += LANES) {
      const elements both = *(const loose_elements *)right_at(&job->x_right, j + c, i);
      for (size_t k = 0; k < PER_ELEMENT; k++)
        *(loose *)(x + (i + k) * STRIP + c) += a * (vec)(!HALF ? both : k ? both & ~0xffff : both << 16);
    }
}

/* Move `length` weights against X. */
INLINE void move(const Job *job, size_t at, size_t length, const float *x) {
  float *w = job->matrix->weights + at;
  const float decay = job->step->decay, rate = job->matrix->rate;
#pragma omp simd
  for (size_t i = 0; i < length; i++) w[i] = decay * w[i] - rate * x[i];
}

/* Apply some columns of X from j on, in rows STRIP apart, to the weights. */
static void apply(const Job *job, const float *x, size_t j, size_t width, float *row_of_w) {
  const size_t rows = job->matrix->rows, columns = job->matrix->columns;
  if (!job->tall) {
    width = smaller(width, columns - j);
    for (size_t i = 0; i < rows; i++) move(job, i * columns + j, width, x + i * STRIP);
    return;
  }
  for (size_t c = 0; c < width; c += LANES) {
    for (size_t i = 0; i < job->m; i += LANES) {
      elements row[LANES];
      UNROLL
      for (size_t r = 0; r < LANES; r++) row[r] = *(const loose_elements *)(x + (i + r) * STRIP + c);
      transpose(row);
      UNROLL
      for (size_t r = 0; r < LANES; r++) *(loose_elements *)(row_of_w + r * job->m + i) = row[r];
    }
    for (size_t r = 0; r < LANES && j + c + r < rows; r++)
      move(job, (j + c + r) * columns, columns, row_of_w + r * job->m);
  }
}

/* X <- a X + U X for a panel; or apply this to the weights. */
static void advance(const Job *job, const Factor *U, float a, const Panel *panel, size_t j,
                    int is_last, float *strip) {
  for (size_t k = 0; k < panel->left.K; k += STRIP) {
    const size_t columns = smaller(STRIP, panel->left.K - k);
    multiply_strip(U, &job->x_right, j + k, job->m, columns, strip, 0);
    if (a != 0) add_x(job, j + k, columns, a, strip);
    if (is_last) apply(job, strip, j + k, columns, strip + job->m * STRIP);
    else store_x(job, panel, (Source){strip, STRIP, job->m, columns, 1}, 0, j + k, k);
  }
}

/* Add the part of G that belongs to a panel to `sums`, or begin with it. */
static void add_gram(const Job *job, const Panel *panel, float *sums, int more) {
  for (size_t i = 0; i < count_strips(job->m); i++) {
    const size_t j = i * STRIP, columns = smaller(STRIP, job->m - j);
    float *sum = sums + size_of_strips(i);
    multiply_strip(&panel->left, &panel->right_t, j, j + columns, columns, sum, more);
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
      else advance(job, U, a, &panel, j, done == STEPS, strip_of(job, me));
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
#define FACTOR(size, K) (Factor){take(workspace, used, (size) * (K), sizeof(number)), size, K}
  job.x_right = FACTOR(n, m), job.gram = FACTOR(m, m), job.gram_right = FACTOR(m, m);
  if (job.by_gram)
    job.P_right = FACTOR(m, m), job.product = FACTOR(m, m), job.F[0] = FACTOR(m, m), job.F[1] = FACTOR(m, m);
  else job.U = FACTOR(m, m);
  job.sums = take(workspace, used, parts * size_of_strips(count_strips(m)), sizeof(float));
  job.squares = take(workspace, used, parts, sizeof(double));
  job.panels = take(workspace, used, (size_t)threads * 2 * m * PANEL, sizeof(number));
  job.strips = take(workspace, used, (size_t)threads * m * (STRIP + LANES), sizeof(float));
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
