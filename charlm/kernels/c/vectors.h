/* Vectors of 32 bits in each lane, and the numbers that products multiply.

   A number is a bfloat16 where the CPU multiplies them (AMX, AVX512-BF16), and a float32 elsewhere.
   Products are summed in float32. An element is 32 bits along k, the index that a product sums
   over: one float32, or two bfloat16 with neighbouring k. */

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined __x86_64__
#include <immintrin.h>
#endif

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 }; /* SSE and NEON */
#endif

#define INLINE static inline __attribute__((always_inline))

/* Unroll the next loop, which has a fixed length, so that its sums stay in registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t elements __attribute__((vector_size(4 * LANES)));
typedef int32_t loose_elements __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

INLINE float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

#if defined __AVX512BF16__
enum { HALF = 1 }; /* whether numbers are bfloat16 */
typedef uint16_t number;

INLINE float from_number(number x) { return float_of((uint32_t)x << 16); }

/* Rounds to nearest, ties to even. NaN stays NaN. */
INLINE number to_number(float x) {
  const uint32_t bits = bits_of(x);
  return (number)((x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) >> 16);
}

/* 2 LANES floats along k. */
INLINE elements along_k(const float *p) {
  return (elements)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + LANES), _mm512_loadu_ps(p));
}

/* LANES columns of two rows, which have neighbouring k. */
INLINE elements across_k(const float *p, size_t stride) {
  const __m256i low = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(p));
  const __m256i high = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(p + stride));
  const __m512i shifted = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16);
  return (elements)_mm512_or_si512(shifted, _mm512_cvtepu16_epi32(low));
}

/* As across_k, of numbers. */
INLINE elements numbers_across_k(const number *p, size_t stride) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)p));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)(p + stride)));
  return (elements)_mm512_or_si512(_mm512_slli_epi32(high, 16), low);
}
#else
enum { HALF = 0 };
typedef float number;

INLINE float from_number(number x) { return x; }
INLINE number to_number(float x) { return x; }
INLINE elements along_k(const float *p) { return *(const loose_elements *)p; }
INLINE elements across_k(const float *p, size_t stride) {
  (void)stride;
  return *(const loose_elements *)p;
}
INLINE elements numbers_across_k(const number *p, size_t stride) { return across_k(p, stride); }
#endif

INLINE elements numbers_along_k(const number *p) { return *(const loose_elements *)p; }

enum { PER_ELEMENT = 1 + HALF, DEPTH = PER_ELEMENT * LANES };

/* `count` floats as numbers. */
INLINE void to_numbers(const float *from, size_t count, number *to) {
  size_t i = 0;
  for (; i + DEPTH <= count; i += DEPTH) *(loose_elements *)(to + i) = along_k(from + i);
  for (; i < count; i++) to[i] = to_number(from[i]);
}

/* The same, then zeros up to a multiple of DEPTH. */
INLINE void to_padded_numbers(const float *from, size_t count, number *to) {
  to_numbers(from, count, to);
  for (size_t i = count; i % DEPTH; i++) to[i] = 0;
}

INLINE void from_numbers(const number *from, size_t count, float *to) {
#pragma omp simd
  for (size_t i = 0; i < count; i++) to[i] = from_number(from[i]);
}

/* The sum of all lanes, in the order of a tree. */
INLINE float sum_of_lanes(vec v) {
  float a[LANES];
  memcpy(a, &v, sizeof v);
  for (size_t i = 0; i < LANES / 2; i++) a[i] += a[i + LANES / 2];
  for (size_t i = 0; i < LANES / 4; i++) a[i] += a[i + LANES / 4];
  for (size_t i = 0; i < LANES / 8; i++) a[i] += a[i + LANES / 8];
  for (size_t i = 0; i < LANES / 16; i++) a[i] += a[i + LANES / 16];
  return a[0];
}

/* The larger of two in each lane. */
INLINE vec larger_lanes(vec a, vec b) {
  const elements is_larger = a > b;
  return (vec)(((elements)a & is_larger) | ((elements)b & ~is_larger));
}

/* Sums over i < n of terms f(i), of which `vector` is that of LANES and `scalar` that of one: a
   compiler may not change the order of a sum, so this has one that is fast. */
#define SUM(result, n, i, vector, scalar)                        \
  do {                                                           \
    vec sum_ = {0};                                              \
    size_t i = 0;                                                \
    for (; i + LANES <= (n); i += LANES) sum_ += (vector);       \
    result = sum_of_lanes(sum_);                                 \
    for (; i < (n); i++) result += (scalar);                     \
  } while (0)

INLINE vec load(const float *p) { return *(const loose *)p; }

/* --- transposition of LANES by LANES elements ------------------------------------------------ */

/* In step s, lanes whose bit s is set change places with the lane s before, of the row s below. */
#define UPPER(l, s) ((l) & (s) ? LANES + (l) - (s) : (l))
#define LOWER(l, s) ((l) & (s) ? LANES + (l) : (l) + (s))
#define FOUR(F, l, s) F(l, s), F(l + 1, s), F(l + 2, s), F(l + 3, s)
#if defined __AVX512F__
#define EACH_LANE(F, s) FOUR(F, 0, s), FOUR(F, 4, s), FOUR(F, 8, s), FOUR(F, 12, s)
#elif defined __AVX__
#define EACH_LANE(F, s) FOUR(F, 0, s), FOUR(F, 4, s)
#else
#define EACH_LANE(F, s) FOUR(F, 0, s)
#endif
#ifdef __clang__
#define SHUFFLE(a, b, F, s) __builtin_shufflevector(a, b, EACH_LANE(F, s))
#else
#define SHUFFLE(a, b, F, s) __builtin_shuffle(a, b, (elements){EACH_LANE(F, s)})
#endif

#define EXCHANGE(s)                                            \
  if (LANES > s) {                                             \
    UNROLL                                                     \
    for (size_t i = 0; i < LANES; i++) {                       \
      if (i & s) continue;                                     \
      const elements a = row[i], b = row[(i + s) % LANES];     \
      row[i] = SHUFFLE(a, b, UPPER, (s) % LANES);              \
      row[(i + s) % LANES] = SHUFFLE(a, b, LOWER, (s) % LANES); \
    }                                                          \
  }

INLINE void transpose(elements row[LANES]) { EXCHANGE(1) EXCHANGE(2) EXCHANGE(4) EXCHANGE(8) }

/* The sum of the lanes of each of LANES vectors, or the largest: much faster than one by one. */
INLINE vec reduce_each(const vec rows[LANES], int largest) {
  elements row[LANES];
  memcpy(row, rows, sizeof row);
  transpose(row);
  vec all = (vec)row[0];
  UNROLL
  for (size_t i = 1; i < LANES; i++)
    all = largest ? larger_lanes((vec)row[i], all) : all + (vec)row[i];
  return all;
}
