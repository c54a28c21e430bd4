/* The structs of the blocks of a transformer, and the layout of their memory.

   Shapes: B sequences of T steps, R = B T rows, width D, H heads of width K = D / H, F hidden units
   of the MLP, U = F (SwiGLU: 2 F) outputs of its first matrix. A row of n numbers is padded with
   zeros to width(n). */

#include "attention.h"

enum { PIECE = 128 };        /* rows in a product: their activations stay in the cache */
enum { GROUP_ROWS = 64 };    /* rows of short sequences that are processed together */
enum { CHUNK_ROWS = 2048 };  /* rows between two updates of the gradients, see gradients.h */
enum { CHUNK_SEQUENCES = 16 }; /* at least, so that this many threads can work */
/* Rows that are summed at a time for a part of a dW. LENGTH, their distance in memory, is not a
   power of 2: such addresses compete for the same places in the cache. */
enum { SPAN = 128 * PER_ELEMENT, LENGTH = SPAN + 2 * DEPTH };

enum { QKV, OUT, UP, DOWN, MATRICES };
enum { BIASES = MATRICES, GAIN1 = 2 * MATRICES, NORM_BIAS1, GAIN2, NORM_BIAS2, WEIGHTS };

typedef struct {
  size_t B, T, D, H, F, n_layer;
  uint64_t seed;
  float dropout;
  int layernorm, qk_norm, mlp;
  const float *cos, *sin;      /* (T, K / 2) each, or NULL */
  /* WEIGHTS arrays for each layer: matrices (3 D, D), (D, D), (U, D), (D, F), their biases, and
     gain and bias of two norms. What a model does not have is NULL. */
  const float *const *weights;
  float *const *gradients;
  const float *x;              /* (R, D), the input */
  float *out;                  /* (R, D): the output; backward its gradient, then that of x */
  void *saved, *workspace;     /* of the sizes that blocks_memory gives */
} Blocks;

static size_t rows_of(const Blocks *s, int matrix) {
  const size_t U = s->mlp == SWIGLU ? 2 * s->F : s->F;
  return matrix == QKV ? 3 * s->D : matrix == UP ? U : s->D;
}
static size_t columns_of(const Blocks *s, int matrix) { return matrix == DOWN ? s->F : s->D; }

