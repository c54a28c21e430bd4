// The text coloured by one unit; the units found; what they are for; gates.

/** Which unit, or what else, colours the text; the sections change it, the text follows. */
class Colouring {
  constructor(arrays, view, parts) {
    Object.assign(this, { arrays, view, ...parts });
    this.rowOf = new Map(data.units.places.map(([kind, layer, index], row) => [`${kind} ${layer} ${index}`, row]));
    this.listeners = [];
  }

  /** The values of what is chosen, of each character, and how to tell one. */
  get chosen() {
    return this.now;
  }

  unit(unit) {
    const row = this.rowOf.get(`${unit.kind} ${unit.layer} ${unit.index}`);
    if (row === undefined) {
      this.legend.replaceChildren(`${unitName(unit)} is not on this page, to keep it small; one of a shorter text has every unit.`);
      return;
    }
    const N = this.view.chars.length, { levels, scales, shown } = data.units;
    const values = this.arrays.units.values.subarray(row * N, (row + 1) * N);
    const strength = scales[row] / levels / shown[row];
    this.view.paint((i) => shade(values[i] * strength));
    signedLegend(this.legend, shown[row], `Activation of ${unitName(unit)}`);
    this.now = { unit, name: unitName(unit), tell: (i) => signed((values[i] / levels) * scales[row]) };
    this.changed();
  }

  bits() {
    const { values } = this.arrays.bits;
    this.view.paint((i) => amount(values[i] / 8));
    amountLegend(this.legend, 8, "Surprisal", "bits");
    this.now = { name: "surprisal", tell: (i) => (values[i] < 0 ? "not scored" : `${values[i].toFixed(2)} bits`) };
    this.changed();
  }

  rise(which) {
    const N = this.view.chars.length, { unit } = data.ablations[which];
    const values = this.arrays.rises.values.subarray(which * N, (which + 1) * N);
    this.view.paint((i) => shade(Math.max(-1, Math.min(1, values[i] / 3))));
    signedLegend(this.legend, 3, `Rise of the loss, in bits, without ${unitName(unit)}`);
    this.now = { rise: which, name: `rise without ${unitName(unit)}`, tell: (i) => `${signed(values[i])} bits` };
    this.changed();
  }

  changed() {
    this.listeners.forEach((listener) => listener(this.now));
    if (this.view.here >= 0) this.view.visit(this.view.here);
  }
}

function textSection(arrays) {
  const chars = Array.from(arrays.ids.values, (id) => String.fromCodePoint(data.about.vocab[id]));
  const detail = make("div", { class: "detail", id: "detail", role: "status" }, make("p", { class: "quiet" }, "Point at a character, or go through the text with the arrow keys."));
  const legend = make("div", { class: "legend", id: "legend" });
  const view = new TextView(chars, "The text", (i) => detail.replaceChildren(...describe(arrays, chars, colouring.chosen, i)));
  const colouring = new Colouring(arrays, view, { legend });
  view.element.id = "text";
  section(
    "the-text", "The text, coloured by one unit",
    make("p", {}, `${count(chars.length, "character")} of ${data.about.source}, each shaded by what a unit was at right after the network read it.`),
    pickers(colouring, view), legend, make("div", { class: "beside" }, view.element, detail),
  );
  return colouring;
}

/** The value of what is chosen, the cost of the character, and what is thought to come next. */
function describe(arrays, chars, chosen, i) {
  const cost = arrays.bits.values[i], best = arrays.guesses.shape[1];
  const line = chars.slice(0, i).filter((char) => char === "\n").length + 1;
  const column = i - chars.lastIndexOf("\n", i - 1);
  const rows = [];
  for (let k = 0; k < best; k++) {
    const char = String.fromCodePoint(data.about.vocab[arrays.guesses.values[i * best + k]]);
    const chance = arrays.chances.values[i * best + k] / 65535;
    rows.push([boxed(char), percent(chance, 1), bar(chance, char === chars[i + 1] ? "next" : "")]);
  }
  const next = i + 1 < chars.length ? [make("p", {}, "Next comes ", boxed(chars[i + 1]), ` at ${arrays.bits.values[i + 1].toFixed(2)} bits.`)] : [];
  return [
    make("div", {}, make("bdi", { class: "big char" }, visible(chars[i])), ` line ${line}, place ${column}`),
    make(
      "dl", {},
      make("dt", {}, chosen.name), make("dd", { id: "value" }, chosen.tell(i)),
      make("dt", {}, "cost"), make("dd", {}, cost < 0 ? "the first: not predicted" : `${cost.toFixed(2)} bits`),
    ),
    table(["", { number: "chance" }, ""], rows, "Best guesses for the next"),
    ...next,
  ];
}

