// Attention: what the heads of a GPT attend to, and the numbers behind it.

async function attentionSection() {
  if (!data.attention) return;
  const { layers: L, heads: H, length: T, width: K } = data.attention;
  const arrays = {};
  for (const name of ["attention", "queries", "keys", "values"]) arrays[name] = (await unpack(name)).values;
  const map = new AttentionMap(arrays);
  section(
    "attention", "Attention",
    paragraph(
      "Each head was scored in windows of the text. Its score for a target is its total attention weight on such " +
        "targets, averaged over the queries that have one. A head is a discovery if its score is at least twice the " +
        "best of three baselines, and at least 5 percentage points above it. The baselines are: attention spread " +
        "evenly, the head\u2019s own mean attention at each distance, and the best head of untrained networks.",
    ),
    headTable((layer, head) => {
      map.choose(layer, head);
      map.canvas.scrollIntoView({ block: "center" });
    }),
    make("h3", {}, `The first ${T} characters`),
    paragraph(
      "Each row is a query, and each column is a key. Row t shows the weights after the network has read character t. " +
        "Point at the map, or at a character of the text, to see its weights.",
    ),
    ...map.elements,
    paragraph(
      `Shapes: queries, keys and values are (layers, heads, characters, head width) = (${L}, ${H}, ${T}, ${K}); ` +
        `attention is (${L}, ${H}, ${T}, ${T}). A row of attention is softmax(q \u00b7 k / \u221a${K}) over the ` +
        "characters up to the query. The output of a head is the sum of the values, each times its weight.",
    ),
  );
  const best = data.heads.find((each) => each.discovery);
  map.choose(best ? best.layer : 0, best ? best.head : 0);
}

function headTable(choose) {
  const targets = [...new Set(data.heads.map((each) => each.target))];
  const rows = targets.map((target) => {
    const [best, ...others] = data.heads.filter((each) => each.target === target);
    const button = (each) => {
      const name = `layer ${each.layer + 1}, head ${each.head + 1}`;
      return make("button", { onclick: () => choose(each.layer, each.head) }, name);
    };
    const row = [
      target, button(best),
      ...[best.score, best.chance, best.distance, best.untrained].map((weight) => percent(weight, 1)),
      best.discovery ? "yes" : "no",
      make("span", {}, ...others.slice(0, 1).flatMap((each) => [button(each), ` ${percent(each.score)}`])),
    ];
    row.muted = !best.discovery;
    return row;
  });
  const numbers = ["score", "even spread", "by distance", "untrained"].map((number) => ({ number }));
  return table(["target", "best head", ...numbers, "discovery", "next best head"], rows);
}

/** The attention of one head as a map (T, T), beside its text and the numbers of one query. */
class AttentionMap {
  /** `arrays` has the attention (L, H, T, T), and queries, keys and values (L, H, T, K). */
  constructor(arrays) {
    this.arrays = arrays;
    const { layers: L, heads: H, length: T } = data.attention;
    this.chars = state.chars.slice(0, T);
    this.layer = make("select", { id: "map-layer", onchange: () => this.draw() }, ...options(L));
    this.head = make("select", { id: "map-head", onchange: () => this.draw() }, ...options(H));
    this.cell = Math.max(2, Math.floor(448 / T)); // pixels
    const size = T * this.cell;
    const about = { role: "img", "aria-label": "Attention weight of each key (column) for each query (row)" };
    this.canvas = make("canvas", { width: size, height: size, ...about });
    this.canvas.addEventListener("pointermove", (event) => this.onPointer(event));
    this.detail = make("div", { class: "detail", role: "status" });
    this.key = null; // the key under the pointer; null for the key with the largest weight
    this.view = new TextView(this.chars, "The first characters", () => {
      this.key = null;
      this.paint();
    });
    const legend = make("div", { class: "legend" });
    amountLegend(legend, "Attention weight", "100 % (square-root scale)");
    const text = make("div", { class: "grow" }, this.view.element);
    this.elements = [
      make("div", { class: "controls" }, labelled("layer", this.layer), labelled("head", this.head)),
      legend,
      make("div", { class: "beside" }, make("div", { class: "charts" }, this.canvas, text), this.detail),
    ];
  }

