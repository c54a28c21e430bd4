/* A block of a transformer, forward and backward, for x86-64 with AMX and AVX-512 BF16.

   Shapes: B sequences of T steps, width D, H heads of width K = D / H, F hidden units of the MLP;
   T, D, K and F are multiples of 32. All arrays are row-major float32; products are of bfloat16
   numbers, summed in float32.

       n = norm(x)                                  (T, D)
       q, k, v = the H heads of n Wqkv^T            (T, K) each; q and k normalised and rotated
       P = softmax(q k^T / sqrt(K)), causal         (T, T)
       x' = x + (the heads' P v, side by side) Wo^T
       out = x' + f(norm(x') Wup^T) Wdown^T         f is GELU or the square of ReLU

   Sequences know nothing of each other, so each thread takes its own, a few at a time, through all
   of the block in its cache. The backward pass computes them again from x rather than fetch from
   memory what the forward pass would have had to leave there. */

#include "amx_old.h"
#include <math.h>

int block_allowed(void) { return amx_allowed(); }

typedef struct {
  size_t B, T, D, H, F;
  int layernorm, qk_norm, rope, gelu;
  const float *x, *dout;        /* (B, T, D) each */
  float *out;                   /* (B, T, D): the output, or backward the gradient by x */
  const float *cos, *sin;       /* (T, K / 2) each, where there is rope */
  const float *weights[6];      /* Wqkv (3D, D), Wo (D, D), Wup (F, D), Wdown (D, F), 2 gains (D) */
  float *gradients;             /* by them, one after the other */
  bf16 *packed;                 /* room for the matrices as tiles, twice */
  float *room;                  /* of each thread, block_room() numbers */
  size_t group;                 /* sequences a thread takes at a time */
} Block;

enum { QKV, OUT, UP, DOWN, GAIN1, GAIN2, WEIGHTS };

/* --- sizes ---------------------------------------------------------------------------------- */

static void shape_of(const Block *s, int weight, size_t *rows, size_t *columns) {
  const size_t D = s->D, F = s->F;
  *rows = weight == QKV ? 3 * D : weight == UP ? F : weight >= GAIN1 ? 1 : D;
  *columns = weight == DOWN ? F : D;
}

/* Where the numbers of a weight begin among all, or with WEIGHTS how many there are. */
static size_t offset_of(const Block *s, int weight) {
  size_t sum = 0;
  for (int w = 0; w < weight; w++) {
    size_t rows, columns;
    shape_of(s, w, &rows, &columns);
    sum += rows * columns;
  }
  return sum;
}

static size_t max_of(size_t a, size_t b) { return a > b ? a : b; }

/* What a thread works in, for R = group * T rows. */
typedef struct {
  float *n1, *qkv, *y, *x1, *n2, *u, *a; /* (R, D) each, but qkv (R, 3D), u and a (R, F) */
  float *dx1, *dn, *du, *dqkv;           /* (R, D), (R, D), (R, F), (R, 3D) */
  float *P, *dP;                         /* (H, T, T) of each sequence, (T, T) */
  float *inverse;                        /* (R, 2H): 1 / rms of each q and k */
  float *gradients;
  bf16 *left, *right;                    /* packed factors of a product */
} Room;

static size_t lay_out(const Block *s, float *at, Room *room) {
  const size_t R = s->group * s->T, D = s->D, F = s->F, T = s->T;
  const size_t factor = max_of(R * max_of(F, 3 * D), T * T) / 2; /* bf16: half a float */
  float **const parts[] = {&room->n1, &room->qkv, &room->y, &room->x1, &room->n2, &room->u,
                           &room->a, &room->dx1, &room->dn, &room->du, &room->dqkv, &room->P,
                           &room->dP, &room->inverse, &room->gradients};
  const size_t sizes[] = {R * D, 3 * R * D, R * D, R * D, R * D, R * F, R * F, R * D, R * D, R * F,
                          3 * R * D, R * s->H * T, T * T, 2 * R * s->H, offset_of(s, WEIGHTS)};
  size_t sum = 0;
  for (int i = 0; i < 15; i++) *parts[i] = at + sum, sum += (sizes[i] + TILE - 1) / TILE * TILE;
  bf16 **const factors[] = {&room->left, &room->right};
  for (int i = 0; i < 2; i++) *factors[i] = (bf16 *)(at + sum), sum += factor;
  return sum;
}