function pickers(colouring, view) {
  const kinds = data.units.kinds;
  const kind = make("select", { id: "kind", onchange: () => pick() }, ...kinds.map((each) => make("option", { value: each.kind }, NAMES[each.kind])), make("option", { value: "bits" }, "surprisal"));
  const layer = make("select", { id: "layer", onchange: () => pick() });
  const index = make("input", { id: "index", type: "number", min: 0, value: 0, oninput: () => pick() });
  const size = () => kinds.find((each) => each.kind === kind.value);
  const layers = () => {
    const wanted = size()?.layers ?? 1;
    if (layer.options.length !== wanted) layer.replaceChildren(...Array.from({ length: wanted }, (_, i) => make("option", { value: i }, `${i + 1}`)));
  };
  const step = (by) => {
    const { size: n } = size();
    index.value = (Number(index.value) + by + n) % n;
    pick();
  };
  const pick = () => {
    if (kind.value === "bits") return colouring.bits();
    layers();
    const unit = { kind: kind.value, layer: Number(layer.value || 0), index: Number(index.value) };
    return colouring.unit(unit);
  };
  const one = make("button", { id: "previous", "aria-label": "previous unit", onclick: () => step(-1) }, "\u2190");
  const other = make("button", { id: "next", "aria-label": "next unit", onclick: () => step(1) }, "\u2192");
  const marks = make("input", { type: "checkbox", onchange: () => view.element.classList.toggle("marks", marks.checked) });
  const found = data.search.filter((each) => each.discovery && colouring.rowOf.has(`${each.units[0].kind} ${each.units[0].layer} ${each.units[0].index}`));
  const quick = make(
    "select",
    { id: "quick", onchange: () => quick.value !== "" && colouring.unit(found[quick.value].units[0]) },
    make("option", { value: "" }, found.length ? "choose what is tracked" : "none stands out"),
    ...found.map((each, i) => make("option", { value: i }, `${each.feature}: ${unitName(each.units[0])}`)),
  );
  colouring.listeners.push(({ unit }) => {
    if (unit) {
      kind.value = unit.kind;
      layers();
      layer.value = unit.layer;
      if (Number(index.value) !== unit.index) index.value = unit.index;
      index.max = size().size - 1;
    } else if (colouring.chosen.name === "surprisal") kind.value = "bits";
    for (const control of [layer, index, one, other]) control.disabled = kind.value === "bits";
    quick.value = String(found.findIndex((each) => unit && unitName(each.units[0]) === unitName(unit))).replace("-1", "");
  });
  return make(
    "div", { class: "controls" },
    labelled("units that were found", quick), labelled("colour by", kind), labelled("layer", layer),
    make("label", {}, "unit", make("span", { class: "together" }, one, index, other)),
    make("label", { class: "check" }, marks, "underline what is strong (dotted: below 0)"),
  );
}

/** A button that colours the text by a unit, and goes there. */
function unitButton(colouring, unit) {
  const show = () => {
    colouring.unit(unit);
    document.getElementById("the-text").scrollIntoView();
  };
  return make("button", { onclick: show, title: "colour the text by it" }, `${unit.sign < 0 ? "\u2212" : ""}${unitName(unit)}`);
}

function foundSection(colouring) {
  const rows = data.search.map((each) => {
    const [best, ...others] = each.units;
    const low = each.measure === "AUC" ? 0.5 : 0;
    const marks = { luck: each.luck, last_characters: each.last_characters, untrained: each.untrained };
    const row = [
      each.feature, unitButton(colouring, best), best.score.toFixed(3), dotRow(best.score, marks, low),
      each.luck.toFixed(3), each.last_characters.toFixed(3), each.untrained.toFixed(3), each.measure,
      make("span", {}, ...others.slice(0, 1).map((unit) => unitButton(colouring, unit))),
    ];
    row.muted = !each.discovery;
    return row;
  });
  const heads = ["what is tracked", "best unit", { number: "score" }, "chance \u2192 perfect", { number: "\u2715 luck" }, { number: "| last two" }, { number: "\u25b3 untrained" }, "measure", "the next best"];
  const some = data.search.filter((each) => each.discovery).length;
  section(
    "found", "Units worth looking at",
    make(
      "p", {},
      "Every unit was scored against features of the text. The sign was chosen on the first half, the score is of the second: the AUC, " +
        "or Spearman\u2019s rank correlation for what is a number. A unit has to beat three others by a quarter of what they leave to a perfect score: ",
      make("b", {}, "luck"), ", the best of all units on the text\u2019s own features shifted against it; ",
      make("b", {}, "the last two"), " characters, a table that remembers nothing else; and the best unit of ",
      make("b", {}, "untrained"), " networks of the same size. A minus marks a unit that is low where the feature is high.",
    ),
    ...(rows.length
      ? [make("p", {}, some ? `${count(some, "feature")} of ${rows.length} ${some === 1 ? "is" : "are"} tracked; the others (grey) are not claimed.` : "No unit tracks any feature better than these do, so nothing is claimed."), table(heads, rows)]
      : [make("p", {}, "This text is too short, or too plain, for any feature to be scored.")]),
  );
}

