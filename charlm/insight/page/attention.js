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
        "The characters at the top are the keys, those on the left are the queries. Point at the map, or at a character " +
        "of the text, to see its weights.",
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

const LABEL = 11; // pixels: the size of a character on an axis
const MAP_SIDE = 512; // pixels at most

/**
 * The sizes of a map of T characters, in pixels. The characters of an axis are put into several
 * lanes, so that they do not overlap.
 */
function mapLayout(T, available) {
  const lanesOf = (side) => Math.ceil(LABEL / (side / T)), marginOf = (side) => lanesOf(side) * LABEL + 4;
  let side = MAP_SIDE;
  while (side + marginOf(side) > available && side > 100) side -= 8;
  return { side, cell: side / T, margin: marginOf(side), lanes: lanesOf(side) };
}

/** Make a canvas `size` pixels wide and high, sharp on every screen, and fill it; returns its pen. */
function clearCanvas(canvas, size, colour) {
  const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
  canvas.width = canvas.height = Math.round(size * ratio);
  canvas.style.width = canvas.style.height = `${size}px`;
  pen.scale(ratio, ratio);
  pen.fillStyle = colour;
  pen.fillRect(0, 0, size, size);
  return pen;
}

/** A character on an axis: in one sign. */
function axisName(char) {
  const name = visible(char);
  return Array.from(name).length > 2 ? "\u25a1" : name;
}

/** The attention of one head as a map (T, T), beside its text and the numbers of one query. */
class AttentionMap {
  /** `arrays` has the attention (L, H, T, T), and queries, keys and values (L, H, T, K). */
  constructor(arrays) {
    this.arrays = arrays;
    const { layers: L, heads: H, length: T } = data.attention;
    this.chars = state.chars.slice(0, T);
    this.layer = make("select", { id: "map-layer", onchange: () => this.paint() }, ...options(L));
    this.head = make("select", { id: "map-head", onchange: () => this.paint() }, ...options(H));
    const about = { role: "img", "aria-label": "Attention weight of each key (column) for each query (row)" };
    this.canvas = make("canvas", { onpointermove: (event) => this.onPointer(event), ...about });
    addEventListener("resize", () => this.paint());
    this.detail = make("div", { class: "detail", role: "status" });
    this.key = null; // the key under the pointer; null for the key with the largest weight
    this.view = new TextView(this.chars, "The first characters", () => {
      this.key = null;
      this.paint();
    });
    const legend = make("div", { class: "legend" });
    amountLegend(legend, "Attention weight", "100 % (square-root scale)");
    const map = make("div", { class: "map" }, this.canvas), text = make("div", { class: "grow" }, this.view.element);
    this.elements = [
      make("div", { class: "controls" }, labelled("layer", this.layer), labelled("head", this.head)),
      legend,
      make("div", { class: "beside" }, make("div", { class: "charts" }, map, text), this.detail),
    ];
  }

  choose(layer, head) {
    this.layer.value = layer;
    this.head.value = head;
    this.paint();
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

  /** Draw the map with its axes: the keys above it, and the queries on its left. */
  draw(query, weights) {
    const T = this.chars.length, style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const { side, cell, margin, lanes } = (this.layout = mapLayout(T, this.canvas.parentElement.clientWidth));
    const pen = clearCanvas(this.canvas, margin + side, colour("paper"));
    const edge = (i) => margin + Math.round(i * cell);
    const box = (left, top, right, bottom, alpha) => {
      pen.globalAlpha = alpha;
      pen.fillRect(left, top, right - left, bottom - top);
    };
    pen.fillStyle = colour("more");
    for (let q = 0; q < T; q++) {
      for (let k = 0; k <= q; k++) {
        box(edge(k), edge(q), edge(k + 1), edge(q + 1), Math.sqrt(this.weight(q, k)));
      }
    }
    // above each column, its weight for the chosen query; on the left, the chosen query
    weights.forEach((weight, k) => box(edge(k), 0, edge(k + 1), margin - 2, Math.sqrt(weight)));
    pen.fillStyle = colour("accent");
    box(0, edge(query), margin - 2, edge(query + 1), 1);
    pen.globalAlpha = 1;
    pen.font = `${LABEL}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillStyle = colour("ink");
    this.chars.forEach((char, i) => {
      const along = margin + (i + 0.5) * cell, across = ((i % lanes) + 0.5) * LABEL;
      pen.fillText(axisName(char), along, across);
      pen.fillText(axisName(char), across, along);
    });
  }

  /** Show the weights of the selected query; without one, those of the last character. */
  paint() {
    const query = this.view.current < 0 ? this.chars.length - 1 : this.view.current;
    this.view.paint((i) => (i <= query ? amount(Math.sqrt(this.weight(query, i))) : ""));
    const weights = this.chars.map((_, i) => (i <= query ? this.weight(query, i) : 0));
    this.draw(query, weights);
    const key = this.key ?? weights.indexOf(Math.max(...weights));
    this.detail.replaceChildren(...this.describe(query, key, weights));
  }

  onPointer(event) {
    const box = this.canvas.getBoundingClientRect(), T = this.chars.length, { margin, cell } = this.layout;
    const indexAt = (offset) => Math.max(0, Math.min(T - 1, Math.floor((offset - margin) / cell)));
    const query = indexAt(event.clientY - box.top);
    this.view.select(query);
    this.key = Math.min(query, indexAt(event.clientX - box.left));
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