  choose(layer, head) {
    this.layer.value = layer;
    this.head.value = head;
    this.draw();
  }

  weight(query, key) {
    const { heads: H, length: T } = data.attention;
    const row = (Number(this.layer.value) * H + Number(this.head.value)) * T + query;
    return (this.arrays.attention[row * T + key] / 255) ** 2;
  }

  /** The K numbers of one position in `queries`, `keys` or `values`. */
  vector(name, position) {
    const { heads: H, length: T, width: K, scales } = data.attention;
    const from = ((Number(this.layer.value) * H + Number(this.head.value)) * T + position) * K;
    return Array.from(this.arrays[name].subarray(from, from + K), (value) => value * scales[name]);
  }

  draw() {
    const style = getComputedStyle(document.documentElement), pen = this.canvas.getContext("2d");
    const { cell } = this, T = this.chars.length;
    pen.fillStyle = style.getPropertyValue("--paper");
    pen.fillRect(0, 0, T * cell, T * cell);
    pen.fillStyle = style.getPropertyValue("--ink");
    for (let query = 0; query < T; query++) {
      for (let key = 0; key <= query; key++) {
        pen.globalAlpha = Math.sqrt(this.weight(query, key));
        pen.fillRect(key * cell, query * cell, cell, cell);
      }
    }
    pen.globalAlpha = 1;
    this.paint();
  }

  /** Show the weights of the selected query; without one, those of the last character. */
  paint() {
    const query = this.view.current < 0 ? this.chars.length - 1 : this.view.current;
    this.view.paint((i) => (i <= query ? amount(Math.sqrt(this.weight(query, i))) : ""));
    const weights = this.chars.map((_, i) => (i <= query ? this.weight(query, i) : 0));
    const key = this.key ?? weights.indexOf(Math.max(...weights));
    this.detail.replaceChildren(...this.describe(query, key, weights));
  }

  onPointer(event) {
    const box = this.canvas.getBoundingClientRect(), T = this.chars.length;
    const indexAt = (offset, size) => Math.max(0, Math.min(T - 1, Math.floor((offset / size) * T)));
    const query = indexAt(event.clientY - box.top, box.height);
    this.view.select(query);
    this.key = Math.min(query, indexAt(event.clientX - box.left, box.width));
    this.paint();
  }

  /** The largest weights of one query, and the numbers that give the weight of one key. */
  describe(query, key, weights) {
    const K = data.attention.width;
    const best = weights.map((weight, i) => [weight, i]).sort(([a], [b]) => b - a).slice(0, 5);
    const rows = best.map(([weight, i]) => [boxed(this.chars[i]), query - i, percent(weight, 1), bar(weight)]);
    const q = this.vector("queries", query), k = this.vector("keys", key);
    const product = q.reduce((sum, value, i) => sum + value * k[i], 0);
    const scaled = (product / Math.sqrt(K)).toFixed(2);
    const numbers = (name, values) => {
      const all = values.map((value) => value.toFixed(2)).join(" ");
      return paragraph(`${name}, ${values.length} numbers: `, make("span", { class: "numbers" }, all));
    };
    const char = make("bdi", { class: "big char" }, visible(this.chars[query]));
    return [
      make("div", {}, char, ` position ${query + 1} attends to`),
      table(["character", { number: "back" }, { number: "weight" }, ""], rows),
      make(
        "details", {}, make("summary", {}, "Numbers"),
        paragraph(
          "Key ", boxed(this.chars[key]),
          `, ${query - key} back: q \u00b7 k / \u221a${K} = ${scaled}, weight ${percent(weights[key], 1)}.`,
        ),
        numbers("Query q", q), numbers("Key k", k), numbers("Value v", this.vector("values", key)),
      ),
    ];
  }
}
