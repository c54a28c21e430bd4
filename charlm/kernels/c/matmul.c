/* A product of matrices by all threads: out (M, N) = A (M, K) B (K, N), in float32 or bfloat16.

   Threads share the rows. They pack B together; each packs its own rows of A, a few at a time. */

#include "threads.h"
#include "tiles.h"

int matmul_allowed(void) { return tiles_allowed(); }

enum { PIECE = 32 }; /* rows of A packed at a time, which stay in the cache */

typedef struct {
  size_t M, N, K;
  const float *A, *B;               /* or their transposes */
  size_t A_stride, B_stride, stride; /* between the rows of A, B and out */
  int A_transposed, B_transposed;
  float *out;
  number *packed;                   /* workspace, see matmul_workspace */
} Product;

/* The numbers in B, and in a thread's piece of A. */
static size_t size_of_B(const Product *p) { return packed_size(p->N, p->K); }
static size_t size_of_piece(const Product *p) { return packed_size(PIECE, p->K); }

/* The size of the workspace in bytes. */
size_t matmul_workspace(int threads, const Product *p) {
  return (size_of_B(p) + (size_t)threads * size_of_piece(p)) * sizeof(number);
}

static void pack_B(const Product *p, int me, int of) {
  const size_t groups = round_up(p->N, LANES) / LANES, K = round_up(p->K, DEPTH);
  const size_t from = groups * (size_t)me / (size_t)of * LANES;
  const size_t to = smaller(groups * (size_t)(me + 1) / (size_t)of * LANES, p->N);
  if (from >= to) return;
  number *packed = p->packed + from * K;
  if (p->B_transposed) right_t(p->B + from * p->B_stride, p->B_stride, to - from, p->K, packed);
  else right(p->B + from, p->B_stride, to - from, p->K, packed);
}

static void work(const void *job, int me, int of) {
  const Product *p = job;
  const size_t K = round_up(p->K, DEPTH), pieces = round_up(p->M, PIECE) / PIECE;
  number *piece = p->packed + size_of_B(p) + (size_t)me * size_of_piece(p);
  pack_B(p, me, of);
  barrier(of);
  const size_t to = smaller(pieces * (size_t)(me + 1) / (size_t)of * PIECE, p->M);
  for (size_t i = pieces * (size_t)me / (size_t)of * PIECE; i < to; i += PIECE) {
    const size_t rows = smaller(PIECE, to - i);
    if (p->A_transposed) left_t(p->A + i, p->A_stride, rows, p->K, piece, K);
    else left(p->A + i * p->A_stride, p->A_stride, rows, p->K, piece, K);
    multiply(piece, K, p->packed, rows, p->N, K, p->out + i * p->stride, p->stride, 0);
  }
}

void matmul(int threads, const Product *p) {
  on_threads(threads, tiles_begin, tiles_end, work, p);
}
