/* What the kernels share: bfloat16 numbers, the tiles that AMX multiplies, and threads. */

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static inline void configure_tiles(void) {
  struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } tiles;
  memset(&tiles, 0, sizeof tiles);
  tiles.palette = 1;
  for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = TILE;
  _tile_loadconfig(&tiles);
}

/* Have everything in memory before tiles are loaded: some compilers do not know that they read it. */
static inline void settle(void) { __asm__ volatile("" ::: "memory"); }

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

/* --- threads ----------------------------------------------------------------------------------- */

enum { MOST_THREADS = 64 };

/* Some threads at work on one job; each knows its number. */
typedef struct Team {
  void (*work)(struct Team *, int me);
  void *job;
  int threads;
  atomic_int arrived, round;
} Team;

/* Wait until all of them are here. */
static inline void meet(Team *team) {
  const int round = atomic_load(&team->round);
  if (atomic_fetch_add(&team->arrived, 1) == team->threads - 1) {
    atomic_store(&team->arrived, 0);
    atomic_store(&team->round, round + 1);
  } else {
    for (int i = 0; atomic_load(&team->round) == round; i++)
      if (i < 2000) _mm_pause();
      else sched_yield(); /* the other may be waiting for this core */
  }
}

typedef struct { Team *team; int me; } Member;

static void *run_member(void *given) {
  const Member *member = given;
  configure_tiles();
  member->team->work(member->team, member->me);
  _tile_release();
  return NULL;
}

/* Returns 0, or what keeps a thread from starting; those that wait for it end with the process. */
static inline int run_team(int threads, void (*work)(Team *, int), void *job) {
  Team team = {.work = work, .job = job, .threads = threads < MOST_THREADS ? threads : MOST_THREADS};
  Member members[MOST_THREADS];
  pthread_t others[MOST_THREADS];
  for (int i = 0; i < team.threads; i++) members[i] = (Member){&team, i};
  for (int i = 1; i < team.threads; i++) {
    const int refused = pthread_create(&others[i], NULL, run_member, &members[i]);
    if (refused) return refused;
  }
  run_member(&members[0]);
  for (int i = 1; i < team.threads; i++) pthread_join(others[i], NULL);
  return 0;
}
