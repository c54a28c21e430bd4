/* The forward step of a GPT with its cache of keys and values, of B texts.

   T characters are read at once after P in the cache, N = B T; D channels, H heads of width
   K = D / H, F the width of the MLP, V vocabulary.

       x = x + attention(norm(x));  x = x + mlp(norm(x))      in every block
       logits = head(norm(x))                                 of the last character

   Threads share the outputs of every product, the rows of every norm, and the heads. */

#include "linear.h"
#include "transformer.h"

enum { LAYERNORM, RMSNORM };

typedef struct {
  const float *gain, *bias; /* (D,); no bias in an RMSNorm, or without biases */
} Norm;

typedef struct {
  Norm attention_norm, mlp_norm;
  Matrix qkv, out, up, down; /* up (F, D), or in a SwiGLU gate and up (2 F, D) */
  float *k, *v;              /* the cache: k (B, H, capacity / 16, K, 16), v (B, H, capacity, K) */
} Layer;

typedef struct {
  size_t B, T, P, capacity, D, H, F, V, n_layer; /* capacity >= P + T, a multiple of 16 */
  size_t norm_kind, mlp, qk_norm;
  size_t context;
  const float *angles; /* (2, context, K / 2), cosines and sines for rope; or NULL */
  const Layer *layers;
  Norm norm;
  Matrix head; /* (V, D) */
  float *x;    /* (N, D), the characters with their positions, from here on */
  float *y;    /* (N, max(D, F)), and `wide` (N, max(3 D, 2 F)): workspace */
  float *wide;
  float *scores; /* (threads, capacity) */
  number *packed; /* workspace for y, see Rows */
  float *logits; /* (B, V), after the last character */
} Network;

/* Normalize (qk_norm) and rotate (rope) a query or a key (K,) at position `at`. */
static void prepare_vector(const Network *n, const float *from, size_t at, float *restrict to) {
  const size_t K = n->D / n->H, half = K / 2;
  memcpy(to, from, K * sizeof(float));
  if (n->qk_norm) normalize_vector(to, K);
  if (!n->angles) return;
  const float *cosine = n->angles + at * half, *sine = cosine + n->context * half;
  rotate(to, cosine, sine, half, 1);
}

/* Replace scores (P,) by their softmax. */
static void softmax(float *scores, size_t P) {
  float top = scores[0], sum = 0;
  for (size_t j = 1; j < P; j++) top = scores[j] > top ? scores[j] : top;
#pragma omp simd reduction(+ : sum)
  for (size_t j = 0; j < P; j++) sum += scores[j] = power_of_e(scores[j] - top);
  const float scale = 1 / sum;
#pragma omp simd
  for (size_t j = 0; j < P; j++) scores[j] *= scale;
}

enum { SIDE = 16 }; /* keys in a group; the cache has element i of all its keys side by side */

/* scores (P,) = q k^T. */
static void score(const float *q, const float *keys, size_t K, size_t P, float *scores) {
  for (size_t j = 0; j < P; j += SIDE, keys += K * SIDE) {
    float sum[4][SIDE] = {{0}}; /* four sums, so that no addition waits for the one before */
    size_t i = 0;
    for (; i + 4 <= K; i += 4)
      UNROLL
      for (size_t c = 0; c < 4; c++)
#pragma omp simd
        for (size_t s = 0; s < SIDE; s++) sum[c][s] += q[i + c] * keys[(i + c) * SIDE + s];
    for (; i < K; i++)
      for (size_t s = 0; s < SIDE; s++) sum[0][s] += q[i] * keys[i * SIDE + s];
    for (size_t s = 0; s < SIDE; s++) scores[j + s] = sum[0][s] + sum[1][s] + sum[2][s] + sum[3][s];
  }
}

/* out (width,) = the sum of n rows, `stride` apart, each times its weight. */
static void weighted_sum(const float *weights, size_t n, const float *rows, size_t stride,
                         size_t width, float *out) {
  size_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES) {
    vec sum[4] = {{0}};
    for (size_t j = 0; j < n; j++)
      UNROLL
      for (size_t c = 0; c < 4; c++)
        sum[c] += weights[j] * *(const loose *)(rows + j * stride + i + c * LANES);
    UNROLL
    for (size_t c = 0; c < 4; c++) *(loose *)(out + i + c * LANES) = sum[c];
  }
  for (; i + LANES <= width; i += LANES) {
    vec sum = {0};
    for (size_t j = 0; j < n; j++) sum += weights[j] * *(const loose *)(rows + j * stride + i);
    *(loose *)(out + i) = sum;
  }
  for (; i < width; i++) {
    out[i] = 0;
    for (size_t j = 0; j < n; j++) out[i] += weights[j] * rows[j * stride + i];
  }
}

