/* The parts of a transformer that are not products: norms, rotation, softmax, activations, and
   their gradients. Each function works on one row. */

#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>

#include "functions.h"
#include "vectors.h"

/* --- norms ------------------------------------------------------------------------------------ */

/* (x - mean) inverse is the normalized row. */
typedef struct {
  float mean, inverse;
} Moments;

static inline Moments moments(const float *x, size_t n, int centered, float eps) {
  float sum = 0, squares;
  if (centered) SUM(sum, n, i, load(x + i), x[i]);
  const float mean = sum / (float)n;
  SUM(squares, n, i, (load(x + i) - mean) * (load(x + i) - mean), (x[i] - mean) * (x[i] - mean));
  return (Moments){mean, 1 / sqrtf(squares / (float)n + eps)};
}

/* As torch's LayerNorm has it, or RMSNorm. */
static inline Moments norm_moments(const float *x, size_t D, int layernorm) {
  return moments(x, D, layernorm, layernorm ? 1e-5f : FLT_EPSILON);
}

/* y = norm(x) gain + bias, from the moments of x; bias may be NULL. */
static inline void normalize(const float *restrict x, Moments m, size_t D, const float *gain,
                             const float *bias, float *restrict y) {
#pragma omp simd
  for (size_t d = 0; d < D; d++) y[d] = (x[d] - m.mean) * m.inverse * gain[d];
  if (!bias) return;
#pragma omp simd
  for (size_t d = 0; d < D; d++) y[d] += bias[d];
}

/* Add the gradients of x, gain and bias to dx, dgain and dbias; `row` (D,) is workspace. */
static inline void normalize_backward(const float *restrict x, Moments m, const float *restrict dy,
                                      size_t D, int layernorm, const float *restrict gain,
                                      float *restrict dx, float *restrict dgain,
                                      float *restrict dbias, float *restrict row) {
  float sum = 0, along;
#pragma omp simd
  for (size_t d = 0; d < D; d++) {
    const float normal = (x[d] - m.mean) * m.inverse;
    dgain[d] += dy[d] * normal;
    dbias[d] += dy[d];
    row[d] = dy[d] * gain[d];
  }
  if (layernorm) SUM(sum, D, d, load(row + d), row[d]);
  SUM(along, D, d, load(row + d) * (load(x + d) - m.mean), row[d] * (x[d] - m.mean));
  sum /= (float)D;
  along *= m.inverse * m.inverse / (float)D;
#pragma omp simd
  for (size_t d = 0; d < D; d++) dx[d] += m.inverse * (row[d] - sum - (x[d] - m.mean) * along);
}

/* --- queries and keys ------------------------------------------------------------------------- */

/* x /= rms(x); returns 1 / rms(x). */
static inline float normalize_vector(float *x, size_t K) {
  const float inverse = moments(x, K, 0, FLT_EPSILON).inverse;
#pragma omp simd
  for (size_t i = 0; i < K; i++) x[i] *= inverse;
  return inverse;
}

/* Turn dx, the gradient of the normalized x, into the gradient of x before normalize_vector. */
static inline void normalize_vector_backward(const float *x, float inverse, size_t K, float *dx) {
  float along;
  SUM(along, K, i, load(x + i) * load(dx + i), x[i] * dx[i]);
  along /= (float)K;
#pragma omp simd
  for (size_t i = 0; i < K; i++) dx[i] = inverse * (dx[i] - x[i] * along);
}

/* Rotate the pairs (x_i, x_{i + half}); with direction -1, back. */
static inline void rotate(float *restrict x, const float *restrict cosine,
                          const float *restrict sine, size_t half,
                          float direction) {
#pragma omp simd
  for (size_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half], s = direction * sine[i];
    x[i] = a * cosine[i] - b * s;
    x[i + half] = a * s + b * cosine[i];
  }
}

/* --- attention -------------------------------------------------------------------------------- */

/* x = exp(scale (x - top)) */
static inline void exponentials(float *x, size_t n, float top, float scale) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) x[i] = power_of_e((x[i] - top) * scale);
}

static inline void scale_row(float *x, size_t n, float factor) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) x[i] *= factor;
}

/* --- the MLP's activation --------------------------------------------------------------------- */

enum { GELU, RELU2, SWIGLU };

/* A function's value and its derivative. */
typedef struct {
  float y, slope;
} Value;

/* x Phi(x). Phi(x) = (1 + erf(x / sqrt 2)) / 2, by Abramowitz & Stegun 7.1.26. */
static inline Value gelu(float x) {
  const float z = fabsf(x) * .70710678f, t = 1 / (1 + .3275911f * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - .284496736f;
  p = p * t + .254829592f;
  const float e = power_of_e(-z * z), tail = .5f * p * t * e; /* Phi(-|x|) */
  const float cdf = x < 0 ? tail : 1 - tail;
  return (Value){x * cdf, cdf + x * .39894228f * e};
}

static inline Value squared_relu(float x) {
  const float positive = x < 0 ? 0 : x; /* NaN stays */
  return (Value){positive * positive, 2 * positive};
}

/* x sigmoid(x). */
static inline Value silu(float x) {
  const float s = sigmoid(x);
  return (Value){x * s, s + x * sigmoid_slope(s)};
}

/* y (F,) from u, which is up x (F,), or for SwiGLU gate x and up x (2 F,). If `slopes` is not NULL,
   it gets the derivatives of y by u. */
static inline void activate(int kind, const float *restrict u, size_t F, float *restrict y,
                            float *restrict slopes) {
  switch (kind) {
    case GELU:
#pragma omp simd
      for (size_t i = 0; i < F; i++) {
        const Value a = gelu(u[i]);
        y[i] = a.y;
        if (slopes) slopes[i] = a.slope;
      }
      break;
    case RELU2:
#pragma omp simd
      for (size_t i = 0; i < F; i++) {
        const Value a = squared_relu(u[i]);
        y[i] = a.y;
        if (slopes) slopes[i] = a.slope;
      }
      break;
    default:
#pragma omp simd
      for (size_t i = 0; i < F; i++) {
        const Value gate = silu(u[i]);
        y[i] = gate.y * u[F + i];
        if (slopes) slopes[i] = u[F + i] * gate.slope, slopes[F + i] = gate.y;
      }
  }
}
