// What the heads of a transformer look at, and the numbers behind it.

async function attentionSection() {
  if (!data.stretch) return;
  const { layers: L, heads: H, length: T, width: K, start } = data.stretch;
  const arrays = Object.fromEntries(await Promise.all(["attention", "queries", "keys", "values"].map(async (name) => [name, (await unpack(name)).values])));
  const chars = state.chars.slice(start, start + T);
  const looks = (layer, head, query, key) => (arrays.attention[((layer * H + head) * T + query) * T + key] / 255) ** 2;
  const vector = (name, layer, head, place) => {
    const from = ((layer * H + head) * T + place) * K;
    return Array.from(arrays[name].subarray(from, from + K), (value) => value * data.stretch.scales[name]);
  };

  const layer = make("select", { id: "map-layer", onchange: () => draw() }, ...options(L));
  const head = make("select", { id: "map-head", onchange: () => draw() }, ...options(H));
  const cell = Math.max(2, Math.floor(448 / T));
  const canvas = make("canvas", { width: T * cell, height: T * cell, role: "img", "aria-label": "Attention of each query (row) to each key (column)" });
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
  attentionLegend(legend);
  section(
    "attention", "Attention",
    make("p", {}, `What each head of each layer looks at, in windows of the text: the share of its attention that falls on such characters, over those that have one. It is claimed where it beats an even spread, what the head\u2019s habit of distances alone gives, and the best head of untrained networks, of which it has to give at least twice the best.`),
    headTable((l, h) => {
      layer.value = l;
      head.value = h;
      draw();
      canvas.scrollIntoView({ block: "center" });
    }),
    make("h3", {}, `The first ${T} characters`),
    make("p", {}, "Rows are queries, columns keys: row t shows where the network looks when it has read character t. Point into the map, or choose a character below, to see what it looks at."),
    make("div", { class: "controls" }, labelled("layer", layer), labelled("head", head)), legend,
    make("div", { class: "beside" }, make("div", { class: "charts" }, canvas, make("div", { class: "grow" }, view.element)), tells),
    make("p", { class: "quiet" }, `Shapes: queries, keys and values are (layers, heads, characters, head width) = (${L}, ${H}, ${T}, ${K}); attention is (${L}, ${H}, ${T}, ${T}). Each row of it is softmax(q \u00b7 k / \u221a${K}) over the characters up to its own, and what a head hands on is the sum of the values, each times its share.`),
  );
  draw();
}

function options(n) {
  return Array.from({ length: n }, (_, i) => make("option", { value: i }, `${i + 1}`));
}

function headTable(choose) {
  const targets = [...new Set(data.heads.map((each) => each.target))];
  const rows = targets.map((target) => {
    const [best, ...others] = data.heads.filter((each) => each.target === target);
    const button = (each) => make("button", { onclick: () => choose(each.layer, each.head) }, `layer ${each.layer + 1}, head ${each.head + 1}`);
    const row = [
      target, button(best), percent(best.score, 1), percent(best.chance, 1), percent(best.distance, 1), percent(best.untrained, 1), best.discovery ? "yes" : "no",
      make("span", {}, ...others.slice(0, 1).flatMap((each) => [button(each), ` ${percent(each.score)}`])),
    ];
    row.muted = !best.discovery;
    return row;
  });
  return table(["looks at", "best head", { number: "attention" }, { number: "even spread" }, { number: "by distance" }, { number: "untrained" }, "claimed", "the next best"], rows);
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

function attentionLegend(element) {
  const ramp = Array.from({ length: STEPS + 1 }, (_, step) => make("i", { class: amount(step / STEPS) }));
  element.replaceChildren("Share of attention", make("span", {}, "0"), make("span", { class: "ramp", "aria-hidden": "true" }, ...ramp), make("span", {}, "100 %, by its square root"));
}

/** What one query looks at, and how the share of one key comes about. */
function describeQuery(chars, layer, head, query, key, shares, vector, K) {
  const best = shares.map((share, i) => [share, i]).sort(([a], [b]) => b - a).slice(0, 5);
  const q = vector("queries", layer, head, query), k = vector("keys", layer, head, key), v = vector("values", layer, head, key);
  const product = q.reduce((sum, value, i) => sum + value * k[i], 0);
  const numbers = (name, values) => make("p", {}, `${name}, ${values.length} numbers: `, make("span", { class: "numbers" }, values.map((value) => value.toFixed(2)).join(" ")));
  const back = query - key;
  return [
    make("div", {}, make("bdi", { class: "big char" }, visible(chars[query])), ` place ${query + 1} looks at`),
    table(["character", { number: "back" }, { number: "share" }, ""], best.map(([share, i]) => [boxed(chars[i]), query - i, percent(share, 1), bar(share)])),
    make("details", {}, make("summary", {}, "the numbers"),
      make("p", {}, "For ", boxed(chars[key]), `, ${back} back: q \u00b7 k / \u221a${K} = ${(product / Math.sqrt(K)).toFixed(2)}, and its share of the softmax is ${percent(shares[key], 1)}.`),
      numbers("query q", q), numbers("key k", k), numbers("value v", v)),
  ];
}
