/* The parts of a transformer that are not products: norms, rotation, softmax, activations, and
   their gradients. Each function works on one row. */

#include <float.h>
#include <math.h>
#include <stddef.h>

#include "functions.h"

/* --- norms ------------------------------------------------------------------------------------ */

/* (x - mean) inverse is the normalized row. */
typedef struct {
  float mean, inverse;
} Moments;

static inline Moments moments(const float *x, size_t n, int centered, float eps) {
  float sum = 0, squares = 0;
  if (centered) {
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += x[i];
  }
  const float mean = sum / (float)n;
#pragma omp simd reduction(+ : squares)
  for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
  return (Moments){mean, 1 / sqrtf(squares / (float)n + eps)};
}

/* As torch's LayerNorm has it, or RMSNorm. */
static inline Moments norm_moments(const float *x, size_t D, int layernorm) {
  return moments(x, D, layernorm, layernorm ? 1e-5f : FLT_EPSILON);
}

/* y = norm(x) gain + bias; bias may be NULL. */
static inline void normalize(const float *x, size_t D, int layernorm, const float *gain,
                             const float *bias, float *restrict y) {
  const Moments m = norm_moments(x, D, layernorm);
#pragma omp simd
  for (size_t d = 0; d < D; d++) y[d] = (x[d] - m.mean) * m.inverse * gain[d];
  if (!bias) return;
#pragma omp simd
  for (size_t d = 0; d < D; d++) y[d] += bias[d];
}

/* From dy to dx +=, dgain += and dbias +=. */
static inline void normalize_backward(const float *restrict x, const float *restrict dy, size_t D,
                                      int layernorm, const float *restrict gain,
                                      float *restrict dx, float *restrict dgain,
                                      float *restrict dbias) {
  const Moments m = norm_moments(x, D, layernorm);
  float sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
  for (size_t d = 0; d < D; d++) {
    const float normal = (x[d] - m.mean) * m.inverse, g = dy[d] * gain[d];
    dgain[d] += dy[d] * normal;
    dbias[d] += dy[d];
    sum += g;
    along += g * normal;
  }
  sum = layernorm ? sum / (float)D : 0;
  along /= (float)D;
#pragma omp simd
  for (size_t d = 0; d < D; d++) {
    const float normal = (x[d] - m.mean) * m.inverse;
    dx[d] += m.inverse * (dy[d] * gain[d] - sum - normal * along);
  }
}

/* --- queries and keys ------------------------------------------------------------------------- */

/* x /= rms(x); returns 1 / rms(x). */
static inline float normalize_vector(float *x, size_t K) {
  const float inverse = moments(x, K, 0, FLT_EPSILON).inverse;
#pragma omp simd
  for (size_t i = 0; i < K; i++) x[i] *= inverse;
  return inverse;
}

/* From the gradient dx by the normalized x to that by what it was. */
static inline void normalize_vector_backward(const float *x, float inverse, size_t K, float *dx) {
  float along = 0;
#pragma omp simd reduction(+ : along)
  for (size_t i = 0; i < K; i++) along += x[i] * dx[i];
  along /= (float)K;
#pragma omp simd
  for (size_t i = 0; i < K; i++) dx[i] = inverse * (dx[i] - x[i] * along);
}

/* Rotate the pairs (x_i, x_{i + half}); with direction -1, back. */
static inline void rotate(float *x, const float *cosine, const float *sine, size_t half,
                          float direction) {
#pragma omp simd
  for (size_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half], s = direction * sine[i];
    x[i] = a * cosine[i] - b * s;
    x[i + half] = a * s + b * cosine[i];
  }
}

/* --- attention -------------------------------------------------------------------------------- */

/* Scores (n,) to softmax(scale scores). */
static inline void softmax(float *scores, size_t n, float scale) {
  float top = scores[0], sum = 0;
#pragma omp simd reduction(max : top)
  for (size_t j = 0; j < n; j++) top = scores[j] > top ? scores[j] : top;
#pragma omp simd reduction(+ : sum)
  for (size_t j = 0; j < n; j++) {
    scores[j] = power_of_e((scores[j] - top) * scale);
    sum += scores[j];
  }
  const float inverse = 1 / sum;
#pragma omp simd
  for (size_t j = 0; j < n; j++) scores[j] *= inverse;
}

/* --- the MLP's activation --------------------------------------------------------------------- */

enum { GELU, RELU2, SWIGLU };

/* x Phi(x) and its slope. Phi(x) = (1 + erf(x / sqrt 2)) / 2, by Abramowitz & Stegun 7.1.26. */
static inline float gelu(float x, float *slope) {
  const float z = fabsf(x) * .70710678f, t = 1 / (1 + .3275911f * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - .284496736f;
  p = p * t + .254829592f;
  const float e = power_of_e(-z * z), tail = .5f * p * t * e; /* Phi(-|x|) */
  const float cdf = x < 0 ? tail : 1 - tail;
  *slope = cdf + x * .39894228f * e;
  return x * cdf;
}

static inline float squared_relu(float x, float *slope) {
  const float positive = x < 0 ? 0 : x; /* NaN stays */
  *slope = 2 * positive;
  return positive * positive;
}

/* x sigmoid(x) and its slope. */
static inline float silu(float x, float *slope) {
  const float s = sigmoid(x);
  *slope = s + x * sigmoid_slope(s);
  return x * s;
}

/* y (F,) from up x (F,), or for SwiGLU from gate x and up x (2 F,). */
static inline void activate(int kind, const float *restrict u, size_t F, float *restrict y) {
  float slope;
  switch (kind) {
    case GELU:
#pragma omp simd private(slope)
      for (size_t i = 0; i < F; i++) y[i] = gelu(u[i], &slope);
      break;
    case RELU2:
#pragma omp simd private(slope)
      for (size_t i = 0; i < F; i++) y[i] = squared_relu(u[i], &slope);
      break;
    default:
#pragma omp simd private(slope)
      for (size_t i = 0; i < F; i++) y[i] = silu(u[i], &slope) * u[F + i];
  }
}

/* As activate, and from the gradient dy by y to that by u, du. */
static inline void activate_backward(int kind, const float *restrict u, const float *restrict dy,
                                     size_t F, float *restrict y, float *restrict du) {
  float slope;
  switch (kind) {
    case GELU:
#pragma omp simd private(slope)
      for (size_t i = 0; i < F; i++) y[i] = gelu(u[i], &slope), du[i] = dy[i] * slope;
      break;
    case RELU2:
#pragma omp simd private(slope)
      for (size_t i = 0; i < F; i++) y[i] = squared_relu(u[i], &slope), du[i] = dy[i] * slope;
      break;
    default:
#pragma omp simd private(slope)
      for (size_t i = 0; i < F; i++) {
        const float gate = silu(u[i], &slope);
        y[i] = gate * u[F + i];
        du[i] = dy[i] * u[F + i] * slope;
        du[F + i] = dy[i] * gate;
      }
  }
}
