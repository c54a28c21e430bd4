/* A step of Muon (Jordan et al. 2024): momentum, and the nearly orthogonal factor of what comes of
   it by Newton-Schulz iterations, for x86-64 with AMX and AVX-512 BF16.

   W is a matrix of weights, g its gradient, both (rows, columns), multiples of 32, in float32.

       a <- a + (1 - mu) (g - a)      the average of gradients
       u = g + mu (a - g)             Nesterov's
       X = u / |u|                    (m, n), or u^T / |u|, so that m <= n; in bfloat16
       five times:
         G = X X^T                    (m, m)
         U = b G + c G G              (m, m)
         X <- a X + U X               (m, n)
       W <- decay W - rate X          or X^T

   Products are summed in float32, and G, U and X rounded to bfloat16 each, as PyTorch does it.
   G and U are symmetric: what lies below the diagonal is a copy.

   The columns of X know nothing of each other but by G. So each thread has its own for good, in its
   cache, and goes through them a panel at a time: the panel's next X, and at once what it adds to
   the next G. Threads only meet to sum G and to compute U. */

#include "amx_old.h"
#include <math.h>

int newton_schulz_allowed(void) { return amx_allowed(); }

enum { STEPS = 5 };
enum { PANEL = 8 * BLOCK }; /* columns; more do not stay in the cache, fewer make short sums */

/* What a step moves, and by what; squares is space for sums over 16 rows of u each. */
typedef struct {
  size_t rows, columns;
  const float *gradient;
  float *average, *weights;
  double *squares;
  float rate;
} Matrix;

typedef struct {
  size_t rows, columns, m, n; /* m and n are the smaller and the larger of the other two */
  const float *gradient;
  float *average, *weights;
  float momentum, decay, rate, a, b, c;
  double *squares;
  bf16 *x;         /* (m, n) in tiles of 32 rows by 16 columns: the right of a product */
  /* (m, m) in tiles of 16 rows by 32 columns: the left of a product; and those tiles transposed,
     pairs of columns as pairs of rows: the right of a product, of what is symmetric. */
  bf16 *gram, *gram_transposed, *update;
  /* Of each thread: the sum of its panels' G, the blocks on and above the diagonal one after the
     other; a panel (m, PANEL) in tiles, and those transposed; 32 columns of x. */
  float *sums;
  bf16 *panel, *panel_transposed, *columns_of_x;
} Job;

/* --- a block of 32 by 32 numbers, to and from tiles ----------------------------------------- */

#define ALIGNED __attribute__((aligned(64)))

static void transpose_block(float *block) {
  __m512i quarter[4][TILE];
  for (size_t q = 0; q < 4; q++) {
    const float *from = block + q / 2 * TILE * BLOCK + q % 2 * TILE;
    for (size_t i = 0; i < TILE; i++) quarter[q][i] = _mm512_load_si512(from + i * BLOCK);
    transpose(quarter[q]);
  }
  for (size_t q = 0; q < 4; q++) {
    float *to = block + q % 2 * TILE * BLOCK + q / 2 * TILE;
    for (size_t i = 0; i < TILE; i++) _mm512_store_si512(to + i * BLOCK, quarter[q][i]);
  }
}

/* The block at row i and column j to the tiles of a matrix whose rows have `length` numbers. */
static inline void put(const __m512i row[BLOCK], bf16 *tiles, size_t i, size_t j, size_t length) {
  for (size_t r = 0; r < BLOCK; r++) {
    bf16 *tile = tiles + (i + r / TILE * TILE) * length + j * TILE;
    _mm512_storeu_si512(tile + r % TILE * DEPTH, row[r]);
  }
}

/* The same to the tiles that hold each transposed; `row` is not what it was afterwards. */
static inline void put_transposed(__m512i row[BLOCK], bf16 *tiles, size_t i, size_t j,
                                  size_t length) {
  transpose(row), transpose(row + TILE);
  put(row, tiles, i, j, length);
}

/* The same to tiles of 32 rows by 16 columns, the second m rows on. */
static inline void put_right(const __m512i row[BLOCK], bf16 *tiles, size_t m) {
  for (int half = 0; half < 2; half++)
    for (size_t r = 0; r < TILE; r++) {
      bf16 *to = tiles + half * TILE * m + r * DEPTH;
      _mm512_storeu_si512(to, pairs_of(row[2 * r], row[2 * r + 1], half));
    }
}

