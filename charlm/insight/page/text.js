// A text whose every character can be coloured, pointed at and reached by the arrow keys.

const STEPS = 7; // shades on each side of zero, as the style has them

/** The class of a value from -1 to 1. */
function shade(value) {
  const step = Math.min(STEPS, Math.round(Math.abs(value) * STEPS));
  return step < 1 ? "" : (value < 0 ? "n" : "p") + step;
}

/** The class of a value from 0 to 1 that has no sign. */
function amount(value) {
  const step = Math.min(STEPS, Math.round(value * STEPS));
  return step < 1 ? "" : `s${step}`;
}

class TextView {
  /** Shows `chars`; `onvisit(place)` is called for the character pointed at, or gone to by key. */
  constructor(chars, label, onvisit) {
    this.chars = chars;
    this.here = -1;
    this.onvisit = onvisit;
    this.kinds = []; // the class that a character always has
    this.spans = chars.map((char, i) => this.span(char, i));
    this.classes = new Array(chars.length).fill("");
    this.element = make("div", {
      class: "text", tabindex: "0", role: "application",
      "aria-label": `${label}; the arrow keys go from character to character`,
      onmouseover: (event) => this.point(event), onclick: (event) => this.point(event),
      onkeydown: (event) => this.key(event), onfocus: () => this.here < 0 && this.visit(0),
    });
    this.spans.forEach((span, i) => this.element.append(span, ...(chars[i] === "\n" ? ["\n"] : [])));
    this.lines = [0]; // where each line begins
    chars.forEach((char, i) => char === "\n" && i + 1 < chars.length && this.lines.push(i + 1));
  }

  span(char, place) {
    const name = visible(char);
    const plain = char === " " || name === char;
    this.kinds.push(plain ? "" : char === "\n" || char === "\t" ? "sign" : "code");
    const span = make("i", { class: this.kinds[place] || null }, plain ? char : name);
    span.place = place;
    return span;
  }

  /** Give each character the class that `classOf(place)` says. */
  paint(classOf) {
    for (let i = 0; i < this.spans.length; i++) {
      const name = classOf(i);
      if (name !== this.classes[i]) {
        this.classes[i] = name;
        this.dress(i);
      }
    }
  }

  dress(i) {
    this.spans[i].className = `${this.kinds[i]} ${this.classes[i]} ${i === this.here ? "here" : ""}`.trim();
  }

  visit(place) {
    const before = this.here;
    this.here = place;
    if (before >= 0) this.dress(before);
    this.dress(place);
    this.onvisit(place);
  }

  /** Go to a character that may be out of sight. */
  go(place) {
    this.visit(place);
    const box = this.element, span = this.spans[place];
    const inner = span.getBoundingClientRect(), outer = box.getBoundingClientRect();
    if (inner.top < outer.top || inner.bottom > outer.bottom) {
      box.scrollTop += inner.top - outer.top - box.clientHeight / 3;
    }
  }

  point(event) {
    if (event.target.place !== undefined) this.visit(event.target.place);
  }

  key(event) {
    const last = this.chars.length - 1, at = Math.max(0, this.here);
    const line = this.lines.findLastIndex((start) => start <= at);
    const column = at - this.lines[line];
    const end = (i) => (this.lines[i + 1] ?? last + 1) - 1;
    const inLine = (i) => (i < 0 ? 0 : i >= this.lines.length ? last : Math.min(this.lines[i] + column, end(i)));
    const places = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowUp: inLine(line - 1), ArrowDown: inLine(line + 1),
      Home: this.lines[line], End: end(line), PageUp: inLine(line - 10), PageDown: inLine(line + 10),
    };
    if (!(event.key in places) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.go(Math.min(last, Math.max(0, places[event.key])));
  }
}

/** Shades side by side, from a step to STEPS. */
function ramp(from, classOf) {
  const steps = Array.from({ length: STEPS - from + 1 }, (_, i) => make("i", { class: classOf((from + i) / STEPS) }));
  return make("span", { class: "ramp", "aria-hidden": "true" }, ...steps);
}

/** The scale of a signed value, -scale to +scale. */
function signedLegend(element, scale, what) {
  const note = make("span", { class: "quiet" }, "or more; blue is below 0, orange above");
  element.replaceChildren(what, ` ${signed(-scale)} `, ramp(-STEPS, shade), ` ${signed(scale)} `, note);
}

/** The scale of an amount, from 0 to what `most` says. */
function amountLegend(element, what, most) {
  element.replaceChildren(`${what} 0 `, ramp(0, amount), ` ${most}`);
}
