/* A step of Muon (Jordan et al. 2024): momentum, and Newton-Schulz iterations that make the update
   nearly orthogonal.

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

   G, P and their products are polynomials of the first G, so they are symmetric. Only the upper
   triangle is computed; the lower one is a copy.

   Given G, the columns of X are independent. A thread takes a panel of columns that fits in its
   cache, computes the panel's next X, and adds its part of the next G. The parts of G are summed
   for a fixed number of parts of X, so the bits do not depend on the number of threads. */

#include "muon.h"

int muon_allowed(void) { return tiles_allowed(); }

/* --- weights and gradients ------------------------------------------------------------------ */

/* `rows` rows and `columns` columns of W, from row y and column x on. */
typedef struct {
  size_t y, x, rows, columns;
} Part;

/* The part of W for `rows` rows of X from i on and `columns` columns from j on. */
static Part part_of(const Job *job, size_t i, size_t j, size_t rows, size_t columns) {
  const Part all = job->tall ? (Part){j, i, columns, rows} : (Part){i, j, rows, columns};
  return (Part){all.y, all.x, smaller(all.rows, job->matrix->rows - all.y),
                smaller(all.columns, job->matrix->columns - all.x)};
}

/* Update the average of gradients and compute u; return the sum of its squares. */
static float direction(const Job *job, size_t at, size_t length, float *restrict u) {
  const float *restrict g = job->matrix->gradient + at, momentum = job->step->momentum;
  float *restrict a = job->matrix->average + at, sum = 0;
  const size_t ahead = 4 * job->matrix->columns; /* pieces of rows are fetched early */
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

/* W <- decay W - rate X for a part; the rows of x are BLOCK apart. */
static void move(const Job *job, Part part, const float *x) {
  const float decay = job->step->decay, rate = job->matrix->rate;
  float *w = job->matrix->weights + part.y * job->matrix->columns + part.x;
  for (size_t r = 0; r < part.rows; r++, w += job->matrix->columns, x += BLOCK)
#pragma omp simd
    for (size_t c = 0; c < part.columns; c++) w[c] = decay * w[c] - rate * x[c];
}

static void fetch(const Job *job, Part part) {
  const float *w = job->matrix->weights + part.y * job->matrix->columns + part.x;
  for (size_t r = 0; r < part.rows; r++, w += job->matrix->columns)
    for (size_t c = 0; c < part.columns; c += 16) __builtin_prefetch(w + c, 1);
}

/* --- X, by panels --------------------------------------------------------------------------- */

typedef struct {
  size_t from, width;   /* its columns */
  Factor left, right_t; /* the panel, and its transpose */
  Factor next;          /* BLOCK columns of the next X, right */
} Panel;

static size_t size_of_panel(size_t m) { return m * (2 * PANEL + BLOCK); }

static Panel panel_of(const Job *job, int thread, size_t from, size_t width) {
  const size_t m = job->m;
  number *at = job->panels + (size_t)thread * size_of_panel(m);
  return (Panel){from, width, {at, width}, {at + m * PANEL, width}, {at + 2 * m * PANEL, m}};
}

/* Set a panel of X to u, which is divided by |u| later; return the sum of the squares. */
static double begin(const Job *job, const Panel *panel) {
  const Part part = part_of(job, 0, panel->from, job->m, panel->width);
  float piece[DEPTH * PANEL];
  double squares = 0;
  for (size_t r = 0; r < part.rows; r += DEPTH)
    for (size_t c = 0; c < part.columns; c += PANEL) {
      const size_t length = smaller(PANEL, part.columns - c), padded = round_up(length, DEPTH);
      for (size_t i = 0; i < DEPTH; i++) {
        float *u = piece + i * PANEL;
        const size_t at = (part.y + r + i) * job->matrix->columns + part.x + c;
        const size_t known = r + i < part.rows ? length : 0;
        squares += direction(job, at, known, u);
        memset(u + known, 0, (padded - known) * sizeof *u);
      }
      const Source rows = {piece, PANEL, DEPTH, padded, 1, NULL};
      const Source columns = {piece, PANEL, padded, DEPTH, 0, NULL};
      store(&panel->left, &panel->right_t, job->tall ? columns : rows, job->tall ? c : r,
            job->tall ? r : c);
      store(NULL, &job->x_right, job->tall ? rows : columns, panel->from + (job->tall ? r : c),
            job->tall ? c : r);
    }
  return squares;
}

/* 1 / |u|. */
static float scale_of(const Job *job) {
  double sum = 0;
  for (size_t p = 0; p < job->parts; p++) sum += job->squares[p];
  return (float)(1 / (sum > 1e-14 ? sqrt(sum) : 1e-7));
}

/* block += a X, for `rows` rows of X from i on and `columns` columns from j on. */
static void add_x(const Job *job, size_t i, size_t j, size_t rows, size_t columns, float a,
                  float *block) {
  for (size_t c = 0; c < columns; c += LANES)
    for (size_t r = 0; r < rows; r += PER_ELEMENT) {
      const elements x = *(const loose_elements *)right_at(&job->x_right, j + c, i + r);
      float *to = block + r * BLOCK + c;
      for (size_t k = 0; k < PER_ELEMENT; k++, to += BLOCK)
        *(loose *)to += a * (vec)(!HALF ? x : k ? x & ~0xffff : x << 16);
    }
}

static void transpose_block(const float *block, size_t rows, size_t columns, float *out) {
  for (size_t r = 0; r < rows; r += LANES)
    for (size_t c = 0; c < columns; c += LANES) {
      const float *from = block + r * BLOCK + c;
      float *to = out + c * BLOCK + r;
      elements row[LANES];
      UNROLL
      for (size_t l = 0; l < LANES; l++) row[l] = *(const loose_elements *)(from + l * BLOCK);
      transpose(row);
      UNROLL
      for (size_t l = 0; l < LANES; l++) *(loose_elements *)(to + l * BLOCK) = row[l];
    }
}

/* X <- a X + U X for a panel. In the last iteration, update the weights instead. */
static void advance(const Job *job, const Factor *U, float a, const Panel *panel, int is_last) {
  float block[BLOCK * BLOCK], transposed[BLOCK * BLOCK];
  for (size_t k = 0; k < panel->width; k += BLOCK) {
    const size_t columns = smaller(BLOCK, panel->width - k), j = panel->from + k;
    for (size_t i = 0; i < job->m; i += BLOCK) {
      const size_t rows = smaller(BLOCK, job->m - i);
      const Part weights = part_of(job, i, j, rows, columns);
      if (is_last) fetch(job, weights);
      multiply_factors(U, &job->x_right, i, j, rows, columns, block, 0);
      if (a != 0) add_x(job, i, j, rows, columns, a, block);
      if (is_last) {
        if (job->tall) transpose_block(block, rows, columns, transposed);
        move(job, weights, job->tall ? transposed : block);
      } else {
        store(&panel->left, &panel->right_t, (Source){block, BLOCK, rows, columns, 1, NULL}, i, k);
        store(NULL, &panel->next, (Source){block, BLOCK, columns, rows, 0, NULL}, 0, i);
      }
    }
    if (!is_last) /* not earlier: all rows of the product read these columns */
      memcpy(right_at(&job->x_right, j, 0), panel->next.at, job->m * columns * sizeof(number));
  }
}

/* sums = the panel's part of G, or += with `add`. */
static void add_gram(const Job *job, const Panel *panel, float *sums, int add) {
  for (size_t t = 0; t < count_strips(job->m); t++) {
    const size_t j = t * BLOCK, columns = smaller(BLOCK, job->m - j);
    multiply_factors(&panel->left, &panel->right_t, 0, j, j + columns, columns,
                     sums + size_of_strips(t), add);
  }
}

/* Compute X after `done` iterations, a X + U X, and its G. After the last one, update the weights.
   */
static void pass(const Job *job, int done, const Factor *U, float a, int thread, int threads) {
  const size_t parts = done < STEPS ? job->parts : (size_t)threads;
  size_t first, end;
  partition(parts, 1, thread, threads, &first, &end);
  for (size_t p = first; p < end; p++) {
    size_t from, to;
    partition(job->n, DEPTH, (int)p, (int)parts, &from, &to);
    float *sums = job->sums + p * size_of_strips(count_strips(job->m));
    double squares = 0;
    for (size_t j = from; j < to; j += PANEL) {
      const Panel panel = panel_of(job, thread, j, smaller(PANEL, to - j));
      if (done == 0) squares += begin(job, &panel);
      else advance(job, U, a, &panel, done == STEPS);
      if (done < STEPS) add_gram(job, &panel, sums, j > from);
    }
    if (done == 0) job->squares[p] = squares;
  }
  barrier(threads);
}

/* --- a step --------------------------------------------------------------------------------- */

/* Sum the parts of G after `done` iterations; return the scale of X. */
static float gather(const Job *job, int done, int thread, int threads) {
  const float scale = done ? 1 : scale_of(job);
  const Symmetric sum = {.scale = scale * scale, .out = &job->gram, .out_right = &job->gram_right};
  symmetric(job, sum, thread, threads);
  barrier(threads);
  return scale;
}

static void iterate(const Job *job, int thread, int threads) {
  const float a = job->step->a, b = job->step->b, c = job->step->c;
  const Factor *gram = &job->gram, *gram_right = &job->gram_right, *U = &job->U;
  pass(job, 0, NULL, 0, thread, threads);
  for (int i = 0; i < STEPS; i++) {
    const float s = gather(job, i, thread, threads);
    symmetric(job, (Symmetric){gram, gram_right, s * c, s * b, 0, U, NULL}, thread, threads);
    barrier(threads);
    pass(job, i + 1, U, s * a, thread, threads);
  }
}

static void iterate_by_gram(const Job *job, int thread, int threads) {
  const float a = job->step->a, b = job->step->b, c = job->step->c;
  const Factor *gram = &job->gram, *gram_right = &job->gram_right, *P = &job->P_right, *F = NULL;
  pass(job, 0, NULL, 0, thread, threads);
  const float scale = gather(job, 0, thread, threads);
  for (int i = 0; i < STEPS; i++) {
    const int more = i + 1 < STEPS;
    const Factor *next = &job->F[i % 2];
    symmetric(job, (Symmetric){gram, gram_right, c, b, a, F ? NULL : next, P}, thread, threads);
    barrier(threads);
    if (F) symmetric(job, (Symmetric){F, P, more ? 1 : scale, 0, 0, next, NULL}, thread, threads);
    if (more) symmetric(job, (Symmetric){gram, P, 1, 0, 0, &job->GP, NULL}, thread, threads);
    barrier(threads);
    if (more) symmetric(job, (Symmetric){&job->GP, P, 1, 0, 0, gram, gram_right}, thread, threads);
    if (more) barrier(threads);
    F = next;
  }
  pass(job, STEPS, F, 0, thread, threads);
}

/* Allocate `count` items of `size` bytes in a workspace, in whole cache lines; `*used` grows. */
static void *take(char *workspace, size_t *used, size_t count, size_t size) {
  const size_t from = *used;
  *used += round_up(count * size, 64);
  return workspace ? workspace + from : NULL;
}

/* Return the job of a matrix; `*used` gets the bytes of the workspace that it uses. */
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
  if (job.by_gram) {
    job.P_right = FACTOR(m, m), job.GP = FACTOR(m, m);
    job.F[0] = FACTOR(m, m), job.F[1] = FACTOR(m, m);
  } else {
    job.U = FACTOR(m, m);
  }
  job.sums = take(workspace, used, parts * size_of_strips(count_strips(m)), sizeof(float));
  job.squares = take(workspace, used, parts, sizeof(double));
  job.panels = take(workspace, used, (size_t)threads * size_of_panel(m), sizeof(number));
  return job;
}