/* Compute one head of one text: y = softmax(q k^T / sqrt(K)) v, with q, k and v in `wide`. */
static void attend(const Network *n, const Layer *l, size_t text, size_t head, float *scores) {
  const size_t D = n->D, K = D / n->H, start = (text * n->H + head) * n->capacity * K;
  float *k = l->k + start, *v = l->v + start, q[K], key[K];
  for (size_t t = 0; t < n->T; t++) {
    const float *qkv = n->wide + (text * n->T + t) * 3 * D + head * K;
    const size_t at = n->P + t, P = at + 1;
    prepare_vector(n, qkv, at, q);
    prepare_vector(n, qkv + D, at, key);
    for (size_t i = 0; i < K; i++) {
      q[i] /= sqrtf((float)K);
      k[(at / SIDE * K + i) * SIDE + at % SIDE] = key[i];
    }
    memcpy(v + at * K, qkv + 2 * D, K * sizeof(float));
    score(q, k, K, P, scores);
    softmax(scores, P);
    weighted_sum(scores, P, v, K, K, n->y + (text * n->T + t) * D + head * K);
  }
}

/* The work of one thread. */
typedef struct {
  const Network *n;
  int thread, threads;
} Part;

/* y = norm(x), for `rows` rows of x that lie `stride` apart. */
static void normalize_rows(const Part *part, const Norm *norm, const float *x, size_t rows,
                           size_t stride) {
  const Network *n = part->n;
  for (size_t r = (size_t)part->thread; r < rows; r += (size_t)part->threads) {
    const float *row = x + r * stride;
    const Moments m = norm_moments(row, n->D, n->norm_kind == LAYERNORM);
    normalize(row, m, n->D, norm->gain, norm->bias, n->y + r * n->D);
  }
  barrier(part->threads);
}

/* out = W y + b, or +=, for `rows` rows of y. */
static void apply(const Part *part, const Matrix *m, size_t rows, float *out, int add) {
  const Rows y = {rows, m->I, part->n->y, part->n->packed};
  size_t from, to;
  pack_rows(m, &y, part->thread, part->threads);
  partition(m->O, LINE_FLOATS, part->thread, part->threads, &from, &to);
  linear(m, &y, from, to, out + from, m->O, add);
  barrier(part->threads);
}

static void read_part(const void *job, int thread, int threads) {
  const Part part = {job, thread, threads};
  const Network *n = job;
  const size_t N = n->B * n->T, width = n->mlp == SWIGLU ? 2 * n->F : n->F;
  for (const Layer *l = n->layers; l < n->layers + n->n_layer; l++) {
    normalize_rows(&part, &l->attention_norm, n->x, N, n->D);
    apply(&part, &l->qkv, N, n->wide, 0);
    size_t from, to;
    partition(n->B * n->H, 1, thread, threads, &from, &to);
    for (size_t i = from; i < to; i++)
      attend(n, l, i / n->H, i % n->H, n->scores + (size_t)thread * n->capacity);
    barrier(threads);
    apply(&part, &l->out, N, n->x, 1);
    normalize_rows(&part, &l->mlp_norm, n->x, N, n->D);
    apply(&part, &l->up, N, n->wide, 0);
    for (size_t r = (size_t)thread; r < N; r += (size_t)threads)
      activate((int)n->mlp, n->wide + r * width, n->F, n->y + r * n->F, NULL);
    barrier(threads);
    apply(&part, &l->down, N, n->x, 1);
  }
  normalize_rows(&part, &n->norm, n->x + (n->T - 1) * n->D, n->B, n->T * n->D);
  apply(&part, &n->head, n->B, n->logits, 0);
}

int gpt_allowed(void) { return tiles_allowed(); }

/* Process T characters of each text; compute the logits after the last. */
void gpt_read(int threads, const Network *n) {
  multiply_on_threads(&n->head, threads, read_part, n);
}
