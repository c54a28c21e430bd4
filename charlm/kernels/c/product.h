/* Rows times a matrix, for the networks that write text: one row, a few, or very many.

   One row is as fast as the matrix can be read. A product is summed up in one order, however many
   rows there are and whichever thread does it, so that a text is the same to the bit alone, beside
   a few others, and in any number of threads. From MANY on, AMX multiplies, which knows only
   bfloat16: each number is split into two of them, a = hi + lo, which keeps 16 bits of it, and a b
   is taken as hi hi + hi lo + lo hi. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined __AMX_BF16__ && defined __AVX512BF16__
#define AMX 1
#include "amx_old.h"
#else
#include "threads.h"
#define AMX 0
enum { BLOCK = 32 };
#endif

#if defined __AVX512F__
#include <immintrin.h>
enum { LANES = 16 };
#elif defined __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

#define INLINE static inline __attribute__((always_inline))

/* Unroll the next loop, which has a fixed length, so that its sums stay in registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* y = W x + b for each row x. */
typedef struct {
  size_t O, I;
  const float *W;    /* (O, I) */
  const float *b;    /* (O,), or NULL */
  const void *tiles; /* W for AMX, see `pack_matrix`; or NULL */
} Matrix;

/* N rows of I numbers, `stride` apart. */
typedef struct {
  size_t N, stride;
  const float *x;
  void *tiles; /* workspace for the rows in the layout of AMX */
} Rows;

enum { MANY = 8 }; /* AMX is faster from this number of rows on */

INLINE int by_tiles(const Matrix *m, const Rows *rows) {
  return AMX && m->tiles && rows->N >= MANY;
}

/* n, rounded up to whole blocks. */
INLINE size_t round_up(size_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

/* Numbers [from, to) of n for thread `me`, in whole blocks. */
INLINE void share(size_t n, int me, int of, size_t *from, size_t *to) {
  size_t blocks = round_up(n) / BLOCK;
  *from = blocks * (size_t)me / (size_t)of * BLOCK;
  *to = blocks * (size_t)(me + 1) / (size_t)of * BLOCK;
  if (*to > n) *to = n;
}

/* The tiles from row n on. A row has I numbers, and row n begins a block. */
INLINE void *rows_at(void *tiles, size_t n, size_t I) {
  return (char *)tiles + n * round_up(I) * 4;
}

/* The block of rows from n on. */
INLINE Rows some_rows(const Rows *rows, size_t n, size_t I) {
  const size_t left = rows->N - n;
  return (Rows){left < BLOCK ? left : BLOCK, rows->stride, rows->x + n * rows->stride,
                rows_at(rows->tiles, n, I)};
}

#if AMX
#include "split.h"
#endif

/* --- float32 -------------------------------------------------------------------------------- */

INLINE float total(vec v) {
#if defined __AVX512F__
  return _mm512_reduce_add_ps((__m512)v);
#else
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
#endif
}

/* R rows of x times C rows of W, all I long. */
INLINE void dots(const size_t R, const size_t C, const float *x, size_t stride, const Matrix *m,
                 size_t o, float *y, size_t y_stride, int more) {
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
      float s = total(sum[r][c]);
      for (size_t k = whole; k < I; k++) s += w[c * I + k] * x[r * stride + k];
      float *out = y + r * y_stride + c;
      *out = (more ? *out : 0) + (s + (m->b ? m->b[o + c] : 0));
    }
}

/* As `product`. */
static void by_dots(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                    size_t stride, int more) {
  for (size_t o = from; o < to;) {
    const size_t wide = o + 8 <= to ? 8 : 1;
    size_t n = 0;
    for (; wide == 8 && n + 4 <= rows->N; n += 4)
      for (size_t half = 0; half < 8; half += 4)
        dots(4, 4, rows->x + n * rows->stride, rows->stride, m, o + half, y + n * stride + half,
             stride, more);
    for (; n < rows->N; n++) {
      const float *x = rows->x + n * rows->stride;
      if (wide == 8) dots(1, 8, x, 0, m, o, y + n * stride, 0, more);
      else dots(1, 1, x, 0, m, o, y + n * stride, 0, more);
    }
    o += wide, y += wide;
  }
}

/* Have rows ready for products with a matrix like this one. All threads do this together. */
static inline void prepare(const Matrix *m, const Rows *rows, int me, int of) {
#if AMX
  if (by_tiles(m, rows)) {
    split_rows(rows, m->I, me, of);
    barrier(of);
  }
#endif
}

/* y = W x + b, or += where `more`: outputs [from, to), which begin a block, of all rows, which are
   prepared. They go to y, in rows `stride` apart. */
static void product(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                    size_t stride, int more) {
#if AMX
  if (by_tiles(m, rows)) {
    by_amx(m, rows, from, to, y, stride, more);
    return;
  }
#endif
  by_dots(m, rows, from, to, y, stride, more);
}

/* Work on products with matrices like this one. */
static inline void multiply_on_threads(const Matrix *m, int threads, Work *work, const void *job) {
#if AMX
  if (m->tiles) {
    in_parallel(threads, work, job);
    return;
  }
#endif
  on_threads(threads, NULL, NULL, work, job);
}

/* --- for Python ------------------------------------------------------------------------------ */

/* The size of m's tiles in bytes; 0 if AMX is not available. This call also enables AMX. */
size_t product_tiles(const Matrix *m) {
#if AMX
  if (amx_allowed()) return round_up(m->O) * round_up(m->I) * 2 * sizeof(bf16);
#endif
  (void)m;
  return 0;
}

void product_pack(const Matrix *m, void *tiles) {
#if AMX
  pack_matrix(m, tiles);
#endif
  (void)m, (void)tiles;
}
