/* One step of the units of a vanilla RNN, a GRU and an LSTM, in float32.

   gi = W_ih x + b_ih and gh = W_hh h + b_hh are sums before the functions; gates are in PyTorch's
   order: RNN; r, z, n of a GRU; i, f, g, o of an LSTM.

       RNN    h = tanh(gi + gh)
       GRU    r, z = sigmoid(gi + gh); n = tanh(gi + r gh); h = n + z (h - n)
       LSTM   i, f, o = sigmoid(gi + gh); g = tanh(gi + gh); c = f c + i g; h = o tanh(c) */

#include "functions.h"

enum { RNN, GRU, LSTM, MAX_GATES = 4 };

static inline size_t gates_of(size_t kind) { return kind == RNN ? 1 : kind == GRU ? 3 : 4; }

/* The sums of one text for `count` units of each gate, `gate` numbers from one gate to the next. */
typedef struct {
  const float *sums;
  size_t gate;
} Sums;

/* Compute the next h of `count` units, and for an LSTM next_c. `before` is their c in an LSTM, and
   their h in a GRU. If not NULL, `kept` gets the values for the backward pass, kept_gate numbers
   apart: i, f, g, o; or r, z, n and the gh of n. */
static inline void cell(size_t kind, size_t count, Sums gi, Sums gh, const float *before,
                        float *next_c, float *restrict h, float *restrict kept, size_t kept_gate) {
#define Z(gate_) (gi.sums[gate_ * gi.gate + u] + gh.sums[gate_ * gh.gate + u])
#define KEEP(a, b, c, d) \
  if (kept) \
  kept[u] = a, kept[kept_gate + u] = b, kept[2 * kept_gate + u] = c, kept[3 * kept_gate + u] = d
  switch (kind) {
    case RNN:
#pragma omp simd
      for (size_t u = 0; u < count; u++) h[u] = hyperbolic_tangent(Z(0));
      break;
    case GRU:
#pragma omp simd
      for (size_t u = 0; u < count; u++) {
        const float gh_n = gh.sums[2 * gh.gate + u];
        float r, z;
        sigmoids(Z(0), Z(1), &r, &z);
        const float n = hyperbolic_tangent(gi.sums[2 * gi.gate + u] + r * gh_n);
        h[u] = n + z * (before[u] - n);
        KEEP(r, z, n, gh_n);
      }
      break;
    default:
#pragma omp simd
      for (size_t u = 0; u < count; u++) {
        float i, f, g, o;
        sigmoids(Z(0), Z(1), &i, &f);
        sigmoid_and_tanh(Z(3), Z(2), &o, &g);
        const float c = f * before[u] + i * g;
        next_c[u] = c;
        h[u] = o * hyperbolic_tangent(c);
        KEEP(i, f, g, o);
      }
  }
#undef Z
#undef KEEP
}