size_t block_room(const Block *s) {
  Room room;
  return lay_out(s, s->room, &room);
}

/* --- products ------------------------------------------------------------------------------- */

/* The block at (i, j) of a product over k in [from, to), of factors packed along all K. */
static inline void product_block(const bf16 *l, const bf16 *r, size_t K, size_t i, size_t j,
                                 size_t from, size_t to, float *out, size_t stride, int more) {
  const bf16 *const a[] = {l + i * K + from * TILE, l + (i + TILE) * K + from * TILE};
  const bf16 *const b[] = {r + j * K + from * TILE, r + (j + TILE) * K + from * TILE};
  multiply_block(a, b, (to - from) / DEPTH, out + i * stride + j, stride, more);
}

/* out (M, N) = A B, or += where `more` */
static void product(const bf16 *l, const bf16 *r, size_t M, size_t N, size_t K, float *out,
                    size_t stride, int more) {
  for (size_t j = 0; j < N; j += BLOCK)
    for (size_t i = 0; i < M; i += BLOCK) product_block(l, r, K, i, j, 0, K, out, stride, more);
}

/* The matrix of a weight as the right factor W^T, or backward W. */
static bf16 *tiles_of(const Block *s, int weight, int backward) {
  return s->packed + (backward ? offset_of(s, GAIN1) : 0) + offset_of(s, weight);
}

/* Each thread packs some of the matrices' rows. */
static void pack_weights(const Block *s, int me, int of, int backward) {
  for (int w = QKV; w <= DOWN; w++) {
    size_t O, I;
    shape_of(s, w, &O, &I);
    for (size_t at = me * BLOCK; at < O; at += of * BLOCK)
      right_t(s->weights[w] + at * I, I, BLOCK, I, tiles_of(s, w, 0) + at * I);
    for (size_t at = me * BLOCK; backward && at < I; at += of * BLOCK)
      right(s->weights[w] + at, I, BLOCK, O, tiles_of(s, w, 1) + at * O);
  }
}

/* dW (O, I) += dy^T x, for dy (R, O) and x (R, I) */
static void weight_gradient(const Block *s, const Room *w, int weight, const float *dy,
                            const float *x, size_t R, int more) {
  size_t O, I;
  shape_of(s, weight, &O, &I);
  left_t(dy, O, O, R, w->left);
  right(x, I, I, R, w->right);
  product(w->left, w->right, O, I, R, w->gradients + offset_of(s, weight), I, more);
}

/* --- norms ---------------------------------------------------------------------------------- */

/* The mean (0 for RMSNorm) and the inverse deviation of a row. */
static inline void moments(const Block *s, const float *x, float *mean, float *inverse) {
  const size_t D = s->D;
  float sum = 0, squares = 0;
  if (s->layernorm) {
#pragma omp simd reduction(+ : sum)
    for (size_t d = 0; d < D; d++) sum += x[d];
  }
  const float m = sum / D;
#pragma omp simd reduction(+ : squares)
  for (size_t d = 0; d < D; d++) squares += (x[d] - m) * (x[d] - m);
  *mean = m, *inverse = 1 / sqrtf(squares / D + (s->layernorm ? 1e-5f : 1.1920929e-7f));
}

static void normalise(const Block *s, const float *x, const float *gain, size_t R, float *out) {
  const size_t D = s->D;
  for (size_t r = 0; r < R; r++) {
    float mean, inverse;
    moments(s, x + r * D, &mean, &inverse);
    for (size_t d = 0; d < D; d++) out[r * D + d] = (x[r * D + d] - mean) * inverse * gain[d];
  }
}

