/* The products of tiles.h by AMX: eight tiles, each with 16 rows of 16 elements. */

#include <sys/syscall.h>
#include <unistd.h>

#include "pack.h"

enum { ROWS = 32, GROUPS = 2, ROW_STEP = 16 };

/* Asks the system for AMX; returns whether this process may use it. */
static int tiles_allowed(void) {
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0;
}

/* Have everything in memory before tiles are loaded: not all compilers know that they read it. */
INLINE void settle(void) { __asm__ volatile("" ::: "memory"); }

static void tiles_begin(void) {
  struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles;
  memset(&tiles, 0, sizeof tiles);
  tiles.palette = 1;
  for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = 16;
  settle();
  _tile_loadconfig(&tiles);
}

static void tiles_end(void) { _tile_release(); }

/* With SPLIT, a factor has two blocks of DEPTH numbers along k, hi and lo, for each block of
   float32. A product is hi hi + hi lo + lo hi. */
#ifndef SPLIT
#define SPLIT 0
#endif

/* R (1 or 2) times 16 rows, C (1 or 2) groups of columns. */
INLINE void multiply_tiles(const int R, const int C, const number *a, size_t lda, const number *b,
                           size_t ldb, size_t K, float *out, size_t stride, int add) {
  const size_t row = stride * sizeof(float), group = ldb * LANES, a_row = lda * sizeof(number);
  float *const low = out + 16 * stride;
#define LOAD_A(a) _tile_loadd(4, a, a_row); if (R == 2) _tile_loadd(5, a + 16 * lda, a_row)
#define LOAD_B(b) _tile_loadd(6, b, 64); if (C == 2) _tile_loadd(7, b + group, 64)
#define ADD_PRODUCTS                      \
  _tile_dpbf16ps(0, 4, 6);                \
  if (C == 2) _tile_dpbf16ps(1, 4, 7);    \
  if (R == 2) _tile_dpbf16ps(2, 5, 6);    \
  if (R == 2 && C == 2) _tile_dpbf16ps(3, 5, 7)
  settle();
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  if (add) {
    _tile_loadd(0, out, row);
    if (C == 2) _tile_loadd(1, out + 16, row);
    if (R == 2) _tile_loadd(2, low, row);
    if (R == 2 && C == 2) _tile_loadd(3, low + 16, row);
  }
  for (size_t k = 0; k < K; k += DEPTH, b += DEPTH * LANES) {
    LOAD_B(b);
    if (SPLIT) {
      LOAD_A(a + k + DEPTH);
      ADD_PRODUCTS;
    }
    LOAD_A(a + k);
    ADD_PRODUCTS;
    if (SPLIT) {
      k += DEPTH, b += DEPTH * LANES;
      LOAD_B(b);
      ADD_PRODUCTS;
    }
  }
  _tile_stored(0, out, row);
  if (C == 2) _tile_stored(1, out + 16, row);
  if (R == 2) _tile_stored(2, low, row);
  if (R == 2 && C == 2) _tile_stored(3, low + 16, row);
  settle();
}

static void multiply_block(size_t rows, size_t groups, const number *a, size_t lda, const number *b,
                           size_t ldb, size_t K, float *out, size_t stride, int add) {
  if (rows == 32 && groups == 2) multiply_tiles(2, 2, a, lda, b, ldb, K, out, stride, add);
  else if (rows == 32) multiply_tiles(2, 1, a, lda, b, ldb, K, out, stride, add);
  else if (groups == 2) multiply_tiles(1, 2, a, lda, b, ldb, K, out, stride, add);
  else multiply_tiles(1, 1, a, lda, b, ldb, K, out, stride, add);
}
