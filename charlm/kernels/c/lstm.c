/* One layer of an LSTM over T steps, forward and backward, for x86-64 with AMX and AVX-512 BF16.

   Shapes: B rows of a batch (a multiple of 16), T steps, H units (a multiple of 64), G = 4H gates
   in the order i, f, g, o, as PyTorch has them. Arrays are row-major; products are of bfloat16
   numbers, summed in float32; cells are float32.

       z_t = x_t + h_{t-1} W^T          (B, G)    x_t has the input's part and the biases
       i, f, o = sigmoid(z), g = tanh(z)
       c_t = f c_{t-1} + i g            (B, H)
       h_t = o tanh(c_t)                (B, H)

   The rows of a batch know nothing of each other, so each thread takes its own through all steps,
   and none ever waits for another. The recurrent matrix is packed once a call into the tiles that
   AMX multiplies, and stays in the cache. */

#include "amx_old.h"

int lstm_allowed(void) { return amx_allowed(); }

/* --- the gates' functions of 16 floats ------------------------------------------------------ */

static inline __m512 sigmoid(__m512 x) {
  __m512 d = _mm512_add_ps(set(1.f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), x)));
  __m512 y = _mm512_rcp14_ps(d);
  return _mm512_mul_ps(y, _mm512_fnmadd_ps(d, y, set(2.f))); /* one step of Newton's */
}

static inline __m512 hyperbolic_tangent(__m512 x) {
  return _mm512_fmsub_ps(set(2.f), sigmoid(_mm512_add_ps(x, x)), set(1.f));
}

/* y (1 - y) and 1 - y^2, the slopes of the two at y = their value */
static inline __m512 sigmoid_slope(__m512 y) { return _mm512_fnmadd_ps(y, y, y); }
static inline __m512 tangent_slope(__m512 y) { return _mm512_fnmadd_ps(y, y, set(1.f)); }

/* --- products ------------------------------------------------------------------------------- */

/* out[n] (16, 16) = a (16, 32 depth) b[n], for four packed b; rows of `out` are `stride` apart. */
static inline void multiply_16(const bf16 *a, size_t lda, const bf16 *const b[4], size_t depth,
                               float *const out[4], size_t stride) {
  settle();
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  for (size_t k = 0; k < depth; k++) {
    _tile_loadd(4, a + k * DEPTH, lda * sizeof(bf16));
    _tile_loadd(5, b[0] + k * TILE_SIZE, 64); _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b[1] + k * TILE_SIZE, 64); _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, b[2] + k * TILE_SIZE, 64); _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, b[3] + k * TILE_SIZE, 64); _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, out[0], stride * sizeof(float)); _tile_stored(1, out[1], stride * sizeof(float));
  _tile_stored(2, out[2], stride * sizeof(float)); _tile_stored(3, out[3], stride * sizeof(float));
}

/* The same for 32 rows of a, two b at a time, which are then loaded half as often. */
static inline void multiply_32(const bf16 *a, size_t lda, const bf16 *const b[4], size_t depth,
                               float *const out[4], size_t stride) {
  settle();
  for (int n = 0; n < 4; n += 2) {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (size_t k = 0; k < depth; k++) {
      _tile_loadd(4, a + k * DEPTH, lda * sizeof(bf16));
      _tile_loadd(5, a + TILE * lda + k * DEPTH, lda * sizeof(bf16));
      _tile_loadd(6, b[n] + k * TILE_SIZE, 64);
      _tile_loadd(7, b[n + 1] + k * TILE_SIZE, 64);
      _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 5, 6);
      _tile_dpbf16ps(2, 4, 7); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out[n], stride * sizeof(float));
    _tile_stored(1, out[n] + TILE * stride, stride * sizeof(float));
    _tile_stored(2, out[n + 1], stride * sizeof(float));
    _tile_stored(3, out[n + 1] + TILE * stride, stride * sizeof(float));
  }
}

static inline void multiply(int rows, const bf16 *a, size_t lda, const bf16 *const b[4],
                            size_t depth, float *const out[4], size_t stride) {
  if (rows == 32) multiply_32(a, lda, b, depth, out, stride);
  else multiply_16(a, lda, b, depth, out, stride);
}

/* W (G, H) as the tiles of W^T, and of W, to be multiplied from the right. */
void lstm_pack_forward(size_t H, const float *W, bf16 *tiles) { right_t(W, H, 4 * H, H, tiles); }
void lstm_pack_backward(size_t H, const float *W, bf16 *tiles) { right(W, H, H, 4 * H, tiles); }

/* --- a layer -------------------------------------------------------------------------------- */

typedef struct {
  size_t T, B, H;
  const bf16 *tiles;       /* W, packed for the direction */
  const float *table;      /* (V, G): x_t of a character, if not null, ... */
  const int64_t *ids;      /* (T, B): ... which these are */
  const bf16 *dense;       /* (T, B, G): else x itself */
  bf16 *h;                 /* (T + 1, B, H), the first row block given */
  float *c;                /* (T + 1, B, H), the same */
  bf16 *gates;             /* (T, B, G): i, f, g, o after their functions */
  const bf16 *dh_out;      /* (T, B, H): the loss's gradient by h */
  bf16 *dz;                /* (T, B, G): by z */
  float *dh, *dc;          /* (B, H): by the state after the last step; then before the first */
} Layer;

