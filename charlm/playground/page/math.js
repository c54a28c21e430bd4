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

/** y = W x + b. W (O, I) in row-major order, x (I), y (O); b (O) or undefined. Four rows at once read x once: fast. */
function affine(W, b, x, y) {
  const I = x.length, O = y.length;
  let o = 0;
  for (; o + 4 <= O; o += 4) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    const w0 = o * I, w1 = w0 + I, w2 = w1 + I, w3 = w2 + I;
    for (let i = 0; i < I; i++) {
      const each = x[i];
      s0 += W[w0 + i] * each;
      s1 += W[w1 + i] * each;
      s2 += W[w2 + i] * each;
      s3 += W[w3 + i] * each;
    }
    y[o] = s0;
    y[o + 1] = s1;
    y[o + 2] = s2;
    y[o + 3] = s3;
  }
  for (; o < O; o++) {
    y[o] = 0;
    for (let i = 0; i < I; i++) y[o] += W[o * I + i] * x[i];
  }
  if (b) for (o = 0; o < O; o++) y[o] += b[o];
  return y;
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
