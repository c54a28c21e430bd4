/* The blocks of a transformer, forward and backward, for training.

       n = norm(x)
       q, k, v = the H heads of n Wqkv^T + b        queries and keys may be normalized and rotated
       y = the heads' attention, side by side       see attention.h
       x' = x + drop(y Wo^T + b)
       out = x' + drop(f(norm(x') Wup^T + b) Wdown^T + b)

   Sequences are independent, so each thread takes its own through a layer. Residuals,
   sums and norms are float32; factors of products are numbers. */

#include "gradients.h"

int blocks_allowed(void) { return tiles_allowed(); }

/* A thread's view of a layer. */
typedef struct {
  const Blocks *s;
  const Shared *shared;
  const Workspace *w;
  size_t layer;
  Saved saved;
  Dropout dropout;
  number *const *packed;
  Factors factors; /* of the first row of a chunk, backward */
} Layer;

static Layer layer_of(const Blocks *s, const Shared *shared, const Workspace *w, size_t layer) {
  Layer l = {s, shared, w, layer, saved_of(s, layer, NULL), {mix(s->seed + layer), s->dropout},
             shared->packed[layer & 1], {{0}, {shared->normal1, NULL, shared->normal2, NULL}}};
  memcpy(l.factors.dy, shared->dy, sizeof l.factors.dy);
  return l;
}

/* Pack this thread's part of a layer's matrices. */
static void pack_weights(const Blocks *s, const Shared *shared, size_t layer, int backward,
                         int thread, int threads) {
  for (int w = 0; w < MATRICES; w++) {
    const size_t O = rows_of(s, w), I = columns_of(s, w);
    const float *const W = weight_of(s, layer, w);
    number *const to_pack = shared->packed[layer & 1][w];
    size_t from, to;
    partition(backward ? I : O, LANES, thread, threads, &from, &to);
    if (from == to) continue;
    if (backward) right(W + from, I, to - from, O, to_pack + from * width(O));
    else right_t(W + from * I, I, to - from, I, to_pack + from * width(I));
  }
}

/* product (n, O) = x W^T, or backward (n, I) = x W, for numbers x. */
static void multiply_by(const Layer *l, int matrix, int backward, const number *x, size_t n) {
  const size_t O = width(rows_of(l->s, matrix)), I = width(columns_of(l->s, matrix));
  const size_t K = backward ? O : I, N = backward ? I : O;
  multiply(x, K, l->packed[matrix], round_up(n, ROW_STEP), N, K, l->w->product, N, 0);
}

static void add_bias(const Layer *l, int matrix, float *x) {
  const float *const bias = weight_of(l->s, l->layer, BIASES + matrix);
  const size_t O = rows_of(l->s, matrix);
  if (!bias) return;
#pragma omp simd
  for (size_t i = 0; i < O; i++) x[i] += bias[i];
}

/* Return the input of a norm, GAIN1 or GAIN2, and its moments, from `row` on. */
static const float *normed(const Layer *l, int norm, size_t row, Moments **moments) {
  *moments = l->saved.moments[norm == GAIN2] + row;
  return (norm == GAIN1 ? l->saved.x : l->saved.middle) + row * l->s->D;
}

static void compute_moments(const Layer *l, int norm, size_t row, size_t n) {
  const size_t D = l->s->D;
  Moments *moments;
  const float *const x = normed(l, norm, row, &moments);
  for (size_t r = 0; r < n; r++) moments[r] = norm_moments(x + r * D, D, l->s->layernorm);
}

/* Normalize n rows and store them as numbers. */
static void normalize_rows(const Layer *l, int norm, size_t row, size_t n, number *to) {
  const size_t D = l->s->D;
  const float *const gain = weight_of(l->s, l->layer, norm);
  const float *const bias = weight_of(l->s, l->layer, norm + 1);
  Moments *moments;
  const float *const x = normed(l, norm, row, &moments);
  for (size_t r = 0; r < n; r++) {
    normalize(x + r * D, moments[r], D, gain, bias, l->w->row[0]);
    to_padded_numbers(l->w->row[0], D, to + r * width(D));
  }
}

/* --- forward ---------------------------------------------------------------------------------- */

/* Store the queries, keys and values of a row x (3 D,), the product with QKV. */
static void split_heads(const Layer *l, size_t row, float *x) {
  const Blocks *s = l->s;
  const size_t K = s->D / s->H, b = row / s->T, t = row % s->T, half = K / 2;
  add_bias(l, QKV, x);
  for (size_t part = 0; part < 3; part++)
    for (size_t h = 0; h < s->H; h++, x += K) {
      if (part < 2 && s->qk_norm)
        l->saved.inverse[(row * 2 + part) * s->H + h] = normalize_vector(x, K);
      if (part < 2 && s->cos) rotate(x, s->cos + t * half, s->sin + t * half, half, 1);
      to_padded_numbers(x, K, l->saved.heads[part] + ((b * s->H + h) * s->T + t) * width(K));
    }
}

