/* Rows times a matrix, for sampling: one row, a few, or many.

   One row takes the time to read the matrix. With fewer than MIN_ROWS rows, the order of a sum does
   not depend on the number of rows or threads, so that a text is the same to the bit alone and
   beside a few others. From MIN_ROWS rows on, tiles.h multiplies, in float32. If its numbers are
   bfloat16, each factor is split in two, a = hi + lo, which keeps 16 bits of it, and a b is
   computed as hi hi + hi lo + lo hi. */

#define SPLIT 1
#include "threads.h"
#include "tiles.h"

_Static_assert(!HALF || ROW_STEP == 16, "without AMX, float32 is faster than two bfloat16 numbers");

enum { MIN_ROWS = 8 };
enum { LINE_FLOATS = 16 };   /* of a cache line: threads write to different lines */
enum { PARTS = 1 + HALF };   /* numbers for each float32 */

/* y = W x + b for each row x. The outputs consist of `gates` parts of equal size. */
typedef struct {
  size_t O, I, gates;
  const float *W;       /* (O, I) */
  const float *b;       /* (O,), or NULL */
  const number *packed; /* see pack_matrix; NULL for fewer than MIN_ROWS rows */
} Matrix;

/* N rows of I numbers, `stride` apart. */
typedef struct {
  size_t N, stride;
  const float *x;
  number *packed; /* workspace of rows_bytes(N, I) bytes, see `pack_rows` */
} Rows;

/* --- packed factors -------------------------------------------------------------------------- */

/* The K of packed factors: PARTS blocks of DEPTH numbers for each DEPTH float32 numbers. */
INLINE size_t packed_K(size_t I) { return PARTS * round_up(I, DEPTH); }

/* Numbers between two packed rows, with a distance that spreads rows over the cache. */
INLINE size_t row_size(size_t I) { return packed_K(I) + DEPTH; }

/* Numbers in the packed part of one gate. */
INLINE size_t gate_size(const Matrix *m) {
  return round_up(m->O / m->gates, LANES) * packed_K(m->I);
}

/* The block at i and k of a source with k along its rows: x - number(x), the rounding error. */
static Source residual_of(const Source *s, size_t i, size_t k, float residual[LANES * DEPTH]) {
  const size_t rows = smaller(LANES, s->size - i), width = smaller(DEPTH, s->K - k);
  for (size_t r = 0; r < rows; r++) {
    const float *from = s->from + (i + r) * s->stride + k;
#pragma omp simd
    for (size_t c = 0; c < width; c++)
      residual[r * DEPTH + c] = from[c] - from_number(to_number(from[c]));
  }
  return (Source){residual, DEPTH, rows, width, 1};
}

/* As pack_left and pack_right, PARTS numbers for each float32. */
static void pack_parts(Source s, int is_right, number *to, size_t lda) {
  const size_t K = packed_K(s.K), next = is_right ? DEPTH * LANES : DEPTH;
  for (size_t i = 0; i < s.size; i += LANES) {
    number *at = to + i * (is_right ? K : lda);
    for (size_t k = 0; k < s.K; k += DEPTH, at += PARTS * next) {
      pack_block(&s, i, k, is_right, at, is_right ? DEPTH : lda);
      if (PARTS == 1) continue;
      float residual[LANES * DEPTH];
      const Source block = residual_of(&s, i, k, residual);
      pack_block(&block, 0, 0, is_right, at + next, is_right ? DEPTH : lda);
    }
  }
}

/* At most `most` rows from row n on; n is a multiple of LINE_FLOATS. */
INLINE Rows slice_rows(const Rows *rows, size_t n, size_t most, size_t I) {
  return (Rows){smaller(most, rows->N - n), rows->stride, rows->x + n * rows->stride,
                rows->packed + n * row_size(I)};
}

/* Pack rows for products with a matrix of this size. All threads call this: each packs some columns
   of every row. */
static void pack_rows(const Matrix *m, const Rows *rows, int thread, int threads) {
  if (!m->packed) return;
  size_t from, to;
  partition(m->I, DEPTH, thread, threads, &from, &to);
  const Source s = {rows->x + from, rows->stride, rows->N, to - from, 1};
  if (from < to) pack_parts(s, 0, rows->packed + PARTS * from, row_size(m->I));
  barrier(threads);
}

