/* The arithmetic that all kernels use, against loops in double: products, rows times a matrix, and
   functions. It needs nothing but a C compiler, so it also runs for another CPU in an emulator.

   Prints what is wrong; the exit status is the number of errors. */

#include "linear.h"
#include "functions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int errors;

/* Whether x is within `tolerance` of `exact`; what both compute may be infinite or not a number. */
static void check(double x, double exact, double tolerance, const char *what, size_t i, size_t j) {
  const int same = x == exact || (isnan(x) && isnan(exact));
  if (same || fabs(x - exact) <= tolerance) return;
  if (errors++ < 20) printf("%s at %zu, %zu: %.9g, not %.9g\n", what, i, j, x, exact);
}

/* A number in [-1, 1), the same in every run. */
static float next_number(void) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)((double)(state >> 8) / (1 << 23) - 1);
}

static float *new_matrix(size_t rows, size_t columns) {
  float *m = malloc((rows * columns + 1) * sizeof *m);
  for (size_t i = 0; i < rows * columns; i++) m[i] = next_number();
  return m;
}

static double *exact_product(const float *A, const float *B, size_t M, size_t N, size_t K) {
  double *out = calloc(M * N + 1, sizeof *out);
  for (size_t i = 0; i < M; i++)
    for (size_t k = 0; k < K; k++)
      for (size_t j = 0; j < N; j++) out[i * N + j] += (double)A[i * K + k] * B[k * N + j];
  return out;
}

static float *transposed(const float *m, size_t rows, size_t columns) {
  float *t = malloc((rows * columns + 1) * sizeof *t);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < columns; j++) t[j * rows + i] = m[i * columns + j];
  return t;
}

/* C (M, N) = A B, or +=, by tiles.h, with each factor as it is and from its transpose. What lies
   beside C in a wider array must stay. */
static void check_product(size_t M, size_t N, size_t K) {
  const size_t lda = round_up(K, DEPTH), stride = N + 3;
  float *A = new_matrix(M, K), *B = new_matrix(K, N), *C = new_matrix(M, stride);
  float *A_t = transposed(A, M, K), *B_t = transposed(B, K, N);
  number *a = malloc(packed_size(M, K) * sizeof *a), *b = malloc(packed_size(N, K) * sizeof *b);
  double *exact = exact_product(A, B, M, N, K);
  float *out = malloc(M * stride * sizeof *out);
  for (int way = 0; way < 8; way++) {
    const int add = way & 4;
    memcpy(out, C, M * stride * sizeof *out);
    if (way & 1) left_t(A_t, M, M, K, a, lda);
    else left(A, K, M, K, a, lda);
    if (way & 2) right_t(B_t, K, N, K, b);
    else right(B, N, N, K, b);
    multiply(a, lda, b, M, N, lda, out, stride, add);
    for (size_t i = 0; i < M; i++)
      for (size_t j = 0; j < stride; j++) {
        const double before = j < N && !add ? 0 : C[i * stride + j];
        const double sum = before + (j < N ? exact[i * N + j] : 0);
        check(out[i * stride + j], sum, j < N ? 1e-6 * (double)(K + 1) : 0, "product", i, j);
      }
  }
  free(A), free(B), free(C), free(A_t), free(B_t), free(a), free(b), free(exact), free(out);
}

static void nothing(void) {}

/* y = W x + b by linear.h, of few rows and of packed ones, with the outputs in gates. */
static void check_linear(size_t N, size_t gates, size_t per_gate, size_t I) {
  const size_t O = gates * per_gate;
  float *W = new_matrix(O, I), *x = new_matrix(N, I), *b = new_matrix(1, O), *y = new_matrix(N, O);
  float *W_t = transposed(W, O, I);
  double *exact = exact_product(x, W_t, N, O, I);
  Matrix m = {O, I, gates, W, b, NULL};
  number *packed = malloc(matrix_bytes(&m) + 1);
  const Rows rows = {N, I, x, malloc(rows_bytes(N, I) + 1)};
  pack_matrix(&m, packed);
  for (int many = 0; many < 2; many++) {
    m.packed = many ? packed : NULL;
    for (int thread = 0; thread < 3; thread++) pack_rows(&m, &rows, thread, 3);
    for (size_t g = 0; g < gates; g++)
      linear(&m, &rows, g * per_gate, (g + 1) * per_gate, y + g * per_gate, O, 0);
    for (size_t i = 0; i < N; i++)
      for (size_t o = 0; o < O; o++)
        check(y[i * O + o], exact[i * O + o] + b[o], 1e-6 * (double)(I + 1),
              many ? "packed rows" : "rows", i, o);
  }
  free(W), free(x), free(b), free(y), free(W_t), free(exact), free(packed), free(rows.packed);
}

static void check_functions(void) {
  const float special[] = {0, -0.f, 1e-30f, 9, -9, 30, -30, 1e30f, -1e30f, INFINITY, -INFINITY,
                           NAN};
  enum { SPECIAL = sizeof special / sizeof *special, STEPS = 60001 };
  for (size_t i = 0; i < SPECIAL + STEPS; i++) {
    const float x = i < SPECIAL ? special[i] : ((float)(i - SPECIAL) - 30000) / 1000;
    const double clamped = x < -28 ? -28 : x > 28 ? 28 : x, e = exp(clamped);
    check(power_of_e(x), e, 4e-7 * e, "power_of_e", i, 0);
    check(hyperbolic_tangent(x), tanh(x), 4e-7, "hyperbolic_tangent", i, 0);
    const double s = 1 / (1 + exp(-(double)x));
    check(sigmoid(x), s, 4e-7, "sigmoid", i, 0);
    float first, second;
    sigmoids(x, .5f, &first, &second);
    check(first, s, 4e-7, "sigmoids", i, 0);
    sigmoid_and_tanh(x, x, &first, &second);
    check(first, s, 4e-7, "sigmoid_and_tanh", i, 0);
    check(second, tanh(x), 4e-7, "sigmoid_and_tanh", i, 1);
  }
}

int main(void) {
  if (!tiles_allowed()) return puts("this CPU is not supported"), 1;
  tiles_begin();
  openmp.barrier = nothing; /* one thread does the parts of three, one after the other */
  const size_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 33, 47, 49, 65};
  enum { SIZES = sizeof sizes / sizeof *sizes };
  for (size_t m = 0; m < SIZES; m += 2)
    for (size_t n = 0; n < SIZES; n++)
      for (size_t k = (m + n) % 3; k < SIZES; k += 3) check_product(sizes[m], sizes[n], sizes[k]);
  for (size_t d = 0; d < SIZES; d++) {
    check_linear(sizes[d], 1, sizes[SIZES - 1 - d], sizes[(d + 3) % SIZES]);
    check_linear(11, 4, sizes[d], sizes[d]);
  }
  tiles_end();
  check_functions();
  if (errors) printf("%d errors with %d lanes\n", errors, LANES);
  return errors > 99 ? 99 : errors;
}