/* block += scale x, of such tiles. */
static inline void add_right(const bf16 *tiles, size_t m, float scale, float *block) {
  const __m512i high = _mm512_set1_epi32((int)0xffff0000);
  for (size_t half = 0; half < 2; half++)
    for (size_t r = 0; r < TILE; r++) {
      const __m512i pairs = _mm512_loadu_si512(tiles + half * TILE * m + r * DEPTH);
      const __m512i rows[] = {_mm512_slli_epi32(pairs, 16), _mm512_and_si512(pairs, high)};
      for (size_t i = 0; i < 2; i++) {
        float *at = block + (2 * r + i) * BLOCK + half * TILE;
        __m512 x = _mm512_castsi512_ps(rows[i]), sum = _mm512_load_ps(at);
        _mm512_store_ps(at, _mm512_fmadd_ps(_mm512_set1_ps(scale), x, sum));
      }
    }
}

/* --- G and U -------------------------------------------------------------------------------- */

static inline size_t size_of_sums(size_t m) { return m * (m + BLOCK) / 2; }

/* What a panel of a thread adds to its sum, or begins it with. */
static void gram_of(const Job *job, int me, size_t width, int more) {
  const size_t m = job->m;
  const bf16 *left = job->panel + me * m * PANEL, *right = job->panel_transposed + me * m * PANEL;
  float *sum = job->sums + me * size_of_sums(m);
  for (size_t i = 0; i < m; i += BLOCK)
    for (size_t j = i; j < m; j += BLOCK, sum += BLOCK * BLOCK) {
      const bf16 *const a[] = {left + i * width, left + (i + TILE) * width};
      const bf16 *const b[] = {right + j * width, right + (j + TILE) * width};
      multiply_block(a, b, width / DEPTH, sum, BLOCK, more);
    }
}

/* A block and its mirror image to the tiles of a symmetric matrix, and to those transposed. */
static void put_symmetric(float *block, size_t i, size_t j, size_t m, bf16 *out,
                          bf16 *out_transposed) {
  __m512i row[BLOCK];
  for (int mirror = 0; mirror <= (i != j); mirror++) {
    if (mirror) transpose_block(block);
    narrow(block, BLOCK, row);
    put(row, out, mirror ? j : i, mirror ? i : j, m);
    if (out_transposed) put_transposed(row, out_transposed, mirror ? j : i, mirror ? i : j, m);
  }
}

/* G, the sum of all threads' sums; each thread takes a share of the blocks. */
static void gather(const Job *job, int me, int of) {
  const size_t m = job->m, size = BLOCK * BLOCK;
  float block[BLOCK * BLOCK] ALIGNED;
  size_t turn = 0;
  for (size_t i = 0; i < m; i += BLOCK)
    for (size_t j = i; j < m; j += BLOCK, turn++) {
      if (turn % of != (size_t)me) continue;
      memcpy(block, job->sums + turn * size, sizeof block);
      for (int other = 1; other < of; other++) {
        const float *more = job->sums + other * size_of_sums(m) + turn * size;
        for (size_t at = 0; at < size; at++) block[at] += more[at];
      }
      put_symmetric(block, i, j, m, job->gram, job->gram_transposed);
    }
}

/* U = b G + c G G, likewise. */
static void polynomial(const Job *job, int me, int of) {
  const size_t m = job->m;
  float block[BLOCK * BLOCK] ALIGNED;
  size_t turn = 0;
  for (size_t i = 0; i < m; i += BLOCK)
    for (size_t j = i; j < m; j += BLOCK, turn++) {
      if (turn % of != (size_t)me) continue;
      const bf16 *const a[] = {job->gram + i * m, job->gram + (i + TILE) * m};
      const bf16 *const b[] = {job->gram_transposed + j * m, job->gram_transposed + (j + TILE) * m};
      multiply_block(a, b, m / DEPTH, block, BLOCK, 0);
      for (size_t at = 0; at < BLOCK * BLOCK; at += TILE) {
        const size_t row = at / BLOCK, tile = (i + row / TILE * TILE) * m + j * TILE;
        __m512 g = from_bf16(job->gram + tile + row % TILE * DEPTH + at % BLOCK);
        __m512 squared = _mm512_mul_ps(_mm512_set1_ps(job->c), _mm512_load_ps(block + at));
        _mm512_store_ps(block + at, _mm512_fmadd_ps(_mm512_set1_ps(job->b), g, squared));
      }
      put_symmetric(block, i, j, m, job->update, NULL);
    }
}

