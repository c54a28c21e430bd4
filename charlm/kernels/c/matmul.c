/* A product of matrices by all threads: out (M, N) = A (M, K) B (K, N), in float32 or bfloat16.

   Threads share the rows. They pack B together; each packs its own rows of A, a few at a time. */

#include "threads.h"
#include "tiles.h"

int matmul_allowed(void) { return tiles_allowed(); }

enum { PIECE = 32 };  /* rows of A that are packed at a time; these and B stay in the cache */
enum { CHUNK = 512 }; /* the length along k of what is packed */

typedef struct {
  size_t M, N, K;
  const float *A, *B;               /* or their transposes */
  size_t A_stride, B_stride, stride; /* between the rows of A, B and out */
  int A_transposed, B_transposed;
  float *out;
  number *packed;                   /* workspace, see matmul_workspace */
} Product;

/* The numbers in a thread's piece of A. */
static size_t size_of_piece(const Product *p) { return packed_size(PIECE, smaller(CHUNK, p->K)); }

/* The size of the workspace in bytes. */
size_t matmul_workspace(int threads, const Product *p) {
  return (packed_size(p->N, p->K) + (size_t)threads * size_of_piece(p)) * sizeof(number);
}

/* Pack a thread's share of the columns of B from k on, `length` of each. */
static void pack_B(const Product *p, size_t k, size_t length, int thread, int threads, number *to) {
  size_t from, end;
  partition(p->N, LANES, thread, threads, &from, &end);
  if (from >= end) return;
  const size_t stride = p->B_stride;
  to += from * round_up(length, DEPTH);
  if (p->B_transposed) right_t(p->B + from * stride + k, stride, end - from, length, to);
  else right(p->B + k * stride + from, stride, end - from, length, to);
}

static void pack_A(const Product *p, size_t i, size_t rows, size_t k, size_t length, number *to) {
  const size_t stride = p->A_stride, padded = round_up(length, DEPTH);
  if (p->A_transposed) left_t(p->A + k * stride + i, stride, rows, length, to, padded);
  else left(p->A + i * stride + k, stride, rows, length, to, padded);
}

static void work(const void *job, int thread, int threads) {
  const Product *p = job;
  const size_t N = round_up(p->N, LANES);
  size_t from, end;
  partition(p->M, PIECE, thread, threads, &from, &end);
  number *piece = p->packed + packed_size(p->N, p->K) + (size_t)thread * size_of_piece(p);
  for (size_t k = 0; k < p->K; k += CHUNK)
    pack_B(p, k, smaller(CHUNK, p->K - k), thread, threads, p->packed + k * N);
  barrier(threads);
  for (size_t k = 0; k < p->K; k += CHUNK) {
    const size_t length = smaller(CHUNK, p->K - k), padded = round_up(length, DEPTH);
    for (size_t i = from; i < end; i += PIECE) {
      const size_t rows = smaller(PIECE, end - i);
      pack_A(p, i, rows, k, length, piece);
      multiply(piece, padded, p->packed + k * N, rows, p->N, padded, p->out + i * p->stride,
               p->stride, k > 0);
    }
  }
}

void matmul(int threads, const Product *p) {
  on_threads(threads, tiles_begin, tiles_end, work, p);
}
