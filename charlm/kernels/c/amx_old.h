/* What the kernels share: bfloat16 numbers, the tiles that AMX multiplies, and threads. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "threads.h"

typedef uint16_t bf16;

enum { TILE = 16, DEPTH = 32, TILE_SIZE = TILE * DEPTH }; /* an AMX tile: 16 rows of 32 bf16 */
enum { BLOCK = 2 * TILE }; /* what is computed at a time: 32 by 32 numbers */

/* Ask the system for AMX; returns whether it lets us. */
static inline int amx_allowed(void) {
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0;
}

static inline __m512 from_bf16(const bf16 *p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void to_bf16(bf16 *p, __m512 x) {
  __m256bh narrow = _mm512_cvtneps_pbh(x);
  memcpy(p, &narrow, sizeof narrow);
}

static inline __m512 set(float x) { return _mm512_set1_ps(x); }

/* e^x to a few units in the last place: 2^n e^r, r in [-ln2/2, ln2/2] by its Taylor series. */
static inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(_mm512_min_ps(x, set(80.f)), set(-80.f));
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, set(1.44269504f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, set(0.693359375f), x); /* ln 2 in two parts */
  r = _mm512_fnmadd_ps(n, set(-2.12194440e-4f), r);
  __m512 p = set(1.f / 720);
  p = _mm512_fmadd_ps(p, r, set(1.f / 120));
  p = _mm512_fmadd_ps(p, r, set(1.f / 24));
  p = _mm512_fmadd_ps(p, r, set(1.f / 6));
  p = _mm512_fmadd_ps(p, r, set(.5f));
  p = _mm512_fmadd_ps(p, r, set(1.f));
  p = _mm512_fmadd_ps(p, r, set(1.f));
  return _mm512_scalef_ps(p, n);
}

/* Have everything in memory before tiles are loaded: not all compilers know that they read it. */
static inline void settle(void) { __asm__ volatile("" ::: "memory"); }

static inline void configure_tiles(void) {
  struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles;
  memset(&tiles, 0, sizeof tiles);
  tiles.palette = 1;
  for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = TILE;
  settle();
  _tile_loadconfig(&tiles);
}

static inline void release_tiles(void) { _tile_release(); }

static inline void in_parallel(int threads, Work *work, const void *job) {
  on_threads(threads, configure_tiles, release_tiles, work, job);
}

/* out (32, 32) = a (32, 32 depth) b, or += where `more`: a is two rows of tiles, b two columns of
   them, and the rows of out are `stride` apart. */
static inline void multiply_block(const bf16 *const a[2], const bf16 *const b[2], size_t depth,
                                  float *out, size_t stride, int more) {
  const size_t row = stride * sizeof(float);
  float *const low = out + TILE * stride;
  settle();
  if (more) {
    _tile_loadd(0, out, row); _tile_loadd(1, out + TILE, row);
    _tile_loadd(2, low, row); _tile_loadd(3, low + TILE, row);
  } else {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  }
  for (size_t k = 0; k < depth * TILE_SIZE; k += TILE_SIZE) {
    _tile_loadd(4, a[0] + k, 64); _tile_loadd(5, a[1] + k, 64);
    _tile_loadd(6, b[0] + k, 64); _tile_loadd(7, b[1] + k, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, row); _tile_stored(1, out + TILE, row);
  _tile_stored(2, low, row); _tile_stored(3, low + TILE, row);
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

/* 16 numbers each of two rows of 32, from the first or the second half, as 16 pairs. */
static inline __m512i pairs_of(__m512i even, __m512i odd, int half) {
  __m256i low = half ? _mm512_extracti64x4_epi64(even, 1) : _mm512_castsi512_si256(even);
  __m256i high = half ? _mm512_extracti64x4_epi64(odd, 1) : _mm512_castsi512_si256(odd);
  __m512i shifted = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16);
  return _mm512_or_si512(shifted, _mm512_cvtepu16_epi32(low));
}

/* 32 by 32 numbers, in rows `stride` apart, rounded: a row each. */
static inline void narrow(const float *s, size_t stride, __m512i row[BLOCK]) {
  for (size_t r = 0; r < BLOCK; r++) {
    __m512 low = _mm512_loadu_ps(s + r * stride), high = _mm512_loadu_ps(s + r * stride + TILE);
    row[r] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  }
}

/* Two tiles of 32 rows of a left factor, or 32 columns of a right one, and 32 k: from a place whose
   rows are `stride` apart; k runs along them, or across. */
static inline void pack_block(const float *s, size_t stride, int is_left, int along, bf16 *first,
                              bf16 *second) {
  __m512i row[BLOCK];
  narrow(s, stride, row);
  for (int half = 0; half < 2; half++) {
    __m512i pairs[TILE]; /* of k */
    for (size_t r = 0; r < TILE; r++)
      pairs[r] = along ? row[half * TILE + r] : pairs_of(row[2 * r], row[2 * r + 1], half);
    if (along != is_left) transpose(pairs);
    for (size_t r = 0; r < TILE; r++)
      _mm512_storeu_si512((half ? second : first) + r * DEPTH, pairs[r]);
  }
}

static inline void pack(const float *s, size_t stride, size_t size, size_t K, int is_left,
                        int along, bf16 *tiles) {
  for (size_t at = 0; at < size; at += BLOCK)
    for (size_t k = 0; k < K; k += DEPTH) {
      bf16 *first = tiles + at * K + k * TILE;
      const float *from = along ? s + at * stride + k : s + k * stride + at;
      pack_block(from, stride, is_left, along, first, first + TILE * K);
    }
}

/* The tiles of A (M, K), of which the source may be A^T; or of B (K, N), or B^T: 16 rows of A or
   columns of B after the other, each along all k. `size` is M or N. */
#define PACKS(name, is_left, along) \
  static inline void name(const float *s, size_t stride, size_t size, size_t K, bf16 *to) { \
    pack(s, stride, size, K, is_left, along, to); \
  }
PACKS(left, 1, 1)
PACKS(left_t, 1, 0)
PACKS(right, 0, 0)
PACKS(right_t, 0, 1)
