/* Rows times a matrix by AMX, for product.h, of which this is a part: float32 numbers as two of
   bfloat16, a = hi + lo.

   Of 32 rows (or outputs) and 32 numbers of each, two tiles of hi and two of lo lie together. */

/* Which of 16 numbers there are, when n are left. */
INLINE __mmask16 there(ptrdiff_t n) {
  return n >= TILE ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* Up to 16 numbers; 0 for those that are missing. */
INLINE __m512 some(const float *p, ptrdiff_t n) { return _mm512_maskz_loadu_ps(there(n), p); }

INLINE void split(__m512 low, __m512 high, __m512i *hi, __m512i *lo) {
  bf16 rounded[DEPTH];
  *hi = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  _mm512_storeu_si512(rounded, *hi);
  low = _mm512_sub_ps(low, from_bf16(rounded));
  high = _mm512_sub_ps(high, from_bf16(rounded + TILE));
  *lo = (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* The rows as tiles of a left factor: thread `me`'s part, which is some of the numbers of each. */
static void split_rows(const Rows *rows, size_t I, int me, int of) {
  size_t from, to, depth = round_up(I) / DEPTH;
  share(I, me, of, &from, &to);
  for (size_t n = 0; n < round_up(rows->N); n++) {
    bf16 *out = (bf16 *)rows->tiles + (n / BLOCK * depth + from / DEPTH) * 4 * TILE_SIZE +
                n % BLOCK / TILE * TILE_SIZE + n % TILE * DEPTH;
    const float *x = rows->x + n * rows->stride;
    for (size_t k = from; k < to; k += DEPTH, out += 4 * TILE_SIZE) {
      ptrdiff_t left = n < rows->N ? (ptrdiff_t)(I - k) : 0;
      __m512i hi, lo;
      split(some(x + k, left), some(x + k + TILE, left - TILE), &hi, &lo);
      _mm512_storeu_si512(out, hi);
      _mm512_storeu_si512(out + 2 * TILE_SIZE, lo);
    }
  }
}

/* 32 rows of W, and 32 numbers of each, as tiles of a right factor. */
static void pack_piece(const Matrix *m, size_t o, size_t k, bf16 *out) {
  float hi[BLOCK][DEPTH], lo[BLOCK][DEPTH];
  for (size_t r = 0; r < BLOCK; r++) {
    ptrdiff_t left = o + r < m->O ? (ptrdiff_t)(m->I - k) : 0;
    for (size_t half = 0; half < DEPTH; half += TILE) {
      __m512 w = some(m->W + (o + r) * m->I + k + half, left - (ptrdiff_t)half);
      bf16 rounded[TILE];
      to_bf16(rounded, w);
      _mm512_storeu_ps(hi[r] + half, from_bf16(rounded));
      _mm512_storeu_ps(lo[r] + half, _mm512_sub_ps(w, from_bf16(rounded)));
    }
  }
  pack_block(hi[0], DEPTH, 0, 1, out, out + TILE_SIZE);
  pack_block(lo[0], DEPTH, 0, 1, out + 2 * TILE_SIZE, out + 3 * TILE_SIZE);
}

static void pack_matrix(const Matrix *m, bf16 *tiles) {
  for (size_t o = 0; o < m->O; o += BLOCK)
    for (size_t k = 0; k < m->I; k += DEPTH, tiles += 4 * TILE_SIZE) pack_piece(m, o, k, tiles);
}

/* out (32, 32) = the rows at x times the columns at w, over `depth` steps of 32. */
static inline void multiply_split(const bf16 *x, const bf16 *w, size_t depth, float *out,
                                  size_t stride) {
  const size_t row = stride * sizeof(float);
  float *const low = out + TILE * stride;
  settle();
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  for (size_t k = 0; k < depth; k++, x += 4 * TILE_SIZE, w += 4 * TILE_SIZE) {
    _tile_loadd(4, x + 2 * TILE_SIZE, 64); _tile_loadd(5, x + 3 * TILE_SIZE, 64); /* lo hi */
    _tile_loadd(6, w, 64); _tile_loadd(7, w + TILE_SIZE, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(4, x, 64); _tile_loadd(5, x + TILE_SIZE, 64); /* hi hi */
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, w + 2 * TILE_SIZE, 64); _tile_loadd(7, w + 3 * TILE_SIZE, 64); /* hi lo */
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, row); _tile_stored(1, out + TILE, row);
  _tile_stored(2, low, row); _tile_stored(3, low + TILE, row);
  settle();
}

/* Put the first N rows and O columns of a block in place, with what belongs to it. */
static void put_block(const float *block, size_t N, size_t O, const float *b, float *y,
                      size_t stride, int more) {
  for (size_t r = 0; r < N; r++)
    for (size_t half = 0; half < O; half += TILE) {
      float *at = y + r * stride + half;
      const ptrdiff_t left = (ptrdiff_t)(O - half);
      __m512 sum = _mm512_loadu_ps(block + r * BLOCK + half);
      if (b) sum = _mm512_add_ps(sum, some(b + half, left));
      if (more) sum = _mm512_add_ps(sum, some(at, left));
      _mm512_mask_storeu_ps(at, there(left), sum);
    }
}

/* As `product`. */
static void by_amx(const Matrix *m, const Rows *rows, size_t from, size_t to, float *y,
                   size_t stride, int more) {
  const size_t depth = round_up(m->I) / DEPTH, piece = depth * 4 * TILE_SIZE;
  const bf16 *w = (const bf16 *)m->tiles + from / BLOCK * piece;
  for (size_t o = from; o < to; o += BLOCK, w += piece, y += BLOCK) {
    const bf16 *x = rows->tiles;
    for (size_t n = 0; n < rows->N; n += BLOCK, x += piece) {
      _Alignas(64) float block[BLOCK * BLOCK];
      const size_t N = n + BLOCK < rows->N ? BLOCK : rows->N - n;
      const size_t O = o + BLOCK < to ? BLOCK : to - o;
      if (N < BLOCK || O < BLOCK || m->b || more) {
        multiply_split(x, w, depth, block, BLOCK);
        put_block(block, N, O, m->b ? m->b + o : NULL, y + n * stride, stride, more);
      } else {
        multiply_split(x, w, depth, y + n * stride, stride);
      }
    }
  }
}
