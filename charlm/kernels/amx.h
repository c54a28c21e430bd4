/* What the kernels share: bfloat16 numbers, and the tiles that AMX multiplies. */

#include <immintrin.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint16_t bf16;

enum { TILE = 16, DEPTH = 32, TILE_SIZE = TILE * DEPTH }; /* an AMX tile: 16 rows of 32 bf16 */

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

static inline void configure_tiles(void) {
  struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles;
  memset(&tiles, 0, sizeof tiles);
  tiles.palette = 1;
  for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = TILE;
  _tile_loadconfig(&tiles);
}

/* Have everything in memory before tiles are loaded: some compilers do not know that they read it. */
static inline void settle(void) { __asm__ volatile("" ::: "memory"); }
