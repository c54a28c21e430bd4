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
#include "amx.h"
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

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* y = W x + b for each row x. */
typedef struct {
  size_t O, I;
  const float *W;    /* (O, I) */
  const float *b;    /* (O,), or none */
  const void *tiles; /* W for AMX, see `pack_matrix`; or none */
} Matrix;

/* N rows of I numbers, `stride` apart. */
typedef struct {
  size_t N, stride;
  const float *x;
  void *tiles; /* room to have them for AMX */
} Rows;

enum { MANY = 8 }; /* from so many rows on, AMX is faster */

INLINE int by_tiles(const Matrix *m, const Rows *rows) {
  return AMX && m->tiles && rows->N >= MANY;
}

/* Numbers [from, to) of n for thread `me`, in whole blocks. */
INLINE void share(size_t n, int me, int of, size_t *from, size_t *to) {
  size_t blocks = (n + BLOCK - 1) / BLOCK;
  *from = blocks * (size_t)me / (size_t)of * BLOCK;
  *to = blocks * (size_t)(me + 1) / (size_t)of * BLOCK;
  if (*to > n) *to = n;
}

/* Of tiles for rows of I numbers, those from row n on, which begins a block. */
INLINE void *rows_at(void *tiles, size_t n, size_t I) {
  return (char *)tiles + n * ((I + BLOCK - 1) / BLOCK * BLOCK) * 4;
}

/* The block of rows from n on. */
INLINE Rows some_rows(const Rows *rows, size_t n, size_t I) {
  const size_t left = rows->N - n;
  return (Rows){left < BLOCK ? left : BLOCK, rows->stride, rows->x + n * rows->stride,
                rows_at(rows->tiles, n, I)};
}

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
#pragma GCC unroll 32
  for (size_t i = 0; i < R * C; i++) sum[i / C][i % C] = (vec){0};
  for (size_t k = 0; k < whole; k += LANES)
#pragma GCC unroll 8
    for (size_t c = 0; c < C; c++) {
      vec a = *(const loose *)(w + c * I + k);
#pragma GCC unroll 4
      for (size_t r = 0; r < R; r++) sum[r][c] += a * *(const loose *)(x + r * stride + k);
    }
#pragma GCC unroll 4
  for (size_t r = 0; r < R; r++)
#pragma GCC unroll 8
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

/* --- tiles ---------------------------------------------------------------------------------- */

