/* Products of matrices, on every CPU. What a kind of CPU must provide, in amx.h or vec.h:

     number, PER_ELEMENT     what factors are stored as (vectors.h)
     LANES, DEPTH            columns in a group, and numbers along k, to which factors are padded
     ROWS, GROUPS, ROW_STEP  the largest block, and the rows that a block is a multiple of
     tiles_allowed()         whether this process may use it
     tiles_begin(), _end()   what a thread does before its products, and after
     multiply_block(...)     out (rows, groups LANES) = a b, or += where `add`

   How factors are stored is in pack.h. A sum has one order, whatever block it is in. */

#if defined __AMX_BF16__ || defined __AMXBF16__ /* as older versions of clang call it */
#include "amx.h"
#else
#include "vec.h"
#endif

enum { WIDTH = GROUPS * LANES };

/* Return the groups of the next block when `left` groups remain, so that no block is very small. */
INLINE size_t next_groups(size_t left) {
  const size_t blocks = (left + GROUPS - 1) / GROUPS;
  return (left + blocks - 1) / blocks;
}

/* multiply_block at the edge of out: only rows and columns that out has are written. */
static void multiply_edge(size_t M, size_t N, const number *a, size_t lda, const number *b,
                          size_t ldb, size_t K, float *out, size_t stride, int add) {
  const size_t rows = round_up(M, ROW_STEP), groups = round_up(N, LANES) / LANES;
  float all[ROWS * WIDTH] = {0};
  for (size_t i = 0; i < M && add; i++)
    memcpy(all + i * WIDTH, out + i * stride, N * sizeof(float));
  multiply_block(rows, groups, a, lda, b, ldb, K, all, WIDTH, add);
  for (size_t i = 0; i < M; i++) memcpy(out + i * stride, all + i * WIDTH, N * sizeof(float));
}

/* out (M, N) = a b, or += where `add`; K is a multiple of DEPTH. Rows of a are lda apart, groups of
   b ldb LANES numbers, rows of out `stride`. */
static void multiply_part(const number *a, size_t lda, const number *b, size_t ldb, size_t M,
                          size_t N, size_t K, float *out, size_t stride, int add) {
  size_t groups;
  for (size_t j = 0; j < N; j += groups * LANES) {
    groups = next_groups(round_up(N - j, LANES) / LANES);
    const size_t columns = smaller(groups * LANES, N - j);
    const number *const group = b + j * ldb;
    for (size_t i = 0; i < M; i += ROWS) {
      const size_t rows = smaller(ROWS, M - i);
      const int whole = rows % ROW_STEP == 0 && columns == groups * LANES;
      float *const at = out + i * stride + j;
      if (whole) multiply_block(rows, groups, a + i * lda, lda, group, ldb, K, at, stride, add);
      else multiply_edge(rows, columns, a + i * lda, lda, group, ldb, K, at, stride, add);
    }
  }
}

/* multiply_part with all of a packed b. */
static void multiply(const number *a, size_t lda, const number *b, size_t M, size_t N, size_t K,
                     float *out, size_t stride, int add) {
  multiply_part(a, lda, b, K, M, N, K, out, stride, add);
}
