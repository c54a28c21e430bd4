/* Functions of one number that a compiler can apply to many at a time. */

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

static inline float sigmoid(float x) { return 1 / (1 + power_of_e(-x)); }

static inline float hyperbolic_tangent(float x) { return 2 / (1 + power_of_e(-2 * x)) - 1; }

/* sigmoid(x) tanh(y), with one division, which is as slow as all the rest. */
static inline float gated_tangent(float x, float y) {
  const float e = power_of_e(-2 * y);
  return (1 - e) / ((1 + e) * (1 + power_of_e(-x)));
}
