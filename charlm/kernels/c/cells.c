/* One layer of a vanilla RNN, a GRU or an LSTM over T steps, forward and backward (truncated BPTT).

   Shapes: B sequences, T steps, D units, G gates (cells.h). Arrays are row-major, (T, B, ...). Rows
   are a stride apart, a multiple of DEPTH, and padded with zeros.

       forward    gh_t = h_{t-1} W_hh^T, then the cell (cells.h)
       backward   the cell's slopes give dz_t, the gradient of gh_t; dh_{t-1} += dz_t W_hh

   Each thread has its own sequences and does not wait for another. With few sequences, some threads
   share the units of the same ones, with a barrier after every step. */

#include "threads.h"
#include "tiles.h"
#include "cells.h"

int cells_allowed(void) { return tiles_allowed(); }
size_t cells_depth(void) { return DEPTH; }

enum { MIN_SEQUENCES = 16 };  /* for a thread; with fewer, reading the weights takes the time */
enum { L2_BYTES = 1 << 20 };  /* of weights that stay in the cache of one core */
/* The largest block of units and sequences whose sums stay in the L1 cache. */
enum { UNITS = 2 * WIDTH, BATCH = ROWS > 16 ? ROWS : 16 };

typedef struct {
  size_t kind, T, B, D;
  size_t h_stride, kept_stride, dz_stride, x_stride; /* of h, kept, dz; of x or table */
  const float *W_hh;   /* (G D, D) */
  const float *b_n;    /* (D,): b_hh of a GRU's n, which r multiplies; others are in b or table */
  const float *table;  /* (V, G D): W_ih x + b_ih + b_hh of each character; or NULL */
  const int64_t *ids;  /* (T, B): the characters */
  const number *x;     /* (T, B, G D): W_ih x_t, without a table ... */
  const float *b;      /* (G D,): ... and its b_ih + b_hh */
  number *h;           /* (T + 1, B, D): from row 1 on, out */
  float *carry;        /* (T + 1, B, D): c of an LSTM, h of a GRU */
  number *kept;        /* (T, B, 4 D) */
  const number *dh_out; /* (T, B, D), contiguous: the gradient of h, from what follows this layer */
  number *dz;          /* (T, B, G D), in a GRU (T, B, 4 D): the gradient of gh, then of n's gi */
  float *dh, *dcarry;  /* (B, D): the gradient of the last state; after the loop, of the first */
  number *packed;      /* workspace for W_hh, cells_packed() numbers */
} Layer;

/* Numbers in W_hh as right factors: forward one (D, D) for each gate, backward one (G D, D). */
size_t cells_packed(size_t kind, size_t D) {
  const size_t forward = gates_of(kind) * packed_size(D, D);
  const size_t backward = packed_size(D, gates_of(kind) * D);
  return forward > backward ? forward : backward;
}

/* The work of one thread: sequences [row, row_end) and units [unit, unit_end). */
typedef struct {
  const Layer *l;
  size_t row, row_end, unit, unit_end;
  int sharing; /* the number of threads with the same sequences */
} Part;

static Part part_of(const Layer *l, int thread, int threads) {
  enum { STEP = ROW_STEP > 4 ? ROW_STEP : 4 };
  const size_t bytes = gates_of(l->kind) * l->D * l->D * sizeof(number);
  const size_t least = bytes > L2_BYTES ? 2 * MIN_SEQUENCES : MIN_SEQUENCES;
  int parts = threads; /* of the sequences: a divisor of `threads` */
  while (parts > 1 && (threads % parts || (size_t)parts * least > l->B)) parts--;
  const int sharing = threads / parts, row_part = thread / sharing, unit_part = thread % sharing;
  Part part = {.l = l, .sharing = sharing};
  partition(l->B, STEP, row_part, parts, &part.row, &part.row_end);
  partition(l->D, LANES, unit_part, sharing, &part.unit, &part.unit_end);
  return part;
}

/* Thread `thread` packs some groups of columns. */
static void pack_forward(const Layer *l, int thread, int threads) {
  const size_t D = l->D, groups = round_up(D, LANES) / LANES, all = gates_of(l->kind) * groups;
  size_t from, to;
  partition(all, 1, thread, threads, &from, &to);
  for (size_t i = from; i < to; i++) {
    const size_t gate = i / groups, unit = i % groups * LANES;
    right_t(l->W_hh + (gate * D + unit) * D, D, smaller(LANES, D - unit), D,
            l->packed + gate * packed_size(D, D) + unit * round_up(D, DEPTH));
  }
}

static void pack_backward(const Layer *l, int thread, int threads) {
  const size_t D = l->D, K = gates_of(l->kind) * D;
  size_t from, to;
  partition(D, LANES, thread, threads, &from, &to);
  if (from < to) right(l->W_hh + from, D, to - from, K, l->packed + from * round_up(K, DEPTH));
}

/* --- forward --------------------------------------------------------------------------------- */

