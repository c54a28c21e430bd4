/* The blocks of a transformer, forward and backward, for training.

       n = norm(x)
       q, k, v = the H heads of n Wqkv^T + b        queries and keys may be normalized and rotated
       y = the heads' attention, side by side       see attention.h
       x' = x + drop(y Wo^T + b)
       out = x' + drop(f(norm(x') Wup^T + b) Wdown^T + b)

   Sequences know nothing of each other, so each thread takes its own through a layer. Residuals,
   sums and norms are float32; factors of products are numbers. */

#include "gradients.h"
#include "threads.h"

int blocks_allowed(void) { return tiles_allowed(); }

/* A thread's view of a layer. */
typedef struct {
  const Blocks *s;
  const Shared *shared;
  const Room *w;
  size_t layer;
  Saved saved;
  Dropout dropout;
  number *const *packed;
} Layer;

static Layer layer_of(const Blocks *s, const Shared *shared, const Room *w, size_t layer) {
  return (Layer){s, shared, w, layer, saved_of(s, layer, NULL),
                 {mix(s->seed + layer), s->dropout}, shared->packed[layer & 1]};
}

/* Pack this thread's part of a layer's matrices. */
static void pack_weights(const Blocks *s, const Shared *shared, size_t layer, int backward, int me,
                         int of) {
  for (int w = 0; w < MATRICES; w++) {
    const size_t O = rows_of(s, w), I = columns_of(s, w);
    const float *const W = weight_of(s, layer, w);
    number *const to_pack = shared->packed[layer & 1][w];
    size_t from, to;
    share(backward ? I : O, LANES, me, of, &from, &to);
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

/* n normalized rows of x (n, D), as numbers; norm is GAIN1 or GAIN2. */
static void normalize_rows(const Layer *l, int norm, const float *x, size_t n) {
  const size_t D = l->s->D;
  float *const row = l->w->row[0];
  for (size_t r = 0; r < n; r++) {
    normalize(x + r * D, D, l->s->layernorm, weight_of(l->s, l->layer, norm),
              weight_of(l->s, l->layer, norm + 1), row);
    to_padded_numbers(row, D, l->w->normal + r * width(D));
  }
}

/* --- forward ---------------------------------------------------------------------------------- */

/* A row of product to queries, keys and values. */
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

/* All heads of sequence b: y from queries, keys and values. */
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

/* n rows from `row` on, from y to the output. */
static void forward_rest(const Layer *l, size_t row, size_t n) {
  const Blocks *s = l->s;
  const Room *w = l->w;
  const size_t D = s->D, F = s->F, U = rows_of(s, UP);
  float *const middle = l->saved.middle + row * D;
  multiply_by(l, OUT, 0, l->saved.y + row * width(D), n);
  for (size_t r = 0; r < n; r++)
    add_residual(l, OUT, row + r, l->saved.x + (row + r) * D, w->product + r * width(D),
                 middle + r * D);
  normalize_rows(l, GAIN2, middle, n);
  multiply_by(l, UP, 0, w->normal, n);
  for (size_t r = 0; r < n; r++) {
    float *const u = w->product + r * width(U);
    add_bias(l, UP, u);
    to_padded_numbers(u, U, l->saved.u + (row + r) * width(U));
    activate(s->mlp, u, F, w->row[0]);
    to_padded_numbers(w->row[0], F, w->a + r * width(F));
  }
  multiply_by(l, DOWN, 0, w->a, n);
  for (size_t r = 0; r < n; r++)
    add_residual(l, DOWN, row + r, middle + r * D, w->product + r * width(D),
                 l->saved.out + (row + r) * D);
}

/* Sequences [from, to) through a layer. */
static void forward_group(const Layer *l, size_t from, size_t to) {
  const Blocks *s = l->s;
  const size_t D = s->D, rows = to * s->T;
  for (size_t row = from * s->T; row < rows; row += PIECE) {
    const size_t n = smaller(PIECE, rows - row);
    normalize_rows(l, GAIN1, l->saved.x + row * D, n);
    multiply_by(l, QKV, 0, l->w->normal, n);
    for (size_t r = 0; r < n; r++) split_heads(l, row + r, l->w->product + r * width(3 * D));
  }
  for (size_t b = from; b < to; b++) attend_heads(l, b);
  for (size_t row = from * s->T; row < rows; row += PIECE)
    forward_rest(l, row, smaller(PIECE, rows - row));
}

/* --- backward --------------------------------------------------------------------------------- */

/* n rows of the gradient dx, times the mask, as numbers of dy, and as a factor from k on. */
static void drop_gradient(const Layer *l, int matrix, size_t row, size_t n, size_t k) {
  const Blocks *s = l->s;
  const size_t D = s->D, place = matrix == OUT ? ON_ATTENTION : ON_MLP;
  for (size_t r = 0; r < n; r++) {
    const float *dx = s->out + (row + r) * D;
    if (s->dropout > 0) {
      dx = memcpy(l->w->row[0], dx, D * sizeof(float));
      drop(&l->dropout, row_key(&l->dropout, place, row + r), l->w->row[0], D);
    }
    to_padded_numbers(dx, D, l->w->dy + r * width(D));
  }
  store_dy(s, l->shared, matrix, l->w->dy, n, k);
}

/* Add to n rows of dx what product, the gradient by the output of a norm of x, gives. */
static void norm_gradient(const Layer *l, int norm, const float *x, size_t row, size_t n) {
  const Blocks *s = l->s;
  const size_t D = s->D, group = row / s->T / group_of(s);
  float *const sums = l->shared->norms + (group * 4 + (size_t)(norm - GAIN1)) * D;
  for (size_t r = 0; r < n; r++)
    normalize_backward(x + (row + r) * D, l->w->product + r * width(D), D, s->layernorm,
                       weight_of(s, l->layer, norm), s->out + (row + r) * D, sums, sums + D);
}

/* n rows from `row` on, which are rows from k on of the chunk: through the MLP, and the product
   after the attention; `first` is the group's first row. */
static void backward_rest(const Layer *l, size_t row, size_t n, size_t k, size_t first) {
  const Blocks *s = l->s;
  const Room *w = l->w;
  const size_t D = s->D, F = s->F, U = rows_of(s, UP), K = D / s->H;
  drop_gradient(l, DOWN, row, n, k);
  multiply_by(l, DOWN, 1, w->dy, n);
  for (size_t r = 0; r < n; r++) {
    from_numbers(l->saved.u + (row + r) * width(U), U, w->row[0]);
    activate_backward(s->mlp, w->row[0], w->product + r * width(F), F, w->row[1], w->row[2]);
    to_padded_numbers(w->row[1], F, w->a + r * width(F));
    to_padded_numbers(w->row[2], U, w->du + r * width(U));
  }
  store_x(s, l->shared, DOWN, w->a, n, k);
  store_dy(s, l->shared, UP, w->du, n, k);
  normalize_rows(l, GAIN2, l->saved.middle + row * D, n);
  store_x(s, l->shared, UP, w->normal, n, k);
  multiply_by(l, UP, 1, w->du, n);
  norm_gradient(l, GAIN2, l->saved.middle, row, n);
  drop_gradient(l, OUT, row, n, k);
  store_x(s, l->shared, OUT, l->saved.y + row * width(D), n, k);
  multiply_by(l, OUT, 1, w->dy, n);
  for (size_t r = 0; r < n; r++) {
    const size_t b = (row + r - first) / s->T, t = (row + r - first) % s->T;
    for (size_t h = 0; h < s->H; h++)
      to_padded_numbers(w->product + r * width(D) + h * K, K,
                 w->dheads + ((b * s->H + h) * s->T + t) * width(K));
  }
}

/* A step's gradient dx (K,) by a query or key, back to that by what split_heads made it of. */
static void prepare_backward(const Layer *l, size_t part, size_t b, size_t h, size_t t, float *dx) {
  const Blocks *s = l->s;
  const size_t K = s->D / s->H, half = K / 2;
  float *const x = l->w->row[0];
  if (s->cos) rotate(dx, s->cos + t * half, s->sin + t * half, half, -1);
  if (!s->qk_norm) return;
  from_numbers(l->saved.heads[part] + ((b * s->H + h) * s->T + t) * width(K), K, x);
  if (s->cos) rotate(x, s->cos + t * half, s->sin + t * half, half, -1);
  normalize_vector_backward(x, l->saved.inverse[((b * s->T + t) * 2 + part) * s->H + h], K, dx);
}

/* dqkv of sequence b, which is number `at` of its group. */
static void attend_heads_backward(const Layer *l, size_t b, size_t at) {
  const Blocks *s = l->s;
  const AttentionRoom *w = &l->w->attention;
  const size_t K = s->D / s->H, stride = width(3 * s->D);
  const Attention shape = {s->T, K, s->dropout > 0 ? &l->dropout : NULL};
  float *const gradients[] = {w->dq, w->dk, w->dv};
  for (size_t h = 0; h < s->H; h++) {
    const size_t row = (b * s->H + h) * s->T, from = row * width(K);
    attend_backward(&shape, w, l->saved.heads[0] + from, l->saved.heads[1] + from,
                    l->saved.heads[2] + from, l->w->dheads + (at * s->H + h) * s->T * width(K), row);
    for (size_t t = 0; t < s->T; t++)
      for (size_t part = 0; part < 3; part++) {
        float *const dx = gradients[part] + t * width(K);
        number *const to = l->w->dqkv + (at * s->T + t) * stride;
        if (part < 2) prepare_backward(l, part, b, h, t, dx);
        for (size_t i = 0; i < K; i++) to[part * s->D + h * K + i] = to_number(dx[i]);
        for (size_t i = 3 * s->D; i < stride; i++) to[i] = 0;
      }
  }
}

/* Sequences [from, to) back through a layer; k is where the chunk has their rows. */
static void backward_group(const Layer *l, size_t from, size_t to, size_t k) {
  const Blocks *s = l->s;
  const size_t D = s->D, first = from * s->T, rows = (to - from) * s->T;
  memset(l->shared->norms + from / group_of(s) * 4 * D, 0, 4 * D * sizeof(float));
  for (size_t r = 0; r < rows; r += PIECE)
    backward_rest(l, first + r, smaller(PIECE, rows - r), k + r, first);
  for (size_t b = from; b < to; b++) attend_heads_backward(l, b, b - from);
  for (size_t r = 0; r < rows; r += PIECE) {
    const size_t n = smaller(PIECE, rows - r);
    const number *const dqkv = l->w->dqkv + r * width(3 * D);
    store_dy(s, l->shared, QKV, dqkv, n, k + r);
    normalize_rows(l, GAIN1, l->saved.x + (first + r) * D, n);
    store_x(s, l->shared, QKV, l->w->normal, n, k + r);
    multiply_by(l, QKV, 1, dqkv, n);
    norm_gradient(l, GAIN1, l->saved.x, first + r, n);
  }
}

/* --- threads ---------------------------------------------------------------------------------- */

static Room my_room(const Blocks *s, Memory *m, int me) {
  Room w = room_of(s, m);
  for (int i = 0; i < me; i++) w = room_of(s, m);
  return w;
}

static void forward(const void *job, int me, int of) {
  const Blocks *s = job;
  Memory m = {s->workspace, 0};
  const Shared shared = shared_of(s, &m);
  const Room w = my_room(s, &m, me);
  const size_t group = group_of(s);
  size_t from, to;
  share(s->B, group, me, of, &from, &to);
  for (size_t layer = 0; layer < s->n_layer; layer++) {
    const Layer l = layer_of(s, &shared, &w, layer);
    pack_weights(s, &shared, layer, 0, me, of);
    barrier(of); /* when all are here, nobody uses the weights of the layer before any more */
    for (size_t b = from; b < to; b += group) forward_group(&l, b, smaller(b + group, to));
  }
}

/* This thread's sequences of the chunk that begins at `first`, back through a layer, then its part
   of the gradients. */
static void backward_chunk(const Layer *l, size_t first, int me, int of) {
  const Blocks *s = l->s;
  const size_t group = group_of(s), count = smaller(chunk_of(s), s->B - first);
  const size_t length = width(group * s->T), groups = round_up(count, group) / group;
  size_t from, to;
  share(count, group, me, of, &from, &to);
  for (size_t b = from; b < to; b += group)
    backward_group(l, first + b, first + smaller(b + group, to), b / group * length);
  barrier(of);
  const size_t last = (groups - 1) * length + width((count - (groups - 1) * group) * s->T);
  add_gradients(s, l->shared, s->gradients + l->layer * WEIGHTS, last, first > 0, me, of);
}

static void backward(const void *job, int me, int of) {
  const Blocks *s = job;
  Memory m = {s->workspace, 0};
  const Shared shared = shared_of(s, &m);
  const Room w = my_room(s, &m, me);
  for (size_t layer = s->n_layer; layer-- > 0;) {
    const Layer l = layer_of(s, &shared, &w, layer);
    pack_weights(s, &shared, layer, 1, me, of);
    for (size_t first = 0; first < s->B; first += chunk_of(s)) {
      barrier(of); /* the weights are packed, and nobody needs the chunk before any more */
      backward_chunk(&l, first, me, of);
    }
    sum_norms(s, &shared, s->gradients + layer * WEIGHTS, me, of);
  }
}

void blocks_forward(int threads, const Blocks *s) {
  on_threads(threads, tiles_begin, tiles_end, forward, s);
}
void blocks_backward(int threads, const Blocks *s) {
  on_threads(threads, tiles_begin, tiles_end, backward, s);
}

/* The mask of `rows` rows of n, from `row` on, in a layer and place of dropout.h; for tests. */
void blocks_mask(const Blocks *s, size_t layer, size_t place, size_t row, size_t rows, size_t n,
                 float *out) {
  const Dropout dropout = {mix(s->seed + layer), s->dropout};
  for (size_t r = 0; r < rows; r++) {
    for (size_t i = 0; i < n; i++) out[r * n + i] = 1;
    drop(&dropout, row_key(&dropout, place, row + r), out + r * n, n);
  }
}
