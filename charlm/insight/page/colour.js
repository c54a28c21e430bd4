// The text coloured by one unit, by surprisal, or by what a unit is for.

const MANY_BITS = 8; // of surprisal, the strongest shade
const MUCH_WORSE = 3; // bits of rise without a unit, the strongest shade

/** What colours the text; the sections choose it, the controls and the text follow. */
class Colouring {
  constructor(arrays, view, legend) {
    Object.assign(this, { arrays, view, legend });
    this.rows = new Map(data.units.places.map((place, row) => [place.join(" "), row]));
    this.listeners = [];
    this.now = null; // {name, tell(place), and unit where it is one}
  }

  has({ kind, layer, index }) {
    return this.rows.has(`${kind} ${layer} ${index}`);
  }

  unit(unit) {
    const row = this.rows.get(`${unit.kind} ${unit.layer} ${unit.index}`);
    if (row === undefined) {
      const why = "is not on this page, to keep it small; that of a shorter text has every unit";
      this.legend.replaceChildren(`${unitName(unit)} ${why}`);
      return;
    }
    const { levels, scales, shown } = data.units;
    const values = this.row("units", row), step = scales[row] / levels;
    this.view.paint((i) => shade((values[i] * step) / shown[row]));
    signedLegend(this.legend, shown[row], `Activation of ${unitName(unit)}`);
    this.change({ unit, name: unitName(unit), tell: (i) => signed(values[i] * step) });
  }

  bits() {
    const { values } = this.arrays.bits;
    this.view.paint((i) => amount(values[i] / MANY_BITS));
    amountLegend(this.legend, "Surprisal", `${MANY_BITS} bits or more`);
    this.change({ name: "surprisal", tell: (i) => (values[i] < 0 ? "not scored" : `${values[i].toFixed(2)} bits`) });
  }

  rise(which) {
    const name = unitName(data.ablations[which].unit), values = this.row("rises", which);
    this.view.paint((i) => shade(values[i] / MUCH_WORSE));
    signedLegend(this.legend, MUCH_WORSE, `Rise of the loss, in bits, without ${name}`);
    this.change({ name: `rise without ${name}`, tell: (i) => `${signed(values[i])} bits` });
  }

  row(name, which) {
    const N = this.view.chars.length;
    return this.arrays[name].values.subarray(which * N, (which + 1) * N);
  }

  change(now) {
    this.now = now;
    this.listeners.forEach((listener) => listener(now));
    if (this.view.here >= 0) this.view.visit(this.view.here);
  }
}

function textSection(arrays) {
  const chars = Array.from(arrays.ids.values, (id) => String.fromCodePoint(data.about.vocab[id]));
  const detail = make("div", { class: "detail", id: "detail", role: "status" });
  const legend = make("div", { class: "legend", id: "legend" });
  const view = new TextView(chars, "The text", (i) => {
    detail.replaceChildren(...describe(arrays, chars, colouring.now, i));
  });
  const colouring = new Colouring(arrays, view, legend);
  view.element.id = "text";
  section(
    "the-text", "The text, coloured by one unit",
    say(
      `${count(chars.length, "character")} of ${data.about.source}, each shaded by what a unit was at right after ` +
        "the network read it. Point at a character, or go through the text with the arrow keys.",
    ),
    controls(colouring), legend, make("div", { class: "beside" }, view.element, detail),
  );
  return colouring;
}

