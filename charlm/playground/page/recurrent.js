// The forward pass of a vanilla RNN, a GRU and an LSTM, one character at a time. The equations are those of
// charlm.sampling.numpy.recurrent.

const GATES = { rnn: [], gru: ["reset", "update", "new"], lstm: ["input", "forget", "new", "output"] }; // PyTorch's order

class Recurrent {
  /** `weights` are Float32Arrays by the names of the checkpoint. They may be shared; the state is not. */
  constructor(config, V, weights) {
    const { n_layer: L, hidden_size: D, kind } = config;
    Object.assign(this, { kind, L, D, V, weights, context: null });
    this.G = Math.max(1, GATES[kind].length);
    this.head = weights["head.weight"] ?? weights["embed.weight"];
    this.first = new Map(); // the gi of the first layer (G*D), by character
    this.layers = Array.from({ length: L }, (_, layer) => {
      const [W_ih, W_hh, b_ih, b_hh] = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(
        (name) => weights[`rnn.${name}_l${layer}`],
      );
      return { W_ih, W_hh, b_ih, b_hh, gates: new Float64Array(this.G * D) };
    });
    this.gi = new Float64Array(this.G * D);
    this.gh = new Float64Array(this.G * D);
    this.logits = new Float64Array(V);
    this.restart();
  }

  restart() {
    for (const layer of this.layers) for (const part of ["h", "c"]) layer[part] = new Float64Array(this.D);
  }

  save() {
    return this.layers.map(({ h, c }) => ({ h: h.slice(), c: c.slice() }));
  }

  restore(saved) {
    saved.forEach(({ h, c }, i) => Object.assign(this.layers[i], { h: h.slice(), c: c.slice() }));
  }

  /** Read a character; `logits` are then those of the next one. */
  step(id) {
    this.layers.forEach((layer, i) => {
      const gi = i ? affine(layer.W_ih, layer.b_ih, this.layers[i - 1].h, this.gi) : this.firstInput(id);
      this[this.kind](gi, affine(layer.W_hh, layer.b_hh, layer.h, this.gh), layer);
    });
    affine(this.head, this.weights["head.bias"], this.layers[this.L - 1].h, this.logits);
  }

  /** W_ih x + b_ih of the first layer (G*D). It depends on the character only, so it is computed once for each. */
  firstInput(id) {
    let gi = this.first.get(id);
    if (gi) return gi;
    const { W_ih, b_ih } = this.layers[0], { D, V } = this, embed = this.weights["embed.weight"];
    gi = new Float64Array(this.G * D);
    if (embed) affine(W_ih, b_ih, Float64Array.from(embed.subarray(id * D, (id + 1) * D)), gi);
    else for (let o = 0; o < gi.length; o++) gi[o] = W_ih[o * V + id] + b_ih[o];
    this.first.set(id, gi);
    return gi;
  }

  rnn(gi, gh, { h }) {
    for (let d = 0; d < this.D; d++) h[d] = Math.tanh(gi[d] + gh[d]);
  }

  gru(gi, gh, { h, gates }) {
    const { D } = this;
    for (let d = 0; d < D; d++) {
      const r = (gates[d] = sigmoid(gi[d] + gh[d])), z = (gates[D + d] = sigmoid(gi[D + d] + gh[D + d]));
      const n = (gates[2 * D + d] = Math.tanh(gi[2 * D + d] + r * gh[2 * D + d]));
      h[d] = n + z * (h[d] - n);
    }
  }

  lstm(gi, gh, { h, c, gates }) {
    const { D } = this;
    for (let d = 0; d < D; d++) {
      const i = (gates[d] = sigmoid(gi[d] + gh[d])), f = (gates[D + d] = sigmoid(gi[D + d] + gh[D + d]));
      const g = (gates[2 * D + d] = Math.tanh(gi[2 * D + d] + gh[2 * D + d]));
      const o = (gates[3 * D + d] = sigmoid(gi[3 * D + d] + gh[3 * D + d]));
      c[d] = f * c[d] + i * g;
      h[d] = o * Math.tanh(c[d]);
    }
  }

  /** The value of a unit after the last character: of `h` or `c`, or of a gate. */
  value({ kind, layer, index }) {
    const { gates, [kind]: state } = this.layers[layer];
    return state ? state[index] : gates[GATES[this.kind].indexOf(kind) * this.D + index];
  }
}
