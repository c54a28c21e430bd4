// A text in which each character can be coloured, and selected with the pointer or the arrow keys.

const MAX_SURPRISAL = 8; // bits, for the strongest shade
const STEPS = 7; // shades on each side of zero, as in style.css

/** The CSS class of a value from -1 to 1. */
function shade(value) {
  const step = Math.min(STEPS, Math.round(Math.abs(value) * STEPS));
  return step < 1 ? "" : (value < 0 ? "n" : "p") + step;
}

/** The CSS class of a value from 0 to 1. */
function amount(value) {
  const step = Math.min(STEPS, Math.round(value * STEPS));
  return step < 1 ? "" : `s${step}`;
}

class TextView {
  /** Shows `chars`. `onselect(position)` is called when a character is selected. */
  constructor(chars, label, onselect) {
    this.chars = [];
    this.current = -1; // the selected position
    this.onselect = onselect;
    this.stretch = null; // the selected stretch, [first, last]
    this.others = []; // views of the same text that show the same position and scroll together
    this.baseClasses = []; // of each character, whatever its colour
    this.spans = [];
    this.classes = [];
    this.lines = [0]; // where each line begins
    this.element = make("div", {
      class: "text", tabindex: "0", role: "application",
      "aria-label": `${label}. Use the arrow keys to move.`,
      onmousemove: (event) => this.onPointer(event), onclick: (event) => this.onPointer(event),
      onkeydown: (event) => this.onKey(event), onfocus: () => this.current < 0 && this.chars.length && this.select(0),
      onscroll: () => this.others.forEach(({ element }) => (element.scrollTop = this.element.scrollTop)),
    });
    this.append(chars);
  }

  /** Add characters at the end. Each line is a block of its own, so that the others keep their layout. */
  append(chars) {
    for (const char of chars) {
      const position = this.chars.length;
      if (position && this.chars[position - 1] === "\n") this.lines.push(position);
      if (!position || this.lines.at(-1) === position) this.element.append(make("div"));
      this.chars.push(char);
      this.spans.push(this.span(char, position));
      this.classes.push("");
      this.element.lastChild.append(this.spans[position]);
    }
  }

  /** Remove all but the first `length` characters. */
  truncate(length) {
    if (length >= this.chars.length) return;
    for (const span of this.spans.slice(length)) span.remove();
    for (const list of [this.chars, this.spans, this.classes, this.baseClasses]) list.length = length;
    this.lines = this.lines.filter((start) => start === 0 || start < length);
    while (this.element.lastChild && !this.element.lastChild.hasChildNodes()) this.element.lastChild.remove();
    if (this.current >= length) this.current = -1;
  }

  span(char, position) {
    const name = visible(char);
    const plain = char === " " || name === char;
    this.baseClasses.push(plain ? "" : char === "\n" || char === "\t" ? "sign" : "code");
    const span = make("i", { class: this.baseClasses[position] || null }, plain ? char : name);
    span.position = position;
    return span;
  }

  /** Give each character the class `classOf(position)`. */
  paint(classOf) {
    for (let i = 0; i < this.spans.length; i++) {
      const name = classOf(i);
      if (name !== this.classes[i]) {
        this.classes[i] = name;
        this.setClass(i);
      }
    }
  }

  setClass(i) {
    const current = i === this.current ? "current" : "";
    const picked = this.stretch && i >= this.stretch[0] && i <= this.stretch[1] ? "picked" : "";
    this.spans[i].className = `${this.baseClasses[i]} ${this.classes[i]} ${current} ${picked}`.trim();
  }

  select(position) {
    for (const view of [this, ...this.others]) view.mark(position);
    this.onselect(position);
  }

  mark(position) {
    const before = this.current;
    this.current = position;
    if (before >= 0) this.setClass(before);
    this.setClass(position);
  }

  /** Mark the characters `first` to `last` as the selected stretch. */
  pick(first, last) {
    const before = this.stretch ?? [0, -1];
    this.stretch = [first, last];
    for (const [from, to] of [before, this.stretch]) for (let i = from; i <= to; i++) this.setClass(i);
  }

  /** Select a character, and scroll to it if it is not in view. */
  reveal(position) {
    this.select(position);
    const box = this.element, span = this.spans[position];
    const inner = span.getBoundingClientRect(), outer = box.getBoundingClientRect();
    if (inner.top < outer.top || inner.bottom > outer.bottom) {
      box.scrollTop += inner.top - outer.top - box.clientHeight / 3;
    }
  }

  /** On mousemove, not mouseover: text that scrolls under a resting pointer selects nothing. */
  onPointer(event) {
    const position = positionOf(event.target);
    if (position !== undefined && position !== this.current) this.select(position);
  }

  onKey(event) {
    const last = this.chars.length - 1, at = Math.max(0, this.current);
    const line = this.lines.findLastIndex((start) => start <= at);
    const column = at - this.lines[line];
    const end = (i) => (this.lines[i + 1] ?? last + 1) - 1;
    const inLine = (i) => (i < 0 ? 0 : i >= this.lines.length ? last : Math.min(this.lines[i] + column, end(i)));
    const targets = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowUp: inLine(line - 1), ArrowDown: inLine(line + 1),
      Home: this.lines[line], End: end(line), PageUp: inLine(line - 10), PageDown: inLine(line + 10),
    };
    if (!this.chars.length || !(event.key in targets) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const target = Math.min(last, Math.max(0, targets[event.key]));
    if (event.shiftKey) this.extend(at, target);
    this.reveal(target);
  }

  /** Move the end of the browser's selection from `at` to `target`; without a selection, begin one at `at`. */
  extend(at, target) {
    const selection = getSelection(), from = positionOf(selection.anchorNode) ?? at;
    const anchor = selection.isCollapsed ? at : from;
    selection.setBaseAndExtent(this.spans[anchor], anchor > target ? 1 : 0, this.spans[target], anchor > target ? 0 : 1);
  }
}

/** The position of the character that a node belongs to; undefined for none. */
function positionOf(node) {
  return (node?.nodeType === Node.TEXT_NODE ? node.parentElement : node)?.closest?.("i")?.position;
}

/** The shades of the steps `from` to STEPS, side by side. */
function ramp(from, classOf) {
  const steps = Array.from({ length: STEPS - from + 1 }, (_, i) => make("i", { class: classOf((from + i) / STEPS) }));
  return make("span", { class: "ramp", "aria-hidden": "true" }, ...steps);
}

/** The legend of a signed value from -scale to +scale. */
function signedLegend(element, scale, label) {
  const note = make("span", { class: "quiet" }, "or more (blue: below 0, orange: above 0)");
  element.replaceChildren(label, ` ${signed(-scale)} `, ramp(-STEPS, shade), ` ${signed(scale)} `, note);
}

/** The legend of an amount from 0 to the text `limit`. */
function amountLegend(element, label, limit) {
  element.replaceChildren(`${label} 0 `, ramp(0, amount), ` ${limit}`);
}