static const float *weight_of(const Blocks *s, size_t layer, int weight) {
  return s->weights[layer * WEIGHTS + (size_t)weight];
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The number of sequences that a thread processes at a time, and that of a chunk. They do not
   depend on the number of threads, and so the results do not. */
static size_t group_of(const Blocks *s) { return larger(1, smaller(GROUP_ROWS / s->T, s->B)); }
static size_t chunk_of(const Blocks *s) {
  return smaller(s->B, round_up(larger(CHUNK_SEQUENCES, CHUNK_ROWS / s->T), group_of(s)));
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Memory from `base` on, `used` bytes of it allocated. If base is NULL, only the bytes are counted.
   */
typedef struct {
  char *base;
  size_t used;
} Memory;

static void *take(Memory *m, size_t count, size_t size) {
  void *start = m->base ? m->base + m->used : NULL;
  m->used += round_up(count * size, 64);
  return start;
}
static float *floats(Memory *m, size_t count) { return take(m, count, sizeof(float)); }
/* With LANES more rows, because products read whole blocks. */
static number *numbers(Memory *m, size_t rows, size_t columns) {
  return take(m, (rows + LANES) * columns, sizeof(number));
}

/* What the forward pass of a layer saves for the backward pass. */
typedef struct {
  const float *x;        /* (R, D), the input */
  float *out;            /* (R, D), the output */
  float *middle;         /* (R, D), after the attention */
  Moments *moments[2];   /* (R,), of x and middle */
  float *inverse;        /* (R, 2, H), 1 / rms of queries and keys */
  number *heads[3];      /* queries, keys and values, (B, H, T, K) each */
  number *y, *a;         /* (R, D), what the heads found; (R, F), after the activation */
  number *slopes;        /* (R, U), the derivatives of a */
} Saved;

static Saved saved_of(const Blocks *s, size_t layer, size_t *bytes) {
  Memory m = {s->saved, 0};
  Saved l = {0};
  const size_t R = s->B * s->T;
  for (size_t i = 0; i <= layer; i++) {
    l.x = i ? l.out : s->x;
    l.out = i + 1 < s->n_layer ? floats(&m, R * s->D) : s->out;
    l.middle = floats(&m, R * s->D);
    for (int i = 0; i < 2; i++) l.moments[i] = take(&m, R, sizeof(Moments));
    l.inverse = floats(&m, s->qk_norm ? R * 2 * s->H : 0);
    for (int part = 0; part < 3; part++)
      l.heads[part] = numbers(&m, R * s->H, width(s->D / s->H));
    l.y = numbers(&m, R, width(s->D));
    l.a = numbers(&m, R, width(s->F));
    l.slopes = take(&m, R * rows_of(s, UP), sizeof(number));
  }
  if (bytes) *bytes = m.used;
  return l;
}

/* The factors of each dW = dy^T x, for the rows of a chunk: dy (rows, O) and x (rows, I). */
typedef struct {
  number *dy[MATRICES];
  const number *x[MATRICES];
} Factors;

/* What all threads share. */
typedef struct {
  number *packed[2][MATRICES];  /* right factors W^T, or backward W; forward for two layers */
  number *dy[MATRICES];         /* see Factors */
  number *normal1, *normal2;    /* (rows, D) each: x of QKV and UP */
  float *norms;                 /* (groups of sequences, 4, D), gradients of the norms */
} Shared;

/* The workspace of one thread. */
typedef struct {
  number *normal;       /* (PIECE, D) */
  float *product;       /* (PIECE, the largest width) */
  float *row[2];        /* (the largest width) each */
  number *dheads;       /* (H, T, K) of each sequence of a group */
  number *left, *right; /* (the largest width, LENGTH) each */
  AttentionWorkspace attention;
} Workspace;

static Shared shared_of(const Blocks *s, Memory *m) {
  Shared shared = {0};
  const size_t group = group_of(s), groups = round_up(s->B, group) / group;
  const size_t rows = chunk_of(s) * s->T;
  for (int w = 0; w < MATRICES; w++) {
    const size_t O = rows_of(s, w), I = columns_of(s, w);
    for (int i = 0; i < 2; i++) shared.packed[i][w] = numbers(m, 1, width(O) * width(I));
    shared.dy[w] = numbers(m, rows, width(O));
  }
  shared.normal1 = numbers(m, rows, width(s->D));
  shared.normal2 = numbers(m, rows, width(s->D));
  shared.norms = floats(m, groups * 4 * s->D);
  return shared;
}

static AttentionWorkspace attention_workspace(const Blocks *s, Memory *m) {
  AttentionWorkspace w;
  const size_t K = width(s->D / s->H), T = width(s->T), rows = round_up(s->T, QUERIES);
  w.P = floats(m, QUERIES * T), w.dP = floats(m, QUERIES * T);
  w.masked = numbers(m, QUERIES, T), w.dS = numbers(m, QUERIES, T);
  w.transposed = numbers(m, T, QUERIES);
  number **const factors[] = {&w.k_t, &w.v_t, &w.q, &w.k, &w.v, &w.dy};
  for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) *factors[i] = numbers(m, T, K);
  float **const outputs[] = {&w.y, &w.dq, &w.dk, &w.dv};
  for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) *outputs[i] = floats(m, rows * K);
  return w;
}

static Workspace workspace_of(const Blocks *s, Memory *m) {
  Workspace w;
  const size_t D = width(s->D), F = width(s->F), U = width(rows_of(s, UP));
  const size_t largest = larger(width(3 * s->D), larger(U, F)), rows = group_of(s) * s->T;
  w.normal = numbers(m, PIECE, D);
  w.product = floats(m, PIECE * largest);
  for (int i = 0; i < 2; i++) w.row[i] = floats(m, largest);
  w.dheads = numbers(m, rows * s->H, width(s->D / s->H));
  w.left = numbers(m, largest, LENGTH), w.right = numbers(m, largest, LENGTH);
  w.attention = attention_workspace(s, m);
  return w;
}

/* Compute the bytes of `saved` and of the workspace. */
void blocks_memory(int threads, const Blocks *s, size_t bytes[2]) {
  Memory m = {0};
  Blocks empty = *s;
  empty.saved = NULL;
  saved_of(&empty, s->n_layer - 1, bytes);
  shared_of(s, &m);
  for (int i = 0; i < threads; i++) workspace_of(s, &m);
  bytes[1] = m.used;
}