/* dx += the gradient by x, of dn by the output; and dgain += that by the gain. */
static void normalise_backward(const Block *s, const float *x, const float *gain, const float *dn,
                               size_t R, float *dx, float *dgain) {
  const size_t D = s->D;
  for (size_t r = 0; r < R; r++) {
    const float *row = x + r * D, *dr = dn + r * D;
    float mean, inverse, sum = 0, along = 0;
    moments(s, row, &mean, &inverse);
#pragma omp simd reduction(+ : sum, along)
    for (size_t d = 0; d < D; d++) {
      const float normal = (row[d] - mean) * inverse, g = dr[d] * gain[d];
      dgain[d] += dr[d] * normal;
      sum += g, along += g * normal;
    }
    sum = s->layernorm ? sum / D : 0, along /= D;
    for (size_t d = 0; d < D; d++) {
      const float normal = (row[d] - mean) * inverse;
      dx[r * D + d] += inverse * (dr[d] * gain[d] - sum - normal * along);
    }
  }
}

/* --- queries and keys ----------------------------------------------------------------------- */

/* Turn the pairs (x_i, x_{i+K/2}) of a head at step t, forward or back. */
static inline void rotate(const Block *s, float *x, size_t t, float direction) {
  const size_t half = s->D / s->H / 2;
  const float *cosine = s->cos + t * half, *sine = s->sin + t * half;
#pragma omp simd
  for (size_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half], sin = direction * sine[i];
    x[i] = a * cosine[i] - b * sin, x[i + half] = a * sin + b * cosine[i];
  }
}

/* Normalise and rotate the queries and keys of qkv (R, 3D). */
static void prepare(const Block *s, Room *w, size_t R) {
  const size_t K = s->D / s->H;
  for (size_t r = 0; r < R; r++)
    for (size_t h = 0; h < 2 * s->H; h++) {
      float *x = w->qkv + r * 3 * s->D + h * K, squares = 0;
      if (s->qk_norm) {
#pragma omp simd reduction(+ : squares)
        for (size_t i = 0; i < K; i++) squares += x[i] * x[i];
        const float inverse = 1 / sqrtf(squares / K + 1.1920929e-7f);
        for (size_t i = 0; i < K; i++) x[i] *= inverse;
        w->inverse[r * 2 * s->H + h] = inverse;
      }
      if (s->rope) rotate(s, x, r % s->T, 1);
    }
}

/* From gradients by what `prepare` made to those by what it was made of; both lie in dqkv. */
static void prepare_backward(const Block *s, Room *w, size_t R) {
  const size_t K = s->D / s->H;
  for (size_t r = 0; r < R; r++)
    for (size_t h = 0; h < 2 * s->H; h++) {
      float *x = w->qkv + r * 3 * s->D + h * K, *dx = w->dqkv + r * 3 * s->D + h * K, along = 0;
      if (s->rope) rotate(s, x, r % s->T, -1), rotate(s, dx, r % s->T, -1);
      if (!s->qk_norm) continue;
#pragma omp simd reduction(+ : along)
      for (size_t i = 0; i < K; i++) along += x[i] * dx[i];
      const float inverse = w->inverse[r * 2 * s->H + h];
      for (size_t i = 0; i < K; i++) dx[i] = inverse * (dx[i] - x[i] * along / K);
    }
}

/* --- attention ------------------------------------------------------------------------------ */