/* out = x + drop(product + bias), for a row. */
static void add_residual(const Layer *l, int matrix, size_t row, const float *x, float *product,
                         float *out) {
  const size_t D = l->s->D;
  add_bias(l, matrix, product);
  if (l->s->dropout > 0)
    drop(&l->dropout, row_key(&l->dropout, matrix == OUT ? ON_ATTENTION : ON_MLP, row), product, D);
#pragma omp simd
  for (size_t d = 0; d < D; d++) out[d] = x[d] + product[d];
}

/* Compute the attention of all heads of sequence b. */
static void attend_heads(const Layer *l, size_t b) {
  const Blocks *s = l->s;
  const size_t K = s->D / s->H, D = width(s->D);
  const Attention shape = {s->T, K, s->dropout > 0 ? &l->dropout : NULL};
  for (size_t h = 0; h < s->H; h++) {
    const size_t row = (b * s->H + h) * s->T, at = row * width(K);
    attend(&shape, &l->w->attention, l->saved.heads[0] + at, l->saved.heads[1] + at,
           l->saved.heads[2] + at, row);
    for (size_t t = 0; t < s->T; t++) {
      number *const y = l->saved.y + (b * s->T + t) * D;
      for (size_t i = 0; i < K; i++) y[h * K + i] = to_number(l->w->attention.y[t * width(K) + i]);
      for (size_t d = s->D; d < D; d++) y[d] = 0;
    }
  }
}

/* Compute n rows of the output from y: the product after the attention, and the MLP. */
static void forward_rest(const Layer *l, size_t row, size_t n) {
  const Blocks *s = l->s;
  const Workspace *w = l->w;
  const size_t D = s->D, F = s->F, U = rows_of(s, UP);
  float *const middle = l->saved.middle + row * D;
  number *const a = l->saved.a + row * width(F);
  multiply_by(l, OUT, 0, l->saved.y + row * width(D), n);
  for (size_t r = 0; r < n; r++)
    add_residual(l, OUT, row + r, l->saved.x + (row + r) * D, w->product + r * width(D),
                 middle + r * D);
  compute_moments(l, GAIN2, row, n);
  normalize_rows(l, GAIN2, row, n, w->normal);
  multiply_by(l, UP, 0, w->normal, n);
  for (size_t r = 0; r < n; r++) {
    float *const u = w->product + r * width(U);
    add_bias(l, UP, u);
    activate(s->mlp, u, F, w->row[0], w->row[1]);
    to_padded_numbers(w->row[0], F, a + r * width(F));
    to_numbers(w->row[1], U, l->saved.slopes + (row + r) * U);
  }
  multiply_by(l, DOWN, 0, a, n);
  for (size_t r = 0; r < n; r++)
    add_residual(l, DOWN, row + r, middle + r * D, w->product + r * width(D),
                 l->saved.out + (row + r) * D);
}

/* Compute a layer's output for sequences [from, to). */
static void forward_group(const Layer *l, size_t from, size_t to) {
  const Blocks *s = l->s;
  const size_t D = s->D, rows = to * s->T;
  for (size_t row = from * s->T; row < rows; row += PIECE) {
    const size_t n = smaller(PIECE, rows - row);
    compute_moments(l, GAIN1, row, n);
    normalize_rows(l, GAIN1, row, n, l->w->normal);
    multiply_by(l, QKV, 0, l->w->normal, n);
    for (size_t r = 0; r < n; r++) split_heads(l, row + r, l->w->product + r * width(3 * D));
  }
  for (size_t b = from; b < to; b++) attend_heads(l, b);
  for (size_t row = from * s->T; row < rows; row += PIECE)
    forward_rest(l, row, smaller(PIECE, rows - row));
}

/* --- backward --------------------------------------------------------------------------------- */

/* Compute n rows of a matrix's dy: the gradient of the output, times the mask of the dropout. */
static void drop_gradient(const Layer *l, int matrix, size_t row, size_t n, number *dy) {
  const Blocks *s = l->s;
  const size_t D = s->D, place = matrix == OUT ? ON_ATTENTION : ON_MLP;
  for (size_t r = 0; r < n; r++) {
    const float *dx = s->out + (row + r) * D;
    if (s->dropout > 0) {
      dx = memcpy(l->w->row[0], dx, D * sizeof(float));
      drop(&l->dropout, row_key(&l->dropout, place, row + r), l->w->row[0], D);
    }
    to_padded_numbers(dx, D, dy + r * width(D));
  }
}

