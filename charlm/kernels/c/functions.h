/* Functions of one number that a compiler can apply to a vector of them. */

#pragma once

#include <stdint.h>
#include <string.h>

/* e^x to a few units in the last place, |x| <= 28, and beyond as there: 2^n e^r, r in
   [-ln2/2, ln2/2] by its Taylor series. Three of them can be multiplied without overflow. */
static inline float power_of_e(float x) {
  x = x < -28.f ? -28.f : x > 28.f ? 28.f : x;
  /* of NaN, n is 0 and r NaN; converting NaN to an integer is undefined */
  const float n = __builtin_rintf(x == x ? x * 1.44269504f : 0.f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
  float p = 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + .5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const int32_t bits = ((int32_t)n + 127) << 23;
  float scale;
  memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

/* A quotient p / q that is not divided yet: a division takes as long as all the rest. */
typedef struct {
  float p, q;
} Ratio;

/* tanh(x) to 4e-7, by polynomials that were fitted on [-9, 9]; beyond it is 1 or -1 (+-2e-7). */
static inline Ratio tanh_ratio(float x) {
  x = x < -9.f ? -9.f : x > 9.f ? 9.f : x;
  const float s = x * x;
  float p = -1.22466694e-11f;
  p = p * s + 3.06431452e-08f;
  p = p * s + 2.80315828e-05f;
  p = p * s + 0.00386952189f;
  p = p * s + 0.136808676f;
  p = p * s + 0.999999999f;
  float q = 1.28905361e-06f;
  q = q * s + 0.000394073759f;
  q = q * s + 0.0272502078f;
  q = q * s + 0.470141997f;
  q = q * s + 1.f;
  return (Ratio){x * p, q};
}

static inline float hyperbolic_tangent(float x) {
  const Ratio r = tanh_ratio(x);
  return r.p / r.q;
}

static inline float sigmoid(float x) { return .5f + .5f * hyperbolic_tangent(.5f * x); }

/* Two sigmoids with one division. */
static inline void sigmoids(float x, float y, float *sx, float *sy) {
  const Ratio a = tanh_ratio(.5f * x), b = tanh_ratio(.5f * y);
  const float inverse = .5f / (a.q * b.q);
  *sx = .5f + a.p * b.q * inverse, *sy = .5f + b.p * a.q * inverse;
}

/* A sigmoid and a tanh with one division. */
static inline void sigmoid_and_tanh(float x, float y, float *sx, float *ty) {
  const Ratio a = tanh_ratio(.5f * x), b = tanh_ratio(y);
  const float inverse = 1 / (a.q * b.q);
  *sx = .5f + .5f * a.p * b.q * inverse, *ty = b.p * a.q * inverse;
}

/* The derivatives, from the value y of the function. */
static inline float tanh_slope(float y) { return 1 - y * y; }
static inline float sigmoid_slope(float y) { return y - y * y; }
