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
   G and U are symmetric: what lies below the diagonal is a copy. */

#include "amx.h"
#include <math.h>
#include <sched.h>
#include <stdatomic.h>

enum { BLOCK = 2 * TILE }; /* a thread computes 32 by 32 numbers at a time */

int newton_schulz_allowed(void) { return amx_allowed(); }

typedef struct {
  size_t rows, columns, m, n; /* m and n are the smaller and the larger of the other two */
  const float *gradient;
  float *average, *weights;
  float momentum, decay, rate;
  int steps, threads;
  float a, b, c;
  double *squares;        /* sums over 16 rows of u each, rows / 16 of them */
  bf16 *x, *next;         /* (m, n) each */
  bf16 *gram, *update;    /* (m, m) each */
  bf16 *rows_tiles;       /* X in tiles to be multiplied from the left, m * n numbers, ... */
  bf16 *wide, *tall;      /* X^T and X in tiles to be multiplied from the right */
  bf16 *square;           /* G in the latter, m * m */
  atomic_int arrived, round;
} Job;

/* Wait until all threads are here. */
static void meet(Job *job) {
  const int round = atomic_load(&job->round);
  if (atomic_fetch_add(&job->arrived, 1) == job->threads - 1) {
    atomic_store(&job->arrived, 0);
    atomic_store(&job->round, round + 1);
  } else {
    for (int i = 0; atomic_load(&job->round) == round; i++)
      if (i < 2000) _mm_pause();
      else sched_yield(); /* the other may be waiting for this core */
  }
}

/* out (32, 32) = a (32, 32 depth) b. Each of a0, a1 is 16 rows, `stride` apart, whose next tile is
   `step` on; each of b0, b1 is a column of tiles. */
