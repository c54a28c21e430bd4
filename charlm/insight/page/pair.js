// A second unit beside the first: the same text again, in the colours of the second unit.

class Pair {
  constructor(colouring, describeAt) {
    Object.assign(this, { colouring, describeAt });
    this.second = null; // the second colouring, while it is shown
    this.element = make("div"); // its controls and legend
    this.box = make("div", { class: "second" }); // its text
    this.relation = make("p", { id: "correlation", role: "status" });
    colouring.listeners.push(() => this.describe());
  }

  /** What colours the texts: of the first, and of the second if it is shown. */
  chosen() {
    return [this.colouring, this.second].filter((each) => each?.chosen).map((each) => each.chosen);
  }

  show(on) {
    document.getElementById("show-second").checked = on;
    if (on) return this.open();
    this.second = null;
    this.colouring.view.others = [];
    this.element.replaceChildren();
    this.box.replaceChildren();
    return this.colouring.view.select(this.colouring.view.current);
  }

  open() {
    const { view, arrays } = this.colouring, legend = make("div", { class: "legend" });
    const other = new TextView(view.chars, "The text in the colours of the second unit", this.describeAt);
    other.element.id = "text-2";
    other.element.classList.toggle("marks", view.element.classList.contains("marks"));
    view.others = [other];
    other.others = [view];
    this.second = new Colouring(arrays, other, legend);
    const choose = make("div", { class: "controls" }, ...unitControls(this.second, "-2"));
    this.second.listeners.push(() => this.describe());
    this.element.replaceChildren(make("h3", {}, "The second unit"), choose, legend, this.relation);
    this.box.replaceChildren(other.element);
    this.second.unit(this.partner());
    other.element.scrollTop = view.element.scrollTop;
    view.select(view.current);
  }

  /** The unit to begin with: the second-best for a feature of the first unit, otherwise the next unit. */
  partner() {
    const [kind, layer, index] = data.units.rows[0];
    const first = this.colouring.chosen.unit ?? { kind, layer, index };
    const found = data.search.find((each) => unitName(each.units[0]) === unitName(first));
    const { size } = data.units.kinds.find((each) => each.kind === first.kind);
    return found?.units[1] ?? { ...first, index: (first.index + 1) % size };
  }

  describe() {
    const units = this.chosen().map((each) => each.unit);
    if (units.length < 2 || units.includes(undefined)) return this.relation.replaceChildren();
    const [a, b] = units.map((unit) => this.colouring.values(unit));
    const [first, second] = units.map(unitName);
    return this.relation.replaceChildren(
      `Correlation of ${first} and ${second} on this text: ${signed(correlation(a, b))} ` +
        "(1: they rise and fall together, 0: no linear relation, \u22121: one rises where the other falls).",
    );
  }
}

/** Pearson's correlation of two lists of numbers; 0 if one of them is constant. */
function correlation(a, b) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let ab = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] - meanA, b[i] - meanB];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / Math.sqrt(aa * bb) || 0;
}