/** The value of what is chosen, the cost of the character, and what is thought to come next. */
function describe(arrays, chars, chosen, i) {
  const cost = arrays.bits.values[i], best = arrays.guesses.shape[1];
  const line = chars.slice(0, i).filter((char) => char === "\n").length + 1;
  const column = i - (i ? chars.lastIndexOf("\n", i - 1) : -1);
  const rows = Array.from({ length: best }, (_, k) => {
    const char = String.fromCodePoint(data.about.vocab[arrays.guesses.values[i * best + k]]);
    const chance = arrays.chances.values[i * best + k] / 65535;
    return [boxed(char), percent(chance, 1), bar(chance, char === chars[i + 1] ? "next" : "")];
  });
  const came = () => say("Next comes ", boxed(chars[i + 1]), ` at ${arrays.bits.values[i + 1].toFixed(2)} bits.`);
  return [
    make("div", {}, make("bdi", { class: "big char" }, visible(chars[i])), ` line ${line}, place ${column}`),
    make(
      "dl", {},
      make("dt", {}, chosen.name), make("dd", { id: "value" }, chosen.tell(i)),
      make("dt", {}, "cost"), make("dd", {}, cost < 0 ? "the first: not predicted" : `${cost.toFixed(2)} bits`),
    ),
    table(["", { number: "chance" }, ""], rows, "Best guesses for the next"),
    ...(i + 1 < chars.length ? [came()] : []),
  ];
}

/** What chooses a unit, each control in step with the others. */
function controls(colouring) {
  const kinds = data.units.kinds;
  const sizeOf = (kind) => kinds.find((each) => each.kind === kind);
  const choices = kinds.map((each) => make("option", { value: each.kind }, NAMES[each.kind]));
  choices.push(make("option", { value: "bits" }, "surprisal"));
  const kind = make("select", { id: "kind", onchange: () => pick() }, ...choices);
  const layer = make("select", { id: "layer", onchange: () => pick() });
  const index = make("input", { id: "index", type: "number", min: 0, value: 0, oninput: () => pick() });
  const back = make("button", { id: "previous", "aria-label": "previous unit", onclick: () => step(-1) }, "\u2190");
  const on = make("button", { id: "next", "aria-label": "next unit", onclick: () => step(1) }, "\u2192");
  const marks = make("input", { type: "checkbox" });
  marks.addEventListener("change", () => colouring.view.element.classList.toggle("marks", marks.checked));

  const fill = () => {
    const { layers } = sizeOf(kind.value);
    if (layer.options.length !== layers) layer.replaceChildren(...options(layers));
  };
  const pick = () => {
    if (kind.value === "bits") return colouring.bits();
    fill();
    return colouring.unit({ kind: kind.value, layer: Number(layer.value), index: Number(index.value) });
  };
  const step = (by) => {
    const { size } = sizeOf(kind.value);
    index.value = (Number(index.value) + by + size) % size;
    pick();
  };
  const found = foundPicker(colouring);
  colouring.listeners.push(({ unit, name }) => {
    if (unit) {
      kind.value = unit.kind;
      fill();
      layer.value = unit.layer;
      if (Number(index.value) !== unit.index) index.value = unit.index;
      index.max = sizeOf(unit.kind).size - 1;
    } else if (name === "surprisal") kind.value = "bits";
    for (const control of [layer, index, back, on]) control.disabled = kind.value === "bits";
  });
  return make(
    "div", { class: "controls" },
    labelled("units that were found", found), labelled("colour by", kind), labelled("layer", layer),
    make("label", {}, "unit", make("span", { class: "together" }, back, index, on)),
    make("label", { class: "check" }, marks, "underline what is strong (dotted: below 0)"),
  );
}

/** The discoveries, to choose from. */
function foundPicker(colouring) {
  const found = data.search.filter((each) => each.discovery && colouring.has(each.units[0]));
  const none = make("option", { value: "" }, found.length ? "choose what is tracked" : "none stands out");
  const names = found.map((each, i) => make("option", { value: i }, `${each.feature}: ${unitName(each.units[0])}`));
  const picker = make("select", { id: "found-units" }, none, ...names);
  picker.addEventListener("change", () => picker.value !== "" && colouring.unit(found[picker.value].units[0]));
  colouring.listeners.push(({ unit }) => {
    const place = found.findIndex((each) => unit && unitName(each.units[0]) === unitName(unit));
    picker.value = place < 0 ? "" : place;
  });
  return picker;
}

/** A button that colours the text by a unit, and goes there. */
function unitButton(colouring, unit) {
  const show = () => {
    colouring.unit(unit);
    goTo("the-text");
  };
  const sign = unit.sign < 0 ? "\u2212" : "";
  return make("button", { onclick: show, title: "colour the text by it" }, sign + unitName(unit));
}
