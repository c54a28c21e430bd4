// The forward pass of an MLP, one character at a time. The equations are those of charlm.sampling.numpy.mlp.

const MOST_KEPT = 4e6; // numbers of the first layer's sums
const ACTIVATIONS = { sigmoid, tanh: Math.tanh, relu: (x) => Math.max(0, x) };

class MLP {
  /** `weights` are Float32Arrays by the names of the checkpoint. They may be shared; the state is not. */
  constructor(config, V, weights) {
    const { n_layer: L, hidden_size: D, context: N, activation } = config;
    Object.assign(this, { L, D, V, N, weights, context: null, activate: ACTIVATIONS[activation] });
    this.first = new Map(); // W_n e (D), by n V + character
    this.layers = Array.from({ length: L }, () => ({ h: new Float64Array(D) }));
    this.logits = new Float64Array(V);
    this.restart();
  }

  /** A text starts as if N characters of number 0 had come before. */
  restart() {
    this.seen = new Array(this.N).fill(0);
  }

  save() {
    return this.seen.slice();
  }

  restore(saved) {
    this.seen = saved.slice();
  }

  /** Read a character; `logits` are then those of the next one. */
  step(id) {
    const { layers, weights, D } = this;
    this.seen.push(id);
    this.seen.shift();
    layers.forEach(({ h }, i) => {
      const b = weights[`layers.${i}.bias`];
      if (i) affine(weights[`layers.${i}.weight`], b, layers[i - 1].h, h);
      else {
        h.set(b);
        this.seen.forEach((each, n) => {
          const part = this.firstPart(n, each);
          for (let d = 0; d < D; d++) h[d] += part[d];
        });
      }
      for (let d = 0; d < D; d++) h[d] = this.activate(h[d]);
    });
    affine(weights["head.weight"], weights["head.bias"], layers.at(-1).h, this.logits);
  }

  /** W_n e (D) for the place n of the context and a character: computed once for each pair, and kept. */
  firstPart(n, id) {
    const { V, D, N } = this, key = n * V + id;
    let part = this.first.get(key);
    if (part) return part;
    const W = this.weights["layers.0.weight"], embed = this.weights["embed.weight"];
    const I = W.length / D, E = I / N; // E numbers for each character; V for one-hot
    part = new Float32Array(D);
    for (let d = 0; d < D; d++) {
      const row = d * I + n * E;
      if (!embed) part[d] = W[row + id];
      else for (let e = 0; e < E; e++) part[d] += W[row + e] * embed[id * E + e];
    }
    if (this.first.size * D > MOST_KEPT) this.first.clear();
    this.first.set(key, part);
    return part;
  }

  /** The value of a unit after the last character. */
  value({ layer, index }) {
    return this.layers[layer].h[index];
  }
}