static void multiply(const bf16 *a0, const bf16 *a1, size_t stride, size_t step, const bf16 *b0,
                     const bf16 *b1, size_t depth, float *out) {
  settle();
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  for (size_t k = 0; k < depth; k++) {
    _tile_loadd(4, a0 + k * step, stride * sizeof(bf16));
    _tile_loadd(5, a1 + k * step, stride * sizeof(bf16));
    _tile_loadd(6, b0 + k * TILE_SIZE, 64);
    _tile_loadd(7, b1 + k * TILE_SIZE, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
  const size_t row = BLOCK * sizeof(float);
  _tile_stored(0, out, row); _tile_stored(1, out + TILE, row);
  _tile_stored(2, out + TILE * BLOCK, row); _tile_stored(3, out + TILE * BLOCK + TILE, row);
}

/* Transpose 16 by 16 numbers of 32 bits: pairs of rows, then of pairs, fours and eights. */
static inline void transpose(__m512i row[TILE]) {
  __m512i t[TILE];
  for (int i = 0; i < TILE; i += 2) {
    t[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  for (int i = 0; i < TILE; i += 4)
    for (int k = 0; k < 2; k++) {
      row[i + 2 * k] = _mm512_unpacklo_epi64(t[i + k], t[i + 2 + k]);
      row[i + 2 * k + 1] = _mm512_unpackhi_epi64(t[i + k], t[i + 2 + k]);
    }
  for (int i = 0; i < TILE; i += 8)
    for (int k = 0; k < 4; k++) {
      t[i + k] = _mm512_shuffle_i32x4(row[i + k], row[i + 4 + k], 0x88);
      t[i + 4 + k] = _mm512_shuffle_i32x4(row[i + k], row[i + 4 + k], 0xdd);
    }
  for (int k = 0; k < 8; k++) {
    row[k] = _mm512_shuffle_i32x4(t[k], t[8 + k], 0x88);
    row[8 + k] = _mm512_shuffle_i32x4(t[k], t[8 + k], 0xdd);
  }
}

/* A block in bfloat16 to out, and, where it is not on the diagonal, its transpose to mirror. */
static void store(const float *block, bf16 *out, bf16 *mirror, size_t stride) {
  for (size_t r = 0; r < BLOCK; r++) {
    to_bf16(out + r * stride, _mm512_load_ps(block + r * BLOCK));
    to_bf16(out + r * stride + TILE, _mm512_load_ps(block + r * BLOCK + TILE));
  }
  for (size_t r = 0; mirror && r < BLOCK; r += TILE)
    for (size_t c = 0; c < BLOCK; c += TILE) {
      __m512i rows[TILE];
      for (size_t i = 0; i < TILE; i++) rows[i] = _mm512_load_si512(block + (r + i) * BLOCK + c);
      transpose(rows);
      for (size_t i = 0; i < TILE; i++)
        to_bf16(mirror + (c + i) * stride + r, _mm512_castsi512_ps(rows[i]));
    }
}

/* Rows of s (size, length) as tiles, 16 rows after the other: of s^T, and of s itself, because rows
   that are a power of two apart would push each other out of the cache. */
static void pack_rows(const Job *job, int me, const bf16 *s, size_t size, size_t length,
                      bf16 *transposed, bf16 *plain) {
  for (size_t from = me * TILE; from < size; from += job->threads * TILE)
    for (size_t k = 0; k < length; k += DEPTH) {
      const size_t at = from * length + k * TILE;
      __m512i rows[TILE];
      for (size_t c = 0; c < TILE; c++) {
        rows[c] = _mm512_loadu_si512(s + (from + c) * length + k);
        _mm512_storeu_si512(plain + at + c * DEPTH, rows[c]);
      }
      transpose(rows); /* of pairs */
      for (size_t r = 0; r < TILE; r++) _mm512_storeu_si512(transposed + at + r * DEPTH, rows[r]);
    }
}

/* Columns of x (m, n) as the tiles of x, 16 columns after the other. */
static void pack_columns(const Job *job, int me, bf16 *tiles) {
  const size_t m = job->m, n = job->n;
  for (size_t from = me * TILE; from < n; from += job->threads * TILE)
    for (size_t k = 0; k < m; k += 2) {
      bf16 *row = tiles + from * m + k / DEPTH * TILE_SIZE + k % DEPTH / 2 * DEPTH;
      const bf16 *first = job->x + k * n + from, *second = first + n;
      __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)first));
      __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)second));
      _mm512_storeu_si512(row, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

/* The symmetric product of the rows of s (m, length) with each other; for G G, added to b G. */
static void symmetric(const Job *job, int me, const bf16 *s, const bf16 *rows, size_t length,
                      const bf16 *tiles, bf16 *out, int polynomial) {
  const size_t m = job->m, depth = length / DEPTH;
  float block[BLOCK * BLOCK] __attribute__((aligned(64)));
  size_t turn = 0;
  for (size_t i = 0; i < m; i += BLOCK)
    for (size_t j = i; j < m; j += BLOCK, turn++) {
      if (turn % job->threads != (size_t)me) continue;
      multiply(rows + i * length, rows + (i + TILE) * length, DEPTH, TILE_SIZE, tiles + j * length,
               tiles + (j + TILE) * length, depth, block);
      if (polynomial)
        for (size_t r = 0; r < BLOCK; r++)
          for (size_t c = 0; c < BLOCK; c += TILE) {
            float *at = block + r * BLOCK + c;
            __m512 g = from_bf16(s + (i + r) * m + j + c), squared = _mm512_load_ps(at);
            __m512 sum = _mm512_mul_ps(_mm512_set1_ps(job->b), g);
            _mm512_store_ps(at, _mm512_fmadd_ps(_mm512_set1_ps(job->c), squared, sum));
          }
      store(block, out + i * m + j, i == j ? NULL : out + j * m + i, m);
    }
}

/* next = a x + U x, a block of columns after the other */
static void advance(const Job *job, int me) {
  const size_t m = job->m, n = job->n;
  float block[BLOCK * BLOCK] __attribute__((aligned(64)));
  for (size_t j = me * BLOCK; j < n; j += job->threads * BLOCK)
    for (size_t i = 0; i < m; i += BLOCK) {
      multiply(job->rows_tiles + i * m, job->rows_tiles + (i + TILE) * m, DEPTH, TILE_SIZE,
               job->tall + j * m, job->tall + (j + TILE) * m, m / DEPTH, block);
      for (size_t r = 0; r < BLOCK; r++)
        for (size_t c = 0; c < BLOCK; c += TILE) {
          float *at = block + r * BLOCK + c;
          __m512 x = from_bf16(job->x + (i + r) * n + j + c);
          _mm512_store_ps(at, _mm512_fmadd_ps(_mm512_set1_ps(job->a), x, _mm512_load_ps(at)));
        }
      store(block, job->next + i * n + j, NULL, n);
    }
}

/* --- before and after the iterations ----------------------------------------------------------- */

static inline __m512 update_of(const Job *job, size_t at) {
  __m512 g = _mm512_loadu_ps(job->gradient + at), a = _mm512_loadu_ps(job->average + at);
  return _mm512_fmadd_ps(_mm512_set1_ps(job->momentum), _mm512_sub_ps(a, g), g);
}

/* The average of gradients, 16 rows after the other, and the squares of what comes of it. */
static void average(const Job *job, int me) {
  const size_t length = TILE * job->columns;
  const __m512 weight = _mm512_set1_ps(1 - job->momentum);
  for (size_t block = me; block < job->rows / TILE; block += job->threads) {
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

/* X from u, 16 by 16 numbers at a time. */
static void load(const Job *job, int me) {
  double sum = 0; /* by every thread in the same order */
  for (size_t block = 0; block < job->rows / TILE; block++) sum += job->squares[block];
  const __m512 scale = _mm512_set1_ps((float)(1 / (sum > 1e-14 ? sqrt(sum) : 1e-7)));
  const int tall = job->rows > job->columns;
  for (size_t r = me * TILE; r < job->rows; r += job->threads * TILE)
    for (size_t c = 0; c < job->columns; c += TILE) {
      __m512i block[TILE];
      for (size_t i = 0; i < TILE; i++)
        block[i] = _mm512_castps_si512(_mm512_mul_ps(scale, update_of(job, (r + i) * job->columns + c)));
      if (tall) transpose(block);
      bf16 *x = tall ? job->x + c * job->n + r : job->x + r * job->n + c;
      for (size_t i = 0; i < TILE; i++) to_bf16(x + i * job->n, _mm512_castsi512_ps(block[i]));
    }
}

/* The weights with X, 16 by 16 numbers at a time. */
static void apply(const Job *job, int me) {
  const int tall = job->rows > job->columns;
  const __m512 decay = _mm512_set1_ps(job->decay), rate = _mm512_set1_ps(job->rate);
  for (size_t r = me * TILE; r < job->rows; r += job->threads * TILE)
    for (size_t c = 0; c < job->columns; c += TILE) {
      const bf16 *x = tall ? job->x + c * job->n + r : job->x + r * job->n + c;
      __m512i block[TILE];
      for (size_t i = 0; i < TILE; i++) block[i] = _mm512_castps_si512(from_bf16(x + i * job->n));
      if (tall) transpose(block);
      for (size_t i = 0; i < TILE; i++) {
        float *w = job->weights + (r + i) * job->columns + c;
        __m512 kept = _mm512_mul_ps(decay, _mm512_loadu_ps(w));
        _mm512_storeu_ps(w, _mm512_fnmadd_ps(rate, _mm512_castsi512_ps(block[i]), kept));
      }
    }
}

typedef struct { Job *job; int me; } Worker;

static void *work(void *given) {
  Job *job = ((Worker *)given)->job;
  const int me = ((Worker *)given)->me;
  configure_tiles();
  average(job, me);
  meet(job);
  load(job, me);
  meet(job);
  for (int step = 0; step < job->steps; step++) {
    pack_rows(job, me, job->x, job->m, job->n, job->wide, job->rows_tiles);
    pack_columns(job, me, job->tall);
    meet(job);
    symmetric(job, me, job->x, job->rows_tiles, job->n, job->wide, job->gram, 0);
    meet(job);
    pack_rows(job, me, job->gram, job->m, job->m, job->square, job->rows_tiles);
    meet(job);
    symmetric(job, me, job->gram, job->rows_tiles, job->m, job->square, job->update, 1);
    meet(job);
    pack_rows(job, me, job->update, job->m, job->m, job->square, job->rows_tiles);
    meet(job);
    advance(job, me);
    meet(job);
    if (me == 0) { bf16 *swap = job->x; job->x = job->next, job->next = swap; }
    meet(job);
  }
  apply(job, me);
  _tile_release();
  return NULL;
}

/* `factors` are a, b, c, momentum, decay and rate. `room` has space for 5 m n + 3 m m numbers and
   `squares` for rows / 16. Returns 0, or what keeps a thread from starting. */
int newton_schulz_step(int threads, size_t rows, size_t columns, int steps, const float *factors,
                       const float *gradient, float *average, float *weights, bf16 *room,
                       double *squares) {
  enum { MOST = 64 };
  Job job = {.rows = rows, .columns = columns, .steps = steps, .squares = squares,
             .gradient = gradient, .average = average, .weights = weights,
             .a = factors[0], .b = factors[1], .c = factors[2],
             .momentum = factors[3], .decay = factors[4], .rate = factors[5]};
  const size_t m = rows < columns ? rows : columns, n = rows < columns ? columns : rows;
  job.m = m, job.n = n;
  job.x = room, job.next = room + m * n, job.wide = room + 2 * m * n, job.tall = room + 3 * m * n;
  job.rows_tiles = room + 4 * m * n;
  job.gram = room + 5 * m * n, job.update = job.gram + m * m, job.square = job.update + m * m;
  job.threads = threads < MOST ? threads : MOST;
  atomic_init(&job.arrived, 0), atomic_init(&job.round, 0);
  Worker workers[MOST];
  pthread_t others[MOST];
  for (int i = 0; i < job.threads; i++) workers[i] = (Worker){&job, i};
  for (int i = 1; i < job.threads; i++) {
    int refused = pthread_create(&others[i], NULL, work, &workers[i]);
    if (refused) return refused; /* those that wait for it end with the process */
  }
  work(&workers[0]);
  for (int i = 1; i < job.threads; i++) pthread_join(others[i], NULL);
  return 0;
}