/* --- products -------------------------------------------------------------------------------- */

/* `linear` with packed factors; `from` is a multiple of LANES after a gate's first output. */
static void linear_by_tiles(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                     size_t stride, int add) {
  const size_t N = rows->N, O = m->O / m->gates, K = packed_K(m->I);
  const number *w = m->packed + from / O * gate_size(m) + from % O * K;
  if (m->b)
    for (size_t r = 0; r < N; r++)
      for (size_t o = from; o < to; o++)
        y[r * stride + o - from] = (add ? y[r * stride + o - from] : 0) + m->b[o];
  multiply(rows->packed, row_size(m->I), w, N, to - from, K, y, stride, add || m->b);
}

/* R rows of x times C rows of W, all I long. */
INLINE void dots(const size_t R, const size_t C, const float *x, size_t stride, const Matrix *m,
                 size_t o, float *y, size_t y_stride, int add) {
  const float *w = m->W + o * m->I;
  const size_t I = m->I, whole = I / LANES * LANES;
  vec sum[4][8];
  UNROLL
  for (size_t i = 0; i < R * C; i++) sum[i / C][i % C] = (vec){0};
  for (size_t k = 0; k < whole; k += LANES)
    UNROLL
    for (size_t c = 0; c < C; c++) {
      vec a = *(const loose *)(w + c * I + k);
      UNROLL
      for (size_t r = 0; r < R; r++) sum[r][c] += a * *(const loose *)(x + r * stride + k);
    }
  UNROLL
  for (size_t r = 0; r < R; r++)
    UNROLL
    for (size_t c = 0; c < C; c++) {
      float s = sum_of_lanes(sum[r][c]);
      for (size_t k = whole; k < I; k++) s += w[c * I + k] * x[r * stride + k];
      float *out = y + r * y_stride + c;
      *out = (add ? *out : 0) + (s + (m->b ? m->b[o + c] : 0));
    }
}

/* `linear` with dot products of float32. */
static void linear_by_dots(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                    size_t stride, int add) {
  for (size_t o = from; o < to;) {
    const size_t wide = o + 8 <= to ? 8 : 1;
    size_t n = 0;
    for (; wide == 8 && n + 4 <= rows->N; n += 4)
      for (size_t half = 0; half < 8; half += 4)
        dots(4, 4, rows->x + n * rows->stride, rows->stride, m, o + half, y + n * stride + half,
             stride, add);
    for (; n < rows->N; n++) {
      const float *x = rows->x + n * rows->stride;
      if (wide == 8) dots(1, 8, x, 0, m, o, y + n * stride, 0, add);
      else dots(1, 1, x, 0, m, o, y + n * stride, 0, add);
    }
    o += wide, y += wide;
  }
}

/* y = W x + b, or += with `add`: outputs [from, to) of one gate, for all rows, after pack_rows.
   Row r of the result is at y + r stride. */
static void linear(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                    size_t stride, int add) {
  if (m->packed) linear_by_tiles(m, rows, from, to, y, stride, add);
  else linear_by_dots(m, rows, from, to, y, stride, add);
}

/* Call `work` in threads that multiply by matrices like m. */
static void multiply_on_threads(const Matrix *m, int threads, Work *work, const void *job) {
  on_threads(threads, m->packed ? tiles_begin : NULL, tiles_end, work, job);
}

/* --- for Python ------------------------------------------------------------------------------ */

size_t matrix_bytes(const Matrix *m) { return m->gates * gate_size(m) * sizeof(number); }
size_t rows_bytes(size_t N, size_t I) { return round_up(N, LANES) * row_size(I) * sizeof(number); }

/* Pack m->W into matrix_bytes(m) bytes. */
void pack_matrix(const Matrix *m, number *to) {
  const size_t O = m->O / m->gates;
  for (size_t g = 0; g < m->gates; g++)
    pack_parts((Source){m->W + g * O * m->I, m->I, O, m->I, 1}, 1, to + g * gate_size(m), 0);
}