/* --- X -------------------------------------------------------------------------------------- */

static inline __m512 update_of(const Job *job, size_t at) {
  __m512 g = _mm512_loadu_ps(job->gradient + at), a = _mm512_loadu_ps(job->average + at);
  return _mm512_fmadd_ps(_mm512_set1_ps(job->momentum), _mm512_sub_ps(a, g), g);
}

/* The average of gradients, 16 rows after the other, and the squares of what comes of it. */
static void average(const Job *job, int me, int of) {
  const size_t length = TILE * job->columns;
  const __m512 weight = _mm512_set1_ps(1 - job->momentum);
  for (size_t block = me; block < job->rows / TILE; block += of) {
    __m512 sum = _mm512_setzero_ps();
    for (size_t at = block * length; at < (block + 1) * length; at += TILE) {
      __m512 g = _mm512_loadu_ps(job->gradient + at), a = _mm512_loadu_ps(job->average + at);
      _mm512_storeu_ps(job->average + at, _mm512_fmadd_ps(weight, _mm512_sub_ps(g, a), a));
      __m512 u = update_of(job, at);
      sum = _mm512_fmadd_ps(u, u, sum);
    }
    job->squares[block] = _mm512_reduce_add_ps(sum);
  }
}

static float scale_of(const Job *job) {
  double sum = 0; /* by every thread in the same order */
  for (size_t block = 0; block < job->rows / TILE; block++) sum += job->squares[block];
  return (float)(1 / (sum > 1e-14 ? sqrt(sum) : 1e-7));
}

/* The block of X at row i and column j from u. */
static void begin(const Job *job, float scale, size_t i, size_t j, float *block) {
  const int tall = job->rows > job->columns;
  const size_t from = tall ? j * job->columns + i : i * job->columns + j;
  for (size_t at = 0; at < BLOCK * BLOCK; at += TILE) {
    __m512 u = update_of(job, from + at / BLOCK * job->columns + at % BLOCK);
    _mm512_store_ps(block + at, _mm512_mul_ps(_mm512_set1_ps(scale), u));
  }
  if (tall) transpose_block(block);
}

/* The block of a X + U X. */
static void advance(const Job *job, size_t i, size_t j, float *block) {
  const size_t m = job->m;
  const bf16 *const a[] = {job->update + i * m, job->update + (i + TILE) * m};
  const bf16 *const b[] = {job->x + j * m, job->x + (j + TILE) * m};
  multiply_block(a, b, m / DEPTH, block, BLOCK, 0);
  add_right(job->x + j * m + i * TILE, m, job->a, block);
}

/* The weights with a block of X, rounded to bfloat16 as all X are. */
static void apply(const Job *job, size_t i, size_t j, float *block) {
  const int tall = job->rows > job->columns;
  const size_t to = tall ? j * job->columns + i : i * job->columns + j;
  if (tall) transpose_block(block);
  for (size_t at = 0; at < BLOCK * BLOCK; at += TILE) {
    float *w = job->weights + to + at / BLOCK * job->columns + at % BLOCK;
    bf16 x[TILE];
    to_bf16(x, _mm512_load_ps(block + at));
    __m512 kept = _mm512_mul_ps(_mm512_set1_ps(job->decay), _mm512_loadu_ps(w));
    _mm512_storeu_ps(w, _mm512_fnmadd_ps(_mm512_set1_ps(job->rate), from_bf16(x), kept));
  }
}

/* Compute a thread's columns of X after `done` steps, and add them to its tiles and its sums. After
   the last step, apply them to the weights instead. */