static size_t size_of(const Step *step, size_t i) {
  return step->matrices[i].rows * step->matrices[i].columns;
}

/* Return whether all threads share a matrix, in the whole workspace. Small matrices have one thread
   each, and so have large ones if there are enough of the same size. */
static int is_shared(const Step *step, size_t i, size_t threads) {
  const size_t size = size_of(step, i);
  size_t first = i, end = i;
  while (first > 0 && size_of(step, first - 1) == size) first--;
  while (end < step->count && size_of(step, end) == size) end++;
  return size >= SHARED_SIZE && i >= end - (end - first) % threads;
}

/* Return the size of the workspace in bytes; `*alone` gets the size of the part of one thread. */
static size_t measure(const Step *step, size_t threads, size_t *alone) {
  size_t shared = 0, used;
  *alone = 0;
  for (size_t i = 0; i < step->count; i++) {
    const int together = is_shared(step, i, threads);
    size_t *const most = together ? &shared : alone;
    job_of(step, &step->matrices[i], NULL, together ? (int)threads : 1, &used);
    if (used > *most) *most = used;
  }
  return shared > threads * *alone ? shared : threads * *alone;
}

/* Return the size of the workspace in bytes. */
size_t muon_workspace(int threads, const Step *step) {
  size_t alone;
  return measure(step, (size_t)threads, &alone);
}

static void update(const Job *job, int thread, int threads) {
  if (job->by_gram) iterate_by_gram(job, thread, threads);
  else iterate(job, thread, threads);
}

static void work(const void *given, int thread, int threads) {
  const Step *step = given;
  size_t alone, used, turn = 0;
  measure(step, (size_t)threads, &alone);
  for (size_t i = 0; i < step->count; i++) {
    if (!is_shared(step, i, (size_t)threads)) continue;
    const Job job = job_of(step, &step->matrices[i], step->workspace, threads, &used);
    update(&job, thread, threads);
  }
  for (size_t i = 0; i < step->count; i++) {
    if (is_shared(step, i, (size_t)threads) || turn++ % (size_t)threads != (size_t)thread) continue;
    char *own = step->workspace + (size_t)thread * alone;
    const Job job = job_of(step, &step->matrices[i], own, 1, &used);
    update(&job, 0, 1);
  }
}

void muon(int threads, const Step *step) {
  on_threads(threads, tiles_begin, tiles_end, work, step);
}