function ablationSection(colouring) {
  if (!data.ablations.length) return;
  const rows = data.ablations.map((each, i) => [
    unitButton(colouring, each.unit), each.feature, signed(each.rise, 3), signed(each.rise_where, 3), signed(each.rise_elsewhere, 3),
    make("span", {}, ...each.chars.flatMap(({ char, rise }) => [boxed(char), ` ${signed(rise)} `])),
    make("button", { onclick: () => (colouring.rise(i), document.getElementById("the-text").scrollIntoView()) }, "show where"),
  ]);
  section(
    "ablation", "What they are for",
    make("p", {}, "Each unit that was found, held at zero throughout: how much the loss rises, in bits per character, over the whole text, where the feature holds (or is above its median) and elsewhere, and on which characters most."),
    table(["unit", "tracks", { number: "rise" }, { number: "where it holds" }, { number: "elsewhere" }, "most on (mean rise)", ""], rows),
  );
}

function gatesSection(colouring) {
  if (!data.gates.length) return;
  const kind = data.units.kinds.some((each) => each.kind === "c") ? "c" : "h";
  const charts = data.gates.map((gate) => {
    const points = gate.left.map((left, layer) => left.map((share, i) => [gate.right[layer][i], share]));
    const drawing = scatter(270, points.map((each, layer) => ({ points: each, colour: layerColour(layer) })), "right-saturated, share of time", "left-saturated, share of time");
    drawing.addEventListener("click", (event) => pickNearest(event, drawing, points, (layer, index) => colouring.unit({ kind, layer, index })));
    return make("figure", {}, make("figcaption", {}, `${gate.name} gate`), drawing);
  });
  const memories = data.gates.filter((gate) => gate.memory).map((gate) => memoryTable(gate));
  const layers = data.gates[0].left.length;
  const key = Array.from({ length: layers }, (_, i) => {
    const name = make("span", {}, `\u25cf layer ${i + 1} `);
    name.style.color = layerColour(i);
    return name;
  });
  section(
    "gates", "Gates",
    make("p", {}, "Each point is a unit: how much of the time its gate is shut (below 0.1, left-saturated) or open (above 0.9, right-saturated). Click one to colour the text by it."),
    ...(layers > 1 ? [make("p", {}, ...key)] : []),
    make("div", { class: "charts" }, ...charts, ...memories),
  );
}

function layerColour(layer) {
  return `var(--layer-${layer % 3})`;
}

/** The unit nearest to a click in a scatter chart. */
function pickNearest(event, drawing, points, use) {
  const box = drawing.getBoundingClientRect();
  const scale = 270 / box.width;
  const x = ((event.clientX - box.left) * scale - 46) / 210, y = 1 - ((event.clientY - box.top) * scale - 10) / 220;
  let best = null;
  points.forEach((each, layer) => each.forEach(([px, py], index) => {
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (best === null || distance < best.distance) best = { distance, layer, index };
  }));
  if (best) use(best.layer, best.index);
}

/** How long units hold what they have, in powers of two of characters. */
function memoryTable(gate) {
  const all = gate.memory.flat();
  const bins = new Map();
  for (const length of all) {
    const low = 2 ** Math.floor(Math.log2(Math.max(1, length)));
    bins.set(low, (bins.get(low) ?? 0) + 1);
  }
  const most = Math.max(...bins.values());
  const rows = [...bins].sort(([a], [b]) => a - b).map(([low, n]) => [`${low} to ${2 * low}`, n.toLocaleString("en"), bar(n / most)]);
  return table(["characters", { number: "units" }, ""], rows, `Memory by the ${gate.name} gate, 1 / (1 \u2212 mean)`);
}