static void pass(const Job *job, int me, int of, int done) {
  const size_t m = job->m, blocks = job->n / BLOCK;
  const size_t from = blocks * me / of * BLOCK, to = blocks * (me + 1) / of * BLOCK;
  const float scale = done ? 0 : scale_of(job);
  bf16 *panel = job->panel + me * m * PANEL, *transposed = job->panel_transposed + me * m * PANEL;
  bf16 *ready = job->columns_of_x + me * m * BLOCK;
  float block[BLOCK * BLOCK] ALIGNED;
  __m512i row[BLOCK];
  if (from == to) memset(job->sums + me * size_of_sums(m), 0, size_of_sums(m) * sizeof(float));
  for (size_t first = from; first < to; first += PANEL) {
    const size_t width = to - first < PANEL ? to - first : PANEL;
    for (size_t j = first; j < first + width; j += BLOCK) {
      for (size_t i = 0; i < m; i += BLOCK) {
        if (done == 0) begin(job, scale, i, j, block);
        else advance(job, i, j, block);
        if (done == STEPS) { apply(job, i, j, block); continue; }
        narrow(block, BLOCK, row);
        put_right(row, ready + i * TILE, m); /* x itself is still needed for the rows below */
        put(row, panel, i, j - first, width);
        put_transposed(row, transposed, i, j - first, width);
      }
      if (done < STEPS) memcpy(job->x + j * m, ready, m * BLOCK * sizeof(bf16));
    }
    if (done < STEPS) gram_of(job, me, width, first > from);
  }
}

/* One matrix by all threads, or one of several matrices by one thread. */
static void step(const Job *job, int me, int of) {
  average(job, me, of);
  barrier(of);
  for (int i = 0; i < STEPS; i++) {
    pass(job, me, of, i);
    barrier(of);
    gather(job, me, of);
    barrier(of);
    polynomial(job, me, of);
    barrier(of);
  }
  pass(job, me, of, STEPS);
}

/* The size in bytes of the workspace for a matrix (m, n) and this number of threads. */
size_t newton_schulz_room(size_t threads, size_t m, size_t n) {
  const size_t own = m * (2 * PANEL + BLOCK) * sizeof(bf16) + size_of_sums(m) * sizeof(float);
  return (m * n + 3 * m * m) * sizeof(bf16) + threads * own;
}

static Job laid_out(const Matrix *matrix, const float *factors, size_t threads, void *room) {
  Job job = {.rows = matrix->rows, .columns = matrix->columns, .squares = matrix->squares,
             .gradient = matrix->gradient, .average = matrix->average, .weights = matrix->weights,
             .rate = matrix->rate, .a = factors[0], .b = factors[1], .c = factors[2],
             .momentum = factors[3], .decay = factors[4]};
  const int tall = job.rows > job.columns;
  const size_t m = tall ? job.columns : job.rows, n = tall ? job.rows : job.columns;
  job.m = m, job.n = n, job.sums = room;
  bf16 *next = (bf16 *)(job.sums + threads * size_of_sums(m));
  job.x = next, next += m * n;
  job.gram = next, next += m * m;
  job.gram_transposed = next, next += m * m;
  job.update = next, next += m * m;
  job.panel = next, next += threads * m * PANEL;
  job.panel_transposed = next, next += threads * m * PANEL;
  job.columns_of_x = next;
  return job;
}

static void work_together(const void *job, int me, int of) { step(job, me, of); }

typedef struct {
  const Matrix *matrices;
  size_t count, room_size; /* of a thread */
  const float *factors;
  char *room;
} Share;

/* Each thread takes every so manieth matrix; they come largest first. */
static void work_alone(const void *given, int me, int of) {
  const Share *share = given;
  for (size_t i = me; i < share->count; i += of) {
    void *room = share->room + me * share->room_size;
    const Job job = laid_out(&share->matrices[i], share->factors, 1, room);
    step(&job, 0, 1);
  }
}

/* `factors` are a, b, c, momentum and decay. The first `large` matrices are worked at by all
   threads together, the others by one each. In `room` there is space for the largest of the former,
   and for the largest of the latter once a thread. */
void newton_schulz_steps(int threads, const Matrix *matrices, size_t large, size_t count,
                         const float *factors, void *room, size_t room_of_thread) {
  for (size_t i = 0; i < large; i++) {
    const Job job = laid_out(&matrices[i], factors, threads, room);
    in_parallel(threads, work_together, &job);
  }
  const Share share = {matrices + large, count - large, room_of_thread, factors, room};
  if (share.count) in_parallel(threads, work_alone, &share);
}