#if AMX
static inline size_t round_up(size_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

/* 16 numbers, of which the last may be missing. */
INLINE __m512 some(const float *p, ptrdiff_t n) {
  __mmask16 there = n >= TILE ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
  return _mm512_maskz_loadu_ps(there, p);
}

INLINE void split(__m512 low, __m512 high, __m512i *hi, __m512i *lo) {
  bf16 rounded[DEPTH];
  *hi = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  _mm512_storeu_si512(rounded, *hi);
  low = _mm512_sub_ps(low, from_bf16(rounded));
  high = _mm512_sub_ps(high, from_bf16(rounded + TILE));
  *lo = (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* The rows for AMX: of 32 rows and 32 numbers, two tiles of hi and two of lo. */
static void split_rows(const Rows *rows, size_t I, int me, int of) {
  size_t from, to, depth = round_up(I) / DEPTH;
  share(rows->N, me, of, &from, &to);
  for (size_t n = from; n < round_up(to); n++) {
    bf16 *out = (bf16 *)rows->tiles + n / BLOCK * depth * 4 * TILE_SIZE +
                n % BLOCK / TILE * TILE_SIZE + n % TILE * DEPTH;
    const float *x = rows->x + n * rows->stride;
    for (size_t k = 0; k < I; k += DEPTH, out += 4 * TILE_SIZE) {
      ptrdiff_t left = n < rows->N ? (ptrdiff_t)(I - k) : 0;
      __m512i hi, lo;
      split(some(x + k, left), some(x + k + TILE, left - TILE), &hi, &lo);
      _mm512_storeu_si512(out, hi);
      _mm512_storeu_si512(out + 2 * TILE_SIZE, lo);
    }
  }
}

/* 32 rows of W and 32 numbers of each as tiles of a right factor. */
static void pack_piece(const Matrix *m, size_t o, size_t k, bf16 *out) {
  float hi[BLOCK][DEPTH], lo[BLOCK][DEPTH];
  for (size_t r = 0; r < BLOCK; r++) {
    ptrdiff_t left = o + r < m->O ? (ptrdiff_t)(m->I - k) : 0;
    for (size_t half = 0; half < DEPTH; half += TILE) {
      __m512 w = some(m->W + (o + r) * m->I + k + half, left - (ptrdiff_t)half);
      bf16 rounded[TILE];
      to_bf16(rounded, w);
      _mm512_storeu_ps(hi[r] + half, from_bf16(rounded));
      _mm512_storeu_ps(lo[r] + half, _mm512_sub_ps(w, from_bf16(rounded)));
    }
  }
  pack_block(hi[0], DEPTH, 0, 1, out, out + TILE_SIZE);
  pack_block(lo[0], DEPTH, 0, 1, out + 2 * TILE_SIZE, out + 3 * TILE_SIZE);
}

static void pack_matrix(const Matrix *m, bf16 *tiles) {
  for (size_t o = 0; o < m->O; o += BLOCK)
    for (size_t k = 0; k < m->I; k += DEPTH, tiles += 4 * TILE_SIZE) pack_piece(m, o, k, tiles);
}

/* out (32, 32) = the rows at x times the columns at w, over `depth` steps of 32. */
static inline void multiply_split(const bf16 *x, const bf16 *w, size_t depth, float *out,
                                  size_t stride) {
  const size_t row = stride * sizeof(float);
  float *const low = out + TILE * stride;
  settle();
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  for (size_t k = 0; k < depth; k++, x += 4 * TILE_SIZE, w += 4 * TILE_SIZE) {
    _tile_loadd(4, x + 2 * TILE_SIZE, 64); _tile_loadd(5, x + 3 * TILE_SIZE, 64); /* lo hi */
    _tile_loadd(6, w, 64); _tile_loadd(7, w + TILE_SIZE, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(4, x, 64); _tile_loadd(5, x + TILE_SIZE, 64); /* hi hi */
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, w + 2 * TILE_SIZE, 64); _tile_loadd(7, w + 3 * TILE_SIZE, 64); /* hi lo */
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, row); _tile_stored(1, out + TILE, row);
  _tile_stored(2, low, row); _tile_stored(3, low + TILE, row);
  settle();
}

/* Put the first N rows and O columns of a block in place, with what belongs to it. */
static void put_block(const float *block, size_t N, size_t O, const float *b, float *y,
                      size_t stride, int more) {
  for (size_t r = 0; r < N; r++)
    for (size_t half = 0; half < O; half += TILE) {
      float *at = y + r * stride + half;
      const ptrdiff_t left = (ptrdiff_t)(O - half);
      __m512 sum = _mm512_loadu_ps(block + r * BLOCK + half);
      if (b) sum = _mm512_add_ps(sum, some(b + half, left));
      if (more) sum = _mm512_add_ps(sum, some(at, left));
      _mm512_mask_storeu_ps(at, left >= TILE ? 0xffff : (__mmask16)((1u << left) - 1), sum);
    }
}

/* As `product`. */
static void by_amx(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                   size_t stride, int more) {
  const size_t depth = round_up(m->I) / DEPTH, piece = depth * 4 * TILE_SIZE;
  const bf16 *w = (const bf16 *)m->tiles + from / BLOCK * piece;
  for (size_t o = from; o < to; o += BLOCK, w += piece, y += BLOCK) {
    const bf16 *x = rows->tiles;
    for (size_t n = 0; n < rows->N; n += BLOCK, x += piece) {
      _Alignas(64) float block[BLOCK * BLOCK];
      const size_t N = n + BLOCK < rows->N ? BLOCK : rows->N - n, O = o + BLOCK < to ? BLOCK : to - o;
      if (N < BLOCK || O < BLOCK || m->b || more) {
        multiply_split(x, w, depth, block, BLOCK);
        put_block(block, N, O, m->b ? m->b + o : NULL, y + n * stride, stride, more);
      } else {
        multiply_split(x, w, depth, y + n * stride, stride);
      }
    }
  }
}
#endif

/* Have rows ready for products with a matrix like this one. All threads do this together. */
static inline void prepare(const Matrix *m, const Rows *rows, int me, int of) {
#if AMX
  if (by_tiles(m, rows)) {
    split_rows(rows, m->I, me, of);
    if (of > 1) meet();
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

/* The bytes of m's tiles, or 0 where they are not to be had; from then on they may be used. */
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

/* --- functions ------------------------------------------------------------------------------ */

/* e^x to a few units in the last place, |x| <= 28, and beyond as there: 2^n e^r, r in
   [-ln2/2, ln2/2] by its Taylor series. Three of them can be multiplied without overflow. */
INLINE float power_of_e(float x) {
  x = x < -28.f ? -28.f : x > 28.f ? 28.f : x;
  const float n = __builtin_rintf(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
  float p = 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + .5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const int32_t bits = ((int32_t)n + 127) << 23;
  float scale;
  memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

INLINE float sigmoid(float x) { return 1 / (1 + power_of_e(-x)); }

INLINE float hyperbolic_tangent(float x) { return 2 / (1 + power_of_e(-2 * x)) - 1; }

/* sigmoid(x) tanh(y), with one division, which is as slow as all the rest. */
INLINE float gated_tangent(float x, float y) {
  const float e = power_of_e(-2 * y);
  return (1 - e) / ((1 + e) * (1 + power_of_e(-x)));
}
