// Arithmetic on typed arrays, and the weights of the page. Shapes are those of docs/ARCHITECTURE.md.

const RMS_EPS = 2 ** -23, LAYER_EPS = 1e-5;

/** The number that 16 bits of a float16 stand for. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The values of a weight as a Float32Array. int8 values (O, I) have a scale for each of their O rows. */
function decoded(values, scales) {
  if (values instanceof Float32Array) return values;
  if (values instanceof Uint16Array) return Float32Array.from(values, half);
  const width = values.length / scales.length, found = new Float32Array(values.length);
  for (let row = 0, i = 0; row < scales.length; row++) {
    for (const end = i + width; i < end; i++) found[i] = values[i] * scales[row];
  }
  return found;
}

/** y = W x + b. W (O, I) in row-major order, x (I), y (O); b (O) or undefined. */
function affine(W, b, x, y) {
  if (wasm && W.buffer === wasm.buffer) productInWasm(W, x, y);
  else product(W, x, y);
  if (b) for (let o = 0; o < y.length; o++) y[o] += b[o];
  return y;
}

/** y = W x, with the sums of affine.c in their order. Four rows at once read x once: fast. */
function product(W, x, y) {
  const I = x.length, O = y.length, even = I - (I % 2);
  let o = 0;
  for (; o + 4 <= O; o += 4) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
    const w0 = o * I, w1 = w0 + I, w2 = w1 + I, w3 = w2 + I;
    for (let i = 0; i < even; i += 2) {
      const a = x[i], b = x[i + 1];
      s0 += W[w0 + i] * a;
      t0 += W[w0 + i + 1] * b;
      s1 += W[w1 + i] * a;
      t1 += W[w1 + i + 1] * b;
      s2 += W[w2 + i] * a;
      t2 += W[w2 + i + 1] * b;
      s3 += W[w3 + i] * a;
      t3 += W[w3 + i + 1] * b;
    }
    y[o] = s0 + t0;
    y[o + 1] = s1 + t1;
    y[o + 2] = s2 + t2;
    y[o + 3] = s3 + t3;
  }
  for (; o < O; o++) {
    let s = 0, t = 0;
    for (let i = 0, w = o * I; i < even; i += 2) {
      s += W[w + i] * x[i];
      t += W[w + i + 1] * x[i + 1];
    }
    y[o] = s + t;
  }
  if (even < I) for (o = 0; o < O; o++) y[o] += W[o * I + even] * x[even];
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** x Phi(x), with erf by 7.1.26 of Abramowitz & Stegun, as charlm.sampling.numpy. */
function gelu(x) {
  const z = Math.abs(x) * Math.SQRT1_2, t = 1 / (1 + 0.3275911 * z);
  const terms = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  const tail = terms.reduce((sum, term) => (sum + term) * t, 0) * Math.exp(-z * z); // 1 - erf(z)
  return Math.max(0, x) - z * Math.SQRT1_2 * tail;
}

/** Divide x[from..to] by its root mean square, in place. */
function scaleToOne(x, from, to, eps) {
  let squares = 0;
  for (let i = from; i < to; i++) squares += x[i] * x[i];
  const factor = 1 / Math.sqrt(squares / (to - from) + eps);
  for (let i = from; i < to; i++) x[i] *= factor;
}

/** Probabilities of the logits, in place in `p`. */
function softmax(logits, p, temperature = 1) {
  let top = -Infinity, sum = 0;
  for (const logit of logits) if (logit > top) top = logit;
  for (let i = 0; i < logits.length; i++) sum += p[i] = Math.exp((logits[i] - top) / temperature);
  for (let i = 0; i < logits.length; i++) p[i] /= sum;
  return p;
}
