// The text, coloured by a unit, by surprisal, or by the rise of the loss without a unit.

const MAX_RISE = 3; // bits, for the strongest shade

/** What colours the text. Sections and controls set it; `listeners` are called at each change. */
class Colouring {
  constructor(arrays, view, legend) {
    Object.assign(this, { arrays, view, legend });
    this.rows = new Map(data.units.rows.map((unit, row) => [unit.join(" "), row]));
    this.listeners = [];
    this.chosen = null; // {name, valueAt(position)}, and for a unit also {unit}
  }

  /** The row of a unit in the arrays; undefined if the page leaves it out. */
  rowOf({ kind, layer, index }) {
    return this.rows.get(`${kind} ${layer} ${index}`);
  }

  /** The values (N,) of a unit, in steps of its scale. */
  values(unit) {
    return this.row("units", this.rowOf(unit));
  }

  unit(unit) {
    const row = this.rowOf(unit);
    if (row === undefined) {
      const why = "is left out to limit the size of this page. Use a smaller --length to see every unit.";
      this.legend.replaceChildren(`${unitName(unit)} ${why}`);
      return;
    }
    const { levels, scales, shown } = data.units;
    const values = this.values(unit), step = scales[row] / levels;
    this.view.paint((i) => shade((values[i] * step) / shown[row]));
    signedLegend(this.legend, shown[row], `Activation of ${unitName(unit)}`);
    this.change({ unit, name: unitName(unit), valueAt: (i) => signed(values[i] * step) });
  }

  bits() {
    const { values } = this.arrays.bits;
    this.view.paint((i) => amount(values[i] / MAX_SURPRISAL));
    amountLegend(this.legend, "Surprisal", `${MAX_SURPRISAL} bits or more`);
    const valueAt = (i) => (values[i] < 0 ? "not predicted" : `${values[i].toFixed(2)} bits`);
    this.change({ name: "surprisal", valueAt });
  }

  rise(which) {
    const name = unitName(data.ablations[which].unit), values = this.row("rises", which);
    this.view.paint((i) => shade(values[i] / MAX_RISE));
    signedLegend(this.legend, MAX_RISE, `Rise of the loss in bits without ${name}`);
    this.change({ name: `rise without ${name}`, valueAt: (i) => `${signed(values[i])} bits` });
  }

  /** Colour by how many of some units are on, each {unit, sign}. */
  on(units) {
    const counts = countOn(this, units), name = `of ${count(units.length, "unit")} on`;
    this.view.paint((i) => amount(counts[i] / units.length));
    amountLegend(this.legend, "Units on", `${units.length}`);
    this.change({ name, valueAt: (i) => `${counts[i]}` });
  }

  /** One row (N,) of an array (rows, N). */
  row(name, which) {
    const N = this.view.chars.length;
    return this.arrays[name].values.subarray(which * N, (which + 1) * N);
  }

  change(chosen) {
    this.chosen = chosen;
    this.listeners.forEach((listener) => listener(chosen));
    if (this.view.current >= 0) this.view.select(this.view.current);
  }
}

function textSection(arrays) {
  const chars = Array.from(arrays.ids.values, (id) => String.fromCodePoint(data.about.vocab[id]));
  const detail = make("div", { class: "detail", id: "detail", role: "status" });
  const legend = make("div", { class: "legend", id: "legend" });
  const describeAt = (i) => detail.replaceChildren(...describe(arrays, chars, pair.chosen(), i));
  const view = new TextView(chars, "The text", describeAt);
  const colouring = new Colouring(arrays, view, legend);
  const pair = new Pair(colouring, describeAt), guesses = new Guesses(arrays, view);
  view.element.id = "text";
  section(
    "the-text", "The text, coloured by a unit",
    paragraph(
      `${count(chars.length, "character")} of ${data.about.source}. The colour of a character shows the activation of ` +
        "a unit after the network read it. Point at a character, or use the arrow keys, to see its numbers. ",
      make("a", { href: "#words" }, "What do these words mean?"),
    ),
    controls(colouring, pair, guesses), legend, guesses.legend, pair.element,
    make("div", { class: "beside" }, make("div", { class: "texts" }, view.element, pair.box), detail),
  );
  return colouring;
}

/** The numbers of one character: the chosen values, the loss, and the most likely next characters. */
function describe(arrays, chars, chosen, i) {
  const loss = arrays.bits.values[i];
  const line = chars.slice(0, i).filter((char) => char === "\n").length + 1;
  const column = i - (i ? chars.lastIndexOf("\n", i - 1) : -1);
  const rows = guessesAt(arrays, i).map(({ char, probability }) => [
    boxed(char), percent(probability, 1), bar(probability, char === chars[i + 1] ? "next" : ""),
  ]);
  const next = () => {
    const bits = arrays.bits.values[i + 1].toFixed(2);
    return paragraph("The next character is ", boxed(chars[i + 1]), ` (${bits} bits).`);
  };
  return [
    make("div", {}, make("bdi", { class: "big char" }, visible(chars[i])), ` line ${line}, column ${column}`),
    make(
      "dl", {},
      ...chosen.flatMap(({ name, valueAt }) => [make("dt", {}, name), make("dd", { class: "value" }, valueAt(i))]),
      make("dt", {}, "loss"), make("dd", {}, loss < 0 ? "none (first character)" : `${loss.toFixed(2)} bits`),
    ),
    make("div", { class: "guesses" }, table(["", { number: "probability" }, ""], rows, "Most likely next characters")),
    ...(i + 1 < chars.length ? [next()] : []),
  ];
}

/** The controls above the text. */
function controls(colouring, pair, guesses) {
  const { view } = colouring;
  return make(
    "div", { class: "controls" },
    labelled("discoveries", foundPicker(colouring)), ...unitControls(colouring),
    check("show-guesses", "guesses under each character", (on) => {
      pair.show(false);
      guesses.show(on);
    }),
    check("show-second", "two units side by side", (on) => {
      guesses.show(false);
      pair.show(on);
    }),
    check("show-marks", "underline strong values (dotted: below 0)", (on) => view.element.classList.toggle("marks", on)),
  );
}

/** A menu of the discoveries. */
function foundPicker(colouring) {
  const found = data.search.filter((each) => each.discovery && colouring.rowOf(each.units[0]) !== undefined);
  const none = make("option", { value: "" }, found.length ? "choose a feature" : "none");
  const names = found.map((each, i) => make("option", { value: i }, `${each.feature}: ${unitName(each.units[0])}`));
  const picker = make("select", { id: "found-units" }, none, ...names);
  picker.addEventListener("change", () => picker.value !== "" && colouring.unit(found[picker.value].units[0]));
  colouring.listeners.push(({ unit }) => {
    const which = found.findIndex((each) => unit && unitName(each.units[0]) === unitName(unit));
    picker.value = which < 0 ? "" : which;
  });
  return picker;
}

/** A button that colours the text by a unit, and scrolls to the text. */
function unitButton(colouring, unit) {
  const show = () => {
    colouring.unit(unit);
    goTo("the-text");
  };
  const sign = unit.sign < 0 ? "\u2212" : "";
  return make("button", { onclick: show, title: "colour the text by this unit" }, sign + unitName(unit));
}
