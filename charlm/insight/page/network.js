// A drawing of the network with its sizes, and the map of the character embeddings.

const DRAWING = { width: 336, left: 18, box: 262, height: 62, gap: 26 }; // pixels
const MAX_MAPPED = 200; // characters
const CLASS_COLOURS = {
  "small letter": "var(--layer-0)", "letter without case": "var(--layer-0)", capital: "var(--layer-1)",
  digit: "var(--layer-2)", space: "var(--layer-3)", "line end": "var(--layer-3)", punctuation: "var(--ink)",
  other: "var(--quiet)",
};

function networkSection() {
  section(
    "words", "The network, and the words of this page",
    make("div", { class: "columns" }, make("div", {}, networkDrawing(data.network), totalLine(data.network)), wordList(words())),
  );
}

function totalLine(parts) {
  const total = parts.reduce((sum, part) => sum + part.parameters, 0);
  return paragraph(`Together ${count(total, "parameter")}: the numbers that training changes.`);
}

/** The parts as boxes from the input down to the output. A recurrent layer has an arrow back to itself. */
function networkDrawing(parts) {
  const { width, left, box, height, gap } = DRAWING, total = parts.length * (height + gap) - gap + 4;
  const label = `The network: ${parts.map((part) => `${part.name}, ${part.detail}`).join("; ")}`;
  const drawing = svg("svg", { class: "network", width, height: total, viewBox: `0 0 ${width} ${total}`, role: "img", "aria-label": label });
  const middle = left + box / 2;
  parts.forEach((part, i) => {
    const top = 2 + i * (height + gap);
    drawing.append(svg("rect", { class: "box", x: left, y: top, width: box, height, rx: 8 }));
    const line = (y, text, name) => svg("text", { class: name, x: middle, y: top + y, "text-anchor": "middle" }, text);
    drawing.append(line(19, part.name, "title"), line(36, part.detail, ""));
    if (part.parameters) drawing.append(line(53, count(part.parameters, "parameter"), "quiet"));
    if (i + 1 < parts.length) drawing.append(...arrowDown(middle, top + height, gap, part.size));
    if (part.kind === "layer") drawing.append(...loop(left + box, top, height));
  });
  const repeated = parts.findIndex((part) => part.kind === "attention");
  if (repeated >= 0) drawing.append(...repeatFrame(2 + repeated * (height + gap), parts[repeated].times));
  return drawing;
}

function arrowDown(x, y, length, size) {
  const end = y + length;
  return [
    svg("path", { class: "flow", d: `M${x},${y}V${end - 2}m-4,-6l4,6l4,-6` }),
    svg("text", { class: "quiet", x: x + 9, y: end - 9 }, size.toLocaleString("en")),
  ];
}

/** An arrow from a layer back to itself: it reads its own state of the character before. */
function loop(x, top, height) {
  const [from, to] = [top + height - 14, top + 14];
  return [
    svg("path", { class: "flow", d: `M${x},${from}h18q10,0 10,-10v${to - from + 20}q0,-10 -10,-10h-16m6,-4l-6,4l6,4` }),
    svg("text", { class: "quiet", transform: `translate(${x + 44},${top + height / 2}) rotate(-90)`, "text-anchor": "middle" }, "its state"),
  ];
}

/** A frame around attention and MLP, which are repeated in turn. */
function repeatFrame(top, times) {
  const { left, box, height, gap } = DRAWING;
  return [
    svg("rect", { class: "frame", x: left - 12, y: top - 9, width: box + 24, height: 2 * height + gap + 18, rx: 10 }),
    svg("text", { class: "title", x: left + box + 18, y: top + height + gap / 2 + 4 }, `\u00d7 ${times}`),
  ];
}

/** The map of the embeddings: similar characters are near to each other. */
function mapSection() {
  const { xy, shares, source, classes } = data.embeddings, { vocab } = data.about;
  if (xy.length < 3) return;
  const counts = new Map();
  for (const char of state.chars) counts.set(char, (counts.get(char) ?? 0) + 1);
  const chars = vocab.map((code) => String.fromCodePoint(code));
  const order = chars.map((_, i) => i).sort((a, b) => (counts.get(chars[b]) ?? 0) - (counts.get(chars[a]) ?? 0));
  const shown = order.slice(0, MAX_MAPPED);
  const names = [...new Set(shown.map((i) => classes[i]))];
  const legend = names.map((name) => {
    const part = make("span", {}, `\u25cf ${name} `);
    part.style.color = CLASS_COLOURS[name];
    return part;
  });
  const points = shown.map((i) => ({ at: xy[i], name: visible(chars[i]), colour: CLASS_COLOURS[classes[i]] }));
  const few = shown.length < chars.length ? ` The ${shown.length} most frequent of ${chars.length} characters.` : "";
  const element = section(
    "map", "Map of the characters",
    paragraph(
      `Each character has a vector: ${source}. The map shows these vectors on their first two principal components, which ` +
        `have ${percent(shares[0] + shares[1])} of the variance. Characters that the network treats alike are often near ` +
        `to each other.${few}`,
    ),
    paragraph(...legend),
  );
  const box = make("div");
  const draw = () => box.replaceChildren(charMap(Math.min(820, element.clientWidth), points, shares));
  element.append(box);
  draw();
  addEventListener("resize", draw);
}

function charMap(width, points, shares) {
  const ends = (axis) => {
    const values = points.map(({ at }) => at[axis]), low = Math.min(...values), high = Math.max(...values);
    const spread = (high - low) * 0.05 || 1;
    return [low - spread, high + spread];
  };
  const label = (axis) => `component ${axis + 1} (${percent(shares[axis])} of the variance)`;
  const { drawing, x, y } = axes(width, Math.min(560, width), ends(0), ends(1), label(0), label(1));
  for (const { at, name, colour } of points.toReversed()) { // the most frequent on top
    const place = { x: x(at[0]), y: y(at[1]) + 5, "text-anchor": "middle", fill: colour, class: "mapped" };
    drawing.append(svg("text", place, name));
  }
  return drawing;
}
