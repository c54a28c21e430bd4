/* How the factors of a product A B are stored: A (M, K), B (K, N), K rounded up to DEPTH.

   A: rows of numbers, `lda` apart. Memory has LANES rows or a multiple; those after M are not used.
   B: groups of LANES columns; a group has its elements along k, LANES of them for each.

   Sources are matrices of float32, or of numbers, with rows `stride` apart. What is missing is
   filled up with 0. */

#include "vectors.h"

INLINE size_t round_up(size_t n, size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* `size` rows or columns of a factor in a source, each K long; `along`: k runs along its rows. */
typedef struct {
  const float *from;
  size_t stride, size, K;
  int along;
  const number *numbers; /* the source where it is not `from` */
} Source;

/* Load LANES rows or columns from i on, DEPTH numbers of each from k on. `row` gets LANES elements
   for each i, or for each element along k if k does not run along the rows of the source. */
INLINE void load_block(const Source *s, size_t i, size_t k, elements row[LANES]) {
  number copy[DEPTH * LANES];
  const size_t step = s->along ? s->stride : 1, k_step = s->along ? 1 : s->stride;
  const size_t start = i * step + k * k_step;
  const number *numbers = s->numbers ? s->numbers + start : NULL;
  size_t width = s->stride;
  if (i + LANES > s->size || k + DEPTH > s->K) {
    memset(copy, 0, sizeof copy);
    width = s->along ? DEPTH : LANES;
    for (size_t r = 0; r < smaller(LANES, s->size - i); r++)
      for (size_t c = 0; c < smaller(DEPTH, s->K - k); c++) {
        const size_t at = r * step + c * k_step;
        copy[s->along ? r * width + c : c * width + r] =
            numbers ? numbers[at] : to_number(s->from[start + at]);
      }
    numbers = copy;
  }
  if (numbers) {
    UNROLL
    for (size_t r = 0; r < LANES; r++)
      row[r] = s->along ? numbers_along_k(numbers + r * width)
                        : numbers_across_k(numbers + r * PER_ELEMENT * width, width);
  } else {
    const float *from = s->from + start;
    UNROLL
    for (size_t r = 0; r < LANES; r++)
      row[r] = s->along ? along_k(from + r * width)
                        : across_k(from + r * PER_ELEMENT * width, width);
  }
}

/* Store elements in rows that are `stride` numbers apart. */
INLINE void store_block(const elements row[LANES], number *to, size_t stride) {
  UNROLL
  for (size_t r = 0; r < LANES; r++) *(loose_elements *)(to + r * stride) = row[r];
}

/* The same with a row for each i, or with `transposed`, for each element along k. */
INLINE void pack_block(const Source *s, size_t i, size_t k, int transposed, number *to,
                       size_t stride) {
  elements row[LANES];
  load_block(s, i, k, row);
  if (s->along == transposed) transpose(row);
  store_block(row, to, stride);
}

/* The numbers in a factor of `size` rows or columns. */
INLINE size_t packed_size(size_t size, size_t K) {
  return round_up(size, LANES) * round_up(K, DEPTH);
}

/* Blocks in the order of the source's rows: strides between them are slow. */
#define EACH_BLOCK(s, i, k, PACK)                              \
  if ((s).along)                                               \
    for (size_t i = 0; i < (s).size; i += LANES)               \
      for (size_t k = 0; k < (s).K; k += DEPTH) PACK;          \
  else                                                         \
    for (size_t k = 0; k < (s).K; k += DEPTH)                  \
      for (size_t i = 0; i < (s).size; i += LANES) PACK;

/* Pack a left factor into rows `lda` apart. */
INLINE void pack_left(Source s, number *to, size_t lda) {
  EACH_BLOCK(s, i, k, pack_block(&s, i, k, 0, to + i * lda + k, lda))
}

/* Pack a right factor into groups ldb LANES numbers apart. */
INLINE void pack_right_part(Source s, number *to, size_t ldb) {
  EACH_BLOCK(s, i, k, pack_block(&s, i, k, 1, to + i * ldb + k * LANES, DEPTH))
}

/* Pack a right factor. */
INLINE void pack_right(Source s, number *to) { pack_right_part(s, to, round_up(s.K, DEPTH)); }

static void left(const float *A, size_t stride, size_t M, size_t K, number *to, size_t lda) {
  pack_left((Source){A, stride, M, K, 1}, to, lda);
}
/* The source is A^T (K, M). */
static void left_t(const float *A, size_t stride, size_t M, size_t K, number *to, size_t lda) {
  pack_left((Source){A, stride, M, K, 0}, to, lda);
}
static void right(const float *B, size_t stride, size_t N, size_t K, number *to) {
  pack_right((Source){B, stride, N, K, 0}, to);
}
/* The source is B^T (N, K). */
static void right_t(const float *B, size_t stride, size_t N, size_t K, number *to) {
  pack_right((Source){B, stride, N, K, 1}, to);
}
