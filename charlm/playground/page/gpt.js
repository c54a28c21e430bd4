// The forward pass of a GPT, one character at a time, with the keys and values of the characters before it. The
// equations are those of charlm.sampling.numpy.gpt.

class GPT {
  /** `weights` are Float32Arrays by the names of the checkpoint. They may be shared; the cache is not. */
  constructor(config, V, weights) {
    const { n_layer: L, n_embd: D, n_head: H, context } = config;
    Object.assign(this, { config, V, weights, L, D, H, K: D / H, context });
    this.head = weights["head.weight"] ?? weights["embed.weight"];
    this.F = weights["blocks.0.mlp.out.weight"].length / D;
    this.x = new Float64Array(D);
    this.y = new Float64Array(D);
    this.out = new Float64Array(D);
    this.qkv = new Float64Array(3 * D);
    this.up = new Float64Array(config.mlp === "swiglu" ? 2 * this.F : this.F);
    this.logits = new Float64Array(V);
    this.capacity = 0; // characters that the cache has space for
    this.layers = Array.from({ length: L }, () => ({
      keys: new Float32Array(0), values: new Float32Array(0), attention: new Float32Array(0),
      mlp: new Float64Array(this.F), x: new Float64Array(D),
    }));
    this.restart();
  }

  restart() {
    this.length = 0; // characters in the cache
  }

  /** Forget all but the first `length` characters. */
  truncate(length) {
    this.length = length;
  }

  /** Read a character; `logits` are then those of the next one. */
  step(id) {
    const { x, y, D } = this;
    this.reserve(this.length + 1);
    this.embed(id);
    this.layers.forEach((layer, i) => {
      const block = `blocks.${i}.`;
      this.norm(`${block}attention_norm`);
      this.attend(layer, `${block}attention.`);
      for (let d = 0; d < D; d++) x[d] += y[d];
      this.norm(`${block}mlp_norm`);
      this.mlp(layer, `${block}mlp.`);
      for (let d = 0; d < D; d++) x[d] += y[d];
      layer.x.set(x);
    });
    this.length++;
    this.norm("norm");
    affine(this.head, undefined, y, this.logits);
  }

  /** Set x to the input of the first block. */
  embed(id) {
    const { x, D, length, config } = this, table = this.weights["position.table"];
    const embed = this.weights["embed.weight"];
    for (let d = 0; d < D; d++) {
      x[d] = embed[id * D + d];
      if (config.position === "learned") x[d] += table[length * D + d];
      if (config.position === "sinusoidal") {
        const angle = length * 10000 ** (-(d - (d % 2)) / D);
        x[d] = x[d] * Math.sqrt(D) + (d % 2 ? Math.cos(angle) : Math.sin(angle));
      }
    }
  }

  /** Set y to the normalised x. */
  norm(name) {
    const { x, y, D } = this, weight = this.weights[`${name}.weight`], bias = this.weights[`${name}.bias`];
    const centred = this.config.norm === "layernorm";
    const mean = centred ? x.reduce((sum, value) => sum + value, 0) / D : 0;
    for (let d = 0; d < D; d++) y[d] = x[d] - mean;
    scaleToOne(y, 0, D, centred ? LAYER_EPS : RMS_EPS);
    for (let d = 0; d < D; d++) y[d] = y[d] * weight[d] + (bias ? bias[d] : 0);
  }

  linear(name, x, y) {
    return affine(this.weights[`${name}.weight`], this.weights[`${name}.bias`], x, y);
  }

  /** Set y to out(softmax(q k^T / sqrt(K)) v), and keep the weights of all heads. */
  attend(layer, name) {
    const { y, qkv, D, H, K, length, config } = this, { keys, values, attention } = layer, P = length + 1;
    this.linear(`${name}qkv`, y, qkv);
    for (let from = 0; from < 2 * D; from += K) {
      if (config.qk_norm) scaleToOne(qkv, from, from + K, RMS_EPS);
      if (config.position === "rope") this.rotate(from);
    }
    keys.set(qkv.subarray(D, 2 * D), length * D);
    values.set(qkv.subarray(2 * D), length * D);
    y.fill(0);
    for (let head = 0; head < H; head++) {
      const from = head * K, weights = attention.subarray(head * this.capacity, head * this.capacity + P);
      for (let p = 0; p < P; p++) {
        let score = 0;
        for (let k = 0; k < K; k++) score += qkv[from + k] * keys[p * D + from + k];
        weights[p] = score / Math.sqrt(K);
      }
      softmax(weights, weights);
      for (let p = 0; p < P; p++) {
        for (let k = 0; k < K; k++) y[from + k] += weights[p] * values[p * D + from + k];
      }
    }
    y.set(this.linear(`${name}out`, y, this.out));
  }

  /** Rotary positions of one query or key, qkv[from..from+K]. */
  rotate(from) {
    const { qkv, K, length } = this, half = K / 2;
    for (let i = 0; i < half; i++) {
      const angle = length * 10000 ** (-(2 * i) / K), cos = Math.cos(angle), sin = Math.sin(angle);
      const a = qkv[from + i], b = qkv[from + half + i];
      qkv[from + i] = a * cos - b * sin;
      qkv[from + half + i] = a * sin + b * cos;
    }
  }

  /** Set y to out(gelu(up y)), out(relu(up y)^2), or out(silu(gate y) * up y). */
  mlp(layer, name) {
    const { y, up, F, config } = this, { mlp } = layer;
    this.linear(`${name}${config.mlp === "swiglu" ? "gate_up" : "up"}`, y, up);
    for (let f = 0; f < F; f++) {
      if (config.mlp === "swiglu") mlp[f] = up[f] * sigmoid(up[f]) * up[F + f];
      else mlp[f] = config.mlp === "gelu" ? gelu(up[f]) : Math.max(0, up[f]) ** 2;
    }
    this.linear(`${name}out`, mlp, y);
  }

  /** Make the cache large enough for P characters. Repeated growth costs little. */
  reserve(P) {
    if (P <= this.capacity) return;
    this.capacity = Math.min(this.context, Math.max(256, 2 * P));
    for (const layer of this.layers) {
      for (const part of ["keys", "values"]) {
        const old = layer[part];
        layer[part] = new Float32Array(this.capacity * this.D);
        layer[part].set(old);
      }
      layer.attention = new Float32Array(this.H * this.capacity);
    }
  }

  /** The value of a unit of `mlp` or `x` after the last character; the weights of a head of `attention`. */
  value({ kind, layer, index }) {
    const found = this.layers[layer][kind], from = index * this.capacity;
    return kind === "attention" ? Array.from(found.subarray(from, from + this.length)) : found[index];
  }
}