/* Add to n rows of dx the gradient through a norm; `product` has the gradient of its output. */
static void norm_gradient(const Layer *l, int norm, size_t row, size_t n) {
  const Blocks *s = l->s;
  const size_t D = s->D, group = row / s->T / group_of(s);
  float *const sums = l->shared->norms + (group * 4 + (size_t)(norm - GAIN1)) * D;
  Moments *moments;
  const float *const x = normed(l, norm, row, &moments);
  for (size_t r = 0; r < n; r++)
    normalize_backward(x + r * D, moments[r], l->w->product + r * width(D), D, s->layernorm,
                       weight_of(s, l->layer, norm), s->out + (row + r) * D, sums, sums + D,
                       l->w->row[0]);
}

/* The backward pass of n rows through the MLP and the product after the attention. `row` is row k
   of the chunk; `first` is the group's first row. */
static void backward_rest(const Layer *l, size_t row, size_t n, size_t k, size_t first) {
  const Blocks *s = l->s;
  const Workspace *w = l->w;
  const size_t D = s->D, F = s->F, U = rows_of(s, UP), K = D / s->H;
  number *const dout = l->factors.dy[DOWN] + k * width(D);
  number *const du = l->factors.dy[UP] + k * width(U);
  number *const dy = l->factors.dy[OUT] + k * width(D);
  drop_gradient(l, DOWN, row, n, dout);
  multiply_by(l, DOWN, 1, dout, n);
  for (size_t r = 0; r < n; r++) {
    const number *const slopes = l->saved.slopes + (row + r) * U;
    const float *const da = w->product + r * width(F);
    for (size_t i = 0; i < U; i += F)
#pragma omp simd
      for (size_t j = 0; j < F; j++) w->row[0][i + j] = da[j] * from_number(slopes[i + j]);
    to_padded_numbers(w->row[0], U, du + r * width(U));
  }
  normalize_rows(l, GAIN2, row, n, l->shared->normal2 + k * width(D));
  multiply_by(l, UP, 1, du, n);
  norm_gradient(l, GAIN2, row, n);
  drop_gradient(l, OUT, row, n, dy);
  multiply_by(l, OUT, 1, dy, n);
  for (size_t r = 0; r < n; r++) {
    const size_t b = (row + r - first) / s->T, t = (row + r - first) % s->T;
    for (size_t h = 0; h < s->H; h++)
      to_padded_numbers(w->product + r * width(D) + h * K, K,
                 w->dheads + ((b * s->H + h) * s->T + t) * width(K));
  }
}

/* Turn dx (K,), the gradient of a query or key, into that of the product: undo rope and qk_norm. */
static void head_gradient(const Layer *l, size_t part, size_t b, size_t h, size_t t, float *dx) {
  const Blocks *s = l->s;
  const size_t K = s->D / s->H, half = K / 2;
  float *const x = l->w->row[0];
  if (s->cos) rotate(dx, s->cos + t * half, s->sin + t * half, half, -1);
  if (!s->qk_norm) return;
  from_numbers(l->saved.heads[part] + ((b * s->H + h) * s->T + t) * width(K), K, x);
  if (s->cos) rotate(x, s->cos + t * half, s->sin + t * half, half, -1);
  normalize_vector_backward(x, l->saved.inverse[((b * s->T + t) * 2 + part) * s->H + h], K, dx);
}

/* Compute dqkv (T, 3 D) of sequence b, which is number `at` of its group. */
static void attend_heads_backward(const Layer *l, size_t b, size_t at, number *dqkv) {
  const Blocks *s = l->s;
  const AttentionWorkspace *w = &l->w->attention;
  const size_t K = s->D / s->H, stride = width(3 * s->D);
  const Attention shape = {s->T, K, s->dropout > 0 ? &l->dropout : NULL};
  float *const gradients[] = {w->dq, w->dk, w->dv};
  for (size_t h = 0; h < s->H; h++) {
    const size_t row = (b * s->H + h) * s->T, from = row * width(K);
    attend_backward(&shape, w, l->saved.heads[0] + from, l->saved.heads[1] + from,
                    l->saved.heads[2] + from, l->w->dheads + (at * s->H + h) * s->T * width(K),
                    row);
    for (size_t t = 0; t < s->T; t++)
      for (size_t part = 0; part < 3; part++) {
        float *const dx = gradients[part] + t * width(K);
        number *const to = dqkv + t * stride;
        if (part < 2) head_gradient(l, part, b, h, t, dx);
        for (size_t i = 0; i < K; i++) to[part * s->D + h * K + i] = to_number(dx[i]);
        for (size_t i = 3 * s->D; i < stride; i++) to[i] = 0;
      }
  }
}