/* Row t of q k^T to probabilities: softmax over the first t + 1, zeros up to T. */
static inline void softmax(float *row, size_t t, size_t T, float scale) {
  const size_t last = t / TILE * TILE; /* where the 16 begin that t is among */
  const __mmask16 there = (__mmask16)((2u << (t - last)) - 1);
  __m512 most = _mm512_mask_loadu_ps(set(-INFINITY), there, row + last);
  for (size_t j = 0; j < last; j += TILE) most = _mm512_max_ps(most, _mm512_loadu_ps(row + j));
  most = set(_mm512_reduce_max_ps(most));
  __m512 total = _mm512_setzero_ps();
  for (size_t j = 0; j <= last; j += TILE) {
    __m512 z = _mm512_sub_ps(_mm512_loadu_ps(row + j), most);
    z = exponential(_mm512_mul_ps(z, set(scale)));
    if (j == last) z = _mm512_maskz_mov_ps(there, z);
    total = _mm512_add_ps(total, z);
    _mm512_storeu_ps(row + j, z);
  }
  const __m512 inverse = set(1 / _mm512_reduce_add_ps(total));
  for (size_t j = 0; j <= last; j += TILE)
    _mm512_storeu_ps(row + j, _mm512_mul_ps(_mm512_loadu_ps(row + j), inverse));
  for (size_t j = last + TILE; j < T; j += TILE) _mm512_storeu_ps(row + j, _mm512_setzero_ps());
}

/* P (T, T) of a head whose q, k, v begin at qkv. */
static void probabilities(const Block *s, Room *w, const float *qkv, float *P) {
  const size_t T = s->T, D = s->D, K = D / s->H;
  left(qkv, 3 * D, T, K, w->left);
  right_t(qkv + D, 3 * D, T, K, w->right);
  for (size_t i = 0; i < T; i += BLOCK) {
    for (size_t j = 0; j <= i; j += BLOCK)
      product_block(w->left, w->right, K, i, j, 0, K, P, T, 0);
    for (size_t t = i; t < i + BLOCK; t++) softmax(P + t * T, t, T, 1 / sqrtf(K));
  }
}

/* out (T, K) = M X for M (T, T) whose upper triangle is zeros, or its transpose. */
static void triangular(const Block *s, Room *w, const float *M, int transposed, const float *x,
                       size_t stride, float *out, size_t out_stride) {
  const size_t T = s->T, K = s->D / s->H;
  (transposed ? left_t : left)(M, T, T, T, w->left);
  right(x, stride, K, T, w->right);
  for (size_t j = 0; j < K; j += BLOCK)
    for (size_t i = 0; i < T; i += BLOCK)
      product_block(w->left, w->right, T, i, j, transposed ? i : 0, transposed ? T : i + BLOCK, out,
                    out_stride, 0);
}

/* y (T, D) of a sequence whose qkv it is, and P (H, T, T). */
static void attend(const Block *s, Room *w, const float *qkv, float *P, float *y) {
  const size_t T = s->T, D = s->D, K = D / s->H;
  for (size_t h = 0; h < s->H; h++, qkv += K, y += K, P += T * T) {
    probabilities(s, w, qkv, P);
    triangular(s, w, P, 0, qkv + 2 * D, 3 * D, y, D);
  }
}

/* The gradients dqkv (T, 3D) of a sequence, of dy (T, D). */
static void attend_backward(const Block *s, Room *w, const float *qkv, const float *P,
                            const float *dy, float *dqkv) {
  const size_t T = s->T, D = s->D, K = D / s->H;
  const float scale = 1 / sqrtf(K);
  for (size_t h = 0; h < s->H; h++, qkv += K, dqkv += K, dy += K, P += T * T) {
    triangular(s, w, P, 1, dy, D, dqkv + 2 * D, 3 * D); /* dv = P^T dy */
    left(dy, D, T, K, w->left);
    right_t(qkv + 2 * D, 3 * D, T, K, w->right);
    for (size_t i = 0; i < T; i += BLOCK) {
      for (size_t j = 0; j <= i; j += BLOCK)
        product_block(w->left, w->right, K, i, j, 0, K, w->dP, T, 0); /* dP = dy v^T */
      for (size_t t = i; t < i + BLOCK; t++) {
        const float *p = P + t * T;
        float *dp = w->dP + t * T, along = 0;
        const size_t known = i + BLOCK; /* P is zero after t, and dP known */
#pragma omp simd reduction(+ : along)
        for (size_t j = 0; j < known; j++) along += p[j] * dp[j];
        for (size_t j = 0; j < known; j++) dp[j] = scale * p[j] * (dp[j] - along);
        for (size_t j = known; j < T; j++) dp[j] = 0;
      }
    }
    triangular(s, w, w->dP, 0, qkv + D, 3 * D, dqkv, 3 * D); /* dq = dS k */
    triangular(s, w, w->dP, 1, qkv, 3 * D, dqkv + D, 3 * D); /* dk = dS^T q */
  }
}

