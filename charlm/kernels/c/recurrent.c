/* The forward step of a vanilla RNN, a GRU and an LSTM, of B texts.

   D hidden units, G gates, V vocabulary. A step is, for every layer,

       gi = W_ih x + b_ih, gh = W_hh h + b_hh, (h, ...) = cell(gi, gh, ...)

   where x is the h of the layer below. For the first layer, gi is a row of a table with one row
   for each character. A step computes a few units of TEXTS texts at a time, so that all their gates
   are still in the cache when the cell needs them. */

#include "linear.h"
#include "cells.h"

enum { TEXTS = 32 };     /* computed at a time */
enum { L2_BYTES = 3 << 19 }; /* bytes of weights that stay in the cache of one core */

typedef struct {
  Matrix W_ih, W_hh; /* (G D, D), with biases; W_ih of the first layer only without a table */
  float *h, *c;       /* (B, D), read and overwritten; c only in an LSTM */
  float *next;        /* (B, D), the new h while others still read the old one */
  number *packed;     /* workspace for h, see Rows */
} Layer;

typedef struct {
  size_t kind, gates, B, T, D, V, n_layer;
  const Layer *layers;
  const float *table; /* (V, G D), the first layer's gi by character, or NULL */
  const float *embed; /* (V, D), the first layer's x by character; only without a table */
  Matrix head;        /* (V, D) */
  const int64_t *ids; /* (B, T) */
  float *x;           /* (B, D), workspace for the first layer's x */
  number *packed_x;   /* workspace for x */
  float *logits;      /* (B, V), after the last character */
} Network;

/* The work of one thread of several that share some of the texts. */
typedef struct {
  const Network *n;
  int thread, threads;
  size_t first, texts, from, to; /* its texts, and its units of each layer */
} Part;

/* gi or gh of WIDTH units of each gate, for TEXTS texts. */
typedef float Gates[MAX_GATES][TEXTS * WIDTH];

/* The part's rows of an array (B, D). */
static Rows rows_of(const Part *part, const float *array, number *packed) {
  const size_t D = part->n->D;
  const Rows all = {part->n->B, D, array, packed};
  return slice_rows(&all, part->first, part->texts, D);
}

/* One time step of a layer, for the part's units and texts; x is NULL if a table replaces it. */
static void step(const Part *part, const Layer *l, const Rows *x, size_t t) {
  const Network *n = part->n;
  const size_t D = n->D;
  const Rows h = rows_of(part, l->h, l->packed);
  _Alignas(64) Gates gi, gh;
  size_t count;
  for (size_t u = part->from; u < part->to; u += count) {
    const size_t groups = round_up(part->to - u, LANES) / LANES;
    count = smaller(next_groups(groups) * LANES, part->to - u);
    for (size_t text = 0; text < part->texts; text += TEXTS) {
      const Rows hs = slice_rows(&h, text, TEXTS, D);
      for (size_t g = 0; g < n->gates; g++) {
        const size_t o = g * D + u;
        if (x) {
          const Rows xs = slice_rows(x, text, TEXTS, D);
          linear(&l->W_ih, &xs, o, o + count, gi[g], WIDTH, 0);
        }
        linear(&l->W_hh, &hs, o, o + count, gh[g], WIDTH, 0);
      }
      for (size_t r = 0; r < hs.N; r++) {
        const size_t at = (part->first + text + r) * D + u;
        const int64_t id = n->ids[(part->first + text + r) * n->T + t];
        const Sums of_x = x ? (Sums){gi[0] + r * WIDTH, TEXTS * WIDTH}
                            : (Sums){n->table + (size_t)id * n->gates * D + u, D};
        float *before = (n->kind == LSTM ? l->c : l->h) + at;
        cell(n->kind, count, of_x, (Sums){gh[0] + r * WIDTH, TEXTS * WIDTH}, before, before,
             l->next + at, NULL, 0);
      }
    }
  }
}

/* The x of the first layer, where that has no table. */
static Rows embed(const Part *part, size_t t) {
  const Network *n = part->n;
  const Rows x = rows_of(part, n->x, n->packed_x);
  for (size_t r = (size_t)part->thread; r < part->texts; r += (size_t)part->threads) {
    const size_t text = part->first + r;
    const float *row = n->embed + (size_t)n->ids[text * n->T + t] * n->D;
    memcpy(n->x + text * n->D, row, n->D * sizeof(float));
  }
  barrier(part->threads);
  pack_rows(&n->layers->W_ih, &x, part->thread, part->threads);
  return x;
}

static void read_part(const Part *part) {
  const Network *n = part->n;
  const size_t D = n->D, bytes = (part->to - part->from) * sizeof(float);
  Rows below = {0}, first;
  for (size_t i = 0; i < n->n_layer; i++) {
    below = rows_of(part, n->layers[i].h, n->layers[i].packed);
    pack_rows(&n->layers[i].W_hh, &below, part->thread, part->threads);
  }
  for (size_t t = 0; t < n->T; t++) {
    if (!n->table) first = embed(part, t);
    for (size_t i = 0; i < n->n_layer; i++) {
      const Layer *l = n->layers + i;
      step(part, l, i ? &below : n->table ? NULL : &first, t);
      barrier(part->threads); /* no thread reads the old h after this */
      below = rows_of(part, l->next, l->packed);
      pack_rows(&l->W_hh, &below, part->thread, part->threads);
      for (size_t text = part->first; text < part->first + part->texts; text++)
        memcpy(l->h + text * D + part->from, l->next + text * D + part->from, bytes);
    }
    if (n->n_layer == 1) barrier(part->threads); /* with more layers, those have barriers */
  }
  size_t from, to;
  partition(n->V, LINE_FLOATS, part->thread, part->threads, &from, &to);
  for (size_t text = 0; text < part->texts; text += TEXTS) {
    const Rows h = slice_rows(&below, text, TEXTS, D);
    linear(&n->head, &h, from, to, n->logits + (part->first + text) * n->V + from, n->V, 0);
  }
}

/* If the weights fit in the cache of each core, every thread takes some texts, and no thread waits.
   Otherwise every thread takes some units of all texts, with a barrier after each layer. */
static void read_all(const void *job, int thread, int threads) {
  const Network *n = job;
  const size_t weights = (2 * n->n_layer - 1) * n->gates * n->D * n->D + n->V * n->D;
  Part part = {.n = n, .thread = thread, .threads = threads, .texts = n->B, .to = n->D};
  if (n->head.packed && n->B >= TEXTS * (size_t)threads && weights * sizeof(float) <= L2_BYTES) {
    size_t end;
    partition(n->B, LINE_FLOATS, thread, threads, &part.first, &end);
    part.texts = end - part.first;
    part.thread = 0, part.threads = 1;
  }
  partition(n->D, LINE_FLOATS, part.thread, part.threads, &part.from, &part.to);
  read_part(&part);
}

int recurrent_allowed(void) { return tiles_allowed(); }

/* Process T characters of each text; compute the logits after the last. */
void recurrent_read(int threads, const Network *n) {
  multiply_on_threads(&n->head, threads, read_all, n);
}