/* The backward pass of a layer for sequences [from, to); their first row is row k of the chunk. */
static void backward_group(const Layer *l, size_t from, size_t to, size_t k) {
  const Blocks *s = l->s;
  const size_t D = s->D, first = from * s->T, rows = (to - from) * s->T, stride = width(3 * D);
  number *const dqkv = l->factors.dy[QKV] + k * stride;
  memset(l->shared->norms + from / group_of(s) * 4 * D, 0, 4 * D * sizeof(float));
  for (size_t r = 0; r < rows; r += PIECE)
    backward_rest(l, first + r, smaller(PIECE, rows - r), k + r, first);
  for (size_t b = from; b < to; b++)
    attend_heads_backward(l, b, b - from, dqkv + (b - from) * s->T * stride);
  for (size_t r = 0; r < rows; r += PIECE) {
    const size_t n = smaller(PIECE, rows - r);
    normalize_rows(l, GAIN1, first + r, n, l->shared->normal1 + (k + r) * width(D));
    multiply_by(l, QKV, 1, dqkv + r * stride, n);
    norm_gradient(l, GAIN1, first + r, n);
  }
}

/* --- threads ---------------------------------------------------------------------------------- */

static Workspace workspace_of_thread(const Blocks *s, Memory *m, int thread) {
  Workspace w = workspace_of(s, m);
  for (int i = 0; i < thread; i++) w = workspace_of(s, m);
  return w;
}

static void forward(const void *job, int thread, int threads) {
  const Blocks *s = job;
  Memory m = {s->workspace, 0};
  const Shared shared = shared_of(s, &m);
  const Workspace w = workspace_of_thread(s, &m, thread);
  const size_t group = group_of(s);
  size_t from, to;
  partition(s->B, group, thread, threads, &from, &to);
  for (size_t layer = 0; layer < s->n_layer; layer++) {
    const Layer l = layer_of(s, &shared, &w, layer);
    pack_weights(s, &shared, layer, 0, thread, threads);
    barrier(threads); /* all threads have finished with the weights of the layer before */
    for (size_t b = from; b < to; b += group) forward_group(&l, b, smaller(b + group, to));
  }
}

/* The backward pass of a layer for this thread's sequences of the chunk that begins at `first`,
   then this thread's part of the gradients. */
static void backward_chunk(Layer *l, size_t first, int thread, int threads) {
  const Blocks *s = l->s;
  const size_t group = group_of(s), count = smaller(chunk_of(s), s->B - first);
  size_t from, to;
  partition(count, group, thread, threads, &from, &to);
  for (size_t b = from; b < to; b += group)
    backward_group(l, first + b, first + smaller(b + group, to), b * s->T);
  barrier(threads);
  l->factors.x[OUT] = l->saved.y + first * s->T * width(s->D);
  l->factors.x[DOWN] = l->saved.a + first * s->T * width(s->F);
  add_gradients(s, &l->factors, l->w, s->gradients + l->layer * WEIGHTS, count * s->T, first > 0,
                thread, threads);
}

static void backward(const void *job, int thread, int threads) {
  const Blocks *s = job;
  Memory m = {s->workspace, 0};
  const Shared shared = shared_of(s, &m);
  const Workspace w = workspace_of_thread(s, &m, thread);
  for (size_t layer = s->n_layer; layer-- > 0;) {
    Layer l = layer_of(s, &shared, &w, layer);
    pack_weights(s, &shared, layer, 1, thread, threads);
    for (size_t first = 0; first < s->B; first += chunk_of(s)) {
      barrier(threads); /* the weights are packed, and all threads have finished the chunk before */
      backward_chunk(&l, first, thread, threads);
    }
    sum_norms(s, &shared, s->gradients + layer * WEIGHTS, thread, threads);
  }
}

void blocks_forward(int threads, const Blocks *s) {
  on_threads(threads, tiles_begin, tiles_end, forward, s);
}
void blocks_backward(int threads, const Blocks *s) {
  on_threads(threads, tiles_begin, tiles_end, backward, s);
}

/* The first rows of the masks of a layer, in a place of dropout.h, n numbers each; for tests. */
void blocks_mask(const Blocks *s, size_t layer, size_t place, size_t rows, size_t n, float *out) {
  const Dropout dropout = {mix(s->seed + layer), s->dropout};
  for (size_t i = 0; i < rows * n; i++) out[i] = 1;
  for (size_t r = 0; r < rows; r++) drop(&dropout, row_key(&dropout, place, r), out + r * n, n);
}