/* --- the MLP's function --------------------------------------------------------------------- */

/* The normal distribution's function, to some 1e-7 (Abramowitz & Stegun 7.1.26). */
static inline __m512 normal_cdf(__m512 x) {
  const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), set(.70710678f));
  __m512 t = _mm512_div_ps(set(1.f), _mm512_fmadd_ps(set(.3275911f), z, set(1.f)));
  __m512 p = _mm512_fmadd_ps(set(1.061405429f), t, set(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, set(1.421413741f));
  p = _mm512_fmadd_ps(p, t, set(-.284496736f));
  p = _mm512_mul_ps(_mm512_fmadd_ps(p, t, set(.254829592f)), t);
  __m512 square = _mm512_mul_ps(z, _mm512_sub_ps(_mm512_setzero_ps(), z));
  __m512 tail = _mm512_mul_ps(exponential(square), p);
  tail = _mm512_mul_ps(tail, set(.5f)); /* of the distribution, beyond |x| */
  return _mm512_mask_sub_ps(tail, (__mmask16)~negative, set(1.f), tail);
}

/* a = f(u); and backward du *= f'(u) */
static void activate(const Block *s, const float *u, size_t size, float *a, float *du) {
  for (size_t i = 0; i < size; i += TILE) {
    const __m512 x = _mm512_loadu_ps(u + i), zero = _mm512_setzero_ps();
    __m512 value, slope;
    if (s->gelu) {
      const __m512 cdf = normal_cdf(x);
      const __m512 density = exponential(_mm512_mul_ps(_mm512_mul_ps(x, x), set(-.5f)));
      value = _mm512_mul_ps(x, cdf);
      slope = _mm512_fmadd_ps(_mm512_mul_ps(x, set(.39894228f)), density, cdf);
    } else {
      const __m512 positive = _mm512_max_ps(x, zero);
      value = _mm512_mul_ps(positive, positive);
      slope = _mm512_add_ps(positive, positive);
    }
    if (a) _mm512_storeu_ps(a + i, value);
    if (du) _mm512_storeu_ps(du + i, _mm512_mul_ps(_mm512_loadu_ps(du + i), slope));
  }
}

/* --- the block ------------------------------------------------------------------------------ */

/* All up to a = f(u), of R rows of x. */
static void compute(const Block *s, Room *w, const float *x, size_t R) {
  const size_t T = s->T, D = s->D, F = s->F;
  normalise(s, x, s->weights[GAIN1], R, w->n1);
  left(w->n1, D, R, D, w->left);
  product(w->left, tiles_of(s, QKV, 0), R, 3 * D, D, w->qkv, 3 * D, 0);
  prepare(s, w, R);
  for (size_t r = 0; r < R; r += T)
    attend(s, w, w->qkv + r * 3 * D, w->P + r * s->H * T, w->y + r * D);
  memcpy(w->x1, x, R * D * sizeof(float));
  left(w->y, D, R, D, w->left);
  product(w->left, tiles_of(s, OUT, 0), R, D, D, w->x1, D, 1);
  normalise(s, w->x1, s->weights[GAIN2], R, w->n2);
  left(w->n2, D, R, D, w->left);
  product(w->left, tiles_of(s, UP, 0), R, F, D, w->u, F, 0);
  activate(s, w->u, R * F, w->a, NULL);
}