/* gi of `count` units of a row: in the table, or computed in `sums`. */
static Sums input_of(const Layer *l, size_t row, size_t unit, size_t count, float *sums) {
  if (l->table) return (Sums){l->table + (size_t)l->ids[row] * l->x_stride + unit, l->D};
  const number *x = l->x + row * l->x_stride + unit;
  const float *b = l->b + unit;
  for (size_t gate = 0; gate < gates_of(l->kind); gate++, x += l->D, b += l->D)
#pragma omp simd
    for (size_t u = 0; u < count; u++) sums[gate * UNITS + u] = from_number(x[u]) + b[u];
  return (Sums){sums, UNITS};
}

/* One step of `count` units of a row, whose sums gh are. In float32 nothing has to be rounded, and
   the results are written where they belong at once. */
static void cell_of_row(const Layer *l, size_t row, size_t unit, size_t count, Sums gh) {
  const size_t D = l->D, at = row * D + unit, next = at + l->B * D;
  float sums[MAX_GATES * UNITS], rounded_h[UNITS], rounded_kept[MAX_GATES * UNITS];
  number *to_h = l->h + (row + l->B) * l->h_stride + unit;
  number *to_kept = l->kept + row * l->kept_stride + unit;
  float *h = HALF ? rounded_h : (float *)to_h, *kept = HALF ? rounded_kept : (float *)to_kept;
  const Sums gi = input_of(l, row, unit, count, sums);
  if (l->kind == RNN) cell(RNN, count, gi, gh, NULL, NULL, h, NULL, 0);
  else cell(l->kind, count, gi, gh, l->carry + at, l->carry + next, h, kept, HALF ? UNITS : D);
  if (l->kind == GRU) memcpy(l->carry + next, h, count * sizeof *h);
  if (!HALF) return;
  to_numbers(h, count, to_h);
  for (size_t gate = 0; l->kind != RNN && gate < MAX_GATES; gate++)
    to_numbers(kept + gate * UNITS, count, to_kept + gate * D);
}

/* Have the inputs of some rows in the cache when the products are ready. */
static void prefetch_inputs(const Layer *l, size_t row, size_t rows, size_t unit, size_t count) {
  if (l->table) return;
  for (size_t r = row; r < row + rows; r++)
    for (size_t gate = 0; gate < gates_of(l->kind); gate++)
      for (size_t u = 0; u < count; u += 64 / sizeof(number))
        __builtin_prefetch(l->x + r * l->x_stride + gate * l->D + unit + u);
}

static void forward_block(const Part *part, size_t t, size_t row, size_t rows, size_t unit,
                          size_t count) {
  enum { SIZE = BATCH * UNITS };
  const Layer *l = part->l;
  const size_t D = l->D, K = round_up(D, DEPTH);
  float gh[MAX_GATES * SIZE];
  prefetch_inputs(l, t * l->B + row, rows, unit, count);
  for (size_t gate = 0; gate < gates_of(l->kind); gate++)
    multiply(l->h + (t * l->B + row) * l->h_stride, l->h_stride,
             l->packed + gate * packed_size(D, D) + unit * K, rows, count, K, gh + gate * SIZE,
             UNITS, 0);
  for (size_t r = 0; r < rows; r++) {
    float *sums = gh + r * UNITS;
    for (size_t u = 0; l->kind == GRU && u < count; u++) sums[2 * SIZE + u] += l->b_n[unit + u];
    cell_of_row(l, t * l->B + row + r, unit, count, (Sums){sums, SIZE});
  }
}

static void forward(const void *job, int thread, int threads) {
  const Part part = part_of(job, thread, threads);
  pack_forward(job, thread, threads);
  barrier(threads);
  for (size_t t = 0; t < part.l->T; t++) {
    for (size_t unit = part.unit; unit < part.unit_end; unit += UNITS)
      for (size_t row = part.row; row < part.row_end; row += BATCH)
        forward_block(&part, t, row, smaller(BATCH, part.row_end - row), unit,
                      smaller(UNITS, part.unit_end - unit));
    if (part.sharing > 1) barrier(threads);
  }
}

void cells_forward(int threads, const Layer *l) {
  on_threads(threads, tiles_begin, tiles_end, forward, l);
}

/* --- backward -------------------------------------------------------------------------------- */

/* What the slopes of some units of a row are made of, and where they go. */
typedef struct {
  const number *h, *dh_out, *kept;
  const float *before, *after; /* carry */
  float *restrict dz, *restrict dh, *restrict dcarry;
  size_t kept_gate, dz_gate; /* distances between two gates */
} Row;

static void rnn_slopes(Row r, size_t count) {
#pragma omp simd
  for (size_t u = 0; u < count; u++)
    r.dz[u] = (from_number(r.dh_out[u]) + r.dh[u]) * tanh_slope(from_number(r.h[u]));
}

