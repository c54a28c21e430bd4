/* y = W x for the page, in WebAssembly. W (O, I) in float32, x (I) and y (O) in float64. Shapes are
   those of docs/ARCHITECTURE.md. scripts/build_wasm compiles this file to affine.wasm.

   Each row has two sums, of its even and of its odd elements; of an odd number, the last one is
   added at the end. `product` in math.js does the same, so both give the same bits. */

typedef double Pair __attribute__((vector_size(16), aligned(8)));
typedef float HalfPair __attribute__((vector_size(8), aligned(4)));

static inline Pair wide(const float *w) {
  return __builtin_convertvector(*(const HalfPair *)w, Pair);
}

/* R rows at once: x is read once for them, and no sum waits for the one before. */
static inline __attribute__((always_inline)) void rows(const float *W, const double *x, double *y,
                                                       int I, int R) {
  Pair sums[4] = {0};
  int i = 0;
  for (; i + 2 <= I; i += 2)
    for (int r = 0; r < R; r++) sums[r] += wide(W + r * I + i) * *(const Pair *)(x + i);
  for (int r = 0; r < R; r++) {
    y[r] = sums[r][0] + sums[r][1];
    if (i < I) y[r] += W[r * I + i] * x[i];
  }
}

__attribute__((export_name("affine"))) void affine(const float *W, const double *x, double *y,
                                                   int I, int O) {
  int o = 0;
  for (; o + 4 <= O; o += 4) rows(W + o * I, x, y + o, I, 4);
  for (; o < O; o++) rows(W + o * I, x, y + o, I, 1);
}
