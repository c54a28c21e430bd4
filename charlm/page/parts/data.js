// The data of the page, helpers that make elements, and characters in a visible form.

const data = JSON.parse(document.getElementById("data").textContent);
const KINDS = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
const NAMES = { h: "hidden h", c: "cell c", mlp: "MLP unit", x: "residual x", attention: "attention of head" };
for (const gate of ["input", "forget", "output", "reset", "update"]) NAMES[gate] = `${gate} gate`;

/** An array of the page: its values in row-major order, and its shape. */
async function unpack(name) {
  const element = document.getElementById(`array-${name}`);
  const text = atob(element.textContent), packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  element.remove();
  const values = new KINDS[element.dataset.kind](bytes);
  return { values, shape: element.dataset.shape.split("x").map(Number) };
}

/** An element with attributes, event handlers (`onclick`) and children. Strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A section of the page, with a link in the contents. */
function section(id, title, ...children) {
  document.getElementById("contents").append(make("a", { href: `#${id}` }, title));
  const element = make("section", { id, "aria-label": title }, make("h2", {}, title), ...children);
  document.getElementById("main").append(element);
  return element;
}

function paragraph(...parts) {
  return make("p", {}, ...parts);
}

/** Scroll to a part of the page. */
function goTo(id) {
  document.getElementById(id).scrollIntoView();
}

/** Options 1 to n, with the values 0 to n - 1. */
function options(n) {
  return Array.from({ length: n }, (_, i) => make("option", { value: i }, `${i + 1}`));
}

function labelled(label, control) {
  return make("label", {}, label, control);
}

// Control, format, unassigned and invisible characters. The page shows their codes, so they have no effect.
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;
const MARK = /\p{M}/u;

/** A visible form of a character. */
function visible(char) {
  if (char === "\n") return "\u21b5";
  if (char === "\t") return "\u21e5";
  if (char === " ") return "\u2423";
  if (data.about.unit === "byte" && char > "\x7f") return hex(char.codePointAt(0), 2, "\\x");
  if (INVISIBLE.test(char)) {
    const code = char.codePointAt(0);
    return code >= 0xdc80 && code <= 0xdcff ? hex(code & 0xff, 2, "\\x") : hex(code, 4, "U+");
  }
  return MARK.test(char) ? `\u25cc${char}` : char;
}

function hex(code, digits, prefix) {
  return prefix + code.toString(16).toUpperCase().padStart(digits, "0");
}

/** A text in which invisible characters are replaced by their codes. */
function readable(text) {
  return Array.from(text, (char) => (char === "\n" || char === "\t" || char === " " ? char : visible(char))).join("");
}

/** A character in a box. */
function boxed(char) {
  return make("bdi", { class: "char" }, visible(char));
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function percent(share, digits = 0) {
  return share === null ? "" : `${(100 * share).toFixed(digits)}\u00a0%`;
}

function signed(value, digits = 2) {
  return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
}

/** The number of the first unit of a kind: heads are counted from 1, as layers are, and units from 0. */
function firstOf(kind) {
  return kind === "attention" ? 1 : 0;
}

/** `cell c 413`, with the layer if there are several. */
function unitName({ kind, layer, index }) {
  const layers = data.units.kinds.find((each) => each.kind === kind).layers;
  return `${NAMES[kind]} ${index + firstOf(kind)}${layers > 1 ? `, layer ${layer + 1}` : ""}`;
}