static void gru_slopes(Row row, size_t count) {
  const size_t D = row.kept_gate, to = row.dz_gate;
#pragma omp simd
  for (size_t u = 0; u < count; u++) {
    const float r = from_number(row.kept[u]), z = from_number(row.kept[D + u]);
    const float n = from_number(row.kept[2 * D + u]), gh_n = from_number(row.kept[3 * D + u]);
    const float dh = from_number(row.dh_out[u]) + row.dh[u];
    const float dn = dh * (1 - z) * tanh_slope(n);
    row.dz[u] = dn * gh_n * sigmoid_slope(r);
    row.dz[to + u] = dh * (row.before[u] - n) * sigmoid_slope(z);
    row.dz[2 * to + u] = dn * r;
    row.dz[3 * to + u] = dn;
    row.dh[u] = dh * z;
  }
}

static void lstm_slopes(Row row, size_t count) {
  const size_t D = row.kept_gate, to = row.dz_gate;
#pragma omp simd
  for (size_t u = 0; u < count; u++) {
    const float i = from_number(row.kept[u]), f = from_number(row.kept[D + u]);
    const float g = from_number(row.kept[2 * D + u]), o = from_number(row.kept[3 * D + u]);
    const float dh = from_number(row.dh_out[u]) + row.dh[u], tc = hyperbolic_tangent(row.after[u]);
    const float dc = dh * o * tanh_slope(tc) + row.dcarry[u];
    row.dz[u] = dc * g * sigmoid_slope(i);
    row.dz[to + u] = dc * row.before[u] * sigmoid_slope(f);
    row.dz[2 * to + u] = dc * i * tanh_slope(g);
    row.dz[3 * to + u] = dh * tc * sigmoid_slope(o);
    row.dcarry[u] = dc * f;
  }
}

/* dz of `count` units of the sequence b in step t; as `cell_of_row`. */
static void slopes_of_row(const Layer *l, size_t t, size_t b, size_t unit, size_t count) {
  const size_t D = l->D, row = t * l->B + b, at = row * D + unit, own = b * D + unit;
  float rounded[MAX_GATES * UNITS];
  number *dz = l->dz + row * l->dz_stride + unit;
  Row r = {.h = l->h + (row + l->B) * l->h_stride + unit, .dh_out = l->dh_out + at,
           .dz = HALF ? rounded : (float *)dz, .dh = l->dh + own, .kept_gate = D,
           .dz_gate = HALF ? UNITS : D};
  if (l->kind == RNN) {
    rnn_slopes(r, count);
  } else {
    r.kept = l->kept + row * l->kept_stride + unit, r.dcarry = l->dcarry + own;
    r.before = l->carry + at, r.after = r.before + l->B * D;
    if (l->kind == GRU) gru_slopes(r, count);
    else lstm_slopes(r, count);
  }
  for (size_t gate = 0; HALF && gate < (l->kind == RNN ? 1 : MAX_GATES); gate++)
    to_numbers(rounded + gate * UNITS, count, dz + gate * D);
}

static void backward(const void *job, int thread, int threads) {
  const Part part = part_of(job, thread, threads);
  const Layer *l = job;
  const size_t K = round_up(gates_of(l->kind) * l->D, DEPTH);
  pack_backward(l, thread, threads);
  barrier(threads);
  for (size_t t = l->T; t-- > 0;) {
    for (size_t b = part.row; b < part.row_end; b++)
      for (size_t unit = part.unit; unit < part.unit_end; unit += UNITS)
        slopes_of_row(l, t, b, unit, smaller(UNITS, part.unit_end - unit));
    if (part.sharing > 1) barrier(threads);
    multiply(l->dz + (t * l->B + part.row) * l->dz_stride, l->dz_stride, l->packed + part.unit * K,
             part.row_end - part.row, part.unit_end - part.unit, K,
             l->dh + part.row * l->D + part.unit, l->D, l->kind == GRU);
  }
}

void cells_backward(int threads, const Layer *l) {
  on_threads(threads, tiles_begin, tiles_end, backward, l);
}

/* table (V, G D) += for each row of dz the row of its character. */
static void scatter(const void *job, int thread, int threads) {
  const Layer *l = job;
  const size_t all = gates_of(l->kind) * l->D;
  enum { COLUMNS = 256 }; /* at a time, so that the sums stay in the cache */
  float *out = (float *)l->table;
  size_t first, end;
  partition(all, COLUMNS, thread, threads, &first, &end);
  for (size_t from = first; from < end; from += COLUMNS)
    for (size_t row = 0; row < l->T * l->B; row++) {
      const size_t to = smaller(from + COLUMNS, end);
      float *sums = out + (size_t)l->ids[row] * l->x_stride;
      const number *dz = l->dz + row * l->dz_stride;
#pragma omp simd
      for (size_t j = from; j < to; j++) sums[j] += from_number(dz[j]);
    }
}

/* The gradient of the table, which is filled: the columns of dz are the gradients of gi. */
void cells_scatter(int threads, const Layer *l) { on_threads(threads, NULL, NULL, scatter, l); }
