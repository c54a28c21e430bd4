/* The products of tiles.h in vector registers: float32, or bfloat16 by AVX512-BF16. */

#include "pack.h"

/* Sums in registers: ROWS by GROUPS vectors. 32 registers (AVX-512, NEON) have room for 24. */
#if defined __AVX512F__ || defined __aarch64__
enum { ROWS = 8, GROUPS = 3, ROW_STEP = 1 };
#else
enum { ROWS = 4, GROUPS = 3, ROW_STEP = 1 };
#endif

static int tiles_allowed(void) { return 1; }
static void tiles_begin(void) {}
static void tiles_end(void) {}

/* sum + a b for the element a and each lane of b. */
INLINE vec add_product(vec sum, const number *a, vec b) {
#if defined __AVX512BF16__
  int32_t element;
  memcpy(&element, a, sizeof element);
  return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(element), (__m512bh)b);
#else
  return sum + *a * b;
#endif
}

INLINE void multiply_rows(const size_t R, const size_t C, const number *a, size_t lda,
                          const number *b, size_t ldb, size_t K, float *out, size_t stride,
                          int add) {
  vec sum[ROWS][GROUPS];
  UNROLL
  for (size_t i = 0; i < R * C; i++) sum[i / C][i % C] = (vec){0};
  for (size_t k = 0; k < K; k += PER_ELEMENT) {
    vec column[GROUPS];
    UNROLL
    for (size_t c = 0; c < C; c++) column[c] = *(const loose *)(b + (c * ldb + k) * LANES);
    UNROLL
    for (size_t r = 0; r < R; r++)
      UNROLL
      for (size_t c = 0; c < C; c++) sum[r][c] = add_product(sum[r][c], a + r * lda + k, column[c]);
  }
  UNROLL
  for (size_t i = 0; i < R * C; i++) {
    loose *to = (loose *)(out + i / C * stride + i % C * LANES);
    if (add) sum[i / C][i % C] += *to;
    *to = sum[i / C][i % C];
  }
}

/* Not inlined: within a larger function the sums do not stay in registers. */
#define SHAPE(R, C)                                                                             \
  static __attribute__((noinline)) void multiply_##R##_##C(                                     \
      const number *a, size_t lda, const number *b, size_t ldb, size_t K, float *out,           \
      size_t stride, int add) {                                                                \
    multiply_rows(R, C, a, lda, b, ldb, K, out, stride, add);                                  \
  }
#define SHAPES(R) SHAPE(R, 1) SHAPE(R, 2) SHAPE(R, 3)
SHAPES(1) SHAPES(2) SHAPES(4)
#if defined __AVX512F__ || defined __aarch64__
SHAPES(8)
#endif

typedef void Shape(const number *, size_t, const number *, size_t, size_t, float *, size_t, int);

static void multiply_block(size_t rows, size_t groups, const number *a, size_t lda, const number *b,
                           size_t ldb, size_t K, float *out, size_t stride, int add) {
#define WIDTHS(R) {multiply_##R##_1, multiply_##R##_2, multiply_##R##_3}
  static Shape *const shapes[][GROUPS] = {WIDTHS(1), WIDTHS(2), WIDTHS(4),
#if defined __AVX512F__ || defined __aarch64__
                                          WIDTHS(8)
#endif
  };
  for (size_t done = 0; done < rows;) {
    size_t size = 0; /* 2^size rows at a time */
    while (size < sizeof shapes / sizeof *shapes - 1 && (size_t)2 << size <= rows - done) size++;
    shapes[size][groups - 1](a + done * lda, lda, b, ldb, K, out + done * stride, stride, add);
    done += (size_t)1 << size;
  }
}
