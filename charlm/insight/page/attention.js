// What the heads of a transformer look at, and the numbers behind it.

async function attentionSection() {
  if (!data.stretch) return;
  const { layers: L, heads: H, length: T, width: K, start } = data.stretch;
  const arrays = {};
  for (const name of ["attention", "queries", "keys", "values"]) arrays[name] = (await unpack(name)).values;
  const chars = state.chars.slice(start, start + T);
  const looks = (layer, head, query, key) => (arrays.attention[((layer * H + head) * T + query) * T + key] / 255) ** 2;
  const vector = (name, layer, head, place) => {
    const from = ((layer * H + head) * T + place) * K;
    return Array.from(arrays[name].subarray(from, from + K), (value) => value * data.stretch.scales[name]);
  };

  const layer = make("select", { id: "map-layer", onchange: () => draw() }, ...options(L));
  const head = make("select", { id: "map-head", onchange: () => draw() }, ...options(H));
  const cell = Math.max(2, Math.floor(448 / T));
  const about = { role: "img", "aria-label": "Attention of each query (row) to each key (column)" };
  const canvas = make("canvas", { width: T * cell, height: T * cell, ...about });
  const legend = make("div", { class: "legend" });
  const tells = make("div", { class: "detail", role: "status" });
  let key = null; // the key pointed at in the map; else the one looked at most
  const view = new TextView(chars, "The stretch", () => ((key = null), paint()));

  const paint = () => {
    const l = Number(layer.value), h = Number(head.value), query = view.here < 0 ? T - 1 : view.here;
    view.paint((i) => (i <= query ? amount(Math.sqrt(looks(l, h, query, i))) : ""));
    const shares = chars.map((_, i) => (i <= query ? looks(l, h, query, i) : 0));
    const to = key ?? shares.indexOf(Math.max(...shares));
    tells.replaceChildren(...describeQuery(chars, l, h, query, to, shares, vector, K));
  };
  const draw = () => {
    drawMap(canvas, cell, T, (query, at) => looks(Number(layer.value), Number(head.value), query, at));
    paint();
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (position, from, size) => Math.max(0, Math.min(T - 1, Math.floor(((position - from) / size) * T)));
    const query = at(event.clientY, box.top, box.height);
    view.visit(query);
    key = Math.min(query, at(event.clientX, box.left, box.width));
    paint();
  });
  const best = data.heads.find((each) => each.discovery);
  if (best) {
    layer.value = best.layer;
    head.value = best.head;
  }
  amountLegend(legend, "Share of attention", "100 %, by its square root");
  section(
    "attention", "Attention",
    say(
      "What each head of each layer looks at, in windows of the text: the share of its attention that falls on such " +
        "characters, over those that have one. It is claimed where it is at least twice what an even spread gives, " +
        "what the head\u2019s habit of distances alone gives, and what the best head of untrained networks gives.",
    ),
    headTable((l, h) => {
      layer.value = l;
      head.value = h;
      draw();
      canvas.scrollIntoView({ block: "center" });
    }),
    make("h3", {}, `The first ${T} characters`),
    say(
      "Rows are queries, columns keys: row t shows where the network looks when it has read character t. Point into " +
        "the map, or choose a character of the text beside it, to see what it looks at.",
    ),
    make("div", { class: "controls" }, labelled("layer", layer), labelled("head", head)), legend,
    make(
      "div", { class: "beside" },
      make("div", { class: "charts" }, canvas, make("div", { class: "grow" }, view.element)), tells,
    ),
    say(
      `Shapes: queries, keys and values are (layers, heads, characters, head width) = (${L}, ${H}, ${T}, ${K}); ` +
        `attention is (${L}, ${H}, ${T}, ${T}). Each row of it is softmax(q \u00b7 k / \u221a${K}) over the ` +
        "characters up to its own, and what a head hands on is the sum of the values, each times its share.",
    ),
  );
  draw();
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
      ...[best.score, best.chance, best.distance, best.untrained].map((share) => percent(share, 1)),
      best.discovery ? "yes" : "no",
      make("span", {}, ...others.slice(0, 1).flatMap((each) => [button(each), ` ${percent(each.score)}`])),
    ];
    row.muted = !best.discovery;
    return row;
  });
  const numbers = ["attention", "even spread", "by distance", "untrained"].map((number) => ({ number }));
  return table(["looks at", "best head", ...numbers, "claimed", "the next best"], rows);
}

function drawMap(canvas, cell, T, looks) {
  const style = getComputedStyle(document.documentElement), pen = canvas.getContext("2d");
  pen.fillStyle = style.getPropertyValue("--paper");
  pen.fillRect(0, 0, T * cell, T * cell);
  pen.fillStyle = style.getPropertyValue("--ink");
  for (let query = 0; query < T; query++) {
    for (let key = 0; key <= query; key++) {
      pen.globalAlpha = Math.sqrt(looks(query, key));
      pen.fillRect(key * cell, query * cell, cell, cell);
    }
  }
  pen.globalAlpha = 1;
}

/** What one query looks at, and how the share of one key comes about. */
function describeQuery(chars, layer, head, query, key, shares, vector, K) {
  const best = shares.map((share, i) => [share, i]).sort(([a], [b]) => b - a).slice(0, 5);
  const q = vector("queries", layer, head, query);
  const [k, v] = ["keys", "values"].map((name) => vector(name, layer, head, key));
  const product = q.reduce((sum, value, i) => sum + value * k[i], 0);
  const numbers = (name, values) => {
    const all = values.map((value) => value.toFixed(2)).join(" ");
    return say(`${name}, ${values.length} numbers: `, make("span", { class: "numbers" }, all));
  };
  const rows = best.map(([share, i]) => [boxed(chars[i]), query - i, percent(share, 1), bar(share)]);
  const scaled = (product / Math.sqrt(K)).toFixed(2);
  return [
    make("div", {}, make("bdi", { class: "big char" }, visible(chars[query])), ` place ${query + 1} looks at`),
    table(["character", { number: "back" }, { number: "share" }, ""], rows),
    make(
      "details", {}, make("summary", {}, "the numbers"),
      say(
        "For ", boxed(chars[key]),
        `, ${query - key} back: q \u00b7 k / \u221a${K} = ${scaled}, and its share is ${percent(shares[key], 1)}.`,
      ),
      numbers("query q", q), numbers("key k", k), numbers("value v", v),
    ),
  ];
}