static void forward_rows(const Layer *l, size_t from, int rows) {
  const size_t H = l->H, B = l->B, G = 4 * H, depth = H / DEPTH;
  float z[4][32 * TILE] __attribute__((aligned(64)));
  float *const out[4] = {z[0], z[1], z[2], z[3]};
  for (size_t t = 0; t < l->T; t++)
    for (size_t unit = 0; unit < H; unit += TILE) {
      const bf16 *b[4];
      for (size_t q = 0; q < 4; q++) b[q] = l->tiles + (q * H + unit) / TILE * depth * TILE_SIZE;
      multiply(rows, l->h + (t * B + from) * H, H, b, depth, out, TILE);
      for (int r = 0; r < rows; r++) {
        const size_t row = t * B + from + r, at = row * H + unit, next = at + B * H;
        __m512 pre[4];
        for (size_t q = 0; q < 4; q++) {
          __m512 x = l->dense ? from_bf16(l->dense + row * G + q * H + unit)
                              : _mm512_loadu_ps(l->table + l->ids[row] * G + q * H + unit);
          pre[q] = _mm512_add_ps(x, _mm512_load_ps(z[q] + r * TILE));
        }
        __m512 i = sigmoid(pre[0]), f = sigmoid(pre[1]), g = hyperbolic_tangent(pre[2]);
        __m512 o = sigmoid(pre[3]);
        __m512 c = _mm512_fmadd_ps(f, _mm512_loadu_ps(l->c + at), _mm512_mul_ps(i, g));
        _mm512_storeu_ps(l->c + next, c);
        to_bf16(l->h + next, _mm512_mul_ps(o, hyperbolic_tangent(c)));
        bf16 *kept = l->gates + row * G + unit;
        to_bf16(kept, i), to_bf16(kept + H, f), to_bf16(kept + 2 * H, g), to_bf16(kept + 3 * H, o);
      }
    }
}

static void backward_rows(const Layer *l, size_t from, int rows) {
  const size_t H = l->H, B = l->B, G = 4 * H, depth = G / DEPTH;
  for (size_t t = l->T; t-- > 0;) {
    for (int r = 0; r < rows; r++)
      for (size_t unit = 0; unit < H; unit += TILE) {
        const size_t row = t * B + from + r, at = row * H + unit, own = (from + r) * H + unit;
        const bf16 *kept = l->gates + row * G + unit;
        __m512 i = from_bf16(kept), f = from_bf16(kept + H), g = from_bf16(kept + 2 * H);
        __m512 o = from_bf16(kept + 3 * H), before = _mm512_loadu_ps(l->c + at);
        __m512 tc = hyperbolic_tangent(_mm512_loadu_ps(l->c + at + B * H));
        __m512 dh = _mm512_add_ps(from_bf16(l->dh_out + at), _mm512_loadu_ps(l->dh + own));
        __m512 dc = _mm512_fmadd_ps(_mm512_mul_ps(dh, o), tangent_slope(tc),
                                    _mm512_loadu_ps(l->dc + own));
        bf16 *dz = l->dz + row * G + unit;
        to_bf16(dz, _mm512_mul_ps(_mm512_mul_ps(dc, g), sigmoid_slope(i)));
        to_bf16(dz + H, _mm512_mul_ps(_mm512_mul_ps(dc, before), sigmoid_slope(f)));
        to_bf16(dz + 2 * H, _mm512_mul_ps(_mm512_mul_ps(dc, i), tangent_slope(g)));
        to_bf16(dz + 3 * H, _mm512_mul_ps(_mm512_mul_ps(dh, tc), sigmoid_slope(o)));
        _mm512_storeu_ps(l->dc + own, _mm512_mul_ps(dc, f));
      }
    for (size_t unit = 0; unit < H; unit += 4 * TILE) {
      const bf16 *b[4];
      float *out[4];
      for (size_t q = 0; q < 4; q++) {
        b[q] = l->tiles + (unit / TILE + q) * depth * TILE_SIZE;
        out[q] = l->dh + from * H + unit + q * TILE;
      }
      multiply(rows, l->dz + (t * B + from) * G, G, b, depth, out, H);
    }
  }
}

/* --- threads -------------------------------------------------------------------------------- */

typedef struct {
  const Layer *layer;
  void (*rows)(const Layer *, size_t from, int rows);
} Pass;

static void work(const void *given, int me, int of) {
  const Pass *pass = given;
  const size_t blocks = pass->layer->B / TILE, to = blocks * (me + 1) / of * TILE;
  for (size_t row = blocks * me / of * TILE; row < to;) {
    const int rows = to - row >= 32 ? 32 : 16;
    pass->rows(pass->layer, row, rows);
    row += rows;
  }
}

void lstm_forward(int threads, const Layer *layer) {
  in_parallel(threads, work, &(Pass){layer, forward_rows});
}

void lstm_backward(int threads, const Layer *layer) {
  in_parallel(threads, work, &(Pass){layer, backward_rows});
}

/* out (V, G) += for each of n rows of dz (n, G) the row, at its character; a block of columns after
   the other, so that the sums stay in the cache. */
void lstm_scatter(size_t n, size_t G, const int64_t *ids, const bf16 *dz, float *out) {
  enum { BLOCK = 256 };
  for (size_t from = 0; from < G; from += BLOCK)
    for (size_t row = 0; row < n; row++)
      for (size_t at = from; at < from + BLOCK; at += TILE) {
        float *sum = out + ids[row] * G + at;
        _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), from_bf16(dz + row * G + at)));
      }
}