static void forward_rows(const Block *s, Room *w, size_t from, size_t R, int more) {
  (void)more;
  const size_t D = s->D, F = s->F;
  float *out = s->out + from * D;
  compute(s, w, s->x + from * D, R);
  memcpy(out, w->x1, R * D * sizeof(float));
  left(w->a, F, R, F, w->left);
  product(w->left, tiles_of(s, DOWN, 0), R, D, F, out, D, 1);
}

static void backward_rows(const Block *s, Room *w, size_t from, size_t R, int more) {
  const size_t T = s->T, D = s->D, F = s->F;
  const float *x = s->x + from * D, *dout = s->dout + from * D;
  float *dx = s->out + from * D, *gains = w->gradients + offset_of(s, GAIN1);
  if (!more) memset(gains, 0, 2 * D * sizeof(float));
  compute(s, w, x, R);
  /* the MLP */
  weight_gradient(s, w, DOWN, dout, w->a, R, more);
  left(dout, D, R, D, w->left);
  product(w->left, tiles_of(s, DOWN, 1), R, F, D, w->du, F, 0);
  activate(s, w->u, R * F, NULL, w->du);
  weight_gradient(s, w, UP, w->du, w->n2, R, more);
  left(w->du, F, R, F, w->left);
  product(w->left, tiles_of(s, UP, 1), R, D, F, w->dn, D, 0);
  memcpy(w->dx1, dout, R * D * sizeof(float));
  normalise_backward(s, w->x1, s->weights[GAIN2], w->dn, R, w->dx1, gains + D);
  /* attention */
  weight_gradient(s, w, OUT, w->dx1, w->y, R, more);
  left(w->dx1, D, R, D, w->left);
  product(w->left, tiles_of(s, OUT, 1), R, D, D, w->dn, D, 0); /* by y */
  for (size_t r = 0; r < R; r += T)
    attend_backward(s, w, w->qkv + r * 3 * D, w->P + r * s->H * T, w->dn + r * D,
                    w->dqkv + r * 3 * D);
  prepare_backward(s, w, R);
  weight_gradient(s, w, QKV, w->dqkv, w->n1, R, more);
  left(w->dqkv, 3 * D, R, 3 * D, w->left);
  product(w->left, tiles_of(s, QKV, 1), R, D, 3 * D, w->dn, D, 0);
  memcpy(dx, w->dx1, R * D * sizeof(float));
  normalise_backward(s, x, s->weights[GAIN1], w->dn, R, dx, gains);
}

/* A thread's sequences, `group` at a time; afterwards, backward, the sum of all threads'
   gradients, of which each adds up a part. */
static void work(const Block *s, int me, int of, int backward) {
  const size_t room_size = block_room(s), from = s->B * me / of, to = s->B * (me + 1) / of;
  Room room;
  lay_out(s, s->room + me * room_size, &room);
  pack_weights(s, me, of, backward);
  barrier(of);
  for (size_t first = from; first < to; first += s->group) {
    const size_t rows = (to - first < s->group ? to - first : s->group) * s->T;
    (backward ? backward_rows : forward_rows)(s, &room, first * s->T, rows, first > from);
  }
  if (!backward) return;
  barrier(of);
  const size_t all = offset_of(s, WEIGHTS), own = room.gradients - (s->room + me * room_size);
  for (size_t i = all * me / of; i < all * (me + 1) / of; i++) {
    float sum = 0;
    for (int other = 0; other < of; other++) sum += s->room[other * room_size + own + i];
    s->gradients[i] = sum;
  }
}

static void work_forward(const void *s, int me, int of) { work(s, me, of, 0); }
static void work_backward(const void *s, int me, int of) { work(s, me, of, 1); }

/* There is a sequence for each thread, at least. */
void block_forward(int threads, const Block *s) { in_parallel(threads, work_forward, s); }
void block_backward(int threads, const Block *s) { in_parallel(threads, work_backward, s); }
