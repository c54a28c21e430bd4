/* Dropout whose masks are functions of a seed and of where a number is. So the backward pass can
   compute a mask again, and no mask depends on the number of threads. */

#include <stddef.h>
#include <stdint.h>

/* Where in a block. */
enum { ON_WEIGHTS, ON_ATTENTION, ON_MLP, PLACES };

typedef struct {
  uint64_t seed; /* of this layer */
  float p; /* the probability that a number becomes 0 */
} Dropout;

/* A bijection in which every bit of x changes about half of the bits (Steele et al. 2014). */
static inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/* The key of a row of the mask. */
static inline uint64_t row_key(const Dropout *d, size_t place, size_t row) {
  return mix(mix(d->seed + place) + row);
}

/* 32 random bits for number i of a row: a bijection of i as above (Wellons 2018, lowbias32), which
   the upper half of the key changes in between. */
static inline uint32_t random_bits(uint64_t key, uint32_t i) {
  uint32_t x = i * 0x9e3779b9u + (uint32_t)key;
  x = (x ^ x >> 16) * 0x21f0aaadu + (uint32_t)(key >> 32);
  x = (x ^ x >> 15) * 0x735a2d97u;
  return x ^ x >> 15;
}

/* x (n,), a row, times its mask: 0 with probability p, otherwise 1 / (1 - p). */
static inline void drop(const Dropout *d, uint64_t key, float *x, size_t n) {
  const uint32_t limit = (uint32_t)(d->p * 4294967296.);
  const float scale = 1 / (1 - d->p);
#pragma omp simd
  for (uint32_t i = 0; i < (uint32_t)n; i++)
    x[i] = random_bits(key, i) < limit ? 0 : x[i] * scale;
}
